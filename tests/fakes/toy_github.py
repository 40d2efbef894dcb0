"""A small GitHub over HTTP on loopback: device flow, tokens, people, repositories, faults.

It is strict where GitHub is: too early a question is answered with `slow_down` and a longer
interval, an exchanged pair is dead at once, `credentials/revoke` takes no authentication.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

API = "/api/v3"
REDEEM = "/login/oauth/access_token"
DEVICE_CODE = "/login/device/code"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

Kind = Literal["app", "oauth"]


@dataclass
class ToyUser:
    id: int
    login: str
    name: str | None = None


@dataclass
class ToyToken:
    value: str
    user: ToyUser
    kind: Kind
    scopes: str
    expires_at: float | None
    refresh: str | None = None
    refresh_expires_at: float | None = None
    dead: bool = False
    answers_401: int = 0
    """How many more requests are answered as if the token were not known yet."""


@dataclass
class ToyFlow:
    device_code: str
    user_code: str
    scope: str
    interval: float
    asked_at: float
    expires_at: float
    state: Literal["pending", "approved", "denied", "used"] = "pending"
    user: ToyUser | None = None
    granted: str | None = None


@dataclass
class ToyCall:
    """One request, as it came, and how it was answered.

    Args:
        path: Without the query, and without the API's prefix.
    """

    at: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]
    status: int = 0
    answer: Any = None


@dataclass
class Fault:
    status: int
    headers: Mapping[str, str]
    body: Any
    hang: bool = False
    after: bool = False
    """Whether the request has its effect before the faulty answer."""


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class ToyGitHub:
    """GitHub for tests; web and API at one address, as an Enterprise server has them.

    Args:
        kind: What `client_id` is: a GitHub App (short tokens with refresh tokens) or an OAuth app.
        interval: Seconds between two questions about a flow.
        slow_down_step: By how much a question that comes too early makes it longer.
        token_life: Seconds an app's access token lives; None for apps without expiry.
        token_limit: How many tokens a user may have from an OAuth app; the oldest dies.

    Attributes:
        calls: Every request in order; `count` counts them.
        lag: How many 401s each new token gets first.
        form_answers: Answer the login endpoints as a form although JSON was asked for.
    """

    def __init__(
        self,
        *,
        kind: Kind = "app",
        interval: float = 5,
        expires_in: float = 900,
        slow_down_step: float = 5,
        token_life: float | None = 28800,
        token_limit: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.kind: Kind = kind
        self.interval = interval
        self.expires_in = expires_in
        self.slow_down_step = slow_down_step
        self.token_life = token_life
        self.token_limit = token_limit
        self.client_id = "Iv1.toyclient"
        self.client_secret = secrets.token_hex(20)
        self.app_slug = "toy-app"
        self.device_flow_enabled = True
        self.form_answers = False
        self.slow_down_names_interval = True
        self.lag = 0
        self.calls: list[ToyCall] = []
        self.users: dict[str, ToyUser] = {}
        self.flows: dict[str, ToyFlow] = {}
        self.tokens: dict[str, ToyToken] = {}
        self.repositories: dict[str, list[dict[str, Any]]] = {}
        self.installations: dict[str, dict[int, list[dict[str, Any]]]] = {}
        self.sso: str | None = None
        self._faults: dict[str, deque[Fault]] = {}
        self._released = threading.Event()
        self._moved = 0.0
        self._lock = threading.RLock()
        owner = self

        class Handler(_Handler):
            github = owner

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self.api_url = self.url + API
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    @property
    def settings(self) -> dict[str, object]:
        """Return the server's settings that point it here."""
        return {
            "github_client_id": self.client_id,
            "github_url": self.url,
            "git_allow_http": True,
        }

    # ---- what people do ---------------------------------------------------------------------

    def add_user(self, login: str, *, name: str | None = None, id: int | None = None) -> ToyUser:  # noqa: A002
        user = ToyUser(id or 1000 + len(self.users), login, name)
        self.users[login] = user
        self.repositories.setdefault(login, [])
        self.installations.setdefault(login, {})
        return user

    def add_repository(
        self, login: str, full_name: str, *, installation: int | None = None, **more: Any
    ) -> dict[str, Any]:
        """Give a user a repository; with an installation, one that the GitHub App may see."""
        name = full_name.split("/")[1]
        number = 5000 + sum(len(one) for one in self.repositories.values())
        repository: dict[str, Any] = {
            "id": number,
            "node_id": "R_x",
            "name": name,
            "full_name": full_name,
            "description": None,
            "html_url": f"{self.url}/{full_name}",
            "clone_url": f"{self.url}/{full_name}.git",
            "ssh_url": f"git@127.0.0.1:{full_name}.git",
            "private": False,
            "default_branch": "main",
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": f"2026-02-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
            "pushed_at": "2026-02-01T00:00:00Z",
            "language": "Python",
            "stargazers_count": 1,
            "open_issues_count": 2,
            "owner": {"login": full_name.split("/", maxsplit=1)[0]},
        } | more
        with self._lock:
            self.repositories[login].append(repository)
            if installation is not None:
                self.installations[login].setdefault(installation, []).append(repository)
        return repository

    def approve(self, user_code: str, login: str, scopes: str | None = None) -> None:
        """Let a user type the code and agree; to fewer scopes than asked for when given."""
        with self._lock:
            flow = self._by_user_code(user_code)
            flow.state, flow.user, flow.granted = "approved", self.users[login], scopes

    def deny(self, user_code: str) -> None:
        with self._lock:
            self._by_user_code(user_code).state = "denied"

    def expire(self, user_code: str) -> None:
        with self._lock:
            self._by_user_code(user_code).expires_at = self.now()

    def advance(self, seconds: float) -> None:
        """Move this server's time on: codes and tokens grow older."""
        self._moved += seconds

    def revoke(self, value: str) -> None:
        """End a token, as its user does in the settings."""
        with self._lock:
            self._end(value)

    def issue(self, login: str, scopes: str = "repo") -> ToyToken:
        """Give a token without a flow."""
        with self._lock:
            return self._issue(self.users[login], scopes)

    # ---- what tests look at -----------------------------------------------------------------

    def is_valid(self, token: str) -> bool:
        return token in self.tokens_valid()

    def tokens_valid(self) -> set[str]:
        """Return every access token that works now."""
        with self._lock:
            return {value for value, token in self.tokens.items() if self._alive(token)}

    def secrets(self) -> set[str]:
        """Return everything that this server ever gave out in confidence."""
        with self._lock:
            found = {flow.device_code for flow in self.flows.values()} | set(self.tokens)
            return found | {token.refresh for token in self.tokens.values() if token.refresh}

    def called(self, path: str, **body: str) -> list[ToyCall]:
        """Return the requests for a path (without the API's prefix) with these fields."""
        with self._lock:
            return [
                call
                for call in self.calls
                if call.path == path and body.items() <= call.body.items()
            ]

    def count(self, path: str, **body: str) -> int:
        return len(self.called(path, **body))

    def fail(
        self,
        path: str,
        status: int,
        *,
        times: int = 1,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        after: bool = False,
    ) -> None:
        """Answer the next requests for a path so; with `after` they have their effect first."""
        faults = self._faults.setdefault(path, deque())
        faults.extend([Fault(status, headers or {}, body, after=after)] * times)

    def limit(self, path: str, *, reset_in: float = 60, times: int = 1) -> None:
        """Answer the next requests as over the rate limit, with 403 as GitHub does."""
        headers = {
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(int(time.time() + reset_in)),
        }
        self.fail(path, 403, times=times, headers=headers, body={"message": "API rate limit"})

    def hang(self, path: str, *, times: int = 1, after: bool = False) -> None:
        """Do not answer the next requests until `release`."""
        self._released.clear()
        fault = Fault(503, {}, None, hang=True, after=after)
        self._faults.setdefault(path, deque()).extend([fault] * times)

    def release(self) -> None:
        """Answer those that hang."""
        self._released.set()

    def heal(self) -> None:
        """Take all faults back."""
        self._faults.clear()
        self._released.set()

    def now(self) -> float:
        return time.monotonic() + self._moved

    # ---- how it answers ---------------------------------------------------------------------

    def answer(self, call: ToyCall) -> Answer:
        with self._lock:
            self.calls.append(call)
            waiting = self._faults.get(call.path)
            fault = waiting.popleft() if waiting else None
        if fault is None:
            return self._answer(call)
        answer = Answer(fault.status, fault.body, dict(fault.headers))
        if fault.after:
            worked = self._answer(call)
            answer = worked if fault.hang else answer
        if fault.hang:
            self._released.wait(30)
            answer = answer if fault.after else self._answer(call)
        return answer

    def _answer(self, call: ToyCall) -> Answer:
        with self._lock:
            if call.path == DEVICE_CODE:
                return self._begin(call)
            if call.path == REDEEM:
                return self._redeem(call)
            if call.path == "/credentials/revoke":
                return self._revoke_any(call)
            if call.path == f"/applications/{self.client_id}/token":
                return self._revoke_one(call)
            return self._api(call)

    def _begin(self, call: ToyCall) -> Answer:
        if call.body.get("client_id") != self.client_id:
            return Answer(404, {"error": "Not Found"})
        if not self.device_flow_enabled:
            return self._said("device_flow_disabled")
        text = secrets.token_hex(4).upper()
        flow = ToyFlow(
            device_code=secrets.token_hex(20),
            user_code=f"{text[:4]}-{text[4:]}",
            scope=call.body.get("scope", ""),
            interval=self.interval,
            asked_at=self.now(),
            expires_at=self.now() + self.expires_in,
        )
        self.flows[flow.device_code] = flow
        return Answer(
            200,
            {
                "device_code": flow.device_code,
                "user_code": flow.user_code,
                "verification_uri": f"{self.url}/login/device",
                "expires_in": self.expires_in,
                "interval": flow.interval,
            },
        )

    def _redeem(self, call: ToyCall) -> Answer:
        if call.body.get("client_id") != self.client_id:
            return self._said("incorrect_client_credentials")
        if call.body.get("client_secret", self.client_secret) != self.client_secret:
            return self._said("incorrect_client_credentials")
        grant = call.body.get("grant_type")
        if grant == "refresh_token":
            return self._exchange(call)
        if grant != DEVICE_GRANT:
            return self._said("unsupported_grant_type")
        flow = self.flows.get(call.body.get("device_code", ""))
        if flow is None or flow.state == "used":
            return self._said("incorrect_device_code")
        return self._ask(flow)

    def _ask(self, flow: ToyFlow) -> Answer:
        now = self.now()
        early = now < flow.asked_at + flow.interval
        flow.asked_at = now
        if now >= flow.expires_at:
            return self._said("expired_token")
        if early:
            flow.interval += self.slow_down_step
            named = {"interval": flow.interval} if self.slow_down_names_interval else {}
            return self._said("slow_down", **named)
        if flow.state == "denied":
            return self._said("access_denied")
        if flow.state == "pending" or flow.user is None:
            return self._said("authorization_pending")
        flow.state = "used"
        scope = flow.scope if flow.granted is None else flow.granted
        return Answer(200, self._given(self._issue(flow.user, scope)))

    def _exchange(self, call: ToyCall) -> Answer:
        old = next(
            (
                token
                for token in self.tokens.values()
                if token.refresh == call.body.get("refresh_token") and not token.dead
            ),
            None,
        )
        if old is None or (old.refresh_expires_at or 0) <= self.now():
            return self._said("bad_refresh_token")
        old.dead = True
        return Answer(200, self._given(self._issue(old.user, old.scopes)))

    def _issue(self, user: ToyUser, scopes: str) -> ToyToken:
        now = self.now()
        if self.kind == "app":
            ends = None if self.token_life is None else now + self.token_life
            token = ToyToken("ghu_" + secrets.token_hex(18), user, "app", "", ends)
            if ends is not None:
                token.refresh = "ghr_" + secrets.token_hex(38)
                token.refresh_expires_at = now + 15811200
        else:
            granted = ",".join(scopes.replace(",", " ").split())
            token = ToyToken("gho_" + secrets.token_hex(18), user, "oauth", granted, None)
            self._keep_limit(user)
        token.answers_401 = self.lag
        self.tokens[token.value] = token
        return token

    def _keep_limit(self, user: ToyUser) -> None:
        mine = [one for one in self.tokens.values() if one.user is user and not one.dead]
        if self.token_limit is not None and len(mine) >= self.token_limit:
            mine[0].dead = True

    def _given(self, token: ToyToken) -> dict[str, Any]:
        given: dict[str, Any] = {
            "access_token": token.value,
            "token_type": "bearer",
            "scope": token.scopes,
        }
        if token.refresh is not None:
            given |= {
                "expires_in": self.token_life,
                "refresh_token": token.refresh,
                "refresh_token_expires_in": 15811200,
            }
        return given

    def _said(self, error: str, **more: Any) -> Answer:
        text = error.replace("_", " ")
        return Answer(200, {"error": error, "error_description": text, **more})

    def _revoke_any(self, call: ToyCall) -> Answer:
        if "authorization" in call.headers:
            return Answer(403, {"message": "Must not be authenticated"})
        for value in call.body.get("credentials", []):
            self._end(value)
        return Answer(202, {})

    def _revoke_one(self, call: ToyCall) -> Answer:
        pair = f"{self.client_id}:{self.client_secret}".encode()
        if call.headers.get("authorization") != f"Basic {base64.b64encode(pair).decode()}":
            return Answer(401, {"message": "Bad credentials"})
        token = self.tokens.get(call.body.get("access_token", ""))
        if token is None or not self._alive(token):
            return Answer(404, {"message": "Not Found"})
        if call.method == "DELETE":
            token.dead = True  # the refresh token goes on
            return Answer(204)
        return Answer(200, {"token": token.value})

    def _end(self, value: str) -> None:
        for token in self.tokens.values():
            if token.value == value:
                token.dead = True
            if token.refresh == value:
                token.refresh = None

    def _alive(self, token: ToyToken) -> bool:
        return not token.dead and (token.expires_at is None or self.now() < token.expires_at)

    def _api(self, call: ToyCall) -> Answer:
        value = call.headers.get("authorization", "").removeprefix("Bearer ")
        token = self.tokens.get(value)
        if token is None or not self._alive(token) or token.answers_401 > 0:
            if token is not None:
                token.answers_401 -= 1
            return Answer(401, {"message": "Bad credentials"})
        answer = self._for(call, token)
        if token.kind == "oauth":
            answer.headers["X-OAuth-Scopes"] = token.scopes.replace(",", ", ")
        if self.sso is not None:
            answer.headers["X-GitHub-SSO"] = self.sso
        return answer

    def _for(self, call: ToyCall, token: ToyToken) -> Answer:
        login = token.user.login
        if call.path == "/user":
            user = token.user
            return Answer(200, {"id": user.id, "login": user.login, "name": user.name})
        if call.path == "/user/repos":
            return self._page(call, self._sorted(call, self.repositories[login]), None)
        if call.path == "/user/installations":
            found = [
                {"id": number, "app_slug": self.app_slug} for number in self.installations[login]
            ]
            return self._page(call, found, "installations")
        parts = call.path.split("/")
        if call.path.startswith("/user/installations/") and parts[-1] == "repositories":
            found = self.installations[login].get(int(parts[3]))
            return (
                Answer(404, {"message": "Not Found"})
                if found is None
                else self._page(call, found, "repositories")
            )
        return Answer(404, {"message": "Not Found"})

    def _sorted(self, call: ToyCall, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sort = call.query.get("sort", "full_name")
        key = {"created": "created_at", "updated": "updated_at", "pushed": "pushed_at"}
        by_name = sorted(found, key=lambda one: one["full_name"])
        if sort not in key:
            return by_name
        return sorted(by_name, key=lambda one: one[key[sort]], reverse=True)

    def _page(self, call: ToyCall, found: list[dict[str, Any]], name: str | None) -> Answer:
        page, size = int(call.query.get("page", 1)), int(call.query.get("per_page", 30))
        part = found[(page - 1) * size : page * size]
        body: Any = part if name is None else {"total_count": len(found), name: part}
        etag = f'W/"{hashlib.sha256(json.dumps(body).encode()).hexdigest()}"'
        headers = {"ETag": etag}
        if page * size < len(found):
            query = urlencode(call.query | {"page": str(page + 1)})
            headers["Link"] = f'<{self.api_url}{call.path}?{query}>; rel="next"'
        if call.headers.get("if-none-match") == etag:
            return Answer(304, None, headers)
        return Answer(200, body, headers)

    def _by_user_code(self, user_code: str) -> ToyFlow:
        return next(flow for flow in self.flows.values() if flow.user_code == user_code)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    github: ToyGitHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        raw = self.rfile.read(int(headers.get("content-length", "0")))
        call = ToyCall(
            at=time.monotonic(),
            method=self.command,
            path=parts.path.removeprefix(API),
            query={key: values[-1] for key, values in parse_qs(parts.query).items()},
            headers=headers,
            body=_body(headers.get("content-type", ""), raw),
        )
        answer = self.github.answer(call)
        call.status, call.answer = answer.status, answer.body
        as_form = self.github.form_answers or "json" not in headers.get("accept", "")
        self._send(answer, as_form=as_form and call.path in {DEVICE_CODE, REDEEM})

    def _send(self, answer: Answer, *, as_form: bool) -> None:
        kind, content = "application/json; charset=utf-8", b""
        if isinstance(answer.body, bytes):
            content = answer.body
        elif as_form and isinstance(answer.body, dict):
            kind, content = "application/x-www-form-urlencoded", urlencode(answer.body).encode()
        elif answer.body is not None:
            content = json.dumps(answer.body).encode()
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", kind)
            self.send_header("Set-Cookie", "_gh_sess=toy; Path=/")
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status not in {204, 304}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if answer.status not in {204, 304}:
                self.wfile.write(content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True


def _body(content_type: str, raw: bytes) -> dict[str, Any]:
    if "json" in content_type:
        return json.loads(raw or b"{}")
    return dict(parse_qsl(raw.decode()))
