"""Who may have an account."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio.to_thread

from craftastic import keys
from craftastic.accounts._model import NewAccount
from craftastic.accounts._repository import AccountRepository
from craftastic.accounts.caller import digest
from craftastic.clock import Clock
from craftastic.errors import Forbidden

WRONG_INVITATION = "This invitation is unknown, used, expired, or for another address"


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


def several_users() -> str | None:
    """Return None: nothing stands against a second account."""
    return None


@dataclass(frozen=True, slots=True)
class Registration:
    """The rules, as the operator has set them; `AccountService` tells what its fields are."""

    clock: Clock
    keys_dir: Path
    setting: Literal["invite", "open", "closed"]
    single_user: Callable[[], str | None]

    async def is_founding(self, setup_token: str | None) -> bool:
        """Tell whether this is the first account, by the token that was given.

        Raises:
            SetupTokenNeeded: It is not the one.
        """
        if setup_token is None:
            return False
        token = await anyio.to_thread.run_sync(keys.read_first_account_token, self.keys_dir)
        if token is None or not hmac.compare_digest(token.encode(), setup_token.strip().encode()):
            raise SetupTokenNeeded(
                "This is not the one-time token of the first account, or it has been used",
                details="The server prints it at its first start and keeps it in keys/.",
            )
        return True

    async def allow(
        self, accounts: AccountRepository, new: NewAccount, email: str, *, founding: bool
    ) -> None:
        """Refuse whoever may not register, before that costs anything.

        Raises:
            SetupTokenNeeded, InvitationNeeded, RegistrationClosed, SingleUser: Not allowed.
        """
        count = await accounts.count()
        if count > 0:
            self.refuse_second()
        if founding:
            if await accounts.has_founder():
                raise SetupTokenNeeded("The one-time token has been used already")
            return
        if self.setting == "open":
            return
        if count == 0:
            raise SetupTokenNeeded(
                "The first account needs the one-time token that the server printed at its first "
                "start: send it as setupToken",
                details="It is kept in the data folder, in keys/first-account-token.",
            )
        if self.setting == "closed":
            raise RegistrationClosed("Registration is closed on this server")
        if new.invitation is None or not await accounts.invitation_counts(
            digest(new.invitation), email, self.clock.now()
        ):
            raise InvitationNeeded(
                "Registration needs an invitation by an administrator of this server"
                if new.invitation is None
                else WRONG_INVITATION
            )

    async def use_invitation(
        self, accounts: AccountRepository, new: NewAccount, email: str, *, founding: bool
    ) -> None:
        """Use the invitation up, where one is needed.

        Raises:
            InvitationNeeded: Somebody else was faster.
        """
        if founding or self.setting != "invite":
            return
        given = digest(new.invitation or "")
        if not await accounts.use_invitation(given, email, self.clock.now()):
            raise InvitationNeeded(WRONG_INVITATION)

    def refuse_second(self) -> None:
        """Refuse another account where the server is for one user.

        Raises:
            SingleUser: It is.
        """
        why = self.single_user()
        if why is not None:
            raise SingleUser("This server is for one user, who has an account already", details=why)
