"""What an agent's session starts with: its manifest, filled in for one session."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID, uuid4

import structlog

from craftastic.accounts.service import UserId
from craftastic.agent_runs.programs import Launch, LaunchFile, hook_file, pack
from craftastic.agents.agent_types import AgentType, AgentTypes, CredentialKind, Delivery, render
from craftastic.agents.service import Agent, AgentCredential
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError, InvalidInput
from craftastic.runtimes.base import GATEWAY_HOST, HOME, RUN_DIR, Runtime
from craftastic.sessions.service import Session

MEMORY = "/dev/shm"  # noqa: S108 - the sandbox's own, in both runtimes a memory file system
REMOVE_S = 30.0
REMOVE = """\
socket=$1
shift
for _ in $(seq 60); do
  [ -S "$socket" ] || break
  sleep 0.1
done
exec rm -rf -- "$@"
"""
"""For sh. Constant: the supervisor's socket and the folders are its arguments. What the supervisor
has still to tell is told by the time that its socket is gone; it is not waited for any longer.
"""

WAITS = frozenset({"idle", "done", "error"})
"""States in which an agent waits for its next prompt."""

NOTHING_TO_START = "true"
LIKE_A_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AgentNeedsModel(InvalidInput):
    """The agent's service has no model of its own to fall back to."""

    code = "AGENT_NEEDS_MODEL"


@dataclass(frozen=True, slots=True)
class Start:
    """One start of an agent's session.

    Args:
        token: Shown at the gateway; its hash alone is stored.
        nonce: Told with everything that this start reports.
        started: Its agent was started before: a shell is what comes now.
        conversation: The agent's own id of what it did then.
    """

    token: str = field(repr=False)
    nonce: str
    started: bool
    conversation: str | None


class Agents(Protocol):
    """What is needed of agents; `AgentService` is it."""

    @property
    def types(self) -> AgentTypes: ...

    async def get_owned(self, owner: UserId, agent_id: UUID) -> Agent: ...

    async def credential(self, owner: UserId, agent_id: UUID) -> AgentCredential | None: ...


class Starts(Protocol):
    async def begin(
        self, owner: UserId, session: Session, agent: Agent, kind: CredentialKind | None
    ) -> Start:
        """Take note that an agent's session is about to be started, and give it its token."""
        ...


class NoStarts:
    """Stands until it is known who keeps the starts: they need sessions, which need this."""

    async def begin(
        self, owner: UserId, session: Session, agent: Agent, kind: CredentialKind | None
    ) -> Start:
        raise AssertionError("nobody keeps the starts of agents")


@dataclass(slots=True)
class Launcher:
    """Makes what the pane of an agent's session starts with.

    Args:
        agents: Finds agents and their credentials.
        runtimes: Where sandboxes run.
        gateway_port: Where sandboxes reach the gateway.
        starts: Knows what was started before; set once that is made.
    """

    agents: Agents
    runtimes: Mapping[str, Runtime]
    gateway_port: int
    starts: Starts = field(default_factory=NoStarts)

    async def check(self, owner: UserId, agent_id: UUID) -> None:
        """Refuse an agent that cannot be started.

        Raises:
            AgentNotFound: It is absent or somebody else's.
            UnknownAgentType: Its type is described no more.
            AgentNeedsModel: Its service wants the name of a model.
        """
        agent = await self.agents.get_owned(owner, agent_id)
        agent_type = self.agents.types.get(agent.type)
        kind = agent_type.kind(agent.credential_type) if agent.credential_type else None
        if kind is not None and not agent.model and _wants_model(kind):
            raise AgentNeedsModel(
                f"The agent {agent.name} needs the name of a model.",
                details="Set it with PATCH /api/agents/:id (model), or on the agent's page.",
            )

    async def program(
        self, owner: UserId, session: Session, directory: str, variables: Mapping[str, str]
    ) -> bytes:
        """Return what a session's pane starts with.

        It is the agent, with the session's prompt where it has one. Where the agent was started
        before, it is a shell that has what the agent had: an agent never starts again by itself.

        Raises:
            AgentNotFound: The agent was deleted meanwhile.
            UnknownAgentType, UnknownCredentialType: What describes it is gone.
            SecretUnreadable: Its credential cannot be decrypted.
            BadAgentLaunch: Something of it is too large.
        """
        assert session.agent_id is not None
        agent = await self.agents.get_owned(owner, session.agent_id)
        agent_type = self.agents.types.get(agent.type)
        credential = await self.agents.credential(owner, agent.id)
        kind = None if credential is None else credential.kind
        start = await self.starts.begin(owner, session, agent, kind)
        plan = Plan(session, directory, agent, agent_type, credential, start, self.gateway_port)
        return pack(plan.launch(variables))

    async def remove(self, session: Session, environment: Environment) -> None:
        """Remove what a session's agent kept in its sandbox. What cannot be asked is left."""
        folders = [home_of(session.id), memory_of(session.id)]
        runtime = self.runtimes.get(environment.sandbox.runtime)
        if runtime is None:
            return
        try:
            socket = f"{RUN_DIR}/agent-{session.id}.sock"
            await runtime.run(
                environment.sandbox,
                ["sh", "-c", REMOVE, "sh", socket, *folders],
                timeout_s=REMOVE_S,
            )
        except CraftasticError as error:
            log.info("an agent's home is left", session=str(session.id), reason=error.message)


def home_of(session_id: UUID) -> str:
    """Return the home of a session's agent, as its sandbox sees it."""
    return f"{HOME}/.craftastic/agents/{session_id}"


def memory_of(session_id: UUID) -> str:
    """Return the folder in memory of a session's agent, as its sandbox sees it."""
    return f"{MEMORY}/craftastic-{session_id}"


def as_text(prompt: str) -> str:
    """Return a prompt that no command line takes for an option or for a command of its own.

    It is one argument: `- a list` would be refused, `--dangerously-skip-permissions` obeyed, and
    `doctor` run. A blank before it makes it plain text everywhere.
    """
    return f" {prompt}" if prompt.startswith("-") or LIKE_A_COMMAND.fullmatch(prompt) else prompt


def _wants_model(kind: CredentialKind) -> bool:
    return any("{model}" in word for word in (*kind.argv, *kind.env.values()))


@dataclass(frozen=True, slots=True)
class Plan:
    """One start, put together from what describes it."""

    session: Session
    directory: str
    agent: Agent
    agent_type: AgentType
    credential: AgentCredential | None
    start: Start
    gateway_port: int

    @property
    def kind(self) -> CredentialKind | None:
        return None if self.credential is None else self.credential.kind

    @property
    def gateway(self) -> str:
        return f"http://{GATEWAY_HOST}:{self.gateway_port}/agent/{self.session.id}"

    def launch(self, variables: Mapping[str, str]) -> Launch:
        """Return all that the supervisor is to know."""
        values = self._values()
        words = [render(word, values) for word in self._words()]
        agent_type = self.agent_type
        return Launch(
            session=str(self.session.id),
            home=home_of(self.session.id),
            memory=memory_of(self.session.id),
            cwd=self.directory,
            argv=(NOTHING_TO_START,) if self.start.started else tuple(self._first(words, values)),
            env={**variables, **self._environment(values)},
            files=(*self._files(values), hook_file()),
            gateway=self.gateway,
            token=self.start.token,
            nonce=self.start.nonce,
            idle_events=tuple(
                event
                for event, state in agent_type.states.items()
                if state in WAITS and "[" not in event
            ),
            ask_event=agent_type.hooks.ask,
            missing=agent_type.missing,
            title=agent_type.title,
            resume=self._resume(words, values),
        )

    def _values(self) -> dict[str, str]:
        home = home_of(self.session.id)
        return {
            "home": home,
            "worktree": self.directory,
            "prompt": as_text(self.session.prompt or ""),
            "conversation": self.start.conversation or "{conversation}",
            "gateway": f"{self.gateway}/model",
            "token": self.start.token,
            "run": str(uuid4()),
            "model": self.agent.model or "",
            "hook": f"{home}/hook",
            "memory": memory_of(self.session.id),
        }

    def _words(self) -> list[str]:
        """Return the templates of the command line, without what it is to do first."""
        words = [*self.agent_type.argv]
        if self.agent.model:
            words += self.agent_type.model
        if self.kind is not None:
            words += self.kind.argv
        return words

    def _first(self, words: list[str], values: Mapping[str, str]) -> list[str]:
        if not self.session.prompt:
            return words
        return [*words, *(render(word, values) for word in self.agent_type.prompt)]

    def _resume(self, words: list[str], values: Mapping[str, str]) -> str:
        if not self.agent_type.resume:
            return ""
        # The id is the supervisor's to fill in, where it has heard one: quotes keep it one word.
        return shlex.join([*words, *(render(word, values) for word in self.agent_type.resume)])

    def _environment(self, values: Mapping[str, str]) -> dict[str, str]:
        templates = dict(self.agent_type.env)
        if self.kind is not None:
            templates |= self.kind.env
        if self.credential is not None and self.credential.kind.delivery is Delivery.ENV:
            values = {**values, "credential": self.credential.value}
        return {name: render(text, values) for name, text in templates.items()}

    def _files(self, values: Mapping[str, str]) -> list[LaunchFile]:
        credential_type = None if self.kind is None else self.kind.type
        files = [
            LaunchFile(one.path, render(one.text, values))
            for one in self.agent_type.files
            if not one.when or credential_type in one.when
        ]
        if self.credential is not None and self.credential.kind.delivery is Delivery.FILE:
            kind = self.credential.kind
            assert kind.path is not None
            files.append(
                LaunchFile(kind.path, self.credential.value, memory=True, take_back=kind.take_back)
            )
        return files
