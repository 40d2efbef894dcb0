"""What the audit log promises, on both databases: one unbroken order, and no silent change."""

import json
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy
from sqlalchemy import delete, select, update
from structlog.contextvars import bound_contextvars

from craftastic.audit import service as audit_service
from craftastic.audit._repository import AuditEventRow, AuditHeadRow
from craftastic.audit.service import AuditService
from craftastic.database import Database, Transaction
from tests.fakes.clock import FakeClock

ALICE, BOB = UUID(int=1), UUID(int=2)
Change = Callable[[Transaction], Awaitable[object]]


@pytest.fixture
def audit(database: Database, clock: FakeClock) -> AuditService:
    return AuditService(database, clock)


async def fill(audit: AuditService, count: int, actor: UUID | None = ALICE) -> None:
    for number in range(count):
        await audit.record(
            "git.push",
            actor_id=actor,
            object_type="environment",
            object_id=UUID(int=number),
            details={"ref": f"refs/heads/{number}"},
        )


async def test_an_event_is_kept_as_it_was_told(audit: AuditService, clock: FakeClock) -> None:
    environment = uuid4()

    with bound_contextvars(request_id="the-request"):
        await audit.record(
            "git.push",
            actor_id=ALICE,
            object_type="environment",
            object_id=environment,
            outcome="refused",
            details={"ref": "refs/heads/ü", "old": None, "forced": True, "count": 3},
        )

    (event,) = await audit.list_for(ALICE)
    assert (event.seq, event.at, event.actor_id) == (1, clock.now(), ALICE)
    assert (event.action, event.outcome) == ("git.push", "refused")
    assert (event.object_type, event.object_id) == ("environment", str(environment))
    assert event.request_id == "the-request"
    assert event.details == {"ref": "refs/heads/ü", "old": None, "forced": True, "count": 3}


async def test_an_event_outside_of_a_request_has_no_actor_and_no_request(
    audit: AuditService, database: Database
) -> None:
    await audit.record("keys.rotate", actor_id=None, object_type="keys", object_id=None)

    async with database.read() as tx:
        (row,) = await tx.scalars(select(AuditEventRow))
    assert (row.actor_id, row.object_id, row.request_id, row.details) == (None, None, None, "{}")


async def test_an_event_is_there_exactly_if_what_it_tells_of_is(
    audit: AuditService, database: Database
) -> None:
    async def fail() -> None:
        async with database.begin() as tx:
            await audit.record("a.b", actor_id=ALICE, object_type="c", object_id="1", tx=tx)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.begin() as tx:
        await audit.record("a.b", actor_id=ALICE, object_type="c", object_id="2", tx=tx)

    assert [event.object_id for event in await audit.list_for(ALICE)] == ["2"]
    assert (await audit.verify()).ok


async def test_two_events_of_one_transaction_follow_each_other(
    audit: AuditService, database: Database
) -> None:
    async with database.begin() as tx:
        for number in "12":
            await audit.record("a.b", actor_id=ALICE, object_type="c", object_id=number, tx=tx)

    assert [event.seq for event in await audit.list_for(ALICE)] == [2, 1]
    assert (await audit.verify()).ok


async def test_hostile_texts_are_kept_without_breaking_anything(
    audit: AuditService, database: Database
) -> None:
    hostile = "\0\x1b[31m\ud800'; DROP TABLE audit_events;--\n" + "x" * 100_000

    await audit.record(
        hostile,
        actor_id=ALICE,
        object_type=hostile,
        object_id=hostile,
        outcome=hostile,
        details={hostile: hostile, "nested": {"a": [hostile] * 200}},
    )

    (event,) = await audit.list_for(ALICE)
    assert event.object_id is not None
    assert event.object_id.isprintable()
    assert "DROP TABLE" in event.object_id
    assert (await audit.verify()).ok
    async with database.read() as tx:
        (row,) = await tx.scalars(select(AuditEventRow))
    assert len(row.details) <= 4096


async def test_no_secret_gets_into_the_log(audit: AuditService, database: Database) -> None:
    await audit.record(
        "github.connect",
        actor_id=ALICE,
        object_type="github",
        object_id=None,
        details={"access_token": "canary-1", "url": "https://user:canary-2@example.com"},
    )

    async with database.read() as tx:
        (row,) = await tx.scalars(select(AuditEventRow))
    assert "canary" not in row.details
    assert json.loads(row.details)["access_token"] == "[hidden]"


async def test_fifty_at_once_make_one_unbroken_chain(database: Database, clock: FakeClock) -> None:
    # Two services stand for two server processes: they share nothing but the database.
    other = Database(database.engine.url.render_as_string(hide_password=False))
    services = [AuditService(database, clock), AuditService(other, clock)]

    async def append(number: int) -> None:
        await services[number % 2].record(
            "a.b", actor_id=ALICE, object_type="c", object_id=str(number)
        )

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(append, number)
    await other.close()

    events = await services[0].list_for(ALICE, limit=100)
    assert [event.seq for event in events] == list(range(50, 0, -1))
    assert {event.object_id for event in events} == {str(number) for number in range(50)}
    found = await services[0].verify()
    assert (found.ok, found.checked) == (True, 50)


async def test_cancelled_appends_leave_no_gap(audit: AuditService) -> None:
    for pause_s in (0.0, 0.001, 0.003, 0.01):
        with anyio.move_on_after(pause_s):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(fill, audit, 3)

    await fill(audit, 1)

    assert (await audit.verify()).ok


async def test_an_empty_log_is_sound(audit: AuditService) -> None:
    found = await audit.verify()

    assert (found.ok, found.checked, found.head) == (True, 0, None)


async def test_a_long_log_is_walked_to_its_end(
    audit: AuditService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_service, "VERIFIED_AT_ONCE", 4)

    for count in (3, 1, 4):  # less than a page, exactly one, exactly two
        await fill(audit, count)
        assert (await audit.verify()).ok

    found = await audit.verify()
    assert found.checked == 8
    assert found.head is not None
    assert found.head[0] == 8


async def test_a_log_that_grows_while_it_is_walked_is_sound(audit: AuditService) -> None:
    done = anyio.Event()

    async def append() -> None:
        await fill(audit, 40)
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(append)
        while not done.is_set():
            assert (await audit.verify()).ok


def change(number: int, /, **values: object) -> Change:
    return lambda tx: tx.execute(
        update(AuditEventRow).where(AuditEventRow.seq == number).values(**values)
    )


async def remove_end(tx: Transaction) -> None:
    await tx.execute(delete(AuditHeadRow))


async def change_end(tx: Transaction) -> None:
    await tx.execute(update(AuditHeadRow).values(hash="0" * 64))


def remove(*numbers: int) -> Change:
    return lambda tx: tx.execute(delete(AuditEventRow).where(AuditEventRow.seq.in_(numbers)))


async def exchange(tx: Transaction) -> None:
    """Exchange what two events say, each with its own hashes."""
    for number, other in ((3, -3), (4, 3), (-3, 4)):
        await change(number, seq=other)(tx)


async def close_the_gap(tx: Transaction) -> None:
    """Remove an event and number the later ones anew."""
    await remove(3)(tx)
    for number in (4, 5, 6):
        await change(number, seq=number - 1)(tx)


async def forge(tx: Transaction) -> None:
    """Append an event without knowing how, or without moving the end."""
    columns = [one.name for one in AuditEventRow.__table__.columns if one.name != "seq"]
    await tx.execute(
        sqlalchemy.text(
            f"INSERT INTO audit_events (seq, {', '.join(columns)}) "  # noqa: S608 - our own names
            f"SELECT 7, {', '.join(columns)} FROM audit_events WHERE seq = 6"
        )
    )


@pytest.mark.parametrize(
    ("tamper", "broken_at", "reason"),
    [
        (change(3, outcome="failed"), 3, "changed"),
        (change(3, details='{"ref":"refs/heads/other"}'), 3, "changed"),
        (change(3, actor_id=BOB), 3, "changed"),
        (change(3, actor_id=None), 3, "changed"),
        (change(3, request_id="x"), 3, "changed"),
        (change(3, hash="0" * 64), 3, "changed"),
        (change(3, previous_hash="0" * 64), 3, "follow"),
        (remove(1), 1, "missing"),
        (remove(3), 3, "missing"),
        (remove(3, 4), 3, "missing"),
        (remove(6), 6, "end is missing"),
        (remove(1, 2, 3, 4, 5, 6), 1, "end is missing"),
        (exchange, 3, "follow"),
        (close_the_gap, 3, "follow"),
        (forge, 7, "follow"),
        (remove_end, 7, "end is missing"),
        (change_end, 6, "ended with"),
    ],
    ids=[
        "outcome changed",
        "details changed",
        "actor changed",
        "actor removed",
        "request changed",
        "hash changed",
        "previous hash changed",
        "first removed",
        "one removed",
        "two removed",
        "last removed",
        "all removed",
        "two exchanged",
        "one removed and the rest numbered anew",
        "one forged",
        "end removed",
        "end changed",
    ],
)
async def test_what_was_tampered_with_is_found(
    audit: AuditService, database: Database, tamper: Change, broken_at: int, reason: str
) -> None:
    await fill(audit, 6)
    assert (await audit.verify()).ok

    async with database.begin() as tx:
        await tamper(tx)

    found = await audit.verify()
    assert not found.ok
    assert found.broken_at == broken_at
    assert reason in (found.reason or "")
    assert found.checked == broken_at - 1


async def test_a_list_is_the_actors_own_newest_first_and_goes_on(audit: AuditService) -> None:
    await fill(audit, 3)
    await fill(audit, 2, BOB)
    await fill(audit, 1, None)
    await fill(audit, 2)

    first = await audit.list_for(ALICE, limit=2)
    rest = await audit.list_for(ALICE, limit=1000, before=first[-1].seq)

    assert [event.seq for event in first] == [8, 7]
    assert [event.seq for event in rest] == [3, 2, 1]
    assert len(await audit.list_for(ALICE, limit=-5)) == 1
    assert [event.seq for event in await audit.list_for(BOB)] == [5, 4]
