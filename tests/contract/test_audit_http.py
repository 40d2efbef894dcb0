"""The audit log over HTTP: one's own, everybody's, its export and its check."""

import hashlib
import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.activity import endpoints
from craftastic.activity.service import ActivityService
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock

ADMIN, USER = uuid4(), uuid4()


class Accounts:
    """Takes a user's id for that user's token."""

    async def authenticate(self, token: str) -> Caller:
        user = UUID(token)
        return Caller(UserId(user), "a@example.com", "a", True, user == ADMIN, uuid4())

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@pytest.fixture
def audit(database: Database, clock: FakeClock) -> AuditService:
    return AuditService(database, clock)


@pytest.fixture
async def client(database: Database, audit: AuditService) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    for number, actor in enumerate((USER, ADMIN, USER, None)):
        await audit.record(
            "git.push" if number % 2 else "account.login",
            actor_id=actor,
            object_type="user",
            object_id=str(number),
            details={"ref": "refs/heads/ü"},
        )
    async with client_of(
        app, accounts=Accounts(), activity=ActivityService(database, audit)
    ) as one:
        yield one


def as_user(user: UUID) -> dict[str, str]:
    return {"Authorization": f"Bearer {user}"}


async def test_a_user_sees_their_own_events_page_by_page(client: httpx.AsyncClient) -> None:
    first = (await client.get("/api/audit?limit=1", headers=as_user(USER))).json()
    rest = await client.get(f"/api/audit?before={first['nextBefore']}", headers=as_user(USER))

    assert [one["objectId"] for one in first["events"]] == ["2"]
    assert [one["objectId"] for one in rest.json()["events"]] == ["0"]
    assert rest.json()["nextBefore"] is None
    assert "actorId" not in first["events"][0]


async def test_an_administrator_sees_all_and_filters(client: httpx.AsyncClient) -> None:
    async def shown(query: str) -> list[str]:
        answer = await client.get(f"/api/admin/audit{query}", headers=as_user(ADMIN))
        return [one["objectId"] for one in answer.json()["events"]]

    assert await shown("") == ["3", "2", "1", "0"]
    assert await shown(f"?actorId={USER}") == ["2", "0"]
    assert await shown("?action=git") == ["3", "1"]
    assert await shown("?action=git.push&before=4") == ["1"]
    assert await shown("?action=gi") == []


async def test_the_export_can_be_checked_without_the_server(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/admin/audit/export", headers=as_user(ADMIN))
    verdict = (await client.get("/api/admin/audit/verify", headers=as_user(ADMIN))).json()

    previous = "0" * 64
    for line in answer.text.splitlines():
        event = json.loads(line)
        assert event["previous"] == previous
        previous = event.pop("hash")
        text = json.dumps(event, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == previous
    assert verdict["ok"] is True
    assert verdict["head"] == {"seq": 4, "hash": previous}


@pytest.mark.parametrize("path", ["", "/export", "/verify"])
async def test_everybodys_events_are_for_administrators(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(f"/api/admin/audit{path}", headers=as_user(USER))

    assert answer.status_code == 403
    assert answer.json()["code"] == "ADMIN_NEEDED"
