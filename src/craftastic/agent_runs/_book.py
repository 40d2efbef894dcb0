"""Where runs are written: the one place that changes how an agent is, and tells its session."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import UserId
from craftastic.agent_runs._repository import AgentRunRow, put_state, state_of_row
from craftastic.agent_runs._states import RunState
from craftastic.agents.agent_types import AgentType, AgentTypes, HookWords, UnknownAgentType
from craftastic.clock import Clock
from craftastic.database import Database, Transaction
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.events.service import EventLog
from craftastic.sessions.service import AgentStatus, Session

MAX_MASKED = 64 << 10
"""How much of a text is searched for secrets; what is longer is cut before."""

HIDDEN = "(not shown: the environment's secrets could not be read)"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Environments(Protocol):
    async def list_running(self) -> list[Environment]: ...


class Sessions(Protocol):
    """What runs need of sessions; `SessionService` is it."""

    @property
    def mask(self) -> Callable[[UUID, UUID], Awaitable[Callable[[str], str]]]: ...

    async def get(self, owner: UserId, session_id: UUID) -> Session: ...

    async def get_owned(self, owner: UserId, session_id: UUID) -> tuple[Session, Environment]: ...

    async def agent_changed(
        self, session_id: UUID, status: AgentStatus, tx: Transaction | None = None
    ) -> None: ...


class Bells:
    """Who waits for something in this process, by the thing's id."""

    def __init__(self) -> None:
        self._events: dict[UUID, anyio.Event] = {}
        self._waiting: dict[UUID, int] = {}

    @contextmanager
    def listening(self, about: UUID) -> Generator[None]:
        """Hear of a thing as long as the context is open."""
        self._waiting[about] = self._waiting.get(about, 0) + 1
        try:
            yield
        finally:
            self._waiting[about] -= 1
            if not self._waiting[about]:
                del self._waiting[about]
                self._events.pop(about, None)

    def next(self, about: UUID) -> anyio.Event:
        """Return what is set when the thing changes next; for those who listen."""
        return self._events.setdefault(about, anyio.Event())

    def ring(self, about: UUID) -> None:
        """Wake everybody who waits for a thing."""
        event = self._events.pop(about, None)
        if event is not None:
            event.set()

    @property
    def count(self) -> int:
        """Return how many things somebody waits for."""
        return len(self._waiting)


@dataclass(frozen=True, slots=True)
class Book:
    """What all parts of runs share.

    Args:
        types: What the types of agents say of themselves.
        bells: Wakes those who wait for an approval, in this process.
        wake: Lets a session's prompts be delivered soon.
    """

    database: Database
    sessions: Sessions
    types: AgentTypes
    clock: Clock
    wake: Callable[[UUID], None]
    bells: Bells = field(default_factory=Bells)

    def type_of(self, run: AgentRunRow) -> AgentType:
        """Return a run's type; one without a word where its manifest is there no more."""
        try:
            return self.types.get(run.type)
        except UnknownAgentType:
            return _wordless(run.type)

    async def put(self, tx: Transaction, run: AgentRunRow, state: RunState) -> bool:
        """Write how an agent is, and tell its session where that can be seen.

        Returns:
            Whether it is in another state than before.
        """
        before = state_of_row(run)
        put_state(run, state)
        await tx.flush()
        if shown(before) != shown(state):
            await self.sessions.agent_changed(run.session_id, shown(state), tx)
        return before.state is not state.state

    async def show(self, tx: Transaction, run: AgentRunRow) -> None:
        """Tell a run's session how the agent is, whatever it was told before."""
        await self.sessions.agent_changed(run.session_id, shown(state_of_row(run)), tx)

    async def masked(self, owner: UUID, environment_id: UUID, text: str) -> str:
        """Return a text without the secrets of its environment."""
        if not text:
            return text
        try:
            mask = await self.sessions.mask(owner, environment_id)
        except CraftasticError as error:
            log.warning("text not masked", environment=str(environment_id), reason=error.message)
            return HIDDEN
        return mask(text[:MAX_MASKED])


def shown(state: RunState) -> AgentStatus:
    return AgentStatus(state.state, state.since, state.message, state.waits_for)


def tell(
    tx: Transaction, owner: UUID, approval_id: UUID, environment_id: UUID, session_id: UUID
) -> None:
    """Tell the owner that a request is new, or was answered."""
    EventLog(tx).add(
        owner,
        "approval.changed",
        approval_id,
        environment_id=environment_id,
        session_id=session_id,
    )


def _wordless(name: str) -> AgentType:
    nothing: Mapping[str, str] = {}
    return AgentType(
        name=name, title=name, command=name, npm=None, version=None, missing="",
        argv=(), prompt=(), resume=(), interrupt=(), submit=(), env=nothing, credentials=(),
        files=(), states=nothing, hooks=HookWords(), version_argv=(),
    )  # fmt: skip
