"""Deployments whose servers die, and those that people end, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.coolify.service import HookOwner
from craftastic.database import Database
from craftastic.deployments.service import (
    Deployment,
    DeploymentFailed,
    DeploymentService,
    Health,
    Pace,
    Status,
    TooManyDeployments,
)
from tests.fakes.clock import FakeClock
from tests.fakes.deployment_rig import DeploymentRig, deployment_rig
from tests.fakes.toy_coolify import ToyCoolify, line

COMMIT = "c0ffee" + "0" * 34
RUNS = "/deployments/applications/*"


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[DeploymentRig]:
    async with deployment_rig(database, clock, tmp_path) as rig:
        yield rig


@pytest.fixture
async def service(rig: DeploymentRig) -> DeploymentService:
    return await rig.server()


def posts(rig: DeploymentRig) -> int:
    return rig.toy.count("POST", "/deploy")


def looks_at(rig: DeploymentRig, deployment: Deployment) -> int:
    return rig.toy.count("GET", f"/deployments/{deployment.run_id}")


# ---- crashes ----------------------------------------------------------------------------------


async def test_crash_before_coolify_is_asked_asks_once(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault(RUNS, hang=True)
    async with rig.crashing("GET", RUNS) as tasks:
        tasks.start_soon(service.deploy, rig.owner, rig.wish())
    fresh = await rig.server()
    (row,) = await fresh.list_owned(rig.owner, rig.target)

    early = await rig.stepped(fresh, row, 30)
    taken = await rig.stepped(fresh, row, 31)

    assert early.run_id is None
    assert taken.run_id == rig.toy.runs[0].uuid
    assert posts(rig) == 1


@pytest.mark.parametrize("force", [False, True])
async def test_crash_after_coolify_took_it_never_deploys_twice(
    rig: DeploymentRig, service: DeploymentService, force: bool
) -> None:
    rig.toy.finish(rig.toy.queue(rig.web), commit=COMMIT)
    rig.toy.fault("/deploy", hang=True, after=True)
    async with rig.crashing("POST", "/deploy") as tasks:
        tasks.start_soon(service.deploy, rig.owner, rig.wish(force=force))
    fresh = await rig.server()
    (row,) = await fresh.list_owned(rig.owner, rig.target)
    rig.toy.finish(rig.toy.runs[1], commit=COMMIT)

    taken = await rig.stepped(fresh, row)
    ended = await rig.stepped(fresh, row)

    assert row.run_id is None
    assert taken.run_id == rig.toy.runs[1].uuid
    assert ended.status is Status.SUCCEEDED
    assert len(rig.toy.runs) == 2
    assert posts(rig) == 1


async def test_answer_that_is_lost_is_looked_for_before_anybody_asks_again(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/deploy", drop=True, after=True)

    lost = await service.deploy(rig.owner, rig.wish(force=True))
    taken = await rig.stepped(service, lost, 16)

    assert (lost.status, lost.run_id) == (Status.PENDING, None)
    assert lost.reason
    assert taken.run_id == rig.toy.runs[0].uuid
    assert posts(rig) == 1


async def test_question_that_never_arrived_is_asked_again(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.finish(rig.toy.queue(rig.web), commit=COMMIT)
    rig.toy.fault("/deploy", drop=True)

    lost = await service.deploy(rig.owner, rig.wish())
    await rig.put_off(lost, 60)
    early = await rig.stepped(service, lost, 16)
    taken = await rig.stepped(service, lost, 60)

    assert early.run_id is None
    assert taken.run_id == rig.toy.runs[1].uuid
    assert len(rig.toy.runs) == 2


async def test_run_of_another_deployment_is_not_taken_for_a_lost_one(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/deploy", drop=True)
    lost = await service.deploy(rig.owner, rig.wish(force=True))
    other = await service.deploy(rig.owner, rig.wish(force=True))

    taken = await rig.stepped(service, lost, 16)

    assert other.run_id == rig.toy.runs[0].uuid
    assert taken.run_id == rig.toy.runs[1].uuid


@pytest.mark.parametrize("route", ["run", "application"])
async def test_crash_while_it_is_followed_is_gone_on_from(
    rig: DeploymentRig, service: DeploymentService, route: str
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    where = f"/deployments/{taken.run_id}"
    if route == "application":
        rig.toy.finish(commit=COMMIT)
        await rig.stepped(service, taken)
        where = f"/applications/{rig.web.uuid}"
    await rig.later(15)
    rig.toy.fault(where, hang=True)
    async with rig.crashing("GET", where) as tasks:
        tasks.start_soon(service.reconcile)
    rig.toy.finish(commit=COMMIT)
    fresh = await rig.server()

    await rig.stepped(fresh, taken)
    ended = await rig.stepped(fresh, taken)

    assert (ended.status, ended.health) == (Status.SUCCEEDED, Health.HEALTHY)


async def test_step_that_was_overtaken_writes_nothing(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    fresh = await rig.server()
    await rig.later(15)
    where = f"/deployments/{taken.run_id}"
    rig.toy.fault(where, hang=True, after=True)
    failed = taken
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.reconcile)
        await rig.until_called("GET", where)
        rig.toy.fail(log=[line("boom", stream="stderr")])
        failed = await rig.stepped(fresh, taken)
        rig.toy.release()

    after = await fresh.get_owned(rig.owner, taken.id)
    assert failed.status is Status.FAILED
    assert after == failed


async def test_step_that_takes_too_long_is_given_back(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    hasty = await rig.server(Pace(step_s=0.5))
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.fault("/deployments/*", hang=True)

    untold = await rig.stepped(hasty, taken)
    rig.toy.finish(commit=COMMIT)
    rig.toy.heal()
    ended = await rig.stepped(service, taken)

    assert (untold.status, untold.live) == (Status.PENDING, True)
    assert untold.reason == "Coolify did not answer in time; asking again."
    assert (ended.status, ended.reason) == (Status.SUCCEEDED, None)


async def test_servers_that_work_at_once_ask_once_for_each(rig: DeploymentRig) -> None:
    service, *others = [await rig.server(Pace(look_s=30, most_s=30)) for _ in range(3)]
    apps = [rig.toy.application(f"app-{number}") for number in range(3)]
    rig.toy.queue_limit = 0
    rows = [await service.deploy(rig.owner, rig.wish(app_id=one.uuid)) for one in apps]
    rig.toy.queue_limit = 25
    await rig.later(61)
    rig.toy.calls.clear()

    async with anyio.create_task_group() as tasks:
        for one in (service, *others, service, *others):
            tasks.start_soon(one.reconcile)
    asked = [call.query["uuid"] for call in rig.toy.called("POST", "/deploy")]
    await rig.later(31)
    rig.toy.calls.clear()
    async with anyio.create_task_group() as tasks:
        for one in (service, *others, service, *others):
            tasks.start_soon(one.reconcile)

    looks = sorted(call.route for call in rig.toy.calls)
    found = [await service.get_owned(rig.owner, one.id) for one in rows]
    assert sorted(asked) == sorted(one.uuid for one in apps)
    assert looks == sorted(f"/deployments/{one.run_id}" for one in found)
    assert len(rig.toy.runs) == 3


# ---- cancelling -------------------------------------------------------------------------------


async def test_deployment_is_cancelled_before_coolify_knows_of_it(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.queue_limit = 0
    waits = await service.deploy(rig.owner, rig.wish())

    cancelled = await service.cancel(rig.owner, waits.id)

    assert (cancelled.status, cancelled.live) == (Status.CANCELLED, False)
    assert rig.toy.count("POST", "/deployments/*") == 0
    rig.toy.queue_limit = 25
    assert await rig.stepped(service, waits) == cancelled
    assert rig.toy.runs == []


async def test_deployment_is_cancelled_at_coolify(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.start()

    cancelled = await service.cancel(rig.owner, taken.id)
    again = await service.cancel(rig.owner, taken.id)

    assert (cancelled.status, cancelled.run_word) == (Status.CANCELLED, "cancelled-by-user")
    assert again == cancelled
    assert rig.toy.count("POST", f"/deployments/{taken.run_id}/cancel") == 1
    assert (await rig.coolify.actions())[-2:] == ["deployment.start", "deployment.cancel"]


async def test_deployment_that_ended_before_it_was_cancelled_stays_as_it_is(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)

    finished = await service.cancel(rig.owner, taken.id)

    assert (finished.status, finished.health) == (Status.SUCCEEDED, Health.WAITING)


async def test_cancellation_that_coolify_refuses_is_told(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.tokens[rig.token].abilities = ("read",)

    refused = await service.cancel(rig.owner, taken.id)

    assert (refused.status, refused.cancel_wanted) == (Status.PENDING, False)
    assert (refused.reason or "").startswith("It could not be cancelled: ")


async def test_cancellation_of_a_lost_answer_cancels_what_was_started(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/deploy", drop=True, after=True)
    lost = await service.deploy(rig.owner, rig.wish())

    found = await service.cancel(rig.owner, lost.id)
    cancelled = await rig.stepped(service, lost, 3)

    assert found.run_id == rig.toy.runs[0].uuid
    assert cancelled.status is Status.CANCELLED
    assert posts(rig) == 1


async def test_wish_to_cancel_is_not_lost_while_another_server_looks(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    fresh = await rig.server()
    await rig.later(3)
    where = f"/deployments/{taken.run_id}"
    rig.toy.fault(where, hang=True)
    wanted = taken
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.reconcile)
        await rig.until_called("GET", where)
        wanted = await fresh.cancel(rig.owner, taken.id)
        rig.toy.release()

    await fresh.reconcile()
    cancelled = await fresh.get_owned(rig.owner, taken.id)

    assert (wanted.status, wanted.cancel_wanted) == (Status.PENDING, True)
    assert cancelled.status is Status.CANCELLED


# ---- rollback ---------------------------------------------------------------------------------


async def test_rollback_goes_back_to_an_image(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.images = [{"tag": COMMIT, "created_at": "2026-07-19", "is_current": False}]

    taken = await service.rollback(rig.owner, rig.target, rig.web.uuid, COMMIT.upper())
    rig.toy.finish()
    ended = await rig.stepped(service, taken)

    assert (taken.kind, taken.commit) == ("rollback", COMMIT)
    assert (ended.status, ended.built_commit) == (Status.SUCCEEDED, COMMIT)
    assert rig.toy.runs[0].rollback
    assert (await rig.coolify.actions())[-1] == "deployment.rollback"


async def test_rollback_waits_for_a_full_queue_too(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.queue_limit = 0

    waits = await service.rollback(rig.owner, rig.target, rig.web.uuid, COMMIT)
    rig.toy.queue_limit = 25
    taken = await rig.stepped(service, waits)

    assert (waits.status, waits.run_id) == (Status.PENDING, None)
    assert taken.run_id == rig.toy.runs[0].uuid


async def test_rollback_says_which_coolify_can(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    async with deployment_rig(database, clock, tmp_path, ToyCoolify("4.1.2")) as rig:
        service = await rig.server()

        with pytest.raises(DeploymentFailed, match=r"4\.2 or newer"):
            await service.rollback(rig.owner, rig.target, rig.web.uuid, COMMIT)

        taken = await service.deploy(rig.owner, rig.wish())
        assert rig.toy.called("POST", "/deploy")[0].query == {"uuid": rig.web.uuid}
        assert not rig.toy.runs[0].force
        assert taken.run_id == rig.toy.runs[0].uuid


# ---- hints and bounds -------------------------------------------------------------------------


async def test_hint_makes_its_deployment_due_and_nobody_elses(rig: DeploymentRig) -> None:
    service = await rig.server(Pace(hint_s=300))
    taken = await service.deploy(rig.owner, rig.wish())
    await rig.put_off(taken, 600)
    rig.toy.finish(commit=COMMIT)

    foreign = await service.hint(HookOwner(uuid4()), taken.run_id, None)
    servers = await service.hint(HookOwner(None), taken.run_id, None)
    await service.reconcile()
    unmoved = await service.get_owned(rig.owner, taken.id)
    followed = await service.hint(HookOwner(rig.owner), taken.run_id, None)
    again = await service.hint(HookOwner(rig.owner), taken.run_id, None)
    await service.reconcile()
    moved = await service.get_owned(rig.owner, taken.id)

    assert (foreign, servers, followed, again) == (False, False, True, False)
    assert unmoved.status is Status.PENDING
    assert moved.status is Status.SUCCEEDED
    await rig.later(301)
    assert await service.hint(HookOwner(rig.owner), None, rig.web.uuid)
    assert not await service.hint(HookOwner(rig.owner), None, None)


async def test_number_of_unended_deployments_has_a_bound(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    for _ in range(20):
        await service.deploy(rig.owner, rig.wish())

    with pytest.raises(TooManyDeployments):
        await service.deploy(rig.owner, rig.wish())
    assert len(rig.toy.runs) == 1


async def test_operators_connection_serves_whoever_has_none(
    rig: DeploymentRig,
) -> None:
    token = rig.toy.token()
    service = await rig.server(token=token)
    await service.coolify.remove(rig.owner)

    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)
    ended = await rig.stepped(service, taken)

    assert (taken.source, taken.connection_id) == ("server", None)
    assert ended.status is Status.SUCCEEDED
    assert await service.hint(HookOwner(None), None, rig.web.uuid)


async def test_run_of_the_operators_connection_is_not_looked_for_at_another_coolify(
    rig: DeploymentRig,
) -> None:
    service = await rig.server(token=rig.toy.token())
    await service.coolify.remove(rig.owner)
    taken = await service.deploy(rig.owner, rig.wish())
    other = await rig.coolify.another()
    fresh = await rig.server(token=other.token(), toy=other)

    ended = await rig.stepped(fresh, taken)
    log = await fresh.log(rig.owner, taken.id)

    assert (ended.status, log.available) == (Status.FAILED, False)
    assert other.calls == []


async def test_log_is_read_once_however_many_look(rig: DeploymentRig) -> None:
    service = await rig.server(Pace(log_s=3600))
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.start()
    rig.toy.say(rig.toy.runs[0], line("one"), line("two"))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(service.log, rig.owner, taken.id)
    log = await service.log(rig.owner, taken.id, 1)

    assert looks_at(rig, taken) == 1
    assert [one.text for one in log.lines] == ["two"]
    assert (log.next, log.complete, log.truncated) == (2, False, False)
