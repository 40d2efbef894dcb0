"""How a database that cannot be used right now is told, beyond what a whole outage shows."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import sqlalchemy

from craftastic.database import Database, DatabaseFull, DatabaseUnavailable
from tests.conftest import PostgresServer, driver_url


@pytest.fixture
def crowded(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the URL of a user who has no connection left."""
    user, name = f"u{uuid4().hex}", postgres_server.create()
    postgres_server.sql(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 0")
    yield postgres_server.url(name).replace("craftastic@", f"{user}@")
    postgres_server.sql(f"DROP ROLE {user}")
    postgres_server.drop(name)


@pytest.mark.postgres
async def test_postgresql_that_has_no_connection_left_is_unavailable(crowded: str) -> None:
    database = Database(driver_url(crowded))
    try:
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        with pytest.raises(DatabaseUnavailable):
            async with database.begin():
                pass
    finally:
        await database.close()


async def test_connection_that_is_ended_in_a_transaction_is_unavailable_and_the_next_one_works(
    database: Database,
) -> None:
    if database.is_sqlite:
        return
    end = sqlalchemy.text("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseUnavailable):
        async with database.begin() as tx:
            await tx.execute(end)

    await database.ping()


async def test_sqlite_without_space_is_told_as_full_and_is_as_it_was(database: Database) -> None:
    if not database.is_sqlite:
        return

    async def write() -> None:
        async with database.begin() as tx:
            await tx.execute(sqlalchemy.text("PRAGMA max_page_count=1"))  # the least that it takes
            await tx.execute(sqlalchemy.text("CREATE TABLE large (content BLOB)"))
            await tx.execute(sqlalchemy.text("INSERT INTO large VALUES (zeroblob(10000000))"))

    with pytest.raises(DatabaseFull):
        await write()

    async with database.read() as tx:
        tables = await tx.execute(sqlalchemy.text("SELECT name FROM sqlite_master"))
        assert "large" not in set(tables.scalars())
