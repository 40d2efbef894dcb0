"""Tables and queries of accounts. Private to this package (checked)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, ForeignKey, Index, String, delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime, violated
from craftastic.errors import Conflict, InvalidInput


class EmailTaken(InvalidInput):
    code = "EMAIL_TAKEN"


class NotTheFirst(Conflict):
    """Another first account was made at the same moment."""

    code = "FIRST_ACCOUNT_EXISTS"


class User(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    email_verified: Mapped[bool] = mapped_column(default=False)
    is_admin: Mapped[bool] = mapped_column(default=False)
    # True for the account made with the one-time token, else null: the unique index lets one in.
    founder: Mapped[bool | None] = mapped_column(unique=True)
    token_version: Mapped[int] = mapped_column(default=1)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SignIn(Base):
    """One login on one device: the family that its refresh tokens belong to."""

    __tablename__ = "sign_ins"
    __table_args__ = (Index("ix_sign_ins_user_id", "user_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    user_agent: Mapped[str | None] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RefreshToken(Base):
    __tablename__ = "refresh_tokens"
    __table_args__ = (Index("ix_refresh_tokens_sign_in_id", "sign_in_id"),)

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    sign_in_id: Mapped[UUID] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Invitation(Base):
    __tablename__ = "invitations"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    email: Mapped[str | None] = mapped_column(String(254))
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    used_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether an access token still counts."""

    user_id: UUID
    email: str
    name: str
    email_verified: bool
    is_admin: bool
    token_version: int
    alive: bool


class AccountRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def count(self) -> int:
        return await self.tx.scalar(select(func.count()).select_from(User)) or 0

    async def has_founder(self) -> bool:
        return bool(await self.tx.scalar(select(exists().where(User.founder.is_(True)))))

    async def add(self, user: User) -> User:
        """Insert the account.

        Raises:
            EmailTaken: An account has that address.
            NotTheFirst: It claims to be the first, and another one is.
        """
        self.tx.add(user)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            if violated(error, "uq_users_founder", "users.founder"):
                raise NotTheFirst("The first account exists already") from error
            raise EmailTaken("User with this email already exists") from error
        return user

    async def find_by_email(self, email: str) -> User | None:
        return await self.tx.scalar(select(User).where(User.email == email))

    async def find(self, user_id: UUID) -> User | None:
        return await self.tx.get(User, user_id)

    async def signed_in(self, user_id: UUID, at: datetime, password_hash: str | None) -> None:
        """Note a login; with a hash, replace the stored one by it."""
        values: dict[str, Any] = {"last_login_at": at}
        if password_hash is not None:
            values |= {"password_hash": password_hash, "updated_at": at}
        await self.tx.execute(update(User).where(User.id == user_id).values(**values))

    async def add_sign_in(self, sign_in: SignIn, token: RefreshToken) -> None:
        self.tx.add(sign_in)
        await self.tx.flush()
        self.tx.add(token)
        await self.tx.flush()

    async def use_refresh_token(self, token_hash: str, at: datetime) -> UUID | None:
        """Mark the token as used and return its sign-in; None unless this was its first use.

        One conditional update: of many uses at once exactly one gets the sign-in.
        """
        statement = (
            update(RefreshToken)
            .where(
                RefreshToken.token_hash == token_hash,
                RefreshToken.used_at.is_(None),
                RefreshToken.expires_at > at,
            )
            .values(used_at=at)
            .returning(RefreshToken.sign_in_id)
        )
        return await self.tx.scalar(statement)

    async def renew_sign_in(
        self, sign_in_id: UUID, at: datetime, expires_at: datetime
    ) -> User | None:
        """Prolong a sign-in that is neither revoked nor its user disabled; return the user."""
        statement = (
            update(SignIn)
            .where(SignIn.id == sign_in_id, SignIn.revoked_at.is_(None))
            .values(last_used_at=at, expires_at=expires_at)
            .returning(SignIn.user_id)
        )
        user_id = await self.tx.scalar(statement)
        if user_id is None:
            return None
        return await self.tx.scalar(
            select(User).where(User.id == user_id, User.disabled_at.is_(None))
        )

    async def add_refresh_token(self, token: RefreshToken) -> None:
        self.tx.add(token)
        await self.tx.flush()

    async def sign_in_of(self, token_hash: str) -> UUID | None:
        return await self.tx.scalar(
            select(RefreshToken.sign_in_id).where(RefreshToken.token_hash == token_hash)
        )

    async def revoke_sign_in(self, sign_in_id: UUID, at: datetime) -> None:
        await self.tx.execute(
            update(SignIn)
            .where(SignIn.id == sign_in_id, SignIn.revoked_at.is_(None))
            .values(revoked_at=at)
        )

    async def revoke_all(self, user_id: UUID, at: datetime) -> list[UUID]:
        """End every sign-in of a user, and every access token; return the sign-ins."""
        await self.tx.execute(
            update(User)
            .where(User.id == user_id)
            .values(token_version=User.token_version + 1, updated_at=at)
        )
        ended = await self.tx.scalars(
            update(SignIn)
            .where(SignIn.user_id == user_id, SignIn.revoked_at.is_(None))
            .values(revoked_at=at)
            .returning(SignIn.id)
        )
        return list(ended)

    async def standing(self, sign_in_id: UUID, at: datetime) -> Standing | None:
        """Return what an access token of this sign-in is worth; None for an unknown one."""
        statement = (
            select(User, SignIn.revoked_at, SignIn.expires_at)
            .join(SignIn, SignIn.user_id == User.id)
            .where(SignIn.id == sign_in_id)
        )
        row = (await self.tx.execute(statement)).one_or_none()
        if row is None:
            return None
        user, revoked_at, expires_at = row
        return Standing(
            user_id=user.id,
            email=user.email,
            name=user.name,
            email_verified=user.email_verified,
            is_admin=user.is_admin,
            token_version=user.token_version,
            alive=revoked_at is None and user.disabled_at is None and expires_at > at,
        )

    async def add_invitation(self, invitation: Invitation) -> None:
        self.tx.add(invitation)
        await self.tx.flush()

    async def invitation_counts(self, token_hash: str, email: str, at: datetime) -> bool:
        return bool(
            await self.tx.scalar(select(exists().where(*_open_invitation(token_hash, email, at))))
        )

    async def use_invitation(self, token_hash: str, email: str, at: datetime) -> bool:
        """Mark the invitation as used; False unless it was open, and this its first use."""
        done = await self.tx.execute(
            update(Invitation).where(*_open_invitation(token_hash, email, at)).values(used_at=at)
        )
        return cast("CursorResult[Any]", done).rowcount == 1

    async def forget_expired(self, at: datetime) -> int:
        """Delete what expired: refresh tokens, then sign-ins and invitations; return how many."""
        gone = 0
        for table in (RefreshToken, SignIn, Invitation):
            done = await self.tx.execute(delete(table).where(table.expires_at < at))
            gone += cast("CursorResult[Any]", done).rowcount
        return gone


def _open_invitation(token_hash: str, email: str, at: datetime) -> tuple[Any, ...]:
    return (
        Invitation.token_hash == token_hash,
        Invitation.used_at.is_(None),
        Invitation.expires_at > at,
        Invitation.email.is_(None) | (Invitation.email == email),
    )
