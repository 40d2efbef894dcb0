"""Disk use over HTTP: its wire form, who may see it, the quota, and the floor of free space."""

import json
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
import sqlalchemy

from craftastic.database import Database
from craftastic.disk._asking import PYTHON
from craftastic.disk._repository import DiskRepository, DiskUseRow
from craftastic.disk._room import Space
from craftastic.disk.service import (
    DiskNotMeasured,
    DiskQuotaExceeded,
    DiskRoom,
    DiskService,
    ServerDiskFull,
)
from craftastic.environments.service import EnvironmentStatus
from craftastic.runtimes.base import RunResult
from craftastic.runtimes.memory import Call
from craftastic.sessions.service import SessionStatus
from tests.conftest import BACKENDS
from tests.contract.conftest import until
from tests.fakes.clock import FakeClock
from tests.fakes.disk_rig import FILES, client_for, disk_of, ended, fill
from tests.fakes.served import Rig, rigged
from tests.fakes.workshop import rows

pytestmark = pytest.mark.parametrize("database", BACKENDS, indirect=True)

MIB = 1 << 20
VIEW = {
    *("environmentId", "state", "measuredAt", "measuring", "reason", "totalBytes", "quotaBytes"),
    *("nearQuota", "overQuota", "repositoryBytes", "homeBytes", "cacheBytes", "otherBytes"),
    *("complete", "sessions", "tiers"),
}


@pytest.fixture
async def rig(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Rig]:
    async with rigged(tmp_path, database, clock, FILES) as rig:
        yield rig


@pytest.fixture
def disk(rig: Rig) -> DiskService:
    return disk_of(rig)


@pytest.fixture
async def client(rig: Rig, disk: DiskService) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(rig, disk) as client:
        yield client


@contextmanager
def asked(rig: Rig) -> Generator[list[str]]:
    """Collect which commands of the disk's program are run while the context is open."""
    entered, seen = rig.runtime._enter, list[str]()

    async def enter(call: Call) -> None:
        if call.argv[:1] == (PYTHON,) and b'"command"' in call.stdin:
            seen.append(json.loads(call.stdin)["command"])
        await entered(call)

    rig.runtime._enter = enter  # type: ignore[method-assign] - to see what is run
    try:
        yield seen
    finally:
        rig.runtime._enter = entered  # type: ignore[method-assign]


def path(rig: Rig, more: str = "") -> str:
    return f"/api/environments/{rig.environment.id}/disk{more}"


async def test_figures_have_their_form_and_add_up(rig: Rig, client: httpx.AsyncClient) -> None:
    session = await ended(rig, "topic")
    fill(rig.tree(session), "node_modules/a")
    never = (await client.get(path(rig))).json()
    assert set(never) == VIEW
    assert (never["state"], never["measuredAt"], never["tiers"]) == ("never", None, [])

    measured = (await client.post(path(rig, "/measure"))).json()

    assert measured == (await client.get(path(rig))).json()
    assert set(measured) == VIEW
    assert measured["state"] == "measured"
    (one,) = measured["sessions"]
    assert one | {"bytes": 0} == {
        "sessionId": str(session.id),
        "name": "topic",
        "branch": "topic",
        "path": session.working_directory,
        "bytes": 0,
        "regenerableBytes": one["regenerableBytes"],
        "state": "ended",
        "saved": True,
    }
    parts = ("repositoryBytes", "homeBytes", "cacheBytes", "otherBytes")
    assert measured["totalBytes"] == one["bytes"] + sum(measured[part] for part in parts)
    assert one["bytes"] > one["regenerableBytes"] >= 64 << 10
    assert [tier["tier"] for tier in measured["tiers"]] == [1, 2, 3]
    (item,) = measured["tiers"][1]["items"]
    assert item["sessionId"] == str(session.id)
    assert item["kind"] == "ignored"

    done = (await client.post(path(rig, "/reclaim"), json={"tier": 2})).json()

    assert set(done) == {"freedBytes", "removed", "kept", "use"}
    assert done["freedBytes"] == item["bytes"] == done["removed"][0]["bytes"]
    assert done["use"]["sessions"][0]["regenerableBytes"] == 0


async def test_what_is_measured_is_what_is_there(
    rig: Rig, disk: DiskService, tmp_path: Path
) -> None:
    home = rig.runtime.home(rig.environment.id)
    fill(home, "big", 3 * MIB)
    (home / "same").hardlink_to(home / "big")
    (home / "link").symlink_to(fill(tmp_path, "outside", 5 * MIB))
    (home / "root").symlink_to("/")
    (home / "loop").symlink_to(".")

    shown = await disk.measure(rig.shop.owner, rig.environment.id)

    assert shown.report is not None
    assert shown.report.complete
    assert 3 * MIB <= shown.report.home < 4 * MIB


async def test_a_stopped_environment_shows_its_last_figures_and_takes_no_orders(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    before = (await client.post(path(rig, "/measure"))).json()
    await rig.shop.environments.stop(rig.shop.owner, rig.environment.id)

    after = (await client.get(path(rig))).json()

    assert after["totalBytes"] == before["totalBytes"] > 0
    assert after["reason"].startswith("It is not running")
    for more, body in (("/measure", None), ("/reclaim", {"tier": 1})):
        answer = await client.post(path(rig, more), json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "SANDBOX_NOT_RUNNING")


@pytest.mark.parametrize(
    "body", [{}, {"tier": 0}, {"tier": 4}, {"tier": "1"}, {"tier": True}, {"tier": 1.5}, []]
)
async def test_any_other_tier_is_refused(rig: Rig, client: httpx.AsyncClient, body: Any) -> None:
    answer = await client.post(path(rig, "/reclaim"), json=body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_INPUT"


async def test_somebody_elses_environment_is_not_there(rig: Rig, client: httpx.AsyncClient) -> None:
    other = await rig.shop.add_user()
    client.headers["Authorization"] = f"Bearer {other}"

    for method, more in (("GET", ""), ("POST", "/measure"), ("POST", "/reclaim")):
        with asked(rig) as seen:
            body = {"tier": 3} if more == "/reclaim" else None
            answer = await client.request(method, path(rig, more), json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "ENVIRONMENT_NOT_FOUND")
        assert seen == []


async def test_administrators_alone_see_everybodys_disk(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    used = (await client.post(path(rig, "/measure"))).json()
    assert (await client.get("/api/disk")).status_code == 403

    client.headers["Authorization"] = f"Bearer admin:{uuid4()}"
    shown = (await client.get("/api/disk")).json()

    assert shown["floorBytes"] == 512 * MIB
    assert shown["environments"] == [
        {
            "environmentId": str(rig.environment.id),
            "name": rig.environment.name,
            "owner": f"{rig.shop.owner}@example.com",
            "totalBytes": used["totalBytes"],
            "quotaBytes": None,
            "measuredAt": used["measuredAt"],
            "overQuota": False,
        }
    ]


async def test_nonsense_from_a_sandbox_changes_no_figures(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    before = (await client.post(path(rig, "/measure"))).json()

    async def nonsense(_call: Call) -> RunResult:
        return RunResult(0, b'{"freed": -1}' + b"\x1b[2J" * 100, b"")

    rig.runtime.answer = nonsense
    answer = await client.post(path(rig, "/measure"))

    assert (answer.status_code, answer.json()["code"]) == (503, "DISK_NOT_MEASURED")
    after = (await client.get(path(rig))).json()
    assert after["reason"] == "The sandbox answered nonsense about its disk"
    assert after | {"reason": None} == before


async def test_the_reconciler_measures_what_runs_once_and_then_leaves_it_in_peace(
    rig: Rig, disk: DiskService, database: Database, clock: FakeClock
) -> None:
    with asked(rig) as seen:
        await disk.reconcile()
        assert seen == []  # not while it is only now being made
        await _make_due(database)
        other = disk_of(rig)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.reconcile)
            tasks.start_soon(other.reconcile)
        await disk.reconcile()

    assert seen == ["measure"]
    ((left_s, total, claimed),) = await rows(
        database,
        f"SELECT next_at - {_now(database)}, total_bytes, claimed_by FROM disk_uses",  # noqa: S608
    )
    assert 50 < float(str(left_s)) <= 60
    assert int(str(total)) > 0
    assert claimed is None


async def test_what_takes_long_is_measured_seldom(
    rig: Rig, disk: DiskService, database: Database, clock: FakeClock
) -> None:
    entered = rig.runtime._enter

    async def slow(call: Call) -> None:
        clock.advance(7.0)
        await entered(call)

    rig.runtime._enter = slow  # type: ignore[method-assign] - time that a walk takes
    await disk.measure(rig.shop.owner, rig.environment.id)

    ((left_s,),) = await rows(database, f"SELECT next_at - {_now(database)} FROM disk_uses")  # noqa: S608
    assert 650 < float(str(left_s)) <= 700


async def test_stopped_environments_are_not_measured(
    rig: Rig, disk: DiskService, database: Database
) -> None:
    await disk.reconcile()
    await _make_due(database)
    await rig.shop.environments.stop(rig.shop.owner, rig.environment.id)

    with asked(rig) as seen:
        await disk.reconcile()

    assert seen == []


def _now(database: Database) -> str:
    if database.is_sqlite:
        return "(julianday('now') - 2440587.5) * 86400.0"
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


async def _make_due(database: Database) -> None:
    await _set(database, "disk_uses SET next_at = 0")


async def _set(database: Database, values: str) -> None:
    async with database.begin() as tx:
        await tx.execute(sqlalchemy.text(f"UPDATE {values}"))


async def test_a_look_that_does_not_end_keeps_its_owners_others_waiting_and_nobody_else(
    rig: Rig, disk: DiskService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.disk.service.DISK_INTERVAL_S", 0.1)
    environments, other = rig.shop.environments, await rig.shop.add_user()
    same = await environments.create(rig.shop.owner, name="same")
    second = await environments.create(other, name="second")
    await disk.reconcile()
    await _make_due(database)
    async with database.begin() as tx:
        first = DiskUseRow.environment_id == rig.environment.id
        await tx.execute(sqlalchemy.update(DiskUseRow).where(first).values(next_at=-1.0))
    real, asked_at, release = rig.runtime.answer, list[UUID](), anyio.Event()

    async def slow(call: Call) -> RunResult:
        if call.argv[:1] == (PYTHON,):
            of_it = await environments.list_running()
            asked_at.extend(one.id for one in of_it if one.sandbox == call.sandbox)
            if call.sandbox == rig.environment.sandbox:
                await release.wait()
        return await real(call)

    async def measured() -> bool:
        async with database.read() as tx:
            use = await DiskRepository(tx).find(second.id)
        return use is not None and use.measured_at is not None and not use.busy

    rig.runtime.answer = slow
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disk.reconcile)
        await until(lambda: rig.environment.id in asked_at, "the look begins that does not end")
        await until(lambda: second.id in asked_at, "the other owner's is looked at")
        await until(measured, "it is measured")
        await _make_due(database)  # it alone: the others are claimed, or not to be claimed yet
        await until(lambda: asked_at.count(second.id) > 1, "what became due meanwhile is, too")
        assert same.id not in asked_at
        release.set()
        await until(lambda: same.id in asked_at, "then the owner's next one is")


async def test_over_its_quota_an_environment_takes_no_sessions_until_enough_is_freed(
    rig: Rig,
) -> None:
    disk, owner, id_ = disk_of(rig, disk_quota_mib=10), rig.shop.owner, rig.environment.id
    home = rig.runtime.home(id_)
    fill(home, "mine", 9 * MIB)
    assert (await disk.measure(owner, id_)).use.near  # type: ignore[union-attr]
    await rig.make("still-taken")
    more = fill(home, ".cache/pip/more", MIB)

    async with client_for(rig, disk) as client:
        over = (await client.post(path(rig, "/measure"))).json()
        assert (over["nearQuota"], over["overQuota"]) == (True, True)
        assert over["quotaBytes"] == 10 * MIB
        refused = await client.post(
            "/api/sessions", json={"environmentId": str(id_), "branch": "x"}
        )
    assert (refused.status_code, refused.json()["code"]) == (507, "DISK_QUOTA_EXCEEDED")
    assert "craftastic disk reclaim" in refused.json()["details"]
    with pytest.raises(DiskQuotaExceeded):
        await rig.make("x")

    more.unlink()  # under the quota again, and not yet where new sessions are taken
    assert (await disk.measure(owner, id_)).use.over  # type: ignore[union-attr]
    with pytest.raises(DiskQuotaExceeded):
        await rig.make("x")

    (home / "mine").unlink()
    assert not (await disk.measure(owner, id_)).use.over  # type: ignore[union-attr]
    await rig.make("x")


async def test_a_session_that_ended_can_be_brought_back_over_the_quota(rig: Rig) -> None:
    disk, owner, id_ = disk_of(rig, disk_quota_mib=10), rig.shop.owner, rig.environment.id
    session = await ended(rig, "topic")
    fill(rig.runtime.home(id_), "mine", 11 * MIB)
    await disk.measure(owner, id_)

    back = await rig.shop.sessions.revive(owner, session.id)

    assert back.status is not SessionStatus.DEAD


async def test_far_over_its_quota_an_environment_that_grows_is_stopped_and_can_be_started(
    rig: Rig,
) -> None:
    disk, owner, id_ = disk_of(rig, disk_quota_mib=10), rig.shop.owner, rig.environment.id
    environments, home = rig.shop.environments, rig.runtime.home(rig.environment.id)

    async def stopped() -> bool:
        found = await environments.get_owned(owner, id_)
        return found.status is EnvironmentStatus.STOPPED

    fill(home, "mine", 12 * MIB)
    await disk.measure(owner, id_)
    await disk.measure(owner, id_)
    assert not await stopped()  # it is far over, and does not grow

    fill(home, "more", MIB)
    await disk.measure(owner, id_)
    await until(stopped, "it is stopped")
    found = await environments.get_owned(owner, id_)
    assert found.reason_code == "STOPPED_OVER_DISK_QUOTA"
    assert found.reason is not None
    assert "Start it to free disk space" in found.reason
    events = await environments.audit.list_all(limit=5, before=None, actor_id=None, action=None)
    stop = next(one for one in events if one.action == "environment.stop")
    assert (stop.actor_id, stop.details["reason"]) == (None, "STOPPED_OVER_DISK_QUOTA")

    started = await environments.start(owner, id_)
    assert started.status is EnvironmentStatus.RUNNING
    await disk.measure(owner, id_)
    assert not await stopped()  # so that its owner can tidy up

    fill(home, "even-more", MIB)
    await disk.measure(owner, id_)
    await until(stopped, "it has grown further")


async def test_a_stop_for_the_quota_that_was_refused_is_tried_again_without_further_growth(
    rig: Rig, database: Database
) -> None:
    disk, owner, id_ = disk_of(rig, disk_quota_mib=10), rig.shop.owner, rig.environment.id
    home = rig.runtime.home(id_)

    async def stopped() -> bool:
        found = await rig.shop.environments.get_owned(owner, id_)
        return found.status is EnvironmentStatus.STOPPED

    fill(home, "mine", 12 * MIB)
    await disk.measure(owner, id_)
    fill(home, "more", MIB)
    until_s = f"{_now(database)} + 10"
    await _set(database, f"environments SET claimed_by = 'somebody', claimed_until = {until_s}")
    await disk.measure(owner, id_)
    assert not await stopped()  # somebody is at it at that moment

    await _set(database, "environments SET claimed_by = NULL, claimed_until = NULL")
    await disk.measure(owner, id_)

    await until(stopped, "it is stopped")
    await rig.shop.environments.start(owner, id_)
    await disk.measure(owner, id_)
    assert not await stopped()  # it was told so once


async def test_a_level_that_changes_is_told_to_its_owner(rig: Rig, database: Database) -> None:
    disk, owner, id_ = disk_of(rig, disk_quota_mib=10), rig.shop.owner, rig.environment.id
    told = "SELECT count(*) FROM events WHERE type = 'disk.changed'"
    await disk.measure(owner, id_)
    assert await rows(database, told) == [(0,)]

    fill(rig.runtime.home(id_), "mine", 11 * MIB)
    await disk.measure(owner, id_)
    await disk.measure(owner, id_)

    assert await rows(database, told) == [(1,)]


async def test_below_the_floor_of_free_space_nothing_new_is_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk = disk_of(rig, disk_free_floor_mib=1 << 30, data_dir=tmp_path)
    with pytest.raises(ServerDiskFull) as refused:
        await rig.make("x")
    assert refused.value.code == "SERVER_DISK_FULL"
    with pytest.raises(ServerDiskFull):
        await rig.shop.environments.create(rig.shop.owner, name="two")
    assert len(await rig.shop.environments.list_owned(rig.shop.owner)) == 1

    async def plenty(_room: DiskRoom) -> Space:
        return Space(1 << 60, 1 << 60)

    monkeypatch.setattr(DiskRoom, "space", plenty)
    await rig.make("x")
    assert (await disk.overview()).space == Space(1 << 60, 1 << 60)


async def test_a_clone_that_failed_is_not_tried_again_over_the_quota(
    rig: Rig, database: Database
) -> None:
    disk = disk_of(rig, disk_quota_mib=10)
    fill(rig.runtime.home(rig.environment.id), "mine", 11 * MIB)
    await disk.measure(rig.shop.owner, rig.environment.id)
    await _set(database, "environments SET clone_status = 'failed'")

    with pytest.raises(DiskQuotaExceeded):
        await rig.shop.environments.retry(rig.shop.owner, rig.environment.id)


async def test_a_reclaim_that_cannot_be_put_right_is_tried_seldom_and_says_why(
    rig: Rig, disk: DiskService, database: Database, clock: FakeClock
) -> None:
    real = rig.runtime.answer

    async def broken(call: Call) -> RunResult:
        if b'"reclaim"' in call.stdin or b'"tidy"' in call.stdin:
            clock.advance(30.0)
            return RunResult(1, b"", b"killed\n")
        return await real(call)

    rig.runtime.answer = broken
    with pytest.raises(DiskNotMeasured):
        await disk.reclaim(rig.shop.owner, rig.environment.id, 2)

    with asked(rig) as seen, anyio.move_on_after(10.0):
        await disk.reconcile()
        await disk.reconcile()

    assert seen == ["tidy"]
    ((tier, left_s),) = await rows(
        database,
        f"SELECT reclaim_tier, next_at - {_now(database)} FROM disk_uses",  # noqa: S608
    )
    assert tier == 2
    assert 250 < float(str(left_s)) <= 300
    shown = await disk.get(rig.shop.owner, rig.environment.id)
    assert shown.reason == "The sandbox does not tell what its disk is used for"

    rig.runtime.answer = real
    await _make_due(database)
    with asked(rig) as seen:
        await disk.reconcile()
    assert seen == ["tidy", "measure"]


async def test_whoever_waits_for_another_look_of_the_same_owners_is_told_so_in_time(
    rig: Rig, disk: DiskService, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.disk.service.CLAIM_WAIT_S", 0.2)
    async with disk.slots.one(rig.shop.owner, float("inf")):
        answer = await client.post(path(rig, "/measure"))

    assert (answer.status_code, answer.json()["code"]) == (503, "DISK_BUSY")
    assert (await client.post(path(rig, "/measure"))).status_code == 200


async def test_a_reclaim_that_fails_stays_on_record_until_it_is_put_right(
    rig: Rig, disk: DiskService, database: Database
) -> None:
    real = rig.runtime.answer

    async def broken(call: Call) -> RunResult:
        if b'"reclaim"' in call.stdin:
            return RunResult(1, b"", b"killed\n")
        return await real(call)

    rig.runtime.answer = broken
    with pytest.raises(DiskNotMeasured):
        await disk.reclaim(rig.shop.owner, rig.environment.id, 2)
    assert await rows(database, "SELECT reclaim_tier, claimed_by FROM disk_uses") == [(2, None)]
    rig.runtime.answer = real

    with asked(rig) as seen:
        await disk.reconcile()

    assert seen == ["tidy", "measure"]
    assert await rows(database, "SELECT reclaim_tier FROM disk_uses") == [(None,)]
    events = await rig.shop.environments.audit.list_all(
        limit=5, before=None, actor_id=None, action="disk.reclaimed"
    )
    assert [(one.outcome, one.details) for one in events] == [("cut_short", {"tier": 2})]
