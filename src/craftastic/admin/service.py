"""Operator controls: who has an account, who may use it, who is invited. All of it is on record."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import anyio.to_thread

from craftastic import keys
from craftastic.access_tokens.service import AccessTokenService
from craftastic.accounts import administration
from craftastic.accounts.administration import MAX_LISTED, OpenInvitation, Person
from craftastic.accounts.caller import UserId
from craftastic.accounts.service import (
    AccountService,
    SingleUser,
    checked_name,
    normal_email,
)
from craftastic.audit.service import AuditService
from craftastic.database import Transaction

__all__ = ["MAX_LISTED", "AdminService", "OpenInvitation", "PasswordLink", "Person"]


@dataclass(frozen=True, slots=True)
class PasswordLink:
    """Where one person sets a password, once; whoever has it is that person."""

    url: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AdminService:
    """Changes other people's accounts."""

    accounts: AccountService
    tokens: AccessTokenService
    audit: AuditService

    async def list_users(self, after: str | None = None, limit: int = MAX_LISTED) -> list[Person]:
        """List accounts by address, those after `after`, at most `MAX_LISTED`."""
        async with self.accounts.database.read() as tx:
            return await administration.list_users(tx, after, limit)

    async def find(self, email: str) -> Person:
        """Return the account of an address.

        Raises:
            BadEmail: The text is not an e-mail address.
            UserNotFound: It has no account.
        """
        async with self.accounts.database.read() as tx:
            return await administration.find_by_email(tx, normal_email(email))

    async def add_user(
        self, actor: UserId | None, email: str, name: str, *, is_admin: bool = False
    ) -> tuple[Person, PasswordLink]:
        """Make an account, whatever the setting on registration says; its person sets the password.

        The first account of a server is an administrator in any case.

        Args:
            actor: Who asked; None for the operator at the machine.
            email: Of the account; the link goes there too.
            name: Of the person.
            is_admin: Whether the person administers the server.

        Raises:
            BadEmail, BadName: A value is not accepted.
            EmailTaken: The address has an account.
            SingleUser: The server is for one user, who exists.
        """
        email, name = normal_email(email), checked_name(name)
        async with self.accounts.database.begin() as tx:
            is_first = await administration.count(tx) == 0
            if not is_first:
                self._refuse_second()
            now = self.accounts.clock.now()
            person = await administration.add_user(
                tx, email, name, now, is_admin=is_admin or is_first, founder=is_first
            )
            link = PasswordLink(*await self.accounts.recovery.password_link(tx, person.id))
            details = {"email": email, "admin": person.is_admin}
            await self._audit(tx, "user.add", actor, person.id, details)
        if is_first:
            with suppress(OSError):  # it is of no use by now, wherever it lies
                await anyio.to_thread.run_sync(
                    keys.remove_first_account_token, self.accounts.keys_dir
                )
        await self.accounts.recovery.mail_password_link(person.email, link.url)
        return person, link

    async def disable(self, actor: UserId | None, user_id: UUID) -> Person:
        """Disable an account: its sign-ins and access tokens end, its sandboxes go on.

        This process knows at once, others within 5 s.

        Raises:
            UserNotFound: There is none.
            LastAdministrator: Nobody else administers the server.
        """
        async with self.accounts.database.begin() as tx:
            person, ended = await administration.disable(tx, user_id, self.accounts.clock.now())
            tokens = await self.tokens.revoke_all(user_id, tx)
            await self._audit(tx, "user.disable", actor, user_id, {"email": person.email})
        self._look_again(ended, tokens)
        return person

    async def enable(self, actor: UserId | None, user_id: UUID) -> Person:
        """Let a disabled account sign in again; access tokens have to be made anew.

        Raises:
            UserNotFound: There is none.
        """
        async with self.accounts.database.begin() as tx:
            person = await administration.enable(tx, user_id, self.accounts.clock.now())
            await self._audit(tx, "user.enable", actor, user_id, {"email": person.email})
        return person

    async def reset_password(
        self, actor: UserId | None, user_id: UUID
    ) -> tuple[Person, PasswordLink]:
        """Void an account's password, end all its sign-ins and tokens, and return the way back in.

        Raises:
            UserNotFound: There is none.
            UserDisabled: It is disabled.
        """
        async with self.accounts.database.begin() as tx:
            now = self.accounts.clock.now()
            person, ended = await administration.void_password(tx, user_id, now)
            tokens = await self.tokens.revoke_all(user_id, tx)
            link = PasswordLink(*await self.accounts.recovery.password_link(tx, user_id))
            await self._audit(tx, "user.reset_password", actor, user_id, {"email": person.email})
        self._look_again(ended, tokens)
        await self.accounts.recovery.mail_password_link(person.email, link.url)
        return person, link

    async def list_invitations(self) -> list[OpenInvitation]:
        """List the invitations that somebody may use still, the newest first."""
        async with self.accounts.database.read() as tx:
            return await administration.open_invitations(tx, self.accounts.clock.now())

    async def revoke_invitation(self, actor: UserId | None, invitation_id: UUID) -> None:
        """Take an invitation back.

        Raises:
            InvitationNotFound: It is absent, used or expired.
        """
        async with self.accounts.database.begin() as tx:
            now = self.accounts.clock.now()
            found = await administration.remove_invitation(tx, invitation_id, now)
            details = {"email": found.email}
            await self._audit(tx, "invitation.revoke", actor, invitation_id, details, "invitation")

    def _refuse_second(self) -> None:
        why = self.accounts.single_user()
        if why is not None:
            raise SingleUser("This server is for one user, who has an account already", details=why)

    def _look_again(self, sign_ins: list[UUID], tokens: list[UUID]) -> None:
        self.accounts.look_again(sign_ins)
        self.tokens.look_again(tokens)

    async def _audit(
        self,
        tx: Transaction,
        action: str,
        actor: UUID | None,
        object_id: UUID,
        details: Mapping[str, object],
        object_type: str = "user",
    ) -> None:
        await self.audit.record(
            action,
            actor_id=actor,
            object_type=object_type,
            object_id=object_id,
            details=details,
            tx=tx,
        )
