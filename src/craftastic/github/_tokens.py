"""The tokens of connected accounts: given out, exchanged before they end, found to be dead.

An exchange kills the old pair at once, so there is one at a time for each account over all server
processes, its result is saved before anything else is done with it, and only GitHub's own words
("bad_refresh_token", or 401 to a token that cannot be exchanged) end a connection.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import anyio
import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService
from craftastic.database import Database, Transaction
from craftastic.errors import CraftasticError
from craftastic.github._client import GitHubAuthenticationRequired, GitHubClient, TokenRejected
from craftastic.github._device_flow import BAD_REFRESH, Grant, Later, Refused
from craftastic.github._repository import BACKING_OFF, Account, AccountRepository

ACCESS = "github.access"
REFRESH = "github.refresh"

REFRESH_BEFORE_S = 1800.0
EXCHANGE_HOLD_S = 20.0
BACK_OFF_S = 5.0
MAX_BACK_OFF_S = 300.0
WAIT_FOR_HOLDER_S = 10.0
LOOK_AGAIN_S = 0.1
FRESH_S = 10.0
"""For how long a 401 may only mean that not all of GitHub knows the token yet."""

NOT_ACCEPTED = "GitHub no longer accepts the connection; connect again."
TOO_OLD = "The connection was not used for too long; connect again."

Pair = tuple[str, str | None]
"""An access token, and the refresh token where there is one."""

Result = TypeVar("Result")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """An account with its access token, as they were a moment ago."""

    account: Account
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Access to the tokens of every account on one GitHub.

    Args:
        host: The GitHub that this server is set to; accounts on another are not used.
        fresh_pause_s: How long to wait before a fresh token that got 401 is tried again.
    """

    database: Database
    credentials: CredentialService
    audit: AuditService
    clock: Clock
    client: GitHubClient
    host: str
    fresh_pause_s: float = 1.0

    async def find(self, owner: UUID) -> Account | None:
        """Return the user's account; also one that needs to be connected again."""
        async with self.database.read() as tx:
            return await AccountRepository(tx).find(owner)

    async def current(self, owner: UUID) -> Held | None:
        """Return a token that is good for a while, exchanged when it ends within half an hour.

        None when there is no usable account, or the token has ended and GitHub gives no other now.

        Raises:
            SecretUnreadable: The stored token cannot be read.
        """
        held = await self._held(owner)
        if held is None or not self._ends_within(held.account, _margin_s(held.account)):
            return held
        renewed = await self.exchange(held.account)
        if renewed is not None:
            return renewed
        # It could not be exchanged now: what is left of its time can be used.
        held = await self._held(owner)
        return None if held is None or self._ends_within(held.account, 0.0) else held

    async def exchange(self, account: Account) -> Held | None:
        """Exchange this pair for the next; None when that did not work out now, or never will.

        Whoever comes while another exchanges waits for the outcome, `WAIT_FOR_HOLDER_S` at most.
        """
        holder = secrets.token_hex(16)
        with anyio.move_on_after(WAIT_FOR_HOLDER_S):
            while True:
                async with self.database.read() as tx:
                    accounts = AccountRepository(tx)
                    now = await accounts.find(account.user_id)
                    held = await accounts.refresh_is_held(account.user_id)
                if now is None or self._unusable(now):
                    return None
                if _another_pair(now, account):
                    return await self._held(account.user_id)
                if now.refresh_secret_id is None:
                    return None
                if held and now.refresh_holder == BACKING_OFF:
                    return None
                mine = None if held else await self._claim(now, holder)
                if mine is not None:
                    # A pair that is cut off between GitHub and the database is lost for good.
                    with anyio.CancelScope(shield=True):
                        return await self._exchange(*mine, holder)
                await anyio.sleep(LOOK_AGAIN_S)
        return None

    async def rejected(self, owner: UUID, token: str) -> bool:
        """Take note of a 401 to a token; True when asking once more with `current` may help."""
        held = await self._held(owner)
        if held is None:
            return False
        account = held.account
        if not hmac.compare_digest(held.token.encode(), token.encode()):
            return True
        if self.clock.now() < account.issued_at + timedelta(seconds=FRESH_S):
            await anyio.sleep(self.fresh_pause_s)
            return True
        if account.refresh_secret_id is not None:
            return await self.exchange(account) is not None
        await self._look(held)
        return False

    async def ask(
        self, owner: UUID, question: Callable[[str], Awaitable[Result]]
    ) -> tuple[Account, Result]:
        """Ask GitHub something with the user's token; after a 401 once more with a newer one.

        Returns:
            The account as it was asked with, and the answer.

        Raises:
            GitHubAuthenticationRequired: There is no token that GitHub takes.
            GitHubRateLimited, GitHubRefused, GitHubUnavailable: As the question does.
            SecretUnreadable: The stored token cannot be read.
        """
        for last in (False, True):
            held = await self.current(owner)
            if held is None:
                break
            try:
                return held.account, await question(held.token)
            except TokenRejected:
                if last or not await self.rejected(owner, held.token):
                    break
        raise GitHubAuthenticationRequired(
            "Connect a GitHub account first, or connect it again when it was connected."
        )

    async def mark_dead(self, account: Account, reason: str) -> None:
        """Write down that this pair is dead; another pair by now is left alone."""
        async with self.database.begin() as tx:
            marked = await AccountRepository(tx).needs_reconnect(account, reason)
            if marked:
                await self.audit.record(
                    "github.refresh_failed",
                    actor_id=account.user_id,
                    object_type="github_account",
                    object_id=None if account.github_id is None else str(account.github_id),
                    outcome="failed",
                    details={"reason": reason, "host": account.host, "login": account.login},
                    tx=tx,
                )

    async def store(
        self, tx: Transaction, owner: UUID, grant: Grant, issued_at: datetime
    ) -> dict[str, object]:
        """Encrypt a new pair; return the columns of an account that say what it is."""
        access = await self.credentials.store(tx, owner, ACCESS, grant.access_token)
        refresh = None
        if grant.refresh_token is not None:
            refresh = await self.credentials.store(tx, owner, REFRESH, grant.refresh_token)
        return {
            "access_secret_id": access,
            "refresh_secret_id": refresh,
            **self._times(grant, issued_at),
        }

    async def remove_secrets(self, tx: Transaction, account: Account) -> None:
        for secret_id in account.secret_ids:
            await self.credentials.remove(tx, account.user_id, secret_id)

    async def reveal_pair(self, tx: Transaction, account: Account) -> Pair | None:
        """Return both tokens; None when they cannot be read."""
        owner = account.user_id
        try:
            access = await self.credentials.reveal(tx, owner, ACCESS, account.access_secret_id)
            if account.refresh_secret_id is None:
                return access, None
            refresh = await self.credentials.reveal(tx, owner, REFRESH, account.refresh_secret_id)
        except CraftasticError:
            return None
        return access, refresh

    async def end(self, pair: Pair | None) -> bool:
        """End a pair at GitHub, as far as that can be done now; False when it is not known."""
        if pair is None:
            return False
        try:
            return await self.client.revoke(*pair)
        except CraftasticError as error:
            log.warning("tokens could not be ended at GitHub", reason=error.code)
            return False

    async def _held(self, owner: UUID) -> Held | None:
        async with self.database.read() as tx:
            account = await AccountRepository(tx).find(owner)
            if account is None or self._unusable(account):
                return None
            token = await self.credentials.reveal(tx, owner, ACCESS, account.access_secret_id)
        return Held(account, token)

    async def _claim(self, account: Account, holder: str) -> tuple[Account, str] | None:
        async with self.database.begin() as tx:
            mine = await AccountRepository(tx).claim_refresh(account, holder, EXCHANGE_HOLD_S)
            if mine is None or mine.refresh_secret_id is None:
                return None
            token = await self.credentials.reveal(tx, mine.user_id, REFRESH, mine.refresh_secret_id)
        return mine, token

    async def _exchange(self, account: Account, refresh_token: str, holder: str) -> Held | None:
        answer = await self.client.refresh(refresh_token)
        if isinstance(answer, Grant):
            return await self._renew(account, answer)
        if isinstance(answer, Refused) and answer.error == BAD_REFRESH:
            # Whoever held the right before and was slow may have saved a newer pair by now.
            again = await self.find(account.user_id)
            if again is not None and _another_pair(again, account):
                return await self._held(account.user_id)
            ended = account.refresh_expires_at
            old = ended is not None and ended <= self.clock.now()
            await self.mark_dead(account, TOO_OLD if old else NOT_ACCEPTED)
            return None
        self._warn(answer)
        wait_s = answer.retry_after_s if isinstance(answer, Later) else None
        async with self.database.begin() as tx:
            await AccountRepository(tx).release_refresh(
                account, holder, min(wait_s or BACK_OFF_S, MAX_BACK_OFF_S)
            )
        return None

    async def _renew(self, account: Account, grant: Grant) -> Held | None:
        """Save a pair; where its account is gone by now, end it."""
        owner = account.user_id
        async with self.database.begin() as tx:
            now = self.clock.now()
            renewed = await AccountRepository(tx).renew(account, **self._times(grant, now))
            if renewed is not None:
                await self.credentials.replace(
                    tx, owner, ACCESS, renewed.access_secret_id, grant.access_token
                )
                if grant.refresh_token is not None and renewed.refresh_secret_id is not None:
                    await self.credentials.replace(
                        tx, owner, REFRESH, renewed.refresh_secret_id, grant.refresh_token
                    )
        if renewed is None:
            await self.end((grant.access_token, grant.refresh_token))
            return None
        return Held(renewed, grant.access_token)

    async def _look(self, held: Held) -> None:
        """Ask the API about a token that git's own address refused, and believe the API."""
        try:
            await self.client.person(held.token)
        except TokenRejected:
            await self.mark_dead(held.account, NOT_ACCEPTED)
        except CraftasticError as error:
            log.info("a token could not be checked", reason=error.code)

    def _unusable(self, account: Account) -> bool:
        return account.state == "reconnect" or account.host != self.host

    def _ends_within(self, account: Account, seconds: float) -> bool:
        end = account.access_expires_at
        return end is not None and end <= self.clock.now() + timedelta(seconds=seconds)

    def _times(self, grant: Grant, issued_at: datetime) -> dict[str, object]:
        return {
            "issued_at": issued_at,
            "access_expires_at": _after(issued_at, grant.access_ttl_s),
            "refresh_expires_at": _after(issued_at, grant.refresh_ttl_s),
        }

    @staticmethod
    def _warn(answer: Refused | Later) -> None:
        if isinstance(answer, Refused):
            log.error("GitHub does not exchange tokens of this app", error=answer.error)
        else:
            log.warning("GitHub does not exchange tokens now", status=answer.status)


def _another_pair(now: Account, before: Account) -> bool:
    return (now.access_secret_id, now.generation) != (before.access_secret_id, before.generation)


def _margin_s(account: Account) -> float:
    """Return how long before its end a token is exchanged; a short life is not spent on that."""
    if account.access_expires_at is None:
        return REFRESH_BEFORE_S
    life = account.access_expires_at - account.issued_at
    return min(REFRESH_BEFORE_S, life.total_seconds() / 2)


def _after(moment: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=seconds)
