"""Who attaches to a terminal is on record, whatever the database does; no terminal waits for it.

SEC-51.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
import structlog

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditEvent, AuditService
from craftastic.clock import SystemClock
from craftastic.database import Database, DatabaseUnavailable
from craftastic.terminals import _attendance
from craftastic.terminals._attendance import Attendance
from tests.contract.conftest import until
from tests.fakes.terminal_desk import Client, open_desk


class MoodyDatabase(Database):
    """A database that can be slow, or away, for those who write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.open = anyio.Event()
        self.is_away = False
        self.tries = 0

    def begin(self) -> Any:
        return _Turn(self, super().begin())


class _Turn:
    def __init__(self, database: MoodyDatabase, turn: Any) -> None:
        self.database = database
        self.turn = turn

    async def __aenter__(self) -> Any:
        self.database.tries += 1
        if self.database.is_away:
            raise DatabaseUnavailable("it is away")
        await self.database.open.wait()
        return await self.turn.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self.turn.__aexit__(*error)


@pytest.fixture
async def moody(database: Database) -> AsyncIterator[MoodyDatabase]:
    made = MoodyDatabase(database.engine.url.render_as_string(hide_password=False))
    yield made
    await made.close()


async def events_of(database: Database) -> list[AuditEvent]:
    """Return what is on record, oldest first."""
    return list(reversed(await AuditService(database, SystemClock()).list_all(limit=200)))


async def recorded(database: Database, count: int) -> list[AuditEvent]:
    async def enough() -> bool:
        return len(await events_of(database)) >= count

    await until(enough, f"{count} events are on record")
    return await events_of(database)


def caller() -> Caller:
    return Caller(UserId(uuid4()), "a@example.com", "A", True, False, uuid4())


async def seen(client: Client) -> None:
    """Type into a terminal, and wait for what it answers."""
    await client.type("echo seen-$((40 + 2))\n")
    await client.until("seen-42")


async def test_a_terminal_opens_and_is_typed_into_while_the_record_waits(
    database: Database, moody: MoodyDatabase, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attendance, "WRITE_S", 600.0)  # who waits for it waits for good
    async with open_desk(database, data_dir, audited_by=moody) as desk:
        try:
            for _ in range(3):
                async with desk.open() as client:
                    await seen(client)
            await until(lambda: desk.service.attached == 0, "all have left")
            assert await events_of(database) == []
        finally:
            moody.open.set()
        events = await recorded(database, 6)

    viewers = [one.details["viewer"] for one in events]
    assert [one.action for one in events] == ["terminal.attach", "terminal.detach"] * 3
    assert viewers[0::2] == viewers[1::2]
    assert len(set(viewers)) == 3
    assert {one.object_id for one in events} == {str(desk.session.id)}
    assert len({one.request_id for one in events}) == 3
    assert "seen" not in str(events)


async def test_a_database_that_is_away_gets_everything_later_and_once(
    database: Database, moody: MoodyDatabase
) -> None:
    moody.open.set()
    moody.is_away = True
    attendance = Attendance(AuditService(moody, SystemClock()), retry_s=0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attendance.run)
        for _ in range(150):  # more than are written at once
            with attendance.visit(caller(), uuid4(), uuid4()):
                pass
        await until(lambda: moody.tries > 3, "it was tried again")
        moody.is_away = False
        await recorded(database, 200)
        await until(lambda: not attendance._waiting, "all are written")
        tasks.cancel_scope.cancel()

    async with database.read() as tx:
        count = await _attendance_count(tx)
    assert count == 300
    assert (await AuditService(database, SystemClock()).verify()).ok


async def _attendance_count(tx: Any) -> int:
    from craftastic.audit._repository import AuditRepository  # noqa: PLC0415

    return await AuditRepository(tx).count()


async def test_the_end_of_the_server_loses_nobody_who_was_there(
    database: Database, moody: MoodyDatabase
) -> None:
    attendance = Attendance(AuditService(moody, SystemClock()))
    here, gone = uuid4(), uuid4()
    with attendance.visit(caller(), uuid4(), here):
        with attendance.visit(caller(), uuid4(), gone) as visit:
            visit.closed = (1000, "Terminal session ended")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attendance.run)
            await until(lambda: moody.tries == 1, "they are being written")
            tasks.cancel_scope.cancel()
            moody.open.set()

    told = [
        (one.action, one.object_id, one.details.get("reason")) for one in await events_of(database)
    ]
    assert told == [
        ("terminal.attach", str(here), None),
        ("terminal.attach", str(gone), None),
        ("terminal.detach", str(gone), "Terminal session ended"),
        ("terminal.detach", str(here), "Server is restarting"),
    ]


async def test_what_the_database_never_takes_is_bounded_and_in_the_servers_own_log(
    moody: MoodyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attendance, "LAST_WRITES_S", 0.2)
    moody.open.set()
    moody.is_away = True
    attendance = Attendance(AuditService(moody, SystemClock()), most_waiting=4)
    sessions: list[UUID] = [uuid4() for _ in range(5)]
    with structlog.testing.capture_logs() as logs:
        for session in sessions:
            with attendance.visit(caller(), uuid4(), session):
                pass
        assert len(attendance._waiting) == 4
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attendance.run)
            await until(lambda: moody.tries > 0, "it was tried")
            tasks.cancel_scope.cancel()

    lost = [
        (one["action"], one["session"]) for one in logs if one["event"] == "terminal.not_audited"
    ]
    actions = ("terminal.attach", "terminal.detach")
    assert lost == [(action, str(session)) for session in sessions for action in actions]


@pytest.mark.parametrize("kind", ["exit", "signed out", "restart"])
async def test_the_record_says_why_a_viewer_left(
    database: Database, data_dir: Path, kind: str
) -> None:
    async with open_desk(database, data_dir) as desk:
        async with desk.open() as client:
            await seen(client)
            if kind == "exit":
                await client.type("exit\n")
            elif kind == "signed out":
                desk.accounts.signed_in = False
            else:
                desk.service.drain()
            closed = await client.until_closed()
        _, left = await recorded(database, 2)

    assert (left.details["closeCode"], left.details["reason"]) == closed
    assert (
        closed[1]
        == {
            "exit": "Terminal session ended",
            "signed out": "Authentication required",
            "restart": "Server is restarting",
        }[kind]
    )
