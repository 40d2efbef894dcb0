"""Tables and queries of accounts. Private to this package (checked)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, ForeignKey, Index, String, delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.accounts._throttle_repository import KnownClient, ThrottleRow, insert_of
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
    id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    email: Mapped[str | None] = mapped_column(String(254))
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    used_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))


class MailedToken(Base):
    """What goes by mail to confirm an address or to set a password: one of each for a user."""

    __tablename__ = "mailed_tokens"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    purpose: Mapped[str] = mapped_column(String(16), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    # The address that it went to: it proves nothing about another one.
    email: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


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

    async def add_if_free(self, user: User) -> bool:
        """Insert the account, or nothing where its address has one, by the same statement."""
        values = {one.name: getattr(user, one.name) for one in User.__table__.columns}
        statement = insert_of(self.tx)(User).values(values)
        added = await self.tx.scalar(
            statement.on_conflict_do_nothing(index_elements=["email"]).returning(User.id)
        )
        return added is not None

    async def find_by_email(self, email: str) -> User | None:
        return await self.tx.scalar(select(User).where(User.email == email))

    async def find(self, user_id: UUID) -> User | None:
        return await self.tx.get(User, user_id)

    async def addresses(self, user_ids: Sequence[UUID]) -> dict[UUID, str]:
        found = await self.tx.execute(select(User.id, User.email).where(User.id.in_(user_ids)))
        return {row.id: row.email for row in found}

    async def signed_in(self, user: User, at: datetime, password_hash: str | None) -> bool:
        """Note a login; with a hash, replace the stored one by it.

        False when all sign-ins were ended since the user was read: the password may be another
        one by now, or the account disabled.
        """
        values: dict[str, Any] = {"last_login_at": at}
        if password_hash is not None:
            values |= {"password_hash": password_hash, "updated_at": at}
        done = await self.tx.execute(
            update(User)
            .where(User.id == user.id, User.token_version == user.token_version)
            .values(**values)
        )
        return cast("CursorResult[Any]", done).rowcount == 1

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

    async def revoke_sign_in(self, sign_in_id: UUID, at: datetime) -> UUID | None:
        """End a sign-in and return its user; None when it was over before."""
        return await self.tx.scalar(
            update(SignIn)
            .where(SignIn.id == sign_in_id, SignIn.revoked_at.is_(None))
            .values(revoked_at=at)
            .returning(SignIn.user_id)
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
        """Delete what expired, refresh tokens before their sign-ins; return how many rows went."""
        gone = 0
        for table in (RefreshToken, SignIn, Invitation, MailedToken, ThrottleRow, KnownClient):
            done = await self.tx.execute(delete(table).where(table.expires_at < at))
            gone += cast("CursorResult[Any]", done).rowcount
        return gone

    async def put_mailed_token(
        self,
        user_id: UUID,
        purpose: str,
        *,
        token_hash: str,
        email: str,
        at: datetime,
        expires_at: datetime,
    ) -> None:
        """Store a token in the place of the user's one for that purpose, which ends by that."""
        values = {
            "token_hash": token_hash,
            "email": email,
            "created_at": at,
            "expires_at": expires_at,
            "used_at": None,
        }
        statement = insert_of(self.tx)(MailedToken).values(
            user_id=user_id, purpose=purpose, **values
        )
        await self.tx.execute(
            statement.on_conflict_do_update(index_elements=["user_id", "purpose"], set_=values)
        )

    async def owner_of_mailed_token(
        self, token_hash: str, purpose: str, at: datetime
    ) -> User | None:
        """Return whose a token is that would work now."""
        return await self.tx.scalar(
            select(User)
            .join(MailedToken, MailedToken.user_id == User.id)
            .where(
                *_good_token(token_hash, purpose, at),
                MailedToken.email == User.email,
                User.disabled_at.is_(None),
            )
        )

    async def use_mailed_token(self, token_hash: str, purpose: str, at: datetime) -> User | None:
        """Mark a token as used and return its user; None unless it was good, and this the first.

        One conditional update: of many uses at once exactly one gets the user.
        """
        used = await self.tx.execute(
            update(MailedToken)
            .where(*_good_token(token_hash, purpose, at))
            .values(used_at=at)
            .returning(MailedToken.user_id, MailedToken.email)
        )
        row = used.one_or_none()
        if row is None:
            return None
        user = await self.tx.get(User, row.user_id)
        good = user is not None and user.email == row.email and user.disabled_at is None
        return user if good else None

    async def drop_mailed_tokens(self, user_id: UUID) -> None:
        await self.tx.execute(delete(MailedToken).where(MailedToken.user_id == user_id))

    async def replace_password(
        self, user_id: UUID, old_hash: str | None, new_hash: str, at: datetime
    ) -> bool:
        """Store a new password's hash; False when the old one is not the stored one any more."""
        done = await self.tx.execute(
            update(User)
            .where(User.id == user_id, User.password_hash.is_not_distinct_from(old_hash))
            .values(password_hash=new_hash, updated_at=at)
        )
        return cast("CursorResult[Any]", done).rowcount == 1

    async def sign_ins_of(self, user_id: UUID, at: datetime, limit: int) -> list[SignIn]:
        """Return a user's living sign-ins, the one that was used last first."""
        found = await self.tx.scalars(
            select(SignIn)
            .where(*_living(user_id, at))
            .order_by(SignIn.last_used_at.desc(), SignIn.id)
            .limit(limit)
        )
        return list(found)

    async def end_sign_in(self, user_id: UUID, sign_in_id: UUID, at: datetime) -> bool:
        """End a user's sign-in; False when there is no such one that lives."""
        done = await self.tx.execute(
            update(SignIn)
            .where(*_living(user_id, at), SignIn.id == sign_in_id)
            .values(revoked_at=at)
        )
        return cast("CursorResult[Any]", done).rowcount == 1

    async def list_users(self, after: str | None, limit: int) -> list[User]:
        """Return users by their addresses, those after one of them."""
        statement = select(User).order_by(User.email).limit(limit)
        if after is not None:
            statement = statement.where(User.email > after)
        return list(await self.tx.scalars(statement))

    async def enabled_administrators(self) -> list[UUID]:
        """Return who administers, and let nobody else change that until the transaction ends."""
        found = await self.tx.scalars(
            select(User.id)
            .where(User.is_admin, User.disabled_at.is_(None))
            .order_by(User.id)
            .with_for_update(key_share=True)
        )
        return list(found)

    async def change_user(self, user_id: UUID, at: datetime, **values: Any) -> User | None:
        """Change an account and return it; None for an unknown one."""
        return await self.tx.scalar(
            update(User)
            .where(User.id == user_id)
            .values(**values, updated_at=at)
            .returning(User)
            .execution_options(synchronize_session=False, populate_existing=True)
        )

    async def open_invitations(self, at: datetime, limit: int) -> list[Invitation]:
        """Return the invitations that somebody may use, the newest first."""
        found = await self.tx.scalars(
            select(Invitation)
            .where(Invitation.used_at.is_(None), Invitation.expires_at > at)
            .order_by(Invitation.created_at.desc(), Invitation.id)
            .limit(limit)
        )
        return list(found)

    async def remove_invitation(self, invitation_id: UUID, at: datetime) -> Invitation | None:
        """Remove an invitation that nobody has used; None when there is none."""
        return await self.tx.scalar(
            delete(Invitation)
            .where(
                Invitation.id == invitation_id,
                Invitation.used_at.is_(None),
                Invitation.expires_at > at,
            )
            .returning(Invitation)
            .execution_options(synchronize_session=False)
        )


def _living(user_id: UUID, at: datetime) -> tuple[Any, ...]:
    return (SignIn.user_id == user_id, SignIn.revoked_at.is_(None), SignIn.expires_at > at)


def _open_invitation(token_hash: str, email: str, at: datetime) -> tuple[Any, ...]:
    return (
        Invitation.token_hash == token_hash,
        Invitation.used_at.is_(None),
        Invitation.expires_at > at,
        Invitation.email.is_(None) | (Invitation.email == email),
    )


def _good_token(token_hash: str, purpose: str, at: datetime) -> tuple[Any, ...]:
    return (
        MailedToken.token_hash == token_hash,
        MailedToken.purpose == purpose,
        MailedToken.used_at.is_(None),
        MailedToken.expires_at > at,
    )
