"""git's routes over one sandbox, with everything real: gateway, record of pushes, git server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import anyio
import httpx
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.environments.service import Environment
from craftastic.errors import Unauthenticated
from craftastic.gateway.listener import GatewayListener
from craftastic.git import endpoints
from craftastic.git.service import GitService, Masker
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from craftastic.pushes.service import PushService
from craftastic.runtimes.base import HOME, Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.sessions.service import Session
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import gateway_of
from tests.fakes.git_http_server import GitHttpServer, git
from tests.fakes.git_runtime import runtimes_of
from tests.fakes.workshop import Workshop, build, opened, settings_of


class Accounts:
    """Takes a user's id for that user's token."""

    async def authenticate(self, token: str) -> Caller:
        try:
            user_id = UserId(UUID(token))
        except ValueError:
            raise Unauthenticated("Unauthorized") from None
        return Caller(user_id, "a@example.com", "a", True, False, uuid4())

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@dataclass
class Secrets:
    """A masker of the words that a test gives."""

    words: list[str] = field(default_factory=list)

    def mask_text(self, text: str) -> str:
        for word in self.words:
            text = text.replace(word, "••••••")
        return text

    def mask_bytes(self, raw: bytes) -> bytes:
        for word in self.words:
            raw = raw.replace(word.encode(), "••••••".encode())
        return raw


@dataclass
class Profiles:
    profile: tuple[str, str] | None = ("Ada Lovelace", "ada@example.com")

    async def find(self, _user_id: UUID) -> tuple[str, str] | None:
        return self.profile


class Upstream:
    """The true upstream: a bare repository, served over HTTP, and a checkout to change it from."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "upstream"
        self.root.mkdir()
        self.bare = self.root / "project.git"
        self.work = folder / "upstream-work"
        git("init", "-q", "--bare", "-b", "main", str(self.bare))
        git("config", "http.receivepack", "true", cwd=self.bare)
        git("init", "-q", "-b", "main", str(self.work))
        git("remote", "add", "origin", str(self.bare), cwd=self.work)
        self.commit({"a.txt": "one\n", "b.txt": "two\n", "c.txt": "three\n"}, "first")

    def commit(self, files: dict[str, str], message: str = "change", branch: str = "main") -> str:
        """Commit files to a branch, from what it is upstream now."""
        if self.refs():
            git("fetch", "-q", "origin", cwd=self.work)
            if f"refs/heads/{branch}" in self.refs():
                git("checkout", "-q", "-B", branch, f"origin/{branch}", cwd=self.work)
            else:
                git("checkout", "-q", "-B", branch, cwd=self.work)
        for name, text in files.items():
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name).write_text(text)
        git("add", "-A", cwd=self.work)
        git("commit", "-q", "--allow-empty", "-m", message, cwd=self.work)
        git("push", "-q", "origin", f"HEAD:refs/heads/{branch}", cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work).strip()

    def refs(self) -> dict[str, str]:
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.bare)
        return dict(line.split() for line in lines.splitlines())

    def hook(self, name: str, script: str) -> None:
        file = self.bare / "hooks" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)


@dataclass
class GitRig:
    """One session on `work`, a new branch of the upstream's `main`."""

    shop: Workshop
    git: GitService
    client: httpx.AsyncClient
    upstream: Upstream
    server: GitHttpServer
    environment: Environment
    session: Session
    runtime: Runtime
    secrets: Secrets
    profiles: Profiles

    def take_at_most(self, looking_s: int) -> None:
        """Let what only looks take less time."""
        self.use(looking_s=looking_s)

    def use(self, **changed: Any) -> None:
        """Serve git with some of its parts changed."""
        self.git = replace(self.git, **changed)
        self.client = app_of({"accounts": Accounts(), "git": self.git})
        self.client.headers["Authorization"] = f"Bearer {self.shop.owner}"

    @property
    def path(self) -> str:
        return self.session.working_directory

    @property
    def folder(self) -> Path:
        """The worktree on the host; only for runtimes that have it there."""
        runtime = cast("Any", self.runtime)
        return cast("Path", runtime.inside(self.environment.id, self.path))

    async def sh(self, command: str, *arguments: str, check: bool = True) -> str:
        """Run what a person types in the worktree."""
        result = await self.runtime.run(
            self.environment.sandbox,
            ["bash", "-ec", 'cd "$1"; shift; eval "$0"', command, self.path, *arguments],
            timeout_s=120,
        )
        assert not check or result.exit_code == 0, (command, result.stdout, result.stderr)
        return result.stdout.decode(errors="replace").strip()

    def replace_git(self, script: str) -> None:
        """Put something else before git in the sandbox's PATH; `git` there is the true one."""
        runtime = cast("Any", self.runtime)
        folder: Path = runtime.home(self.environment.id) / ".local" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "git"
        file.write_text(f'#!/bin/sh\n{script}\nexec /usr/bin/git "$@"\n')
        file.chmod(0o755)
        runtime.path = f"{HOME}/.local/bin:{runtime.path}"

    async def commit_typed(self, name: str, text: str = "x\n", message: str = "typed") -> str:
        return await self.sh(
            'printf %s "$1" > "$2"; git add -- "$2"; git commit -qm "$3"; git rev-parse HEAD',
            text,
            name,
            message,
        )

    async def head(self) -> str:
        return await self.sh("git rev-parse HEAD")

    async def fingerprint(self) -> str:
        """Return what a failed change must leave alone: files, index, refs of the worktree."""
        return await self.sh(
            "git rev-parse HEAD; git symbolic-ref HEAD; git ls-files -s -u; git ls-files -s;"
            " git status --porcelain=v2 --untracked-files=all;"
            " find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum;"
            " git for-each-ref refs/heads; git stash list"
        )

    async def get(self, route: str, **query: object) -> dict[str, Any]:
        """Ask one of the session's routes and return its data."""
        answer = await self.ask("GET", route, params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["success"] is True
        return body["data"]

    async def post(self, route: str, **body: object) -> dict[str, Any]:
        answer = await self.ask("POST", route, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["success"] is True
        return answer.json()

    async def refused(self, status: int, code: str, route: str, **body: object) -> dict[str, Any]:
        """Post to a route that must refuse in this way."""
        answer = await self.ask("POST", route, json=body)
        return refusal(answer, status, code)

    async def ask(self, method: str, route: str, **options: Any) -> httpx.Response:
        key = self.environment.id if route in {"repo", "branches"} else self.session.id
        return await self.client.request(method, f"/api/git/{route}/{key}", **options)


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = answer.json()
    assert (answer.status_code, body.get("code")) == (status, code), answer.text
    assert body["success"] is False
    assert body["error"]
    assert body["requestId"]
    return body


def app_of(state: dict[str, Any]) -> httpx.AsyncClient:
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    return client_of(app, **state)


@asynccontextmanager
async def git_rig(
    database: Database,
    clock: FakeClock,
    runtime: Runtime,
    folder: Path,
    *,
    port: int = 0,
    password: str | None = None,
    branch: str = "work",
) -> AsyncGenerator[GitRig]:
    """Serve a repository, clone it through the gateway, and open a session on a new branch.

    Args:
        database: With the schema.
        clock: The services' time.
        runtime: Where the sandbox is.
        folder: For the upstream.
        port: Where the gateway listens; 0 picks one, on loopback.
        password: What the upstream asks for, once the clone is made.
        branch: The session's.
    """
    upstream = Upstream(folder)
    with GitHttpServer(upstream.root) as server:
        settings = settings_of(git_allow_http=True, git_allow_private=True)
        audit = AuditService(database, clock)
        found: dict[str, Workshop] = {}

        async def session_branches(environment_id: UUID) -> set[str]:
            shop = found["shop"]
            sessions = await shop.sessions.list_owned(shop.owner, environment_id)
            return {one.branch for one in sessions if one.branch}

        pushes = PushService(database, audit, clock, session_branches)
        gateway = gateway_of(settings, Late(found), ref_policy=pushes)
        listener = GatewayListener(gateway, port)
        try:
            async with anyio.create_task_group() as tasks:
                await listener.serve(runtime, tasks)
                (bound,) = listener.bound.values()
                shop = build(
                    database,
                    clock,
                    cast("MemoryRuntime", runtime),
                    gateway_port=bound,
                    settings=settings,
                )
                found["shop"] = shop
                async with opened(shop):
                    rig = await _rig(shop, pushes, audit, runtime, upstream, server, branch)
                    server.password = password
                    yield rig
                listener.stop()
                tasks.cancel_scope.cancel()
        finally:
            await gateway.aclose()


@dataclass
class Late:
    """Knows sandboxes' tokens as soon as there is a workshop."""

    found: dict[str, Workshop]

    async def by_gateway_token(self, environment_id: UUID, token: str) -> Environment | None:
        return await self.found["shop"].environments.by_gateway_token(environment_id, token)


async def _rig(
    shop: Workshop,
    pushes: PushService,
    audit: AuditService,
    runtime: Runtime,
    upstream: Upstream,
    server: GitHttpServer,
    branch: str,
) -> GitRig:
    made = await shop.create(url=server.url("project.git"))
    environment = await shop.environments.ready(shop.owner, made.id)
    session = await shop.sessions.create(shop.owner, environment.id, branch=branch)
    await shop.sessions.worktrees.identify(environment.sandbox, "A Person", "a@example.com")
    secrets, profiles = Secrets(), Profiles()

    async def masker_for(_owner: UUID, _environment_id: UUID) -> Masker:
        return secrets

    service = GitService(
        sessions=shop.sessions,
        environments=shop.environments,
        worktrees=shop.sessions.worktrees,
        runtimes=runtimes_of(cast("MemoryRuntime", runtime)),
        pushes=pushes,
        audit=audit,
        find_profile=profiles.find,
        masker_for=masker_for,
    )
    client = app_of({"accounts": Accounts(), "git": service})
    client.headers["Authorization"] = f"Bearer {shop.owner}"
    environment = await shop.environments.get_owned(shop.owner, environment.id)
    return GitRig(
        shop, service, client, upstream, server, environment, session, runtime, secrets, profiles
    )
