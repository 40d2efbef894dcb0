"""Whether two texts name the same repository. Pure: nothing is looked up."""

import re
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^@/\s]+@)?(?P<host>[^:/@\s]+):(?P<path>.+)")
LEAST_PARTS = 2
"""An owner and a name."""


def same_repository(one: str | None, other: str | None) -> bool:
    """Tell whether two addresses lead to the same repository, as far as can be told from them.

    Coolify writes a repository as `owner/name`, as `https://…` or as `git@host:owner/name.git`;
    schemes, ports, users, case and `.git` make no difference, and a host only where both have one.

    Args:
        one: None for what is built from no repository.
        other: Likewise.
    """
    if one is None or other is None:
        return False
    (host, parts), (other_host, other_parts) = _place(one), _place(other)
    if host is not None and other_host is not None and host != other_host:
        return False
    if host is not None and host == other_host and parts == other_parts:
        return bool(parts)
    # A server may have its repositories below a path over https that ssh addresses lack.
    length = min(len(parts), len(other_parts))
    return length >= LEAST_PARTS and parts[-length:] == other_parts[-length:]


def _place(address: str) -> tuple[str | None, list[str]]:
    """Return host and path of an address, in lower case; the host is None where there is none."""
    text = address.strip().lower()
    host: str | None = None
    if "://" in text:
        try:
            found = urlsplit(text)
            host, path = found.hostname, found.path
        except ValueError:
            return None, []
    elif (match := _SCP.fullmatch(text)) is not None:
        host, path = match["host"], match["path"]
    else:
        path = text
    parts = [part for part in path.split("/") if part]
    if parts:
        parts[-1] = parts[-1].removesuffix(".git")
    return host, parts
