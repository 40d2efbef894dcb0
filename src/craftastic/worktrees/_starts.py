"""What a new branch begins from, when it is not the environment's branch."""

import re
from dataclasses import dataclass
from enum import StrEnum

from craftastic.errors import Conflict, InvalidInput, NotFound, Unavailable
from craftastic.worktrees._branches import check_branch

MAX_PULL_REQUEST = 2**31 - 1
COMMIT = re.compile(r"[0-9a-f]{7,64}")


class BadBase(InvalidInput):
    """What a branch shall begin from is said in a way that can never be right."""

    code = "BASE_INVALID"


class BaseNotFound(NotFound):
    """The repository has no such branch, commit or pull request."""

    code = "BASE_NOT_FOUND"


class BaseAmbiguous(Conflict):
    """More than one commit begins with the characters given."""

    code = "BASE_AMBIGUOUS"


class BaseUnreachable(Unavailable):
    """What to begin from is not in the clone, and the repository's server did not answer."""

    code = "BASE_UNREACHABLE"


class BranchExists(Conflict):
    """The branch is there already and stands elsewhere; a branch is never moved."""

    code = "BRANCH_EXISTS"


class StartKind(StrEnum):
    BRANCH = "branch"
    COMMIT = "commit"
    PULL_REQUEST = "pull"


@dataclass(frozen=True, slots=True)
class Start:
    """What a new branch begins from.

    Args:
        ref: A branch's name, the beginning of a commit's id, or a pull request's number.
        commit: Where that was when the branch was made; None until it was.
    """

    kind: StartKind
    ref: str
    commit: str | None = None


def start_of(branch: str | None, commit: str | None, pull_request: int | None) -> Start | None:
    """Return what was asked for, None when nothing was.

    Raises:
        BadBase: More than one base was named, or the commit's id is none.
        BadBranchName: The base branch's name is not allowed.
    """
    if sum(one is not None for one in (branch, commit, pull_request)) > 1:
        raise BadBase(
            "Name one base only: a branch (baseBranch), a commit (baseCommit), "
            "or a pull request (pullRequest)."
        )
    if branch is not None:
        return Start(StartKind.BRANCH, check_branch(branch))
    if commit is not None:
        if COMMIT.fullmatch(commit.lower()) is None:
            raise BadBase("A commit is named by at least 7 hexadecimal digits of its id.")
        return Start(StartKind.COMMIT, commit.lower())
    if pull_request is not None:
        if not 1 <= pull_request <= MAX_PULL_REQUEST:
            raise BadBase(f"A pull request's number is from 1 to {MAX_PULL_REQUEST}.")
        return Start(StartKind.PULL_REQUEST, str(pull_request))
    return None
