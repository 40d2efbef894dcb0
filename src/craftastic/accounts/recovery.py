"""Confirming an address, and another password: by a mailed token, or by the old password."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from craftastic.accounts._letters import Letters, Purpose
from craftastic.accounts._model import NOWHERE, Device, normal_email
from craftastic.accounts._passwords import PasswordHasher, check_password
from craftastic.accounts._repository import AccountRepository, User
from craftastic.accounts._throttle import Throttle, client_of
from craftastic.accounts._trail import Trail
from craftastic.accounts.caller import Caller, PersonalTokens, digest
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.errors import InvalidInput

__all__ = ["BadResetToken", "BadVerificationToken", "Recovery", "WrongPassword"]

MOST_SIGN_INS = 200
"""How many sign-ins of one user are told at once that their address is confirmed."""


class BadVerificationToken(InvalidInput):
    """Unknown, used, expired, replaced by a newer one, or for something else."""

    code = "INVALID_VERIFICATION_TOKEN"

    def __init__(self) -> None:
        super().__init__("Invalid or expired verification token")


class BadResetToken(InvalidInput):
    """Unknown, used, expired, replaced by a newer one, or for something else."""

    code = "INVALID_RESET_TOKEN"

    def __init__(self) -> None:
        super().__init__("Invalid or expired reset token")


class WrongPassword(InvalidInput):
    code = "WRONG_PASSWORD"

    def __init__(self) -> None:
        super().__init__("Current password is incorrect")


@dataclass(frozen=True, slots=True)
class Recovery:
    """The flows beside signing in.

    Args:
        look_again: Makes this process ask anew about sign-ins that ended.
    """

    database: Database
    clock: Clock
    passwords: PasswordHasher
    throttle: Throttle
    letters: Letters
    trail: Trail
    personal: PersonalTokens | None
    look_again: Callable[[Iterable[UUID]], None]

    async def verify_email(self, token: str, device: Device = NOWHERE) -> None:
        """Confirm an address by the token that was sent there; it works once, for a day.

        Raises:
            BadVerificationToken: It does not work, or no more.
            TooManyAttempts: This client has tried too often.
        """
        client = client_of(device.address)
        signed_in: list[UUID] = []
        async with self.database.begin() as tx:
            await self.throttle.check_client(tx, client)
            accounts = AccountRepository(tx)
            now = self.clock.now()
            user = await accounts.use_mailed_token(digest(token), Purpose.VERIFY, now)
            if user is not None:
                await accounts.change_user(user.id, now, email_verified=True)
                living = await accounts.sign_ins_of(user.id, now, MOST_SIGN_INS)
                signed_in = [one.id for one in living]
                await self.trail.note(tx, "account.verify", user.id, device, actor_id=user.id)
        if user is None:
            await self._count_wrong(client)
            raise BadVerificationToken
        # Who has just confirmed goes on at once, and is let in.
        self.look_again(signed_in)

    async def resend_verification(self, caller: Caller, device: Device = NOWHERE) -> None:
        """Send another verification token, which ends the one before; nothing when confirmed.

        Raises:
            TooManyAttempts: Three were sent within an hour.
        """
        if caller.email_verified:
            return
        async with self.database.begin() as tx:
            await self.throttle.count_mail(tx, caller.email, client_of(device.address))
        self.letters.verification(caller.user_id)

    async def request_reset(self, email: str, device: Device = NOWHERE) -> None:
        """Send a reset token, if the address has an account: which neither answer nor time tells.

        Whether there is an account is looked up after this returns.

        Raises:
            BadEmail: The text is not an e-mail address.
            TooManyAttempts: The address was asked for three times within an hour, or this client
                has asked too often.
        """
        email = normal_email(email)
        async with self.database.begin() as tx:
            await self.throttle.count_mail(tx, email, client_of(device.address))
        self.letters.reset(email)

    async def reset_password(
        self,
        token: str,
        password: str,
        device: Device = NOWHERE,
        *,
        revoke_tokens: bool = False,
    ) -> None:
        """Set a new password by the token that was sent; it works once, for half an hour.

        Every sign-in ends, and none begins. The address is confirmed by it, and this client is
        one that the account is known to be used from.

        Args:
            token: What stood in the link.
            password: The new one.
            device: Where this comes from.
            revoke_tokens: Whether the user's personal access tokens end too.

        Raises:
            BadResetToken: It does not work, or no more.
            BadPassword: The new one is not accepted; the token can be used again.
            TooManyAttempts: This client has tried too often.
            TooBusy: Too many passwords are being hashed; the token can be used again.
        """
        client = client_of(device.address)
        async with self.database.read() as tx:
            await self.throttle.check_client(tx, client)
            user = await AccountRepository(tx).owner_of_mailed_token(
                digest(token), Purpose.RESET, self.clock.now()
            )
        if user is None:
            await self._count_wrong(client)
            raise BadResetToken
        check_password(password, email=user.email, name=user.name)
        password_hash = await self.passwords.hash(password)
        async with self.database.begin() as tx:
            accounts = AccountRepository(tx)
            now = self.clock.now()
            if await accounts.use_mailed_token(digest(token), Purpose.RESET, now) is None:
                raise BadResetToken
            await self._know_only(tx, user, client)
            await accounts.change_user(
                user.id, now, password_hash=password_hash, email_verified=True
            )
            ended = await self._end_all(tx, user, revoke_tokens=revoke_tokens)
            await self.trail.note(tx, "account.reset_password", user.id, device, actor_id=user.id)
        self._changed(user, device, ended)

    async def change_password(
        self,
        caller: Caller,
        current: str,
        password: str,
        device: Device = NOWHERE,
        *,
        revoke_tokens: bool = False,
    ) -> None:
        """Set a new password by the present one. Every sign-in ends, the caller's too.

        Raises:
            WrongPassword: The present one is another, or was changed at the same moment.
            BadPassword: The new one is not accepted.
            TooManyAttempts: The present one was wrong too often.
            TooBusy: Too many passwords are being hashed.
        """
        check_password(password, email=caller.email, name=caller.name)
        # Counted apart from logins: a stolen access token must not keep its owner from those.
        account = f"change {caller.user_id}"
        async with self.database.read() as tx:
            await self.throttle.check(tx, account, None)
            user = await AccountRepository(tx).find(caller.user_id)
        stored = None if user is None else user.password_hash
        right, _ = await self.passwords.verify(current, stored)
        if user is None or not right:
            async with self.database.begin() as tx:
                await self.throttle.failed(tx, account, None)
                await self._note_change(tx, caller, device, "refused")
            raise WrongPassword
        password_hash = await self.passwords.hash(password)
        async with self.database.begin() as tx:
            await self.throttle.check(tx, account, None)
            accounts = AccountRepository(tx)
            now = self.clock.now()
            await self._know_only(tx, user, client_of(device.address))
            if not await accounts.replace_password(user.id, stored, password_hash, now):
                raise WrongPassword
            ended = await self._end_all(tx, user, revoke_tokens=revoke_tokens)
            await self._note_change(tx, caller, device, "ok")
        self._changed(user, device, ended)

    async def password_link(self, tx: Transaction, user_id: UUID) -> tuple[str, datetime]:
        """Make a link that sets a user's password within the caller's transaction, and its end.

        Earlier ones of the user end. It is for operators; its hand-over is theirs.

        Raises:
            LookupError: There is no such user.
        """
        user = await AccountRepository(tx).find(user_id)
        if user is None:
            raise LookupError("no such user")
        return await self.letters.new_link(tx, user, Purpose.RESET)

    async def mail_password_link(self, email: str, link: str) -> None:
        """Send such a link to its user, soon."""
        self.letters.password_link(email, link)

    async def _know_only(self, tx: Transaction, user: User, client: str | None) -> None:
        # Before the user's row is written, as at a login: two orders would wait for each other.
        await self.throttle.succeeded(tx, user.email, client)
        await self.throttle.know_only(tx, user.id, client)

    async def _end_all(
        self, tx: Transaction, user: User, *, revoke_tokens: bool
    ) -> tuple[list[UUID], list[UUID]]:
        """End sign-ins and mailed tokens, and access tokens if asked; return what has ended."""
        accounts = AccountRepository(tx)
        sign_ins = await accounts.revoke_all(user.id, self.clock.now())
        await accounts.drop_mailed_tokens(user.id)
        tokens: list[UUID] = []
        if revoke_tokens and self.personal is not None:
            tokens = await self.personal.revoke_all(user.id, tx)
        return sign_ins, tokens

    def _changed(self, user: User, device: Device, ended: tuple[list[UUID], list[UUID]]) -> None:
        sign_ins, tokens = ended
        self.look_again(sign_ins)
        if self.personal is not None and tokens:
            self.personal.look_again(tokens)
        self.letters.password_changed(user, device)

    async def _count_wrong(self, client: str | None) -> None:
        async with self.database.begin() as tx:
            await self.throttle.admit(tx, client)

    async def _note_change(
        self, tx: Transaction, caller: Caller, device: Device, outcome: str
    ) -> None:
        await self.trail.note(
            tx,
            "account.change_password",
            caller.user_id,
            device,
            actor_id=caller.user_id,
            outcome=outcome,
            sign_in_id=caller.sign_in_id,
        )
