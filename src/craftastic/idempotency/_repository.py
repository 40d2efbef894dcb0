"""Keys of requests that create something, and what was answered. Private to this package."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    CursorResult,
    ForeignKey,
    LargeBinary,
    String,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime

SKEW = timedelta(seconds=60)
"""How far clocks of several servers may differ."""


class IdempotencyKey(Base):
    """One key of one user at one route.

    While the request goes on, `status` is null and `expires_at` near: the process that works on
    it puts it off, and when that process dies the key is free again. With the answer it becomes
    the end of the time for which the answer is given once more.
    """

    __tablename__ = "idempotency_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(32))
    status: Mapped[int | None]
    media_type: Mapped[str | None] = mapped_column(String(100))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class KeyRepository:
    tx: Transaction

    async def count(self, user_id: UUID) -> int:
        count = select(func.count()).where(IdempotencyKey.user_id == user_id)
        return await self.tx.scalar(count) or 0

    async def find(self, key_id: str) -> IdempotencyKey | None:
        return await self.tx.get(IdempotencyKey, key_id)

    async def claim(self, key: IdempotencyKey, now: datetime) -> bool:
        """Take a key if it is new or its time is over; False when somebody has it."""
        taken = await self.tx.execute(
            update(IdempotencyKey)
            .where(
                IdempotencyKey.id == key.id,
                or_(
                    IdempotencyKey.expires_at <= now,
                    # No request has a key for so long: the clock has gone back since.
                    and_(
                        IdempotencyKey.status.is_(None),
                        IdempotencyKey.expires_at > key.expires_at + SKEW,
                    ),
                ),
            )
            .values(
                fingerprint=key.fingerprint,
                holder=key.holder,
                status=None,
                media_type=None,
                body=None,
                expires_at=key.expires_at,
            )
        )
        if cast("CursorResult[Any]", taken).rowcount == 1:
            return True
        try:
            async with self.tx.begin_nested():
                self.tx.add(key)
        except IntegrityError:
            return False
        return True

    async def finish(
        self, key: IdempotencyKey, status: int, media_type: str | None, body: bytes, until: datetime
    ) -> None:
        await self.tx.execute(
            update(IdempotencyKey)
            .where(*_held(key))
            .values(status=status, media_type=media_type, body=body, expires_at=until)
        )

    async def release(self, key: IdempotencyKey) -> None:
        await self.tx.execute(delete(IdempotencyKey).where(*_held(key)))

    async def put_off(self, holder: str, key_ids: Collection[str], until: datetime) -> None:
        await self.tx.execute(
            update(IdempotencyKey)
            .where(
                IdempotencyKey.id.in_(key_ids),
                IdempotencyKey.holder == holder,
                IdempotencyKey.status.is_(None),
            )
            .values(expires_at=until)
        )

    async def forget_expired(self, now: datetime) -> None:
        await self.tx.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= now))


def _held(key: IdempotencyKey) -> tuple[Any, ...]:
    return (
        IdempotencyKey.id == key.id,
        IdempotencyKey.holder == key.holder,
        IdempotencyKey.status.is_(None),
    )
