"""The wire form of an environment's pushes."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.gateway._pkt_line import RefUpdate
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from craftastic.pushes import endpoints
from craftastic.pushes.service import PushIntent, PushOutcome, PushService, RefResult
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened

NONE, ONE = "0" * 40, "1" * 40


@dataclass
class Accounts:
    """Takes a user's id for that user's token."""

    async def authenticate(self, token: str) -> Caller:
        return Caller(UserId(UUID(token)), "a@example.com", "a", True, False, uuid4())

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@dataclass
class Counter:
    """The wire, and what stands behind it."""

    client: httpx.AsyncClient
    shop: Workshop
    pushes: PushService

    async def get(self, environment_id: object, **params: object) -> httpx.Response:
        path = f"/api/git/pushes/{environment_id}"
        return await self.client.get(path, params={k: str(v) for k, v in params.items()})


@pytest.fixture
async def counter(database: Database, clock: FakeClock) -> AsyncIterator[Counter]:
    async def no_branches(_environment_id: UUID) -> set[str]:
        return set()

    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    pushes = PushService(database, AuditService(database, clock), clock, no_branches)
    async with (
        opened(build(database, clock, MemoryRuntime())) as shop,
        client_of(app, accounts=Accounts(), pushes=pushes) as client,
    ):
        client.headers["Authorization"] = f"Bearer {shop.owner}"
        yield Counter(client, shop, pushes)


async def test_pushes_are_listed_newest_first(counter: Counter) -> None:
    environment = await counter.shop.create()
    for ref, result in {
        "refs/heads/a": RefResult(PushOutcome.OK),
        "refs/tags/v1": RefResult(PushOutcome.REFUSED, "no tags"),
    }.items():
        intent = PushIntent([RefUpdate(ref, NONE, ONE)])
        await counter.pushes.begun(environment, intent)
        await counter.pushes.ended(environment, intent, {ref: result})

    answer = (await counter.get(environment.id)).json()
    one = (await counter.get(environment.id, limit=1)).json()

    assert set(answer) == {"success", "data"}
    newest, oldest = answer["data"]["pushes"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", newest.pop("createdAt"))
    assert newest == {
        "ref": "refs/tags/v1",
        "old": NONE,
        "new": ONE,
        "outcome": "refused",
        "reason": "no tags",
    }
    assert set(oldest) == {"ref", "old", "new", "outcome", "createdAt"}
    assert oldest["outcome"] == "ok"
    assert [entry["ref"] for entry in one["data"]["pushes"]] == ["refs/tags/v1"]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1.5", "9" * 400])
async def test_a_limit_that_cannot_be_is_400(counter: Counter, limit: str) -> None:
    environment = await counter.shop.create()

    answer = await counter.get(environment.id, limit=limit)

    assert (answer.status_code, answer.json()["success"]) == (400, False)


async def test_foreign_absent_and_malformed_ids_answer_alike(counter: Counter) -> None:
    environment = await counter.shop.create()
    counter.client.headers["Authorization"] = f"Bearer {await counter.shop.add_user()}"

    answers = [await counter.get(one) for one in (environment.id, uuid4(), "nonsense")]

    assert [answer.status_code for answer in answers] == [404] * 3
    bodies = [{**answer.json(), "requestId": ""} for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["error"] == "Environment not found"
