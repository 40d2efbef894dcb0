"""Personal access tokens: made once, checked at each request, revocable at any time."""

import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import structlog

from craftastic.access_tokens._repository import (
    MAX_NAME_CHARS,
    AccessToken,
    AccessTokenNameTaken,
    AccessTokenNotFound,
    AccessTokenRepository,
    AccessTokenRow,
    Bearer,
    TokenScope,
)
from craftastic.accounts.caller import PERSONAL_PREFIX, digest
from craftastic.accounts.service import Caller, TokenExpired, TokenRevoked, UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database, DatabaseUnavailable, Transaction
from craftastic.errors import Conflict, InvalidInput, Unauthenticated

__all__ = [
    "DEFAULT_DAYS",
    "MAX_DAYS",
    "MAX_NAME_CHARS",
    "AccessToken",
    "AccessTokenNameTaken",
    "AccessTokenNotFound",
    "AccessTokenService",
    "BadAccessTokenName",
    "Made",
    "TokenScope",
    "TooManyAccessTokens",
]

MAX_TOKENS_PER_USER = 50
DEFAULT_DAYS = 90
MAX_DAYS = 366
CHECK_TTL_S = 3.0
MAX_REMEMBERED = 4096
USE_INTERVAL = timedelta(minutes=1)
"""How often at most the use of a token is written."""

KEPT_EXPIRED = timedelta(days=30)
"""How long an expired token stays in its owner's list, to tell why a script no longer works."""

FORM = re.compile(rf"{PERSONAL_PREFIX}[A-Za-z0-9_-]{{43}}")
UNAUTHORIZED = "Unauthorized"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TooManyAccessTokens(Conflict):
    code = "TOO_MANY_ACCESS_TOKENS"


class BadAccessTokenName(InvalidInput):
    code = "BAD_ACCESS_TOKEN_NAME"


@dataclass(frozen=True, slots=True)
class Made:
    """A fresh token; its text is known to nobody once this is gone."""

    text: str = field(repr=False)
    token: AccessToken


@dataclass(slots=True)
class _Checks:
    """What this process found out about tokens, each for `CHECK_TTL_S`.

    The tokens themselves are not in it: a hash leads to a token's id, which never changes.
    """

    ids: OrderedDict[str, UUID] = field(default_factory=OrderedDict[str, UUID])
    bearers: OrderedDict[UUID, tuple[float, Bearer | None]] = field(
        default_factory=OrderedDict[UUID, tuple[float, Bearer | None]]
    )

    def put(self, token_id: UUID, at_s: float, bearer: Bearer | None) -> None:
        self.bearers[token_id] = (at_s, bearer)
        self.bearers.move_to_end(token_id)
        if len(self.bearers) > MAX_REMEMBERED:
            self.bearers.popitem(last=False)

    def name(self, token_hash: str, token_id: UUID) -> None:
        self.ids[token_hash] = token_id
        if len(self.ids) > MAX_REMEMBERED:
            self.ids.popitem(last=False)


@dataclass(frozen=True, slots=True)
class AccessTokenService:
    """Makes, lists and revokes tokens, and tells who sent one."""

    database: Database
    audit: AuditService
    clock: Clock
    _checks: _Checks = field(init=False, repr=False, default_factory=_Checks)

    async def create(
        self, owner: UserId, name: str, scope: TokenScope, days: int = DEFAULT_DAYS
    ) -> Made:
        """Make a token for the owner's programs; its text is returned this once.

        Args:
            owner: Whose name the programs act in.
            name: What the owner knows it by; one of the owner's own tokens alone has it.
            scope: `read` looks, `write` does what the owner may, but for what needs a sign-in.
            days: Until it expires, 1 to `MAX_DAYS`.

        Raises:
            BadAccessTokenName: Nothing is in the name, or what is not printable.
            AccessTokenNameTaken: The owner has a token of that name.
            TooManyAccessTokens: The owner has `MAX_TOKENS_PER_USER`.
            TokenRevoked: The owner was disabled at this moment.
        """
        text = PERSONAL_PREFIX + secrets.token_urlsafe(32)
        now = self.clock.now()
        row = AccessTokenRow(
            id=uuid4(),
            user_id=owner,
            name=_checked_name(name),
            token_hash=digest(text),
            scope=scope,
            created_at=now,
            expires_at=now + timedelta(days=max(1, min(days, MAX_DAYS))),
        )
        async with self.database.begin() as tx:
            tokens = AccessTokenRepository(tx)
            if not await tokens.lock(owner):
                raise TokenRevoked(UNAUTHORIZED)
            if await tokens.count(owner) >= MAX_TOKENS_PER_USER:
                raise TooManyAccessTokens(
                    "You have as many access tokens as you may have",
                    details=f"The limit is {MAX_TOKENS_PER_USER}; revoke one you no longer need.",
                )
            token = await tokens.add(row)
            details = {
                "name": token.name,
                "scope": scope,
                "expires": token.expires_at.date().isoformat(),
            }
            await self._audit(tx, "access_token.create", owner, token.id, details)
        return Made(text, token)

    async def list_owned(self, owner: UserId) -> list[AccessToken]:
        """List the owner's tokens, the oldest first; expired ones stay for `KEPT_EXPIRED`."""
        async with self.database.read() as tx:
            return await AccessTokenRepository(tx).list_owned(owner)

    async def revoke(self, owner: UserId, token_id: UUID) -> None:
        """Revoke a token; this process refuses it at once, others within 5 s.

        Raises:
            AccessTokenNotFound: It is absent or somebody else's.
        """
        async with self.database.begin() as tx:
            token = await AccessTokenRepository(tx).remove(owner, token_id)
            details = {"name": token.name}
            await self._audit(tx, "access_token.revoke", owner, token_id, details)
        self.look_again([token_id])

    async def revoke_all(self, owner: UUID, tx: Transaction) -> list[UUID]:
        """Revoke all tokens of a user within the caller's transaction, which tells the audit log.

        Returns the ids; `look_again` makes this process notice, once that has committed.
        """
        return await AccessTokenRepository(tx).remove_all(owner)

    def look_again(self, token_ids: list[UUID] | None = None) -> None:
        """Forget what was found out about tokens, all of them when None: the next use asks anew."""
        for token_id in list(self._checks.bearers) if token_ids is None else token_ids:
            self._checks.bearers.pop(token_id, None)

    async def forget_expired(self) -> int:
        """Delete tokens that expired `KEPT_EXPIRED` ago; return how many."""
        async with self.database.begin() as tx:
            return await AccessTokenRepository(tx).forget_expired(self.clock.now() - KEPT_EXPIRED)

    async def authenticate(self, token: str) -> Caller:
        """Return who sent a token; that it was used is noted once a minute at most.

        Raises:
            TokenExpired: Its time is over.
            TokenRevoked: Its user is disabled.
            Unauthenticated: It is unknown or revoked.
            DatabaseUnavailable: It could not be looked up.
        """
        if FORM.fullmatch(token) is None:
            raise Unauthenticated(UNAUTHORIZED)
        bearer = await self._find(digest(token))
        if bearer is None:
            raise Unauthenticated(UNAUTHORIZED)
        if bearer.disabled:
            raise TokenRevoked(UNAUTHORIZED)
        if bearer.expires_at <= self.clock.now():
            raise TokenExpired(UNAUTHORIZED)
        return Caller(
            user_id=UserId(bearer.user_id),
            email=bearer.email,
            name=bearer.name,
            email_verified=bearer.email_verified,
            is_admin=bearer.is_admin,
            sign_in_id=bearer.token_id,
            scope=bearer.scope,
        )

    async def still_signed_in(self, caller: Caller) -> bool:
        """Tell whether the token that a caller came by still counts (at most 5 s late).

        Unlike that of a sign-in, its end is asked too: it is the end of what it was made for.

        Raises:
            DatabaseUnavailable: It could not be looked up; nothing is known then.
        """
        bearer = await self._bearer(caller.sign_in_id)
        return (
            bearer is not None
            and not bearer.disabled
            and bearer.user_id == caller.user_id
            and bearer.expires_at > self.clock.now()
        )

    async def _find(self, token_hash: str) -> Bearer | None:
        token_id = self._checks.ids.get(token_hash)
        if token_id is not None:
            return await self._bearer(token_id)
        asked_at_s = self.clock.monotonic()
        async with self.database.read() as tx:
            bearer = await AccessTokenRepository(tx).bearer_of(token_hash)
        # Unknown ones are not remembered: there are as many as anyone cares to make up.
        if bearer is not None:
            self._checks.name(token_hash, bearer.token_id)
            await self._found(bearer.token_id, asked_at_s, bearer)
        return bearer

    async def _bearer(self, token_id: UUID) -> Bearer | None:
        known = self._checks.bearers.get(token_id)
        if known is not None and self.clock.monotonic() - known[0] < CHECK_TTL_S:
            return known[1]
        asked_at_s = self.clock.monotonic()
        async with self.database.read() as tx:
            bearer = await AccessTokenRepository(tx).bearer(token_id)
        await self._found(token_id, asked_at_s, bearer)
        return bearer

    async def _found(self, token_id: UUID, asked_at_s: float, bearer: Bearer | None) -> None:
        self._checks.put(token_id, asked_at_s, bearer)
        now = self.clock.now()
        if bearer is None or bearer.disabled or bearer.expires_at <= now:
            return
        stale = now - USE_INTERVAL
        if bearer.last_used_at is not None and bearer.last_used_at >= stale:
            return
        try:
            async with self.database.begin() as tx:
                await AccessTokenRepository(tx).used(token_id, now, stale)
        except DatabaseUnavailable:
            log.warning("the use of an access token was not noted", token_id=str(token_id))

    async def _audit(
        self,
        tx: Transaction,
        action: str,
        owner: UUID,
        token_id: UUID,
        details: Mapping[str, object],
    ) -> None:
        await self.audit.record(
            action,
            actor_id=owner,
            object_type="access_token",
            object_id=token_id,
            details=details,
            tx=tx,
        )


def _checked_name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise BadAccessTokenName(
            f"name must have 1 to {MAX_NAME_CHARS} characters, and printable ones only"
        )
    return name
