"""What is written to the owners of accounts; without their names, which strangers may choose."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from secrets import token_hex
from uuid import UUID

import structlog

from craftastic.accounts._model import Device
from craftastic.accounts._repository import AccountRepository, User
from craftastic.accounts.caller import digest
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.mail.service import Letter, Mail, MailBusy, MailService

VERIFICATION_TTL_S = 24 * 3600
RESET_TTL_S = 30 * 60

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Purpose(StrEnum):
    """What a token that goes by mail is good for, and nothing else."""

    VERIFY = "verify"
    RESET = "reset"


TTL_S = {Purpose.VERIFY: VERIFICATION_TTL_S, Purpose.RESET: RESET_TTL_S}
PAGES = {Purpose.VERIFY: "verify-email", Purpose.RESET: "reset-password"}


@dataclass(frozen=True, slots=True)
class Letters:
    """Writes to people, in the background; without a mail service nothing is written.

    Args:
        base_url: Where people reach the server. Links begin with it, and with nothing that a
            request said.
    """

    database: Database
    clock: Clock
    mail: MailService | None
    base_url: str

    async def new_link(self, tx: Transaction, user: User, purpose: Purpose) -> tuple[str, datetime]:
        """Make a link that works once, and when it ends; the user's earlier one ends now."""
        token = token_hex(32)
        now = self.clock.now()
        ends = now + timedelta(seconds=TTL_S[purpose])
        await AccountRepository(tx).put_mailed_token(
            user.id, purpose, token_hash=digest(token), email=user.email, at=now, expires_at=ends
        )
        # After the #, which browsers keep to themselves: no log and no other site sees it.
        return f"{self.base_url}/{PAGES[purpose]}#token={token}", ends

    def verification(self, user_id: UUID) -> None:
        """Ask a user to confirm the address."""

        async def letter() -> Mail | None:
            async with self.database.begin() as tx:
                user = await AccountRepository(tx).find(user_id)
                if user is None or user.email_verified or user.disabled_at is not None:
                    return None
                link, _ = await self.new_link(tx, user, Purpose.VERIFY)
            return Mail(
                user.email,
                "Confirm your e-mail address",
                "Somebody, most likely you, made an account with this address at\n"
                f"{self.base_url}\n\n"
                "If it was you, confirm the address within 24 hours by this link:\n\n"
                f"{link}\n\n"
                "If it was not you, do nothing.\n",
            )

        self.post(letter)

    def reset(self, email: str) -> None:
        """Send a way to a new password to an address, if it has an account."""
        self.post(self._reset_letter(email, "Somebody, most likely you, asked for a new password"))

    def account_exists(self, email: str) -> None:
        """Tell the owner of an address that somebody tried to register it once more."""
        begin = "Somebody, most likely you, tried to register this address, which has an account"
        self.post(self._reset_letter(email, begin))

    def password_changed(self, user: User, device: Device) -> None:
        """Tell a user that the password is another one now."""
        at = self.clock.now()

        async def letter() -> Mail:
            return Mail(
                user.email,
                "Your password was changed",
                f"The password of your account at {self.base_url}\n"
                f"was changed at {at:%Y-%m-%d %H:%M} UTC, from {device.address or 'somewhere'}. "
                "Every sign-in was ended.\n\n"
                "If it was not you, set a new one now:\n"
                f"{self.base_url}/forgot-password\n",
            )

        self.post(letter)

    def password_link(self, email: str, link: str) -> None:
        """Send a link to set a password that an operator made."""

        async def letter() -> Mail:
            return Mail(
                email,
                "Set your password",
                f"An administrator of {self.base_url}\n"
                "made this link for you. It sets the password of your account, once, within\n"
                "30 minutes:\n\n"
                f"{link}\n",
            )

        self.post(letter)

    def post(self, letter: Letter) -> None:
        """Post a letter that what was done does not depend on."""
        if self.mail is None:
            return
        try:
            self.mail.post(letter)
        except MailBusy:
            log.exception("mail is not sent: too much is waiting")

    def _reset_letter(self, email: str, begin: str) -> Letter:
        async def letter() -> Mail | None:
            async with self.database.begin() as tx:
                user = await AccountRepository(tx).find_by_email(email)
                if user is None or user.disabled_at is not None:
                    return None
                link, _ = await self.new_link(tx, user, Purpose.RESET)
            return Mail(
                user.email,
                "Set a new password",
                f"{begin}, at\n{self.base_url}\n\n"
                "If it was you, set a new password within 30 minutes by this link:\n\n"
                f"{link}\n\n"
                "If it was not you, do nothing: the password stays as it is.\n",
            )

        return letter
