"""Answers of GitHub's API, read without I/O: limits, pages, single sign-on, people, repositories.

Source: docs.github.com, "Rate limits for the REST API", "Using pagination in the REST API",
"List repositories for the authenticated user".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

MAX_WAIT_S = 3600.0
MIN_WAIT_S = 1.0
LIMITED_WAIT_S = 60.0
MAX_TEXT = 2000
MAX_GITHUB_ID = (1 << 63) - 1

_NEXT = re.compile(r'<([^<>\s]{1,2000})>\s*;\s*rel="next"')
_SSO_URL = re.compile(r"(?:^|;)\s*url=([^\s;]{1,1000})")
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?(?:\[bot\])?")


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a token acts for.

    Args:
        scopes: What the token may do; None where GitHub does not say (GitHub Apps).
    """

    github_id: int
    login: str
    name: str | None
    scopes: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository, in GitHub's own words."""

    id: int
    name: str
    full_name: str
    description: str | None
    html_url: str
    clone_url: str
    ssh_url: str
    private: bool
    default_branch: str
    created_at: str
    updated_at: str
    pushed_at: str
    language: str | None
    stargazers_count: int
    open_issues_count: int


def is_limit(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether an answer means "later", not "no": 403 has both meanings."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    if status != HTTPStatus.FORBIDDEN:
        return False
    return (
        headers.get("x-ratelimit-remaining") == "0"
        or "retry-after" in headers
        or b"rate limit" in body[:4096].lower()
    )


def wait_s(headers: Mapping[str, str], now: datetime) -> float:
    """Return after how many seconds a limited request is worth another try; within an hour."""
    retry_after = headers.get("retry-after", "")
    if retry_after.isdecimal() and len(retry_after) < 10:  # noqa: PLR2004
        return _bounded(float(retry_after))
    reset = headers.get("x-ratelimit-reset", "")
    if reset.isdecimal() and len(reset) < 12:  # noqa: PLR2004
        return _bounded(float(reset) - now.timestamp())
    return LIMITED_WAIT_S


def next_url(headers: Mapping[str, str], api_url: str) -> str | None:
    """Return where the next page is; None at the end, or where it is not the API's own."""
    found = _NEXT.search(headers.get("link", "")[:8000])
    if found is None or not found[1].startswith(api_url + "/"):
        return None
    return found[1]


def sso_url(headers: Mapping[str, str], web_url: str) -> str | None:
    """Return where a person opens an organization's repositories by its single sign-on."""
    found = _SSO_URL.search(headers.get("x-github-sso", "")[:4000])
    if found is None or origin_of(found[1]) != origin_of(web_url):
        return None
    return found[1]


def read_person(body: object, headers: Mapping[str, str]) -> Person | None:
    """Read the answer of `GET /user`; None when it is not one."""
    fields = _mapping(body)
    github_id, login = fields.get("id"), fields.get("login")
    if isinstance(github_id, bool) or not isinstance(github_id, int):
        return None
    if not 0 < github_id <= MAX_GITHUB_ID or not isinstance(login, str):
        return None
    if _LOGIN.fullmatch(login) is None:
        return None
    scopes = headers.get("x-oauth-scopes")
    return Person(
        github_id, login, _line(fields.get("name")), None if scopes is None else scopes[:1000]
    )


def read_repositories(body: object) -> list[Repository]:
    """Read a list of repositories, bare or as an installation's; what is none is left out."""
    fields = _mapping(body)
    items = fields.get("repositories") if fields else body
    read = (_repository(_mapping(item)) for item in _sequence(items))
    return [one for one in read if one is not None]


def read_installations(body: object) -> list[tuple[int, str | None]]:
    """Read the installations of an app that a person can use: their ids and the app's name."""
    found: list[tuple[int, str | None]] = []
    for item in _sequence(_mapping(body).get("installations")):
        fields = _mapping(item)
        number = fields.get("id")
        if isinstance(number, int) and not isinstance(number, bool) and number > 0:
            slug = fields.get("app_slug")
            known = isinstance(slug, str) and re.fullmatch(r"[a-z0-9-]{1,100}", slug)
            found.append((number, slug if known else None))
    return found


def matching(repositories: Iterable[Repository], query: str | None) -> list[Repository]:
    """Return those whose name or description has every word of the query."""
    words = (query or "").casefold().split()
    return [
        one
        for one in repositories
        if all(word in f"{one.full_name} {one.description or ''}".casefold() for word in words)
    ]


def ordered(repositories: Iterable[Repository], sort: str) -> list[Repository]:
    """Return each repository once, in the order that GitHub itself uses for this word."""
    each = {one.id: one for one in repositories}.values()
    if sort == "full_name":
        return sorted(each, key=lambda one: one.full_name.casefold())
    keys = {"created": "created_at", "updated": "updated_at", "pushed": "pushed_at"}
    name = keys[sort]
    by_name = sorted(each, key=lambda one: one.full_name.casefold())
    return sorted(by_name, key=lambda one: getattr(one, name), reverse=True)


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a URL; None when it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _repository(fields: Mapping[str, Any]) -> Repository | None:
    number, name = fields.get("id"), _line(fields.get("name"))
    full_name, clone_url = _line(fields.get("full_name")), _line(fields.get("clone_url"))
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    if name is None or full_name is None or clone_url is None:
        return None
    return Repository(
        id=number,
        name=name,
        full_name=full_name,
        description=_line(fields.get("description")),
        html_url=_line(fields.get("html_url")) or "",
        clone_url=clone_url,
        ssh_url=_line(fields.get("ssh_url")) or "",
        private=fields.get("private") is True,
        default_branch=_line(fields.get("default_branch")) or "",
        created_at=_line(fields.get("created_at")) or "",
        updated_at=_line(fields.get("updated_at")) or "",
        pushed_at=_line(fields.get("pushed_at")) or "",
        language=_line(fields.get("language")),
        stargazers_count=_count(fields.get("stargazers_count")),
        open_issues_count=_count(fields.get("open_issues_count")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list) else ()


def _line(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    # A lone surrogate, which JSON can spell, could not be sent on; a NUL not be stored.
    clean = value.encode("utf-8", "replace").decode().replace("\0", "�")
    return clean[:MAX_TEXT]


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _bounded(seconds: float) -> float:
    return min(max(seconds, MIN_WAIT_S), MAX_WAIT_S)
