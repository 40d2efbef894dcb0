"""What happens to sessions, on record."""

from uuid import UUID

from craftastic.audit.service import AuditService
from craftastic.database import Transaction
from craftastic.errors import CraftasticError
from craftastic.sessions._model import Session


async def record(
    audit: AuditService,
    tx: Transaction,
    action: str,
    actor: UUID,
    session: Session,
    failure: CraftasticError | None = None,
) -> None:
    """Append to the audit log, last in a transaction; `failure` is why something is undone."""
    details = {
        "environment": str(session.environment_id),
        "name": session.name,
        "branch": session.branch,
        "type": session.session_type.value,
    }
    await audit.record(
        action,
        actor_id=actor,
        object_type="session",
        object_id=session.id,
        outcome="ok" if failure is None else "undone",
        details=details if failure is None else {**details, "why": failure.code},
        tx=tx,
    )
