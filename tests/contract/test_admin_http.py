"""The routes of access tokens, sign-ins and administration exactly as clients know them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from craftastic.settings import Settings
from tests.fakes.people import access_token, bearer, logged_in, signed_in, state_of
from tests.fakes.whole_app import whole_app, whole_settings

NO_ID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Served:
    client: httpx.AsyncClient
    chief: dict[str, str] = field(repr=False)
    user: dict[str, str] = field(repr=False)

    async def ok(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
        answer = await self.client.request(method, path, headers=headers, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()

    async def refused(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
        answer = await self.client.request(method, path, headers=headers, **more)
        return answer.status_code, answer.json()["code"]


def settings_in(folder: Path) -> Settings:
    return whole_settings(folder, f"sqlite:///{folder / 'a.db'}", public_url="https://c.example")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with whole_app(settings_in(tmp_path)) as (client, _):
        setup = await state_of(client)["accounts"].first_account_token() or ""
        client.headers["host"] = "c.example"
        chief = await signed_in(client, "chief@example.com", setupToken=setup)
        yield Served(client, chief, await signed_in(client, "user@example.com"))


async def test_access_tokens_over_http(served: Served) -> None:
    path = "/api/auth/tokens"
    body = {"name": "ci", "scope": "write", "expiresInDays": 30}

    made = await served.ok("POST", path, served.user, json=body)

    token = made["data"]["token"]
    assert set(made) == {"success", "data"}
    assert set(made["data"]) == {"secret", "token"}
    assert set(token) == {"id", "name", "scope", "createdAt", "expiresAt", "lastUsedAt"}
    assert token["lastUsedAt"] is None
    by_token = bearer(made["data"]["secret"])
    me = await served.ok("GET", "/api/auth/me", by_token)
    assert me["data"]["user"]["email"] == "user@example.com"
    listed = (await served.ok("GET", path, served.user))["data"]["tokens"]
    assert [one["id"] for one in listed] == [token["id"]]
    assert listed[0]["lastUsedAt"] is not None
    assert made["data"]["secret"] not in str(listed)
    assert (await served.refused("POST", path, served.user, json=body)) == (
        409,
        "ACCESS_TOKEN_NAME_IN_USE",
    )
    gone = await served.ok("DELETE", f"{path}/{token['id']}", served.user)
    assert gone == {"success": True, "message": "Access token revoked"}
    assert await served.refused("GET", "/api/auth/me", by_token) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": None},
        {"scope": "full"},
        {"scope": "admin"},
        {"expiresInDays": 0},
        {"expiresInDays": 367},
        {"expiresInDays": 1.5},
        {"expiresInDays": "30"},
        {"expiresInDays": 10**40},
    ],
    ids=str,
)
async def test_what_makes_no_access_token_is_400(served: Served, change: dict[str, Any]) -> None:
    body = {"name": "ci", "scope": "read"} | change

    answer = await served.client.post("/api/auth/tokens", json=body, headers=served.user)

    assert answer.status_code == 400, answer.text
    assert next(iter(change)) in answer.json()["error"]


async def test_a_read_only_token_looks_and_a_writing_one_does(served: Served) -> None:
    _, read = await access_token(served.client, served.user, "r", "read")
    _, write = await access_token(served.client, served.user, "w", "write")

    refused = await served.refused("POST", "/api/environments", bearer(read), json={"name": "a"})
    made = await served.ok("POST", "/api/environments", bearer(write), json={"name": "a"})
    shown = await served.ok("GET", f"/api/environments/{made['id']}", bearer(read))

    assert refused == (403, "READ_ONLY_TOKEN")
    assert shown["name"] == "a"
    for path in ("/api/auth/tokens", "/api/auth/sign-ins"):
        assert await served.refused("GET", path, bearer(write)) == (403, "SIGN_IN_NEEDED")


async def test_sign_ins_over_http(served: Served) -> None:
    second = await logged_in(served.client, "user@example.com")

    listed = (await served.ok("GET", "/api/auth/sign-ins", second.headers))["data"]["signIns"]

    assert set(listed[0]) == {"id", "device", "address", "createdAt", "lastUsedAt", "current"}
    assert [one["id"] for one in listed if one["current"]] == [second.sign_in_id]
    assert len(listed) == 2
    assert listed[0]["device"].startswith("python-httpx")
    path = f"/api/auth/sign-ins/{second.sign_in_id}"
    assert (await served.ok("DELETE", path, served.user))["success"] is True
    assert await served.refused("GET", "/api/auth/me", second.headers) == (401, "TOKEN_REVOKED")
    assert await served.refused("DELETE", path, served.user) == (404, "SIGN_IN_NOT_FOUND")


async def test_users_over_http(served: Served) -> None:
    path = "/api/admin/users"
    body = {"email": "new@example.com", "name": "New"}

    made = await served.ok("POST", path, served.chief, json=body)

    user = made["user"]
    assert set(made) == {"user", "link"}
    assert set(user) == {
        "id", "email", "name", "isAdmin", "emailVerified", "hasPassword", "createdAt",
        "lastLoginAt", "disabledAt",
    }  # fmt: skip
    assert made["link"]["url"].startswith("https://c.example/reset-password#token=")
    listed = await served.ok("GET", path, served.chief, params={"limit": 2})
    assert [one["email"] for one in listed["users"]] == ["chief@example.com", "new@example.com"]
    rest = await served.ok("GET", path, served.chief, params={"after": listed["next"]})
    assert ([one["email"] for one in rest["users"]], rest["next"]) == (["user@example.com"], None)

    one = f"{path}/{user['id']}"
    assert (await served.ok("POST", f"{one}/disable", served.chief))["disabledAt"] is not None
    again = await served.refused("POST", f"{one}/reset-password", served.chief)
    assert again == (409, "USER_DISABLED")
    assert (await served.ok("POST", f"{one}/enable", served.chief))["disabledAt"] is None
    reset = await served.ok("POST", f"{one}/reset-password", served.chief)
    assert reset["link"]["url"] != made["link"]["url"]
    for act in ("disable", "enable", "reset-password"):
        absent = await served.refused("POST", f"{path}/{NO_ID}/{act}", served.chief)
        assert absent == (404, "USER_NOT_FOUND")


async def test_the_only_administrator_cannot_be_disabled(served: Served) -> None:
    me = (await served.ok("GET", "/api/auth/me", served.chief))["data"]["user"]

    refused = await served.refused("POST", f"/api/admin/users/{me['id']}/disable", served.chief)

    assert refused == (409, "LAST_ADMINISTRATOR")
    await served.ok("GET", "/api/admin/users", served.chief)


async def test_invitations_over_http(served: Served) -> None:
    path = "/api/admin/invitations"
    for _ in range(2):
        await served.ok("POST", "/api/auth/invitations", served.chief, json={})

    listed = (await served.ok("GET", path, served.chief))["invitations"]

    assert len(listed) == 2
    assert set(listed[0]) == {"id", "email", "createdBy", "createdAt", "expiresAt"}
    one = f"{path}/{listed[0]['id']}"
    assert await served.ok("DELETE", one, served.chief) == {"success": True}
    assert await served.refused("DELETE", one, served.chief) == (404, "INVITATION_NOT_FOUND")
    left = (await served.ok("GET", path, served.chief))["invitations"]
    assert [one["id"] for one in left] == [listed[1]["id"]]
