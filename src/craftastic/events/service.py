"""Events: written with the change that they tell of, and streamed to its owner."""

import secrets
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from typing import Protocol, cast
from uuid import UUID

import anyio
import structlog

from craftastic.accounts.service import AccountService, Caller, UserId
from craftastic.database import Database, DatabaseUnavailable, Transaction, at_the_end
from craftastic.events import _protocol as protocol
from craftastic.events._hub import Follower, Hub, TooManyEventStreams
from craftastic.events._repository import EventRepository, Place

__all__ = ["EventLog", "EventService", "EventStream", "Listener", "TooManyEventStreams", "Watch"]

MOST_STREAMS_PER_USER = 20
MOST_WATCHED_PER_STREAM = 16
MOST_KEPT_PER_OWNER = 10_000
READ_AT_ONCE = 200
POLL_S = 0.3
"""How late another process's events may be."""
HEARTBEAT_S = 20.0
SIGN_IN_CHECK_S = 1.0
OVER_CHECK_S = 0.5
"""What is known of a sign-in may be three seconds old itself; all together stays below five."""
PAUSE_S = 5.0
"""How long a database that does not answer is left alone."""

PENDING = "craftastic_events"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Pending = dict[UUID, dict[str, str]]
"""For each owner, the bodies that a transaction will write, in their order, and their types."""


class Listener(Protocol):
    """Whoever is told at once of what is noticed while it looks; a stream is one."""

    def tell(
        self,
        kind: str,
        about: UUID,
        *,
        environment_id: UUID | None = None,
        session_id: UUID | None = None,
        job: str | None = None,
    ) -> None: ...


class Watch(Protocol):
    """Watches an owner's sessions for a listener as long as the context is open.

    An id that is nobody's, or somebody else's, is never told of.
    """

    def __call__(
        self, owner: UserId, session_ids: Sequence[UUID], listener: Listener, /
    ) -> AbstractContextManager[None]: ...


def watch_nothing(
    _owner: UserId, _session_ids: Sequence[UUID], _listener: Listener
) -> AbstractContextManager[None]:
    return nullcontext()


class EventLog:
    """The events of one transaction: there exactly if what they tell of is."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    def add(
        self,
        owner_id: UUID,
        kind: str,
        about: UUID | str,
        *,
        environment_id: UUID | None = None,
        session_id: UUID | None = None,
        job: str | None = None,
    ) -> None:
        """Tell the owner that something changed; the same twice in one transaction is told once.

        The event is written at the transaction's end, so this may be called anywhere in it and
        makes nobody wait.

        Args:
            owner_id: Whose it is; nobody else hears of it.
            kind: `thing.changed`, `thing.deleted` and the like.
            about: The thing's id.
            environment_id: The environment that it belongs to, where it is not one itself.
            session_id: The session that it belongs to, likewise.
            job: Name of the session's job that it is about.
        """
        pending = cast("Pending", self.tx.info.setdefault(PENDING, {}))
        body = protocol.body(kind, about, environment_id, session_id, job)
        pending.setdefault(owner_id, {})[body] = kind
        at_the_end(self.tx, write_pending)


async def write_pending(tx: Transaction) -> None:
    """Write what was added to a transaction; others that write to the same owners wait for it."""
    pending = cast("Pending", tx.info.get(PENDING, {}))
    repository = EventRepository(tx)
    # In one order everywhere: two that write to the same two owners must not wait for each other.
    for owner_id in sorted(pending):
        tag = secrets.token_hex(4)
        events = [(kind, body) for body, kind in pending[owner_id].items()]
        await repository.append(owner_id, tag, events)


@dataclass(frozen=True, slots=True)
class EventService:
    """Streams of events, resumable over every server process on the database.

    Args:
        retention_s: How long an event is kept for those who come back, in seconds.
        most_kept: How many of one owner are kept at most.
        poll_s: How often other processes' events are looked for while anybody listens.
        heartbeat_s: After how long a silent stream says that it lives.
        watch: Notices what happens in sessions that a client looks at.
    """

    database: Database
    accounts: AccountService
    retention_s: float = 86_400.0
    most_kept: int = MOST_KEPT_PER_OWNER
    poll_s: float = POLL_S
    heartbeat_s: float = HEARTBEAT_S
    watch: Watch = watch_nothing
    _hub: Hub = field(init=False, default_factory=lambda: Hub(MOST_STREAMS_PER_USER))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Wake streams as events are committed, here or elsewhere; all end with the context."""
        self.database.after_commit.append(self._committed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._poll)
            try:
                yield
            finally:
                self.drain()
                self.database.after_commit.remove(self._committed)
                tasks.cancel_scope.cancel()

    def drain(self) -> None:
        """End every stream; their clients connect again, to whoever serves then."""
        self._hub.end()

    @property
    def open_streams(self) -> int:
        """Return how many streams this process has."""
        return self._hub.count

    @contextmanager
    def opened(
        self, caller: Caller, last_event_id: str | None, watched: Sequence[UUID] = ()
    ) -> Generator["EventStream"]:
        """Open a stream of the caller's events.

        Args:
            caller: Whose events, and whose sign-in the stream lives as long as.
            last_event_id: Id of the last event that the client has; None to begin now.
            watched: Sessions that the client looks at.

        Raises:
            TooManyEventStreams: The caller has as many as one may have.
        """
        with (
            self._hub.follow(caller.user_id) as follower,
            self.watch(caller.user_id, watched, follower),
        ):
            yield EventStream(self, self._hub, caller, follower, last_event_id)

    async def forget(self) -> None:
        """Delete the events that nobody can come back for any more.

        Raises:
            DatabaseUnavailable: They could not be deleted.
        """
        async with self.database.begin() as tx:
            await EventRepository(tx).forget(self.retention_s, self.most_kept)

    def _committed(self, tx: Transaction) -> None:
        self._hub.wake(cast("Pending", tx.info.get(PENDING, {})))

    async def _poll(self) -> None:
        while True:
            await self._hub.somebody.wait()
            await anyio.sleep(self.poll_s)
            try:
                async with self.database.read() as tx:
                    heads = await EventRepository(tx).heads(list(self._hub.followers))
            except DatabaseUnavailable:
                log.warning("events of other processes cannot be looked for")
                await anyio.sleep(PAUSE_S)
            else:
                self._hub.reached(heads)


@dataclass(slots=True)
class EventStream:
    """One client's stream: a place in its owner's events, and nothing that could fill up."""

    service: EventService
    hub: Hub
    caller: Caller
    follower: Follower
    last_event_id: str | None
    place: Place | None = None

    async def next(self) -> bytes | None:
        """Wait for what to send next; None when the stream has to end.

        It ends with the server, with the sign-in, and when the database does not answer: the
        client comes back and goes on where it was.
        """
        try:
            return await self._next()
        except DatabaseUnavailable:
            return None

    async def over(self) -> None:
        """Wait until the stream has to end, whether or not its client takes what it is sent."""
        with suppress(DatabaseUnavailable):
            while await self._may_go_on():  # noqa: ASYNC110 - asks a database
                await anyio.sleep(OVER_CHECK_S)
        self.follower.changed.set()  # so that `next` ends at once

    async def _next(self) -> bytes | None:
        while await self._may_go_on():
            if self.place is None:
                return await self._begin()
            if not await self._something_new():
                return protocol.HEARTBEAT
            if chunk := await self._read(self.place):
                return chunk
        return None

    async def _something_new(self) -> bool:
        """Wait; False when nothing was new for so long that the client should hear so."""
        step_s = min(SIGN_IN_CHECK_S, self.service.heartbeat_s)
        silent_s = 0.0
        while silent_s < self.service.heartbeat_s:
            with anyio.move_on_after(step_s):
                await self.follower.changed.wait()
                return True
            silent_s += step_s
            if not await self._may_go_on():
                return True
        return False

    async def _may_go_on(self) -> bool:
        if self.hub.ending.is_set():
            return False
        return await self.service.accounts.still_signed_in(self.caller)

    async def _begin(self) -> bytes:
        last = None if self.last_event_id is None else protocol.parse_id(self.last_event_id)
        async with self.service.database.read() as tx:
            events = EventRepository(tx)
            if last is not None and await events.is_whole_after(self.caller.user_id, last):
                self._move(last)
                self.follower.changed.set()
                return protocol.ready(last, resumed=True)
            head = await events.head(self.caller.user_id)
        self._move(head)
        if self.last_event_id is None:
            return protocol.ready(head, resumed=False)
        return protocol.reset(head)

    async def _read(self, place: Place) -> bytes:
        # Taken off first: what is committed while the database is asked sets it again.
        self.follower.changed = anyio.Event()
        passing = protocol.passing(self.follower.take_passing())
        async with self.service.database.read() as tx:
            events = EventRepository(tx)
            found = await events.after(self.caller.user_id, place.seq, READ_AT_ONCE)
            if found and found[0].place.seq != place.seq + 1:
                # It was slower than the retention: what comes next is gone.
                head = await events.head(self.caller.user_id)
                self._move(head)
                return passing + protocol.reset(head)
        if not found:
            return passing
        self._move(found[-1].place)
        if len(found) == READ_AT_ONCE:
            self.follower.changed.set()
        return passing + protocol.frames(found)

    def _move(self, place: Place) -> None:
        self.place, self.follower.seq = place, place.seq
