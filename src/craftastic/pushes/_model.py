"""What a push is, what may be said about it, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid4

from craftastic.environments.service import PushPolicy


class GatewayEnvironment(Protocol):
    """What the gateway needs to know of an environment."""

    @property
    def id(self) -> UUID: ...
    @property
    def owner_id(self) -> UUID: ...
    @property
    def repository_url(self) -> str | None: ...
    @property
    def push_policy(self) -> PushPolicy: ...


class RefUpdate(Protocol):
    """One line of a push: move `ref` from `old` to `new`; a hash of zeros means absent."""

    @property
    def ref(self) -> str: ...
    @property
    def old(self) -> str: ...
    @property
    def new(self) -> str: ...
    @property
    def creates(self) -> bool: ...
    @property
    def deletes(self) -> bool: ...


class PushOutcome(StrEnum):
    """How the update of one ref ended."""

    OK = "ok"
    """The upstream says that it took it."""
    REJECTED = "rejected"
    """The upstream says that it did not: a hook, a protected branch, a branch that moved."""
    REFUSED = "refused"
    """By the environment's push policy; the upstream heard nothing of it."""
    FAILED = "failed"
    """The push did not get through, or nothing told how it ended: the ref may have moved."""
    UNKNOWN = "unknown"
    """It is on its way, or its end could not be written: the ref may have moved."""


@dataclass(frozen=True, slots=True)
class PushIntent:
    """What a push wants, before anything of it goes on.

    Attributes:
        options: As `git push -o` gives them; what they do is the upstream's to say.
        push_id: Whoever started the push finds it by this.
        id: Ours, one for each push.
    """

    updates: Sequence[RefUpdate]
    options: Sequence[str] = ()
    push_id: str | None = None
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class RefResult:
    """How the update of one ref ended, and why, in plain words on one line.

    Attributes:
        reason: None only for what went as it was asked for.
    """

    outcome: PushOutcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PushRefusal:
    """Why a push may not go on: a reason for each refused ref, in plain words, on one line."""

    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RecordedUpdate:
    """One ref of a push as the gateway saw it."""

    ref: str
    old: str
    new: str
    outcome: PushOutcome
    reason: str | None
    created_at: datetime
