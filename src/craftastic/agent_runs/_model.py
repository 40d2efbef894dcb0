"""What the gateway and the domain of agent sessions tell each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class GatewayRun:
    """An agent session that lives, as its token opened it.

    Attributes:
        provider: Whose model API it may call; None where the CLI brings its own credential.
    """

    session_id: UUID
    owner_id: UUID
    agent_id: UUID | None
    provider: str | None


@dataclass(frozen=True, slots=True)
class ModelCredential:
    """What a model API asks for. It goes to that API only, and never into a sandbox.

    Attributes:
        scheme: How the key is sent: `x-api-key`, `bearer` or `x-goog-api-key`.
        base_url: Where the API is, when it is not the provider's own address.
    """

    provider: str
    scheme: str
    base_url: str | None
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls of a model cost, added up."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class RunEvent:
    """What the supervisor in the sandbox reports; nothing of it can be trusted.

    Attributes:
        nonce: Of one start of the supervisor.
        seq: Counts up from one start on; a pair of nonce and number comes once.
        payload: The hook's own, plain JSON without NUL characters.
        at: The sandbox's clock, in seconds since 1970.
    """

    nonce: str
    seq: int
    name: str
    payload: Mapping[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """How it stands with a request for permission.

    Attributes:
        approval_id: None where nobody is asked.
        settled: Nothing more will come; the hook goes on.
        answer: For the hook's standard output; empty: the person at the terminal decides.
    """

    approval_id: UUID | None
    settled: bool
    answer: str = ""
