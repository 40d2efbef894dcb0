"""Commits: which files go in, what git and the repository's hooks say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from craftastic.errors import CraftasticError
from craftastic.git._looking import status
from craftastic.git._names import shown
from craftastic.git._porcelain import Status, names, parse_shortstat, subject_of
from craftastic.git._refusals import (
    BadCommitMessage,
    BranchMoved,
    CommitRefused,
    GitFailed,
    MergeConflicts,
    NothingToCommit,
    OperationRunning,
)
from craftastic.git._scripts import MAX_BYTES, Answer, Place, only_branch

MAX_MESSAGE_BYTES = 64 << 10
MAX_NAMED = 20
COMMIT_S = 120
LITERAL = b":(top,literal)"
MAX_STATUS_BYTES = 4 * MAX_BYTES
MAX_STATUS_FILES = 200_000

Mask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class CommitWish:
    """What to commit.

    Args:
        files: Exactly these, names of files or folders; None for everything.
        staged: The index as it is.
        expected: Whole hash that the branch must be at; empty for any.
        identity: Name and e-mail address of author and committer.
    """

    message: str
    identity: tuple[str, str]
    files: Sequence[bytes] | None = None
    staged: bool = False
    amend: bool = False
    no_verify: bool = False
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that was made; `branch` is None where the worktree is on none."""

    commit: str
    branch: str | None
    summary: str
    files_changed: int
    insertions: int
    deletions: int


def check_message(message: str) -> str:
    """Return a commit's message, unchanged.

    Raises:
        BadCommitMessage: It is empty or too long.
    """
    if not message.strip():
        raise BadCommitMessage("A commit needs a message.")
    if len(message.encode()) > MAX_MESSAGE_BYTES:
        raise BadCommitMessage(f"The message must have at most {MAX_MESSAGE_BYTES >> 10} KiB.")
    return message


async def commit(place: Place, wish: CommitWish, mask: Mask) -> Committed:
    """Make a commit; after a refusal index and files are as before.

    Raises:
        NothingToCommit, BranchMoved, MergeConflicts, OperationRunning, CommitRefused, GitLocked,
        HooksTooSlow: As named.
    """
    new, chosen = b"", b""
    if wish.files is not None:
        found = await status(place, most_bytes=MAX_STATUS_BYTES, most_files=MAX_STATUS_FILES)
        untracked, every = select(found.status, wish.files)
        new = b"".join(one + b"\0" for one in untracked)
        chosen = b"".join(LITERAL + one + b"\0" for one in every)
    message = wish.message.encode()
    answer = await place.run(
        "commit",
        "files" if wish.files is not None else "staged" if wish.staged else "all",
        "amend" if wish.amend else "new",
        "no-verify" if wish.no_verify else "verify",
        wish.expected,
        *wish.identity,
        str(COMMIT_S),
        str(len(message)),
        str(len(new)),
        stdin=message + new + chosen,
        timeout_s=COMMIT_S + 60.0,
    )
    if answer.refusal is not None:
        _refuse(answer, mask)
    files, insertions, deletions = parse_shortstat(shown(answer.part("counts").output))
    return Committed(
        commit=answer.fields.get("commit", ""),
        branch=only_branch(answer.fields.get("branch", "")),
        summary=subject_of(shown(answer.part("subject").output)),
        files_changed=files,
        insertions=insertions,
        deletions=deletions,
    )


def select(found: Status, wanted: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return which new files, and which files in all, the wanted names stand for.

    A renamed file stands for its old name too, a folder for everything in it.

    Raises:
        NothingToCommit: One of the names has no change.
    """
    if any(one.conflicted for one in found.files):
        raise _conflicts([one.name for one in found.files if one.conflicted])
    new: dict[bytes, None] = {}
    every: dict[bytes, None] = {}
    met: set[bytes] = set()
    wanted_set = frozenset(wanted)
    for file in found.files:
        matched = _matched(file.name.rstrip(b"/"), wanted_set)
        if file.original is not None and not matched:
            matched = _matched(file.original, wanted_set)
        if not matched:
            continue
        met |= matched
        if file.untracked and not file.name.endswith(b"/"):
            new[file.name] = None
        every[file.name] = None
        if file.original is not None and file.code.find("R") >= 0:
            every[file.original] = None
    unmet = [one for one in wanted if one not in met]
    if unmet:
        listed = ", ".join(shown(one) for one in unmet[:MAX_NAMED])
        raise NothingToCommit(
            "There is nothing to commit in some of these files.",
            details=f"No changes: {listed}"[:2000],
        )
    return list(new), list(every)


def _matched(name: bytes, wanted: frozenset[bytes]) -> set[bytes]:
    parts = name.split(b"/")
    return {b"/".join(parts[:end]) for end in range(1, len(parts) + 1)} & wanted


def _refuse(answer: Answer, mask: Mask) -> NoReturn:
    code, detail = answer.refusal or ("", "")
    match code:
        case "nothing_to_commit":
            raise NothingToCommit("There is nothing to commit.")
        case "nothing_to_amend":
            raise NothingToCommit("There is no commit yet that could be changed.")
        case "commit_refused":
            said = mask(shown(answer.part("said").output)).strip()
            raise CommitRefused("The commit was refused.", details=said or None)
        case _:
            raise refusal_of_worktree(answer, code, detail)


def refusal_of_worktree(answer: Answer, code: str, detail: str) -> CraftasticError:
    """Return the error of a refusal that all scripts which change a worktree may give."""
    match code:
        case "branch_moved":
            return BranchMoved(
                "The branch has moved meanwhile.",
                details="Look at it again before going on.",
                answer={"head": detail or None},
            )
        case "merge_conflicts":
            return _conflicts(names(answer.part("conflicts").output))
        case "operation_running":
            return OperationRunning(
                f"A {detail} has been begun in this worktree and is not ended.",
                details=f"Finish it in a terminal, or give it up with git {detail} --abort.",
            )
        case _:
            return GitFailed("git could not do that.")


def _conflicts(files: Sequence[bytes]) -> MergeConflicts:
    return MergeConflicts(
        "Files have conflicts that are not solved.",
        details="Solve them in a terminal and tell git so with git add, then commit again.",
        answer={"files": [shown(one) for one in files[:1000]]},
    )
