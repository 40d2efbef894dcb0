"""The bounds of one transfer: bytes, silence, places, and where a redirect led."""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

import anyio

from craftastic.clock import Clock
from craftastic.gateway._upstream import Upstream
from craftastic.pushes.service import GatewayEnvironment

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REMEMBERED_BASES = 1024
REMEMBER_S = 600.0


class Refusal(Exception):
    """An answer other than success; git shows the text after `remote:` where it can."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Cut(Exception):
    """The transfer cannot go on: a limit, silence, or a client that went away."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Limits of one transfer.

    Attributes:
        max_bytes: In each direction.
        timeout_s: From the first byte of the request to the last of the answer.
        idle_timeout_s: Longest time without a byte, of the upstream or of the sandbox.
    """

    max_bytes: int
    timeout_s: float
    idle_timeout_s: float


@dataclass(slots=True)
class _Slot:
    free: anyio.Semaphore
    users: int = 0


class TransferSlots:
    """Bounds the transfers that run at once, in all and for each environment; others wait."""

    def __init__(
        self,
        per_environment: int,
        in_all: int,
        waiting: int,
        wait_s: float,
        what: str = "git transfers",
    ) -> None:
        self._per_environment = per_environment
        self._all = anyio.Semaphore(in_all)
        self._longest_queue = per_environment + waiting
        self._wait_s = wait_s
        self._what = what
        self._slots: dict[UUID, _Slot] = {}

    @asynccontextmanager
    async def take(self, environment_id: UUID) -> AsyncGenerator[None]:
        """Hold a place for the time of the block.

        Raises:
            Refusal: None became free in time, or too many wait already.
        """
        slot = self._slots.setdefault(environment_id, _Slot(anyio.Semaphore(self._per_environment)))
        if slot.users >= self._longest_queue:
            raise self._busy()
        slot.users += 1
        try:
            with anyio.move_on_after(self._wait_s) as waiting:
                await slot.free.acquire()
            if waiting.cancelled_caught:
                raise self._busy()
            try:
                with anyio.move_on_after(self._wait_s) as waiting:
                    await self._all.acquire()
                if waiting.cancelled_caught:
                    raise self._busy()
                try:
                    yield
                finally:
                    self._all.release()
            finally:
                slot.free.release()
        finally:
            slot.users -= 1
            if not slot.users:
                self._slots.pop(environment_id, None)

    def _busy(self) -> Refusal:
        return Refusal(
            HTTPStatus.TOO_MANY_REQUESTS, f"Too many {self._what} run at once; try again shortly."
        )


class RequestBody:
    """The request's body, counted; each wait has a deadline and a limit of bytes."""

    def __init__(self, receive: Receive, limits: TransferLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._released = anyio.Event()
        self.bytes = 0
        self.ended = False

    async def next(self) -> bytes:
        """Return the next chunk, empty at the end.

        Raises:
            Cut: The sandbox went away or was silent, or sent more than the limit.
        """
        while not self.ended:
            try:
                with anyio.fail_after(self._limits.idle_timeout_s):
                    message = await self._receive()
            except TimeoutError:
                raise Cut(HTTPStatus.REQUEST_TIMEOUT, "the sandbox stopped sending") from None
            if message["type"] != "http.request":
                raise Cut(HTTPStatus.BAD_REQUEST, "the sandbox went away")
            if not message.get("more_body", False):
                self.ended = True
                self._released.set()
            chunk: bytes = message.get("body", b"")
            self.bytes += len(chunk)
            if self.bytes > self._limits.max_bytes:
                raise Cut(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "more bytes than the limit")
            if chunk:
                return chunk
        return b""

    async def drain(self) -> None:
        while await self.next():
            pass

    def release(self) -> None:
        """Say that nobody will ask for the rest: the upstream answered without it."""
        self._released.set()

    async def until_gone(self) -> None:
        """Return when the sandbox has closed the connection; what it still sends is dropped."""
        await self._released.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


@dataclass(frozen=True, slots=True)
class Remembered:
    """Where `info/refs` was found.

    Attributes:
        strayed: A redirect on the way there has left the upstream's origin.
    """

    base: Upstream
    strayed: bool = False


@dataclass(frozen=True, slots=True)
class RememberedBases:
    """Where `info/refs` was redirected to, for the requests that git makes next.

    git itself would follow the redirect and post to where it led; behind the gateway it does not
    see it. Bounded in number and time.
    """

    clock: Clock
    _bases: OrderedDict[tuple[UUID, str | None, str], tuple[Remembered, float]] = field(
        default_factory=OrderedDict[tuple[UUID, str | None, str], tuple[Remembered, float]]
    )

    def remember(self, environment: GatewayEnvironment, service: str, found: Remembered) -> None:
        key = (environment.id, environment.repository_url, service)
        self._bases[key] = (found, self.clock.monotonic() + REMEMBER_S)
        self._bases.move_to_end(key)
        if len(self._bases) > REMEMBERED_BASES:
            self._bases.popitem(last=False)

    def find(self, environment: GatewayEnvironment, service: str) -> Remembered | None:
        found, until = self._bases.get(
            (environment.id, environment.repository_url, service), (None, 0.0)
        )
        return found if until > self.clock.monotonic() else None
