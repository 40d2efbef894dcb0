"""Who attaches to a terminal and leaves it, as the audit log is told: beside, and in order.

A terminal must open while the database is slow, so nobody waits for what is written here.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.accounts.service import Caller
from craftastic.audit.service import AuditService, Entry
from craftastic.errors import CraftasticError

MOST_WAITING = 10_000
"""Events that are kept while the database does not take them; older ones go to the log."""
WRITTEN_AT_ONCE = 100
WRITE_S = 10.0
RETRY_S = 2.0
LAST_WRITES_S = 5.0
"""How long the end of the server waits for the database, beside a write that is under way."""

CUT = (1006, "The connection was cut")
RESTARTING = (1012, "Server is restarting")

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Visit:
    """One viewer's time at a terminal.

    Attributes:
        closed: The code and the reason that its connection is closed with.
    """

    caller: Caller
    session_id: UUID
    environment_id: UUID
    id: UUID = field(default_factory=uuid4)
    closed: tuple[int, str] = CUT


@dataclass(slots=True)
class Attendance:
    """Writes the visits of this process to the audit log. Use beside `run`.

    Each event is written once, unless the database fails in the middle of a commit: then it is
    not known whether it is there, and it is written again.

    Args:
        audit: Where to.
        most_waiting: How many events are kept at most.
        retry_s: The pause after a failure, in seconds.
    """

    audit: AuditService
    most_waiting: int = MOST_WAITING
    retry_s: float = RETRY_S
    _waiting: deque[Entry] = field(default_factory=deque[Entry])
    _visits: dict[Visit, None] = field(default_factory=dict[Visit, None])
    _more: anyio.Event = field(default_factory=anyio.Event)

    @contextmanager
    def visit(self, caller: Caller, environment_id: UUID, session_id: UUID) -> Generator[Visit]:
        """Note that a viewer attaches, and at the end that it has left. Waits for nothing."""
        visit = Visit(caller, session_id, environment_id)
        self._visits[visit] = None
        self._note("terminal.attach", visit, {})
        try:
            yield visit
        finally:
            self._left(visit)

    async def run(self) -> None:
        """Write what is noted, until cancelled; a database that fails is tried again.

        At the end all are noted as having left, and the last events are written.
        """
        try:
            while True:
                await self._more.wait()
                if not await self._write():
                    await anyio.sleep(self.retry_s)
        finally:
            for visit in list(self._visits):
                visit.closed = RESTARTING
                self._left(visit)
            with anyio.move_on_after(LAST_WRITES_S, shield=True):
                while self._waiting and await self._write():
                    pass
            while self._waiting:
                self._give_up()

    def _left(self, visit: Visit) -> None:
        if visit in self._visits:
            del self._visits[visit]
            code, reason = visit.closed
            self._note("terminal.detach", visit, {"closeCode": code, "reason": reason})

    def _note(self, action: str, visit: Visit, more: dict[str, object]) -> None:
        details: dict[str, object] = {
            "environment": str(visit.environment_id),
            "viewer": str(visit.id),
            "signIn": str(visit.caller.sign_in_id),
            **more,
        }
        self._waiting.append(
            self.audit.prepared(
                action,
                actor_id=visit.caller.user_id,
                object_type="session",
                object_id=visit.session_id,
                details=details,
            )
        )
        self._keep_bound()
        self._more.set()

    async def _write(self) -> bool:
        """Write some of what waits; False when the database did not take it."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), WRITTEN_AT_ONCE))]
        written = False
        # Shielded: nothing may come between the commit and this note of it. The time is bounded.
        with anyio.move_on_after(WRITE_S, shield=True):
            try:
                async with self.audit.database.begin() as tx:
                    await self.audit.append(batch, tx)
                written = True
            except CraftasticError as error:
                log.warning("terminal.not_audited_yet", reason=error.message)
            except Exception:  # an edge: whatever it is must not end everybody's terminals
                log.exception("terminal.not_audited_yet")
        if not written:
            self._waiting.extendleft(reversed(batch))
            self._keep_bound()
        if not self._waiting:
            self._more = anyio.Event()
        return written

    def _keep_bound(self) -> None:
        while len(self._waiting) > self.most_waiting:
            self._give_up()

    def _give_up(self) -> None:
        """Leave the oldest event to the server's own log: the database takes no more."""
        lost = self._waiting.popleft()
        log.error(
            "terminal.not_audited",
            action=lost.action,
            at=lost.at.isoformat(),
            actor=str(lost.actor_id),
            session=lost.object_id,
            details=lost.details,
        )
