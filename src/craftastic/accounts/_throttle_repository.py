"""Tables and statements of counted attempts. Private to this package (checked)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    Uuid,
    case,
    column,
    delete,
    exists,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime

# By name: the table itself is in the module that forgets what has expired, these rows among it.
SKEW_MS = 60_000
"""How far clocks of several servers may differ. More than that cannot be owed: then the clock has
gone back since, and nobody is to wait until it is where it was."""

USERS = table("users", column("id", Uuid()), column("email", String()))


class ThrottleRow(Base):
    """One counter of attempts; its key is a hash of what is counted."""

    __tablename__ = "throttles"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int]
    # Of failures: when the last one was. Of a rate: until when what was tried is paid for.
    at_ms: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class KnownClient(Base):
    """Where a user was signed in from before."""

    __tablename__ = "known_clients"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    client: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class Failures:
    count: int
    at_ms: int


def insert_of(tx: Transaction) -> Any:
    """Return the database's own `insert`: what to do with a row that is there is not standard."""
    is_postgresql = tx.get_bind().dialect.name == "postgresql"
    return postgresql.insert if is_postgresql else sqlite.insert


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class ThrottleRepository:
    """Counters of attempts, and what was signed in from before.

    Each change is one statement, so that no two attempts at once count as one.
    """

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def charge(self, key: str, at: datetime, step_ms: int, spare_ms: int) -> int:
        """Let an attempt cost `step_ms` of time, unless more than `spare_ms` is owed by then.

        Returns:
            How long to wait for the next attempt, in milliseconds; 0 when this one counts.
        """
        now_ms = _ms(at)
        expires_at = at + timedelta(milliseconds=spare_ms + step_ms)
        statement = insert_of(self.tx)(ThrottleRow).values(
            key=key, failures=0, at_ms=now_ms + step_ms, expires_at=expires_at
        )
        most_ms = now_ms + spare_ms + step_ms + SKEW_MS
        owed_until = case(
            (ThrottleRow.at_ms.between(now_ms, most_ms), ThrottleRow.at_ms), else_=now_ms
        )
        counted = await self.tx.scalar(
            statement.on_conflict_do_update(
                index_elements=["key"],
                set_={"at_ms": owed_until + step_ms, "expires_at": expires_at},
                where=or_(ThrottleRow.at_ms <= now_ms + spare_ms, ThrottleRow.at_ms > most_ms),
            ).returning(ThrottleRow.at_ms)
        )
        return 0 if counted is not None else await self.until(key) - now_ms - spare_ms

    async def take_back(self, key: str, step_ms: int) -> None:
        await self.tx.execute(
            update(ThrottleRow)
            .where(ThrottleRow.key == key)
            .values(at_ms=ThrottleRow.at_ms - step_ms)
        )

    async def until(self, key: str) -> int:
        """Return until when what was tried is paid for, in milliseconds since 1970; else 0."""
        found = await self.tx.scalar(select(ThrottleRow.at_ms).where(ThrottleRow.key == key))
        return found or 0

    async def failures(self, keys: Sequence[str], at: datetime) -> dict[str, Failures]:
        found = await self.tx.execute(
            select(ThrottleRow.key, ThrottleRow.failures, ThrottleRow.at_ms).where(
                ThrottleRow.key.in_(keys), ThrottleRow.expires_at > at
            )
        )
        return {row.key: Failures(row.failures, row.at_ms) for row in found}

    async def fail(self, key: str, at: datetime, ttl_s: float) -> None:
        """Count one more failure; those that have expired count no more."""
        values = {"at_ms": _ms(at), "expires_at": at + timedelta(seconds=ttl_s)}
        statement = insert_of(self.tx)(ThrottleRow).values(key=key, failures=1, **values)
        failures = case((ThrottleRow.expires_at > at, ThrottleRow.failures + 1), else_=1)
        await self.tx.execute(
            statement.on_conflict_do_update(
                index_elements=["key"], set_={"failures": failures, **values}
            )
        )

    async def forget(self, key: str) -> None:
        await self.tx.execute(delete(ThrottleRow).where(ThrottleRow.key == key))

    async def is_known(self, email: str, client: str) -> bool:
        """Tell whether the account of an address was signed in from there before."""
        return bool(
            await self.tx.scalar(
                select(
                    exists().where(
                        KnownClient.client == client,
                        KnownClient.user_id == USERS.c.id,
                        USERS.c.email == email,
                    )
                )
            )
        )

    async def note_known(
        self, user_id: UUID, client: str, at: datetime, ttl_s: float, most: int
    ) -> None:
        """Note where a user was signed in from; of more than `most` places the oldest go."""
        values = {"last_seen_at": at, "expires_at": at + timedelta(seconds=ttl_s)}
        statement = insert_of(self.tx)(KnownClient).values(user_id=user_id, client=client, **values)
        await self.tx.execute(
            statement.on_conflict_do_update(index_elements=["user_id", "client"], set_=values)
        )
        newest = (
            select(KnownClient.client)
            .where(KnownClient.user_id == user_id)
            .order_by(KnownClient.last_seen_at.desc())
            .limit(most)
        )
        await self.tx.execute(
            delete(KnownClient)
            .where(KnownClient.user_id == user_id, KnownClient.client.not_in(newest))
            .execution_options(synchronize_session=False)
        )

    async def forget_known(self, user_id: UUID) -> None:
        await self.tx.execute(delete(KnownClient).where(KnownClient.user_id == user_id))
