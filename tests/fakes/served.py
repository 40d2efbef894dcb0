"""Environments whose `origin` is a repository of the test's own, over real git and real tmux."""

import contextlib
import json
import subprocess
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import anyio
import httpx
import psutil
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.database import Database
from craftastic.environments.service import Environment
from craftastic.errors import Unauthenticated
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from craftastic.runtimes.base import Report, SandboxRef, SandboxSpec, no_report
from craftastic.sessions import endpoints as session_endpoints
from craftastic.sessions.service import Session
from craftastic.worktrees.service import Start, repository_path
from tests.fakes.asgi import client_of
from tests.fakes.clock import FakeClock
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.workshop import Workshop, build, opened

URL = "https://github.com/a/b"
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")


class ServedRuntime(GitRuntime):
    """Every environment's `origin` is the one repository in `served`.

    The sandbox's jobs end with it, as they do where a sandbox has processes of its own.
    """

    def __init__(self, root: Path, served: Path) -> None:
        super().__init__(root)
        self.served = served

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        link = self.served / "git" / f"{spec.environment_id}.git"
        if not link.is_symlink():
            link.symlink_to(self.served / "upstream.git")
        return await super().create(spec, report)

    def _end(self, environment_id: UUID) -> None:
        for state in self.home(environment_id).glob(".craftastic/jobs/*/*/state"):
            with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
                job = psutil.Process(json.loads(state.read_bytes())["pid"])
                for process in [job, *job.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                job.wait(5)
        super()._end(environment_id)


class Upstream:
    """The repository that `origin` leads to, and a checkout to change it from."""

    def __init__(self, root: Path) -> None:
        self.served = root / "served"
        self.bare = self.served / "upstream.git"
        self.work = root / "upstream-work"
        (self.served / "git").mkdir(parents=True)
        self._run("init", "-q", "--bare", "-b", "main", str(self.bare))
        self._run("-C", str(self.bare), "config", "http.receivepack", "true")
        self._run("init", "-q", "-b", "main", str(self.work))
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str) -> str:
        """Run git in the checkout."""
        return self._run("-C", str(self.work), *arguments)

    def commit(self, branch: str, files: Mapping[str, str | bytes], to: str | None = None) -> str:
        """Commit files on a branch, push it, and return the commit.

        Args:
            branch: Begins at the branch checked out where it does not exist.
            files: Their contents by name.
            to: Ref of the upstream; the branch when None.
        """
        there = branch in self.git("branch", "--format=%(refname:short)").split("\n")
        if self.git("branch", "--show-current") != branch:
            self.git("switch", "-q", *([] if there else ["-c"]), branch)
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"{branch}: {' '.join(files)}")
        self.git("push", "-q", "-f", "origin", f"HEAD:{to or f'refs/heads/{branch}'}")
        return self.git("rev-parse", "HEAD")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(["git", *IDENTITY, *arguments], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()


@dataclass
class Accounts:
    """Takes a user's id for that user's token."""

    async def authenticate(self, token: str) -> Caller:
        try:
            user_id = UserId(UUID(token))
        except ValueError:
            raise Unauthenticated("Unauthorized") from None
        return Caller(user_id, "a@example.com", "a", True, False, user_id)

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@dataclass
class Rig:
    """One environment with a repository, its upstream, and the services over it."""

    shop: Workshop
    runtime: ServedRuntime
    upstream: Upstream
    server: GitHttpServer
    environment: Environment = field(init=False)

    async def make(self, branch: str | None = None, start: Start | None = None) -> Session:
        return await self.shop.sessions.create(
            self.shop.owner, self.environment.id, branch=branch, start=start
        )

    def tree(self, session: Session) -> Path:
        """Return the host's path of a session's worktree."""
        return self.runtime.inside(self.environment.id, session.working_directory)

    def jobs(self, session: Session) -> Path:
        """Return the host's path of the state of a session's jobs."""
        return self.runtime.home(self.environment.id) / ".craftastic" / "jobs" / str(session.id)

    @property
    def repository(self) -> Path:
        return self.runtime.inside(self.environment.id, repository_path(self.environment.id))

    async def sh(self, script: str, *arguments: str) -> str:
        """Run a script in the sandbox that must succeed, and return what it printed."""
        result = await self.runtime.run(
            self.environment.sandbox, ["sh", "-ec", script, "sh", *arguments]
        )
        assert result.exit_code == 0, result.stderr.decode()
        return result.stdout.decode(errors="surrogateescape").strip()

    async def git(self, session: Session, *arguments: str) -> str:
        """Run git in a session's worktree, as a person would."""
        return await self.sh('cd "$1"; shift; git "$@"', session.working_directory, *arguments)

    async def commit(self, session: Session, name: str) -> str:
        """Commit a file in a session's worktree, and return the commit."""
        script = 'cd "$1"; echo x >"$2"; git add "$2"; git $3 commit -qm "$2"; git rev-parse HEAD'
        identity = " ".join(IDENTITY)
        return await self.sh(script, session.working_directory, name, identity)

    def refs(self) -> set[str]:
        """Return the names of all refs of the environment's repository."""
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "--git-dir", str(self.repository), "for-each-ref"],
            check=True,
            capture_output=True,
            text=True,
        )
        return {line.split("\t")[1] for line in done.stdout.splitlines()}

    def again(self, **services: object) -> None:
        """Put new services in the place of the old ones, as another server process would."""
        old = self.shop
        new = build(old.database, old.clock, self.runtime, gateway_port=self.server.port)
        sessions = replace(new.sessions, **services)  # type: ignore[arg-type] - a test's own names
        self.shop = replace(new, owner=old.owner, sessions=sessions)


@asynccontextmanager
async def rigged(
    folder: Path, database: Database, clock: FakeClock, files: Mapping[str, str | bytes]
) -> AsyncGenerator[Rig]:
    """Make an environment, cloned from an upstream whose `main` has these files."""
    upstream = Upstream(folder)
    upstream.commit("main", files)
    (folder / "sandboxes").mkdir()
    runtime = ServedRuntime(folder / "sandboxes", upstream.served)
    with GitHttpServer(upstream.served) as server:
        shop = build(database, clock, runtime, gateway_port=server.port)
        async with opened(shop):
            rig = Rig(shop, runtime, upstream, server)
            try:
                made = await shop.create(url=URL)
                rig.environment = await shop.environments.ready(shop.owner, made.id)
                yield rig
            finally:
                with anyio.CancelScope(shield=True):
                    await runtime.close()


@asynccontextmanager
async def client_for(rig: Rig) -> AsyncGenerator[httpx.AsyncClient]:
    """Give an HTTP client of the routes of sessions, signed in as the rig's owner."""
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(session_endpoints.router)
    state = {"accounts": Accounts(), "sessions": rig.shop.sessions}
    async with client_of(app, **state) as client:
        client.headers["Authorization"] = f"Bearer {rig.shop.owner}"
        yield client
