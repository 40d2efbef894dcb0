"""The GitHub routes exactly as clients know them, on both databases."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from craftastic.accounts import endpoints as accounts_endpoints
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.service import AccountService
from craftastic.database import Database
from craftastic.github import endpoints
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.github_rig import GitHubRig, github_rig
from tests.fakes.toy_github import REDEEM, ToyGitHub
from tests.secrecy import canary

PASSWORD = canary("password")
ITEM = [
    "id", "name", "full_name", "description", "html_url", "clone_url", "ssh_url", "private",
    "default_branch", "updated_at", "language", "stargazers_count", "open_issues_count",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who is signed in."""

    http: httpx.AsyncClient
    rig: GitHubRig
    headers: dict[str, str] = field(repr=False)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.http.request(
            method, f"/api/auth/github{path}", headers=self.headers, **more
        )

    async def poll(self, device_code: str) -> httpx.Response:
        return await self.ask("POST", "/poll", json={"deviceCode": device_code, "interval": 5})

    async def connect(self, login: str) -> dict[str, Any]:
        flow = (await self.ask("POST", "/initiate")).json()["data"]
        self.rig.toy.approve(flow["user_code"], login)
        return (await self.ended(flow["device_code"])).json()

    async def ended(self, device_code: str) -> httpx.Response:
        """Poll until the flow has ended."""
        with anyio.fail_after(15):
            while True:
                answer = await self.poll(device_code)
                if answer.json().get("pending") is None:
                    return answer
                await anyio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Door:
    app: FastAPI
    accounts: AccountService
    rig: GitHubRig

    async def person(self, http: httpx.AsyncClient, name: str) -> Client:
        body = {"email": f"{name}@there.example.com", "password": PASSWORD, "name": name}
        made = await http.post("/api/auth/register", json=body)
        token = made.json()["data"]["accessToken"]
        return Client(http, self.rig, {"Authorization": f"Bearer {token}"})


@pytest.fixture
async def door(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Door]:
    made = FastAPI(openapi_url=None, redirect_slashes=False)
    errors.install(made)
    middleware.install(made, metrics=Metrics(), max_body_bytes=1 << 20)
    made.include_router(accounts_endpoints.router)
    made.include_router(endpoints.router)
    accounts = AccountService(
        database, clock, AccessTokens(b"k" * 32, 900), tmp_path / "keys", registration="open"
    )
    toy = ToyGitHub(kind="oauth", interval=0.05, slow_down_step=0.05)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        yield Door(made, accounts, rig)


@pytest.fixture
async def http(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    github = await door.rig.server(github_webhook_secret="hook")
    async with client_of(door.app, accounts=door.accounts, github=github) as http:
        yield http


@pytest.fixture
async def alice(door: Door, http: httpx.AsyncClient) -> Client:
    return await door.person(http, "a")


async def test_initiate_takes_no_body_and_answers_githubs_fields(alice: Client) -> None:
    answer = await alice.ask("POST", "/initiate")

    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["success", "data"]
    assert list(body["data"]) == [
        "device_code",
        "user_code",
        "verification_uri",
        "expires_in",
        "interval",
    ]
    assert body["data"]["expires_in"] == 900
    assert body["data"]["device_code"] not in alice.rig.toy.flows


async def test_a_poll_says_pending_then_completed(alice: Client) -> None:
    flow = (await alice.ask("POST", "/initiate")).json()["data"]

    pending = await alice.poll(flow["device_code"])
    done = await alice.connect("octocat")

    assert pending.status_code == 200
    body = pending.json()
    assert body.pop("message")
    assert body == {
        "success": False,
        "pending": True,
        "error": "authorization_pending",
        "interval": flow["interval"],
    }
    assert done == {"success": True, "message": "GitHub authentication completed"}


async def test_a_flow_that_ended_is_400_with_githubs_word(alice: Client) -> None:
    flow = (await alice.ask("POST", "/initiate")).json()["data"]
    alice.rig.toy.deny(flow["user_code"])
    answer = await alice.ended(flow["device_code"])

    body = answer.json()
    assert answer.status_code == 400
    assert (body["success"], body["error"]) == (False, "access_denied")
    assert body["code"] == "GITHUB_DEVICE_FLOW_FAILED"
    assert "cancelled" in body["message"]


async def test_a_flow_of_somebody_else_is_404(
    door: Door, http: httpx.AsyncClient, alice: Client
) -> None:
    bob = await door.person(http, "b")
    flow = (await alice.ask("POST", "/initiate")).json()["data"]

    answers = [await bob.poll(code) for code in (flow["device_code"], "f" * 40, "", "é" * 200)]

    for answer in answers:
        assert answer.status_code == 404
        body = answer.json()
        assert (body["success"], body["code"]) == (False, "GITHUB_FLOW_NOT_FOUND")
    assert len({answer.json()["error"] for answer in answers}) == 1
    assert door.rig.toy.count(REDEEM) == 0


async def test_a_taken_account_is_409(door: Door, http: httpx.AsyncClient, alice: Client) -> None:
    await alice.connect("octocat")
    bob = await door.person(http, "b")

    body = await bob.connect("octocat")

    assert (body["success"], body["code"]) == (False, "GITHUB_ACCOUNT_TAKEN")


async def test_status_tells_what_clients_read_and_a_little_more(alice: Client) -> None:
    before = (await alice.ask("GET", "/status")).json()
    await alice.connect("octocat")
    after = (await alice.ask("GET", "/status")).json()

    assert (before["data"]["connected"], before["data"]["username"]) == (False, None)
    assert after == {
        "success": True,
        "data": {
            "connected": True,
            "username": "octocat",
            "configured": True,
            "needsReconnect": False,
            "reason": None,
            "kind": "oauth",
            "scopes": ["repo", "read:user", "user:email"],
            "missingScopes": [],
            "installUrl": None,
        },
    }


async def test_disconnect_answers_the_same_whether_connected_or_not(alice: Client) -> None:
    await alice.connect("octocat")

    answers = [await alice.ask("DELETE", "/disconnect") for _ in range(2)]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.json() == {"success": True, "message": "GitHub account disconnected"}
    assert alice.rig.toy.tokens_valid() == set()


async def test_repositories_have_exactly_the_fields_of_the_contract(alice: Client) -> None:
    await alice.connect("octocat")
    alice.rig.toy.add_repository("octocat", "octocat/a", private=True, description="x")
    alice.rig.toy.add_repository("octocat", "octocat/b")

    answer = await alice.ask("GET", "/repos?per_page=1&sort=full_name")

    assert answer.status_code == 200
    data = answer.json()["data"]
    (item,) = data.pop("repositories")
    assert list(item) == ITEM
    assert (item["name"], item["private"], item["description"]) == ("a", True, "x")
    assert data == {
        "page": 1,
        "per_page": 1,
        "total_count": 1,
        "has_more": True,
        "next_page": 2,
        "install_url": None,
        "sso_url": None,
    }


async def test_repositories_without_a_connection_are_400(alice: Client) -> None:
    answer = await alice.ask("GET", "/repos")

    assert answer.status_code == 400
    assert answer.json()["error"] == "GitHub authentication required"


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "per_page=101", "per_page=0", "sort=stars", "q=" + "x" * 201]
)
async def test_a_wrong_query_is_400_in_words(alice: Client, query: str) -> None:
    answer = await alice.ask("GET", f"/repos?{query}")

    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


async def test_a_limited_github_is_429_with_the_time_to_wait(alice: Client) -> None:
    await alice.connect("octocat")
    alice.rig.toy.fail("/user/repos", 403, headers={"Retry-After": "17"})

    answer = await alice.ask("GET", "/repos")

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")
    assert answer.json()["code"] == "GITHUB_RATE_LIMITED"


async def test_without_a_client_id_initiate_is_501_and_status_says_so(door: Door) -> None:
    github = await door.rig.server(github_client_id="")
    async with client_of(door.app, accounts=door.accounts, github=github) as http:
        alice = await door.person(http, "a")
        answer = await alice.ask("POST", "/initiate")
        status = await alice.ask("GET", "/status")

    assert answer.status_code == 501
    assert answer.json()["error"] == "GitHub is not configured"
    assert "GITHUB_CLIENT_ID" in answer.json()["details"]
    assert status.json()["data"]["configured"] is False
    assert status.json()["data"]["connected"] is False


@pytest.mark.parametrize("body", [b"{}", b'{"action": "revoked", "sender": {"id": 1000}}'])
async def test_a_webhook_needs_its_signature(
    http: httpx.AsyncClient, alice: Client, body: bytes
) -> None:
    await alice.connect("octocat")
    right = "sha256=" + hmac.new(b"hook", body, hashlib.sha256).hexdigest()
    path, event = "/api/auth/github/webhook", {"X-GitHub-Event": "github_app_authorization"}

    for wrong in ("", "sha256=", right[:-1], right.upper(), "sha1=" + right[7:], "é"):
        headers = event | {"X-Hub-Signature-256": wrong}
        encoded = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
        answer = await http.post(path, content=body, headers=encoded)
        assert answer.status_code == 403, wrong
        assert answer.json()["code"] == "GITHUB_WEBHOOK_SIGNATURE_WRONG"
    assert (await alice.ask("GET", "/status")).json()["data"]["connected"]

    good = await http.post(path, content=body, headers=event | {"X-Hub-Signature-256": right})
    acts = b"1000" in body
    assert (good.status_code, good.json()) == (200, {"success": True, "acted": acts})
    assert (await alice.ask("GET", "/status")).json()["data"]["connected"] is not acts


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"action":"revoked"}'])
async def test_a_signed_webhook_that_is_not_readable_is_400(
    http: httpx.AsyncClient, body: bytes
) -> None:
    right = "sha256=" + hmac.new(b"hook", body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "github_app_authorization", "X-Hub-Signature-256": right}

    answer = await http.post("/api/auth/github/webhook", content=body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "GITHUB_WEBHOOK_INVALID")


async def test_without_its_secret_the_webhook_is_501(door: Door) -> None:
    github = await door.rig.server()
    async with client_of(door.app, accounts=door.accounts, github=github) as http:
        answer = await http.post("/api/auth/github/webhook", content=b"{}")

    assert (answer.status_code, answer.json()["code"]) == (501, "GITHUB_WEBHOOK_NOT_CONFIGURED")
