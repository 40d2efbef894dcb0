"""Who looks at disks in one server process: a few at once, and one of each owner.

A sandbox can be slow for as long as it likes. All those of one owner keep others waiting by no more
than one place.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import anyio

from craftastic.errors import Unavailable


class DiskBusy(Unavailable):
    """Somebody measures or frees the environment's disk for long; trying again helps."""

    code = "DISK_BUSY"


@dataclass(slots=True)
class _Line:
    """Those of one owner who have the place or wait for it."""

    place: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(1))
    length: int = 0


class Slots:
    """A number of places, given in the order of asking; no owner has more than one."""

    def __init__(self, count: int) -> None:
        self._all = anyio.Semaphore(count)
        self._lines: dict[UUID, _Line] = {}

    @asynccontextmanager
    async def one(self, owner_id: UUID, until: float) -> AsyncGenerator[None]:
        """Have a place; cancellation gives it back.

        Args:
            owner_id: Whose sandbox is looked at.
            until: A moment of the event loop's clock.

        Raises:
            DiskBusy: There was none by then.
        """
        line = self._lines.setdefault(owner_id, _Line())
        line.length += 1
        try:
            async with AsyncExitStack() as stack:
                with anyio.CancelScope(deadline=until) as waiting:
                    await stack.enter_async_context(line.place)
                    await stack.enter_async_context(self._all)
                if waiting.cancelled_caught:
                    raise DiskBusy("Other disks are being looked at; try again.")
                yield
        finally:
            line.length -= 1
            if line.length == 0:
                del self._lines[owner_id]


class AtWork:
    """The owners whose disks the reconciler looks at now."""

    def __init__(self, most: int) -> None:
        self.owners: set[UUID] = set()
        self._most = most
        self._ended = anyio.Event()

    def begin(self, owner_id: UUID) -> bool:
        """Take a place for an owner; False where there is none, or the owner has one."""
        if owner_id in self.owners or len(self.owners) >= self._most:
            return False
        self.owners.add(owner_id)
        return True

    def end(self, owner_id: UUID) -> None:
        self.owners.discard(owner_id)
        self._ended.set()

    async def changed(self, seconds: float) -> None:
        """Wait until one has ended since the last time, for no longer than so many seconds."""
        with anyio.move_on_after(seconds):
            await self._ended.wait()
        self._ended = anyio.Event()
