"""Pushes: what git says of one, what the gateway saw of it, and what that means."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from craftastic.errors import CraftasticError
from craftastic.git._committing import refusal_of_worktree
from craftastic.git._names import shown
from craftastic.git._porcelain import PushedRef, parse_push
from craftastic.git._refusals import (
    BranchMissing,
    GitAuthenticationRequired,
    PushHookRefused,
    PushNotAllowed,
    PushNotSeen,
    PushRejected,
    PushUnconfirmed,
    UpstreamRefusesAccess,
    UpstreamRejected,
    UpstreamUnavailable,
)
from craftastic.git._scripts import OUT_OF_TIME, Answer, Place, values
from craftastic.githosts.service import asks_for_account

PUSH_S = 600
HEADER = "X-Craftastic-Push"
PULL_FIRST = "Pull first: that brings in the commits that are only there."

_MOVED = re.compile(
    r"fetch first|non-fast-forward|stale info|cannot lock ref|failed to update ref"
    r"|incorrect old value|but expected|needs force"
)
_STATUS = re.compile(r"(?:returned error: |HTTP )(\d{3})\b")
_REMOTE = re.compile(r"^remote: *(.*)$", re.MULTILINE)
_NOT_FOUND = re.compile(r"^fatal: repository '.*' not found", re.MULTILINE)
_CLIENT_ERROR, _SLOW_DOWN, _SERVER_ERROR = 400, 429, 500

Mask = Callable[[str], str]


class SeenUpdate(Protocol):
    """One ref of a push as the gateway saw it."""

    @property
    def ref(self) -> str: ...
    @property
    def old(self) -> str: ...
    @property
    def new(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str | None: ...


class Pushes(Protocol):
    """What pushing needs of the record of pushes; `pushes.service.PushService` is it."""

    async def seen(self, environment_id: UUID, push_id: str) -> Sequence[SeenUpdate]:
        """Return what the gateway saw of the push that carried this id; empty for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class PushWish:
    """What to push: a branch to the remote's branch of the same name.

    Args:
        expected: Whole hash that the branch must be at, and that is pushed; empty for any.
        force: Overwrite the remote's branch if it is as it was last seen.
    """

    branch: str
    expected: str = ""
    force: bool = False
    set_upstream: bool = True
    no_verify: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push that ended well; without `updates` the remote had everything already."""

    branch: str
    commit: str
    updates: Sequence[SeenUpdate]
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """All that is known of one push."""

    branch: str
    commit: str
    status: int
    stdout: str
    stderr: str
    seen: Sequence[SeenUpdate]

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def said(self) -> PushedRef | None:
        return next((one for one in parse_push(self.stdout) if one.ref == self.ref), None)

    @property
    def arrived(self) -> SeenUpdate | None:
        ours = (one for one in self.seen if (one.ref, one.new) == (self.ref, self.commit))
        return next(ours, None)


async def push(place: Place, wish: PushWish, remote_url: str, pushes: Pushes, mask: Mask) -> Pushed:
    """Push a branch through the gateway; what the gateway saw decides how it ended.

    Args:
        place: The worktree.
        wish: What to push.
        remote_url: What `origin` is in the sandbox.
        pushes: The gateway's record.
        mask: Hides secrets in what git and hooks print.

    Raises:
        BranchMissing, BranchMoved, PushRejected, PushNotAllowed, UpstreamRejected, PushHookRefused,
        GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable, PushUnconfirmed,
        PushNotSeen, HooksTooSlow: As named.
    """
    push_id = secrets.token_hex(16)
    answer = await place.run(
        "push",
        wish.branch,
        wish.expected,
        "lease" if wish.force else "plain",
        "follow" if wish.set_upstream else "leave",
        "no-verify" if wish.no_verify else "verify",
        str(PUSH_S),
        f"http.{_origin(remote_url)}.extraHeader",
        f"{HEADER}: {push_id}",
        timeout_s=PUSH_S + 60.0,
    )
    if answer.refusal is not None:
        raise _refusal(answer)
    attempt = Attempt(
        branch=wish.branch,
        commit=answer.fields.get("commit", ""),
        status=values(answer, "status").get(0, 1),
        stdout=mask(shown(answer.part("stdout").output)),
        stderr=mask(shown(answer.part("stderr").output)),
        seen=await pushes.seen(place.environment.id, push_id),
    )
    if (error := verdict(attempt)) is not None:
        raise error
    return Pushed(wish.branch, attempt.commit, attempt.seen, attempt.stdout, attempt.stderr)


def _origin(remote_url: str) -> str:
    # As specific as the setting with the sandbox's own token: a less specific one is not sent.
    scheme, _, rest = remote_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/"


def verdict(attempt: Attempt) -> CraftasticError | None:
    """Return how a push failed, None when it did not."""
    arrived = attempt.arrived
    if arrived is not None:
        return _seen(attempt, arrived)
    if (said := attempt.said) is not None:
        if said.flag == "=" and attempt.status == 0:
            return None
        if said.flag == "!" and said.why != "remote failure":
            return _rejected(said.reason or said.why or "")
    if attempt.status == 0:
        return PushNotSeen(
            "git pushed somewhere else than to the environment's repository.",
            details="Look at the remote 'origin' in a terminal: git remote -v",
        )
    if attempt.status in OUT_OF_TIME:
        return PushUnconfirmed("The push took too long and was ended; look whether it arrived.")
    return network_failure(attempt.stderr) or PushHookRefused(
        "git did not push.", details=attempt.stderr.strip()[-4000:] or None
    )


def _seen(attempt: Attempt, arrived: SeenUpdate) -> CraftasticError | None:
    reason = arrived.reason or ""
    match str(arrived.outcome):
        case "ok":
            return None
        case "refused":
            return PushNotAllowed(
                f"This environment may not push to {attempt.branch}.", details=reason or None
            )
        case "rejected":
            return _rejected(reason) if _MOVED.search(reason) else _upstream(attempt, reason)
        case _:
            return network_failure(attempt.stderr) or PushUnconfirmed(
                "The push did not get through, or nothing tells how it ended.",
                details=reason or None,
            )


def _upstream(attempt: Attempt, reason: str) -> UpstreamRejected:
    lines = "\n".join(line for line in _REMOTE.findall(attempt.stderr) if line.strip())
    details = f"{reason}\n{lines}".strip()
    return UpstreamRejected(
        f"The upstream refused {attempt.branch}: {reason or 'it did not say why'}"[:500],
        details=details[:4000] or None,
    )


def _rejected(reason: str) -> PushRejected:
    return PushRejected(
        "The branch has commits upstream that are not here.",
        details=f"{PULL_FIRST} ({reason})" if reason else PULL_FIRST,
    )


def network_failure(said: str) -> CraftasticError | None:
    """Return why a transfer did not work, from what git printed; None for another reason."""
    remote = " ".join(line.strip() for line in _REMOTE.findall(said) if line.strip())[:1000]
    if asks_for_account(said):
        return GitAuthenticationRequired("GitHub authentication required", details=remote or None)
    status = max((int(one) for one in _STATUS.findall(said)), default=0)
    if _NOT_FOUND.search(said):
        status = _CLIENT_ERROR
    if _CLIENT_ERROR <= status < _SERVER_ERROR and status != _SLOW_DOWN:
        return UpstreamRefusesAccess("The upstream refused.", details=remote or None)
    if status or "unable to access" in said or "early EOF" in said or "RPC failed" in said:
        return UpstreamUnavailable("The upstream did not answer.", details=remote or None)
    return None


def _refusal(answer: Answer) -> CraftasticError:
    code, detail = answer.refusal or ("", "")
    if code == "branch_missing":
        return BranchMissing(f"There is no branch '{detail}' here.")
    return refusal_of_worktree(answer, code, detail)
