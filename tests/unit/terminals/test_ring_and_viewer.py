"""Numbered bytes, and a viewer's way through them."""

from dataclasses import dataclass, field

import anyio
import pytest

from craftastic.terminals._ring import Ring
from craftastic.terminals._viewer import (
    MAX_UNACKNOWLEDGED,
    Bytes,
    Ended,
    Role,
    Size,
    Snapshot,
    Viewer,
)
from tests.fakes.clock import FakeClock

USUAL = Size(80, 24)


@dataclass
class Hub:
    ring: Ring = field(default_factory=lambda: Ring(4 << 20))
    epoch: int = 0
    snapshot: Snapshot | None = None
    size: Size = USUAL
    ended: Ended | None = None
    wanted: int = 0

    def want_snapshot(self) -> None:
        self.wanted += 1


def _snapshot(hub: Hub, size: Size = USUAL) -> Snapshot:
    hub.snapshot = Snapshot(hub.ring.end, hub.epoch, b"screen", size.columns, size.rows)
    return hub.snapshot


def _viewer(hub: Hub, clock: FakeClock, *, follows: bool = False) -> Viewer:
    viewer = Viewer(hub, Role.DRIVE, clock.monotonic, follows=follows)
    viewer.told(hub.size)
    return viewer


async def _next(viewer: Viewer) -> object:
    with anyio.fail_after(1):
        return await viewer.next()


async def _nothing(viewer: Viewer) -> bool:
    with anyio.move_on_after(0.02):
        await viewer.next()
        return False
    return True


def test_a_ring_keeps_its_last_bytes() -> None:
    ring = Ring(10)
    for piece in (b"abcd", b"efgh", b"ijkl"):
        ring.add(piece)

    assert (ring.start, ring.end) == (2, 12)
    assert ring.read(2, 100) == b"cdefghijkl"
    assert ring.read(5, 3) == b"fgh"
    assert ring.read(12, 5) == b""
    with pytest.raises(IndexError):
        ring.read(1, 1)


def test_a_long_ring_is_read_from_anywhere() -> None:
    ring, everything = Ring(1000), b""
    for number in range(500):
        piece = b"%d," % number
        ring.add(piece)
        everything += piece
    for place in range(ring.start, ring.end, 7):
        assert ring.read(place, 50) == everything[place : place + 50]


def test_after_a_cut_nobody_is_up_to_date() -> None:
    ring = Ring(10)
    ring.add(b"abc")
    ring.cut()

    assert ring.start == ring.end == 4


async def test_a_viewer_gets_a_snapshot_and_then_the_bytes(clock: FakeClock) -> None:
    hub = Hub()
    hub.ring.add(b"before")
    viewer = _viewer(hub, clock)
    assert await _nothing(viewer)
    assert hub.wanted

    snapshot = _snapshot(hub)
    assert await _next(viewer) is snapshot
    hub.ring.add(b"after")
    assert await _next(viewer) == Bytes(6, b"after")


async def test_a_viewer_that_comes_back_gets_what_it_missed(clock: FakeClock) -> None:
    hub = Hub()
    hub.ring.add(b"0123456789")
    viewer = _viewer(hub, clock)

    assert viewer.resume(4)
    assert await _next(viewer) == Bytes(4, b"456789")
    assert not _viewer(hub, clock).resume(11)


async def test_a_viewer_that_the_ring_ran_over_gets_a_snapshot(clock: FakeClock) -> None:
    hub = Hub(Ring(10))
    viewer = _viewer(hub, clock)
    _snapshot(hub)
    await _next(viewer)
    hub.ring.add(b"x" * 50)
    assert await _nothing(viewer)

    assert await _next_after(viewer, hub) == "Snapshot"


async def _next_after(viewer: Viewer, hub: Hub) -> str:
    _snapshot(hub)
    viewer.wake()
    return type(await _next(viewer)).__name__


async def test_a_break_gives_everybody_a_snapshot(clock: FakeClock) -> None:
    hub = Hub()
    viewer = _viewer(hub, clock)
    _snapshot(hub)
    await _next(viewer)
    hub.epoch += 1
    hub.ring.cut()
    assert await _nothing(viewer)

    assert await _next_after(viewer, hub) == "Snapshot"


async def test_a_snapshot_of_another_size_does_not_serve(clock: FakeClock) -> None:
    hub = Hub()
    _snapshot(hub, Size(100, 30))
    viewer = _viewer(hub, clock)

    assert await _nothing(viewer)


async def test_bytes_under_load_are_collected(clock: FakeClock) -> None:
    hub = Hub()
    viewer = _viewer(hub, clock)
    _snapshot(hub)
    await _next(viewer)
    hub.ring.add(b"first")
    assert await _next(viewer) == Bytes(0, b"first")
    for _ in range(20):
        hub.ring.add(b"x" * (16 << 10))
        viewer.output()

    item = await _next(viewer)

    assert isinstance(item, Bytes)
    assert len(item.data) == 64 << 10


async def test_a_viewer_that_acknowledges_is_left_alone_beyond_its_window(
    clock: FakeClock,
) -> None:
    hub = Hub()
    viewer = _viewer(hub, clock)
    _snapshot(hub)
    await _next(viewer)
    viewer.acknowledge(0)
    hub.ring.add(b"x" * (3 << 20))
    got = 0
    while not await _nothing(viewer):
        got += 1
    assert viewer.position == MAX_UNACKNOWLEDGED

    viewer.acknowledge(MAX_UNACKNOWLEDGED)
    item = await _next(viewer)
    assert isinstance(item, Bytes)
    assert item.number == MAX_UNACKNOWLEDGED
    viewer.acknowledge(1 << 60)  # what was never sent cannot have been shown
    assert await _nothing(viewer) or viewer.position is not None


async def test_sizes_of_others_are_told_once(clock: FakeClock) -> None:
    hub = Hub()
    viewer = _viewer(hub, clock, follows=True)
    hub.size = Size(100, 30)

    assert await _next(viewer) == Size(100, 30)
    assert await _nothing(viewer)


async def test_the_end_comes_after_the_last_bytes(clock: FakeClock) -> None:
    hub = Hub()
    viewer = _viewer(hub, clock)
    _snapshot(hub)
    await _next(viewer)
    hub.ring.add(b"bye")
    hub.ended = Ended(exited=True)

    assert await _next(viewer) == Bytes(0, b"bye")
    assert await _next(viewer) == Ended(exited=True)
