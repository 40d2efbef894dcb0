"""What the audit log says of accounts."""

from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts._model import Device
from craftastic.audit.service import AuditService
from craftastic.database import Transaction


@dataclass(frozen=True, slots=True)
class Trail:
    """Writes the audit log; without one, nothing."""

    audit: AuditService | None

    async def note(
        self,
        tx: Transaction,
        action: str,
        user_id: UUID | None,
        device: Device,
        *,
        actor_id: UUID | None = None,
        outcome: str = "ok",
        sign_in_id: UUID | None = None,
    ) -> None:
        """Append one event; make it the last statement of the transaction.

        Args:
            tx: What the event is a part of.
            action: `account.verb`.
            user_id: Whose account; None for an address that has none, which is not noted.
            device: Where it came from.
            actor_id: Who did it; None for whoever has not shown to be that user.
            outcome: `ok`, or how else it ended.
            sign_in_id: The sign-in that began, or that it is about.
        """
        if self.audit is None:
            return
        details: dict[str, object] = {"address": device.address, "device": device.user_agent}
        if sign_in_id is not None:
            details["signIn"] = str(sign_in_id)
        await self.audit.record(
            action,
            actor_id=actor_id,
            object_type="user",
            object_id=user_id,
            outcome=outcome,
            details=details,
            tx=tx,
        )
