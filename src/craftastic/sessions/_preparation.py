"""What a session does to its worktree beside making it: preparing it, and tearing it down."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import SandboxGone
from craftastic.sessions._model import Session
from craftastic.worktrees.service import (
    SETUP,
    TEARDOWN,
    JobRunning,
    JobStatus,
    Look,
    Place,
    StartKind,
    WorktreeJobs,
    worktree_path,
)

Variables = Callable[[UUID, UUID], Awaitable[Mapping[str, str]]]
"""Gives the variables of an environment's shells, of an owner and an environment."""

MaskText = Callable[[str], str]
Mask = Callable[[UUID, UUID], Awaitable[MaskText]]
"""Gives what takes the secrets of an owner and an environment out of a text."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def no_variables(_owner: UUID, _environment_id: UUID) -> Mapping[str, str]:
    return {}


async def no_mask(_owner: UUID, _environment_id: UUID) -> MaskText:
    return str


@dataclass(frozen=True, slots=True)
class Teardown:
    """How a teardown ended; `status` is failed too where it could not be run."""

    status: JobStatus
    exit_code: int | None = None
    reason: str | None = None
    log: str = ""


def place_of(session: Session, environment: Environment, branch: str) -> Place:
    """Return where a session's worktree is.

    Raises:
        EnvironmentStopped: The environment has no sandbox now.
    """
    path = worktree_path(environment.id, branch)
    return Place(environment.sandbox, environment.id, session.id, path)


def is_trusted(session: Session, look: Look) -> bool:
    """Tell whether the worktree's commands may run without anybody asking for it.

    A pull request's are whoever's it is, also on a branch that began from one: they would get the
    session's variables.
    """
    began_here = session.start is None or session.start.kind is not StartKind.PULL_REQUEST
    return began_here and not look.foreign


@dataclass(frozen=True, slots=True)
class Preparation:
    """Prepares worktrees and tears them down; neither ever keeps a session from its end."""

    jobs: WorktreeJobs
    variables: Variables
    mask: Mask

    async def prepare(self, session: Session, environment: Environment, branch: str) -> None:
        """Copy what a new worktree gets, and start its setup; repeatable until it has begun.

        What goes wrong is told by the session's setup, and does not fail the session.

        Raises:
            SandboxGone: The sandbox has ended.
        """
        place = place_of(session, environment, branch)
        try:
            look = await self.jobs.look(place)
            trusted = is_trusted(session, look)
            if trusted:
                await self._copy(place, look, environment)
            if not look.config.setup or not trusted:
                await self.jobs.prepared(place)
                return
            await self._start(place, look, environment)
        except SandboxGone:
            raise
        except CraftasticError as error:
            log.warning("worktree not prepared", session=str(session.id), reason=_said(error))

    async def _copy(self, place: Place, look: Look, environment: Environment) -> None:
        if not look.config.copy:
            return
        preferred = worktree_path(environment.id, environment.branch)
        try:
            await self.jobs.copy(place, look.config.copy, preferred)
        except SandboxGone:
            raise
        except CraftasticError as error:
            # The worktree's notes say so too: the sandbox began them before it copied.
            log.warning("files not copied", session=str(place.session_id), reason=_said(error))

    async def _start(self, place: Place, look: Look, environment: Environment) -> None:
        try:
            await self.jobs.start(
                place,
                SETUP,
                look.config.setup,
                await self.variables(environment.owner_id, environment.id),
                look.config.setup_timeout_s,
                first=True,
            )
        except JobRunning:
            # Whoever was cut short had started it, or another server was quicker.
            await self.jobs.prepared(place)

    async def end(self, session: Session, environment: Environment) -> Sequence[str]:
        """End a session's jobs; return the teardown that its worktree is due."""
        if session.branch is None:
            return ()
        place = place_of(session, environment, session.branch)
        try:
            look = await self.jobs.stop(place)
            teardown = look.jobs.get(TEARDOWN)
            if teardown is not None and teardown.status is JobStatus.RUNNING:
                await self.jobs.await_teardown(place)
                return ()
        except CraftasticError as error:
            log.warning("jobs not ended", session=str(session.id), reason=_said(error))
            return ()
        if not is_trusted(session, look) and SETUP not in look.jobs:
            return ()
        if teardown is not None and teardown.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
            return ()  # it has run already: whoever did it was cut short after it
        return look.config.teardown

    async def tear_down(
        self, session: Session, environment: Environment, branch: str, command: Sequence[str]
    ) -> Teardown:
        """Run a worktree's teardown to its end; what goes wrong is told, and nothing else."""
        owner = environment.owner_id
        try:
            mask = await self.mask(owner, environment.id)
            job, said = await self.jobs.tear_down(
                place_of(session, environment, branch),
                command,
                await self.variables(owner, environment.id),
            )
            done = Teardown(job.status, job.exit_code, job.reason, mask(said))
        except CraftasticError as error:
            done = Teardown(JobStatus.FAILED, reason=_said(error))
        if done.status is not JobStatus.SUCCEEDED:
            log.warning(
                "teardown failed",
                session=str(session.id),
                exit_code=done.exit_code,
                reason=done.reason,
            )
        return done


def _said(error: CraftasticError) -> str:
    return error.message if error.details is None else f"{error.message} {error.details}"
