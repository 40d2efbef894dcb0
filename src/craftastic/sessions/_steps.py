"""What a session has in its sandbox: making it, removing it, and noticing that it has ended.

The steps take no input beside rows, keep no memory, and may be repeated.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.environments.service import Environment, EnvironmentService
from craftastic.errors import Conflict, CraftasticError, Unavailable
from craftastic.events.service import EventLog
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import RunResult, SandboxGone, SandboxRef
from craftastic.sessions._jobs import tell_job
from craftastic.sessions._model import Session, SessionStatus, SessionType
from craftastic.sessions._preparation import Mask, Preparation, Teardown, Variables, place_of
from craftastic.sessions._repository import SessionRepository
from craftastic.tmux.service import Making
from craftastic.worktrees.service import SETUP, Kept, Worktree, WorktreeService, worktree_path

MAX_ENVIRONMENTS_AT_ONCE = 8

TMUX_GONE = "Its terminal has ended."
SANDBOX_ENDED = "The environment's sandbox has ended."

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SessionGone(Conflict):
    """The session was deleted while something was done with it."""

    code = "SESSION_DELETED"


class Tmux(Protocol):
    """What sessions need of tmux; `tmux.service.TmuxService` is it."""

    async def ensure(
        self,
        sandbox: SandboxRef,
        name: str,
        directory: str,
        *,
        variables: Mapping[str, str] | None = ...,
        program: bytes | None = ...,
    ) -> object: ...

    def making(
        self, name: str, directory: str, *, variables: Mapping[str, str] | None = ...
    ) -> Making: ...

    def made(self, sandbox: SandboxRef, name: str, making: Making, result: RunResult) -> object: ...

    async def kill(self, sandbox: SandboxRef, name: str) -> object: ...

    async def names(self, sandbox: SandboxRef) -> set[str]: ...


class Launcher(Protocol):
    """Knows agents, and what starts one; `agent_runs.launching.Launcher` is it."""

    async def check(self, owner: UserId, agent_id: UUID) -> None:
        """Refuse an agent that cannot be started.

        Raises:
            AgentNotFound: It is absent or somebody else's.
        """
        ...

    async def program(
        self,
        owner: UserId,
        session: Session,
        directory: str,
        variables: Mapping[str, str],
    ) -> bytes:
        """Return what the session's pane starts with: its agent, or a shell where that was once.

        Raises:
            AgentNotFound, UnknownAgentType, SecretUnreadable: It cannot be started.
        """
        ...

    async def remove(self, session: Session, environment: Environment) -> None:
        """Remove what the session's agent kept in the sandbox; its session is going."""
        ...


@dataclass(frozen=True, slots=True)
class Removed:
    """What the removal of a session left, and how its worktree's teardown ended, if it has one."""

    kept: Kept | None = None
    teardown: Teardown | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps over sessions; `SessionService` says when, these do it."""

    database: Database
    environments: EnvironmentService
    worktrees: WorktreeService
    tmux: Tmux
    clock: Clock
    variables: Variables
    mask: Mask
    launcher: Launcher | None = None

    async def reconcile(self) -> None:
        """Finish what was cut short, and notice terminals that ended."""
        async with self.database.begin() as tx:
            await SessionRepository(tx).end_stopped(SANDBOX_ENDED, self.clock.now())
        async with self.database.read() as tx:
            sessions = await SessionRepository(tx).list_concerned()
        running = {one.id: one for one in await self.environments.list_running()}
        concerned: defaultdict[UUID, list[Session]] = defaultdict(list)
        for session in sessions:
            if session.environment_id in running:
                concerned[session.environment_id].append(session)
        limiter = anyio.CapacityLimiter(MAX_ENVIRONMENTS_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for environment_id, group in concerned.items():
                tasks.start_soon(self._reconcile_one, running[environment_id], group, limiter)

    async def _reconcile_one(
        self, environment: Environment, sessions: Sequence[Session], limiter: anyio.CapacityLimiter
    ) -> None:
        async with limiter:
            try:
                names = await self.tmux.names(environment.sandbox)
                for session in sessions:
                    await self._reconcile_session(session, environment, names)
            except CraftasticError as error:
                # What happened to the sandbox is noticed by the environments' own step.
                log.info(
                    "sessions not observed", environment=str(environment.id), why=error.message
                )
            except Exception:  # an edge: one sandbox's answers must not stop everybody's round
                log.exception("sessions not observed", environment=str(environment.id))

    async def _reconcile_session(
        self, session: Session, environment: Environment, names: set[str]
    ) -> None:
        if session.deleted:
            await self.remove(session, environment)
        elif not session.ready:
            if environment.usable:
                await self._finish_create(session, environment)
        elif session.tmux_name not in names:
            async with self.database.begin() as tx:
                await SessionRepository(tx).end(
                    session.id, TMUX_GONE, self.clock.now(), seen=session.updated_at
                )

    async def ended(self, session_id: UUID, sandbox: SandboxRef) -> None:
        """Record that a session's tmux session is gone, unless there is a new one by now.

        A late word of the old one must not end a session that was brought back meanwhile.
        """
        async with self.database.read() as tx:
            session = await SessionRepository(tx).find(session_id)
        if session is None or not session.ready or session.status is SessionStatus.DEAD:
            return
        try:
            names = await self.tmux.names(sandbox)
        except SandboxGone:
            names = set[str]()
        if session.tmux_name in names:
            return
        async with self.database.begin() as tx:
            await SessionRepository(tx).end(
                session_id, TMUX_GONE, self.clock.now(), seen=session.updated_at
            )

    async def _finish_create(self, session: Session, environment: Environment) -> None:
        try:
            await self.make(session, environment, reread=True)
        except (SandboxGone, Unavailable) as error:
            log.info("session finished later", session=str(session.id), reason=error.message)
        except CraftasticError as error:
            log.warning("session not finished", session=str(session.id), reason=error.message)
            async with self.database.begin() as tx:
                await SessionRepository(tx).end(
                    session.id, error.message, self.clock.now(), seen=session.updated_at
                )

    async def make(
        self, session: Session, environment: Environment, *, reread: bool = False
    ) -> Session:
        """Make a session's worktree and tmux session, then record it; repeatable.

        With `reread` it may have changed since it was read, and is looked at again.
        """
        async with self.environments.exclusive(environment.id):
            if reread and not await self._still_to_make(session):
                return session
            failpoint("session.make.begun")
            worktree = await self._place(session, environment)
            if session.ready:
                return session
            async with self.database.begin() as tx:
                made = await SessionRepository(tx).mark_ready(
                    session.id, worktree.path, self.clock.now(), worktree.start
                )
            failpoint("session.make.recorded")
            if made is None:
                # Another server may have removed it before this one made its terminal. One that
                # is brought back waits until this is done: its terminal has the same name.
                with suppress(CraftasticError):
                    await self.tmux.kill(environment.sandbox, session.tmux_name)
                raise SessionGone("The session was ended while it was made.")
        return made

    async def _place(self, session: Session, environment: Environment) -> Worktree:
        sandbox, branch = environment.sandbox, session.branch
        variables = await self._variables(session, environment)
        making = None
        if branch is None:
            worktree = Worktree(await self.worktrees.ensure_workspace(sandbox))
        else:
            if not self._starts_agent(session):
                path = worktree_path(environment.id, branch)
                making = self.tmux.making(session.tmux_name, path, variables=variables or None)
            worktree = await self.worktrees.ensure(
                sandbox,
                environment.id,
                branch,
                environment.branch,
                session_id=session.id,
                start=session.start,
                then=making,
            )
            if worktree.fresh:
                await self._preparation.prepare(session, environment, branch)
                failpoint("session.make.prepared")
                async with self.database.begin() as tx:
                    place = place_of(session, environment, branch)
                    tell_job(EventLog(tx), environment.owner_id, place, SETUP)
        if making is not None and worktree.then is not None:
            self.tmux.made(sandbox, session.tmux_name, making, worktree.then)
        else:
            program = await self._program(session, environment, worktree.path, variables)
            await self.tmux.ensure(
                sandbox,
                session.tmux_name,
                worktree.path,
                variables=None if program else variables or None,
                program=program,
            )
        failpoint("session.make.tmux")
        return worktree

    async def _program(
        self,
        session: Session,
        environment: Environment,
        directory: str,
        variables: Mapping[str, str],
    ) -> bytes | None:
        """Return what starts the session's agent; None for a terminal, and for one that runs."""
        if self.launcher is None or not self._starts_agent(session):
            return None
        owner = UserId(environment.owner_id)
        return await self.launcher.program(owner, session, directory, variables)

    def _starts_agent(self, session: Session) -> bool:
        is_agent = session.session_type is SessionType.AGENT and session.agent_id is not None
        return self.launcher is not None and is_agent and not session.ready

    @property
    def _preparation(self) -> Preparation:
        return Preparation(self.worktrees.jobs, self.variables, self.mask)

    async def _variables(self, session: Session, environment: Environment) -> Mapping[str, str]:
        try:
            return await self.variables(environment.owner_id, environment.id)
        except CraftasticError as error:
            if not session.ready:
                raise
            # Its shell has them already: nobody is kept from a terminal that runs.
            log.warning("variables not read", session=str(session.id), reason=error.message)
            return {}

    async def _still_to_make(self, session: Session) -> bool:
        async with self.database.read() as tx:
            now = await SessionRepository(tx).find(session.id)
        return (
            now is not None
            and not (now.deleted or now.ready)
            and now.status is not SessionStatus.DEAD
        )

    async def remove(self, session: Session, environment: Environment) -> Removed:
        """Remove a session's tmux session, its worktree if nobody else has it, and its row.

        Its jobs are ended and its worktree's teardown is run before; neither keeps it from going.
        """
        failpoint("session.remove.begun")
        # One removal at a time, and others of the environment do not wait for a slow teardown.
        async with self.environments.exclusive(session.id):
            async with self.environments.exclusive(environment.id):
                await self.tmux.kill(environment.sandbox, session.tmux_name)
                failpoint("session.remove.tmux")
                command = await self._preparation.end(session, environment)
                failpoint("session.remove.jobs")
                shared = await self._shared(session)
            torn_down = None
            if session.branch is not None and command and not shared:
                torn_down = await self._preparation.tear_down(
                    session, environment, session.branch, command
                )
                failpoint("session.remove.teardown")
            if self.launcher is not None and session.session_type is SessionType.AGENT:
                await self.launcher.remove(session, environment)
            async with self.environments.exclusive(environment.id):
                return Removed(await self._release(session, environment), torn_down)

    async def _shared(self, session: Session) -> bool:
        async with self.database.read() as tx:
            return await SessionRepository(tx).branch_in_use(session)

    async def _release(self, session: Session, environment: Environment) -> Kept | None:
        kept = None
        if session.branch is not None and not await self._shared(session):
            kept = await self.worktrees.release(
                environment.sandbox,
                environment.id,
                session.branch,
                keep_as=str(session.id),
                # What a session that never came to life found there is not its own to remove.
                only_own=not session.ready and session.reason is None,
            )
        await self.forget(session)
        return kept

    async def forget(self, session: Session) -> None:
        """Remove the row of a session that was marked deleted and has nothing in its sandbox."""
        async with self.database.begin() as tx:
            await SessionRepository(tx).remove(session.id)
        failpoint("session.remove.forgotten")
