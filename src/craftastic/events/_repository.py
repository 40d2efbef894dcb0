"""Tables and queries of events. Private to this package (checked)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    Double,
    Executable,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction


class EventHeadRow(Base):
    """One row for each owner: where their events end, whatever of them is still kept.

    Whoever writes events changes this row first, and so the next one waits for the commit: an
    owner's numbers have no gaps, and become visible in their order.
    """

    __tablename__ = "event_heads"

    owner_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(BigInteger)
    tag: Mapped[str] = mapped_column(String(16))


class EventRow(Base):
    __tablename__ = "events"
    __table_args__ = (Index("ix_events_created_at", "created_at"),)

    owner_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Random: tells an event from another that had its number before a backup was put back.
    tag: Mapped[str] = mapped_column(String(16))
    type: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    # Seconds since 1970 by the database's clock: what writes events has no clock of its own.
    created_at: Mapped[float] = mapped_column(Double)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in one owner's events: right after the event of this number and tag."""

    seq: int
    tag: str


BEGINNING = Place(0, "0")
"""Before the first event."""


@dataclass(frozen=True, slots=True)
class Event:
    place: Place
    type: str
    body: str


class EventRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def append(self, owner_id: UUID, tag: str, events: Sequence[tuple[str, str]]) -> None:
        """Put events, each a type and a body, at the end of an owner's.

        Others that write events of the same owner wait until this transaction ends.
        """
        connection = await self.tx.connection()
        moved = await connection.execute(
            self._dialect.move_head, {"owner_id": owner_id, "count": len(events), "tag": tag}
        )
        first = moved.scalar_one() - len(events) + 1
        await connection.execute(
            self._dialect.insert,
            [
                {"owner_id": owner_id, "seq": seq, "tag": tag, "type": kind, "body": body}
                for seq, (kind, body) in enumerate(events, first)
            ],
        )

    async def head(self, owner_id: UUID) -> Place:
        """Return where the owner's events end."""
        found = await self.tx.execute(
            select(EventHeadRow.seq, EventHeadRow.tag).where(EventHeadRow.owner_id == owner_id)
        )
        row = found.one_or_none()
        return BEGINNING if row is None else Place(row.seq, row.tag)

    async def heads(self, owner_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return the number of each owner's last event; owners without events are left out."""
        found = await self.tx.execute(
            select(EventHeadRow.owner_id, EventHeadRow.seq).where(
                EventHeadRow.owner_id.in_(owner_ids)
            )
        )
        return {row.owner_id: row.seq for row in found}

    async def is_whole_after(self, owner_id: UUID, place: Place) -> bool:
        """Tell whether the place was one, and everything that followed it is still there."""
        head = await self.head(owner_id)
        if place.seq >= head.seq:
            return place == head
        found = await self.tx.execute(
            select(EventRow.seq, EventRow.tag).where(
                EventRow.owner_id == owner_id, EventRow.seq.in_([place.seq, place.seq + 1])
            )
        )
        tags = {row.seq: row.tag for row in found}
        if place.seq + 1 not in tags:
            return False
        return tags.get(place.seq, BEGINNING.tag if place.seq == 0 else None) == place.tag

    async def after(self, owner_id: UUID, seq: int, limit: int) -> list[Event]:
        """Return the events that follow a number, oldest first."""
        found = await self.tx.execute(
            select(EventRow.seq, EventRow.tag, EventRow.type, EventRow.body)
            .where(EventRow.owner_id == owner_id, EventRow.seq > seq)
            .order_by(EventRow.seq)
            .limit(limit)
        )
        return [Event(Place(row.seq, row.tag), row.type, row.body) for row in found]

    async def forget(self, older_than_s: float, most_per_owner: int) -> int:
        """Delete what is too old, and what is beyond the newest of an owner; return how many."""
        last = (
            select(EventHeadRow.seq)
            .where(EventHeadRow.owner_id == EventRow.owner_id)
            .correlate(EventRow)
            .scalar_subquery()
        )
        done = await self.tx.execute(
            delete(EventRow)
            .where(
                or_(
                    EventRow.created_at < self._dialect.now - older_than_s,
                    EventRow.seq <= last - most_per_owner,
                )
            )
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", done).rowcount

    @property
    def _dialect(self) -> "_Dialect":
        return _DIALECTS[self.tx.get_bind().dialect.name]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What is said differently to each database; made once, since every change pays for it."""

    now: ColumnElement[float]
    move_head: Executable
    insert: Executable


def _dialect(make: Callable[..., Any], now: str) -> _Dialect:
    count = bindparam("count", type_=BigInteger())
    head = make(EventHeadRow).values(
        owner_id=bindparam("owner_id"), seq=count, tag=bindparam("tag")
    )
    moved = head.on_conflict_do_update(
        index_elements=[EventHeadRow.owner_id],
        set_={"seq": EventHeadRow.seq + count, "tag": head.excluded.tag},
    )
    clock: ColumnElement[float] = literal_column(now, Double[float]())
    return _Dialect(
        now=clock,
        move_head=moved.returning(EventHeadRow.seq),
        insert=insert(cast("Table", EventRow.__table__)).values(created_at=clock),
    )


_DIALECTS = {
    "postgresql": _dialect(postgresql.insert, "extract(epoch from clock_timestamp())"),
    "sqlite": _dialect(sqlite.insert, "((julianday('now') - 2440587.5) * 86400.0)"),
}
"""Times are seconds since 1970 by the database's own clock, which all server processes share."""
