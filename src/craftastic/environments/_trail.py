"""What happens to environments, on record."""

from collections.abc import Mapping
from uuid import UUID

from craftastic.audit.service import AuditService
from craftastic.database import Transaction
from craftastic.environments._model import Environment


async def record(
    audit: AuditService,
    tx: Transaction,
    action: str,
    environment: Environment,
    actor: UUID | None,
    details: Mapping[str, object],
) -> None:
    """Append to the audit log; last in a transaction. No actor is the server itself."""
    await audit.record(
        action,
        actor_id=actor,
        object_type="environment",
        object_id=environment.id,
        details=details,
        tx=tx,
    )


async def record_changes(
    audit: AuditService, tx: Transaction, before: Environment, after: Environment
) -> None:
    """Append what an owner has changed of an environment, one event for each thing."""
    changes = {
        "environment.rename": (before.name, after.name),
        "environment.push_policy": (before.push_policy.value, after.push_policy.value),
        "environment.idle_stop": (before.idle_stop_minutes, after.idle_stop_minutes),
    }
    for action, (old, new) in changes.items():
        if old != new:
            await record(audit, tx, action, after, after.owner_id, {"from": old, "to": new})
