"""Who is at the other end of a connection, also behind proxies that the operator trusts."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

Address = IPv4Address | IPv6Address

MAX_HOPS = 20
MAX_ADDRESS_CHARS = 64
FORWARDED_FOR = b"x-forwarded-for"
FORWARDED_PROTO = b"x-forwarded-proto"


def client_address(connection: Mapping[str, Any]) -> str | None:
    """Return the client's address in its usual form; None where the connection has none.

    Behind trusted proxies it is the address that the outermost of them saw. An IPv4 address in
    IPv6's clothes is shown as what it is, so that one client has one address.

    Args:
        connection: A request, a WebSocket, or the scope of one.
    """
    client = connection.get("client")
    if not client:
        return None
    found = parse(client[0])
    return client[0][:MAX_ADDRESS_CHARS] if found is None else str(found)


class TrustedProxies:
    """Middleware: puts the client's own address and scheme in the place of a trusted proxy's.

    Each proxy appends the address it was called from to `X-Forwarded-For`. Read from the end,
    the list is true as long as who wrote an entry is trusted; what comes before may be invented.

    Args:
        app: What is called next.
        proxies: Addresses and networks (`10.0.0.0/8`) of proxies whose headers count.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        self.app = app
        self.networks = [ip_network(proxy, strict=False) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope.get("client"):
            peer = parse(scope["client"][0])
            if peer is not None and self.trusts(peer):
                # In place: the outer layers log and count the same client.
                scope["client"] = (str(self._client(peer, scope)), 0)
                self._take_scheme(scope)
        await self.app(scope, receive, send)

    def trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def _client(self, peer: Address, scope: Scope) -> Address:
        hops = b",".join(_values(scope, FORWARDED_FOR)).decode("latin-1").split(",")
        found = peer
        for hop in reversed(hops[-MAX_HOPS:]):
            before = parse(hop)
            if before is None or not self.trusts(found):
                break
            found = before
        return found

    @staticmethod
    def _take_scheme(scope: Scope) -> None:
        for value in _values(scope, FORWARDED_PROTO)[-1:]:
            secure = {b"https": True, b"http": False}.get(value.rpartition(b",")[2].strip().lower())
            if secure is not None:
                plain = "ws" if scope["type"] == "websocket" else "http"
                scope["scheme"] = plain + "s" * secure


def parse(text: str) -> Address | None:
    """Return the address that a text is, with or without a port; None when it is none."""
    text = text.strip()[:MAX_ADDRESS_CHARS]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _values(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]
