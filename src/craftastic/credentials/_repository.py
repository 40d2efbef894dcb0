"""Table and queries of secrets. Private to this package (checked)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    CursorResult,
    ForeignKey,
    String,
    Text,
    Uuid,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime

KEYS_LOCK = 7_201_533_002
"""Key of PostgreSQL's advisory lock: shared by who encrypts, alone for who changes the keys."""


class SecretRow(Base):
    """The product's only ciphertext; other tables hold the ids of these rows."""

    __tablename__ = "secrets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    # The type is given: it would follow from the other table, which a command may not have loaded,
    # and on SQLite the id would come back as a text then.
    owner_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    purpose: Mapped[str] = mapped_column(String(64))
    value: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SecretRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def hold_keys(self, *, alone: bool = False) -> None:
        """Keep the keys as they are until the transaction ends.

        Without it a secret could be written under a key that is removed in the same moment. On
        SQLite there is one writer at a time anyhow.
        """
        if self.tx.get_bind().dialect.name == "postgresql":
            lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
            await self.tx.execute(select(lock(KEYS_LOCK)))

    async def add(self, row: SecretRow) -> None:
        self.tx.add(row)
        await self.tx.flush()

    async def find(self, owner_id: UUID, secret_id: UUID) -> str | None:
        return await self.tx.scalar(
            select(SecretRow.value).where(SecretRow.id == secret_id, SecretRow.owner_id == owner_id)
        )

    async def find_many(self, owner_id: UUID, ids: Sequence[UUID]) -> dict[UUID, str]:
        found = await self.tx.execute(
            select(SecretRow.id, SecretRow.value).where(
                SecretRow.id.in_(ids), SecretRow.owner_id == owner_id
            )
        )
        return {row.id: row.value for row in found}

    async def replace(
        self, owner_id: UUID, secret_id: UUID, purpose: str, value: str, key_id: str, at: datetime
    ) -> bool:
        statement = (
            update(SecretRow)
            .where(
                SecretRow.id == secret_id,
                SecretRow.owner_id == owner_id,
                SecretRow.purpose == purpose,
            )
            .values(value=value, key_id=key_id, updated_at=at)
        )
        return await self._changed(statement) == 1

    async def remove(self, owner_id: UUID, secret_id: UUID) -> None:
        await self.tx.execute(
            delete(SecretRow).where(SecretRow.id == secret_id, SecretRow.owner_id == owner_id)
        )

    async def has_any(self) -> bool:
        return bool(await self.tx.scalar(select(exists().where(SecretRow.id.is_not(None)))))

    async def counts(self) -> dict[str, int]:
        """Count the secrets under each key."""
        found = await self.tx.execute(
            select(SecretRow.key_id, func.count()).group_by(SecretRow.key_id)
        )
        return dict(found.all())

    async def under_other_keys(
        self, key_id: str, after: UUID | None, limit: int
    ) -> Sequence[SecretRow]:
        """Return secrets that are not under this key, in the order of their ids."""
        statement = select(SecretRow).where(SecretRow.key_id != key_id)
        if after is not None:
            statement = statement.where(SecretRow.id > after)
        return (await self.tx.scalars(statement.order_by(SecretRow.id).limit(limit))).all()

    async def move(self, secret_id: UUID, before: str, value: str, key_id: str) -> bool:
        """Put the same secret under another key, unless it has changed since it was read."""
        statement = (
            update(SecretRow)
            .where(SecretRow.id == secret_id, SecretRow.value == before)
            .values(value=value, key_id=key_id)
        )
        return await self._changed(statement) == 1

    async def _changed(self, statement: Any) -> int:
        return cast("CursorResult[Any]", await self.tx.execute(statement)).rowcount
