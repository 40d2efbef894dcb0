"""Repairs of sessions' worktrees, on request."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.environments.service import Environment
from craftastic.errors import InvalidInput
from craftastic.runtimes.base import SandboxGone
from craftastic.sessions._model import Session, SessionStatus
from craftastic.sessions._trail import record
from craftastic.sessions.service import SessionService


class NoWorktree(InvalidInput):
    """The session's environment has no repository, so the session has no worktree."""

    code = "NO_WORKTREE"


@dataclass(frozen=True, slots=True)
class SessionRepairs:
    """Repairs worktrees of sessions."""

    sessions: SessionService

    async def repair(self, owner: UserId, session_id: UUID) -> Sequence[str]:
        """Make a session's worktree whole again, and say what was done.

        One that is gone is made again from its branch, one that git does not know is linked again
        with the files that are in it, and what stands in its way is set aside. Whatever is cut
        short is done by the next repair, or when the session's terminal is opened.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
            NoWorktree: It never has one.
            EnvironmentInError, EnvironmentNotReady, CloneFailed: The environment cannot be used.
            RepositoryMissing, RepositoryCorrupt: The environment is what needs the repair.
            BranchInUseElsewhere: Another folder has its branch checked out.
            WorktreeRefused, RepositoryBusy: git would not.
            SandboxExhausted, RuntimeUnavailable: The sandbox could not be asked.
        """
        session, environment = await self.sessions.get_owned(owner, session_id)
        if session.branch is None:
            raise NoWorktree("Session has no git worktree")
        environments = self.sessions.environments
        environment = await environments.ready(owner, environment.id)
        async with environments.database.begin() as tx:
            await record(environments.audit, tx, "session.repair", owner, session)
        try:
            return await self._repair(owner, session, session.branch, environment)
        except SandboxGone:
            await environments.ensure_running(environment)
        environment = await environments.ready(owner, environment.id)
        return await self._repair(owner, session, session.branch, environment)

    async def _repair(
        self, owner: UserId, session: Session, branch: str, environment: Environment
    ) -> Sequence[str]:
        worktrees = self.sessions.worktrees
        async with self.sessions.environments.exclusive(environment.id):
            done = await worktrees.repairs.mend(environment.sandbox, environment.id, branch)
            if session.status is SessionStatus.DEAD:
                await worktrees.ensure(
                    environment.sandbox, environment.id, branch, environment.branch
                )
                return done
        await self.sessions.revive(owner, session.id)
        return done
