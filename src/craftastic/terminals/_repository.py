"""Leases of pane pipes: which server process holds a session's. Private to this package."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, String, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime


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
                or_(TerminalLease.holder == holder, TerminalLease.expires_at <= now),
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
