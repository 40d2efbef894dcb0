"""What operators, and users themselves, change of accounts: functions within a transaction.

They decide what is allowed in the database's own terms; who may ask, what else ends with it and
what the audit log says is their callers' part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from craftastic.accounts._repository import AccountRepository, EmailTaken, Invitation, SignIn, User
from craftastic.database import Transaction
from craftastic.errors import Conflict, NotFound

__all__ = [
    "EmailTaken",
    "InvitationNotFound",
    "LastAdministrator",
    "OpenInvitation",
    "Person",
    "SignInNotFound",
    "SignedInDevice",
    "UserDisabled",
    "UserNotFound",
]

MAX_LISTED = 200


class UserNotFound(NotFound):
    code = "USER_NOT_FOUND"


class SignInNotFound(NotFound):
    code = "SIGN_IN_NOT_FOUND"


class InvitationNotFound(NotFound):
    code = "INVITATION_NOT_FOUND"


class LastAdministrator(Conflict):
    """Nobody could administer the server any more."""

    code = "LAST_ADMINISTRATOR"


class UserDisabled(Conflict):
    code = "USER_DISABLED"


@dataclass(frozen=True, slots=True)
class Person:
    """An account as an operator sees it."""

    id: UUID
    email: str
    name: str
    is_admin: bool
    email_verified: bool
    has_password: bool
    created_at: datetime
    last_login_at: datetime | None
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class SignedInDevice:
    """A sign-in as its user sees it.

    Attributes:
        device: What the client said that it is; a stranger's text.
        address: Where it signed in from.
    """

    id: UUID
    device: str | None
    address: str | None
    created_at: datetime
    last_used_at: datetime


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """An invitation that somebody may use still; its token is not known any more."""

    id: UUID
    email: str | None
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime


async def addresses(tx: Transaction, user_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the e-mail addresses of users, of those who exist."""
    return await AccountRepository(tx).addresses(user_ids)


async def sign_ins_of(tx: Transaction, user_id: UUID, at: datetime) -> list[SignedInDevice]:
    """List a user's living sign-ins, the one that was used last first, at most `MAX_LISTED`."""
    return [
        _device(one) for one in await AccountRepository(tx).sign_ins_of(user_id, at, MAX_LISTED)
    ]


async def end_sign_in(tx: Transaction, user_id: UUID, sign_in_id: UUID, at: datetime) -> None:
    """End one of a user's sign-ins.

    Raises:
        SignInNotFound: It is absent, over, or somebody else's.
    """
    if not await AccountRepository(tx).end_sign_in(user_id, sign_in_id, at):
        raise SignInNotFound("Sign-in not found")


async def count(tx: Transaction) -> int:
    """Return how many accounts there are."""
    return await AccountRepository(tx).count()


async def list_users(tx: Transaction, after: str | None, limit: int) -> list[Person]:
    """List accounts by address; `after` is the last address of the page before."""
    listed = await AccountRepository(tx).list_users(after, max(1, min(limit, MAX_LISTED)))
    return [_person(one) for one in listed]


async def find_by_email(tx: Transaction, email: str) -> Person:
    """Return the account of an address in its normal form.

    Raises:
        UserNotFound: There is none.
    """
    user = await AccountRepository(tx).find_by_email(email)
    if user is None:
        raise UserNotFound("User not found")
    return _person(user)


async def add_user(
    tx: Transaction, email: str, name: str, at: datetime, *, is_admin: bool, founder: bool
) -> Person:
    """Insert an account that has no password yet.

    Raises:
        EmailTaken: The address has an account.
        NotTheFirst: It is to be the first, and another one was made at this moment.
    """
    user = User(
        id=uuid4(),
        email=email,
        name=name,
        is_admin=is_admin,
        founder=True if founder else None,
        email_verified=False,
        token_version=1,
        created_at=at,
        updated_at=at,
    )
    return _person(await AccountRepository(tx).add(user))


async def disable(tx: Transaction, user_id: UUID, at: datetime) -> tuple[Person, list[UUID]]:
    """Disable an account and end its sign-ins; return it and them.

    The last administrator stays: of two who disable each other at once, one is refused.

    Raises:
        UserNotFound: There is none.
        LastAdministrator: Nobody else administers the server.
    """
    accounts = AccountRepository(tx)
    administrators = await accounts.enabled_administrators()
    if administrators == [user_id]:
        raise LastAdministrator(
            "This is the only administrator of the server",
            details="Make another administrator first.",
        )
    user = await accounts.find(user_id)
    if user is None:
        raise UserNotFound("User not found")
    if user.disabled_at is None:
        user = await accounts.change_user(user_id, at, disabled_at=at) or user
    return _person(user), await accounts.revoke_all(user_id, at)


async def enable(tx: Transaction, user_id: UUID, at: datetime) -> Person:
    """Let an account sign in again; what was ended when it was disabled stays ended.

    Raises:
        UserNotFound: There is none.
    """
    user = await AccountRepository(tx).change_user(user_id, at, disabled_at=None)
    if user is None:
        raise UserNotFound("User not found")
    return _person(user)


async def void_password(tx: Transaction, user_id: UUID, at: datetime) -> tuple[Person, list[UUID]]:
    """Take an account's password away and end its sign-ins; return it and them.

    Raises:
        UserNotFound: There is none.
        UserDisabled: It is disabled, so a new password would be of no use.
    """
    accounts = AccountRepository(tx)
    user = await accounts.change_user(user_id, at, password_hash=None)
    if user is None:
        raise UserNotFound("User not found")
    if user.disabled_at is not None:
        raise UserDisabled("This account is disabled", details="Enable it first.")
    return _person(user), await accounts.revoke_all(user_id, at)


async def open_invitations(tx: Transaction, at: datetime) -> list[OpenInvitation]:
    """List the invitations that somebody may use, the newest first, at most `MAX_LISTED`."""
    return [_open(one) for one in await AccountRepository(tx).open_invitations(at, MAX_LISTED)]


async def remove_invitation(tx: Transaction, invitation_id: UUID, at: datetime) -> OpenInvitation:
    """Take an invitation back.

    Raises:
        InvitationNotFound: It is absent, used or expired.
    """
    found = await AccountRepository(tx).remove_invitation(invitation_id, at)
    if found is None:
        raise InvitationNotFound("Invitation not found")
    return _open(found)


def _person(user: User) -> Person:
    return Person(
        id=user.id,
        email=user.email,
        name=user.name,
        is_admin=user.is_admin,
        email_verified=user.email_verified,
        has_password=user.password_hash is not None,
        created_at=user.created_at,
        last_login_at=user.last_login_at,
        disabled_at=user.disabled_at,
    )


def _device(sign_in: SignIn) -> SignedInDevice:
    return SignedInDevice(
        id=sign_in.id,
        device=sign_in.user_agent,
        address=sign_in.address,
        created_at=sign_in.created_at,
        last_used_at=sign_in.last_used_at,
    )


def _open(invitation: Invitation) -> OpenInvitation:
    return OpenInvitation(
        id=invitation.id,
        email=invitation.email,
        created_by=invitation.created_by,
        created_at=invitation.created_at,
        expires_at=invitation.expires_at,
    )
