"""What follows from what Coolify says: the next state of a deployment. Pure: no calls, no clock.

Source: Coolify's `ApplicationDeploymentStatus`, `DeployController`, `ApplicationDeploymentJob`.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile

from craftastic.coolify.api import Application, Run, RunStatus
from craftastic.deployments._model import (
    MAX_REASON_CHARACTERS,
    Deployment,
    Health,
    Kind,
    Pace,
    Status,
)

MAX_SAID = 300
MAX_WORD_CHARACTERS = 64
MAX_PATH_CHARACTERS = 500
MAX_HEALTH_CHARACTERS = 100
MIN_COMMIT_CHARACTERS = 7

GONE_BEFORE = (
    "The connection to Coolify was removed before the deployment was asked for. Connect again "
    "and deploy again."
)
GONE = "the connection to Coolify was removed"
GONE_AFTER = "The connection to Coolify was removed, so the application's health is not known."
NO_ANSWER = "Coolify did not answer in time; asking again."
NEVER_ASKED = (
    "Coolify could not be asked for this deployment in time. Deploy again when it answers."
)
NO_LOG = (
    "Coolify says that it failed. Its log cannot be read with the connected token: one with "
    "read:sensitive shows why."
)
NO_LINE = "Coolify says that it failed. Its log says why."

_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_ENDS: Mapping[RunStatus, Status] = {
    RunStatus.FINISHED: Status.SUCCEEDED,
    RunStatus.FAILED: Status.FAILED,
    RunStatus.CANCELLED: Status.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Look:
    """When something was seen.

    Args:
        now: Seconds of the database's clock, which deadlines are kept in.
        at: The same as people are told it.
    """

    now: float
    at: datetime
    pace: Pace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step found out.

    Args:
        changes: Columns and their new values.
        delay_s: When to look again; None: there is nothing left to find out.
    """

    delay_s: float | None
    changes: Mapping[str, object] = field(default_factory=dict[str, object])


def plain(text: str, limit: int = MAX_REASON_CHARACTERS) -> str:
    """Return a text of somebody else's as one line that is safe to show."""
    line = " ".join(_UNPRINTED.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def same_commit(one: str | None, other: str | None) -> bool:
    """Tell whether two commits are known and the same; either may be shortened."""
    if one is None or other is None:
        return False
    length = min(len(one), len(other))
    return length >= MIN_COMMIT_CHARACTERS and one[:length].lower() == other[:length].lower()


# ---- which of Coolify's runs is ours ---------------------------------------------------------


def _of_same_kind(runs: Iterable[Run], row: Deployment) -> list[Run]:
    return [run for run in runs if run.pull_request_id == (row.pull_request_id or 0)]


def _best(runs: Sequence[Run], row: Deployment, *, strict: bool) -> Run | None:
    """Choose of runs, the newest first, one of our commit, else one whose commit is not known.

    Args:
        runs: Candidates.
        row: Whose commit is meant.
        strict: A run of another commit is never ours.
    """
    if row.commit is None:
        return runs[0] if runs else None
    ours = [run for run in runs if same_commit(run.commit, row.commit)]
    unknown = [run for run in runs if run.commit is None]
    chosen = [*ours, *unknown] if strict else [*ours, *unknown, *runs]
    return chosen[0] if chosen else None


def made_since(runs: Sequence[Run], row: Deployment, taken: Collection[str]) -> Run | None:
    """Find the run that Coolify made of us although its answer was lost.

    It is newer than the newest that was known before asking, and nobody else's.

    Args:
        runs: The application's, newest first.
        row: What was asked for, at `asked_at`.
        taken: Runs that other deployments are known to have.
    """
    newer = [run for run in _newer(runs, row) if run.id not in taken]
    return _best(_of_same_kind(newer, row), row, strict=row.kind is Kind.ROLLBACK)


def joined(runs: Sequence[Run], row: Deployment, *, already_queued: bool) -> Run | None:
    """Find the run that Coolify means where it made no new one, or said an id that is not there.

    That is the newest one which is still going on. When it has just ended: the newest with our
    commit.

    Args:
        runs: The application's, newest first.
        row: What was asked for.
        already_queued: Coolify said that the same is on its way already.
    """
    same = _of_same_kind(runs, row)
    going = [run for run in same if run.status not in _ENDS]
    found = _best(going, row, strict=not already_queued)
    if found is not None:
        return found
    # Where nothing was on its way, older runs of our commit are not what was asked for.
    ended = same if already_queued else _of_same_kind(_newer(runs, row), row)
    return next((run for run in ended if same_commit(run.commit, row.commit)), None)


def _newer(runs: Sequence[Run], row: Deployment) -> list[Run]:
    return list(takewhile(lambda run: run.id != row.known_run_id, runs))


# ---- asking ----------------------------------------------------------------------------------


def taken_up(run_id: str, look: Look) -> Outcome:
    """Say that Coolify took the deployment, or has one already that is the same."""
    changes: dict[str, object] = {"run_id": run_id, "reason": None, "looks": 0}
    return Outcome(look.pace.pause(0), changes)


def lost(row: Deployment, message: str, look: Look) -> Outcome:
    """Say that Coolify agreed, and there is no run: ask once more, and not for ever."""
    if row.vain_asks > 0:
        return not_taken(f"Coolify did not start a deployment: {message}", look)
    return Outcome(
        look.pace.pause(0),
        {
            "run_id": None,
            "asked_at": None,
            "known_run_id": None,
            "vain_asks": row.vain_asks + 1,
            "looks": 0,
        },
    )


def not_taken(reason: str, look: Look) -> Outcome:
    """Say that it will not be deployed; nothing was started."""
    return Outcome(
        None,
        {
            "status": Status.FAILED,
            "reason": plain(reason),
            "ended_at": look.at,
            "queue_ahead": None,
        },
    )


def ask_again(
    row: Deployment, reason: str, delay_s: float, look: Look, *, surely_not_started: bool
) -> Outcome:
    """Say that it could not be asked for now.

    Args:
        row: The deployment.
        reason: Why, for people.
        delay_s: When to try again.
        look: When that was.
        surely_not_started: Coolify refused; without an answer it may have started all the same.
    """
    if look.now >= row.deadline_at:
        if row.asked_at is not None and not surely_not_started:
            return given_up(reason, look)
        return not_taken(f"{NEVER_ASKED} Last: {reason}", look)
    changes: dict[str, object] = {"reason": plain(reason), "looks": row.looks + 1}
    if surely_not_started:
        changes |= {"asked_at": None, "known_run_id": None}
    return Outcome(delay_s, changes)


def called_off(look: Look) -> Outcome:
    """Say that it was cancelled before Coolify knew of it."""
    return Outcome(
        None,
        {"status": Status.CANCELLED, "reason": None, "ended_at": look.at, "queue_ahead": None},
    )


# ---- following -------------------------------------------------------------------------------


def failing_text(run: Run) -> str | None:
    """Return what a failed run's log says last of what went wrong, as it stands there."""
    texts = (line.text for line in reversed(run.log or ()) if line.stream == "stderr")
    return next((text for text in texts if text.strip()), None)


def failure_of(run: Run, masked: str | None) -> str:
    """Tell why a run failed.

    Args:
        run: Coolify's.
        masked: What `failing_text` found, without secrets.
    """
    if run.log is None:
        return NO_LOG
    lines = [text for line in (masked or "").splitlines() if (text := plain(line, MAX_SAID))]
    return lines[-1] if lines else NO_LINE


def after_run(
    row: Deployment, run: Run, look: Look, *, why: str = NO_LINE, ahead: int | None = None
) -> Outcome:
    """Return what follows from what Coolify says of the run.

    Args:
        row: The deployment.
        run: What Coolify says.
        look: When.
        why: Why it failed, if it did; fit to be shown.
        ahead: How many runs are before it in the queue, where that was asked.
    """
    changes: dict[str, object] = {
        "run_word": plain(run.word, MAX_WORD_CHARACTERS),
        "reason": None,
        "queue_ahead": None,
    }
    if run.path is not None and len(run.path) <= MAX_PATH_CHARACTERS:
        changes["run_path"] = run.path
    if run.commit is not None:
        changes["built_commit"] = run.commit
    end = _ENDS.get(run.status)
    if end is None:
        return _going_on(row, run, look, changes, ahead)
    changes |= {"status": end, "ended_at": look.at, "looks": 0}
    if row.building_at is None and end is not Status.CANCELLED:
        changes["building_at"] = look.at
    if end is Status.SUCCEEDED:
        return _finished(row, look, changes)
    if end is Status.FAILED:
        changes["reason"] = plain(why)
    return Outcome(None, changes)


def _going_on(
    row: Deployment, run: Run, look: Look, changes: dict[str, object], ahead: int | None
) -> Outcome:
    status = Status.PENDING if run.status is RunStatus.QUEUED else Status.BUILDING
    looks = row.looks + 1 if status is row.status and row.run_id is not None else 0
    changes |= {"status": status, "looks": looks}
    if status is Status.PENDING:
        changes["queue_ahead"] = ahead
    elif row.building_at is None:
        changes["building_at"] = look.at
    if look.now >= row.deadline_at:
        return given_up("it took too long", look, changes)
    return Outcome(look.pace.pause(looks), changes)


def _finished(row: Deployment, look: Look, changes: dict[str, object]) -> Outcome:
    if row.pull_request_id:
        # Coolify tells the health of an application, not that of its previews.
        return Outcome(None, {**changes, "health": Health.UNKNOWN, "health_at": look.at})
    built = changes.get("built_commit", row.built_commit)
    changes |= {
        "health": Health.WAITING,
        "deadline_at": look.now + look.pace.health_s,
        "reason": other_commit(row.commit, None if built is None else str(built)),
    }
    return Outcome(look.pace.pause(0), changes)


def other_commit(wanted: str | None, built: str | None) -> str | None:
    """Say that another commit was built than the one that was pushed when it was asked for."""
    if wanted is None or built is None or same_commit(wanted, built):
        return None
    return (
        f"Coolify built commit {built[:10]}, not {wanted[:10]}: the branch has moved on meanwhile."
    )


def given_up(why: str, look: Look, changes: Mapping[str, object] | None = None) -> Outcome:
    """Say that nobody will find out any more how it ended."""
    more = "Look at its page in Coolify."
    return Outcome(
        None,
        {
            **(changes or {}),
            "status": Status.FAILED,
            "reason": plain(
                f"It is not known how this deployment ended: {why.rstrip('.')}. {more}"
            ),
            "ended_at": look.at,
            "queue_ahead": None,
        },
    )


def not_told(row: Deployment, reason: str, delay_s: float, look: Look) -> Outcome:
    """Say that Coolify did not tell how the run is; it goes on all the same."""
    if look.now >= row.deadline_at:
        return given_up(reason, look)
    return Outcome(delay_s, {"reason": plain(reason), "looks": row.looks + 1})


def ahead_of(queue: Sequence[Run], run: Run) -> int:
    """Count the runs that were there before one."""
    others = [one for one in queue if one.id != run.id]
    if run.created_at is None:
        return len(others)
    return sum(one.created_at is None or one.created_at <= run.created_at for one in others)


# ---- health ----------------------------------------------------------------------------------


def is_superseded(row: Deployment, runs: Sequence[Run]) -> bool:
    """Tell whether a newer run of the application has finished; `runs` are the newest first."""
    for run in runs:
        if run.id == row.run_id:
            return False
        if run.status is RunStatus.FINISHED and run.pull_request_id == 0:
            return True
    return False


def superseded(look: Look) -> Outcome:
    return Outcome(None, {"health": Health.SUPERSEDED, "health_at": look.at, "reason": None})


def after_application(row: Deployment, application: Application, look: Look) -> Outcome:
    """Return what follows from how the application is, once its run has finished."""
    shown = plain(application.status, MAX_HEALTH_CHARACTERS)
    changes: dict[str, object] = {"health_text": shown, "looks": row.looks + 1}
    changes["reason"] = other_commit(row.commit, row.built_commit)
    health = _health(application)
    if health is None and look.now < row.deadline_at:
        return Outcome(look.pace.pause(row.looks + 1), changes)
    changes |= {"health": health or Health.UNHEALTHY, "health_at": look.at}
    if health is None:
        minutes = max(1, round(look.pace.health_s / 60))
        changes["reason"] = (
            f"The application did not become healthy within {minutes} min; Coolify shows "
            f"'{shown}'. Its log may say why."
        )
    return Outcome(None, changes)


def _health(application: Application) -> Health | None:
    if application.state != "running":
        return None
    if application.health == "healthy":
        return Health.HEALTHY
    return Health.RUNNING if application.health in {None, "", "unknown"} else None


def health_not_told(row: Deployment, reason: str, delay_s: float, look: Look) -> Outcome:
    """Say that Coolify did not tell how the application is."""
    if look.now < row.deadline_at:
        return Outcome(delay_s, {"reason": plain(reason), "looks": row.looks + 1})
    return health_unknown(reason, look)


def health_unknown(reason: str, look: Look) -> Outcome:
    """Say that nobody will find out any more how the application was."""
    return Outcome(None, {"health": Health.UNKNOWN, "health_at": look.at, "reason": plain(reason)})
