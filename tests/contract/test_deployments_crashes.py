"""Deployments whose servers die, and those that people end, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from craftastic.coolify.service import HookOwner
from craftastic.database import Database
from craftastic.deployments._repository import DeploymentRepository
from craftastic.deployments.service import (
    Deployment,
    DeploymentFailed,
    DeploymentService,
    Health,
    Pace,
    Status,
    TargetNotFound,
    TooManyDeployments,
)
from craftastic.tables import METADATA
from tests.fakes.clock import FakeClock
from tests.fakes.deployment_rig import DeploymentRig, connected, deployment_rig
from tests.fakes.git_rig import Secrets
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


# ---- what one person's Coolify does to everybody ------------------------------------------------


async def somebody_else(rig: DeploymentRig) -> tuple[DeploymentService, ToyCoolify, Deployment]:
    """Return a server, and what somebody with another Coolify deploys, which is not due yet."""
    toy = await rig.coolify.another()
    service = await rig.server()
    await connected(service.coolify, rig.coolify.bob, toy)
    rig.shop.owner = rig.coolify.bob
    environment = await rig.shop.create("two")
    wish = rig.wish(target_id=environment.id, app_id=toy.application("web").uuid)
    taken = await service.deploy(rig.coolify.bob, wish)
    await rig.put_off(taken, 600)
    return service, toy, taken


async def test_coolify_that_hangs_holds_up_nobody_elses_deployments(rig: DeploymentRig) -> None:
    service, toy, theirs = await somebody_else(rig)
    taken = await service.deploy(rig.owner, rig.wish())
    await rig.later(15)
    rig.toy.fault("/deployments/*", hang=True)
    toy.calls.clear()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.reconcile)
        await rig.until_called("GET", f"/deployments/{taken.run_id}")
        assert await service.hint(HookOwner(rig.coolify.bob), theirs.run_id, None)
        await anyio.to_thread.run_sync(
            lambda: toy.wait_for("GET", f"/deployments/{theirs.run_id}", timeout_s=5)
        )
        rig.toy.release()

    assert toy.count("GET", f"/deployments/{theirs.run_id}") == 1


async def test_fault_with_one_deployment_keeps_nobody_from_looking_at_the_others(
    rig: DeploymentRig,
) -> None:
    class Broken(Secrets):
        def mask_text(self, text: str) -> str:
            raise RuntimeError("a fault that nobody thought of")

    service, toy, theirs = await somebody_else(rig)
    rig.secrets = Broken()
    await service.deploy(rig.owner, rig.wish())
    rig.toy.fail(log=[line("boom", stream="stderr")])
    toy.finish(commit=COMMIT)
    await rig.later(700)

    await service.reconcile()

    assert (await service.get_owned(rig.coolify.bob, theirs.id)).status is Status.SUCCEEDED


async def test_what_a_dead_server_had_is_taken_in_its_turn(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    apps = [rig.toy.application(f"app-{number}") for number in range(4)]
    had, *others = [await service.deploy(rig.owner, rig.wish(app_id=one.uuid)) for one in apps]
    await rig.later(15)
    async with service.database.begin() as tx:
        assert await DeploymentRepository(tx).claim(had.id, 60)
    for one in others:
        await rig.put_off(one, 300)
    await rig.later(400)

    async with service.database.begin() as tx:
        (claim,) = await DeploymentRepository(tx).claim_due(1, 60)

    assert claim.row.id == had.id


async def test_number_of_deployments_that_are_looked_at_has_a_bound(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.after_finish = "starting:unknown"
    await rig.put_off(await service.deploy(rig.owner, rig.wish()), -10)
    rig.toy.finish(commit=COMMIT)
    await service.reconcile()
    (row,) = await rig.coolify.rows("deployments")
    assert (row["status"], row["live"]) == ("succeeded", True)
    async with service.database.begin() as tx:
        for _ in range(59):
            await tx.execute(METADATA.tables["deployments"].insert(), {**row, "id": uuid4()})

    with pytest.raises(TooManyDeployments):
        await service.deploy(rig.owner, rig.wish())


# ---- the remembered application -----------------------------------------------------------------


async def test_two_who_choose_an_application_at_once_both_do(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    other = await rig.server()
    now = rig.shop.clock.now()

    async def choose() -> None:
        async with other.database.begin() as tx:
            await DeploymentRepository(tx).remember(rig.owner, rig.target, "b", "B", now)

    async with anyio.create_task_group() as tasks, service.database.begin() as tx:
        await DeploymentRepository(tx).remember(rig.owner, rig.target, "a", "A", now)
        await tx.flush()
        tasks.start_soon(choose)
        with anyio.move_on_after(0.3):
            await anyio.sleep_forever()  # long enough for the other one to come to the row

    assert await service.remembered(rig.owner, rig.target) == ("b", "B")


async def test_environment_that_is_deleted_while_its_application_is_chosen_is_not_found(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/applications/*", hang=True)
    refused: list[TargetNotFound] = []

    async def choose() -> None:
        with pytest.raises(TargetNotFound) as error:
            await service.remember(rig.owner, rig.target, rig.web.uuid)
        refused.append(error.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(choose)
        await rig.until_called("GET", "/applications/*")
        async with rig.coolify.database.begin() as tx:
            await tx.execute(METADATA.tables["environments"].delete())
        rig.toy.release()

    assert refused
