"""Deployments from the wish to the healthy application, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from craftastic.database import Database
from craftastic.deployments.service import (
    Deployment,
    DeploymentFailed,
    DeploymentService,
    Health,
    Status,
)
from tests.fakes.clock import FakeClock
from tests.fakes.deployment_rig import DeploymentRig, deployment_rig
from tests.fakes.toy_coolify import line
from tests.secrecy import canary

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


# ---- the whole way ----------------------------------------------------------------------------


async def test_deployment_is_followed_until_its_application_is_healthy(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.status = "exited:unhealthy"
    rig.web.after_finish = "starting:unknown"

    taken = await service.deploy(rig.owner, rig.wish())
    queued = await rig.stepped(service, taken, 2.1)
    rig.toy.start(commit=COMMIT)
    building = await rig.stepped(service, taken, 4)
    rig.toy.finish()
    finished = await rig.stepped(service, taken, 4)
    waiting = await rig.stepped(service, taken, 4)
    rig.web.status = "running:healthy"
    healthy = await rig.stepped(service, taken, 4)

    assert (taken.status, taken.run_id, taken.reason) == (
        Status.PENDING, rig.toy.runs[0].uuid, None,
    )  # fmt: skip
    assert (queued.status, queued.run_word) == (Status.PENDING, "queued")
    page = f"/application/{rig.web.uuid}/deployment/{taken.run_id}"
    assert queued.url == f"{rig.toy.url}/project/toy/environment/toy{page}"
    assert (building.status, building.built_commit) == (Status.BUILDING, COMMIT)
    assert building.building_at is not None
    assert (finished.status, finished.health, finished.live) == (
        Status.SUCCEEDED, Health.WAITING, True,
    )  # fmt: skip
    assert (waiting.health, waiting.health_text) == (Health.WAITING, "starting:unknown")
    assert (healthy.health, healthy.live) == (Health.HEALTHY, False)
    assert healthy.health_at is not None
    assert healthy.ended_at is not None
    assert healthy.ended_at < healthy.health_at
    assert posts(rig) == 1


async def test_looks_become_rarer_and_nothing_is_asked_before_it_is_due(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    first_s = await rig.wait_s(taken.id)
    for _ in range(8):
        await rig.stepped(service, taken, 16)
    last_s = await rig.wait_s(taken.id)
    asked = looks_at(rig, taken)

    await rig.put_off(taken, 60)
    await rig.stepped(service, taken, 20)
    early = looks_at(rig, taken)
    await rig.stepped(service, taken, 60)

    assert first_s <= 2
    assert 5 < last_s <= 15
    assert (asked, early, looks_at(rig, taken)) == (8, 8, 9)


async def test_owner_hears_of_what_can_be_seen_and_of_nothing_else(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    async def told() -> int:
        events = await rig.coolify.rows("events")
        return sum(one["type"] == "deployment.changed" for one in events)

    taken = await service.deploy(rig.owner, rig.wish())
    await rig.stepped(service, taken)
    before = await told()

    await rig.stepped(service, taken, 20)
    same = await told()
    rig.toy.start(commit=COMMIT)
    await rig.stepped(service, taken, 20)

    assert same == before
    assert await told() == before + 1


async def test_metrics_count_what_is_followed_and_what_ended(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    await service.reconcile()
    pending = service.metrics.text()
    rig.toy.finish(commit=COMMIT)
    rig.toy.fault("/deployments/*", 503)
    await rig.stepped(service, taken)
    await rig.stepped(service, taken)
    await service.reconcile()
    ended = service.metrics.text()

    assert b'craftastic_deployments{status="pending"} 1.0' in pending
    assert b'craftastic_deployments{status="pending"} 0.0' in ended
    assert b'craftastic_deployments{status="succeeded"} 1.0' in ended
    assert b'craftastic_deployments_ended_total{kind="deploy",status="succeeded"} 1.0' in ended
    assert b'craftastic_coolify_calls_total{outcome="unavailable"} 1.0' in ended


async def test_force_and_previews_are_asked_for_as_coolify_wants_it(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.previews.add(7)

    await service.deploy(rig.owner, rig.wish())
    await service.deploy(rig.owner, rig.wish(force=True))
    preview = await service.deploy(rig.owner, rig.wish(pull_request_id=7))
    run = rig.toy.runs[-1]
    rig.toy.finish(run, commit=COMMIT)
    ended = await rig.stepped(service, preview)

    queries = [call.query for call in rig.toy.called("POST", "/deploy")]
    assert [query.get("force") for query in queries] == [None, "true", None]
    assert queries[2].get("pull_request_id", queries[2].get("pr")) == "7"
    assert preview.run_id == run.uuid
    assert (ended.status, ended.health, ended.live) == (Status.SUCCEEDED, Health.UNKNOWN, False)


async def test_deployment_that_waits_long_is_told_how_many_are_before_it(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    other = rig.toy.application("other")
    rig.toy.queue(other)
    rig.toy.start(rig.toy.queue(other, pull_request_id=3))
    taken = await service.deploy(rig.owner, rig.wish())

    early = await rig.stepped(service, taken, 10)
    late = await rig.stepped(service, taken, 60)
    rig.toy.start(rig.toy.runs[-1])
    building = await rig.stepped(service, taken, 60)

    assert early.queue_ahead is None
    assert late.queue_ahead == 2
    assert building.queue_ahead is None


# ---- which run is ours ------------------------------------------------------------------------


async def test_deployment_that_is_queued_already_is_followed_by_the_true_one(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    queued = rig.toy.queue(rig.web)

    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(queued, commit=COMMIT)
    ended = await rig.stepped(service, taken)

    assert taken.run_id == queued.uuid
    assert ended.status is Status.SUCCEEDED
    assert posts(rig) == 1


async def test_id_that_coolify_made_up_is_replaced_at_the_first_look(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    queued = rig.toy.queue(rig.web)
    rig.toy.fault("/deploy", 200, body=said(rig, "Queued.", deployment_uuid="neverstored"))

    taken = await service.deploy(rig.owner, rig.wish())
    found = await rig.stepped(service, taken)

    assert taken.run_id == "neverstored"
    assert found.run_id == queued.uuid
    assert posts(rig) == 1


async def test_id_that_leads_nowhere_is_asked_for_once_more(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/deploy", 200, body=said(rig, "Queued.", deployment_uuid="neverstored"))

    taken = await service.deploy(rig.owner, rig.wish())
    lost = await rig.stepped(service, taken)
    again = await rig.stepped(service, taken)

    assert lost.run_id is None
    assert lost.status is Status.PENDING
    assert again.run_id == rig.toy.runs[0].uuid
    assert posts(rig) == 2


async def test_deployment_that_is_never_to_be_found_fails_after_two_questions(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    text = "Deployment already queued for this commit."
    rig.toy.fault("/deploy", 200, body=said(rig, text, deployment_uuid="neverstored"), times=3)

    taken = await service.deploy(rig.owner, rig.wish())
    failed = await rig.stepped(service, taken)
    later = await rig.stepped(service, taken)

    assert taken.status is Status.PENDING
    assert failed.status is Status.FAILED
    assert failed.reason == f"Coolify did not start a deployment: {text}"
    assert later == failed
    assert posts(rig) == 2


async def test_success_that_deployed_nothing_is_a_failure(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    with pytest.raises(DeploymentFailed) as raised:
        await service.deploy(rig.owner, rig.wish(pull_request_id=3))

    (row,) = await service.list_owned(rig.owner, rig.target)
    assert raised.value.answer == {"deploymentId": str(row.id)}
    assert raised.value.message == (
        "Deployment failed: Coolify did not start a deployment: "
        "Pull request 3 not found for this resource."
    )
    assert (row.status, row.live) == (Status.FAILED, False)


def said(rig: DeploymentRig, message: str, **more: str) -> dict[str, object]:
    return {"deployments": [{"message": message, "resource_uuid": rig.web.uuid, **more}]}


# ---- Coolify will not, or not now ---------------------------------------------------------------


async def test_full_queue_is_asked_again_when_it_said_so_and_not_before(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.queue_limit = 0

    waits = await service.deploy(rig.owner, rig.wish())
    rig.toy.queue_limit = 25
    early = await rig.stepped(service, waits, 30)
    taken = await rig.stepped(service, waits, 31)

    assert (waits.status, waits.run_id) == (Status.PENDING, None)
    assert "queue" in (waits.reason or "")
    assert early.run_id is None
    assert taken.run_id == rig.toy.runs[0].uuid
    assert taken.reason is None
    assert posts(rig) == 2


async def test_full_queue_keeps_nobody_from_following(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    follows = await service.deploy(rig.owner, rig.wish())
    rig.toy.queue_limit = 0
    waits = await service.deploy(rig.owner, rig.wish(force=True))
    rig.toy.start(rig.toy.runs[0])

    building = await rig.stepped(service, follows, 3)
    third = await service.deploy(rig.owner, rig.wish(force=True))

    assert waits.run_id is None
    assert building.status is Status.BUILDING
    assert third.run_id is None
    assert posts(rig) == 2


async def test_connection_that_asks_for_peace_is_not_asked_by_anybody(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    other = await rig.server()
    first = await service.deploy(rig.owner, rig.wish())
    second = await other.deploy(rig.owner, rig.wish(force=True))
    await rig.later(3)
    rig.toy.fault("/deployments/*", 429, headers={"Retry-After": "40"})
    await rig.put_off(second, 9)
    await service.reconcile()
    before = len(rig.toy.calls)

    for _ in range(3):
        await rig.later(10)
        await service.reconcile()
        await other.reconcile()
    asked = len(rig.toy.calls) - before
    await rig.stepped(service, first, 20)
    await rig.stepped(other, second, 20)

    assert asked == 0
    assert looks_at(rig, first) >= 2
    assert looks_at(rig, second) >= 1


async def test_token_that_may_not_deploy_fails_with_what_to_tick(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.tokens[rig.token].abilities = ("read",)

    with pytest.raises(DeploymentFailed) as raised:
        await service.deploy(rig.owner, rig.wish())

    assert "it lacks deploy" in raised.value.message
    assert "tick deploy first" in raised.value.message
    (row,) = await service.list_owned(rig.owner, rig.target)
    assert (row.status, row.live) == (Status.FAILED, False)


async def test_token_that_may_not_read_any_more_is_told_and_the_deployment_goes_on(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.tokens[rig.token].abilities = ("deploy",)

    untold = await rig.stepped(service, taken)
    due_s = await rig.wait_s(taken.id)
    rig.toy.tokens[rig.token].abilities = ("deploy", "read")
    rig.toy.finish(commit=COMMIT)
    ended = await rig.stepped(service, taken)

    assert (untold.status, untold.live) == (Status.PENDING, True)
    assert "it lacks read" in (untold.reason or "")
    assert due_s > 55
    assert (ended.status, ended.reason) == (Status.SUCCEEDED, None)


async def test_api_that_is_turned_off_is_no_success(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.fault(
        "/deploy", 403, body={"success": True, "message": "API is disabled."}, method="POST"
    )

    with pytest.raises(DeploymentFailed, match="turned off"):
        await service.deploy(rig.owner, rig.wish(force=True))
    rig.toy.api_enabled = False
    untold = await rig.stepped(service, taken)

    assert untold.status is Status.PENDING
    assert "turned off" in (untold.reason or "")


async def test_coolify_that_is_away_is_asked_until_it_is_back(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.fault("/deployments/*", 503, times=3)

    untold = [await rig.stepped(service, taken) for _ in range(3)]
    rig.toy.finish(commit=COMMIT)
    ended = await rig.stepped(service, taken)

    assert {one.status for one in untold} == {Status.PENDING}
    assert all(one.reason for one in untold)
    assert ended.status is Status.SUCCEEDED
    assert ended.reason is None


async def test_deployment_that_nobody_can_follow_is_given_up_at_its_deadline(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.kill_token(rig.token)

    before = await rig.stepped(service, taken, 7000)
    after = await rig.stepped(service, taken, 300)

    assert before.live
    assert (after.status, after.live) == (Status.FAILED, False)
    assert (after.reason or "").startswith("It is not known how this deployment ended")


async def test_run_that_is_listed_and_cannot_be_looked_at_is_given_up_at_its_deadline(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    body = {"message": "Deployment not found."}
    rig.toy.fault(f"/deployments/{taken.run_id}", 404, body=body, times=3)

    found = await rig.stepped(service, taken)
    late = await rig.stepped(service, taken, 7201)

    assert (found.status, found.live) == (Status.PENDING, True)
    assert (late.status, late.live) == (Status.FAILED, False)
    assert "not known how this deployment ended" in (late.reason or "")


async def test_build_that_never_ends_is_given_up_at_its_deadline(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.start()
    rig.toy.runs[0].status = "a-new-word"

    building = await rig.stepped(service, taken, 3600)
    after = await rig.stepped(service, taken, 3700)

    assert (building.status, building.run_word) == (Status.BUILDING, "a-new-word")
    assert after.status is Status.FAILED
    assert "took too long" in (after.reason or "")


async def test_connection_that_is_removed_ends_what_goes_through_it(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.queue_limit = 1
    taken = await service.deploy(rig.owner, rig.wish())
    waits = await service.deploy(rig.owner, rig.wish(force=True))
    calls = len(rig.toy.calls)

    await service.coolify.remove(rig.owner)
    taken = await rig.stepped(service, taken)
    waits = await service.get_owned(rig.owner, waits.id)

    assert (taken.status, waits.status) == (Status.FAILED, Status.FAILED)
    assert "not known how this deployment ended: the connection" in (taken.reason or "")
    assert "before the deployment was asked for" in (waits.reason or "")
    assert len(rig.toy.calls) == calls


async def test_run_is_never_looked_for_at_another_coolify(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    other = await rig.coolify.another()
    fresh = await rig.server()
    await fresh.coolify.put(rig.owner, other.url, other.token())
    other.calls.clear()

    ended = await rig.stepped(fresh, taken)

    assert ended.status is Status.FAILED
    assert other.calls == []


# ---- how it ends ------------------------------------------------------------------------------


async def test_failure_tells_its_last_error_and_no_secret(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    secret, hidden = canary("variable"), canary("hidden")
    rig.secrets.words.append(secret)
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.fail(
        log=[
            line("npm ci"),
            line("first error", stream="stderr"),
            line(f"cannot log in with {secret}\x1b[0m", stream="stderr"),
            line("  \n", stream="stderr"),
            line(f"echo {hidden}", stream="stderr", hidden=True),
            line("bye"),
        ]
    )

    failed = await rig.stepped(service, taken)
    log = await service.log(rig.owner, taken.id)

    assert (failed.status, failed.live) == (Status.FAILED, False)
    assert failed.reason == "cannot log in with ••••••"
    assert (log.available, log.complete, log.truncated) == (True, True, False)
    shown = "\n".join(one.text for one in log.lines)
    assert "npm ci" in shown
    assert "cannot log in with ••••••" in shown
    assert hidden not in shown
    assert log.next == log.lines[-1].order


async def test_failure_without_a_readable_log_says_which_token_could_read_it(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.tokens[rig.token].abilities = ("deploy", "read")
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.fail(log=[line("boom", stream="stderr")])

    failed = await rig.stepped(service, taken)
    log = await service.log(rig.owner, taken.id)

    assert "read:sensitive" in (failed.reason or "")
    assert not log.available
    assert "read:sensitive" in (log.reason or "")


async def test_application_that_does_not_become_healthy_is_told_after_five_minutes(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.after_finish = "running:unhealthy"
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)

    finished = await rig.stepped(service, taken)
    waiting = await rig.stepped(service, taken, 200)
    ended = await rig.stepped(service, taken, 110)

    assert (finished.status, finished.health) == (Status.SUCCEEDED, Health.WAITING)
    assert waiting.health is Health.WAITING
    assert (ended.status, ended.health, ended.live) == (
        Status.SUCCEEDED, Health.UNHEALTHY, False,
    )  # fmt: skip
    assert "'running:unhealthy'" in (ended.reason or "")


async def test_application_without_a_health_check_runs(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.after_finish = "running:unknown"
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)

    await rig.stepped(service, taken)
    ended = await rig.stepped(service, taken)

    assert (ended.health, ended.live) == (Health.RUNNING, False)


async def test_newer_deployment_that_finished_supersedes(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.web.after_finish = "starting:unknown"
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)
    await rig.stepped(service, taken)
    newer = rig.toy.queue(rig.web)

    waiting = await rig.stepped(service, taken)
    rig.toy.finish(newer, status="running:healthy")
    ended = await rig.stepped(service, taken)

    assert waiting.health is Health.WAITING
    assert (ended.health, ended.live) == (Health.SUPERSEDED, False)


async def test_health_that_nobody_tells_is_unknown_in_the_end(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish(commit=COMMIT)
    await rig.stepped(service, taken)
    rig.toy.kill_token(rig.token)

    waiting = await rig.stepped(service, taken)
    ended = await rig.stepped(service, taken, 301)

    assert waiting.health is Health.WAITING
    assert (ended.status, ended.health, ended.live) == (Status.SUCCEEDED, Health.UNKNOWN, False)
