"""Agent runs over a database, with sandboxes whose terminals and supervisors a test plays."""

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from craftastic.accounts.service import UserId
from craftastic.agent_runs.service import (
    AgentRun,
    AgentRunService,
    Asked,
    GatewayRun,
    RunEvent,
    Start,
)
from craftastic.agents.agent_types import AgentType, AgentTypes, read_file
from craftastic.agents.service import Agent, AgentCredential
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import RunResult
from craftastic.runtimes.memory import Call
from craftastic.sessions.service import AgentState, Session, SessionService
from craftastic.tmux.service import TmuxService
from tests.fakes.clock import FakeClock
from tests.fakes.tmux_runtime import TmuxRuntime
from tests.fakes.workshop import Workshop, build, opened, rows, settled

FAKE_AGENT = Path(__file__).parent / "fake_agent.toml"


def fake_type(**changes: Any) -> AgentType:
    """Return the type of the scripted CLI."""
    return replace(read_file(FAKE_AGENT, "fake_agent.toml"), **changes)


def types_of(*types: AgentType) -> AgentTypes:
    return AgentTypes({one.name: one for one in types or (fake_type(),)})


class AgentRuntime(TmuxRuntime):
    """Sandboxes in which supervisors answer, and terminals take what is typed, as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.supervisor: dict[str, object] | None = {"idle": True, "last": "SessionStart"}
        """What every supervisor answers; None: it is not there."""
        self.tmux_takes: bool | None = True
        """Whether tmux takes a text; None: the pasting is cut short."""
        self.typed: list[tuple[str, str]] = []
        """The name of each terminal that was typed into, and the text."""
        self.pressed: list[tuple[str, ...]] = []
        self.commands: defaultdict[str, str] = defaultdict(lambda: "fake-agent")
        """The program in front of each terminal."""
        self.title = "host"
        self.looks = 0
        self.refusal: CraftasticError | None = None
        """What typing fails with."""
        self.while_typing: Callable[[], Awaitable[None]] | None = None

    async def _command(self, call: Call) -> RunResult:
        argv = call.argv
        if "-I" in argv and b'"op"' in call.stdin:
            return await self._script(json.loads(call.stdin))
        if "list-panes" in argv:
            self.looks += 1
            lines = [
                f"{name}\t{self.commands[name]}\t0\t{self.title}\n"
                for name in sorted(self.sessions[call.sandbox.id])
            ]
            return RunResult(0, "".join(lines).encode(), b"")
        if "send-keys" in argv:
            self.pressed.append(argv[argv.index("--") + 1 :])
            return RunResult(0, b"", b"")
        return await super()._command(call)

    async def _script(self, given: dict[str, Any]) -> RunResult:
        if given["op"] == "look":
            last = None if self.supervisor is None else self.supervisor["last"]
            return _said({"last": last})
        if self.refusal is not None:
            raise self.refusal
        if self.supervisor is None:
            return _said({"pasted": False, "why": "gone"})
        if not self.supervisor["idle"]:
            return _said({"pasted": False, "why": "busy"})
        if self.tmux_takes is False:
            return _said({"pasted": False, "why": "tmux"})
        self.typed.append((given["name"], given["text"]))
        if self.while_typing is not None:
            await self.while_typing()
        return _said({"pasted": True if self.tmux_takes else None})


@dataclass
class PlayedAgents:
    """The credentials of agents, and what was taken back."""

    held: dict[UUID, AgentCredential] = field(default_factory=dict[UUID, AgentCredential])
    taken: list[tuple[UUID, UUID, str, str, str]] = field(
        default_factory=list[tuple[UUID, UUID, str, str, str]]
    )

    async def credential(self, owner: UserId, agent_id: UUID) -> AgentCredential | None:
        return self.held.get(agent_id)

    async def take_back(
        self, owner: UserId, agent_id: UUID, kind_type: str, was_sha256: str, value: str
    ) -> bool:
        self.taken.append((owner, agent_id, kind_type, was_sha256, value))
        return True


@dataclass
class Running:
    """One agent that runs; it reports as its supervisor would."""

    runs: AgentRunService
    session: Session
    started: Start
    run: GatewayRun
    seq: int = 0

    @property
    def nonce(self) -> str:
        return self.started.nonce

    def report(self, name: str, payload: dict[str, Any] | None = None) -> RunEvent:
        """Return the next report."""
        self.seq += 1
        return RunEvent(self.nonce, self.seq, name, payload or {}, 1.0)

    async def says(self, name: str, **payload: Any) -> RunEvent:
        """Report an event."""
        event = self.report(name, payload)
        await self.runs.event(self.run, event)
        return event

    async def asks(self, tool: str = "Bash", command: str = "ls", **payload: Any) -> UUID:
        """Ask for a permission; return the request's id."""
        asked = await self.ask(tool, command, **payload)
        assert asked.approval_id is not None
        assert not asked.settled
        return asked.approval_id

    async def ask(self, tool: str = "Bash", command: str = "ls", **payload: Any) -> Asked:
        given = {"tool_name": tool, "tool_input": {"command": command}, **payload}
        return await self.runs.ask(self.run, self.report("PermissionRequest", given))

    async def is_idle(self) -> "Running":
        await self.says("craftastic:started")
        await self.says("SessionStart", session_id="conversation-1")
        return self

    async def works(self) -> "Running":
        await self.is_idle()
        await self.says("UserPromptSubmit", prompt="begin")
        return self


@dataclass
class AgentRig:
    """One server process's agent runs; `again` gives those of another process."""

    shop: Workshop
    runtime: AgentRuntime
    agents: PlayedAgents
    types: AgentTypes
    environment: Environment
    runs: AgentRunService
    options: dict[str, Any]

    def again(self, database: Database | None = None) -> AgentRunService:
        """Return the service of another server process, or of this one after a restart."""
        database = database or self.shop.database
        sessions = self.shop.sessions
        if database is not self.shop.database:
            sessions = build(database, self.shop.clock, self.runtime).sessions
        return service_of(sessions, self.agents, self.types, **self.options)

    async def session(self, name: str = "work", environment: Environment | None = None) -> Session:
        where = environment or self.environment
        return await self.shop.sessions.create(self.shop.owner, where.id, name=name)

    async def begin(self, session: Session, kind: str | None = None) -> Running:
        """Start the session's agent."""
        of_type, now = next(iter(self.types.types.values())), self.shop.clock.now()
        agent = Agent(
            uuid4(), self.shop.owner, "an agent", of_type.name, kind, None, None, now, now
        )
        of_kind = None if kind is None else of_type.kind(kind)
        started = await self.runs.begin(self.shop.owner, session, agent, of_kind)
        run = await self.runs.by_token(session.id, started.token)
        assert run is not None
        return Running(self.runs, session, started, run)

    async def agent(self, name: str = "work", kind: str | None = None) -> Running:
        return await self.begin(await self.session(name), kind)

    async def get(self, session: Session, runs: AgentRunService | None = None) -> AgentRun:
        return await (runs or self.runs).get_owned(self.shop.owner, session.id)

    async def state(self, session: Session) -> AgentState | None:
        """Return the state that the session shows."""
        shown = await self.shop.sessions.get(self.shop.owner, session.id)
        return None if shown.agent is None else shown.agent.state

    async def prompts(self, session: Session) -> list[tuple[str, str, str | None]]:
        return [
            (one.text, one.status.value, one.reason)
            for one in await self.runs.prompts.list_of(session)
        ]


def service_of(
    sessions: SessionService, agents: PlayedAgents, types: AgentTypes, **options: Any
) -> AgentRunService:
    return AgentRunService(
        sessions.database,
        sessions,
        cast("TmuxService", sessions.tmux),
        agents,
        types,
        AuditService(sessions.database, sessions.clock),
        sessions.clock,
        **options,
    )


@asynccontextmanager
async def agent_rig(
    database: Database, clock: FakeClock, *types: AgentType, **options: Any
) -> AsyncGenerator[AgentRig]:
    """Give agent runs without their background work, in an environment that runs."""
    runtime, agents, known = AgentRuntime(), PlayedAgents(), types_of(*types)
    async with opened(build(database, clock, runtime)) as shop:
        made = await shop.create()
        environment = await shop.environments.ready(shop.owner, made.id)
        await settled(database)
        runs = service_of(shop.sessions, agents, known, **options)
        yield AgentRig(shop, runtime, agents, known, environment, runs, options)


async def events_of(database: Database, kind: str) -> list[str]:
    """Return the ids that events of a type were about, in their order."""
    found = await rows(
        database, "SELECT body FROM events WHERE type = :kind ORDER BY seq", kind=kind
    )
    return [json.loads(cast("str", body))["id"] for (body,) in found]


def _said(answer: dict[str, object]) -> RunResult:
    return RunResult(0, json.dumps(answer).encode(), b"")
