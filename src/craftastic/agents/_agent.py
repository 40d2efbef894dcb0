"""Agents as the rest of the product sees them, and what can be wrong with one."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from craftastic.agents._model import CredentialKind
from craftastic.errors import Conflict, InvalidInput, NotFound


class AgentNotFound(NotFound):
    code = "AGENT_NOT_FOUND"


class AgentCredentialNotFound(NotFound):
    """The agent has no credential."""

    code = "AGENT_CREDENTIAL_NOT_FOUND"


class BadAgent(InvalidInput):
    """A name, an address or a model cannot be an agent's."""

    code = "BAD_AGENT"


class UnknownCredentialType(InvalidInput):
    """The agent's type takes no credential of this kind; the details name those it takes."""

    code = "UNKNOWN_CREDENTIAL_TYPE"


class BadAgentCredential(InvalidInput):
    """The text cannot be a credential of its kind."""

    code = "BAD_AGENT_CREDENTIAL"


class AgentCredentialNeeded(InvalidInput):
    """A new address needs the credential given again: the stored one was meant for the old one."""

    code = "AGENT_CREDENTIAL_NEEDED"


class TooManyAgents(Conflict):
    code = "TOO_MANY_AGENTS"


@dataclass(frozen=True, slots=True)
class Agent:
    """A user's profile of a coding agent.

    Attributes:
        credential_type: Kind of the stored credential, as its type calls it; None without one.
        base_url: Where its model API is, when not at its provider's.
        model: The model it is to use, when not its own choice.
    """

    id: UUID
    owner_id: UUID
    name: str
    type: str
    credential_type: str | None
    base_url: str | None
    model: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class AgentCredential:
    """An agent's credential, in clear: for the gateway and for what starts an agent.

    Attributes:
        base_url: Of the agent, else of the kind, else None for the provider's own.
    """

    kind: CredentialKind
    value: str = field(repr=False)
    base_url: str | None


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A credential that is to be stored: the kind's name or alias, and the value."""

    type: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AgentChanges:
    """What is to change; None leaves as it is, an empty text removes."""

    name: str | None = None
    credential: NewCredential | None = None
    base_url: str | None = None
    model: str | None = None
