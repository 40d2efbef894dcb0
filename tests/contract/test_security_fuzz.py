"""Requests that nobody sane would send, made from the API's own document, to every route.

SEC-48 and SEC-52: whatever comes, the answer is ours, below 500, and tells nothing of the inside.
SEC-09: texts that a shell or git would take for more than texts reach neither.
SEC-40: no header but the bearer token says who is calling.
"""

import json
import os
import random
import re
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import anyio
import httpx
import pytest
from fastapi import FastAPI

from craftastic.app import build_app
from craftastic.http.health import schema
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.settings import Settings
from tests.conftest import BACKENDS
from tests.fakes.whole_app import filled, something_of_everything, whole_app, whole_settings
from tests.secrecy import canary, forget

pytestmark = pytest.mark.slow

PASSWORD = canary("password")
ROUNDS = 12
"""Bodies per route; the seed is the route's name, so a failure comes back."""

HALF = 0.5
ENDS_SIGN_INS = "POST /api/auth/logout-all"
ENDLESS = "GET /api/events"
"""Answers as long as the client stays; its own tests send it all kinds of ids."""

LEAKS = re.compile(
    r'Traceback|File "|\.py\b|/site-packages|/usr/|/var/|/root/|sqlalchemy|asyncpg|aiosqlite'
    r"|\b(?:SELECT|INSERT|UPDATE|DELETE) [a-z*]|pydantic|<class|object at 0x|\bException\b",
    re.IGNORECASE,
)
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, -1e308, 1.5, "", " ", "a", "\0", "a\0b",
    "\ud800", "\udfff\ud800", "\x1b[31m", "a\nb", "\u202eabc", "\ufeff", "é" * 300, "x" * 5000,
    "🚀", "../../etc/passwd", "%2e%2e%2f", "' OR 1=1 --", '"; DROP TABLE users; --', "{{7*7}}",
    "${jndi:ldap://x}", "<script>", "NaN", "Infinity", "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff", "urn:uuid:00000000-0000-4000-8000-000000000000",
    [], [[]], ["a"] * 50, {}, {"a": {"b": {"c": [None]}}}, {"": ""}, {"$gt": ""}, {"__proto__": {}},
]  # fmt: skip
RAW = [
    b"", b"{", b"[", b"nul", b"NaN", b'{"a":NaN}', b'{"a":1e999}', b"\xff\xfe{}", b"\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 20_000, b'{"a":' * 10_000, b'{"name":"\\ud800"}', b'{"name":"\xed\xa0\x80"}',
    b'{"name":' + b"9" * 10_000 + b"}", b'{"name":"a","name":"b"}', b'"' + b"a" * 200_000 + b'"',
]  # fmt: skip
TYPES = [
    "application/json", "application/json; charset=utf-7", "application/json;charset=\u00fc",
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml",
    "multipart/form-data; boundary=x", "application/cbor", "a", "",
]  # fmt: skip
BAD_SEGMENTS = [
    "%00", "%ff", "%ed%a0%80", "%2f", "%2e%2e", "..%2f..%2fetc", "%0d%0aX-Evil:%201", "%25s",
    "%27%20OR%201=1--", "%f0%9f%9a%80", "a" * 3000, "%1b%5b31m", "%c2%9b", "~", "*", "%5c", "-1",
    "urn:uuid:00000000-0000-4000-8000-000000000000", "%7b00000000000040008000000000000000%7d",
]  # fmt: skip
INJECTIONS = [
    ";touch {0}", "$(touch {0})", "`touch {0}`", "|touch {0}", "\ntouch {0}\n", "&& touch {0}",
    "--upload-pack=touch {0}", "-u touch {0}", "--output={0}", "-c core.sshCommand=touch {0}",
    "ext::sh -c touch% {0}", "@{0}", "'; touch {0}; '", "#(touch {0})", "#{{l:x}}#(touch {0})",
    "file://{0}", "ssh://-oProxyCommand=touch {0}/x", "http://x/;touch {0}", "%(touch {0})",
]  # fmt: skip


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    fields: dict[str, Any]
    query: list[str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations(app: FastAPI) -> Iterator[Operation]:
    document = schema(app)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            shape = content.get("application/json", {}).get("schema", {})
            for option in (shape, *shape.get("anyOf", ())):
                if reference := option.get("$ref"):
                    shape = document["components"]["schemas"][reference.rpartition("/")[2]]
            query = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            yield Operation(method.upper(), path, shape.get("properties", {}), query)


OPERATIONS = list(operations(build_app(Settings.model_validate({"data_dir": "/nonexistent"}))))


@dataclass(frozen=True)
class Target:
    """The app with a user in it and something of everything."""

    client: httpx.AsyncClient
    headers: dict[str, str]
    values: dict[str, str]
    runtime: MemoryRuntime
    database: str


@pytest.fixture(params=BACKENDS)
async def target(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Target]:
    settings = whole_settings(
        tmp_path, copy_of_template(request.param), max_environments_per_user=5000
    )
    async with whole_app(settings) as (client, runtime):
        answer = await client.post(
            "/api/auth/register",
            json={"email": "a@example.com", "password": PASSWORD, "name": "A",
                  "setupToken": await first_account_token(settings)},
        )  # fmt: skip
        headers = {"Authorization": f"Bearer {answer.json()['data']['accessToken']}"}
        values = await something_of_everything(client, headers)
        yield Target(client, headers, values, runtime, request.param)


async def first_account_token(settings: Settings) -> str:
    return (await anyio.Path(settings.keys_dir / "first-account-token").read_text()).strip()


ON_ONE = pytest.mark.parametrize("target", ["sqlite"], indirect=True)
"""What no database sees, or sees only as a value, is tried on one of them."""


def check(answer: httpx.Response, what: str) -> None:
    unset = answer.status_code == 501 and str(answer.json()["code"]).endswith("NOT_CONFIGURED")
    assert answer.status_code < 500 or unset, f"{what}: {answer.status_code} {answer.text[:500]}"
    if answer.status_code < 400:
        return
    body = answer.json()
    assert isinstance(body["error"], str), f"{what}: {answer.text[:500]}"
    assert body["error"], what
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", body["code"]), f"{what}: {answer.text[:500]}"
    assert body["requestId"] == answer.headers["x-request-id"], what
    # What was sent may be shown again; what is ours may not tell.
    told = json.dumps({key: body[key] for key in body if key != "details"})
    assert len(answer.content) < 5000, what
    assert LEAKS.search(told) is None, f"{what}: {answer.text[:500]}"


def shaped(operation: Operation, dice: random.Random, values: dict[str, str]) -> Iterator[Any]:
    """Yield bodies that have the fields of the document, with everything in them."""
    good: dict[str, Any] = {
        "environmentId": values["environment_id"], "userId": values["user_id"],
        "email": "b@example.com", "password": PASSWORD, "name": "b", "refreshToken": "x",
        "branch": "b", "status": "inactive", "sessionType": "terminal",
    }  # fmt: skip
    names = list(operation.fields)
    base = {name: good[name] for name in names if name in good}
    for name in names:
        yield from (base | {name: value} for value in VALUES)
    for _ in range(ROUNDS if names else 0):
        chosen = {name: dice.choice(VALUES) for name in names if dice.random() < HALF}
        yield base | chosen | {dice.choice(["x", "__class__", "a.b", "\0"]): dice.choice(VALUES)}
    yield from VALUES[:: 1 if names else 4]


async def test_no_body_makes_more_than_a_refusal(target: Target) -> None:
    for operation in OPERATIONS:
        if str(operation) not in {ENDS_SIGN_INS, ENDLESS}:
            await fuzz_bodies(target, operation)
    forget(because="the same texts are tried as passwords, tokens and names")


async def fuzz_bodies(target: Target, operation: Operation) -> None:
    # What is deleted is nobody's: the owner's own things are needed to the end.
    absent = {key: str(uuid4()) for key in target.values}
    path = filled(operation.path, absent if operation.method == "DELETE" else target.values)
    dice = random.Random(str(operation))  # noqa: S311 - repeatable, not secret
    bodies = [json.dumps(one).encode() for one in shaped(operation, dice, target.values)]
    sent = [(TYPES[0], body) for body in (*bodies, *RAW)]
    sent += [(kind, body) for kind in TYPES[1:] for body in (b"", b"{}", b"\xff")]
    # The other database sees every third: what differs there is what it does with texts.
    for kind, content in sent[:: 1 if target.database == "sqlite" else 3]:
        answer = await target.client.request(
            operation.method,
            path,
            content=content,
            headers=target.headers | {"content-type": kind.encode("latin-1")},  # type: ignore[dict-item]
        )
        check(answer, f"{operation} {kind} {content[:200]!r}")


@ON_ONE
async def test_no_path_and_no_query_makes_more_than_a_refusal(target: Target) -> None:
    for operation in OPERATIONS:
        if str(operation) in {ENDS_SIGN_INS, ENDLESS}:
            continue
        names = re.findall(r"{(\w+)}", operation.path)
        values = target.values | (
            {key: str(uuid4()) for key in target.values} if operation.method == "DELETE" else {}
        )
        paths = [
            filled(operation.path, values | {name: bad}) for name in names for bad in BAD_SEGMENTS
        ]
        plain = filled(operation.path, {key: str(uuid4()) for key in target.values})
        for name in (*operation.query, "x", "token"):
            paths += [f"{plain}?{name}={bad}" for bad in BAD_SEGMENTS]
        for path in paths:
            answer = await target.client.request(
                operation.method, f"http://127.0.0.1:3000{path}", headers=target.headers
            )
            check(answer, f"{operation.method} {path[:200]}")
            assert "x-evil" not in answer.headers
    forget(because="the same texts are tried as tokens and in every path")


@ON_ONE
async def test_texts_that_look_like_commands_stay_texts(target: Target, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for operation in OPERATIONS:
        if str(operation) in {ENDS_SIGN_INS, ENDLESS}:
            continue
        texts = [
            name for name, shape in operation.fields.items() if "uuid" not in json.dumps(shape)
        ]
        names = set(re.findall(r"{(\w+)}", operation.path)) & {"name", "branch", "container_id"}
        for injection in INJECTIONS:
            text = injection.format(canary)
            body: dict[str, Any] = dict.fromkeys(texts, text)
            tries = [body, *({"environmentId": target.values["environment_id"], "name": text},
                             {"environmentId": target.values["environment_id"], "branch": text},
                             {"name": secrets.token_hex(4), "repositoryUrl": text},
                             {"name": secrets.token_hex(4), "branch": text})]  # fmt: skip
            quoted = dict.fromkeys(names, quote(text, safe=""))
            path = filled(operation.path, target.values | quoted)
            for one in tries if texts else [None]:
                if operation.method == "DELETE" and not names:
                    continue
                answer = await target.client.request(
                    operation.method, path, json=one, headers=target.headers
                )
                check(answer, f"{operation} {one}")
    assert [name for name in os.listdir(tmp_path) if "canary" in name] == []  # noqa: PTH208
    # In a sandbox, too, every such text is an argument of its own, never part of a script.
    scripts = [call.argv for call in target.runtime.calls if call.argv[0] in {"sh", "bash"}]
    assert scripts
    assert [argv for argv in scripts if "canary" in argv[2]] == []
    forget(because="the same texts are tried as tokens and as names")


HEADERS = [
    "x-test-user-id", "x-user-id", "x-user", "x-forwarded-user", "x-remote-user", "remote-user",
    "x-auth-request-user", "x-auth-request-email", "x-authenticated-user", "x-webauth-user",
    "x-forwarded-email", "x-forwarded-preferred-username", "x-original-user", "x-api-key",
    "x-admin", "x-internal", "x-debug", "x-forwarded-for", "x-real-ip", "x-original-url",
    "x-rewrite-url", "x-http-method-override", "x-method-override", "forwarded", "cookie",
    "proxy-authorization", "x-access-token", "x-auth-token", "x-ms-client-principal-id",
    "x-amzn-oidc-identity", "x-goog-authenticated-user-email", "cf-access-authenticated-user-email",
    "tailscale-user-login", "x-craftastic-user", "x-craftastic-setup-token", "node_env", "host",
]  # fmt: skip


HOOK = "/api/deployment/hook/{key}"
"""Open to whoever knows the key, which is in the path."""


@ON_ONE
async def test_no_header_says_who_is_calling(target: Target) -> None:
    token = target.headers["Authorization"].removeprefix("Bearer ")
    user = target.values["user_id"]
    guarded = [
        one
        for one in OPERATIONS
        if one.path.startswith("/api/") and "/auth/" not in one.path and one.path != HOOK
    ]
    guarded += [one for one in OPERATIONS if one.path in {"/api/auth/me", "/api/auth/logout-all"}]
    assert len(guarded) > 15
    values = [user, "a@example.com", "admin", "1", "true", "127.0.0.1", token, f"token={token}",
              f"for=127.0.0.1;user={user}", "/api/auth/me", "development", "GET"]  # fmt: skip
    every = [{name: value} for name in HEADERS for value in values]
    every += [{name: user for name in HEADERS if name != "host"}]
    every += [
        {"Authorization": text}
        for text in ("", "Bearer", "Bearer ", f"Basic {token}", f"Token {token}", token,
                     f"Bearer {token}x", f"Bearer {token} x", f"Bearer, {token}", "Bearer null",
                     "Bearer undefined", f"Bearer {token[:-1]}", "Bearer \u00e9",
                     "Bearer " + "." * 9000,
                     "Bearer e30.e30.", "Bearer ..", f"Bearer {user}")
    ]  # fmt: skip
    for index, headers in enumerate(every):
        operation = guarded[index % len(guarded)]
        sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        for one in (operation, guarded[-1]):
            answer = await target.client.request(
                one.method, filled(one.path, target.values), headers=sent
            )
            refused = (answer.status_code, answer.json()["code"])
            # A name that is not the server's is refused before anybody asks who is calling.
            is_told = refused == (421, "HOST_NOT_ALLOWED") and "host" in headers
            assert is_told or refused == (401, "UNAUTHENTICATED"), f"{one} {headers}: {answer.text}"


TIMED = 50
"""Requests of each kind in one comparison."""

NEAR, ALIKE_S = 0.10, 0.0003
"""Medians are alike when they differ by less than a tenth, or by so little that a network's own
unevenness is a hundred times as much."""


async def timed(client: httpx.AsyncClient, request: httpx.Request, times: list[float]) -> None:
    began = time.perf_counter()
    await client.send(request)
    times.append(time.perf_counter() - began)


@ON_ONE
async def test_the_time_of_an_answer_does_not_tell_foreign_from_absent(target: Target) -> None:
    """SEC-31: what is compared alternates, and only what differs three times in a row differs."""
    answer = await target.client.post(
        "/api/auth/register", json={"email": "b@example.com", "password": PASSWORD, "name": "B"}
    )
    headers = {"Authorization": f"Bearer {answer.json()['data']['accessToken']}"}
    owned = {"environment_id", "session_id", "container_id"}
    routes = [one for one in OPERATIONS if owned & set(re.findall(r"{(\w+)}", one.path))]
    assert len(routes) > 10
    for route in routes:
        body = {"status": "inactive"} if route.method == "PATCH" else None
        told: list[str] = []
        for _ in range(3):
            foreign: list[float] = []
            absent: list[float] = []
            for index in range(TIMED):
                ids = target.values | {name: str(uuid4()) for name in owned}
                pair = [(target.values, foreign), (ids, absent)]
                # Whoever comes second finds warmer caches: they take turns.
                for values, times in pair if index % 2 else reversed(pair):
                    request = target.client.build_request(
                        route.method, filled(route.path, values), json=body, headers=headers
                    )
                    await timed(target.client, request, times)
            one, other = statistics.median(foreign), statistics.median(absent)
            if abs(one - other) < max(NEAR * max(one, other), ALIKE_S):
                break
            told.append(f"foreign {one * 1000:.2f} ms, absent {other * 1000:.2f} ms")
        assert len(told) < 3, f"{route}: {told}"
