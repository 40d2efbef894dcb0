"""What an environment is, apart from how it is stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from craftastic.environments._timings import StepTime
from craftastic.errors import Conflict
from craftastic.runtimes.base import Progress, SandboxRef


class EnvironmentStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    ERROR = "error"


class Desired(StrEnum):
    """What the owner wants; the reconciler makes it true."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class CloneStatus(StrEnum):
    NONE = "none"
    PENDING = "pending"
    CLONING = "cloning"
    READY = "ready"
    FAILED = "failed"
    REPAIRING = "repairing"
    """Cloned, and asked to be looked through and put right; the clone is not used meanwhile."""


class PushPolicy(StrEnum):
    """What may be pushed from a sandbox to the environment's upstream."""

    ANY = "any"
    SESSIONS = "sessions"
    """Its sessions' branches and branches that it makes itself: no tags, no deletions."""
    NONE = "none"


class EnvironmentStopped(Conflict):
    """The environment has no running sandbox; the details say why."""

    code = "ENVIRONMENT_STOPPED"


@dataclass(frozen=True, slots=True)
class SessionLine:
    """One session as a list of environments shows it."""

    id: UUID
    environment_id: UUID
    name: str
    tmux_session_name: str
    working_directory: str
    status: str
    git_branch: str | None
    last_activity: datetime | None
    created_at: datetime
    updated_at: datetime
    agent_state: str | None = None
    agent_state_since: datetime | None = None
    agent_message: str | None = None
    agent_waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """A user's named place to develop.

    Args:
        repository_url: Without user or password; None for an environment without a repository.
        branch: Where new branches begin, and the branch of a session that names none.
        number: Small, unique among all environments that exist; its sandbox's user id follows.
        reason: Why the status is what it is, in plain words.
        isolation: What the probe from inside found; None until it ran.
        used_at: When it was started, or last seen at work by itself; sessions know the rest.
        idle_stop_minutes: After how long without use it is stopped; 0 for never, None for what the
            server's settings say.
        timings: How long the steps of its last start and clone took.
    """

    id: UUID
    owner_id: UUID
    name: str
    repository_url: str | None
    branch: str
    runtime: str
    sandbox_id: str | None
    number: int
    status: EnvironmentStatus
    desired: Desired
    reason_code: str | None
    reason: str | None
    progress: Progress | None
    clone_status: CloneStatus
    clone_reason: str | None
    gateway_token_hash: str | None
    isolation: str | None
    push_policy: PushPolicy
    created_at: datetime
    updated_at: datetime
    status_since: datetime
    used_at: datetime | None
    idle_stop_minutes: int | None
    timings: tuple[StepTime, ...] = ()

    @property
    def sandbox(self) -> SandboxRef:
        """Return the sandbox.

        Raises:
            EnvironmentStopped: There is none now.
        """
        if self.sandbox_id is None:
            raise EnvironmentStopped("The environment is not running.", details=self.reason)
        return SandboxRef(self.runtime, self.sandbox_id)

    @property
    def usable(self) -> bool:
        """Whether sessions can be made in it now."""
        return self.status is EnvironmentStatus.RUNNING and self.clone_status in {
            CloneStatus.NONE,
            CloneStatus.READY,
        }
