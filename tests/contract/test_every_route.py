"""Promises that every route keeps, read from the app itself so that none can be forgotten.

A new route needs nothing here as long as it declares who may call it and its path parameters have
known names. Where that is not so, a test below fails and says what is missing.
"""

import re
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import Engine, event

from craftastic.app import build_app
from craftastic.http.ids import ABSENT
from craftastic.http.policy import Policy, policy_of
from craftastic.settings import Settings
from tests.conftest import BACKENDS
from tests.fakes.people import PASSWORD, People, asked, logged_in, people_of, signed_in, terminal_of
from tests.fakes.whole_app import filled, something_of_everything, whole_app, whole_settings

__all__ = ["PASSWORD", "signed_in"]

UNCOMPARED = {"x-request-id", "content-length"}

PUBLIC = {
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/logout",
    "POST /api/auth/verify-email",
    "POST /api/auth/request-password-reset",
    "POST /api/auth/reset-password",
    "POST /api/auth/github/webhook",
    "POST /api/deployment/hook/{key}",
    "GET /api/openapi.json",
    "GET /api/docs",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
}
"""All routes that anyone may call. Whoever adds one has to say so here too."""

SELF_CHECKED = {"WEBSOCKET /api/terminal/ws/{session_id}"}
"""The WebSocket routes, whose refusals are close frames; their own tests hold the table."""

ENDLESS = {"GET /api/events"}
"""Routes whose answers go on until the client leaves."""

ENDS_SIGN_INS = "POST /api/auth/logout-all"
WITHOUT_BODY = {
    ENDS_SIGN_INS,
    "POST /api/auth/github/initiate",
    "POST /api/auth/resend-verification",
    "POST /api/admin/users/{user_id}/disable",
    "POST /api/coolify/connection/check",
    "POST /api/environments/{environment_id}/disk/measure",
}
"""Routes that take no body, so none is wrong, and that do something to others when called."""

EVERYBODYS = {"POST /api/cleanup/environment/{environment_id}"}
"""An administrator cleans up after everybody; a program with their token does not."""

CLOSED = {"GET /api/agents/{agent_id}/credentials": "CREDENTIAL_READS_OFF"}
"""Routes that nobody gets into unless the operator opens them; their own tests do (SEC-50)."""

OWNED = {
    "agent_id",
    "approval_id",
    "prompt_id",
    "environment_id",
    "session_id",
    "container_id",
    "host_id",
    "token_id",
    "sign_in_id",
    "deployment_id",
    "target_id",
}
PARAMETERS = OWNED | {"user_id", "name", "branch", "invitation_id"}

BODIES: dict[str, dict[str, Any]] = {
    "POST /api/git/commit/{session_id}": {"message": "x"},
    "POST /api/agents/{agent_id}/setup/start": {"environmentId": str(uuid4())},
    "PATCH /api/agents/{agent_id}": {"name": "a"},
    "PATCH /api/sessions/{session_id}/agent": {"limitTokens": None},
    "POST /api/approvals/{approval_id}": {"decision": "allow"},
    "POST /api/sessions/{session_id}/prompt": {"text": "a"},
    "PATCH /api/environments/{environment_id}": {"pushPolicy": "any"},
    "PATCH /api/sessions/{session_id}": {"status": "inactive"},
    "PUT /api/environments/{environment_id}/variables/{name}": {"value": "a"},
    "PUT /api/deployment/application/{environment_id}": {"appId": "a"},
    "POST /api/environments/{environment_id}/disk/reclaim": {"tier": 3},
}
"""Bodies that routes with ids in their paths accept; none where they need none."""

BODY_IDS: dict[str, dict[str, Any]] = {
    "POST /api/sessions": {"environmentId": "{environment_id}", "name": "theirs"},
    "POST /api/terminal/ticket": {"sessionId": "{session_id}"},
    "POST /api/deployment/deploy": {"sessionId": "{session_id}", "appId": "a"},
    "POST /api/deployment/rollback": {"environmentId": "{environment_id}", "commit": "abcdef0"},
}
"""Routes that take ids of others' objects in their bodies."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    policy: Policy | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)


@dataclass(frozen=True, slots=True)
class Served:
    """The app with two users in it; the first one owns something of everything."""

    client: httpx.AsyncClient
    mine: dict[str, str]
    owner: dict[str, str] = field(repr=False)
    other: dict[str, str] = field(repr=False)


def routes_of(app: FastAPI) -> list[Route]:
    found: list[Route] = []
    for context in iter_route_contexts(app.routes):
        path = context.path_format or context.path or "?"
        methods = context.methods or {"WEBSOCKET"}
        found += [Route(method, path, policy_of(context)) for method in sorted(methods)]
    return found


ROUTES = routes_of(build_app(Settings.model_validate({"data_dir": "/nonexistent"})))
GUARDED = [
    route for route in ROUTES if route.policy in {Policy.USER, Policy.SIGNED_IN, Policy.ADMIN}
]
WITH_OWNED_IDS = [
    route
    for route in GUARDED
    if OWNED & set(route.parameters)
    and route.policy is not Policy.ADMIN
    and str(route) not in CLOSED
]


def unthrottled(folder: Path, url: str) -> Settings:
    return whole_settings(folder, url, sign_in_attempts_per_minute=100_000)


@pytest.fixture(params=BACKENDS)
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Served]:
    async with whole_app(unthrottled(tmp_path, copy_of_template(request.param))) as (client, _):
        owner = await signed_in(client, "a@example.com")
        other = await signed_in(client, "b@example.com")
        yield Served(client, await something_of_everything(client, owner), owner, other)


def comparable(answer: httpx.Response, ids: list[str]) -> tuple[int, str, dict[str, str]]:
    """Return what two answers have to share: all but the request's id and the asked one."""
    text = answer.text
    for known in (*ids, answer.headers["x-request-id"]):
        text = text.replace(known, "…")
    headers = {k: v for k, v in answer.headers.items() if k not in UNCOMPARED}
    return answer.status_code, text, headers


def test_the_app_has_routes() -> None:
    assert len(ROUTES) > 20
    assert GUARDED
    assert WITH_OWNED_IDS


def undeclared(routes: list[Route]) -> list[str]:
    """Say of which routes nobody has said who may call them, or not so here too."""
    return [
        f"{route} declares {route.policy or 'no policy (craftastic.http.policy)'}"
        for route in routes
        if route.policy is None
        or (route.policy is Policy.PUBLIC) != (str(route) in PUBLIC)
        or (route.policy is Policy.SELF_CHECKED) != (str(route) in SELF_CHECKED)
    ]


def test_every_route_says_who_may_call_it() -> None:
    assert undeclared(ROUTES) == []


def test_a_route_that_does_not_say_who_may_call_it_is_found() -> None:
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), APIRouter()

    @router.get("/api/forgotten/{session_id}")
    def forgotten(session_id: str) -> str:
        return session_id

    app.include_router(router)

    assert undeclared(routes_of(app)) == [
        "GET /api/forgotten/{session_id} declares no policy (craftastic.http.policy)"
    ]


def test_path_parameters_are_known_here() -> None:
    unknown = {str(route): set(route.parameters) - PARAMETERS for route in GUARDED}

    assert {route: names for route, names in unknown.items() if names} == {}


# ---- who gets in where ------------------------------------------------------------------------

IN, HIDDEN = "in", "as if absent"
"""The outcomes besides the codes of refusals: let in, and the answer of an id that is not there."""

NOBODY = {
    "anonymous": "UNAUTHENTICATED",
    "broken": "UNAUTHENTICATED",
    "forged": "UNAUTHENTICATED",
    "wrong scheme": "UNAUTHENTICATED",
    "by name": "UNAUTHENTICATED",
    "expired": "TOKEN_EXPIRED",
    "signed out": "TOKEN_REVOKED",
    "disabled": "TOKEN_REVOKED",
    "disabled user's token": "UNAUTHENTICATED",
    "expired token": "TOKEN_EXPIRED",
    "revoked token": "UNAUTHENTICATED",
    "unknown token": "UNAUTHENTICATED",
}
"""Who gets in nowhere, and what tells them."""

SOMEBODY = ("read-only token", "token", "administrator's token", "other", "administrator", "owner")
"""Those who get in, in the order in which they are tried: the owner ends things."""


BAD, MISSING = (1008, "Invalid authentication token"), (1008, "Authentication required")
NOT_THERE = (1008, "Session not found")
TERMINALS = {
    **dict.fromkeys(NOBODY, BAD),
    "anonymous": MISSING,
    "by name": MISSING,
    "read-only token": (1008, "Not allowed: this access token may only read"),
    "administrator's token": NOT_THERE,
    "other": NOT_THERE,
    "administrator": NOT_THERE,
    "token": None,
    "owner": None,
}
"""How the terminal of the owner's session is closed; None where the sandbox is reached."""


def expected(who: str, route: Route) -> str:
    """Return what the policy of a route means for a caller; `owner` owns the ids in the path."""
    if route.policy is Policy.PUBLIC:
        return IN
    if who in NOBODY or str(route) in CLOSED:
        return NOBODY.get(who) or CLOSED[str(route)]
    if who == "read-only token" and route.method != "GET":
        return "READ_ONLY_TOKEN"
    if who.endswith("token") and route.policy is not Policy.USER:
        return "SIGN_IN_NEEDED"
    if route.policy is Policy.ADMIN:
        return IN if who == "administrator" else "ADMIN_NEEDED"
    owns = who in {"owner", "token", "read-only token"}
    if owns or (who == "administrator" and str(route) in EVERYBODYS):
        return IN
    if "user_id" in route.parameters:
        return IN if who.startswith("administrator") else "NOT_YOUR_USER_ID"
    return HIDDEN if OWNED & set(route.parameters) else IN


def outcome(answer: httpx.Response, route: Route) -> str:
    """Return how an answer is to be understood; whoever is let in may still have asked wrongly."""
    if str(route) in ENDLESS and answer.status_code == 200:
        return IN
    code = answer.json()["code"] if answer.status_code >= 400 else None
    absent = {ABSENT[name].code for name in route.parameters if name in OWNED}
    if answer.status_code == 404 and code in absent:
        return HIDDEN
    if answer.status_code >= 500 and answer.status_code not in {501, 503}:
        return f"{answer.status_code} {code}"
    refused = answer.status_code in {401, 403} and route.policy is not Policy.PUBLIC
    return str(code) if refused else IN


async def values_for(
    client: httpx.AsyncClient, people: People, who: str, route: Route, mine: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the ids to ask with, and the headers; for what ends things, of things made for it."""
    headers = people.headers[who]
    if expected(who, route) != IN or route.policy is Policy.PUBLIC:
        return mine, headers
    if str(route) == ENDS_SIGN_INS:
        return mine, await signed_in(client, f"{uuid4().hex}@example.com")
    if who == "administrator" and route.policy is Policy.ADMIN:
        return mine | {"user_id": people.bystander.id}, headers
    ends = route.method == "DELETE" or "/cleanup/" in route.path
    if not ends or not OWNED & set(route.parameters):
        return mine, headers
    if "sign_in_id" in route.parameters:
        return mine | {
            "sign_in_id": (await logged_in(client, people.owner.email)).sign_in_id
        }, headers
    name = uuid4().hex[:8]
    return await something_of_everything(client, people.owner.headers, name), headers


async def test_everyone_gets_in_where_the_policy_says_and_nowhere_else(tmp_path: Path) -> None:
    settings = unthrottled(tmp_path, f"sqlite:///{tmp_path / 'a.db'}")
    wrong: list[str] = []
    async with whole_app(settings) as (client, runtime):
        people = await people_of(client)
        mine = await something_of_everything(client, people.owner.headers)
        mine["sign_in_id"] = (await logged_in(client, people.owner.email)).sign_in_id
        terminals = {
            who: await terminal_of(client, runtime, mine, headers)
            for who, headers in people.headers.items()
        }
        for who in (*NOBODY, *SOMEBODY):
            for route in ROUTES:
                if route.policy is Policy.SELF_CHECKED:
                    continue
                values, headers = await values_for(client, people, who, route, mine)
                answer = await answer_of(client, route, values, headers)
                found = outcome(answer, route)
                if found != expected(who, route):
                    wrong.append(f"{who}, {route}: {found}, and not {expected(who, route)}")

    assert not wrong, "\n".join(wrong)
    assert terminals == TERMINALS


async def answer_of(
    client: httpx.AsyncClient, route: Route, values: dict[str, str], headers: dict[str, str]
) -> httpx.Response:
    path = filled(route.path, values)
    if str(route) in ENDLESS:
        return await asked(client, route.method, path, headers)
    body = BODIES.get(str(route))
    return await client.request(route.method, path, headers=headers, json=body)


async def test_who_has_not_confirmed_the_address_gets_to_accounts_alone(tmp_path: Path) -> None:
    settings = unthrottled(tmp_path, f"sqlite:///{tmp_path / 'a.db'}")
    async with whole_app(settings) as (client, _):
        headers = await signed_in(client, "a@example.com")
        mine = await something_of_everything(client, headers)
    found: dict[str, tuple[int, Any]] = {}
    routes = [route for route in GUARDED if not route.path.startswith("/api/auth/")]
    async with whole_app(settings.model_copy(update={"require_verified_email": True})) as (
        client,
        _,
    ):
        for route in routes:
            answer = await client.request(route.method, filled(route.path, mine), headers=headers)
            found[str(route)] = (answer.status_code, answer.json()["code"])
        me = await client.get("/api/auth/me", headers=headers)

    assert found == {str(route): (403, "EMAIL_NOT_VERIFIED") for route in routes}
    assert me.status_code == 200


# ---- ids of others ----------------------------------------------------------------------------

STATEMENTS: ContextVar[list[str] | None] = ContextVar("STATEMENTS", default=None)


@contextmanager
def statements() -> Generator[list[str]]:
    """Give what the requests inside ask the database, and nothing that goes on beside them."""
    asked_for: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        noted = STATEMENTS.get()
        if noted is not None:
            noted.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    token = STATEMENTS.set(asked_for)
    try:
        yield asked_for
    finally:
        STATEMENTS.reset(token)
        event.remove(Engine, "before_cursor_execute", note)


async def test_another_users_id_answers_like_an_absent_one(served: Served) -> None:
    for route in WITH_OWNED_IDS:
        absent = served.mine | {name: str(uuid4()) for name in OWNED}
        answers: list[tuple[int, str, dict[str, str]]] = []
        questions: list[list[str]] = []

        # Who asks is looked up every few seconds: a pair that such a moment fell between is asked
        # again. What the route itself asks differs each time, or never.
        for _ in range(3):
            answers.clear()
            questions.clear()
            for values in (served.mine, absent):
                with statements() as asked_for:
                    answer = await served.client.request(
                        route.method,
                        filled(route.path, values),
                        json=BODIES.get(str(route)),
                        headers=served.other,
                    )
                questions.append(asked_for)
                answers.append(comparable(answer, [values[name] for name in OWNED]))
                assert answer.json()["code"].endswith("NOT_FOUND"), str(route)
            if questions[0] == questions[1]:
                break

        assert answers[0] == answers[1], str(route)
        assert answers[0][0] == 404, str(route)
        # The same work takes the same time: a clock would tell less, and only now and then.
        assert questions[0] == questions[1], str(route)
        assert questions[0], str(route)


async def test_another_users_id_in_a_body_answers_like_an_absent_one(served: Served) -> None:
    for name, body in BODY_IDS.items():
        method, path = name.split()
        absent = served.mine | {key: str(uuid4()) for key in OWNED}
        answers: list[tuple[int, str, dict[str, str]]] = []
        for values in (served.mine, absent):
            sent = {key: filled(value, values) for key, value in body.items()}
            answer = await served.client.request(method, path, json=sent, headers=served.other)
            answers.append(comparable(answer, [values[key] for key in OWNED]))

        assert answers[0] == answers[1], name
        assert answers[0][0] == 404, name


async def test_another_users_own_id_is_403_and_tells_nothing(served: Served) -> None:
    for route in GUARDED:
        if "user_id" not in route.parameters or route.policy is Policy.ADMIN:
            continue
        answers = [
            comparable(
                await served.client.request(
                    route.method,
                    filled(route.path, served.mine | {"user_id": user}),
                    headers=served.other,
                ),
                [user],
            )
            for user in (served.mine["user_id"], str(uuid4()))
        ]

        assert answers[0] == answers[1], str(route)
        assert answers[0][0] == 403, str(route)


async def test_a_malformed_id_answers_like_an_absent_one(served: Served) -> None:
    for route in WITH_OWNED_IDS:
        wanted: tuple[int, str, dict[str, str]] | None = None
        for bad in (str(uuid4()), "x", "1", "%2e%2e%2f", "0" * 200, "%27%3b--", "%00", "é"):
            values = served.mine | dict.fromkeys(OWNED, bad)
            answer = await served.client.request(
                route.method,
                filled(route.path, values),
                json=BODIES.get(str(route)),
                headers=served.other,
            )
            assert answer.status_code == 404, f"{route} with {bad!r}: {answer.text}"
            if bad == "%00":
                continue  # a NUL matches no route at all
            body = answer.json()
            assert set(body) >= {"error", "code", "requestId"}
            told = (answer.status_code, str(body["error"]).replace(bad, "…"), {"": body["code"]})
            wanted = wanted or told
            assert told == wanted, f"{route} with {bad!r}"


async def test_every_wrong_body_is_a_4xx_in_the_familys_form(served: Served) -> None:
    contents = [
        b"{", b"[]", b"null", b"1", b'"x"', b"[" * 5000, b'{"name": "\\u0000"}',
        b'{"name": "\\ud800", "environmentId": 1, "email": [], "status": {}}',
        b'{"name": ' + b"9" * 5000 + b"}", b"\xff", b"{}",
    ]  # fmt: skip
    for route in ROUTES:
        if route.method not in {"POST", "PUT", "PATCH"} or str(route) in WITHOUT_BODY:
            continue
        for content in contents:
            answer = await served.client.request(
                route.method,
                filled(route.path, served.mine | {name: str(uuid4()) for name in OWNED}),
                content=content,
                headers=served.other | {"content-type": "application/json"},
            )
            if answer.status_code == 200:
                continue  # the route takes no body, or nothing in it is needed
            body = answer.json()
            assert 400 <= answer.status_code < 500, f"{route} {content[:40]!r}: {answer.text}"
            assert set(body) >= {"error", "code", "requestId"}, f"{route} {content[:40]!r}"
            family_a = route.path.startswith(("/api/auth", "/api/git"))
            assert ("success" in body) == family_a, f"{route} {content[:40]!r}"
