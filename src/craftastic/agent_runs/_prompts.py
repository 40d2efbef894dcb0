"""Texts that wait until their agent can take one; each is typed at most once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import structlog

from craftastic.accounts.service import UserId
from craftastic.agent_runs._book import Book
from craftastic.agent_runs._desk import Desk, Typed
from craftastic.agent_runs._repository import (
    EXCERPT,
    AgentPromptRow,
    AgentRunRepository,
    AgentRunRow,
)
from craftastic.agent_runs._states import OVER, READY, WAITING, AgentState
from craftastic.environments.service import Environment
from craftastic.errors import Conflict, NotFound
from craftastic.sessions.service import BadPrompt, Session
from craftastic.tmux.service import TmuxService

MAX_TEXT = 100_000
MOST_QUEUED = 50
CONFIRM = timedelta(seconds=10)
CUT_SHORT = timedelta(seconds=60)
"""A delivery takes half of this at most: who delivers for longer is no more."""

COMPARED = 100

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class PromptStatus(StrEnum):
    QUEUED = "queued"
    BLOCKED = "blocked"
    """Queued, and the agent does not come to take it by itself; the reason says why."""
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    UNKNOWN = "unknown"
    """The server was cut short: nobody can know whether it was typed. It is not typed again."""


NOT_CONFIRMED = "It was typed, and the agent has not confirmed it."
OTHER_TEXT = "It was typed, and the agent then took another text."
NOT_KNOWN = "It is not known whether it was typed; the terminal shows it."
FAILED = {
    Typed.BUSY: "The agent was not idle at that moment; it is tried again.",
    Typed.GONE: "The agent's supervisor does not answer; it is tried again.",
    Typed.REFUSED: "The terminal did not take it; it is tried again.",
}
BEHIND = "The prompt before it was not confirmed yet."
REASONS = {
    AgentState.STARTING: "The agent is starting.",
    AgentState.WORKING: "The agent is working.",
    AgentState.WAITING_PERMISSION: "The agent waits for a permission.",
    AgentState.WAITING_QUESTION: "The agent waits for an answer in its terminal.",
    AgentState.EXITED: "The agent has ended.",
    AgentState.ERROR: "The agent has failed.",
    AgentState.UNKNOWN: "Nobody can tell whether the agent is idle; type it in the terminal.",
}
BLOCKING = WAITING | OVER | {AgentState.UNKNOWN}


class NoAgent(Conflict):
    """The session is no agent's, or its agent was never started."""

    code = "SESSION_HAS_NO_AGENT"


class AgentOver(Conflict):
    """The session has ended, and its agent with it."""

    code = "AGENT_ENDED"


class TooManyPrompts(Conflict):
    code = "TOO_MANY_PROMPTS"


class PromptNotFound(NotFound):
    code = "PROMPT_NOT_FOUND"


class PromptDelivered(Conflict):
    """The prompt is no longer in the queue."""

    code = "PROMPT_DELIVERED"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text for an agent, and how it stands with it."""

    id: UUID
    text: str
    status: PromptStatus
    reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Prompts:
    """The queues of texts, and their delivery."""

    book: Book
    tmux: TmuxService

    async def add(self, session: Session, text: str) -> Prompt:
        """Queue a text; it is delivered as soon as the agent is positively idle.

        Raises:
            BadPrompt: It is empty, or longer than 100,000 characters.
            NoAgent, AgentOver: Nobody is there to take it.
            TooManyPrompts: As many wait as may.
        """
        text = cleaned(text)
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            alive = await repository.lock(session.id)
            run = await repository.find(session.id)
            if run is None:
                raise NoAgent("The session has no agent")
            if alive is None:
                raise AgentOver("The session has ended, and its agent with it")
            if await repository.count_queued(session.id) >= MOST_QUEUED:
                raise TooManyPrompts(
                    "Too many prompts wait", details=f"The limit is {MOST_QUEUED}."
                )
            row = await repository.add_prompt(session.id, text, self.book.clock.now())
            shown = _shown(row, run)
        self.book.wake(session.id)
        return shown

    async def list_of(self, session: Session) -> list[Prompt]:
        """List a session's prompts in their order: those that wait, and the newest others."""
        async with self.book.database.read() as tx:
            repository = AgentRunRepository(tx)
            run = await repository.find(session.id)
            rows = await repository.prompts(session.id)
        return [] if run is None else [_shown(row, run) for row in rows]

    async def take_back(self, session: Session, prompt_id: UUID) -> None:
        """Take a text out of the queue.

        Raises:
            PromptNotFound: There is none of that id in this session.
            PromptDelivered: It is being typed, or was.
        """
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            await repository.lock(session.id)
            if await repository.remove_queued(session.id, prompt_id):
                return
            if await repository.prompt(session.id, prompt_id) is None:
                raise PromptNotFound("Prompt not found")
        raise PromptDelivered("The prompt was typed already, or is being typed")

    async def deliver(self, session_id: UUID) -> bool:
        """Type the next text, if the agent is idle; False when there was nothing to do.

        The intent is committed first: what is cut short after that is never typed again.
        Cancellation leaves it to `settle_unknown`.
        """
        async with self.book.database.read() as tx:
            found = await AgentRunRepository(tx).find_living(session_id)
        if found is None or found[0].state not in {one.value for one in READY}:
            return False
        run, _ = found
        session, environment = await self.book.sessions.get_owned(UserId(run.owner_id), session_id)
        if not environment.usable:
            return False
        row = await self._claim(session_id)
        if row is None:
            return False
        desk = desk_of(self.tmux, environment)
        keys = self.book.type_of(run).submit
        typed = await desk.type_text(session_id, session.tmux_name, row.text, keys, row.id)
        await self._finish(session_id, row, typed)
        return typed is Typed.DONE

    async def waiting_sessions(self) -> Sequence[UUID]:
        """Return the sessions whose agents could take a text that waits."""
        async with self.book.database.read() as tx:
            return await AgentRunRepository(tx).sessions_with_prompts(
                sorted(one.value for one in READY)
            )

    async def settle_unknown(self) -> None:
        """Say of what was cut short that nobody knows, and of what was not confirmed the same."""
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            for row in await repository.prompts_in("delivering", now - CUT_SHORT):
                values: dict[str, object] = {"status": "unknown", "reason": NOT_KNOWN}
                if row.confirmed:  # the agent has said so before the end
                    values = {"status": "delivered", "reason": None, "text": row.text[:EXCERPT]}
                values["changed_at"] = now
                await repository.change_prompt(row.id, "delivering", values)
            for row in await repository.prompts_in("delivered", now - CONFIRM, unconfirmed=True):
                await repository.change_prompt(row.id, "delivered", {"reason": NOT_CONFIRMED})

    async def _claim(self, session_id: UUID) -> AgentPromptRow | None:
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            if await repository.lock(session_id) is None:
                return None
            run = await repository.find(session_id)
            if run is None or AgentState(run.state) not in READY or run.unconfirmed:
                return None
            rows = await repository.prompts(session_id)
            row = next((one for one in rows if one.status == "queued"), None)
            if row is None:
                return None
            values = {"status": "delivering", "reason": None, "confirmed": False, "changed_at": now}
            if not await repository.change_prompt(row.id, "queued", values):
                return None
            run.unconfirmed = True
            return row

    async def _finish(self, session_id: UUID, row: AgentPromptRow, typed: Typed) -> None:
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            await repository.lock(session_id)
            run, now_row = (
                await repository.find(session_id),
                await repository.prompt(session_id, row.id),
            )
            if run is None or now_row is None:
                return
            values: dict[str, object] = {"changed_at": now}
            if typed is Typed.DONE or now_row.confirmed:
                values |= {"status": "delivered", "reason": None}
            elif typed is Typed.UNKNOWN:
                values |= {"status": "unknown", "reason": NOT_KNOWN}
            else:
                values |= {"status": "queued", "reason": FAILED[typed]}
                run.unconfirmed = False
            if now_row.confirmed:
                values["text"] = now_row.text[:EXCERPT]
            await repository.change_prompt(row.id, "delivering", values)


async def confirm(
    repository: AgentRunRepository, run: AgentRunRow, said: object, now: datetime
) -> None:
    """Take note that the agent has begun to work: on the text that was typed, most likely.

    Args:
        repository: Of the transaction that the report is taken in with.
        run: Whose agent it is.
        said: The text that the agent says to have been given, where it says so.
        now: The time.
    """
    if not run.unconfirmed:
        return
    run.unconfirmed = False
    for row in await repository.prompts(run.session_id):
        if row.confirmed or row.status not in {"delivering", "delivered", "unknown"}:
            continue
        if isinstance(said, str) and not _same(said, row.text):
            row.reason = row.reason or OTHER_TEXT
            continue
        row.confirmed, row.changed_at = True, now
        if row.status != "delivering":
            row.status, row.reason, row.text = "delivered", None, row.text[:EXCERPT]


def desk_of(tmux: TmuxService, environment: Environment) -> Desk:
    sandbox = environment.sandbox
    return Desk(tmux.runtimes[sandbox.runtime], sandbox, tmux.socket(), tmux.run_dir)


def cleaned(text: str) -> str:
    """Return a text as it can be pasted: without controls, which would be keys.

    Raises:
        BadPrompt: Nothing is left, or it is too long.
    """
    if len(text) > MAX_TEXT:
        raise BadPrompt(f"A prompt can have at most {MAX_TEXT} characters")
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(one for one in lines if one in "\n\t" or not _is_control(one))
    kept = kept.encode("utf-8", "ignore").decode().strip()
    if not kept:
        raise BadPrompt("The prompt is empty")
    return kept


def _is_control(one: str) -> bool:
    return ord(one) < 0x20 or 0x7F <= ord(one) < 0xA0  # noqa: PLR2004 - C0, DEL and C1


def _same(said: str, typed: str) -> bool:
    begin = "".join(typed.split())[:COMPARED]
    return "".join(said.split())[: len(begin)] == begin


def _shown(row: AgentPromptRow, run: AgentRunRow) -> Prompt:
    prompt = Prompt(row.id, row.text, PromptStatus(row.status), row.reason, row.created_at)
    if prompt.status is not PromptStatus.QUEUED:
        return prompt
    state = AgentState(run.state)
    if state in BLOCKING:
        return replace(prompt, status=PromptStatus.BLOCKED, reason=REASONS[state])
    if run.unconfirmed:
        return replace(prompt, reason=BEHIND)
    return replace(prompt, reason=REASONS.get(state, row.reason))
