"""Lists that the database makes have the form of the objects, whatever is in the rows."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from craftastic.accounts.service import UserId
from craftastic.database import Database
from craftastic.environments._repository import EnvironmentRow
from craftastic.environments.endpoints import (
    EnvironmentList,
    ListedEnvironment,
    SessionLineView,
    environment_view,
)
from craftastic.environments.listing import environments_as_json
from craftastic.environments.service import EnvironmentNotFound
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.sessions._repository import SessionRow
from craftastic.sessions.endpoints import SessionList, session_view
from craftastic.sessions.listing import sessions_as_json
from craftastic.worktrees.service import StartKind
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, statements

NASTY = '"quoted" \\ back/slash\t\r\n\b\f\x01\x1f\x7f \' `é ß 漢字 🚀 \u2028 \\u0041 </script> null'
MOMENTS = (
    datetime(2026, 1, 2, 3, 4, 5, 0, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1999, 5, 6, 7, 8, 9, 1_500, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30, 0, 499_999, tzinfo=UTC),
)


@pytest.fixture
async def shop(database: Database, clock: FakeClock) -> Workshop:
    shop = build(database, clock, MemoryRuntime())
    await shop.add_user(shop.owner)
    return shop


def environment(owner: UUID, number: int, **more: Any) -> EnvironmentRow:
    moments = {
        name: MOMENTS[(number + place) % len(MOMENTS)]
        for place, name in enumerate(("created_at", "updated_at", "status_since"))
    }
    values: dict[str, Any] = {
        **moments,
        "id": uuid4(),
        "owner_id": owner,
        "name": f"e{number}",
        "branch": "main",
        "runtime": "local",
        "number": number,
        "status": "running",
        "desired": "running",
        "clone_status": "none",
        "push_policy": "sessions",
    }
    return EnvironmentRow(**values | more)


def session(environment_id: UUID, number: int, **more: Any) -> SessionRow:
    values: dict[str, Any] = {
        "id": uuid4(),
        "environment_id": environment_id,
        "name": f"s{number}",
        "tmux_name": f"s{number}",
        "working_directory": "/workspace",
        "status": "inactive",
        "session_type": "terminal",
        "created_at": MOMENTS[number % len(MOMENTS)],
        "updated_at": MOMENTS[(number + 1) % len(MOMENTS)],
    }
    return SessionRow(**values | more)


ALL_OF_AN_ENVIRONMENT: dict[str, Any] = {
    "repository_url": f"https://example.com/{NASTY}.git",
    "branch": NASTY,
    "sandbox_id": NASTY,
    "reason_code": "STOPPED_WHEN_IDLE",
    "reason": NASTY,
    "progress_step": "clone",
    "progress_message": NASTY,
    "progress_percent": 0,
    "clone_reason": NASTY,
    "isolation": NASTY,
    "idle_stop_minutes": 0,
    "used_at": MOMENTS[0],
}
ENVIRONMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"name": NASTY[:60]},
    ALL_OF_AN_ENVIRONMENT,
    {"progress_step": "image", "progress_message": None, "progress_percent": None},
    {"progress_step": None, "progress_message": "left over", "progress_percent": 5},
    {"idle_stop_minutes": 525_600, "push_policy": "none"},
    {"reason": "", "reason_code": ""},
    *(
        {"status": status, "desired": desired, "clone_status": clone_status, "reason_code": code}
        for status in ("starting", "running", "stopped", "error")
        for desired in ("running", "stopped")
        for clone_status in ("none", "failed", "ready")
        for code in (None, "STOPPED_OVER_DISK_QUOTA")
    ),
)
SESSIONS: tuple[dict[str, Any], ...] = (
    {},
    {"status": "dead", "reason": NASTY, "last_activity": MOMENTS[1], "branch": NASTY},
    {"name": NASTY, "tmux_name": "x", "working_directory": NASTY, "status": "active"},
    {"session_type": "agent", "agent_id": uuid4(), "agent_state": "working"},  # not since when
    {
        "session_type": "agent",
        "agent_id": uuid4(),
        "agent_state": "waiting_permission",
        "agent_state_since": MOMENTS[3],
        "agent_message": NASTY,
        "agent_waits_for": NASTY,
    },
    {"agent_state": "idle", "agent_state_since": MOMENTS[2], "agent_message": ""},
    {"agent_message": "left over", "agent_waits_for": "left over"},
    {"start_kind": StartKind.BRANCH.value, "start_ref": NASTY, "start_commit": "abc"},
    {"start_kind": StartKind.COMMIT.value, "start_ref": "abcdef"},
    {"start_kind": StartKind.PULL_REQUEST.value, "start_ref": "12", "start_commit": "abc"},
    {"start_kind": StartKind.BRANCH.value, "start_ref": None},
    {"first_prompt": NASTY, "branch": "a", "branch_key": "a"},
)


async def fill(shop: Workshop) -> UUID:
    """Give the owner rows of every shape; return the environment that has all the sessions."""
    rows = [environment(shop.owner, number, **more) for number, more in enumerate(ENVIRONMENTS, 1)]
    other = await shop.add_user()
    rows += [
        environment(other, 1001),
        environment(shop.owner, 1002, desired="deleted", name="gone"),
    ]
    sessions = [session(rows[0].id, number, **more) for number, more in enumerate(SESSIONS)]
    sessions += [
        session(rows[0].id, 100, deleted=True),
        session(rows[1].id, 101),
        session(rows[-2].id, 102, name="other's"),
        session(rows[-1].id, 103),
    ]
    async with shop.database.begin() as tx:
        tx.add_all(rows)
        await tx.flush()
        tx.add_all(sessions)
    return rows[0].id


def test_the_rows_of_this_file_have_every_column_with_and_without_a_value() -> None:
    for table, shapes in ((EnvironmentRow, ENVIRONMENTS), (SessionRow, SESSIONS)):
        said = {name for shape in shapes for name, value in shape.items() if value is not None}
        unsaid = {
            one.name for one in table.__table__.columns if one.nullable and one.name not in said
        }

        # Never told; how long the steps took is told of one environment alone.
        assert unsaid <= {"claimed_by", "claimed_until", "gateway_token_hash", "timings"}


async def test_environments_are_listed_as_the_objects_are(shop: Workshop) -> None:
    await fill(shop)

    listed = await environments_as_json(shop.database, shop.owner)

    by_objects = EnvironmentList(
        environments=[
            ListedEnvironment(
                **environment_view(one.environment).model_dump(),
                sessions=[SessionLineView.model_validate(line) for line in one.sessions],
            )
            for one in await shop.environments.list_owned(shop.owner)
        ]
    )
    assert len(by_objects.environments) == len(ENVIRONMENTS)
    assert json.loads(listed) == json.loads(by_objects.model_dump_json(by_alias=True))
    assert listed == by_objects.model_dump_json(by_alias=True)
    parsed = EnvironmentList.model_validate_json(listed)
    assert parsed.model_dump_json(by_alias=True) == listed


async def test_sessions_are_listed_as_the_objects_are(shop: Workshop) -> None:
    environment_id = await fill(shop)

    listed = await sessions_as_json(shop.database, shop.owner, environment_id)

    found = await shop.sessions.list_owned(shop.owner, environment_id)
    by_objects = SessionList(sessions=[session_view(one) for one in found])
    assert len(by_objects.sessions) == len(SESSIONS)
    assert json.loads(listed) == json.loads(by_objects.model_dump_json(by_alias=True))
    assert listed == by_objects.model_dump_json(by_alias=True)
    parsed = SessionList.model_validate_json(listed)
    assert parsed.model_dump_json(by_alias=True) == listed


async def test_nothing_is_listed_as_an_empty_list(shop: Workshop) -> None:
    empty = environment(shop.owner, 1)
    async with shop.database.begin() as tx:
        tx.add(empty)

    assert await environments_as_json(shop.database, UserId(uuid4())) == '{"environments":[]}'
    assert (
        json.loads(await environments_as_json(shop.database, shop.owner))["environments"][0][
            "sessions"
        ]
        == []
    )
    assert await sessions_as_json(shop.database, shop.owner, empty.id) == '{"sessions":[]}'


async def test_a_list_is_one_statement(shop: Workshop) -> None:
    environment_id = await fill(shop)

    async with statements(shop.database) as of_environments:
        await environments_as_json(shop.database, shop.owner)
    async with statements(shop.database) as of_sessions:
        await sessions_as_json(shop.database, shop.owner, environment_id)

    assert [
        len([one for one in seen if "SELECT" in one]) for seen in (of_environments, of_sessions)
    ] == [1, 1]


async def test_sessions_of_anothers_environment_are_not_there(shop: Workshop) -> None:
    environment_id = await fill(shop)
    other = await shop.add_user()

    for owner, one in ((other, environment_id), (shop.owner, uuid4())):
        with pytest.raises(EnvironmentNotFound):
            await sessions_as_json(shop.database, owner, one)


async def test_what_is_listed_is_what_is_stored_to_the_millisecond(shop: Workshop) -> None:
    moments = [MOMENTS[0] + timedelta(microseconds=one) for one in (0, 1, 999, 1000, 1999, 999_500)]
    rows = [environment(shop.owner, number, created_at=at) for number, at in enumerate(moments)]
    async with shop.database.begin() as tx:
        tx.add_all(rows)

    listed = json.loads(await environments_as_json(shop.database, shop.owner))["environments"]

    told = {one["name"]: one["createdAt"] for one in listed}
    assert [told[f"e{number}"][-4:] for number in range(6)] == [
        "000Z", "000Z", "000Z", "001Z", "001Z", "999Z"
    ]  # fmt: skip
