"""The in-memory driver, for tests: sandboxes are entries of a dictionary, commands are scripted.

It keeps the port's promises, and breaks them on request: slow, unreachable, exhausted, or with a
sandbox that disappears under a command.
"""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import anyio

from craftastic.runtimes.base import (
    MAX_OUTPUT_BYTES,
    Ending,
    Finding,
    Hint,
    Isolation,
    Progress,
    Report,
    RunResult,
    RunTimeout,
    RuntimeUnavailable,
    SandboxExhausted,
    SandboxGone,
    SandboxRef,
    SandboxSpec,
    SandboxState,
    SandboxSummary,
    Stream,
    TellHint,
    no_report,
)

MAX_PENDING = 1 << 20
"""How many bytes a stream holds in one direction before the writer waits."""


@dataclass(frozen=True, slots=True)
class Call:
    """One command that somebody ran."""

    sandbox: SandboxRef
    argv: tuple[str, ...]
    stdin: bytes = b""


class Pipe:
    """A bounded pipe of bytes with one end for writing and one for reading."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = anyio.Event()

    async def write(self, data: bytes) -> None:
        """Put bytes in; waits while too many are held.

        Raises:
            SandboxGone: The other end is closed.
        """
        while not self._closed and self._size >= MAX_PENDING:
            await self._changed.wait()
        if self._closed:
            raise SandboxGone("The command in the sandbox has ended.")
        if data:
            self._held.append(data)
            self._size += len(data)
            self._wake()

    async def read(self) -> bytes:
        """Take all bytes that are there, waiting for some; b"" after the end."""
        while not self._held and not self._closed:
            await self._changed.wait()
        data = b"".join(self._held)
        self._held.clear()
        self._size = 0
        self._wake()
        return data

    def close(self) -> None:
        """End the pipe; what it holds can still be read."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@dataclass(frozen=True, slots=True)
class Process:
    """The command's side of a stream, for the script that plays the command."""

    stdin: Pipe = field(default_factory=Pipe)
    stdout: Pipe = field(default_factory=Pipe)
    stderr: Pipe = field(default_factory=Pipe)

    def end(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


class MemoryStream:
    """The server's side of a stream."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, data: bytes) -> None:
        await self._process.stdin.write(data)

    async def receive_stdout(self) -> bytes:
        return await self._process.stdout.read()

    async def receive_stderr(self) -> bytes:
        return await self._process.stderr.read()


async def succeed(_call: Call) -> RunResult:
    """Play a command that does nothing and ends well."""
    return RunResult(0, b"", b"")


async def echo(process: Process, _call: Call) -> None:
    """Play `cat`: what comes in goes out, until the input ends."""
    while data := await process.stdin.read():
        await process.stdout.write(data)


Answer = Callable[[Call], Awaitable[RunResult]]
Play = Callable[[Process, Call], Awaitable[None]]


@dataclass(slots=True)
class Faults:
    """What goes wrong, until it is set back.

    Args:
        unavailable: Message of the error that every call raises; None for none.
        exhausted: No command can be started.
        never_starts: `create` fails after it has made a stopped sandbox.
        delay_s: How long every call takes first, in seconds.
        vanishes: The sandbox is gone as soon as a command has begun in it.
        silent: Nobody is told of anything.
    """

    unavailable: str | None = None
    exhausted: bool = False
    never_starts: bool = False
    delay_s: float = 0.0
    vanishes: bool = False
    silent: bool = False


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    ref: SandboxRef
    state: SandboxState
    processes: list[Process] = field(default_factory=list[Process])


class MemoryRuntime:
    """Keeps sandboxes in memory.

    Args:
        answer: Plays every command of `run`.
        play: Plays every command of `open`, beside the caller.
        name: Name of the driver that it stands for.
    """

    def __init__(
        self, answer: Answer = succeed, play: Play = echo, *, name: str = "memory"
    ) -> None:
        self.name = name
        self.answer = answer
        self.play = play
        self.faults = Faults()
        self.calls: list[Call] = []
        self.storage: set[UUID] = set()
        self.isolation_result = Isolation(verified=True)
        self.created = 0
        self.endings: dict[UUID, Ending] = {}
        self._sandboxes: dict[UUID, _Sandbox] = {}
        self._followers: list[TellHint] = []

    async def prepare(self, report: Report = no_report) -> None:
        await self._begin()
        await report(Progress("image", "Nothing to prepare", 100))

    async def check(self) -> list[Finding]:
        if self.faults.unavailable is not None:
            return [Finding("memory", ok=False, message=self.faults.unavailable)]
        return [Finding("memory", ok=True, message="Sandboxes are kept in memory")]

    async def gateway_address(self) -> str:
        await self._begin()
        return "127.0.0.1"

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        await self._begin()
        self.created += 1
        found = self._sandboxes.get(spec.environment_id)
        if found is None:
            await report(Progress("sandbox", "Starting the sandbox"))
            found = _Sandbox(spec, SandboxRef(self.name, uuid4().hex), SandboxState.STOPPED)
            self._sandboxes[spec.environment_id] = found
            self.storage.add(spec.environment_id)
        if self.faults.never_starts:
            raise RuntimeUnavailable("The sandbox does not start.")
        found.state = SandboxState.RUNNING
        self.endings.pop(spec.environment_id, None)
        self._tell(Hint(spec.environment_id))
        return found.ref

    async def inspect(self, sandbox: SandboxRef) -> SandboxState:
        await self._begin()
        found = self._find(sandbox)
        return SandboxState.GONE if found is None else found.state

    async def stop(self, sandbox: SandboxRef) -> None:
        await self._begin()
        if (found := self._find(sandbox)) is not None:
            self._halt(found)

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        await self._begin()
        if (found := self._sandboxes.pop(spec.environment_id, None)) is not None:
            self._halt(found)
        if storage:
            self.storage.discard(spec.environment_id)

    async def list(self) -> list[SandboxSummary]:
        await self._begin()
        return [
            SandboxSummary(
                one.ref, one.spec.environment_id, one.spec.owner_id, one.spec.name, one.state
            )
            for one in self._sandboxes.values()
        ]

    async def follow(self, tell: TellHint) -> None:
        self._followers.append(tell)
        try:
            tell(Hint())
            await anyio.sleep_forever()
        finally:
            self._followers.remove(tell)

    async def ending(self, sandbox: SandboxRef) -> Ending:
        await self._begin()
        found = self._find(sandbox)
        if found is None:
            return Ending.UNKNOWN
        return self.endings.get(found.spec.environment_id, Ending.UNKNOWN)

    async def run(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> RunResult:
        call = Call(sandbox, tuple(argv), stdin)
        await self._enter(call)
        try:
            with anyio.fail_after(timeout_s):
                result = await self.answer(call)
        except TimeoutError as error:
            raise RunTimeout(f"A command did not end within {timeout_s:g} s.") from error
        return _cut(result, max_output_bytes)

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        return await self.run(sandbox, argv, stdin=stdin, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[Stream]:
        call = Call(sandbox, tuple(argv))
        found = await self._enter(call)
        process = Process()
        found.processes.append(process)
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._play, process, call)
                try:
                    yield MemoryStream(process)
                except Exception as error:  # noqa: BLE001 - raised again, outside the group
                    failure = error
                tasks.cancel_scope.cancel()
        finally:
            process.end()
            if process in found.processes:
                found.processes.remove(process)
        if failure is not None:
            raise failure

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        await self._begin()
        return self.isolation_result

    async def close(self) -> None:
        for one in self._sandboxes.values():
            for process in one.processes:
                process.end()

    def vanish(self, environment_id: UUID) -> None:
        """Take a sandbox away behind everybody's back; its storage stays."""
        if (found := self._sandboxes.pop(environment_id, None)) is not None:
            self._halt(found)

    def crash(self, environment_id: UUID, ending: Ending = Ending.UNKNOWN) -> None:
        """End a sandbox behind everybody's back; it can be started again."""
        self.endings[environment_id] = ending
        self._halt(self._sandboxes[environment_id])

    def exhaust(self, environment_id: UUID) -> None:
        """Kill a program in a sandbox for its memory; the sandbox goes on."""
        self._tell(Hint(environment_id, out_of_memory=True))

    async def _play(self, process: Process, call: Call) -> None:
        # The end of the stream is an end like any other for the command.
        with contextlib.suppress(SandboxGone):
            await self.play(process, call)
        process.end()

    async def _begin(self) -> None:
        if self.faults.delay_s:
            await anyio.sleep(self.faults.delay_s)
        if self.faults.unavailable is not None:
            raise RuntimeUnavailable(self.faults.unavailable)

    async def _enter(self, call: Call) -> _Sandbox:
        await self._begin()
        found = self._find(call.sandbox)
        if found is None or found.state is not SandboxState.RUNNING:
            raise SandboxGone("The sandbox is not running.")
        if self.faults.exhausted:
            raise SandboxExhausted("The sandbox is at its limit of processes.")
        self.calls.append(call)
        if self.faults.vanishes:
            self.vanish(found.spec.environment_id)
            raise SandboxGone("The sandbox was removed while a command ran in it.")
        return found

    def _find(self, sandbox: SandboxRef) -> _Sandbox | None:
        return next((one for one in self._sandboxes.values() if one.ref == sandbox), None)

    def _halt(self, found: _Sandbox) -> None:
        found.state = SandboxState.STOPPED
        for process in found.processes:
            process.end()
        self._tell(Hint(found.spec.environment_id))

    def _tell(self, hint: Hint) -> None:
        if not self.faults.silent:
            for tell in tuple(self._followers):
                tell(hint)


def _cut(result: RunResult, limit: int) -> RunResult:
    stdout = result.stdout[:limit]
    stderr = result.stderr[: limit - len(stdout)]
    lost = len(stdout) < len(result.stdout) or len(stderr) < len(result.stderr)
    return RunResult(result.exit_code, stdout, stderr, result.truncated or lost)
