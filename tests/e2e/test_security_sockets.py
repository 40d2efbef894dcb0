"""Terminals' sockets and the bare listener of a real server, as strangers and other users try them.

SEC-32: a refusal comes before anything is attached, with its code and reason. SEC-36: the end of
the sign-ins closes open sockets. SEC-43: frames and counts have limits.
"""

import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.harness import Api, Server, Viewer, until

pytestmark = pytest.mark.local

WAIT_S = 15.0
MOST_TERMINALS = 6


@dataclass
class House:
    """A server; a user with two environments, a session in each; another user with their own."""

    server: Server
    owner: Api
    other: Api
    environment: str
    session: str
    second_environment: str
    second_session: str
    others_environment: str
    others_session: str

    def url(self, session: str | None = None, **query: str) -> str:
        words = {"environmentId": self.environment, "token": self.owner.token} | query
        text = "&".join(f"{name}={value}" for name, value in words.items() if value)
        base = self.server.url.replace("http", "ws", 1)
        return f"{base}/api/terminal/ws/{session or self.session}?{text}"


@pytest.fixture
async def house(data_dir: Path) -> AsyncIterator[House]:
    server = Server(
        data_dir,
        runtime="local",
        database_url=None,
        CRAFTASTIC_SANDBOX_SELF_TEST="0",
        CRAFTASTIC_MAX_TERMINALS_PER_USER=str(MOST_TERMINALS),
    )
    server.start()
    try:
        await server.ready()
        async with Api(server.url) as owner, Api(server.url) as other:
            await owner.register("a@example.com")
            await other.register("b@example.com")
            found: list[str] = []
            for api, name in ((owner, "one"), (owner, "two"), (other, "three")):
                environment = await api.environment(name)
                session = await api.post(
                    "/api/sessions", environmentId=environment["id"], name="here"
                )
                found += [environment["id"], session["id"]]
            yield House(server, owner, other, *found)
    finally:
        await server.clean()


async def closed(url: str, *frames: str | bytes, **options: Any) -> tuple[int | None, str | None]:
    """Connect, send what is given, read to the end, and return how the socket was closed."""
    async with connect(url, max_size=64 << 20, compression=None, proxy=None, **options) as one:
        with anyio.fail_after(WAIT_S):
            try:
                for frame in frames:
                    await one.send(frame)
                while True:
                    await one.recv()
            except ConnectionClosed:
                return one.close_code, one.close_reason


async def test_every_refusal_has_its_code_and_reason_and_attaches_nothing(house: House) -> None:
    owner, absent = house.owner, str(uuid4())
    broken = owner.token[:-4] + "AAAA"
    not_found = (1008, "Session not found")
    bad_token = (1008, "Invalid authentication token")
    table: list[tuple[str, str, dict[str, Any], tuple[int, str]]] = [
        ("no token", house.url(token=""), {}, (1008, "Authentication required")),
        ("token broken", house.url(token=broken), {}, bad_token),
        ("token of no form", house.url(token="%00%ff"), {}, bad_token),
        ("broken token in a header", house.url(token=""),
         {"additional_headers": {"Authorization": f"Bearer {broken}"}}, bad_token),
        ("token in a cookie", house.url(token=""),
         {"additional_headers": {"Cookie": f"token={owner.token}"}},
         (1008, "Authentication required")),
        ("ticket that never was", house.url(token="") + "&ticket=x", {},
         (1008, "Invalid authentication ticket")),
        ("no environment", house.url(environmentId=""), {}, (1008, "Environment ID required")),
        ("session absent", house.url(absent), {}, not_found),
        ("session of no form", house.url("x"), {}, not_found),
        ("environment absent", house.url(environmentId=absent), {}, not_found),
        ("environment of no form", house.url(environmentId="%27"), {}, not_found),
        ("the user's other environment", house.url(environmentId=house.second_environment), {},
         not_found),
        ("another user's session", house.url(house.others_session), {}, not_found),
        ("another user's session and environment",
         house.url(house.others_session, environmentId=house.others_environment), {}, not_found),
        ("another user's environment", house.url(environmentId=house.others_environment), {},
         not_found),
        ("a stranger's page", house.url(), {"origin": "https://evil.example"},
         (1008, "Origin not allowed")),
        ("a page of no origin", house.url(), {"origin": "null"}, (1008, "Origin not allowed")),
    ]  # fmt: skip
    for what, url, options, wanted in table:
        for more in ({}, {"subprotocols": ["craftastic.v2"]}):
            assert await closed(url, **options, **more) == wanted, what
    for session in (house.session, house.second_session):
        assert (await owner.get(f"/api/sessions/{session}"))["status"] == "inactive"
    theirs = await house.other.get(f"/api/sessions/{house.others_session}")
    assert theirs["status"] == "inactive"
    assert '"terminal.attached"' not in house.server.log.read_text()


async def test_the_end_of_all_sign_ins_closes_open_sockets_in_five_seconds(house: House) -> None:
    async with Api(house.server.url) as again:
        await again.login("a@example.com")
        mine = Viewer(house.server.url, house.session, house.environment, house.owner.token)
        theirs = Viewer(
            house.server.url, house.others_session, house.others_environment, house.other.token
        )
        async with theirs.attached(), mine.attached():
            await mine.run("echo mine")
            await theirs.run("echo theirs")
            began = time.monotonic()
            assert (await again.client.post("/api/auth/logout-all")).status_code == 200
            await until(lambda: mine.ended, "the socket is closed", timeout_s=WAIT_S)
            assert time.monotonic() - began <= 5.0
            assert mine.ended == (1008, "Authentication required")
            assert await closed(house.url()) == (1008, "Invalid authentication token")
            assert (await house.owner.client.get("/api/auth/me")).status_code == 401
            await theirs.run("echo still")
            assert theirs.ended is None


async def test_frames_and_counts_have_limits(house: House) -> None:
    too_big = (1009, "Message too big")
    mebibyte = 1 << 20
    paste = json.dumps({"type": "input", "data": " " * (mebibyte + 1)})
    code, reason = await closed(house.url(), paste)
    assert (code, reason) == too_big
    code, _ = await closed(house.url(), "x" * (3 * mebibyte))
    assert code == 1009
    v2: dict[str, Any] = {"subprotocols": ["craftastic.v2"]}
    code, _ = await closed(house.url(), b"\x01" + bytes(mebibyte + 1), **v2)
    assert code == 1009

    broken = (1008, "Too many frames that could not be understood")
    nonsense: list[str | bytes] = [
        "", "{", "[]", "null", "1", '"x"', "{}", '{"type":null}', '{"type":"x"}', '{"type":[]}',
        '{"type":"input"}', '{"type":"input","data":1}', '{"type":"input","data":"\\ud800"}',
        '{"type":"resize"}', '{"type":"resize","cols":"80","rows":24}', "[" * 5000,
        '{"type":"resize","cols":true,"rows":24}', '{"type":"resize","cols":1e3,"rows":24}', "NaN",
        '{"type":"resize","cols":80}',
    ]  # fmt: skip
    assert len(nonsense) == 20
    assert await closed(house.url(), *nonsense) == broken
    assert await closed(house.url(), *[b"\x01a"] * 20) == broken
    assert (
        await closed(house.url(), *[b"", b"\x00", b"\xff", b"\x02", b"\x02a"] * 4, **v2) == broken
    )

    # Sizes that no terminal has are passed over, and the session is as it was.
    odd = [
        json.dumps({"type": "resize", "cols": cols, "rows": rows})
        for cols, rows in ((0, 24), (-1, 24), (80, 0), (65536, 24), (10**9, 10**9), (80, 501))
    ]
    viewer = Viewer(house.server.url, house.session, house.environment, house.owner.token)
    async with viewer.attached():
        assert viewer.socket is not None
        for frame in odd:
            await viewer.socket.send(frame)
        assert (await viewer.run("stty size")).split() == ["30", "100"]

    many = [connect(house.url(), compression=None, proxy=None) for _ in range(MOST_TERMINALS)]
    held = [await one for one in many]
    try:
        for one in held:
            await one.recv()
        code, reason = await closed(house.url())
        assert code == 1013
        assert "too many terminals" in (reason or "")
        # Another user has a count of their own.
        theirs = Viewer(
            house.server.url, house.others_session, house.others_environment, house.other.token
        )
        async with theirs.attached():
            await theirs.run("echo theirs")
    finally:
        for one in held:
            await one.close()


HOST = b" HTTP/1.1\r\nHost: x\r\n"
LOGIN = b"POST /api/auth/login" + HOST
SOCKET = HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
RAW = [
    b"GET /api/auth/me" + HOST + b"Authorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /\x1b[31m\x07" + HOST + b"\r\n",
    b"GET /api/\xff\xfe" + HOST + b"\r\n",
    b"GET http://evil.example/api/auth/me" + HOST + b"\r\n",
    b"GET /api/auth/me" + HOST + b"Host: b\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET //api/auth/me" + HOST + b"\r\n",
    b"GET /api/../api/auth/me" + HOST + b"\r\n",
    b"GET /api/auth/me?" + b"a" * 60_000 + HOST + b"\r\n",
    b"TRACE /api/auth/me" + HOST + b"\r\n",
    b"CONNECT evil.example:443" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    LOGIN + b"Content-Length: -1\r\n\r\n",
    LOGIN + b"Content-Length: 99999999999999999999\r\n\r\n",
    LOGIN + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
    LOGIN + CHUNKED + b"ZZ\r\n",
    LOGIN
    + b"Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /api/terminal/ws/x" + SOCKET + b"\r\n",
    b"GET /api/terminal/ws/\xff?token=\xff" + SOCKET + KEY,
]


def exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as one:
        one.sendall(request)
        one.settimeout(1.0)
        answer = b""
        try:
            while len(answer) < 1 << 20 and (more := one.recv(65536)):
                answer += more
        except (TimeoutError, ConnectionError):
            pass
        return answer


async def test_bytes_that_are_no_request_end_nothing(house: House) -> None:
    for request in RAW:
        answer = await anyio.to_thread.run_sync(exchange, house.server.port, request)
        status = answer[9:12]
        assert not status.startswith(b"5"), f"{request[:80]!r}: {answer[:300]!r}"
        assert b"Traceback" not in answer
    assert (await house.owner.client.get("/healthz")).status_code == 200
    log = house.server.log.read_text()
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert all(json.loads(line) for line in log.splitlines())
