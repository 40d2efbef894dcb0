"""Pushes: what git says of one, what the gateway saw of it, and what that means."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from craftastic.git._scripts import OUT_OF_TIME, Answer, Place, damage, values
from craftastic.githosts.service import asks_for_account

PUSH_S = 600
MARGIN_S = 60.0
"""How much longer than git's own time a push may take in all, in seconds."""
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

    async def advertised(self, environment_id: UUID, push_id: str) -> Mapping[str, str] | None:
        """Return the upstream's refs with their hashes, as the push with this id was told them.

        None when the gateway saw no such request.
        """
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
    """All that is known of one push.

    Args:
        branch: What was to be pushed.
        commit: What the branch was at before; empty when nobody told.
        status: How git ended.
        stdout: What git printed.
        stderr: What git and hooks printed.
        seen: What the gateway saw arrive.
        after: What the branch was at afterwards.
        exact: The commit itself was pushed; otherwise what the branch was at when git read it.
        advertised: The upstream's refs as git was told them, where it says that it has all of it
            already; None when git did not ask there.
    """

    branch: str
    commit: str
    status: int
    stdout: str
    stderr: str
    seen: Sequence[SeenUpdate]
    after: str = ""
    exact: bool = True
    advertised: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def said(self) -> PushedRef | None:
        return next((one for one in parse_push(self.stdout) if one.ref == self.ref), None)

    @property
    def arrived(self) -> SeenUpdate | None:
        ours = [one for one in self.seen if one.ref == self.ref]
        same = [one for one in ours if one.new == self.commit]
        found = same if same or self.exact else ours
        ok = (one for one in found if str(one.outcome) == "ok")
        return next(ok, found[-1] if found else None)

    @property
    def there(self) -> str | None:
        """The commit that the upstream itself says the branch is at, if it is the pushed one."""
        commit = (self.advertised or {}).get(self.ref)
        pushed = {self.commit} if self.exact else {self.commit, self.after}
        return commit if commit and commit in pushed else None


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
    answer, failure = Answer(), None
    try:
        answer = await _run(place, wish, remote_url, push_id)
    except CraftasticError as error:
        failure = error  # what has arrived has arrived
    if answer.refusal is not None:
        raise _refusal(answer)
    commit = answer.fields.get("commit", wish.expected)
    attempt = Attempt(
        branch=wish.branch,
        commit=commit,
        status=values(answer, "status").get(0, 1),
        stdout=mask(shown(answer.part("stdout").output)),
        stderr=mask(shown(answer.part("stderr").output)),
        seen=await pushes.seen(place.environment.id, push_id),
        after=answer.fields.get("after", ""),
        exact=bool(wish.expected or (commit and not wish.set_upstream)),
    )
    if attempt.said is not None and attempt.said.flag == "=":
        told = await pushes.advertised(place.environment.id, push_id)
        attempt = replace(attempt, advertised=told)
    arrived = attempt.arrived
    if failure is not None and arrived is None:
        raise failure
    if (error := verdict(attempt)) is not None:
        raise error
    there = arrived.new if arrived is not None else attempt.there or commit
    return Pushed(wish.branch, there, attempt.seen, attempt.stdout, attempt.stderr)


async def _run(place: Place, wish: PushWish, remote_url: str, push_id: str) -> Answer:
    return await place.run(
        "push",
        wish.branch,
        wish.expected,
        "lease" if wish.force else "plain",
        "follow" if wish.set_upstream else "leave",
        "no-verify" if wish.no_verify else "verify",
        str(PUSH_S),
        f"http.{_origin(remote_url)}.extraHeader",
        f"{HEADER}: {push_id}",
        timeout_s=PUSH_S + MARGIN_S,
    )


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
        if said.flag == "=" and attempt.status == 0 and attempt.there is not None:
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
    failure = damage(attempt.stderr) or network_failure(attempt.stderr)
    return failure or PushHookRefused(
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
            # git does not show what the gateway says to the push itself.
            said = f"{attempt.stderr}\nremote: {reason}" if reason else attempt.stderr
            return network_failure(said) or PushUnconfirmed(
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
