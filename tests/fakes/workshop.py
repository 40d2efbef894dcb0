"""Environments and sessions put together over a database and one runtime, with everything real."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import sqlalchemy
from sqlalchemy import event

from craftastic.accounts._repository import User
from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.environments.service import Environment, EnvironmentService
from craftastic.reconcile.service import ReconcileService, standard_reconcilers
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.sessions.service import SessionLists, SessionService
from craftastic.settings import Settings
from craftastic.tmux.service import TmuxService
from craftastic.worktrees.service import WorktreeService
from tests.fakes.clock import FakeClock
from tests.fakes.git_runtime import runtimes_of

WAIT_S = 60.0


@dataclass
class Workshop:
    """One server process's services; `owner` has an account."""

    database: Database
    clock: FakeClock
    runtime: MemoryRuntime
    environments: EnvironmentService
    sessions: SessionService
    reconcile: ReconcileService
    owner: UserId = field(default_factory=lambda: UserId(uuid4()))

    async def add_user(self, user_id: UserId | None = None) -> UserId:
        user_id = user_id or UserId(uuid4())
        now = self.clock.now()
        async with self.database.begin() as tx:
            tx.add(
                User(
                    id=user_id,
                    email=f"{user_id}@example.com",
                    name="a",
                    created_at=now,
                    updated_at=now,
                )
            )
        return user_id

    async def create(self, name: str = "one", url: str | None = None) -> Environment:
        return await self.environments.create(self.owner, name=name, repository_url=url)


def settings_of(**values: object) -> Settings:
    return Settings.model_validate({"data_dir": Path("/nowhere"), **values})


async def allow_any(_url: str) -> None:
    """Let every upstream be reached."""


def build(
    database: Database,
    clock: FakeClock,
    runtime: MemoryRuntime,
    *,
    gateway_port: int = 3010,
    settings: Settings | None = None,
    check_upstream: Callable[[str], Awaitable[object]] | None = None,
) -> Workshop:
    settings = settings or settings_of()
    runtimes = runtimes_of(runtime, settings=settings)
    worktrees = WorktreeService(runtimes, gateway_port)
    environments = EnvironmentService(
        database,
        runtimes,
        worktrees,
        SessionLists(database, clock),
        settings,
        clock,
        AuditService(database, clock),
        check_upstream=check_upstream or allow_any,
    )
    sessions = SessionService(
        database,
        environments,
        worktrees,
        TmuxService(runtimes, 1000),
        clock,
        max_per_environment=settings.max_sessions_per_environment,
    )
    reconcile = ReconcileService(standard_reconcilers(environments, sessions, 3600), clock)
    return Workshop(database, clock, runtime, environments, sessions, reconcile)


@asynccontextmanager
async def opened(shop: Workshop) -> AsyncGenerator[Workshop]:
    """Run the workshop's background jobs and give its owner an account."""
    await shop.add_user(shop.owner)
    async with shop.environments.running():
        yield shop


@asynccontextmanager
async def statements(database: Database) -> AsyncGenerator[list[str]]:
    """Collect the statements that are sent while the context is open."""
    seen: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", record)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = WAIT_S) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It did not come true in time.
    """
    with anyio.fail_after(timeout_s):
        while not await condition():  # noqa: ASYNC110 - what it looks at tells nobody
            await anyio.sleep(0.02)


async def settled(database: Database) -> None:
    """Wait until no job works on any environment."""

    async def idle() -> bool:
        busy = "SELECT 1 FROM environments WHERE claimed_by <> '' OR isolation IS NULL"
        return await rows(database, busy) == []

    await until(idle)


async def rows(database: Database, sql: str, **values: object) -> list[tuple[object, ...]]:
    async with database.read() as tx:
        return [tuple(row) for row in await tx.execute(sqlalchemy.text(sql), values)]
