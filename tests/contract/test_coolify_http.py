"""The wire form of connections to Coolify, of its applications and of hooks."""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import sqlalchemy

from craftastic.coolify.service import CoolifyService, HookOwner
from tests.conftest import BACKENDS
from tests.fakes.people import access_token, bearer, signed_in, state_of
from tests.fakes.toy_coolify import ToyCoolify
from tests.fakes.whole_app import whole_app, whole_settings
from tests.secrecy import canary

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CONNECTION = {
    *("configured", "source", "url", "version", "abilities", "missing", "problem", "advice"),
    *("checkedAt", "serverConfigured", "hook"),
}
APPLICATION = {
    *("id", "name", "branch", "repository", "status", "state", "health", "address", "matches"),
}
HOOK = re.compile(r"(?P<origin>https?://[^/]+)/api/deployment/hook/(?P<key>[A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in, or a program of theirs."""

    http: httpx.AsyncClient
    id: UUID
    headers: dict[str, str] = field(repr=False)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.http.request(method, f"/api/coolify{path}", headers=self.headers, **more)

    async def connect(self, toy: ToyCoolify, token: str) -> httpx.Response:
        return await self.ask("PUT", "/connection", json={"url": toy.url, "token": token})

    async def program(self, scope: str) -> "Person":
        _, token = await access_token(self.http, self.headers, scope, scope)
        return Person(self.http, self.id, bearer(token))


@dataclass(frozen=True, slots=True)
class Place:
    """A server, its administrator, somebody else, and a Coolify."""

    http: httpx.AsyncClient
    toy: ToyCoolify
    chief: Person
    ann: Person

    @property
    def coolify(self) -> CoolifyService:
        service: CoolifyService = state_of(self.http)["coolify"]
        return service


async def registered(http: httpx.AsyncClient, name: str, **more: str) -> Person:
    headers = await signed_in(http, f"{name}@example.com", **more)
    me = (await http.get("/api/auth/me", headers=headers)).json()["data"]["user"]
    return Person(http, UUID(me["id"]), headers)


@pytest.fixture(params=BACKENDS)
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Place]:
    with ToyCoolify() as toy:
        settings = whole_settings(
            tmp_path, copy_of_template(request.param), coolify_origins=toy.origin
        )
        async with whole_app(settings) as (http, _):
            setup = await state_of(http)["accounts"].first_account_token() or ""
            chief = await registered(http, "chief", setupToken=setup)
            yield Place(http, toy, chief, await registered(http, "ann"))


async def test_connection_is_put_shown_checked_and_removed_and_its_token_never_shown(
    place: Place,
) -> None:
    token = place.toy.token()

    before = await place.ann.ask("GET", "/connection")
    put = await place.ann.connect(place.toy, token)
    shown = await place.ann.ask("GET", "/connection")
    checked = await place.ann.ask("POST", "/connection/check")
    others = await place.chief.ask("GET", "/connection")
    removed = await place.ann.ask("DELETE", "/connection")
    again = await place.ann.ask("DELETE", "/connection")
    after = await place.ann.ask("GET", "/connection")

    assert set(before.json()) == set(put.json()) == CONNECTION
    assert before.json() == others.json() == after.json()
    assert before.json() == {
        **dict.fromkeys(CONNECTION), "configured": False, "missing": [], "serverConfigured": False,
    }  # fmt: skip
    assert put.json() == shown.json()
    assert {**put.json(), "checkedAt": ""} == {
        "configured": True,
        "source": "user",
        "url": place.toy.url,
        "version": "4.3.11",
        "abilities": {"read": True, "deploy": True, "readSensitive": None},
        "missing": [],
        "problem": None,
        "advice": None,
        "checkedAt": "",
        "serverConfigured": False,
        "hook": None,
    }
    assert MOMENT.fullmatch(put.json()["checkedAt"])
    assert {**checked.json(), "checkedAt": ""} == {**put.json(), "checkedAt": ""}
    assert removed.json() == again.json() == {"message": "Coolify disconnected"}
    for answer in (put, shown, checked, removed):
        assert answer.status_code == 200
        assert token.partition("|")[2] not in answer.text


async def test_without_a_connection_what_needs_one_is_501(place: Place) -> None:
    for method, path in (("GET", "/applications"), ("POST", "/connection/check")):
        answer = await place.ann.ask(method, path)

        assert answer.status_code == 501
        body = answer.json()
        assert set(body) == {"error", "code", "details", "requestId"}
        assert (body["error"], body["code"]) == (
            "Deployment not configured",
            "DEPLOYMENT_NOT_CONFIGURED",
        )


async def test_token_that_lacks_an_ability_is_told_with_the_way_to_a_better_one(
    place: Place,
) -> None:
    put = await place.ann.connect(place.toy, place.toy.token("deploy"))

    assert put.status_code == 200
    assert put.json()["missing"] == ["read"]
    assert put.json()["problem"]["code"] == "COOLIFY_ABILITY_MISSING"
    assert "tick deploy first" in put.json()["problem"]["message"]


async def test_what_coolify_refuses_is_an_error_that_does_not_repeat_the_token(
    place: Place,
) -> None:
    dead = place.toy.token()
    place.toy.kill_token(dead)

    rejected = await place.ann.connect(place.toy, dead)
    place.toy.api_enabled = False
    off = await place.ann.connect(place.toy, place.toy.token())
    place.toy.fault("/*", drop=True, times=5)
    silent = await place.ann.connect(place.toy, place.toy.token())

    for answer, status, code in (
        (rejected, 400, "COOLIFY_TOKEN_REJECTED"),
        (off, 409, "COOLIFY_API_DISABLED"),
        (silent, 503, "COOLIFY_UNAVAILABLE"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["error"]
        assert dead.partition("|")[2] not in answer.text
    assert (await place.ann.ask("GET", "/connection")).json()["configured"] is False


SECRET = canary("coolify")
ADDRESS = "https://coolify.example.com"
NEVER: list[tuple[object, object]] = [
    ("https://u:p@coolify.example.com", f"7|{SECRET}"),
    ("ftp://coolify.example.com", f"7|{SECRET}"),
    ("coolify.example.com", f"7|{SECRET}"),
    ("https://coolify.example.com?x", f"7|{SECRET}"),
    ("", f"7|{SECRET}"),
    (f"https://{'a' * 300}", f"7|{SECRET}"),
    ("http://127.0.0.1:9", f"7|{SECRET}"),
    ("https://10.0.0.1", f"7|{SECRET}"),
    ("https://169.254.169.254", f"7|{SECRET}"),
    ("http://coolify.example.com", f"7|{SECRET}"),
    (ADDRESS, ""),
    (ADDRESS, f"7|{SECRET} and more"),
    (ADDRESS, f"7|{SECRET}\r\nX-Evil: 1"),
    (ADDRESS, f"7|{SECRET}\0"),
    (ADDRESS, f"7|{SECRET}{'x' * 500}"),
    (ADDRESS, [f"7|{SECRET}"]),
    (ADDRESS, None),
    (None, f"7|{SECRET}"),
]


async def test_a_body_that_cannot_be_is_400_and_not_repeated(place: Place) -> None:
    for url, token in NEVER:
        answer = await place.ann.ask("PUT", "/connection", json={"url": url, "token": token})

        assert answer.status_code == 400, (url, answer.text)
        assert answer.json()["error"]
        assert SECRET not in answer.text
        assert "repository" not in answer.text.lower()
    assert (await place.ann.ask("GET", "/connection")).json()["configured"] is False


async def test_applications_of_the_environments_repository_come_first(place: Place) -> None:
    await place.ann.connect(place.toy, place.toy.token())
    for name, repository in (
        ("beta", "https://github.com/example/other"),
        ("Alpha", None),
        ("zulu", "git@github.com:Example/Web.git"),
        ("yankee", "example/web"),
    ):
        place.toy.application(name, repository=repository)
    environment = await environment_of(place, place.ann, "https://github.com/example/web")

    plain = await place.ann.ask("GET", "/applications")
    found = await place.ann.ask("GET", f"/applications?environmentId={environment}")

    assert [one["name"] for one in plain.json()["applications"]] == [
        "Alpha", "beta", "yankee", "zulu",
    ]  # fmt: skip
    assert not any(one["matches"] for one in plain.json()["applications"])
    assert [(one["name"], one["matches"]) for one in found.json()["applications"]] == [
        ("yankee", True), ("zulu", True), ("Alpha", False), ("beta", False),
    ]  # fmt: skip
    first = found.json()["applications"][0]
    assert set(first) == APPLICATION
    assert first | {"id": ""} == {
        "id": "",
        "name": "yankee",
        "branch": "main",
        "repository": "example/web",
        "status": "running:healthy",
        "state": "running",
        "health": "healthy",
        "address": "https://web.example.com",
        "matches": True,
    }


async def test_someone_elses_environment_is_as_absent_as_none(place: Place) -> None:
    await place.ann.connect(place.toy, place.toy.token())
    chiefs = await environment_of(place, place.chief, "https://github.com/example/web")

    foreign = await place.ann.ask("GET", f"/applications?environmentId={chiefs}")
    absent = await place.ann.ask("GET", f"/applications?environmentId={uuid4()}")
    malformed = await place.ann.ask("GET", "/applications?environmentId=x")

    assert foreign.status_code == absent.status_code == 404
    assert foreign.json() | {"requestId": ""} == absent.json() | {"requestId": ""}
    assert malformed.status_code == 400


async def test_hook_is_shown_once_and_known_afterwards(place: Place) -> None:
    made = await place.ann.ask("POST", "/hook")
    shown = await place.ann.ask("GET", "/connection")
    match = HOOK.fullmatch(made.json()["url"])
    assert match is not None
    owner = await place.coolify.hook_owner(match["key"])
    used = await place.ann.ask("GET", "/connection")
    removed = await place.ann.ask("DELETE", "/hook")
    gone = await place.ann.ask("GET", "/connection")

    assert made.status_code == 200
    assert list(made.json()) == ["url"]
    assert match["origin"] == state_of(place.http)["settings"].base_url
    assert owner == HookOwner(place.ann.id)
    assert set(shown.json()["hook"]) == {"createdAt", "lastUsedAt"}
    assert shown.json()["hook"]["lastUsedAt"] is None
    assert MOMENT.fullmatch(used.json()["hook"]["lastUsedAt"])
    assert match["key"] not in shown.text + used.text
    assert removed.json() == {"message": "Hook removed"}
    assert gone.json()["hook"] is None
    assert await place.coolify.hook_owner(match["key"]) is None


async def test_servers_hook_is_made_and_removed_by_an_administrator_alone(place: Place) -> None:
    refused = [await place.ann.ask(method, "/server-hook") for method in ("POST", "DELETE")]
    made = await place.chief.ask("POST", "/server-hook")
    match = HOOK.fullmatch(made.json()["url"])
    assert match is not None
    owner = await place.coolify.hook_owner(match["key"])
    still_refused = await place.ann.ask("DELETE", "/server-hook")
    removed = await place.chief.ask("DELETE", "/server-hook")

    for answer in (*refused, still_refused):
        assert (answer.status_code, answer.json()["code"]) == (403, "ADMIN_NEEDED")
    assert owner == HookOwner(None)
    assert (removed.status_code, removed.json()) == (200, {"message": "Hook removed"})
    assert await place.coolify.hook_owner(match["key"]) is None


async def test_programs_may_look_and_check_but_not_change_who_deploys_where(place: Place) -> None:
    await place.ann.connect(place.toy, place.toy.token())
    writes, reads = await place.ann.program("write"), await place.ann.program("read")
    body = {"url": place.toy.url, "token": place.toy.token()}

    looked = [await one.ask("GET", "/connection") for one in (writes, reads)]
    listed = [await one.ask("GET", "/applications") for one in (writes, reads)]
    checked = await writes.ask("POST", "/connection/check")
    refused = [
        await writes.ask("PUT", "/connection", json=body),
        await writes.ask("DELETE", "/connection"),
        await writes.ask("POST", "/hook"),
        await writes.ask("DELETE", "/hook"),
    ]

    assert {one.status_code for one in (*looked, *listed, checked)} == {200}
    assert {(one.status_code, one.json()["code"]) for one in refused} == {(403, "SIGN_IN_NEEDED")}
    assert (await reads.ask("POST", "/connection/check")).status_code == 403


async def test_coolify_that_asks_to_be_left_alone_is_429_with_the_time(place: Place) -> None:
    await place.ann.connect(place.toy, place.toy.token())
    place.toy.fault("/applications", 429, headers={"Retry-After": "60"})

    first = await place.ann.ask("GET", "/applications")
    second = await place.ann.ask("POST", "/connection/check")

    assert first.status_code == second.status_code == 429
    assert first.json()["code"] == second.json()["code"] == "COOLIFY_BUSY"
    assert int(first.headers["Retry-After"]) == 60
    assert 50 < int(second.headers["Retry-After"]) <= 60


async def environment_of(place: Place, owner: Person, repository: str) -> str:
    """Make an environment, and write this repository to it, which nobody clones."""
    made = await place.http.post("/api/environments", json={"name": "mine"}, headers=owner.headers)
    assert made.status_code == 200, made.text
    async with place.coolify.database.begin() as tx:
        await tx.execute(
            sqlalchemy.text("UPDATE environments SET repository_url = :url"), {"url": repository}
        )
    return str(made.json()["id"])
