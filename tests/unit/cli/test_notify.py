"""What systemd is told of a server, and when."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn

from craftastic.cli._notify import notify
from craftastic.cli.serve import DrainingServer
from craftastic.http.draining import Draining


class Application:
    """Starts when it may, and ends when it is told to."""

    def __init__(self) -> None:
        self.state = object()
        self.may_start = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.may_start.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


class Server(DrainingServer):
    """One whose end is not the end of the tests, should that take long."""

    def _end_at_once(self) -> None:
        pass


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


async def test_systemd_is_told_when_the_server_serves_and_when_it_ends(
    systemd: socket.socket,
) -> None:
    application = Application()
    config = uvicorn.Config(application, log_config=None)  # type: ignore[arg-type]
    server = Server(config, application, Draining(application))
    with socket.create_server(("127.0.0.1", 0)) as listening, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
            application.may_start.set()
            await anyio.wait_readable(systemd)
            assert systemd.recv(100) == b"READY=1"
            server.should_exit = True
            await anyio.wait_readable(systemd)
            assert systemd.recv(100) == b"STOPPING=1"


def test_an_address_in_the_abstract_name_space_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses an abstract one
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listening.getsockname()[1:].decode())

        assert notify("READY=1")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nobody/listens/here"])
def test_nobody_to_tell_is_no_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    assert not notify("READY=1")
