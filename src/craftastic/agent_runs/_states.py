"""What an agent does, told from what is heard of it. Pure.

The evidence has ranks. A report of the CLI's own hooks counts most; then what the processes of the
sandbox say; then what the CLI writes into the title of its terminal. What counts less never makes a
state that lets text be typed: a prompt that is typed into a permission dialog answers the dialog.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from craftastic.sessions.service import AgentState

__all__ = ["AgentState", "Pane", "RunState", "StateWords"]

STARTED = "craftastic:started"
EXITED = "craftastic:exited"
MISSING = "craftastic:missing"
OWN_EVENTS = frozenset({STARTED, EXITED, MISSING})
"""What the supervisor itself reports; no hook can."""

ANSWERING = frozenset(
    {"PostToolUse", "PostToolUseFailure", "PermissionDenied", "UserPromptSubmit", "Stop"}
    | {"StopFailure", "SessionStart", "SessionEnd", "PermissionReplied"}
    | OWN_EVENTS
)
"""After one of these a request that waited before waits no more, see `answers`; and after what
means in a type's own words that a turn is over.
"""

OF_ONE_TOOL = frozenset({"PostToolUse", "PostToolUseFailure", "PermissionDenied"})

WAITING = frozenset({AgentState.WAITING_PERMISSION, AgentState.WAITING_QUESTION})
BUSY = WAITING | {AgentState.WORKING}
OVER = frozenset({AgentState.EXITED, AgentState.ERROR})
READY = frozenset({AgentState.IDLE, AgentState.DONE})
"""The only states in which a prompt may be delivered."""

SILENCE = timedelta(seconds=30)
"""After so long without any report of the CLI, nobody can say what it does."""

DEBOUNCE = timedelta(seconds=0.3)
"""A title that follows a report this closely may still be the one from before it."""

SHELLS = frozenset({"bash", "-bash", "sh", "zsh", "fish"})
SPINNERS = range(0x2801, 0x2900)
"""Braille patterns: what the CLIs draw in their title while they work."""

MAX_MESSAGE = 2000
MAX_WAITS_FOR = 300
MAX_CONVERSATION = 200
MAX_SAID = 64 << 10
MAX_KIND = 80
MAX_TOOL = 100
MAX_EXIT_CODE = 0xFFFF

SOMETHING = "an answer"
"""What an agent waits for that does not say what it is."""

TOLD = ("command", "file_path", "path", "url", "pattern", "query", "question", "description")
"""Keys of a tool's input that say most, in their order."""


class HookNames(Protocol):
    """Under which keys of its payloads a CLI says things."""

    @property
    def conversation(self) -> str | None: ...
    @property
    def message(self) -> str | None: ...
    @property
    def tool(self) -> str | None: ...
    @property
    def input(self) -> str | None: ...


class StateWords(Protocol):
    """What a type of agent says of its states; `agents.agent_types.AgentType` is one."""

    @property
    def title(self) -> str: ...
    @property
    def missing(self) -> str: ...
    @property
    def states(self) -> Mapping[str, str]: ...
    @property
    def hooks(self) -> HookNames: ...


@dataclass(frozen=True, slots=True)
class RunState:
    """How an agent is.

    Args:
        since: When it came to be so, by the server's clock.
        heard_at: When the CLI's own hooks reported last; None while they never did.
        message: The last thing that the agent said.
        waits_for: What it waits for, while it waits.
        conversation: The CLI's own id of the conversation.
        kind: What went wrong, in a word, where something did.
        exit_code: With which the CLI ended, negative for a signal; None where it is not known.
    """

    state: AgentState
    since: datetime
    heard_at: datetime | None = None
    message: str | None = None
    waits_for: str | None = None
    conversation: str | None = None
    kind: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Pane:
    """What is known of an agent's terminal without asking the agent.

    Args:
        command: Name of the program in its foreground.
        dead: Its first program has ended.
        title: As the programs in it have set it.
        supervisor: Name of the last event that the supervisor knows; None when it gave no answer.
    """

    command: str
    dead: bool = False
    title: str = ""
    supervisor: str | None = None


def begun(now: datetime, conversation: str | None = None) -> RunState:
    """Return how an agent is that is about to be started."""
    return RunState(AgentState.STARTING, now, conversation=conversation)


def apply(
    previous: RunState,
    name: str,
    payload: Mapping[str, Any],
    words: StateWords,
    now: datetime,
    *,
    waits: str | None = None,
) -> RunState:
    """Return how an agent is after a report.

    Args:
        previous: How it was.
        name: Of the event.
        payload: What came with it; hostile.
        words: What this type of agent says of its states.
        now: By the server's clock: the sandbox's may say anything.
        waits: What a request is about that still waits for its owner's answer.
    """
    if name in OWN_EVENTS:
        return _own(previous, name, payload, words, now)
    if is_subagents(payload):
        return previous
    heard = replace(
        previous,
        heard_at=now,
        message=_text(payload, words.hooks.message, MAX_MESSAGE) or previous.message,
        conversation=_text(payload, words.hooks.conversation, MAX_CONVERSATION)
        or previous.conversation,
    )
    tool = tool_of(payload, words)
    state = state_of(name, tool, words)
    if state is None and previous.state in WAITING and is_answering(name, words):
        state = AgentState.WORKING
    if state is None:
        return heard
    if waits is not None and state not in OVER:
        return moved(heard, AgentState.WAITING_PERMISSION, now, waits_for=waits)
    return moved(
        heard,
        state,
        now,
        waits_for=_waits_for(tool, payload, words) if state in WAITING else None,
        kind=_kind(payload) if state is AgentState.ERROR else None,
    )


def asked(previous: RunState, waits: str, now: datetime, *, reported: bool = True) -> RunState:
    """Return how an agent is that waits for its owner, for a subagent too.

    `reported`: its own hooks said so; else the server makes it wait.
    """
    heard = replace(previous, heard_at=now) if reported else previous
    return moved(heard, AgentState.WAITING_PERMISSION, now, waits)


def answered(previous: RunState, now: datetime, *, waits: str | None = None) -> RunState:
    """Return how an agent is when its owner has answered; `waits` is the next request's, if any."""
    if previous.state is not AgentState.WAITING_PERMISSION:
        return previous
    if waits is not None:
        return moved(previous, AgentState.WAITING_PERMISSION, now, waits)
    return moved(previous, AgentState.WORKING, now)


def interrupted(previous: RunState, now: datetime) -> RunState:
    """Return how an agent is that was interrupted: what it does now is its own to report."""
    return moved(previous, AgentState.UNKNOWN, now)


def failed(previous: RunState, kind: str, message: str, now: datetime) -> RunState:
    """Return how an agent is that could not be started, or is refused by its provider."""
    return replace(
        moved(previous, AgentState.ERROR, now, kind=kind[:MAX_KIND]), message=message[:MAX_MESSAGE]
    )


def ended(previous: RunState, now: datetime) -> RunState:
    """Return how an agent is whose session is over."""
    if previous.state in OVER:
        return previous
    return replace(moved(previous, AgentState.EXITED, now), exit_code=None)


def observed(previous: RunState, pane: Pane | None, words: StateWords, now: datetime) -> RunState:
    """Return how an agent is after a look at its processes, and at how long it was silent.

    Args:
        previous: How it was.
        pane: None when nobody could look; then only the time counts.
        words: What this type of agent says of its states.
        now: By the server's clock.
    """
    if previous.state in OVER:
        return previous
    if pane is not None and _is_gone(pane, previous):
        return replace(moved(previous, AgentState.EXITED, now), exit_code=None)
    silent = previous.heard_at is None and (not words.states or now - previous.since >= SILENCE)
    if previous.state is AgentState.STARTING and silent:
        return moved(previous, AgentState.UNKNOWN, now)
    if pane is not None:
        return signal(previous, pane.title, now)
    return previous


def signal(previous: RunState, title: str, now: datetime) -> RunState:
    """Return how an agent is after what its terminal's title says: working, or nothing.

    A title without a spinner proves nothing: it is the same while a permission dialog waits. So it
    only takes back what a title alone has said.
    """
    if previous.heard_at is not None and now - previous.heard_at < DEBOUNCE:
        return previous
    spins = bool(title) and ord(title[0]) in SPINNERS
    if previous.state is AgentState.UNKNOWN and spins:
        return moved(previous, AgentState.WORKING, now)
    if previous.state is AgentState.WORKING and previous.heard_at is None and not spins:
        return moved(previous, AgentState.UNKNOWN, now)
    return previous


def answers(
    name: str,
    payload: Mapping[str, Any],
    words: StateWords,
    request_tool: str,
    request_agent: str | None,
) -> bool:
    """Tell whether an event means that an earlier request was answered in the terminal.

    What tells of one tool answers requests of that tool alone, of the same agent or subagent:
    others run beside it.
    """
    if not is_answering(name, words):
        return False
    if name not in OF_ONE_TOOL:
        return not is_subagents(payload)
    tool = tool_of(payload, words)
    return subagent_of(payload) == request_agent and tool in {"", request_tool}


def is_answering(name: str, words: StateWords) -> bool:
    """Tell whether nothing that was asked before an event can still wait after it."""
    return name in ANSWERING or state_of(name, "", words) in READY | OVER


def state_of(name: str, tool: str, words: StateWords) -> AgentState | None:
    """Return the state that a type's manifest gives an event; None where it gives none."""
    said = words.states.get(f"{name}[{tool}]") or words.states.get(name)
    try:
        return None if said is None else AgentState(said)
    except ValueError:
        return None


def is_subagents(payload: Mapping[str, Any]) -> bool:
    """Tell whether an event is of an agent that the agent has started."""
    return subagent_of(payload) is not None


def subagent_of(payload: Mapping[str, Any]) -> str | None:
    found = payload.get("agent_id")
    return None if found is None or found == "" else str(found)[:MAX_CONVERSATION]


def tool_of(payload: Mapping[str, Any], words: StateWords) -> str:
    """Return the name of the tool that an event is about; "" where it is about none."""
    return _text(payload, words.hooks.tool, MAX_TOOL) or ""


def described(tool: str, payload: Mapping[str, Any], words: StateWords) -> str:
    """Say in one line what a request is about; still to be cut, "" where nothing is said."""
    return one_line(tool, said_of(payload, words))


def said_of(payload: Mapping[str, Any], words: StateWords) -> str:
    """Return what says most of a tool's input, as it came; "" where nothing does."""
    given: object = payload.get(words.hooks.input) if words.hooks.input else None
    if isinstance(given, Mapping):
        fields = cast("Mapping[object, object]", given)
        return next((str(fields[key]) for key in TOLD if isinstance(fields.get(key), str)), "")
    return given if isinstance(given, str) else ""


def one_line(tool: str, said: str) -> str:
    """Put a tool and what it is to be given into one line; still to be cut."""
    return " ".join(clean(": ".join(one for one in (tool, said) if one), MAX_SAID).split())


def clean(text: str, most: int) -> str:
    """Return text that can be stored and shown: bounded, without controls and half characters."""
    kept = "".join(one for one in text[:most] if one.isprintable() or one in "\n\t")
    return kept.encode("utf-8", "ignore").decode()


def moved(
    previous: RunState,
    state: AgentState,
    now: datetime,
    waits_for: str | None = None,
    kind: str | None = None,
) -> RunState:
    """Return another state; `since` stays where it is the same one that goes on."""
    same = (previous.state, previous.waits_for, previous.kind) == (state, waits_for, kind)
    return replace(
        previous,
        state=state,
        since=previous.since if same else now,
        waits_for=waits_for,
        kind=kind,
        exit_code=previous.exit_code if state in OVER else None,
    )


def _own(
    previous: RunState, name: str, payload: Mapping[str, Any], words: StateWords, now: datetime
) -> RunState:
    if name == STARTED:
        fresh = RunState(AgentState.STARTING, now, conversation=previous.conversation)
        return fresh if words.states else moved(fresh, AgentState.UNKNOWN, now)
    if name == MISSING:
        told = failed(previous, "missing", f"{words.title} is not there. {words.missing}", now)
        return replace(told, exit_code=None)
    return replace(moved(previous, AgentState.EXITED, now), exit_code=_exit_code(payload))


def _exit_code(payload: Mapping[str, Any]) -> int | None:
    for key, sign in (("code", 1), ("signal", -1)):
        found: object = payload.get(key)
        if isinstance(found, int) and not isinstance(found, bool) and abs(found) <= MAX_EXIT_CODE:
            return found * sign
    return None


def _is_gone(pane: Pane, previous: RunState) -> bool:
    if pane.dead:
        return True
    if previous.state is AgentState.STARTING or pane.command not in SHELLS:
        return False
    # A shell in the foreground may be the CLI's own: only when its supervisor says the same, or
    # is no more, the CLI is gone.
    return pane.supervisor in {None, EXITED, MISSING}


def _waits_for(tool: str, payload: Mapping[str, Any], words: StateWords) -> str:
    return described(tool, payload, words)[:MAX_WAITS_FOR] or SOMETHING


def _kind(payload: Mapping[str, Any]) -> str:
    for key in ("error_type", "error", "kind", "reason"):
        found: object = payload.get(key)
        if isinstance(found, str) and found:
            return clean(found, MAX_KIND) or "error"
    return "error"


def _text(payload: Mapping[str, Any], key: str | None, most: int) -> str | None:
    found: object = payload.get(key) if key else None
    return clean(found, most) or None if isinstance(found, str) else None
