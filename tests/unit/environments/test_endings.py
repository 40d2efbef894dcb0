"""Why an environment is stopped, and what is told of one in which something was killed."""

from collections.abc import AsyncIterator

import anyio
import pytest

from craftastic.database import Database
from craftastic.environments.service import CloneStatus, EnvironmentNotFound, EnvironmentStatus
from craftastic.runtimes.base import Ending
from craftastic.runtimes.memory import Call, MemoryRuntime, Process
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened, settings_of, settled


async def clone_ends_well(process: Process, _call: Call) -> None:
    await process.stdin.read()
    await process.stdout.write(b"default main\nfound yes\ndone yes\n")


async def clone_fails(process: Process, _call: Call) -> None:
    await process.stdin.read()
    await process.stderr.write(b"fatal: repository not found\n")


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
async def shop(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> AsyncIterator[Workshop]:
    settings = settings_of(sandbox_memory_limit="1536m")
    async with opened(build(database, clock, runtime, settings=settings)) as shop:
        yield shop


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        (Ending.UNKNOWN, "SANDBOX_STOPPED", "Its sandbox has ended;"),
        (Ending.OUT_OF_MEMORY, "SANDBOX_OUT_OF_MEMORY", "limit of memory;"),
        (Ending.ENGINE_RESTART, "ENGINE_RESTARTED", "was started anew;"),
    ],
)
async def test_an_environment_says_why_its_sandbox_ended_and_so_do_its_sessions(
    shop: Workshop,
    runtime: MemoryRuntime,
    database: Database,
    ending: Ending,
    code: str,
    words: str,
) -> None:
    made = await shop.create()
    session = await shop.sessions.create(shop.owner, environment_id=made.id, name="s")
    await settled(database)
    runtime.crash(made.id, ending)

    await shop.environments.reconcile()

    noticed = await shop.environments.get_owned(shop.owner, made.id)
    assert (noticed.status, noticed.reason_code) == (EnvironmentStatus.STOPPED, code)
    assert noticed.reason is not None
    assert words in noticed.reason
    assert noticed.reason.endswith("the next session or terminal starts it again.")
    dead = await shop.sessions.get(shop.owner, session.id)
    assert dead.status == "dead"
    assert dead.reason == noticed.reason.partition(";")[0] + "."


async def test_a_start_takes_the_reason_away(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    made = await shop.create()
    await settled(database)
    runtime.crash(made.id, Ending.OUT_OF_MEMORY)
    await shop.environments.reconcile()

    again = await shop.environments.ready(shop.owner, made.id)

    assert (again.status, again.reason_code, again.reason) == (
        EnvironmentStatus.RUNNING,
        None,
        None,
    )


async def test_want_of_memory_is_told_of_an_environment_that_goes_on(
    shop: Workshop, database: Database
) -> None:
    made = await shop.create()
    await settled(database)

    await shop.environments.note_out_of_memory(made.id)

    told = await shop.environments.get_owned(shop.owner, made.id)
    assert (told.status, told.reason_code) == (EnvironmentStatus.RUNNING, "OUT_OF_MEMORY")
    assert told.reason == (
        "At 15:03 UTC a program in its sandbox was killed: the sandbox was at its limit of memory,"
        " 1.5 GiB. Everything else in it goes on."
    )
    assert told.usable


async def test_want_of_memory_changes_nothing_of_one_that_does_not_run(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    stopped, deleted = await shop.create("stopped"), await shop.create("deleted")
    await settled(database)
    await shop.environments.stop(shop.owner, stopped.id)
    await shop.environments.delete(shop.owner, deleted.id)
    before = await shop.environments.get_owned(shop.owner, stopped.id)

    for one in (stopped, deleted):
        await shop.environments.note_out_of_memory(one.id)

    assert await shop.environments.get_owned(shop.owner, stopped.id) == before
    with pytest.raises(EnvironmentNotFound):
        await shop.environments.get_owned(shop.owner, deleted.id)


async def test_want_of_memory_does_not_take_the_place_of_why_a_clone_failed(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    runtime.play = clone_fails
    made = await shop.create(url="https://github.com/a/b")
    await settled(database)

    await shop.environments.note_out_of_memory(made.id)

    told = await shop.environments.get_owned(shop.owner, made.id)
    assert (told.clone_status, told.reason_code) == (CloneStatus.FAILED, "CLONE_FAILED")
    assert told.reason is None
    assert "repository not found" in (told.clone_reason or "")


@pytest.mark.parametrize("ends_well", [True, False])
async def test_the_end_of_a_clone_leaves_no_reason_without_its_code(
    shop: Workshop, runtime: MemoryRuntime, database: Database, ends_well: bool
) -> None:
    begun, may_end = anyio.Event(), anyio.Event()

    async def slow(process: Process, call: Call) -> None:
        begun.set()
        await may_end.wait()
        await (clone_ends_well if ends_well else clone_fails)(process, call)

    runtime.play = slow
    made = await shop.create(url="https://github.com/a/b")
    with anyio.fail_after(60):
        await begun.wait()
    await shop.environments.note_out_of_memory(made.id)
    before = await shop.environments.get_owned(shop.owner, made.id)
    may_end.set()
    await settled(database)

    after = await shop.environments.get_owned(shop.owner, made.id)
    assert before.reason_code == "OUT_OF_MEMORY"
    assert after.reason_code == (None if ends_well else "CLONE_FAILED")
    assert after.reason is None
