"""Which names and pages reach the server; a stranger's page that takes its address does not."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from pydantic import ValidationError

from craftastic.http import errors, middleware
from craftastic.http.health import Readiness, build_router
from craftastic.http.hosts import origin_allowed
from craftastic.http.policy import PUBLIC
from craftastic.metrics import Metrics
from craftastic.settings import Settings
from tests.fakes.asgi import client_of

SETTINGS = Settings.model_validate(
    {"public_url": "https://Craft.example:8443/", "host": "0.0.0.0", "allowed_hosts": "box, b.lan"}
)


def app_with(**more: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=10, **more)
    app.include_router(build_router(Metrics(), Readiness()))

    @app.post("/api/auth/x", dependencies=[PUBLIC])
    async def x() -> None: ...

    @app.websocket("/api/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1000)

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_with(host_names=SETTINGS.host_names)) as one:
        yield one


@pytest.mark.parametrize(
    "host",
    [
        *("craft.example", "craft.example:8443", "CRAFT.example", "craft.example."),
        *("localhost", "localhost:3000", "box", "b.lan:3000"),
        *("127.0.0.1", "192.168.7.7:3000", "[::1]", "[::1]:3000", "[2001:db8::1]:3000"),
    ],
)
async def test_the_servers_names_and_plain_addresses_are_answered(
    client: httpx.AsyncClient, host: str
) -> None:
    answer = await client.get("/api/docs", headers={"host": host})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "craft.example.evil.example",
            "evilcraft.example",
            "a.box",
            "localhost.x",
        ),
        *("", "craft.example:x", "craft.example@evil", "http://craft.example", "craft.example/"),
        *("[evil]", "[::1", "0x7f.1", "127.1", "craft.example, evil.example", "*"),
    ],
)
async def test_other_names_are_refused_in_the_form_of_all_errors(
    client: httpx.AsyncClient, host: str
) -> None:
    for path in ("/api/docs", "/metrics", "/api/auth/x", "/"):
        answer = await client.post(path, headers={"host": host})

        assert answer.status_code == 421
        body = answer.json()
        assert body["code"] == "HOST_NOT_ALLOWED"
        assert "CRAFTASTIC_ALLOWED_HOSTS" in body["details"]
        assert body["requestId"] == answer.headers["x-request-id"]
        assert host not in answer.text or host in {"", "*", "http://craft.example"}
    assert (await client.get("/healthz", headers={"host": host})).status_code == 200


async def test_two_names_at_once_or_none_are_refused() -> None:
    app = app_with(host_names=["craft.example"])
    for hosts in ([], ["craft.example", "craft.example"], ["craft.example", "evil.example"]):
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        headers = [(b"host", host.encode()) for host in hosts]
        scope = {"type": "http", "method": "GET", "path": "/api/docs", "headers": headers}
        await app({**scope, "raw_path": b"/api/docs", "query_string": b""}, receive, send)

        assert sent[0]["status"] == 421


@pytest.mark.parametrize(("host", "begins"), [("evil.example", "close"), ("localhost", "accept")])
async def test_a_websocket_to_another_name_is_refused_before_it_is_one(
    host: str, begins: str
) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/api/ws",
        "raw_path": b"/api/ws",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
        "subprotocols": [],
    }
    await app_with(host_names=[])(scope, receive, send)

    assert sent[0]["type"] == f"websocket.{begins}"


async def test_every_name_is_answered_where_the_operator_wants_that() -> None:
    settings = Settings.model_validate({"allowed_hosts": "*"})
    async with client_of(app_with(host_names=settings.host_names)) as client:
        assert (await client.get("/api/docs", headers={"host": "any.example"})).status_code == 200


@pytest.mark.parametrize("hosts", ["https://a.example", "a.example:80", "a/b", "[::1]"])
def test_a_name_with_more_than_a_name_in_it_is_refused_at_the_start(hosts: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"allowed_hosts": hosts})


# ---- pages of other origins -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:3000", True),
        ("https://127.0.0.1:3000", True),  # behind a proxy that ends TLS
        ("https://app.example", True),
        ("https://APP.example", True),
        ("http://app.example", False),
        ("https://app.example:444", False),
        ("https://evil.example", False),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:3000.evil.example", False),
        ("null", False),
        ("file://", False),
        ("chrome-extension://127.0.0.1:3000", False),
        ("http://[", False),
    ],
)
def test_a_page_opens_a_websocket_when_it_is_the_servers_or_named(
    origin: str | None, allowed: bool
) -> None:
    headers = {"host": "127.0.0.1:3000"} | ({} if origin is None else {"origin": origin})

    assert origin_allowed(headers, ("https://app.example/",)) is allowed


async def test_what_a_page_may_do_is_told_to_named_origins_only() -> None:
    settings = Settings.model_validate({"cors_origin": "https://App.example/"})
    app = app_with(cors_origins=settings.cors_origin)
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "idempotency-key, authorization",
    }
    async with client_of(app) as client:
        named = await client.options(
            "/api/auth/x", headers=asks | {"origin": "https://app.example"}
        )
        other = await client.options("/api/auth/x", headers=asks | {"origin": "https://b.example"})
        plain = await client.options("/api/auth/x")

    assert named.status_code == 200
    assert named.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in named.headers
    assert (other.status_code, other.json()["code"]) == (400, "ORIGIN_REFUSED")
    assert other.json()["requestId"] == other.headers["x-request-id"]
    assert "access-control-allow-origin" not in other.headers
    assert "Origin" in other.headers["vary"]
    assert plain.status_code == 405


@pytest.mark.parametrize(
    "origin", ["a.example", "ftp://a", "https://a/b", "https://u@a", "https://*.a", "null"]
)
def test_an_origin_of_no_form_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"cors_origin": origin})
