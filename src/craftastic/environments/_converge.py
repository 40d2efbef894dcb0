"""What makes environments true: steps that take no input, keep no memory, and may be repeated.

One worker at a time has the claim on an environment, in whatever server process it runs.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database, DatabaseUnavailable
from craftastic.environments._endings import OUT_OF_MEMORY, why_ended, why_killed
from craftastic.environments._idle import BY_SERVER, IDLE, is_due, spoken
from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
    SessionLine,
)
from craftastic.environments._repair import repair
from craftastic.environments._repository import EnvironmentRepository
from craftastic.environments._room import Room
from craftastic.environments._timings import Timings, Took, untold, within
from craftastic.environments._trail import record
from craftastic.environments._work import Work
from craftastic.errors import CraftasticError, InvalidInput
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import (
    Progress,
    Report,
    Runtime,
    SandboxRef,
    SandboxSpec,
    SandboxState,
    SandboxSummary,
)
from craftastic.runtimes.registry import Runtimes
from craftastic.runtimes.self_test import is_self_test
from craftastic.settings import Settings
from craftastic.worktrees.service import Found, WorktreeService, check_branch

CLAIM_S = 15.0
CLAIM_RENEWAL_S = 4.0
ROUND_WAIT_S = 10.0
PROGRESS_INTERVAL_S = 0.5
MAX_REASON_CHARACTERS = 2000

START_LIMIT_S = 5400.0
"""Longer than an image takes that is fetched or built anew, each with a deadline of its own."""

STOP_LIMIT_S = 180.0
REMOVE_LIMIT_S = 1800.0
"""Of one try, with everything that was ever written in the environment; there is a next try."""

TO_CLONE = frozenset({CloneStatus.PENDING, CloneStatus.CLONING})

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FindProfile = Callable[[UUID], Awaitable[tuple[str, str] | None]]


class SessionsOfEnvironments(Protocol):
    """What environments need of the sessions in them."""

    async def lines(self, environment_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[SessionLine]]:
        """Return the sessions of each environment, newest first."""
        ...

    async def end_all(self, environment_id: UUID, reason: str | None = None) -> None:
        """Mark every session of the environment dead: its sandbox has ended, and why."""
        ...


class AtWork(Protocol):
    """Names what is at work in a sandbox; `tmux.service.TmuxService.at_work` is it."""

    async def __call__(self, sandbox: SandboxRef, ignored: Collection[str], /) -> list[str]: ...


async def nothing_known(_sandbox: SandboxRef, _ignored: Collection[str]) -> list[str]:
    """Say that something may be at work: nobody can look."""
    return ["unknown"]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to change one environment."""

    environment: Environment
    holder: str
    scope: anyio.CancelScope

    @property
    def id(self) -> UUID:
        return self.environment.id


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps over environments; `EnvironmentService` says when, these do it."""

    database: Database
    runtimes: Runtimes
    worktrees: WorktreeService
    sessions: SessionsOfEnvironments
    settings: Settings
    clock: Clock
    find_profile: FindProfile
    work: Work
    audit: AuditService
    at_work: AtWork
    room: Room
    took: Took = untold

    async def reconcile(self) -> None:
        """Finish what was cut short, and notice what happened to sandboxes behind our back."""
        async with self.database.read() as tx:
            repository = EnvironmentRepository(tx)
            waiting, names = await repository.list_waiting(), await repository.runtimes()
        ends = [self.work.start(one.id, self.converge) for one in waiting]
        with anyio.move_on_after(ROUND_WAIT_S):
            for end in ends:
                await end.wait()
        for name in names | {self.runtimes.default_name}:
            try:
                await self._observe(self.runtimes[name])
            except CraftasticError as error:
                # Nothing is known, so nothing is changed.
                log.warning("runtime not observed", runtime=name, reason=error.message)

    async def converge(self, environment_id: UUID) -> None:
        """Make one environment what its owner wants, unless somebody is at it already."""
        holder, asked = uuid4().hex, anyio.current_time()
        async with self.database.begin() as tx:
            environment = await EnvironmentRepository(tx).claim(environment_id, holder, CLAIM_S)
        if environment is None:
            return
        failpoint("environment.claimed")
        try:
            async with anyio.create_task_group() as tasks:
                claim = Claim(environment, holder, tasks.cancel_scope)
                tasks.start_soon(self._keep_claim, claim, asked)
                match environment.desired:
                    case Desired.DELETED:
                        await self._remove(claim)
                    case Desired.STOPPED:
                        await self._stop(claim)
                    case Desired.RUNNING:
                        await self._start(claim)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                async with self.database.begin() as tx:
                    await EnvironmentRepository(tx).release(environment_id, holder)
            self.work.changed(environment_id)

    async def _start(self, claim: Claim) -> None:
        environment = claim.environment
        if environment.status is EnvironmentStatus.STARTING:
            started = await self._start_sandbox(claim)
            if started is None:
                return
            failpoint("sandbox.create.recorded")
            environment = started
        if environment.status is not EnvironmentStatus.RUNNING:
            return
        async with anyio.create_task_group() as tasks:
            if environment.isolation is None:
                tasks.start_soon(self._probe, claim, environment)
            if environment.clone_status in TO_CLONE:
                tasks.start_soon(self._clone, claim, environment)
            elif environment.clone_status is CloneStatus.REPAIRING:
                tasks.start_soon(self._repair, claim, environment)

    async def _start_sandbox(self, claim: Claim) -> Environment | None:
        environment, times = claim.environment, Timings(self.clock)
        report = self._reporter(claim, times)
        times.begin("sandbox")
        try:
            runtime = self.runtimes[environment.runtime]
            with within(START_LIMIT_S, "started"):
                sandbox = await runtime.create(self._spec(environment), report)
                failpoint("sandbox.create.made")
                if environment.clone_status not in TO_CLONE:  # else the clone does it too
                    profile = await self.find_profile(environment.owner_id)
                    if profile is not None:
                        await self.worktrees.identify(sandbox, *profile)
        except DatabaseUnavailable:
            raise  # it says nothing of the sandbox, which is gone on with in the next round
        except CraftasticError as error:
            log.warning("environment not started", environment=str(claim.id), reason=error.message)
            # One that ran before can simply be started again; its storage is there.
            known = environment.sandbox_id is not None
            await self._write(
                claim,
                status=(EnvironmentStatus.STOPPED if known else EnvironmentStatus.ERROR).value,
                reason_code=error.code,
                reason=_reason(error),
                **no_progress(),
            )
            return None
        return await self._write(
            claim,
            status=EnvironmentStatus.RUNNING.value,
            sandbox_id=sandbox.id,
            reason_code=None,
            reason=None,
            isolation=None,
            used_at=self.clock.now(),
            timings=self._timed(environment, times),
            **no_progress(),
        )

    async def _probe(self, claim: Claim, environment: Environment) -> None:
        try:
            runtime = self.runtimes[environment.runtime]
            summary = (await runtime.isolation(environment.sandbox)).summary
        except CraftasticError as error:
            summary = f"network isolation: not verified; not checked: {error.message}"
        await self._write(claim, isolation=summary[:MAX_REASON_CHARACTERS])
        failpoint("sandbox.create.probed")

    async def _clone(self, claim: Claim, environment: Environment) -> None:
        token = secrets.token_urlsafe(32)
        await self._write(
            claim,
            gateway_token_hash=token_hash(token),
            clone_status=CloneStatus.CLONING.value,
            clone_reason=None,
        )
        failpoint("clone.token.recorded")
        times = Timings(self.clock, environment.timings)
        times.begin("clone")
        profile = await self.find_profile(environment.owner_id)
        try:
            cloned = await self.worktrees.clone(
                environment.sandbox,
                environment.id,
                token,
                self._reporter(claim, times),
                branch=environment.branch,
                identity=profile,
            )
        except CraftasticError as error:
            log.warning("clone failed", environment=str(claim.id), reason=error.message)
            await self._write(
                claim,
                clone_status=CloneStatus.FAILED.value,
                clone_reason=_reason(error),
                reason_code=error.code,
                reason=None,
                **no_progress(),
            )
            return
        branch = environment.branch if cloned.has_branch else cloned.default_branch
        await self._write(
            claim,
            clone_status=CloneStatus.READY.value,
            clone_reason=None,
            reason_code=None,
            reason=None,
            branch=_acceptable(branch) or environment.branch,
            timings=self._timed(environment, times),
            **no_progress(),
        )
        failpoint("clone.recorded")

    async def _repair(self, claim: Claim, environment: Environment) -> None:
        """Look the repository through and put it right; a repetition goes on where it was."""

        def known(token: str) -> bool:
            return hmac.compare_digest(token_hash(token), environment.gateway_token_hash or "")

        async def note(token: str) -> None:
            await self._write(claim, gateway_token_hash=token_hash(token))

        try:
            found = await repair(
                self.worktrees, environment, known, note, self.room, self._reporter(claim)
            )
        except DatabaseUnavailable:
            raise
        except CraftasticError as error:
            log.warning("repair failed", environment=str(claim.id), reason=error.message)
            # What there was is untouched, and still there for what can be read of it.
            await self._write(
                claim,
                clone_status=CloneStatus.READY.value,
                clone_reason=_reason(error),
                reason_code=error.code,
                reason=None,
                **no_progress(),
            )
            return
        if found is Found.MISSING:
            await self._clone(claim, environment)
            return
        await self._write(
            claim,
            clone_status=CloneStatus.READY.value,
            clone_reason=None,
            reason_code=None,
            reason=None,
            **no_progress(),
        )
        failpoint("environment.repair.recorded")

    async def _stop(self, claim: Claim) -> None:
        environment = claim.environment
        if environment.status is EnvironmentStatus.STOPPED:
            return
        try:
            runtime = self.runtimes[environment.runtime]
            with within(STOP_LIMIT_S, "stopped"):
                await runtime.remove(self._spec(environment), storage=False)
            failpoint("environment.stop.removed")
        except CraftasticError as error:
            await self._write(claim, reason_code=error.code, reason=_reason(error))
            return
        await self.sessions.end_all(environment.id)
        failpoint("environment.stop.sessions.ended")
        by_server = environment.reason_code in BY_SERVER
        await self._write(
            claim,
            status=EnvironmentStatus.STOPPED.value,
            sandbox_id=None,
            reason_code=environment.reason_code if by_server else "STOPPED_BY_OWNER",
            reason=environment.reason
            if by_server
            else "It was stopped; the next session or terminal starts it again.",
            **no_progress(),
        )

    async def _remove(self, claim: Claim) -> None:
        environment = claim.environment
        try:
            runtime = self.runtimes[environment.runtime]
            with within(REMOVE_LIMIT_S, "removed"):
                await runtime.remove(self._spec(environment), storage=True)
            failpoint("environment.delete.removed")
        except CraftasticError as error:
            log.warning("environment not removed", environment=str(claim.id), reason=error.message)
            await self._write(claim, reason_code=error.code, reason=_reason(error))
            return
        async with self.database.begin() as tx:
            await EnvironmentRepository(tx).remove(environment.id, claim.holder)
        failpoint("environment.delete.forgotten")

    async def stop_idle(self) -> None:
        """Stop environments that nobody uses and nothing is at work in, by their policies."""
        async with self.database.read() as tx:
            running = await EnvironmentRepository(tx).list_running()
        lines = await self.sessions.lines([one.id for one in running])
        now, default = self.clock.now(), self.settings.idle_stop_minutes
        for environment in running:
            of_it = lines.get(environment.id, ())
            if is_due(environment, of_it, default, now):
                await self._stop_idle(environment, of_it, now)

    async def _stop_idle(
        self, environment: Environment, lines: Sequence[SessionLine], now: datetime
    ) -> None:
        """Stop one, unless something is at work in it: then it is in use now."""
        agents = {one.tmux_session_name for one in lines if one.agent_state is not None}
        try:
            busy = await self.at_work(environment.sandbox, agents)
        except CraftasticError as error:
            log.info("not known if it is idle", environment=str(environment.id), why=error.message)
            return
        if busy:
            async with self.database.begin() as tx:
                await EnvironmentRepository(tx).used(environment.id, now)
            return
        own = environment.idle_stop_minutes
        minutes = self.settings.idle_stop_minutes if own is None else own
        reason = (
            f"Nobody had used it for {spoken(minutes)}; the next session or terminal starts it"
            " again."
        )
        async with self.database.begin() as tx:
            wished = await EnvironmentRepository(tx).wish_idle(environment, IDLE, reason, now)
            if wished is None:
                return
            details = {"name": wished.name, "idle_minutes": minutes}
            await record(self.audit, tx, "environment.stop", wished, None, details)
        self.work.start(environment.id, self.converge)

    async def _observe(self, runtime: Runtime) -> None:
        async with self.database.read() as tx:
            settled = await EnvironmentRepository(tx).list_settled(runtime.name)
        found = {one.environment_id: one for one in await runtime.list()}
        for environment in settled:
            await self._observe_one(runtime, environment, found.get(environment.id))
        # Read after the list: a sandbox is never made before its row is committed.
        async with self.database.read() as tx:
            known = await EnvironmentRepository(tx).ids()
        for stray in found.values():
            if stray.environment_id not in known and not is_self_test(stray.environment_id):
                log.warning("stray sandbox removed", sandbox=stray.ref.id, runtime=runtime.name)
                # Its storage stays: it may hold somebody's only copy of something.
                await runtime.remove(_stray_spec(stray), storage=False)

    async def _observe_one(
        self, runtime: Runtime, environment: Environment, found: SandboxSummary | None
    ) -> None:
        state = SandboxState.GONE if found is None else found.state
        is_running = environment.status is EnvironmentStatus.RUNNING
        if is_running and state is not SandboxState.RUNNING:
            ending = None if found is None else await runtime.ending(found.ref)
            code, what = why_ended(ending)
            changed = await self._settle(
                environment,
                status=EnvironmentStatus.STOPPED.value,
                reason_code=code,
                reason=f"{what}; the next session or terminal starts it again.",
                **no_progress(),
            )
            if changed:
                await self.sessions.end_all(environment.id, f"{what}.")
        elif not is_running and found is not None and state is SandboxState.RUNNING:
            if environment.desired is Desired.STOPPED:
                await runtime.stop(found.ref)
            else:
                await self._settle(
                    environment,
                    status=EnvironmentStatus.RUNNING.value,
                    sandbox_id=found.ref.id,
                    reason_code=None,
                    reason=None,
                )

    async def note_out_of_memory(self, environment_id: UUID) -> None:
        """Tell the owner that a program in a running sandbox was killed for its memory."""
        now = self.clock.now()
        reason = why_killed(now, self.settings.sandbox_memory_limit)
        async with self.database.begin() as tx:
            await EnvironmentRepository(tx).note(
                environment_id, reason_code=OUT_OF_MEMORY, reason=reason, updated_at=now
            )
        self.work.changed(environment_id)

    async def _settle(self, seen: Environment, **values: Any) -> bool:
        async with self.database.begin() as tx:
            changed = await EnvironmentRepository(tx).settle(
                seen, updated_at=self.clock.now(), **values
            )
        self.work.changed(seen.id)
        return changed is not None

    async def _keep_claim(self, claim: Claim, last: float) -> None:
        """Prolong a claim, and end its job once it is lost, or may have been.

        Args:
            claim: What is held.
            last: When it was asked for, by the event loop's clock.
        """
        asked: float | None = last
        while asked is not None:
            with anyio.CancelScope(deadline=asked + CLAIM_S) as held:
                asked = await self._renew(claim)
            if held.cancelled_caught:
                log.warning("claim not renewed in time", environment=str(claim.id))
                break
        claim.scope.cancel()

    async def _renew(self, claim: Claim) -> float | None:
        """Prolong a claim as soon as the database answers; None when it was lost.

        Returns:
            When the renewal was asked for, by the event loop's clock.
        """
        while True:
            await anyio.sleep(CLAIM_RENEWAL_S)
            asked = anyio.current_time()
            try:
                async with self.database.begin() as tx:
                    kept = await EnvironmentRepository(tx).renew(claim.id, claim.holder, CLAIM_S)
            except DatabaseUnavailable as error:
                log.debug("claim not renewed yet", environment=str(claim.id), why=error.message)
            else:
                return asked if kept else None

    async def _write(self, claim: Claim, **values: Any) -> Environment:
        """Change the claimed environment; ends the job when it is no longer its to change."""
        async with self.database.begin() as tx:
            environment = await EnvironmentRepository(tx).write(
                claim.id,
                claim.holder,
                claim.environment.desired,
                updated_at=self.clock.now(),
                **values,
            )
        self.work.changed(claim.id)
        if environment is None:
            claim.scope.cancel()
            await anyio.lowlevel.checkpoint()
            return claim.environment
        return environment

    def _timed(self, environment: Environment, times: Timings) -> str:
        for step, seconds in times.end().items():
            self.took(step, environment.runtime, seconds)
        return times.packed()

    def _reporter(self, claim: Claim, times: Timings | None = None) -> Report:
        last_step, last_at = "", 0.0

        async def report(progress: Progress) -> None:
            nonlocal last_step, last_at
            if times is not None:
                times.begin(progress.step)
            now = self.clock.monotonic()
            if progress.step == last_step and now - last_at < PROGRESS_INTERVAL_S:
                return
            last_step, last_at = progress.step, now
            try:
                await self._write(
                    claim,
                    progress_step=progress.step[:32],
                    progress_message=progress.message[:500],
                    progress_percent=progress.percent,
                )
            except DatabaseUnavailable as error:
                # What is made goes on: the next step is told, and its end is stored or made again.
                log.debug("progress not stored", environment=str(claim.id), why=error.message)

        return report

    def _spec(self, environment: Environment) -> SandboxSpec:
        return SandboxSpec(
            environment_id=environment.id,
            owner_id=environment.owner_id,
            number=environment.number,
            name=environment.name,
            memory_bytes=self.settings.sandbox_memory_limit,
            cpus=self.settings.sandbox_cpu_limit,
            pids=self.settings.sandbox_pids_limit,
        )


def token_hash(token: str) -> str:
    # A random token of 32 bytes needs no slow hash.
    return sha256(token.encode(errors="replace")).hexdigest()


def starting() -> dict[str, Any]:
    return {
        "status": EnvironmentStatus.STARTING.value,
        "reason_code": None,
        "reason": None,
        "progress_step": "sandbox",
        "progress_message": "Waiting to start",
        "progress_percent": None,
    }


def no_progress() -> dict[str, Any]:
    return {"progress_step": None, "progress_message": None, "progress_percent": None}


def _reason(error: CraftasticError) -> str:
    text = error.message if error.details is None else f"{error.message} {error.details}"
    return text[:MAX_REASON_CHARACTERS]


def _acceptable(branch: str | None) -> str | None:
    """Return a remote's default branch if it is one that a session may have."""
    try:
        return None if branch is None else check_branch(branch)
    except InvalidInput:
        return None


def _stray_spec(stray: SandboxSummary) -> SandboxSpec:
    return SandboxSpec(
        environment_id=stray.environment_id,
        owner_id=stray.owner_id or UUID(int=0),
        number=0,
        name=stray.name,
    )
