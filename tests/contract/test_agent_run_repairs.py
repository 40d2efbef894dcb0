"""Agent runs where two things come at once, or something is cut short: they come right again."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import UUID

import anyio
import pytest

from craftastic.agent_runs.service import AgentLimitReached, AgentState, Usage
from craftastic.database import Database
from craftastic.sessions.service import SessionStatus
from craftastic.variables.service import Masker
from tests.fakes.agent_rig import AgentRig, Running, agent_rig
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import rows

S = AgentState
MASK = "••••••"


@pytest.fixture
async def rig(database: Database, clock: FakeClock) -> AsyncIterator[AgentRig]:
    async with agent_rig(database, clock) as rig:
        yield rig


@pytest.fixture
async def limited(database: Database, clock: FakeClock) -> AsyncIterator[AgentRig]:
    """Give agents whose first call is over their limit, and is refused at once."""
    async with agent_rig(database, clock, token_limit=1, admit_s=0.0) as rig:
        yield rig


async def reach_limit(rig: AgentRig, one: Running) -> UUID:
    """Call a model over the limit, and return the request for more."""
    await rig.runs.used(one.run, Usage(1, 1, 0))
    with pytest.raises(AgentLimitReached):
        await rig.runs.admit(one.run)
    [limit] = await rig.runs.approvals.list_waiting(rig.shop.owner)
    return limit.id


async def end(rig: AgentRig, running: Running) -> None:
    await rig.shop.sessions.update(rig.shop.owner, running.session.id, status=SessionStatus.DEAD)


# ---- limits beside turns ----------------------------------------------------------------------


async def test_a_limit_that_a_call_beside_the_turns_reaches_leaves_the_agent_done(
    limited: AgentRig,
) -> None:
    one = await (await limited.agent()).works()
    await one.says("Stop")
    limit = await reach_limit(limited, one)
    assert await limited.state(one.session) is S.DONE

    await limited.runs.approvals.decide(limited.shop.owner, limit, allow=True)

    assert await limited.state(one.session) is S.DONE


async def test_a_turn_that_ends_while_a_limit_waits_is_done(limited: AgentRig) -> None:
    one = await (await limited.agent()).works()
    limit = await reach_limit(limited, one)
    assert await limited.state(one.session) is S.WAITING_PERMISSION
    await one.says("Stop")
    assert await limited.state(one.session) is S.DONE

    await limited.runs.approvals.decide(limited.shop.owner, limit, allow=True)

    assert await limited.state(one.session) is S.DONE


async def test_a_prompt_that_is_taken_while_a_limit_waits_keeps_no_other_back(
    limited: AgentRig,
) -> None:
    one = await (await limited.agent()).is_idle()

    async def call() -> None:
        await reach_limit(limited, one)
        await one.says("UserPromptSubmit", prompt="first")

    limited.runtime.while_typing = call
    await limited.runs.prompts.add(one.session, "first")
    await limited.runs.reconcile()
    limited.runtime.while_typing = None
    [limit] = await limited.runs.approvals.list_waiting(limited.shop.owner)
    await limited.runs.approvals.decide(limited.shop.owner, limit.id, allow=True)
    await one.says("Stop")
    await limited.runs.prompts.add(one.session, "second")
    await limited.runs.reconcile()

    assert [text for _, text in limited.runtime.typed] == ["first", "second"]


# ---- what is cut short ------------------------------------------------------------------------


async def test_a_prompt_that_was_confirmed_before_a_crash_has_arrived(
    rig: AgentRig, clock: FakeClock
) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    reached = anyio.Event()

    async def confirm_and_crash() -> None:
        await one.says("UserPromptSubmit", prompt="do it")
        reached.set()
        await anyio.sleep_forever()

    rig.runtime.while_typing = confirm_and_crash
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.runs.prompts.deliver, one.session.id)
        await reached.wait()
        tasks.cancel_scope.cancel()
    clock.advance(61)
    await rig.again().reconcile()

    assert await rig.prompts(one.session) == [("do it", "delivered", None)]


# ---- tokens of starts -------------------------------------------------------------------------


async def test_a_session_that_comes_back_at_once_does_not_keep_its_old_token(
    rig: AgentRig,
) -> None:
    before = await (await rig.agent()).works()
    await end(rig, before)
    await rig.shop.sessions.revive(rig.shop.owner, before.session.id)  # before anybody has looked
    session = await rig.shop.sessions.get(rig.shop.owner, before.session.id)
    after = await rig.begin(session)
    await after.says("craftastic:started")

    assert await rig.runs.by_token(session.id, before.started.token) is None
    assert await rig.runs.by_token(session.id, after.started.token) is not None


async def test_starts_that_come_to_nothing_do_not_end_the_token_of_the_agent_that_runs(
    rig: AgentRig, clock: FakeClock
) -> None:
    one = await (await rig.agent()).works()
    session = await rig.shop.sessions.get(rig.shop.owner, one.session.id)
    for _ in range(6):
        clock.advance(1)
        await rig.begin(session)

    assert await rig.runs.by_token(session.id, one.started.token) is not None


async def test_a_start_by_somebody_who_looked_before_the_other_leaves_that_one_alone(
    rig: AgentRig,
) -> None:
    before = await (await rig.agent()).works()
    await end(rig, before)
    await rig.shop.sessions.revive(rig.shop.owner, before.session.id)
    seen_by_both = await rig.shop.sessions.get(rig.shop.owner, before.session.id)
    one = await (await rig.begin(seen_by_both)).is_idle()
    await rig.begin(seen_by_both)

    assert await rig.state(one.session) is S.IDLE
    assert await rig.runs.by_token(one.session.id, one.started.token) is not None


async def test_last_words_are_heard_after_somebody_has_looked_at_the_ended_session(
    rig: AgentRig, clock: FakeClock
) -> None:
    one = await (await rig.agent()).works()
    await end(rig, one)
    await rig.runs.reconcile()
    token = one.started.token

    assert await rig.runs.by_token(one.session.id, token) is None
    assert await rig.runs.by_token(one.session.id, token, leaving=True) is not None
    clock.advance(16)
    await rig.runs.reconcile()
    assert await rig.runs.by_token(one.session.id, token, leaving=True) is None
    assert await rows(rig.shop.database, "SELECT * FROM agent_run_tokens") == []


async def test_an_agent_that_was_missing_is_started_when_its_session_comes_back(
    rig: AgentRig,
) -> None:
    one = await rig.agent()
    await one.says("craftastic:missing", command="fake-agent")
    await end(rig, one)
    await rig.runs.reconcile()
    await rig.shop.sessions.revive(rig.shop.owner, one.session.id)

    session = await rig.shop.sessions.get(rig.shop.owner, one.session.id)
    assert not (await rig.begin(session)).started.started


# ---- secrets ----------------------------------------------------------------------------------


async def test_a_secret_with_characters_that_json_escapes_is_in_no_request(
    database: Database, clock: FakeClock
) -> None:
    secret = 'canary "8f2e5c"\n\tend of é the canary'

    async def mask(_owner: UUID, _environment: UUID) -> Callable[[str], str]:
        return Masker([secret]).mask_text

    async with agent_rig(database, clock) as rig:
        rig.runs.book = replace(rig.runs.book, sessions=replace(rig.shop.sessions, mask=mask))
        rig.runs.reports = replace(rig.runs.reports, book=rig.runs.book)
        one = await (await rig.agent()).works()
        await one.asks(command=f"echo '{secret}'")
        await one.says("PreToolUse", tool_name="AskUserQuestion", tool_input={"question": secret})

        [(text, line)] = await rows(database, "SELECT input, waits_for FROM agent_approvals")
        assert json.loads(str(text)) == {"command": f"echo '{MASK}'"}
        assert line == f"Bash: echo '{MASK}'"
        for table in ("agent_runs", "agent_approvals", "sessions"):
            assert "8f2e5c" not in str(await rows(database, f"SELECT * FROM {table}")), table  # noqa: S608
