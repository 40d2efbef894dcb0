"""Agent runs over both databases: reports, requests, limits, prompts; each exactly once."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.accounts.service import UserId
from craftastic.agent_runs.service import (
    AgentLimitReached,
    AgentOver,
    AgentRunNotFound,
    AgentState,
    ApprovalAnswered,
    ApprovalNotFound,
    ApprovalStatus,
    BadPrompt,
    NoAgent,
    NoModelCredential,
    PromptDelivered,
    PromptNotFound,
    RunEvent,
    TooManyPrompts,
    Usage,
)
from craftastic.agents.service import AgentCredential
from craftastic.database import Database
from craftastic.environments.service import Environment
from craftastic.runtimes.base import RuntimeUnavailable, SandboxExhausted
from craftastic.sessions.service import (
    Session,
    SessionNotFound,
    SessionService,
    SessionStatus,
)
from tests.conftest import BACKENDS, driver_url
from tests.fakes.agent_rig import AgentRig, Running, agent_rig, events_of, fake_type
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import rows, until

S = AgentState
RACERS = 50
SECRET = "canary-8f2e5c"


@pytest.fixture
async def rig(database: Database, clock: FakeClock) -> AsyncIterator[AgentRig]:
    async with agent_rig(database, clock) as rig:
        yield rig


@pytest.fixture
async def working(rig: AgentRig) -> Running:
    return await (await rig.agent()).works()


async def stored(database: Database, table: str) -> list[tuple[object, ...]]:
    """Return all rows of a table."""
    return await rows(database, f"SELECT * FROM {table}")  # noqa: S608 - a name from this file


async def end(rig: AgentRig, running: Running) -> None:
    """End an agent's session, as its owner does."""
    await rig.shop.sessions.update(rig.shop.owner, running.session.id, status=SessionStatus.DEAD)


# ---- tokens -----------------------------------------------------------------------------------


async def test_a_token_opens_its_own_session_and_no_other(rig: AgentRig) -> None:
    one, other = await rig.agent("one"), await rig.agent("other")

    assert await rig.runs.by_token(one.session.id, one.started.token) == one.run
    for token in (other.started.token, "", "x", "\ud800", one.started.token[:-1]):
        assert await rig.runs.by_token(one.session.id, token) is None
    assert await rig.runs.by_token(uuid4(), one.started.token) is None


async def test_of_a_token_only_its_hash_is_stored(rig: AgentRig, database: Database) -> None:
    one = await rig.agent()

    for table in ("agent_runs", "agent_run_tokens"):
        assert one.started.token not in str(await stored(database, table))


async def test_a_token_opens_nothing_after_the_session_has_ended_or_was_deleted(
    rig: AgentRig,
) -> None:
    dead, deleted = await rig.agent("dead"), await rig.agent("deleted")
    await end(rig, dead)
    await rig.shop.sessions.delete(rig.shop.owner, deleted.session.id)

    assert await rig.runs.by_token(dead.session.id, dead.started.token) is None
    assert await rig.runs.by_token(deleted.session.id, deleted.started.token) is None


async def test_a_session_that_comes_back_does_not_bring_its_old_token_back(rig: AgentRig) -> None:
    before = await (await rig.agent()).works()
    await end(rig, before)
    await rig.runs.reconcile()
    await rig.shop.sessions.revive(rig.shop.owner, before.session.id)

    session = await rig.shop.sessions.get(rig.shop.owner, before.session.id)
    after = await rig.begin(session)

    assert await rig.runs.by_token(session.id, before.started.token) is None
    assert (before.started.started, after.started.started) == (False, True)
    assert after.started.conversation == "conversation-1"
    assert await rig.state(session) is S.STARTING


async def test_a_start_that_comes_to_nothing_leaves_the_agent_that_runs_alone(
    rig: AgentRig, working: Running
) -> None:
    session = await rig.shop.sessions.get(rig.shop.owner, working.session.id)
    await rig.begin(session)

    await working.says("Stop")

    assert await rig.state(session) is S.DONE
    assert await rig.runs.by_token(session.id, working.started.token) is not None


async def test_the_first_report_of_a_new_start_ends_the_one_before(
    rig: AgentRig, working: Running
) -> None:
    session = await rig.shop.sessions.get(rig.shop.owner, working.session.id)
    waiting = await working.asks()
    new = await rig.begin(session)
    await new.says("craftastic:started")
    await working.says("Stop")

    assert await rig.state(session) is S.STARTING
    assert await rig.runs.by_token(session.id, working.started.token) is None
    assert (await rig.runs.answer(new.run, waiting, 0)).settled


async def test_a_start_that_fails_is_shown_with_its_reason(rig: AgentRig) -> None:
    one = await rig.agent()
    await rig.runs.not_launched(one.session.id, one.nonce, "It could not be started.")

    shown = await rig.shop.sessions.get(rig.shop.owner, one.session.id)
    assert shown.agent is not None
    assert (shown.agent.state, shown.agent.message) == (S.ERROR, "It could not be started.")
    assert await rig.runs.by_token(one.session.id, one.started.token) is None


# ---- reports ----------------------------------------------------------------------------------


async def test_a_turn_is_shown_in_the_session_and_told_each_time(
    rig: AgentRig, database: Database
) -> None:
    one = await rig.agent()
    seen = [await rig.state(one.session)]
    told = [len(await events_of(database, "session.changed"))]
    for name in ("craftastic:started", "SessionStart", "UserPromptSubmit", "PostToolUse", "Stop"):
        await one.says(name, last_assistant_message="done it" if name == "Stop" else None)
        seen.append(await rig.state(one.session))
        told.append(len(await events_of(database, "session.changed")))

    assert seen == [S.STARTING, S.STARTING, S.IDLE, S.WORKING, S.WORKING, S.DONE]
    assert [b - a for a, b in pairwise(told)] == [0, 1, 1, 0, 1]
    shown = await rig.shop.sessions.get(rig.shop.owner, one.session.id)
    assert shown.agent is not None
    assert shown.agent.message == "done it"


async def test_the_same_report_counts_once_and_an_older_one_not_at_all(
    rig: AgentRig, working: Running
) -> None:
    submitted = RunEvent(working.nonce, working.seq, "UserPromptSubmit", {}, 1.0)
    await working.says("Stop")

    await rig.runs.event(working.run, submitted)
    await rig.runs.event(working.run, replace(submitted, seq=1))
    assert await rig.state(working.session) is S.DONE
    await rig.runs.event(working.run, replace(submitted, seq=working.seq + 1))
    assert await rig.state(working.session) is S.WORKING


async def test_reports_of_an_unknown_start_are_ignored(rig: AgentRig, working: Running) -> None:
    await rig.runs.event(working.run, RunEvent("another", 99, "Stop", {}, 1.0))
    asked = await rig.runs.ask(working.run, RunEvent("another", 99, "PermissionRequest", {}, 1.0))

    assert await rig.state(working.session) is S.WORKING
    assert (asked.approval_id, asked.settled) == (None, True)


async def test_reports_at_once_leave_the_state_of_the_last_one(
    rig: AgentRig, working: Running
) -> None:
    reports = [working.report("Stop" if step % 2 else "UserPromptSubmit") for step in range(RACERS)]
    async with anyio.create_task_group() as tasks:
        for report in reversed(reports):
            tasks.start_soon(rig.runs.event, working.run, report)

    run = await rig.get(working.session)
    assert (run.state.state, await rig.state(working.session)) == (S.DONE, S.DONE)


async def test_a_dead_session_takes_no_report(rig: AgentRig, working: Running) -> None:
    await end(rig, working)
    await working.says("UserPromptSubmit")

    assert await rig.state(working.session) is S.EXITED


async def test_after_a_restart_the_same_run_goes_on(rig: AgentRig, working: Running) -> None:
    approval = await working.asks()
    runs = rig.again()
    run = await runs.by_token(working.session.id, working.started.token)
    assert run is not None

    await runs.approvals.decide(rig.shop.owner, approval, allow=True)
    await runs.event(run, working.report("PostToolUse", {"tool_name": "Bash"}))
    await runs.event(run, working.report("Stop"))

    assert (await runs.answer(run, approval, 0)).answer == fake_type().hooks.allow
    assert await rig.state(working.session) is S.DONE


async def test_secrets_of_the_environment_are_in_no_text_that_is_kept(
    database: Database, clock: FakeClock
) -> None:
    async def mask(_owner: UUID, _environment: UUID) -> Callable[[str], str]:
        return lambda text: text.replace(SECRET, "***")

    async with agent_rig(database, clock) as rig:
        rig.runs.book = replace(rig.runs.book, sessions=replace(rig.shop.sessions, mask=mask))
        rig.runs.reports = replace(rig.runs.reports, book=rig.runs.book)
        one = await (await rig.agent()).works()
        await one.asks(command=f"{'x' * 296}{SECRET} {'y' * 4000}{SECRET}")
        await one.says("PreToolUse", tool_name="AskUserQuestion", tool_input={"question": SECRET})
        await one.says("Stop", last_assistant_message="z" * 1995 + SECRET)

        for table in ("agent_runs", "agent_approvals", "sessions"):
            kept = str(await stored(database, table))
            assert SECRET[:6] not in kept, table


# ---- requests ---------------------------------------------------------------------------------


async def test_a_request_waits_for_its_owner_and_is_told(
    rig: AgentRig, working: Running, database: Database
) -> None:
    approval = await working.asks("Bash", "rm -rf build")

    [listed] = await rig.runs.approvals.list_waiting(rig.shop.owner)
    assert (listed.id, listed.tool, listed.session_name) == (approval, "Bash", "work")
    assert '"command": "rm -rf build"' in listed.input
    shown = await rig.shop.sessions.get(rig.shop.owner, working.session.id)
    assert shown.agent is not None
    assert (shown.agent.state, shown.agent.waits_for) == (
        S.WAITING_PERMISSION,
        "Bash: rm -rf build",
    )
    assert await events_of(database, "approval.changed") == [str(approval)]


@pytest.mark.parametrize("allow", [True, False])
async def test_an_answer_wakes_the_ask_at_once_and_is_on_record(
    rig: AgentRig, working: Running, database: Database, allow: bool
) -> None:
    approval = await working.asks()
    answers: list[str] = []

    async def wait() -> None:
        answers.append((await rig.runs.answer(working.run, approval, 20)).answer)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)

        async def listens() -> bool:
            return rig.runs.book.bells.count == 1

        await until(listens)
        await rig.runs.approvals.decide(
            rig.shop.owner, approval, allow=allow, message=None if allow else 'not "that"'
        )

    hooks = fake_type().hooks
    assert answers == [hooks.allow] if allow else 'not \\"that\\"' in answers[0]
    assert await rig.state(working.session) is S.WORKING
    assert await rig.runs.approvals.list_waiting(rig.shop.owner) == []
    assert await events_of(database, "approval.changed") == [str(approval)] * 2
    [(action, actor)] = await rows(
        database, "SELECT action, object_id FROM audit_events WHERE action LIKE 'approval.%'"
    )
    assert (action, actor) == ("approval.allow" if allow else "approval.deny", str(approval))


async def test_of_fifty_answers_at_once_the_first_wins_and_the_others_hear_who(
    rig: AgentRig, working: Running
) -> None:
    approval = await working.asks()
    results: Counter[str] = Counter()

    async def decide(number: int) -> None:
        try:
            status = await rig.runs.approvals.decide(
                rig.shop.owner, approval, allow=number % 2 == 0
            )
            results["won"] += 1
            results[status] += 0
        except ApprovalAnswered as error:
            results[f"answered by {error.answer['answeredBy']}"] += 1

    async with anyio.create_task_group() as tasks:
        for number in range(RACERS):
            tasks.start_soon(decide, number)

    assert results["won"] == 1
    assert results["answered by user"] == RACERS - 1


async def test_an_ask_that_comes_again_is_the_same_request(rig: AgentRig, working: Running) -> None:
    event = working.report("PermissionRequest", {"tool_name": "Bash"})
    first, second = [await rig.runs.ask(working.run, event) for _ in range(2)]
    assert first == second
    assert first.approval_id is not None

    await rig.runs.approvals.decide(rig.shop.owner, first.approval_id, allow=True)

    assert (await rig.runs.ask(working.run, event)).answer == fake_type().hooks.allow


@pytest.mark.parametrize(
    "name", ["PostToolUse", "PostToolUseFailure", "PermissionDenied", "UserPromptSubmit", "Stop"]
)
async def test_an_answer_in_the_terminal_closes_the_request(
    rig: AgentRig, working: Running, name: str
) -> None:
    approval = await working.asks("Bash")
    await working.says(name, tool_name="Bash")

    asked = await rig.runs.answer(working.run, approval, 0)
    assert (asked.settled, asked.answer) == (True, "")
    with pytest.raises(ApprovalAnswered) as refused:
        await rig.runs.approvals.decide(rig.shop.owner, approval, allow=True)
    assert refused.value.answer["answeredBy"] == "terminal"


async def test_a_report_from_before_a_request_does_not_close_it(
    rig: AgentRig, working: Running
) -> None:
    earlier = working.report("PostToolUse", {"tool_name": "Bash"})
    approval = await working.asks("Bash")
    await rig.runs.event(working.run, earlier)

    assert not (await rig.runs.answer(working.run, approval, 0)).settled
    assert await rig.state(working.session) is S.WAITING_PERMISSION


async def test_an_ask_that_comes_after_its_answer_in_the_terminal_waits_for_nobody(
    rig: AgentRig, working: Running
) -> None:
    late = working.report("PermissionRequest", {"tool_name": "Bash"})
    await working.says("PostToolUse", tool_name="Bash")

    asked = await rig.runs.ask(working.run, late)

    assert (asked.approval_id, asked.settled, asked.answer) == (None, True, "")
    assert await rig.state(working.session) is S.WORKING


async def test_a_tool_that_ran_beside_it_leaves_a_request_waiting(
    rig: AgentRig, working: Running
) -> None:
    approval = await working.asks("Bash", "make")
    await working.says("PostToolUse", tool_name="Read")

    assert not (await rig.runs.answer(working.run, approval, 0)).settled
    assert await rig.state(working.session) is S.WAITING_PERMISSION


async def test_of_two_requests_the_agent_waits_for_the_second_when_one_is_answered(
    rig: AgentRig, working: Running
) -> None:
    first, second = await working.asks("Bash", "one"), await working.asks("Bash", "two")
    await rig.runs.approvals.decide(rig.shop.owner, first, allow=True)

    shown = await rig.shop.sessions.get(rig.shop.owner, working.session.id)
    assert shown.agent is not None
    assert shown.agent.waits_for == "Bash: two"
    await rig.runs.approvals.decide(rig.shop.owner, second, allow=True)
    assert await rig.state(working.session) is S.WORKING


async def test_a_subagents_request_waits_for_the_owner_too(rig: AgentRig, working: Running) -> None:
    approval = await working.asks("Bash", agent_id="sub-1")
    await working.says("PostToolUse", tool_name="Bash")
    assert not (await rig.runs.answer(working.run, approval, 0)).settled

    await working.says("PostToolUse", tool_name="Bash", agent_id="sub-1")

    assert (await rig.runs.answer(working.run, approval, 0)).settled


async def test_the_end_of_the_agent_or_of_its_session_closes_its_requests(rig: AgentRig) -> None:
    ended, dead = await (await rig.agent("a")).works(), await (await rig.agent("b")).works()
    first, second = await ended.asks(), await dead.asks()
    await ended.says("craftastic:exited", code=0)
    await end(rig, dead)
    assert [one.id for one in await rig.runs.approvals.list_waiting(rig.shop.owner)] == []
    with pytest.raises(ApprovalAnswered):
        await rig.runs.approvals.decide(rig.shop.owner, second, allow=True)
    await rig.runs.reconcile()

    for running, approval in ((ended, first), (dead, second)):
        asked = await rig.runs.answer(running.run, approval, 0)
        assert (asked.settled, asked.answer) == (True, "")


async def test_a_request_that_no_hook_waits_for_any_more_is_left_to_the_terminal(
    rig: AgentRig, working: Running, clock: FakeClock
) -> None:
    approval = await working.asks()
    clock.advance(589)
    await rig.runs.reconcile()
    assert len(await rig.runs.approvals.list_waiting(rig.shop.owner)) == 1
    clock.advance(2)
    await rig.runs.reconcile()

    assert await rig.runs.approvals.list_waiting(rig.shop.owner) == []
    with pytest.raises(ApprovalAnswered, match="answer it in the terminal"):
        await rig.runs.approvals.decide(rig.shop.owner, approval, allow=True)
    assert await rig.state(working.session) is S.WAITING_PERMISSION


async def test_requests_of_one_session_are_bounded(rig: AgentRig, working: Running) -> None:
    for _ in range(16):
        await working.asks()

    assert await working.ask() == replace(await working.ask(), approval_id=None, settled=True)
    assert len(await rig.runs.approvals.list_waiting(rig.shop.owner)) == 16


async def test_a_question_is_no_request_but_waits_in_the_terminal(
    database: Database, clock: FakeClock
) -> None:
    states = dict(fake_type().states) | {"PermissionRequest[AskUserQuestion]": "waiting_question"}
    async with agent_rig(database, clock, fake_type(states=states)) as rig:
        one = await (await rig.agent()).works()
        asked = await one.ask("AskUserQuestion")

        assert (asked.approval_id, asked.settled) == (None, True)
        assert await rig.state(one.session) is S.WAITING_QUESTION


async def test_a_request_is_its_owners_alone(rig: AgentRig, working: Running) -> None:
    approval = await working.asks()
    other = await rig.shop.add_user()

    assert await rig.runs.approvals.list_waiting(other) == []
    for owner, id_ in ((other, approval), (rig.shop.owner, uuid4())):
        with pytest.raises(ApprovalNotFound) as refused:
            await rig.runs.approvals.decide(owner, id_, allow=True)
        assert refused.value.message == "Approval not found"
    elsewhere = await rig.agent("elsewhere")
    assert await rig.runs.answer(elsewhere.run, approval, 0) == replace(
        await rig.runs.answer(elsewhere.run, uuid4(), 0)
    )


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_answer_at_one_server_process_wakes_the_ask_at_another(
    backend: str, copy_of_template: Callable[[str], str], clock: FakeClock
) -> None:
    url = driver_url(copy_of_template(backend))
    mine, theirs = Database(url), Database(url)
    try:
        async with agent_rig(mine, clock) as rig:
            one = await (await rig.agent()).works()
            approval = await one.asks()
            elsewhere = rig.again(theirs)
            answers: list[str] = []

            async def wait() -> None:
                answers.append((await elsewhere.answer(one.run, approval, 20)).answer)

            with anyio.fail_after(15):  # less than the ask waits by itself
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)

                    async def listens() -> bool:
                        return elsewhere.book.bells.count == 1

                    await until(listens)
                    await rig.runs.approvals.decide(rig.shop.owner, approval, allow=True)
    finally:
        await mine.close()
        await theirs.close()

    assert answers == [fake_type().hooks.allow]


# ---- model calls ------------------------------------------------------------------------------


async def with_key(rig: AgentRig) -> Running:
    """Start an agent that has a key."""
    one = await rig.agent(kind="anthropic_api_key")
    kind = fake_type().kind("anthropic_api_key")
    assert kind is not None
    assert one.run.agent_id is not None
    rig.agents.held[one.run.agent_id] = AgentCredential(kind, SECRET, "https://models.example")
    return one


async def test_the_gateway_gets_the_key_of_the_runs_agent(rig: AgentRig) -> None:
    one = await with_key(rig)

    found = await rig.runs.credential(one.run)

    assert (found.provider, found.scheme, found.key) == ("anthropic", "x-api-key", SECRET)
    assert found.base_url == "https://models.example"
    with pytest.raises(NoModelCredential):
        await rig.runs.credential(replace(one.run, agent_id=uuid4()))
    with pytest.raises(NoModelCredential):
        await rig.runs.credential(replace(one.run, agent_id=None))
    with pytest.raises(NoModelCredential):
        await rig.runs.credential(replace(one.run, provider="openai"))


async def test_a_key_that_is_refused_is_shown_as_the_agents_error(
    rig: AgentRig, working: Running
) -> None:
    await rig.runs.rejected(working.run, 401)

    run = await rig.get(working.session)
    assert (run.state.state, run.state.kind) == (S.ERROR, "credential")
    assert run.state.message is not None
    assert "401" in run.state.message


async def test_what_calls_cost_is_counted_at_once_and_written_soon(
    rig: AgentRig, working: Running
) -> None:
    for _ in range(3):
        await rig.runs.used(working.run, Usage(1, 100, 20))
    assert (await rig.get(working.session)).usage == Usage(3, 300, 60)
    assert (await rig.get(working.session, rig.again())).usage == Usage()

    async with rig.runs.running():
        pass

    assert (await rig.get(working.session, rig.again())).usage == Usage(3, 300, 60)
    assert (await rig.get(working.session)).usage == Usage(3, 300, 60)
    assert b'craftastic_model_tokens_total{direction="output"} 60.0' in rig.runs.metrics.text()


async def test_a_limit_pauses_the_call_until_its_owner_allows_more(
    database: Database, clock: FakeClock
) -> None:
    async with agent_rig(database, clock, token_limit=100) as rig:
        one = await (await rig.agent()).works()
        await rig.runs.admit(one.run)
        await rig.runs.used(one.run, Usage(1, 90, 10))
        passed: list[bool] = []

        async def call() -> None:
            await rig.runs.admit(one.run)
            passed.append(True)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)

            async def asked() -> bool:
                return len(await rig.runs.approvals.list_waiting(rig.shop.owner)) == 1

            await until(asked)
            assert await rig.state(one.session) is S.WAITING_PERMISSION
            assert passed == []
            [limit] = await rig.runs.approvals.list_waiting(rig.shop.owner)
            assert (limit.kind, limit.tool) == ("limit", "")
            await rig.runs.approvals.decide(rig.shop.owner, limit.id, allow=True)

        assert passed == [True] * 5
        assert len(await stored(database, "agent_approvals")) == 1
        run = await rig.get(one.session)
        assert (run.state.state, run.allowed_tokens) == (S.WORKING, 200)


async def test_a_limit_that_is_denied_refuses_calls_until_there_is_something_new_to_do(
    database: Database, clock: FakeClock
) -> None:
    async with agent_rig(database, clock, token_limit=100) as rig:
        one = await (await rig.agent()).works()
        await rig.runs.used(one.run, Usage(1, 100, 0))

        async def refused() -> str:
            try:
                await rig.runs.admit(one.run)
            except AgentLimitReached as error:
                return error.message
            return "let through"

        async def denied() -> list[str]:
            """Call, deny when asked, and return what the call was told."""
            told: list[str] = []

            async def call() -> None:
                told.append(await refused())

            async def asked() -> bool:
                return len(await rig.runs.approvals.list_waiting(rig.shop.owner)) == 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await until(asked)
                [limit] = await rig.runs.approvals.list_waiting(rig.shop.owner)
                await rig.runs.approvals.decide(rig.shop.owner, limit.id, allow=False)
            return told

        told = "The token limit of this session is reached, and its owner allowed no more"
        assert await denied() == [told]
        assert await refused() == told
        assert await rig.runs.approvals.list_waiting(rig.shop.owner) == []

        await one.says("Stop")
        await one.says("UserPromptSubmit")
        assert await denied() == [told]


async def test_a_limit_that_nobody_answers_refuses_the_call_after_a_while(
    database: Database, clock: FakeClock
) -> None:
    async with agent_rig(database, clock, token_limit=1, admit_s=0.05) as rig:
        one = await (await rig.agent()).works()
        await rig.runs.used(one.run, Usage(1, 1, 0))

        with pytest.raises(AgentLimitReached, match="was asked"):
            await rig.runs.admit(one.run)

        assert len(await rig.runs.approvals.list_waiting(rig.shop.owner)) == 1


async def test_a_limit_can_be_changed_and_counts_from_what_is_used(
    rig: AgentRig, working: Running
) -> None:
    await rig.runs.used(working.run, Usage(1, 70, 30))

    assert (await rig.runs.set_limit(rig.shop.owner, working.session.id, 50)).allowed_tokens == 150
    assert (
        await rig.runs.set_limit(rig.shop.owner, working.session.id, None)
    ).allowed_tokens is None
    await rig.runs.admit(working.run)
    plain = await rig.session("plain")
    with pytest.raises(AgentRunNotFound):
        await rig.runs.set_limit(rig.shop.owner, plain.id, 50)


async def test_only_the_login_file_of_the_runs_own_kind_is_taken_back(rig: AgentRig) -> None:
    one = await rig.agent(kind="claude_cli_json")
    other = await rig.agent("other", kind="anthropic_api_key")

    assert await rig.runs.take_back(one.run, ".credentials.json", "0" * 64, "{}")
    assert not await rig.runs.take_back(one.run, "settings.json", "0" * 64, "{}")
    assert not await rig.runs.take_back(other.run, ".credentials.json", "0" * 64, "{}")
    assert [one[2:] for one in rig.agents.taken] == [("claude_cli_json", "0" * 64, "{}")]


# ---- prompts ----------------------------------------------------------------------------------


async def test_a_prompt_is_typed_when_the_agent_is_idle_and_confirmed_when_it_works(
    rig: AgentRig,
) -> None:
    one = await (await rig.agent()).is_idle()
    async with rig.runs.running():
        made = await rig.runs.prompts.add(one.session, "do it\r\nnow\x1b[201~\x03")
        assert made.status == "queued"

        async def typed() -> bool:
            return (await rig.prompts(one.session))[0][1] == "delivered"

        await until(typed)
    await one.says("UserPromptSubmit", prompt="do it now[201~")

    assert rig.runtime.typed == [(one.session.tmux_name, "do it\nnow[201~")]
    assert await rig.prompts(one.session) == [("do it\nnow[201~", "delivered", None)]


@pytest.mark.parametrize(
    ("state", "events", "status"),
    [
        ("starting", [], "queued"),
        ("working", ["SessionStart", "UserPromptSubmit"], "queued"),
        ("waiting_permission", ["SessionStart", "PermissionRequest"], "blocked"),
        ("exited", ["SessionStart", "craftastic:exited"], "blocked"),
        ("error", ["SessionStart", "StopFailure"], "blocked"),
    ],
)
async def test_a_prompt_is_not_typed_unless_the_agent_is_positively_idle(
    rig: AgentRig, state: str, events: list[str], status: str
) -> None:
    one = await rig.agent()
    for name in events:
        await one.says(name)
    assert await rig.state(one.session) == state
    made = await rig.runs.prompts.add(one.session, "do it")
    await rig.runs.reconcile()

    assert (made.status, rig.runtime.typed) == (status, [])
    assert made.reason


@dataclass
class Interposed:
    """Sessions during whose look-up something else happens."""

    sessions: SessionService
    meanwhile: Callable[[], Awaitable[object]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sessions, name)

    async def get_owned(self, owner: UserId, session_id: UUID) -> tuple[Session, Environment]:
        await self.meanwhile()
        return await self.sessions.get_owned(owner, session_id)


async def test_an_agent_that_has_begun_to_ask_meanwhile_is_not_typed_into(rig: AgentRig) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "y")
    sessions = Interposed(rig.shop.sessions, one.asks)
    prompts = replace(rig.runs.prompts, book=replace(rig.runs.book, sessions=sessions))

    assert not await prompts.deliver(one.session.id)

    assert rig.runtime.typed == []
    assert (await rig.prompts(one.session))[0][1] == "blocked"


async def test_a_prompt_waits_while_the_supervisor_says_that_the_agent_is_not_idle(
    rig: AgentRig,
) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    answers: list[tuple[dict[str, object] | None, bool]] = [
        ({"idle": False, "last": "x"}, True),
        (None, True),
        ({"idle": True}, False),
    ]
    for answer, takes in answers:
        rig.runtime.supervisor, rig.runtime.tmux_takes = answer, takes
        await rig.runs.reconcile()
        [(_, status, reason)] = await rig.prompts(one.session)
        assert (status, rig.runtime.typed) == ("queued", [])
        assert reason is not None
        assert reason.endswith("it is tried again.")
    rig.runtime.supervisor, rig.runtime.tmux_takes = {"idle": True, "last": "Stop"}, True
    await rig.runs.reconcile()

    assert [text for _, text in rig.runtime.typed] == ["do it"]


async def test_the_next_prompt_waits_until_the_agent_has_taken_the_one_before(
    rig: AgentRig,
) -> None:
    one = await (await rig.agent()).is_idle()
    for text in ("one", "two"):
        await rig.runs.prompts.add(one.session, text)
    for _ in range(3):
        await rig.runs.reconcile()
    assert [text for _, text in rig.runtime.typed] == ["one"]

    await one.says("UserPromptSubmit", prompt="one")
    await rig.runs.reconcile()
    assert [text for _, text in rig.runtime.typed] == ["one"]
    await one.says("Stop")
    await rig.runs.reconcile()

    assert [text for _, text in rig.runtime.typed] == ["one", "two"]


async def test_a_prompt_is_typed_once_however_many_deliver(rig: AgentRig) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    services = [rig.runs, *(rig.again() for _ in range(4))]

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(services[number % 5].prompts.deliver, one.session.id)

    assert [text for _, text in rig.runtime.typed] == ["do it"]


async def test_what_a_crash_cuts_short_is_not_typed_again_and_said_to_be_unknown(
    rig: AgentRig, clock: FakeClock
) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    reached = anyio.Event()

    async def crash() -> None:
        reached.set()
        await anyio.sleep_forever()

    rig.runtime.while_typing = crash
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.runs.prompts.deliver, one.session.id)
        await reached.wait()
        tasks.cancel_scope.cancel()
    rig.runtime.while_typing = None

    runs = rig.again()
    await runs.reconcile()
    assert (await rig.prompts(one.session))[0][1] == "delivering"
    clock.advance(61)
    await runs.reconcile()
    await runs.reconcile()

    [(text, status, reason)] = await rig.prompts(one.session)
    assert (text, status) == ("do it", "unknown")
    assert reason == "It is not known whether it was typed; the terminal shows it."
    assert len(rig.runtime.typed) == 1
    await one.says("UserPromptSubmit", prompt="do it")
    assert await rig.prompts(one.session) == [("do it", "delivered", None)]


async def test_a_delivery_whose_end_is_lost_is_unknown_and_one_that_never_began_is_not(
    rig: AgentRig,
) -> None:
    lost, unbegun = await (await rig.agent("a")).is_idle(), await (await rig.agent("b")).is_idle()
    rig.runtime.refusal = RuntimeUnavailable("no answer")
    await rig.runs.prompts.add(lost.session, "one")
    await rig.runs.reconcile()
    rig.runtime.refusal = SandboxExhausted("full")
    await rig.runs.prompts.add(unbegun.session, "two")
    await rig.runs.reconcile()

    assert (await rig.prompts(lost.session))[0][1] == "unknown"
    assert (await rig.prompts(unbegun.session))[0][1] == "queued"


async def test_a_prompt_that_is_not_confirmed_says_so(rig: AgentRig, clock: FakeClock) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    await rig.runs.reconcile()
    clock.advance(11)
    await rig.runs.reconcile()

    assert (await rig.prompts(one.session))[0][1:] == (
        "delivered",
        "It was typed, and the agent has not confirmed it.",
    )


async def test_a_report_that_comes_before_the_typing_has_ended_confirms_it(rig: AgentRig) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")

    async def submit() -> None:
        await one.says("UserPromptSubmit", prompt="do it")

    rig.runtime.while_typing = submit
    rig.runtime.tmux_takes = None
    await rig.runs.reconcile()

    assert await rig.prompts(one.session) == [("do it", "delivered", None)]


async def test_another_text_that_the_agent_takes_does_not_confirm_the_prompt(
    rig: AgentRig,
) -> None:
    one = await (await rig.agent()).is_idle()
    await rig.runs.prompts.add(one.session, "do it")
    await rig.runs.reconcile()
    await one.says("UserPromptSubmit", prompt="something else")

    assert (await rig.prompts(one.session))[0][1:] == (
        "delivered",
        "It was typed, and the agent then took another text.",
    )


async def test_a_prompt_can_be_taken_back_until_it_is_typed(rig: AgentRig) -> None:
    one = await (await rig.agent()).is_idle()
    first = await rig.runs.prompts.add(one.session, "one")
    second = await rig.runs.prompts.add(one.session, "two")
    await rig.runs.reconcile()

    await rig.runs.prompts.take_back(one.session, second.id)
    with pytest.raises(PromptDelivered):
        await rig.runs.prompts.take_back(one.session, first.id)
    with pytest.raises(PromptNotFound):
        await rig.runs.prompts.take_back(one.session, second.id)
    with pytest.raises(PromptNotFound):
        await rig.runs.prompts.take_back(await rig.session("other"), first.id)
    assert [text for text, *_ in await rig.prompts(one.session)] == ["one"]


async def test_prompts_are_bounded_in_number_and_length(rig: AgentRig) -> None:
    one = await rig.agent()
    for text in ("", " \n\x00\x1b", "x" * 100_001):
        with pytest.raises(BadPrompt):
            await rig.runs.prompts.add(one.session, text)
    for _ in range(50):
        await rig.runs.prompts.add(one.session, "x" * 100)
    with pytest.raises(TooManyPrompts):
        await rig.runs.prompts.add(one.session, "x")


async def test_a_session_without_an_agent_takes_no_prompt(rig: AgentRig) -> None:
    plain, over = await rig.session("plain"), await rig.agent("over")
    await end(rig, over)

    with pytest.raises(NoAgent):
        await rig.runs.prompts.add(plain, "x")
    with pytest.raises(AgentOver):
        await rig.runs.prompts.add(over.session, "x")
    with pytest.raises(AgentRunNotFound):
        await rig.get(plain)


async def test_prompts_and_requests_go_with_their_session(
    rig: AgentRig, working: Running, database: Database
) -> None:
    await working.asks()
    await rig.runs.prompts.add(working.session, "later")
    await rig.shop.sessions.delete(rig.shop.owner, working.session.id)

    for table in ("agent_runs", "agent_run_tokens", "agent_approvals", "agent_prompts"):
        assert await stored(database, table) == [], table


# ---- interrupting, and looking ----------------------------------------------------------------


async def test_an_agent_that_works_or_waits_is_interrupted_and_then_unknown(
    rig: AgentRig, working: Running
) -> None:
    approval = await working.asks()

    done = await rig.runs.interrupt(rig.shop.owner, working.session.id)

    assert (done.interrupted, rig.runtime.pressed) == (True, [("Escape",)])
    assert await rig.state(working.session) is S.UNKNOWN
    assert (await rig.runs.answer(working.run, approval, 0)).settled


async def test_an_agent_that_does_not_work_is_not_interrupted(rig: AgentRig) -> None:
    one = await (await rig.agent()).is_idle()

    done = await rig.runs.interrupt(rig.shop.owner, one.session.id)

    assert (done.interrupted, done.reason) == (False, "The agent is idle.")
    assert rig.runtime.pressed == []
    with pytest.raises(NoAgent):
        await rig.runs.interrupt(rig.shop.owner, (await rig.session("plain")).id)
    with pytest.raises(SessionNotFound):
        await rig.runs.interrupt(UserId(uuid4()), one.session.id)


async def test_an_agent_that_has_gone_unheard_is_found_to_have_ended(
    rig: AgentRig, working: Running
) -> None:
    approval = await working.asks()
    rig.runtime.commands[working.session.tmux_name] = "bash"
    await rig.runs.reconcile()
    assert await rig.state(working.session) is S.WAITING_PERMISSION  # its supervisor says no end
    rig.runtime.supervisor = {"idle": False, "last": "craftastic:exited"}
    await rig.runs.reconcile()

    assert await rig.state(working.session) is S.EXITED
    assert (await rig.runs.answer(working.run, approval, 0)).settled


async def test_an_agent_that_never_said_anything_is_unknown_after_a_while(
    rig: AgentRig, clock: FakeClock
) -> None:
    one = await rig.agent()
    await one.says("craftastic:started")
    await rig.runs.reconcile()
    assert await rig.state(one.session) is S.STARTING
    clock.advance(31)
    await rig.runs.reconcile()

    assert await rig.state(one.session) is S.UNKNOWN
    assert b'craftastic_agent_runs{state="unknown"} 1.0' in rig.runs.metrics.text()


async def test_one_look_asks_a_sandbox_once_for_all_its_agents(rig: AgentRig) -> None:
    for name in ("a", "b", "c"):
        await (await rig.agent(name)).works()

    await rig.runs.reconcile()

    assert rig.runtime.looks == 1


async def test_where_no_agent_lives_no_sandbox_is_asked(rig: AgentRig, working: Running) -> None:
    await end(rig, working)
    for _ in range(2):
        await rig.runs.reconcile()

    assert rig.runtime.looks == 0
    assert (await rig.get(working.session)).ended_at is not None


def test_every_status_of_an_answered_request_says_who_answered() -> None:
    assert set(ApprovalStatus) == {
        "waiting", "allowed", "denied", "terminal", "expired", "ended",
    }  # fmt: skip
