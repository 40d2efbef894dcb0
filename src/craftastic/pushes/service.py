"""Pushes: which ones an environment may make, and what became of each."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService, Entry
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.environments.service import PushPolicy
from craftastic.events.service import EventLog
from craftastic.pushes import _events
from craftastic.pushes._model import (
    GatewayEnvironment,
    PushIntent,
    PushOutcome,
    PushRefusal,
    RecordedUpdate,
    RefResult,
    RefUpdate,
)
from craftastic.pushes._policy import BRANCHES, MAX_REFS, moved_branches, refusals
from craftastic.pushes._repository import KEPT_PER_ENVIRONMENT, KEPT_REFUSED, PushRepository

__all__ = [
    "MAX_REFS",
    "GatewayEnvironment",
    "PushIntent",
    "PushOutcome",
    "PushPolicy",
    "PushRefusal",
    "PushService",
    "RecordedUpdate",
    "RefResult",
    "RefUpdate",
]

LISTS_KEPT = timedelta(hours=1)
ON_ITS_WAY = RefResult(
    PushOutcome.UNKNOWN, "it is on its way, or how it ended could not be written"
)

SessionBranches = Callable[[UUID], Awaitable[Collection[str]]]
"""Gives the branches of an environment's sessions that are not deleted."""


@dataclass(frozen=True, slots=True)
class PushService:
    """What the gateway asks about a push before it goes on, and tells when it has ended."""

    database: Database
    audit: AuditService
    clock: Clock
    session_branches: SessionBranches

    async def check(
        self, environment: GatewayEnvironment, intent: PushIntent
    ) -> PushRefusal | None:
        """Return None to let a push go on, or why it is refused, as a whole.

        Raises:
            DatabaseUnavailable: What it depends on could not be read.
        """
        known: Collection[str] = ()
        moved = moved_branches(intent.updates[:MAX_REFS])
        if environment.push_policy is PushPolicy.SESSIONS and moved:
            known = moved & set(await self.session_branches(environment.id))
            async with self.database.read() as tx:
                known |= await PushRepository(tx).own(environment.id, moved - known)
        reasons = refusals(environment.push_policy, intent, known)
        return PushRefusal(reasons) if reasons else None

    async def refused(
        self, environment: GatewayEnvironment, intent: PushIntent, reasons: Mapping[str, str]
    ) -> None:
        """Take note of a push that was refused, of whose refs each has a reason.

        Raises:
            DatabaseUnavailable: It could not be written; nothing was.
        """
        event = self._event(environment, "refused", _events.refused(intent, reasons))
        results = {
            one.ref: RefResult(PushOutcome.REFUSED, reasons[one.ref])
            for one in intent.updates[:KEPT_REFUSED]
        }
        async with self.database.begin() as tx:
            pushes = PushRepository(tx)
            if await pushes.lock(environment.id):
                await pushes.add(environment, intent, results, self.clock.now())
                _tell(tx, environment, intent)
            await self.audit.append([event], tx)

    async def begun(self, environment: GatewayEnvironment, intent: PushIntent) -> None:
        """Take note of a push before anything of it goes on: what comes after it can be lost.

        Raises:
            DatabaseUnavailable: It could not be written; nothing was, and the push must not go on.
        """
        events = [
            self._event(environment, "started", details, "git.push_started")
            for details in _events.started(intent)
        ]
        results = {one.ref: ON_ITS_WAY for one in intent.updates}
        async with self.database.begin() as tx:
            pushes = PushRepository(tx)
            if await pushes.lock(environment.id):
                await pushes.add(environment, intent, results, self.clock.now())
                _tell(tx, environment, intent)
            await self.audit.append(events, tx)

    async def ended(
        self,
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
    ) -> None:
        """Take note of how a push that was begun ended, in the history and in the audit log.

        Args:
            environment: Where it came from; when that is gone by now, only the audit log tells.
            intent: As it was begun; each of its refs has a result.
            results: By ref.

        Raises:
            DatabaseUnavailable: It could not be written; nothing was.
        """
        events = [
            self._event(environment, outcome, details)
            for outcome, details in _events.ended(intent, results)
        ]
        async with self.database.begin() as tx:
            pushes = PushRepository(tx)
            if await pushes.lock(environment.id):
                now = self.clock.now()
                await pushes.end(environment.id, intent.id, results)
                await pushes.note_branches(environment.id, intent.updates, results, now)
                _tell(tx, environment, intent)
                # How far branches are ahead has changed.
                EventLog(tx).add(
                    environment.owner_id,
                    "git.changed",
                    environment.id,
                    environment_id=environment.id,
                )
            await self.audit.append(events, tx)

    async def of_interest(self, environment: GatewayEnvironment) -> Collection[str]:
        """Return the refs that `listed` should be told of, however many there are upstream."""
        branches = await self.session_branches(environment.id)
        return {f"{BRANCHES}{branch}" for branch in branches}

    async def listed(
        self, environment: GatewayEnvironment, push_id: str, refs: Mapping[str, str]
    ) -> None:
        """Keep which hashes the upstream listed for refs, when a push with this id asked for them.

        Raises:
            DatabaseUnavailable: It could not be written.
        """
        now = self.clock.now()
        async with self.database.begin() as tx:
            pushes = PushRepository(tx)
            await pushes.forget_lists(now - LISTS_KEPT)
            if await pushes.lock(environment.id):
                await pushes.keep_list(environment.id, push_id, refs, now)

    async def advertised(self, environment_id: UUID, push_id: str) -> Mapping[str, str] | None:
        """Return which hashes the upstream listed for refs before the push that carried this id.

        That is the upstream's own word as it passed the gateway. Of a long list only the branches
        of the environment's sessions and the first of the others are there: a ref that is not may
        exist. None when no list was seen to its end within the last hour.
        """
        since = self.clock.now() - LISTS_KEPT
        async with self.database.read() as tx:
            return await PushRepository(tx).find_list(environment_id, push_id, since)

    async def seen(self, environment_id: UUID, push_id: str) -> list[RecordedUpdate]:
        """Return what the gateway saw of the push that carried this id; empty for nothing.

        What runs in the sandbox can use the id for pushes of its own as well. A push is written
        before git gets the end of the answer to it.
        """
        async with self.database.read() as tx:
            return await PushRepository(tx).seen(environment_id, push_id)

    async def list_for_environment(
        self, owner: UserId, environment_id: UUID, *, limit: int = 50
    ) -> list[RecordedUpdate]:
        """List what was pushed from the owner's environment, ref by ref, newest first.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        limit = max(1, min(limit, KEPT_PER_ENVIRONMENT))
        async with self.database.read() as tx:
            return await PushRepository(tx).list_owned(owner, environment_id, limit)

    def _event(
        self,
        environment: GatewayEnvironment,
        outcome: str,
        details: Mapping[str, object],
        action: str = "git.push",
    ) -> Entry:
        return self.audit.prepared(
            action,
            actor_id=environment.owner_id,
            object_type="environment",
            object_id=environment.id,
            outcome=outcome,
            details=details,
        )


def _tell(tx: Transaction, environment: GatewayEnvironment, intent: PushIntent) -> None:
    EventLog(tx).add(
        environment.owner_id, "push.recorded", intent.id, environment_id=environment.id
    )
