"""Environments: a repository or none, a sandbox, and its storage.

What the owner wants is committed first; `converge` makes it true and may be repeated at any point,
by the request's job, by the reconciler, in any server process.
"""

import hmac
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.environments._answers import (
    AgentsAtWork,
    ContainerNotFound,
    Deleted,
    EnvironmentInError,
    EnvironmentNotReady,
    EnvironmentWithSessions,
    IdleStop,
    OneUserOnly,
    acting_for,
    clone_failure,
    refuse_error,
    settled,
)
from craftastic.environments._converge import (
    AtWork,
    FindProfile,
    SessionsOfEnvironments,
    Steps,
    nothing_known,
    starting,
    token_hash,
)
from craftastic.environments._idle import agents_at_work, way_on
from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
    EnvironmentStopped,
    PushPolicy,
    SessionLine,
)
from craftastic.environments._names import BadName, check_name, suggestions
from craftastic.environments._repository import (
    EnvironmentNameTaken,
    EnvironmentNotFound,
    EnvironmentRepository,
    TooManyEnvironments,
)
from craftastic.environments._repository_url import BadRepositoryUrl, normalise_repository_url
from craftastic.environments._room import EndlessRoom, Room, any_upstream, no_profile
from craftastic.environments._timings import Took, untold
from craftastic.environments._trail import record, record_changes
from craftastic.environments._work import ShuttingDown, Work
from craftastic.errors import CraftasticError
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import Runtime, RuntimeUnavailable, SandboxState
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from craftastic.worktrees.service import Unsaved, WorktreeService, check_branch

__all__ = [
    "AgentsAtWork",
    "BadName",
    "BadRepositoryUrl",
    "CloneStatus",
    "Desired",
    "Environment",
    "EnvironmentInError",
    "EnvironmentNameTaken",
    "EnvironmentNotFound",
    "EnvironmentNotReady",
    "EnvironmentService",
    "EnvironmentStatus",
    "EnvironmentStopped",
    "IdleStop",
    "PushPolicy",
    "SessionLine",
    "ShuttingDown",
    "TooManyEnvironments",
    "acting_for",
    "check_name",
    "suggestions",
    "way_on",
]

CREATE_WAIT_S = 900.0
START_WAIT_S = 180.0
DELETE_WAIT_S = 60.0
READY_WAIT_S = 600.0
POLL_S = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CheckUpstream = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class EnvironmentService:
    """Creates, starts, stops and deletes environments.

    Args:
        check_upstream: Raises when a repository's URL may not be reached.
        find_profile: A user's name and e-mail address, for commits typed in sandboxes.
    """

    database: Database
    runtimes: Runtimes
    worktrees: WorktreeService
    sessions: SessionsOfEnvironments
    settings: Settings
    clock: Clock
    audit: AuditService
    check_upstream: CheckUpstream = any_upstream
    find_profile: FindProfile = no_profile
    at_work: AtWork = nothing_known
    room: Room = field(default_factory=EndlessRoom)
    took: Took = untold
    work: Work = field(default_factory=Work)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Own the background jobs; without it nothing is started."""
        return self.work.running()

    async def create(
        self,
        owner: UserId,
        *,
        name: str,
        repository_url: str | None = None,
        branch: str = "main",
        runtime: str | None = None,
        actor: UserId | None = None,
    ) -> Environment:
        """Create an environment and wait until its sandbox runs; the clone may go on after that.

        Cancellation, as by a client that goes away, ends the waiting only.

        `actor` is who asks, where that is somebody else than the owner: an administrator.

        Returns:
            The environment: `running`, or `error` with the reason, or still `starting` after
            `CREATE_WAIT_S`.

        Raises:
            BadName, BadBranchName, BadRepositoryUrl: As named.
            UserNotFound: There is no such owner; only an administrator can name one.
            EnvironmentNameTaken: With three suggestions in the answer.
            TooManyEnvironments: The owner has as many as the settings allow.
            OneUserOnly: The runtime is in use by somebody else and cannot keep users apart.
            StorageFull: The server's disk is full.
        """
        name, branch = check_name(name), check_branch(branch)
        url = normalise_repository_url(repository_url) if repository_url else None
        if url is not None:
            await self.check_upstream(url)
        chosen = self._runtime(runtime or self.runtimes.default.name)
        self._refuse_broken(chosen)
        await self._refuse_second_user(owner, chosen)
        await self.room.check()
        try:
            async with self.database.begin() as tx:
                environment = await EnvironmentRepository(tx).add(
                    owner_id=owner,
                    name=name,
                    repository_url=url,
                    branch=branch,
                    runtime=chosen.name,
                    limit=self.settings.max_environments_per_user,
                    now=self.clock.now(),
                )
                details = {
                    "name": name,
                    "repository": url,
                    "branch": branch,
                    "runtime": chosen.name,
                }
                by = actor or owner
                await record(self.audit, tx, "environment.create", environment, by, details)
                failpoint("environment.create.inserted")
        except EnvironmentNameTaken as error:
            self._explain_taken(error, name)
            raise
        failpoint("environment.create.committed")
        return await self._started(environment, CREATE_WAIT_S)

    async def get_owned(self, owner: UserId, environment_id: UUID) -> Environment:
        """Return the owner's environment.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        async with self.database.read() as tx:
            return await EnvironmentRepository(tx).get_owned(owner, environment_id)

    async def update(
        self,
        owner: UserId,
        environment_id: UUID,
        *,
        name: str | None = None,
        push_policy: PushPolicy | None = None,
        idle_stop: IdleStop | None = None,
    ) -> Environment:
        """Change an environment's name, push policy or idle policy, what is None stays.

        Raises:
            BadName: As named.
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            EnvironmentNameTaken: With three suggestions in the answer.
        """
        name = None if name is None else check_name(name)
        changes: dict[str, Any] = {} if name is None else {"name": name}
        if push_policy is not None:
            changes["push_policy"] = push_policy.value
        if idle_stop is not None:
            changes["idle_stop_minutes"] = idle_stop.minutes
        if not changes:
            return await self.get_owned(owner, environment_id)
        try:
            async with self.database.begin() as tx:
                repository = EnvironmentRepository(tx)
                before = await repository.get_owned(owner, environment_id)
                after = await repository.change(owner, environment_id, self.clock.now(), **changes)
                await record_changes(self.audit, tx, before, after)
        except EnvironmentNameTaken as error:
            self._explain_taken(error, name or "")
            raise
        return after

    async def list_owned(self, owner: UserId) -> list[EnvironmentWithSessions]:
        """List the owner's environments with their sessions, newest first."""
        async with self.database.read() as tx:
            environments = await EnvironmentRepository(tx).list_owned(owner)
        lines = await self.sessions.lines([one.id for one in environments])
        return [EnvironmentWithSessions(one, lines.get(one.id, ())) for one in environments]

    async def list_sandboxes(self, owner: UserId) -> list[Environment]:
        """List the owner's environments that have a sandbox."""
        async with self.database.read() as tx:
            environments = await EnvironmentRepository(tx).list_owned(owner)
        return [one for one in environments if one.sandbox_id is not None]

    async def is_name_free(self, owner: UserId, name: str) -> bool:
        composed = unicodedata.normalize("NFC", name)
        async with self.database.read() as tx:
            return not await EnvironmentRepository(tx).name_taken(owner, composed)

    async def delete(self, owner: UserId, environment_id: UUID) -> Deleted:
        """Delete an environment with its sandbox and everything in it.

        The wish is stored first and cannot be taken back; what a crash or an absent runtime cuts
        short is finished by the reconciler. The name is free at once.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self.get_owned(owner, environment_id)
        discarded = await self._unsaved(environment)
        async with self.database.begin() as tx:
            deleted = await EnvironmentRepository(tx).wish(
                owner, environment_id, Desired.DELETED, updated_at=self.clock.now()
            )
            details = {"name": deleted.name}
            await record(self.audit, tx, "environment.delete", deleted, owner, details)
        failpoint("environment.delete.wished")
        done = self.work.start(environment_id, self.converge, restart=True)
        with anyio.move_on_after(DELETE_WAIT_S):
            await done.wait()
        async with self.database.read() as tx:
            left = await EnvironmentRepository(tx).find(environment_id)
        return Deleted(discarded, pending=left is not None)

    async def stop(
        self, owner: UserId, environment_id: UUID, *, force: bool = False
    ) -> Environment:
        """End everything that runs in an environment; what it has stored stays.

        The wish is stored first; where the runtime does not answer, it is done when it does. The
        sessions come back in their working trees when they are attached to.

        Args:
            owner: Whose it is.
            environment_id: The environment.
            force: Also while agents are at work.

        Returns:
            The environment: stopped, or still running with the reason after `DELETE_WAIT_S`.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            AgentsAtWork: Agents would be cut short, and `force` was not given.
        """
        environment = await self.get_owned(owner, environment_id)
        if environment.status is EnvironmentStatus.STOPPED:
            return environment
        lines = (await self.sessions.lines([environment_id])).get(environment_id, ())
        busy = [] if force else agents_at_work(lines)
        if busy:
            raise AgentsAtWork(busy)
        return await self._stopped(owner, environment)

    async def start(self, owner: UserId, environment_id: UUID) -> Environment:
        """Start an environment that is stopped or has failed; one that runs is left as it is.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self.get_owned(owner, environment_id)
        running = {EnvironmentStatus.RUNNING, EnvironmentStatus.STARTING}
        if environment.status in running and environment.desired is Desired.RUNNING:
            return environment
        wished = await self._wish_running(environment, starting())
        return await self._started(wished, CREATE_WAIT_S)

    async def retry(self, owner: UserId, environment_id: UUID) -> Environment:
        """Start an environment that failed or stopped, and clone again where that failed.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self.get_owned(owner, environment_id)
        values: dict[str, Any] = {}
        if environment.status in {EnvironmentStatus.ERROR, EnvironmentStatus.STOPPED}:
            values |= starting()
        if environment.clone_status is CloneStatus.FAILED:
            await self.room.check_in(environment_id)
            values |= {"clone_status": CloneStatus.PENDING.value, "clone_reason": None}
        if not values:
            return environment
        return await self._started(await self._wish_running(environment, values), CREATE_WAIT_S)

    async def ready(
        self, owner: UserId, environment_id: UUID, timeout_s: float = READY_WAIT_S
    ) -> Environment:
        """Return the environment once its sandbox runs and its repository is cloned.

        A stopped one is started. A clone that had failed before is tried once more.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            EnvironmentInError: It could not be started.
            EnvironmentStopped: It could not be started again.
            CloneFailed: With what git said.
            EnvironmentNotReady: It takes longer than `timeout_s`.
        """
        environment = await self.get_owned(owner, environment_id)
        if environment.usable:
            return environment
        refuse_error(environment)
        if environment.status is EnvironmentStatus.STOPPED:
            environment = await self.ensure_running(environment)
        if environment.clone_status is CloneStatus.FAILED:
            environment = await self._wish_running(
                environment, {"clone_status": CloneStatus.PENDING.value, "clone_reason": None}
            )
        self.work.start(environment_id, self.converge)
        environment = await self.wait(owner, environment_id, settled, timeout_s)
        refuse_error(environment)
        if environment.clone_status is CloneStatus.FAILED:
            raise clone_failure(environment, "The repository could not be cloned.")
        if environment.status is EnvironmentStatus.STOPPED:
            raise EnvironmentStopped("The environment is not running.", details=environment.reason)
        if not environment.usable:
            doing = environment.progress.message if environment.progress else "It is starting"
            raise EnvironmentNotReady("Environment not ready", details=f"{doing}; try again.")
        return environment

    async def clone_again(self, environment: Environment) -> None:
        """Ask for a new clone where the sandbox has lost the one it had. `ready` waits for it.

        Raises:
            EnvironmentNotFound: It was deleted meanwhile.
        """
        now = await self.get_owned(UserId(environment.owner_id), environment.id)
        if now.clone_status is CloneStatus.READY:  # and no repair has begun meanwhile
            await self._wish_running(now, {"clone_status": CloneStatus.PENDING.value})

    async def ensure_running(self, environment: Environment) -> Environment:
        """Start the sandbox of an environment where it has stopped or is gone.

        Raises:
            EnvironmentNotFound: It was deleted meanwhile.
            EnvironmentStopped: It could not be started; the details say why.
            EnvironmentInError: It never ran, and could not be started.
            RuntimeUnavailable: Its runtime does not answer.
        """
        if environment.status is EnvironmentStatus.RUNNING:
            state = await self._runtime(environment.runtime).inspect(environment.sandbox)
            if state is SandboxState.RUNNING:
                return environment
        if environment.status is not EnvironmentStatus.STARTING:
            environment = await self._wish_running(environment, starting())
        environment = await self._started(environment, START_WAIT_S)
        refuse_error(environment)
        if environment.status is not EnvironmentStatus.RUNNING:
            raise EnvironmentStopped("The environment is not running.", details=environment.reason)
        return environment

    async def by_gateway_token(self, environment_id: UUID, token: str) -> Environment | None:
        """Return the environment whose sandbox has this token, None for any other."""
        async with self.database.read() as tx:
            environment = await EnvironmentRepository(tx).find(environment_id)
        given = token_hash(token)
        known = None if environment is None else environment.gateway_token_hash
        if not hmac.compare_digest(given, known or "") or environment is None:
            return None
        return None if environment.desired is Desired.DELETED else environment

    async def find_by_sandbox(self, owner: UserId, sandbox_id: str) -> Environment:
        """Return the owner's environment by its runtime's id.

        Raises:
            ContainerNotFound: No environment of the owner's has it.
        """
        async with self.database.read() as tx:
            environment = await EnvironmentRepository(tx).find_by_sandbox(owner, sandbox_id)
        if environment is None:
            raise ContainerNotFound("Container not found")
        return environment

    async def owner_of(
        self, environment_id: UUID | None = None, *, sandbox_id: str | None = None
    ) -> UserId | None:
        """Return whose an environment is, by its id or its sandbox's; None where there is none."""
        async with self.database.read() as tx:
            owner = await EnvironmentRepository(tx).owner_of(environment_id, sandbox_id)
        return None if owner is None else UserId(owner)

    async def remove_sandbox(self, owner: UserId, sandbox_id: str) -> None:
        """Remove a sandbox and leave its environment stopped, with its storage.

        Raises:
            ContainerNotFound: No environment of the owner's has it.
            RuntimeUnavailable: Its runtime does not answer; it is removed when it does.
        """
        environment = await self.find_by_sandbox(owner, sandbox_id)
        environment = await self._stopped(owner, environment)
        if environment.status is not EnvironmentStatus.STOPPED:
            raise RuntimeUnavailable(
                "The runtime does not answer; the container is removed when it does.",
                details=environment.reason,
            )

    @asynccontextmanager
    async def exclusive(self, environment_id: UUID) -> AsyncGenerator[None]:
        """Let one task of this process at a time change the environment's sessions."""
        async with self.work.lock(environment_id):
            yield

    async def runtimes_in_use(self) -> set[str]:
        """Return the names of the runtimes that any environment has."""
        async with self.database.read() as tx:
            return await EnvironmentRepository(tx).runtimes()

    async def list_running(self) -> list[Environment]:
        """List everybody's running environments, for the reconciler."""
        async with self.database.read() as tx:
            return await EnvironmentRepository(tx).list_running()

    async def reconcile(self) -> None:
        """Finish what was cut short, and notice what happened to sandboxes behind our back."""
        await self._steps.reconcile()

    async def converge(self, environment_id: UUID) -> None:
        """Make one environment what its owner wants, unless somebody is at it already."""
        await self._steps.converge(environment_id)

    async def note_out_of_memory(self, environment_id: UUID) -> None:
        """Tell the owner that a program in a running sandbox was killed for its memory.

        One that does not run, or is nobody's any more, is left as it is.
        """
        await self._steps.note_out_of_memory(environment_id)

    @property
    def _steps(self) -> Steps:
        return Steps(
            database=self.database,
            runtimes=self.runtimes,
            worktrees=self.worktrees,
            sessions=self.sessions,
            settings=self.settings,
            clock=self.clock,
            find_profile=self.find_profile,
            work=self.work,
            audit=self.audit,
            at_work=self.at_work,
            room=self.room,
            took=self.took,
        )

    async def stop_idle(self) -> None:
        """Stop environments that nobody uses and nothing is at work in, by their policies."""
        await self._steps.stop_idle()

    async def _stopped(self, owner: UserId, environment: Environment) -> Environment:
        async with self.database.begin() as tx:
            wished = await EnvironmentRepository(tx).wish(
                owner, environment.id, Desired.STOPPED, updated_at=self.clock.now()
            )
            details = {"name": wished.name}
            await record(self.audit, tx, "environment.stop", wished, owner, details)
        failpoint("environment.stop.wished")
        self.work.start(environment.id, self.converge, restart=True)
        return await self.wait(
            owner,
            environment.id,
            lambda one: one.status is EnvironmentStatus.STOPPED,
            DELETE_WAIT_S,
        )

    def _explain_taken(self, error: EnvironmentNameTaken, name: str) -> None:
        error.details = f'You already have an environment called "{name}".'
        error.answer = {**error.answer, "suggestions": suggestions(name, self.clock.now())}

    async def _wish_running(
        self, environment: Environment, values: Mapping[str, Any]
    ) -> Environment:
        async with self.database.begin() as tx:
            return await EnvironmentRepository(tx).wish(
                environment.owner_id,
                environment.id,
                Desired.RUNNING,
                updated_at=self.clock.now(),
                **values,
            )

    async def _started(self, environment: Environment, timeout_s: float) -> Environment:
        self.work.start(environment.id, self.converge)
        return await self.wait(
            UserId(environment.owner_id),
            environment.id,
            lambda one: one.status is not EnvironmentStatus.STARTING,
            timeout_s,
        )

    async def wait(
        self,
        owner: UserId,
        environment_id: UUID,
        until: Callable[[Environment], bool],
        timeout_s: float,
    ) -> Environment:
        """Return an environment once something is true of it, or as it is after `timeout_s`."""
        deadline = anyio.current_time() + timeout_s
        while True:
            change = self.work.change(environment_id)
            environment = await self.get_owned(owner, environment_id)
            left_s = deadline - anyio.current_time()
            if until(environment) or left_s <= 0:
                return environment
            # Another process may be at it, whose changes are seen by looking.
            with anyio.move_on_after(min(POLL_S, left_s)):
                await change.wait()

    async def _unsaved(self, environment: Environment) -> list[Unsaved]:
        if not environment.usable or environment.repository_url is None:
            return []
        try:
            return await self.worktrees.unsaved(environment.sandbox, environment.id)
        except CraftasticError as error:
            log.info(
                "unsaved work not listed", environment=str(environment.id), reason=error.message
            )
            return []

    async def _refuse_second_user(self, owner: UserId, runtime: Runtime) -> None:
        if not getattr(runtime, "single_user", False):
            return
        async with self.database.read() as tx:
            taken = await EnvironmentRepository(tx).others_in(runtime.name, owner)
        if taken:
            raise OneUserOnly(
                f"The {runtime.name} runtime of this server is for one user",
                details="Run the server as root or with Docker to give each user their own.",
            )

    def _runtime(self, name: str) -> Runtime:
        return self.runtimes[name]

    def _refuse_broken(self, runtime: Runtime) -> None:
        if (reason := self.runtimes.refused.get(runtime.name)) is not None:
            raise RuntimeUnavailable(
                f"Sandboxes of the runtime {runtime.name!r} do not work on this server.",
                details=reason,
            )
