"""Requests that are sent again: their effect happens once, and the first answer comes again."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
import structlog
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.routing import iter_route_contexts

from craftastic.accounts.service import AccountService, Caller, access_tokens
from craftastic.app import build_app
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.http import errors, middleware
from craftastic.idempotency import once, service
from craftastic.idempotency._repository import KeyRepository
from craftastic.idempotency.once import ONCE, KeptAnswers, refuse_key, takes_keys
from craftastic.idempotency.service import (
    Claim,
    IdempotencyKeyInUse,
    IdempotencyService,
    Kept,
    TooManyIdempotencyKeys,
)
from craftastic.metrics import Metrics
from craftastic.settings import Settings
from tests.conftest import BACKENDS
from tests.contract.conftest import until
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.event_rig import new_user
from tests.fakes.whole_app import whole_app, whole_settings
from tests.secrecy import canary

KEY = "Idempotency-Key"
PASSWORD = canary("password")

TAKING = {
    "POST /api/environments",
    "POST /api/containers/create",
    "POST /api/sessions",
    "POST /api/git/commit/{session_id}",
    "POST /api/git/push/{session_id}",
    "POST /api/git/pull/{session_id}",
    "POST /api/sessions/{session_id}/prompt",
    "POST /api/deployment/deploy",
    "POST /api/deployment/rollback",
}
"""The routes that take a key: what they make is there twice when they are called twice, or moves
on from what it was. A route whose answer holds a secret must not be among them."""


def test_the_routes_that_take_a_key_are_these() -> None:
    app = build_app(Settings.model_validate({"data_dir": "/nonexistent"}))
    found = {
        f"{method} {context.path_format}"
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
        if takes_keys(context)
    }

    assert found == TAKING


# ---- over the whole app -----------------------------------------------------------------------


@dataclass
class Twice:
    client: httpx.AsyncClient
    settings: Settings
    mine: dict[str, str]
    other: dict[str, str]

    async def create(self, name: str, key: str, *, by: dict[str, str] | None = None) -> Any:
        return await self.client.post(
            "/api/environments", json={"name": name}, headers=(by or self.mine) | {KEY: key}
        )

    async def names(self) -> list[str]:
        me = (await self.client.get("/api/auth/me", headers=self.mine)).json()["data"]["user"]
        found = await self.client.get(f"/api/environments/user/{me['id']}", headers=self.mine)
        return sorted(one["name"] for one in found.json()["environments"])


async def signed_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    body = {"email": email, "password": PASSWORD, "name": "A"}
    answer = await client.post("/api/auth/register", json=body)
    return {"Authorization": f"Bearer {answer.json()['data']['accessToken']}"}


@pytest.fixture(params=BACKENDS)
async def twice(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Twice]:
    settings = whole_settings(tmp_path, copy_of_template(request.param))
    async with whole_app(settings) as (client, _):
        users = [await signed_in(client, email) for email in ("a@example.com", "b@example.com")]
        yield Twice(client, settings, *users)


async def test_the_same_request_again_gets_the_same_answer_and_makes_nothing(twice: Twice) -> None:
    first = await twice.create("one", "key-1")
    again = await twice.create("one", "key-1")
    other_key = await twice.create("one", "key-2")

    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert other_key.status_code == 409
    assert await twice.names() == ["one"]


async def test_a_key_is_of_one_request_of_one_user_at_one_route(twice: Twice) -> None:
    await twice.create("one", "key-1")

    reused = await twice.create("two", "key-1")
    theirs = await twice.create("two", "key-1", by=twice.other)
    elsewhere = await twice.client.post(
        "/api/containers/create", json={"name": "one"}, headers=twice.mine | {KEY: "key-1"}
    )

    assert (reused.status_code, reused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert theirs.json()["name"] == "two"
    assert elsewhere.status_code == 200
    assert "idempotent-replayed" not in elsewhere.headers


async def test_of_many_at_once_one_makes_it_and_the_others_wait_or_get_its_answer(
    twice: Twice,
) -> None:
    answers: list[httpx.Response] = []

    async def create() -> None:
        answers.append(await twice.create("one", "key-1"))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(create)

    made = [one for one in answers if one.status_code == 200]
    waiting = [one for one in answers if one.status_code != 200]
    assert sum("idempotent-replayed" not in one.headers for one in made) == 1
    assert {(one.status_code, one.json()["code"]) for one in waiting} <= {
        (409, "IDEMPOTENCY_KEY_IN_USE")
    }
    assert all(one.headers["retry-after"] == "2" for one in waiting)
    assert len({one.json()["id"] for one in made}) == 1


async def test_a_refusal_is_not_kept(twice: Twice) -> None:
    first = (await twice.create("one", "key-1")).json()
    taken = await twice.create("one", "key-2")
    await twice.client.delete(f"/api/environments/{first['id']}", headers=twice.mine)
    free = await twice.create("one", "key-2")

    assert (taken.status_code, free.status_code) == (409, 200)
    assert free.json()["id"] != first["id"]


async def test_an_answer_is_given_again_after_a_restart(twice: Twice) -> None:
    first = await twice.create("one", "key-1")

    async with whole_app(twice.settings) as (client, _):
        again = await client.post(
            "/api/environments", json={"name": "one"}, headers=twice.mine | {KEY: "key-1"}
        )

    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_key_is_refused_where_it_would_not_be_kept(twice: Twice) -> None:
    key = {KEY: "key-1"}
    ended = await twice.client.post("/api/auth/logout-all", headers=twice.mine | key)
    looked = await twice.client.get("/api/auth/me", headers=twice.mine | key)

    assert (ended.status_code, ended.json()["code"]) == (400, "IDEMPOTENCY_KEY_NOT_TAKEN")
    assert looked.status_code == 200  # a look has no effect to repeat, and nobody was signed out


async def test_a_key_of_no_form_is_refused(twice: Twice) -> None:
    keys: list[Any] = ["", "a b", "x" * 201, "\u00e9".encode(), "a\tb"]
    for key in keys:
        headers = twice.mine | {KEY: key}
        answer = await twice.client.post("/api/environments", json={"name": "one"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT"), key

    assert await twice.names() == []


async def test_who_may_not_call_the_route_gets_no_answer_of_its_owners(twice: Twice) -> None:
    await twice.create("one", "key-1")

    answer = await twice.create("one", "key-1", by={"Authorization": "Bearer x"})

    assert answer.status_code == 401


# ---- a route of the test's own, which fails in many ways ----------------------------------------


@dataclass
class Routes:
    client: httpx.AsyncClient
    keys: IdempotencyService
    calls: list[str]


@pytest.fixture
async def routes(database: Database, data_dir: Path) -> AsyncIterator[Routes]:
    accounts = AccountService(
        database, SystemClock(), access_tokens(b"k" * 32, 900), data_dir, registration="open"
    )
    tokens, _ = await new_user(accounts, "a@example.com")
    calls: list[str] = []
    app = FastAPI(openapi_url=None, dependencies=[Depends(refuse_key)])
    errors.install(app)
    app.add_middleware(KeptAnswers)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1000)

    @app.post("/api/things/{what}", dependencies=[ONCE])
    async def make(what: str) -> PlainTextResponse:
        calls.append(what)
        if what == "bug":
            raise RuntimeError("a bug")
        return PlainTextResponse("x" * (once.MAX_KEPT_BYTES + 1 if what == "long" else 3))

    keys = IdempotencyService(database, SystemClock())
    async with client_of(app, accounts=accounts, idempotency=keys) as client:
        client.headers["Authorization"] = f"Bearer {tokens.access_token}"
        yield Routes(client, keys, calls)


async def test_after_a_bug_or_an_answer_too_long_to_keep_the_key_is_free(routes: Routes) -> None:
    for what, status in (("bug", 500), ("long", 200), ("short", 200)):
        for _ in range(2):
            with structlog.testing.capture_logs():
                answer = await routes.client.post(f"/api/things/{what}", headers={KEY: "key"})
            assert answer.status_code == status
        assert routes.keys.open == set()

    assert routes.calls == ["bug", "bug", "long", "long", "short"]


async def test_a_body_that_is_too_large_is_refused_with_a_key_too(routes: Routes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    answer = await routes.client.post("/api/things/a", headers={KEY: "k"}, content=pieces())

    assert answer.status_code == 413
    assert routes.calls == []


# ---- keys over time, and over processes that die ------------------------------------------------


@dataclass
class Processes:
    """Two server processes over one database."""

    one: IdempotencyService
    two: IdempotencyService
    caller: Caller
    clock: FakeClock

    async def claim(self, process: IdempotencyService, key: str = "key") -> Claim | Kept:
        return await process.claim(self.caller.user_id, "POST /x", key, b"body")


@pytest.fixture
async def processes(database: Database, data_dir: Path, clock: FakeClock) -> Processes:
    accounts = AccountService(
        database, SystemClock(), access_tokens(b"k" * 32, 900), data_dir, registration="open"
    )
    _, caller = await new_user(accounts, "a@example.com")
    one, two = (IdempotencyService(database, clock) for _ in range(2))
    return Processes(one, two, caller, clock)


async def test_a_key_of_a_process_that_died_before_the_clock_went_back_is_free(
    processes: Processes,
) -> None:
    await processes.claim(processes.one)

    processes.clock.advance(-3600)

    assert isinstance(await processes.claim(processes.two), Claim)


async def test_a_key_of_a_process_that_died_is_free_after_half_a_minute(
    processes: Processes,
) -> None:
    await processes.claim(processes.one)
    processes.clock.advance(service.LEASE_S - 1)
    with pytest.raises(IdempotencyKeyInUse):
        await processes.claim(processes.two)
    processes.clock.advance(1)

    taken = await processes.claim(processes.two)

    assert isinstance(taken, Claim)


async def test_a_request_that_takes_long_keeps_its_key(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RENEW_S", 0.01)
    async with processes.one.running():
        await processes.claim(processes.one)
        processes.clock.advance(service.LEASE_S - 1)
        wanted = processes.clock.now() + timedelta(seconds=service.LEASE_S)

        async def put_off() -> bool:
            async with processes.one.database.read() as tx:
                row = await KeyRepository(tx).find(next(iter(processes.one.open)))
            return row is not None and row.expires_at == wanted

        await until(put_off, "the key is held for longer")


async def test_who_lost_a_key_to_another_process_keeps_no_answer_for_it(
    processes: Processes,
) -> None:
    slow = await processes.claim(processes.one)
    processes.clock.advance(service.LEASE_S)
    quick = await processes.claim(processes.two)
    assert isinstance(slow, Claim)
    assert isinstance(quick, Claim)

    await slow.finish(Kept(200, "text/plain", b"slow"))
    await slow.release()
    await quick.finish(Kept(200, "text/plain", b"quick"))

    assert await processes.claim(processes.one) == Kept(200, "text/plain", b"quick")


async def test_an_answer_is_kept_for_a_day(processes: Processes) -> None:
    claim = await processes.claim(processes.one)
    assert isinstance(claim, Claim)
    await claim.finish(Kept(201, None, b"\x00made"))

    processes.clock.advance(service.KEPT_S - 1)
    await processes.two.forget_expired()
    assert await processes.claim(processes.two) == Kept(201, None, b"\x00made")
    processes.clock.advance(1)
    assert isinstance(await processes.claim(processes.two), Claim)


async def test_one_user_has_so_many_keys_and_no_more(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_KEYS_PER_USER", 2)
    for _ in range(2):
        await processes.claim(processes.one, uuid4().hex)

    with pytest.raises(TooManyIdempotencyKeys):
        await processes.claim(processes.one, uuid4().hex)
