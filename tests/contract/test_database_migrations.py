"""What migrations promise, on both databases."""

import shutil
import stat
import sys
from pathlib import Path

import anyio
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from craftastic.database import Database
from craftastic.migrations import runner
from craftastic.tables import METADATA
from tests.conftest import driver_url

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
