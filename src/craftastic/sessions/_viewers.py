"""Who looks at which session, of all servers: a session is active as long as anybody does.

Each server writes down which sessions its viewers look at, until a time not far away, and says so
again before it comes. What a server that died had written ends by itself. Private to this package.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, insert, select, update

from craftastic.database import DatabaseNow, Transaction
from craftastic.sessions._model import SessionStatus
from craftastic.sessions._repository import SessionRepository, SessionRow, SessionViewers

KEPT_S = 20.0
"""How long a server is believed without a word of it; it says it again every few seconds."""

# None lasts longer: the clock would have gone back since it was written.
LIVING = SessionViewers.expires_at.between(DatabaseNow(), DatabaseNow() + KEPT_S + 1)


@dataclass(frozen=True, slots=True)
class ViewerRepository:
    """What one server says of its viewers, and what all of them say together.

    Args:
        server: This process's name among all servers.
    """

    tx: Transaction
    server: str

    async def changed(self, session_id: UUID, viewers: int, now: datetime) -> None:
        """Write down that so many look at a session here, and what follows for it."""
        if not viewers:
            await self._settle(await self._forget([session_id]) or [session_id], now)
        # This also waits for whoever else speaks of the session at the moment.
        elif await SessionRepository(self.tx).set_status(session_id, SessionStatus.ACTIVE, now):
            await self._forget([session_id])
            await self.tx.execute(
                insert(SessionViewers).values(
                    session_id=session_id, server=self.server, expires_at=DatabaseNow() + KEPT_S
                )
            )

    async def keep(self, watched: Collection[UUID], now: datetime) -> None:
        """Say again what is looked at here, and end what others have not said for too long."""
        mine = SessionViewers.server == self.server
        written = set(await self.tx.scalars(select(SessionViewers.session_id).where(mine)))
        gone = await self._forget(written.difference(watched))
        if written.intersection(watched):
            again = update(SessionViewers).where(mine).values(expires_at=DatabaseNow() + KEPT_S)
            await self.tx.execute(again.execution_options(synchronize_session=False))
        for session_id in sorted(set(watched) - written):
            await self.changed(session_id, 1, now)
        gone += await self._delete(~LIVING)
        await self._settle(gone, now)

    async def forget_all(self, now: datetime) -> None:
        """Forget what every server said: this one is alone, and nobody looks through it yet."""
        await self.tx.execute(delete(SessionViewers))
        await SessionRepository(self.tx).detach(None, now)

    async def _settle(self, session_ids: Collection[UUID], now: datetime) -> None:
        """Mark those of the sessions inactive that nobody looks at."""
        if not session_ids:
            return
        # Two servers that stop at one moment would else each see the other's row.
        of_these = SessionRow.id.in_(session_ids)
        await self.tx.execute(
            select(SessionRow.id).where(of_these).order_by(SessionRow.id).with_for_update()
        )
        living = await self.tx.scalars(
            select(SessionViewers.session_id).where(
                SessionViewers.session_id.in_(session_ids), LIVING
            )
        )
        await SessionRepository(self.tx).detach(set(session_ids).difference(living), now)

    async def _forget(self, session_ids: Collection[UUID]) -> list[UUID]:
        if not session_ids:
            return []
        return await self._delete(
            (SessionViewers.server == self.server) & SessionViewers.session_id.in_(session_ids)
        )

    async def _delete(self, condition: ColumnElement[bool]) -> list[UUID]:
        statement = delete(SessionViewers).where(condition).returning(SessionViewers.session_id)
        options = {"synchronize_session": False}
        return list(await self.tx.scalars(statement, execution_options=options))
