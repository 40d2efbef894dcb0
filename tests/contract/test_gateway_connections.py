"""What one connection to the private listener may hold open."""

from collections.abc import AsyncIterator

import anyio
import pytest

from craftastic.gateway import protocol
from craftastic.settings import Settings
from tests.fakes.gateway import Sandboxes, ServedGateway, gateway_of, served
from tests.fakes.toy_upstream import WAIT_S, Connection, Toy, ask, refs_of, toy

IDLE_S = 0.3
SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


@pytest.fixture
async def gateway(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServedGateway]:
    monkeypatch.setattr(protocol, "IDLE_CONNECTION_S", IDLE_S)
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 8)
    async with served(gateway_of(SETTINGS, sandboxes)) as gateway:
        yield gateway


@pytest.mark.parametrize("sent", [b"", b"GET /git", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_connection_without_a_whole_request_is_dropped(
    gateway: ServedGateway, sent: bytes
) -> None:
    with anyio.fail_after(WAIT_S):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            await stream.send(sent) if sent else None
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()


async def test_endless_head_is_refused(gateway: ServedGateway) -> None:
    async def endless() -> None:
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nX: ")
            while True:
                await stream.send(b"x" * 65536)

    with anyio.fail_after(WAIT_S), pytest.raises(anyio.BrokenResourceError):
        await endless()


async def test_slow_transfer_is_not_taken_for_an_idle_connection(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def slow(upstream: Toy, connection: Connection) -> None:
        await anyio.sleep(4 * IDLE_S)
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
            b"Content-Length: 4\r\n\r\n0000"
        )

    async with toy(slow) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert (answer.status, answer.body) == (200, b"0000")


async def test_connections_above_the_bound_are_dropped_at_once(gateway: ServedGateway) -> None:
    streams = [await anyio.connect_tcp("127.0.0.1", gateway.port) for _ in range(8)]
    started = anyio.current_time()

    with anyio.fail_after(WAIT_S):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as one_more:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await one_more.receive()

    assert anyio.current_time() - started < IDLE_S
    for stream in streams:
        await stream.aclose()
