"""Requests that wait for their owner; whoever answers first wins, the terminal included."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import anyio

from craftastic.accounts.service import UserId
from craftastic.agent_runs._book import MAX_MASKED, Book, tell
from craftastic.agent_runs._model import Asked
from craftastic.agent_runs._repository import (
    WAITING,
    AgentApprovalRow,
    AgentRunRepository,
    AgentRunRow,
    WaitingApproval,
    state_of_row,
)
from craftastic.agent_runs._states import StateWords, answered, clean
from craftastic.agents.agent_types import AgentType, render
from craftastic.audit.service import AuditService
from craftastic.database import Transaction
from craftastic.errors import Conflict, NotFound

MAX_INPUT = 4000
MAX_MESSAGE = 2000
MOST_LISTED = 200
MOST_WAITING = 16
"""Requests of one session that may wait at once; the person at the terminal decides about more."""

MOST_WAIT_S = 20.0
POLL_S = 1.0
"""How late an answer that was given at another server process may be heard of."""

ASK_LIFE = timedelta(seconds=590)
"""After so long a hook has given up; the person at the terminal decides."""

DENIED = "The owner of this session denied it."


class Kind(StrEnum):
    PERMISSION = "permission"
    LIMIT = "limit"


class ApprovalStatus(StrEnum):
    WAITING = "waiting"
    ALLOWED = "allowed"
    DENIED = "denied"
    TERMINAL = "terminal"
    """The person at the terminal has answered."""
    EXPIRED = "expired"
    """Its hook has given up: only the person at the terminal can answer."""
    ENDED = "ended"
    """The agent has ended, or was interrupted."""


WHO = {
    ApprovalStatus.ALLOWED: ("user", "It was allowed before."),
    ApprovalStatus.DENIED: ("user", "It was denied before."),
    ApprovalStatus.TERMINAL: ("terminal", "It was answered in the terminal."),
    ApprovalStatus.EXPIRED: ("nobody", "It waited too long; answer it in the terminal."),
    ApprovalStatus.ENDED: ("nobody", "The agent does not wait for it any more."),
}


class ApprovalNotFound(NotFound):
    code = "APPROVAL_NOT_FOUND"


class ApprovalAnswered(Conflict):
    """Somebody else has answered the request; the answer's `answeredBy` says who."""

    code = "APPROVAL_ANSWERED"


@dataclass(frozen=True, slots=True)
class Approval:
    """One request that waits, or was answered.

    Args:
        tool: What the agent wants to use; "" for a limit.
        input: With what, as far as it is shown; hostile text.
    """

    id: UUID
    session_id: UUID
    session_name: str
    environment_id: UUID
    agent_id: UUID | None
    kind: Kind
    tool: str
    input: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Approvals:
    """Requests of agents' hooks and of limits, and their answers."""

    book: Book
    audit: AuditService

    async def list_waiting(self, owner: UserId) -> list[Approval]:
        """List what waits for an owner, oldest first; at most 200."""
        async with self.book.database.read() as tx:
            found = await AgentRunRepository(tx).list_waiting(owner, MOST_LISTED)
        return [_approval(one) for one in found]

    async def decide(
        self, owner: UserId, approval_id: UUID, *, allow: bool, message: str | None = None
    ) -> ApprovalStatus:
        """Answer a request.

        Raises:
            ApprovalNotFound: It is absent or somebody else's.
            ApprovalAnswered: It was answered before, or waits no more.
        """
        status = ApprovalStatus.ALLOWED if allow else ApprovalStatus.DENIED
        said = clean(message, MAX_MESSAGE) if message else None
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            found = await repository.owned_approval(owner, approval_id)
            if found is None:
                raise ApprovalNotFound("Approval not found")
            environment_id = await repository.lock(found.session_id)
            if environment_id is None:
                raise _answered(ApprovalStatus.ENDED)
            won = await repository.settle(approval_id, status.value, now, said)
            row = await repository.approval(approval_id)
            run = await repository.find(found.session_id)
            if row is None or run is None:
                raise ApprovalNotFound("Approval not found")
            if not won:
                raise _answered(ApprovalStatus(row.status))
            await self._take_effect(tx, run, row, now, allow=allow)
            tell(tx, owner, row.id, environment_id, row.session_id)
            await self.audit.record(
                "approval.allow" if allow else "approval.deny",
                actor_id=owner,
                object_type="approval",
                object_id=row.id,
                details={"session": str(row.session_id), "kind": row.kind, "tool": row.tool},
                tx=tx,
            )
        self.book.bells.ring(approval_id)
        return status

    async def wait(self, session_id: UUID, approval_id: UUID, wait_s: float) -> Asked:
        """Wait until a request is answered, at most 20 s."""
        until = anyio.current_time() + max(0.0, min(wait_s, MOST_WAIT_S))
        with self.book.bells.listening(approval_id):
            while True:
                bell = self.book.bells.next(approval_id)
                asked = await self.look(session_id, approval_id)
                left = until - anyio.current_time()
                if asked.settled or left <= 0:
                    return asked
                with anyio.move_on_after(min(left, POLL_S)):
                    await bell.wait()

    async def look(self, session_id: UUID, approval_id: UUID) -> Asked:
        """Return how it stands with a request of a session; one that is not there is settled."""
        async with self.book.database.read() as tx:
            repository = AgentRunRepository(tx)
            row = await repository.approval(approval_id)
            run = await repository.find(session_id)
        if row is None or run is None or row.session_id != session_id:
            return Asked(None, settled=True)
        return asked_of(row, self.book.type_of(run))

    async def close(
        self,
        tx: Transaction,
        rows: Sequence[AgentApprovalRow],
        status: ApprovalStatus,
        environment_id: UUID,
    ) -> None:
        """Settle requests without an answer of their owner; ring for them after the commit."""
        now = self.book.clock.now()
        for row in rows:
            if await AgentRunRepository(tx).settle(row.id, status.value, now):
                tell(tx, row.owner_id, row.id, environment_id, row.session_id)

    async def expire(self) -> None:
        """Settle the requests whose hooks have given up; the agent goes on waiting."""
        before = self.book.clock.now() - ASK_LIFE
        async with self.book.database.read() as tx:
            sessions = await AgentRunRepository(tx).sessions_waiting_since(before)
        for session_id in sessions:
            async with self.book.database.begin() as tx:
                repository = AgentRunRepository(tx)
                environment_id = await repository.lock(session_id)
                if environment_id is None:
                    continue
                old = [
                    row
                    for row in await repository.waiting(session_id)
                    if row.kind == Kind.PERMISSION.value and row.created_at < before
                ]
                await self.close(tx, old, ApprovalStatus.EXPIRED, environment_id)
            for row in old:
                self.book.bells.ring(row.id)

    async def _take_effect(
        self,
        tx: Transaction,
        run: AgentRunRow,
        row: AgentApprovalRow,
        now: datetime,
        *,
        allow: bool,
    ) -> None:
        if row.kind == Kind.LIMIT.value:
            run.limit_denied = not allow
            if allow and run.limit_tokens is not None:
                run.allowed_tokens = run.input_tokens + run.output_tokens + run.limit_tokens
        waits = first_waiting(await AgentRunRepository(tx).waiting(run.session_id))
        await self.book.put(tx, run, answered(state_of_row(run), now, waits=waits))


def new_request(
    run: AgentRunRow, kind: Kind, *, nonce: str, seq: int, now: datetime
) -> AgentApprovalRow:
    """Return a request that waits; what it is about is still to be put in."""
    return AgentApprovalRow(
        id=uuid4(),
        session_id=run.session_id,
        owner_id=run.owner_id,
        agent_id=run.agent_id,
        kind=kind.value,
        nonce=nonce,
        seq=seq,
        tool="",
        subagent=None,
        waits_for="",
        input="",
        status=WAITING,
        created_at=now,
    )


def asked_of(row: AgentApprovalRow, words: AgentType) -> Asked:
    """Return what a request's hook is told."""
    match row.status:
        case "waiting":
            return Asked(row.id, settled=False)
        case "allowed":
            return Asked(row.id, settled=True, answer=words.hooks.allow)
        case "denied":
            answer = render(words.hooks.deny, {"message": row.message or DENIED})
            return Asked(row.id, settled=True, answer=answer)
        case _:
            return Asked(row.id, settled=True)


def first_waiting(rows: Sequence[AgentApprovalRow]) -> str | None:
    """Return what the oldest request is about that the agent waits for, or None."""
    return next((one.waits_for for one in rows), None)


def told_input(payload: Mapping[str, Any], words: StateWords) -> str:
    """Return what a tool is to be given, as text; still to be masked and cut."""
    given: object = payload.get(words.hooks.input) if words.hooks.input else None
    if given is None:
        return ""
    text = given if isinstance(given, str) else json.dumps(given, indent=1, ensure_ascii=False)
    return text[:MAX_MASKED]


def _approval(one: WaitingApproval) -> Approval:
    row = one.row
    return Approval(
        id=row.id,
        session_id=row.session_id,
        session_name=one.session_name,
        environment_id=one.environment_id,
        agent_id=row.agent_id,
        kind=Kind(row.kind),
        tool=row.tool,
        input=row.input,
        created_at=row.created_at,
    )


def _answered(status: ApprovalStatus) -> ApprovalAnswered:
    who, message = WHO.get(status, WHO[ApprovalStatus.ENDED])
    return ApprovalAnswered(message, answer={"answeredBy": who, "status": status.value})
