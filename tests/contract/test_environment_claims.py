"""A claim keeps others from an environment until it ends, or is voided."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy

from craftastic.database import Database
from craftastic.environments.claims import void_claims
from craftastic.environments.service import EnvironmentStatus
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened, settled


@pytest.fixture
async def shop(database: Database, clock: FakeClock) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, MemoryRuntime())) as shop:
        yield shop


async def test_what_a_dead_server_had_claimed_is_taken_up_at_once_when_all_claims_are_void(
    shop: Workshop,
) -> None:
    made = await shop.create()
    await settled(shop.database)
    async with shop.database.begin() as tx:
        await tx.execute(
            sqlalchemy.text(
                "UPDATE environments SET desired = 'stopped', claimed_by = 'the dead',"
                " claimed_until = (SELECT 20 + :now)"
            ),
            {"now": await _now(shop.database)},
        )

    await shop.environments.reconcile()
    held = await shop.environments.get_owned(shop.owner, made.id)
    await void_claims(shop.database)
    await shop.environments.reconcile()
    taken_up = await shop.environments.get_owned(shop.owner, made.id)

    assert held.status is EnvironmentStatus.RUNNING
    assert taken_up.status is EnvironmentStatus.STOPPED


async def _now(database: Database) -> float:
    kind = "unixepoch()" if database.is_sqlite else "extract(epoch FROM now())"
    async with database.read() as tx:
        return float(await tx.scalar(sqlalchemy.text(f"SELECT {kind}")) or 0)
