"""Tables and queries of connections, hooks and pauses. Private to this package (checked)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Double,
    ForeignKey,
    String,
    UniqueConstraint,
    Uuid,
    case,
    column,
    delete,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.coolify._answers import Abilities
from craftastic.coolify._model import SERVER, Connection, Finding, Hook, Known, Problem
from craftastic.database import Base, DatabaseNow, Transaction, UtcDateTime
from craftastic.events.service import EventLog

MAX_URL_CHARS = 300
MAX_VERSION_CHARS = 64
MAX_CODE_CHARS = 64
MAX_PROBLEM_CHARS = 1000
MAX_KEY_CHARS = 64

# Users are another domain's rows: known here by name, to let one request of theirs at a time in.
USERS = table("users", column("id", Uuid()))


class ConnectionRow(Base):
    """One user's own connection; one to another address is another row."""

    __tablename__ = "coolify_connections"
    __table_args__ = (UniqueConstraint("owner_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(String(MAX_URL_CHARS))
    # Without its token a connection is nothing; a user's removal takes both, in any order.
    secret_id: Mapped[UUID] = mapped_column(
        ForeignKey("secrets.id", ondelete="CASCADE"), index=True
    )
    version: Mapped[str | None] = mapped_column(String(MAX_VERSION_CHARS))
    can_read: Mapped[bool]
    can_deploy: Mapped[bool]
    can_read_sensitive: Mapped[bool | None]
    problem_code: Mapped[str | None] = mapped_column(String(MAX_CODE_CHARS))
    problem: Mapped[str | None] = mapped_column(String(MAX_PROBLEM_CHARS))
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class HookRow(Base):
    """The hash of a hook's key. Its slot is its owner's id, or `server`: one for each."""

    __tablename__ = "coolify_hooks"
    __table_args__ = (UniqueConstraint("key_hash"),)

    slot: Mapped[str] = mapped_column(String(MAX_KEY_CHARS), primary_key=True)
    owner_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    key_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PauseRow(Base):
    """Until when a connection is not to be used, in the database's seconds."""

    __tablename__ = "coolify_pauses"

    key: Mapped[str] = mapped_column(String(MAX_KEY_CHARS), primary_key=True)
    until: Mapped[float] = mapped_column(Double)


class ConnectionRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def lock(self, owner_id: UUID) -> None:
        """Let one transaction at a time change an owner's connection."""
        await self.tx.execute(
            select(USERS.c.id).where(USERS.c.id == owner_id).with_for_update(key_share=True)
        )

    async def find(self, owner_id: UUID) -> Connection | None:
        row = await self.tx.scalar(
            select(ConnectionRow)
            .where(ConnectionRow.owner_id == owner_id)
            .execution_options(populate_existing=True)
        )
        return None if row is None else _connection(row)

    async def add(
        self, owner_id: UUID, url: str, secret_id: UUID, finding: Finding, now: datetime
    ) -> Connection:
        row = ConnectionRow(
            owner_id=owner_id,
            url=url,
            secret_id=secret_id,
            created_at=now,
            updated_at=now,
            **_found(finding, now),
        )
        self.tx.add(row)
        await self.tx.flush()
        self._tell(owner_id)
        return _connection(row)

    async def renewed(
        self, connection: Connection, secret_id: UUID, finding: Finding, now: datetime
    ) -> None:
        """Write that a connection has a new token."""
        await self.tx.execute(
            update(ConnectionRow)
            .where(ConnectionRow.id == connection.id)
            .values(secret_id=secret_id, updated_at=now, **_found(finding, now))
        )
        self._tell(connection.owner_id)

    async def checked(self, connection: Connection, finding: Finding, now: datetime) -> bool:
        """Write what a look found; False when there is another token or none by now."""
        return await self._changed(connection, _found(finding, now))

    async def failed(self, connection: Connection, problem: Problem, now: datetime) -> bool:
        """Write that a look found nothing, and why; False as for `checked`."""
        values = {
            "problem_code": problem.code[:MAX_CODE_CHARS],
            "problem": problem.message[:MAX_PROBLEM_CHARS],
            "checked_at": now,
        }
        return await self._changed(connection, values)

    async def remove(self, owner_id: UUID) -> Connection | None:
        """Delete an owner's connection and its pause; return what it was."""
        row = await self.tx.scalar(
            delete(ConnectionRow).where(ConnectionRow.owner_id == owner_id).returning(ConnectionRow)
        )
        if row is None:
            return None
        await self.tx.execute(delete(PauseRow).where(PauseRow.key == str(row.id)))
        self._tell(owner_id)
        return _connection(row)

    async def _changed(self, connection: Connection, values: Mapping[str, Any]) -> bool:
        statement = (
            update(ConnectionRow)
            .where(
                ConnectionRow.id == connection.id, ConnectionRow.secret_id == connection.secret_id
            )
            .values(**values)
            .returning(ConnectionRow.id)
            .execution_options(synchronize_session=False)
        )
        if await self.tx.scalar(statement) is None:
            return False
        self._tell(connection.owner_id)
        return True

    def _tell(self, owner_id: UUID) -> None:
        EventLog(self.tx).add(owner_id, "coolify.changed", owner_id)


class HookRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def put(self, owner_id: UUID | None, key_hash: str, now: datetime) -> None:
        """Store a new key in the place of the one that is there."""
        values = {"key_hash": key_hash, "created_at": now, "last_used_at": None}
        statement = _insert_of(self.tx)(HookRow).values(
            slot=_slot(owner_id), owner_id=owner_id, **values
        )
        await self.tx.execute(statement.on_conflict_do_update(index_elements=["slot"], set_=values))
        self._tell(owner_id)

    async def find(self, owner_id: UUID | None) -> Hook | None:
        row = await self.tx.scalar(select(HookRow).where(HookRow.slot == _slot(owner_id)))
        return None if row is None else _hook(row)

    async def find_by_hash(self, key_hash: str) -> Hook | None:
        row = await self.tx.scalar(select(HookRow).where(HookRow.key_hash == key_hash))
        return None if row is None else _hook(row)

    async def used(self, key_hash: str, now: datetime, stale: datetime) -> None:
        """Write that a key was used, unless that was written after `stale`."""
        await self.tx.execute(
            update(HookRow)
            .where(
                HookRow.key_hash == key_hash,
                or_(HookRow.last_used_at.is_(None), HookRow.last_used_at < stale),
            )
            .values(last_used_at=now)
        )

    async def remove(self, owner_id: UUID | None) -> bool:
        """Delete a hook; False when there was none."""
        found = await self.tx.scalar(
            delete(HookRow).where(HookRow.slot == _slot(owner_id)).returning(HookRow.slot)
        )
        if found is not None:
            self._tell(owner_id)
        return found is not None

    def _tell(self, owner_id: UUID | None) -> None:
        if owner_id is not None:
            EventLog(self.tx).add(owner_id, "coolify.changed", owner_id)


class PauseRepository:
    """Pauses hold for all server processes, by the one clock that they share."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def put(self, key: str, seconds: float) -> None:
        """Let a connection rest; a longer pause that is there stays, one that is over goes."""
        statement = _insert_of(self.tx)(PauseRow).values(key=key, until=DatabaseNow() + seconds)
        until = statement.excluded.until
        later = case((PauseRow.until > until, PauseRow.until), else_=until)
        await self.tx.execute(
            statement.on_conflict_do_update(index_elements=["key"], set_={"until": later})
        )
        # Connections come and go; what others are at work on is left to them.
        over = (
            select(PauseRow.key)
            .where(PauseRow.until < DatabaseNow(), PauseRow.key != key)
            .with_for_update(skip_locked=True)
        )
        await self.tx.execute(
            delete(PauseRow)
            .where(PauseRow.key.in_(over))
            .execution_options(synchronize_session=False)
        )

    async def left(self, key: str) -> float:
        """Return how many seconds a connection still rests; 0.0 when it does not."""
        found = await self.tx.scalar(
            select(PauseRow.until - DatabaseNow()).where(PauseRow.key == key)
        )
        return max(0.0, found or 0.0)


def _found(finding: Finding, now: datetime) -> dict[str, Any]:
    version = finding.version
    return {
        "version": None if version is None else version[:MAX_VERSION_CHARS],
        "can_read": finding.abilities.read,
        "can_deploy": finding.abilities.deploy,
        "can_read_sensitive": finding.abilities.read_sensitive,
        "problem_code": None,
        "problem": None,
        "checked_at": now,
    }


def _connection(row: ConnectionRow) -> Connection:
    code, text = row.problem_code, row.problem
    problem = None if code is None else Problem(code, text or code)
    return Connection(
        id=row.id,
        owner_id=row.owner_id,
        url=row.url,
        secret_id=row.secret_id,
        known=Known(
            row.version,
            Abilities(row.can_read, row.can_deploy, row.can_read_sensitive),
            problem,
            row.checked_at,
        ),
    )


def _hook(row: HookRow) -> Hook:
    return Hook(row.owner_id, row.created_at, row.last_used_at)


def _slot(owner_id: UUID | None) -> str:
    return SERVER if owner_id is None else str(owner_id)


def _insert_of(tx: Transaction) -> Any:
    """Return the database's own `insert`: what to do with a row that is there is not standard."""
    is_postgresql = tx.get_bind().dialect.name == "postgresql"
    return postgresql.insert if is_postgresql else sqlite.insert
