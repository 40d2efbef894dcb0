"""Which names the server answers to, and which pages may talk to it.

A page of a stranger's can make a name of its own lead to this server (DNS rebinding); the browser
then takes the server for a part of that page. What stays is the name in the `Host` header.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from craftastic.errors import Misdirected

ANY = "*"
LOCAL = "localhost"
PROBES = frozenset({"/healthz", "/readyz"})
"""Nothing but the server's health is told there, to probes that know no name."""

HOST = re.compile(
    r"(?:(?P<name>[A-Za-z0-9_.-]{1,253})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::\d{1,5})?"
)


class HostNotAllowed(Misdirected):
    """The request is for a name that is not this server's."""

    code = "HOST_NOT_ALLOWED"

    def __init__(self) -> None:
        super().__init__(
            "This server does not answer to the name that the request is for",
            details="Its operator names it in CRAFTASTIC_PUBLIC_URL or CRAFTASTIC_ALLOWED_HOSTS.",
        )


class AllowedHosts:
    """Middleware: refuses requests for names that are not the server's.

    A plain address is always right: whoever sends a browser there has no name to lend to it.

    Args:
        app: What is called next.
        names: The server's names, besides `localhost`; `*` takes every name.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app = app
        self.names = {LOCAL, *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or self.allows(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "http":
            raise HostNotAllowed
        # Before it is accepted, so that the browser learns nothing but that it failed.
        await send({"type": "websocket.close", "code": 1008, "reason": ""})

    def allows(self, scope: Scope) -> bool:
        if ANY in self.names or scope["path"] in PROBES:
            return True
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and self._knows(hosts[0].decode("latin-1"))

    def _knows(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"]
        return _is_address(found["v6"] or name) or (
            name is not None and name.lower().rstrip(".") in self.names
        )


def origin_allowed(headers: Mapping[str, str], origins: Sequence[str]) -> bool:
    """Tell whether a page may open a WebSocket: browsers say where it is from.

    What says nothing is no browser. Where the page is from this server, its origin names the
    host of the request, which is one of the server's own names.

    Args:
        headers: Of the request; names in lower case.
        origins: Further origins whose pages may.
    """
    origin = headers.get("origin")
    if not origin:
        return True
    if origin.rstrip("/").lower() in {one.rstrip("/").lower() for one in origins}:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc == headers.get("host")


@lru_cache(256)
def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
