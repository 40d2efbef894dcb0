"""Deployments over a toy Coolify and one database, as any number of servers."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import anyio
import anyio.to_thread
from sqlalchemy import text

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.coolify.service import CoolifyService
from craftastic.database import Database
from craftastic.deployments.service import Deployment, DeploymentService, Pace, Wish
from craftastic.git.service import GitService, Masker
from craftastic.metrics import Metrics
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.clock import FakeClock
from tests.fakes.coolify_rig import CoolifyRig, coolify_rig
from tests.fakes.git_rig import GitRig, Secrets
from tests.fakes.toy_coolify import ToyApplication, ToyCoolify
from tests.fakes.workshop import Workshop, build

DONE_WITHIN_S = 20.0
MOVED = {
    "deployments": ("next_look_at", "held_until", "asked_at", "deadline_at", "hinted_at"),
    "coolify_pauses": ("until",),
}
"""Columns that hold the database's time."""


@dataclass
class DeploymentRig:
    """One person's environment, a Coolify, and the servers between them.

    Attributes:
        owner: Has an environment and a connection.
        target: The environment; where there is git, the session.
        secrets: What is masked in logs.
    """

    coolify: CoolifyRig
    shop: Workshop
    git: GitService
    owner: UserId
    environment_id: UUID
    target: UUID
    secrets: Secrets
    web: ToyApplication
    token: str
    rig: GitRig | None = None
    services: list[DeploymentService] = field(default_factory=list[DeploymentService])

    @property
    def toy(self) -> ToyCoolify:
        return self.coolify.toy

    async def server(
        self, pace: Pace | None = None, *, token: str | None = None, toy: ToyCoolify | None = None
    ) -> DeploymentService:
        """Return the service as one more server process has it.

        Args:
            pace: How long things wait; as in production when None.
            token: Of the operator's connection.
            toy: The operator's Coolify; the rig's own when None.
        """
        coolify = await self.coolify.server(token=token, toy=toy)
        made = DeploymentService(
            database=coolify.database,
            coolify=coolify,
            sessions=self.shop.sessions,
            environments=self.shop.environments,
            git=self.git,
            audit=AuditService(coolify.database, self.shop.clock),
            clock=self.shop.clock,
            metrics=Metrics(),
            masker_for=self._masker,
            pace=pace or Pace(),
        )
        self.services.append(made)
        return made

    async def _masker(self, _owner: UUID, _environment_id: UUID) -> Masker:
        return self.secrets

    def wish(self, **changed: Any) -> Wish:
        wish = Wish(target_id=self.target, app_id=self.web.uuid)
        return replace(wish, **changed)

    async def later(self, seconds: float) -> None:
        """Let time pass for everything that the database keeps the time of, and for Coolify."""
        self.toy.advance(seconds)
        self.shop.clock.advance(seconds)
        async with self.coolify.database.begin() as tx:
            for table, columns in MOVED.items():
                # A time that is never is not moved.
                moved = ", ".join(
                    f"{one} = CASE WHEN {one} < 1e12 THEN {one} - :seconds ELSE {one} END"
                    for one in columns
                )
                which = "live" if table == "deployments" else "1 = 1"
                await tx.execute(
                    text(f"UPDATE {table} SET {moved} WHERE {which}"),  # noqa: S608
                    {"seconds": seconds},
                )

    async def put_off(self, deployment: Deployment, seconds: float = 5.0) -> None:
        """Let a deployment be due later."""
        async with self.coolify.database.begin() as tx:
            await tx.execute(
                text("UPDATE deployments SET next_look_at = next_look_at + :s WHERE id = :id"),
                {"s": seconds, "id": self._id(deployment.id)},
            )

    def _id(self, one: UUID) -> object:
        return one.hex if self.coolify.database.is_sqlite else one

    async def wait_s(self, deployment_id: UUID) -> float:
        """Return in how many seconds a deployment is due."""
        rows = await self.coolify.rows("deployments")
        due = next(row["next_look_at"] for row in rows if row["id"] == deployment_id)
        async with self.coolify.database.read() as tx:
            now = (
                "SELECT (julianday('now') - 2440587.5) * 86400.0"
                if self.coolify.database.is_sqlite
                else "SELECT CAST(extract(epoch from clock_timestamp()) AS double precision)"
            )
            return float(due) - float(cast("float", await tx.scalar(text(now))))

    async def stepped(
        self, service: DeploymentService, deployment: Deployment, after_s: float = 61.0
    ) -> Deployment:
        """Let time pass and one round happen; return how the deployment is then."""
        await self.later(after_s)
        await service.reconcile()
        return await service.get_owned(self.owner, deployment.id)

    async def until_called(self, method: str, route: str, times: int = 1) -> None:
        """Wait until requests have come to Coolify, answered or not."""
        await anyio.to_thread.run_sync(
            partial(self.toy.wait_for, method, route, times=times, timeout_s=DONE_WITHIN_S)
        )

    @asynccontextmanager
    async def crashing(self, method: str, route: str) -> AsyncGenerator[anyio.abc.TaskGroup]:
        """Run what is started until a request has come to Coolify; then it is gone."""
        before = self.toy.count(method, route)
        async with anyio.create_task_group() as tasks:
            yield tasks
            await self.until_called(method, route, before + 1)
            tasks.cancel_scope.cancel()
        self.toy.heal()


async def connected(service: CoolifyService, owner: UserId, toy: ToyCoolify) -> str:
    """Connect an owner to a Coolify with a token that may do all that is needed."""
    token = toy.token()
    await service.put(owner, toy.url, token)
    return token


@asynccontextmanager
async def deployment_rig(
    database: Database, clock: FakeClock, folder: Path, toy: ToyCoolify | None = None
) -> AsyncGenerator[DeploymentRig]:
    """Give an environment without a repository, deployed to an application that builds `main`."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(coolify_rig(database, clock, folder, toy))
        shop = build(database, clock, MemoryRuntime())
        shop.owner = rig.alice
        await stack.enter_async_context(shop.environments.running())
        environment = await shop.create()
        yield await _rig(rig, shop, git_of(shop), rig.alice, environment.id, environment.id)


@asynccontextmanager
async def deployment_git_rig(
    database: Database, clock: FakeClock, folder: Path, git: GitRig
) -> AsyncGenerator[DeploymentRig]:
    """Give a session on `work` of a real repository, and an application that builds `work`."""
    async with coolify_rig(database, clock, folder) as rig:
        made = await _rig(
            rig, git.shop, git.git, git.shop.owner, git.environment.id, git.session.id
        )
        made.rig = git
        made.web.branch = git.session.branch
        yield made


async def _rig(
    rig: CoolifyRig,
    shop: Workshop,
    git: GitService,
    owner: UserId,
    environment_id: UUID,
    target: UUID,
) -> DeploymentRig:
    web = rig.toy.application("web", branch="main")
    token = await connected(await rig.server(), owner, rig.toy)
    rig.toy.calls.clear()
    return DeploymentRig(rig, shop, git, owner, environment_id, target, Secrets(), web, token)


def git_of(shop: Workshop) -> GitService:
    """Return git's service over a workshop in which nothing is ever pushed."""
    return GitService(
        sessions=shop.sessions,
        environments=shop.environments,
        worktrees=shop.sessions.worktrees,
        runtimes=shop.environments.runtimes,
        pushes=cast("Any", None),
        audit=AuditService(shop.database, shop.clock),
        find_profile=_no_profile,
    )


async def _no_profile(_user_id: UUID) -> tuple[str, str] | None:
    return None
