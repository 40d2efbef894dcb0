"""The GitHub domain over a toy GitHub and one database, as any number of servers."""

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
from sqlalchemy import select, text

from craftastic.accounts._repository import User
from craftastic.audit.service import AuditService
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.github.service import GitHubService, NewFlow, Pace, PollAnswer, open_client
from craftastic.keys import Keyring, load_keys
from craftastic.settings import Settings
from craftastic.tables import METADATA
from tests.fakes.clock import FakeClock
from tests.fakes.toy_github import ToyGitHub

FAST = Pace(safety_s=0.05, fresh_pauses_s=(0.01, 0.02, 0.05), fresh_pause_s=0.01)
DONE_WITHIN_S = 15.0


@dataclass
class GitHubRig:
    """Two people, their GitHub, and the servers between them."""

    database: Database
    clock: FakeClock
    toy: ToyGitHub
    keys_dir: Path
    alice: UUID
    bob: UUID
    _stack: AsyncExitStack = field(repr=False)

    async def server(self, *, toy: ToyGitHub | None = None, **settings: object) -> GitHubService:
        """Return the service as one more server process has it: with connections of its own."""
        database = Database(self.database.engine.url.render_as_string(hide_password=False))
        self._stack.push_async_callback(database.close)
        http = await self._stack.enter_async_context(open_client())
        audit = AuditService(database, self.clock)
        return GitHubService(
            database,
            CredentialService(
                database, Keyring(self.keys_dir / "encryption-key"), self.clock, audit
            ),
            audit,
            self.clock,
            http,
            Settings.model_validate((toy or self.toy).settings | settings),
            FAST,
        )

    def later(self, seconds: float) -> None:
        """Let time pass for the servers and for GitHub."""
        self.clock.advance(seconds)
        self.toy.advance(seconds)

    async def connect(
        self, service: GitHubService, owner: UUID, login: str, scopes: str | None = None
    ) -> PollAnswer:
        """Go through a whole flow."""
        flow = await service.initiate(owner)
        self.toy.approve(flow.user_code, login, scopes)
        return await self.polled(service, owner, flow)

    async def polled(self, service: GitHubService, owner: UUID, flow: NewFlow) -> PollAnswer:
        """Poll until the flow has ended; at most `DONE_WITHIN_S`."""
        with anyio.fail_after(DONE_WITHIN_S):
            while True:
                answer = await service.poll(owner, flow.handle)
                if answer.state == "completed":
                    return answer
                await anyio.sleep(0.02)

    async def due(self, service: GitHubService, owner: UUID, flow: NewFlow) -> PollAnswer:
        """Poll until GitHub was asked once more, and return what that poll was told."""
        before = self.toy.count("/login/oauth/access_token")
        with anyio.fail_after(DONE_WITHIN_S):
            while True:
                answer = await service.poll(owner, flow.handle)
                if self.toy.count("/login/oauth/access_token") > before:
                    return answer
                await anyio.sleep(0.02)

    async def token(self, service: GitHubService, owner: UUID) -> str | None:
        scheme, _, rest = self.toy.url.partition("://")
        host, _, port = rest.partition(":")
        return await service.token_for(owner, (scheme, host, int(port)))

    async def sql(self, statement: str) -> None:
        async with self.database.begin() as tx:
            await tx.execute(text(statement))

    async def rows(self, table: str) -> list[Any]:
        async with self.database.read() as tx:
            found = await tx.execute(select(METADATA.tables[table]))
            return list(found.mappings())

    async def actions(self) -> list[str]:
        rows = await self.rows("audit_events")
        return [row["action"] for row in sorted(rows, key=lambda row: row["seq"])]

    async def everything_stored(self) -> str:
        """Return every value of every row, and the bytes of the database's file."""
        found: list[str] = []
        for table in METADATA.tables:
            found += [repr(dict(row)) for row in await self.rows(table)]
        file = self.database.engine.url.database
        if self.database.is_sqlite and file is not None:
            for path in Path(file).parent.glob(Path(file).name + "*"):
                found.append(path.read_bytes().decode("latin-1"))
        return "\n".join(found)


@asynccontextmanager
async def github_rig(
    database: Database, clock: FakeClock, folder: Path, toy: ToyGitHub
) -> AsyncGenerator[GitHubRig]:
    now = clock.now()
    people = [
        User(email=f"{name}@example.com", name=name, created_at=now, updated_at=now)
        for name in ("alice", "bob")
    ]
    async with database.begin() as tx:
        tx.add_all(people)
    load_keys(folder / "keys")
    async with AsyncExitStack() as stack:
        stack.enter_context(toy)
        toy.add_user("octocat", name="The Octocat")
        toy.add_user("hubot")
        yield GitHubRig(database, clock, toy, folder / "keys", people[0].id, people[1].id, stack)


async def eventually(condition: Any, what: str) -> None:
    """Wait for a condition; it comes from another thread."""
    deadline = time.monotonic() + DONE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come true: {what}"
        await anyio.sleep(0.01)
