"""What environments and sessions tell their owners of, and what they do in silence."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from craftastic.database import Database
from craftastic.environments._model import Desired
from craftastic.environments._repository import EnvironmentRepository
from craftastic.environments.service import Environment
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.sessions.beginning import forget_viewers
from craftastic.sessions.service import Session
from tests.contract.conftest import pretend
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened, rows, settled


@pytest.fixture
async def shop(database: Database, clock: FakeClock) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, MemoryRuntime(pretend))) as one:
        yield one


class Told:
    """What the owner is told of, from one look to the next."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.seen = 0

    async def bodies(self) -> list[dict[str, Any]]:
        found = await rows(
            self.shop.database,
            "SELECT seq, body FROM events WHERE seq > :seen ORDER BY seq",
            seen=self.seen,
        )
        if found:
            self.seen = int(str(found[-1][0]))
        return [json.loads(str(body)) for _, body in found]

    async def since(self) -> list[tuple[str, str]]:
        return [(one["type"], one["id"]) for one in await self.bodies()]


async def made(shop: Workshop) -> Environment:
    environment = await shop.create()
    ready = await shop.environments.ready(shop.owner, environment.id)
    await settled(shop.database)
    return ready


async def session_in(shop: Workshop, environment: Environment) -> Session:
    return await shop.sessions.create(shop.owner, environment.id, name="s")


async def test_every_step_of_an_environment_is_told_and_its_end_last(shop: Workshop) -> None:
    told = Told(shop)
    environment = await made(shop)
    changed = ("environment.changed", str(environment.id))
    first = await told.since()
    assert set(first) == {changed}
    assert len(first) >= 2, "that it was made, and that it runs"

    await shop.environments.update(shop.owner, environment.id, name="other")
    assert await told.since() == [changed]

    await shop.environments.delete(shop.owner, environment.id)
    await shop.environments.reconcile()
    assert await told.since() == [("environment.deleted", str(environment.id))]


async def test_work_on_an_environment_that_changes_nothing_to_see_is_not_told(
    shop: Workshop, database: Database
) -> None:
    environment = await made(shop)
    told = Told(shop)
    await told.since()

    async with database.begin() as tx:
        repository = EnvironmentRepository(tx)
        assert await repository.claim(environment.id, "me", 5.0)
        assert await repository.renew(environment.id, "me", 5.0)
        await repository.release(environment.id, "me")
    assert await told.since() == []

    async with database.begin() as tx:
        repository = EnvironmentRepository(tx)
        await repository.claim(environment.id, "me", 5.0)
        await repository.write(environment.id, "me", Desired.RUNNING, progress_percent=5)
        await repository.release(environment.id, "me")
    assert await told.since() == [("environment.changed", str(environment.id))]


async def test_a_sessions_life_is_told_with_its_environment(shop: Workshop) -> None:
    environment = await made(shop)
    told = Told(shop)
    await told.since()

    session = await session_in(shop, environment)
    bodies = await told.bodies()
    assert {(one["type"], one["id"]) for one in bodies} == {("session.changed", str(session.id))}
    assert {one["environmentId"] for one in bodies} == {str(environment.id)}

    await shop.sessions.update(shop.owner, session.id, name="t")
    assert ("session.changed", str(session.id)) in await told.since()

    await shop.sessions.delete(shop.owner, session.id)
    assert set(await told.since()) == {("session.deleted", str(session.id))}


async def test_sessions_that_end_together_are_each_told_to_their_own_owner(
    shop: Workshop, database: Database
) -> None:
    environment = await made(shop)
    one, two = await session_in(shop, environment), None
    two = await shop.sessions.create(shop.owner, environment.id, name="two")
    told = Told(shop)
    await told.since()

    await forget_viewers(database, shop.clock)
    assert await told.since() == [], "nobody looked at any"

    await rows_written(database, "UPDATE sessions SET status = 'active'")
    await forget_viewers(database, shop.clock)
    assert set(await told.since()) == {
        ("session.changed", str(one.id)),
        ("session.changed", str(two.id)),
    }
    owners = await rows(database, "SELECT DISTINCT owner_id FROM events")
    assert {UUID(str(owner)) for (owner,) in owners} == {shop.owner}


async def rows_written(database: Database, sql: str) -> None:
    import sqlalchemy  # noqa: PLC0415

    async with database.begin() as tx:
        await tx.execute(sqlalchemy.text(sql))
