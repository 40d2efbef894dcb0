"""The jobs of a session's worktree as its owner sees them: setup and commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.database import Database
from craftastic.environments.service import Environment
from craftastic.errors import Conflict, CraftasticError, NotFound
from craftastic.events.service import EventLog
from craftastic.sessions._model import Session
from craftastic.sessions._preparation import Mask, MaskText, Variables, is_trusted, place_of
from craftastic.worktrees.service import (
    COMMAND_PREFIX,
    MAX_LOG_BYTES,
    SETUP,
    Job,
    JobStatus,
    Look,
    Place,
    WorktreeConfig,
    WorktreeConfigInvalid,
    WorktreeJobs,
    is_command_name,
)

NOT_BY_ITSELF = (
    "The setup of a pull request is not run by itself, as it is somebody else's code and would "
    "get this environment's variables: look at it, then start it."
)


TELL_TIMEOUT_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class CommandNotFound(NotFound):
    """The worktree's configuration has no command of that name."""

    code = "COMMAND_NOT_FOUND"


class SetupNotDefined(Conflict):
    """There is nothing to run: the worktree's configuration has no setup."""

    code = "SETUP_NOT_DEFINED"


@dataclass(frozen=True, slots=True)
class SetupState:
    """How a worktree was prepared.

    Args:
        copied: Names of the files that it got.
        error: Why the repository's configuration cannot be used.
    """

    job: Job
    log: str = ""
    truncated: bool = False
    copied: Sequence[str] = ()
    warnings: Sequence[str] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CommandState:
    """A command of the repository's, and how its last run is."""

    name: str
    command: str
    job: Job
    log: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class CommandStates:
    commands: Sequence[CommandState] = ()
    warnings: Sequence[str] = ()
    error: str | None = None


class FindSession(Protocol):
    async def __call__(self, owner: UserId, session_id: UUID) -> tuple[Session, Environment]: ...


@dataclass(frozen=True, slots=True)
class SessionJobs:
    """Shows, starts and stops the jobs of sessions' worktrees.

    A session without a worktree has none. Texts that are shown are masked.
    """

    database: Database
    get_owned: FindSession
    jobs: WorktreeJobs
    variables: Variables
    mask: Mask

    async def setup(
        self, owner: UserId, session_id: UUID, tail_bytes: int = MAX_LOG_BYTES
    ) -> SetupState:
        """Return how the worktree's setup is, with the newest of its output.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            JobNotStarted, RuntimeUnavailable: The sandbox could not be asked.
        """
        session, environment = await self.get_owned(owner, session_id)
        if session.branch is None:
            return SetupState(Job())
        place = place_of(session, environment, session.branch)
        look = await self.jobs.look(place, SETUP, tail_bytes)
        mask = await self.mask(environment.owner_id, environment.id)
        return _setup(session, look, mask)

    async def run_setup(self, owner: UserId, session_id: UUID) -> SetupState:
        """Run the worktree's setup again, in the background.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            JobRunning: It runs already.
            SetupNotDefined: There is none.
            WorktreeConfigInvalid: The repository's configuration cannot be used.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            WorktreeMissing, JobNotStarted, RuntimeUnavailable: It could not be started.
        """
        session, environment = await self.get_owned(owner, session_id)
        if session.branch is None:
            raise SetupNotDefined("The session has no git worktree")
        place = place_of(session, environment, session.branch)
        config = _usable(await self.jobs.look(place))
        if not config.setup:
            raise SetupNotDefined(
                "There is no setup to run",
                details="Write one as `setup` under [worktree] in .craftastic/config.toml.",
            )
        await self._start(place, environment, SETUP, config.setup, config.setup_timeout_s)
        return await self.setup(owner, session_id)

    async def commands(self, owner: UserId, session_id: UUID) -> CommandStates:
        """List the repository's commands, and others that still run.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            JobNotStarted, RuntimeUnavailable: The sandbox could not be asked.
        """
        session, environment = await self.get_owned(owner, session_id)
        if session.branch is None:
            return CommandStates()
        look = await self.jobs.look(place_of(session, environment, session.branch))
        mask = await self.mask(environment.owner_id, environment.id)
        return CommandStates(
            [_command(name, look, mask) for name in _names(look)],
            look.config.warnings,
            look.config.error,
        )

    async def command(
        self, owner: UserId, session_id: UUID, name: str, tail_bytes: int = MAX_LOG_BYTES
    ) -> CommandState:
        """Return a command with the newest of its output.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            CommandNotFound: There is none of that name.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            JobNotStarted, RuntimeUnavailable: The sandbox could not be asked.
        """
        _, environment, look = await self._known(owner, session_id, name, tail_bytes)
        return _command(name, look, await self.mask(environment.owner_id, environment.id))

    async def start(self, owner: UserId, session_id: UUID, name: str) -> CommandState:
        """Run a command in the background until it ends or is stopped.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            CommandNotFound: There is none of that name.
            JobRunning: It runs already.
            WorktreeConfigInvalid: The repository's configuration cannot be used.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            WorktreeMissing, JobNotStarted, RuntimeUnavailable: It could not be started.
        """
        place, environment, look = await self._known(owner, session_id, name, 0)
        command = _usable(look).commands.get(name)
        if command is None:
            raise CommandNotFound(f"There is no command {name!r} any more")
        await self._start(place, environment, COMMAND_PREFIX + name, [command])
        return await self.command(owner, session_id, name)

    async def stop(self, owner: UserId, session_id: UUID, name: str) -> CommandState:
        """End a command and its processes; one that does not run is fine.

        Raises:
            SessionNotFound: The session is absent, deleted or somebody else's.
            CommandNotFound: There is none of that name.
            EnvironmentStopped, SandboxGone: Its sandbox is not running.
            JobNotStarted, RuntimeUnavailable: The sandbox could not be asked.
        """
        place, environment, before = await self._known(owner, session_id, name, 0)
        look = await self.jobs.stop(place, COMMAND_PREFIX + name)
        await self._tell(owner, place, COMMAND_PREFIX + name)
        # One that is known only by running is known no more.
        look = replace(look, jobs={**before.jobs, **look.jobs})
        return _command(name, look, await self.mask(environment.owner_id, environment.id))

    async def _known(
        self, owner: UserId, session_id: UUID, name: str, tail_bytes: int
    ) -> tuple[Place, Environment, Look]:
        session, environment = await self.get_owned(owner, session_id)
        if session.branch is None:
            raise CommandNotFound("The session has no git worktree, and no commands")
        place = place_of(session, environment, session.branch)
        # The name of a folder inside: one that no configuration could have is not even asked for.
        shown = COMMAND_PREFIX + name if is_command_name(name) else ""
        look = await self.jobs.look(place, shown, tail_bytes if shown else 0)
        if name not in _names(look):
            _usable(look)
            raise CommandNotFound(
                f"There is no command {name!r}",
                details="Commands stand under [commands] in .craftastic/config.toml.",
            )
        return place, environment, look

    async def _start(
        self,
        place: Place,
        environment: Environment,
        name: str,
        command: Sequence[str],
        limit_s: int = 0,
    ) -> None:
        variables: Mapping[str, str] = await self.variables(environment.owner_id, environment.id)
        await self.jobs.start(place, name, command, variables, limit_s)
        await self._tell(environment.owner_id, place, name)

    async def _tell(self, owner: UUID, place: Place, name: str) -> None:
        """Tell the owner's pages of a job that runs, or has ended, whether they hear it or not."""
        with anyio.move_on_after(TELL_TIMEOUT_S, shield=True):
            try:
                async with self.database.begin() as tx:
                    tell_job(EventLog(tx), owner, place, name)
            except CraftasticError as failure:
                log.warning("not told", session=str(place.session_id), reason=failure.message)


def tell_job(events: EventLog, owner: UUID, place: Place, name: str) -> None:
    """Add the event that a job of a session's has begun or ended."""
    events.add(
        owner,
        "job.changed",
        place.session_id,
        environment_id=place.environment_id,
        session_id=place.session_id,
        job=name,
    )


def _usable(look: Look) -> WorktreeConfig:
    if look.config.error is not None:
        raise WorktreeConfigInvalid(look.config.error)
    return look.config


def _names(look: Look) -> list[str]:
    running = (
        name.removeprefix(COMMAND_PREFIX)
        for name, job in look.jobs.items()
        if name.startswith(COMMAND_PREFIX) and job.status is JobStatus.RUNNING
    )
    others = (name for name in running if is_command_name(name))
    return list(dict.fromkeys([*look.config.commands, *others]))


def _setup(session: Session, look: Look, mask: MaskText) -> SetupState:
    job = look.jobs.get(SETUP, Job())
    command = "\n".join(look.config.setup) or None if job.command is None else job.command
    warnings = [*look.config.warnings, *look.notes]
    if job.status is JobStatus.NONE and look.config.setup and not is_trusted(session, look):
        warnings.append(NOT_BY_ITSELF)
    return SetupState(
        job=replace(job, command=None if command is None else mask(command)),
        log=mask(look.log),
        truncated=look.truncated,
        copied=look.copied,
        warnings=warnings,
        error=look.config.error,
    )


def _command(name: str, look: Look, mask: MaskText) -> CommandState:
    job = look.jobs.get(COMMAND_PREFIX + name, Job())
    command = look.config.commands.get(name) or job.command or ""
    return CommandState(name, mask(command), job, mask(look.log), look.truncated)
