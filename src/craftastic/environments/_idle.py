"""When an environment is idle, and why it is as it is: decisions only, nothing is asked here."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
    SessionLine,
)

AT_WORK = frozenset({"starting", "working", "waiting_permission", "waiting_question", "unknown"})
"""States of an agent that would lose something: `unknown` may be any of them."""

ATTACHED = "active"
DEAD = "dead"
IDLE = "STOPPED_WHEN_IDLE"
DISK_QUOTA = "STOPPED_OVER_DISK_QUOTA"
BY_SERVER = frozenset({IDLE, DISK_QUOTA})
"""Why the server stops an environment by itself; the reason that it gave then stays."""


Facts = Mapping[str, str]
WAYS_ON: Sequence[tuple[Facts, str]] = (
    (
        {"clone_status": CloneStatus.FAILED.value},
        "Try again: the repository is cloned anew.",
    ),
    (
        {"desired": Desired.STOPPED.value, "status": EnvironmentStatus.RUNNING.value},
        "It is being stopped; this goes on by itself as soon as the runtime answers.",
    ),
    (
        {"status": EnvironmentStatus.STOPPED.value, "reason_code": DISK_QUOTA},
        "Start it and free disk space in it, or delete what it no longer needs.",
    ),
    (
        {"status": EnvironmentStatus.STOPPED.value},
        (
            "Start it, or open a terminal in it: sessions come back with their working trees as"
            " they were."
        ),
    ),
    (
        {"status": EnvironmentStatus.ERROR.value},
        "Do what the reason says, and try again.",
    ),
)
"""What the owner can do, by what is so of an environment: the first that fits counts."""


def agents_at_work(lines: Sequence[SessionLine]) -> list[SessionLine]:
    """Return the living sessions whose agents a stop would cut short."""
    return [one for one in lines if one.status != DEAD and one.agent_state in AT_WORK]


def last_used(environment: Environment, lines: Sequence[SessionLine]) -> datetime | None:
    """Return when somebody last used an environment; None while somebody does."""
    if any(one.status == ATTACHED for one in lines) or agents_at_work(lines):
        return None
    moments = [one.last_activity for one in lines if one.last_activity is not None]
    moments += [one.agent_state_since for one in lines if one.agent_state_since is not None]
    return max([environment.used_at or environment.status_since, *moments])


def is_due(
    environment: Environment, lines: Sequence[SessionLine], default_minutes: int, now: datetime
) -> bool:
    """Tell whether nobody has used an environment for as long as its policy says.

    Args:
        environment: One that runs.
        lines: Its sessions.
        default_minutes: What counts where the environment has no policy of its own; 0 for never.
        now: The present.
    """
    own = environment.idle_stop_minutes
    minutes = default_minutes if own is None else own
    settled = environment.clone_status in {
        CloneStatus.NONE,
        CloneStatus.READY,
        CloneStatus.FAILED,
    }
    if not minutes or not settled or environment.desired is not Desired.RUNNING:
        return False
    used_at = last_used(environment, lines)
    return used_at is not None and now - used_at >= timedelta(minutes=minutes)


def spoken(minutes: int) -> str:
    """Return a length of time in words."""
    if minutes % 60 == 0:
        hours = minutes // 60
        return "an hour" if hours == 1 else f"{hours} hours"
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def way_on(environment: Environment) -> str | None:
    """Return what the owner can do about an environment; None where nothing is wrong."""
    return next(
        (
            said
            for facts, said in WAYS_ON
            if all(getattr(environment, name) == value for name, value in facts.items())
        ),
        None,
    )
