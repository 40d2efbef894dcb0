"""How people write a git host's address, made one; and what a credential may consist of. Pure."""

import base64
import re
import unicodedata

from craftastic.errors import InvalidInput
from craftastic.githosts._model import Origin

MAX_ORIGIN_CHARACTERS = 300
MAX_USERNAME_CHARACTERS = 255
MAX_PASSWORD_CHARACTERS = 2000
DEFAULT_PORTS = {"https": 443, "http": 80}

_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#\\\s]+)/?", re.IGNORECASE)


class BadGitHost(InvalidInput):
    """The address, the username or the password is none that can be stored."""

    code = "GIT_HOST_INVALID"


def normalised_origin(text: str) -> str:
    """Return a host's address in lower case and ASCII, without a slash at its end.

    Whether the host may be reached is the gateway's to say.

    Raises:
        BadGitHost: With what would be right.
    """
    text = text.strip()
    match = _ORIGIN.fullmatch(text)
    if match is None or len(text) > MAX_ORIGIN_CHARACTERS:
        raise BadGitHost("Write the git host alone, as https://host or https://host:port.")
    authority = match["authority"]
    if "@" in authority:
        raise BadGitHost("Give the username beside the git host's address, not in it.")
    return f"{match['scheme'].lower()}://{_ascii(authority)}"


def shown_origin(origin: Origin) -> str:
    """Return an origin as text, the port only where it is not the scheme's own."""
    scheme, host, port = origin
    name = f"[{host}]" if ":" in host else host
    return (
        f"{scheme}://{name}" if DEFAULT_PORTS.get(scheme) == port else f"{scheme}://{name}:{port}"
    )


def checked_username(text: str) -> str:
    """Return a username that a Basic header can carry.

    Raises:
        BadGitHost: It is empty, too long, or has a colon or a character that is not printable.
    """
    if not text or len(text) > MAX_USERNAME_CHARACTERS:
        raise BadGitHost(f"The username must have 1 to {MAX_USERNAME_CHARACTERS} characters.")
    if ":" in text or not text.isprintable():
        raise BadGitHost("The username must not have colons or characters that are not printable.")
    return text


def checked_password(text: str) -> str:
    """Return a password or token that a Basic header can carry.

    Raises:
        BadGitHost: It is empty, too long, or has a character that is not printable.
    """
    if not text or len(text) > MAX_PASSWORD_CHARACTERS:
        raise BadGitHost(f"The password must have 1 to {MAX_PASSWORD_CHARACTERS} characters.")
    if not text.isprintable():
        raise BadGitHost(
            "The password has a character that is not printable; was a line's end copied with it?"
        )
    return text


def basic(username: str, password: str) -> str:
    """Return the value of an Authorization header. Source: RFC 7617, with UTF-8."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def password_of(value: str) -> str:
    """Return the password in a value that `basic` made."""
    return base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")[2]


def _ascii(authority: str) -> str:
    composed = unicodedata.normalize("NFC", authority).lower()
    if composed.isascii():
        return composed
    host, colon, port = composed.partition(":")
    try:
        encoded = host.encode("idna")
        # Letters that this encoding replaces by others (such as the German sharp s) have become
        # another host: what comes back must be what was given.
        if encoded.decode("idna") != host:
            raise BadGitHost("Write the git host's name in its ASCII form (xn--…).")
    except UnicodeError as error:
        raise BadGitHost("Write the git host's name in its ASCII form (xn--…).") from error
    return f"{encoded.decode()}{colon}{port}"
