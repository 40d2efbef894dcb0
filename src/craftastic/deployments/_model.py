"""What a deployment is, and what is asked and told about one. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from craftastic.coolify.api import Application, LogLine

Source = Literal["user", "server"]
"""Whose connection to Coolify is used: the owner's own, or the server's."""

MAX_REASON_CHARACTERS = 500
MAX_LIST = 200


class Kind(StrEnum):
    DEPLOY = "deploy"
    ROLLBACK = "rollback"


class Status(StrEnum):
    """How a deployment is; the last three are ends."""

    PENDING = "pending"
    BUILDING = "building"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Health(StrEnum):
    """How the application is after a deployment that succeeded.

    `running` has no health check that could say more. `superseded`: a newer deployment of the same
    application has finished, so nothing can be said of this one. `unknown`: it cannot be found out.
    """

    WAITING = "waiting"
    HEALTHY = "healthy"
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    SUPERSEDED = "superseded"
    UNKNOWN = "unknown"


UNENDED = (Status.PENDING, Status.BUILDING)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One run of Coolify that somebody asked for, from the wish to what became of it.

    Args:
        source: Whose connection it goes through.
        connection_id: Which one, where it is the owner's own.
        web_url: Where that Coolify's pages are.
        reason: Why it is as it is, in plain words.
        branch: What Coolify builds, as far as known.
        commit: What is wanted; None where that is not known.
        run_id: Coolify's id of the run.
        run_word: Coolify's own word for its state.
        run_path: Path of the run's page.
        known_run_id: The newest run of the application before this one was asked for.
        asked_at: When it was asked for, or was about to be; seconds of the database's clock.
        vain_asks: How often Coolify agreed, and no run was to be found.
        built_commit: What was built, where Coolify says so.
        health_text: The application's state as Coolify shows it.
        queue_ahead: How many runs are before it, once it has waited for a while.
        cancel_wanted: Somebody wants it cancelled.
        looks: How often it was looked at in its present state.
        deadline_at: When its present phase is given up; seconds of the database's clock.
        live: There is still something to find out.
    """

    id: UUID
    owner_id: UUID
    environment_id: UUID
    session_id: UUID | None
    app_id: str
    app_name: str
    source: Source
    connection_id: UUID | None
    web_url: str
    kind: Kind
    status: Status
    reason: str | None
    branch: str | None
    commit: str | None
    pull_request_id: int | None
    force: bool
    run_id: str | None
    run_word: str | None
    run_path: str | None
    known_run_id: str | None
    asked_at: float | None
    vain_asks: int
    built_commit: str | None
    health: Health | None
    health_text: str | None
    queue_ahead: int | None
    cancel_wanted: bool
    looks: int
    next_look_at: float
    deadline_at: float
    live: bool
    created_at: datetime
    updated_at: datetime
    building_at: datetime | None
    ended_at: datetime | None
    health_at: datetime | None

    @property
    def url(self) -> str | None:
        """Coolify's page of the run; None while there is none."""
        return None if self.run_path is None else self.web_url + self.run_path

    @property
    def ended(self) -> bool:
        return self.status not in UNENDED


@dataclass(frozen=True, slots=True)
class Wish:
    """A deployment as it was asked for.

    Args:
        target_id: A session or an environment.
        app_id: Coolify's application; without one the environment's remembered one.
        branch: The branch that is to be built; a session's own by default.
        force: Build without Coolify's cache, and even if the same is running.
        pull_request_id: Build the preview of this pull request.
        pushed_only: Deploy what is pushed, whatever else there is.
    """

    target_id: UUID
    app_id: str | None = None
    branch: str | None = None
    force: bool = False
    pull_request_id: int | None = None
    pushed_only: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the work at hand would not be what is built; `details` say what helps."""

    code: Literal["UNCOMMITTED_WORK", "UNPUSHED_WORK", "OTHER_BRANCH"]
    message: str
    details: str


@dataclass(frozen=True, slots=True)
class Check:
    """What a deployment would do.

    Args:
        branch: The session's; None for an environment.
        builds_branch: What the application builds; None where it builds no branch, or a preview.
        commit: What would be built, as far as this repository knows.
        matches_repository: Whether the application builds the environment's repository.
        live: A deployment of that application that has not ended.
    """

    application: Application
    source: Source
    branch: str | None
    builds_branch: str | None
    commit: str | None
    matches_repository: bool | None
    problems: tuple[Problem, ...]
    live: Deployment | None

    @property
    def ready(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class RunLog:
    """What a run printed, as far as it may be shown; secrets of variables are replaced.

    Args:
        next: What to ask for as `after` the next time.
        complete: Nothing more will come.
        truncated: Lines were left out before the first one given, or ends of long ones.
        available: Whether there is a log to be read.
        reason: Why not, in words.
    """

    lines: Sequence[LogLine]
    next: int
    complete: bool
    truncated: bool
    available: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things wait, in seconds; tests hurry.

    Args:
        look_s: After how long a run is looked at first; each further pause is `growth` as long.
        most_s: The longest pause while all is well.
        slow_s: The pause while Coolify refuses to tell.
        queue_s: After how long in the queue it is told how long the queue is.
        give_up_s: How long a run may take, and how long Coolify may not answer.
        health_s: How long an application may take to become healthy.
        hold_s: How long one server process has a deployment to itself; more than a step takes.
        step_s: How long all calls of one step may take.
        log_s: How long a log that was read is shown again.
        hint_s: The least time between two hints that are followed.
    """

    look_s: float = 2.0
    growth: float = 1.5
    most_s: float = 15.0
    slow_s: float = 60.0
    queue_s: float = 60.0
    give_up_s: float = 7200.0
    health_s: float = 300.0
    hold_s: float = 60.0
    step_s: float = 45.0
    log_s: float = 2.0
    hint_s: float = 1.0

    def pause(self, looks: int) -> float:
        """Return for how long to wait after the given number of looks."""
        grown = self.look_s * self.growth ** min(looks, 50)
        return min(grown, self.most_s)
