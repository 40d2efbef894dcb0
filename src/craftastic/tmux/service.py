"""The tmux sessions of a sandbox, and the product's own tmux configuration."""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import cast

import structlog

from craftastic.errors import Unavailable
from craftastic.runtimes.base import RUN_DIR, RunResult, Runtime, SandboxRef
from craftastic.tmux._names import LISTED, MARK, Listed, listed, naming_back
from craftastic.tmux._options import (
    MADE,
    NO_KEYS,
    NOT_GIVEN,
    SCRIPT,
    SCRIPT_THAT_GIVES,
    options,
    without_hooks,
)
from craftastic.tmux._programs import BadSessionProgram, beginning, framed
from craftastic.tmux._variables import (
    PYTHON,
    BadSessionVariables,
    first_program,
    giving,
    packed,
)

__all__ = [
    "BadSessionProgram",
    "BadSessionVariables",
    "Making",
    "TmuxRefused",
    "TmuxService",
    "without_hooks",
]

SOCKET_NAME = "tmux.sock"
MAX_ANSWER_BYTES = 16 << 10
MAX_NAMED = 5
MAKING_TIMEOUT_S = 20.0
_GONE = (
    *(b"no server running", b"error connecting", b"can't find session", b"session not found"),
    *(b"server exited", b"lost server"),  # it ended while it was asked
)

_NO_VARIABLES = "a shell has none of its variables"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TmuxRefused(Unavailable):
    """tmux in the sandbox did not do what it was asked; the reason is in the message."""

    code = "TMUX_REFUSED"


@dataclass(frozen=True, slots=True)
class Making:
    """The command that makes a session, for `Runtime.spawn`, and its input."""

    argv: Sequence[str]
    stdin: bytes = b""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class TmuxService:
    """Starts, ends and lists tmux sessions; each is one window with one pane.

    Args:
        runtimes: Where sandboxes run.
        history_lines: Lines that each pane keeps.
        run_dir: The sandboxes' private folder for sockets, as seen from inside.
    """

    runtimes: Mapping[str, Runtime]
    history_lines: int = 50_000
    run_dir: str = RUN_DIR

    def socket(self) -> str:
        """Return the path of the server's socket inside a sandbox."""
        return f"{self.run_dir}/{SOCKET_NAME}"

    async def ensure(  # noqa: PLR0913 - all that a session can be made with
        self,
        sandbox: SandboxRef,
        name: str,
        directory: str,
        *,
        environment: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        program: bytes | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        """Make sure that a session of this name exists; one that is there is left as it is.

        The shell starts in `directory`, a path inside the sandbox. What is in `environment` can be
        read by everything in the sandbox: never a secret. What is in `variables` is in the
        environment of the session's first shell alone, and on the way there in no argument, no
        file and no environment of tmux; when it does not arrive, the shell starts without it.

        With a `program` the pane's first process is that one instead of a shell: a JSON object
        with `program`, a text for Python, and `launch`, what it is to know (see `_begin`). It
        arrives like variables do, and excludes them: a program sets them where it wants them. When
        it does not arrive, a login shell says so.

        Raises:
            BadSessionVariables: The variables are too many or too large, or cannot be.
            BadSessionProgram: The program is too large.
            ValueError: There are variables and a program.
            TmuxRefused: tmux could not start it.
            SandboxGone: The sandbox is not running.
            RuntimeUnavailable: The runtime did not answer.
        """
        making = self.making(
            name,
            directory,
            environment=environment,
            variables=variables,
            program=program,
            columns=columns,
            rows=rows,
        )
        result = await self._runtime(sandbox).spawn(
            sandbox, making.argv, stdin=making.stdin, timeout_s=MAKING_TIMEOUT_S
        )
        self.made(sandbox, name, making, result)

    def making(
        self,
        name: str,
        directory: str,
        *,
        environment: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        program: bytes | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> Making:
        """Return what `ensure` runs, for whoever runs it together with something else.

        Raises:
            BadSessionVariables, BadSessionProgram, ValueError: See `ensure`.
        """
        shown = [f"-e{key}={value}" for key, value in (environment or {}).items()]
        create = [
            "new-session", "-d", "-s", name, "-c", directory, "-x", str(columns), "-y", str(rows),
            *shown,
        ]  # fmt: skip
        # The socket's folder and the name come first, then one command line for tmux: it sets the
        # options of a server that already runs as well, and reads no file that a program in the
        # sandbox could have changed.
        begin = [self.socket(), name, directory]
        stdin = _given(variables, program)
        if stdin:
            kind, first = ("program", beginning) if program else ("variables", first_program)
            fifo = f"{self.run_dir}/{kind}.{secrets.token_hex(16)}"
            give = giving(fifo)
            argv = ["bash", "-c", SCRIPT_THAT_GIVES, "bash", *begin, fifo, str(len(give)), *give]
            create += ["-P", "-F", MADE, *first(fifo)]
        else:
            argv = ["bash", "-c", SCRIPT, "bash", *begin]
        create += [";", "set-option", "-t", f"={name}:", MARK, name]
        return Making(
            [*argv, *options(self.history_lines), ";", *create, *NO_KEYS],
            stdin,
            "a pane has not got its program" if program else _NO_VARIABLES,
        )

    def made(self, sandbox: SandboxRef, name: str, making: Making, result: RunResult) -> None:
        """Look at how the making of a session ended.

        Raises:
            TmuxRefused: tmux could not start it.
        """
        if making.stdin and result.exit_code == NOT_GIVEN:
            log.warning(making.lost, tmux=name, sandbox=sandbox.id)
        elif result.exit_code != 0:
            raise TmuxRefused(f"The terminal could not be started: {_reason(result)}")

    async def kill(self, sandbox: SandboxRef, name: str) -> None:
        """End a session and what runs in it; one that is not there is fine.

        Raises:
            TmuxRefused: tmux did not end it.
            SandboxGone: The sandbox is not running.
            RuntimeUnavailable: The runtime did not answer.
        """
        result = await self._tmux(sandbox, "kill-session", "-t", f"={name}")
        if result.exit_code != 0 and not any(text in result.stderr for text in _GONE):
            raise TmuxRefused(f"The terminal could not be ended: {_reason(result)}")

    async def names(self, sandbox: SandboxRef) -> set[str]:
        """Return the names of the sessions that live in a sandbox.

        One that somebody in the sandbox has renamed is given its name back first.

        Raises:
            TmuxRefused: tmux did not answer.
            SandboxGone: The sandbox is not running.
            RuntimeUnavailable: The runtime did not answer.
        """
        result = await self._tmux(sandbox, "list-sessions", "-F", LISTED)
        if result.exit_code == 0:
            found = listed(result.stdout.decode("utf-8", "replace"))
            return await self._named_back(sandbox, found) or {one.name for one in found}
        if any(text in result.stderr for text in _GONE):
            return set()
        raise TmuxRefused(f"tmux did not answer: {_reason(result)}")

    async def at_work(self, sandbox: SandboxRef, ignored: Collection[str] = ()) -> list[str]:
        """Name programs that are at work in a sandbox, besides shells that wait for a command.

        Programs in the background count too, and whatever a pane runs instead of a shell; the
        sessions in `ignored`, by their tmux names, do not.

        Raises:
            TmuxRefused: It cannot be told.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        source = (files("craftastic.tmux") / "_at_work.py").read_text("utf-8")
        argv = [PYTHON, "-I", "-S", "-c", source, "tmux", self.socket(), *sorted(ignored)]
        result = await self._runtime(sandbox).run(
            sandbox, argv, timeout_s=15, max_output_bytes=MAX_ANSWER_BYTES
        )
        try:
            names: object = json.loads(result.stdout)
        except (ValueError, RecursionError):
            names = None
        if result.exit_code != 0 or not isinstance(names, list):
            raise TmuxRefused(f"It cannot be told what runs in the sandbox: {_reason(result)}")
        return [_printable(str(one), 40) for one in cast("list[object]", names)[:MAX_NAMED]]

    async def _named_back(self, sandbox: SandboxRef, found: Sequence[Listed]) -> set[str] | None:
        """Give renamed sessions their names back; None when there is none, or it fails."""
        words = naming_back(found)
        if not words:
            return None
        log.info("sessions are named back", sandbox=sandbox.id)
        result = await self._tmux(sandbox, *words, ";", "list-sessions", "-F", LISTED)
        if result.exit_code != 0:
            return None
        return {one.name for one in listed(result.stdout.decode("utf-8", "replace"))}

    async def _tmux(self, sandbox: SandboxRef, *command: str) -> RunResult:
        argv = ["tmux", "-N", "-u", "-S", self.socket(), *command]
        return await self._runtime(sandbox).run(sandbox, argv, timeout_s=10)

    def _runtime(self, sandbox: SandboxRef) -> Runtime:
        return self.runtimes[sandbox.runtime]


def _given(variables: Mapping[str, str] | None, program: bytes | None) -> bytes:
    """Return what goes through the fifo to the pane's first process; empty for nothing."""
    if program:
        if variables:
            raise ValueError("a session has either variables or a program")
        return framed(program)
    return packed(variables) if variables else b""


def _reason(result: RunResult) -> str:
    text = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
    return _printable(text, 200) or f"exit code {result.exit_code}"


def _printable(text: str, limit: int) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:limit])
