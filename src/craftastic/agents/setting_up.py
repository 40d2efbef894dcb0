"""Logging an agent in by hand: a session to do it in, and taking over what it left."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.agents.agent_types import AgentType, CredentialKind, Delivery
from craftastic.agents.service import (
    Agent,
    AgentChanges,
    AgentService,
    NewCredential,
    UnknownCredentialType,
    is_json_object,
)
from craftastic.errors import InvalidInput

SETUP_TOKEN_TYPE = "claude_oauth_token"  # noqa: S105 - the name of a kind
"""What a token becomes where the type has this kind and the token does not tell another."""

ASSIGNMENT = "CLAUDE_CODE_OAUTH_TOKEN="
"""What the login prints before a token, and clients may send with it."""


class LoginFileNotFound(InvalidInput):
    """The agent has not logged in yet, or keeps its login elsewhere."""

    code = "LOGIN_FILE_NOT_FOUND"


class LoginFileBroken(InvalidInput):
    code = "LOGIN_FILE_BROKEN"


@dataclass(frozen=True, slots=True)
class SetupStarted:
    """A session in which somebody logs an agent in.

    Attributes:
        home: The agent's folder there, as the sandbox sees it.
    """

    session_id: UUID
    home: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was stored; `path` is of a login file, None for a token."""

    agent: Agent
    path: str | None


class SetupDesk(Protocol):
    """What a set-up needs of sessions and sandboxes."""

    async def start_setup(self, owner: UserId, agent: Agent, environment_id: UUID) -> SetupStarted:
        """Make an agent session named `setup-<first 8 of the agent's id>` to log in within.

        Raises:
            EnvironmentNotFound: It is absent or somebody else's.
            EnvironmentNotReady: It cannot take sessions now.
        """
        ...

    async def read_login(
        self, owner: UserId, agent: Agent, paths: Sequence[str]
    ) -> tuple[str, str] | None:
        """Return path and text of the first file that is there in the set-up's home.

        What a sandbox holds is not to be trusted: at most 64 KiB of text come back.
        """
        ...

    async def forget_login(self, owner: UserId, agent: Agent, path: str) -> None:
        """Remove a login file that was taken over from the set-up's home, where that can be."""
        ...


@dataclass(frozen=True, slots=True)
class AgentSetupService:
    """Starts set-ups, and stores what they give."""

    agents: AgentService
    desk: SetupDesk

    async def start(self, owner: UserId, agent_id: UUID, environment_id: UUID) -> SetupStarted:
        """Make a session in an environment in which the owner logs the agent in.

        Raises:
            AgentNotFound: It is absent or somebody else's.
            EnvironmentNotFound, EnvironmentNotReady: See `SetupDesk.start_setup`.
        """
        agent = await self.agents.get_owned(owner, agent_id)
        return await self.desk.start_setup(owner, agent, environment_id)

    async def ingest(self, owner: UserId, agent_id: UUID, token: str | None) -> Ingested:
        """Store a token, or without one the login file that a set-up left in its sandbox.

        Raises:
            AgentNotFound: It is absent or somebody else's.
            UnknownAgentType: Its type is described no more.
            UnknownCredentialType: Its type takes no tokens.
            BadAgentCredential: It can be no credential.
            LoginFileNotFound, LoginFileBroken: As named.
        """
        agent = await self.agents.get_owned(owner, agent_id)
        agent_type = self.agents.types.get(agent.type)
        if token is not None:
            text = token.strip().removeprefix(ASSIGNMENT)
            given = NewCredential(_kind_of_token(agent_type, text).type, text)
            return Ingested(await self._store(owner, agent_id, given), None)
        kinds = {
            one.path: one
            for one in agent_type.credentials
            if one.delivery is Delivery.FILE and one.path is not None
        }
        found = await self.desk.read_login(owner, agent, list(kinds)) if kinds else None
        if found is None or found[0] not in kinds:
            raise LoginFileNotFound("Credentials file not found", details=_tried(agent_type, kinds))
        path, text = found
        kind = kinds[path]
        if kind.format == "json" and not is_json_object(text):
            raise LoginFileBroken("Invalid JSON in credentials file", details=f"It is {path}.")
        stored = await self._store(owner, agent_id, NewCredential(kind.type, text))
        await self.desk.forget_login(owner, agent, path)
        return Ingested(stored, path)

    async def _store(self, owner: UserId, agent_id: UUID, given: NewCredential) -> Agent:
        return await self.agents.update(owner, agent_id, AgentChanges(credential=given))


def _kind_of_token(agent_type: AgentType, token: str) -> CredentialKind:
    """Return the kind that a token is of: the one that its beginning tells, else the usual one."""
    kinds = [one for one in agent_type.credentials if one.delivery is not Delivery.FILE]
    if not kinds:
        raise UnknownCredentialType(f"{agent_type.title} takes no tokens")
    told = [one for one in kinds if one.prefix and token.startswith(one.prefix)]
    if told:
        return max(told, key=lambda one: len(one.prefix or ""))
    usual = [one for one in kinds if one.type == SETUP_TOKEN_TYPE]
    return (usual or [one for one in kinds if not one.prefix] or kinds)[0]


def _tried(agent_type: AgentType, paths: Iterable[str]) -> str:
    tried = ", ".join(paths)
    if not tried:
        return f"{agent_type.title} has no login file; give a token."
    return f"Looked in the set-up's home for {tried}."
