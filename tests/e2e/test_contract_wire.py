"""The exact bytes that existing clients rely on, from a real server with real sandboxes."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest

from tests.e2e.harness import PASSWORD, Server
from tests.fakes.git_http_server import GitHttpServer, make_repository
from tests.leaks import RUN

pytestmark = pytest.mark.local

START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 120.0
SERVER_START_POLL_S = 0.1
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CAMEL = re.compile(r"[a-z][a-zA-Z0-9]*")
ABSENT = "0d9c2f4e-7a51-4c39-9b0e-5f6a2d1c8e47"  # constant: test processes must agree on names


@dataclass(frozen=True)
class World:
    """One running server with an administrator who has an environment with a repository."""

    client: httpx.Client
    user: dict[str, Any]
    tokens: dict[str, Any]
    environment: dict[str, Any]
    repository: str

    def ok(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def refused(
        self, status: int, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a refusal without the two fields that every one has."""
        answer = self.client.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return plain(answer)


def plain(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert re.fullmatch(r"[A-Z][A-Z_]+", body.pop("code"))
    assert body.pop("requestId") == answer.headers["x-request-id"]
    return body


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("upstream")
    make_repository(root / "project.git")
    folder = RUN.new_folder("wire", 0o711)
    server = Server(folder, runtime="local", database_url=None)
    with GitHttpServer(root) as upstream:
        try:
            server.start()
            with httpx.Client(base_url=server.url, timeout=REQUEST_TIMEOUT_S) as client:
                wait_for(server, client)
                yield prepare(client, server, upstream.url("project.git"))
        finally:
            anyio.run(server.clean)
            subprocess.run(["rm", "-rf", str(folder)], check=False)


def wait_for(server: Server, client: httpx.Client) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if client.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert server.process is not None
        assert server.process.poll() is None, server.log.read_text()[-2000:]
        assert time.monotonic() < deadline, f"no server after {START_TIMEOUT_S} s"
        time.sleep(SERVER_START_POLL_S)


def prepare(client: httpx.Client, server: Server, repository: str) -> World:
    body = {"email": "A@Example.com", "password": PASSWORD, "name": "a"}
    answer = client.post("/api/auth/register", json={**body, "setupToken": server.setup_token})
    assert answer.status_code == 200, answer.text
    tokens = answer.json()["data"]
    client.headers["Authorization"] = f"Bearer {tokens['accessToken']}"
    environment = client.post(
        "/api/environments",
        json={"userId": tokens["user"]["id"], "name": "wire", "repositoryUrl": repository},
    )
    assert environment.status_code == 200, environment.text
    return World(client, tokens["user"], tokens, environment.json(), repository)


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from keys_of(below)
    elif isinstance(value, list):
        for below in value:
            yield from keys_of(below)


@pytest.fixture
def session(world: World) -> Iterator[dict[str, Any]]:
    made = world.ok(
        "POST", "/api/sessions", {"environmentId": world.environment["id"], "branch": "topic"}
    )
    yield made
    world.client.delete(f"/api/sessions/{made['id']}")


# ---- conventions ----------------------------------------------------------------------------


def test_an_unknown_route_names_method_and_path(world: World) -> None:
    body = world.refused(404, "GET", "/api/nope?x=1")

    assert body == {
        "message": "Route GET:/api/nope not found",
        "error": "Not Found",
        "statusCode": 404,
    }


def test_announced_json_that_is_empty_has_the_known_code(world: World) -> None:
    answer = world.client.post("/api/sessions", headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["code"] == "FST_ERR_CTP_EMPTY_JSON_BODY"
    assert answer.json()["error"] == "Bad Request"
    assert answer.json()["statusCode"] == 400


def test_broken_json_is_a_bad_request_in_the_frameworks_form(world: World) -> None:
    answer = world.client.post(
        "/api/sessions", content=b"{", headers={"Content-Type": "application/json"}
    )

    body = plain(answer)
    assert (answer.status_code, body["statusCode"], body["error"]) == (400, 400, "Bad Request")
    assert body["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/environments/{ABSENT}"),
        ("POST", "/api/sessions"),
        ("GET", "/api/containers/list"),
        ("POST", "/api/cleanup/sessions"),
        ("GET", "/api/auth/me"),
        ("POST", "/api/auth/logout-all"),
    ],
)
def test_without_a_token_every_family_answers_401_alike(
    world: World, method: str, path: str
) -> None:
    answer = httpx.request(method, str(world.client.base_url.join(path)))

    assert answer.status_code == 401
    assert plain(answer) == {"success": False, "error": "Unauthorized"}


def test_extra_fields_of_a_body_are_ignored(world: World) -> None:
    body = {"environmentId": world.environment["id"], "branch": "extra", "whatever": [1, {}]}
    made = world.ok("POST", "/api/sessions", body)

    assert world.ok("DELETE", f"/api/sessions/{made['id']}")["success"] is True


def test_fields_are_in_camel_case_and_moments_in_utc_milliseconds(
    world: World, session: dict[str, Any]
) -> None:
    listed = world.ok("GET", f"/api/environments/user/{world.user['id']}")

    assert [key for key in keys_of(listed) if not CAMEL.fullmatch(key)] == []
    for row in (session, world.environment, listed["environments"][0]):
        for name in ("createdAt", "updatedAt"):
            assert MOMENT.fullmatch(row[name]), row
            told = datetime.strptime(row[name], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
            assert abs((datetime.now(UTC) - told).total_seconds()) < 600


# ---- accounts -------------------------------------------------------------------------------


def test_tokens_have_the_known_form(world: World) -> None:
    answer = httpx.post(
        f"{world.client.base_url}/api/auth/login",
        json={"email": "a@EXAMPLE.com", "password": PASSWORD},
    )

    body = answer.json()
    assert set(body) == {"success", "data"}
    assert set(body["data"]) == {"accessToken", "refreshToken", "user"}
    assert body["data"]["user"] == {
        "id": world.user["id"],
        "email": "a@example.com",
        "name": "a",
        "emailVerified": False,
    }
    assert re.fullmatch(r"[0-9a-f]{64}", body["data"]["refreshToken"])
    assert UUID(world.user["id"]).version == 4


def test_a_login_that_fails_never_says_why(world: World) -> None:
    bodies = [
        world.refused(401, "POST", "/api/auth/login", {"email": email, "password": "wrong one"})
        for email in ("a@example.com", "nobody@example.com")
    ]

    assert bodies == [{"success": False, "error": "Invalid email or password"}] * 2


def test_a_refresh_token_works_once_and_logout_takes_any(world: World) -> None:
    body = {"email": "a@example.com", "password": PASSWORD}
    old = world.ok("POST", "/api/auth/login", body)["data"]["refreshToken"]

    new = world.ok("POST", "/api/auth/refresh", {"refreshToken": old})["data"]["refreshToken"]

    out = {"success": True, "message": "Logged out successfully"}
    assert new != old
    assert world.ok("POST", "/api/auth/logout", {"refreshToken": new}) == out
    assert world.ok("POST", "/api/auth/logout", {"refreshToken": "unknown"}) == out
    for used in (old, new):
        assert world.refused(401, "POST", "/api/auth/refresh", {"refreshToken": used}) == {
            "success": False,
            "error": "Invalid or expired refresh token",
        }


def test_me_is_the_user_and_whether_they_administer(world: World) -> None:
    me = world.ok("GET", "/api/auth/me")
    assert me == {"success": True, "data": {"user": world.user, "isAdmin": True}}


# ---- environments ---------------------------------------------------------------------------


def test_an_environment_has_the_known_fields_and_leaves_absent_ones_out(world: World) -> None:
    shown = world.ok("GET", f"/api/environments/{world.environment['id']}")
    bare = world.ok("POST", "/api/environments", {"userId": world.user["id"], "name": "bare"})
    removed = world.ok("DELETE", f"/api/environments/{bare['id']}")

    assert shown["repositoryUrl"] == world.repository
    assert (shown["status"], shown["branch"], shown["userId"]) == (
        "running",
        "main",
        world.user["id"],
    )
    assert shown["containerId"]
    assert "sessions" not in shown
    assert "repositoryUrl" not in bare
    assert None not in bare.values()
    assert removed["success"] is True


def test_a_taken_environment_name_is_answered_with_three_others(world: World) -> None:
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    others = ["wire-2", "wire-copy", f"wire-{today}"]
    check = f"/api/environments/check-name/{world.user['id']}"

    refused = world.refused(
        409, "POST", "/api/environments", {"userId": world.user["id"], "name": "wire"}
    )

    assert refused.pop("details")
    assert refused == {"error": "Environment name already exists", "suggestions": others}
    assert world.ok("GET", f"{check}/wire") == {
        "available": False,
        "name": "wire",
        "suggestions": others,
        "message": '"wire" is already taken',
    }
    assert world.ok("GET", f"{check}/Wire") == {
        "available": True,
        "name": "Wire",
        "suggestions": [],
        "message": '"Wire" is available',
    }


@pytest.mark.parametrize("environment_id", [ABSENT, "not-an-id", "1"])
def test_an_environment_that_is_not_there_is_404_everywhere(
    world: World, environment_id: str
) -> None:
    wanted = {"error": "Environment not found"}

    for method, path in (
        ("GET", f"/api/environments/{environment_id}"),
        ("DELETE", f"/api/environments/{environment_id}"),
        ("POST", f"/api/cleanup/environment/{environment_id}"),
        ("GET", f"/api/sessions/check-name/{environment_id}/x"),
        ("GET", f"/api/sessions/check-branch/{environment_id}/x"),
    ):
        assert world.refused(404, method, path) == wanted, path
    if environment_id == ABSENT:
        body = {"environmentId": environment_id}
        assert world.refused(404, "POST", "/api/sessions", body) == wanted


# ---- sessions -------------------------------------------------------------------------------


def test_a_session_has_the_known_fields(world: World, session: dict[str, Any]) -> None:
    environment_id = world.environment["id"]
    place = f"/home/dev/.craftastic/worktrees/{environment_id}/topic"

    moments = {session.pop("createdAt"), session.pop("updatedAt")}
    assert all(MOMENT.fullmatch(one) for one in moments)
    assert re.fullmatch(r"topic-\d{13}", session["tmuxSessionName"])
    assert session == {
        "id": session["id"],
        "environmentId": environment_id,
        "name": "topic",
        "tmuxSessionName": session["tmuxSessionName"],
        "workingDirectory": place,
        "status": "inactive",
        "agentId": None,
        "sessionType": "terminal",
        "gitBranch": "topic",
    }


def test_the_list_of_environments_carries_its_sessions_short_form(
    world: World, session: dict[str, Any]
) -> None:
    (environment,) = [
        one
        for one in world.ok("GET", f"/api/environments/user/{world.user['id']}")["environments"]
        if one["id"] == world.environment["id"]
    ]

    (row,) = [one for one in environment["sessions"] if one["id"] == session["id"]]
    assert {"sessionType", "agentId"}.isdisjoint(row)
    assert set(row) == set(session) - {"sessionType", "agentId"}


def test_a_session_without_a_repository_has_a_null_branch(world: World) -> None:
    bare = world.ok("POST", "/api/environments", {"userId": world.user["id"], "name": "empty"})
    made = world.ok("POST", "/api/sessions", {"environmentId": bare["id"]})

    assert made["gitBranch"] is None
    assert made["name"] == "main"
    assert world.ok("DELETE", f"/api/environments/{bare['id']}")["success"] is True


def test_the_two_conflicts_of_sessions_name_the_session_in_the_way(
    world: World, session: dict[str, Any]
) -> None:
    here = {"environmentId": world.environment["id"]}
    name = world.refused(409, "POST", "/api/sessions", {**here, "branch": "topic"})
    branch = world.refused(409, "POST", "/api/sessions", {**here, "branch": "topic", "name": "n"})

    existing = {key: session[key] for key in ("id", "name", "createdAt")}
    assert name == {
        "error": "SESSION_NAME_IN_USE",
        "message": 'Session name "topic" is already in use',
        "existingSession": existing,
    }
    assert (branch["error"], branch["existingSession"]) == ("BRANCH_IN_USE", existing)


def test_names_and_branches_are_checked_before_a_session_is_made(
    world: World, session: dict[str, Any]
) -> None:
    names = f"/api/sessions/check-name/{world.environment['id']}"
    branches = f"/api/sessions/check-branch/{world.environment['id']}"
    existing = {key: session[key] for key in ("id", "name", "createdAt")}

    assert world.ok("GET", f"{names}/free") == {
        "available": True,
        "name": "free",
        "message": "Name is available",
    }
    assert world.ok("GET", f"{names}/topic") == {
        "available": False,
        "name": "topic",
        "message": 'Session name "topic" is already in use',
        "existingSession": existing,
    }
    assert world.ok("GET", f"{branches}/feature%2Fx") == {
        "available": True,
        "branch": "feature/x",
        "message": "Branch is available",
    }
    taken = world.ok("GET", f"{branches}/topic")
    assert taken.pop("message")
    assert taken == {
        "available": False,
        "branch": "topic",
        "existingSession": {**existing, "branch": "topic"},
    }
    unescaped = world.refused(404, "GET", f"{branches}/feature/x")
    assert unescaped["message"] == f"Route GET:{branches}/feature/x not found"


def test_a_session_tells_its_status_as_the_sandbox_sees_it(
    world: World, session: dict[str, Any]
) -> None:
    told = world.ok("GET", f"/api/sessions/{session['id']}/status")

    assert MOMENT.fullmatch(told.pop("checkedAt"))
    assert told == {"sessionId": session["id"], "status": "inactive", "isRealtime": True}


def test_a_change_of_status_acts_and_answers_the_session(
    world: World, session: dict[str, Any]
) -> None:
    path = f"/api/sessions/{session['id']}"

    unchanged = world.ok("PATCH", path, {})
    renamed = world.ok("PATCH", path, {"name": "other"})
    dead = world.ok("PATCH", path, {"status": "dead"})
    status = world.ok("GET", f"{path}/status")
    bad = world.refused(400, "PATCH", path, {"status": "gone"})

    assert (unchanged["status"], unchanged["name"]) == ("inactive", "topic")
    assert renamed["name"] == "other"
    assert (dead["status"], status["status"]) == ("dead", "dead")
    assert set(bad) == {"error"}


@pytest.mark.parametrize("session_id", [ABSENT, "not-an-id"])
def test_a_session_that_is_not_there_is_404_everywhere(world: World, session_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/status"), ("PATCH", ""), ("DELETE", "")):
        body = {} if method == "PATCH" else None
        refused = world.refused(404, method, f"/api/sessions/{session_id}{path}", body)
        assert refused["error"] == "Session not found"
        assert set(refused) <= {"error", "details"}


def test_deleting_a_session_says_so(world: World) -> None:
    body = {"environmentId": world.environment["id"], "branch": "short", "sessionType": "agent"}
    made = world.ok("POST", "/api/sessions", body)
    gone = world.ok("DELETE", f"/api/sessions/{made['id']}")

    assert made["sessionType"] == "agent"
    assert gone == {"success": True, "message": "Session deleted successfully"}


# ---- containers and cleanup -----------------------------------------------------------------


def test_a_container_is_made_listed_and_removed(world: World) -> None:
    made = world.ok("POST", "/api/containers/create", {"userId": world.user["id"]})
    listed = world.ok("GET", f"/api/containers/list?userId={world.user['id']}")["containers"]
    removed = world.ok("DELETE", f"/api/containers/{made['containerId']}")
    shown = world.ok("GET", f"/api/environments/{made['sessionId']}")

    (row,) = [one for one in listed if one["Id"] == made["containerId"]]
    assert {"Id", "Names", "Status", "Labels"} <= set(row)
    assert row["Labels"]["craftastic.user"] == world.user["id"]
    assert row["Labels"]["craftastic.session"] == made["sessionId"]
    assert removed == {"success": True}
    assert shown["status"] == "stopped"
    assert world.refused(404, "DELETE", f"/api/containers/{ABSENT}") == {
        "error": "Container not found"
    }
    world.ok("DELETE", f"/api/environments/{made['sessionId']}")


def test_cleanup_answers_the_known_sentences(world: World, session: dict[str, Any]) -> None:
    environment_id, container_id = world.environment["id"], world.environment["containerId"]

    # The documented paths take no body and no content type.
    everything = world.client.post("/api/cleanup/sessions").json()
    container = world.ok("POST", f"/api/cleanup/container/{container_id}")
    environment = world.ok("POST", f"/api/cleanup/environment/{environment_id}")
    after = world.ok("GET", f"/api/sessions/{session['id']}")

    stats = everything.pop("stats")
    assert everything == {"success": True, "message": "Session cleanup completed"}
    assert set(stats) == {"total", "active", "inactive", "dead"}
    assert stats["total"] == stats["active"] + stats["inactive"] + stats["dead"]
    assert container == {
        "success": True,
        "message": f"Cleaned up orphaned tmux sessions in container {container_id}",
    }
    assert environment == {
        "success": True,
        "message": f"Cleaned up all sessions for environment {environment_id}",
    }
    assert after["status"] == "dead"


def test_the_openapi_document_is_json_and_lists_these_routes(world: World) -> None:
    document = json.loads(world.client.get("/api/openapi.json").text)

    assert "/api/sessions/{session_id}/status" in document["paths"]
