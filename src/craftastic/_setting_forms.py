"""The forms that values of settings have, and how they are read: nothing of the environment."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(value: object) -> object:
    """Turn `512m`, `2g` or `1048576` into a number of bytes.

    Raises:
        ValueError: The text is not a number with one of the units k, m, g, t.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", value.lower())
    if match is None:
        raise ValueError(f"{value!r} is not a size such as 512m or 2g")
    return int(float(match[1]) * UNITS[match[2]])


def split_commas(value: object) -> object:
    """Turn `a, b` into its parts; what is no text stays as it is."""
    return parts_of(value) if isinstance(value, str) else value


def parts_of(text: str) -> list[str]:
    """Return what stands between commas, without empty parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def is_plain_address(url: str) -> bool:
    """Tell whether it has nothing but a host, a port and a path; a wrong port is a ValueError."""
    parts = urlsplit(url)
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and parts.port != 0
        and not (parts.query or parts.fragment or "@" in parts.netloc)
        and re.search(r"[^\x21-\x7e]|[\\?#]", url) is None
    )


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over, and how the way there is protected."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    username: str | None = None
    password: SecretStr | None = field(default=None, repr=False)


def parse_mail_server(url: str) -> MailServer:
    """Read `smtp://user:password@host:port` (STARTTLS) or `smtps://…` (TLS from the beginning).

    `?security=none` leaves the protection out, for a mail server on the same machine or network.

    Raises:
        ValueError: It has another form, or would send a password unprotected.
    """
    parts = urlsplit(url)
    asked = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("it must have the form smtp://user:password@host:port or smtps://…")
    if asked not in ({}, {"security": ["none"]}) or parts.fragment:
        raise ValueError("after the question mark only security=none is known")
    security: Literal["starttls", "tls", "none"] = "tls" if parts.scheme == "smtps" else "starttls"
    if asked:
        if security == "tls" or parts.password:
            raise ValueError("security=none fits neither smtps:// nor a password")
        security = "none"
    return MailServer(
        host=parts.hostname,
        port=parts.port or {"tls": 465, "starttls": 587, "none": 25}[security],
        security=security,
        username=unquote(parts.username) if parts.username else None,
        password=SecretStr(unquote(parts.password)) if parts.password else None,
    )
