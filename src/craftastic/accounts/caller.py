"""Whoever sent a request, and what accounts ask of personal access tokens."""

import hashlib
from dataclasses import dataclass
from typing import Literal, NewType, Protocol
from uuid import UUID

from craftastic.database import Transaction

UserId = NewType("UserId", UUID)
Scope = Literal["full", "read", "write"]

PERSONAL_PREFIX = "craft_"
"""What each personal access token begins with; no other token does."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request, as the database knows them (at most 5 s ago).

    Attributes:
        sign_in_id: What the request came by: a sign-in, or a personal access token.
        scope: `full` by a sign-in; what a personal access token may do else.
    """

    user_id: UserId
    email: str
    name: str
    email_verified: bool
    is_admin: bool
    sign_in_id: UUID
    token_version: int | None = None
    scope: Scope = "full"

    @property
    def by_sign_in(self) -> bool:
        """Whether the person has signed in, and not a program with a token of theirs."""
        return self.scope == "full"


def digest(token: str) -> str:
    """Return the form in which a token of ours, of whatever kind, is stored and looked up."""
    # Fast on purpose: tokens are 256 random bits, so there is nothing to guess.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class PersonalTokens(Protocol):
    """What accounts need of personal access tokens."""

    async def authenticate(self, token: str) -> Caller:
        """Return who a token is of.

        Raises:
            Unauthenticated: It is unknown, expired or revoked, or its user is disabled.
        """
        ...

    async def still_signed_in(self, caller: Caller) -> bool:
        """Tell whether the token that a caller came by still counts (at most 5 s late)."""
        ...

    async def revoke_all(self, owner: UUID, tx: Transaction) -> list[UUID]:
        """Revoke a user's tokens within the caller's transaction; return their ids."""
        ...

    def look_again(self, token_ids: list[UUID]) -> None:
        """Forget what was found out about tokens, once their end has been committed."""
        ...
