"""How the server is: its runtimes, their isolation, its database, what it repeats."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import anyio

from craftastic import __version__
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.environments.service import EnvironmentService
from craftastic.errors import CraftasticError
from craftastic.reconcile.service import ReconcileService, Status
from craftastic.runtimes.base import Finding, Isolation
from craftastic.runtimes.registry import Runtimes

KEPT_S = 5.0
"""How long an answer is given again: whoever asks in a loop does not load an engine."""

CHECK_TIMEOUT_S = 10.0
MAX_UNVERIFIED = 100
"""How many sandboxes whose isolation is not verified are named."""


class State(StrEnum):
    """What a person has to know first."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RuntimeHealth:
    """One runtime that environments use, or would use.

    Args:
        reason: Why new environments get this runtime; None where they get another.
    """

    name: str
    is_default: bool
    reason: str | None
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Unverified:
    """A running environment whose sandbox reaches what it must not, or might."""

    environment_id: UUID
    name: str
    open: Sequence[str]
    unchecked: Sequence[str]


@dataclass(frozen=True, slots=True)
class IsolationHealth:
    """What the probes inside the running sandboxes found.

    Args:
        verified: How many of them are shut off as they must be.
        waiting: How many were not looked at yet; that goes on by itself.
        unverified: The others, `MAX_UNVERIFIED` at most, those with something open first.
        more: How many others are not named.
    """

    verified: int
    waiting: int
    unverified: Sequence[Unverified]
    more: int


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    kind: str
    version: str


@dataclass(frozen=True, slots=True)
class Health:
    looked_at: datetime
    state: State
    version: str
    runtimes: Sequence[RuntimeHealth]
    isolation: IsolationHealth
    database: DatabaseHealth
    reconcilers: Sequence[Status]


@dataclass(slots=True)
class HealthService:
    """Looks at everything that an operator would look at; nothing here changes anything."""

    database: Database
    runtimes: Runtimes
    environments: EnvironmentService
    reconcile: ReconcileService
    clock: Clock
    _kept: Health | None = field(init=False, default=None)
    _kept_at: float = field(init=False, default=0.0)
    _looking: anyio.Lock = field(init=False, default_factory=anyio.Lock)

    async def look(self) -> Health:
        """Return how the server is, from at most `KEPT_S` seconds ago.

        Who asks while somebody else does gets the same answer. A runtime that does not answer is
        part of it.

        Raises:
            DatabaseUnavailable: Without the database nothing can be told.
        """
        async with self._looking:
            now = self.clock.monotonic()
            if self._kept is None or now - self._kept_at >= KEPT_S:
                self._kept = await self._look()
                self._kept_at = self.clock.monotonic()
            return self._kept

    async def _look(self) -> Health:
        database = DatabaseHealth(self.database.kind, await self.database.version())
        runtimes = await self._runtimes()
        isolation = await self._isolation()
        reconcilers = self.reconcile.statuses
        return Health(
            looked_at=self.clock.now(),
            state=_state(runtimes, isolation, reconcilers),
            version=__version__,
            runtimes=runtimes,
            isolation=isolation,
            database=database,
            reconcilers=reconcilers,
        )

    async def _runtimes(self) -> list[RuntimeHealth]:
        used = await self.environments.runtimes_in_use()
        names = sorted({self.runtimes.default_name, *used})
        found: dict[str, list[Finding]] = {}

        async def check(name: str) -> None:
            found[name] = await self._findings(name)

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(check, name)
        default = self.runtimes.default_name
        return [
            RuntimeHealth(
                name,
                name == default,
                self.runtimes.reason if name == default else None,
                found[name],
            )
            for name in sorted(names, key=lambda one: (one != default, one))
        ]

    async def _findings(self, name: str) -> list[Finding]:
        found: list[Finding] = []
        if name in self.runtimes.refused:
            message = f"Sandboxes do not work: {self.runtimes.refused[name]}"
            remedy = "Mend what it names, then start the server again: it tries a sandbox then."
            found.append(Finding(f"{name}.self_test", ok=False, message=message, remedy=remedy))
        try:
            with anyio.fail_after(CHECK_TIMEOUT_S):
                found += await self.runtimes[name].check()
        except TimeoutError:
            message = f"No answer within {CHECK_TIMEOUT_S:.0f} seconds."
            found.append(Finding(f"{name}.check", ok=False, message=message))
        except CraftasticError as error:
            found.append(Finding(f"{name}.check", False, error.message, error.details))
        return found

    async def _isolation(self) -> IsolationHealth:
        verified = waiting = 0
        unverified: list[Unverified] = []
        for one in await self.environments.list_running():
            if one.isolation is None:
                waiting += 1
                continue
            isolation = Isolation.of(one.isolation)
            if isolation.verified:
                verified += 1
            else:
                unverified.append(Unverified(one.id, one.name, isolation.open, isolation.unchecked))
        unverified.sort(key=lambda one: (not one.open, one.name))
        shown = unverified[:MAX_UNVERIFIED]
        return IsolationHealth(verified, waiting, shown, len(unverified) - len(shown))


def _state(
    runtimes: Sequence[RuntimeHealth],
    isolation: IsolationHealth,
    reconcilers: Sequence[Status],
) -> State:
    oks = {finding.ok for runtime in runtimes for finding in runtime.findings}
    if False in oks or any(one.open for one in isolation.unverified):
        return State.FAILED
    doubts = None in oks or isolation.unverified or any(one.last_error for one in reconcilers)
    return State.WARNING if doubts else State.OK
