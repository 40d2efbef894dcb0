"""Preparing a new worktree, and running its jobs: files, setup, commands, teardown.

Everything happens in the sandbox, by two constant programs (`_copy.py`, `_job.py`). What they
answer is hostile: bounded, and read from a fixed form.
"""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from craftastic.errors import Conflict, Unavailable
from craftastic.runtimes.base import RunResult, Runtime, SandboxRef
from craftastic.runtimes.registry import Runtimes
from craftastic.worktrees._config import RawFile, WorktreeConfig, read_config
from craftastic.worktrees._paths import jobs_path, repository_path, worktrees_path
from craftastic.worktrees._progress import readable

SETUP = "setup"
TEARDOWN = "teardown"
COMMAND_PREFIX = "command."

MAX_LOG_BYTES = 1 << 20
MAX_ANSWER_BYTES = 8 << 20
MAX_SECRET_BYTES = 32 << 10
"""How long a value may be that a log must not show: a log that begins inside one loses as much."""

TEARDOWN_LIMIT_S = 60
TEARDOWN_TIMEOUT_S = TEARDOWN_LIMIT_S + 15.0
START_TIMEOUT_S = 20.0
SHOW_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
COPY_TIMEOUT_S = 60.0

RUNNING, NO_WORKTREE = 41, 42
"""Exit codes of `_job.py`."""

LAST_TIME = 32_503_680_000
"""The year 3000: no clock of a sandbox that can be believed is later, in seconds."""


class JobRunning(Conflict):
    """The job runs already; stopping it, or waiting, is the way on."""

    code = "JOB_RUNNING"


class JobNotStarted(Unavailable):
    """The sandbox could not start the job; the details say what it said."""

    code = "JOB_NOT_STARTED"


class WorktreeMissing(Conflict):
    """The session's worktree is not there; attaching to the session makes it again."""

    code = "WORKTREE_MISSING"


class JobStatus(StrEnum):
    NONE = "none"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """It was stopped, or its sandbox ended."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of a job.

    Args:
        command: What it ran, as one text; None where that is not known.
        exit_code: As a shell tells it; None until it ended, and where nobody saw the end.
        reason: Why it ended, where the exit code does not tell.
    """

    status: JobStatus = JobStatus.NONE
    command: str | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A worktree's configuration and jobs as they are now.

    Args:
        config: What its files say.
        jobs: By name; see `SETUP`, `TEARDOWN` and `COMMAND_PREFIX`.
        log: The newest output of the job asked about.
        truncated: There was more output than the log has.
        copied: Names of the files that the worktree got.
        notes: What was not copied, in plain words.
        foreign: The branch has commits of a pull request that no branch of the remote has.
    """

    config: WorktreeConfig
    jobs: Mapping[str, Job]
    log: str = ""
    truncated: bool = False
    copied: Sequence[str] = ()
    notes: Sequence[str] = ()
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A session's worktree in its sandbox."""

    sandbox: SandboxRef
    environment_id: UUID
    session_id: UUID
    path: str

    @property
    def jobs(self) -> str:
        return jobs_path(self.session_id)


def _program(name: str) -> str:
    return (files("craftastic.worktrees") / name).read_text()


JOB, COPY = _program("_job.py"), _program("_copy.py")


@dataclass(frozen=True, slots=True)
class WorktreeJobs:
    """The jobs of worktrees, in sandboxes."""

    runtimes: Runtimes

    async def look(self, place: Place, name: str = "", tail_bytes: int = 0) -> Look:
        """Read what a worktree's files say, how its jobs are, and the newest output of one.

        Raises:
            JobNotStarted: The sandbox's answer cannot be read.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(place).run(
            place.sandbox,
            _argv(JOB, "show", place.jobs, name, place.path, str(min(tail_bytes, MAX_LOG_BYTES))),
            timeout_s=SHOW_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        return _look(result)

    async def copy(self, place: Place, patterns: Sequence[str], preferred: str) -> None:
        """Copy ignored files that match a pattern into the worktree; see `_copy.py`.

        Args:
            place: Where to.
            patterns: As in a `.gitignore`, each on a line of its own.
            preferred: The worktree to copy from; without it the environment's oldest one.

        Raises:
            JobNotStarted: It could not be done; the details say what the sandbox said.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(place).run(
            place.sandbox,
            _argv(
                COPY,
                repository_path(place.environment_id),
                worktrees_path(place.environment_id),
                place.path,
                preferred,
                place.jobs,
            ),
            stdin="".join(f"{one}\n" for one in patterns).encode(errors="surrogateescape"),
            timeout_s=COPY_TIMEOUT_S,
            max_output_bytes=4096,
        )
        if result.exit_code != 0:
            raise _not_done("The files could not be copied.", result)

    async def start(
        self,
        place: Place,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        limit_s: int = 0,
        *,
        first: bool = False,
    ) -> None:
        """Start a job in the background; it ends by itself, when it is stopped, or after `limit_s`.

        The variables go by the command's input, and are in no argument and no file. With `first` it
        is started only where the worktree is fresh still: of several servers one does it, once.

        Raises:
            JobRunning: It runs already; with `first` also where it has run.
            WorktreeMissing: There is no worktree.
            JobNotStarted: The sandbox could not; the details say what it said.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(place).spawn(
            place.sandbox,
            _argv(JOB, "first" if first else "start", place.jobs, name, place.path, str(limit_s)),
            stdin=_given(command, variables),
            timeout_s=START_TIMEOUT_S,
        )
        _started(result)

    async def prepared(self, place: Place) -> None:
        """Note that the worktree is not fresh any more.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._runtime(place).run(
            place.sandbox, _argv(JOB, "done", place.jobs), timeout_s=SHOW_TIMEOUT_S
        )

    async def stop(self, place: Place, name: str = "") -> Look:
        """End a job and its processes, or all of them; return how everything is then.

        Raises:
            JobNotStarted: The sandbox's answer cannot be read.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(place).run(
            place.sandbox,
            _argv(JOB, "stop", place.jobs, name, place.path),
            timeout_s=STOP_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        return _look(result)

    async def await_teardown(self, place: Place) -> None:
        """Wait for the end of a teardown that somebody else has started; start none.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._runtime(place).run(
            place.sandbox,
            _argv(JOB, "join", place.jobs, TEARDOWN, place.path),
            timeout_s=TEARDOWN_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )

    async def tear_down(
        self, place: Place, command: Sequence[str], variables: Mapping[str, str]
    ) -> tuple[Job, str]:
        """Run the teardown to its end, for at most `TEARDOWN_LIMIT_S`; and tell its last words.

        Raises:
            JobRunning, WorktreeMissing, JobNotStarted: See `start`.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(place).run(
            place.sandbox,
            _argv(JOB, "wait", place.jobs, TEARDOWN, place.path, str(TEARDOWN_LIMIT_S)),
            stdin=_given(command, variables),
            timeout_s=TEARDOWN_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        _started(result)
        look = _look(result)
        return look.jobs.get(TEARDOWN, Job()), look.log

    def _runtime(self, place: Place) -> Runtime:
        return self.runtimes[place.sandbox.runtime]


def _argv(program: str, *arguments: str) -> list[str]:
    return ["python3", "-I", "-S", "-c", program, *arguments]


def _given(command: Sequence[str], variables: Mapping[str, str]) -> bytes:
    return json.dumps({"command": list(command), "variables": dict(variables)}).encode()


def _not_done(message: str, result: RunResult) -> JobNotStarted:
    # The last line of a traceback is its reason.
    return JobNotStarted(message, details=readable(result.stderr[-500:]) or None)


def _started(result: RunResult) -> None:
    if result.exit_code == RUNNING:
        raise JobRunning("It runs already", details="Stop it first, or wait for its end.")
    if result.exit_code == NO_WORKTREE:
        raise WorktreeMissing(
            "The session has no git worktree any more",
            details="Attach to the session: its worktree is made again.",
        )
    if result.exit_code != 0:
        raise _not_done("The sandbox could not start it.", result)


# ---- what a sandbox answers -------------------------------------------------------------------


def _decoded(value: object) -> object:
    return b64decode(value) if isinstance(value, str) else value


Encoded = Annotated[bytes, BeforeValidator(_decoded)]
Moment = Annotated[float, Field(ge=0, le=LAST_TIME, allow_inf_nan=False)]


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _File(_Told):
    content: Encoded | None = None
    fault: str | None = None


class _State(_Told):
    running: bool = False
    command: list[str] | None = Field(None, max_length=100)
    started: Moment | None = None
    finished: Moment | None = None
    exit: int | None = Field(None, ge=0, le=255)
    ended: str = Field("", max_length=20)


class _Answer(_Told):
    jobs: dict[str, _State] = Field(default_factory=dict[str, _State], max_length=100)
    config: _File = _File()
    include: _File = _File()
    copied: Encoded = b""
    notes: Encoded = b""
    log: Encoded = b""
    truncated: bool = False
    foreign: bool = True


def _look(result: RunResult) -> Look:
    if result.exit_code != 0:
        raise _not_done("The sandbox does not tell how its jobs are.", result)
    try:
        # Unlike Python's own reader this one refuses deep nesting and half characters.
        answer = _Answer.model_validate_json(result.stdout)
    except ValidationError:
        raise JobNotStarted("The sandbox answered nonsense about its jobs.") from None
    return Look(
        config=read_config(_raw(answer.config), _raw(answer.include)),
        jobs={name: _job(state) for name, state in answer.jobs.items()},
        log=_whole(answer.log, cut=answer.truncated).decode(errors="replace"),
        truncated=answer.truncated,
        copied=[one.decode(errors="replace") for one in answer.copied.split(b"\0")[:-1]],
        notes=_notes(answer.notes),
        foreign=answer.foreign,
    )


def _raw(file: _File) -> RawFile:
    return RawFile(file.content, None if file.fault is None else readable(file.fault.encode(), 100))


def _job(state: _State) -> Job:
    if state.started is None:
        return Job()
    status, reason = JobStatus.INTERRUPTED, None
    if state.finished is None or state.exit is None:
        if state.running:
            status = JobStatus.RUNNING
        else:
            reason = "The sandbox ended while it ran."
    elif state.ended == "timeout":
        status, reason = JobStatus.FAILED, "It took longer than it may and was ended."
    elif state.ended == "stopped":
        reason = "It was stopped."
    else:
        status = JobStatus.FAILED if state.exit else JobStatus.SUCCEEDED
    return Job(
        status=status,
        command=None if state.command is None else "\n".join(state.command),
        exit_code=state.exit,
        started_at=_moment(state.started),
        finished_at=_moment(state.finished),
        reason=reason,
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _whole(log: bytes, *, cut: bool) -> bytes:
    """Return a log that begins with a line: the rest of a secret would not be known for one."""
    if not cut:
        return log
    line = log.find(b"\n", 0, MAX_SECRET_BYTES)
    return log[line + 1 :] if line >= 0 else log[MAX_SECRET_BYTES:]


NOTES = {
    "unfinished": "The copying of files was cut short.",
    "files": "{count} more files matched than are copied at once (2000).",
    "bytes": "{count} files were left out: more than 200 MiB would have been copied.",
    "failed": "{count} files could not be copied.",
    "unlisted": "Too many files matched: not all of them were looked at.",
}


def _notes(raw: bytes) -> list[str]:
    found: list[str] = []
    for line in raw.splitlines()[: len(NOTES)]:
        word, _, count = line.partition(b" ")
        text = NOTES.get(readable(word, 20))
        if text is not None and count.isdigit():
            found.append(text.format(count=int(count[:9])))
    return found
