"""Whose address counts behind proxies: what a client invents itself never does."""

from typing import Any

import pytest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from craftastic.http.client import TrustedProxies, client_address
from craftastic.settings import Settings

PROXIES = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"]


async def seen(
    peer: str | None, *forwarded: str, proto: str | None = None, kind: str = "http"
) -> tuple[str | None, str]:
    """Return the address and the scheme that the application sees."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    if proto is not None:
        headers.append((b"x-forwarded-proto", proto.encode()))
    scope: dict[str, Any] = {
        "type": kind,
        "scheme": "ws" if kind == "websocket" else "http",
        "client": None if peer is None else (peer, 1234),
        "headers": headers,
    }

    async def nothing(*_: Any) -> Any: ...

    await TrustedProxies(app, PROXIES)(scope, nothing, nothing)
    return client_address(found[0]), found[0]["scheme"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # no proxy of ours
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # the first one is invented
        ("127.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),  # two headers are one list
        ("127.0.0.1", ["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.9, 10.1.2.3, 10.0.0.1"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3, 10.0.0.1"], "10.1.2.3"),  # all are ours: the farthest
        ("127.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("127.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9, unknown"], "127.0.0.1"),  # what cannot be read ends the list
        ("127.0.0.1", ["203.0.113.9, unknown, 10.0.0.1"], "10.0.0.1"),
        ("127.0.0.1", ["", ",,", "\xff"], "127.0.0.1"),
        ("127.0.0.1", ["1.1.1.1," * 5000 + "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9" + ", 10.0.0.1" * 5000], "10.0.0.1"),
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("somewhere", ["203.0.113.9"], "somewhere"),
        (None, ["203.0.113.9"], None),
    ],
    ids=range(22),
)
async def test_the_address_is_the_one_that_the_outermost_trusted_proxy_saw(
    peer: str | None, forwarded: list[str], address: str | None
) -> None:
    assert (await seen(peer, *forwarded))[0] == address
    assert (await seen(peer, *forwarded, kind="websocket"))[0] == address


async def test_the_scheme_is_a_trusted_proxys() -> None:
    assert await seen("127.0.0.1", proto="https") == ("127.0.0.1", "https")
    assert await seen("127.0.0.1", proto="http, HTTPS ") == ("127.0.0.1", "https")
    assert await seen("127.0.0.1", proto="https", kind="websocket") == ("127.0.0.1", "wss")
    assert await seen("127.0.0.1", proto="gopher") == ("127.0.0.1", "http")
    assert await seen("203.0.113.9", proto="https") == ("203.0.113.9", "http")


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.0/33", "10.0.0.1 10.0.0.2"])
def test_a_proxy_that_is_no_address_is_refused_at_the_start(proxies: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"trusted_proxies": proxies})
