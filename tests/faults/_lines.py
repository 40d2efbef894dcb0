"""A server that soon misses a sign of life, and lines to it that are slow or go silent."""

import json
import os
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketStream, TaskGroup

from craftastic.cli.serve import PING_S, PONG_S
from tests.e2e._carrier import BROKEN, Carrier
from tests.e2e.harness import Server

ASKING_S = 5.0
"""Between two pings in these tests, and as long for the answer."""
SHORTENED = (PING_S + PONG_S) / (2 * ASKING_S)
"""So many times longer everything takes that goes by pings on a server that people use."""

OFTEN = f"from craftastic.cli import serve; serve.PING_S = serve.PONG_S = {ASKING_S}; serve.serve()"
SMALL = 4096
SEGMENT = 536
PIECE = 256


class OftenAsking(Server):
    """A server that asks its terminals' sockets more often whether they live."""

    program = ("-c", OFTEN)


@dataclass
class Line(Carrier):
    """Carries connections to a server's port as slowly as it is told, or not at all.

    Towards the server it behaves like a narrow line: small segments, and a small window.
    """

    rate: float | None = None
    """Bytes each second towards the client, on each connection; None for no limit."""

    still: bool = False
    """Nothing is carried, in neither direction, and no connection is closed."""

    connections: int = 0
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def change(self, *, rate: float | None = None, still: bool = False) -> None:
        """Carry like this from now on."""
        self.rate, self.still = rate, still
        self._changed.set()
        self._changed = anyio.Event()

    async def _carry(self, near: SocketStream) -> None:
        far = await narrow(self.to_port)
        self.connections += 1
        try:
            async with near, far, anyio.create_task_group() as group:
                group.start_soon(self._copy, near, far, group, False)
                group.start_soon(self._copy, far, near, group, True)
        finally:
            self.connections -= 1

    async def _copy(
        self, one: SocketStream, other: SocketStream, group: TaskGroup, slowly: bool
    ) -> None:
        try:
            while True:
                while self.still:
                    await self._changed.wait()
                limited = slowly and self.rate is not None
                data = await one.receive(PIECE if limited else 1 << 16)
                while self.still:
                    await self._changed.wait()
                await other.send(data)
                if slowly and self.rate is not None:
                    with anyio.move_on_after(len(data) / self.rate):
                        await self._changed.wait()
        except BROKEN:
            group.cancel_scope.cancel()


async def narrow(port: int) -> SocketStream:
    """Connect to a port of this machine with small segments and a small window."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    one.connect(("127.0.0.1", port))
    return await SocketStream.from_socket(one)


@dataclass
class Deaf:
    """A terminal's client that opens a socket by hand, and reads only when it is told to."""

    stream: SocketStream
    received: bytearray = field(default_factory=bytearray)

    async def read_to_the_end(self) -> tuple[int, str]:
        """Read everything and return the code and the reason of the close frame.

        Raises:
            AssertionError: There was none.
        """
        try:
            while True:
                self.received += await self.stream.receive()
        except BROKEN:
            pass
        close = b""
        for kind, body in self.frames():
            close = body if kind == 8 else close
        assert len(close) >= 2, f"no close frame in {len(self.received)} bytes"
        return struct.unpack(">H", close[:2])[0], close[2:].decode()

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the opcode and the body of each whole frame that was read."""
        found: list[tuple[int, bytes]] = []
        data = memoryview(self.received)
        at = bytes(self.received).index(b"\r\n\r\n") + 4
        while len(data) - at >= 2:
            length, head = data[at + 1] & 0x7F, 2
            if length == 126:
                length, head = struct.unpack_from(">H", data, at + 2)[0], 4
            elif length == 127:
                length, head = struct.unpack_from(">Q", data, at + 2)[0], 10
            if len(data) - at - head < length:
                break
            found.append((data[at] & 0x0F, bytes(data[at + head : at + head + length])))
            at += head + length
        return found


@asynccontextmanager
async def deaf(
    port: int, session: str, environment: str, token: str, *, v2: bool
) -> AsyncGenerator[Deaf]:
    """Open a terminal, give it a size, and read no more than the answer's head."""
    query = f"environmentId={environment}&token={token}"
    head = [
        f"GET /api/terminal/ws/{session}?{query} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *(["Sec-WebSocket-Protocol: craftastic.v2"] if v2 else []),
        "",
        "",
    ]
    async with await narrow(port) as stream:
        await stream.send("\r\n".join(head).encode())
        one = Deaf(stream)
        while b"\r\n\r\n" not in one.received:
            one.received += await stream.receive(1)
        assert one.received.startswith(b"HTTP/1.1 101 "), bytes(one.received)
        await stream.send(frame(json.dumps({"type": "resize", "cols": 100, "rows": 30}).encode()))
        yield one


def frame(text: bytes) -> bytes:
    """Return a client's text frame of less than 126 bytes."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
    return struct.pack("BB", 0x81, 0x80 | len(text)) + mask + body
