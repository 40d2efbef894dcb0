"""How often one may try, without a way to lock anybody else out.

Three counters, in the database, so that they survive a restart and hold for every server process:

- each client (an IPv4 address, or the /64 of an IPv6 one) may try so and so often a minute;
- after five wrong passwords for one account, one client waits 1 s, then 2, up to 15 minutes;
- after fifty wrong passwords for one account from wherever, all clients wait up to a minute, but
  not those that the account was signed in from before: a stranger's attempts never stand in the
  way of the owner at the usual place. A new place becomes a usual one by a reset of the password.
"""

import hashlib
import math
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from craftastic.accounts._throttle_repository import SKEW_MS, Failures, ThrottleRepository
from craftastic.clock import Clock
from craftastic.database import Transaction
from craftastic.errors import RateLimited

ATTEMPTS_PER_MINUTE = 30
FREE_FAILURES = 5
LONGEST_DELAY_S = 900.0
FREE_FAILURES_OF_ALL = 50
LONGEST_DELAY_OF_ALL_S = 60.0
FAILURES_TTL_S = 6 * 3600.0
MAILS_PER_ACCOUNT = 3
MAILS_PER_CLIENT = 10
MAILS_PERIOD_S = 3600.0
KNOWN_TTL_S = 90 * 86400.0
MOST_KNOWN = 20
IPV6_PREFIX = 64


class TooManyAttempts(RateLimited):
    """A client, or an account, was tried too often; `Retry-After` tells when it goes on."""

    code = "TOO_MANY_ATTEMPTS"


def client_of(address: str | None) -> str | None:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 one."""
    if address is None:
        return None
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)


@dataclass(frozen=True, slots=True)
class Throttle:
    """Counts attempts; everything happens in the caller's transactions.

    Args:
        clock: Tells the time, which several processes have to agree on.
        attempts_per_minute: Of one client, over all accounts.
    """

    clock: Clock
    attempts_per_minute: int = ATTEMPTS_PER_MINUTE

    async def admit(self, tx: Transaction, client: str | None) -> None:
        """Count an attempt of a client, before it costs anything.

        Raises:
            TooManyAttempts: It has tried too often; nothing is counted then.
        """
        if client is not None:
            await self._charge(tx, _key("client", client), self.attempts_per_minute, 60.0)

    async def take_back(self, tx: Transaction, client: str | None) -> None:
        """Uncount an attempt that was right."""
        if client is not None:
            step_ms = 60_000 // self.attempts_per_minute
            await ThrottleRepository(tx).take_back(_key("client", client), step_ms)

    async def check_client(self, tx: Transaction, client: str | None) -> None:
        """Refuse a client that has tried too often, without counting.

        Raises:
            TooManyAttempts: It has.
        """
        if client is not None:
            key, limit = _key("client", client), self.attempts_per_minute
            until_ms = await ThrottleRepository(tx).until(key)
            over_ms = until_ms - self._now_ms() - _spare_ms(limit, 60.0)
            self._refuse(over_ms if over_ms <= 60_000 // limit + SKEW_MS else 0)

    async def count_mail(self, tx: Transaction, account: str, client: str | None) -> None:
        """Count a wish for mail to an account, whether or not there is one.

        Raises:
            TooManyAttempts: The account, or the client, has had as much as it gets in an hour.
        """
        if client is not None:
            await self._charge(tx, _key("mail from", client), MAILS_PER_CLIENT, MAILS_PERIOD_S)
        await self._charge(tx, _key("mail to", account), MAILS_PER_ACCOUNT, MAILS_PERIOD_S)

    async def check(self, tx: Transaction, account: str, client: str | None) -> bool:
        """Refuse a password for an account while its last wrong ones are too recent.

        Returns:
            Whether this client had wrong ones.

        Raises:
            TooManyAttempts: They are.
        """
        repository = ThrottleRepository(tx)
        own, of_all = _account_keys(account, client)
        found = await repository.failures([own, of_all], self.clock.now())
        wait_ms = self._delay_ms(found.get(own), FREE_FAILURES, LONGEST_DELAY_S)
        if of_all in found and not await repository.is_known(account, client or ""):
            everybody = (FREE_FAILURES_OF_ALL, LONGEST_DELAY_OF_ALL_S)
            wait_ms = max(wait_ms, self._delay_ms(found[of_all], *everybody))
        self._refuse(wait_ms)
        return own in found

    async def failed(self, tx: Transaction, account: str, client: str | None) -> None:
        """Count a wrong password; an unknown account's count as well."""
        repository = ThrottleRepository(tx)
        for key in _account_keys(account, client):
            await repository.fail(key, self.clock.now(), FAILURES_TTL_S)

    async def succeeded(self, tx: Transaction, account: str, client: str | None) -> None:
        """Forget the client's wrong passwords for the account; others' still count."""
        await ThrottleRepository(tx).forget(_account_keys(account, client)[0])

    async def note_known(self, tx: Transaction, user_id: UUID, client: str | None) -> None:
        """Note that a user was signed in from a client."""
        if client is not None:
            await ThrottleRepository(tx).note_known(
                user_id, client, self.clock.now(), KNOWN_TTL_S, MOST_KNOWN
            )

    async def know_only(self, tx: Transaction, user_id: UUID, client: str | None) -> None:
        """Note one client of a user and forget the others: one of them may have been a thief's."""
        await ThrottleRepository(tx).forget_known(user_id)
        await self.note_known(tx, user_id, client)

    async def _charge(self, tx: Transaction, key: str, limit: int, period_s: float) -> None:
        step_ms = int(period_s * 1000) // limit
        over_ms = await ThrottleRepository(tx).charge(
            key, self.clock.now(), step_ms, _spare_ms(limit, period_s)
        )
        self._refuse(over_ms)

    def _delay_ms(self, failures: Failures | None, free: int, longest_s: float) -> int:
        if failures is None or failures.count < free:
            return 0
        delay_s = min(longest_s, 2.0 ** min(failures.count - free, 20))
        since_ms = self._now_ms() - failures.at_ms
        # One of the future was counted before the clock went back.
        return int(delay_s * 1000) - since_ms if since_ms >= -SKEW_MS else 0

    def _now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    @staticmethod
    def _refuse(wait_ms: int) -> None:
        if wait_ms > 0:
            wait_s = math.ceil(wait_ms / 1000)
            raise TooManyAttempts(
                f"Too many attempts; try again in {wait_s} s.", retry_after_s=wait_s
            )


def _spare_ms(limit: int, period_s: float) -> int:
    """Return how much may be owed for one more attempt to be allowed."""
    return (limit - 1) * (int(period_s * 1000) // limit)


def _account_keys(account: str, client: str | None) -> tuple[str, str]:
    return _key("account", account, client or ""), _key("account", account)


def _key(*parts: str) -> str:
    # Hashed for its length; and no address of a stranger lies around in clear.
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
