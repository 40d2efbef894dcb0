"""The forms in which people write a repository's address, made one. Pure: nothing is looked up."""

import re
import unicodedata
from urllib.parse import urlsplit

from craftastic.errors import InvalidInput

MAX_URL_CHARACTERS = 2048
KNOWN_HOSTS = frozenset(
    {"github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "gitea.com"}
)
"""Hosts whose repositories have the same path over https as over ssh."""

_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/].*)")
_SSH = re.compile(
    r"ssh://(?:[A-Za-z0-9._-]+@)?(?P<host>[A-Za-z0-9.-]+)(?::22)?/(?P<path>.+)", re.IGNORECASE
)


class BadRepositoryUrl(InvalidInput):
    """The text is no address of a repository that could be cloned."""

    code = "REPOSITORY_URL_INVALID"


def normalise_repository_url(text: str) -> str:
    """Return the http(s) URL of a repository, without user, query, fragment or trailing slash.

    `git@github.com:owner/name` and `ssh://` forms of known hosts become https. Whether the host
    may be reached is the gateway's to say.

    Raises:
        BadRepositoryUrl: With what is wrong and what would be right.
    """
    url = text.strip()
    if not url or len(url) > MAX_URL_CHARACTERS:
        raise BadRepositoryUrl("The repository's URL is empty or too long.")
    if any(unicodedata.category(one)[0] in "CZ" for one in url) or "\\" in url:
        raise BadRepositoryUrl("The repository's URL has a character that URLs cannot have.")
    if url.startswith("-"):
        raise BadRepositoryUrl("The repository's URL must not begin with a dash.")
    if "::" in url.partition("/")[0]:
        raise BadRepositoryUrl("Only https:// addresses of repositories are allowed.")
    match = _SSH.fullmatch(url) if "://" in url else _SCP.fullmatch(url)
    if match is not None:
        url = _known(match["host"], match["path"])
    return _checked(url)


def _known(host: str, path: str) -> str:
    if host.lower() not in KNOWN_HOSTS:
        raise BadRepositoryUrl(
            f"{host} cannot be reached over ssh; use the repository's https:// address.",
        )
    return f"https://{host.lower()}/{path.lstrip('/')}"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRepositoryUrl("The repository's URL has no valid host or port.") from error
    if parts.scheme.lower() not in {"https", "http"} or not parts.hostname:
        raise BadRepositoryUrl("The repository's URL must have the form https://host/path.")
    if "@" in parts.netloc:
        raise BadRepositoryUrl("The repository's URL must not contain a user or a password.")
    if "?" in url or "#" in url:
        raise BadRepositoryUrl("The repository's URL must not have a query or a fragment.")
    segments = [segment for segment in parts.path.split("/") if segment]
    if not segments or any(
        segment.startswith(("-", "..")) or segment == "." for segment in segments
    ):
        raise BadRepositoryUrl("The path of the repository's URL is not that of a repository.")
    if parts.hostname.startswith("-"):
        raise BadRepositoryUrl("The repository's URL has no valid host or port.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = host if port is None else f"{host}:{port}"
    return f"{parts.scheme.lower()}://{where}/{'/'.join(segments)}"
