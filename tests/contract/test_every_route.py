"""Promises that every route keeps, read from the app itself so that none can be forgotten.

A new route needs nothing here as long as it declares who may call it and its path parameters have
known names. Where that is not so, a test below fails and says what is missing.
"""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from craftastic.app import build_app
from craftastic.http.policy import Policy, policy_of
from craftastic.settings import Settings
from tests.conftest import BACKENDS
from tests.fakes.whole_app import filled, something_of_everything, whole_app, whole_settings

PASSWORD = "a-horse-a-battery-a-staple"
UNCOMPARED = {"x-request-id", "content-length"}

PUBLIC = {
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/logout",
    "POST /api/auth/github/webhook",
    "GET /api/openapi.json",
    "GET /api/docs",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
}
"""All routes that anyone may call. Whoever adds one has to say so here too."""

SELF_CHECKED = {"WEBSOCKET /api/terminal/ws/{session_id}"}
"""The WebSocket routes, whose refusals are close frames; their own tests hold the table."""

ENDS_SIGN_INS = "POST /api/auth/logout-all"
WITHOUT_BODY = {ENDS_SIGN_INS, "POST /api/auth/github/initiate"}
"""Routes that take no body, so none is wrong, and that do something to others when called."""

OWNED = {"environment_id", "session_id", "container_id", "host_id"}
PARAMETERS = OWNED | {"user_id", "name", "branch"}

BODIES: dict[str, dict[str, Any]] = {
    "POST /api/git/commit/{session_id}": {"message": "x"},
    "PATCH /api/environments/{environment_id}": {"pushPolicy": "any"},
    "PATCH /api/sessions/{session_id}": {"status": "inactive"},
    "PUT /api/environments/{environment_id}/variables/{name}": {"value": "a"},
}
"""Bodies that routes with ids in their paths accept; none where they need none."""

BODY_IDS: dict[str, dict[str, Any]] = {
    "POST /api/sessions": {"environmentId": "{environment_id}", "name": "theirs"},
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
GUARDED = [route for route in ROUTES if route.policy in {Policy.USER, Policy.ADMIN}]
WITH_OWNED_IDS = [route for route in GUARDED if OWNED & set(route.parameters)]


@pytest.fixture(params=BACKENDS)
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Served]:
    async with whole_app(whole_settings(tmp_path, copy_of_template(request.param))) as (client, _):
        owner = await signed_in(client, "a@example.com")
        other = await signed_in(client, "b@example.com")
        yield Served(client, await something_of_everything(client, owner), owner, other)


async def signed_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    body = {"email": email, "password": PASSWORD, "name": "A"}
    answer = await client.post("/api/auth/register", json=body)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['data']['accessToken']}"}


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


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_says_who_may_call_it(route: Route) -> None:
    assert route.policy is not None, f"{route} declares no policy (craftastic.http.policy)"
    assert (route.policy is Policy.PUBLIC) == (str(route) in PUBLIC)
    assert (route.policy is Policy.SELF_CHECKED) == (str(route) in SELF_CHECKED)


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_a_routes_path_parameters_are_known_here(route: Route) -> None:
    assert set(route.parameters) <= PARAMETERS


async def test_without_a_good_token_every_guarded_route_is_401(served: Served) -> None:
    good = served.owner["Authorization"]
    values = served.mine
    for headers in (
        {},
        {"Authorization": "Bearer broken"},
        {"Authorization": good[:-3] + "AAA"},
        {"Authorization": good.replace("Bearer", "Token")},
        {"x-test-user-id": values["user_id"]},
    ):
        for route in GUARDED:
            answer = await served.client.request(
                route.method, filled(route.path, values), headers=headers
            )
            body = answer.json()

            assert answer.status_code == 401, f"{route} with {list(headers)}"
            assert body == {
                "success": False,
                "error": "Unauthorized",
                "code": "UNAUTHENTICATED",
                "requestId": answer.headers["x-request-id"],
            }


async def test_a_token_of_an_ended_sign_in_is_401_everywhere(served: Served) -> None:
    await served.client.post("/api/auth/logout-all", headers=served.owner)

    for route in GUARDED:
        answer = await served.client.request(
            route.method, filled(route.path, served.mine), headers=served.owner
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "TOKEN_REVOKED"), str(route)


async def test_another_users_id_answers_like_an_absent_one(served: Served) -> None:
    for route in WITH_OWNED_IDS:
        absent = served.mine | {name: str(uuid4()) for name in OWNED}
        answers: list[tuple[int, str, dict[str, str]]] = []
        for values in (served.mine, absent):
            answer = await served.client.request(
                route.method,
                filled(route.path, values),
                json=BODIES.get(str(route)),
                headers=served.other,
            )
            answers.append(comparable(answer, [values[name] for name in OWNED]))
            assert answer.json()["code"].endswith("NOT_FOUND"), str(route)

        assert answers[0] == answers[1], str(route)
        assert answers[0][0] == 404, str(route)


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
        if "user_id" not in route.parameters:
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


async def test_only_administrators_pass_routes_for_them(served: Served) -> None:
    for route in GUARDED:
        if route.policy is not Policy.ADMIN:
            continue
        answer = await served.client.request(
            route.method, filled(route.path, served.mine), headers=served.other
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "ADMIN_NEEDED"), str(route)


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
