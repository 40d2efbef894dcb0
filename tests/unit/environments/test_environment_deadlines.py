"""What a runtime neither does nor refuses comes to an end, and is told with a way on."""

from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from craftastic.database import Database
from craftastic.environments import _converge, service
from craftastic.environments.service import Environment, EnvironmentStatus, way_on
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened, rows, settled

LIMIT_S = 0.2
NEVER_S = 3600.0


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes the limits short from then on: not for what only has to be there."""

    def hurry() -> None:
        for name in ("START_LIMIT_S", "STOP_LIMIT_S", "REMOVE_LIMIT_S"):
            monkeypatch.setattr(_converge, name, LIMIT_S)
        monkeypatch.setattr(service, "DELETE_WAIT_S", 5 * LIMIT_S)

    return hurry


@pytest.fixture
async def shop(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, runtime)) as shop:
        yield shop


async def test_a_start_that_does_not_end_is_an_error_with_a_way_on(
    shop: Workshop,
    runtime: MemoryRuntime,
    hurried: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime.faults.delay_s = NEVER_S
    hurried()

    with anyio.fail_after(90):
        made = await shop.create()
    runtime.faults.delay_s = 0
    monkeypatch.undo()
    again = await shop.environments.retry(shop.owner, made.id)

    assert made.status is EnvironmentStatus.ERROR
    assert made.reason_code == "SANDBOX_TOO_SLOW"
    assert made.reason is not None
    assert "was not started within" in made.reason
    assert way_on(made) == "Do what the reason says, and try again."
    assert again.status is EnvironmentStatus.RUNNING


async def test_one_that_ran_and_whose_start_does_not_end_is_stopped_with_a_way_on(
    shop: Workshop, runtime: MemoryRuntime, database: Database, hurried: Callable[[], None]
) -> None:
    made = await shop.create()
    await settled(database)
    runtime.vanish(made.id)
    await shop.environments.reconcile()
    runtime.faults.delay_s = NEVER_S
    hurried()

    with anyio.fail_after(90):
        started = await shop.environments.start(shop.owner, made.id)
    runtime.faults.delay_s = 0

    assert (started.status, started.reason_code) == (EnvironmentStatus.STOPPED, "SANDBOX_TOO_SLOW")
    assert (way_on(started) or "").startswith("Start it")
    assert (await shop.environments.start(shop.owner, made.id)).usable


async def test_a_stop_that_does_not_end_says_so_and_goes_on_by_itself(
    shop: Workshop, runtime: MemoryRuntime, database: Database, hurried: Callable[[], None]
) -> None:
    made = await shop.create()
    await settled(database)
    runtime.faults.delay_s = NEVER_S
    hurried()

    with anyio.fail_after(90):
        wished = await shop.environments.stop(shop.owner, made.id)
    runtime.faults.delay_s = 0
    await settled(database)
    await shop.environments.reconcile()

    assert (wished.status, wished.reason_code) == (EnvironmentStatus.RUNNING, "SANDBOX_TOO_SLOW")
    assert "goes on by itself" in (way_on(wished) or "")
    assert (await _now(shop, wished)).status is EnvironmentStatus.STOPPED


async def test_a_removal_that_does_not_end_is_pending_and_done_later(
    shop: Workshop, runtime: MemoryRuntime, database: Database, hurried: Callable[[], None]
) -> None:
    made = await shop.create()
    await settled(database)
    runtime.faults.delay_s = NEVER_S
    hurried()

    with anyio.fail_after(90):
        deleted = await shop.environments.delete(shop.owner, made.id)
    runtime.faults.delay_s = 0
    left = await rows(database, "SELECT reason_code FROM environments")
    await settled(database)
    await shop.environments.reconcile()

    assert deleted.pending
    assert left == [("SANDBOX_TOO_SLOW",)]
    assert await rows(database, "SELECT 1 FROM environments") == []
    assert await runtime.list() == []


async def _now(shop: Workshop, environment: Environment) -> Environment:
    return await shop.environments.get_owned(shop.owner, environment.id)
