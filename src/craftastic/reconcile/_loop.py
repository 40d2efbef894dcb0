"""Runs repeated steps: at the start, at an interval, and when woken. One round at a time each."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import anyio
import structlog

from craftastic.clock import Clock

Step = Callable[[], Awaitable[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """One repeated step.

    Args:
        name: Stable machine name.
        step: Takes no input, keeps no memory, may be repeated, does not retry inside.
        interval_s: Seconds between the end of a round and the next.
    """

    name: str
    step: Step
    interval_s: float


@dataclass(slots=True)
class Status:
    """How a reconciler has done since the server started.

    Args:
        rounds: Finished rounds, failed ones among them.
        last_at: When the last one ended.
        last_error: What the last one failed with, None when it did not.
    """

    name: str
    rounds: int = 0
    failures: int = 0
    last_at: datetime | None = None
    last_error: str | None = None


@dataclass(slots=True)
class _Row:
    reconciler: Reconciler
    status: Status
    begun: int = 0
    wake: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Loop:
    """The reconcilers of one server process."""

    def __init__(self, reconcilers: Sequence[Reconciler], clock: Clock) -> None:
        self._clock = clock
        self._rows = {one.name: _Row(one, Status(one.name)) for one in reconcilers}
        if len(self._rows) != len(reconcilers):
            raise ValueError("two reconcilers have one name")

    @property
    def reconcilers(self) -> tuple[Reconciler, ...]:
        return tuple(row.reconciler for row in self._rows.values())

    @property
    def statuses(self) -> tuple[Status, ...]:
        return tuple(row.status for row in self._rows.values())

    async def run(self) -> None:
        """Repeat every step for ever; cancellation ends it, in the middle of a round too."""
        async with anyio.create_task_group() as tasks:
            for row in self._rows.values():
                tasks.start_soon(self._repeat, row)

    def wake(self, name: str) -> None:
        """Let the next round begin now, or right after the one that is under way."""
        self._rows[name].wake.set()

    async def wake_and_wait(self, name: str, timeout_s: float) -> bool:
        """Wake a step and wait for the end of a round that began after that.

        Returns:
            False when the time was over first.
        """
        row = self._rows[name]
        wanted = row.begun + 1
        row.wake.set()
        with anyio.move_on_after(timeout_s):
            while row.status.rounds < wanted:
                await row.ended.wait()
            return True
        return False

    async def _repeat(self, row: _Row) -> None:
        while True:
            row.wake = anyio.Event()
            row.begun += 1
            await self._round(row)
            with anyio.move_on_after(row.reconciler.interval_s):
                await row.wake.wait()

    async def _round(self, row: _Row) -> None:
        status = row.status
        try:
            await row.reconciler.step()
            status.last_error = None
        except Exception as error:  # the one place that keeps a step's fault from ending the server
            status.failures += 1
            status.last_error = f"{type(error).__name__}: {error}"[:500]
            log.exception("reconciler failed", reconciler=row.reconciler.name)
        status.rounds += 1
        status.last_at = self._clock.now()
        row.ended.set()
        row.ended = anyio.Event()
