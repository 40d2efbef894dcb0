"""The runtime port: what every place that can run a sandbox offers, and says nothing about how.

A sandbox's inside looks the same with every driver:

- The user is `dev`, its home `/home/dev` (`HOME`), kept until `remove(..., storage=True)`.
- `/home/dev/.craftastic/repos/<environment id>` and `/home/dev/.craftastic/worktrees/<environment
  id>` are folders of that user, kept likewise.
- `/run/craftastic` is a private folder of that user, shared by all commands of the sandbox, empty
  after a start: sockets and pipes live there.
- The name `craftastic-gateway` leads to the server's gateway listener; nothing else of the host is
  reachable.
- `git`, `tmux` (3.2 or newer), `bash`, `sh` and `python3` are on the PATH; TERM, LANG, HOME, USER,
  SHELL and PATH are set, and nothing of the server's own environment is.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable
from uuid import UUID

from craftastic.errors import Conflict, Unavailable

HOME = "/home/dev"
USER = "dev"
RUN_DIR = "/run/craftastic"
GATEWAY_HOST = "craftastic-gateway"
MAX_OUTPUT_BYTES = 5 << 20
FOLLOW_PAUSE_S = 10.0
"""Longest pause before a runtime that tells nothing any more is asked again, in seconds."""


VERIFIED = "network isolation: verified"
NOT_VERIFIED = "network isolation: not verified; "
OPEN = "open: "
UNCHECKED = "not checked: "


class RuntimeUnavailable(Unavailable):
    """The engine or tool behind a runtime did not answer."""

    code = "RUNTIME_UNAVAILABLE"


class SandboxGone(Conflict):
    """The sandbox is stopped or no longer exists; starting it is the way on."""

    code = "SANDBOX_NOT_RUNNING"


class SandboxExhausted(Unavailable):
    """The sandbox is at its limit of processes or memory; nothing more can be started in it."""

    code = "SANDBOX_EXHAUSTED"


class RunTimeout(Unavailable):
    """A command in a sandbox did not end within its time and was ended."""

    code = "SANDBOX_COMMAND_TIMEOUT"


class SandboxState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    GONE = "gone"


class Ending(StrEnum):
    """Why a sandbox does not run any more, as far as the runtime knows."""

    UNKNOWN = "unknown"
    OUT_OF_MEMORY = "out_of_memory"
    """Its first process was killed because it was at its limit of memory."""
    ENGINE_RESTART = "engine_restart"
    """The engine that runs it ended, or was started anew."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have happened to a sandbox of this installation; only a look tells.

    Args:
        environment_id: Whose sandbox it is; None where it may be any of them.
        out_of_memory: A program in it was killed because it was at its limit of memory.
    """

    environment_id: UUID | None = None
    out_of_memory: bool = False


TellHint = Callable[[Hint], None]
"""Takes a hint and returns at once."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One visible step of something that takes longer than a moment.

    Args:
        step: Stable machine name (`image`, `sandbox`, `clone`).
        message: What is happening, in plain words.
        percent: 0 to 100 where it is known.
    """

    step: str
    message: str
    percent: int | None = None


Report = Callable[[Progress], Awaitable[None]]
Take = Callable[[bytes], None]


async def no_report(_progress: Progress) -> None:
    """Drop the progress: nobody watches."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to run; says nothing about where.

    Args:
        environment_id: The environment; also the key by which a driver finds its sandbox again.
        owner_id: The user, for labels.
        number: Small, unique among all living environments; a driver derives the user id from it.
        name: The environment's name, for people who look at the engine.
    """

    environment_id: UUID
    owner_id: UUID
    number: int
    name: str
    memory_bytes: int = 2 << 30
    cpus: float = 2.0
    pids: int = 512
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class SandboxRef:
    """Names one sandbox across restarts of the server; stored as columns.

    Args:
        runtime: The driver's name.
        id: The driver's own id of the sandbox, opaque to everybody else.
    """

    runtime: str
    id: str


@dataclass(frozen=True, slots=True)
class SandboxSummary:
    """One of this installation's sandboxes, as the runtime knows it."""

    ref: SandboxRef
    environment_id: UUID
    owner_id: UUID | None
    name: str
    state: SandboxState


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a command ended. Output is hostile bytes, cut at the caller's limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check looked at.

    Args:
        name: Stable machine name, such as `docker.socket`.
        ok: True, False, or None for "works, but …".
        message: What was found, in plain words.
        remedy: What to do about it.
    """

    name: str
    ok: bool | None
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a probe from inside a sandbox could reach that it must not.

    Args:
        verified: Everything that must be closed was tried and found closed.
        open: What was reached, in plain words; empty when verified.
        unchecked: What could not be tried, and why.
    """

    verified: bool
    open: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        if self.verified:
            return VERIFIED
        what = [
            *(f"{OPEN}{one}" for one in self.open),
            *(f"{UNCHECKED}{one}" for one in self.unchecked),
        ]
        return NOT_VERIFIED + "; ".join(what)

    @classmethod
    def of(cls, summary: str) -> "Isolation":
        """Return what a stored summary tells, also of one that was cut at its end."""
        if summary == VERIFIED:
            return cls(verified=True)
        found: dict[str, list[str]] = {OPEN: [], UNCHECKED: []}
        kind = UNCHECKED
        for part in filter(None, summary.removeprefix(NOT_VERIFIED).split("; ")):
            for mark in found:
                if part.startswith(mark):
                    kind = mark
                    found[kind].append(part.removeprefix(mark))
                    break
            else:
                # A semicolon of the text's own.
                before = found[kind].pop() + "; " if found[kind] else ""
                found[kind].append(before + part)
        return cls(verified=False, open=tuple(found[OPEN]), unchecked=tuple(found[UNCHECKED]))


class Stream(Protocol):
    """Three byte streams of one command in a sandbox: without a tty, so it ends with them."""

    async def send(self, data: bytes) -> None:
        """Write to the command's input; waits while the command does not read.

        Raises:
            SandboxGone: The command has ended.
        """
        ...

    async def receive_stdout(self) -> bytes:
        """Return the next bytes of the first output, or b"" once it has ended."""
        ...

    async def receive_stderr(self) -> bytes:
        """Return the next bytes of the second output, or b"" once it has ended."""
        ...


@runtime_checkable
class DirectStream(Stream, Protocol):
    """A stream that can be served without a task for each piece that comes or goes."""

    def try_send(self, data: bytes) -> bool:
        """Write to the command's input if all of it goes at once; else nothing was written.

        False also when the command has ended: `send` says so.
        """
        ...

    async def follow(self, take_stdout: Take, take_stderr: Take) -> None:
        """Hand over each piece of both outputs as it comes, until one of the two has ended.

        Nobody else may read meanwhile. What the callees raise is raised here; they must not wait.
        """
        ...


class Runtime(Protocol):
    """One kind of place that runs sandboxes.

    Every method has a deadline inside, translates the vendor's errors at this border, and may be
    repeated: what is already so is left so.
    """

    name: str

    async def prepare(self, report: Report = no_report) -> None:
        """Make what all sandboxes need: image, network, firewall rules. Slow the first time.

        Raises:
            RuntimeUnavailable: The engine does not answer, or something is missing; the message
                says what to do.
        """
        ...

    async def check(self) -> list[Finding]:
        """Look at the runtime without changing anything; for `doctor` and `/readyz`."""
        ...

    async def gateway_address(self) -> str:
        """Return the host's address that sandboxes reach the gateway at.

        Raises:
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        """Create and start the environment's sandbox, or start or adopt the one that is there.

        Raises:
            RuntimeUnavailable: The runtime did not answer or cannot make one.
            Conflict: Something that is not ours holds the sandbox's name.
        """
        ...

    async def inspect(self, sandbox: SandboxRef) -> SandboxState:
        """Report the state; a sandbox nobody knows is GONE, not an error.

        Raises:
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    async def stop(self, sandbox: SandboxRef) -> None:
        """End every process of the sandbox and keep its storage."""
        ...

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        """Remove the environment's sandbox; with `storage` also everything it ever wrote."""
        ...

    async def list(self) -> list[SandboxSummary]:
        """List the sandboxes of this installation, running or not; nobody else's."""
        ...

    async def follow(self, tell: TellHint) -> None:
        """Tell what happens to this installation's sandboxes as it happens, until cancelled.

        What is told is a hint and never a fact: one may be missing, late, doubled, or about
        nothing, so that whoever hears of it looks (`list`), and looks now and then anyway. It
        begins with a hint of no environment, and tells one again after every time in which
        something may have been missed. A runtime that does not answer is tried again, after pauses
        that grow to `FOLLOW_PAUSE_S`; nothing is raised for it. Little memory is held, however much
        happens.
        """
        ...

    async def ending(self, sandbox: SandboxRef) -> Ending:
        """Say why a sandbox that does not run has ended; UNKNOWN where that is not certain.

        Raises:
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    async def run(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> RunResult:
        """Run one command in the sandbox, as its user, in its home, without a tty.

        Values belong in `argv` after a constant script, never inside it. Output beyond the limit
        is read and dropped (`truncated`). Cancellation ends the command.

        Raises:
            SandboxGone: The sandbox is not running.
            SandboxExhausted: It cannot start another process.
            RunTimeout: The command was ended after `timeout_s`.
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        """Run one command like `run`, but what it leaves running goes on with the sandbox.

        A program that the command puts in the background lives until it ends by itself or the
        sandbox stops; with `run` it may be ended together with the command. Returns as soon as the
        command itself has ended, even while what it left behind holds its outputs open.

        Raises:
            SandboxGone: The sandbox is not running.
            SandboxExhausted: It cannot start another process.
            RunTimeout: The command was ended after `timeout_s`.
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        """Start one long-running command and stream to and from it.

        Leaving the context ends the command; so does the death of the server.

        Raises:
            SandboxGone: The sandbox is not running.
            SandboxExhausted: It cannot start another process.
            RuntimeUnavailable: The runtime did not answer.
        """
        ...

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        """Try from inside what must be closed: the host, other sandboxes, private ranges."""
        ...

    async def close(self) -> None:
        """Let go of connections; sandboxes go on."""
        ...


@runtime_checkable
class NearRuntime(Protocol):
    """A runtime that knows a shorter way to some commands."""

    def open_near(
        self, sandbox: SandboxRef, argv: Sequence[str]
    ) -> AbstractAsyncContextManager[Stream]:
        """Do as `Runtime.open`, for a command that can bring its streams by a shorter way."""
        ...
