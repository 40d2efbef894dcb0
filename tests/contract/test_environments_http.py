"""The wire form of environments, sessions, containers and cleanup."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.database import Database
from craftastic.environments import container_endpoints
from craftastic.environments import endpoints as environment_endpoints
from craftastic.errors import Unauthenticated
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from craftastic.reconcile import endpoints as cleanup_endpoints
from craftastic.sessions import endpoints as session_endpoints
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.workshop import Workshop, build, opened, rows

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ENVIRONMENT = {
    *("id", "userId", "name", "branch", "containerId", "status", "createdAt", "updatedAt"),
    *("runtime", "cloneStatus", "pushPolicy", "desired", "statusSince"),
}
SESSION = {
    *("id", "environmentId", "name", "tmuxSessionName", "workingDirectory", "status"),
    *("createdAt", "updatedAt", "agentId", "sessionType", "gitBranch"),
}


@dataclass
class Accounts:
    """Takes a user's id for that user's token; `admin:` before it makes an administrator."""

    async def authenticate(self, token: str) -> Caller:
        name, _, rest = token.rpartition(":")
        if not rest:
            raise Unauthenticated("Unauthorized")
        user_id = UserId(UUID(rest))
        return Caller(user_id, "a@example.com", "a", True, name == "admin", uuid4())

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[GitRuntime]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    yield runtime
    await runtime.close()


@pytest.fixture
async def shop(
    database: Database, clock: FakeClock, runtime: GitRuntime
) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, runtime)) as shop, shop.reconcile.running():
        yield shop


@pytest.fixture
async def client(shop: Workshop) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    for module in (
        environment_endpoints,
        container_endpoints,
        session_endpoints,
        cleanup_endpoints,
    ):
        app.include_router(module.router)
    state = {
        "accounts": Accounts(),
        "environments": shop.environments,
        "sessions": shop.sessions,
        "reconcile": shop.reconcile,
    }
    async with client_of(app, **state) as client:
        client.headers["Authorization"] = f"Bearer {shop.owner}"
        yield client


async def create(client: httpx.AsyncClient, name: str = "one") -> dict[str, str]:
    answer = await client.post("/api/environments", json={"name": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def create_session(
    client: httpx.AsyncClient, environment_id: str, name: str = "s"
) -> dict[str, str]:
    body = {"environmentId": environment_id, "name": name}
    answer = await client.post("/api/sessions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def failed(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert re.fullmatch(r"[A-Z_]+", body["code"])
    assert body["requestId"]
    return body


async def test_an_environment_is_made_shown_listed_and_deleted(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    made = await create(client)
    shown = await client.get(f"/api/environments/{made['id']}")
    listed = await client.get(f"/api/environments/user/{shop.owner}")
    deleted = await client.delete(f"/api/environments/{made['id']}")
    gone = await client.get(f"/api/environments/{made['id']}")

    assert set(made) - {"isolation"} == ENVIRONMENT | {"timings"}
    ((step, ms),) = [(one["step"], one["ms"]) for one in shown.json()["timings"]]
    assert (step, type(ms)) == ("sandbox", int)
    assert made["status"] == "running"
    assert made["userId"] == str(shop.owner)
    assert made["branch"] == "main"
    assert MOMENT.fullmatch(made["createdAt"])
    assert set(shown.json()) - {"isolation"} == ENVIRONMENT | {"timings"}
    (entry,) = listed.json()["environments"]
    assert entry["sessions"] == []
    assert entry["id"] == made["id"]
    assert "timings" not in entry
    assert deleted.json() == {"success": True}
    assert failed(gone, 404)["error"] == "Environment not found"


async def test_an_environment_is_stopped_with_a_way_on_and_started_again(
    client: httpx.AsyncClient,
) -> None:
    made = await create(client)
    path = f"/api/environments/{made['id']}"

    stopped = await client.post(f"{path}/stop")
    again = await client.post(f"{path}/stop", json={"force": True})
    started = await client.post(f"{path}/start")

    assert stopped.json()["status"] == again.json()["status"] == "stopped"
    assert stopped.json()["desired"] == "stopped"
    assert "containerId" not in stopped.json()
    assert stopped.json()["reasonCode"] == "STOPPED_BY_OWNER"
    assert "Start it" in stopped.json()["wayOn"]
    assert (started.json()["status"], started.json()["desired"]) == ("running", "running")
    assert MOMENT.fullmatch(started.json()["statusSince"])
    assert "wayOn" not in started.json()


async def test_an_idle_policy_is_set_kept_and_left_to_the_server_again(
    client: httpx.AsyncClient,
) -> None:
    made = await create(client)
    path = f"/api/environments/{made['id']}"

    own = await client.patch(path, json={"idleStopMinutes": 90})
    kept = await client.patch(path, json={"name": "two"})
    never = await client.patch(path, json={"idleStopMinutes": 0})
    servers = await client.patch(path, json={"idleStopMinutes": None})

    assert own.json()["idleStopMinutes"] == kept.json()["idleStopMinutes"] == 90
    assert never.json()["idleStopMinutes"] == 0
    assert "idleStopMinutes" not in servers.json()


@pytest.mark.parametrize("minutes", [-1, 525_601, "often", 1.5])
async def test_an_impossible_idle_policy_is_refused(
    client: httpx.AsyncClient, minutes: object
) -> None:
    made = await create(client)

    answer = await client.patch(
        f"/api/environments/{made['id']}", json={"idleStopMinutes": minutes}
    )

    assert failed(answer, 400)["code"] == "INVALID_INPUT"


async def test_a_taken_name_is_409_with_suggestions(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    await create(client)

    body = failed(await client.post("/api/environments", json={"name": "one"}), 409)
    check = await client.get(f"/api/environments/check-name/{shop.owner}/one")
    free = await client.get(f"/api/environments/check-name/{shop.owner}/a%2Fb")

    suggestions = ["one-2", "one-copy", "one-2026-11-24"]
    assert body["error"] == "Environment name already exists"
    assert body["details"]
    assert body["suggestions"] == suggestions
    assert check.json() == {
        "available": False,
        "name": "one",
        "suggestions": suggestions,
        "message": '"one" is already taken',
    }
    assert free.json() == {
        "available": True,
        "name": "a/b",
        "suggestions": [],
        "message": '"a/b" is available',
    }


async def test_an_environments_name_and_push_policy_change(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    made = await create(client)
    path = f"/api/environments/{made['id']}"
    shop.clock.advance(60)

    nothing = (await client.patch(path, json={})).json()
    wider = (await client.patch(path, json={"pushPolicy": "any"})).json()
    renamed = (await client.patch(path, json={"name": "two", "pushPolicy": "any"})).json()
    shown = (await client.get(path)).json()

    assert made["pushPolicy"] == "sessions"
    assert without(nothing, "isolation", "updatedAt") == without(made, "isolation", "updatedAt")
    assert wider["pushPolicy"] == renamed["pushPolicy"] == "any"
    assert (wider["name"], renamed["name"]) == ("one", "two")
    assert shown == renamed
    assert renamed["updatedAt"] > made["updatedAt"]
    events = await shop.environments.audit.list_for(shop.owner)
    assert [(one.action, one.object_id, one.details) for one in events[:-1]] == [
        ("environment.rename", made["id"], {"from": "one", "to": "two"}),
        ("environment.push_policy", made["id"], {"from": "sessions", "to": "any"}),
    ]
    assert events[-1].action == "environment.create"


def without(view: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in view.items() if name not in names}


async def test_a_name_that_another_environment_has_is_409_and_changes_nothing(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    made = await create(client)
    await create(client, "two")

    body = failed(
        await client.patch(
            f"/api/environments/{made['id']}", json={"name": "two", "pushPolicy": "none"}
        ),
        409,
    )
    shown = (await client.get(f"/api/environments/{made['id']}")).json()

    assert body["error"] == "Environment name already exists"
    assert body["code"] == "ENVIRONMENT_NAME_IN_USE"
    assert body["details"] == 'You already have an environment called "two".'
    assert body["suggestions"] == ["two-2", "two-copy", "two-2026-11-24"]
    assert (shown["name"], shown["pushPolicy"]) == ("one", "sessions")
    events = await shop.environments.audit.list_for(shop.owner)
    assert [one.action for one in events] == ["environment.create"] * 2


@pytest.mark.parametrize(
    "change", [{"pushPolicy": "all"}, {"pushPolicy": 1}, {"name": ""}, {"name": "a\u0000"}]
)
async def test_a_change_of_an_environment_that_cannot_be_is_400(
    change: dict[str, object], client: httpx.AsyncClient
) -> None:
    made = await create(client)

    assert failed(await client.patch(f"/api/environments/{made['id']}", json=change), 400)["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 300},
        {"name": "a", "branch": "-D"},
        {"name": "a", "repositoryUrl": "--upload-pack=touch /tmp/x"},
        {"name": "a", "repositoryUrl": "https://u:p@example.com/a"},
        {"name": 5},
    ],
)
async def test_a_body_that_cannot_be_is_400(client: httpx.AsyncClient, body: object) -> None:
    assert failed(await client.post("/api/environments", json=body), 400)["error"]


async def test_only_an_administrator_acts_for_others(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    other = await shop.add_user()

    for path in (f"user/{other}", f"check-name/{other}/x", "user/not-an-id"):
        failed(await client.get(f"/api/environments/{path}"), 403)
    failed(await client.post("/api/environments", json={"name": "a", "userId": str(other)}), 403)
    failed(await client.get("/api/containers/list", params={"userId": str(other)}), 403)
    client.headers["Authorization"] = f"Bearer admin:{shop.owner}"

    answer = await client.post("/api/environments", json={"name": "a", "userId": str(other)})

    assert answer.json()["userId"] == str(other)
    failed(await client.get("/api/environments/user/not-an-id"), 404)


async def test_a_session_is_made_shown_listed_changed_and_deleted(
    client: httpx.AsyncClient,
) -> None:
    environment = await create(client)
    made = await create_session(client, environment["id"])
    path = f"/api/sessions/{made['id']}"

    shown = (await client.get(path)).json()
    listed = (await client.get(f"/api/sessions/environment/{environment['id']}")).json()
    status = (await client.get(f"{path}/status")).json()
    renamed = (await client.patch(path, json={"name": "t"})).json()
    ended = (await client.patch(path, json={"status": "dead"})).json()
    deleted = await client.delete(path)
    gone = await client.delete(path)

    assert set(made) == SESSION
    assert made["status"] == "inactive"
    assert made["sessionType"] == "terminal"
    assert made["agentId"] is None
    assert made["gitBranch"] is None
    assert made["workingDirectory"] == "/home/dev/workspace"
    assert re.fullmatch(r"s-\d{13}", made["tmuxSessionName"])
    assert shown == made
    assert listed == {"sessions": [made]}
    assert set(status) == {"sessionId", "status", "isRealtime", "checkedAt"}
    assert (status["status"], status["isRealtime"]) == ("inactive", True)
    assert renamed["name"] == "t"
    assert ended["status"] == "dead"
    assert deleted.json() == {"success": True, "message": "Session deleted successfully"}
    body = failed(gone, 404)
    assert body["error"] == "Session not found"
    assert body["details"]


async def test_a_taken_session_name_is_409_with_the_code_as_error(
    client: httpx.AsyncClient,
) -> None:
    environment = await create(client)
    made = await create_session(client, environment["id"], "a/b")

    body = failed(
        await client.post(
            "/api/sessions", json={"environmentId": environment["id"], "name": "a/b"}
        ),
        409,
    )
    check = await client.get(f"/api/sessions/check-name/{environment['id']}/a%2Fb")
    free = await client.get(f"/api/sessions/check-name/{environment['id']}/b")
    branch = await client.get(f"/api/sessions/check-branch/{environment['id']}/feature%2Fx")

    existing = {"id": made["id"], "name": "a/b", "createdAt": made["createdAt"]}
    message = 'Session name "a/b" is already in use'
    assert body["error"] == body["code"] == "SESSION_NAME_IN_USE"
    assert body["message"] == message
    assert body["existingSession"] == existing
    assert check.json() == {
        "available": False,
        "name": "a/b",
        "message": message,
        "existingSession": existing,
    }
    assert free.json() == {"available": True, "name": "b", "message": "Name is available"}
    assert branch.json() == {
        "available": True,
        "branch": "feature/x",
        "message": "Branch is available",
    }


@pytest.mark.parametrize(
    "change", [{"status": "gone"}, {"name": ""}, {"name": "a\u0000"}, {"status": 1}]
)
async def test_a_change_that_cannot_be_is_400(
    change: dict[str, object], client: httpx.AsyncClient
) -> None:
    environment = await create(client)
    made = await create_session(client, environment["id"])

    failed(await client.patch(f"/api/sessions/{made['id']}", json=change), 400)


async def test_foreign_absent_and_malformed_ids_answer_alike(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    environment = await create(client)
    made = await create_session(client, environment["id"])
    container = environment["containerId"]
    other = await shop.add_user()
    client.headers["Authorization"] = f"Bearer {other}"
    routes = [
        ("GET", "/api/environments/{}", environment["id"]),
        ("DELETE", "/api/environments/{}", environment["id"]),
        ("POST", "/api/environments/{}/retry", environment["id"]),
        ("PATCH", "/api/environments/{}", environment["id"]),
        ("GET", "/api/sessions/environment/{}", environment["id"]),
        ("GET", "/api/sessions/check-name/{}/x", environment["id"]),
        ("GET", "/api/sessions/check-branch/{}/x", environment["id"]),
        ("POST", "/api/cleanup/environment/{}", environment["id"]),
        ("GET", "/api/sessions/{}", made["id"]),
        ("GET", "/api/sessions/{}/status", made["id"]),
        ("PATCH", "/api/sessions/{}", made["id"]),
        ("DELETE", "/api/sessions/{}", made["id"]),
        ("DELETE", "/api/containers/{}", container),
        ("POST", "/api/cleanup/container/{}", container),
    ]

    for method, path, foreign in routes:
        bodies: list[dict[str, object]] = []
        for wanted in (foreign, str(uuid4()), "nonsense"):
            body: dict[str, object] | None = {} if method == "PATCH" else None
            answer = failed(await client.request(method, path.format(wanted), json=body), 404)
            del answer["requestId"]
            bodies.append(answer)
        assert bodies[0] == bodies[1] == bodies[2], (method, path)
    answer = await client.post("/api/sessions", json={"environmentId": environment["id"]})
    assert failed(answer, 404)["error"] == "Environment not found"


async def test_containers_are_made_listed_and_removed(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    made = (await client.post("/api/containers/create", json={"userId": str(shop.owner)})).json()
    listed = (await client.get("/api/containers/list")).json()["containers"]
    removed = await client.delete(f"/api/containers/{made['containerId']}")
    after = (await client.get("/api/containers/list")).json()["containers"]
    environment = (await client.get(f"/api/environments/{made['sessionId']}")).json()

    (entry,) = listed
    assert entry["Id"] == made["containerId"]
    assert entry["State"] == "running"
    assert entry["Labels"]["craftastic.user"] == str(shop.owner)
    assert {"Names", "Status", "Image", "Created"} <= set(entry)
    assert removed.json() == {"success": True}
    assert after == []
    assert environment["status"] == "stopped"
    assert "containerId" not in environment


async def test_cleanup_runs_the_reconciler_and_counts(client: httpx.AsyncClient) -> None:
    environment = await create(client)
    await create_session(client, environment["id"])

    ran = await client.post("/api/cleanup/sessions")
    container = await client.post(f"/api/cleanup/container/{environment['containerId']}")
    ended = await client.post(f"/api/cleanup/environment/{environment['id']}")
    again = await client.post("/api/cleanup/sessions")

    assert ran.json() == {
        "success": True,
        "message": "Session cleanup completed",
        "stats": {"total": 1, "active": 0, "inactive": 1, "dead": 0},
    }
    assert container.json()["success"]
    assert ended.json() == {
        "success": True,
        "message": f"Cleaned up all sessions for environment {environment['id']}",
    }
    assert again.json()["stats"] == {"total": 1, "active": 0, "inactive": 0, "dead": 1}


async def test_cleanup_of_a_stopped_environment_says_that_it_has_no_container(
    client: httpx.AsyncClient,
) -> None:
    environment = await create(client)
    await client.post(f"/api/environments/{environment['id']}/stop")

    answer = failed(await client.post(f"/api/cleanup/environment/{environment['id']}"), 400)

    assert answer["error"] == "Environment has no container"


async def test_cleanup_is_of_the_callers_own_things_and_of_everybodys_for_an_administrator(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    environment = await create(client)
    session = await create_session(client, environment["id"])
    inside = (await shop.environments.get_owned(shop.owner, UUID(environment["id"]))).sandbox
    await shop.sessions.tmux.ensure(inside, "stray-1", "/home/dev")
    paths = (
        f"/api/cleanup/container/{environment['containerId']}",
        f"/api/cleanup/environment/{environment['id']}",
    )
    other, admin = await shop.add_user(), await shop.add_user()

    client.headers["Authorization"] = f"Bearer {other}"
    refused = [await client.post(path) for path in paths]
    none = (await client.post("/api/cleanup/sessions")).json()["stats"]
    untouched = await shop.sessions.tmux.names(inside)
    client.headers["Authorization"] = f"Bearer admin:{admin}"
    strays = await client.post(paths[0])
    after_strays = await shop.sessions.tmux.names(inside)
    ended = await client.post(paths[1])
    stats = (await client.post("/api/cleanup/sessions")).json()["stats"]
    absent = await client.post(f"/api/cleanup/environment/{uuid4()}")

    assert [answer.status_code for answer in refused] == [404, 404]
    assert none == {"total": 0, "active": 0, "inactive": 0, "dead": 0}
    assert untouched == {session["tmuxSessionName"], "stray-1"}
    assert strays.json()["success"]
    assert after_strays == {session["tmuxSessionName"]}
    assert ended.json()["success"]
    assert stats == {"total": 1, "active": 0, "inactive": 0, "dead": 1}
    assert failed(absent, 404)["error"] == "Environment not found"
    found = await rows(shop.database, "SELECT action, actor_id FROM audit_events ORDER BY seq")
    assert [UUID(str(actor)) for action, actor in found if action == "session.end"] == [admin]


async def test_the_reconcilers_status_is_for_administrators(
    client: httpx.AsyncClient, shop: Workshop
) -> None:
    await client.post("/api/cleanup/sessions")
    failed(await client.get("/api/cleanup/status"), 403)
    client.headers["Authorization"] = f"Bearer admin:{shop.owner}"

    answer = (await client.get("/api/cleanup/status")).json()

    assert [one["name"] for one in answer["reconcilers"]] == ["environments", "sessions"]
    assert all(one["lastError"] is None for one in answer["reconcilers"])
