"""Starts of agents: their tokens, their nonces, and what makes one the run of its session."""

import secrets
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.agent_runs._approvals import Approvals, ApprovalStatus
from craftastic.agent_runs._book import Book
from craftastic.agent_runs._prompts import AgentOver
from craftastic.agent_runs._repository import (
    AgentRunRepository,
    AgentRunRow,
    digest,
    put_state,
    state_of_row,
)
from craftastic.agent_runs._states import OVER, AgentState, begun, failed
from craftastic.agent_runs.launching import Start
from craftastic.agents.agent_types import CredentialKind
from craftastic.agents.service import Agent
from craftastic.sessions.service import Session

TOKEN_BYTES = 32
NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Starts:
    """Begins runs; `token_limit` is that of new ones, None for none."""

    book: Book
    approvals: Approvals
    token_limit: int | None

    async def begin(
        self, owner: UserId, session: Session, agent: Agent, kind: CredentialKind | None
    ) -> Start:
        """Return what a start is known by; its agent counts as started from its first report on.

        Raises:
            DatabaseUnavailable: It could not be written.
            AgentOver: The session is dead or gone.
        """
        token, nonce = secrets.token_urlsafe(TOKEN_BYTES), secrets.token_hex(NONCE_BYTES)
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            environment_id = await repository.lock(session.id)
            if environment_id is None:
                raise AgentOver("The session has ended")
            run = await repository.find(session.id)
            fresh = run is None
            if run is None:
                run = AgentRunRow(
                    session_id=session.id,
                    owner_id=owner,
                    limit_tokens=self.token_limit,
                    allowed_tokens=self.token_limit,
                )
                put_state(run, begun(now))
            elif AgentState(run.state) in OVER or await self._is_over(repository, session):
                fresh = True
                await repository.forget_tokens(session.id)
                waiting = await repository.waiting(session.id)
                await self.approvals.close(tx, waiting, ApprovalStatus.ENDED, environment_id)
            run.agent_id, run.type = agent.id, agent.type
            run.credential_type = None if kind is None else kind.type
            run.delivery = None if kind is None else kind.delivery.value
            run.provider = None if kind is None else kind.provider
            if fresh:
                run.nonce, run.last_seq, run.answered_seq = nonce, 0, 0
                run.unconfirmed = run.limit_denied = False
                run.ended_at = None
                put_state(run, begun(now, conversation=run.conversation))
            await repository.save(run)
            await repository.add_token(session.id, digest(token), nonce, now, keep=run.nonce)
            if fresh:
                await self.book.show(tx, run)
        return Start(token, nonce, run.launched_at is not None, run.conversation)

    async def _is_over(self, repository: AgentRunRepository, session: Session) -> bool:
        """Tell whether an agent has ended with its session, of which its run may not know yet.

        `session` was read before: somebody else may have begun a start since.
        """
        shown = await repository.shown_state(session.id)
        return shown is None or AgentState(shown) in OVER

    async def not_launched(self, session_id: UUID, nonce: str, reason: str) -> None:
        """Record that a start has failed; `reason` is shown to the owner."""
        now = self.book.clock.now()
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            if await repository.lock(session_id) is None:
                return
            run = await repository.find(session_id)
            if run is not None and run.nonce == nonce and run.last_seq == 0:
                await self.book.put(tx, run, failed(state_of_row(run), "launch", reason, now))
                await repository.forget_tokens(session_id)
