"""The edge around every route: ids, errors in the contract's forms, limits, headers, paths."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import anyio
import anyio.lowlevel
import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI, Query, Request, WebSocket
from pydantic import Field

from craftastic.errors import Conflict, InvalidInput, NotFound, RateLimited, Unavailable
from craftastic.http import errors, middleware
from craftastic.http.health import Readiness, build_router
from craftastic.http.policy import PUBLIC, SELF_CHECKED, Policy, policy_of
from craftastic.http.wire import Wire
from craftastic.metrics import Metrics
from tests.fakes.asgi import client_of

CANARY = "canary-4711"


class Body(Wire):
    some_name: str = Field(min_length=1, max_length=5)
    count: int = Field(0, ge=0, le=10)
    inner: dict[str, Any] | None = None


class NameInUse(Conflict):
    code = "SESSION_NAME_IN_USE"
    code_is_error = True


router = APIRouter(dependencies=[PUBLIC])


@router.post("/api/sessions")
async def create(body: Body) -> dict[str, str]:
    return {"name": body.some_name}


@router.post("/api/auth/x")
async def create_a(body: Body) -> dict[str, str]:
    return {"name": body.some_name}


@router.post("/api/auth/bodiless")
async def bodiless() -> dict[str, bool]:
    return {"success": True}


@router.get("/api/sessions/check-branch/{environment_id}/{branch}")
async def check_branch(environment_id: UUID, branch: str) -> dict[str, str]:
    return {"branch": branch}


@router.get("/api/sessions/{session_id}")
async def get_session(session_id: UUID) -> dict[str, str]:
    raise NotFound("Session not found")


@router.get("/api/git/diff")
async def diff(page: Annotated[int, Query(ge=1)] = 1) -> dict[str, int]:
    return {"page": page}


RAISED: dict[str, Exception] = {
    "bug": RuntimeError(f"{CANARY} in /etc/passwd"),
    "group": ExceptionGroup("x", [ExceptionGroup("y", [Conflict("in use")])]),
    "limited": RateLimited("later", retry_after_s=2.1),
    "down": Unavailable("down", engine="docker"),
    "code": NameInUse("taken", answer={"existingSession": {"id": "1"}}),
    "details": InvalidInput("no", details="because", answer={"suggestions": ["a"]}),
}


@router.get("/api/raise/{what}")
async def fail(what: str) -> None:
    raise RAISED[what]


@router.get("/api/auth/raise/{what}")
async def fail_a(what: str) -> None:
    raise RAISED[what]


@router.post("/api/raw")
async def raw(request: Request) -> int:
    return len(await request.body())


@router.websocket("/api/ws", dependencies=[SELF_CHECKED])
async def socket(socket: WebSocket) -> None:
    await socket.accept()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def app(metrics: Metrics, readiness: Readiness) -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    errors.install(app)
    middleware.install(app, metrics=metrics, max_body_bytes=1000)
    app.include_router(router)
    app.include_router(build_router(metrics, readiness))
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def without_id(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert body.pop("requestId") == answer.headers["x-request-id"] != ""
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/raise/down", 503, {"error": "down", "code": "UNAVAILABLE"}),
        (
            "GET",
            "/api/auth/raise/down",
            503,
            {"success": False, "error": "down", "code": "UNAVAILABLE"},
        ),
        ("GET", "/api/raise/limited", 429, {"error": "later", "code": "RATE_LIMITED"}),
        ("GET", "/api/raise/group", 409, {"error": "in use", "code": "CONFLICT"}),
        (
            "GET",
            "/api/raise/code",
            409,
            {
                "error": "SESSION_NAME_IN_USE",
                "message": "taken",
                "existingSession": {"id": "1"},
                "code": "SESSION_NAME_IN_USE",
            },
        ),
        (
            "GET",
            "/api/raise/details",
            400,
            {"error": "no", "details": "because", "suggestions": ["a"], "code": "INVALID_INPUT"},
        ),
        (
            "GET",
            "/api/nothing?token=x",
            404,
            {
                "error": "Not Found",
                "message": "Route GET:/api/nothing not found",
                "statusCode": 404,
                "code": "ROUTE_NOT_FOUND",
            },
        ),
    ],
)
async def test_errors_have_their_familys_form(
    client: httpx.AsyncClient, method: str, path: str, status: int, body: dict[str, Any]
) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == status
    assert without_id(answer) == body


async def test_errors_say_when_to_come_back(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/raise/limited")).headers["retry-after"] == "3"
    assert (await client.get("/api/raise/down")).headers["retry-after"] == "2"


async def test_a_wrong_method_is_405_and_names_the_right_ones(client: httpx.AsyncClient) -> None:
    answer = await client.put("/api/auth/x")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert without_id(answer)["success"] is False


async def test_a_bug_answers_500_and_tells_nothing(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as written:
        answer = await client.get("/api/raise/bug")

    assert answer.status_code == 500
    assert CANARY not in answer.text
    assert without_id(answer)["code"] == "INTERNAL_ERROR"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (bug,) = [line for line in written if line["event"] == "unhandled error"]
    assert bug["log_level"] == "error"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "someName is required"),
        ({"someName": ""}, "someName must have at least 1 characters"),
        ({"someName": "x" * 6}, "someName must have at most 5 characters"),
        ({"someName": 1}, "someName must be text"),
        ({"someName": "x", "count": 11}, "count must be at most 10"),
        ({"someName": "x", "count": "many"}, "count must be a whole number"),
        ({"someName": "x", "count": 10**40}, "count"),
        ({"someName": "x", "inner": []}, "inner must be an object"),
        ([], "the body must be an object"),
        ("text", "the body must be an object"),
        ({"someName": "a\0b"}, "NUL"),
        ({"someName": "x", "inner": {"a": [{"b\0": 1}]}}, "NUL"),
    ],
)
async def test_a_body_that_does_not_fit_is_400_in_words(
    client: httpx.AsyncClient, content: Any, words: str
) -> None:
    for path in ("/api/sessions", "/api/auth/x"):
        answer = await client.post(path, json=content)

        assert answer.status_code == 400
        body = without_id(answer)
        assert words in body["error"]
        assert body["code"] == "INVALID_INPUT"
        assert ("success" in body) == path.startswith("/api/auth")


@pytest.mark.parametrize(
    "content",
    [
        b'{"someName": ',
        b"\xff\xfe",
        b"[" * 900,
        b'{"count": ' + b"9" * 800 + b"}",
        b'{"someName": "\\ud800"}',
        b'{"someName": "x", "inner": ' + b'{"a":' * 60 + b"1" + b"}" * 61,
        b'{"someName": "x", "count": NaN}',
        b'{"someName": "x", "count": 1e400}',
        b"null",
    ],
)
async def test_broken_bodies_are_400(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post(
        "/api/sessions", content=content, headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400, answer.text
    assert set(without_id(answer)) >= {"error", "code"}


async def test_broken_json_says_where(client: httpx.AsyncClient) -> None:
    json_type = {"content-type": "application/json"}
    b = without_id(await client.post("/api/sessions", content=b"{", headers=json_type))
    a = without_id(await client.post("/api/auth/x", content=b"{", headers=json_type))

    assert (b["error"], b["statusCode"], b["code"]) == ("Bad Request", 400, "BROKEN_JSON")
    assert "not valid JSON" in b["details"]
    assert a["success"] is False
    assert "not valid JSON" in a["error"]


async def test_json_that_is_announced_and_empty_has_its_own_code(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/api/sessions", headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert without_id(answer) == {
        "error": "Bad Request",
        "message": "Body cannot be empty when content-type is set to 'application/json'",
        "statusCode": 400,
        "code": "FST_ERR_CTP_EMPTY_JSON_BODY",
    }


async def test_a_post_without_body_and_type_is_fine_where_no_body_is_needed(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.post("/api/auth/bodiless")).status_code == 200


async def test_bodies_over_the_limit_are_413_announced_or_not(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    announced = await client.post("/api/auth/x", content=b"x" * 1001)
    chunked = await client.post("/api/raw", content=pieces())
    as_json = await client.post(
        "/api/sessions", content=pieces(), headers={"content-type": "application/json"}
    )
    fits = await client.post("/api/raw", content=b"x" * 1000)

    assert announced.status_code == chunked.status_code == as_json.status_code == 413
    assert without_id(announced)["success"] is False
    assert without_id(chunked) == without_id(as_json)
    assert fits.json() == 1000


async def test_a_malformed_id_in_a_path_is_the_usual_404(client: httpx.AsyncClient) -> None:
    absent = await client.get("/api/sessions/2d7f8a55-8c0e-4ad0-8d0c-0d5f3b7a0c11")
    for id_ in ("x", "1", "%00", "..%2f..", "2d7f8a55-8c0e-4ad0-8d0c-0d5f3b7a0c1g", "é", "%ff"):
        malformed = await client.get(f"/api/sessions/{id_}")

        assert malformed.status_code == 404
        if id_ != "%00":
            assert malformed.json()["error"] == absent.json()["error"] == "Session not found"


@pytest.mark.parametrize(
    ("written", "branch"),
    [
        ("feature%2Fx", "feature/x"),
        ("feature%2fx%2Fy", "feature/x/y"),
        ("%C3%A9%2F%20", "é/ "),
        ("a%252Fb", "a%2Fb"),
        ("main", "main"),
    ],
)
async def test_an_escaped_slash_stays_in_its_segment(
    client: httpx.AsyncClient, written: str, branch: str
) -> None:
    base = "/api/sessions/check-branch/2d7f8a55-8c0e-4ad0-8d0c-0d5f3b7a0c11/"

    assert (await client.get(base + written)).json() == {"branch": branch}


async def test_a_plain_slash_does_not_match(client: httpx.AsyncClient) -> None:
    path = "/api/sessions/check-branch/2d7f8a55-8c0e-4ad0-8d0c-0d5f3b7a0c11/feature/x"

    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.json()["message"] == f"Route GET:{path} not found"


async def test_a_collection_takes_one_slash_at_its_end(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/sessions/", json={"someName": "a"})).status_code == 200


async def test_bad_query_values_are_400(client: httpx.AsyncClient) -> None:
    for query in ("page=x", "page=0", "page=" + "9" * 5000, "page=%00", "a=%00"):
        assert (await client.get(f"/api/git/diff?{query}")).status_code == 400


async def test_request_ids_are_taken_when_sane_else_made(client: httpx.AsyncClient) -> None:
    taken = await client.get("/healthz", headers={"x-request-id": "abc-123"})
    made = await client.get("/healthz", headers={"x-request-id": 'a"; drop'})

    assert taken.headers["x-request-id"] == "abc-123"
    assert UUID(made.headers["x-request-id"])


async def test_answers_carry_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/api/auth/raise/down", "/api/nothing", "/healthz", "/api/docs"):
        headers = (await client.get(path)).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers.get("cache-control") == "no-store") == path.startswith("/api")
        assert "access-control-allow-origin" not in headers


async def test_the_access_log_has_the_path_and_never_the_query(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as written:
        await client.get(f"/api/git/diff?token={CANARY}", headers={"authorization": CANARY})
        await client.get(f"/api/nothing?token={CANARY}")

    assert [line["path"] for line in written if line["event"] == "request"] == [
        "/api/git/diff",
        "/api/nothing",
    ]
    assert CANARY not in json.dumps(written, default=str)


async def test_metrics_count_by_template(client: httpx.AsyncClient) -> None:
    await client.get("/api/sessions/2d7f8a55-8c0e-4ad0-8d0c-0d5f3b7a0c11")
    await client.get("/api/sessions/..%2fx")
    await client.get(f"/api/{CANARY}")
    await client.request("BREW", "/api/sessions")

    text = (await client.get("/metrics")).text

    labels = 'method="GET",route="/api/sessions/{session_id}",status="404"'
    assert f"craftastic_http_requests_total{{{labels}}} 2.0" in text
    assert 'method="OTHER"' in text
    assert 'route="unmatched"' in text
    assert CANARY not in text


async def test_ready_says_what_is_missing(
    client: httpx.AsyncClient, readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.http.health.CHECK_TIMEOUT_S", 0.05)
    monkeypatch.setattr("craftastic.http.health.ANSWER_TTL_S", 0)

    async def fine() -> None:
        await anyio.lowlevel.checkpoint()

    async def down() -> None:
        raise Unavailable("the engine does not answer")

    async def broken() -> None:
        raise RuntimeError(CANARY)

    readiness.add("database", fine)
    assert (await client.get("/readyz")).json() == {"status": "ok", "checks": {"database": "ok"}}
    readiness.add("runtime", down)
    readiness.add("hangs", anyio.sleep_forever)
    readiness.add("broken", broken)

    answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["runtime"] == "the engine does not answer"
    assert "no answer" in answer.json()["checks"]["hangs"]
    assert CANARY not in answer.text
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_the_documents_list_the_routes_with_their_true_errors(
    client: httpx.AsyncClient,
) -> None:
    document = (await client.get("/api/openapi.json")).json()
    page = await client.get("/api/docs")

    answers = document["paths"]["/api/sessions"]["post"]["responses"]
    assert set(answers) == {"200", "default"}
    assert "HTTPValidationError" not in json.dumps(document)
    assert "/api/sessions/check-branch/{environment_id}/{branch}" in document["paths"]
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/sessions/{session_id}" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text


async def test_other_origins_may_read_only_when_they_are_named(metrics: Metrics) -> None:
    app = FastAPI(openapi_url=None)
    middleware.install(app, metrics=metrics, max_body_bytes=10, cors_origins=("https://a.example",))
    app.include_router(build_router(metrics, Readiness()))
    async with client_of(app) as client:
        named = await client.get("/healthz", headers={"origin": "https://a.example"})
        other = await client.get("/healthz", headers={"origin": "https://b.example"})

    assert named.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-credentials" not in named.headers
    assert "access-control-allow-origin" not in other.headers


def test_a_route_tells_its_policy() -> None:
    policies = {route.path: policy_of(route) for route in router.routes}  # type: ignore[attr-defined]

    assert policies["/api/sessions"] is Policy.PUBLIC
    assert policies["/api/ws"] is Policy.SELF_CHECKED


def test_a_route_that_declares_nothing_has_no_policy() -> None:
    bare = APIRouter()
    bare.get("/x")(bodiless)

    assert policy_of(bare.routes[0]) is None
