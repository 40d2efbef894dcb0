"""The way round the engine: who may use it, what it carries, and what happens without it."""

import contextlib
import os
import socket
from pathlib import Path

import anyio
import pytest

from craftastic.runtimes import _docker_link as link
from craftastic.runtimes._docker_exec import Exec
from craftastic.runtimes._docker_link import Linked, Near
from craftastic.runtimes.base import RUN_DIR
from craftastic.runtimes.docker import DockerRuntime
from craftastic.terminals._control import Notice
from craftastic.terminals._pane import GIVE, PaneConnection, attach_command
from craftastic.terminals._tmux_commands import quote
from tests.contract.conftest import Bench

pytestmark = pytest.mark.docker

BYTES = bytes(range(256)) * 1200
CONNECT = """
import os, socket
def connected(kind):
    one = socket.socket(socket.AF_UNIX)
    one.connect(os.environ["CRAFTASTIC_LINK"])
    one.sendall(kind)
    return one
"""
SHOUT = (
    CONNECT
    + """
control, frames = connected(b"c"), connected(b"f")
frames.sendall(bytes(range(256)) * 1200)
while data := control.recv(65536):
    control.sendall(data.upper())
"""
)


def runtime_of(docker: Bench) -> DockerRuntime:
    assert isinstance(docker.runtime, DockerRuntime)
    return docker.runtime


def folder_of(docker: Bench) -> Path:
    key = str(docker.specs[0].environment_id)
    return docker.settings.data_dir / "sandboxes" / key / "link"


async def test_a_command_that_connects_has_its_streams_round_the_engine(docker: Bench) -> None:
    ref = await docker.sandbox()
    answers, frames = bytearray(), bytearray()

    async with runtime_of(docker).open_near(ref, ["python3", "-c", SHOUT, "shout"]) as stream:
        assert isinstance(stream, Linked)
        assert stream.try_send(b"one ")
        await stream.send(b"two")
        with anyio.move_on_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.follow, answers.extend, frames.extend)
                while len(answers) < len(b"one two") or len(frames) < len(BYTES):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()

    assert (bytes(answers), bytes(frames)) == (b"ONE TWO", BYTES)
    assert not await docker.running(ref, "shout")
    assert not list(folder_of(docker).iterdir())


async def test_a_command_that_does_not_connect_keeps_its_exec(docker: Bench) -> None:
    ref = await docker.sandbox()
    script = "echo here >&2; exec cat"

    async with runtime_of(docker).open_near(ref, ["sh", "-c", script]) as stream:
        with anyio.fail_after(30):
            assert isinstance(stream, Exec)
            assert await stream.receive_stderr() == b"here\n"
            await stream.send(b"by the engine")
            assert await stream.receive_stdout() == b"by the engine"


async def test_half_a_connection_is_none(docker: Bench) -> None:
    ref = await docker.sandbox()
    script = CONNECT + "connected(b'c'); connected(b'x'); os.write(2, b'here'); os.read(0, 1)"

    async with runtime_of(docker).open_near(ref, ["python3", "-c", script]) as stream:
        with anyio.fail_after(30):
            assert isinstance(stream, Exec)
            assert await stream.receive_stderr() == b"here"


async def test_the_setting_keeps_terminals_with_the_engine(docker: Bench) -> None:
    ref = await docker.sandbox()
    settings = docker.settings.model_copy(update={"terminal_link": False})
    network = runtime_of(docker)._network.name  # pyright: ignore[reportPrivateUsage]
    without = DockerRuntime(settings, docker.instance, network=network)
    script = 'echo "<$CRAFTASTIC_LINK>" >&2; exec cat'

    try:
        async with without.open_near(ref, ["sh", "-c", script]) as stream:
            with anyio.fail_after(30):
                assert isinstance(stream, Exec)
                assert await stream.receive_stderr() == b"<>\n"
    finally:
        await without.close()


async def test_a_sandbox_can_neither_list_nor_change_the_folder(docker: Bench) -> None:
    ref = await docker.sandbox()
    script = """
        cd /run/craftastic-link || exit 9
        ls >/dev/null 2>&1 && echo listed
        ln -s /etc/passwd link 2>/dev/null && echo linked
        mkdir folder 2>/dev/null && echo made
        rmdir /run/craftastic-link 2>/dev/null && echo removed
        mv /run/craftastic-link /run/other 2>/dev/null && echo moved
        echo done
    """

    assert await docker.sh(ref, script) == "done\n"


async def test_only_the_sandboxs_user_may_connect(tmp_path: Path) -> None:
    strangers = Near(tmp_path, os.geteuid() + 1)
    own = Near(tmp_path, os.geteuid())

    for near, wanted in ((strangers, None), (own, b"c")):
        with link.listening(near) as (listener, inside), socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(tmp_path / Path(inside).name))
            caller.sendall(b"c")
            with anyio.fail_after(10):
                connection = await link._caller(listener)  # pyright: ignore[reportPrivateUsage]
                with contextlib.closing(connection):
                    kind = await link._kind(connection, near.uid)  # pyright: ignore[reportPrivateUsage]
        assert kind == wanted


async def test_what_a_killed_server_left_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for one in (old, new):
        one.touch()
    os.utime(old, (1, 1))

    with link.listening(Near(tmp_path, os.geteuid())):
        assert (old.exists(), new.exists()) == (False, True)


async def test_a_terminal_in_a_container_goes_round_the_engine(docker: Bench) -> None:
    ref = await docker.sandbox()
    tmux = f"{RUN_DIR}/bench.sock"
    await docker.sh(ref, f"tmux -S {tmux} new-session -d -s work -x 80 -y 24 cat")
    command = attach_command(RUN_DIR, tmux, "work")
    listener = Heard()

    async with runtime_of(docker).open_near(ref, command) as stream:
        assert isinstance(stream, Linked)
        connection = PaneConnection(stream, listener)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for reader in connection.readers:
                    tasks.start_soon(reader)
                await connection.greeted.wait()
                await connection.attached.wait()
                give = f"cd {connection.folder} && exec python3 -I -S -c '{GIVE}' give 1"
                await connection.call(f"pipe-pane -O -t work {quote(give)}".encode())
                await listener.began.wait()
                assert connection.try_send(b"send-keys -t work -l -- hello", 1, lambda _: None)
                while b"hello" not in listener.data:  # noqa: ASYNC110 - fed by a reader
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()


class Heard:
    """Keeps what comes; a pane's `Listener`."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.data = bytearray()

    def pipe_began(self, generation: int) -> None:
        self.began.set()

    def pipe_bytes(self, generation: int, data: bytes) -> None:
        self.data += data

    def pipe_ended(self, generation: int, reason: bytes) -> None: ...

    def pipe_marked(self) -> None: ...

    def control_bytes(self, pane: str, data: bytes) -> None: ...

    def notice(self, notice: Notice) -> None: ...
