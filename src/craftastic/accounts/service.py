"""Accounts: who may register, who is calling, and until when."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

import anyio.to_thread

from craftastic import keys
from craftastic.accounts._issuing import Issuing
from craftastic.accounts._letters import Letters
from craftastic.accounts._model import (
    NOWHERE,
    BadCredentials,
    BadEmail,
    BadName,
    Device,
    Invited,
    NewAccount,
    Tokens,
    checked_name,
    normal_email,
)
from craftastic.accounts._passwords import PasswordHasher, check_password
from craftastic.accounts._registration import (
    InvitationNeeded,
    Registration,
    RegistrationClosed,
    SetupTokenNeeded,
    SingleUser,
    several_users,
)
from craftastic.accounts._repository import (
    AccountRepository,
    EmailTaken,
    Invitation,
    NotTheFirst,
    Standing,
    User,
)
from craftastic.accounts._throttle import (
    ATTEMPTS_PER_MINUTE,
    Throttle,
    TooManyAttempts,
    client_of,
)
from craftastic.accounts._tokens import UNAUTHORIZED, AccessTokens, BadToken, TokenExpired
from craftastic.accounts._trail import Trail
from craftastic.accounts.caller import PERSONAL_PREFIX, Caller, PersonalTokens, UserId, digest
from craftastic.accounts.recovery import Recovery
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.errors import Forbidden, Unauthenticated
from craftastic.mail.service import MailService

__all__ = [
    "AccountService",
    "BadCredentials",
    "BadEmail",
    "BadName",
    "BadRefreshToken",
    "Caller",
    "Device",
    "EmailNotVerified",
    "EmailTaken",
    "InvitationNeeded",
    "Invited",
    "NewAccount",
    "RegistrationClosed",
    "SetupTokenNeeded",
    "SingleUser",
    "TokenExpired",
    "TokenRevoked",
    "Tokens",
    "TooManyAttempts",
    "UserId",
    "access_tokens",
    "checked_name",
    "normal_email",
]

STANDING_TTL_S = 3.0
MAX_STANDINGS = 4096
INVITATION_TTL_S = 7 * 86400


class BadRefreshToken(Unauthenticated):
    code = "INVALID_REFRESH_TOKEN"

    def __init__(self) -> None:
        super().__init__("Invalid or expired refresh token")


class TokenRevoked(Unauthenticated):
    """The sign-in behind the access token ended before the token did."""

    code = "TOKEN_REVOKED"


class EmailNotVerified(Forbidden):
    """The server lets nobody in whose address is not confirmed."""

    code = "EMAIL_NOT_VERIFIED"


def access_tokens(secret: bytes, ttl_s: int, old_secrets: tuple[bytes, ...] = ()) -> AccessTokens:
    """Return what signs access tokens with one key, and still verifies those of older ones."""
    return AccessTokens(secret, ttl_s, old_secrets)


@dataclass(frozen=True, slots=True)
class AccountService:
    """Registration, sign-ins and the check of every request.

    Args:
        access_tokens: Signs and checks access tokens.
        keys_dir: Where the first account's one-time token lies while it is unused.
        registration: Who may register after the first account.
        single_user: Returns why a second account has to be refused; None when it has not.
        refresh_ttl_s: Life of a refresh token, and of a sign-in that is not used, in seconds.
        personal: Knows personal access tokens; without it there are none.
        mail: Sends mail to the owners of accounts; without it none is written.
        audit: Keeps on record what happens to accounts.
        base_url: Where people reach the server: links in mail begin with it.
        require_verified_email: Whether only administrators and people whose address is confirmed
            are let in.
        attempts_per_minute: How often one client may try to sign in and the like.
    """

    database: Database
    clock: Clock
    access_tokens: AccessTokens
    keys_dir: Path
    registration: Literal["invite", "open", "closed"] = "invite"
    single_user: Callable[[], str | None] = several_users
    refresh_ttl_s: int = 30 * 86400
    personal: PersonalTokens | None = None
    passwords: PasswordHasher = field(default_factory=PasswordHasher)
    mail: MailService | None = None
    audit: AuditService | None = None
    base_url: str = "http://127.0.0.1:3000"
    require_verified_email: bool = False
    attempts_per_minute: int = ATTEMPTS_PER_MINUTE
    _standings: OrderedDict[UUID, tuple[float, Standing | None]] = field(
        init=False, repr=False, default_factory=OrderedDict[UUID, tuple[float, Standing | None]]
    )

    async def first_account_token(self) -> str | None:
        """Return the token to print at a start: made once, None when the first account exists."""
        async with self.database.read() as tx:
            if await AccountRepository(tx).count() > 0:
                return None
        return await anyio.to_thread.run_sync(keys.make_first_account_token, self.keys_dir)

    @property
    def recovery(self) -> Recovery:
        """Return the flows of confirming an address and of another password."""
        return Recovery(
            self.database,
            self.clock,
            self.passwords,
            self._throttle,
            self._letters,
            self._trail,
            self.personal,
            self.look_again,
        )

    async def sign_up(self, new: NewAccount, device: Device = NOWHERE) -> Tokens | None:
        """Register as the server's setting on unconfirmed addresses wants it.

        Where they are let in, as `register`. Else nobody is signed in, and whether the address
        had an account shows only in the mail that goes to it: None, after equal time.

        Raises:
            BadEmail, BadName, BadPassword: A value is not accepted.
            EmailTaken: The address has an account; only where unconfirmed addresses are let in.
            SetupTokenNeeded, InvitationNeeded, RegistrationClosed, SingleUser: Not allowed.
            TooManyAttempts: This client has tried too often.
            TooBusy: Too many passwords are being hashed.
        """
        if not self.require_verified_email or new.setup_token is not None:
            return await self.register(new, device)
        user = await self._checked_user(new, device)
        async with self.database.begin() as tx:
            # The same statements in both cases.
            accounts = AccountRepository(tx)
            await self._registration.allow(accounts, new, user.email, founding=False)
            is_new = await accounts.add_if_free(user)
            await self._registration.use_invitation(accounts, new, user.email, founding=False)
            who, outcome = (user.id, "ok") if is_new else (None, "taken")
            await self._trail.note(
                tx, "account.register", who, device, actor_id=who, outcome=outcome
            )
        if is_new:
            self._letters.verification(user.id)
        else:
            self._letters.account_exists(user.email)
        return None

    async def register(self, new: NewAccount, device: Device = NOWHERE) -> Tokens:
        """Create an account and sign it in.

        The one-time token makes the administrator. Without one, the setting decides: `open` takes
        anyone, `invite` those with an invitation, `closed` nobody. Whether the caller may is
        settled before the password is hashed, and again, by the database, with the insert.

        Raises:
            BadEmail, BadName, BadPassword: A value is not accepted.
            EmailTaken: The address has an account.
            SetupTokenNeeded, InvitationNeeded, RegistrationClosed, SingleUser: Not allowed.
            TooManyAttempts: This client has tried too often.
            TooBusy: Too many passwords are being hashed.
        """
        user = await self._checked_user(new, device)
        try:
            async with self.database.begin() as tx:
                accounts = AccountRepository(tx)
                await self._add(accounts, new, user)
                await self._throttle.note_known(tx, user.id, client_of(device.address))
                sign_in_id, tokens = await self._issuing.begin(accounts, user, device)
                await self._trail.note(
                    tx,
                    "account.register",
                    user.id,
                    device,
                    actor_id=user.id,
                    sign_in_id=sign_in_id,
                )
        except NotTheFirst as error:
            raise SetupTokenNeeded("The one-time token has been used already") from error
        if user.founder:
            await anyio.to_thread.run_sync(keys.remove_first_account_token, self.keys_dir)
        self._letters.verification(user.id)
        return tokens

    async def login(self, email: str, password: str, device: Device = NOWHERE) -> Tokens:
        """Sign in with a password; a hash of lesser cost than today's is replaced.

        Raises:
            BadEmail: The text is not an e-mail address.
            BadCredentials: Unknown address, wrong password, disabled account, and, where that is
                needed, an address that is not confirmed: after equal time.
            TooManyAttempts: This client, or this account, was tried too often.
            TooBusy: Too many passwords are being hashed.
        """
        email = normal_email(email)
        client = client_of(device.address)
        async with self.database.begin() as tx:
            await self._throttle.check(tx, email, client)
            await self._throttle.admit(tx, client)
            user = await AccountRepository(tx).find_by_email(email)
        stored = None if user is None else user.password_hash
        right, renewed = await self.passwords.verify(password, stored)
        if user is None or not right or not self._may_sign_in(user):
            await self._wrong_login(email, user, device)
            raise BadCredentials(self._hint())
        async with self.database.begin() as tx:
            # Once more: of many guesses at once, those beyond the first few tell nothing.
            had_failures = await self._throttle.check(tx, email, client)
            await self._throttle.take_back(tx, client)
            if had_failures:
                await self._throttle.succeeded(tx, email, client)
            await self._throttle.note_known(tx, user.id, client)
            accounts = AccountRepository(tx)
            sign_in_id, tokens = await self._issuing.begin(accounts, user, device)
            # Late: other logins of the same user wait from here on.
            if not await accounts.signed_in(user, self.clock.now(), renewed):
                raise BadCredentials(self._hint())
            await self._trail.note(
                tx, "account.login", user.id, device, actor_id=user.id, sign_in_id=sign_in_id
            )
        return tokens

    async def refresh(self, refresh_token: str, device: Device = NOWHERE) -> Tokens:
        """Exchange a refresh token for new ones; it works once.

        A token that was used before ends its whole sign-in: either its owner or a thief holds a
        stolen one. Of many uses at once exactly one succeeds.

        Raises:
            BadRefreshToken: Unknown, expired, used, or of an ended sign-in or disabled account.
            TooManyAttempts: This client has tried too often.
        """
        token_hash = digest(refresh_token)
        client = client_of(device.address)
        now = self.clock.now()
        async with self.database.begin() as tx:
            await self._throttle.check_client(tx, client)
            accounts = AccountRepository(tx)
            sign_in_id = await accounts.use_refresh_token(token_hash, now)
            if sign_in_id is not None:
                tokens = await self._issuing.renew(accounts, sign_in_id)
                if tokens is not None:
                    return tokens
            else:
                sign_in_id = await accounts.sign_in_of(token_hash)
            await self._throttle.admit(tx, client)
            if sign_in_id is not None:
                user_id = await accounts.revoke_sign_in(sign_in_id, now)
                if user_id is not None:
                    await self._trail.note(
                        tx,
                        "account.refresh",
                        user_id,
                        device,
                        outcome="reused",
                        sign_in_id=sign_in_id,
                    )
        # Raised here, not above: the revocation has to be committed.
        self.look_again([sign_in_id] if sign_in_id is not None else [])
        raise BadRefreshToken

    async def logout(self, refresh_token: str) -> None:
        """End the sign-in of a refresh token, whatever its state; nothing for an unknown one."""
        async with self.database.begin() as tx:
            accounts = AccountRepository(tx)
            sign_in_id = await accounts.sign_in_of(digest(refresh_token))
            if sign_in_id is not None:
                await accounts.revoke_sign_in(sign_in_id, self.clock.now())
        self.look_again([sign_in_id] if sign_in_id is not None else [])

    async def logout_all(self, user_id: UserId, device: Device = NOWHERE) -> None:
        """End every sign-in of the user; this process knows at once, others within 5 s."""
        async with self.database.begin() as tx:
            ended = await AccountRepository(tx).revoke_all(user_id, self.clock.now())
            await self._trail.note(tx, "account.logout_all", user_id, device, actor_id=user_id)
        self.look_again(ended)

    async def authenticate(self, token: str) -> Caller:
        """Return who sent an access token, of a sign-in or a personal one.

        The signature is checked once per token, the sign-in behind it at least every 5 s.

        Raises:
            Unauthenticated: Missing, broken, expired or revoked (`TokenExpired`, `TokenRevoked`).
            DatabaseUnavailable: The sign-in could not be looked up.
        """
        if self.personal is not None and token.startswith(PERSONAL_PREFIX):
            return await self.personal.authenticate(token)
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
        if self.personal is not None and not caller.by_sign_in:
            return await self.personal.still_signed_in(caller)
        standing = await self._standing(caller.sign_in_id)
        return (
            standing is not None
            and standing.alive
            and standing.user_id == caller.user_id
            and caller.token_version in {None, standing.token_version}
        )

    def insist_on_verified(self, caller: Caller) -> None:
        """Refuse a caller whose address is not confirmed, where that is needed.

        Administrators are let in: they answer for themselves, and they mend the mail.

        Raises:
            EmailNotVerified: It is needed.
        """
        if self.require_verified_email and not (caller.email_verified or caller.is_admin):
            raise EmailNotVerified(
                "Confirm your e-mail address first: the link is in your mail",
                details="POST /api/auth/resend-verification sends another one.",
            )

    def look_again(self, sign_in_ids: Iterable[UUID]) -> None:
        """Forget what was found out about sign-ins: this process asks anew, others within 5 s."""
        for sign_in_id in sign_in_ids:
            self._standings.pop(sign_in_id, None)

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
            id=uuid4(),
            token_hash=digest(token),
            email=None if email is None else normal_email(email),
            created_by=created_by,
            created_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
        )
        async with self.database.begin() as tx:
            await AccountRepository(tx).add_invitation(invitation)
            if self.audit is not None:
                await self.audit.record(
                    "invitation.create",
                    actor_id=created_by,
                    object_type="invitation",
                    object_id=invitation.id,
                    details={"email": invitation.email},
                    tx=tx,
                )
        return Invited(invitation.id, token, invitation.email, invitation.expires_at)

    async def forget_expired(self) -> int:
        """Delete expired refresh tokens, sign-ins and invitations; return how many rows went."""
        async with self.database.begin() as tx:
            return await AccountRepository(tx).forget_expired(self.clock.now())

    @property
    def _throttle(self) -> Throttle:
        return Throttle(self.clock, self.attempts_per_minute)

    @property
    def _letters(self) -> Letters:
        return Letters(self.database, self.clock, self.mail, self.base_url)

    @property
    def _trail(self) -> Trail:
        return Trail(self.audit)

    @property
    def _issuing(self) -> Issuing:
        return Issuing(self.clock, self.access_tokens, self.refresh_ttl_s)

    @property
    def _registration(self) -> Registration:
        return Registration(self.clock, self.keys_dir, self.registration, self.single_user)

    async def _checked_user(self, new: NewAccount, device: Device) -> User:
        """Return the account that a registration asks for, which may be made, and is not yet."""
        email = normal_email(new.email)
        name = checked_name(new.name)
        check_password(new.password, email=email, name=name)
        founding = await self._registration.is_founding(new.setup_token)
        async with self.database.begin() as tx:
            await self._throttle.admit(tx, client_of(device.address))
            await self._registration.allow(AccountRepository(tx), new, email, founding=founding)
        password_hash = await self.passwords.hash(new.password)
        now = self.clock.now()
        return User(
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

    async def _add(self, accounts: AccountRepository, new: NewAccount, user: User) -> None:
        founding = user.founder is True
        await self._registration.allow(accounts, new, user.email, founding=founding)
        await accounts.add(user)
        await self._registration.use_invitation(accounts, new, user.email, founding=founding)

    def _may_sign_in(self, user: User) -> bool:
        confirmed = user.email_verified or user.is_admin or not self.require_verified_email
        return confirmed and user.disabled_at is None

    def _hint(self) -> str | None:
        if not self.require_verified_email:
            return None
        return (
            "If you have just registered, confirm the address first: the link is in your mail. "
            "A reset of the password sends another one."
        )

    async def _wrong_login(self, email: str, user: User | None, device: Device) -> None:
        async with self.database.begin() as tx:
            await self._throttle.failed(tx, email, client_of(device.address))
            user_id = None if user is None else user.id
            await self._trail.note(tx, "account.login", user_id, device, outcome="refused")

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
