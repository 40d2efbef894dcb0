"""The loop that repeats the reconcilers."""

from collections.abc import AsyncIterator

import anyio
import pytest

from craftastic.environments.service import EnvironmentService
from craftastic.reconcile.service import Reconciler, ReconcileService, standard_reconcilers
from craftastic.sessions.service import SessionService
from tests.fakes.clock import FakeClock

FOREVER_S = 3600.0
WAIT_S = 5.0


class Counter:
    def __init__(self) -> None:
        self.rounds = 0
        self.at_once = 0
        self.fails = False
        self.may_end = anyio.Event()
        self.may_end.set()

    async def step(self) -> None:
        self.at_once += 1
        assert self.at_once == 1
        await self.may_end.wait()
        self.at_once -= 1
        self.rounds += 1
        if self.fails:
            raise ValueError("broken")


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
async def service(counter: Counter, clock: FakeClock) -> AsyncIterator[ReconcileService]:
    service = ReconcileService([Reconciler("one", counter.step, FOREVER_S)], clock)
    async with service.running():
        yield service


async def test_a_step_runs_at_the_start_and_when_woken(
    service: ReconcileService, counter: Counter
) -> None:
    assert await service.run_now(WAIT_S)
    assert await service.run_now(WAIT_S)

    assert counter.rounds == 2 or counter.rounds == 3  # noqa: PLR1714 - the start may count


async def test_waiting_is_for_a_round_that_began_after_the_call(
    service: ReconcileService, counter: Counter
) -> None:
    counter.may_end = anyio.Event()
    service.wake("one")
    await anyio.wait_all_tasks_blocked()
    begun_before = counter.rounds
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run_now, WAIT_S)
        await anyio.wait_all_tasks_blocked()
        counter.may_end.set()

    assert counter.rounds >= begun_before + 2


async def test_a_step_that_fails_is_reported_and_repeated(
    service: ReconcileService, counter: Counter
) -> None:
    await service.run_now(WAIT_S)
    counter.fails = True
    await service.run_now(WAIT_S)
    (failed,) = service.statuses
    assert failed.last_error == "ValueError: broken"
    assert failed.failures == 1
    counter.fails = False

    await service.run_now(WAIT_S)

    assert service.statuses[0].last_error is None


async def test_waiting_ends_when_the_time_is_over(
    service: ReconcileService, counter: Counter
) -> None:
    counter.may_end = anyio.Event()

    assert not await service.run_now(0.05)


def test_every_reconciler_has_a_name_and_an_interval() -> None:
    service = object.__new__(EnvironmentService)
    sessions = object.__new__(SessionService)

    rows = standard_reconcilers(service, sessions, 30.0)

    assert [one.name for one in rows] == ["environments", "sessions"]
    assert [one.interval_s for one in rows] == [10.0, 30.0]


def test_two_reconcilers_of_one_name_are_refused(clock: FakeClock) -> None:
    async def step() -> None:
        return None

    with pytest.raises(ValueError, match="one name"):
        ReconcileService([Reconciler("a", step, 1), Reconciler("a", step, 1)], clock)
