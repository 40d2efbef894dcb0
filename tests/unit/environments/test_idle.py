"""When an environment counts as idle."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from craftastic.environments._idle import agents_at_work, is_due, last_used, spoken, way_on
from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
    PushPolicy,
    SessionLine,
)

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=2)
HOUR = 60


def environment() -> Environment:
    return Environment(
        id=uuid4(),
        owner_id=uuid4(),
        name="one",
        repository_url=None,
        branch="main",
        runtime="memory",
        sandbox_id="1",
        number=1,
        status=EnvironmentStatus.RUNNING,
        desired=Desired.RUNNING,
        reason_code=None,
        reason=None,
        progress=None,
        clone_status=CloneStatus.READY,
        clone_reason=None,
        gateway_token_hash=None,
        isolation=None,
        push_policy=PushPolicy.SESSIONS,
        created_at=LONG_AGO,
        updated_at=LONG_AGO,
        status_since=LONG_AGO,
        used_at=None,
        idle_stop_minutes=None,
    )


def line(**values: object) -> SessionLine:
    plain = SessionLine(
        id=uuid4(),
        environment_id=uuid4(),
        name="a",
        tmux_session_name="a-1",
        working_directory="/a",
        status="inactive",
        git_branch=None,
        last_activity=None,
        created_at=LONG_AGO,
        updated_at=LONG_AGO,
    )
    return replace(plain, **values)  # type: ignore[arg-type] - a test's own names


def test_one_that_nobody_has_used_for_that_long_is_due() -> None:
    used = line(last_activity=NOW - timedelta(minutes=60))

    assert is_due(environment(), [used], HOUR, NOW)
    assert not is_due(environment(), [used], HOUR + 1, NOW)


def test_without_a_policy_nothing_is_due_and_an_own_one_goes_before_the_servers() -> None:
    never = replace(environment(), idle_stop_minutes=0)
    early = replace(environment(), idle_stop_minutes=5)

    assert not is_due(environment(), [], 0, NOW)
    assert not is_due(never, [], HOUR, NOW)
    assert is_due(early, [], 0, NOW)


def test_what_is_looked_at_is_in_use_however_long_nothing_was_typed() -> None:
    attached = line(status="active", last_activity=LONG_AGO)

    assert last_used(environment(), [attached]) is None
    assert not is_due(environment(), [attached], HOUR, NOW)


@pytest.mark.parametrize(
    "state", ["starting", "working", "waiting_permission", "waiting_question", "unknown"]
)
def test_an_agent_at_work_keeps_its_environment(state: str) -> None:
    busy = line(agent_state=state, agent_state_since=LONG_AGO)

    assert not is_due(environment(), [busy], HOUR, NOW)
    assert agents_at_work([busy]) == [busy]


@pytest.mark.parametrize("state", ["idle", "done", "exited", "error"])
def test_an_agent_that_has_finished_counts_from_then_on(state: str) -> None:
    early = line(agent_state=state, agent_state_since=NOW - timedelta(minutes=59))
    late = line(agent_state=state, agent_state_since=NOW - timedelta(minutes=61))

    assert not is_due(environment(), [early], HOUR, NOW)
    assert is_due(environment(), [late], HOUR, NOW)


def test_the_agent_of_an_ended_session_is_at_work_no_more() -> None:
    ended = line(status="dead", agent_state="working", agent_state_since=LONG_AGO)

    assert agents_at_work([ended]) == []
    assert is_due(environment(), [ended], HOUR, NOW)


def test_what_was_started_or_seen_at_work_just_now_is_not_due() -> None:
    used = replace(environment(), used_at=NOW - timedelta(minutes=1))

    assert not is_due(used, [line(last_activity=LONG_AGO)], HOUR, NOW)


@pytest.mark.parametrize("clone", [CloneStatus.PENDING, CloneStatus.CLONING])
def test_one_that_is_cloned_is_not_due(clone: CloneStatus) -> None:
    assert not is_due(replace(environment(), clone_status=clone), [], HOUR, NOW)


def test_one_that_is_to_be_stopped_already_is_not_due() -> None:
    assert not is_due(replace(environment(), desired=Desired.STOPPED), [], HOUR, NOW)


def test_lengths_of_time_are_said_in_words() -> None:
    assert [spoken(minutes) for minutes in (1, 5, 60, 90, 120)] == [
        "a minute",
        "5 minutes",
        "an hour",
        "90 minutes",
        "2 hours",
    ]


def test_each_state_that_is_not_well_has_a_way_on() -> None:
    running = environment()

    assert way_on(running) is None
    assert way_on(replace(running, status=EnvironmentStatus.STOPPED))
    assert way_on(replace(running, status=EnvironmentStatus.ERROR))
    assert way_on(replace(running, clone_status=CloneStatus.FAILED))
    assert way_on(replace(running, desired=Desired.STOPPED))
