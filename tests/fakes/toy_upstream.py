"""Upstreams that behave as a test says, byte by byte, and a client that does so too."""

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.fakes.gateway import OWN, FakeEnvironment, ServedGateway

CHUNK = 1 << 16
WAIT_S = 15.0
HEADERS = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{}\r\n"
ADVERTISEMENT = HEADERS.format("advertisement").encode()
RESULT = HEADERS.format("result").encode()
GOOD = ADVERTISEMENT + b"Content-Length: 4\r\n\r\n0000"
UPLOAD_PACK = "Content-Type: application/x-git-upload-pack-request\r\n"
RECEIVE_PACK = "Content-Type: application/x-git-receive-pack-request\r\n"


@dataclass
class Connection:
    stream: SocketStream
    reader: BufferedByteReceiveStream
    path: str

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def until_closed(self) -> None:
        with anyio.fail_after(WAIT_S):
            while True:
                await self.stream.receive()


Behaviour = Callable[[Connection], Awaitable[None]]


@dataclass
class Toy:
    """An upstream of a test's own making; `closed` is set when a connection has ended."""

    port: int
    heads: list[str] = field(default_factory=list)
    closed: anyio.Event = field(default_factory=anyio.Event)
    sent: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/o/n"


@asynccontextmanager
async def toy(behave: Callable[[Toy, Connection], Awaitable[None]]) -> AsyncGenerator[Toy]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
    upstream = Toy(port)

    async def connection(stream: SocketStream) -> None:
        try:
            async with stream:
                reader = BufferedByteReceiveStream(stream)
                head = (await reader.receive_until(b"\r\n\r\n", CHUNK)).decode()
                upstream.heads.append(head)
                await behave(upstream, Connection(stream, reader, head.split()[1]))
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            pass
        finally:
            upstream.closed.set()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection)
        yield upstream
        tasks.cancel_scope.cancel()


def answering(answer: bytes) -> Callable[[Toy, Connection], Awaitable[None]]:
    async def behave(upstream: Toy, connection: Connection) -> None:
        await connection.send(answer)

    return behave


@dataclass
class Answer:
    status: int
    headers: str
    body: bytes
    complete: bool


async def ask(
    gateway: ServedGateway,
    target: str,
    *,
    method: str = "GET",
    token: str | None = OWN,
    headers: str = "",
    body: bytes = b"",
    version: str = "1.1",
) -> Answer:
    """Send one request byte for byte and read the answer to the connection's end."""
    head = f"{method} {target} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n{headers}"
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n"
    if method == "POST" and "chunked" not in headers:
        head += f"Content-Length: {len(body)}\r\n"
    with anyio.fail_after(WAIT_S):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            await stream.send(head.encode() + b"\r\n")
            received = b""
            try:
                if body:
                    await stream.send(body)
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
    return parse(received)


def parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    text = head.decode().lower()
    complete = True
    if "transfer-encoding: chunked" in text:
        chunks = b""
        while size := int(body.partition(b"\r\n")[0] or b"0", 16):
            rest = body.partition(b"\r\n")[2]
            chunks, body = chunks + rest[:size], rest[size + 2 :]
        complete = body == b"0\r\n\r\n"
        body = chunks
    return Answer(int(text.split()[1]) if text else 0, text, body, complete)


def refs_of(environment: FakeEnvironment, service: str = "git-upload-pack") -> str:
    return f"/git/{environment.id}.git/info/refs?service={service}"


class Canary:
    """A port of loopback that counts who connects."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def connections(self) -> int:
        count = 0
        try:
            while True:
                self.socket.accept()[0].close()
                count += 1
        except BlockingIOError:
            return count
