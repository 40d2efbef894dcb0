"""What an environment may push, by its policy. Pure: what it depends on is given."""

from collections.abc import Collection, Sequence

from craftastic.environments.service import PushPolicy
from craftastic.pushes._model import PushIntent, RefUpdate

MAX_REFS = 300
"""Refs of one push: each of them is named in the audit log."""

BRANCHES = "refs/heads/"
TAGS = "refs/tags/"
OURS = "refs/craftastic"

_ALLOWED = "this environment allows pushes to its sessions' branches and to new branches; "


def branch_of(ref: str) -> str | None:
    """Return the name of the branch that a ref is, None for a ref of another kind."""
    return ref.removeprefix(BRANCHES) if ref.startswith(BRANCHES) else None


def moved_branches(updates: Sequence[RefUpdate]) -> set[str]:
    """Return the branches that a push moves or deletes, so that must be known to be allowed."""
    names = (branch_of(update.ref) for update in updates if not update.creates)
    return {name for name in names if name is not None}


def refusals(
    policy: PushPolicy, intent: PushIntent, known_branches: Collection[str]
) -> dict[str, str]:
    """Return why each refused ref is refused; empty when the push may go on.

    Args:
        policy: The environment's.
        intent: The push.
        known_branches: Those of its sessions, and those that it made itself.
    """
    if (reason := _reason_of_whole(policy, intent)) is not None:
        return {update.ref: reason for update in intent.updates}
    reasons = ((update.ref, _reason(policy, update, known_branches)) for update in intent.updates)
    return {ref: reason for ref, reason in reasons if reason is not None}


def _reason_of_whole(policy: PushPolicy, intent: PushIntent) -> str | None:
    if len(intent.updates) > MAX_REFS:
        return f"a push may have {MAX_REFS} refs; push fewer of them at once"
    # An option can make a repository public, or merge what was pushed: as much as any ref can.
    if intent.options and policy is not PushPolicy.ANY:
        return "this environment allows no push options; change its push policy to use them"
    return None


def _reason(policy: PushPolicy, update: RefUpdate, known: Collection[str]) -> str | None:
    if not _is_plain(update.ref):
        return "this is not the name of a ref that can be pushed"
    if _is_ours(update.ref):
        return "refs/craftastic is for this environment's own use and is not pushed"
    if policy is PushPolicy.NONE:
        return "this environment allows no pushes; change its push policy to push from it"
    if policy is PushPolicy.ANY:
        return None
    return _reason_of_sessions(update, known)


def _reason_of_sessions(update: RefUpdate, known: Collection[str]) -> str | None:
    branch = branch_of(update.ref)
    if branch is None:
        kind = "tags" if update.ref.startswith(TAGS) else "refs that are not branches"
        return f"{_ALLOWED}change its push policy to push {kind}"
    if update.deletes:
        return f"{_ALLOWED}change its push policy to delete branches"
    if update.creates or branch in known:
        return None
    return f"{_ALLOWED}start a session on this branch, or change its push policy, to push to it"


def _is_plain(ref: str) -> bool:
    # git's own servers refuse these too; what stands behind a URL may be something else, and a
    # name that it reads differently than this does must not get past the rules above.
    parts = ref.split("/")
    return (
        parts[0] == "refs"
        and len(parts) > 1
        and all(
            part and not part.startswith((".", "-")) and ".." not in part and part != "@"
            for part in parts
        )
    )


def _is_ours(ref: str) -> bool:
    folded = ref.casefold()
    return folded == OURS or folded.startswith(f"{OURS}/")
