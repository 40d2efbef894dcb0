"""A user's private repository and sessions on it: what tests of credentials work with."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import PostgresServer
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git
from tests.fakes.toy_github import ToyGitHub

WIDE = 300
"""Columns of a terminal in which no line of git's is broken."""


@dataclass
class Upstream:
    """A bare repository on a git server, and how the rest of the world works on it."""

    server: GitHttpServer
    bare: Path

    @property
    def url(self) -> str:
        return self.server.url(self.bare.name)

    @property
    def base(self) -> str:
        return self.server.url("")

    def at(self, ref: str) -> str:
        """Return the commit of a ref, nothing when it is not there."""
        return git("rev-parse", "--verify", "--quiet", ref, cwd=self.bare, check=False).strip()

    def somebody_pushes(self, branch: str, name: str) -> str:
        """Add a commit to a branch, past the server, and return it."""
        work = self.bare.parent / f"somebody-{name}"
        git("clone", "--quiet", "--branch", branch, str(self.bare), str(work))
        (work / name).write_text(name)
        git("add", ".", cwd=work)
        git("commit", "--quiet", "-m", name, cwd=work)
        git("push", "--quiet", "origin", branch, cwd=work)
        return git("rev-parse", "HEAD", cwd=work).strip()

    def objects(self) -> bytes:
        said = git("cat-file", "--batch-all-objects", "--batch", cwd=self.bare)
        return said.encode()


@dataclass
class Work:
    """A session of an environment, and a terminal that is attached to it."""

    api: Api
    environment: dict[str, Any]
    session: dict[str, Any]
    viewer: Viewer

    @property
    def id(self) -> str:
        return self.session["id"]

    async def ask(self, what: str, status: int = 200, **body: Any) -> Any:
        """Call one of the git routes of the session and return the answer."""
        answer = await self.api.client.post(f"/api/git/{what}/{self.id}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def typed(self, command: str, ends: int | None = 0, timeout_s: float = 60.0) -> str:
        """Type a command that must end with a status, and return what the terminal shows."""
        said = await self.viewer.run(f"{command}; echo ended=$?", timeout_s)
        text, _, status = said.rpartition("ended=")
        assert ends is None or int(status) == ends, said
        return " ".join(text.split())

    async def change(self, line: str) -> None:
        await self.typed(f"echo {line} >>work.txt")

    async def head(self) -> str:
        return (await self.typed("/usr/bin/git rev-parse HEAD")).strip()

    async def commit_and_push(self, line: str) -> str:
        """Change a file by hand, commit and push over the API, and return the commit."""
        await self.change(line)
        made = (await self.ask("commit", message=line))["data"]["commit"]
        pushed = (await self.ask("push"))["data"]
        (update,) = pushed["updates"]
        assert (update["new"], update["outcome"], pushed["commit"]) == (made, "ok", made)
        return made

    async def type_commit_and_push(self, line: str, before: str = "") -> str:
        """The same, all by hand."""
        await self.change(line)
        await self.typed(
            f"{before}git add -A && {before}git commit -m '{line}' && {before}git push"
        )
        return await self.head()


@dataclass
class Stage:
    """A server, its user, the user's GitHub with a private repository, and another git host."""

    server: Server
    api: Api
    github: ToyGitHub
    private: Upstream
    other: Upstream
    password: str
    database_url: str
    postgres: PostgresServer | None
    answers: list[str]
    viewers: list[Viewer] = field(default_factory=list[Viewer])
    connected_at: float = 0.0

    async def connect(self) -> None:
        """Connect GitHub by the device flow, as a browser would."""
        flow = (await self.api.post("/api/auth/github/initiate"))["data"]
        assert flow["verification_uri"].startswith(self.private.base)
        self.github.approve(flow["user_code"], "octocat")

        async def connected() -> bool:
            answer = await self.api.post(
                "/api/auth/github/poll", deviceCode=flow["device_code"], interval=flow["interval"]
            )
            return answer["success"]

        await until(connected, "GitHub is connected")
        self.connected_at = time.monotonic()
        assert (await self.api.get("/api/auth/github/status"))["data"]["username"] == "octocat"

    @asynccontextmanager
    async def working(self, name: str, upstream: Upstream, branch: str) -> AsyncGenerator[Work]:
        """Make an environment of a repository, a session on a branch, and attach to it."""
        environment = await self.api.environment(name, upstream.url)

        async def cloned() -> dict[str, Any] | None:
            now = await self.api.get(f"/api/environments/{environment['id']}")
            assert now["cloneStatus"] != "failed", now
            return now if now["cloneStatus"] == "ready" else None

        environment = await until(cloned, "the repository is cloned", timeout_s=60)
        session = await self.api.post(
            "/api/sessions", environmentId=environment["id"], branch=branch
        )
        viewer = Viewer(
            self.server.url, session["id"], environment["id"], self.api.token, cols=WIDE
        )
        self.viewers.append(viewer)
        async with viewer.attached():
            yield Work(self.api, environment, session, viewer)
