"""What can be seen of agents without their saying anything; repeated, with no memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import anyio
import structlog

from craftastic.agent_runs._approvals import Approvals, ApprovalStatus
from craftastic.agent_runs._book import Book, Environments
from craftastic.agent_runs._desk import Desk
from craftastic.agent_runs._prompts import desk_of
from craftastic.agent_runs._repository import AgentRunRepository, OpenRun, put_state, state_of_row
from craftastic.agent_runs._states import (
    OVER,
    SHELLS,
    AgentState,
    Pane,
    ended,
    observed,
)
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.tmux.service import TmuxService

MOST_AT_ONCE = 8
LEAVING = timedelta(seconds=15)
"""How long after its session's end a supervisor may still hand in a renewed login."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Facts:
    """Looks at the processes of agents."""

    book: Book
    approvals: Approvals
    environments: Environments
    tmux: TmuxService

    async def look(self) -> None:
        """Look once at every agent that may live."""
        async with self.book.database.read() as tx:
            runs = await AgentRunRepository(tx).list_open()
        living: defaultdict[UUID, list[OpenRun]] = defaultdict(list)
        for run in runs:
            if run.lives:
                living[run.environment_id].append(run)
            else:
                await self._end(run)
        running = {one.id: one for one in await self.environments.list_running()}
        limiter = anyio.CapacityLimiter(MOST_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for environment_id, group in living.items():
                environment = running.get(environment_id)
                tasks.start_soon(self._look_into, environment, group, limiter)

    async def _look_into(
        self,
        environment: Environment | None,
        runs: Sequence[OpenRun],
        limiter: anyio.CapacityLimiter,
    ) -> None:
        desk = None if environment is None else desk_of(self.tmux, environment)
        async with limiter:
            try:
                panes = {} if desk is None else await desk.panes()
                for run in runs:
                    await self._observe(run, await self._pane(desk, run, panes))
            except CraftasticError as error:
                log.info("agents not seen", session=str(runs[0].row.session_id), why=error.message)
            except Exception:  # an edge: one sandbox's answers must not stop everybody's round
                log.exception("agents not seen", session=str(runs[0].row.session_id))

    async def _pane(self, desk: Desk | None, run: OpenRun, panes: dict[str, Pane]) -> Pane | None:
        pane = panes.get(run.tmux_name)
        if desk is None or pane is None or pane.command not in SHELLS:
            return pane
        if AgentState(run.row.state) in OVER:
            return pane
        return replace(pane, supervisor=await desk.last_event(run.row.session_id, run.tmux_name))

    async def _observe(self, seen: OpenRun, pane: Pane | None) -> None:
        before, now = state_of_row(seen.row), self.book.clock.now()
        if observed(before, pane, self.book.type_of(seen.row), now) == before:
            return
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            environment_id = await repository.lock(seen.row.session_id)
            run = await repository.find(seen.row.session_id)
            if environment_id is None or run is None:
                return
            same = (run.nonce, run.last_seq) == (seen.row.nonce, seen.row.last_seq)
            if not same or state_of_row(run) != before:
                return  # it has said something since
            after = observed(before, pane, self.book.type_of(run), now)
            rows = []
            if after.state is AgentState.EXITED:
                rows = await repository.waiting(run.session_id)
                await self.approvals.close(tx, rows, ApprovalStatus.ENDED, environment_id)
            await self.book.put(tx, run, after)
        for row in rows:
            self.book.bells.ring(row.id)

    async def _end(self, seen: OpenRun) -> None:
        """End a run whose session is over: its tokens open nothing, and nobody is asked."""
        async with self.book.database.begin() as tx:
            repository = AgentRunRepository(tx)
            if await repository.lock(seen.row.session_id) is not None:
                return  # it lives again
            run = await repository.find(seen.row.session_id)
            if run is None:
                return
            now = self.book.clock.now()
            if await repository.find_leaving(run.session_id, now - LEAVING) is None:
                await repository.forget_tokens(run.session_id)
            if run.ended_at is not None:
                return
            rows = await repository.waiting(run.session_id)
            await self.approvals.close(tx, rows, ApprovalStatus.ENDED, seen.environment_id)
            run.ended_at = now
            put_state(run, ended(state_of_row(run), now))
        for row in rows:
            self.book.bells.ring(row.id)
