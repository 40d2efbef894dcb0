"""Who did what: the audit log as its readers see it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts import administration
from craftastic.accounts.caller import UserId
from craftastic.audit.service import AuditEvent, AuditService, Verification
from craftastic.database import Database

__all__ = ["ActivityService", "AuditEvent", "Verification"]


@dataclass(frozen=True, slots=True)
class ActivityService:
    """Shows users what they did, and administrators what anybody did."""

    database: Database
    audit: AuditService

    async def own(self, user_id: UserId, *, limit: int, before: int | None) -> list[AuditEvent]:
        """List what a user did, newest first, those before an event's number."""
        return await self.audit.list_for(user_id, limit=limit, before=before)

    async def everybody(
        self,
        *,
        limit: int,
        before: int | None = None,
        actor_id: UUID | None = None,
        action: str | None = None,
    ) -> tuple[list[AuditEvent], dict[UUID, str]]:
        """List what anybody did, newest first, and the addresses of those who still exist.

        Args:
            limit: At most 200.
            before: Number of the event that the list goes on after.
            actor_id: Of this user only.
            action: Of this action (`git.push`), or of all actions of a domain (`git`).
        """
        events = await self.audit.list_all(
            limit=limit, before=before, actor_id=actor_id, action=action
        )
        actors = {one.actor_id for one in events if one.actor_id is not None}
        return events, await self._addresses(sorted(actors))

    def exported(self) -> AsyncGenerator[bytes]:
        """Yield the whole log as lines of JSON; see `AuditService.exported`."""
        return self.audit.exported()

    async def verify(self) -> Verification:
        """Check the log's chain; see `AuditService.verify`."""
        return await self.audit.verify()

    async def _addresses(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        if not ids:
            return {}
        async with self.database.read() as tx:
            return await administration.addresses(tx, ids)
