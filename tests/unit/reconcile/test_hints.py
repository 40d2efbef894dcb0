"""What runtimes tell leads to a look, and a storm of it to few."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.clock import SystemClock
from craftastic.errors import Unavailable
from craftastic.reconcile import _hints
from craftastic.reconcile._hints import Hints
from craftastic.runtimes.base import Hint, Runtime, SandboxSpec, TellHint
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.clock import FakeClock

QUIET_S = 0.05
WAIT_S = 10.0


@dataclass
class Desk:
    """What is done about hints, counted."""

    runtimes: list[Runtime] = field(default_factory=list[Runtime])
    looks: list[float] = field(default_factory=list[float])
    noted: list[UUID] = field(default_factory=list[UUID])
    refuses: Exception | None = None
    during_look: Callable[[], None] | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def followed(self) -> Sequence[Runtime]:
        refusal, self.refuses = self.refuses, None
        if refusal is not None:
            raise refusal
        return self.runtimes

    async def look(self) -> None:
        self.looks.append(anyio.current_time())
        during, self.during_look = self.during_look, None
        if during is not None:
            during()
        self.wake()

    async def note(self, environment_id: UUID) -> None:
        self.noted.append(environment_id)
        self.wake()
        if self.refuses is not None:
            raise self.refuses

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def has(self, looks: int = 0, noted: int = 0) -> None:
        with anyio.fail_after(WAIT_S):
            while len(self.looks) < looks or len(self.noted) < noted:
                await self.changed.wait()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(_hints, "QUIET_S", QUIET_S)
    monkeypatch.setattr(_hints, "FOLLOW_PAUSE_S", QUIET_S)
    monkeypatch.setattr(_hints, "AGAIN_S", ())
    return Desk()


@asynccontextmanager
async def running(desk: Desk, clock: FakeClock | None = None) -> AsyncGenerator[Hints]:
    hints = Hints(desk.followed, desk.look, desk.note, clock or SystemClock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hints.run)
        yield hints
        tasks.cancel_scope.cancel()


async def test_what_a_runtime_tells_leads_to_a_look(desk: Desk) -> None:
    runtime = MemoryRuntime()
    spec = SandboxSpec(uuid4(), uuid4(), 1, "a")
    desk.runtimes.append(runtime)

    async with running(desk):
        await desk.has(looks=1)  # the first hint is about nothing
        await runtime.create(spec)
        await desk.has(looks=2)
        runtime.vanish(spec.environment_id)
        await desk.has(looks=3)

    assert desk.noted == []


async def test_after_a_hint_it_is_looked_again_and_then_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hints, "AGAIN_S", (0.0, QUIET_S))
    async with running(desk) as hints:
        hints.tell(Hint())
        await desk.has(looks=3)
        await anyio.sleep(10 * QUIET_S)  # in which nothing may happen

        assert len(desk.looks) == 3


async def test_a_storm_of_hints_is_one_look_in_a_while(desk: Desk) -> None:
    async with running(desk) as hints:
        began = anyio.current_time()
        told = 0
        while len(desk.looks) < 5:
            hints.tell(Hint(uuid4()))
            told += 1
            await anyio.lowlevel.checkpoint()
        took = anyio.current_time() - began

    pauses = [later - at for at, later in zip(desk.looks, desk.looks[1:], strict=False)]
    assert told > len(desk.looks) * 10
    assert min(pauses) >= QUIET_S
    assert took >= QUIET_S * 4


async def test_a_hint_that_comes_during_a_look_leads_to_another(desk: Desk) -> None:
    async with running(desk) as hints:
        desk.during_look = lambda: hints.tell(Hint())
        hints.tell(Hint())

        await desk.has(looks=2)


async def test_want_of_memory_is_noted_once_in_a_minute_for_each_environment(
    desk: Desk, clock: FakeClock
) -> None:
    one, other = uuid4(), uuid4()
    async with running(desk, clock) as hints:
        for _ in range(3):
            hints.tell(Hint(one, out_of_memory=True))
            before = len(desk.looks)
            await desk.has(looks=before + 1)
        hints.tell(Hint(other, out_of_memory=True))
        await desk.has(noted=2)
        clock.advance(_hints.NOTED_S)
        hints.tell(Hint(one, out_of_memory=True))
        await desk.has(noted=3)

    assert desk.noted == [one, other, one]


async def test_what_is_held_of_a_storm_is_bounded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hints, "MAX_NOTED", 10)
    async with running(desk) as hints:
        for _ in range(100):
            hints.tell(Hint(uuid4(), out_of_memory=True))
        await desk.has(looks=1)
        await desk.has(noted=10)
        hints.tell(Hint())
        await desk.has(looks=2)

    assert len(desk.noted) == 10


@pytest.mark.parametrize(
    "refusal", [Unavailable("the database is away"), ValueError("no such row")]
)
async def test_a_note_that_fails_and_a_database_that_is_away_end_nothing(
    desk: Desk, refusal: Exception
) -> None:
    runtime = MemoryRuntime()
    desk.runtimes.append(runtime)
    desk.refuses = refusal
    one = uuid4()

    async with running(desk) as hints:
        await desk.has(looks=1)  # the runtimes were asked for again
        desk.refuses = refusal
        hints.tell(Hint(one, out_of_memory=True))
        await desk.has(noted=1)
        hints.tell(Hint())
        await desk.has(looks=len(desk.looks) + 1)


class Broken(MemoryRuntime):
    """Tells one hint, then fails in a way that it must not."""

    async def follow(self, tell: TellHint) -> None:
        tell(Hint())
        raise ValueError("broken")


async def test_a_runtime_that_fails_is_followed_again(desk: Desk) -> None:
    desk.runtimes.append(Broken())

    async with running(desk):
        await desk.has(looks=3)


async def test_a_runtime_that_comes_into_use_later_is_followed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hints, "NEW_RUNTIMES_S", QUIET_S)
    async with running(desk):
        desk.runtimes.append(MemoryRuntime(name="late"))

        await desk.has(looks=1)
