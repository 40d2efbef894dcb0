"""A small Craftastic API for the command line's tests: accounts, environments, sessions.

Refresh tokens work once, and the reuse of an old one ends the sign-in, as in the real one.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.fakes.terminal_server import access_token
from tests.secrecy import canary

PASSWORD = canary("password")
SETUP_TOKEN = canary("setup-token")


@dataclass
class ApiServer:
    """What the tests see and steer.

    Args:
        lifetime_s: Of access tokens, as the token says.
        stages: What an environment's progress shows, one for each look at it.
    """

    lifetime_s: int = 900
    stages: list[dict[str, Any]] = field(default_factory=list)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    environments: list[dict[str, Any]] = field(default_factory=list)
    registrations: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    living: dict[str, str] = field(default_factory=dict)
    access: set[str] = field(default_factory=set)
    reused: int = 0
    refreshes: int = 0
    refresh_pause_s: float = 0.0
    looks: anyio.Semaphore | None = None
    fail_create: tuple[int, dict[str, Any]] | None = None
    fail_session: tuple[int, dict[str, Any]] | None = None
    port: int = 0
    _number: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sessions(self) -> list[dict[str, Any]]:
        return [session for one in self.environments for session in one["sessions"]]

    def add_account(self, email: str) -> None:
        self.accounts[email] = {"id": str(uuid4()), "email": email, "name": "A"}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/api/auth/register", self._register, methods=["POST"]),
                Route("/api/auth/login", self._login, methods=["POST"]),
                Route("/api/auth/refresh", self._refresh, methods=["POST"]),
                Route("/api/auth/logout", self._logout, methods=["POST"]),
                Route("/api/auth/me", self._me),
                Route("/api/auth/invitations", self._invite, methods=["POST"]),
                Route("/api/environments", self._create, methods=["POST"]),
                Route("/api/environments/user/{user}", self._list),
                Route("/api/environments/{id}", self._one),
                Route("/api/environments/{id}", self._delete, methods=["DELETE"]),
                Route("/api/environments/{id}/retry", self._retry, methods=["POST"]),
                Route("/api/sessions", self._create_session, methods=["POST"]),
                Route("/api/sessions/environment/{id}", self._list_sessions),
                Route("/api/sessions/{id}", self._session),
                Route("/api/sessions/{id}", self._delete_session, methods=["DELETE"]),
            ]
        )

    # ---- accounts -----------------------------------------------------------------------------

    def tokens(self, user: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        access = access_token(self._number, self.lifetime_s)
        refresh = f"refresh-{self._number}"
        self.living[refresh] = user["email"]
        self.access.add(access)
        return {
            "accessToken": access,
            "refreshToken": refresh,
            "user": {**user, "emailVerified": True},
        }

    async def _healthz(self, _request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _register(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.registrations.append(body)
        if not self.accounts and body.get("setupToken") != SETUP_TOKEN:
            return refused(403, "The first account needs the token", "SETUP_TOKEN_NEEDED")
        if self.accounts and body.get("invitation") != "invited":
            return refused(403, "Registration needs an invitation", "INVITATION_NEEDED")
        self.add_account(body["email"])
        return JSONResponse({"success": True, "data": self.tokens(self.accounts[body["email"]])})

    async def _login(self, request: Request) -> JSONResponse:
        body = await request.json()
        account = self.accounts.get(body["email"])
        if account is None or body["password"] != PASSWORD:
            return refused(401, "Invalid email or password", "BAD_CREDENTIALS")
        return JSONResponse({"success": True, "data": self.tokens(account)})

    async def _refresh(self, request: Request) -> JSONResponse:
        token = (await request.json())["refreshToken"]
        await anyio.sleep(self.refresh_pause_s)
        email = self.living.pop(token, None)
        if email is None:
            self.reused += 1
            self.living.clear()
            self.access.clear()
            return refused(401, "Invalid or expired refresh token", "REFRESH_TOKEN_INVALID")
        self.refreshes += 1
        self.access.clear()
        return JSONResponse({"success": True, "data": self.tokens(self.accounts[email])})

    async def _logout(self, request: Request) -> JSONResponse:
        self.living.pop((await request.json())["refreshToken"], None)
        return JSONResponse({"success": True, "message": "Logged out successfully"})

    def _unknown(self, request: Request) -> JSONResponse | None:
        self.requests.append(f"{request.method} {request.url.path}")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return None if token in self.access else refused(401, "Unauthorized", "UNAUTHENTICATED")

    async def _me(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        user = next(iter(self.accounts.values()))
        return JSONResponse({"success": True, "data": {"user": user}})

    async def _invite(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        body = await request.json()
        data = {"token": "invited", "email": body.get("email"), "expiresAt": "2030-01-01T00:00:00Z"}
        return JSONResponse({"success": True, "data": data})

    # ---- environments -------------------------------------------------------------------------

    async def _create(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        body = await request.json()
        if any(one["name"] == body["name"] for one in self.environments):
            more = {"suggestions": [f"{body['name']}-2", f"{body['name']}-copy"]}
            return refused(409, "Environment name already exists", "NAME_TAKEN", **more)
        if self.fail_create is not None:
            status, answer = self.fail_create
            return JSONResponse(answer, status)
        made = self.add_environment(
            body["name"], body.get("repositoryUrl"), status="starting", branch=body.get("branch")
        )
        with anyio.move_on_after(10):
            while self.stages:  # noqa: ASYNC110 - each look takes one
                await anyio.sleep(0.01)
        made["status"] = "running"
        made.pop("progress", None)
        return JSONResponse(made)

    def add_environment(
        self, name: str, url: str | None, *, status: str = "running", branch: str | None = None
    ) -> dict[str, Any]:
        made = {
            "id": str(uuid4()),
            "userId": next(iter(self.accounts.values()))["id"],
            "name": name,
            "branch": branch or "main",
            "status": status,
            "createdAt": "2030-01-01T00:00:00.000Z",
            "sessions": [],
            **({"repositoryUrl": url} if url else {}),
        }
        self.environments.insert(0, made)
        return made

    async def _list(self, request: Request) -> JSONResponse:
        return self._unknown(request) or JSONResponse({"environments": self.environments})

    def _find(self, request: Request) -> dict[str, Any] | None:
        wanted = request.path_params["id"]
        return next((one for one in self.environments if one["id"] == wanted), None)

    async def _one(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        found = self._find(request)
        if found is None:
            return refused(404, "Environment not found", "NOT_FOUND")
        if self.stages:
            found["progress"] = self.stages.pop(0)
        return JSONResponse({key: value for key, value in found.items() if key != "sessions"})

    async def _delete(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        found = self._find(request)
        assert found is not None
        self.environments.remove(found)
        gone = [{"branch": "main", "uncommitted": True, "unpushed": 2}]
        return JSONResponse({"success": True, "discarded": gone})

    async def _retry(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        found = self._find(request)
        assert found is not None
        found["status"] = "running"
        return JSONResponse(found)

    # ---- sessions -----------------------------------------------------------------------------

    def add_session(
        self, environment: dict[str, Any], name: str, *, status: str = "inactive"
    ) -> dict[str, Any]:
        session = {
            "id": str(uuid4()),
            "environmentId": environment["id"],
            "name": name,
            "gitBranch": name,
            "status": status,
            "workingDirectory": "/home/dev/work",
            "createdAt": "2030-01-01T00:00:00.000Z",
        }
        environment["sessions"].insert(0, session)
        return session

    async def _create_session(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        if self.fail_session is not None:
            status, refused = self.fail_session
            return JSONResponse(refused, status)
        body = await request.json()
        owner = next(one for one in self.environments if one["id"] == body["environmentId"])
        branch = body.get("branch") or owner["branch"]
        for one in owner["sessions"]:
            if one["gitBranch"] == branch and one["status"] != "dead":
                body = {"error": "BRANCH_IN_USE", "message": "in use", "existingSession": one}
                return JSONResponse(body, 409)
        return JSONResponse(self.add_session(owner, branch))

    async def _list_sessions(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        found = self._find(request)
        return JSONResponse({"sessions": found["sessions"] if found else []})

    async def _session(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        wanted = request.path_params["id"]
        return JSONResponse(next(one for one in self.sessions if one["id"] == wanted))

    async def _delete_session(self, request: Request) -> JSONResponse:
        if stop := self._unknown(request):
            return stop
        for one in self.environments:
            one["sessions"] = [s for s in one["sessions"] if s["id"] != request.path_params["id"]]
        kept = {"ref": "refs/craftastic/kept/x", "uncommitted": False, "unpushed": 1}
        return JSONResponse({"success": True, "message": "deleted", "kept": kept})


def refused(status: int, error: str, code: str, **more: Any) -> JSONResponse:
    return JSONResponse({"success": False, "error": error, "code": code, **more}, status)


@asynccontextmanager
async def running(**options: Any) -> AsyncGenerator[ApiServer]:
    """Serve on a free port as long as the block lasts."""
    fake = ApiServer(**options)
    server = uvicorn.Server(
        uvicorn.Config(
            fake.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none"
        )
    )
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline, "the server starts"
            await anyio.sleep(0.01)
        fake.port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield fake
        finally:
            server.should_exit = True
