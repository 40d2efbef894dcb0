"""What each agent session is doing: its state, its questions, its prompts, what it costs."""

import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.accounts.service import UserId
from craftastic.agent_runs._approvals import (
    Approval,
    ApprovalAnswered,
    ApprovalNotFound,
    Approvals,
    ApprovalStatus,
    Kind,
)
from craftastic.agent_runs._book import Bells, Book, Environments, Sessions
from craftastic.agent_runs._facts import LEAVING, Facts
from craftastic.agent_runs._model import Asked, GatewayRun, ModelCredential, RunEvent, Usage
from craftastic.agent_runs._prompts import (
    MAX_TEXT,
    AgentOver,
    NoAgent,
    Prompt,
    PromptDelivered,
    PromptNotFound,
    Prompts,
    PromptStatus,
    TooManyPrompts,
    desk_of,
)
from craftastic.agent_runs._reports import Reports
from craftastic.agent_runs._repository import (
    AgentRunRepository,
    AgentRunRow,
    digest,
    state_of_row,
)
from craftastic.agent_runs._shown import AgentRun, shown_run
from craftastic.agent_runs._starts import Starts
from craftastic.agent_runs._states import (
    BUSY,
    AgentState,
    failed,
    interrupted,
)
from craftastic.agent_runs._usage import ADMIT_S, AgentLimitReached, Counters
from craftastic.agent_runs.launching import Start
from craftastic.agents.agent_types import AgentTypes, CredentialKind
from craftastic.agents.service import Agent, AgentCredential
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.environments.service import EnvironmentStatus
from craftastic.errors import CraftasticError, Forbidden, NotFound
from craftastic.metrics import Metrics
from craftastic.sessions.service import BadPrompt, Session
from craftastic.tmux.service import TmuxService

__all__ = [
    "MAX_TEXT",
    "AgentLimitReached",
    "AgentOver",
    "AgentRun",
    "AgentRunNotFound",
    "AgentRunService",
    "AgentState",
    "Approval",
    "ApprovalAnswered",
    "ApprovalNotFound",
    "ApprovalStatus",
    "Asked",
    "BadPrompt",
    "GatewayRun",
    "Interruption",
    "Kind",
    "ModelCredential",
    "NoAgent",
    "NoModelCredential",
    "Prompt",
    "PromptDelivered",
    "PromptNotFound",
    "PromptStatus",
    "RunEvent",
    "Start",
    "TooManyPrompts",
    "Usage",
]

MOST_DELIVERIES_AT_ONCE = 8
MOST_WOKEN = 1000
MOST_RENEWALS = 10
RENEWALS_S = 600.0
"""A session's logins are taken back so often in so many seconds; they last for an hour or more."""

REFUSED = "The model API refused the agent's credential ({status})."

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AgentRunNotFound(NotFound):
    """The session is there, and no agent was started in it."""

    code = "AGENT_RUN_NOT_FOUND"


class NoModelCredential(Forbidden):
    """The agent has no key that the gateway could use."""

    code = "AGENT_HAS_NO_KEY"


class Agents(Protocol):
    """What runs need of agents; `AgentService` is it."""

    async def credential(self, owner: UserId, agent_id: UUID) -> AgentCredential | None: ...

    async def take_back(
        self, owner: UserId, agent_id: UUID, kind_type: str, was_sha256: str, value: str
    ) -> bool: ...


class AgentSessions(Sessions, Protocol):
    @property
    def environments(self) -> Environments: ...


@dataclass(frozen=True, slots=True)
class Interruption:
    """Whether an agent was interrupted, and why not."""

    interrupted: bool
    reason: str | None = None


@dataclass(slots=True)
class _Work:
    """What lives while the service runs."""

    tasks: TaskGroup | None = None
    delivering: set[UUID] = field(default_factory=set[UUID])
    again: set[UUID] = field(default_factory=set[UUID])
    limiter: anyio.CapacityLimiter | None = None


class AgentRunService:
    """Knows how agents are, and answers for their owners; one of any number over a database.

    Args:
        database: Where runs are kept.
        sessions: Whose sessions they are; shows how their agents are.
        tmux: The terminals of agents, and the runtimes of their sandboxes.
        agents: Their credentials.
        types: What their types say of themselves.
        audit: Is told who answered what.
        clock: The time.
        metrics: Counts models' calls and agents.
        token_limit: Tokens after which the owner is asked, for new runs; None for no limit.
        admit_s: How long a model's call waits for that answer, in seconds.
    """

    def __init__(  # noqa: PLR0913 - what is put together is put together once
        self,
        database: Database,
        sessions: AgentSessions,
        tmux: TmuxService,
        agents: Agents,
        types: AgentTypes,
        audit: AuditService,
        clock: Clock,
        *,
        metrics: Metrics | None = None,
        token_limit: int | None = None,
        admit_s: float = ADMIT_S,
    ) -> None:
        self.database, self.sessions, self.clock = database, sessions, clock
        self.tmux, self.agents, self.types = tmux, agents, types
        self.metrics = metrics or Metrics()
        self.book = Book(database, sessions, types, clock, self.wake, Bells())
        self.approvals = Approvals(self.book, audit)
        self.starts = Starts(self.book, self.approvals, token_limit)
        self.reports = Reports(self.book, self.approvals)
        self.prompts = Prompts(self.book, tmux)
        self.counters = Counters(self.book, self.approvals, self.metrics, admit_s)
        self.facts = Facts(self.book, self.approvals, sessions.environments, tmux)
        self._work = _Work()
        self._taken_back: dict[UUID, list[float]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Deliver prompts and write counters as long as the context is open.

        At the end a delivery that is under way is cut short, and what was counted is written.
        """
        async with anyio.create_task_group() as tasks:
            self._work.tasks = tasks
            self._work.limiter = anyio.CapacityLimiter(MOST_DELIVERIES_AT_ONCE)
            tasks.start_soon(self.counters.run)
            try:
                yield
            finally:
                self._work.tasks = None
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._quietly_flush()

    # ---- starting -----------------------------------------------------------------------------

    async def begin(
        self, owner: UserId, session: Session, agent: Agent, kind: CredentialKind | None
    ) -> Start:
        """Return the token and the nonce of a start; call it before the agent is launched.

        A start that comes to nothing, because the session's terminal is there already, changes
        nothing: the first report with its nonce makes it the run.

        Raises:
            DatabaseUnavailable: It could not be written.
            AgentOver: The session is dead or gone.
        """
        return await self.starts.begin(owner, session, agent, kind)

    async def not_launched(self, session_id: UUID, nonce: str, reason: str) -> None:
        """Record that a start has failed; `reason` is shown to the owner."""
        await self.starts.not_launched(session_id, nonce, reason)

    # ---- for the gateway ----------------------------------------------------------------------

    async def by_token(
        self, session_id: UUID, token: str, *, leaving: bool = False
    ) -> GatewayRun | None:
        """Return the run that a token opens; None when it is another's, or over.

        With `leaving` it may have ended a moment ago: a login that the CLI has renewed is told
        with its last words, and would be lost. The time that this takes tells nothing of the token.
        """
        wanted = digest(token).encode()
        async with self.database.read() as tx:
            repository = AgentRunRepository(tx)
            if leaving:
                since = self.clock.now() - LEAVING
                found = await repository.find_leaving(session_id, since)
            else:
                found = await repository.find_living(session_id)
            hashes = await repository.token_hashes(session_id)
        known = False
        for one in hashes:
            known |= hmac.compare_digest(one.encode(), wanted)
        if found is None or not known:
            return None
        run, _ = found
        return GatewayRun(run.session_id, run.owner_id, run.agent_id, run.provider)

    async def admit(self, run: GatewayRun) -> None:
        """Let a model's call through; where the run's limit is reached its owner is asked.

        Raises:
            AgentLimitReached: The owner said no, or nothing in time.
        """
        await self.counters.admit(run.session_id)

    async def credential(self, run: GatewayRun) -> ModelCredential:
        """Return the key for a model's call.

        Raises:
            NoModelCredential: The agent has none, or one of another kind.
            CraftasticError: It could not be read.
        """
        found = None
        if run.agent_id is not None:
            found = await self.agents.credential(UserId(run.owner_id), run.agent_id)
        if found is None or found.kind.provider is None or found.kind.scheme is None:
            raise NoModelCredential("The agent has no API key")
        if found.kind.provider != run.provider:
            raise NoModelCredential("The agent has a key of another provider since it was started")
        base_url = found.base_url or found.kind.base_url
        return ModelCredential(found.kind.provider, found.kind.scheme, base_url, found.value)

    async def used(self, run: GatewayRun, usage: Usage) -> None:
        """Count a call; it is written within 2 seconds."""
        self.counters.add(run.session_id, usage)

    async def rejected(self, run: GatewayRun, status: int) -> None:
        """Record that the model API refused the key."""
        now = self.clock.now()
        async with self.database.begin() as tx:
            repository = AgentRunRepository(tx)
            if await repository.lock(run.session_id) is None:
                return
            row = await repository.find(run.session_id)
            if row is not None:
                told = REFUSED.format(status=status)
                await self.book.put(tx, row, failed(state_of_row(row), "credential", told, now))

    async def event(self, run: GatewayRun, event: RunEvent) -> None:
        """Take a report in; the same one again, or one of an older start, changes nothing.

        Raises:
            DatabaseUnavailable: It could not be written.
        """
        await self.reports.event(run.session_id, event)

    async def ask(self, run: GatewayRun, event: RunEvent) -> Asked:
        """Take a request for permission in, and tell its owner.

        Raises:
            DatabaseUnavailable: It could not be written.
        """
        return await self.reports.ask(run.session_id, event)

    async def answer(self, run: GatewayRun, approval_id: UUID, wait_s: float) -> Asked:
        """Wait for the answer to a request, at most 20 s."""
        return await self.approvals.wait(run.session_id, approval_id, wait_s)

    async def take_back(self, run: GatewayRun, path: str, was_sha256: str, text: str) -> bool:
        """Store a login file that the CLI has refreshed; False when it is not taken.

        Raises:
            CraftasticError: It could not be stored.
        """
        async with self.database.read() as tx:
            row = await AgentRunRepository(tx).find(run.session_id)
        if row is None or row.agent_id is None or row.credential_type is None:
            return False
        kind = self.book.type_of(row).kind(row.credential_type)
        if kind is None or not kind.take_back or kind.path != path:
            return False
        if not self._may_take_back(run.session_id):
            return False
        return await self.agents.take_back(
            UserId(row.owner_id), row.agent_id, kind.type, was_sha256, text
        )

    def _may_take_back(self, session_id: UUID) -> bool:
        """Count a renewal; each is on record, and a sandbox could invent any number of them."""
        now = self.clock.monotonic()
        if len(self._taken_back) > MOST_WOKEN:
            self._taken_back.clear()
        recent = [at for at in self._taken_back.get(session_id, ()) if at > now - RENEWALS_S]
        if len(recent) >= MOST_RENEWALS:
            return False
        self._taken_back[session_id] = [*recent, now]
        return True

    # ---- for owners ---------------------------------------------------------------------------

    async def send(self, owner: UserId, session_id: UUID, text: str) -> Prompt:
        """Queue a text for an owner's agent.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
            BadPrompt, NoAgent, AgentOver, TooManyPrompts: See `Prompts.add`.
        """
        return await self.prompts.add(await self.sessions.get(owner, session_id), text)

    async def sent(self, owner: UserId, session_id: UUID) -> list[Prompt]:
        """List the prompts of an owner's agent in their order.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
        """
        return await self.prompts.list_of(await self.sessions.get(owner, session_id))

    async def unsend(self, owner: UserId, session_id: UUID, prompt_id: UUID) -> None:
        """Take a text out of the queue of an owner's agent.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
            PromptNotFound, PromptDelivered: See `Prompts.take_back`.
        """
        await self.prompts.take_back(await self.sessions.get(owner, session_id), prompt_id)

    async def get_owned(self, owner: UserId, session_id: UUID) -> AgentRun:
        """Return how the agent of an owner's session is.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
            AgentRunNotFound: No agent was started in it.
        """
        session = await self.sessions.get(owner, session_id)
        async with self.database.read() as tx:
            row = await AgentRunRepository(tx).find(session.id)
        if row is None:
            raise AgentRunNotFound("The session has no agent")
        return self._shown(row)

    async def set_limit(self, owner: UserId, session_id: UUID, tokens: int | None) -> AgentRun:
        """Change after how many tokens the owner is asked; counted from what is used now.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
            AgentRunNotFound: No agent was started in it.
        """
        session = await self.sessions.get(owner, session_id)
        await self.counters.flush()
        async with self.database.begin() as tx:
            repository = AgentRunRepository(tx)
            await repository.lock(session.id)
            row = await repository.find(session.id)
            if row is None:
                raise AgentRunNotFound("The session has no agent")
            used = row.input_tokens + row.output_tokens
            row.limit_tokens = tokens
            row.allowed_tokens = None if tokens is None else used + tokens
            row.limit_denied = False
            return self._shown(row)

    async def interrupt(self, owner: UserId, session_id: UUID) -> Interruption:
        """Press the keys that interrupt an agent, while it works or waits.

        What it does afterwards is unknown until it says so.

        Raises:
            SessionNotFound: The session is absent or somebody else's.
            NoAgent: It has no agent.
            SandboxGone, RuntimeUnavailable: The sandbox could not be asked.
        """
        session, environment = await self.sessions.get_owned(owner, session_id)
        async with self.database.read() as tx:
            row = await AgentRunRepository(tx).find(session_id)
        if row is None:
            raise NoAgent("The session has no agent")
        keys = self.book.type_of(row).interrupt
        if environment.status is not EnvironmentStatus.RUNNING:
            return Interruption(interrupted=False, reason="The environment does not run.")
        if AgentState(row.state) not in BUSY:
            return Interruption(interrupted=False, reason=f"The agent is {row.state}.")
        if not keys:
            return Interruption(interrupted=False, reason="Its type has no key for that.")
        if not await desk_of(self.tmux, environment).press(session.tmux_name, keys):
            return Interruption(interrupted=False, reason="Its terminal did not take the key.")
        await self._interrupted(session, row)
        return Interruption(interrupted=True)

    def wake(self, session_id: UUID) -> None:
        """Let a session's next prompt be delivered soon, by this process."""
        work = self._work
        if work.tasks is None or len(work.delivering) >= MOST_WOKEN:
            return  # the reconciler comes by
        if session_id in work.delivering:
            work.again.add(session_id)
            return
        work.delivering.add(session_id)
        work.tasks.start_soon(self._deliver, session_id)

    async def reconcile(self) -> None:
        """Look at all agents, and do what was left undone; keeps no memory."""
        await self.counters.flush()
        await self.facts.look()
        await self.approvals.expire()
        await self.prompts.settle_unknown()
        for session_id in await self.prompts.waiting_sessions():
            await self._deliver_quietly(session_id)
        async with self.database.read() as tx:
            self.metrics.agents_are(await AgentRunRepository(tx).count_by_state())

    async def _interrupted(self, session: Session, seen: AgentRunRow) -> None:
        rows: Sequence[UUID] = ()
        async with self.database.begin() as tx:
            repository = AgentRunRepository(tx)
            environment_id = await repository.lock(session.id)
            run = await repository.find(session.id)
            if environment_id is None or run is None or run.last_seq != seen.last_seq:
                return
            waiting = await repository.waiting(session.id)
            await self.approvals.close(tx, waiting, ApprovalStatus.ENDED, environment_id)
            rows = [one.id for one in waiting]
            await self.book.put(tx, run, interrupted(state_of_row(run), self.clock.now()))
        for approval_id in rows:
            self.book.bells.ring(approval_id)

    async def _deliver(self, session_id: UUID) -> None:
        limiter = self._work.limiter
        assert limiter is not None
        try:
            async with limiter:
                await self._deliver_quietly(session_id)
        finally:
            self._work.delivering.discard(session_id)
        if session_id in self._work.again:
            self._work.again.discard(session_id)
            self.wake(session_id)

    async def _deliver_quietly(self, session_id: UUID) -> None:
        try:
            await self.prompts.deliver(session_id)
        except CraftasticError as error:
            log.info("prompt not delivered", session=str(session_id), why=error.message)
        except Exception:  # an edge: one session's trouble is not the others'
            log.exception("prompt not delivered", session=str(session_id))

    async def _quietly_flush(self) -> None:
        try:
            await self.counters.flush()
        except CraftasticError as error:
            log.warning("usage not written", reason=error.message)

    def _shown(self, row: AgentRunRow) -> AgentRun:
        return shown_run(row, self.book.type_of(row), self.counters.pending(row.session_id))
