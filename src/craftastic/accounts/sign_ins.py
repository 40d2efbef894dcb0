"""A user's own sign-ins: where they are signed in, and how to end one of them."""

from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts import administration
from craftastic.accounts.administration import SignedInDevice
from craftastic.accounts.service import AccountService, UserId
from craftastic.audit.service import AuditService


@dataclass(frozen=True, slots=True)
class SignInService:
    """Lists sign-ins and ends single ones; `AccountService.logout_all` ends them all."""

    accounts: AccountService
    audit: AuditService

    async def list_owned(self, owner: UserId) -> list[SignedInDevice]:
        """List the owner's sign-ins that live, the one that was used last first."""
        async with self.accounts.database.read() as tx:
            return await administration.sign_ins_of(tx, owner, self.accounts.clock.now())

    async def end(self, owner: UserId, sign_in_id: UUID) -> None:
        """End one sign-in; within 5 s its access token is refused and its sockets are closed.

        Raises:
            SignInNotFound: It is absent, over, or somebody else's.
        """
        async with self.accounts.database.begin() as tx:
            await administration.end_sign_in(tx, owner, sign_in_id, self.accounts.clock.now())
            await self.audit.record(
                "sign_in.end", actor_id=owner, object_type="sign_in", object_id=sign_in_id, tx=tx
            )
        self.accounts.look_again([sign_in_id])
