"""Commands whose connection to the engine is cut: they are never taken for ones that ended."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import pytest

from craftastic.runtimes._docker_engine import engine_url
from craftastic.runtimes.base import RuntimeUnavailable, SandboxRef
from craftastic.runtimes.docker import DockerRuntime
from tests.contract.conftest import Bench, until

pytestmark = pytest.mark.docker

ENDS = "echo first; read -r go < /tmp/go; echo last"


class Wire(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """What stands between the driver and the engine; `cut` breaks every connection.

    Args:
        path: Of the socket that the driver knows.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Carry)
        self.held: list[socket.socket] = []

    def cut(self) -> None:
        for one in self.held:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Carry(socketserver.BaseRequestHandler):
    """One connection, passed on both ways."""

    def handle(self) -> None:
        wire, near = cast("Wire", self.server), cast("socket.socket", self.request)
        with socket.socket(socket.AF_UNIX) as far:
            far.connect(engine_url(None).removeprefix("unix://"))
            wire.held += [near, far]
            back = threading.Thread(target=copied, args=(far, near), daemon=True)
            back.start()
            copied(near, far)
            back.join()


def copied(source: socket.socket, target: socket.socket) -> None:
    """Copy what comes, with its end."""
    with contextlib.suppress(OSError):
        while got := source.recv(65536):
            target.sendall(got)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass
class Place:
    wire: Wire
    runtime: DockerRuntime
    direct: Bench
    sandbox: SandboxRef

    async def sh(self, script: str) -> bytes:
        """Run a script by a connection that stays."""
        return (await self.direct.runtime.run(self.sandbox, ["sh", "-c", script])).stdout


@pytest.fixture
async def place(docker: Bench, docker_network: str, tmp_path: Path) -> AsyncIterator[Place]:
    sandbox = await docker.sandbox()
    path = tmp_path / "engine.sock"
    settings = docker.settings.model_copy(update={"docker_host": f"unix://{path}"})
    with Wire(path) as wire:
        threading.Thread(target=wire.serve_forever, args=(0.05,), daemon=True).start()
        runtime = DockerRuntime(settings, docker.instance, network=docker_network)
        yield Place(wire, runtime, docker, sandbox)
        await runtime.close()
        wire.cut()
        await anyio.to_thread.run_sync(wire.shutdown)


async def test_a_command_that_goes_on_when_its_connection_is_cut_has_no_result(
    place: Place,
) -> None:
    """Half an output with an exit code would be believed: a clean worktree that is none."""
    await place.sh("mkfifo /tmp/go")
    failed: list[RuntimeUnavailable] = []

    async def asked() -> None:
        with pytest.raises(RuntimeUnavailable) as error:
            await place.runtime.run(place.sandbox, ["sh", "-c", ENDS])
        failed.append(error.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked)

        async def waits() -> bool:
            found = await place.sh("for one in /proc/[0-9]*; do tr '\\0' ' ' < $one/cmdline; done")
            return b"read -r go" in found

        await until(waits, "the command waits")
        place.wire.cut()

    assert len(failed) == 1
    assert "sandbox" in failed[0].message.lower() or "docker" in failed[0].message.lower()


async def test_a_command_that_is_killed_has_its_exit_code(place: Place) -> None:
    result = await place.runtime.run(place.sandbox, ["sh", "-c", "echo first; kill -9 $$"])

    assert (result.exit_code, result.stdout) == (137, b"first\n")
