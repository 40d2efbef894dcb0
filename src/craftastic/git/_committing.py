"""Commits: which files go in, what git and the repository's hooks say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from craftastic.errors import CraftasticError
from craftastic.git._looking import chosen
from craftastic.git._names import shown
from craftastic.git._porcelain import Status, StatusFile, names, parse_shortstat, subject_of
from craftastic.git._refusals import (
    BadCommitMessage,
    BranchMoved,
    CommitRefused,
    GitFailed,
    MergeConflicts,
    NothingToCommit,
    OperationRunning,
)
from craftastic.git._scripts import Answer, Place, damage, only_branch, whole_lines

MAX_MESSAGE_BYTES = 64 << 10
MAX_NAMED = 20
COMMIT_S = 120
LITERAL = b":(top,literal)"
MAX_CONFLICTS = 1000

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
    new, taken = b"", b""
    if wish.files is not None:
        wanted = Wanted(wish.files)
        untracked, every = select(await chosen(place, wanted.keep), wanted)
        new = b"".join(one + b"\0" for one in untracked)
        taken = b"".join(LITERAL + one + b"\0" for one in every)
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
        stdin=message + new + taken,
        timeout_s=COMMIT_S + 60.0,
    )
    if answer.refusal is not None:
        _refuse(answer, mask)
    subject = answer.part("subject")
    said = subject.output if subject.complete else whole_lines(subject.output)
    files, insertions, deletions = parse_shortstat(shown(answer.part("counts").output))
    return Committed(
        commit=answer.fields.get("commit", ""),
        branch=only_branch(answer.fields.get("branch", "")),
        summary=subject_of(mask(shown(said))),
        files_changed=files,
        insertions=insertions,
        deletions=deletions,
    )


class Wanted:
    """The names of files and folders that somebody wants in a commit."""

    def __init__(self, wanted: Sequence[bytes]) -> None:
        self.names = wanted
        self._set = frozenset(wanted)
        self._lengths = frozenset(len(one) for one in wanted)

    def keep(self, file: StatusFile) -> bool:
        """Tell whether a commit of these names has to know of this file."""
        return file.conflicted or bool(self.matched(file))

    def matched(self, file: StatusFile) -> set[bytes]:
        """Return which of the names stand for this file: its own, its old one, a folder's."""
        found = self._above(file.name.rstrip(b"/"))
        if file.original is not None and not found:
            found = self._above(file.original)
        return found

    def _above(self, name: bytes) -> set[bytes]:
        found: set[bytes] = set()
        end = 0
        while end < len(name):
            end = name.find(b"/", end + 1)
            end = len(name) if end < 0 else end
            if end in self._lengths and (prefix := name[:end]) in self._set:
                found.add(prefix)
        return found


def select(found: Status, wanted: Wanted) -> tuple[list[bytes], list[bytes]]:
    """Return which new files, and which files in all, the wanted names stand for.

    A renamed file stands for its old name too, a folder for everything in it.

    Raises:
        NothingToCommit: One of the names has no change.
        GitFailed: There are too many changes to tell.
    """
    conflicted = [one.name for one in found.files if one.conflicted]
    if conflicted:
        raise _conflicts(conflicted)
    new: dict[bytes, None] = {}
    every: dict[bytes, None] = {}
    met: set[bytes] = set()
    for file in found.files:
        matched = wanted.matched(file)
        if not matched:
            continue
        met |= matched
        if file.untracked and not file.name.endswith(b"/"):
            new[file.name] = None
        every[file.name] = None
        if file.original is not None and file.code.find("R") >= 0:
            every[file.original] = None
    unmet = [one for one in wanted.names if one not in met]
    if not found.complete and (unmet or not every.keys() >= set(wanted.names)):
        raise GitFailed(
            "There are too many changes in the worktree to find these files among them.",
            details="Commit in a terminal, or tell git which files to ignore.",
        )
    if unmet:
        raise _nothing_in(unmet)
    return list(new), list(every)


def _nothing_in(names: Sequence[bytes]) -> NothingToCommit:
    listed = ", ".join(shown(one) for one in names[:MAX_NAMED])
    return NothingToCommit(
        "There is nothing to commit in some of these files.",
        details=f"No changes: {listed}"[:2000],
    )


def _refuse(answer: Answer, mask: Mask) -> NoReturn:
    code, detail = answer.refusal or ("", "")
    match code:
        case "nothing_to_commit":
            raise NothingToCommit("There is nothing to commit.")
        case "nothing_to_amend":
            raise NothingToCommit("There is no commit yet that could be changed.")
        case "commit_refused":
            said = mask(shown(answer.part("said").output)).strip()
            raise damage(said) or CommitRefused("The commit was refused.", details=said or None)
        case "git_failed":
            said = mask(shown(answer.part("said").output)).strip()
            raise damage(said) or GitFailed("git could not commit.", details=said or None)
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
            return _conflicts(names(answer.part("conflicts").output, MAX_CONFLICTS))
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
        answer={"files": [shown(one) for one in files[:MAX_CONFLICTS]]},
    )
