"""Leases of pane pipes, and tickets of terminals. Private to this package."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, ForeignKey, String, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime

SKEW = timedelta(seconds=60)
"""How far clocks of several servers may differ."""


class TerminalLease(Base):
    """At most one per session; whoever holds it reads the pane's one pipe.

    `fence` grows with every change of the holder: a holder that slept through the end of its
    lease renews nothing.
    """

    __tablename__ = "terminal_leases"

    # No foreign key: a lease may outlive its session by its few seconds.
    session_id: Mapped[UUID] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    fence: Mapped[int] = mapped_column(default=1)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class TerminalTicket(Base):
    """The right to open one session's terminal once, within seconds; only its hash is kept.

    It is worth what its caller's sign-in, or access token, is worth when it is used.
    """

    __tablename__ = "terminal_tickets"

    ticket_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # No foreign keys: the row lives for seconds, and what it names may end before it.
    session_id: Mapped[UUID]
    sign_in_id: Mapped[UUID]
    token_version: Mapped[int | None]
    scope: Mapped[str] = mapped_column(String(16))
    origin_hash: Mapped[str | None] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class TicketRepository:
    tx: Transaction

    async def count(self, user_id: UUID) -> int:
        count = select(func.count()).where(TerminalTicket.user_id == user_id)
        return await self.tx.scalar(count) or 0

    async def add(self, ticket: TerminalTicket) -> None:
        self.tx.add(ticket)
        await self.tx.flush()

    async def take(self, ticket_hash: str) -> TerminalTicket | None:
        """Return a ticket and forget it; of many at once exactly one gets it."""
        return await self.tx.scalar(
            delete(TerminalTicket)
            .where(TerminalTicket.ticket_hash == ticket_hash)
            .returning(TerminalTicket)
        )

    async def forget_expired(self, now: datetime) -> None:
        await self.tx.execute(delete(TerminalTicket).where(TerminalTicket.expires_at <= now))


@dataclass(frozen=True, slots=True)
class LeaseRepository:
    tx: Transaction

    async def acquire(
        self, session_id: UUID, holder: str, now: datetime, expires_at: datetime
    ) -> int | None:
        """Take the lease if it is free, expired or the holder's own.

        Returns:
            Its fence, or None while somebody else holds it.
        """
        taken = await self.tx.execute(
            update(TerminalLease)
            .where(
                TerminalLease.session_id == session_id,
                or_(
                    TerminalLease.holder == holder,
                    TerminalLease.expires_at <= now,
                    # No lease lasts that long: the clock has gone back since it was taken.
                    TerminalLease.expires_at > expires_at + SKEW,
                ),
            )
            .values(holder=holder, fence=TerminalLease.fence + 1, expires_at=expires_at)
        )
        if cast("CursorResult[Any]", taken).rowcount == 0:
            lease = TerminalLease(
                session_id=session_id, holder=holder, fence=1, expires_at=expires_at
            )
            try:
                async with self.tx.begin_nested():
                    self.tx.add(lease)
            except IntegrityError:
                return None
            return 1
        return await self.tx.scalar(
            select(TerminalLease.fence).where(TerminalLease.session_id == session_id)
        )

    async def renew(
        self, holder: str, fences: dict[UUID, int], now: datetime, expires_at: datetime
    ) -> set[UUID]:
        """Renew the holder's leases; return those that it has lost."""
        mine = (
            TerminalLease.holder == holder,
            TerminalLease.session_id.in_(fences),
            TerminalLease.expires_at > now,
        )
        rows = await self.tx.execute(
            select(TerminalLease.session_id, TerminalLease.fence).where(*mine)
        )
        kept = {session_id for session_id, fence in rows if fences[session_id] == fence}
        if kept:
            await self.tx.execute(
                update(TerminalLease)
                .where(TerminalLease.holder == holder, TerminalLease.session_id.in_(kept))
                .values(expires_at=expires_at)
            )
        return fences.keys() - kept

    async def release(self, holder: str, session_ids: Sequence[UUID]) -> None:
        await self.tx.execute(
            delete(TerminalLease).where(
                TerminalLease.holder == holder, TerminalLease.session_id.in_(session_ids)
            )
        )

    async def forget_expired(self, before: datetime) -> None:
        await self.tx.execute(delete(TerminalLease).where(TerminalLease.expires_at < before))
