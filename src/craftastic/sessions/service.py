"""Sessions: a named place to work, with a tmux session and, on a repository, a worktree.

The row is committed first; making the worktree and the tmux session is one step that may be
repeated, by the request, by an attach, or by the reconciler after a crash.
"""

import contextlib
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.agents.service import AgentNotFound
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.environments.service import (
    Environment,
    EnvironmentService,
    EnvironmentStatus,
    check_name,
)
from craftastic.errors import CraftasticError, InvalidInput, NotFound
from craftastic.runtimes.base import SandboxGone, SandboxRef
from craftastic.sessions._answers import Deletion, LiveStatus
from craftastic.sessions._availability import (
    Availability,
    BranchInUse,
    SessionNameTaken,
    TooManySessions,
    branch_availability,
    name_availability,
    refuse_name,
    refuse_taken,
    tmux_name,
)
from craftastic.sessions._begin import NOTHING_MADE, branch_of
from craftastic.sessions._jobs import (
    CommandNotFound,
    CommandState,
    CommandStates,
    SessionJobs,
    SetupNotDefined,
    SetupState,
)
from craftastic.sessions._lists import SessionLists
from craftastic.sessions._model import (
    AgentState,
    AgentStatus,
    Session,
    SessionStatus,
    SessionType,
)
from craftastic.sessions._preparation import (
    Mask,
    Teardown,
    Variables,
    no_mask,
    no_variables,
)
from craftastic.sessions._prompt import BadPrompt, WithAgent, check_prompt
from craftastic.sessions._repository import (
    Counts,
    NewSession,
    SessionNotFound,
    SessionRepository,
    UniquenessLost,
    nothing_to_delete,
)
from craftastic.sessions._steps import SANDBOX_ENDED, TMUX_GONE, Launcher, Steps, Tmux
from craftastic.sessions._trail import record
from craftastic.sessions._viewers import ViewerRepository
from craftastic.worktrees.service import (
    WORKSPACE,
    RepositoryMissing,
    Start,
    WorktreeService,
    branch_key,
    check_branch,
    worktree_path,
)

__all__ = [
    "AgentNotFound",
    "AgentState",
    "AgentStatus",
    "BadPrompt",
    "BranchInUse",
    "CommandNotFound",
    "CommandState",
    "CommandStates",
    "Counts",
    "Deletion",
    "LiveStatus",
    "Session",
    "SessionJobs",
    "SessionLists",
    "SessionNameTaken",
    "SessionNotFound",
    "SessionService",
    "SessionStatus",
    "SessionType",
    "SetupNotDefined",
    "SetupState",
    "Teardown",
    "TooManySessions",
    "WithAgent",
    "nothing_to_delete",
]

MAX_NAME_CHARACTERS = 200
MAX_STRAYS = 100
"""Most tmux sessions that one request ends: the names are the sandbox's to invent."""

INSERT_ATTEMPTS = 20
UNDO_TIMEOUT_S = 60.0

ENDED_BY_OWNER = "It was ended on request."

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class NoContainer(InvalidInput):
    code = "ENVIRONMENT_HAS_NO_CONTAINER"


@dataclass(frozen=True, slots=True)
class SessionService:
    """Creates, revives, watches and deletes sessions.

    Args:
        max_per_environment: Living sessions that one environment may have.
        launcher: Starts agents; without one there are none.
        variables: Gives what the shells and jobs of an environment have in their environment.
        mask: Gives what takes the secrets of an environment out of texts that are shown.
    """

    database: Database
    environments: EnvironmentService
    worktrees: WorktreeService
    tmux: Tmux
    clock: Clock
    max_per_environment: int = 64
    launcher: Launcher | None = None
    variables: Variables = no_variables
    mask: Mask = no_mask
    server: str = field(default_factory=lambda: uuid4().hex)

    @property
    def jobs(self) -> SessionJobs:
        """Return the setups and commands of sessions' worktrees."""
        return SessionJobs(
            self.database, self.get_owned, self.worktrees.jobs, self.variables, self.mask
        )

    async def create(
        self,
        owner: UserId,
        environment_id: UUID,
        *,
        name: str | None = None,
        branch: str | None = None,
        start: Start | None = None,
        session_type: SessionType = SessionType.TERMINAL,
        agent: WithAgent | None = None,
    ) -> Session:
        """Create a session with its worktree and tmux session; all survive the server.

        With an agent, its command line is started there once, with the prompt where one is given.
        A branch that does not exist begins at `start`, else at the environment's branch; that of a
        pull request is called `pr-NUMBER` unless it is named.

        Waits for the environment's sandbox and clone. The row is committed before anything is
        made, so a crash in between leaves a session that the reconciler finishes; a failure
        leaves nothing. Cancellation leaves what a crash would.

        Raises:
            EnvironmentNotFound: The environment is absent, deleted or somebody else's.
            EnvironmentInError, EnvironmentNotReady, CloneFailed, StorageFull: It takes none now.
            AgentNotFound: The agent is absent or somebody else's.
            BadPrompt: The prompt is too long, no text, or there is no agent to take it.
            BadName, BadBranchName, BadBase: As named.
            SessionNameTaken, BranchInUse: A living session has it, or a branch that is in the way.
            TooManySessions: The environment has as many living sessions as it may have.
            BaseNotFound, BaseAmbiguous, BaseUnreachable: There is no one commit to begin at.
            BranchExists: The branch is there, and stands elsewhere than at `start`.
            WorktreeRefused: git would not check the branch out.
            RuntimeUnavailable, SandboxExhausted: The sandbox could not be asked.
        """
        environment = await self.environments.ready(owner, environment_id)
        await self.environments.room.check_in(environment_id)
        agent = agent or WithAgent()
        if agent.id is not None:
            if self.launcher is None:
                raise AgentNotFound("Agent not found")
            await self.launcher.check(owner, agent.id)
        check_prompt(agent.prompt, session_type, agent.id)
        session = await self._insert(
            environment,
            name=name,
            branch=branch_of(branch, start, environment),
            start=start,
            session_type=session_type,
            agent=agent,
        )
        try:
            return await self._make_recovering(owner, session, environment)
        except NOTHING_MADE as error:
            await self._undo(owner, session, error, made=False)
            raise
        except CraftasticError as error:
            await self._undo(owner, session, error)
            raise

    async def get_owned(self, owner: UserId, session_id: UUID) -> tuple[Session, Environment]:
        """Return a session and its environment.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        session = await self.get(owner, session_id)
        try:
            return session, await self.environments.get_owned(owner, session.environment_id)
        except NotFound:
            raise SessionNotFound("Session not found") from None

    async def get(self, owner: UserId, session_id: UUID) -> Session:
        """Return a session.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        async with self.database.read() as tx:
            return await SessionRepository(tx).get_owned(owner, session_id)

    async def list_owned(self, owner: UserId, environment_id: UUID) -> list[Session]:
        """List an environment's sessions, dead ones too, newest first.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        await self.environments.get_owned(owner, environment_id)
        async with self.database.read() as tx:
            return await SessionRepository(tx).list_environment(environment_id)

    async def of_agent(self, owner: UserId, agent_id: UUID) -> list[Session]:
        """List the owner's sessions with one agent, dead ones too, newest first."""
        async with self.database.read() as tx:
            return await SessionRepository(tx).list_agents(owner, agent_id)

    async def check_name(self, owner: UserId, environment_id: UUID, name: str) -> Availability:
        """Tell whether a name is free among the environment's living sessions.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        composed = unicodedata.normalize("NFC", name)
        return name_availability(await self._live(owner, environment_id), composed)

    async def check_branch(self, owner: UserId, environment_id: UUID, branch: str) -> Availability:
        """Tell whether a branch is free among the environment's living sessions.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        return branch_availability(await self._live(owner, environment_id), branch)

    async def update(
        self,
        owner: UserId,
        session_id: UUID,
        *,
        status: SessionStatus | None = None,
        name: str | None = None,
    ) -> Session:
        """Rename a session, end it (`dead`), or bring it back (`active`, `inactive`).

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
            SessionNameTaken, BranchInUse: The name, or a dead session's branch, is taken.
            RuntimeUnavailable, SandboxGone: The sandbox could not be asked.
        """
        session, environment = await self.get_owned(owner, session_id)
        if name is not None:
            session = await self._rename(session, name)
        if status is SessionStatus.DEAD:
            return await self._end(session, environment, owner)
        if status is None:
            return session
        if session.status is SessionStatus.DEAD:
            session = await self.revive(owner, session_id)
        return await self._set_status(session, status)

    async def status(self, owner: UserId, session_id: UUID) -> LiveStatus:
        """Ask the sandbox whether the session's tmux session is there, and record what it says.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        session, environment = await self.get_owned(owner, session_id)
        is_realtime = True
        if environment.status is EnvironmentStatus.STOPPED:
            session = await self._lost(session, SANDBOX_ENDED)
        elif environment.status is EnvironmentStatus.RUNNING:
            try:
                names = await self.tmux.names(environment.sandbox)
            except SandboxGone:
                session = await self._lost(session, SANDBOX_ENDED)
            except CraftasticError:
                is_realtime = False
            else:
                if session.tmux_name not in names:
                    session = await self._lost(session, TMUX_GONE)
        else:
            is_realtime = False
        return LiveStatus(session.id, session.status, is_realtime, self.clock.now())

    async def delete(self, owner: UserId, session_id: UUID) -> Deletion:
        """Delete a session: its tmux session, its row, and its worktree if nobody else has it.

        Work that is nowhere else is kept, see `WorktreeService.release`.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        async with self.database.begin() as tx:
            session = await SessionRepository(tx).bury_owned(owner, session_id, self.clock.now())
            await record(self.environments.audit, tx, "session.delete", owner, session)
        environment = await self.environments.get_owned(owner, session.environment_id)
        if environment.status is not EnvironmentStatus.RUNNING:
            return Deletion(None, pending=True)
        try:
            removed = await self._steps.remove(session, environment)
            return Deletion(removed.kept, pending=False, teardown=removed.teardown)
        except CraftasticError as error:
            log.warning("session not removed yet", session=str(session.id), reason=error.message)
            return Deletion(None, pending=True)

    async def revive(self, owner: UserId, session_id: UUID) -> Session:
        """Make sure that a session can be attached to: environment, worktree, tmux session.

        A dead one comes back to life in its worktree where its name and branch are still free.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
            SessionNameTaken, BranchInUse: A living session has it now.
            Conflict, InvalidInput, Unavailable: The environment or git would not; with the reason.
        """
        session = await self.get(owner, session_id)
        environment = await self.environments.ready(owner, session.environment_id)
        if session.status is not SessionStatus.DEAD:
            return await self._make_recovering(owner, session, environment)
        reopened = await self._reopen(owner, session)
        try:
            return await self._make_recovering(owner, reopened, environment)
        except CraftasticError as error:
            async with self.database.begin() as tx:
                await SessionRepository(tx).end(session_id, error.message, self.clock.now())
                await record(self.environments.audit, tx, "session.end", owner, reopened, error)
            raise

    async def viewers_changed(self, session_id: UUID, viewers: int) -> None:
        """Record that somebody looks at a session through this process, or nobody any more."""
        async with self.database.begin() as tx:
            await ViewerRepository(tx, self.server).write(session_id, viewers, self.clock.now())

    async def keep_viewers(self, watched: Collection[UUID]) -> None:
        """Say again which sessions are looked at here; what dead servers said ends by itself."""
        async with self.database.begin() as tx:
            differing = await ViewerRepository(tx, self.server).renew(watched)
        for session_id in differing:
            await self.viewers_changed(session_id, session_id in watched)

    async def ended(self, session_id: UUID, sandbox: SandboxRef) -> None:
        """Record that a session's tmux session is gone, unless there is a new one by now."""
        await self._steps.ended(session_id, sandbox)

    async def agent_changed(
        self, session_id: UUID, status: AgentStatus, tx: Transaction | None = None
    ) -> None:
        """Record how a session's agent is, and tell the owner; a dead session stays as it is.

        With `tx` in the caller's transaction.
        """
        if tx is not None:
            await SessionRepository(tx).set_agent(session_id, status)
            return
        async with self.database.begin() as own:
            await SessionRepository(own).set_agent(session_id, status)

    async def touch(self, session_ids: Sequence[UUID]) -> None:
        """Record activity now; for many sessions at once, now and then."""
        async with self.database.begin() as tx:
            await SessionRepository(tx).touch(session_ids, self.clock.now())

    async def branches_of(self, environment_id: UUID) -> set[str]:
        """Return the branches of all sessions of an environment that are not deleted."""
        async with self.database.read() as tx:
            return await SessionRepository(tx).branches(environment_id)

    async def count(self, owner: UserId | None) -> Counts:
        """Count the owner's sessions by status; everybody's for None."""
        async with self.database.read() as tx:
            return await SessionRepository(tx).count(owner)

    async def end_in(self, owner: UserId, environment_id: UUID, by: UserId | None = None) -> None:
        """End all sessions of an environment, as its owner or as `by`; rows and worktrees stay.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            NoContainer: It has no sandbox.
            RuntimeUnavailable, SandboxGone: The sandbox could not be asked.
        """
        environment = await self.environments.get_owned(owner, environment_id)
        if environment.sandbox_id is None:
            raise NoContainer("Environment has no container")
        async with self.database.read() as tx:
            sessions = await SessionRepository(tx).list_live(environment_id)
        for session in sessions:
            await self._end(session, environment, by or owner)

    async def end_strays(self, owner: UserId, sandbox_id: str) -> None:
        """End the tmux sessions of a sandbox that belong to no session.

        Raises:
            ContainerNotFound: No environment of the owner's has it.
            RuntimeUnavailable, SandboxGone: The sandbox could not be asked.
        """
        environment = await self.environments.find_by_sandbox(owner, sandbox_id)
        # Asked in this order: a row is always there before its tmux session.
        names = await self.tmux.names(environment.sandbox)
        async with self.database.read() as tx:
            known = await SessionRepository(tx).tmux_names(environment.id)
        for name in sorted(names - known)[:MAX_STRAYS]:
            await self.tmux.kill(environment.sandbox, name)

    async def reconcile(self) -> None:
        """Finish what was cut short, and notice terminals that ended."""
        await self._steps.reconcile()

    @property
    def _steps(self) -> Steps:
        return Steps(
            database=self.database,
            environments=self.environments,
            worktrees=self.worktrees,
            tmux=self.tmux,
            clock=self.clock,
            variables=self.variables,
            mask=self.mask,
            launcher=self.launcher,
        )

    async def _live(self, owner: UserId, environment_id: UUID) -> list[Session]:
        await self.environments.get_owned(owner, environment_id)
        async with self.database.read() as tx:
            return await SessionRepository(tx).list_live(environment_id)

    async def _insert(
        self,
        environment: Environment,
        *,
        name: str | None,
        branch: str | None,
        start: Start | None,
        session_type: SessionType,
        agent: WithAgent,
    ) -> Session:
        wanted = check_branch(branch or environment.branch)
        now = self.clock.now()
        has_repository = environment.repository_url is not None
        new = NewSession(
            owner_id=environment.owner_id,
            environment_id=environment.id,
            name=check_name(wanted if name is None else name, MAX_NAME_CHARACTERS),
            branch=wanted if has_repository else None,
            branch_key=branch_key(wanted) if has_repository else None,
            tmux_name="",
            working_directory=worktree_path(environment.id, wanted)
            if has_repository
            else WORKSPACE,
            session_type=session_type,
            agent_id=agent.id,
            prompt=agent.prompt,
            start=start,
            created_at=now,
        )
        milliseconds = int(now.timestamp() * 1000)
        for later in range(INSERT_ATTEMPTS):
            named = replace(new, tmux_name=tmux_name(new.name, milliseconds + later))
            try:
                async with self.database.begin() as tx:
                    repository = SessionRepository(tx)
                    await repository.lock(environment.id)
                    refuse_taken(
                        await repository.list_live(environment.id),
                        named.name,
                        named.branch,
                        self.max_per_environment,
                    )
                    added = await repository.add(named)
                    await record(
                        self.environments.audit, tx, "session.create", environment.owner_id, added
                    )
                    return added
            except UniquenessLost as error:
                # Most likely the tmux name's millisecond; what else it was is seen next time.
                log.debug("session insert repeated", lost=error.message)
        raise SessionNameTaken(f'Session name "{new.name}" is already in use')

    async def _make_recovering(
        self, owner: UserId, session: Session, environment: Environment
    ) -> Session:
        """Make a session's parts; once more where the sandbox or its clone turns out to be lost."""
        try:
            return await self._steps.make(session, environment)
        except SandboxGone:
            await self.environments.ensure_running(environment)
        except RepositoryMissing:
            await self.environments.clone_again(environment)
        environment = await self.environments.ready(owner, environment.id)
        return await self._steps.make(session, environment)

    async def _undo(
        self, owner: UserId, session: Session, why: CraftasticError, *, made: bool = True
    ) -> None:
        """Leave nothing of a session that could not be made, now or as soon as that is possible."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(UNDO_TIMEOUT_S):
            try:
                async with self.database.begin() as tx:
                    await SessionRepository(tx).bury(session.id, self.clock.now())
                    await record(self.environments.audit, tx, "session.delete", owner, session, why)
                if not made:
                    await self._steps.forget(session)
                    return
                environment = await self.environments.get_owned(owner, session.environment_id)
                if environment.status is EnvironmentStatus.RUNNING:
                    await self._steps.remove(session, environment)
            except CraftasticError as error:
                log.info("undone later", session=str(session.id), reason=error.message)

    async def _end(self, session: Session, environment: Environment, by: UUID) -> Session:
        if environment.status is EnvironmentStatus.RUNNING:
            with contextlib.suppress(SandboxGone):
                await self.tmux.kill(environment.sandbox, session.tmux_name)
        return await self._lost(session, ENDED_BY_OWNER, by=by)

    async def _lost(self, session: Session, reason: str, *, by: UUID | None = None) -> Session:
        """Record that a session's tmux session is gone, unless it is only now being made.

        With `by` somebody has ended it, which is told to the audit log too.
        """
        if session.status is SessionStatus.DEAD or not session.ready:
            return session
        async with self.database.begin() as tx:
            ended = await SessionRepository(tx).end(
                session.id, reason, self.clock.now(), seen=session.updated_at
            )
            if ended is not None and by is not None:
                await record(self.environments.audit, tx, "session.end", by, ended)
        return ended or session

    async def _rename(self, session: Session, name: str) -> Session:
        name = check_name(name, MAX_NAME_CHARACTERS)
        try:
            async with self.database.begin() as tx:
                repository = SessionRepository(tx)
                await repository.lock(session.environment_id)
                others = await repository.list_live(session.environment_id)
                if session.status is not SessionStatus.DEAD:
                    refuse_name([one for one in others if one.id != session.id], name)
                renamed = await repository.rename(session.id, name, self.clock.now())
        except UniquenessLost:
            raise SessionNameTaken(f'Session name "{name}" is already in use') from None
        if renamed is None:
            raise SessionNotFound("Session not found")
        return renamed

    async def _set_status(self, session: Session, status: SessionStatus) -> Session:
        async with self.database.begin() as tx:
            changed = await SessionRepository(tx).set_status(session.id, status, self.clock.now())
        return changed or session

    async def _reopen(self, owner: UserId, session: Session) -> Session:
        async with self.database.begin() as tx:
            repository = SessionRepository(tx)
            await repository.lock(session.environment_id)
            live = await repository.list_live(session.environment_id)
            if (already := next((one for one in live if one.id == session.id), None)) is not None:
                return already
            refuse_taken(live, session.name, session.branch, self.max_per_environment)
            reopened = await repository.reopen(session.id, self.clock.now())
            if reopened is None:
                raise SessionNotFound("Session not found")
            await record(self.environments.audit, tx, "session.revive", owner, reopened)
        return reopened
