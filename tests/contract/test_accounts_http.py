"""The account routes exactly as clients know them, on both databases."""

import io
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from craftastic import logs
from craftastic.accounts import endpoints
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.service import AccountService
from craftastic.database import Database
from craftastic.http import errors, middleware
from craftastic.http.hot import HotRoutes
from craftastic.metrics import Metrics
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.secrecy import canary

PASSWORD = canary("password")
PERSON = {"email": "A@Example.com", "password": PASSWORD, "name": "A"}


@pytest.fixture
def accounts(database: Database, clock: FakeClock, tmp_path: Path) -> AccountService:
    return AccountService(
        database, clock, AccessTokens(b"k" * 32, 900), tmp_path / "keys", registration="open"
    )


def app() -> FastAPI:
    made = FastAPI(openapi_url=None, redirect_slashes=False)
    errors.install(made)
    made.add_middleware(HotRoutes, routes=made.routes)
    middleware.install(made, metrics=Metrics(), max_body_bytes=1 << 20)
    made.include_router(endpoints.router)
    return made


@pytest.fixture
async def client(accounts: AccountService) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(), accounts=accounts) as client:
        yield client


@pytest.fixture
async def invite_client(accounts: AccountService) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(), accounts=replace(accounts, registration="invite")) as client:
        yield client


async def register(client: httpx.AsyncClient, **more: str) -> dict[str, Any]:
    answer = await client.post("/api/auth/register", json=PERSON | more)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def failed(answer: httpx.Response, status: int, error: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["success"], body["error"]) == (False, error)
    assert body["requestId"] == answer.headers["x-request-id"]
    return body["code"]


async def test_who_one_is_has_the_form_that_is_declared(client: httpx.AsyncClient) -> None:
    tokens = await register(client, name='Zoë "Z" 🚀 \\')

    answer = await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))

    told = endpoints.MeAnswer.model_validate_json(answer.content, strict=True)
    assert told.model_dump(mode="json", by_alias=True) == answer.json()
    assert told.data.user.name == 'Zoë "Z" 🚀 \\'
    assert str(told.data.user.id) == tokens["user"]["id"]


async def test_register_answers_tokens_and_the_user(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/auth/register", json=PERSON)

    assert answer.status_code == 200
    body = answer.json()
    user = body["data"]["user"]
    assert set(body) == {"success", "data"}
    assert set(body["data"]) == {"accessToken", "refreshToken", "user"}
    assert user == {"id": user["id"], "email": "a@example.com", "name": "A", "emailVerified": False}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"email": "x"}, "email"),
        ({"email": None}, "email"),
        ({"email": 3}, "email"),
        ({"password": "short7!"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"password": "password123"}, "password"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0"}, "NUL"),
        ({"name": "a\u202eb"}, "name"),
    ],
)
async def test_register_refuses_in_words(
    client: httpx.AsyncClient, change: dict[str, Any], words: str
) -> None:
    answer = await client.post("/api/auth/register", json=PERSON | change)

    body = answer.json()
    assert answer.status_code == 400
    assert body["success"] is False
    assert words in body["error"]
    assert PASSWORD not in answer.text


async def test_an_address_that_is_taken_is_400_with_the_known_text(
    client: httpx.AsyncClient,
) -> None:
    await register(client)

    answer = await client.post("/api/auth/register", json=PERSON | {"email": "a@EXAMPLE.com"})

    assert failed(answer, 400, "User with this email already exists") == "EMAIL_TAKEN"


async def test_login_is_401_for_wrong_credentials_and_400_for_a_malformed_body(
    client: httpx.AsyncClient,
) -> None:
    await register(client)
    wrong = [("a@example.com", "wrong"), ("b@example.com", PASSWORD)]
    answers = [
        await client.post("/api/auth/login", json={"email": email, "password": password})
        for email, password in wrong
    ]

    for answer in answers:
        assert failed(answer, 401, "Invalid email or password") == "INVALID_CREDENTIALS"
    for body in ({}, {"email": "a@example.com"}, {"email": "x", "password": "y"}, [], None):
        answer = await client.post("/api/auth/login", json=body)
        assert (answer.status_code, answer.json()["success"]) == (400, False)
    fine = await client.post(
        "/api/auth/login", json={"email": "A@example.COM", "password": PASSWORD}
    )
    assert fine.status_code == 200
    assert fine.json()["data"]["user"]["email"] == "a@example.com"


async def test_refresh_rotates_and_an_old_token_is_401(client: httpx.AsyncClient) -> None:
    first = await register(client)

    second = await client.post("/api/auth/refresh", json={"refreshToken": first["refreshToken"]})

    assert second.status_code == 200
    assert set(second.json()["data"]) == {"accessToken", "refreshToken", "user"}
    for token in (first["refreshToken"], "unknown", second.json()["data"]["refreshToken"]):
        answer = await client.post("/api/auth/refresh", json={"refreshToken": token})
        assert failed(answer, 401, "Invalid or expired refresh token") == "INVALID_REFRESH_TOKEN"


@pytest.mark.parametrize("header", ["none", "good", "broken"])
async def test_logout_works_with_and_without_a_bearer(
    client: httpx.AsyncClient, header: str
) -> None:
    tokens = await register(client)
    headers = {"none": {}, "good": bearer(tokens["accessToken"]), "broken": bearer("x")}[header]

    for token in (tokens["refreshToken"], tokens["refreshToken"], "unknown"):
        answer = await client.post(
            "/api/auth/logout", json={"refreshToken": token}, headers=headers
        )
        assert answer.status_code == 200
        assert answer.json() == {"success": True, "message": "Logged out successfully"}

    me = await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))
    failed(me, 401, "Unauthorized")
    missing = await client.post("/api/auth/logout", json={}, headers=headers)
    assert failed(missing, 400, "refreshToken is required") == "INVALID_INPUT"


async def test_logout_all_takes_no_body_and_ends_every_sign_in(client: httpx.AsyncClient) -> None:
    one = await register(client)
    two = (
        await client.post("/api/auth/login", json={"email": PERSON["email"], "password": PASSWORD})
    ).json()["data"]

    answer = await client.post("/api/auth/logout-all", headers=bearer(one["accessToken"]))

    assert answer.json() == {"success": True, "message": "Logged out from all sessions"}
    for tokens in (one, two):
        me = await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))
        assert failed(me, 401, "Unauthorized") == "TOKEN_REVOKED"
        again = await client.post(
            "/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]}
        )
        assert again.status_code == 401


async def test_me_answers_the_user(client: httpx.AsyncClient, clock: FakeClock) -> None:
    tokens = await register(client)

    answer = await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))

    assert answer.json()["success"] is True
    assert answer.json()["data"]["user"] == tokens["user"]
    clock.advance(900 + 31)
    answer = await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))
    assert failed(answer, 401, "Unauthorized") == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer " + "A" * 6000},
        {"x-test-user-id": "1"},
        {"x-user-id": "1", "x-forwarded-user": "a@example.com"},
        {"Cookie": "token=x"},
    ],
)
async def test_no_header_but_a_good_bearer_opens_anything(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    tokens = await register(client)
    more = {
        name: tokens["user"]["id"] if value == "1" else value for name, value in headers.items()
    }

    answer = await client.get("/api/auth/me", headers=more)

    assert failed(answer, 401, "Unauthorized") == "UNAUTHENTICATED"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_empty_json_body_is_refused_after_the_caller_is_known(
    client: httpx.AsyncClient,
) -> None:
    tokens = await register(client)
    json_type = {"content-type": "application/json"}

    unknown = await client.post("/api/auth/logout-all", headers=json_type)
    known = await client.post(
        "/api/auth/logout-all", headers=json_type | bearer(tokens["accessToken"])
    )

    failed(unknown, 401, "Unauthorized")
    assert known.status_code == 400
    assert known.json()["code"] == "FST_ERR_CTP_EMPTY_JSON_BODY"


@pytest.mark.parametrize("by_header", [True, False])
async def test_the_first_account_then_an_invitation_then_a_second(
    invite_client: httpx.AsyncClient, accounts: AccountService, *, by_header: bool
) -> None:
    client = invite_client
    setup = await accounts.first_account_token() or ""

    refused = await client.post("/api/auth/register", json=PERSON)
    assert refused.status_code == 403
    assert refused.json()["code"] == "SETUP_TOKEN_NEEDED"
    headers = {"X-Craftastic-Setup-Token": setup} if by_header else {}
    body = PERSON if by_header else PERSON | {"setupToken": setup}
    admin = (await client.post("/api/auth/register", json=body, headers=headers)).json()["data"]

    other = PERSON | {"email": "b@example.com"}
    refused = await client.post("/api/auth/register", json=other)
    assert refused.status_code == 403
    assert refused.json()["code"] == "INVITATION_NEEDED"
    invitation = await client.post(
        "/api/auth/invitations",
        json={"email": "b@example.com"},
        headers=bearer(admin["accessToken"]),
    )
    assert invitation.json()["data"]["expiresAt"] == "2026-12-01T15:03:08.354Z"
    token = invitation.json()["data"]["token"]
    second = await client.post("/api/auth/register", json=other | {"invitation": token})
    assert second.status_code == 200

    forbidden = await client.post(
        "/api/auth/invitations", headers=bearer(second.json()["data"]["accessToken"])
    )
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "ADMIN_NEEDED")
    assert (await client.post("/api/auth/invitations")).status_code == 401


async def test_no_secret_of_an_account_reaches_the_log(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        logs.configure(level="debug", format="json", stream=stream)
        tokens = await register(client)
        secrets = [PASSWORD, tokens["accessToken"], tokens["refreshToken"]]
        await client.get("/api/auth/me", headers=bearer(tokens["accessToken"]))
        await client.get(f"/api/auth/me?token={tokens['accessToken']}")
        await client.get(f"/api/auth/{tokens['accessToken']}")
        await client.post("/api/auth/login", json={"email": "a@b", "password": PASSWORD})
        await client.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
        await client.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
        structlog.stdlib.get_logger("craftastic.x").error("x", body=tokens, text=json.dumps(tokens))
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
        logging.getLogger("uvicorn.access").disabled = False

    assert stream.getvalue().count("\n") > 7
    assert [secret for secret in secrets if secret in stream.getvalue()] == []
