"""Commands in a container: run to their end, or streamed to and from."""

import asyncio
import contextlib
import secrets
import struct
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from importlib import resources
from typing import cast

import aiohttp
import anyio
from aiodocker import DockerError
from aiodocker.stream import Stream as ExecStream

from craftastic.errors import InvalidInput
from craftastic.runtimes._docker_engine import CALL_S, Engine, EngineRefused, Json, start_failure
from craftastic.runtimes._docker_supervise import EXHAUSTED, HELLO, trailer
from craftastic.runtimes.base import (
    HOME,
    RunResult,
    RunTimeout,
    RuntimeUnavailable,
    SandboxGone,
    Take,
)

STDOUT, STDERR = 1, 2
CHUNK = 65536
MAX_HELD_BYTES = 1 << 20
"""How much of one output waits here while only the other is read; then neither is read on."""

CODE_LENGTH = 4
UNKNOWN_CODE = 255
END_S = 3.0
"""How long a command may take to end with its input, its grace included, in seconds."""

BROKEN = (aiohttp.ClientError, OSError, RuntimeError, AssertionError)
"""What aiodocker raises, for want of something better, on a connection that is closed."""

PYTHON = "/usr/bin/python3"
KILL = r"""
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
        if int(pid) == os.getpid() or not {one.encode() for one in sys.argv[1:]} & set(words):
            continue
        for child in open(f"/proc/{pid}/task/{pid}/children").read().split():
            os.killpg(int(child), 9)
        os.kill(int(pid), 9)
    except (OSError, ValueError):
        pass
"""
SUPERVISE = resources.files("craftastic.runtimes").joinpath("_docker_supervise.py").read_bytes()
START = """import os,sys
n=int(sys.argv.pop(1))
b=b""
while len(b)<n:
 c=os.read(0,n-len(b))
 if not c:sys.exit(125)
 b+=c
exec(b)"""
"""Reads the program from its input: people see the command line of every process in `ps`."""


class TrailerFilter:
    """Takes the trailer off an output, however it was cut up on the way.

    Args:
        token: The command's own token.
    """

    def __init__(self, token: str) -> None:
        self.code: int | None = None
        self._mark = trailer(token, 0)[:-CODE_LENGTH]
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is certainly the command's; nothing more once the trailer has come."""
        if self.code is not None:
            return b""
        data, self._tail = self._tail + data, b""
        at = data.find(self._mark)
        if at < 0:
            at = self._begun(data)
        elif len(data) >= at + len(self._mark) + CODE_LENGTH:
            code = data[at + len(self._mark) :][: CODE_LENGTH - 1]
            self.code = int(code) if code.isdigit() else UNKNOWN_CODE
            return data[:at]
        self._tail = data[at:]
        return data[:at]

    def rest(self) -> bytes:
        """Return what was held back, once nothing more can come."""
        rest, self._tail = self._tail, b""
        return rest

    def _begun(self, data: bytes) -> int:
        """Return where the beginning of a trailer stands at the end, else the length."""
        start = data.rfind(self._mark[:1], max(0, len(data) - len(self._mark)))
        return start if start >= 0 and self._mark.startswith(data[start:]) else len(data)


class Exec:
    """One command in a container, started, with its three streams."""

    def __init__(self, exec_id: str, stream: ExecStream, token: str) -> None:
        self.id = exec_id
        self._stream = stream
        self._filters = {STDOUT: TrailerFilter(token), STDERR: TrailerFilter(token)}
        self._held: dict[int, deque[bytes]] = {STDOUT: deque(), STDERR: deque()}
        self._held_bytes = {STDOUT: 0, STDERR: 0}
        self._reading = False
        self._ended = False
        self._changed = anyio.Event()

    async def send(self, data: bytes) -> None:
        """Write to the command's input; waits while the command does not read.

        Raises:
            SandboxGone: The command has ended.
        """
        if self._ended:
            raise SandboxGone("The command in the sandbox has ended.")
        try:
            for start in range(0, len(data), CHUNK):
                await self._stream.write_in(data[start : start + CHUNK])
        except BROKEN as error:
            raise SandboxGone("The command in the sandbox has ended.") from error

    def try_send(self, data: bytes) -> bool:
        """Write to the command's input if nothing waits before it; see `DirectStream.try_send`."""
        transport = self._transport
        if self._ended or transport is None or transport.is_closing():
            return False
        if len(data) > CHUNK or transport.get_write_buffer_size():
            return False
        transport.write(data)
        return True

    async def follow(self, take_stdout: Take, take_stderr: Take) -> None:
        """Hand over what comes, by one reader for both; see `DirectStream.follow`."""
        takers = {STDOUT: take_stdout, STDERR: take_stderr}
        for number, data in self.take_held():
            takers[number](data)
        while (frame := await self.next_frame()) is not None:
            takers[frame[0]](frame[1])
        self._ended = True
        self._wake()

    async def receive_stdout(self) -> bytes:
        """Return the next bytes of the first output, or b"" once it has ended."""
        return await self._receive(STDOUT, STDERR)

    async def receive_stderr(self) -> bytes:
        """Return the next bytes of the second output, or b"" once it has ended."""
        return await self._receive(STDERR, STDOUT)

    async def next_frame(self) -> tuple[int, bytes] | None:
        """Return the output's number and its next bytes, or None once both have ended."""
        while any(one.code is None for one in self._filters.values()):
            try:
                message = await self._stream.read_out()
            except (DockerError, struct.error, *BROKEN):
                message = None
            if message is None:
                break
            if (one := self._filters.get(message.stream)) is not None and (
                data := one.feed(message.data)
            ):
                return message.stream, data
        for number, one in self._filters.items():
            if one.code is None and (data := one.rest()):
                return number, data
        return None

    @property
    def exit_code(self) -> int | None:
        """Return how the command ended, if both outputs came to their ends."""
        whole = self._filters[STDOUT].code is not None
        return self._filters[STDERR].code if whole else None

    async def close(self) -> bool:
        """End the command's input, which ends the command, and report whether it has ended.

        A command that lets its input stand keeps the engine from seeing the end of it, and one
        whose connection was cut may go on where the engine itself was ended: then the answer is
        False, and something else has to end it. Every command that ends says so.
        """
        transport = self._transport
        ended = self._ended or transport is None
        with anyio.CancelScope(shield=True):
            # While somebody else still reads, nobody can wait for the end here.
            if transport and not ended and not self._reading and transport.can_write_eof():
                with contextlib.suppress(*BROKEN), anyio.move_on_after(END_S):
                    transport.write_eof()
                    while await self.next_frame() is not None:
                        pass
            if transport is not None:
                # Whatever is not sent yet never will be.
                transport.abort()
            with contextlib.suppress(*BROKEN):
                await self._stream.close()
        self._ended = True
        self._wake()
        return self.exit_code is not None

    async def _receive(self, wanted: int, other: int) -> bytes:
        """Take what is held for this output, or read on and hold what is the other's.

        Whoever waits reads for both, so one reader is enough and none is needed in between; what
        is not read stays with the engine and, in the end, with the command.
        """
        while True:
            if self._held[wanted]:
                data = b"".join(self._held[wanted])
                self._held[wanted].clear()
                self._held_bytes[wanted] = 0
                self._wake()
                return data
            if self._ended or self._filters[wanted].code is not None:
                return b""
            if self._reading or self._held_bytes[other] >= MAX_HELD_BYTES:
                await self._changed.wait()
                continue
            self._reading = True
            try:
                frame = await self.next_frame()
                if frame is None:
                    self._ended = True
                elif frame[0] in self._held and frame[1]:
                    self._held[frame[0]].append(frame[1])
                    self._held_bytes[frame[0]] += len(frame[1])
            finally:
                self._reading = False
                self._wake()

    @property
    def _transport(self) -> asyncio.Transport | None:
        response = self._stream._resp  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        connection = None if response is None else response.connection
        return None if connection is None else connection.transport

    def hold(self, number: int, data: bytes) -> None:
        """Put bytes back in front that were read too early."""
        if data:
            self._held[number].appendleft(data)
            self._held_bytes[number] += len(data)

    def take_held(self) -> list[tuple[int, bytes]]:
        """Return what was read too early, for a caller that reads both outputs itself."""
        taken = [(number, data) for number in self._held for data in self._held[number]]
        for number in self._held:
            self._held[number].clear()
            self._held_bytes[number] = 0
        return taken

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@contextlib.asynccontextmanager
async def started(
    engine: Engine,
    container_id: str,
    argv: Sequence[str],
    length: int,
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Exec]:
    """Start a command; leaving ends it, as does the death of this process.

    Args:
        engine: The container's engine.
        container_id: Which container.
        argv: The command.
        length: How many bytes of input it gets, or -1 for a stream of them.
        environment: More variables for it.

    Raises:
        SandboxGone: The sandbox is not running.
        SandboxExhausted: It cannot start another process.
        RuntimeUnavailable: The engine did not answer, or cannot start commands in this image.
    """
    if not argv or any("\0" in word for word in argv):
        raise InvalidInput("A command needs a name, and no word of it may hold a NUL byte.")
    token = secrets.token_hex(16)
    command = supervised(token, length, argv)
    await _end_orphans(engine, container_id)
    running: Exec | None = None
    try:
        try:
            async with engine.border("starting a command"):
                made = await engine.container(container_id).exec(
                    command,
                    stdin=True,
                    stdout=True,
                    stderr=True,
                    tty=False,
                    workdir=HOME,
                    environment=dict(environment) if environment else None,
                )
                stream = made.start(detach=False)
                running = Exec(made.id, stream, token)
                await stream.__aenter__()  # left by Exec.close
        except EngineRefused as error:
            raise start_failure(error) from error
        await running.send(SUPERVISE)
        await _greeted(engine, container_id, running)
        yield running
    finally:
        if running is not None and not await running.close():
            await _end_by_force(engine, container_id, [token])


def supervised(token: str, length: int, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs a command, once it is sent `SUPERVISE`."""
    return [PYTHON, "-I", "-S", "-c", START, str(len(SUPERVISE)), token, str(length), *argv]


async def _end_by_force(engine: Engine, container_id: str, tokens: Sequence[str]) -> None:
    """End commands whose input is stuck: by a further one, since they hear nothing.

    While the engine does not answer they are remembered, and ended before the next command.
    """
    with anyio.CancelScope(shield=True), contextlib.suppress(EngineRefused):
        try:
            async with engine.border("ending a command", END_S) as docker:
                killer = await docker.containers.container(container_id).exec(
                    [PYTHON, "-I", "-S", "-c", KILL, *tokens], stdin=False, tty=False
                )
                async with killer.start(detach=False) as stream:
                    while await stream.read_out() is not None:
                        pass
        except RuntimeUnavailable:
            for token in tokens:
                engine.remember_orphan(token, container_id)


async def _end_orphans(engine: Engine, container_id: str) -> None:
    """End what is left of commands in a container since its engine did not answer."""
    if tokens := engine.take_orphans(container_id):
        await _end_by_force(engine, container_id, tokens)


async def _greeted(engine: Engine, container_id: str, running: Exec) -> None:
    """Wait for the word that the command starts; what comes instead says why it does not."""
    said = b""
    try:
        with anyio.fail_after(CALL_S):
            # The engine copies both outputs by itself: the first may overtake the second.
            while (frame := await running.next_frame()) is not None and len(said) < MAX_HELD_BYTES:
                if frame[0] == STDERR and frame[1][:1] == HELLO:
                    running.hold(STDOUT, said)
                    running.hold(STDERR, frame[1][1:])
                    return
                said += frame[1]
    except TimeoutError as error:
        raise RuntimeUnavailable("The sandbox does not start commands any more.") from error
    text = "pids limit" if said[:1] == EXHAUSTED else said.decode(errors="replace").strip()
    if not text:
        # A container that stops between two calls takes its processes along without a word.
        raise await _cut(engine, container_id)
    raise start_failure(EngineRefused(HTTPStatus.BAD_REQUEST, text))


async def run(
    engine: Engine,
    container_id: str,
    argv: Sequence[str],
    *,
    stdin: bytes,
    timeout_s: float,
    max_output_bytes: int,
) -> RunResult:
    """Run a command to its end; see `Runtime.run`."""
    collected = _Collected(max_output_bytes)
    async with started(engine, container_id, argv, len(stdin)) as running:
        with anyio.move_on_after(timeout_s) as limit:
            await _converse(running, stdin, collected)
        if limit.cancelled_caught:
            raise RunTimeout(
                f"A command in the sandbox did not end within {timeout_s:g} s and was ended.",
                command=argv[0],
            )
        code = running.exit_code
    if code is None:
        raise await _cut(engine, container_id)
    return RunResult(code, bytes(collected.out), bytes(collected.err), collected.truncated)


class _Collected:
    """Both outputs, up to a limit that they share."""

    def __init__(self, limit: int) -> None:
        self.out, self.err, self.truncated = bytearray(), bytearray(), False
        self._left = limit

    def add(self, number: int, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self.truncated |= len(kept) < len(data)
        (self.err if number == STDERR else self.out).extend(kept)


async def _converse(running: Exec, stdin: bytes, collected: _Collected) -> None:
    async def feed() -> None:
        # A command that ends without reading its input is no error.
        with contextlib.suppress(SandboxGone):
            await running.send(stdin)

    async def read() -> None:
        for frame in running.take_held():
            collected.add(*frame)
        while (frame := await running.next_frame()) is not None:
            collected.add(*frame)

    if not stdin:
        await read()
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        await read()
        tasks.cancel_scope.cancel()


async def _cut(engine: Engine, container_id: str) -> Exception:
    """Return why a command did not come to its end: what it said may be half of an answer.

    Every command that ends says so itself, also one that is killed.
    """
    found = await engine.get(f"containers/{container_id}/json", "looking for a sandbox")
    if found is None or not cast("Json", found.get("State") or {}).get("Running"):
        return SandboxGone("The sandbox has ended while a command ran in it.")
    return RuntimeUnavailable("The connection to a command in the sandbox was cut; try again.")
