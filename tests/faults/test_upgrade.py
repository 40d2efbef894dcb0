"""F40: a new version over an old database with running sessions, and one that cannot upgrade."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from craftastic.database import Database
from craftastic.migrations import runner
from tests.conftest import driver_url
from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._facts import database_url_of
from tests.faults._figures import note
from tests.faults._invariants import hold

pytestmark = [pytest.mark.fault, pytest.mark.slow]

PACKAGE = Path(runner.__file__).parents[1]
COUNTING = "i=0; while :; do i=$((i+1)); echo line$i; sleep 0.05; done"
BROKEN = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "ffff", "{after}", None, None


def upgrade() -> None:
    op.execute("UPDATE environments SET name = 'lost'")
    op.execute("DELETE FROM sessions")
    op.drop_table("terminal_leases")
    op.execute("INSERT INTO no_such_table VALUES (1)")
"""


@dataclass
class Work:
    """A user's session on a branch, in which a program counts and a file is not committed."""

    environment: dict[str, Any]
    session: dict[str, Any]
    seen: int = 0

    def viewer(self, server: Server, api: Api) -> Viewer:
        return Viewer(server.url, self.session["id"], self.environment["id"], api.token)


@asynccontextmanager
async def signed_in(server: Server) -> AsyncGenerator[Api]:
    async with Api(server.url) as api:
        await api.login("a@example.com")
        yield api


async def begin(server: Server, url: str) -> Work:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("kept", url)
        session = await api.post("/api/sessions", environmentId=environment["id"], branch="topic")
        work = Work(environment, session)
        viewer = work.viewer(server, api)
        async with viewer.attached():
            await viewer.run("echo mine > uncommitted")
            await viewer.type(f"clear; {COUNTING}\r")
            await viewer.shows("\nline20\n")
            work.seen = viewer.numbers("line")[-1]
        return work


async def go_on(server: Server, work: Work) -> None:
    """Look whether the same program counts in the same terminal, and end it."""
    async with signed_in(server) as api:
        listed = (await api.get(f"/api/environments/user/{api.user['id']}"))["environments"]
        assert [(one["id"], one["name"]) for one in listed] == [(work.environment["id"], "kept")]
        shown = await api.get(f"/api/sessions/{work.session['id']}")
        assert (shown["status"], shown["gitBranch"]) == ("inactive", "topic")
        viewer = work.viewer(server, api)
        async with viewer.attached():
            await until(lambda: max(viewer.numbers("line"), default=0) > work.seen, "it counts")
            work.seen = viewer.numbers("line")[-1]
            await until(lambda: viewer.numbers("line")[-1] > work.seen, "it counts on")
            numbers = viewer.numbers("line")
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            await viewer.type("\x03")
            assert (await viewer.run("cat uncommitted")).strip() == "mine"
            await viewer.type(f"{COUNTING}\r")
            await viewer.shows("\nline3\n")
            work.seen = 3
        await api.post("/api/sessions", environmentId=work.environment["id"], branch="new")


def revisions() -> list[str]:
    """Return every revision, the first one first."""
    script = ScriptDirectory(str(runner.FOLDER))
    return [one.revision for one in reversed(list(script.walk_revisions()))]


async def take_back_to(url: str, revision: str) -> None:
    """Make the database what an older version had, with the rows that it had too."""

    def downgrade(connection: Connection) -> None:
        command.downgrade(runner._config(connection), revision)

    async with runner._connected(driver_url(url)) as connection:
        await connection.run_sync(downgrade)


async def rows(url: str) -> dict[str, list[Any]]:
    """Return everything in the database."""

    def read(connection: Connection) -> dict[str, list[Any]]:
        metadata = sqlalchemy.MetaData()
        metadata.reflect(connection)
        return {
            one.name: sorted(map(repr, connection.execute(sqlalchemy.select(one)).all()))
            for one in metadata.sorted_tables
        }

    database = Database(driver_url(url))
    try:
        async with database.read() as tx:
            return await (await tx.connection()).run_sync(read)
    finally:
        await database.close()


async def test_new_version_over_the_first_schema_adopts_the_sessions_that_run(
    server: Server, runtime: str, own_history: str
) -> None:
    work = await begin(server, own_history)
    server.stop()
    url = database_url_of(server)
    await take_back_to(url, revisions()[0])

    server.start()
    await server.ready()

    assert await runner.current(driver_url(url)) == runner.newest()
    await go_on(server, work)
    note("F40", f"converged, {runtime}", await hold(server), "s")


async def test_version_whose_migration_fails_changes_nothing_and_the_last_one_goes_on(
    server: Server, own_history: str, tmp_path: Path
) -> None:
    work = await begin(server, own_history)
    server.stop()
    url = database_url_of(server)
    before = await rows(url)
    shutil.copytree(PACKAGE, tmp_path / "craftastic", ignore=shutil.ignore_patterns("*.pyc"))
    versions = tmp_path / "craftastic" / "migrations" / "versions"
    (versions / "ffff_broken.py").write_text(BROKEN.format(after=revisions()[-1]))

    log, usual = server.log.stat().st_size, server.environment.get("PYTHONPATH")
    server.environment["PYTHONPATH"] = str(tmp_path)
    server.start()
    assert server.process is not None
    await until(server.process.poll, "it does not start", timeout_s=120)
    assert b"no_such_table" in server.log.read_bytes()[log:]
    assert await rows(url) == before

    server.environment.pop("PYTHONPATH")
    server.environment |= {} if usual is None else {"PYTHONPATH": usual}
    server.start()
    await server.ready()
    await go_on(server, work)
    await hold(server)
