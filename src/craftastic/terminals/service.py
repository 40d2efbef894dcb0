"""Terminals: who may attach to which session, and the hubs that they share."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.errors import CraftasticError, NotFound, RateLimited, Unavailable
from craftastic.runtimes.base import RUN_DIR, NearRuntime, Runtime, SandboxRef, Stream
from craftastic.settings import Settings
from craftastic.terminals._attendance import Attendance, Visit
from craftastic.terminals._hub import Hub
from craftastic.terminals._leases import Leases, PipeLease
from craftastic.terminals._pane import attach_command
from craftastic.terminals._tickets import BadTicket, Tickets
from craftastic.terminals._viewer import Ended, Role, Viewer
from craftastic.tmux.service import TmuxService

LINGER_S = 10.0
READY_S = 30.0
TOUCH_S = 30.0
TELL_S = 5.0

log = structlog.get_logger(__name__)


class SessionNotFound(NotFound):
    """No such session for this caller in this environment."""

    code = "SESSION_NOT_FOUND"


class TooManyTerminals(RateLimited):
    code = "TOO_MANY_TERMINALS"


class TerminalUnavailable(Unavailable):
    """The session's terminal could not be reached; trying again may help."""

    code = "TERMINAL_UNAVAILABLE"


class AttachedSession(Protocol):
    """What terminals need to know of a session."""

    @property
    def id(self) -> UUID: ...
    @property
    def environment_id(self) -> UUID: ...
    @property
    def tmux_name(self) -> str: ...
    @property
    def status(self) -> str: ...


class HasSandbox(Protocol):
    @property
    def sandbox(self) -> SandboxRef: ...


class Sessions(Protocol):
    async def get_owned(
        self, owner: UserId, session_id: UUID
    ) -> tuple[AttachedSession, HasSandbox]: ...
    async def revive(self, owner: UserId, session_id: UUID) -> object: ...
    async def viewers_changed(self, session_id: UUID, viewers: int) -> None: ...
    async def keep_viewers(self, watched: Collection[UUID], /) -> None: ...
    async def ended(self, session_id: UUID, sandbox: SandboxRef, /) -> None: ...
    async def touch(self, session_ids: Sequence[UUID]) -> None: ...


class Accounts(Protocol):
    async def authenticate(self, token: str) -> Caller: ...
    async def still_signed_in(self, caller: Caller) -> bool: ...
    def insist_on_verified(self, caller: Caller) -> None: ...


@dataclass(frozen=True, slots=True)
class _Pane:
    """A `Source`: one tmux session in one sandbox."""

    runtime: Runtime
    tmux: TmuxService
    sandbox: SandboxRef
    session: str

    def open(self) -> AbstractAsyncContextManager[Stream]:
        command = attach_command(self.tmux.run_dir, self.tmux.socket(), self.session)
        if isinstance(self.runtime, NearRuntime):
            return self.runtime.open_near(self.sandbox, command)
        return self.runtime.open(self.sandbox, command)

    async def alive(self) -> bool:
        return self.session in await self.tmux.names(self.sandbox)


@dataclass(slots=True, eq=False)
class _Entry:
    """A hub and how many watch it; it goes some seconds after the last of them."""

    hub: Hub
    viewers: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    def add(self, count: int) -> None:
        self.viewers += count
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(slots=True)
class _State:
    """What lives while the service runs."""

    tasks: TaskGroup | None = None
    entries: dict[UUID, _Entry] = field(default_factory=dict[UUID, _Entry])
    opening: dict[UUID, anyio.Lock] = field(default_factory=dict[UUID, anyio.Lock])
    per_user: Counter[UserId] = field(default_factory=Counter[UserId])
    ending: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True, slots=True)
class Terminal:
    """One viewer attached to one session."""

    session_id: UUID
    hub: Hub
    viewer: Viewer
    visit: Visit


@dataclass(frozen=True, slots=True)
class TerminalService:
    """Attaches viewers to sessions. Use inside `running`.

    Args:
        database: For the leases of pipes.
        runtimes: Where sandboxes run.
        sessions: Whose session it is, and bringing it back to life.
        accounts: Who calls.
        clock: For intervals and leases.
        settings: Limits, and which origins browsers may come from.
        audit: Is told who attaches and leaves.
        run_dir: The sandboxes' private folder for sockets, as seen from inside.
        linger_s: How long a hub goes on after its last viewer, in seconds.
    """

    database: Database
    runtimes: Mapping[str, Runtime]
    sessions: Sessions
    accounts: Accounts
    clock: Clock
    settings: Settings
    audit: AuditService
    run_dir: str = RUN_DIR
    linger_s: float = LINGER_S
    _state: _State = field(default_factory=_State)
    _leases: list[Leases] = field(default_factory=list[Leases])
    _attendance: list[Attendance] = field(default_factory=list[Attendance])

    @property
    def leases(self) -> Leases:
        if not self._leases:
            self._leases.append(Leases(self.database, self.clock))
        return self._leases[0]

    @property
    def attendance(self) -> Attendance:
        if not self._attendance:
            self._attendance.append(Attendance(self.audit))
        return self._attendance[0]

    @property
    def ending(self) -> anyio.Event:
        """Set when the server ends: viewers are told to connect again."""
        return self._state.ending

    @property
    def tmux(self) -> TmuxService:
        return TmuxService(self.runtimes, self.settings.terminal_history_lines, self.run_dir)

    @property
    def tickets(self) -> Tickets:
        return Tickets(self.database, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Own the hubs; at the end they let go of their panes, and the sessions go on."""
        async with anyio.create_task_group() as tasks:
            self._state.tasks = tasks
            tasks.start_soon(self.leases.run)
            tasks.start_soon(self._touch)
            tasks.start_soon(self._keep_told)
            tasks.start_soon(self.attendance.run)
            try:
                yield
            finally:
                self.drain()
                self._state.tasks = None
                tasks.cancel_scope.cancel()

    def drain(self) -> None:
        """Tell every viewer that the server is restarting; nobody attaches any more."""
        self._state.ending.set()

    @property
    def attached(self) -> int:
        """Return how many viewers this process has."""
        return sum(self._state.per_user.values())

    @property
    def panes(self) -> int:
        """Return of how many sessions this process reads the output."""
        return len(self._state.entries)

    async def look_up(
        self, caller: Caller, environment_id: UUID, session_id: UUID
    ) -> tuple[AttachedSession, HasSandbox]:
        """Return the caller's session of that environment.

        Raises:
            SessionNotFound: It is absent, somebody else's, or of another environment.
        """
        try:
            session, environment = await self.sessions.get_owned(caller.user_id, session_id)
        except NotFound as error:
            raise SessionNotFound("Session not found") from error
        if session.environment_id != environment_id:
            raise SessionNotFound("Session not found")
        return session, environment

    async def issue_ticket(self, caller: Caller, session_id: UUID, origin: str | None) -> str:
        """Return what opens the caller's session's terminal once, within 30 seconds.

        Raises:
            SessionNotFound: It is absent or somebody else's.
            TooManyTickets: The caller has too many that are unused.
        """
        try:
            await self.sessions.get_owned(caller.user_id, session_id)
        except NotFound as error:
            raise SessionNotFound("Session not found") from error
        return await self.tickets.issue(caller, session_id, origin)

    async def redeem_ticket(
        self, ticket: str, session_id: UUID | None, origin: str | None
    ) -> Caller:
        """Return who a ticket is of, and use it up.

        Raises:
            BadTicket: It is no good, or the sign-in that it was made with has ended.
        """
        caller = await self.tickets.redeem(ticket, session_id, origin)
        if not await self.accounts.still_signed_in(caller):
            raise BadTicket("Invalid authentication ticket")
        return caller

    @asynccontextmanager
    async def attach(
        self,
        caller: Caller,
        environment_id: UUID,
        session_id: UUID,
        *,
        follows: bool = False,
        role: Role = Role.DRIVE,
        stream: str | None = None,
        seen: int | None = None,
    ) -> AsyncGenerator[Terminal]:
        """Attach a viewer for as long as the context lives; a dead session is revived first.

        `follows` tells whether the viewer wants to be told of sizes that others gave, `role`
        whether it types; it goes on at byte `seen` of `stream` if that is still there.

        Raises:
            SessionNotFound: See `look_up`.
            TooManyTerminals: The caller has too many open.
            Conflict: The session cannot be revived; the message says why.
            Unavailable: The runtime or the terminal does not answer.
        """
        session, environment = await self.look_up(caller, environment_id, session_id)
        state = self._state
        if state.per_user[caller.user_id] >= self.settings.max_terminals_per_user:
            raise TooManyTerminals("You have too many terminals open; close some.")
        state.per_user[caller.user_id] += 1
        try:
            entry = await self._enter(caller, session, environment)
            try:
                await self._tell(session_id, entry)
                viewer = entry.hub.attach(role, follows=follows, stream=stream, seen=seen)
                try:
                    with self.attendance.visit(caller, environment_id, session_id) as visit:
                        yield Terminal(session_id, entry.hub, viewer, visit)
                finally:
                    entry.hub.detach(viewer)
            finally:
                entry.add(-1)
                with anyio.CancelScope(shield=True):
                    await self._tell(session_id, entry)
        finally:
            state.per_user[caller.user_id] -= 1
            if not state.per_user[caller.user_id]:
                del state.per_user[caller.user_id]

    async def still_signed_in(self, caller: Caller) -> bool:
        """Tell whether the caller's sign-in lives; when nobody can know, it is taken to live."""
        try:
            return await self.accounts.still_signed_in(caller)
        except Unavailable:
            return True

    async def _enter(
        self, caller: Caller, session: AttachedSession, environment: HasSandbox
    ) -> _Entry:
        """Return the session's hub, counted; start it when there is none."""
        lock = self._state.opening.setdefault(session.id, anyio.Lock())
        async with lock:
            entry = self._state.entries.get(session.id)
            if entry is None or entry.hub.ended is not None:
                entry = await self._open(caller, session, environment)
            entry.add(1)
        if not lock.locked():
            self._state.opening.pop(session.id, None)
        return entry

    async def _open(
        self, caller: Caller, session: AttachedSession, environment: HasSandbox
    ) -> _Entry:
        revived = session.status == "dead"
        if revived:
            session, environment = await self._revive(caller, session.id)
        while True:
            ended: Ended | None
            try:
                entry = await self._start(session, environment.sandbox)
                ended = entry.hub.ended
            except CraftasticError:
                if revived:
                    raise
                ended = None
                entry = None
            if entry is not None and ended is None:
                return entry
            if revived:
                message = ended.message if ended and ended.message else "tmux does not answer."
                raise TerminalUnavailable(f"The terminal cannot be opened: {message}")
            # The sandbox has stopped, or the shell or tmux itself has ended unseen.
            session, environment = await self._revive(caller, session.id)
            revived = True

    async def _revive(self, caller: Caller, session_id: UUID) -> tuple[AttachedSession, HasSandbox]:
        await self.sessions.revive(caller.user_id, session_id)
        return await self.sessions.get_owned(caller.user_id, session_id)

    async def _start(self, session: AttachedSession, sandbox: SandboxRef) -> _Entry:
        tasks = self._state.tasks
        if tasks is None or self.ending.is_set():
            raise TerminalUnavailable("Server is restarting")
        lease = await self.leases.take(session.id)
        source = _Pane(self.runtimes[sandbox.runtime], self.tmux, sandbox, session.tmux_name)
        entry = _Entry(self._hub(source, lease))
        self._state.entries[session.id] = entry
        tasks.start_soon(self._keep, session.id, sandbox, entry)
        with anyio.move_on_after(READY_S):
            await entry.hub.ready.wait()
            return entry
        entry.hub.ended = Ended(exited=False, message="it does not answer.")
        entry.add(0)
        return entry

    def _hub(self, source: _Pane, lease: PipeLease) -> Hub:
        return Hub(source, lease, self.clock, history_lines=self.settings.terminal_history_lines)

    async def _keep(self, session_id: UUID, sandbox: SandboxRef, entry: _Entry) -> None:
        """Run a hub until it ends, or nobody has watched it for a while."""
        hub = entry.hub
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run, tasks, hub)
                await self._unwatched(entry)
                tasks.cancel_scope.cancel()
        finally:
            hub.ended = hub.ended or Ended(exited=False, message="Server is restarting")
            if self._state.entries.get(session_id) is entry:
                del self._state.entries[session_id]
                with anyio.CancelScope(shield=True):
                    await self.leases.give_back(session_id)
        if hub.ended.exited:
            await self._quietly(self.sessions.ended(session_id, sandbox))

    async def _run(self, tasks: TaskGroup, hub: Hub) -> None:
        await hub.run()
        tasks.cancel_scope.cancel()

    async def _unwatched(self, entry: _Entry) -> None:
        await entry.hub.ready.wait()
        while True:
            changed = entry.changed
            if entry.viewers or entry.hub.ended is not None:
                await changed.wait()
                continue
            with anyio.move_on_after(self.linger_s):
                await changed.wait()
                continue
            return

    async def _tell(self, session_id: UUID, entry: _Entry) -> None:
        ended = entry.hub.ended
        if ended is None or not ended.exited:
            await self._quietly(self.sessions.viewers_changed(session_id, entry.viewers))

    async def _keep_told(self) -> None:
        """Say again and again which sessions are looked at: a lost word is made up for."""
        while True:
            entries = self._state.entries.items()
            # While its pane is away, a session's state is not known to anybody.
            watched = {id_ for id_, one in entries if one.viewers and one.hub.is_connected}
            await self._quietly(self.sessions.keep_viewers(watched))
            await anyio.sleep(TELL_S)

    async def _touch(self) -> None:
        """Record activity now and then, for all that were typed into since."""
        while True:
            await anyio.sleep(TOUCH_S)
            typed = [id_ for id_, entry in self._state.entries.items() if entry.hub.typed]
            for session_id in typed:
                self._state.entries[session_id].hub.typed = False
            if typed:
                await self._quietly(self.sessions.touch(typed))

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except CraftasticError as error:
            log.warning("terminal.not_recorded", reason=error.message)
