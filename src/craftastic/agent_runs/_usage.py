"""What calls of models cost: counted as they happen, written now and then."""

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.agent_runs._approvals import Approvals, Kind, first_waiting, new_request
from craftastic.agent_runs._book import Book, tell
from craftastic.agent_runs._model import Usage
from craftastic.agent_runs._repository import AgentRunRepository, AgentRunRow, state_of_row
from craftastic.agent_runs._states import OVER, READY, AgentState, asked
from craftastic.errors import CraftasticError, RateLimited
from craftastic.metrics import Metrics

FLUSH_S = 2.0
ADMIT_S = 300.0
"""How long a call waits for its owner's answer: CLIs wait for about twice as long."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AgentLimitReached(RateLimited):
    """The run has used the tokens that it may; its owner was asked, and has not allowed more."""

    code = "AGENT_LIMIT_REACHED"


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of this process; those that are not written yet are lost with it: 2 seconds' worth.

    Args:
        admit_s: How long a call waits at a limit, in seconds.
    """

    book: Book
    approvals: Approvals
    metrics: Metrics
    admit_s: float = ADMIT_S
    _pending: dict[UUID, Usage] = field(default_factory=dict[UUID, Usage])
    _flying: dict[UUID, Usage] = field(default_factory=dict[UUID, Usage])
    _writing: anyio.Lock = field(default_factory=anyio.Lock)

    def add(self, session_id: UUID, usage: Usage) -> None:
        """Count one call."""
        self._pending[session_id] = self._pending.get(session_id, Usage()) + usage
        self.metrics.model_used(usage.requests, usage.input_tokens, usage.output_tokens)

    def pending(self, session_id: UUID) -> Usage:
        """Return what is counted and not known to be written."""
        return self._pending.get(session_id, Usage()) + self._flying.get(session_id, Usage())

    async def flush(self) -> None:
        """Write what was counted; what cannot be written now stays for the next time.

        Raises:
            DatabaseUnavailable: It could not be written.
        """
        async with self._writing:
            for session_id in sorted(self._pending):
                usage = self._flying[session_id] = self._pending.pop(session_id)
                try:
                    async with self.book.database.begin() as tx:
                        await AgentRunRepository(tx).add_usage(session_id, usage)
                except BaseException:
                    self.restore(session_id, usage)
                    raise
                finally:
                    del self._flying[session_id]

    def restore(self, session_id: UUID, usage: Usage) -> None:
        """Count again what could not be written."""
        self._pending[session_id] = self._pending.get(session_id, Usage()) + usage

    async def run(self) -> None:
        """Write every 2 seconds, for ever."""
        while True:
            await anyio.sleep(FLUSH_S)
            try:
                await self.flush()
            except CraftasticError as error:
                log.warning("usage not written", reason=error.message)

    async def admit(self, session_id: UUID) -> None:
        """Let a call through; at a limit it waits until the owner has answered.

        Raises:
            AgentLimitReached: The owner said no, or nothing in time.
        """
        # Taken before the row is read: what is written between the two counts twice, not never.
        pending = self.pending(session_id)
        run = await self._run(session_id)
        if run is None or not reached(run, pending):
            return
        await self.flush()
        until = anyio.current_time() + self.admit_s
        while True:
            approval_id = await self._ask(session_id)
            if approval_id is None:
                return
            left = until - anyio.current_time()
            if left <= 0:
                raise AgentLimitReached(
                    "The token limit of this session is reached; its owner was asked",
                    retry_after_s=30.0,
                )
            await self.approvals.wait(session_id, approval_id, left)

    async def _ask(self, session_id: UUID) -> UUID | None:
        """Return the request that asks for more tokens, made if need be; None for go on.

        Raises:
            AgentLimitReached: The owner said no.
        """
        now, pending = self.book.clock.now(), self.pending(session_id)
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            environment_id = await repository.lock(session_id)
            run = await repository.find(session_id)
            if environment_id is None or run is None or not reached(run, pending):
                return None
            if run.limit_denied:
                raise AgentLimitReached(
                    "The token limit of this session is reached, and its owner allowed no more",
                    retry_after_s=60.0,
                )
            waiting = await repository.waiting(session_id)
            for one in waiting:
                if one.kind == Kind.LIMIT.value:
                    return one.id
            used = run.input_tokens + run.output_tokens
            row = new_request(run, Kind.LIMIT, nonce=uuid4().hex, seq=0, now=now)
            row.waits_for = f"more tokens: {used:,} of {run.allowed_tokens or 0:,} are used"
            row.input = row.waits_for
            await repository.add_approval(row)
            waits = first_waiting([*waiting, row]) or row.waits_for
            if AgentState(run.state) not in READY | OVER:  # else it is a call beside its turns
                await self.book.put(tx, run, asked(state_of_row(run), waits, now, reported=False))
            tell(tx, run.owner_id, row.id, environment_id, session_id)
            return row.id

    async def _run(self, session_id: UUID) -> AgentRunRow | None:
        async with self.book.database.read() as tx:
            return await AgentRunRepository(tx).find(session_id)


def reached(run: AgentRunRow, pending: Usage) -> bool:
    """Tell whether a run has used what it may."""
    if run.limit_tokens is None:
        return False
    used = run.input_tokens + run.output_tokens + pending.input_tokens + pending.output_tokens
    return used >= (run.allowed_tokens or 0)
