"""What can be said about environments that is no row of theirs: refusals, and answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import Caller, UserId
from craftastic.environments._model import (
    CloneStatus,
    Environment,
    EnvironmentStatus,
    SessionLine,
)
from craftastic.environments._repository import UserNotFound
from craftastic.errors import Conflict, Forbidden, InvalidInput, NotFound
from craftastic.worktrees.service import CloneFailed, DiskFull, RepositoryUnchecked, Unsaved

MAX_NAMED = 5


class EnvironmentInError(InvalidInput):
    """The environment could not be started; the details say why, a retry is the way on."""

    code = "ENVIRONMENT_IN_ERROR"


class EnvironmentNotReady(InvalidInput):
    """The environment was still starting or cloning when the time was over."""

    code = "ENVIRONMENT_NOT_READY"


class OneUserOnly(Conflict):
    """The runtime cannot keep users apart on this server."""

    code = "RUNTIME_FOR_ONE_USER"


class AgentsAtWork(Conflict):
    """A stop would cut agents short."""

    code = "AGENTS_AT_WORK"

    def __init__(self, busy: Sequence[SessionLine]) -> None:
        names = ", ".join(one.name for one in busy[:MAX_NAMED])
        super().__init__(
            "Agents are at work in this environment",
            details=f"A stop would cut them short: {names}. Wait, interrupt them, or stop it"
            " all the same.",
        )


class NotYourUserId(Forbidden):
    code = "NOT_YOUR_USER_ID"


class ContainerNotFound(NotFound):
    code = "CONTAINER_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class EnvironmentWithSessions:
    environment: Environment
    sessions: Sequence[SessionLine]


@dataclass(frozen=True, slots=True)
class IdleStop:
    """An idle policy: minutes without use, 0 for never, None for what the settings say."""

    minutes: int | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deletion.

    Args:
        discarded: Work that was nowhere but in the sandbox.
        pending: The runtime did not answer; the rest is removed when it does.
    """

    discarded: Sequence[Unsaved]
    pending: bool


def acting_for(caller: Caller, user_id: str | None) -> UserId:
    """Return whose environments a request is about: the caller's, for administrators anybody's.

    Raises:
        NotYourUserId: The id is not the caller's.
        UserNotFound: An administrator's request names no possible user.
    """
    if user_id is None or user_id.lower() == str(caller.user_id):
        return caller.user_id
    if not caller.is_admin:
        raise NotYourUserId("You can only act for yourself")
    try:
        return UserId(UUID(user_id))
    except ValueError:
        raise UserNotFound("User not found") from None


def settled(environment: Environment) -> bool:
    """Tell whether an environment is on its way to nothing else."""
    if environment.status is EnvironmentStatus.STARTING:
        return False
    return environment.status is not EnvironmentStatus.RUNNING or environment.clone_status not in {
        CloneStatus.PENDING,
        CloneStatus.CLONING,
        CloneStatus.REPAIRING,
    }


def refuse_error(environment: Environment) -> None:
    """Refuse an environment that never ran.

    Raises:
        EnvironmentInError: Its start failed.
    """
    if environment.status is EnvironmentStatus.ERROR:
        raise EnvironmentInError("Environment in error state", details=environment.reason)


def clone_failure(
    environment: Environment, message: str
) -> CloneFailed | DiskFull | RepositoryUnchecked:
    """Return the error that says why an environment has no usable clone, or no repaired one."""
    for kind in (DiskFull, RepositoryUnchecked):
        if environment.reason_code == kind.code:
            return kind(message, details=environment.clone_reason)
    return CloneFailed(message, details=environment.clone_reason)
