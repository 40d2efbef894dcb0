"""What supervisors report: each report once, in its order, and only about its own run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from craftastic.agent_runs._approvals import (
    MAX_INPUT,
    MOST_WAITING,
    Approvals,
    ApprovalStatus,
    Kind,
    asked_of,
    first_waiting,
    new_request,
    told_input,
)
from craftastic.agent_runs._book import Book, tell
from craftastic.agent_runs._model import Asked, RunEvent
from craftastic.agent_runs._prompts import confirm
from craftastic.agent_runs._repository import (
    AgentApprovalRow,
    AgentRunRepository,
    AgentRunRow,
    state_of_row,
)
from craftastic.agent_runs._states import (
    BUSY,
    EXITED,
    MAX_MESSAGE,
    MAX_WAITS_FOR,
    MISSING,
    OWN_EVENTS,
    READY,
    SOMETHING,
    AgentState,
    answers,
    apply,
    asked,
    begun,
    clean,
    is_answering,
    is_subagents,
    one_line,
    said_of,
    state_of,
    subagent_of,
    tool_of,
)
from craftastic.agents.agent_types import AgentType
from craftastic.database import Transaction

NOBODY = Asked(None, settled=True)
"""The answer where nobody is asked: the person at the terminal decides."""

MAX_SEQ = 1 << 60


@dataclass(frozen=True, slots=True)
class Reports:
    """Takes reports in."""

    book: Book
    approvals: Approvals

    async def event(self, session_id: UUID, event: RunEvent) -> None:
        """Take an event in; one that came before, or is of an older start, is ignored.

        Raises:
            DatabaseUnavailable: It could not be written; the supervisor sends it again.
        """
        found = await self._words(session_id)
        if found is None or not 0 < event.seq < MAX_SEQ:
            return
        words, owner, environment_id = found
        payload = await self._masked(event.payload, words, owner, environment_id)
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            run = await self._run_of(repository, session_id, event, environment_id)
            if run is None or event.seq <= run.last_seq:
                return
            run.last_seq = event.seq
            if event.name != MISSING:  # else it is still to be started, once it is there
                run.launched_at = run.launched_at or self.book.clock.now()
            closed = await self._close_answered(tx, run, event, words, environment_id)
            state = await self._moved(tx, run, event, payload, words)
        for row in closed:
            self.book.bells.ring(row.id)
        if state in READY:
            self.book.wake(session_id)

    async def ask(self, session_id: UUID, event: RunEvent) -> Asked:
        """Take a request for permission in; asked again, it is the same request.

        Raises:
            DatabaseUnavailable: It could not be written; the supervisor asks again.
        """
        found = await self._words(session_id)
        if found is None or not 0 < event.seq < MAX_SEQ:
            return NOBODY
        words, owner, environment_id = found
        tool = tool_of(event.payload, words)
        if state_of(event.name, tool, words) is AgentState.WAITING_QUESTION:
            await self.event(session_id, event)  # it is answered with words, in the terminal
            return NOBODY
        line, text = await self._told(tool, event.payload, words, owner, environment_id)
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            run = await self._run_of(repository, session_id, event, environment_id)
            if run is None:
                return NOBODY
            known = await repository.approval_of(session_id, event.nonce, event.seq)
            if known is not None:
                return asked_of(known, words)
            waiting = await repository.waiting(session_id)
            if event.seq <= run.answered_seq or len(waiting) >= MOST_WAITING:
                return NOBODY
            row = new_request(run, Kind.PERMISSION, nonce=event.nonce, seq=event.seq, now=now)
            row.tool, row.subagent = tool, subagent_of(event.payload)
            row.waits_for, row.input = line, text
            await repository.add_approval(row)
            await self.book.put(
                tx, run, asked(state_of_row(run), first_waiting([*waiting, row]) or line, now)
            )
            tell(tx, run.owner_id, row.id, environment_id, session_id)
            return Asked(row.id, settled=False)

    async def _words(self, session_id: UUID) -> tuple[AgentType, UUID, UUID] | None:
        async with self.book.database.read() as tx:
            found = await AgentRunRepository(tx).find_living(session_id)
        return None if found is None else (self.book.type_of(found[0]), found[0].owner_id, found[1])

    async def _run_of(
        self,
        repository: AgentRunRepository,
        session_id: UUID,
        event: RunEvent,
        environment_id: UUID,
    ) -> AgentRunRow | None:
        """Return the run, locked, if the report is of its newest start; that may begin with it."""
        if await repository.lock(session_id) is None:
            return None
        run = await repository.find(session_id)
        if run is None or run.nonce == event.nonce:
            return run
        if not await repository.has_start(session_id, event.nonce):
            return None
        await self.approvals.close(
            repository.tx,
            await repository.waiting(session_id),
            ApprovalStatus.ENDED,
            environment_id,
        )
        await repository.forget_tokens(session_id, but=event.nonce)
        run.nonce, run.last_seq, run.answered_seq, run.ended_at = event.nonce, 0, 0, None
        run.unconfirmed = run.limit_denied = False
        await self.book.put(
            repository.tx, run, begun(self.book.clock.now(), conversation=run.conversation)
        )
        return run

    async def _close_answered(
        self,
        tx: Transaction,
        run: AgentRunRow,
        event: RunEvent,
        words: AgentType,
        environment_id: UUID,
    ) -> list[AgentApprovalRow]:
        """Settle what an event tells to be answered in the terminal, and return it."""
        if not is_answering(event.name, words):
            return []
        over = event.name in {EXITED, MISSING}
        closed = [
            row
            for row in await AgentRunRepository(tx).waiting(run.session_id)
            if over
            or (
                row.kind == Kind.PERMISSION.value
                and row.nonce == event.nonce
                and row.seq < event.seq
                and answers(event.name, event.payload, words, row.tool, row.subagent)
            )
        ]
        if event.name in OWN_EVENTS or subagent_of(event.payload) is None:
            run.answered_seq = max(run.answered_seq, event.seq)
        status = ApprovalStatus.ENDED if over else ApprovalStatus.TERMINAL
        await self.approvals.close(tx, closed, status, environment_id)
        return closed

    async def _moved(
        self,
        tx: Transaction,
        run: AgentRunRow,
        event: RunEvent,
        payload: Mapping[str, Any],
        words: AgentType,
    ) -> AgentState:
        repository = AgentRunRepository(tx)
        before = state_of_row(run)
        waiting = await repository.waiting(run.session_id)
        says = state_of(event.name, tool_of(payload, words), words)
        if says in READY:  # a limit that waits is no dialog, and its answer begins no turn
            waiting = [row for row in waiting if row.kind == Kind.PERMISSION.value]
        waits = first_waiting(waiting)
        after = apply(before, event.name, payload, words, self.book.clock.now(), waits=waits)
        works = says is AgentState.WORKING and not is_subagents(payload)
        if after.state is AgentState.WORKING and before.state not in BUSY:
            run.limit_denied = False  # somebody has given it something new to do
        if works or after.state is AgentState.WORKING:
            await confirm(repository, run, payload.get("prompt"), self.book.clock.now())
        await self.book.put(tx, run, after)
        return after.state

    async def _masked(
        self, payload: Mapping[str, Any], words: AgentType, owner: UUID, environment_id: UUID
    ) -> dict[str, Any]:
        """Return what of a payload is looked at, without the environment's secrets."""
        hooks = words.hooks
        kept = {hooks.conversation, hooks.tool, "agent_id", "code", "signal", "prompt"}
        kept |= {"error", "error_type", "kind", "reason"}
        found = {key: value for key, value in payload.items() if key in kept}
        message: object = payload.get(hooks.message) if hooks.message else None
        if hooks.message and isinstance(message, str) and message:
            text = await self.book.masked(owner, environment_id, message[: MAX_MESSAGE * 8])
            found[hooks.message] = text
        if hooks.input and payload.get(hooks.input) is not None:
            said = said_of(payload, words)
            found[hooks.input] = await self.book.masked(owner, environment_id, said)
        return found

    async def _told(
        self,
        tool: str,
        payload: Mapping[str, Any],
        words: AgentType,
        owner: UUID,
        environment_id: UUID,
    ) -> tuple[str, str]:
        """Return what a request is about in one line, and in full, without secrets."""
        # As it came: where blanks and controls are gone, a secret would not be found any more.
        said = await self.book.masked(owner, environment_id, said_of(payload, words))
        line = one_line(tool, said)
        text = await self.book.masked(owner, environment_id, told_input(payload, words))
        return clean(line, MAX_WAITS_FOR) or SOMETHING, clean(text, MAX_INPUT)
