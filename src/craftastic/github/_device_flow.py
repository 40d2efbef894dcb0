"""Answers of GitHub's login endpoints, read without I/O: bodies before statuses.

Source: docs.github.com, "Authorizing OAuth apps", "Generating a user access token for a GitHub
App", "Refreshing user access tokens": errors come with status 200 and a field `error`, and what
did not ask for JSON gets a form.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, cast
from urllib.parse import parse_qsl

Kind = Literal["oauth", "app"]

DEFAULT_INTERVAL_S = 5.0
MAX_INTERVAL_S = 300.0
DEFAULT_EXPIRY_S = 900.0
MAX_EXPIRY_S = 3600.0
MAX_TOKEN_LIFE_S = 400 * 86400.0
MAX_TOKEN_CHARACTERS = 1024
MAX_FIELDS = 50

PENDING = "authorization_pending"
SLOW_DOWN = "slow_down"
EXPIRED = "expired_token"
BAD_CLIENT = "incorrect_client_credentials"
BAD_REFRESH = "bad_refresh_token"
UNKNOWN = "unknown_error"

KNOWN_ERRORS = frozenset(
    {
        PENDING,
        SLOW_DOWN,
        EXPIRED,
        BAD_CLIENT,
        BAD_REFRESH,
        "access_denied",
        "bad_verification_code",
        "device_flow_disabled",
        "incorrect_device_code",
        "unsupported_grant_type",
        "unverified_user_email",
    }
)
SYNONYMS = {"token_expired": EXPIRED}

_ERROR = re.compile(r"[a-z][a-z0-9_]{0,63}")
_USER_CODE = re.compile(r"[A-Za-z0-9-]{4,32}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SCOPE = re.compile(r"[A-Za-z0-9:_./-]{1,100}")

# Source: docs.github.com, "Scopes for OAuth apps": what each of them includes.
INCLUDED: Mapping[str, frozenset[str]] = {
    "repo": frozenset(
        {"repo:status", "repo_deployment", "public_repo", "repo:invite", "security_events"}
    ),
    "user": frozenset({"read:user", "user:email", "user:follow"}),
    "admin:org": frozenset({"write:org", "read:org", "manage_runners:org"}),
    "write:org": frozenset({"read:org"}),
    "admin:public_key": frozenset({"write:public_key", "read:public_key"}),
    "write:public_key": frozenset({"read:public_key"}),
    "admin:repo_hook": frozenset({"write:repo_hook", "read:repo_hook"}),
    "write:repo_hook": frozenset({"read:repo_hook"}),
    "admin:gpg_key": frozenset({"write:gpg_key", "read:gpg_key"}),
    "write:gpg_key": frozenset({"read:gpg_key"}),
    "write:packages": frozenset({"read:packages"}),
    "project": frozenset({"read:project"}),
}


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """What a login endpoint sent, as it came.

    Args:
        retry_after_s: From the header `Retry-After`, None without one.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """The beginning of a flow; the user types `user_code`, `device_code` is a secret of ours."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    expires_in_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Tokens, and how long they live; None where they do not end by themselves."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    kind: Kind
    scopes: tuple[str, ...]
    access_ttl_s: float | None
    refresh_ttl_s: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """GitHub said no, or not yet: one of its error codes."""

    error: str
    interval_s: float | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """No answer that means anything: overloaded, limited, broken. Nothing is known from it."""

    status: int
    retry_after_s: float | None = None


def read_device_code(answer: LoginAnswer) -> DeviceCode | Refused | Later:
    """Read the answer to the request for a device code."""
    fields = _fields(answer.body)
    if "error" in fields:
        return _refusal(answer, fields)
    code, user_code = _token(fields.get("device_code")), fields.get("user_code")
    if answer.status != HTTPStatus.OK or code is None or not isinstance(user_code, str):
        return _nothing(answer)
    if _USER_CODE.fullmatch(user_code) is None:
        return _nothing(answer)
    uri = fields.get("verification_uri")
    return DeviceCode(
        device_code=code,
        user_code=user_code,
        verification_uri=uri if isinstance(uri, str) else "",
        expires_in_s=_seconds(fields.get("expires_in"), MAX_EXPIRY_S) or DEFAULT_EXPIRY_S,
        interval_s=_seconds(fields.get("interval"), MAX_INTERVAL_S) or DEFAULT_INTERVAL_S,
    )


def read_grant(answer: LoginAnswer) -> Grant | Refused | Later:
    """Read the answer to a device code that is redeemed, or to a refresh token."""
    fields = _fields(answer.body)
    if "error" in fields:
        return _refusal(answer, fields)
    access = _token(fields.get("access_token"))
    if access is None:
        return _nothing(answer)
    refresh = _token(fields.get("refresh_token"))
    scope = fields.get("scope")
    return Grant(
        access_token=access,
        refresh_token=refresh,
        kind="app" if refresh is not None or access.startswith("ghu_") else "oauth",
        scopes=split_scopes(scope if isinstance(scope, str) else ""),
        access_ttl_s=_seconds(fields.get("expires_in"), MAX_TOKEN_LIFE_S),
        refresh_ttl_s=_seconds(fields.get("refresh_token_expires_in"), MAX_TOKEN_LIFE_S),
    )


def slower(interval_s: float, refusal: Refused) -> float:
    """Return the interval after `slow_down`: the one that it names, else five seconds more."""
    named = interval_s + 5.0 if refusal.interval_s is None else refusal.interval_s
    return min(max(named, interval_s), MAX_INTERVAL_S)


def split_scopes(text: str) -> tuple[str, ...]:
    """Return the scopes of a list with commas or spaces, each once, in order."""
    words = re.split(r"[\s,]+", text)
    known = (word for word in words if _SCOPE.fullmatch(word))
    return tuple(dict.fromkeys(known))[:MAX_FIELDS]


def missing_scopes(asked: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """Return what was asked for and neither granted nor included in what was."""
    have = set(granted)
    for scope in tuple(have):
        have |= INCLUDED.get(scope, frozenset())
    return tuple(scope for scope in asked if scope not in have)


def _fields(body: bytes) -> dict[str, Any]:
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            parsed: object = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    try:
        return dict(parse_qsl(text, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _refusal(answer: LoginAnswer, fields: Mapping[str, Any]) -> Refused | Later:
    error = fields["error"]
    error = SYNONYMS.get(error, error) if isinstance(error, str) else UNKNOWN
    if error in KNOWN_ERRORS:
        return Refused(error, _seconds(fields.get("interval"), MAX_INTERVAL_S))
    if answer.status == HTTPStatus.NOT_FOUND:
        return Refused(BAD_CLIENT)  # the answer to a client id that GitHub does not know
    if answer.status >= HTTPStatus.BAD_REQUEST:
        return _nothing(answer)
    return Refused(error if _ERROR.fullmatch(error) else UNKNOWN)


def _nothing(answer: LoginAnswer) -> Later:
    return Later(answer.status, answer.retry_after_s)


def _token(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > MAX_TOKEN_CHARACTERS:
        return None
    return value if _TOKEN.fullmatch(value) else None


def _seconds(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return min(seconds, most) if math.isfinite(seconds) and seconds > 0 else None
