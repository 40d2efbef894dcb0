"""Accounts: who may register, who is calling, and until when."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, NewType
from uuid import UUID, uuid4

import anyio.to_thread
from email_validator import EmailNotValidError, validate_email

from craftastic import keys
from craftastic.accounts._passwords import PasswordHasher, check_password
from craftastic.accounts._repository import (
    AccountRepository,
    EmailTaken,
    Invitation,
    NotTheFirst,
    RefreshToken,
    SignIn,
    Standing,
    User,
)
from craftastic.accounts._tokens import UNAUTHORIZED, AccessTokens, BadToken, TokenExpired
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.errors import Forbidden, InvalidInput, Unauthenticated

__all__ = [
    "AccountService",
    "BadEmail",
    "Caller",
    "Device",
    "EmailTaken",
    "Invited",
    "NewAccount",
    "TokenExpired",
    "Tokens",
    "UserId",
    "access_tokens",
]

UserId = NewType("UserId", UUID)

STANDING_TTL_S = 5.0
MAX_STANDINGS = 4096
INVITATION_TTL_S = 7 * 86400
MAX_EMAIL_CHARS = 254
MAX_USER_AGENT_CHARS = 200


class BadEmail(InvalidInput):
    code = "BAD_EMAIL"


class BadName(InvalidInput):
    code = "BAD_NAME"


class BadCredentials(Unauthenticated):
    """Unknown address, wrong password and disabled account answer alike."""

    code = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("Invalid email or password")


class BadRefreshToken(Unauthenticated):
    code = "INVALID_REFRESH_TOKEN"

    def __init__(self) -> None:
        super().__init__("Invalid or expired refresh token")


class TokenRevoked(Unauthenticated):
    """The sign-in behind the access token ended before the token did."""

    code = "TOKEN_REVOKED"


class RegistrationClosed(Forbidden):
    code = "REGISTRATION_CLOSED"


class InvitationNeeded(Forbidden):
    code = "INVITATION_NEEDED"


class SetupTokenNeeded(Forbidden):
    """The first account needs the token that the server printed at its first start."""

    code = "SETUP_TOKEN_NEEDED"


class SingleUser(Forbidden):
    """The server can keep the sandboxes of one user apart from nobody else's."""

    code = "SINGLE_USER"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request, as the database knows them (at most 5 s ago)."""

    user_id: UserId
    email: str
    name: str
    email_verified: bool
    is_admin: bool
    sign_in_id: UUID
    token_version: int | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets when it signs in."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    user: User


@dataclass(frozen=True, slots=True)
class Device:
    """What is kept about where a sign-in came from."""

    user_agent: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a registration asks for."""

    email: str
    password: str = field(repr=False)
    name: str
    invitation: str | None = field(default=None, repr=False)
    setup_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Invited:
    """A fresh invitation; the token is known to nobody once this is gone."""

    token: str = field(repr=False)
    email: str | None
    expires_at: datetime


NOWHERE = Device()


def access_tokens(secret: bytes, ttl_s: int, old_secrets: tuple[bytes, ...] = ()) -> AccessTokens:
    """Return what signs access tokens with one key, and still verifies those of older ones."""
    return AccessTokens(secret, ttl_s, old_secrets)


def several_users() -> str | None:
    """Return None: nothing stands against a second account."""
    return None


@dataclass(frozen=True, slots=True)
class AccountService:
    """Registration, sign-ins and the check of every request.

    Args:
        access_tokens: Signs and checks access tokens.
        keys_dir: Where the first account's one-time token lies while it is unused.
        registration: Who may register after the first account.
        single_user: Returns why a second account has to be refused; None when it has not.
        refresh_ttl_s: Life of a refresh token, and of a sign-in that is not used, in seconds.
    """

    database: Database
    clock: Clock
    access_tokens: AccessTokens
    keys_dir: Path
    registration: Literal["invite", "open", "closed"] = "invite"
    single_user: Callable[[], str | None] = several_users
    refresh_ttl_s: int = 30 * 86400
    passwords: PasswordHasher = field(default_factory=PasswordHasher)
    _standings: OrderedDict[UUID, tuple[float, Standing | None]] = field(
        init=False, repr=False, default_factory=OrderedDict[UUID, tuple[float, Standing | None]]
    )

    async def first_account_token(self) -> str | None:
        """Return the token to print at a start: made once, None when the first account exists."""
        async with self.database.read() as tx:
            if await AccountRepository(tx).count() > 0:
                return None
        return await anyio.to_thread.run_sync(keys.make_first_account_token, self.keys_dir)

    async def register(self, new: NewAccount, device: Device = NOWHERE) -> Tokens:
        """Create an account and sign it in.

        The one-time token makes the administrator. Without one, the setting decides: `open` takes
        anyone, `invite` those with an invitation, `closed` nobody. Whether the caller may is
        settled before the password is hashed, and again, by the database, with the insert.

        Raises:
            BadEmail, BadName, BadPassword: A value is not accepted.
            EmailTaken: The address has an account.
            SetupTokenNeeded, InvitationNeeded, RegistrationClosed, SingleUser: Not allowed.
            TooBusy: Too many passwords are being hashed.
        """
        email = normal_email(new.email)
        name = _checked_name(new.name)
        check_password(new.password, email=email, name=name)
        founding = await self._is_setup_token(new.setup_token)
        async with self.database.read() as tx:
            await self._allow(AccountRepository(tx), new, email, founding=founding)
        password_hash = await self.passwords.hash(new.password)
        now = self.clock.now()
        user = User(
            id=uuid4(),
            email=email,
            name=name,
            password_hash=password_hash,
            email_verified=False,
            is_admin=founding,
            founder=True if founding else None,
            token_version=1,
            last_login_at=now,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self.database.begin() as tx:
                accounts = AccountRepository(tx)
                await self._allow(accounts, new, email, founding=founding)
                await accounts.add(user)
                if not founding and self.registration == "invite":
                    await self._use_invitation(accounts, new, email)
                tokens = await self._sign_in(accounts, user, device)
        except NotTheFirst as error:
            raise SetupTokenNeeded("The one-time token has been used already") from error
        if founding:
            await anyio.to_thread.run_sync(keys.remove_first_account_token, self.keys_dir)
        return tokens

    async def login(self, email: str, password: str, device: Device = NOWHERE) -> Tokens:
        """Sign in with a password; a hash of lesser cost than today's is replaced.

        Raises:
            BadEmail: The text is not an e-mail address.
            BadCredentials: Unknown address, wrong password, disabled account: after equal time.
            TooBusy: Too many passwords are being hashed.
        """
        email = normal_email(email)
        async with self.database.read() as tx:
            user = await AccountRepository(tx).find_by_email(email)
        stored = None if user is None else user.password_hash
        right, renewed = await self.passwords.verify(password, stored)
        if user is None or not right or user.disabled_at is not None:
            raise BadCredentials
        async with self.database.begin() as tx:
            accounts = AccountRepository(tx)
            await accounts.signed_in(user.id, self.clock.now(), renewed)
            return await self._sign_in(accounts, user, device)

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new ones; it works once.

        A token that was used before ends its whole sign-in: either its owner or a thief holds a
        stolen one. Of many uses at once exactly one succeeds.

        Raises:
            BadRefreshToken: Unknown, expired, used, or of an ended sign-in or disabled account.
        """
        token_hash = _digest(refresh_token)
        now = self.clock.now()
        async with self.database.begin() as tx:
            accounts = AccountRepository(tx)
            sign_in_id = await accounts.use_refresh_token(token_hash, now)
            if sign_in_id is not None:
                user = await accounts.renew_sign_in(sign_in_id, now, self._refresh_end(now))
                if user is not None:
                    fresh, row = self._refresh_token(sign_in_id, now)
                    await accounts.add_refresh_token(row)
                    return Tokens(self._access_token(user, sign_in_id, now), fresh, user)
            else:
                sign_in_id = await accounts.sign_in_of(token_hash)
                if sign_in_id is not None:
                    await accounts.revoke_sign_in(sign_in_id, now)
        # Raised here, not above: the revocation has to be committed.
        if sign_in_id is not None:
            self._standings.pop(sign_in_id, None)
        raise BadRefreshToken

    async def logout(self, refresh_token: str) -> None:
        """End the sign-in of a refresh token, whatever its state; nothing for an unknown one."""
        async with self.database.begin() as tx:
            accounts = AccountRepository(tx)
            sign_in_id = await accounts.sign_in_of(_digest(refresh_token))
            if sign_in_id is not None:
                await accounts.revoke_sign_in(sign_in_id, self.clock.now())
        if sign_in_id is not None:
            self._standings.pop(sign_in_id, None)

    async def logout_all(self, user_id: UserId) -> None:
        """End every sign-in of the user; this process knows at once, others within 5 s."""
        async with self.database.begin() as tx:
            ended = await AccountRepository(tx).revoke_all(user_id, self.clock.now())
        for sign_in_id in ended:
            self._standings.pop(sign_in_id, None)

    async def authenticate(self, token: str) -> Caller:
        """Return who sent an access token.

        The signature is checked once per token, the sign-in behind it at least every 5 s.

        Raises:
            Unauthenticated: Missing, broken, expired or revoked (`TokenExpired`, `TokenRevoked`).
            DatabaseUnavailable: The sign-in could not be looked up.
        """
        claims = self.access_tokens.check(token, self.clock.now())
        standing = await self._standing(claims.sign_in_id)
        if standing is None or standing.user_id != claims.user_id:
            raise BadToken(UNAUTHORIZED)
        if not standing.alive or standing.token_version != claims.token_version:
            raise TokenRevoked(UNAUTHORIZED)
        return Caller(
            user_id=UserId(standing.user_id),
            email=standing.email,
            name=standing.name,
            email_verified=standing.email_verified,
            is_admin=standing.is_admin,
            sign_in_id=claims.sign_in_id,
            token_version=claims.token_version,
        )

    async def still_signed_in(self, caller: Caller) -> bool:
        """Tell whether the sign-in lives on (at most 5 s late); an access token's end is not asked.

        Raises:
            DatabaseUnavailable: It could not be looked up; nothing is known then.
        """
        standing = await self._standing(caller.sign_in_id)
        return (
            standing is not None
            and standing.alive
            and standing.user_id == caller.user_id
            and caller.token_version in {None, standing.token_version}
        )

    async def profile(self, user_id: UUID) -> tuple[str, str] | None:
        """Return a user's name and e-mail address; None for an unknown one."""
        async with self.database.read() as tx:
            user = await AccountRepository(tx).find(user_id)
        return None if user is None else (user.name, user.email)

    async def create_invitation(
        self, created_by: UserId | None, *, email: str | None = None, ttl_s: int = INVITATION_TTL_S
    ) -> Invited:
        """Make an invitation for one account; with an address, for that address only.

        Raises:
            BadEmail: The text is not an e-mail address.
            SingleUser: A second account is refused anyhow.
        """
        why = self.single_user()
        if why is not None:
            raise SingleUser("This server is for one user", details=why)
        token = secrets.token_hex(32)
        now = self.clock.now()
        invitation = Invitation(
            token_hash=_digest(token),
            email=None if email is None else normal_email(email),
            created_by=created_by,
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
        )
        async with self.database.begin() as tx:
            await AccountRepository(tx).add_invitation(invitation)
        return Invited(token, invitation.email, invitation.expires_at)

    async def forget_expired(self) -> int:
        """Delete expired refresh tokens, sign-ins and invitations; return how many rows went."""
        async with self.database.begin() as tx:
            return await AccountRepository(tx).forget_expired(self.clock.now())

    async def _is_setup_token(self, given: str | None) -> bool:
        if given is None:
            return False
        token = await anyio.to_thread.run_sync(keys.read_first_account_token, self.keys_dir)
        if token is None or not hmac.compare_digest(token.encode(), given.strip().encode()):
            raise SetupTokenNeeded(
                "This is not the one-time token of the first account, or it has been used",
                details="The server prints it at its first start and keeps it in keys/.",
            )
        return True

    async def _allow(
        self, accounts: AccountRepository, new: NewAccount, email: str, *, founding: bool
    ) -> None:
        count = await accounts.count()
        why = self.single_user()
        if count > 0 and why is not None:
            raise SingleUser("This server is for one user, who has an account already", details=why)
        if founding:
            if await accounts.has_founder():
                raise SetupTokenNeeded("The one-time token has been used already")
            return
        if self.registration == "open":
            return
        if count == 0:
            raise SetupTokenNeeded(
                "The first account needs the one-time token that the server printed at its first "
                "start: send it as setupToken",
                details="It is kept in the data folder, in keys/first-account-token.",
            )
        if self.registration == "closed":
            raise RegistrationClosed("Registration is closed on this server")
        if new.invitation is None or not await accounts.invitation_counts(
            _digest(new.invitation), email, self.clock.now()
        ):
            raise InvitationNeeded(
                "Registration needs an invitation by an administrator of this server"
                if new.invitation is None
                else "This invitation is unknown, used, expired, or for another address"
            )

    async def _use_invitation(
        self, accounts: AccountRepository, new: NewAccount, email: str
    ) -> None:
        given = _digest(new.invitation or "")
        if not await accounts.use_invitation(given, email, self.clock.now()):
            raise InvitationNeeded(
                "This invitation is unknown, used, expired, or for another address"
            )

    async def _sign_in(self, accounts: AccountRepository, user: User, device: Device) -> Tokens:
        now = self.clock.now()
        sign_in = SignIn(
            id=uuid4(),
            user_id=user.id,
            user_agent=(device.user_agent or "")[:MAX_USER_AGENT_CHARS] or None,
            address=(device.address or "")[:64] or None,
            created_at=now,
            last_used_at=now,
            expires_at=self._refresh_end(now),
        )
        fresh, row = self._refresh_token(sign_in.id, now)
        await accounts.add_sign_in(sign_in, row)
        return Tokens(self._access_token(user, sign_in.id, now), fresh, user)

    def _access_token(self, user: User, sign_in_id: UUID, now: datetime) -> str:
        return self.access_tokens.issue(
            user_id=user.id,
            sign_in_id=sign_in_id,
            token_version=user.token_version,
            email=user.email,
            name=user.name,
            email_verified=user.email_verified,
            now=now,
        )

    def _refresh_token(self, sign_in_id: UUID, now: datetime) -> tuple[str, RefreshToken]:
        token = secrets.token_hex(32)
        row = RefreshToken(
            token_hash=_digest(token),
            sign_in_id=sign_in_id,
            created_at=now,
            expires_at=self._refresh_end(now),
        )
        return token, row

    def _refresh_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.refresh_ttl_s)

    async def _standing(self, sign_in_id: UUID) -> Standing | None:
        known = self._standings.get(sign_in_id)
        if known is not None and self.clock.monotonic() - known[0] < STANDING_TTL_S:
            return known[1]
        asked_at = self.clock.monotonic()
        async with self.database.read() as tx:
            standing = await AccountRepository(tx).standing(sign_in_id, self.clock.now())
        self._standings[sign_in_id] = (asked_at, standing)
        self._standings.move_to_end(sign_in_id)
        if len(self._standings) > MAX_STANDINGS:
            self._standings.popitem(last=False)
        return standing


def normal_email(text: str) -> str:
    """Return the form in which addresses are stored and compared.

    No question to DNS: a team's own domain may exist only inside its network.

    Raises:
        BadEmail: The text is not an e-mail address.
    """
    if len(text) > MAX_EMAIL_CHARS:
        raise BadEmail("email is not a valid e-mail address")
    try:
        found = validate_email(text.strip(), check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise BadEmail("email is not a valid e-mail address") from error
    if "." not in found.domain:
        raise BadEmail("email is not a valid e-mail address")
    return found.normalized.lower()


def _checked_name(text: str) -> str:
    name = " ".join(text.split())
    if not name or not name.isprintable():
        raise BadName("name must have at least one character, and printable ones only")
    return name


def _digest(token: str) -> str:
    # Fast on purpose: the tokens are 256 random bits, so there is nothing to guess.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
