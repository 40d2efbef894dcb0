"""Stops an environment that takes more than its share, which is not its owner's wish."""

from uuid import UUID

from craftastic.environments._idle import DISK_QUOTA
from craftastic.environments._repository import EnvironmentRepository
from craftastic.environments._trail import record
from craftastic.environments.service import EnvironmentService

__all__ = ["stop_over_quota"]


async def stop_over_quota(
    environments: EnvironmentService, environment_id: UUID, reason: str
) -> bool:
    """Wish that a running environment is stopped for its disk; False where it does not run.

    Its owner can start it again at any time.

    Args:
        environments: The environments.
        environment_id: Which one.
        reason: Why, and what is the way on, in plain words for its owner.
    """
    async with environments.database.begin() as tx:
        repository = EnvironmentRepository(tx)
        seen = await repository.find(environment_id)
        if seen is None:
            return False
        wished = await repository.wish_idle(seen, DISK_QUOTA, reason, environments.clock.now())
        if wished is None:
            return False
        details = {"name": wished.name, "reason": DISK_QUOTA}
        await record(environments.audit, tx, "environment.stop", wished, None, details)
    environments.work.start(environment_id, environments.converge)
    return True
