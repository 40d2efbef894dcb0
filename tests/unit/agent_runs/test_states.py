"""How an agent is, told from what is heard of it: every event, and what must never follow."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.agent_runs._states import (
    EXITED,
    MISSING,
    OVER,
    READY,
    STARTED,
    AgentState,
    Pane,
    RunState,
    answered,
    answers,
    apply,
    asked,
    begun,
    clean,
    described,
    ended,
    failed,
    interrupted,
    observed,
    signal,
)
from craftastic.agents.agent_types import AgentType, HookWords

T0 = datetime(2026, 11, 24, 12, tzinfo=UTC)
T1 = T0 + timedelta(seconds=5)
SPINNER, STILL = "⠂ thinking", "✳ Claude Code"

S = AgentState


def a_type(**changes: Any) -> AgentType:
    given: dict[str, Any] = {
        "name": "scripted", "title": "Scripted", "command": "scripted", "npm": None,
        "version": None, "missing": "Install it.", "argv": ("scripted",), "prompt": (),
        "resume": (), "interrupt": ("Escape",), "submit": ("Enter",), "env": {},
        "credentials": (), "files": (), "version_argv": (),
        "states": {
            "SessionStart": "idle",
            "UserPromptSubmit": "working",
            "PreToolUse[AskUserQuestion]": "waiting_question",
            "PermissionRequest": "waiting_permission",
            "PostToolUse": "working",
            "Stop": "done",
            "StopFailure": "error",
            "Odd": "no such state",
        },
        "hooks": HookWords(
            ask="PermissionRequest",
            conversation="session_id",
            message="last_assistant_message",
            tool="tool_name",
            input="tool_input",
        ),
    } | changes  # fmt: skip
    return AgentType(**given)


WORDS = a_type()
SILENT = a_type(states={})


def after(
    name: str,
    payload: Mapping[str, Any] | None = None,
    *,
    before: AgentState = S.WORKING,
    words: AgentType = WORDS,
    waits: str | None = None,
) -> RunState:
    return apply(RunState(before, T0), name, payload or {}, words, T1, waits=waits)


@pytest.mark.parametrize(
    ("name", "payload", "before", "state"),
    [
        ("SessionStart", {}, S.STARTING, S.IDLE),
        ("UserPromptSubmit", {}, S.IDLE, S.WORKING),
        ("UserPromptSubmit", {}, S.DONE, S.WORKING),
        ("PreToolUse", {"tool_name": "Bash"}, S.WORKING, S.WORKING),
        ("PreToolUse", {"tool_name": "AskUserQuestion"}, S.WORKING, S.WAITING_QUESTION),
        ("PermissionRequest", {"tool_name": "Bash"}, S.WORKING, S.WAITING_PERMISSION),
        ("PostToolUse", {}, S.WAITING_PERMISSION, S.WORKING),
        ("PostToolUse", {}, S.WAITING_QUESTION, S.WORKING),
        ("PostToolUseFailure", {}, S.WAITING_PERMISSION, S.WORKING),
        ("PermissionDenied", {}, S.WAITING_PERMISSION, S.WORKING),
        ("Notification", {}, S.WAITING_PERMISSION, S.WAITING_PERMISSION),
        ("PostToolUseFailure", {}, S.DONE, S.DONE),
        ("Stop", {}, S.WORKING, S.DONE),
        ("StopFailure", {"error": "rate_limit"}, S.WORKING, S.ERROR),
        ("Odd", {}, S.WORKING, S.WORKING),
        ("SessionStart", {}, S.EXITED, S.IDLE),
        (STARTED, {}, S.EXITED, S.STARTING),
        (EXITED, {"code": 3}, S.WORKING, S.EXITED),
        (MISSING, {}, S.STARTING, S.ERROR),
    ],
)
def test_an_event_leads_to_the_state_that_the_manifest_gives_it(
    name: str, payload: dict[str, Any], before: AgentState, state: AgentState
) -> None:
    assert after(name, payload, before=before).state is state


def test_an_event_of_a_subagent_changes_nothing() -> None:
    before = RunState(S.WAITING_PERMISSION, T0, waits_for="Bash: ls")

    for name in ("Stop", "PostToolUse", "UserPromptSubmit", "SessionStart"):
        assert apply(before, name, {"agent_id": "sub-1"}, WORDS, T1) == before


def test_an_agent_goes_on_waiting_while_another_request_of_it_waits() -> None:
    left = after("PostToolUse", {"tool_name": "Read"}, waits="Bash: rm x")

    assert (left.state, left.waits_for) == (S.WAITING_PERMISSION, "Bash: rm x")


def test_the_time_stays_where_the_same_state_goes_on_and_is_the_servers() -> None:
    same = after("PostToolUse", {"at": 1})
    other = after("Stop")

    assert (same.since, same.heard_at) == (T0, T1)
    assert other.since == T1


def test_what_an_agent_waits_for_is_one_bounded_line_without_controls() -> None:
    waiting = after(
        "PermissionRequest",
        {"tool_name": "Bash", "tool_input": {"command": "rm -rf x\n\x1b[31mls \ud800" + "y" * 900}},
    )

    assert waiting.waits_for is not None
    assert waiting.waits_for.startswith("Bash: rm -rf x [31mls")
    assert len(waiting.waits_for) == 300
    assert after("PostToolUse", before=S.WAITING_PERMISSION).waits_for is None


def test_the_last_message_and_the_conversation_are_kept_and_bounded() -> None:
    done = after("Stop", {"last_assistant_message": "a" * 9000, "session_id": "c-1"})
    later = apply(done, "UserPromptSubmit", {}, WORDS, T1)

    assert done.message == "a" * 2000
    assert (later.message, later.conversation) == (done.message, "c-1")


def test_an_end_tells_its_code_or_its_signal() -> None:
    assert after(EXITED, {"code": 3}).exit_code == 3
    assert after(EXITED, {"signal": 9}).exit_code == -9
    assert after(EXITED, {"code": True}).exit_code is None
    assert after(EXITED, {"code": 1 << 40}).exit_code is None


def test_an_error_tells_its_kind_and_another_state_takes_it_back() -> None:
    error = after("StopFailure", {"error": "rate_limit"})

    assert error.kind == "rate_limit"
    assert apply(error, "UserPromptSubmit", {}, WORDS, T1).kind is None


def test_a_program_that_is_not_there_is_an_error_that_says_how_to_get_it() -> None:
    missing = after(MISSING, before=S.STARTING)

    assert (missing.state, missing.kind) == (S.ERROR, "missing")
    assert missing.message == "Scripted is not there. Install it."


def test_a_new_start_forgets_all_but_the_conversation() -> None:
    before = RunState(S.EXITED, T0, T0, "said", None, "c-1", None, 3)

    assert apply(before, STARTED, {}, WORDS, T1) == begun(T1, "c-1")


def test_a_type_without_hooks_is_unknown_as_soon_as_it_has_started() -> None:
    assert after(STARTED, before=S.STARTING, words=SILENT).state is S.UNKNOWN
    assert observed(begun(T0), None, SILENT, T0).state is S.UNKNOWN


def test_an_agent_that_never_said_anything_is_unknown_after_thirty_seconds() -> None:
    before = begun(T0)

    assert observed(before, None, WORDS, T0 + timedelta(seconds=29)) == before
    assert observed(before, None, WORDS, T0 + timedelta(seconds=30)).state is S.UNKNOWN


def test_silence_says_nothing_about_an_agent_that_has_spoken() -> None:
    for state in set(S) - {S.STARTING}:
        before = RunState(state, T0, heard_at=T0)
        assert observed(before, None, WORDS, T0 + timedelta(days=1)) == before


@pytest.mark.parametrize(
    ("pane", "gone"),
    [
        (Pane("bash", supervisor=EXITED), True),
        (Pane("bash", supervisor=MISSING), True),
        (Pane("bash", supervisor=None), True),
        (Pane("bash", supervisor="PostToolUse"), False),
        (Pane("node", supervisor=None), False),
        (Pane("node", dead=True), True),
    ],
)
def test_an_agent_has_ended_when_a_shell_is_in_front_and_its_supervisor_agrees(
    pane: Pane, gone: bool
) -> None:
    before = RunState(S.WORKING, T0, heard_at=T0)

    assert (observed(before, pane, WORDS, T1).state is S.EXITED) is gone


def test_a_shell_in_front_of_an_agent_that_is_starting_proves_nothing() -> None:
    before = begun(T0)

    assert observed(before, Pane("bash"), WORDS, T1) == before


def test_a_title_may_say_working_and_take_that_back_and_nothing_else() -> None:
    unknown = RunState(S.UNKNOWN, T0)
    working = signal(unknown, SPINNER, T1)

    assert working.state is S.WORKING
    assert signal(working, STILL, T1).state is S.UNKNOWN
    for state in set(S) - {S.UNKNOWN}:
        before = RunState(state, T0, heard_at=T0)
        for title in (SPINNER, STILL, ""):
            assert signal(before, title, T1) == before


def test_a_title_right_after_a_report_is_from_before_it() -> None:
    before = RunState(S.UNKNOWN, T0, heard_at=T0)

    assert signal(before, SPINNER, T0 + timedelta(seconds=0.2)) == before
    assert signal(before, SPINNER, T0 + timedelta(seconds=0.3)).state is S.WORKING


def test_an_answer_lets_an_agent_work_unless_the_next_request_waits() -> None:
    waiting = asked(RunState(S.WORKING, T0), "Bash: ls", T0)

    assert answered(waiting, T1).state is S.WORKING
    assert answered(waiting, T1, waits="Bash: rm").waits_for == "Bash: rm"
    assert answered(RunState(S.DONE, T0), T1).state is S.DONE


def test_what_is_interrupted_is_unknown_and_what_is_over_stays_over() -> None:
    assert interrupted(RunState(S.WORKING, T0), T1).state is S.UNKNOWN
    assert ended(RunState(S.WAITING_QUESTION, T0, waits_for="?"), T1) == RunState(S.EXITED, T1)
    error = failed(RunState(S.WORKING, T0), "launch", "no", T1)
    assert (ended(error, T1).state, error.message) == (S.ERROR, "no")


@pytest.mark.parametrize(
    ("name", "payload", "closes"),
    [
        ("PostToolUse", {"tool_name": "Bash"}, True),
        ("PostToolUse", {}, True),
        ("PostToolUse", {"tool_name": "Read"}, False),
        ("PostToolUse", {"tool_name": "Bash", "agent_id": "s"}, False),
        ("PermissionDenied", {"tool_name": "Bash"}, True),
        ("UserPromptSubmit", {}, True),
        ("Stop", {}, True),
        ("Stop", {"agent_id": "s"}, False),
        ("PermissionReplied", {}, True),
        ("PreToolUse", {"tool_name": "Bash"}, False),
        ("Notification", {}, False),
        (EXITED, {"code": 0}, True),
    ],
)
def test_what_happens_next_tells_that_a_request_was_answered_in_the_terminal(
    name: str, payload: dict[str, Any], closes: bool
) -> None:
    assert answers(name, payload, WORDS, "Bash", None) is closes


def test_a_subagents_request_is_answered_by_its_own_next_event() -> None:
    assert answers("PostToolUse", {"agent_id": "s", "tool_name": "Bash"}, WORDS, "Bash", "s")
    assert not answers("PostToolUse", {"tool_name": "Bash"}, WORDS, "Bash", "s")
    assert answers("Stop", {}, WORDS, "Bash", "s")


# ---- whatever comes ---------------------------------------------------------------------------

NAMES = st.sampled_from(
    [*WORDS.states, "PreToolUse", "Notification", STARTED, EXITED, MISSING, "?"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "session_id": VALUES,
        "last_assistant_message": VALUES,
        "tool_name": VALUES | st.sampled_from(["Bash", "AskUserQuestion"]),
        "tool_input": VALUES,
        "agent_id": VALUES,
        "error": VALUES,
        "code": VALUES,
        "signal": VALUES,
    },
)
EVENTS = st.tuples(NAMES, PAYLOADS)
TITLES = st.sampled_from(["", SPINNER, STILL, "\ud800"]) | st.text(st.characters())
PANES = st.builds(
    Pane,
    command=st.sampled_from(["bash", "node", "python3"]),
    dead=st.booleans(),
    title=TITLES,
    supervisor=st.none() | NAMES,
)


def storable(text: str | None, most: int) -> bool:
    return text is None or (len(text) <= most and "\0" not in text and bool(text.encode() or text))


@given(st.lists(EVENTS, max_size=12), st.booleans())
def test_any_reports_lead_to_a_state_that_can_be_stored(
    events: list[tuple[str, dict[str, Any]]], waits: bool
) -> None:
    state = begun(T0)
    for step, (name, payload) in enumerate(events):
        now = T0 + timedelta(seconds=step)
        state = apply(state, name, payload, WORDS, now, waits="Bash: x" if waits else None)
        assert storable(state.message, 2000)
        assert storable(state.waits_for, 300)
        assert storable(state.conversation, 200)
        assert storable(state.kind, 80)
        assert (state.waits_for is not None) == (
            state.state in {S.WAITING_PERMISSION, S.WAITING_QUESTION}
        )
        assert (state.kind is not None) == (state.state is S.ERROR)
        assert state.exit_code is None or state.state in OVER
        assert state.since <= now


@given(st.sampled_from(S), PANES | st.none(), st.integers(0, 10_000), st.booleans())
def test_only_the_agents_own_reports_lead_to_a_state_in_which_text_is_typed(
    before: AgentState, pane: Pane | None, seconds: int, heard: bool
) -> None:
    state = RunState(before, T0, heard_at=T0 if heard else None)
    seen = observed(state, pane, WORDS, T0 + timedelta(seconds=seconds))

    assert seen.state not in READY or seen.state is before
    assert seen.state is not S.WAITING_PERMISSION or before is S.WAITING_PERMISSION


@given(st.sampled_from(S), NAMES, PAYLOADS)
def test_an_agent_with_a_request_that_waits_is_never_ready(
    before: AgentState, name: str, payload: dict[str, Any]
) -> None:
    if (
        payload.get("agent_id") not in {None, ""}
        if isinstance(payload.get("agent_id"), str | None)
        else True
    ):
        return
    state = replace(RunState(before, T0), waits_for="x" if "waiting" in before else None)
    state = apply(asked(state, "Bash: x", T0), name, payload, WORDS, T1, waits="Bash: x")

    assert state.state not in READY


@given(st.text(st.characters()), st.integers(0, 50))
def test_clean_text_is_bounded_and_can_be_encoded(text: str, most: int) -> None:
    cleaned = clean(text, most)

    assert len(cleaned) <= most
    assert cleaned.encode().decode() == cleaned
    assert not [one for one in cleaned if ord(one) < 32 and one not in "\n\t"]


@given(PAYLOADS)
def test_a_description_of_anything_is_one_line(payload: dict[str, Any]) -> None:
    assert "\n" not in described("Bash", payload, WORDS)
