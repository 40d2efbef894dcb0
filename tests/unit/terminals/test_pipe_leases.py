"""One holder at a time, on both databases."""

from uuid import uuid4

from craftastic.database import Database
from craftastic.terminals._leases import LEASE_S, Leases
from tests.fakes.clock import FakeClock


async def test_only_one_server_holds_a_session_s_pipe(database: Database, clock: FakeClock) -> None:
    one, two, session = Leases(database, clock), Leases(database, clock), uuid4()

    first = await one.take(session)
    second = await two.take(session)

    assert first.held
    assert not second.held


async def test_a_lease_that_was_given_back_is_free(database: Database, clock: FakeClock) -> None:
    one, two, session = Leases(database, clock), Leases(database, clock), uuid4()
    await one.take(session)
    second = await two.take(session)

    await one.give_back(session)
    await two._renew()

    assert second.held


async def test_a_holder_that_slept_through_the_end_holds_nothing(
    database: Database, clock: FakeClock
) -> None:
    one, two, session = Leases(database, clock), Leases(database, clock), uuid4()
    first = await one.take(session)

    clock.advance(LEASE_S + 1)
    second = await two.take(session)

    assert not first.held
    assert second.held
    await one._renew()
    assert not first.held


async def test_renewing_keeps_it(database: Database, clock: FakeClock) -> None:
    one, session = Leases(database, clock), uuid4()
    lease = await one.take(session)
    for _ in range(5):
        clock.advance(LEASE_S / 2)
        await one._renew()

    assert lease.held
    assert lease.fence == 1


async def test_a_lease_from_before_the_clock_went_back_is_free(
    database: Database, clock: FakeClock
) -> None:
    one, two, session = Leases(database, clock), Leases(database, clock), uuid4()
    await one.take(session)

    clock.advance(-3600)
    second = await two.take(session)

    assert second.held
