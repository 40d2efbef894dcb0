"""The audit log: appended to, listed, verified; never changed."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from structlog.contextvars import get_contextvars

from craftastic.audit._chain import (
    MAX_ACTION_CHARS,
    MAX_DETAILS_CHARS,
    MAX_OBJECT_ID_CHARS,
    MAX_OBJECT_TYPE_CHARS,
    MAX_OUTCOME_CHARS,
    MAX_REQUEST_ID_CHARS,
    NOTHING_BEFORE,
    Entry,
    bounded,
    chained,
    details_text,
    exported_line,
)
from craftastic.audit._repository import AuditEventRow, AuditRepository
from craftastic.clock import Clock
from craftastic.database import Database, Transaction

__all__ = ["MAX_DETAILS_CHARS", "AuditEvent", "AuditService", "Entry", "Verification"]

MAX_LISTED = 200
END_MISSING = "the log's end is missing"
EXPORTED_AT_ONCE = 500
VERIFIED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class AuditEvent:
    seq: int
    at: datetime
    actor_id: UUID | None
    action: str
    object_type: str
    object_id: str | None
    outcome: str
    request_id: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over the chain found.

    Attributes:
        checked: How many events were found sound.
        head: The last event's number and hash, to be noted outside of the database; None for an
            empty log. Whoever can write the database can make the whole chain anew, but not with
            the hash that was noted.
        broken_at: Number of the first event that is not as it was written, else None.
        reason: What is wrong there, in words.
    """

    checked: int
    head: tuple[int, str] | None
    broken_at: int | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.broken_at is None


@dataclass(frozen=True, slots=True)
class AuditService:
    """Appends events in one order, over all server processes."""

    database: Database
    clock: Clock

    async def record(
        self,
        action: str,
        *,
        actor_id: UUID | None,
        object_type: str,
        object_id: str | UUID | None,
        outcome: str = "ok",
        details: Mapping[str, object] | None = None,
        tx: Transaction | None = None,
    ) -> None:
        """Append one event; the request's id is taken from the log's context.

        With `tx` the event is there exactly if what it tells of is. Appends wait for each other
        until their transactions end: make it the last statement of a short one.

        Args:
            action: `domain.verb`.
            actor_id: Who did it; None for the operator or the server itself.
            object_type: What it was done to: `environment`, `git_host`, …
            object_id: Which one.
            outcome: `ok`, or how else it ended, in a word.
            details: No secrets; what looks like one is hidden, what is over 4 KiB is cut.
            tx: The caller's transaction; without one the event gets its own, which must not be
                opened inside another.

        Raises:
            DatabaseUnavailable: It could not be written.
        """
        one = self.prepared(
            action,
            actor_id=actor_id,
            object_type=object_type,
            object_id=object_id,
            outcome=outcome,
            details=details,
        )
        if tx is not None:
            await self.append([one], tx)
            return
        async with self.database.begin() as own:
            await self.append([one], own)

    def prepared(
        self,
        action: str,
        *,
        actor_id: UUID | None,
        object_type: str,
        object_id: str | UUID | None,
        outcome: str = "ok",
        details: Mapping[str, object] | None = None,
    ) -> Entry:
        """Return an event for `append`; its arguments are those of `record`.

        What takes time with long details is done here, outside of any transaction.
        """
        request_id = get_contextvars().get("request_id")
        return Entry(
            at=self.clock.now(),
            actor_id=actor_id,
            action=bounded(action, MAX_ACTION_CHARS),
            object_type=bounded(object_type, MAX_OBJECT_TYPE_CHARS),
            object_id=None if object_id is None else bounded(str(object_id), MAX_OBJECT_ID_CHARS),
            outcome=bounded(outcome, MAX_OUTCOME_CHARS),
            request_id=None if request_id is None else bounded(request_id, MAX_REQUEST_ID_CHARS),
            details=details_text(details or {}),
        )

    async def append(self, entries: Sequence[Entry], tx: Transaction) -> None:
        """Append events that were prepared, in their order; see `record` about `tx`."""
        if entries:
            await AuditRepository(tx).append(entries)

    async def verify(self) -> Verification:
        """Walk the log as it is now and check that nothing was changed, removed or reordered.

        Raises:
            DatabaseUnavailable: It could not be read.
        """
        head = await self._head()
        found = await self._walk(head)
        if head is not None or found.checked == 0 or not found.ok:
            return found
        head = await self._head()
        if head is None:
            return Verification(found.checked, None, found.checked + 1, END_MISSING)
        # The first event came meanwhile: only a walk that begins now sees all up to the head.
        return await self._walk(head)

    async def _head(self) -> tuple[int, str] | None:
        async with self.database.read() as tx:
            return await AuditRepository(tx).head()

    async def _walk(self, head: tuple[int, str] | None) -> Verification:
        last, previous = 0, NOTHING_BEFORE
        while True:
            async with self.database.read() as tx:
                rows = await AuditRepository(tx).after(last, VERIFIED_AT_ONCE)
            for row in rows:
                fault = _fault(row, last, previous, head)
                if fault is not None:
                    return Verification(last, head, last + 1, fault)
                last, previous = row.seq, row.hash
            if len(rows) < VERIFIED_AT_ONCE:
                break
        if head is not None and last < head[0]:
            return Verification(last, head, last + 1, END_MISSING)
        return Verification(last, head)

    async def list_for(
        self, actor_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[AuditEvent]:
        """List what a user did, newest first.

        Args:
            actor_id: The user.
            limit: At most 200.
            before: Number of the event that the list goes on after.
        """
        return await self.list_all(limit=limit, before=before, actor_id=actor_id)

    async def list_all(
        self,
        *,
        limit: int = 50,
        before: int | None = None,
        actor_id: UUID | None = None,
        action: str | None = None,
    ) -> list[AuditEvent]:
        """List what anybody did, newest first.

        Args:
            limit: At most 200.
            before: Number of the event that the list goes on after.
            actor_id: Of this user only.
            action: Of this action (`git.push`), or of all actions of a domain (`git`).
        """
        async with self.database.read() as tx:
            rows = await AuditRepository(tx).page(
                before, max(1, min(limit, MAX_LISTED)), actor_id=actor_id, action=action
            )
        return _events(rows)

    async def exported(self) -> AsyncGenerator[bytes]:
        """Yield the whole log, oldest first, a JSON object in a line, a page at a time.

        Each line has all that its hash covers (`details` as the text that was hashed), so that
        the chain can be checked without this server.
        """
        last = 0
        while True:
            async with self.database.read() as tx:
                rows = await AuditRepository(tx).after(last, EXPORTED_AT_ONCE)
            if not rows:
                return
            yield b"".join(
                exported_line(row.seq, row.previous_hash, row.hash, _entry(row)) for row in rows
            )
            last = rows[-1].seq


def _fault(
    row: AuditEventRow, last: int, previous: str, head: tuple[int, str] | None
) -> str | None:
    if row.seq != last + 1:
        return "events are missing here"
    if row.previous_hash != previous:
        return "this event does not follow the one before it"
    if chained(row.seq, previous, _entry(row)) != row.hash:
        return "this event was changed"
    if head is not None and row.seq == head[0] and row.hash != head[1]:
        return "this event is not the one that the log ended with"
    return None


def _entry(row: AuditEventRow) -> Entry:
    return Entry(
        at=row.at,
        actor_id=row.actor_id,
        action=row.action,
        object_type=row.object_type,
        object_id=row.object_id,
        outcome=row.outcome,
        request_id=row.request_id,
        details=row.details,
    )


def _events(rows: Sequence[AuditEventRow]) -> list[AuditEvent]:
    return [
        AuditEvent(
            seq=row.seq,
            at=row.at,
            actor_id=row.actor_id,
            action=row.action,
            object_type=row.object_type,
            object_id=row.object_id,
            outcome=row.outcome,
            request_id=row.request_id,
            details=json.loads(row.details),
        )
        for row in rows
    ]
