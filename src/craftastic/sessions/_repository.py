"""Table and queries of sessions. Private to this package (checked)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Double,
    ForeignKey,
    Index,
    String,
    Text,
    Uuid,
    case,
    column,
    delete,
    func,
    or_,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime, violated
from craftastic.errors import Conflict, NotFound
from craftastic.events.service import EventLog
from craftastic.sessions._model import (
    AgentState,
    AgentStatus,
    Session,
    SessionStatus,
    SessionType,
)
from craftastic.worktrees.service import Start, StartKind

LIVE_WHERE = text("status <> 'dead'")
MAX_REASON_CHARACTERS = 2000
MAX_AGENT_MESSAGE_CHARACTERS = 2000
MAX_WAITS_FOR_CHARACTERS = 300
CHUNK = 500

# Environments are another domain's rows: known here by name, for ownership in the query.
ENVIRONMENTS = table(
    "environments",
    column("id", Uuid()),
    column("owner_id", Uuid()),
    column("desired", String()),
    column("status", String()),
)


class SessionNotFound(NotFound):
    code = "SESSION_NOT_FOUND"


def nothing_to_delete() -> SessionNotFound:
    """Return what a deletion of an absent session answers: the one 404 with details."""
    return SessionNotFound("Session not found", details="There is no such session to delete.")


class EnvironmentGone(NotFound):
    """The environment was deleted while a session was made in it."""

    code = "ENVIRONMENT_NOT_FOUND"


class UniquenessLost(Conflict):
    """Another session took the name, the branch or the tmux name at the same moment."""

    code = "SESSION_CONFLICT"


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (
        Index(
            "uq_sessions_live_name",
            "environment_id",
            "name",
            unique=True,
            sqlite_where=LIVE_WHERE,
            postgresql_where=LIVE_WHERE,
        ),
        Index(
            "uq_sessions_live_branch",
            "environment_id",
            "branch_key",
            unique=True,
            sqlite_where=LIVE_WHERE,
            postgresql_where=LIVE_WHERE,
        ),
        Index("uq_sessions_tmux_name", "environment_id", "tmux_name", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    environment_id: Mapped[UUID] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    branch: Mapped[str | None] = mapped_column(String(200))
    branch_key: Mapped[str | None] = mapped_column(String(800))
    tmux_name: Mapped[str] = mapped_column(String(80))
    working_directory: Mapped[str] = mapped_column(String(1024))
    status: Mapped[str] = mapped_column(String(16))
    ready: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(String(MAX_REASON_CHARACTERS))
    session_type: Mapped[str] = mapped_column(String(16))
    agent_id: Mapped[UUID | None]
    start_kind: Mapped[str | None] = mapped_column(String(16))
    start_ref: Mapped[str | None] = mapped_column(String(200))
    start_commit: Mapped[str | None] = mapped_column(String(64))
    first_prompt: Mapped[str | None] = mapped_column(Text)
    """What its agent is started with; gone as soon as it is."""
    agent_state: Mapped[str | None] = mapped_column(String(24))
    agent_state_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    agent_message: Mapped[str | None] = mapped_column(String(MAX_AGENT_MESSAGE_CHARACTERS))
    agent_waits_for: Mapped[str | None] = mapped_column(String(MAX_WAITS_FOR_CHARACTERS))
    last_activity: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


LIVE = SessionRow.status != SessionStatus.DEAD.value
OWNER = (
    select(ENVIRONMENTS.c.owner_id)
    .where(ENVIRONMENTS.c.id == SessionRow.environment_id)
    .correlate(SessionRow)
    .scalar_subquery()
)
CHANGED = "session.changed"
DELETED = "session.deleted"


class SessionViewers(Base):
    """A session that viewers of one server look at."""

    __tablename__ = "session_viewers"

    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True
    )
    server: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    expires_at: Mapped[float] = mapped_column(Double)


@dataclass(frozen=True, slots=True)
class NewSession:
    owner_id: UUID
    environment_id: UUID
    name: str
    branch: str | None
    branch_key: str | None
    tmux_name: str
    working_directory: str
    session_type: SessionType
    agent_id: UUID | None
    prompt: str | None
    start: Start | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    total: int
    active: int
    inactive: int
    dead: int


def _session(row: SessionRow) -> Session:
    return Session(
        id=row.id,
        environment_id=row.environment_id,
        name=row.name,
        branch=row.branch,
        branch_key=row.branch_key,
        tmux_name=row.tmux_name,
        working_directory=row.working_directory,
        status=SessionStatus(row.status),
        ready=row.ready,
        deleted=row.deleted,
        reason=row.reason,
        session_type=SessionType(row.session_type),
        agent_id=row.agent_id,
        start=_start(row),
        last_activity=row.last_activity,
        created_at=row.created_at,
        updated_at=row.updated_at,
        agent=_agent(row),
        prompt=row.first_prompt,
    )


def _agent(row: SessionRow) -> AgentStatus | None:
    if row.agent_state is None or row.agent_state_since is None:
        return None
    return AgentStatus(
        AgentState(row.agent_state), row.agent_state_since, row.agent_message, row.agent_waits_for
    )


def _start(row: SessionRow) -> Start | None:
    if row.start_kind is None or row.start_ref is None:
        return None
    return Start(StartKind(row.start_kind), row.start_ref, row.start_commit)


class SessionRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def lock(self, environment_id: UUID) -> None:
        """Keep every other transaction from changing the environment's set of live sessions.

        SQLite has one writer anyhow.

        Raises:
            EnvironmentGone: It was deleted.
        """
        if self.tx.get_bind().dialect.name != "postgresql":
            return
        statement = (
            select(ENVIRONMENTS.c.id)
            .where(ENVIRONMENTS.c.id == environment_id, ENVIRONMENTS.c.desired != "deleted")
            .with_for_update()
        )
        if await self.tx.scalar(statement) is None:
            raise EnvironmentGone("Environment not found")

    async def list_agents(self, owner_id: UUID, agent_id: UUID) -> list[Session]:
        """List an owner's sessions with an agent, dead ones too, newest first."""
        return await self._list(
            SessionRow.agent_id == agent_id, SessionRow.deleted.is_(False), _owned_by(owner_id)
        )

    async def list_live(self, environment_id: UUID) -> list[Session]:
        """List the sessions that hold a name and a branch."""
        return await self._list(SessionRow.environment_id == environment_id, LIVE)

    async def add(self, new: NewSession) -> Session:
        """Insert a session; it is inactive and not ready.

        Raises:
            UniquenessLost: Its name, branch or tmux name is taken.
            EnvironmentGone: The environment was deleted.
        """
        row = SessionRow(
            environment_id=new.environment_id,
            name=new.name,
            branch=new.branch,
            branch_key=new.branch_key,
            tmux_name=new.tmux_name,
            working_directory=new.working_directory,
            status=SessionStatus.INACTIVE.value,
            ready=False,
            deleted=False,
            session_type=new.session_type.value,
            agent_id=new.agent_id,
            first_prompt=new.prompt,
            start_kind=None if new.start is None else new.start.kind.value,
            start_ref=None if new.start is None else new.start.ref,
            created_at=new.created_at,
            updated_at=new.created_at,
        )
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            raise _refusal(error) from error
        self._tell(new.owner_id, CHANGED, row.id, row.environment_id)
        return _session(row)

    async def get_owned(self, owner_id: UUID, session_id: UUID) -> Session:
        """Return a session of one of the owner's environments.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        session = await self._one(SessionRow.id == session_id, _owned_by(owner_id))
        if session is None:
            raise SessionNotFound("Session not found")
        return session

    async def find(self, session_id: UUID) -> Session | None:
        row = await self.tx.get(SessionRow, session_id)
        return None if row is None else _session(row)

    async def list_environment(self, environment_id: UUID) -> list[Session]:
        """List an environment's sessions, dead ones too, newest first."""
        return await self._list(
            SessionRow.environment_id == environment_id, SessionRow.deleted.is_(False)
        )

    async def list_environments(self, environment_ids: Sequence[UUID]) -> list[Session]:
        if not environment_ids:
            return []
        return await self._list(
            SessionRow.environment_id.in_(environment_ids), SessionRow.deleted.is_(False)
        )

    async def list_concerned(self) -> list[Session]:
        """List what a reconciler has to look at: living, unfinished and deleted sessions."""
        return await self._list(or_(LIVE, SessionRow.deleted.is_(True)))

    async def tmux_names(self, environment_id: UUID) -> set[str]:
        """Return the names that belong to sessions which may have a tmux session."""
        statement = select(SessionRow.tmux_name).where(
            SessionRow.environment_id == environment_id, LIVE
        )
        return set(await self.tx.scalars(statement))

    async def branches(self, environment_id: UUID) -> set[str]:
        """Return the branches of the environment's sessions, dead ones too."""
        statement = select(SessionRow.branch).where(
            SessionRow.environment_id == environment_id,
            SessionRow.deleted.is_(False),
            SessionRow.branch.is_not(None),
        )
        return {one for one in await self.tx.scalars(statement) if one is not None}

    async def branch_in_use(self, session: Session) -> bool:
        """Tell whether another session has the branch: a dead one comes back to its worktree."""
        found = await self.tx.scalar(
            select(SessionRow.id)
            .where(
                SessionRow.environment_id == session.environment_id,
                SessionRow.branch_key == session.branch_key,
                SessionRow.id != session.id,
                SessionRow.deleted.is_(False),
            )
            .limit(1)
        )
        return found is not None

    async def mark_ready(
        self, session_id: UUID, working_directory: str, now: datetime, start: str | None = None
    ) -> Session | None:
        """Record that worktree and tmux session are there; None when it was deleted meanwhile."""
        return await self._update(
            (SessionRow.id == session_id, SessionRow.deleted.is_(False), LIVE),
            ready=True,
            first_prompt=None,
            working_directory=working_directory,
            updated_at=now,
            **({} if start is None else {"start_commit": start}),
        )

    async def reopen(self, session_id: UUID, now: datetime) -> Session | None:
        """Bring a dead session to life, not ready; None when it is not dead any more.

        Raises:
            UniquenessLost: Its name or branch is taken.
        """
        try:
            return await self._update(
                (
                    SessionRow.id == session_id,
                    SessionRow.deleted.is_(False),
                    SessionRow.status == SessionStatus.DEAD.value,
                ),
                status=SessionStatus.INACTIVE.value,
                ready=False,
                reason=None,
                updated_at=now,
            )
        except IntegrityError as error:
            raise _refusal(error) from error

    async def rename(self, session_id: UUID, name: str, now: datetime) -> Session | None:
        """Give a session another name.

        Raises:
            UniquenessLost: A living session has it.
        """
        try:
            return await self._update(
                (SessionRow.id == session_id, SessionRow.deleted.is_(False)),
                name=name,
                updated_at=now,
            )
        except IntegrityError as error:
            raise _refusal(error) from error

    async def set_status(
        self, session_id: UUID, status: SessionStatus, now: datetime
    ) -> Session | None:
        """Say whether a living session is looked at."""
        return await self._update(
            (SessionRow.id == session_id, LIVE),
            status=status.value,
            last_activity=now,
            updated_at=now,
        )

    async def end(
        self, session_id: UUID, reason: str, now: datetime, *, seen: datetime | None = None
    ) -> Session | None:
        """Mark a living session dead; with `seen` only if it has that `updated_at` still."""
        conditions = [SessionRow.id == session_id, LIVE]
        if seen is not None:
            conditions.append(SessionRow.updated_at == seen)
        return await self._update(conditions, **_dead(reason, now))

    async def end_all(self, environment_id: UUID, reason: str, now: datetime) -> None:
        await self._change_all(
            (SessionRow.environment_id == environment_id, SessionRow.ready.is_(True), LIVE),
            **_dead(reason, now),
        )

    async def end_stopped(self, reason: str, now: datetime) -> None:
        """Mark the sessions of stopped environments dead."""
        stopped = select(ENVIRONMENTS.c.id).where(ENVIRONMENTS.c.status == "stopped")
        await self._change_all(
            (SessionRow.environment_id.in_(stopped), SessionRow.ready.is_(True), LIVE),
            **_dead(reason, now),
        )

    async def bury(self, session_id: UUID, now: datetime) -> None:
        """Mark a session deleted: it holds no name and no branch, and nobody sees it."""
        await self._update(
            (SessionRow.id == session_id,),
            DELETED,
            deleted=True,
            status=SessionStatus.DEAD.value,
            updated_at=now,
        )

    async def bury_owned(self, owner_id: UUID, session_id: UUID, now: datetime) -> Session:
        """Mark the owner's session deleted.

        Raises:
            SessionNotFound: It is absent, deleted or somebody else's.
        """
        session = await self._update(
            (SessionRow.id == session_id, _owned_by(owner_id), SessionRow.deleted.is_(False)),
            DELETED,
            deleted=True,
            status=SessionStatus.DEAD.value,
            updated_at=now,
        )
        if session is None:
            raise nothing_to_delete()
        return session

    async def remove(self, session_id: UUID) -> bool:
        """Delete a session that was marked deleted; False when it is gone."""
        statement = delete(SessionRow).where(
            SessionRow.id == session_id, SessionRow.deleted.is_(True)
        )
        result = cast("CursorResult[Any]", await self.tx.execute(statement))
        return result.rowcount > 0

    async def set_agent(self, session_id: UUID, status: AgentStatus) -> Session | None:
        """Record how a living session's agent is; the session itself counts as unchanged."""
        return await self._update(
            (SessionRow.id == session_id, SessionRow.deleted.is_(False), LIVE),
            agent_state=status.state.value,
            agent_state_since=status.since,
            agent_message=_bounded(status.message, MAX_AGENT_MESSAGE_CHARACTERS),
            agent_waits_for=_bounded(status.waits_for, MAX_WAITS_FOR_CHARACTERS),
        )

    async def touch(self, session_ids: Sequence[UUID], now: datetime) -> None:
        for start in range(0, len(session_ids), CHUNK):
            await self.tx.execute(
                update(SessionRow)
                .where(SessionRow.id.in_(session_ids[start : start + CHUNK]))
                .values(last_activity=now)
                .execution_options(synchronize_session=False)
            )

    async def detach_all(self, now: datetime) -> None:
        await self._change_all(
            (SessionRow.status == SessionStatus.ACTIVE.value,),
            status=SessionStatus.INACTIVE.value,
            updated_at=now,
        )

    async def count(self, owner_id: UUID | None) -> Counts:
        """Count an owner's sessions by status; everybody's for None."""

        def counted(status: SessionStatus) -> ColumnElement[int]:
            return func.coalesce(func.sum(case((SessionRow.status == status.value, 1), else_=0)), 0)

        statement = select(
            func.count(),
            counted(SessionStatus.ACTIVE),
            counted(SessionStatus.INACTIVE),
            counted(SessionStatus.DEAD),
        ).where(SessionRow.deleted.is_(False))
        if owner_id is not None:
            statement = statement.where(_owned_by(owner_id))
        total, active, inactive, dead = (await self.tx.execute(statement)).one()
        return Counts(total, active, inactive, dead)

    async def _one(self, *conditions: ColumnElement[bool]) -> Session | None:
        statement = select(SessionRow).where(*conditions, SessionRow.deleted.is_(False))
        row = await self.tx.scalar(statement)
        return None if row is None else _session(row)

    async def _list(self, *conditions: ColumnElement[bool]) -> list[Session]:
        statement = (
            select(SessionRow)
            .where(*conditions)
            .order_by(SessionRow.created_at.desc(), SessionRow.id)
        )
        return [_session(row) for row in await self.tx.scalars(statement)]

    async def _update(
        self, conditions: Sequence[ColumnElement[bool]], kind: str = CHANGED, **values: Any
    ) -> Session | None:
        """Change a session, and tell the owner."""
        statement = (
            update(SessionRow)
            .where(*conditions)
            .values(**values)
            .returning(SessionRow, OWNER)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        found = (await self.tx.execute(statement)).one_or_none()
        if found is None:
            return None
        row, owner_id = found
        self._tell(owner_id, kind, row.id, row.environment_id)
        return _session(row)

    async def _change_all(self, conditions: Sequence[ColumnElement[bool]], **values: Any) -> None:
        statement = (
            update(SessionRow)
            .where(*conditions)
            .values(**values)
            .returning(SessionRow.id, SessionRow.environment_id, OWNER)
            .execution_options(synchronize_session=False)
        )
        for session_id, environment_id, owner_id in await self.tx.execute(statement):
            self._tell(owner_id, CHANGED, session_id, environment_id)

    def _tell(
        self, owner_id: UUID | None, kind: str, session_id: UUID, environment_id: UUID
    ) -> None:
        if owner_id is not None:  # the environment is there as long as its sessions
            EventLog(self.tx).add(owner_id, kind, session_id, environment_id=environment_id)


def _dead(reason: str, now: datetime) -> dict[str, Any]:
    # An agent ends with its session, whoever notices it.
    ended = (AgentState.EXITED.value, AgentState.ERROR.value)
    running = SessionRow.agent_state.is_not(None) & SessionRow.agent_state.not_in(ended)
    return {
        "status": SessionStatus.DEAD.value,
        "reason": reason[:MAX_REASON_CHARACTERS],
        "agent_state": case((running, AgentState.EXITED.value), else_=SessionRow.agent_state),
        "agent_state_since": case((running, now), else_=SessionRow.agent_state_since),
        "agent_waits_for": None,
        "updated_at": now,
    }


def _bounded(text: str | None, most: int) -> str | None:
    return None if text is None else text.replace("\0", "")[:most]


def _owned_by(owner_id: UUID) -> ColumnElement[bool]:
    return SessionRow.environment_id.in_(
        select(ENVIRONMENTS.c.id).where(
            ENVIRONMENTS.c.owner_id == owner_id, ENVIRONMENTS.c.desired != "deleted"
        )
    )


def _refusal(error: IntegrityError) -> Exception:
    if violated(error, "uq_sessions_tmux_name", "sessions.environment_id, sessions.tmux_name"):
        return UniquenessLost("tmux_name")
    if violated(error, "uq_sessions_live_name", "sessions.environment_id, sessions.name"):
        return UniquenessLost("name")
    if violated(error, "uq_sessions_live_branch", "sessions.environment_id, sessions.branch_key"):
        return UniquenessLost("branch")
    if violated(error, "FOREIGN KEY", "fk_sessions_environment_id_environments"):
        return EnvironmentGone("Environment not found")
    return error
