"""A git host that somebody has a credential for."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

Origin = tuple[str, str, int]
"""Scheme, host in lower case without brackets, port."""


@dataclass(frozen=True, slots=True)
class GitHost:
    """Whose password or token goes to one origin; what it is stands encrypted elsewhere.

    Attributes:
        origin: `https://host` or `https://host:port`.
        last_used_at: Of the last use that the host accepted, to some minutes.
        last_error: Set when the host refused it, until it accepts it again.
    """

    id: UUID
    owner_id: UUID
    origin: str
    username: str
    secret_id: UUID
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    last_error: str | None
