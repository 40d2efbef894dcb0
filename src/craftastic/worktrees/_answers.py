"""What the scripts in sandboxes are, how they refuse, and how their answers are read.

What comes back is hostile: bounded, and read from fixed forms.
"""

import re
from collections.abc import Sequence
from importlib.resources import files

from craftastic.errors import Conflict, CraftasticError, StorageFull, Unavailable
from craftastic.runtimes.base import RunResult
from craftastic.worktrees._damage import LOCK_LEFT, damage_in
from craftastic.worktrees._progress import readable
from craftastic.worktrees._starts import (
    BaseAmbiguous,
    BaseNotFound,
    BaseUnreachable,
    BranchExists,
)

REFUSED = 40
MAX_ANSWER_BYTES = 64 << 10

SCRIPTS_FOLDER = files("craftastic.worktrees") / "scripts"
PRELUDE = (SCRIPTS_FOLDER / "prelude.sh").read_text()
REPAIRING = PRELUDE + (SCRIPTS_FOLDER / "repairing.sh").read_text()
SCRIPTS = {
    **{
        name: PRELUDE + (SCRIPTS_FOLDER / f"{name}.sh").read_text()
        for name in ("clone", "ensure", "release", "unsaved", "identify", "token")
    },
    **{
        name: REPAIRING + (SCRIPTS_FOLDER / f"{name}.sh").read_text()
        for name in ("check", "carry", "repaired", "mend")
    },
}
THEN = (SCRIPTS_FOLDER / "then.sh").read_text()


class WorktreeRefused(Conflict):
    """git would not check the branch out; `details` says what it said."""

    code = "WORKTREE_REFUSED"


class BranchInUseElsewhere(WorktreeRefused):
    """Another worktree of the environment has the branch checked out."""

    code = "BRANCH_CHECKED_OUT"


class BranchConflict(WorktreeRefused):
    """One branch's name is a folder of another's."""

    code = "BRANCH_CONFLICT"


class WorktreeLocked(WorktreeRefused):
    code = "WORKTREE_LOCKED"


class RepositoryBusy(Unavailable):
    """Another operation holds the repository for long; trying again helps."""

    code = "REPOSITORY_BUSY"


class RepositoryMissing(Conflict):
    """The sandbox has no clone, or lost it; cloning again is the way on."""

    code = "REPOSITORY_MISSING"


class RepositoryCorrupt(Conflict):
    """git cannot read the clone. It is never deleted here: it may hold unpushed work."""

    code = "REPOSITORY_CORRUPT"


class RepositoryUnchecked(Unavailable):
    """git could not look a repository through to its end: whether it is damaged is not known."""

    code = "REPOSITORY_UNCHECKED"


class CloneFailed(Conflict):
    """The repository could not be cloned; `details` says why."""

    code = "CLONE_FAILED"


class DiskFull(StorageFull):
    """There was no room on the server's disk; other environments go on."""

    code = "DISK_FULL"


REFUSALS: dict[str, type[CraftasticError]] = {
    "in_use": BranchInUseElsewhere,
    "conflict": BranchConflict,
    "locked": WorktreeLocked,
    "busy": RepositoryBusy,
    "disk_full": DiskFull,
    "repository_missing": RepositoryMissing,
    "repository_corrupt": RepositoryCorrupt,
    "unchecked": RepositoryUnchecked,
    "base_missing": BaseNotFound,
    "base_ambiguous": BaseAmbiguous,
    "base_unreachable": BaseUnreachable,
    "branch_exists": BranchExists,
}

DAMAGED = "The repository is damaged: git cannot read it."
REPAIR = (
    "Repair the environment: a new clone is made beside the damaged one, which is kept with all"
    " that was not pushed."
)
REPAIR_SESSION = "repair the session, which removes what is left of it."
WAYS_ON = {
    "repository_corrupt": REPAIR,
    "repository_missing": "Repair the environment: that clones it again.",
    "disk_full": "Nothing has changed. Make room on the server's disk, or delete what is not needed"
    " any more, and repair again.",
    "locked": "Repair the session: that unlocks it and makes it again.",
    "unchecked": "If git works in the environment, nothing need be done. Otherwise end what is at"
    " work in it, and repair again.",
}


def argv_of(name: str, *arguments: str) -> list[str]:
    """Return the command line of a script with its arguments."""
    return ["sh", "-ceu", SCRIPTS[name], "sh", *arguments]


def followed(first: Sequence[str], then: Sequence[str]) -> list[str]:
    """Return the command line of a script that is followed by another command, see `then.sh`."""
    return ["bash", "-c", THEN, "bash", str(len(first)), *first, *then]


def count_of(text: str) -> int:
    """Return a number that a sandbox tells; 0 for what is none, or none that could be true."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def fields_of(raw: bytes) -> dict[str, str]:
    """Read an answer of names and values, a pair on each line."""
    pairs = (line.partition(b" ") for line in raw.splitlines())
    return {readable(name, 30): readable(value) for name, separator, value in pairs if separator}


def refusal_of(raw: bytes) -> CraftasticError | None:
    """Return the error that a script ended with; None for what is no refusal."""
    code, _, text = raw.partition(b"\n")
    name = readable(code, 30)
    error = REFUSALS.get(name)
    return None if error is None else error(readable(text), details=WAYS_ON.get(name))


def answer_of(result: RunResult, otherwise: CraftasticError) -> dict[str, str]:
    """Return the fields of a script's answer.

    Raises:
        CraftasticError: The script refused; what stands for its refusal.
        RepositoryCorrupt: git said that it cannot read something.
        WorktreeLocked: A git command that was cut short left its lock, or one is running.
        CraftasticError: `otherwise`, with what git said, where it ended in any other way.
    """
    if result.exit_code == 0:
        return fields_of(result.stdout)
    if result.exit_code == REFUSED and (refusal := refusal_of(result.stdout)) is not None:
        raise refusal
    said = readable(result.stderr[-2000:])
    if damage_in(result.stderr):
        raise RepositoryCorrupt(DAMAGED, details=f"{REPAIR} git said: {said}")
    if (lock := LOCK_LEFT.search(result.stderr)) is not None:
        raise WorktreeLocked(
            "Another git command is working on this repository.",
            details="Try again. If none is running, one was cut short and left"
            f" {readable(lock[1])}: {REPAIR_SESSION}",
        )
    otherwise.details = said or None
    raise otherwise
