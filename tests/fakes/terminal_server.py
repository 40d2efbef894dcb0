"""A small Craftastic server: sign-in, one listing, and a `craftastic.v2` terminal that misbehaves.

It keeps one stream, answers with what was missed or with a snapshot, echoes nothing, and can cut
its connections, refuse tokens, stop reading, or close with any code.
"""

import asyncio
import base64
import contextlib
import json
import struct
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

USER = {"id": "5f0e6f0a-0000-4000-8000-000000000001", "email": "a@example.com", "name": "A"}
ENVIRONMENT_ID = "11111111-0000-4000-8000-000000000001"
REFUSE_S = 0.1
SESSION_ID = "22222222-0000-4000-8000-000000000001"


def access_token(number: int, lifetime_s: int = 900) -> str:
    """Return a token of the right form that nobody signed; the number makes it unique."""
    now = int(time.time())
    payload = json.dumps({"sub": USER["id"], "iat": now, "exp": now + lifetime_s, "n": number})
    return f"h.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.s"


@dataclass
class TerminalServer:
    """What the tests see and steer.

    Args:
        ring_bytes: How much of the stream a client that comes back can still get.
    """

    ring_bytes: int = 1 << 20
    stream: str = "stream-1"
    document: bytearray = field(default_factory=bytearray)
    typed: bytearray = field(default_factory=bytearray)
    lost: bytearray = field(default_factory=bytearray)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    first_frames: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    snapshots: int = 0
    acknowledged: int = 0
    connections: set[ServerConnection] = field(default_factory=set)
    refuse: tuple[int, str] | None = None
    tokens: int = 0
    slow_snapshots: bool = False
    refreshes: int = 0
    spent: set[str] = field(default_factory=set)
    valid: set[str] = field(default_factory=set)
    family_ended: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ---- what a test does ---------------------------------------------------------------------

    def issue(self, lifetime_s: int = 900) -> dict[str, Any]:
        """Return a sign-in's tokens; the refresh token works once."""
        self.tokens += 1
        token = access_token(self.tokens, lifetime_s)
        self.valid = {token}
        return {"accessToken": token, "refreshToken": f"refresh-{self.tokens}", "user": USER}

    def context(self, **changes: Any) -> dict[str, Any]:
        """Return a sign-in as the command line keeps it."""
        tokens = self.issue()
        return {
            "access_token": tokens["accessToken"],
            "refresh_token": tokens["refreshToken"],
            "expires_at": time.time() + 900,
            "lifetime_s": 900.0,
            "user_id": USER["id"],
            "email": USER["email"],
            "name": USER["name"],
            **changes,
        }

    async def print(self, data: bytes) -> None:
        """Let the program print."""
        first = len(self.document)
        self.document += data
        for connection in list(self.connections):
            await self._send_output(connection, first, data)

    def cut(self) -> None:
        """Break every connection without a close frame."""
        for connection in list(self.connections):
            connection.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        for connection in list(self.connections):
            await connection.close(code, reason)

    async def send(self, message: dict[str, Any]) -> None:
        for connection in list(self.connections):
            await connection.send(json.dumps(message))

    # ---- HTTP ---------------------------------------------------------------------------------

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path.startswith("/api/terminal/ws/"):
            return None
        if path == "/healthz":
            return _json(HTTPStatus.OK, {"status": "ok"})
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            return _json(HTTPStatus.UNAUTHORIZED, {"success": False, "error": "Unauthorized"})
        if path.startswith("/api/environments/user/"):
            return _json(HTTPStatus.OK, {"environments": [environment()]})
        return _json(HTTPStatus.NOT_FOUND, {"error": "Not found"})

    # ---- the terminal -------------------------------------------------------------------------

    async def _terminal(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = {
            key: values[0]
            for key, values in parse_qs(urlsplit(connection.request.path).query).items()
        }
        self.queries.append(query)
        given = connection.request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in self.valid:
            await connection.close(1008, "Invalid authentication token")
            return
        if self.refuse is not None:
            await self._refuse(connection, *self.refuse)
            return
        try:
            await self._attach(connection, query)
            self.connections.add(connection)
            first = True
            async for frame in connection:
                if first:
                    self.first_frames.append(frame if isinstance(frame, str) else "binary")
                first = False
                self._take(frame)
        except ConnectionClosed:
            pass
        finally:
            self.connections.discard(connection)

    async def _keep_early_keys(self, connection: ServerConnection) -> None:
        """Make the snapshot wait for a moment, and keep apart what is typed before it."""
        if not self.slow_snapshots:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFUSE_S):
                async for frame in connection:
                    if isinstance(frame, bytes) and frame[0] == 1:
                        self.lost += frame[1:]

    async def _refuse(self, connection: ServerConnection, code: int, reason: str) -> None:
        """Close, after a moment in which whatever is typed is lost."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(REFUSE_S):
                async for frame in connection:
                    if isinstance(frame, bytes) and frame[0] == 1:
                        self.lost += frame[1:]
        await connection.close(code, reason)

    async def _attach(self, connection: ServerConnection, query: dict[str, str]) -> None:
        seen = int(query.get("seen", -1))
        oldest = max(0, len(self.document) - self.ring_bytes)
        resumed = query.get("stream") == self.stream and oldest <= seen <= len(self.document)
        ready = {"type": "ready", "stream": self.stream, "cols": 80, "rows": 24, "role": "drive"}
        await connection.send(json.dumps({**ready, "resumed": resumed}))
        if resumed:
            await self._send_output(connection, seen, bytes(self.document[seen:]))
        else:
            await self._keep_early_keys(connection)
            self.snapshots += 1
            await connection.send(
                b"\x02" + struct.pack(">Q", len(self.document)) + bytes(self.document)
            )

    async def _send_output(self, connection: ServerConnection, first: int, data: bytes) -> None:
        try:
            await connection.send(b"\x01" + struct.pack(">Q", first) + data)
        except ConnectionClosed:
            self.connections.discard(connection)

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            if frame[0] == 1:
                self.typed += frame[1:]
            else:
                self.acknowledged = struct.unpack(">Q", frame[1:])[0]
            return
        message = json.loads(frame)
        if message["type"] == "resize":
            self.sizes.append((message["cols"], message["rows"]))
        elif message["type"] == "role":
            self.roles.append(message["role"])


def environment() -> dict[str, Any]:
    """Return the one environment with its one session, as the API lists them."""
    session = {
        "id": SESSION_ID,
        "environmentId": ENVIRONMENT_ID,
        "name": "work",
        "status": "inactive",
        "gitBranch": "main",
    }
    return {
        "id": ENVIRONMENT_ID,
        "name": "project",
        "status": "running",
        "branch": "main",
        "repositoryUrl": "https://example.com/a/project",
        "sessions": [session],
    }


def _json(status: HTTPStatus, body: dict[str, Any]) -> Response:
    data = json.dumps(body).encode()
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, data)


@asynccontextmanager
async def running(**options: Any) -> AsyncGenerator[TerminalServer]:
    """Serve on a free port as long as the block lasts."""
    fake = TerminalServer(**options)
    async with serve(
        fake._terminal,
        "127.0.0.1",
        0,
        process_request=fake._answer,
        subprotocols=["craftastic.v2"],  # type: ignore[list-item]
        compression=None,
        close_timeout=0.5,
    ) as server:
        fake.port = server.sockets[0].getsockname()[1]
        await asyncio.sleep(0)
        yield fake
