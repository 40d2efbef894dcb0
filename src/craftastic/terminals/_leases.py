"""The leases of this process's hubs: taken, renewed together, given back."""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.clock import Clock
from craftastic.database import Database, DatabaseUnavailable
from craftastic.terminals._repository import LeaseRepository

LEASE_S = 15.0
RENEW_S = 5.0
OLD = timedelta(hours=1)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class PipeLease:
    """One session's; `held` is answered from memory, and not after its end even if we slept."""

    clock: Clock
    session_id: UUID
    fence: int | None = None
    until: float = 0.0

    @property
    def held(self) -> bool:
        return self.fence is not None and self.clock.monotonic() < self.until


@dataclass(slots=True)
class Leases:
    database: Database
    clock: Clock
    holder: str = field(default_factory=lambda: uuid4().hex)
    _leases: dict[UUID, PipeLease] = field(default_factory=dict[UUID, PipeLease])

    async def take(self, session_id: UUID) -> PipeLease:
        """Take a session's lease; when it is another's, or the database is down, it is not held.

        What is not held now is tried again by `run`.
        """
        lease = self._leases.setdefault(session_id, PipeLease(self.clock, session_id))
        await self._acquire(lease)
        return lease

    async def give_back(self, session_id: UUID) -> None:
        lease = self._leases.pop(session_id, None)
        if lease is not None and lease.fence is not None:
            lease.fence = None
            try:
                async with self.database.begin() as tx:
                    await LeaseRepository(tx).release(self.holder, [session_id])
            except DatabaseUnavailable:
                return  # it ends by itself

    async def run(self) -> None:
        """Renew what is held and try for what is not, until cancelled."""
        while True:
            await anyio.sleep(RENEW_S)
            try:
                await self._renew()
            except DatabaseUnavailable as error:
                log.warning("terminal.leases_not_renewed", reason=error.message)

    async def _renew(self) -> None:
        fences = {one.session_id: one.fence for one in self._leases.values() if one.fence}
        if fences:
            now, until = self.clock.now(), self.clock.monotonic() + LEASE_S
            async with self.database.begin() as tx:
                lost = await LeaseRepository(tx).renew(
                    self.holder, fences, now, now + timedelta(seconds=LEASE_S)
                )
            for session_id, fence in fences.items():
                lease = self._leases.get(session_id)
                if lease is not None and lease.fence == fence:
                    lease.fence = None if session_id in lost else fence
                    lease.until = until
        for lease in [one for one in self._leases.values() if one.fence is None]:
            await self._acquire(lease)

    async def _acquire(self, lease: PipeLease) -> None:
        # The end is counted from before the question, so ours is never later than the database's.
        now, until = self.clock.now(), self.clock.monotonic() + LEASE_S
        try:
            async with self.database.begin() as tx:
                leases = LeaseRepository(tx)
                await leases.forget_expired(now - OLD)
                lease.fence = await leases.acquire(
                    lease.session_id, self.holder, now, now + timedelta(seconds=LEASE_S)
                )
        except DatabaseUnavailable as error:
            log.warning("terminal.lease_not_taken", reason=error.message)
            return
        lease.until = until
