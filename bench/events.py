"""Events: what one costs the transaction that writes it, and how soon its owner's page has it.

Run from the project's root: `python -m bench.events`. The floor is the same transaction without an
event: one row changed and committed, on each database.
"""

import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import anyio
import anyio.to_thread
import sqlalchemy

from bench._common import Clock, Options, Report, folder, options
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.events.service import EventLog
from tests.conftest import PostgresServer, driver_url, free_port, make_schema
from tests.fakes.event_rig import Frame, following, new_user, process

TRANSACTIONS = 200
CHANGE = sqlalchemy.text("UPDATE users SET name = :name WHERE id = :id")


@asynccontextmanager
async def databases(place: Path) -> AsyncGenerator[dict[str, str]]:
    """Give a database of each kind that this machine has, with the schema."""
    found = {"SQLite": f"sqlite:///{place / 'bench.db'}"}
    server = await anyio.to_thread.run_sync(postgres, place)
    if server is not None:
        found["PostgreSQL"] = server.url(server.create())
    try:
        for url in found.values():
            await anyio.to_thread.run_sync(make_schema, url)
        yield found
    finally:
        if server is not None:
            await anyio.to_thread.run_sync(server.stop)


def postgres(place: Path) -> PostgresServer | None:
    """Start a PostgreSQL of the measurement's own, where there is one."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        return None
    inside = place / "postgres"
    inside.mkdir(mode=0o700)
    place.chmod(0o755)
    user = None
    if inside.owner() == "root":  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(inside, user)
    server = PostgresServer(programs[-1].parent, inside, free_port(), user)
    server.start()
    return server


async def change(database: Database, owner: UUID, name: str, *, tell: bool) -> None:
    async with database.begin() as tx:
        await tx.execute(
            CHANGE, {"name": name, "id": owner if not database.is_sqlite else owner.hex}
        )
        if tell:
            EventLog(tx).add(owner, "thing.changed", name)


async def measure(chosen: Options) -> Report:
    report = Report("Events", tail=True)
    with folder("events") as place:
        async with databases(place) as found:
            for kind, url in found.items():
                database = Database(driver_url(url))
                async with process(place, database, SystemClock()) as server:
                    tokens, me = await new_user(server.accounts, "a@example.com")
                    await measure_writes(report, kind, database, me.user_id, chosen.rounds)
                    async with following(server.url, tokens.access_token) as reader:
                        await reader.next()
                        clock = Clock()
                        for index in range(TRANSACTIONS):
                            clock.lap()
                            await change(database, me.user_id, str(index), tell=True)
                            assert isinstance(await reader.next(), Frame)
                            report.row(f"{kind}: commit until the page has it").add(clock.lap())
                await database.close()
    return report


async def measure_writes(
    report: Report, kind: str, database: Database, owner: UUID, rounds: int
) -> None:
    clock = Clock()
    names = {False: f"{kind}: a change alone", True: f"{kind}: a change and its event"}
    report.row(names[False])
    report.row(names[True], floor=names[False])
    for index in range(TRANSACTIONS * rounds):
        for tell in (False, True):
            clock.lap()
            await change(database, owner, str(index), tell=tell)
            report.row(names[tell]).add(clock.lap())


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=2)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
