"""Fetch and pull. A pull works out its result apart and then moves the worktree there, or not."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import anyio

from craftastic.errors import CraftasticError
from craftastic.git._committing import refusal_of_worktree
from craftastic.git._names import shown
from craftastic.git._porcelain import Records, names
from craftastic.git._pushing import network_failure
from craftastic.git._refusals import (
    GitFailed,
    HooksTooSlow,
    NotOnBranch,
    NoUpstream,
    PullConflict,
    PullDiverged,
    UncommittedChanges,
)
from craftastic.git._scripts import OUT_OF_TIME, Answer, Place, damage, only_branch, values
from craftastic.worktrees.service import worktrees_path

FETCH_S = 600
COMBINE_S = 120
MOVE_S = 120
MAX_LISTED = 1000
MAX_COMPARED = 100_000
MAX_REFS = 20_000
"""As many as the script asks git for."""

Mask = Callable[[str], str]


class PullMode(StrEnum):
    FF_ONLY = "ff-only"
    REBASE = "rebase"


@dataclass(frozen=True, slots=True)
class RefMove:
    """A branch of the remote, before and after; None for not there."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought, and how the worktree's branch stands to its upstream now."""

    branch: str | None
    upstream: str | None
    ahead: int
    behind: int
    updates: Sequence[RefMove]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pull that ended well.

    Args:
        before: Commit that the branch was at, None when it had none.
        commits: How many of the upstream's came in.
    """

    branch: str
    upstream: str
    before: str | None
    after: str
    commits: int


async def fetch(place: Place, mask: Mask) -> Fetched:
    """Bring the remote's branches here, through the gateway; no branch of the person's moves.

    Raises:
        GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable, HooksTooSlow: As
            named.
    """
    answer = await place.run("fetch", str(FETCH_S), timeout_s=2 * FETCH_S + 60.0)
    status = values(answer, "status").get(0, 1)
    if status:
        said = mask(shown(answer.part("said").output))
        if status in OUT_OF_TIME:
            raise HooksTooSlow("The fetch took too long and was ended.")
        raise (
            damage(said)
            or network_failure(said)
            or GitFailed("git could not fetch.", details=said.strip()[-2000:] or None)
        )
    counts = values(answer, "counts")
    before, after = (answer.part(name).output for name in ("before", "after"))
    updates = await place.reading.run(answer.size("before", "after"), lambda: moves(before, after))
    return Fetched(
        branch=only_branch(answer.fields.get("branch", "")),
        upstream=answer.fields.get("upstream", "").removeprefix("refs/remotes/") or None,
        ahead=counts.get(0, 0),
        behind=counts.get(1, 0),
        updates=updates,
    )


def moves(before: bytes, after: bytes) -> list[RefMove]:
    """Return which refs differ between two lists of `hash ref` lines."""
    old, new = _refs(before), _refs(after)
    changed = sorted(ref for ref in old.keys() | new.keys() if old.get(ref) != new.get(ref))
    return [RefMove(shown(ref), old.get(ref), new.get(ref)) for ref in changed[:MAX_LISTED]]


def _refs(raw: bytes) -> dict[bytes, str]:
    pairs = (line.partition(b" ") for line in Records(raw, MAX_REFS, b"\n"))
    return {ref: shown(commit) for commit, separator, ref in pairs if separator}


async def pull(place: Place, mode: PullMode, identity: tuple[str, str], mask: Mask) -> Pulled:
    """Bring the branch up to date with its upstream.

    The result is worked out where nobody looks. Only the last step touches branch, index and files;
    git checks everything before it writes, and cancellation waits for it. After any failure, and
    after a cancellation before it, all three are as they were.

    Raises:
        NotOnBranch, NoUpstream, OperationRunning, MergeConflicts: It cannot be pulled into.
        PullDiverged, PullConflict, UncommittedChanges, BranchMoved, GitLocked: As named.
        GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable, HooksTooSlow: See
            `fetch`.
    """
    await fetch(place, mask)
    answer = await place.run(
        "combine",
        worktrees_path(place.environment.id),
        mode.value,
        secrets.token_hex(8),
        *identity,
        str(COMBINE_S),
        timeout_s=COMBINE_S + 60.0,
    )
    if answer.refusal is not None:
        raise _not_combined(answer, mask)
    before, after = answer.fields.get("before", ""), answer.fields.get("after", "")
    head = answer.fields.get("branch", "")
    if after != before:
        await _move(place, head, before, after, mode)
    return Pulled(
        branch=only_branch(head) or "",
        upstream=answer.fields.get("upstream", "").removeprefix("refs/remotes/"),
        before=before or None,
        after=after,
        commits=values(answer, "commits").get(0, 0),
    )


async def _move(place: Place, head: str, before: str, after: str, mode: PullMode) -> None:
    with anyio.CancelScope(shield=True):
        answer = await place.run("move", head, before, after, mode.value, timeout_s=MOVE_S)
        if answer.refusal is not None:
            size = answer.size("way", "theirs", "mine")
            raise await place.reading.run(size, lambda: _not_moved(answer))


def _not_combined(answer: Answer, mask: Mask) -> CraftasticError:
    code, detail = answer.refusal or ("", "")
    match code:
        case "no_branch":
            return NotOnBranch("The worktree is on no branch.", details="Switch to one first.")
        case "no_upstream":
            return NoUpstream(
                f"There is no branch '{detail}' on the remote yet.", details="Push it first."
            )
        case "pull_diverged":
            ahead = values(answer, "ahead").get(0, 0)
            behind = values(answer, "commits").get(0, 0)
            return PullDiverged(
                "The branch and its upstream have commits of their own each.",
                details='Pull with mode "rebase", or merge in a terminal.',
                answer={"ahead": ahead, "behind": behind},
            )
        case "pull_conflict":
            files = names(answer.part("conflicts").output, MAX_LISTED)
            return PullConflict(
                "The branch's commits do not fit on its upstream's; nothing was changed.",
                details="Rebase or merge in a terminal, where the conflicts can be solved.",
                answer={"files": [shown(one) for one in files]},
            )
        case "rebase_failed":
            said = mask(shown(answer.part("said").output)).strip()
            return damage(said) or GitFailed(
                "git could not rebase the branch.", details=said or None
            )
        case _:
            return refusal_of_worktree(answer, code, detail)


def _not_moved(answer: Answer) -> CraftasticError:
    code, detail = answer.refusal or ("", "")
    if code != "uncommitted_changes":
        return refusal_of_worktree(answer, code, detail)
    way, theirs, mine = (
        set(names(answer.part(one).output, MAX_COMPARED)) for one in ("way", "theirs", "mine")
    )
    files = sorted(way | (theirs & mine))
    return UncommittedChanges(
        "Changes that are not committed would be overwritten; nothing was changed.",
        details="Commit them first, or put them aside with git stash.",
        answer={"files": [shown(one) for one in files[:MAX_LISTED]]},
    )
