"""Worktrees: a bare repository for each environment, a working tree for each branch in use.

All of it happens in the sandbox, by constant scripts (`scripts/`): the server runs no git and opens
no path of a sandbox. What comes back is hostile: bounded, and read from fixed forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import anyio

from craftastic.failpoints import failpoint
from craftastic.runtimes.base import (
    GATEWAY_HOST,
    Progress,
    Report,
    RunResult,
    Runtime,
    RunTimeout,
    SandboxRef,
    no_report,
)
from craftastic.runtimes.registry import Runtimes
from craftastic.worktrees._answers import (
    DAMAGED,
    MAX_ANSWER_BYTES,
    PRELUDE,
    REPAIR,
    REPAIR_SESSION,
    BranchConflict,
    BranchInUseElsewhere,
    CloneFailed,
    DiskFull,
    RepositoryBusy,
    RepositoryCorrupt,
    RepositoryMissing,
    RepositoryUnchecked,
    WorktreeLocked,
    WorktreeRefused,
    answer_of,
    argv_of,
    count_of,
    fields_of,
    followed,
    refusal_of,
)
from craftastic.worktrees._branches import (
    BadBranchName,
    branch_key,
    check_branch,
    conflicting,
)
from craftastic.worktrees._config import WorktreeConfig, WorktreeConfigInvalid, is_command_name
from craftastic.worktrees._damage import LOCK_LEFT, damage_in, disk_full_in
from craftastic.worktrees._glances import Glance, JobGlance, glance
from craftastic.worktrees._jobs import (
    COMMAND_PREFIX,
    MAX_LOG_BYTES,
    SETUP,
    TEARDOWN,
    Job,
    JobNotStarted,
    JobRunning,
    JobStatus,
    Look,
    Place,
    WorktreeJobs,
    WorktreeMissing,
)
from craftastic.worktrees._paths import (
    WORKSPACE,
    new_repository_path,
    repository_path,
    worktree_path,
    worktrees_path,
)
from craftastic.worktrees._progress import CloneOutput, readable
from craftastic.worktrees._repairs import Found, Repaired, Repairs
from craftastic.worktrees._starts import (
    COMMIT,
    MAX_PULL_REQUEST,
    BadBase,
    BaseAmbiguous,
    BaseNotFound,
    BaseUnreachable,
    BranchExists,
    Start,
    StartKind,
    start_of,
)

__all__ = [
    "COMMAND_PREFIX",
    "DAMAGED",
    "LOCK_LEFT",
    "MAX_LOG_BYTES",
    "MAX_PULL_REQUEST",
    "PRELUDE",
    "REPAIR",
    "REPAIR_SESSION",
    "SETUP",
    "TEARDOWN",
    "WORKSPACE",
    "BadBase",
    "BadBranchName",
    "BaseAmbiguous",
    "BaseNotFound",
    "BaseUnreachable",
    "BranchConflict",
    "BranchExists",
    "BranchInUseElsewhere",
    "CloneFailed",
    "Cloned",
    "DiskFull",
    "Found",
    "Glance",
    "Job",
    "JobGlance",
    "JobNotStarted",
    "JobRunning",
    "JobStatus",
    "Kept",
    "Look",
    "Place",
    "Repaired",
    "Repairs",
    "RepositoryBusy",
    "RepositoryCorrupt",
    "RepositoryMissing",
    "RepositoryUnchecked",
    "Start",
    "StartKind",
    "Unsaved",
    "Worktree",
    "WorktreeConfig",
    "WorktreeConfigInvalid",
    "WorktreeJobs",
    "WorktreeLocked",
    "WorktreeMissing",
    "WorktreeRefused",
    "WorktreeService",
    "branch_key",
    "check_branch",
    "conflicting",
    "damage_in",
    "is_command_name",
    "repository_path",
    "start_of",
    "worktree_path",
    "worktrees_path",
]

ENSURE_TIMEOUT_S = 300.0
RELEASE_TIMEOUT_S = 120.0
UNSAVED_TIMEOUT_S = 15.0
IDENTIFY_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Cloned:
    """A finished clone.

    Args:
        default_branch: The remote's own, None when it has none (an empty repository).
        has_branch: The branch asked for is on the remote.
    """

    default_branch: str | None
    has_branch: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """Work that a removed worktree would have lost, and where it is now.

    Args:
        ref: Ref of the environment's repository that holds it, with `commit`.
        uncommitted: The commit holds changes that had not been committed.
        unpushed: Commits that no remote branch has.
        path: Folder that was left or put aside, where a commit could not hold everything.
    """

    ref: str | None = None
    commit: str | None = None
    uncommitted: bool = False
    unpushed: int = 0
    path: str | None = None


class Then(Protocol):
    """A command that follows another, and its input; `tmux.service.Making` is one."""

    @property
    def argv(self) -> Sequence[str]: ...

    @property
    def stdin(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Worktree:
    """A worktree that is there.

    Args:
        path: Inside the sandbox.
        fresh: It is new, and the session has not prepared it yet.
        start: The commit that its branch began at, where a base was asked for.
        then: How the command that was to follow ended; None where it was not run.
    """

    path: str
    fresh: bool = False
    start: str | None = None
    then: RunResult | None = None


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A branch's work that is nowhere but in the sandbox."""

    branch: str
    uncommitted: bool
    unpushed: int


@dataclass(frozen=True, slots=True)
class WorktreeService:
    """git in sandboxes.

    Args:
        gateway_port: Port of the gateway as sandboxes reach it.
        clone_timeout_s: Longest clone, in seconds.
    """

    runtimes: Runtimes
    gateway_port: int
    clone_timeout_s: float = 1800.0

    def remote_url(self, environment_id: UUID) -> str:
        """Return what `origin` is inside the sandbox: the gateway, not the true upstream."""
        return f"{self._gateway}git/{environment_id}.git"

    async def clone(
        self,
        sandbox: SandboxRef,
        environment_id: UUID,
        token: str,
        report: Report = no_report,
        *,
        branch: str = "main",
        beside: bool = False,
        identity: tuple[str, str] | None = None,
    ) -> Cloned:
        """Clone the environment's repository through the gateway; repeatable at any point.

        A finished clone is fetched and gets the new token; one that was cut short goes on.
        Cancellation ends git in the sandbox.

        The token is the sandbox's own for the gateway, of URL-safe characters. `branch` is the one
        that the answer tells about, and the first one of an empty repository. With `beside` the
        clone is a new one, which `Repairs.carry` puts in the place of the one that is there. An
        `identity`, a name and an e-mail address, is set as `identify` does.

        Raises:
            CloneFailed: With what git said.
            DiskFull: There was no room for it; what it had taken is free again.
            RepositoryCorrupt: There is a finished clone that git cannot read.
            SandboxGone: The sandbox is not running.
            RuntimeUnavailable: Its runtime did not answer.
        """
        arguments = (
            (new_repository_path if beside else repository_path)(environment_id),
            self._gateway,
            self.remote_url(environment_id),
            branch,
            *map(_identity, identity or ()),
        )
        output, answer = CloneOutput(), bytearray()
        await report(Progress("clone", "Cloning the repository"))
        with anyio.move_on_after(self.clone_timeout_s) as deadline:
            async with self._runtime(sandbox).open(sandbox, argv_of("clone", *arguments)) as stream:
                await stream.send(f"{token}\n".encode())
                failpoint("clone.asked")
                while chunk := await stream.receive_stderr():
                    if (progress := output.feed(chunk)) is not None:
                        await report(progress)
                # Few bytes, by the script's form: they waited while the other output was read.
                while chunk := await stream.receive_stdout():
                    answer += chunk[: MAX_ANSWER_BYTES - len(answer)]
        failpoint("clone.ended")
        if deadline.cancelled_caught:
            raise CloneFailed(
                "The repository could not be cloned.",
                details=f"It took longer than {self.clone_timeout_s:.0f} seconds.",
            )
        return _cloned(bytes(answer), output.said)

    @property
    def repairs(self) -> Repairs:
        """Return what looks for damage, and what puts it right."""
        return Repairs(self.runtimes)

    @property
    def jobs(self) -> WorktreeJobs:
        """Return what prepares worktrees and runs commands in them."""
        return WorktreeJobs(self.runtimes)

    async def glance(self, place: Place) -> Glance:
        """Look whether anything about a worktree and its jobs is another than before.

        Raises:
            JobNotStarted: The sandbox's answer cannot be read.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        return await glance(self._runtime(place.sandbox), place)

    async def ensure(
        self,
        sandbox: SandboxRef,
        environment_id: UUID,
        branch: str,
        base: str,
        *,
        session_id: UUID | None = None,
        start: Start | None = None,
        then: Then | None = None,
    ) -> Worktree:
        """Make the worktree of a branch unless it is there.

        The command `then` follows at once, as by `Runtime.spawn`, unless the worktree is fresh: a
        command less in the sandbox.

        An existing branch is checked out, one of the remote is followed, a new one begins at
        `start`, or without it at `base` of the remote, else at its default branch, main, master, or
        the first one. A start is looked for in the clone, and fetched where it is not there. Until
        it has a commit, a branch that exists and stands elsewhere is refused.

        Raises:
            BadBranchName: The branch's name is not allowed.
            BaseNotFound, BaseAmbiguous, BaseUnreachable: There is no one commit to begin at.
            BranchExists: The branch is there, and stands elsewhere than at `start`.
            WorktreeRefused: git would not; its subclasses say which case.
            RepositoryMissing: The sandbox has no finished clone.
            RepositoryCorrupt: git cannot read the clone.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        check_branch(branch)
        path = worktree_path(environment_id, branch)
        argv = argv_of(
            "ensure",
            repository_path(environment_id),
            worktrees_path(environment_id),
            path,
            branch,
            base,
            f"{datetime.now(UTC):%Y%m%dT%H%M%S}",
            "" if session_id is None else str(session_id),
            *_start_arguments(start),
        )
        runtime = self._runtime(sandbox)
        if then is None:
            result = await runtime.run(
                sandbox, argv, timeout_s=ENSURE_TIMEOUT_S, max_output_bytes=MAX_ANSWER_BYTES
            )
        else:
            said = await runtime.spawn(
                sandbox, followed(argv, then.argv), stdin=then.stdin, timeout_s=ENSURE_TIMEOUT_S
            )
            out, err = said.stdout[:MAX_ANSWER_BYTES], said.stderr[-MAX_ANSWER_BYTES:]
            result = RunResult(said.exit_code, out, err)
        failpoint("worktree.made")
        refused = WorktreeRefused(f"git would not check branch '{branch}' out.")
        answer = answer_of(result, refused)
        commit, code = answer.get("start", ""), answer.get("then")
        return Worktree(
            path,
            fresh=answer.get("fresh") == "yes",
            start=commit if COMMIT.fullmatch(commit) else None,
            then=None if code is None else RunResult(count_of(code), b"", result.stderr),
        )

    async def release(
        self,
        sandbox: SandboxRef,
        environment_id: UUID,
        branch: str,
        *,
        keep_as: str,
        only_own: bool = False,
    ) -> Kept | None:
        """Remove the worktree of a branch; the branch itself stays. Repeatable.

        With `only_own` it is removed only where the session `keep_as` made it.

        Work that is only in the worktree is kept first: uncommitted changes (new files too, ignored
        ones not) and commits that no remote branch has, under `refs/craftastic/kept/<keep_as>`;
        where a commit cannot hold everything the folder stays.

        Returns:
            What was kept and where, None when there was nothing to lose.

        Raises:
            WorktreeRefused: It could be neither kept nor removed; nothing was.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        own = "yes" if only_own else "no"
        try:
            return await self._release(sandbox, environment_id, branch, keep_as, "snapshot", own)
        except RunTimeout:
            # More than can be written as a commit in the time: the folder stays as it is.
            return await self._release(sandbox, environment_id, branch, keep_as, "whole", own)

    async def unsaved(self, sandbox: SandboxRef, environment_id: UUID) -> list[Unsaved]:
        """List the work that would be lost with the environment's storage.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        result = await self._runtime(sandbox).run(
            sandbox,
            argv_of("unsaved", repository_path(environment_id)),
            timeout_s=UNSAVED_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        rows = [line.split(b" ", 2) for line in result.stdout.splitlines()]
        return [
            Unsaved(readable(row[2]), row[0] == b"yes", count_of(row[1].decode(errors="replace")))
            for row in rows
            if len(row) == 3  # noqa: PLR2004 (the form of unsaved.sh)
        ]

    async def ensure_workspace(self, sandbox: SandboxRef) -> str:
        """Make the folder of sessions without a repository, and return its path inside.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._runtime(sandbox).run(sandbox, ["mkdir", "-p", "--", WORKSPACE])
        return WORKSPACE

    async def identify(self, sandbox: SandboxRef, name: str, email: str) -> None:
        """Set whom commits are by until the user says otherwise.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._runtime(sandbox).run(
            sandbox,
            argv_of("identify", _identity(name), _identity(email)),
            timeout_s=IDENTIFY_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )

    @property
    def _gateway(self) -> str:
        return f"http://{GATEWAY_HOST}:{self.gateway_port}/"

    def _runtime(self, sandbox: SandboxRef) -> Runtime:
        return self.runtimes[sandbox.runtime]

    async def _release(
        self,
        sandbox: SandboxRef,
        environment_id: UUID,
        branch: str,
        keep_as: str,
        how: str,
        own: str,
    ) -> Kept | None:
        result = await self._runtime(sandbox).run(
            sandbox,
            argv_of(
                "release",
                repository_path(environment_id),
                worktrees_path(environment_id),
                worktree_path(environment_id, branch),
                branch,
                keep_as,
                how,
                own,
            ),
            timeout_s=RELEASE_TIMEOUT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        failpoint("worktree.released")
        refused = WorktreeRefused(f"The worktree of branch '{branch}' could not be removed.")
        answer = answer_of(result, refused)
        if not answer:
            return None
        return Kept(
            ref=answer.get("ref"),
            commit=answer.get("commit"),
            uncommitted=answer.get("uncommitted") == "yes",
            unpushed=count_of(answer.get("unpushed", "0")),
            path=answer.get("path"),
        )


def _start_arguments(start: Start | None) -> tuple[str, str, str]:
    if start is None:
        return "", "", ""
    return start.kind.value, start.ref, "yes" if start.commit is None else "no"


def _identity(text: str) -> str:
    # git itself drops these from a name; a newline would end the header that it writes.
    return readable("".join(one for one in text if one not in "<>").encode(), 200)


def _cloned(answer: bytes, said: str) -> Cloned:
    fields = fields_of(answer)
    if fields.get("done") == "yes":
        return Cloned(fields.get("default"), fields.get("found") == "yes")
    if (refusal := refusal_of(answer)) is not None:
        raise refusal
    if disk_full_in(said):
        raise DiskFull(
            "The disk is full: the repository could not be cloned.",
            details="What was written of it has been removed again. Make room on the server's disk,"
            " or delete what is not needed any more, and try again.",
        )
    raise CloneFailed("The repository could not be cloned.", details=said or None)
