"""One user's work on a server: an environment, a session, and a file that is not committed."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._figures import note
from tests.faults._journal import Journal


@dataclass
class Work:
    """One environment with a session, in whose worktree lies the file `kept`."""

    server: Server
    journal: Journal
    environment: dict[str, Any]
    session: dict[str, Any]

    @property
    def viewer(self) -> Viewer:
        return Viewer(
            self.server.url,
            self.session["id"],
            self.environment["id"],
            self.journal.api.token,
        )

    async def shown(self) -> dict[str, Any]:
        return await self.journal.api.get(f"/api/environments/{self.environment['id']}")

    async def session_shown(self) -> dict[str, Any]:
        return await self.journal.api.get(f"/api/sessions/{self.session['id']}")

    async def seen(self, fault: str, within_s: float, *codes: str) -> None:
        """Wait until the environment tells one of these reasons, and note how long that took."""

        async def told() -> bool:
            return (await self.shown()).get("reasonCode") in codes

        began = time.monotonic()
        await until(told, f"one of {codes} is told", timeout_s=within_s)
        runtime = self.server.environment["CRAFTASTIC_RUNTIME"]
        note(fault, f"seen, {runtime}", time.monotonic() - began, "s")

    async def is_back(self) -> None:
        """Attach: the sandbox is there again, and what was not committed is in the worktree."""
        viewer = self.viewer
        async with viewer.attached():
            assert (await viewer.run("cat kept; git status --short")).split() == ["k", "??", "kept"]
        shown = await self.shown()
        assert shown["status"] == "running"
        assert "reasonCode" not in shown


@asynccontextmanager
async def begun(server: Server, upstream: str) -> AsyncGenerator[Work]:
    """Register, make an environment and a session, and leave something in its worktree."""
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        journal = Journal(api)
        environment = await journal.create(
            "/api/environments", userId=api.user["id"], name="w", repositoryUrl=upstream
        )
        assert environment is not None, journal.refused
        session = await journal.create(
            "/api/sessions", environmentId=environment["id"], name="s", branch="topic"
        )
        assert session is not None, journal.refused
        work = Work(server, journal, environment, session)
        async with work.viewer.attached() as viewer:
            await viewer.run("echo k >kept")
        yield work
