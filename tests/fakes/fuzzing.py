"""A caller of the whole app who may ask for anything, and has something to ask about each time."""

import json
import logging
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

import anyio
import httpx
import structlog
from requests import PreparedRequest

from tests.fakes.asgi import WithState
from tests.fakes.people import PASSWORD, bearer
from tests.fakes.whole_app import APPLICATION, something_of_everything

ANSWER_S = 60.0
EVENT_STREAM = b"text/event-stream"

LEAKS = re.compile(
    r'Traceback|File "|\.py\b|/site-packages|/usr/|/var/|/root/|sqlalchemy|asyncpg|aiosqlite'
    r"|\b(?:SELECT|INSERT|UPDATE|DELETE) [a-z*]|pydantic|<class|object at 0x|\bException\b",
    re.IGNORECASE,
)
"""What only the inside of a server says."""

PLACES = {
    f"{name}_id": str(uuid5(NAMESPACE_URL, name))
    for name in ("environment", "session", "container", "host", "token", "sign_in",
                 "invitation", "user", "actor", "agent", "deployment", "target")
}  # fmt: skip
"""What stands in requests, before they are sent, for the id of what the caller has just then.

So the same requests are made in every run, whatever the ids of that run are.
"""

GOOD = {
    "email": ["user@example.com", *(f"new{number}@example.com" for number in range(9))],
    "password": [PASSWORD],
    "origin": [f"https://git{number}.example" for number in range(9)],
    "name": ["FUZZED"],
    "branch": ["fuzzed"],
    "base_branch": ["main"],
    "type": ["codex"],
    "base_url": ["https://models.example"],
    "model": ["a-model"],
    "app_id": [APPLICATION],
    "commit": ["a" * 40],
}
"""What some texts must look like to get further than to the first look at them."""

BYSTANDER = "bystander@example.com"


@contextmanager
def only_errors_logged() -> Generator[None]:
    """Keep the log of thousands of requests to what is wrong with the server."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)


async def exchange(app: WithState, request: PreparedRequest) -> httpx.Response:
    """Send a request as a server hands it on, and go away at the first word of an endless answer.

    Nothing is put right on the way: the path's bytes are those of the request.
    """
    url = urlsplit(str(request.url))
    raw_path = (url.path or "/").encode("ascii")
    headers = [(b"host", url.netloc.encode())]
    for name, value in request.headers.items():
        text: str | bytes = value
        headers.append(
            (name.lower().encode("latin-1"), text if isinstance(text, bytes) else _latin(text))
        )
    body = request.body or b""
    assert isinstance(body, str | bytes)
    content = body.encode() if isinstance(body, str) else body
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(raw_path.decode("ascii")),
        "raw_path": raw_path,
        "query_string": url.query.encode("ascii"),
        "root_path": "",
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 1),
        "headers": headers,
    }
    incoming = [{"type": "http.request", "body": content, "more_body": False}]
    enough = anyio.Event()
    start: dict[str, Any] = {}
    answered = bytearray()

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        answered.extend(message.get("body", b""))
        endless = dict(start["headers"]).get(b"content-type", b"").startswith(EVENT_STREAM)
        if endless or not message.get("more_body", False):
            enough.set()

    with anyio.fail_after(ANSWER_S):
        await app(scope, receive, send)
    return httpx.Response(start["status"], headers=start["headers"], content=bytes(answered))


def _latin(text: str) -> bytes:
    return text.encode("latin-1", errors="replace")


def refusal_faults(answer: httpx.Response) -> list[str]:
    """Say what is wrong with an answer, as what a stranger's request may get."""
    if answer.status_code >= 500:
        return [f"{answer.status_code}"]
    if answer.status_code < 400:
        return []
    try:
        body = json.loads(answer.content)
    except ValueError:
        return ["the refusal is not JSON"]
    found: list[str] = []
    if not isinstance(body.get("error"), str) or not body["error"]:
        found.append("the refusal has no words")
    if not re.fullmatch(r"[A-Z][A-Z0-9_]+", str(body.get("code"))):
        found.append("the refusal has no code")
    if body.get("requestId") != answer.headers["x-request-id"]:
        found.append("the refusal does not name its request")
    # What was sent may be shown again; what is ours may not tell.
    if LEAKS.search(json.dumps({key: body[key] for key in body if key != "details"})):
        found.append("the refusal tells of the inside")
    if len(answer.content) > 5000:
        found.append("the refusal is long")
    return found


@dataclass
class Asker:
    """One user of the app, who always has something of everything, and is always signed in.

    Args:
        client: Of the app.
        email: Whose; the user exists, with the password of all tests.
        headers: Of that user's sign-in; renewed when it has ended.
        bystander: Id of the user whom an administrator may do anything to.
    """

    client: httpx.AsyncClient
    email: str
    headers: dict[str, str] = field(repr=False)
    bystander: str
    values: dict[str, str] = field(default_factory=dict[str, str])
    signed_in_again: int = 0
    made: int = 0

    @property
    def app(self) -> WithState:
        return self.client._transport.app  # type: ignore[attr-defined] - made by `client_of`

    async def ask(self, request: PreparedRequest) -> httpx.Response:
        """Send a request of a caller; what it destroyed is there again when this returns."""
        answer = await self._send(request)
        if answer.status_code == 401 and await self._sign_in_again():
            answer = await self._send(request)
        if answer.is_success and request.method != "GET":
            await self.make_what_is_missing()
        return answer

    async def make_what_is_missing(self) -> None:
        """Make something of everything anew, unless all of it is still there."""
        await self._sign_in_again()
        if await self._has_everything():
            return
        for listed, key, path in (
            ("/api/auth/tokens", "tokens", "/api/auth/tokens/"),
            ("/api/git/hosts", "hosts", "/api/git/hosts/"),
        ):
            held = (await self.client.get(listed, headers=self.headers)).json()["data"][key]
            for one in held:  # there is a limit to how many one user may have
                await self.client.delete(path + one["id"], headers=self.headers)
        me = (await self.client.get("/api/auth/me", headers=self.headers)).json()["data"]["user"]
        mine = await self.client.get(f"/api/agents/user/{me['id']}", headers=self.headers)
        for one in mine.json()["agents"]:
            await self.client.delete(f"/api/agents/{one['id']}", headers=self.headers)
        self.made += 1
        values = await something_of_everything(self.client, self.headers, f"mine{self.made}")
        other = await self._sign_in()
        ids = (await self.client.get("/api/auth/sign-ins", headers=other)).json()["data"]
        current = next(one["id"] for one in ids["signIns"] if one["current"])
        self.values = values | {"sign_in_id": current, "actor_id": values["user_id"]}
        self.values |= {"invitation_id": await self._invitation()}

    async def _has_everything(self) -> bool:
        if not self.values:
            return False
        get = self.client.get
        session = await get(f"/api/sessions/{self.values['session_id']}", headers=self.headers)
        if not session.is_success or session.json()["status"] == "dead":
            return False
        agent = await get(f"/api/agents/{self.values['agent_id']}", headers=self.headers)
        if not agent.is_success:
            return False
        found = ""
        for path in ("/api/auth/tokens", "/api/git/hosts", "/api/auth/sign-ins"):
            found += (await get(path, headers=self.headers)).text
        return all(self.values[name] in found for name in ("token_id", "host_id", "sign_in_id"))

    async def _invitation(self) -> str:
        await self.client.post("/api/auth/invitations", json={}, headers=self.headers)
        listed = await self.client.get("/api/admin/invitations", headers=self.headers)
        held = listed.json()["invitations"] if listed.is_success else []
        return held[0]["id"] if held else PLACES["invitation_id"]

    async def _sign_in_again(self) -> bool:
        me = await self.client.get("/api/auth/me", headers=self.headers)
        if me.status_code != 401:
            return False
        self.headers = await self._sign_in()
        self.signed_in_again += 1
        return True

    async def _sign_in(self) -> dict[str, str]:
        body = {"email": self.email, "password": PASSWORD}
        answer = await self.client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        return bearer(answer.json()["data"]["accessToken"])

    async def _send(self, request: PreparedRequest) -> httpx.Response:
        sent = request.copy()
        sent.headers.update(self.headers)
        admin = "/api/admin/users/" in str(request.url)
        values = self.values | ({"user_id": self.bystander} if admin else {})
        sent.url = _with(values, str(sent.url))
        if isinstance(sent.body, bytes):
            sent.body = _with(values, sent.body.decode("latin-1")).encode("latin-1")
        elif isinstance(sent.body, str):
            sent.body = _with(values, sent.body)
        return await exchange(self.app, sent)


def _with(values: Mapping[str, str], text: str) -> str:
    for name, place in PLACES.items():
        text = text.replace(place, values.get(name, place))
    return text


def pointed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of the API that asks, wherever an id stands, for one that is there."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    asked: set[str] = set()
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _pointed(parameter["name"], parameter["schema"])
            asked |= set(re.findall(r"schemas/(\w+)", json.dumps(operation.get("requestBody"))))
    for name in asked:
        properties: dict[str, Any] = schemas[name].get("properties", {})
        for one, shape in properties.items():
            properties[one] = _pointed(one, shape)
    return document


def _pointed(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    key = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
    if key in GOOD:
        return {"anyOf": [{"enum": GOOD[key]}, shape]}
    if key not in PLACES:
        return shape
    place = {"const": PLACES[key]}  # what breaks the document brings ids that are not there
    absent = [one for one in shape.get("anyOf", ()) if one == {"type": "null"}]
    return {"anyOf": [place, *absent]} if absent else place
