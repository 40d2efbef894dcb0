"""What migrations promise, on both databases."""

import shutil
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy
import sqlalchemy.exc
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, Table
from sqlalchemy.engine import make_url

from craftastic.accounts._passwords import PasswordHasher
from craftastic.database import Database
from craftastic.migrations import runner
from craftastic.tables import METADATA
from tests.conftest import driver_url
from tests.fakes.people import signed_in
from tests.fakes.whole_app import whole_app, whole_settings
from tests.secrecy import canary

UPGRADE = """
import anyio, sys
from craftastic.migrations import runner
anyio.run(runner.upgrade, sys.argv[1])
"""


@pytest.fixture
def with_revisions() -> None:
    if runner.newest() is None:
        pytest.fail("there are no revisions: write the first one")


@pytest.mark.usefixtures("with_revisions")
async def test_the_migrated_schema_is_the_declared_one(database_url: str) -> None:
    url = driver_url(database_url)

    assert await runner.upgrade(url) == runner.newest()

    assert await runner.differences(url, METADATA) == []


@pytest.mark.usefixtures("with_revisions")
async def test_a_second_upgrade_changes_nothing(database_url: str) -> None:
    url = driver_url(database_url)
    await runner.upgrade(url)

    assert await runner.upgrade(url) == runner.newest() == await runner.current(url)


@pytest.mark.usefixtures("with_revisions")
async def test_processes_may_start_at_once(database_url: str) -> None:
    url = driver_url(database_url)

    async def start() -> None:
        done = await anyio.run_process([sys.executable, "-c", UPGRADE, url], check=False)
        assert done.returncode == 0, done.stderr.decode()

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(start)

    assert await runner.differences(url, METADATA) == []


@pytest.mark.usefixtures("with_revisions")
async def test_a_database_of_a_newer_program_is_refused(database_url: str) -> None:
    url = driver_url(database_url)
    await runner.upgrade(url)
    database = Database(url)
    async with database.begin() as tx:
        await tx.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'ffff'"))
    await database.close()

    with pytest.raises(runner.MigrationRefused, match="newer"):
        await runner.upgrade(url)


async def test_a_sqlite_file_is_made_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "craftastic.db"

    await runner.upgrade(f"sqlite+aiosqlite:///{file}")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_newest_revision_is_known_by_the_names_of_the_files() -> None:
    assert runner.newest_by_name() == runner.newest() is not None


@pytest.fixture
def scratch_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the runner read revisions from a folder of the test's own."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        shutil.copy(runner.FOLDER / name, folder / name)
    monkeypatch.setattr(runner, "FOLDER", folder)
    return folder


@pytest.mark.usefixtures("scratch_revisions")
async def test_a_written_revision_makes_exactly_the_declared_tables(database_url: str) -> None:
    url = driver_url(database_url)
    assert await runner.upgrade(url) is None

    path = await runner.write_revision(url, METADATA, "the first tables", "0001")

    assert path.name == "0001_the_first_tables.py"
    assert "UtcDateTime" not in path.read_text()
    assert await runner.differences(url, METADATA) != []
    assert await runner.upgrade(url) == "0001"
    assert await runner.differences(url, METADATA) == []


async def test_a_revision_that_fails_leaves_the_database_as_it_was(
    database_url: str, scratch_revisions: Path
) -> None:
    url = driver_url(database_url)
    await runner.upgrade(url)
    await runner.write_revision(url, METADATA, "first", "0001")
    text = (scratch_revisions / "versions" / "0001_first.py").read_text()
    broken = text.replace("def downgrade", "    raise RuntimeError('half-way')\n\n\ndef downgrade")
    (scratch_revisions / "versions" / "0001_first.py").write_text(broken)
    before = await tables(url)

    with pytest.raises(RuntimeError, match="half-way"):
        await runner.upgrade(url)

    assert await tables(url) == before


async def tables(url: str) -> set[str]:
    database = Database(url)
    async with database.read() as tx:
        connection = await tx.connection()
        found = await connection.run_sync(
            lambda sync: set(sqlalchemy.inspect(sync).get_table_names())
        )
    await database.close()
    assert make_url(url).drivername
    return found


# ---- from an older schema, with rows in it ------------------------------------------------------

ROWS = 2
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Contents = dict[str, list[dict[str, Any]]]
"""The rows of each table, by its name."""


def revisions() -> list[str]:
    """Return every revision, the first one first."""
    script = ScriptDirectory(str(runner.FOLDER))
    return [one.revision for one in reversed(list(script.walk_revisions()))]


async def upgrade_to(url: str, revision: str) -> None:
    def upgrade(connection: Connection) -> None:
        command.upgrade(runner._config(connection), revision)

    async with runner._connected(url) as connection:
        await connection.run_sync(upgrade)


async def synchronously(url: str, work: Callable[[Connection], Any]) -> Any:
    database = Database(url)
    try:
        async with database.begin() as tx:
            return await (await tx.connection()).run_sync(work)
    finally:
        await database.close()


def reflected(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [one for one in metadata.sorted_tables if one.name != "alembic_version"]


def read_all(connection: Connection) -> Contents:
    """Return everything in the database."""
    return {
        table.name: sorted(
            (dict(row) for row in connection.execute(sqlalchemy.select(table)).mappings()), key=str
        )
        for table in reflected(connection)
    }


def fill(connection: Connection) -> None:
    """Put rows into every table that has none, whatever its columns are."""
    numbers = count(1)
    for table in reflected(connection):
        if connection.execute(sqlalchemy.select(table).limit(1)).first() is not None:
            continue
        for _ in range(ROWS):
            row = {column.name: value_for(connection, column, numbers) for column in table.c}
            connection.execute(table.insert().values(row))


def value_for(connection: Connection, column: Column[Any], numbers: "count[int]") -> Any:
    for key in column.foreign_keys:
        if key.column.table is column.table:
            return None
        every = sqlalchemy.select(key.column)
        taken = sqlalchemy.select(column).where(column.is_not(None))
        unused = connection.execute(every.where(key.column.not_in(taken)).limit(1)).scalar()
        return unused or connection.execute(every.limit(1)).scalar()
    kind = column.type
    number = next(numbers)
    if isinstance(kind, sqlalchemy.Uuid):
        return uuid4()
    if isinstance(kind, sqlalchemy.DateTime):
        return NOW + timedelta(seconds=number)
    if isinstance(kind, sqlalchemy.Boolean):
        return None if column.nullable else bool(number % 2)
    if isinstance(kind, sqlalchemy.LargeBinary):
        return str(number).encode()
    if isinstance(kind, sqlalchemy.String):
        # SQLite keeps ids as such texts.
        return uuid4().hex if kind.length == 32 else f"{number}é"[: kind.length or 20]
    return number


@pytest.mark.usefixtures("with_revisions")
async def test_no_upgrade_loses_a_row_of_any_kind(database_url: str) -> None:
    """F40: rows of every table, from the revision that made it on, are there at the end."""
    url = driver_url(database_url)
    kept: Contents = {}
    for revision in revisions():
        await upgrade_to(url, revision)
        await synchronously(url, fill)
        now: Contents = await synchronously(url, read_all)
        for table, rows in kept.items():
            assert without_new_columns(now[table], rows) == rows, f"{table} at {revision}"
        kept = now

    assert {len(rows) for rows in kept.values()} == {ROWS}
    assert len(kept) == len(METADATA.tables)
    assert await runner.differences(url, METADATA) == []


def without_new_columns(
    rows: list[dict[str, Any]], like: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return rows with the columns that they had before, in the same order."""
    return sorted(({name: row.get(name) for name in like[0]} for row in rows), key=str)


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.mark.usefixtures("with_revisions")
async def test_a_server_goes_on_with_a_database_of_the_first_schema(
    database_url: str, tmp_path: Path
) -> None:
    url, password = driver_url(database_url), canary("password")
    refresh, invitation = canary("refresh-token"), canary("invitation")
    hashed = await PasswordHasher().hash(password)
    user, sign_in, environment, session = uuid4(), uuid4(), uuid4(), uuid4()
    soon, times = datetime.now(UTC) + timedelta(days=1), {"created_at": NOW, "updated_at": NOW}

    def as_the_first_version_did(connection: Connection) -> None:
        tables = {table.name: table for table in reflected(connection)}

        def add(table: str, **values: Any) -> None:
            connection.execute(
                tables[table]
                .insert()
                .values({k: stored(tables[table], k, v) for k, v in values.items()})
            )

        add(
            "users", id=user, email="a@example.com", name="A", password_hash=hashed,
            email_verified=True, is_admin=True, founder=True, token_version=0, **times,
        )  # fmt: skip
        add(
            "sign_ins", id=sign_in, user_id=user, created_at=NOW, last_used_at=NOW,
            expires_at=soon,
        )  # fmt: skip
        add(
            "refresh_tokens", token_hash=sha(refresh), sign_in_id=sign_in, created_at=NOW,
            expires_at=soon,
        )  # fmt: skip
        add(
            "invitations", token_hash=sha(invitation), created_by=user, created_at=NOW,
            expires_at=soon,
        )  # fmt: skip
        add(
            "environments", id=environment, owner_id=user, name="mine", branch="main",
            runtime="memory", sandbox_id="gone", number=0, status="running", desired="running",
            clone_status="none", **times,
        )  # fmt: skip
        add(
            "sessions", id=session, environment_id=environment, name="one", tmux_name="one",
            working_directory="/home/dev/workspace", status="active", ready=True, deleted=False,
            session_type="terminal", **times,
        )  # fmt: skip

    await upgrade_to(url, revisions()[0])
    await synchronously(url, as_the_first_version_did)

    async with whole_app(whole_settings(tmp_path, database_url)) as (client, _):
        body = {"email": "a@example.com", "password": password}
        answer = await client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['data']['accessToken']}"}
        mine = await client.get(f"/api/environments/user/{user}", headers=headers)
        one = await client.get(f"/api/sessions/{session}", headers=headers)
        renewed = await client.post("/api/auth/refresh", json={"refreshToken": refresh})
        await signed_in(client, "b@example.com", invitation=invitation)

    assert [(e["id"], e["name"]) for e in mine.json()["environments"]] == [
        (str(environment), "mine")
    ]
    assert one.json()["name"] == "one"
    assert renewed.status_code == 200, renewed.text


def stored(table: Table, column: str, value: Any) -> Any:
    """Return a value as a table that was read from the database wants it."""
    is_text = isinstance(table.c[column].type, sqlalchemy.String)
    return value.hex if isinstance(value, UUID) and is_text else value


async def test_an_upgrade_that_fails_at_its_end_leaves_every_row_as_it_was(
    database_url: str, scratch_revisions: Path
) -> None:
    url = driver_url(database_url)
    versions = scratch_revisions / "versions"
    for path in (Path(runner.__file__).parent / "versions").glob("*.py"):
        shutil.copy(path, versions)
    first, *_, last = revisions()
    (versions / "ffff_last.py").write_text(BROKEN.format(after=last))
    await upgrade_to(url, first)
    await synchronously(url, fill)
    before = await synchronously(url, read_all)

    with pytest.raises((sqlalchemy.exc.DatabaseError, runner.MigrationRefused)):
        await runner.upgrade(url)

    assert await runner.current(url) == first
    assert await synchronously(url, read_all) == before
    (versions / "ffff_last.py").unlink()
    assert await runner.upgrade(url) == last


BROKEN = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "ffff", "{after}", None, None


def upgrade() -> None:
    op.execute("UPDATE environments SET name = 'lost'")
    op.execute("DELETE FROM sessions")
    op.drop_table("terminal_leases")
    op.execute("INSERT INTO no_such_table VALUES (1)")
"""
