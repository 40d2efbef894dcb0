"""Table and queries of the audit log. Private to this package (checked)."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, Text, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.audit._chain import NOTHING_BEFORE, Entry, chained
from craftastic.database import Base, Transaction, UtcDateTime

APPEND_LOCK = 7_201_533_003
"""Key of PostgreSQL's advisory lock under which events are appended, one at a time."""

HEAD_ID = 1


class AuditEventRow(Base):
    """Rows are inserted and never changed; the actor is no foreign key, so it outlives accounts."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_actor_id_seq", "actor_id", "seq"),)

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(String(64))
    object_type: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str | None] = mapped_column(String(255))
    outcome: Mapped[str] = mapped_column(String(32))
    request_id: Mapped[str | None] = mapped_column(String(128))
    details: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditHeadRow(Base):
    """One row: where the log ends, so that missing events at its end show too."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))


class AuditRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def append(self, entries: Sequence[Entry]) -> None:
        """Put events at the end, in their order; others wait until this commits."""
        if self.tx.get_bind().dialect.name == "postgresql":
            await self.tx.execute(select(func.pg_advisory_xact_lock(APPEND_LOCK)))
        # A statement of its own after the lock: it sees what the holder before has committed.
        last, previous = await self.head() or (0, NOTHING_BEFORE)
        first = last == 0
        for one in entries:
            last += 1
            row = AuditEventRow(
                seq=last,
                at=one.at,
                actor_id=one.actor_id,
                action=one.action,
                object_type=one.object_type,
                object_id=one.object_id,
                outcome=one.outcome,
                request_id=one.request_id,
                details=one.details,
                previous_hash=previous,
                hash=chained(last, previous, one),
            )
            self.tx.add(row)
            previous = row.hash
        await self._move_head(last, previous, first=first)
        await self.tx.flush()

    async def head(self) -> tuple[int, str] | None:
        """Return the last event's number and hash; None while there is no event."""
        found = await self.tx.execute(
            select(AuditHeadRow.seq, AuditHeadRow.hash).where(AuditHeadRow.id == HEAD_ID)
        )
        row = found.one_or_none()
        return None if row is None else (row.seq, row.hash)

    async def count(self) -> int:
        return await self.tx.scalar(select(func.count()).select_from(AuditEventRow)) or 0

    async def after(self, seq: int, limit: int) -> Sequence[AuditEventRow]:
        """Return the events that follow a number, oldest first."""
        found = await self.tx.scalars(
            select(AuditEventRow)
            .where(AuditEventRow.seq > seq)
            .order_by(AuditEventRow.seq)
            .limit(limit)
        )
        return found.all()

    async def page(
        self, before: int | None, limit: int, *, actor_id: UUID | None, action: str | None
    ) -> Sequence[AuditEventRow]:
        """Return events, newest first: of one actor, of one action or domain, or of all."""
        statement = select(AuditEventRow)
        if actor_id is not None:
            statement = statement.where(AuditEventRow.actor_id == actor_id)
        if action is not None:
            # A domain stands for all of its actions; no wildcard of the caller's reaches LIKE.
            statement = statement.where(
                (AuditEventRow.action == action)
                | AuditEventRow.action.startswith(f"{action}.", autoescape=True)
            )
        if before is not None:
            statement = statement.where(AuditEventRow.seq < before)
        found = await self.tx.scalars(statement.order_by(AuditEventRow.seq.desc()).limit(limit))
        return found.all()

    async def _move_head(self, seq: int, digest: str, *, first: bool) -> None:
        if first:
            self.tx.add(AuditHeadRow(id=HEAD_ID, seq=seq, hash=digest))
            return
        await self.tx.execute(
            update(AuditHeadRow).where(AuditHeadRow.id == HEAD_ID).values(seq=seq, hash=digest)
        )
