"""Commands in a local sandbox: asked of its first process, with plain pipes for the streams.

The sandbox gets the far ends of three pipes and nothing else. Reading and writing them here needs
no thread and no buffer: a program that is not read waits, and so does a writer that is ahead.
"""

import contextlib
import errno
import json
import os
import select
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio

from craftastic.runtimes._following import follow
from craftastic.runtimes.base import (
    RunResult,
    RunTimeout,
    RuntimeUnavailable,
    SandboxExhausted,
    SandboxGone,
    Take,
)

START_S = 20.0
"""Longest wait for a command to be started, in seconds."""

END_S = 3.0
"""Longest wait for an ended command to be gone, in seconds."""

LEFT_BEHIND_S = 0.2
"""How long an output may be held open by something that the command left running, in seconds."""

CHUNK = 65536
MAX_REPLY_BYTES = 4096
RETRY_S = 0.01
SOCKET_NAME = "init.sock"
NOT_EXECUTABLE = 126
NOT_FOUND = 127
UNKNOWN_EXIT = 137
MAX_EXIT_CODE = 255
MAX_ERRNO = 4095
"""Linux's own bound. Source: linux/err.h."""

GONE = "The sandbox is not running."


def connect(folder: Path) -> socket.socket:
    """Connect to the sandbox whose state is in `folder`.

    The path goes by way of an open folder: the address of a Unix socket has room for 107 bytes.

    Raises:
        OSError: Nobody listens, or too many are waiting (EAGAIN).
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{at}/{SOCKET_NAME}")
        finally:
            os.close(at)
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(slots=True)
class Pipe:
    """Our end of one stream."""

    fd: int
    closed: bool = False

    async def read(self) -> bytes:
        """Return the next bytes, or b"" at the end."""
        while not self.closed:
            try:
                return os.read(self.fd, CHUNK)
            except BlockingIOError:
                with contextlib.suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self.fd)
        return b""

    async def write(self, data: bytes) -> None:
        """Write everything; waits while nobody reads.

        Raises:
            SandboxGone: Nobody will.
        """
        rest = memoryview(data)
        while rest:
            if self.closed:
                raise SandboxGone("The command in the sandbox has ended.")
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                with contextlib.suppress(anyio.ClosedResourceError):
                    await anyio.wait_writable(self.fd)
            except BrokenPipeError as error:
                raise SandboxGone("The command in the sandbox has ended.") from error

    def try_write(self, data: bytes) -> bool:
        """Write everything at once or nothing. Source: pipe(7), PIPE_BUF."""
        if self.closed or len(data) > select.PIPE_BUF:
            return False
        try:
            return os.write(self.fd, data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            anyio.notify_closing(self.fd)
            os.close(self.fd)


@dataclass(slots=True)
class Command:
    """One command in a sandbox, started; also the port's `Stream`."""

    _connection: socket.socket
    stdin: Pipe
    stdout: Pipe
    stderr: Pipe
    _replies: bytes = b""
    exit_code: int | None = None
    lost: bool = False
    """Whether it is not known how the command ended: its keeper or the sandbox was killed."""

    refusal: int | None = field(default=None)
    """The number of the error that kept the program from being executed."""

    async def send(self, data: bytes) -> None:
        """Write to the command's input; waits while the command does not read.

        Raises:
            SandboxGone: The command has ended.
        """
        await self.stdin.write(data)

    async def receive_stdout(self) -> bytes:
        """Return the next bytes of the first output, or b"" once it has ended."""
        return await self.stdout.read()

    async def receive_stderr(self) -> bytes:
        """Return the next bytes of the second output, or b"" once it has ended."""
        return await self.stderr.read()

    def try_send(self, data: bytes) -> bool:
        """See `DirectStream.try_send`."""
        return self.stdin.try_write(data)

    async def follow(self, take_stdout: Take, take_stderr: Take) -> None:
        """Follow both outputs; see `DirectStream.follow`."""
        await follow({self.stdout.fd: take_stdout, self.stderr.fd: take_stderr})

    async def ask(self, argv: Sequence[str], streams: Sequence[int]) -> None:
        """Send the request and wait until the command runs.

        Raises:
            SandboxGone: The sandbox ended meanwhile.
            SandboxExhausted: It could not fork.
        """
        text = json.dumps({"argv": list(argv)}).encode()
        await self._send(struct.pack("<I", len(text)) + text, streams)
        match await self._reply():
            case {"started": True}:
                return
            case {"error": "exec", "errno": int(number)} if 0 < number <= MAX_ERRNO:
                self.refusal = number
                self.exit_code = NOT_FOUND if number == errno.ENOENT else NOT_EXECUTABLE
            case {"error": "exhausted"}:
                raise SandboxExhausted(
                    "The sandbox cannot start another process.",
                    details="Its limit of processes or of memory is reached: end some of them.",
                )
            case None:
                raise SandboxGone(GONE)
            case other:
                raise RuntimeUnavailable("The sandbox answered nonsense.", got=str(other)[:200])

    async def _send(self, data: bytes, streams: Sequence[int]) -> None:
        """Send the request and hand the streams over; they are not ours afterwards."""
        rest = memoryview(data)
        files = list(streams)
        try:
            while rest:
                try:
                    sent = (
                        socket.send_fds(self._connection, [rest], files)
                        if files
                        else self._connection.send(rest)
                    )
                except BlockingIOError:
                    await anyio.wait_writable(self._connection)
                except OSError:
                    break  # Its keeper may have said why before it left: the answer is read below.
                else:
                    files = []
                    rest = rest[sent:]
        finally:
            for one in streams:
                os.close(one)

    async def wait(self) -> int:
        """Wait until the command has ended and return its exit code, as a shell tells it."""
        while self.exit_code is None:
            match await self._reply():
                case {"exit": int(code)} if 0 <= code <= MAX_EXIT_CODE:
                    self.exit_code = code
                case _:
                    self.exit_code, self.lost = UNKNOWN_EXIT, True
        return self.exit_code

    async def end(self) -> None:
        """End the command and wait until it is gone, or for `END_S`; safe to repeat."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()
        if self._connection.fileno() < 0:
            return
        try:
            if self.exit_code is None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_WR)
                with anyio.move_on_after(END_S, shield=True):
                    await self.wait()
        finally:
            anyio.notify_closing(self._connection)
            self._connection.close()

    async def _reply(self) -> dict[str, object] | None:
        """Return the next line of the command's keeper, or None when it is gone.

        As hostile as the sandbox, whatever the keeper does to stay itself.
        """
        while b"\n" not in self._replies:
            try:
                more = self._connection.recv(MAX_REPLY_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._connection)
                continue
            except OSError:
                return None
            if not more or len(self._replies) > MAX_REPLY_BYTES:
                return None
            self._replies += more
        line, _, self._replies = self._replies.partition(b"\n")
        try:
            answer: object = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return cast("dict[str, object]", answer) if isinstance(answer, dict) else {}


@contextlib.asynccontextmanager
async def started(folder: Path, argv: Sequence[str]) -> AsyncGenerator[Command]:
    """Start a command; leaving the context ends it, whatever the reason.

    Raises:
        SandboxGone: Nobody listens.
        SandboxExhausted: The sandbox could not start a process.
        RuntimeUnavailable: It did not answer in time.
    """
    command: Command | None = None
    try:
        try:
            with anyio.fail_after(START_S):
                connection = await _connected(folder)
                command, streams = _with_pipes(connection)
                await command.ask(argv, streams)
        except TimeoutError as error:
            raise RuntimeUnavailable("The sandbox did not answer.") from error
        yield command
    finally:
        if command is not None:
            with anyio.CancelScope(shield=True):
                await command.end()


async def _connected(folder: Path) -> socket.socket:
    while True:
        try:
            return connect(folder)
        except BlockingIOError:
            await anyio.sleep(RETRY_S)
        except (FileNotFoundError, ConnectionError) as error:
            raise SandboxGone(GONE) from error
        except OSError as error:
            raise RuntimeUnavailable(f"The sandbox cannot be asked: {error.strerror}") from error


def _with_pipes(connection: socket.socket) -> tuple[Command, list[int]]:
    """Return a command with pipes, and their far ends: input, output, second output."""
    fds: list[int] = []
    try:
        for _ in range(3):
            fds += os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        for fd in fds:
            os.close(fd)
        connection.close()
        raise RuntimeUnavailable(f"The server is out of files: {error.strerror}") from error
    stdin, send, receive, stdout, receive_more, stderr = fds
    for fd in (send, receive, receive_more):
        os.set_blocking(fd, False)
    return (
        Command(connection, Pipe(send), Pipe(receive), Pipe(receive_more)),
        [stdin, stdout, stderr],
    )


@dataclass(slots=True)
class _Output:
    """What is kept of both outputs together, and whether more came than was wanted."""

    left: int
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    async def drain(self, pipe: Pipe, kept: bytearray) -> None:
        while data := await pipe.read():
            room = min(self.left, len(data))
            kept += data[:room]
            self.left -= room
            self.truncated |= room < len(data)


async def run(
    folder: Path,
    argv: Sequence[str],
    *,
    stdin: bytes,
    timeout_s: float,
    max_output_bytes: int,
) -> RunResult:
    """Run one command to its end; see `Runtime.run`."""
    code = UNKNOWN_EXIT
    lost = False
    output = _Output(max_output_bytes)
    try:
        with anyio.fail_after(timeout_s):
            async with started(folder, argv) as command, anyio.create_task_group() as tasks:
                if command.refusal is not None:
                    reason = f"{argv[0]}: {os.strerror(command.refusal)}\n"
                    return RunResult(command.exit_code or NOT_FOUND, b"", reason.encode())
                tasks.start_soon(_feed, command, stdin)
                tasks.start_soon(output.drain, command.stdout, output.stdout)
                tasks.start_soon(output.drain, command.stderr, output.stderr)
                code = await command.wait()
                lost = command.lost
                # What the command itself wrote is in the pipes by now, and is read at once; who
                # still holds their far ends was left behind, and is not waited for.
                tasks.cancel_scope.deadline = anyio.current_time() + LEFT_BEHIND_S
    except TimeoutError as error:
        message = f"The command in the sandbox was ended after {timeout_s:g} s."
        raise RunTimeout(message) from error
    if lost:
        raise SandboxGone("The sandbox ended while a command ran in it.")
    return RunResult(code, bytes(output.stdout), bytes(output.stderr), output.truncated)


async def _feed(command: Command, data: bytes) -> None:
    with contextlib.suppress(SandboxGone):
        await command.stdin.write(data)
    command.stdin.close()
