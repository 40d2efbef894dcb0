"""A run as its owner sees it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from craftastic.agent_runs._model import Usage
from craftastic.agent_runs._repository import AgentRunRow, state_of_row
from craftastic.agent_runs._states import RunState
from craftastic.agents.agent_types import AgentType, Delivery


@dataclass(frozen=True, slots=True)
class AgentRun:
    """How the agent of a session is, what it cost, and what it was given.

    Args:
        agent_id: None where the agent was deleted, or there never was one.
        delivery: How its credential gets to it; None without a credential.
        limit_tokens: Tokens after which its owner is asked, each time; None for no limit.
        allowed_tokens: Where it is asked the next time.
    """

    session_id: UUID
    agent_id: UUID | None
    type: str
    title: str
    state: RunState
    credential_type: str | None
    delivery: Delivery | None
    usage: Usage
    limit_tokens: int | None
    allowed_tokens: int | None
    launched_at: datetime | None
    ended_at: datetime | None


def shown_run(row: AgentRunRow, of_type: AgentType, pending: Usage) -> AgentRun:
    """Return a run with what is counted and not written yet."""
    return AgentRun(
        session_id=row.session_id,
        agent_id=row.agent_id,
        type=row.type,
        title=of_type.title,
        state=state_of_row(row),
        credential_type=row.credential_type,
        delivery=None if row.delivery is None else Delivery(row.delivery),
        usage=Usage(row.requests, row.input_tokens, row.output_tokens) + pending,
        limit_tokens=row.limit_tokens,
        allowed_tokens=row.allowed_tokens,
        launched_at=row.launched_at,
        ended_at=row.ended_at,
    )
