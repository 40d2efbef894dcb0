"""Repairs of environments' repositories, on request.

That one is wanted is stored first; the environment's own steps do it, whatever dies in between.
"""

from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.environments._answers import clone_failure, settled
from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
)
from craftastic.environments._repair import STEP
from craftastic.environments._repository import EnvironmentRepository
from craftastic.environments._trail import record
from craftastic.environments.service import EnvironmentService
from craftastic.errors import InvalidInput
from craftastic.failpoints import failpoint
from craftastic.worktrees.service import Repaired

REPAIR_WAIT_S = 900.0


class NothingToRepair(InvalidInput):
    """The environment has no repository."""

    code = "ENVIRONMENT_WITHOUT_REPOSITORY"


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair.

    Args:
        repaired: What it did, and what it kept.
        pending: It goes on; asking again waits for it.
    """

    repaired: Repaired
    pending: bool = False


@dataclass(frozen=True, slots=True)
class RepairService:
    """Repairs environments' repositories."""

    environments: EnvironmentService

    async def repair(self, owner: UserId, environment_id: UUID) -> Repair:
        """Look an environment's repository through, put it right, and say what was done.

        Locks that nobody holds are removed. A damaged repository is cloned anew beside the damaged
        one, which is kept; what can be read of it and was not pushed is carried over. A stopped
        environment is started. One that is being repaired is waited for. Cancellation, as by a
        client that goes away, ends the waiting only.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            NothingToRepair: It has no repository.
            EnvironmentInError, EnvironmentStopped, EnvironmentNotReady: It cannot be started.
            CloneFailed, DiskFull: The repository could not be cloned, or not be repaired.
            RepositoryUnchecked: It could not be looked through to its end; nothing was changed.
            SandboxGone, SandboxExhausted, RuntimeUnavailable: The sandbox could not be asked.
        """
        environment = await self.environments.get_owned(owner, environment_id)
        if environment.repository_url is None:
            raise NothingToRepair("The environment has no repository.")
        if environment.status is not EnvironmentStatus.RUNNING:
            environment = await self.environments.ensure_running(environment)
        if environment.clone_status in {CloneStatus.PENDING, CloneStatus.CLONING}:
            environment = await self.environments.ready(owner, environment_id)
        if environment.clone_status is not CloneStatus.REPAIRING:
            await self._wish(owner, environment)
        self.environments.work.start(environment_id, self.environments.converge)
        environment = await self.environments.wait(owner, environment_id, settled, REPAIR_WAIT_S)
        if not settled(environment):
            return Repair(Repaired(), pending=True)
        if environment.clone_reason is not None:
            raise clone_failure(environment, "The repository could not be repaired.")
        repairs = self.environments.worktrees.repairs
        return Repair(await repairs.told(environment.sandbox, environment_id))

    async def _wish(self, owner: UserId, environment: Environment) -> None:
        async with self.environments.database.begin() as tx:
            wished = await EnvironmentRepository(tx).wish(
                owner,
                environment.id,
                Desired.RUNNING,
                clone_status=CloneStatus.REPAIRING.value,
                clone_reason=None,
                progress_step=STEP,
                progress_message="Waiting to look through the repository",
                progress_percent=None,
                updated_at=self.environments.clock.now(),
            )
            details = {"name": wished.name}
            await record(self.environments.audit, tx, "environment.repair", wished, owner, details)
        failpoint("environment.repair.wished")
