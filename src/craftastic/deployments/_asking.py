"""Asking Coolify for a deployment: once, whatever dies in between.

What is about to be asked for is written down before, with the newest run that was there. Whoever
finds that later looks first whether there is a newer one.

Source: Coolify v4.3.11, `DeployController::deploy_resource`, `helpers/applications.php`,
`queue_application_deployment`.
"""

from dataclasses import dataclass

from craftastic.coolify.api import Asked, Run
from craftastic.coolify.errors import CoolifyBusy
from craftastic.coolify.service import Connected
from craftastic.database import Database
from craftastic.deployments import _following as following
from craftastic.deployments._calls import REFUSALS, Calls, words_of
from craftastic.deployments._following import Look, Outcome
from craftastic.deployments._model import Deployment, Kind, Pace
from craftastic.deployments._repository import Claim, DeploymentRepository

RUNS_LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Asking:
    """The first part of a deployment, through one connection."""

    database: Database
    calls: Calls
    connected: Connected
    pace: Pace

    async def step(self, claim: Claim, look: Look) -> Outcome | None:
        """Ask for the deployment, unless that was done; None when somebody else has it by now.

        Raises:
            CoolifyUnavailable: There was no answer, or none about what was done.
            CoolifyBusy: Coolify would not even tell which runs there are.
        """
        row = claim.row
        if row.asked_at is None:
            newest = await self._runs(row, 1)
        else:
            newest = await self._runs(row, RUNS_LOOKED_AT)
            async with self.database.read() as tx:
                taken = await DeploymentRepository(tx).others_runs(row)
            found = following.made_since(newest, row, taken)
            if found is not None:
                return following.taken_up(found.id, look)
            if row.cancel_wanted:
                return following.called_off(look)
        known = newest[0].id if newest else None
        async with self.database.begin() as tx:
            begun = await DeploymentRepository(tx).begin_asking(claim, known, self.pace.hold_s)
        if begun is None:
            return None
        if begun.cancel_wanted:
            return following.called_off(look)
        return await self._ask(begun, look)

    async def _ask(self, row: Deployment, look: Look) -> Outcome:
        try:
            async with self.calls.counted(self.connected):
                asked = await self._post(row)
        except CoolifyBusy as error:
            return following.ask_again(
                row, words_of(error), error.retry_after_s, look, surely_not_started=True
            )
        except REFUSALS as error:
            return following.not_taken(words_of(error), look)
        if asked.run_id is not None and not asked.already_queued:
            return following.taken_up(asked.run_id, look)
        try:
            runs = await self._runs(row, RUNS_LOOKED_AT)
        except REFUSALS as error:
            # Coolify has agreed: what it refuses now says nothing of that.
            return following.ask_again(
                row, words_of(error), self.pace.slow_s, look, surely_not_started=False
            )
        found = following.joined(runs, row, already_queued=asked.already_queued)
        if found is not None:
            return following.taken_up(found.id, look)
        if asked.already_queued:
            return following.lost(row, asked.message, look)
        return following.not_taken(f"Coolify did not start a deployment: {asked.message}", look)

    async def _post(self, row: Deployment) -> Asked:
        api = self.connected.api
        if row.kind is Kind.ROLLBACK:
            assert row.commit is not None
            return await api.rollback(row.app_id, row.commit)
        return await api.deploy(row.app_id, force=row.force, pull_request_id=row.pull_request_id)

    async def _runs(self, row: Deployment, take: int) -> list[Run]:
        async with self.calls.counted(self.connected):
            return await self.connected.api.runs(row.app_id, take)
