"""Requests that a client may send again without their effect happening again."""

import hashlib
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import anyio
import structlog

from craftastic.clock import Clock
from craftastic.database import Database, DatabaseUnavailable
from craftastic.errors import Conflict, RateLimited, Unprocessable
from craftastic.idempotency._repository import IdempotencyKey, KeyRepository

KEPT_S = 86_400.0
LEASE_S = 30.0
RENEW_S = 10.0
BUSY_RETRY_S = 2.0
MOST_KEYS_PER_USER = 2_000
MAX_MEDIA_TYPE_CHARS = 100

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class IdempotencyKeyReused(Unprocessable):
    """The key was used for another request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyKeyInUse(Conflict):
    """The first request with this key still goes on."""

    code = "IDEMPOTENCY_KEY_IN_USE"
    retry_after_s = BUSY_RETRY_S


class TooManyIdempotencyKeys(RateLimited):
    code = "TOO_MANY_IDEMPOTENCY_KEYS"


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that is given again."""

    status: int
    media_type: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """The right to work on a key's request; exactly one of its ends is to be called."""

    service: "IdempotencyService"
    key: IdempotencyKey = field(repr=False)

    async def finish(self, answer: Kept) -> None:
        """Keep the answer for whoever sends the request again.

        Raises:
            DatabaseUnavailable: It could not be kept; the key is free again soon.
        """
        self.service.open.discard(self.key.id)
        until = self.service.clock.now() + timedelta(seconds=KEPT_S)
        media_type = (answer.media_type or "")[:MAX_MEDIA_TYPE_CHARS] or None
        async with self.service.database.begin() as tx:
            keys = KeyRepository(tx)
            await keys.finish(self.key, answer.status, media_type, answer.body, until)

    async def release(self) -> None:
        """Give the key back: the request was refused, and may be sent again.

        Raises:
            DatabaseUnavailable: The key is free again only in some seconds.
        """
        self.service.open.discard(self.key.id)
        async with self.service.database.begin() as tx:
            await KeyRepository(tx).release(self.key)


@dataclass(frozen=True, slots=True)
class IdempotencyService:
    """Keeps the answers to requests that carry a key, over every process on the database."""

    database: Database
    clock: Clock
    holder: str = field(default_factory=lambda: secrets.token_hex(16))
    open: set[str] = field(init=False, default_factory=set[str])
    """Ids of the keys whose requests go on in this process."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Hold the keys of requests that take long, as long as they do."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._put_off)
            yield
            tasks.cancel_scope.cancel()

    async def claim(self, user_id: UUID, place: str, key: str, request: bytes) -> Claim | Kept:
        """Take a key for a request, or return what was answered to the request before.

        Args:
            user_id: Whose key it is; others' keys are other keys.
            place: The method and path that the request is for.
            key: As the client sent it.
            request: All else that makes it the same request: its query and body.

        Raises:
            IdempotencyKeyReused: The key was used for another request.
            IdempotencyKeyInUse: The request goes on; its answer may be asked for later.
            TooManyIdempotencyKeys: The user has used too many in a day.
        """
        now = self.clock.now()
        wanted = IdempotencyKey(
            id=_digest(f"{user_id}\n{place}\n{key}".encode("utf-8", "surrogatepass")),
            user_id=user_id,
            fingerprint=_digest(request),
            holder=self.holder,
            status=None,
            media_type=None,
            body=None,
            expires_at=now + timedelta(seconds=LEASE_S),
        )
        async with self.database.begin() as tx:
            keys = KeyRepository(tx)
            if not await keys.claim(wanted, now):
                return _answered(await keys.find(wanted.id), wanted)
            if await keys.count(user_id) > MOST_KEYS_PER_USER:
                raise TooManyIdempotencyKeys(
                    "You have used too many idempotency keys; send the request without one",
                    retry_after_s=60.0,
                )
        self.open.add(wanted.id)
        return Claim(self, wanted)

    async def forget_expired(self) -> None:
        """Delete the keys whose answers are not given any more.

        Raises:
            DatabaseUnavailable: They could not be deleted.
        """
        async with self.database.begin() as tx:
            await KeyRepository(tx).forget_expired(self.clock.now())

    async def _put_off(self) -> None:
        while True:
            await anyio.sleep(RENEW_S)
            if not self.open:
                continue
            until = self.clock.now() + timedelta(seconds=LEASE_S)
            try:
                async with self.database.begin() as tx:
                    await KeyRepository(tx).put_off(self.holder, list(self.open), until)
            except DatabaseUnavailable:
                log.warning("keys of requests that go on cannot be held")


def _answered(found: IdempotencyKey | None, wanted: IdempotencyKey) -> Kept:
    if found is not None and found.fingerprint != wanted.fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for another request; take a new one"
        )
    if found is None or found.status is None:
        raise IdempotencyKeyInUse("The first request with this Idempotency-Key still goes on")
    return Kept(found.status, found.media_type, found.body or b"")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
