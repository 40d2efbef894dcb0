"""Whose connection to a Coolify is used, and how it is."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from craftastic.coolify._answers import Abilities
from craftastic.coolify.api import Coolify
from craftastic.coolify.errors import TICK_IN_THIS_ORDER, CoolifyAbilityMissing

Source = Literal["user", "server"]

SERVER = "server"
"""Stands for the operator's own connection and hook where those of users have an id."""

API_PATH = "/api/v1"

LOGS_HIDDEN = "Deployments work, but build logs cannot be shown: the token lacks read:sensitive. "


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a connection does not work as it should, in plain words, with a way on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Known:
    """What looks at a Coolify have found out.

    Attributes:
        version: As of the last look that Coolify answered; None when the token may not read it.
        abilities: Likewise.
        problem: Why the last look found nothing; None when Coolify answered it.
        checked_at: When that was.
    """

    version: str | None = None
    abilities: Abilities | None = None
    problem: Problem | None = None
    checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """One user's own connection, as it is stored; the token itself stands encrypted elsewhere.

    Attributes:
        url: The API's base, with `/api/v1`.
        secret_id: Changes whenever the token does.
    """

    id: UUID
    owner_id: UUID
    url: str
    secret_id: UUID
    known: Known


@dataclass(frozen=True, slots=True)
class Connected:
    """A Coolify that can be spoken to for an owner.

    Attributes:
        key: What pauses are kept by: `server`, or the connection's id.
        connection_id: None for the server's.
    """

    key: str
    source: Source
    connection_id: UUID | None
    api: Coolify = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at a Coolify found out.

    Attributes:
        version: None when the token may not read it.
    """

    version: str | None
    abilities: Abilities


@dataclass(frozen=True, slots=True)
class Hook:
    """The address that a Coolify tells of its deployments; the key in it is known to nobody here.

    Attributes:
        last_used_at: To a minute.
    """

    owner_id: UUID | None
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class HookOwner:
    """Whose deployments a message may speak of; None for those of the server's connection."""

    owner_id: UUID | None


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How the connection is that a user's deployments go through.

    Attributes:
        configured: Whether there is one, the user's own or the server's.
        source: Which of them is used.
        url: Where Coolify's pages are.
        version: Coolify's; None while it is not known.
        abilities: What the token may do; None while that is not known.
        missing: Abilities that the token lacks, in Coolify's words.
        problem: What keeps deployments from working; None when nothing is known to.
        advice: What could be better although deployments work.
        checked_at: When Coolify was asked last.
        server_configured: Whether the operator has set a connection up for everybody.
        hook: The user's own, if one was made.
    """

    configured: bool
    source: Source | None = None
    url: str | None = None
    version: str | None = None
    abilities: Abilities | None = None
    missing: tuple[str, ...] = ()
    problem: Problem | None = None
    advice: str | None = None
    checked_at: datetime | None = None
    server_configured: bool = False
    hook: Hook | None = None


def web_url_of(base: str) -> str:
    """Return where a Coolify's pages are, from its API's base."""
    return base.removesuffix(API_PATH)


def missing_of(abilities: Abilities | None) -> tuple[str, ...]:
    """Return what a token lacks, the most needed first; what is not known is not missing."""
    if abilities is None:
        return ()
    has = {
        "deploy": abilities.deploy,
        "read": abilities.read,
        "read:sensitive": abilities.read_sensitive is not False,
    }
    return tuple(name for name, there in has.items() if not there)


def problem_of(abilities: Abilities | None) -> Problem | None:
    """Tell what a token cannot do that a deployment needs, and how to make one that can."""
    missing = missing_of(abilities)
    if "deploy" in missing and "read" in missing:
        lacks = "may neither deploy nor read: nothing can be done with it"
    elif "deploy" in missing:
        lacks = (
            "may read but not deploy (only owners and admins of the team in Coolify may make "
            "tokens that deploy)"
        )
    elif "read" in missing:
        lacks = "may deploy but not read, so nobody could see how a deployment ends"
    else:
        return None
    return Problem(CoolifyAbilityMissing.code, f"The token {lacks}. {TICK_IN_THIS_ORDER}")


def advice_of(abilities: Abilities | None) -> str | None:
    """Return what would make a token that deploys better; None when there is nothing."""
    if problem_of(abilities) is None and "read:sensitive" in missing_of(abilities):
        return LOGS_HIDDEN + TICK_IN_THIS_ORDER
    return None
