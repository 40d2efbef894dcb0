"""A database that is away for a moment cuts nothing short that is being made."""

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from uuid import UUID

import anyio
import pytest
from sqlalchemy import event

from craftastic import database as database_module
from craftastic.database import Database
from craftastic.environments import _converge
from craftastic.environments.service import CloneStatus
from craftastic.runtimes.memory import Call, MemoryRuntime, Process
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened, until

URL = "https://github.com/a/b"
WAIT_S = 60.0


@dataclass
class SlowClone:
    """Plays clones that say how far they are and end when they may."""

    begun: int = 0
    cut: int = 0
    say: anyio.Event = field(default_factory=anyio.Event)
    end: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, process: Process, _call: Call) -> None:
        self.begun += 1
        try:
            await process.stdin.read()
            await self.say.wait()
            await process.stderr.write(b"Receiving objects:  50% (1/2)\r")
            await self.end.wait()
        except anyio.get_cancelled_exc_class():
            self.cut += 1
            raise
        await process.stdout.write(b"default main\nfound yes\ndone yes\n")


@pytest.fixture
async def database(
    copy_of_template: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """Give one that gives up a lock soon; of one kind only: what is refused is the same."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 50)
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
def clone() -> SlowClone:
    return SlowClone()


@pytest.fixture
async def shop(database: Database, clock: FakeClock, clone: SlowClone) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, MemoryRuntime(play=clone))) as shop:
        yield shop


@asynccontextmanager
async def away(database: Database) -> AsyncGenerator[list[object]]:
    """Keep everybody from writing; gives what was refused meanwhile."""
    refused: list[object] = []

    def note(context: object) -> None:
        refused.append(context)

    engine, file = database.engine.sync_engine, str(database.engine.url.database)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as holder:
        await anyio.to_thread.run_sync(holder.execute, "BEGIN IMMEDIATE")
        event.listen(engine, "handle_error", note)
        try:
            yield refused
        finally:
            event.remove(engine, "handle_error", note)
            holder.execute("ROLLBACK")


async def cloning(shop: Workshop, clone: SlowClone) -> UUID:
    """Create an environment, and wait until its clone has begun and its sandbox was probed."""
    made = await shop.create(url=URL)

    async def has_begun() -> bool:
        seen = await shop.environments.get_owned(shop.owner, made.id)
        return clone.begun == 1 and seen.isolation is not None

    await until(has_begun)
    return made.id


async def so(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds, WAIT_S)


async def test_a_clone_goes_on_whose_progress_cannot_be_stored(
    shop: Workshop, clone: SlowClone, database: Database
) -> None:
    made_id = await cloning(shop, clone)
    shop.clock.advance(60)

    async with away(database) as refused:
        clone.say.set()
        await so(lambda: len(refused) > 0)
    clone.end.set()
    ready = await shop.environments.ready(shop.owner, made_id)

    assert (ready.clone_status, ready.clone_reason) == (CloneStatus.READY, None)
    assert (clone.begun, clone.cut) == (1, 0)


async def test_a_clone_goes_on_whose_claim_is_not_renewed_at_the_first_try(
    shop: Workshop, clone: SlowClone, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_converge, "CLAIM_RENEWAL_S", 0.05)
    made_id = await cloning(shop, clone)

    async with away(database) as refused:
        await so(lambda: len(refused) > 2)
    clone.say.set()
    clone.end.set()
    ready = await shop.environments.ready(shop.owner, made_id)

    assert ready.clone_status is CloneStatus.READY
    assert (clone.begun, clone.cut) == (1, 0)


async def test_a_clone_ends_when_its_claim_may_be_anothers(
    shop: Workshop, clone: SlowClone, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_converge, "CLAIM_RENEWAL_S", 0.05)
    monkeypatch.setattr(_converge, "CLAIM_S", 1.0)
    made_id = await cloning(shop, clone)

    async with away(database):
        await so(lambda: clone.cut == 1)
    clone.say.set()
    clone.end.set()

    async def is_ready() -> bool:
        await shop.environments.reconcile()
        made = await shop.environments.get_owned(shop.owner, made_id)
        return made.clone_status is CloneStatus.READY

    await until(is_ready, WAIT_S)
    assert clone.begun > 1
