"""Deployments over HTTP, as older clients know them: the whole app, real git, and a toy Coolify."""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog

from craftastic.deployments.endpoints import MAX_HOOK_BYTES
from tests.conftest import BACKENDS, free_port
from tests.contract.conftest import until
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_rig import Upstream
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.people import signed_in, state_of
from tests.fakes.toy_coolify import ToyApplication, ToyCoolify, line
from tests.fakes.whole_app import whole_app, whole_settings

ROW = {
    "id", "environment_id", "session_id", "app_id", "app_name", "kind", "status", "reason",
    "branch", "commit", "pull_request_id", "force", "coolify_deployment_id", "coolify_status",
    "url", "built_commit", "health", "health_text", "queue_ahead", "cancel_wanted", "live",
    "created_at", "updated_at", "building_at", "ended_at", "health_at", "metadata",
}  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Scene:
    """Somebody's environment with a session on `work`, and an application that builds it."""

    client: httpx.AsyncClient
    toy: ToyCoolify
    web: ToyApplication
    upstream: Upstream
    environment: str
    session: str
    mine: dict[str, str]
    other: dict[str, str]

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        by: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        return await self.client.request(
            method, f"/api/deployment{path}", json=body, headers=(by or self.mine) | (headers or {})
        )

    async def ok(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def deploy(self, **more: object) -> Any:
        return await self.ok(
            "POST", "/deploy", {"sessionId": self.session, "appId": self.web.uuid, **more}
        )


@pytest.fixture(params=BACKENDS)
async def scene(
    request: pytest.FixtureRequest, data_dir: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Scene]:
    (data_dir / "sandboxes").mkdir()
    upstream = Upstream(data_dir)
    upstream.commit({"w.txt": "w\n"}, branch="work")
    runtime = GitRuntime(data_dir / "sandboxes")
    with ToyCoolify() as toy, GitHttpServer(upstream.root) as server:
        web = toy.application("web", branch="work", repository="example/project")
        settings = whole_settings(
            data_dir,
            copy_of_template(request.param),
            git_allow_private=True,
            git_allow_http=True,
            gateway_port=free_port(),
            coolify_api_url=toy.url,
            coolify_api_token=toy.token(),
        )
        async with whole_app(settings, runtime) as (client, _):
            setup = await state_of(client)["accounts"].first_account_token() or ""
            mine = await signed_in(client, "a@example.com", setupToken=setup)
            other = await signed_in(client, "b@example.com")
            body = {"name": "project", "repositoryUrl": server.url("project.git")}
            made = await client.post("/api/environments", json=body, headers=mine)
            assert made.status_code == 200, made.text
            environment = made.json()["id"]
            started = await client.post(
                "/api/sessions",
                json={"environmentId": environment, "branch": "work"},
                headers=mine,
            )
            assert started.status_code == 200, started.text
            session = started.json()["id"]
            try:
                yield Scene(client, toy, web, upstream, environment, session, mine, other)
            finally:
                await runtime.close()


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    """Return the words of a refusal in family B's form."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert "success" not in body
    assert body["requestId"]
    return str(body["error"])


# ---- what clients know ------------------------------------------------------------------------


async def test_a_deployment_has_the_fields_that_clients_know(scene: Scene) -> None:
    begun = await scene.deploy()
    row = await scene.ok("GET", f"/status/{begun['deploymentId']}")
    listed = await scene.ok("GET", f"/list/{scene.environment}")

    assert set(begun) == {"deploymentId", "status", "coolifyResponse", "deployment"}
    assert begun["status"] == "started"
    run = scene.toy.runs[0]
    assert begun["coolifyResponse"]["deployment_uuid"] == run.uuid
    assert begun["coolifyResponse"]["resource_uuid"] == scene.web.uuid
    assert set(row) == set(begun["deployment"]) == ROW
    assert (row["id"], row["app_id"], row["app_name"]) == (
        begun["deploymentId"], scene.web.uuid, "web",
    )  # fmt: skip
    assert (row["environment_id"], row["session_id"]) == (scene.environment, scene.session)
    assert (row["kind"], row["status"], row["live"]) == ("deploy", "pending", True)
    assert (row["branch"], row["commit"]) == ("work", scene.upstream.refs()["refs/heads/work"])
    assert row["coolify_deployment_id"] == run.uuid
    assert row["metadata"] == {}
    assert MOMENT.fullmatch(row["created_at"])
    assert listed == {"deployments": [row]}
    (call,) = scene.toy.called("POST", "/deploy")
    assert call.raw_query == f"uuid={scene.web.uuid}"
    assert call.body == b""


@pytest.mark.parametrize("field", ["sessionId", "environmentId"])
@pytest.mark.parametrize("thing", ["session", "environment"])
async def test_either_field_takes_the_id_of_either(scene: Scene, field: str, thing: str) -> None:
    target = getattr(scene, thing)

    begun = await scene.ok("POST", "/deploy", {field: target, "appId": scene.web.uuid})

    listed = await scene.ok("GET", f"/list/{target}")
    assert [one["id"] for one in listed["deployments"]] == [begun["deploymentId"]]
    assert begun["deployment"]["environment_id"] == scene.environment
    assert begun["deployment"]["session_id"] == (scene.session if thing == "session" else None)


async def test_the_branch_that_older_clients_send_may_be_the_one_that_is_built(
    scene: Scene,
) -> None:
    body = {"environmentId": scene.environment, "appId": scene.web.uuid, "branch": "work"}

    begun = await scene.ok("POST", "/deploy", body)
    other = await scene.ask("POST", "/deploy", body | {"branch": "main", "force": True})

    assert begun["deployment"]["branch"] == "work"
    refusal(other, 409, "OTHER_BRANCH")


async def test_the_newest_deployment_is_listed_first(scene: Scene) -> None:
    first = (await scene.deploy())["deploymentId"]
    second = (await scene.deploy(force=True))["deploymentId"]

    listed = (await scene.ok("GET", f"/list/{scene.session}"))["deployments"]
    one = (await scene.ok("GET", f"/list/{scene.session}?limit=1"))["deployments"]

    assert [each["id"] for each in listed] == [second, first]
    assert [each["id"] for each in one] == [second]


async def test_a_deployment_is_followed_to_a_healthy_application(scene: Scene) -> None:
    begun = await scene.deploy()
    commit = scene.upstream.refs()["refs/heads/work"]
    scene.toy.finish(commit=commit)
    rows: list[dict[str, Any]] = []

    async def healthy() -> bool:
        rows.append(await scene.ok("GET", f"/status/{begun['deploymentId']}"))
        return rows[-1]["health"] == "healthy"

    await until(healthy, "the application is healthy")
    row = rows[-1]
    assert (row["status"], row["live"]) == ("succeeded", False)
    assert row["built_commit"] == commit
    assert row["coolify_status"] == "finished"
    assert row["url"].startswith(f"{scene.toy.url}/project/")
    assert MOMENT.fullmatch(row["ended_at"])
    assert MOMENT.fullmatch(row["health_at"])


async def test_the_same_key_starts_one_deployment(scene: Scene) -> None:
    body = {"sessionId": scene.session, "appId": scene.web.uuid, "force": True}

    answers = [
        await scene.ask("POST", "/deploy", body, headers={"Idempotency-Key": "once"})
        for _ in range(2)
    ]

    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert scene.toy.count("POST", "/deploy") == 1


# ---- what is refused --------------------------------------------------------------------------


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "sessionId or environmentId is required"),
    ({"appId": "a"}, "sessionId or environmentId is required"),
    ({"sessionId": None}, "sessionId or environmentId is required"),
    ({"sessionId": "x"}, "sessionId is not a valid id"),
    ({"environmentId": 1}, "environmentId is not a valid id"),
    ({"sessionId": str(uuid4()), "appId": 1}, "appId must be text"),
    ({"sessionId": str(uuid4()), "appId": "a" * 101}, "appId must have at most"),
    ({"sessionId": str(uuid4()), "branch": ""}, "branch must have at least 1"),
    ({"sessionId": str(uuid4()), "force": "perhaps"}, "force must be true or false"),
    ({"sessionId": str(uuid4()), "pullRequestId": 0}, "pullRequestId must be at least 1"),
    ({"sessionId": str(uuid4()), "pushedOnly": {}}, "pushedOnly must be true or false"),
]


async def test_a_wrong_body_is_told_in_words(scene: Scene) -> None:
    for body, words in WRONG:
        answer = await scene.ask("POST", "/deploy", body)

        assert refusal(answer, 400, "INVALID_INPUT").startswith(words), body
    assert scene.toy.calls == []


async def test_a_rollback_needs_a_commit_and_a_target(scene: Scene) -> None:
    target = {"sessionId": scene.session, "appId": scene.web.uuid}

    without = await scene.ask("POST", "/rollback", target)
    nowhere = await scene.ask("POST", "/rollback", {"commit": "a" * 40})
    wrong = await scene.ask("POST", "/rollback", target | {"commit": "not-a-commit"})

    assert refusal(without, 400, "INVALID_INPUT") == "commit is required"
    assert refusal(nowhere, 400, "INVALID_INPUT") == "sessionId or environmentId is required"
    assert wrong.status_code == 400, wrong.text


async def test_without_a_coolify_the_old_words_say_so(
    tmp_path: Path, copy_of_template: Callable[[str], str]
) -> None:
    async with whole_app(whole_settings(tmp_path, copy_of_template("sqlite"))) as (client, _):
        mine = await signed_in(client, "a@example.com")
        made = await client.post("/api/environments", json={"name": "a"}, headers=mine)
        body = {"sessionId": made.json()["id"], "appId": "app", "branch": "main"}
        answers = [
            await client.post("/api/deployment/deploy", json=body, headers=mine),
            await client.get(f"/api/deployment/check/{made.json()['id']}?appId=app", headers=mine),
        ]
        listed = await client.get(f"/api/deployment/list/{made.json()['id']}", headers=mine)

    for answer in answers:
        assert refusal(answer, 501, "DEPLOYMENT_NOT_CONFIGURED") == "Deployment not configured"
        assert "COOLIFY_API_URL" in answer.json()["details"]
    assert listed.json() == {"deployments": []}


async def test_a_deployment_that_is_not_there_is_not_found_whoever_has_it(scene: Scene) -> None:
    begun = await scene.deploy()

    for path in ("GET /status/", "GET /logs/", "GET /application-logs/", "POST /cancel/"):
        method, _, place = path.partition(" ")
        for name, by in (
            (begun["deploymentId"], scene.other),
            (str(uuid4()), scene.mine),
            ("x", scene.mine),
        ):
            answer = await scene.ask(method, place + name, by=by)
            assert refusal(answer, 404, "DEPLOYMENT_NOT_FOUND") == "Deployment not found"
            assert set(answer.json()) == {"error", "code", "requestId"}


async def test_what_is_somebody_elses_is_as_if_it_were_not_there(scene: Scene) -> None:
    told: list[tuple[str, str, str | None]] = []
    for target in (scene.session, scene.environment, str(uuid4())):
        for field in ("sessionId", "environmentId"):
            body = {field: target, "appId": scene.web.uuid}
            answer = await scene.ask("POST", "/deploy", body, by=scene.other)
            told.append(("deploy", answer.text.partition('"requestId"')[0], None))
            answer = await scene.ask(
                "POST", "/rollback", body | {"commit": "a" * 40}, by=scene.other
            )
            told.append(("rollback", answer.text.partition('"requestId"')[0], None))
            assert refusal(answer, 404, "DEPLOYMENT_TARGET_NOT_FOUND")
        for place in ("list", "check", "commits"):
            answer = await scene.ask("GET", f"/{place}/{target}", by=scene.other)
            told.append((place, answer.text.partition('"requestId"')[0], None))
    for target in (scene.environment, str(uuid4())):
        answer = await scene.ask("GET", f"/application/{target}", by=scene.other)
        assert refusal(answer, 404, "ENVIRONMENT_NOT_FOUND") == "Environment not found"

    assert len(set(told)) == 5
    assert scene.toy.calls == []


async def test_an_application_whose_name_is_a_path_reaches_nothing(scene: Scene) -> None:
    for name in (
        "../servers/x", "..%2Fservers", "a/b", "a b", "a?b=c", "a,b", "a#b", "..", "", "a\n", "ä",
    ):  # fmt: skip
        target = {"sessionId": scene.session, "appId": name}
        place, query = f"/application/{scene.environment}", httpx.QueryParams(appId=name)
        answers = [
            await scene.ask("POST", "/deploy", target),
            await scene.ask("POST", "/rollback", target | {"commit": "a" * 40}),
            await scene.ask("PUT", place, {"appId": name or "/"}),
            await scene.ask("GET", f"/check/{scene.session}?{query}"),
            await scene.ask("GET", f"/commits/{scene.session}?{query}"),
        ]

        assert [one.status_code for one in answers] == [400] * 5, name
        codes = {one.json()["code"] for one in answers}
        assert codes <= {"BAD_APPLICATION_ID", "APPLICATION_NEEDED"}, name
    assert scene.toy.calls == []


async def test_what_coolify_does_not_take_is_told_and_listed_as_failed(scene: Scene) -> None:
    body = {"message": "Something is wrong with this server."}
    scene.toy.fault("/deploy", 422, body=body, method="POST")

    answer = await scene.ask(
        "POST", "/deploy", {"sessionId": scene.session, "appId": scene.web.uuid}
    )

    words = refusal(answer, 409, "DEPLOYMENT_FAILED")
    assert words.startswith("Deployment failed: ")
    assert "Something is wrong with this server." in words
    (row,) = (await scene.ok("GET", f"/list/{scene.session}"))["deployments"]
    assert row["id"] == answer.json()["deploymentId"]
    assert (row["status"], row["live"], row["coolify_deployment_id"]) == ("failed", False, None)
    assert row["reason"] in words


async def test_a_full_queue_leaves_a_deployment_that_waits(scene: Scene) -> None:
    scene.toy.queue_limit = 0

    begun = await scene.deploy()

    assert (begun["status"], begun["coolifyResponse"]) == ("pending", None)
    assert begun["deployment"]["status"] == "pending"
    assert begun["deployment"]["reason"]


# ---- around a deployment ----------------------------------------------------------------------


async def test_a_check_tells_what_would_be_built_and_asks_for_nothing(scene: Scene) -> None:
    other = scene.toy.application("other", branch="main", repository="someone/else")

    good = await scene.ok("GET", f"/check/{scene.session}?appId={scene.web.uuid}")
    bad = await scene.ok("GET", f"/check/{scene.session}?appId={other.uuid}")

    assert set(good) == {
        "application", "source", "branch", "buildsBranch", "matchesRepository", "commit", "ready",
        "problems", "live",
    }  # fmt: skip
    assert set(good["application"]) == {
        "id", "name", "branch", "repository", "status", "state", "health", "address", "matches",
    }  # fmt: skip
    assert good["application"]["id"] == scene.web.uuid
    assert (good["source"], good["branch"], good["buildsBranch"]) == ("server", "work", "work")
    assert (good["ready"], good["problems"], good["live"]) == (True, [], None)
    assert good["commit"] == scene.upstream.refs()["refs/heads/work"]
    assert (bad["ready"], bad["matchesRepository"]) == (False, False)
    assert [one["code"] for one in bad["problems"]] == ["OTHER_BRANCH"]
    assert set(bad["problems"][0]) == {"code", "message", "details"}
    assert scene.toy.count("POST", "/deploy") == 0


async def test_an_environment_remembers_its_application_until_told_otherwise(
    scene: Scene,
) -> None:
    place = f"/application/{scene.environment}"
    nothing = {"appId": None, "appName": None}
    web = {"appId": scene.web.uuid, "appName": "web"}

    assert await scene.ok("GET", place) == nothing
    without = await scene.ask("POST", "/deploy", {"sessionId": scene.session})
    refusal(without, 400, "APPLICATION_NEEDED")
    assert await scene.ok("PUT", place, {"appId": scene.web.uuid}) == web
    assert await scene.ok("GET", place) == web
    begun = await scene.ok("POST", "/deploy", {"sessionId": scene.session})
    assert begun["deployment"]["app_id"] == scene.web.uuid
    assert await scene.ok("DELETE", place) == nothing
    assert await scene.ok("GET", place) == nothing
    absent = await scene.ask("PUT", place, {"appId": "no-such-application"})
    refusal(absent, 404, "COOLIFY_NOT_FOUND")


async def test_a_build_log_is_read_on_from_a_line(scene: Scene) -> None:
    begun = await scene.deploy()
    scene.toy.start()
    scene.toy.say(scene.toy.runs[0], line("one"), line("hidden", hidden=True), line("two"))
    scene.toy.fail(log=[line("broken", stream="stderr")])

    whole = await scene.ok("GET", f"/logs/{begun['deploymentId']}")
    rest = await scene.ok("GET", f"/logs/{begun['deploymentId']}?after={whole['next']}")

    assert set(whole) == {"lines", "next", "complete", "truncated", "available", "reason"}
    assert [(one["text"], one["stream"]) for one in whole["lines"]] == [
        ("one", "stdout"), ("two", "stdout"), ("broken", "stderr"),
    ]  # fmt: skip
    assert set(whole["lines"][0]) == {"order", "text", "stream", "at"}
    assert whole["available"] is True
    assert rest["lines"] == []


async def test_the_applications_own_log_is_read_while_it_runs(scene: Scene) -> None:
    begun = await scene.deploy()
    place = f"/application-logs/{begun['deploymentId']}?lines=10"

    running = await scene.ok("GET", place)
    scene.web.status = "exited:unhealthy"
    stopped = await scene.ok("GET", place)

    assert running == {"running": True, "log": "listening on 3000\n"}
    assert stopped == {"running": False, "log": None}
    assert scene.toy.called("GET", "/applications/*/logs")[0].query["lines"] == "10"


async def test_an_earlier_commit_is_gone_back_to(scene: Scene) -> None:
    commit = "a" * 40
    scene.web.images = [{"tag": commit, "created_at": "2026-07-19T10:00:00Z", "is_current": False}]

    found = await scene.ok("GET", f"/commits/{scene.session}?appId={scene.web.uuid}")
    begun = await scene.ok(
        "POST",
        "/rollback",
        {"sessionId": scene.session, "appId": scene.web.uuid, "commit": commit},
    )

    assert [one["commit"] for one in found["commits"]] == [commit]
    assert set(found["commits"][0]) == {"commit", "createdAt", "current"}
    assert (begun["deployment"]["kind"], begun["deployment"]["commit"]) == ("rollback", commit)
    assert scene.toy.runs[0].rollback


async def test_a_deployment_is_cancelled(scene: Scene) -> None:
    begun = await scene.deploy()

    row = await scene.ok("POST", f"/cancel/{begun['deploymentId']}")

    assert set(row) == ROW
    assert row["cancel_wanted"] is True
    assert scene.toy.runs[0].status == "cancelled-by-user"
    found = await scene.ok("GET", f"/status/{begun['deploymentId']}")
    assert (found["status"], found["live"]) == ("cancelled", False)


# ---- Coolify's own messages -------------------------------------------------------------------


async def hook_of(scene: Scene) -> str:
    """Make a hook for the messages of the server's Coolify, and return its path."""
    answer = await scene.client.post("/api/coolify/server-hook", headers=scene.mine)
    assert answer.status_code == 200, answer.text
    return httpx.URL(answer.json()["url"]).path


async def test_a_message_lets_a_deployment_be_looked_at_now(scene: Scene) -> None:
    begun = await scene.deploy()
    hook = await hook_of(scene)
    run = scene.toy.runs[0]
    before = scene.toy.count("GET", f"/deployments/{run.uuid}")
    scene.toy.finish()

    answer = await scene.client.post(
        hook,
        json={
            "success": True,
            "event": "deployment_success",
            "application_uuid": scene.web.uuid,
            "deployment_uuid": run.uuid,
        },
    )

    assert (answer.status_code, answer.json()) == (200, {"received": True})

    async def succeeded() -> bool:
        row = await scene.ok("GET", f"/status/{begun['deploymentId']}")
        return row["status"] == "succeeded"

    await until(succeeded, "the deployment was looked at")
    assert scene.toy.count("GET", f"/deployments/{run.uuid}") > before


async def test_a_message_is_not_believed(scene: Scene) -> None:
    begun = await scene.deploy()
    hook = await hook_of(scene)

    answer = await scene.client.post(
        hook,
        json={
            "success": False,
            "event": "deployment_failed",
            "message": "failed",
            "application_uuid": scene.web.uuid,
            "deployment_uuid": scene.toy.runs[0].uuid,
        },
    )
    await until(
        lambda: scene.toy.count("GET", f"/deployments/{scene.toy.runs[0].uuid}") >= 1,
        "Coolify was asked",
    )

    assert answer.status_code == 200
    row = await scene.ok("GET", f"/status/{begun['deploymentId']}")
    assert row["status"] == "pending"


MESSAGES: list[tuple[bytes, int, str | None]] = [
    (b"{", 400, "BROKEN_JSON"),
    (b"", 400, "BROKEN_JSON"),
    (b"\xff", 400, "BROKEN_JSON"),
    (b"[" * 60_000, 400, "BROKEN_JSON"),
    (b'"' + b"a" * MAX_HOOK_BYTES + b'"', 413, "TOO_LARGE"),
    (b"[]", 200, None),
    (b"null", 200, None),
    (b'{"deployment_uuid": {"a": 1}, "application_uuid": []}', 200, None),
    (b'{"deployment_uuid": "../x", "application_uuid": ""}', 200, None),
    (json.dumps({"deployment_uuid": "a" * 5000}).encode(), 200, None),
    (b'{"deployment_uuid": "a\\u0000b", "application_uuid": "\\u0000"}', 200, None),
    (b'{"event": "status_changed"}', 200, None),
]


async def test_a_message_of_any_form_breaks_nothing(scene: Scene) -> None:
    hook = await hook_of(scene)
    for content, status, code in MESSAGES:
        answer = await scene.client.post(hook, content=content)

        assert answer.status_code == status, answer.text
        assert answer.json().get("code") == code, content[:100]


async def test_an_unknown_hook_is_not_found_whatever_is_sent(scene: Scene) -> None:
    for key in ("a", "A" * 43, "%20", "A" * 400, "%2e%2e", "%00"):
        for content in (b"{}", b"{", b"a" * (MAX_HOOK_BYTES + 1)):
            answer = await scene.client.post(f"/api/deployment/hook/{key}", content=content)

            assert answer.status_code == 404, answer.text
            assert "AAA" not in answer.text


async def test_the_key_of_a_hook_is_in_no_log(scene: Scene) -> None:
    hook = await hook_of(scene)
    key = hook.rpartition("/")[2]

    with structlog.testing.capture_logs() as written:
        for method, path in (("POST", hook), ("GET", hook), ("POST", f"{hook}/more")):
            await scene.client.request(method, path, json={})

    assert [one["path"] for one in written if one["event"] == "request"] == [
        "/api/deployment/hook/***"
    ] * 3
    assert key not in json.dumps(written, default=str)


# ---- what a page may do -----------------------------------------------------------------------


async def test_a_coolify_changes_nothing_about_what_a_page_may_reach(
    scene: Scene, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> None:
    with_coolify = (await scene.client.get("/")).headers["content-security-policy"]
    (tmp_path / "other").mkdir()
    settings = whole_settings(tmp_path / "other", copy_of_template("sqlite"))
    async with whole_app(settings) as (client, _):
        without = (await client.get("/")).headers["content-security-policy"]

    assert with_coolify == without
    assert scene.toy.origin.partition("//")[2] not in with_coolify
    assert state_of(scene.client)["settings"].coolify_api_url == scene.toy.url
