"""Few git commands at once, and few threads that read what they print."""

from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import anyio
import anyio.to_thread

from craftastic.git._refusals import GitBusy

WAIT_S = 15.0
THREADS = 2
READ_AT_ONCE_BYTES = 64 << 10

_T = TypeVar("_T")


@dataclass(slots=True)
class _Place:
    free: anyio.Semaphore
    users: int = 0


class Turns:
    """Bounds what runs at once, for each environment and for each user; others wait a while."""

    def __init__(self, per_environment: int, per_user: int, wait_s: float = WAIT_S) -> None:
        self._per_environment = per_environment
        self._per_user = per_user
        self._wait_s = wait_s
        self._places: dict[Hashable, _Place] = {}

    @asynccontextmanager
    async def take(self, environment_id: UUID, user_id: UUID) -> AsyncGenerator[None]:
        """Hold a place for the time of the block.

        Raises:
            GitBusy: None became free in time.
        """
        async with (
            self._hold(("environment", environment_id), self._per_environment),
            self._hold(("user", user_id), self._per_user),
        ):
            yield

    @asynccontextmanager
    async def _hold(self, key: Hashable, most: int) -> AsyncGenerator[None]:
        place = self._places.setdefault(key, _Place(anyio.Semaphore(most)))
        place.users += 1
        try:
            with anyio.move_on_after(self._wait_s) as waiting:
                await place.free.acquire()
            if waiting.cancelled_caught:
                raise GitBusy(
                    "Too many git commands run at once.", details="Try again when some have ended."
                )
            try:
                yield
            finally:
                place.free.release()
        finally:
            place.users -= 1
            if not place.users:
                self._places.pop(key, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads what git printed: a little at once, more of it in one of a few threads."""

    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(THREADS))

    async def run(self, size: int, work: Callable[[], _T]) -> _T:
        """Return what the work returns; `size` is that of the text that it reads, in bytes."""
        if size <= READ_AT_ONCE_BYTES:
            return work()
        return await anyio.to_thread.run_sync(work, limiter=self.threads)
