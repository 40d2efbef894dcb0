"""Disk use of environments: measured now and then, kept, and freed on request.

Everything happens inside sandboxes, by one constant program (`_inside*.py`): the server walks no
tree that a sandbox can write to. A reclaim is an intent in the database before anything is removed;
what a crash cuts short is put back or finished by the reconciler.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, cast
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.accounts import administration
from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.disk._asking import DiskNotMeasured, Questions, Worktree
from craftastic.disk._model import (
    DiskUse,
    Freed,
    Item,
    Kept,
    Level,
    ListedUse,
    Report,
    Tree,
    level,
    size,
)
from craftastic.disk._repository import DiskRepository
from craftastic.disk._room import DiskQuotaExceeded, DiskRoom, ServerDiskFull, Space
from craftastic.disk._slots import AtWork, DiskBusy, Slots
from craftastic.environments.quota import stop_over_quota
from craftastic.environments.service import (
    Environment,
    EnvironmentService,
    EnvironmentStatus,
)
from craftastic.errors import CraftasticError
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import SandboxGone
from craftastic.runtimes.registry import Runtimes
from craftastic.sessions.service import Session, SessionService, SessionStatus

__all__ = [
    "DISK_INTERVAL_S",
    "DiskNotMeasured",
    "DiskQuotaExceeded",
    "DiskRoom",
    "DiskService",
    "Item",
    "Kept",
    "Overview",
    "Reclaimed",
    "ServerDiskFull",
    "Shown",
    "Space",
    "TreeOfSession",
]

DISK_INTERVAL_S = 5.0
"""Between two looks at what is due: what a crash cut short in a sandbox is put right soon."""

CLAIM_S = 15.0
CLAIM_RENEWAL_S = 4.0
CLAIM_WAIT_S = 75.0
POLL_S = 0.25
FIRST_AFTER_S = 60.0
LEAST_PAUSE_S = 60.0
SHARE = 100
"""A measurement takes at most one part of so many of the time."""

SHARE_OF_FAILED = 10
"""The same for one that gave no figures: what failed may be well again sooner."""

AT_ONCE = 4
"""How many measurements and reclaims one server process does on request, of as many owners."""

SIDE_BY_SIDE = 4
"""How many the reconciler does, of as many owners."""

MAX_WORKTREES = 500
STOPPED = "It is not running: the figures are from when it was looked at last."
FAULTY = "It could not be looked at: an error of the server, whose log says more."
INCOMPLETE = "It has more files than can be looked at in time; what was not seen is missing here."

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TreeOfSession:
    """A worktree with the session that has it, if any has."""

    tree: Tree
    session: Session | None
    state: Literal["living", "ended", "none"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known about an environment's disk, as its owner sees it.

    Args:
        reason: Why the figures are not fresh or not whole, in plain words.
        quota: What it may use, in bytes; None for as much as there is.
    """

    environment_id: UUID
    use: DiskUse | None
    reason: str | None
    quota: int | None
    trees: Sequence[TreeOfSession]

    @property
    def report(self) -> Report | None:
        return None if self.use is None else self.use.report

    def session_at(self, path: str | None) -> UUID | None:
        """Return the session whose worktree is at a path."""
        found = (one.session for one in self.trees if one.tree.path == path)
        session = next(found, None)
        return None if session is None else session.id


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What a reclaim did, and what is used after it."""

    freed: int
    removed: Sequence[Item]
    kept: Sequence[Kept]
    use: Shown


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole server's disk; `owners` are the addresses of those who exist."""

    space: Space | None
    floor: int
    quota: int | None
    environments: Sequence[ListedUse]
    owners: Mapping[UUID, str]


@dataclass(frozen=True, slots=True)
class DiskService:
    """Measures and frees the disks of environments."""

    database: Database
    environments: EnvironmentService
    sessions: SessionService
    runtimes: Runtimes
    audit: AuditService
    clock: Clock
    slots: Slots = field(default_factory=lambda: Slots(AT_ONCE))

    @property
    def room(self) -> DiskRoom:
        """Return what knows how much may be used."""
        return DiskRoom(self.database, self.environments.settings)

    async def get(self, owner: UserId, environment_id: UUID) -> Shown:
        """Return what is known about the disk of the owner's environment.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self.environments.get_owned(owner, environment_id)
        sessions = await self.sessions.list_owned(owner, environment_id)
        async with self.database.read() as tx:
            use = await DiskRepository(tx).find_owned(owner, environment_id)
        report = None if use is None else use.report
        return Shown(
            environment_id,
            use,
            _reason(environment, use),
            self.room.quota,
            [] if report is None else _trees(report, sessions),
        )

    async def measure(self, owner: UserId, environment_id: UUID) -> Shown:
        """Measure the owner's environment now; waits for whoever is at it already.

        Cancellation leaves the figures that were known.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            SandboxGone: It is not running.
            DiskBusy: Somebody is at it for longer than `CLAIM_WAIT_S`.
            DiskNotMeasured: The sandbox's answer makes no sense.
            SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        environment = await self._running(owner, environment_id)
        async with self._claimed(environment) as (holder, before):
            await self._measured(environment, holder, before)
        return await self.get(owner, environment_id)

    async def reclaim(self, owner: UserId, environment_id: UUID, tier: int) -> Reclaimed:
        """Free what nobody would miss: tiers 1 to `tier`.

        1 is caches and what git packs, 2 what tools make again in worktrees of ended sessions, 3
        those worktrees themselves where all work in them is saved. Work that is not committed or
        not pushed, and whatever a process uses, stays; the answer says why. Cancellation ends it:
        what was moved aside is put back by the reconciler.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            SandboxGone: It is not running.
            DiskBusy: Somebody is at it for longer than `CLAIM_WAIT_S`.
            DiskNotMeasured: The sandbox's answer makes no sense.
            SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        environment = await self._running(owner, environment_id)
        async with self._claimed(environment, tier=tier) as (holder, before):
            failpoint("disk.reclaim.wished")
            questions = self._questions(environment)
            # In this order: who is given a worktree after this has another token, and who was
            # before is alive in what is read next.
            tokens = await questions.tokens(await self._worktrees(environment))
            freed = await questions.reclaim(await self._worktrees(environment), tokens, tier)
            failpoint("disk.reclaim.removed")
            await self._reclaimed(environment, holder, owner, tier, freed)
            failpoint("disk.reclaim.recorded")
            with contextlib.suppress(CraftasticError):  # why there are no new figures is shown
                await self._measured(environment, holder, before)
        return Reclaimed(
            freed.freed, freed.removed, freed.kept, await self.get(owner, environment_id)
        )

    async def overview(self) -> Overview:
        """Return the server's disk and everybody's environments, the largest first."""
        async with self.database.read() as tx:
            listed = await DiskRepository(tx).list_all()
            owners = await administration.addresses(tx, sorted({one.owner_id for one in listed}))
        space = await self.room.space()
        return Overview(space, self.room.floor, self.room.quota, listed, owners)

    async def reconcile(self) -> None:
        """Measure what is due, a few owners' side by side, and finish what was cut short.

        It ends once nothing is due. What becomes due meanwhile does not wait for a slow one.
        """
        at_work = AtWork(SIDE_BY_SIDE)
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    for environment in await self._due():
                        if at_work.begin(environment.owner_id):
                            tasks.start_soon(self._look_after, environment, at_work)
                    if not at_work.owners:
                        return
                    await at_work.changed(DISK_INTERVAL_S)
                    await anyio.sleep(POLL_S)  # whatever fails at once is not done all the time
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def _due(self) -> list[Environment]:
        async with self.database.begin() as tx:
            repository = DiskRepository(tx)
            await repository.note_running(FIRST_AFTER_S)
            due = await repository.due()
        if not due:
            return []
        running = {one.id: one for one in await self.environments.list_running()}
        return [running[one] for one in due if one in running]

    async def _look_after(self, environment: Environment, at_work: AtWork) -> None:
        holder = uuid4().hex
        try:
            before = await self._claim(environment, holder, None)
            if before is not None:
                async with self._kept(environment, holder):
                    await self._looked_after(environment, holder, before)
        except CraftasticError as error:
            log.info("disk not measured", environment=str(environment.id), why=error.message)
        except Exception:  # an edge: others' looks go on
            log.exception("disk not measured", environment=str(environment.id))
        finally:
            at_work.end(environment.owner_id)

    async def _looked_after(self, environment: Environment, holder: str, before: DiskUse) -> None:
        if before.tier is not None:
            async with self._noted(environment, holder):
                await self._questions(environment).tidy()
                await self._reclaimed(environment, holder, None, before.tier, None)
        await self._measured(environment, holder, before)

    async def _running(self, owner: UserId, environment_id: UUID) -> Environment:
        environment = await self.environments.get_owned(owner, environment_id)
        if environment.status is not EnvironmentStatus.RUNNING:
            raise SandboxGone(
                "The environment is not running", details="Start it: its disk is looked at inside."
            )
        return environment

    def _questions(self, environment: Environment) -> Questions:
        return Questions(
            self.runtimes[environment.runtime],
            environment.sandbox,
            environment.id,
            environment.repository_url is not None,
        )

    async def _worktrees(self, environment: Environment) -> list[Worktree]:
        sessions = await self.sessions.list_owned(UserId(environment.owner_id), environment.id)
        living = {one.working_directory for one in sessions if _is_alive(one)}
        found = {one.working_directory: one.branch for one in sessions}
        return [
            Worktree(path, branch, "living" if path in living else "ended")
            for path, branch in sorted(found.items())
        ][:MAX_WORKTREES]

    async def _measured(self, environment: Environment, holder: str, before: DiskUse) -> None:
        """Measure and store; stop an environment that is far over its quota and grows on."""
        began = self.clock.monotonic()
        async with self._noted(environment, holder):
            report = await self._questions(environment).measure(await self._worktrees(environment))
        took_s = self.clock.monotonic() - began
        now = level(report.total, self.room.quota, before)
        async with self.database.begin() as tx:
            repository = DiskRepository(tx)
            stored = await repository.measured(
                environment.id,
                holder,
                report,
                # A stop may be refused while somebody is at the environment: until there was one,
                # it is far over its quota by what it has grown since the last one.
                replace(now, mark=before.mark) if now.stop else now,
                at=self.clock.now(),
                pause_s=max(LEAST_PAUSE_S, SHARE * took_s),
            )
            if stored and (now.near, now.over) != (before.near, before.over):
                repository.tell(environment.owner_id, environment.id)
        if stored and now.stop and await self._stop(environment, report, now):
            async with self.database.begin() as tx:
                await DiskRepository(tx).marked(environment.id, holder, now)

    @asynccontextmanager
    async def _noted(self, environment: Environment, holder: str) -> AsyncGenerator[None]:
        """Put on record why there are no new figures, and when it is looked at again."""
        began = self.clock.monotonic()
        try:
            yield
        except Exception as error:
            said = error.message if isinstance(error, CraftasticError) else FAULTY
            took_s = self.clock.monotonic() - began
            async with self.database.begin() as tx:
                await DiskRepository(tx).failed(
                    environment.id,
                    holder,
                    said,
                    pause_s=max(LEAST_PAUSE_S, SHARE_OF_FAILED * took_s),
                )
            raise

    async def _stop(self, environment: Environment, report: Report, now: Level) -> bool:
        quota = self.room.quota or 0
        log.warning(
            "environment over its disk quota",
            environment=str(environment.id),
            used=report.total,
            quota=quota,
            mark=now.mark,
        )
        return await stop_over_quota(
            self.environments,
            environment.id,
            f"It used {size(report.total)} of the {size(quota)} that it may, and grew on. Start it"
            " to free disk space in it; it is stopped again only if it grows further.",
        )

    async def _reclaimed(
        self,
        environment: Environment,
        holder: str,
        actor: UserId | None,
        tier: int,
        freed: Freed | None,
    ) -> None:
        """Put a reclaim on record, and that it has ended; without an answer it was cut short."""
        async with self.database.begin() as tx:
            repository = DiskRepository(tx)
            if not await repository.finished(environment.id, holder) and freed is None:
                return
            repository.tell(environment.owner_id, environment.id)
            await self.audit.record(
                "disk.reclaimed",
                actor_id=actor,
                object_type="environment",
                object_id=environment.id,
                outcome="ok" if freed is not None else "cut_short",
                details={"tier": tier, **({} if freed is None else {"bytes": freed.freed})},
                tx=tx,
            )

    @asynccontextmanager
    async def _claimed(
        self, environment: Environment, *, tier: int | None = None
    ) -> AsyncGenerator[tuple[str, DiskUse]]:
        """Be the only one who is at an environment's disk, over all server processes."""
        holder = uuid4().hex
        deadline = anyio.current_time() + CLAIM_WAIT_S
        async with self.slots.one(environment.owner_id, deadline):
            while (before := await self._claim(environment, holder, tier)) is None:
                if anyio.current_time() > deadline:
                    raise DiskBusy("The environment's disk is being looked at; try again.")
                await anyio.sleep(POLL_S)
            async with self._kept(environment, holder):
                yield holder, before

    async def _claim(
        self, environment: Environment, holder: str, tier: int | None
    ) -> DiskUse | None:
        async with self.database.begin() as tx:
            return await DiskRepository(tx).claim(environment.id, holder, CLAIM_S, tier=tier)

    @asynccontextmanager
    async def _kept(self, environment: Environment, holder: str) -> AsyncGenerator[None]:
        """Renew a claim while it is used, and give it back.

        Raises:
            DiskBusy: The claim was lost, and what was done under it is ended.
        """
        lost = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._renew, environment.id, holder, tasks.cancel_scope, lost)
                yield
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            with anyio.CancelScope(shield=True):
                async with self.database.begin() as tx:
                    await DiskRepository(tx).release(environment.id, holder)
        if lost.is_set():
            raise DiskBusy("Somebody else looks at the environment's disk by now; try again.")

    async def _renew(
        self, environment_id: UUID, holder: str, scope: anyio.CancelScope, lost: anyio.Event
    ) -> None:
        while True:
            await anyio.sleep(CLAIM_RENEWAL_S)
            async with self.database.begin() as tx:
                kept = await DiskRepository(tx).renew(environment_id, holder, CLAIM_S)
            if not kept:
                lost.set()
                scope.cancel()
                return


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return first


def _is_alive(session: Session) -> bool:
    return session.status is not SessionStatus.DEAD


def _trees(report: Report, sessions: Sequence[Session]) -> list[TreeOfSession]:
    """Give each worktree its session: one that is alive, else the newest."""
    of_path: dict[str, Session] = {}
    for one in sessions:
        known = of_path.get(one.working_directory)
        if known is None or (_is_alive(one) and not _is_alive(known)):
            of_path[one.working_directory] = one
    found: list[TreeOfSession] = []
    for tree in report.sessions:
        session = of_path.get(tree.path)
        state = "none" if session is None else "living" if _is_alive(session) else "ended"
        found.append(TreeOfSession(tree, session, state))
    return found


def _reason(environment: Environment, use: DiskUse | None) -> str | None:
    if environment.status is not EnvironmentStatus.RUNNING:
        return STOPPED
    if use is None:
        return None
    if use.fault is not None:
        return use.fault
    return INCOMPLETE if use.report is not None and not use.report.complete else None
