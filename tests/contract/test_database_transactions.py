"""What transactions promise, on both databases."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest
import sqlalchemy
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from craftastic.accounts._repository import AccountRepository, EmailTaken, User
from craftastic.database import Database, DatabaseUnavailable
from craftastic.errors import Unavailable

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def user(email: str) -> User:
    return User(email=email, name="a", created_at=NOW, updated_at=NOW)


async def users(database: Database) -> int:
    async with database.read() as tx:
        return await AccountRepository(tx).count()


async def test_an_error_inside_a_transaction_undoes_it(database: Database) -> None:
    async def fail() -> None:
        async with database.begin() as tx:
            await AccountRepository(tx).add(user("a@example.com"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()

    assert await users(database) == 0


async def test_many_writers_at_once_all_get_their_turn(database: Database) -> None:
    async def add(number: int) -> None:
        async with database.begin() as tx:
            known = await AccountRepository(tx).count()
            await AccountRepository(tx).add(user(f"{number}-{known}@example.com"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(add, number)

    assert await users(database) == 200


@pytest.mark.parametrize(
    "database", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
async def test_of_two_that_wait_for_each_other_one_is_done_and_one_may_try_again(
    database: Database,
) -> None:
    one, other = "a@example.com", "b@example.com"
    for name in (one, other):
        async with database.begin() as tx:
            await AccountRepository(tx).add(user(name))
    locked: list[str] = []
    both = anyio.Event()
    outcomes: list[str] = []
    lock = text("SELECT 1 FROM users WHERE email = :email FOR UPDATE")

    async def cross(first: str, then: str) -> None:
        try:
            async with database.begin() as tx:
                await tx.execute(lock, {"email": first})
                locked.append(first)
                if len(locked) == 2:
                    both.set()
                await both.wait()
                await tx.execute(lock, {"email": then})
        except DatabaseUnavailable as error:
            outcomes.append(error.message)
        else:
            outcomes.append("done")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(cross, one, other)
            group.start_soon(cross, other, one)

    assert sorted(outcomes) == ["The database was busy; try again.", "done"]


async def test_of_many_inserts_of_one_address_exactly_one_wins(database: Database) -> None:
    outcomes: list[bool] = []

    async def add() -> None:
        try:
            async with database.begin() as tx:
                await AccountRepository(tx).add(user("a@example.com"))
            outcomes.append(True)
        except EmailTaken:
            outcomes.append(False)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(add)

    assert sorted(outcomes) == [False] * 99 + [True]


async def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    async with database.begin() as tx:
        await AccountRepository(tx).add(user("a@example.com"))

        with anyio.fail_after(2):
            assert await users(database) == 0

    assert await users(database) == 1


async def test_a_reader_sees_one_moment_of_sqlite(database: Database) -> None:
    if not database.is_sqlite:
        return  # PostgreSQL's default isolation promises this for a statement only
    async with database.read() as tx:
        assert await AccountRepository(tx).count() == 0
        async with database.begin() as writing:
            await AccountRepository(writing).add(user("a@example.com"))
        assert await AccountRepository(tx).count() == 0


async def test_a_cancelled_writer_leaves_no_lock_and_no_row(database: Database) -> None:
    async def add(number: int) -> None:
        with suppress(Unavailable):
            async with database.begin() as tx:
                await AccountRepository(tx).add(user(f"{number}@example.com"))
                await anyio.sleep_forever()

    for pause_s in (0.0, 0.001, 0.003, 0.01, 0.03):
        with anyio.move_on_after(pause_s):
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(add, number)

        with anyio.fail_after(3):
            async with database.begin() as tx:
                assert await AccountRepository(tx).count() == 0


async def test_cancelled_readers_give_their_connections_back(database: Database) -> None:
    for pause_s in [0.0, 0.0005, 0.001, 0.002, 0.004] * 10:
        with anyio.move_on_after(pause_s):
            async with database.read() as tx:
                await tx.execute(select(func.count()).select_from(User))
                await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(users, database)


async def test_times_come_back_as_they_went_in(database: Database) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    async with database.begin() as tx:
        tx.add(User(email="a@example.com", name="a", created_at=elsewhere, updated_at=NOW))

    async with database.read() as tx:
        found = await AccountRepository(tx).find_by_email("a@example.com")
        assert found is not None
        assert found.created_at == NOW
        assert found.created_at.tzinfo is UTC


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(StatementError, match="naive"):
        async with database.begin() as tx:
            tx.add(User(email="a@example.com", name="a", created_at=naive, updated_at=NOW))


async def test_rows_cannot_point_at_nothing(database: Database) -> None:
    insert = sqlalchemy.text(
        "INSERT INTO refresh_tokens (token_hash, sign_in_id, created_at, expires_at)"
        " VALUES ('x', :id, :at, :at)"
    ).bindparams(
        sqlalchemy.bindparam("id", "0" * 32, type_=sqlalchemy.String)
        if database.is_sqlite
        else sqlalchemy.bindparam("id", "0" * 32, type_=sqlalchemy.Uuid(as_uuid=False)),
        at=NOW,
    )
    with pytest.raises(IntegrityError):
        async with database.begin() as tx:
            await tx.execute(insert)


async def test_ping_answers(database: Database) -> None:
    await database.ping()
