"""The edge of the whole app: its headers, and one form for every failure, whoever notices it."""

import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from craftastic.app import build_app
from craftastic.cli.serve import uvicorn_config
from craftastic.http.connection import MAX_HEAD_BYTES, HttpConnection
from craftastic.http.health import schema
from craftastic.http.middleware import MIN_BODY_BYTES_PER_S, BodyLimit
from craftastic.settings import Settings
from tests.fakes.asgi import client_of
from tests.fakes.event_rig import QuietServer
from tests.fakes.whole_app import whole_app, whole_settings

API_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "content-type": "application/json",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "clipboard-read=()",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
CHANGING = {"x-request-id", "content-length", "date", "www-authenticate", "allow"}
JSON = {"content-type": "application/json"}


def settings(**more: Any) -> Settings:
    return Settings.model_validate(
        {"data_dir": "/nonexistent", "public_url": "https://craft.example", **more}
    )


@pytest.fixture
async def client(
    tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[httpx.AsyncClient]:
    served = whole_settings(
        tmp_path, copy_of_template("sqlite"), public_url="https://craft.example"
    )
    async with whole_app(served) as (one, _):
        one.base_url = httpx.URL("https://craft.example")
        yield one


async def test_the_headers_of_the_api_are_these(client: httpx.AsyncClient) -> None:
    asked: list[tuple[str, str, dict[str, str], int]] = [
        ("GET", "/api/auth/me", {}, 401),
        ("GET", "/api/nothing", {}, 404),
        ("PUT", "/api/auth/login", {}, 405),
        ("POST", "/api/auth/login", JSON, 400),
        ("GET", "/api/auth/me?a=%00", {}, 400),
        ("GET", "/api/openapi.json", {}, 200),
    ]
    for method, path, headers, status in asked:
        answer = await client.request(method, path, headers=headers)

        assert answer.status_code == status, path
        found = {k: v for k, v in answer.headers.items() if k not in CHANGING}
        assert found == API_HEADERS, path


async def test_without_https_browsers_are_not_told_to_insist_on_it() -> None:
    async with client_of(build_app(settings(public_url="http://localhost:3000"))) as client:
        for path in ("/", "/api/docs", "/api/nothing"):
            answer = await client.get(path, headers={"accept": "text/html"})
            assert "strict-transport-security" not in answer.headers


async def test_a_failure_of_any_kind_has_one_form(client: httpx.AsyncClient) -> None:
    login = "/api/auth/login"
    failures: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("GET", "/api/nothing", {}, 404, "ROUTE_NOT_FOUND"),
        ("GET", "/nothing", {}, 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/a%00b", {}, 404, "ROUTE_NOT_FOUND"),
        ("BREW", login, {}, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/terminal/ws/x", {}, 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/auth/me?a=%00", {}, 400, "INVALID_INPUT"),
        ("POST", login, {"content": b"{", "headers": JSON}, 400, "BROKEN_JSON"),
        ("POST", login, {"content": b"\xff\xfe", "headers": JSON}, 400, "BROKEN_JSON"),
        ("POST", login, {"content": b"[" * 100_000, "headers": JSON}, 400, "BROKEN_JSON"),
        ("POST", login, {"content": b"9" * 100_000, "headers": JSON}, 400, "BROKEN_JSON"),
        ("POST", login, {"headers": JSON}, 400, "FST_ERR_CTP_EMPTY_JSON_BODY"),
        ("POST", login, {"content": b"a=b"}, 400, "INVALID_INPUT"),
        ("POST", login, {"content": b"x" * ((1 << 20) + 1)}, 413, "TOO_LARGE"),
        ("GET", "/api/auth/me", {"headers": {"authorization": "Bearer \u00e9".encode()}}, 401, ""),
        ("GET", "/api/auth/me", {"headers": {"host": "evil"}}, 421, "HOST_NOT_ALLOWED"),
    ]
    for method, path, more, status, code in failures:
        answer = await client.request(method, path, **more)
        told = f"{method} {path[:40]} {str(more)[:60]}: {answer.text[:300]}"

        assert answer.status_code == status, told
        body = answer.json()
        assert code in {body["code"], ""}, told
        assert body["requestId"] == answer.headers["x-request-id"], told
        assert isinstance(body["error"], str), told
        assert answer.headers["content-type"] == "application/json", told


UNBOUNDED = {
    "post /api/auth/github/poll interval",  # not used
    "put /api/variables/{name} value",  # bounded in bytes, by the service
    "put /api/environments/{environment_id}/variables/{name} value",
}


def test_every_text_number_and_list_of_a_body_has_a_bound() -> None:
    document = schema(build_app(settings()))
    found = {
        f"{method} {path} {name}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for name in unbounded(content["schema"], document["components"]["schemas"], "")
    }

    assert found == UNBOUNDED


def unbounded(part: dict[str, Any], known: dict[str, Any], name: str) -> Iterator[str]:
    """Give the names of a schema's parts that may be of any size."""
    if "$ref" in part:
        part = known[part["$ref"].rpartition("/")[2]]
    for one in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
        yield from unbounded(one, known, name)
    for key, one in part.get("properties", {}).items():
        yield from unbounded(one, known, f"{name}.{key}".lstrip("."))
    if "items" in part:
        yield from unbounded(part["items"], known, f"{name}[]")
    bound = {"string": "maxLength", "integer": "maximum", "number": "maximum", "array": "maxItems"}
    wanted = bound.get(part.get("type", ""))
    closed = "enum" in part or "const" in part or part.get("format") in {"uuid", "date-time"}
    if (wanted is not None and wanted not in part and not closed) or part.get(
        "additionalProperties"
    ):
        yield name


# ---- what fails before it is a request --------------------------------------------------------


@asynccontextmanager
async def listening(data_dir: Path) -> AsyncGenerator[int]:
    """Serve the app as `craftastic serve` does, as far as connections go; give the port."""
    config = uvicorn_config(settings(data_dir=data_dir))
    config.lifespan = "off"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = QuietServer(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True


async def said(port: int, *pieces: bytes) -> bytes:
    """Send pieces, one after the other, and return everything until the server hangs up."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    answer = b""
    async with stream:
        try:
            for piece in pieces:
                await stream.send(piece)
            with anyio.fail_after(10):
                while True:
                    answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


@pytest.mark.parametrize(
    ("pieces", "status", "code"),
    [
        ([b"\x16\x03\x01\x02\x00\x01\x00"], 400, "BROKEN_REQUEST"),  # TLS to a port without it
        ([b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"], 400, "BROKEN_REQUEST"),
        ([b"GET /", *[b"a" * 8192] * 9], 431, "HEADERS_TOO_LARGE"),
        ([b"GET / HTTP/1.1\r\n", *[b"A: " + b"b" * 8000 + b"\r\n"] * 9], 431, "HEADERS_TOO_LARGE"),
        ([b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b"], 408, "REQUEST_TIMEOUT"),
    ],
    ids=["tls", "length", "address", "headers", "slow"],
)
async def test_what_is_no_request_is_refused_in_the_form_of_all_errors(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    pieces: list[bytes],
    status: int,
    code: str,
) -> None:
    monkeypatch.setattr(HttpConnection, "head_timeout_s", 0.5)
    async with listening(data_dir) as port:
        head, _, body = (await said(port, *pieces)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status), head
    told = json.loads(body)
    assert (told["code"], told["statusCode"]) == (code, status)
    assert f"X-Request-Id: {told['requestId']}".encode() in head
    assert b"X-Content-Type-Options: nosniff" in head


async def test_who_says_nothing_is_hung_up_on_without_a_word(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpConnection, "head_timeout_s", 0.2)
    async with listening(data_dir) as port:
        assert await said(port) == b""


async def test_requests_of_one_connection_each_have_their_own_time_and_size(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpConnection, "head_timeout_s", 0.5)
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: " + b"b" * (MAX_HEAD_BYTES // 2) + b"\r\n"
    async with listening(data_dir) as port:
        answer = await said(port, *[request + b"\r\n"] * 3, request + b"Connection: close\r\n\r\n")
        cut = await said(port, request + b"\r\n", b"GET / HTTP/1.1\r\nA: ")

    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert cut.count(b"HTTP/1.1 200 ") == 1
    assert b"HTTP/1.1 408 " in cut


async def test_a_body_that_goes_on_after_its_answer_is_no_head(data_dir: Path) -> None:
    begin = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
    async with listening(data_dir) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            await stream.send(begin + b"a" * 1000)
            with anyio.fail_after(10):
                answer = await stream.receive()
                for _ in range(40):
                    await stream.send(b"a" * 99_975)
                await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while b"HTTP/1.1 200 " not in answer:
                    answer += await stream.receive()

    assert b"HTTP/1.1 413 " in answer
    assert b"HTTP/1.1 431 " not in answer


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        (b"application/json", b""),
        (b"application/json", b'{"email": '),
        (b"text/plain", b""),
        (b"text/plain", b"a"),
    ],
    ids=["json-nothing", "json-some", "text-nothing", "text-some"],
)
async def test_a_body_that_does_not_come_in_time_is_408_and_the_end_of_the_connection(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, begin: bytes
) -> None:
    monkeypatch.setattr(BodyLimit, "body_timeout_s", 0.3)
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind
    async with listening(data_dir) as port:
        answer = await said(port, head + b"\r\nContent-Length: 1000\r\n\r\n" + begin)

    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 408 "), answer
    told = json.loads(body)
    assert (told["success"], told["code"], told["statusCode"]) == (False, "REQUEST_TIMEOUT", 408)
    assert f"x-request-id: {told['requestId']}".encode() in top.lower()
    assert b"connection: close" in top.lower()


async def test_a_body_that_drips_is_408_however_long_it_goes_on(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BodyLimit, "body_timeout_s", 0.3)
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with listening(data_dir) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        answer = b""
        async with stream:
            await stream.send(head)
            with anyio.fail_after(10):
                while not answer:
                    await stream.send(b"1\r\na\r\n")
                    with anyio.move_on_after(0.02):
                        answer = await stream.receive()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_large_body_may_take_as_long_as_the_least_rate_needs(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BodyLimit, "body_timeout_s", 0.5)
    piece = b"a" * MIN_BODY_BYTES_PER_S
    begin = (
        b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % (len(piece) * 10)
    )
    async with listening(data_dir) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            await stream.send(begin + piece)
            for _ in range(9):  # more than half a second in all, and quicker than the rate
                await anyio.sleep(0.1)
                await stream.send(piece)
            with anyio.fail_after(10):
                answer = await stream.receive()

    assert answer.startswith(b"HTTP/1.1 400 ")  # it came as a whole, and is no JSON


async def test_who_drips_a_body_that_nobody_waits_for_is_hung_up_on(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpConnection, "rest_timeout_s", 0.3)
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    async with listening(data_dir) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        answer = b""
        async with stream:
            await stream.send(head)
            with anyio.fail_after(10):
                try:
                    while True:
                        await stream.send(b"a")
                        with anyio.move_on_after(0.02):
                            answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_request_behind_another_has_all_the_time_for_its_own_body(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpConnection, "rest_timeout_s", 0.1)
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = (
        b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n"
    )
    async with listening(data_dir) as port:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        async with stream:
            await stream.send(first + second)
            with anyio.fail_after(10):
                answer = await stream.receive()
                await anyio.sleep(0.3)  # three times what the rest of a body may take
                await stream.send(b"{]")
                while b"HTTP/1.1 400 " not in answer:
                    answer += await stream.receive()

    assert answer.startswith(b"HTTP/1.1 200 ")
