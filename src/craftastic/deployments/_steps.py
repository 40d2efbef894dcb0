"""One step of a deployment: what it is due for is asked of Coolify, and written down.

No transaction is open over a call. A step works on what it has claimed; what it writes is written
only as long as nobody else has claimed it since.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import anyio

from craftastic.clock import Clock
from craftastic.coolify.api import Run, RunStatus
from craftastic.coolify.errors import CoolifyBusy, CoolifyNotFound, CoolifyUnavailable
from craftastic.coolify.service import Connected, CoolifyService
from craftastic.credentials.service import SecretUnreadable
from craftastic.database import Database, DatabaseUnavailable
from craftastic.deployments import _following as following
from craftastic.deployments._asking import Asking
from craftastic.deployments._calls import REFUSALS, Calls, words_of
from craftastic.deployments._following import Look, Outcome
from craftastic.deployments._model import Deployment, Pace, Status
from craftastic.deployments._repository import Claim, DeploymentRepository
from craftastic.errors import CraftasticError
from craftastic.git.service import Masker
from craftastic.metrics import Metrics

WRITE_TIMEOUT_S = 10.0
RUNS_LOOKED_AT = 10
NEWEST_LOOKED_AT = 3
"""Whether a newer one has finished; each comes with its log."""

MaskerFor = Callable[[UUID, UUID], Awaitable[Masker]]


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of deployments; see `DeploymentService` about the arguments."""

    database: Database
    coolify: CoolifyService
    clock: Clock
    metrics: Metrics
    masker_for: MaskerFor
    pace: Pace

    async def run(self, claim: Claim) -> Deployment | None:
        """Do one step and give the deployment back; None when somebody else has it by now.

        Cancellation leaves it claimed until the claim runs out; then whoever claims it looks first
        whether Coolify was asked already.

        Raises:
            DatabaseUnavailable: Nothing was written; likewise.
        """
        look = Look(claim.now, self.clock.now(), self.pace)
        try:
            with anyio.fail_after(self.pace.step_s):
                outcome = await self._outcome(claim, look)
        except TimeoutError:
            outcome = self._unanswered(claim.row, following.NO_ANSWER, look)
        return None if outcome is None else await self._write(claim, outcome)

    async def _write(self, claim: Claim, outcome: Outcome) -> Deployment | None:
        # What Coolify has done already must not be forgotten because a client went away.
        try:
            with anyio.fail_after(WRITE_TIMEOUT_S, shield=True):
                async with self.database.begin() as tx:
                    row = await DeploymentRepository(tx).write(
                        claim, outcome.changes, outcome.delay_s, self.clock.now()
                    )
        except TimeoutError as error:
            raise DatabaseUnavailable("The database is busy; try again.") from error
        if row is not None and row.ended and not claim.row.ended:
            self.metrics.deployment_ended(row.kind, row.status)
        return row

    async def _outcome(self, claim: Claim, look: Look) -> Outcome | None:
        row = claim.row
        if row.cancel_wanted and row.run_id is None and row.asked_at is None:
            return following.called_off(look)
        try:
            connected = await self.coolify.connected_as(row.owner_id, row.source, row.connection_id)
        except SecretUnreadable as error:
            return self._untold(row, words_of(error), self.pace.slow_s, look)
        # The operator may have set up another Coolify: what it knows by this id is not ours.
        if connected is None or connected.api.web_url != row.web_url:
            return self._disconnected(row, look)
        calls = Calls(self.coolify, self.metrics)
        left_s = await calls.pause_left(connected, to_ask=row.run_id is None)
        if left_s > 0:
            busy = CoolifyBusy(retry_after_s=left_s, queue_full=False)
            return self._untold(row, row.reason or words_of(busy), left_s, look)
        return await self._asked(claim, connected, calls, look)

    async def _asked(
        self, claim: Claim, connected: Connected, calls: Calls, look: Look
    ) -> Outcome | None:
        row = claim.row
        try:
            if row.run_id is None:
                return await Asking(self.database, calls, connected, self.pace).step(claim, look)
            if not row.ended:
                return await self._follow(row, connected, calls, look)
            return await self._health(row, connected, calls, look)
        except CoolifyBusy as error:
            return self._untold(row, words_of(error), error.retry_after_s, look)
        except CoolifyUnavailable as error:
            return self._unanswered(row, words_of(error), look)
        except REFUSALS as error:
            return self._refused(row, words_of(error), look)

    # ---- following ----------------------------------------------------------------------------

    async def _follow(
        self, row: Deployment, connected: Connected, calls: Calls, look: Look
    ) -> Outcome:
        assert row.run_id is not None
        trouble = await self._cancel(row, connected, calls) if row.cancel_wanted else None
        try:
            async with calls.counted(connected):
                run = await connected.api.run(row.run_id)
        except CoolifyNotFound as error:
            if row.run_word is not None:
                raise
            return await self._lost(row, words_of(error), connected, calls, look)
        ahead = await self._ahead(row, run, connected, calls, look)
        why = await self._why(row, run) if run.status is RunStatus.FAILED else following.NO_LINE
        outcome = following.after_run(row, run, look, why=why, ahead=ahead)
        if trouble is None or outcome.delay_s is None:
            return outcome
        said = following.plain(f"It could not be cancelled: {trouble}")
        changes = {**outcome.changes, "reason": said, "cancel_wanted": False}
        return Outcome(outcome.delay_s, changes)

    async def _cancel(self, row: Deployment, connected: Connected, calls: Calls) -> str | None:
        """Ask Coolify to cancel; return why it would not."""
        assert row.run_id is not None
        try:
            async with calls.counted(connected):
                await connected.api.cancel(row.run_id)
        except CoolifyNotFound:
            return None  # the look that follows finds out more
        except REFUSALS as error:
            return words_of(error)
        return None

    async def _lost(
        self, row: Deployment, said: str, connected: Connected, calls: Calls, look: Look
    ) -> Outcome:
        """Find the run that is meant by an id which Coolify made up and never stored."""
        if look.now >= row.deadline_at:
            return following.given_up(said, look)
        async with calls.counted(connected):
            runs = await connected.api.runs(row.app_id, RUNS_LOOKED_AT)
        found = following.joined(runs, row, already_queued=True)
        if found is not None:
            return following.taken_up(found.id, look)
        return following.lost(row, said, look)

    async def _ahead(
        self, row: Deployment, run: Run, connected: Connected, calls: Calls, look: Look
    ) -> int | None:
        waited_s = look.now - (row.asked_at or look.now)
        if run.status is not RunStatus.QUEUED or waited_s <= self.pace.queue_s:
            return None
        async with calls.counted(connected):
            return following.ahead_of(await connected.api.queue(), run)

    async def _why(self, row: Deployment, run: Run) -> str:
        text = following.failing_text(run)
        if text is None:
            return following.failure_of(run, None)
        try:
            masker = await self.masker_for(row.owner_id, row.environment_id)
        except CraftasticError:
            # What nobody can take secrets out of is not shown, and still it has failed.
            return following.NO_LINE
        return following.failure_of(run, masker.mask_text(text))

    # ---- health -------------------------------------------------------------------------------

    async def _health(
        self, row: Deployment, connected: Connected, calls: Calls, look: Look
    ) -> Outcome:
        async with calls.counted(connected):
            runs = await connected.api.runs(row.app_id, NEWEST_LOOKED_AT)
        if following.is_superseded(row, runs):
            return following.superseded(look)
        async with calls.counted(connected):
            application = await connected.api.application(row.app_id)
        return following.after_application(row, application, look)

    # ---- when Coolify does not say ------------------------------------------------------------

    def _unanswered(self, row: Deployment, reason: str, look: Look) -> Outcome:
        # An answer that is on its way still must have come before anybody asks again.
        least_s = self.pace.most_s if row.run_id is None else 0.0
        grown_s = self.pace.look_s * self.pace.growth ** min(row.looks, 50)
        return self._untold(row, reason, max(least_s, min(grown_s, self.pace.slow_s)), look)

    def _refused(self, row: Deployment, reason: str, look: Look) -> Outcome:
        if row.run_id is None and row.asked_at is None:
            return following.not_taken(reason, look)
        return self._untold(row, reason, self.pace.slow_s, look)

    def _untold(self, row: Deployment, reason: str, delay_s: float, look: Look) -> Outcome:
        if row.status is Status.SUCCEEDED:
            return following.health_not_told(row, reason, delay_s, look)
        if row.run_id is not None:
            return following.not_told(row, reason, delay_s, look)
        return following.ask_again(row, reason, delay_s, look, surely_not_started=False)

    def _disconnected(self, row: Deployment, look: Look) -> Outcome:
        if row.status is Status.SUCCEEDED:
            return following.health_unknown(following.GONE_AFTER, look)
        if row.run_id is None and row.asked_at is None:
            return following.not_taken(following.GONE_BEFORE, look)
        return following.given_up(following.GONE, look)
