"""What is repeated: one row for each step (name, step, interval)."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio

from craftastic.clock import Clock
from craftastic.environments.service import EnvironmentService
from craftastic.reconcile._hints import Followed, Hints, Note, nothing_followed, nothing_noted
from craftastic.reconcile._loop import Loop, Reconciler, Status, Step
from craftastic.sessions.service import SessionService

__all__ = ["ReconcileService", "Reconciler", "Status", "Step"]

ENVIRONMENTS = "environments"
SESSIONS = "sessions"
ROUND_WAIT_S = 60.0
ENVIRONMENTS_INTERVAL_S = 10.0


def standard_reconcilers(
    environments: EnvironmentService, sessions: SessionService, interval_s: float
) -> list[Reconciler]:
    """Return the rows of a server; a domain that adds a step adds a row.

    `interval_s` is the sessions'; environments take one question for all sandboxes of a runtime and
    are looked at every `ENVIRONMENTS_INTERVAL_S` at the latest.
    """
    return [
        Reconciler(ENVIRONMENTS, environments.reconcile, min(interval_s, ENVIRONMENTS_INTERVAL_S)),
        Reconciler(SESSIONS, sessions.reconcile, interval_s),
    ]


class ReconcileService:
    """Makes what exists agree with what the database says, over and over.

    Args:
        reconcilers: What is repeated.
        clock: For intervals.
        followed: Returns the runtimes that environments use: what they tell of sandboxes leads to
            a look at once. Without it sandboxes are looked at by the interval alone.
        exhausted: Is given each environment in which a program was killed for its memory.
    """

    def __init__(
        self,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        *,
        followed: Followed = nothing_followed,
        exhausted: Note = nothing_noted,
    ) -> None:
        self._loop = Loop(reconcilers, clock)
        self._hints = Hints(followed, self._look, exhausted, clock)

    @property
    def reconcilers(self) -> tuple[Reconciler, ...]:
        return self._loop.reconcilers

    @property
    def statuses(self) -> tuple[Status, ...]:
        return self._loop.statuses

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Repeat the steps until the context ends; a round under way is cut short then."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._loop.run)
            tasks.start_soon(self._hints.run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    def wake(self, name: str) -> None:
        """Let a step's next round begin now."""
        self._loop.wake(name)

    async def _look(self) -> None:
        await self._loop.wake_and_wait(ENVIRONMENTS, ROUND_WAIT_S)

    async def run_now(self, timeout_s: float = ROUND_WAIT_S) -> bool:
        """Wake every step, one after the other, and wait for it.

        Returns:
            False when one took longer than `timeout_s`.
        """
        done = [
            await self._loop.wake_and_wait(one.name, timeout_s) for one in self._loop.reconcilers
        ]
        return all(done)
