"""Damage to a repository or a worktree: looking for it, and putting it right.

Constant scripts in the sandbox do it, and every one may be repeated. Nothing of a user's is
deleted: a damaged repository is set aside whole, and what can be read of it is carried over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from craftastic.failpoints import failpoint
from craftastic.runtimes.base import SandboxRef
from craftastic.runtimes.registry import Runtimes
from craftastic.worktrees._answers import (
    MAX_ANSWER_BYTES,
    RepositoryCorrupt,
    WorktreeRefused,
    answer_of,
    argv_of,
)
from craftastic.worktrees._paths import repository_path, worktree_path, worktrees_path
from craftastic.worktrees._progress import readable

READING_S = 600
"""How long git may read all objects; of a repository that takes longer nothing is known."""

CHECK_TIMEOUT_S = READING_S + 120.0
CARRY_TIMEOUT_S = 900.0
MEND_TIMEOUT_S = 180.0
TOLD_TIMEOUT_S = 20.0
MAX_TOLD = 100


class Found(StrEnum):
    """What a look at a repository found."""

    WHOLE = "whole"
    MISSING = "missing"
    DAMAGED = "damaged"
    BEGUN = "begun"
    """A repair was cut short when the new clone was about to take the damaged one's place."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was put right.

    Args:
        done: What was done, a sentence for each thing; empty when nothing was wrong.
        kept: Folders inside of the sandbox in which damaged repositories are kept.
    """

    done: Sequence[str] = ()
    kept: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Repairs:
    """What looks for damage in sandboxes, and puts it right."""

    runtimes: Runtimes

    async def check(self, sandbox: SandboxRef, environment_id: UUID) -> Found:
        """Look at every object of a repository, and remove locks that nobody holds any more.

        Takes as long as git needs to read all of it, at most `READING_S` seconds. Cancellation ends
        git; nothing but such locks has changed then.

        Raises:
            RepositoryBusy: Another operation holds the repository for long.
            RepositoryUnchecked: git did not come to an end; nothing is known of the repository.
            RepositoryCorrupt: The answer cannot be read.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        answer = await self._run(
            sandbox,
            "check",
            (repository_path(environment_id), str(READING_S)),
            CHECK_TIMEOUT_S,
        )
        try:
            return Found(_first(answer, "state"))
        except ValueError:
            raise RepositoryCorrupt("The sandbox does not tell how its repository is.") from None

    async def token(self, sandbox: SandboxRef, environment_id: UUID) -> str | None:
        """Return the token for the gateway that git uses in a repository; None if it is lost.

        It is what the sandbox says: only the hash that is stored tells whether it is true.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        path = repository_path(environment_id)
        return _first(await self._run(sandbox, "token", (path,), TOLD_TIMEOUT_S), "token") or None

    async def carry(self, sandbox: SandboxRef, environment_id: UUID) -> None:
        """Put the finished new clone in the place of the damaged one, which is kept; repeatable.

        Local branches, stashes, kept work and worktrees are carried over as far as they can be
        read. Files of worktrees are not touched. Cut short it goes on when it is asked again.

        Raises:
            DiskFull: There was no room for what is carried over; nothing has changed.
            RepositoryBusy: Another operation holds the repository for long.
            RepositoryCorrupt: There is no new clone to put there.
            WorktreeRefused: Something could not be moved; what was is moved on by a repetition.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._run(
            sandbox,
            "carry",
            (repository_path(environment_id), f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"),
            CARRY_TIMEOUT_S,
        )
        failpoint("repository.carried")

    async def told(self, sandbox: SandboxRef, environment_id: UUID) -> Repaired:
        """Return what the last repair did, and which damaged repositories are kept.

        Raises:
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        path = repository_path(environment_id)
        answer = await self._run(sandbox, "repaired", (path,), TOLD_TIMEOUT_S)
        return Repaired(_all(answer, "did"), _all(answer, "kept"))

    async def mend(self, sandbox: SandboxRef, environment_id: UUID, branch: str) -> Sequence[str]:
        """Make the folder of a branch a worktree again, with the files that are in it; repeatable.

        What stands in its way is set aside under `.kept` beside the worktrees. A folder that is
        gone is left for `WorktreeService.ensure`.

        Returns:
            What was done, a sentence for each thing.

        Raises:
            BranchInUseElsewhere: Another folder has the branch checked out.
            RepositoryMissing, RepositoryCorrupt: The environment is what needs the repair.
            RepositoryBusy: Another operation holds the repository for long.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        answer = await self._run(
            sandbox,
            "mend",
            (
                repository_path(environment_id),
                worktrees_path(environment_id),
                worktree_path(environment_id, branch),
                branch,
                f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
            ),
            MEND_TIMEOUT_S,
        )
        failpoint("worktree.mended")
        return _all(answer, "did")

    async def _run(
        self, sandbox: SandboxRef, name: str, arguments: Sequence[str], timeout_s: float
    ) -> bytes:
        result = await self.runtimes[sandbox.runtime].run(
            sandbox,
            argv_of(name, *arguments),
            timeout_s=timeout_s,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        answer_of(result, WorktreeRefused("The repair could not be done."))
        return result.stdout


def _all(answer: bytes, name: str) -> list[str]:
    """Return every value of a name, in order; hostile, so no more than a person reads."""
    begin = name.encode() + b" "
    lines = [line for line in answer.splitlines() if line.startswith(begin)]
    return [readable(line[len(begin) :]) for line in lines[:MAX_TOLD]]


def _first(answer: bytes, name: str) -> str:
    return next(iter(_all(answer, name)), "")
