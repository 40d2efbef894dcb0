"""Pushes: which ones an environment may make, and what became of each."""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.environments.service import PushPolicy
from craftastic.pushes._model import (
    GatewayEnvironment,
    PushOutcome,
    PushRefusal,
    RecordedUpdate,
    RefResult,
    RefUpdate,
)
from craftastic.pushes._policy import moved_branches, refusals
from craftastic.pushes._repository import KEPT_PER_ENVIRONMENT, PushRepository

__all__ = [
    "GatewayEnvironment",
    "PushOutcome",
    "PushPolicy",
    "PushRefusal",
    "PushService",
    "RecordedUpdate",
    "RefResult",
    "RefUpdate",
]

MAX_AUDITED_REFS = 100
"""Refs of one push that have an event each; the others share one."""

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
        self, environment: GatewayEnvironment, updates: Sequence[RefUpdate]
    ) -> PushRefusal | None:
        """Return None to let a push go on, or why it is refused, as a whole.

        Raises:
            DatabaseUnavailable: What it depends on could not be read.
        """
        known: Collection[str] = ()
        moved = moved_branches(updates)
        if environment.push_policy is PushPolicy.SESSIONS and moved:
            known = moved & set(await self.session_branches(environment.id))
            async with self.database.read() as tx:
                known |= await PushRepository(tx).own(environment.id, moved - known)
        reasons = refusals(environment.push_policy, updates, known)
        return PushRefusal(reasons) if reasons else None

    async def recorded(
        self,
        environment: GatewayEnvironment,
        updates: Sequence[RefUpdate],
        results: Mapping[str, RefResult],
        push_id: str | None = None,
    ) -> None:
        """Take note of a push that ended, in the environment's history and in the audit log.

        Args:
            environment: Where it came from; when that is gone by now, only the audit log tells.
            updates: Its refs; each one has a result.
            results: By ref.
            push_id: Whoever made the push finds it by this.

        Raises:
            DatabaseUnavailable: It could not be written; nothing was.
        """
        now = self.clock.now()
        async with self.database.begin() as tx:
            repository = PushRepository(tx)
            if await repository.lock(environment.id):
                await repository.add(
                    environment.id, environment.owner_id, push_id, updates, results, now
                )
                await repository.note_branches(environment.id, updates, results, now)
            await self._audit(tx, environment, updates, results)

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

    async def _audit(
        self,
        tx: Transaction,
        environment: GatewayEnvironment,
        updates: Sequence[RefUpdate],
        results: Mapping[str, RefResult],
    ) -> None:
        for update in updates[:MAX_AUDITED_REFS]:
            result = results[update.ref]
            details = {"ref": update.ref, "old": update.old, "new": update.new}
            if result.reason is not None:
                details["reason"] = result.reason
            await self._event(tx, environment, result.outcome.value, details)
        others = updates[MAX_AUDITED_REFS:]
        if others:
            lines = [
                f"{one.ref} {one.old} {one.new} {results[one.ref].outcome.value}\n"
                for one in others
            ]
            counts = Counter(results[one.ref].outcome.value for one in others)
            details = {
                "refs": len(others),
                "outcomes": dict(counts),
                "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
            }
            await self._event(tx, environment, counts.most_common(1)[0][0], details)

    async def _event(
        self,
        tx: Transaction,
        environment: GatewayEnvironment,
        outcome: str,
        details: Mapping[str, object],
    ) -> None:
        await self.audit.record(
            "git.push",
            actor_id=environment.owner_id,
            object_type="environment",
            object_id=environment.id,
            outcome=outcome,
            details=details,
            tx=tx,
        )
