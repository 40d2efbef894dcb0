"""Beginning a sign-in, and going on with it."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from craftastic.accounts._model import Device, Tokens
from craftastic.accounts._repository import AccountRepository, RefreshToken, SignIn, User
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.caller import digest
from craftastic.clock import Clock

MAX_USER_AGENT_CHARS = 200
MAX_ADDRESS_CHARS = 64


@dataclass(frozen=True, slots=True)
class Issuing:
    """Makes the tokens that a client gets.

    Args:
        refresh_ttl_s: Life of a refresh token, in seconds.
    """

    clock: Clock
    access_tokens: AccessTokens
    refresh_ttl_s: int

    async def begin(
        self, accounts: AccountRepository, user: User, device: Device
    ) -> tuple[UUID, Tokens]:
        """Store a new sign-in; return its id and its first tokens."""
        now = self.clock.now()
        sign_in = SignIn(
            id=uuid4(),
            user_id=user.id,
            user_agent=(device.user_agent or "")[:MAX_USER_AGENT_CHARS] or None,
            address=(device.address or "")[:MAX_ADDRESS_CHARS] or None,
            created_at=now,
            last_used_at=now,
            expires_at=self._ends(now),
        )
        fresh, row = self._refresh_token(sign_in.id, now)
        await accounts.add_sign_in(sign_in, row)
        return sign_in.id, Tokens(self._access_token(user, sign_in.id, now), fresh, user)

    async def renew(self, accounts: AccountRepository, sign_in_id: UUID) -> Tokens | None:
        """Return the next tokens of a sign-in; None when it is over."""
        now = self.clock.now()
        user = await accounts.renew_sign_in(sign_in_id, now, self._ends(now))
        if user is None:
            return None
        fresh, row = self._refresh_token(sign_in_id, now)
        await accounts.add_refresh_token(row)
        return Tokens(self._access_token(user, sign_in_id, now), fresh, user)

    def _access_token(self, user: User, sign_in_id: UUID, now: datetime) -> str:
        return self.access_tokens.issue(
            user_id=user.id,
            sign_in_id=sign_in_id,
            token_version=user.token_version,
            email=user.email,
            name=user.name,
            email_verified=user.email_verified,
            now=now,
        )

    def _refresh_token(self, sign_in_id: UUID, now: datetime) -> tuple[str, RefreshToken]:
        token = secrets.token_hex(32)
        row = RefreshToken(
            token_hash=digest(token),
            sign_in_id=sign_in_id,
            created_at=now,
            expires_at=self._ends(now),
        )
        return token, row

    def _ends(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.refresh_ttl_s)
