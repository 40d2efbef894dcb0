"""A way round the engine: the streams of a command over a Unix socket in a mounted folder.

Each byte of an exec's stream passes the container's shim and the engine. Where the server and the
sandbox share a host, the command may bring its streams here instead: it connects twice to a socket
in a folder of the server's that is mounted read-only, once for input and first output, once for
the second. The exec stays, idle, and the command's life hangs on it as ever; a command that cannot
connect, and a container without the mount, use its streams.

The sandbox can pass the folder and connect, and nothing more: it neither lists nor writes it, so
nothing of the server's follows a link that it made. Whoever connects must have the sandbox's user
(SEC-10). Nothing but bytes is taken; they are as hostile as those of the exec.
"""

import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import anyio

from craftastic.runtimes._docker_exec import STDERR, Exec
from craftastic.runtimes._following import CHUNK, follow
from craftastic.runtimes.base import SandboxGone, Take

LINK_DIR = "/run/craftastic-link"
LINK_VARIABLE = "CRAFTASTIC_LINK"
"""Tells the command where to connect."""
CONNECT_S = 5.0
"""How long a command that has started may take to connect or to say something by the exec."""
MOST_CALLERS = 8
STALE_S = 60.0
AT_ONCE = 4096
"""One piece of a Unix socket: sent whole or not at all. Source: unix_stream_sendmsg."""
_CREDENTIALS = struct.Struct("3i")
CONTROL, FRAMES = b"c", b"f"


@dataclass(frozen=True, slots=True)
class Near:
    """Where a container reaches this server.

    Args:
        folder: What is mounted at `LINK_DIR`; the server's own.
        uid: The only user who may connect.
    """

    folder: Path
    uid: int


class Linked:
    """A command's streams over its two connections; a `DirectStream`."""

    def __init__(self, control: socket.socket, frames: socket.socket) -> None:
        self._control = control
        self._frames = frames

    async def send(self, data: bytes) -> None:
        """Write to the command's input; waits while the command does not read.

        Raises:
            SandboxGone: The command has ended.
        """
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[self._control.send(rest) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
        except (OSError, anyio.ClosedResourceError) as error:
            raise SandboxGone("The command in the sandbox has ended.") from error

    def try_send(self, data: bytes) -> bool:
        """See `DirectStream.try_send`."""
        if len(data) > AT_ONCE:
            return False
        try:
            return self._control.send(data) == len(data)
        except OSError:
            return False

    async def follow(self, take_stdout: Take, take_stderr: Take) -> None:
        """See `DirectStream.follow`."""
        await follow({self._control.fileno(): take_stdout, self._frames.fileno(): take_stderr})

    async def receive_stdout(self) -> bytes:
        """Return the next bytes of the first output, or b"" once it has ended."""
        return await _receive(self._control)

    async def receive_stderr(self) -> bytes:
        """Return the next bytes of the second output, or b"" once it has ended."""
        return await _receive(self._frames)


@contextlib.contextmanager
def listening(near: Near) -> Generator[tuple[socket.socket, str]]:
    """Listen for one command; gives the socket and its path inside.

    Raises:
        OSError: That is not possible here.
    """
    name = secrets.token_hex(8)
    folder = os.open(near.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _remove_stale(folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.setblocking(False)
            path = f"/proc/self/fd/{folder}/{name}"  # a socket's whole path may be 107 bytes long
            listener.bind(path)
            try:
                Path(path).chmod(0o666)
                listener.listen(MOST_CALLERS)
                yield listener, f"{LINK_DIR}/{name}"
            finally:
                os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


@contextlib.asynccontextmanager
async def linked(
    listener: socket.socket, near: Near, running: Exec
) -> AsyncGenerator[Linked | Exec]:
    """Give the streams that the command uses: its connections, or those of its exec.

    Leaving closes the connections, by which the command ends as by the end of its input.
    """
    callers: dict[bytes, socket.socket] = {}
    with contextlib.ExitStack() as connections:
        with anyio.move_on_after(CONNECT_S):
            async with anyio.create_task_group() as tasks:

                async def hear() -> None:
                    # Whatever comes by the exec means that the command did not connect.
                    data = await running.receive_stderr()
                    running.hold(STDERR, data)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(hear)
                for _ in range(MOST_CALLERS):
                    connection = await _caller(listener)
                    connections.enter_context(connection)
                    kind = await _kind(connection, near.uid)
                    if kind is not None:
                        callers.setdefault(kind, connection)
                    if len(callers) == len((CONTROL, FRAMES)):
                        break
                tasks.cancel_scope.cancel()
        if len(callers) == len((CONTROL, FRAMES)):
            yield Linked(callers[CONTROL], callers[FRAMES])
        else:
            connections.close()
            yield running


async def _caller(listener: socket.socket) -> socket.socket:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            await anyio.wait_readable(listener)
        else:
            connection.setblocking(False)
            return connection


async def _kind(connection: socket.socket, uid: int) -> bytes | None:
    """Return which of its streams a caller brings; None when it is not the sandbox's user."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(raw)[1] != uid:
        return None
    while True:
        try:
            kind = connection.recv(1)
        except BlockingIOError:
            await anyio.wait_readable(connection)
        except OSError:
            return None
        else:
            return kind if kind in (CONTROL, FRAMES) else None


async def _receive(connection: socket.socket) -> bytes:
    while True:
        try:
            return connection.recv(CHUNK)
        except BlockingIOError:
            await anyio.wait_readable(connection)
        except OSError:
            return b""


def _remove_stale(folder: int) -> None:
    """Remove what servers that were killed left behind."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if time.time() - status.st_mtime > STALE_S:
                os.unlink(name, dir_fd=folder)
