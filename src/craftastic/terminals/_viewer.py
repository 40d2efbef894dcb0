"""One viewer of a terminal: its place in the output, its size, its role."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import anyio

from craftastic.terminals._ring import Ring

FRAME_BYTES = 64 << 10
COALESCE_S = 0.004
TICK_S = 0.001
"""What remains of a wait and is shorter is no wait: timers count in milliseconds."""
MAX_UNACKNOWLEDGED = 1 << 20
SNAPSHOT_REUSE_BYTES = 64 << 10


class Role(StrEnum):
    DRIVE = "drive"
    VIEW = "view"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The screen, its history and its modes; byte `number` follows.

    Args:
        columns, rows: The size that it was taken at.
    """

    number: int
    epoch: int
    data: bytes
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Bytes:
    """Output; `number` is that of the first byte."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Size:
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing follows.

    Args:
        exited: The program ended; else the terminal failed.
        message: Why, in plain words, when it failed.
    """

    exited: bool
    message: str = ""


Item = Snapshot | Bytes | Size | Ended


class Watched(Protocol):
    """What a viewer needs of its hub."""

    @property
    def ring(self) -> Ring: ...

    @property
    def epoch(self) -> int: ...

    @property
    def snapshot(self) -> Snapshot | None: ...

    @property
    def size(self) -> Size: ...

    @property
    def ended(self) -> Ended | None: ...

    def want_snapshot(self) -> None: ...


class Viewer:
    """Pulls: nothing is queued for it but its place, so a slow one costs what a quick one does."""

    def __init__(
        self, hub: Watched, role: Role, clock: Callable[[], float], *, follows: bool
    ) -> None:
        self.role = role
        self.size: Size | None = None
        self.position: int | None = None
        self.resumed = False
        self._hub = hub
        self._clock = clock
        self._follows = follows
        self._told: Size | None = None
        self._epoch = -1
        self._acknowledged: int | None = None
        self._sent_at = -1.0
        self._sizes: deque[Size] = deque(maxlen=1)
        self._event = anyio.Event()
        self._waiting_for = 1
        self._asked_at: Snapshot | None = None
        self._asked = False

    def resume(self, number: int) -> bool:
        """Go on at byte `number`; False when the ring no longer holds it."""
        ring = self._hub.ring
        if ring.start <= number <= ring.end:
            self.position, self._epoch, self.resumed = number, self._hub.epoch, True
        return self.resumed

    def acknowledge(self, number: int) -> None:
        """Note that everything before byte `number` was shown; numbers only grow."""
        if number <= (self.position or 0):
            was_full = self._window() <= 0
            self._acknowledged = max(self._acknowledged or 0, number)
            if was_full:
                self.wake()

    def told(self, size: Size) -> None:
        """Note that the viewer knows this size."""
        self._told = size

    def wake(self) -> None:
        if not self._event.is_set():
            self._event.set()

    def output(self) -> None:
        """Note that there is more output (called for every piece of it)."""
        if self._waiting_for <= 1 or self._pending() >= self._waiting_for:
            self.wake()

    async def next(self) -> Item:
        """Return what to show next; waits until there is something.

        Cancellation loses nothing: what was not returned is returned by the next call.
        """
        while True:
            item = self._ready()
            if isinstance(item, float | int):
                self._waiting_for = FRAME_BYTES
                await self._woken(within_s=item)
                self._waiting_for = 1
            elif item is not None:
                return item
            else:
                await self._woken()

    async def _woken(self, within_s: float | None = None) -> None:
        self._event = event = anyio.Event()
        if within_s is None:
            await event.wait()
            return
        # A cancel scope's deadline is exact, and uvloop's timers are not: it would spin until then.
        timer = asyncio.get_running_loop().call_later(within_s, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()

    def _pending(self) -> int:
        return 0 if self.position is None else self._hub.ring.end - self.position

    def _ready(self) -> Item | float | None:
        """Return what there is, or how many seconds to collect, or None."""
        hub = self._hub
        if self._follows and self._told != hub.size:
            self._told = hub.size
            return hub.size
        ring = hub.ring
        if self._window() <= 0:  # it is left alone, even when the ring runs over it
            return hub.ended
        if self._epoch != hub.epoch or (self.position or 0) < ring.start:
            self.position = None
        if self.position is None:
            return self._take_snapshot() or hub.ended
        if self.position == ring.end:
            return hub.ended
        now = self._clock()
        collect = COALESCE_S - (now - self._sent_at)
        if TICK_S < collect <= COALESCE_S and self._pending() < FRAME_BYTES and hub.ended is None:
            return collect
        self._sent_at = now
        number = self.position
        data = ring.read(number, min(FRAME_BYTES, self._window()))
        self.position = number + len(data)
        return Bytes(number, data)

    def _window(self) -> int:
        if self._acknowledged is None or self.position is None:
            return FRAME_BYTES
        return MAX_UNACKNOWLEDGED - (self.position - self._acknowledged)

    def _take_snapshot(self) -> Snapshot | None:
        hub = self._hub
        snapshot = hub.snapshot
        if snapshot is not None and snapshot.epoch == hub.epoch and self._fits(snapshot):
            self._asked = False
            self.position, self._epoch = snapshot.number, snapshot.epoch
            if self._acknowledged is not None:
                self._acknowledged = snapshot.number
            return snapshot
        if not self._asked:
            self._asked, self._asked_at = True, snapshot
        if hub.ended is None:
            hub.want_snapshot()
        return None

    def _fits(self, snapshot: Snapshot) -> bool:
        """Whether this snapshot serves: a recent one, or one that came after the question.

        Under a flood the ring has often run over even the newest; it is shown all the same, and
        the next follows as soon as the hub takes one.
        """
        hub = self._hub
        if (snapshot.columns, snapshot.rows) != (hub.size.columns, hub.size.rows):
            return False
        if self._asked and snapshot is not self._asked_at:
            return True
        recent = hub.ring.end - snapshot.number <= SNAPSHOT_REUSE_BYTES
        return recent and snapshot.number >= hub.ring.start
