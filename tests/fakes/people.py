"""Everybody who may send a request to the whole app, with what each of them has to show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import anyio
import httpx

from craftastic.access_tokens._repository import AccessTokenRow
from craftastic.app import State
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.runtimes.memory import Call, MemoryRuntime, Process
from tests.fakes.asgi import WithState
from tests.secrecy import canary

PASSWORD = canary("password")
ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Person:
    """One user, signed in."""

    email: str
    id: str
    sign_in_id: str
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class People:
    """The headers of each kind of caller; `owner` owns something of everything, when it is made."""

    owner: Person
    other: Person
    administrator: Person
    disabled: Person
    bystander: Person
    """Whom administrators may do anything to, without ending one of the others."""

    headers: dict[str, dict[str, str]] = field(repr=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def state_of(client: httpx.AsyncClient) -> State:
    """Return the services behind a client of the whole app."""
    return client._transport.app.state  # type: ignore[attr-defined] - made by `client_of`


async def signed_in(client: httpx.AsyncClient, email: str, **more: str) -> dict[str, str]:
    """Register, and return the headers of whoever did."""
    body = {"email": email, "password": PASSWORD, "name": "A", **more}
    answer = await client.post("/api/auth/register", json=body)
    assert answer.status_code == 200, answer.text
    return bearer(answer.json()["data"]["accessToken"])


async def logged_in(client: httpx.AsyncClient, email: str) -> Person:
    body = {"email": email, "password": PASSWORD}
    answer = await client.post("/api/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    return await _person(client, email, bearer(answer.json()["data"]["accessToken"]))


async def access_token(
    client: httpx.AsyncClient, of: Mapping[str, str], name: str, scope: str
) -> tuple[str, str]:
    """Make a personal access token; return its id and its text."""
    body = {"name": name, "scope": scope, "expiresInDays": 1}
    answer = await client.post("/api/auth/tokens", json=body, headers=of)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    return data["token"]["id"], data["secret"]


async def people_of(client: httpx.AsyncClient) -> People:
    """Make one of each kind of caller."""
    state = state_of(client)
    setup = await state["accounts"].first_account_token() or ""
    chief = await signed_in(client, "chief@example.com", setupToken=setup)
    administrator = await _person(client, "chief@example.com", chief)
    owner, other, disabled, bystander = [
        await _person(client, f"{name}@example.com", await signed_in(client, f"{name}@example.com"))
        for name in ("owner", "other", "disabled", "bystander")
    ]
    gone = await logged_in(client, owner.email)
    _, read = await access_token(client, owner.headers, "read", "read")
    _, write = await access_token(client, owner.headers, "write", "write")
    _, chiefs = await access_token(client, chief, "write", "write")
    _, of_disabled = await access_token(client, disabled.headers, "write", "write")
    old_id, old = await access_token(client, owner.headers, "old", "write")
    lost_id, lost = await access_token(client, owner.headers, "lost", "write")

    await client.delete(f"/api/auth/sign-ins/{gone.sign_in_id}", headers=owner.headers)
    await client.delete(f"/api/auth/tokens/{lost_id}", headers=owner.headers)
    await client.post(f"/api/admin/users/{disabled.id}/disable", headers=chief)
    await _expire(state["accounts"].database, old_id)
    good = owner.headers["Authorization"]
    headers = {
        "anonymous": {},
        "broken": bearer("broken"),
        "forged": {"Authorization": good[:-3] + "AAA"},
        "wrong scheme": {"Authorization": good.replace("Bearer", "Token")},
        "by name": {"x-test-user-id": owner.id, "x-forwarded-user": owner.email},
        "expired": bearer(_expired(state, owner)),
        "signed out": gone.headers,
        "disabled": disabled.headers,
        "disabled user's token": bearer(of_disabled),
        "expired token": bearer(old),
        "revoked token": bearer(lost),
        "unknown token": bearer("craft_" + "A" * 43),
        "owner": owner.headers,
        "other": other.headers,
        "administrator": chief,
        "read-only token": bearer(read),
        "token": bearer(write),
        "administrator's token": bearer(chiefs),
    }
    return People(owner, other, administrator, disabled, bystander, headers)


async def asked(
    client: httpx.AsyncClient, method: str, path: str, headers: Mapping[str, str]
) -> httpx.Response:
    """Send a request and go away when it is answered well: such an answer may have no end."""
    sent: list[bool] = []
    enough = anyio.Event()
    answer: dict[str, Any] = {}
    body = bytearray()

    async def receive() -> dict[str, Any]:
        if not sent:
            sent.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.update(message)
        body.extend(message.get("body", b""))
        if answer["status"] == HTTPStatus.OK:
            enough.set()

    with anyio.fail_after(ANSWER_S):
        await _app_of(client)(_scope("http", path, headers) | {"method": method}, receive, send)
    return httpx.Response(answer["status"], headers=answer["headers"], content=bytes(body))


async def terminal_of(
    client: httpx.AsyncClient,
    runtime: MemoryRuntime,
    values: Mapping[str, str],
    headers: Mapping[str, str],
) -> tuple[int, str] | None:
    """Open a session's terminal with a caller's token, and go away when it gets to the sandbox.

    Returns:
        How the terminal was closed; None when it got there.
    """
    token = headers.get("Authorization", "").removeprefix("Bearer ")
    query = urlencode({"environmentId": values["environment_id"], "token": token})
    path = f"/api/terminal/ws/{values['session_id']}"
    closed: list[tuple[int, str]] = []
    told = anyio.Event()
    connected: list[bool] = []

    async def receive() -> dict[str, Any]:
        if not connected:
            connected.append(True)
            return {"type": "websocket.connect"}
        await told.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            closed.append((message["code"], message.get("reason") or ""))
        if message["type"] != "websocket.accept":
            told.set()

    async def reached(_process: Process, _call: Call) -> None:
        told.set()
        await anyio.sleep_forever()

    runtime.play = reached
    scope = _scope("websocket", path, {}) | {"query_string": query.encode(), "subprotocols": []}
    with anyio.fail_after(ANSWER_S):
        await _app_of(client)(scope, receive, send)
    return closed[0] if closed else None


def _app_of(client: httpx.AsyncClient) -> WithState:
    return client._transport.app  # type: ignore[attr-defined] - made by `client_of`


def _scope(kind: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 1),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in {"host": "127.0.0.1:3000", **headers}.items()
        ],
    }


async def _person(client: httpx.AsyncClient, email: str, headers: dict[str, str]) -> Person:
    me = (await client.get("/api/auth/me", headers=headers)).json()["data"]["user"]
    listed = (await client.get("/api/auth/sign-ins", headers=headers)).json()["data"]["signIns"]
    current = next(one["id"] for one in listed if one["current"])
    return Person(email, me["id"], current, headers)


def _expired(state: State, person: Person) -> str:
    return state["accounts"].access_tokens.issue(
        user_id=UUID(person.id),
        sign_in_id=UUID(person.sign_in_id),
        token_version=1,
        email=person.email,
        name="A",
        email_verified=False,
        now=SystemClock().now() - timedelta(hours=1),
    )


async def _expire(database: Database, token_id: str) -> None:
    async with database.begin() as tx:
        row = await tx.get(AccessTokenRow, UUID(token_id))
        assert row is not None
        row.expires_at = SystemClock().now() - timedelta(seconds=1)
