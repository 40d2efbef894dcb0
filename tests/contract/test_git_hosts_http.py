"""The wire form of git hosts."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import BACKENDS
from tests.fakes.whole_app import whole_app, whole_settings
from tests.secrecy import canary

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CANARY = "glpat-canary-3f9c"
HOSTS = "/api/git/hosts"


@pytest.fixture(params=BACKENDS)
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[httpx.AsyncClient]:
    async with whole_app(whole_settings(tmp_path, copy_of_template(request.param))) as (client, _):
        await sign_in(client, "a@example.com")
        yield client


async def sign_in(client: httpx.AsyncClient, email: str) -> None:
    """Register somebody; the client is theirs from then on."""
    body = {"email": email, "password": canary("password"), "name": "A"}
    answer = await client.post("/api/auth/register", json=body)
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['data']['accessToken']}"


async def test_a_host_is_put_listed_replaced_and_removed_and_its_password_never_shown(
    client: httpx.AsyncClient,
) -> None:
    body = {"origin": "https://GitLab.example.com/", "password": CANARY}

    put = await client.put(HOSTS, json=body)
    listed = await client.get(HOSTS)
    replaced = await client.put(HOSTS, json={**body, "username": "me"})
    host = put.json()["data"]["host"]
    removed = await client.delete(f"{HOSTS}/{host['id']}")
    gone = await client.delete(f"{HOSTS}/{host['id']}")
    empty = await client.get(HOSTS)

    assert put.status_code == replaced.status_code == 200
    assert set(host) == {"id", "origin", "username", "createdAt", "updatedAt"}
    assert (host["origin"], host["username"]) == ("https://gitlab.example.com", "oauth2")
    assert MOMENT.fullmatch(host["createdAt"])
    assert listed.json() == {"success": True, "data": {"hosts": [host]}}
    assert replaced.json()["data"]["host"]["id"] == host["id"]
    assert replaced.json()["data"]["host"]["username"] == "me"
    assert removed.json() == {"success": True, "message": "Git host removed"}
    assert gone.status_code == 404
    assert gone.json()["error"] == "Git host not found"
    assert (gone.json()["success"], gone.json()["code"]) == (False, "GIT_HOST_NOT_FOUND")
    assert empty.json()["data"] == {"hosts": []}
    for answer in (put, listed, replaced, removed):
        assert CANARY not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"origin": "https://gitlab.example.com"},
        {"origin": "https://gitlab.example.com", "password": ""},
        {"origin": "https://gitlab.example.com", "password": "x" * 2001},
        {"origin": "https://gitlab.example.com", "password": f"{CANARY}\n"},
        {"origin": "https://gitlab.example.com", "password": f"{CANARY}\u0000"},
        {"origin": "https://gitlab.example.com", "password": [CANARY]},
        {"origin": "https://gitlab.example.com", "password": CANARY, "username": "a:b"},
        {"origin": "https://gitlab.example.com", "password": CANARY, "username": "x" * 256},
        {"origin": "https://gitlab.example.com/group", "password": CANARY},
        {"origin": "https://u:p@gitlab.example.com", "password": CANARY},
        {"origin": "http://gitlab.example.com", "password": CANARY},
        {"origin": "https://gitlab.example.com:8443", "password": CANARY},
        {"origin": "https://127.0.0.1", "password": CANARY},
        {"origin": "gitlab.example.com", "password": CANARY},
    ],
)
async def test_a_body_that_cannot_be_is_400_and_not_repeated(
    client: httpx.AsyncClient, body: dict[str, object]
) -> None:
    answer = await client.put(HOSTS, json=body)

    assert answer.status_code == 400, answer.text
    assert answer.json()["success"] is False
    assert answer.json()["error"]
    assert CANARY not in answer.text
    assert (await client.get(HOSTS)).json()["data"] == {"hosts": []}


async def test_hosts_are_their_owners_alone(client: httpx.AsyncClient) -> None:
    body = {"origin": "https://gitlab.example.com", "password": CANARY}
    host = (await client.put(HOSTS, json=body)).json()["data"]["host"]
    await sign_in(client, "b@example.com")

    foreign = await client.delete(f"{HOSTS}/{host['id']}")
    absent = await client.delete(f"{HOSTS}/{uuid4()}")

    assert (await client.get(HOSTS)).json()["data"] == {"hosts": []}
    assert foreign.status_code == absent.status_code == 404
    assert {**foreign.json(), "requestId": ""} == {**absent.json(), "requestId": ""}
