"""Tables and queries of agent runs. Private to this package (checked).

Whoever writes locks the session's row first (`lock`): one transaction at a time changes what
belongs to a session, in the order in which sessions themselves are removed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    CursorResult,
    ForeignKey,
    Index,
    String,
    Text,
    Uuid,
    and_,
    column,
    delete,
    exists,
    func,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.agent_runs._model import Usage
from craftastic.agent_runs._states import AgentState, RunState
from craftastic.database import Base, Transaction, UtcDateTime

MOST_TOKENS_OF_A_RUN = 4
"""Starts that may be under way at once; tokens of older ones are forgotten."""

MOST_ANSWERED_KEPT = 100
MOST_PROMPTS_KEPT = 50
EXCERPT = 200
"""What is kept of a prompt's text once it has arrived, in characters."""

# Sessions are another domain's rows: known here by name, to be locked and to be joined.
SESSIONS = table(
    "sessions",
    column("id", Uuid()),
    column("environment_id", Uuid()),
    column("name", String()),
    column("tmux_name", String()),
    column("status", String()),
    column("agent_state", String()),
    column("deleted", Boolean()),
    column("updated_at", UtcDateTime()),
)
WAITING = "waiting"


class AgentRunRow(Base):
    """What an agent session has beside its session: state, counters, the place in its reports."""

    __tablename__ = "agent_runs"

    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True
    )
    owner_id: Mapped[UUID] = mapped_column(index=True)
    agent_id: Mapped[UUID | None]
    type: Mapped[str] = mapped_column(String(40))
    credential_type: Mapped[str | None] = mapped_column(String(64))
    delivery: Mapped[str | None] = mapped_column(String(16))
    provider: Mapped[str | None] = mapped_column(String(40))
    nonce: Mapped[str] = mapped_column(String(64))
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    answered_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(24))
    state_since: Mapped[datetime] = mapped_column(UtcDateTime)
    heard_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    message: Mapped[str | None] = mapped_column(String(2000))
    waits_for: Mapped[str | None] = mapped_column(String(300))
    kind: Mapped[str | None] = mapped_column(String(80))
    exit_code: Mapped[int | None]
    conversation: Mapped[str | None] = mapped_column(String(200))
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    input_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    limit_tokens: Mapped[int | None] = mapped_column(BigInteger)
    allowed_tokens: Mapped[int | None] = mapped_column(BigInteger)
    limit_denied: Mapped[bool] = mapped_column(default=False)
    unconfirmed: Mapped[bool] = mapped_column(default=False)
    launched_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AgentRunTokenRow(Base):
    """A token of one start; the hash alone. The first report of a start ends the others' tokens."""

    __tablename__ = "agent_run_tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("sessions.id", ondelete="CASCADE"), index=True
    )
    nonce: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AgentApprovalRow(Base):
    """One request for permission; `nonce` and `seq` name the report that it came with."""

    __tablename__ = "agent_approvals"
    __table_args__ = (
        Index("uq_agent_approvals_report", "session_id", "nonce", "seq", unique=True),
        Index("ix_agent_approvals_owner_id_status", "owner_id", "status"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    owner_id: Mapped[UUID]
    agent_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(String(16))
    nonce: Mapped[str] = mapped_column(String(64))
    seq: Mapped[int] = mapped_column(BigInteger)
    tool: Mapped[str] = mapped_column(String(100))
    subagent: Mapped[str | None] = mapped_column(String(200))
    waits_for: Mapped[str] = mapped_column(String(300))
    input: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    message: Mapped[str | None] = mapped_column(String(2000))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AgentPromptRow(Base):
    """A text for an agent; `number` is its place in the queue."""

    __tablename__ = "agent_prompts"
    __table_args__ = (
        Index("uq_agent_prompts_number", "session_id", "number", unique=True),
        Index("ix_agent_prompts_status", "status"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(BigInteger)
    text: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(300))
    confirmed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that was not ended, with what is needed to look at it; `lives`: its session does."""

    row: AgentRunRow
    environment_id: UUID
    tmux_name: str
    lives: bool


@dataclass(frozen=True, slots=True)
class WaitingApproval:
    """A request that waits, with the session that it is of."""

    row: AgentApprovalRow
    session_name: str
    environment_id: UUID


class AgentRunRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    # ---- runs ---------------------------------------------------------------------------------

    async def lock(self, session_id: UUID) -> UUID | None:
        """Let one transaction at a time change what belongs to a session.

        SQLite has one writer anyhow.

        Returns:
            The session's environment; None when the session is dead, deleted or gone.
        """
        return await self.tx.scalar(
            select(SESSIONS.c.environment_id)
            .where(SESSIONS.c.id == session_id, *_living())
            .with_for_update(key_share=True)
        )

    async def shown_state(self, session_id: UUID) -> str | None:
        """Return the state that a session shows of its agent; ended with the session."""
        return await self.tx.scalar(
            select(SESSIONS.c.agent_state).where(SESSIONS.c.id == session_id)
        )

    async def find(self, session_id: UUID) -> AgentRunRow | None:
        """Return a session's run as it is now, also when it was read before."""
        return await self.tx.scalar(
            select(AgentRunRow)
            .where(AgentRunRow.session_id == session_id)
            .execution_options(populate_existing=True)
        )

    async def find_living(self, session_id: UUID) -> tuple[AgentRunRow, UUID] | None:
        """Return a run whose session is neither dead nor deleted, and its environment."""
        found = await self.tx.execute(
            select(AgentRunRow, SESSIONS.c.environment_id)
            .join(SESSIONS, SESSIONS.c.id == AgentRunRow.session_id)
            .where(AgentRunRow.session_id == session_id, *_living())
        )
        row = found.one_or_none()
        return None if row is None else (row[0], row[1])

    async def find_leaving(
        self, session_id: UUID, since: datetime
    ) -> tuple[AgentRunRow, UUID] | None:
        """Return a run whose session lives, or ended after a moment."""
        found = await self.tx.execute(
            select(AgentRunRow, SESSIONS.c.environment_id)
            .join(SESSIONS, SESSIONS.c.id == AgentRunRow.session_id)
            .where(
                AgentRunRow.session_id == session_id,
                or_(and_(*_living()), SESSIONS.c.updated_at >= since),
            )
        )
        row = found.one_or_none()
        return None if row is None else (row[0], row[1])

    async def list_open(self) -> list[OpenRun]:
        """List the runs that were not ended, and those of dead sessions that have tokens left."""
        lives = (SESSIONS.c.status != "dead") & SESSIONS.c.deleted.is_(False)
        found = await self.tx.execute(
            select(AgentRunRow, SESSIONS.c.environment_id, SESSIONS.c.tmux_name, lives)
            .join(SESSIONS, SESSIONS.c.id == AgentRunRow.session_id)
            .where(
                or_(
                    AgentRunRow.ended_at.is_(None),
                    exists().where(AgentRunTokenRow.session_id == AgentRunRow.session_id) & ~lives,
                )
            )
            .order_by(AgentRunRow.session_id)
        )
        return [OpenRun(run, where, name, bool(lives)) for run, where, name, lives in found]

    async def count_by_state(self) -> dict[str, int]:
        found = await self.tx.execute(
            select(AgentRunRow.state, func.count())
            .where(AgentRunRow.ended_at.is_(None))
            .group_by(AgentRunRow.state)
        )
        return {state: count for state, count in found}  # noqa: C416 - typed rows

    async def save(self, row: AgentRunRow) -> None:
        self.tx.add(row)
        await self.tx.flush()

    async def add_usage(self, session_id: UUID, usage: Usage) -> None:
        await self.tx.execute(
            update(AgentRunRow)
            .where(AgentRunRow.session_id == session_id)
            .values(
                requests=AgentRunRow.requests + usage.requests,
                input_tokens=AgentRunRow.input_tokens + usage.input_tokens,
                output_tokens=AgentRunRow.output_tokens + usage.output_tokens,
            )
            .execution_options(synchronize_session=False)
        )

    # ---- tokens -------------------------------------------------------------------------------

    async def add_token(
        self, session_id: UUID, token_hash: str, nonce: str, now: datetime, *, keep: str
    ) -> None:
        """Add a start's token; of older ones the oldest go, but never that of the start `keep`."""
        held = [one for one in await self._tokens(session_id) if one.nonce != keep]
        for old in held[: max(0, len(held) - MOST_TOKENS_OF_A_RUN + 2)]:
            await self.tx.delete(old)
        self.tx.add(
            AgentRunTokenRow(
                token_hash=token_hash, session_id=session_id, nonce=nonce, created_at=now
            )
        )
        await self.tx.flush()

    async def token_hashes(self, session_id: UUID) -> list[str]:
        return [one.token_hash for one in await self._tokens(session_id)]

    async def has_start(self, session_id: UUID, nonce: str) -> bool:
        return any(one.nonce == nonce for one in await self._tokens(session_id))

    async def forget_tokens(self, session_id: UUID, but: str | None = None) -> None:
        """Let no start of a session call any more, but for one."""
        conditions = [AgentRunTokenRow.session_id == session_id]
        if but is not None:
            conditions.append(AgentRunTokenRow.nonce != but)
        await self._delete(AgentRunTokenRow, *conditions)

    async def _tokens(self, session_id: UUID) -> list[AgentRunTokenRow]:
        found = await self.tx.scalars(
            select(AgentRunTokenRow)
            .where(AgentRunTokenRow.session_id == session_id)
            .order_by(AgentRunTokenRow.created_at, AgentRunTokenRow.token_hash)
        )
        return list(found)

    # ---- approvals ----------------------------------------------------------------------------

    async def approval(self, approval_id: UUID) -> AgentApprovalRow | None:
        return await self.tx.scalar(
            select(AgentApprovalRow)
            .where(AgentApprovalRow.id == approval_id)
            .execution_options(populate_existing=True)
        )

    async def owned_approval(self, owner_id: UUID, approval_id: UUID) -> AgentApprovalRow | None:
        """Return a request of the owner's, whose session is not deleted."""
        return await self.tx.scalar(
            select(AgentApprovalRow)
            .join(SESSIONS, SESSIONS.c.id == AgentApprovalRow.session_id)
            .where(
                AgentApprovalRow.id == approval_id,
                AgentApprovalRow.owner_id == owner_id,
                SESSIONS.c.deleted.is_(False),
            )
            .execution_options(populate_existing=True)
        )

    async def approval_of(self, session_id: UUID, nonce: str, seq: int) -> AgentApprovalRow | None:
        return await self.tx.scalar(
            select(AgentApprovalRow).where(
                AgentApprovalRow.session_id == session_id,
                AgentApprovalRow.nonce == nonce,
                AgentApprovalRow.seq == seq,
            )
        )

    async def waiting(self, session_id: UUID) -> list[AgentApprovalRow]:
        """List what waits in a session, oldest first."""
        found = await self.tx.scalars(
            select(AgentApprovalRow)
            .where(AgentApprovalRow.session_id == session_id, AgentApprovalRow.status == WAITING)
            .order_by(AgentApprovalRow.created_at, AgentApprovalRow.seq, AgentApprovalRow.id)
            .execution_options(populate_existing=True)
        )
        return list(found)

    async def list_waiting(self, owner_id: UUID, most: int) -> list[WaitingApproval]:
        """List what waits for an owner, oldest first."""
        found = await self.tx.execute(
            select(AgentApprovalRow, SESSIONS.c.name, SESSIONS.c.environment_id)
            .join(SESSIONS, SESSIONS.c.id == AgentApprovalRow.session_id)
            .where(
                AgentApprovalRow.owner_id == owner_id,
                AgentApprovalRow.status == WAITING,
                *_living(),
            )
            .order_by(AgentApprovalRow.created_at, AgentApprovalRow.id)
            .limit(most)
        )
        return [WaitingApproval(*one) for one in found]

    async def sessions_waiting_since(self, before: datetime) -> list[UUID]:
        """List the sessions with a permission request that is older than a moment."""
        found = await self.tx.scalars(
            select(AgentApprovalRow.session_id)
            .where(
                AgentApprovalRow.status == WAITING,
                AgentApprovalRow.kind == "permission",
                AgentApprovalRow.created_at < before,
            )
            .distinct()
        )
        return list(found)

    async def add_approval(self, row: AgentApprovalRow) -> None:
        """Add a request, and forget the oldest answered ones of the session."""
        self.tx.add(row)
        await self.tx.flush()
        kept = (
            select(AgentApprovalRow.id)
            .where(AgentApprovalRow.session_id == row.session_id)
            .order_by(AgentApprovalRow.created_at.desc(), AgentApprovalRow.id)
            .limit(MOST_ANSWERED_KEPT)
        )
        await self._delete(
            AgentApprovalRow,
            AgentApprovalRow.session_id == row.session_id,
            AgentApprovalRow.status != WAITING,
            AgentApprovalRow.id.not_in(kept),
        )

    async def settle(
        self, approval_id: UUID, status: str, now: datetime, message: str | None = None
    ) -> bool:
        """Answer a request that waits; False when somebody else was faster."""
        done = await self.tx.execute(
            update(AgentApprovalRow)
            .where(AgentApprovalRow.id == approval_id, AgentApprovalRow.status == WAITING)
            .values(status=status, answered_at=now, message=message)
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", done).rowcount > 0

    # ---- prompts ------------------------------------------------------------------------------

    async def add_prompt(self, session_id: UUID, text: str, now: datetime) -> AgentPromptRow:
        last = await self.tx.scalar(
            select(func.max(AgentPromptRow.number)).where(AgentPromptRow.session_id == session_id)
        )
        row = AgentPromptRow(
            session_id=session_id,
            number=(last or 0) + 1,
            text=text,
            status="queued",
            created_at=now,
            changed_at=now,
        )
        self.tx.add(row)
        await self.tx.flush()
        await self._delete(
            AgentPromptRow,
            AgentPromptRow.session_id == session_id,
            AgentPromptRow.status != "queued",
            AgentPromptRow.number <= row.number - MOST_PROMPTS_KEPT,
        )
        return row

    async def prompts(self, session_id: UUID) -> list[AgentPromptRow]:
        """List a session's prompts in their order."""
        found = await self.tx.scalars(
            select(AgentPromptRow)
            .where(AgentPromptRow.session_id == session_id)
            .order_by(AgentPromptRow.number)
            .execution_options(populate_existing=True)
        )
        return list(found)

    async def prompt(self, session_id: UUID, prompt_id: UUID) -> AgentPromptRow | None:
        return await self.tx.scalar(
            select(AgentPromptRow)
            .where(AgentPromptRow.session_id == session_id, AgentPromptRow.id == prompt_id)
            .execution_options(populate_existing=True)
        )

    async def count_queued(self, session_id: UUID) -> int:
        found = await self.tx.scalar(
            select(func.count()).where(
                AgentPromptRow.session_id == session_id, AgentPromptRow.status == "queued"
            )
        )
        return found or 0

    async def sessions_with_prompts(self, states: Sequence[str]) -> list[UUID]:
        """List the living sessions in one of these states that have a prompt to deliver."""
        found = await self.tx.scalars(
            select(AgentPromptRow.session_id)
            .join(AgentRunRow, AgentRunRow.session_id == AgentPromptRow.session_id)
            .join(SESSIONS, SESSIONS.c.id == AgentPromptRow.session_id)
            .where(AgentPromptRow.status == "queued", AgentRunRow.state.in_(states), *_living())
            .distinct()
        )
        return list(found)

    async def change_prompt(self, prompt_id: UUID, was: str, values: Mapping[str, object]) -> bool:
        """Change a prompt that has this status; False when it has another by now."""
        done = await self.tx.execute(
            update(AgentPromptRow)
            .where(AgentPromptRow.id == prompt_id, AgentPromptRow.status == was)
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", done).rowcount > 0

    async def prompts_in(
        self, status: str, before: datetime, *, unconfirmed: bool = False
    ) -> list[AgentPromptRow]:
        """List the prompts, of all sessions, that have had a status since before a moment.

        With `unconfirmed` only those of which nothing is known that would say more.
        """
        statement = select(AgentPromptRow).where(
            AgentPromptRow.status == status, AgentPromptRow.changed_at < before
        )
        if unconfirmed:
            statement = statement.where(
                AgentPromptRow.confirmed.is_(False), AgentPromptRow.reason.is_(None)
            )
        return list(await self.tx.scalars(statement))

    async def remove_queued(self, session_id: UUID, prompt_id: UUID) -> bool:
        return await self._delete(
            AgentPromptRow,
            AgentPromptRow.session_id == session_id,
            AgentPromptRow.id == prompt_id,
            AgentPromptRow.status == "queued",
        )

    async def _delete(self, of: type[Base], *conditions: ColumnElement[bool]) -> bool:
        done = await self.tx.execute(
            delete(of).where(*conditions).execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", done).rowcount > 0


def digest(token: str) -> str:
    """Return what of a token is kept: it has 256 bits, which nobody finds by trying."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def state_of_row(row: AgentRunRow) -> RunState:
    return RunState(
        state=AgentState(row.state),
        since=row.state_since,
        heard_at=row.heard_at,
        message=row.message,
        waits_for=row.waits_for,
        conversation=row.conversation,
        kind=row.kind,
        exit_code=row.exit_code,
    )


def put_state(row: AgentRunRow, state: RunState) -> None:
    row.state = state.state.value
    row.state_since = state.since
    row.heard_at = state.heard_at
    row.message = state.message
    row.waits_for = state.waits_for
    row.conversation = state.conversation
    row.kind = state.kind
    row.exit_code = state.exit_code


def _living() -> tuple[ColumnElement[bool], ...]:
    return (SESSIONS.c.status != "dead", SESSIONS.c.deleted.is_(False))
