"""F11 to F13: the database is away, locked or full: refused as such, and no terminal notices."""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.conftest import PostgresServer
from tests.e2e.harness import Server, until
from tests.faults._figures import note
from tests.faults._invariants import hold
from tests.faults._load import load
from tests.faults._outages import (
    Outage,
    OwnCluster,
    PostgresOutage,
    SqliteOutage,
    fill,
    own_cluster,
    small_disk,
    sound,
)

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    # Nothing here depends on the runtime.
    pytest.mark.parametrize(
        "runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True
    ),
]

AWAY_S = 10.0
WAITED_S = 30.0
"""The longest that requests may wait until the first one is refused."""
BUSY_S = 5.0
KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def outage(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Outage]:
    """Give a database that the test may take away."""
    if request.param == "sqlite":
        outage = SqliteOutage(data_dir / "craftastic.db")
        yield outage
        outage.end()
        return
    like: PostgresServer = request.getfixturevalue("postgres_server")
    with own_cluster(like) as cluster:
        yield PostgresOutage(cluster, cluster.url(cluster.create()))


@dataclass
class Small:
    """A database on a disk of its own that is soon full."""

    url: str
    disk: Path
    cluster: OwnCluster | None = None

    def check(self) -> None:
        """Read everything."""
        if self.cluster is None:
            assert sound(self.disk / "craftastic.db") == "ok"
        else:
            self.cluster.dump(self.url)


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    """Give a database whose disk the test may fill."""
    if request.param == "sqlite":
        with small_disk(8 << 10) as disk:
            yield Small(f"sqlite:///{disk}/craftastic.db", disk)
        return
    like: PostgresServer = request.getfixturevalue("postgres_server")
    with small_disk(32 << 10) as disk, own_cluster(like) as cluster:
        yield Small(cluster.url(cluster.create_at(disk)), disk, cluster)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Give the server the database that the test does something to."""
    for name in ("outage", "small"):
        if name in request.fixturenames:
            return str(request.getfixturevalue(name).url)
    return None


async def test_database_that_is_away_ends_no_terminal_and_is_used_again_when_it_is_back(
    server: Server, outage: Outage
) -> None:
    kind = type(outage).__name__.removesuffix("Outage")
    async with load(server) as work:
        async with work.going_on():
            outage.begin()
            await anyio.sleep(AWAY_S)  # the fault's own length
            await until(lambda: 503 in work.reads.statuses, "reads refused", timeout_s=WAITED_S)
            await until(lambda: work.journal.refused, "writes refused", timeout_s=WAITED_S)
            assert await work.status("/healthz") == 200
            assert await work.status("/readyz") == 503
            outage.end()

            note("F11", f"used again, {kind}", await work.taken_again(), "s")

        assert work.reads.statuses == {200, 503}
        assert work.reads.codes == {"DATABASE_UNAVAILABLE"}
        assert work.writes.statuses <= {200, 503}
        assert [*work.reads.without_way_on, *work.writes.without_way_on] == []
        note("F11", f"slowest echo, {kind}", work.slowest_echo_s, "s")
        note("F11", f"converged, {kind}", await hold(server, journal=work.journal), "s")
        assert await work.status("/readyz") == 200


async def test_sqlite_that_another_program_writes_to_is_read_and_refuses_writes_in_time(
    server: Server,
) -> None:
    async with load(server) as work:
        other = sqlite3.connect(server.data_dir / "craftastic.db", isolation_level=None)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        async with work.going_on():
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            await until(lambda: work.journal.refused, "writes refused", timeout_s=WAITED_S)
            refused_s = time.monotonic() - began
            await anyio.sleep(max(0.0, AWAY_S - refused_s))  # the fault's own length
            other.execute("ROLLBACK")
            other.close()

            note("F12", "used again", await work.taken_again(), "s")

        assert work.reads.statuses == {200}
        assert work.writes.statuses == {200, 503}
        assert work.writes.codes == {"DATABASE_UNAVAILABLE"}
        assert work.writes.without_way_on == []
        assert refused_s >= BUSY_S
        note("F12", "refused after", refused_s, "s")
        note("F12", "slowest read", work.reads.slowest_s, "s")
        note("F12", "slowest echo", work.slowest_echo_s, "s")
        await hold(server, journal=work.journal)


async def test_database_whose_disk_is_full_is_read_and_refuses_writes_until_there_is_space(
    server: Server, small: Small
) -> None:
    kind = "SQLite" if small.cluster is None else "Postgres"
    async with load(server) as work:
        async with work.going_on():
            ballast = fill(small.disk)
            await until(lambda: work.journal.refused, "writes refused", timeout_s=2 * WAITED_S)
            read = work.reads.asked
            await until(lambda: work.reads.asked > read + 20, "reads go on")
            small.check()
            ballast.unlink()

            note("F13", f"used again, {kind}", await work.taken_again(), "s")

        assert work.reads.statuses == {200}
        assert work.writes.statuses == {200, 503}
        assert work.writes.codes == {"DATABASE_FULL"}
        assert work.writes.without_way_on == []
        note("F13", f"slowest echo, {kind}", work.slowest_echo_s, "s")
        await hold(server, journal=work.journal)
        small.check()
