"""Environments that are stopped and started: by their owners, and when nobody uses them."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from craftastic.accounts.service import UserId
from craftastic.database import Database
from craftastic.environments.service import (
    AgentsAtWork,
    Desired,
    Environment,
    EnvironmentNotFound,
    EnvironmentService,
    EnvironmentStatus,
    IdleStop,
)
from craftastic.runtimes.base import RuntimeUnavailable, SandboxRef
from craftastic.sessions.service import AgentState, AgentStatus, SessionStatus
from tests.fakes.clock import FakeClock
from tests.fakes.served import Rig, rigged
from tests.fakes.workshop import rows, settled, until

HOUR_S = 3600.0


@dataclass
class Sandboxes:
    """Says what is at work in sandboxes, and remembers whom it was to leave out."""

    busy: list[str] = field(default_factory=list[str])
    asked: list[set[str]] = field(default_factory=list[set[str]])
    fault: RuntimeUnavailable | None = None

    async def at_work(self, _sandbox: SandboxRef, ignored: Collection[str]) -> list[str]:
        self.asked.append(set(ignored))
        if self.fault is not None:
            raise self.fault
        return self.busy


@dataclass
class Place:
    """An environment over real git and tmux, whose idle policy is one hour."""

    rig: Rig
    database: Database
    clock: FakeClock
    sandboxes: Sandboxes

    @property
    def owner(self) -> UserId:
        return self.rig.shop.owner

    @property
    def environments(self) -> EnvironmentService:
        return self.rig.shop.environments

    @property
    def id(self) -> UUID:
        return self.rig.environment.id

    async def now(self) -> Environment:
        return await self.environments.get_owned(self.owner, self.id)

    async def round(self) -> Environment:
        """Look for idle environments once, and wait for what that began."""
        await self.environments.stop_idle()
        return await self.as_wished()

    async def as_wished(self) -> Environment:
        """Wait until the environment is what is wished, where that is stopped."""

        async def is_so() -> bool:
            now = await self.now()
            return now.desired is Desired.RUNNING or now.status is EnvironmentStatus.STOPPED

        await until(is_so)
        return await self.now()

    async def stops(self) -> list[tuple[object, ...]]:
        statement = "SELECT actor_id FROM audit_events WHERE action = 'environment.stop'"
        return await rows(self.database, statement)


@pytest.fixture
async def place(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Place]:
    async with rigged(tmp_path, database, clock, {"a.txt": "one\n"}) as rig:
        sandboxes = Sandboxes()
        shop = rig.shop
        environments = replace(shop.environments, at_work=sandboxes.at_work)
        rig.shop = replace(
            shop,
            environments=environments,
            sessions=replace(shop.sessions, environments=environments),
        )
        await environments.update(shop.owner, rig.environment.id, idle_stop=IdleStop(60))
        yield Place(rig, database, clock, sandboxes)


async def test_a_stop_ends_all_that_runs_and_a_start_brings_it_back_where_it_was(
    place: Place,
) -> None:
    session = await place.rig.make("work")
    tree = place.rig.tree(session)
    (tree / "notes.txt").write_text("not committed\n")

    stopped = await place.environments.stop(place.owner, place.id)

    dead = await place.rig.shop.sessions.get(place.owner, session.id)
    assert (stopped.status, stopped.desired) == (EnvironmentStatus.STOPPED, Desired.STOPPED)
    assert stopped.reason_code == "STOPPED_BY_OWNER"
    assert dead.status is SessionStatus.DEAD

    started = place.rig.environment = await place.environments.start(place.owner, place.id)
    revived = await place.rig.shop.sessions.revive(place.owner, session.id)

    assert started.status is EnvironmentStatus.RUNNING
    assert revived.status is not SessionStatus.DEAD
    assert revived.working_directory == session.working_directory
    assert (tree / "notes.txt").read_text() == "not committed\n"
    assert await place.rig.git(revived, "branch", "--show-current") == "work"


async def test_a_stop_and_a_start_may_be_repeated_and_the_status_says_since_when(
    place: Place,
) -> None:
    before = await place.now()
    place.clock.advance(60)
    stopped = await place.environments.stop(place.owner, place.id)
    place.clock.advance(60)
    again = await place.environments.stop(place.owner, place.id)
    place.clock.advance(60)
    started = await place.environments.start(place.owner, place.id)
    place.clock.advance(60)
    once_more = await place.environments.start(place.owner, place.id)

    assert before.status_since < stopped.status_since == again.status_since
    assert stopped.status_since < started.status_since == once_more.status_since
    assert len(await place.stops()) == 1


async def test_attaching_starts_an_environment_that_was_stopped(place: Place) -> None:
    session = await place.rig.make("work")
    await place.environments.stop(place.owner, place.id)

    revived = await place.rig.shop.sessions.revive(place.owner, session.id)

    now = await place.now()
    assert (now.status, now.desired) == (EnvironmentStatus.RUNNING, Desired.RUNNING)
    assert revived.status is not SessionStatus.DEAD


async def test_a_stop_that_would_cut_agents_short_is_refused_unless_forced(place: Place) -> None:
    session = await place.rig.make("work")
    status = AgentStatus(AgentState.WORKING, place.clock.now(), None, None)
    await place.rig.shop.sessions.agent_changed(session.id, status)

    with pytest.raises(AgentsAtWork) as refused:
        await place.environments.stop(place.owner, place.id)
    running = await place.now()
    stopped = await place.environments.stop(place.owner, place.id, force=True)

    assert "work" in (refused.value.details or "")
    assert running.desired is Desired.RUNNING
    assert stopped.status is EnvironmentStatus.STOPPED


async def test_anothers_environment_can_be_neither_stopped_nor_started(place: Place) -> None:
    other = await place.rig.shop.add_user()

    for one in (uuid4(), place.id):
        with pytest.raises(EnvironmentNotFound):
            await place.environments.stop(other, one, force=True)
        with pytest.raises(EnvironmentNotFound):
            await place.environments.start(other, one)

    assert (await place.now()).status is EnvironmentStatus.RUNNING


async def test_a_stop_that_a_crash_cut_short_is_finished_by_the_next_process(place: Place) -> None:
    """The wish is in the database before anything is done."""
    await settled(place.database)
    async with place.database.begin() as tx:
        await tx.execute(text("UPDATE environments SET desired = 'stopped'"))

    async def stopped() -> bool:
        await place.environments.reconcile()
        return (await place.now()).status is EnvironmentStatus.STOPPED

    await until(stopped)


async def test_what_nobody_uses_is_stopped_after_its_time_and_not_before(place: Place) -> None:
    await place.rig.make("work")
    place.clock.advance(HOUR_S - 1)
    early = await place.round()
    place.clock.advance(1)
    late = await place.round()

    assert early.status is EnvironmentStatus.RUNNING
    assert (late.status, late.reason_code) == (EnvironmentStatus.STOPPED, "STOPPED_WHEN_IDLE")
    assert "an hour" in (late.reason or "")
    assert await place.stops() == [(None,)]


async def test_what_is_at_work_by_itself_keeps_its_environment_for_another_while(
    place: Place,
) -> None:
    place.sandboxes.busy = ["make"]
    place.clock.advance(HOUR_S)
    working = await place.round()
    place.sandboxes.busy = []
    place.clock.advance(HOUR_S - 1)
    still = await place.round()
    place.clock.advance(1)
    stopped = await place.round()

    assert working.status is still.status is EnvironmentStatus.RUNNING
    assert stopped.status is EnvironmentStatus.STOPPED
    assert await place.stops() == [(None,)]


async def test_where_it_is_not_known_what_is_at_work_nothing_is_stopped(place: Place) -> None:
    place.sandboxes.fault = RuntimeUnavailable("no answer")
    place.clock.advance(10 * HOUR_S)

    assert (await place.round()).status is EnvironmentStatus.RUNNING


async def test_a_finished_agent_does_not_keep_an_environment_and_is_not_asked_about(
    place: Place,
) -> None:
    session = await place.rig.make("work")
    status = AgentStatus(AgentState.DONE, place.clock.now(), None, None)
    await place.rig.shop.sessions.agent_changed(session.id, status)
    place.clock.advance(HOUR_S)

    stopped = await place.round()

    assert stopped.status is EnvironmentStatus.STOPPED
    assert place.sandboxes.asked == [{session.tmux_name}]


async def test_a_working_agent_and_a_viewer_keep_an_environment(place: Place) -> None:
    session = await place.rig.make("work")
    status = AgentStatus(AgentState.WORKING, place.clock.now(), None, None)
    await place.rig.shop.sessions.agent_changed(session.id, status)
    place.clock.advance(10 * HOUR_S)
    with_agent = await place.round()
    done = AgentStatus(AgentState.DONE, place.clock.now(), None, None)
    await place.rig.shop.sessions.agent_changed(session.id, done)
    await place.rig.shop.sessions.viewers_changed(session.id, 1)
    place.clock.advance(10 * HOUR_S)
    with_viewer = await place.round()

    assert with_agent.status is with_viewer.status is EnvironmentStatus.RUNNING
    assert place.sandboxes.asked == []


async def test_two_processes_stop_an_idle_environment_once(place: Place) -> None:
    other = replace(place.environments)
    place.clock.advance(HOUR_S)

    await place.environments.stop_idle()
    await other.stop_idle()

    assert (await place.as_wished()).status is EnvironmentStatus.STOPPED
    assert await place.stops() == [(None,)]


async def test_an_idle_policy_is_recorded_and_can_be_taken_back(place: Place) -> None:
    never = await place.environments.update(place.owner, place.id, idle_stop=IdleStop(0))
    place.clock.advance(100 * HOUR_S)
    running = await place.round()
    default = await place.environments.update(place.owner, place.id, idle_stop=IdleStop(None))

    recorded = await rows(
        place.database, "SELECT 1 FROM audit_events WHERE action = 'environment.idle_stop'"
    )
    assert (never.idle_stop_minutes, default.idle_stop_minutes) == (0, None)
    assert running.status is EnvironmentStatus.RUNNING
    assert len(recorded) == 3


async def test_an_environment_in_error_can_be_started_again(place: Place) -> None:
    async def stopped() -> bool:
        # A round passes over an environment that its making still has a claim on.
        await place.environments.reconcile()
        return (await place.now()).status is EnvironmentStatus.STOPPED

    place.rig.runtime.vanish(place.id)
    await until(stopped)

    assert (await place.environments.start(place.owner, place.id)).status is (
        EnvironmentStatus.RUNNING
    )
