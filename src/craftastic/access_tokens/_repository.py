"""Table and queries of personal access tokens. Private to this package (checked)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    Boolean,
    CursorResult,
    ForeignKey,
    String,
    UniqueConstraint,
    Uuid,
    column,
    delete,
    func,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime, violated
from craftastic.errors import Conflict, NotFound

MAX_NAME_CHARS = 100
TokenScope = Literal["read", "write"]

# Users are another domain's rows: known here by name, since one statement has to tell whether a
# token counts and whose it is.
USERS = table(
    "users",
    column("id", Uuid()),
    column("email", String()),
    column("name", String()),
    column("email_verified", Boolean()),
    column("is_admin", Boolean()),
    column("disabled_at", UtcDateTime()),
)


class AccessTokenNameTaken(Conflict):
    code = "ACCESS_TOKEN_NAME_IN_USE"


class AccessTokenNotFound(NotFound):
    code = "ACCESS_TOKEN_NOT_FOUND"


class AccessTokenRow(Base):
    __tablename__ = "access_tokens"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token as its owner sees it: everything but the token."""

    id: UUID
    owner_id: UUID
    name: str
    scope: TokenScope
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose token it is, and what decides whether it still counts."""

    token_id: UUID
    user_id: UUID
    email: str
    name: str
    email_verified: bool
    is_admin: bool
    disabled: bool
    scope: TokenScope
    expires_at: datetime
    last_used_at: datetime | None


def _token(row: AccessTokenRow) -> AccessToken:
    return AccessToken(
        id=row.id,
        owner_id=row.user_id,
        name=row.name,
        scope=cast("TokenScope", row.scope),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


class AccessTokenRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def lock(self, owner_id: UUID) -> bool:
        """Let one transaction at a time add to an owner's tokens; False for a disabled owner."""
        disabled_at = await self.tx.execute(
            select(USERS.c.disabled_at)
            .where(USERS.c.id == owner_id)
            .with_for_update(key_share=True)
        )
        row = disabled_at.one_or_none()
        return row is not None and row[0] is None

    async def count(self, owner_id: UUID) -> int:
        counted = await self.tx.scalar(
            select(func.count())
            .select_from(AccessTokenRow)
            .where(AccessTokenRow.user_id == owner_id)
        )
        return counted or 0

    async def add(self, row: AccessTokenRow) -> AccessToken:
        """Insert a token.

        Raises:
            AccessTokenNameTaken: The owner has one of that name.
        """
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            if violated(
                error,
                "uq_access_tokens_user_id_name",
                "access_tokens.user_id, access_tokens.name",
            ):
                raise AccessTokenNameTaken("You have an access token of that name") from error
            raise
        return _token(row)

    async def list_owned(self, owner_id: UUID) -> list[AccessToken]:
        rows = await self.tx.scalars(
            select(AccessTokenRow)
            .where(AccessTokenRow.user_id == owner_id)
            .order_by(AccessTokenRow.created_at, AccessTokenRow.id)
        )
        return [_token(row) for row in rows]

    async def remove(self, owner_id: UUID, token_id: UUID) -> AccessToken:
        """Remove the owner's token and return what it was.

        Raises:
            AccessTokenNotFound: It is absent or somebody else's.
        """
        row = await self.tx.scalar(
            delete(AccessTokenRow)
            .where(AccessTokenRow.id == token_id, AccessTokenRow.user_id == owner_id)
            .returning(AccessTokenRow)
            .execution_options(synchronize_session=False)
        )
        if row is None:
            raise AccessTokenNotFound("Access token not found")
        return _token(row)

    async def remove_all(self, owner_id: UUID) -> list[UUID]:
        """Remove an owner's tokens and return their ids."""
        gone = await self.tx.scalars(
            delete(AccessTokenRow)
            .where(AccessTokenRow.user_id == owner_id)
            .returning(AccessTokenRow.id)
        )
        return list(gone)

    async def forget_expired(self, before: datetime) -> int:
        done = await self.tx.execute(
            delete(AccessTokenRow).where(AccessTokenRow.expires_at < before)
        )
        return cast("CursorResult[Any]", done).rowcount

    async def bearer_of(self, token_hash: str) -> Bearer | None:
        return await self._bearer(AccessTokenRow.token_hash == token_hash)

    async def bearer(self, token_id: UUID) -> Bearer | None:
        return await self._bearer(AccessTokenRow.id == token_id)

    async def used(self, token_id: UUID, at: datetime, stale: datetime) -> None:
        """Write that a token was used, unless that was written after `stale`."""
        await self.tx.execute(
            update(AccessTokenRow)
            .where(
                AccessTokenRow.id == token_id,
                or_(AccessTokenRow.last_used_at.is_(None), AccessTokenRow.last_used_at < stale),
            )
            .values(last_used_at=at)
        )

    async def _bearer(self, which: Any) -> Bearer | None:
        statement = (
            select(
                AccessTokenRow.id,
                AccessTokenRow.scope,
                AccessTokenRow.expires_at,
                AccessTokenRow.last_used_at,
                USERS,
            )
            .join(USERS, USERS.c.id == AccessTokenRow.user_id)
            .where(which)
        )
        row = (await self.tx.execute(statement)).one_or_none()
        if row is None:
            return None
        token_id, scope, expires_at, last_used_at, user_id, email, name, verified, admin, off = row
        return Bearer(
            token_id=token_id,
            user_id=user_id,
            email=email,
            name=name,
            email_verified=verified,
            is_admin=admin,
            disabled=off is not None,
            scope=scope,
            expires_at=expires_at,
            last_used_at=last_used_at,
        )
