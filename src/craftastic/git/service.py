"""git for people: review, commit, push and pull of a session's worktree.

All of it runs in the sandbox, as its user, by constant scripts (`scripts/`). What only looks runs
no hook and no monitor or external diff of the repository's configuration; commits and pushes run
the hooks that people expect. Every answer is hostile bytes, bounded in size and time.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.database import Transaction
from craftastic.environments.service import CloneStatus, Environment, EnvironmentService
from craftastic.errors import CraftasticError
from craftastic.events.service import EventLog
from craftastic.git import _committing, _looking, _pulling, _pushing
from craftastic.git._committing import Committed, CommitWish, check_message
from craftastic.git._looking import Branch, Branches, Diff, Log, Repository, WorktreeStatus
from craftastic.git._names import (
    check_commit_id,
    check_identity,
    chosen_name,
    chosen_names,
    exact,
    shown,
)
from craftastic.git._porcelain import ChangedFile, Commit, Counts, StatusFile
from craftastic.git._pulling import Fetched, Pulled, PullMode, RefMove
from craftastic.git._pushing import Pushed, Pushes, PushWish, SeenUpdate
from craftastic.git._refusals import BadIdentity, BadRemote, NoWorktree
from craftastic.git._scripts import LOOKING_S, Masker, Place
from craftastic.git._turns import Reading, Turns
from craftastic.runtimes.base import Runtime
from craftastic.sessions.service import Session, SessionService, SessionStatus
from craftastic.worktrees.service import WorktreeService, check_branch

__all__ = [
    "Branch",
    "Branches",
    "ChangedFile",
    "Commit",
    "Committed",
    "Counts",
    "Diff",
    "Fetched",
    "GitService",
    "Log",
    "Masker",
    "NewCommit",
    "NewPush",
    "PullMode",
    "Pulled",
    "Pushed",
    "RefMove",
    "Repository",
    "SeenUpdate",
    "StatusFile",
    "WorktreeStatus",
    "exact",
    "shown",
]

ORIGIN = "origin"
AUDIT_TIMEOUT_S = 5.0

LOOKING_AT_ONCE = {"per_environment": 4, "per_user": 8}
CHANGING_AT_ONCE = {"per_environment": 8, "per_user": 16}
"""Of their own, as hooks may take long; what they print is short."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _NoMasker:
    def mask_text(self, text: str) -> str:
        """Return the text: there is nothing to hide."""
        return text

    def mask_bytes(self, raw: bytes) -> bytes:
        """Return the bytes: there is nothing to hide."""
        return raw


async def _no_masker(_owner: UUID, _environment_id: UUID) -> Masker:
    return _NoMasker()


FindProfile = Callable[[UUID], Awaitable[tuple[str, str] | None]]
MaskerFor = Callable[[UUID, UUID], Awaitable[Masker]]


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit as it was asked for; see `GitService.commit`."""

    message: str
    files: Sequence[str] | None = None
    filenames_base64: Sequence[str] | None = None
    staged: bool = False
    amend: bool = False
    no_verify: bool = False
    expected_sha: str | None = None


@dataclass(frozen=True, slots=True)
class NewPush:
    """A push as it was asked for; see `GitService.push`."""

    remote: str = ORIGIN
    branch: str | None = None
    expected_sha: str | None = None
    force: bool = False
    set_upstream: bool = True
    no_verify: bool = False


@dataclass(frozen=True, slots=True)
class GitService:
    """git in the worktrees of sessions.

    A sandbox that does not run is not started by any of it: `SandboxGone` and `EnvironmentStopped`
    say how to. Besides what its docstring names, every method raises `SessionNotFound` or
    `EnvironmentNotFound` for what is absent or somebody else's, `GitBusy` when too much runs
    already, and the errors of `Place.run`.

    Args:
        pushes: The gateway's record of pushes.
        find_profile: A user's name and e-mail address, for commits.
        masker_for: Hides what the variables of an owner and an environment keep secret.
        looking_s: How long what only looks may take, in seconds; then it is cut, and says so.
        looking: How much of what only looks runs at once.
        changing: How many commits, pushes and pulls do.
        reading: Reads what git printed.
    """

    sessions: SessionService
    environments: EnvironmentService
    worktrees: WorktreeService
    runtimes: Mapping[str, Runtime]
    pushes: Pushes
    audit: AuditService
    find_profile: FindProfile
    masker_for: MaskerFor = _no_masker
    looking_s: int = LOOKING_S
    looking: Turns = field(default_factory=lambda: Turns(**LOOKING_AT_ONCE))
    changing: Turns = field(default_factory=lambda: Turns(**CHANGING_AT_ONCE))
    reading: Reading = field(default_factory=Reading)

    async def status(self, owner: UserId, session_id: UUID) -> WorktreeStatus:
        """Read the state of a session's worktree.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
        """
        async with self._worktree(owner, session_id, self.looking) as (_, place):
            return await _looking.status(place)

    async def diff(
        self,
        owner: UserId,
        session_id: UUID,
        *,
        file: str | None = None,
        file_base64: str | None = None,
        staged: bool = False,
        base: str | None = None,
    ) -> Diff:
        """Compare the working tree with the index (new files too), or what is staged with HEAD.

        With a base: everything since this branch and the base had their last commit in common.
        Secrets of the session's variables are replaced.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            BadFileName, BadRef, RefNotFound, NoCommonCommit: As named.
        """
        name = chosen_name(file, file_base64)
        async with self._worktree(owner, session_id, self.looking) as (_, place):
            mask = (await place.find_masker()).mask_bytes
            return await _looking.diff(place, name, mask, staged=staged, base=base)

    async def log(
        self,
        owner: UserId,
        session_id: UUID,
        *,
        ref: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> Log:
        """List commits of the session's branch, or of another branch or commit, newest first.

        Secrets of the session's variables are replaced.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            BadRef, RefNotFound: As named.
        """
        async with self._worktree(owner, session_id, self.looking) as (_, place):
            mask = (await place.find_masker()).mask_bytes
            return await _looking.log(place, ref, mask, limit=limit, offset=offset)

    async def commit(self, owner: UserId, session_id: UUID, wish: NewCommit) -> Committed:
        """Commit everything, or exactly the named files, or what is staged, as the owner.

        The repository's hooks run, unless `no_verify`. After a refusal everything is as before.
        With `expected_sha` only if that is the commit that the branch is at.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            BadCommitMessage, BadCommitId, BadFileName, BadIdentity: As named.
            NothingToCommit, BranchMoved, MergeConflicts, OperationRunning, CommitRefused: As named.
            GitLocked, HooksTooSlow: As named.
        """
        message = check_message(wish.message)
        files = None
        if wish.files or wish.filenames_base64:
            files = chosen_names(wish.files or (), wish.filenames_base64 or ())
        expected = check_commit_id(wish.expected_sha)
        async with self._worktree(owner, session_id, self.changing) as (session, place):
            checked = CommitWish(
                message=message,
                identity=await self._identity(owner),
                files=files,
                staged=wish.staged and files is None,
                amend=wish.amend,
                no_verify=wish.no_verify,
                expected=expected,
            )
            masker = await place.find_masker()
            details: dict[str, object] = {"branch": session.branch, "amend": wish.amend}
            try:
                made = await _committing.commit(place, checked, masker.mask_text)
            except CraftasticError as error:
                await self._record("git.commit", owner, session, details, error)
                raise
            details |= {"branch": made.branch, "commit": made.commit, "files": made.files_changed}
            await self._record("git.commit", owner, session, details)
            return made

    async def push(self, owner: UserId, session_id: UUID, wish: NewPush) -> Pushed:
        """Push the session's branch, or another one, to the remote's branch of the same name.

        What the gateway saw decides whether it worked. Nothing is ever deleted.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            BadRemote, BadBranchName, BadCommitId, BranchMissing, BranchMoved: As named.
            PushRejected, PushNotAllowed, UpstreamRejected, PushHookRefused, PushNotSeen: As named.
            GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable: As named.
            PushUnconfirmed, HooksTooSlow: As named.
        """
        if wish.remote != ORIGIN:
            raise BadRemote("Only the remote 'origin' can be pushed to.")
        expected = check_commit_id(wish.expected_sha)
        async with self._worktree(owner, session_id, self.changing) as (session, place):
            branch = check_branch(wish.branch or session.branch or "")
            checked = PushWish(
                branch=branch,
                expected=expected,
                force=wish.force,
                set_upstream=wish.set_upstream,
                no_verify=wish.no_verify,
            )
            mask = (await place.find_masker()).mask_text
            url = self.worktrees.remote_url(session.environment_id)
            details: dict[str, object] = {"branch": branch, "force": wish.force}
            try:
                pushed = await _pushing.push(place, checked, url, self.pushes, mask)
            except CraftasticError as error:
                await self._record("git.push_requested", owner, session, details, error)
                raise
            seen = [f"{one.ref} {one.old} {one.new} {one.outcome}" for one in pushed.updates[:20]]
            details |= {"commit": pushed.commit, "updates": seen}
            await self._record("git.push_requested", owner, session, details)
            return pushed

    async def fetch(self, owner: UserId, session_id: UUID) -> Fetched:
        """Bring the remote's branches into the repository; no branch of the owner's moves.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable: As named.
        """
        async with self._worktree(owner, session_id, self.changing) as (session, place):
            fetched = await _pulling.fetch(place, (await place.find_masker()).mask_text)
        await self._tell(owner, session)
        return fetched

    async def pull(self, owner: UserId, session_id: UUID, mode: PullMode) -> Pulled:
        """Fetch, and bring the worktree's branch up to date with its upstream, or change nothing.

        Raises:
            NoWorktree, WorktreeMissing: It has none, or none any more.
            Conflict: See `_pulling.pull`: it says which case, and what helps.
            GitAuthenticationRequired, UpstreamRefusesAccess, UpstreamUnavailable: As named.
        """
        async with self._worktree(owner, session_id, self.changing) as (session, place):
            masker = await place.find_masker()
            rebase = mode is PullMode.REBASE
            identity = await self._identity(owner) if rebase else ("", "")
            pulled = await _pulling.pull(place, mode, identity, masker.mask_text)
        await self._tell(owner, session)
        return pulled

    async def branches(self, owner: UserId, environment_id: UUID) -> Branches:
        """List the branches of an environment's repository, with the sessions that are on them.

        Secrets of the environment's variables are replaced.

        Raises:
            RepositoryNotFound: It has none, or it is not cloned yet.
        """
        async with self._repository(owner, environment_id) as (_, place):
            found = await _looking.branches(place, (await place.find_masker()).mask_bytes)
        sessions = await self.sessions.list_owned(owner, environment_id)
        living = {
            one.branch: one.id
            for one in sessions
            if one.branch is not None and one.status is not SessionStatus.DEAD
        }
        return _looking.with_sessions(found, living)

    async def repository(self, owner: UserId, environment_id: UUID) -> Repository:
        """Tell of an environment's repository.

        Raises:
            RepositoryNotFound: It has none, or it is not cloned yet.
        """
        async with self._repository(owner, environment_id) as (environment, place):
            return _looking.repository(environment, await _looking.branches(place))

    @asynccontextmanager
    async def _worktree(
        self, owner: UserId, session_id: UUID, turns: Turns
    ) -> AsyncGenerator[tuple[Session, Place]]:
        session, environment = await self.sessions.get_owned(owner, session_id)
        if session.branch is None:
            raise NoWorktree("Session has no git worktree")
        async with turns.take(environment.id, owner):
            yield session, self._place(owner, environment, session.branch)

    @asynccontextmanager
    async def _repository(
        self, owner: UserId, environment_id: UUID
    ) -> AsyncGenerator[tuple[Environment, Place]]:
        environment = await self.environments.get_owned(owner, environment_id)
        if environment.repository_url is None or environment.clone_status is not CloneStatus.READY:
            raise _looking.no_repository()
        async with self.looking.take(environment.id, owner):
            yield environment, self._place(owner, environment, None)

    def _place(self, owner: UserId, environment: Environment, branch: str | None) -> Place:
        return Place(
            runtime=self.runtimes[environment.runtime],
            environment=environment,
            reading=self.reading,
            find_masker=partial(self.masker_for, owner, environment.id),
            branch=branch,
            looking_s=self.looking_s,
        )

    async def _identity(self, owner: UserId) -> tuple[str, str]:
        profile = await self.find_profile(owner)
        if profile is None:
            raise BadIdentity("Your account has no name and e-mail address to commit with.")
        return check_identity(*profile)

    async def _record(
        self,
        action: str,
        owner: UserId,
        session: Session,
        details: Mapping[str, object],
        error: CraftasticError | None = None,
    ) -> None:
        """Append to the audit log; what git has done already is told even when that fails."""
        with anyio.move_on_after(AUDIT_TIMEOUT_S, shield=True):
            try:
                async with self.audit.database.begin() as tx:
                    if error is None:
                        _tell_changed(tx, owner, session)
                    await self.audit.record(
                        action,
                        actor_id=owner,
                        object_type="session",
                        object_id=session.id,
                        outcome="ok" if error is None else error.code,
                        details={"environment": str(session.environment_id), **details},
                        tx=tx,
                    )
            except CraftasticError as failure:
                log.warning("not audited", action=action, reason=failure.message)

    async def _tell(self, owner: UserId, session: Session) -> None:
        """Tell the owner's pages that there is something new; git has done it already."""
        with anyio.move_on_after(AUDIT_TIMEOUT_S, shield=True):
            try:
                async with self.audit.database.begin() as tx:
                    _tell_changed(tx, owner, session)
            except CraftasticError as failure:
                log.warning("not told", session=str(session.id), reason=failure.message)


def _tell_changed(tx: Transaction, owner: UserId, session: Session) -> None:
    EventLog(tx).add(
        owner,
        "git.changed",
        session.id,
        environment_id=session.environment_id,
        session_id=session.id,
    )
