"""Who looks at which session, of all servers: a session is active as long as anybody does.

Each server writes down which sessions its viewers look at, until a time not far away, and says so
again before it comes. What a server that died had written ends by itself. Private to this package.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select, update

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

    async def renew(self, watched: Collection[UUID]) -> set[UUID]:
        """Say again what is written of this server; return where something else is so."""
        mine = SessionViewers.server == self.server
        written = await self.tx.scalars(
            update(SessionViewers)
            .where(mine)
            .values(expires_at=DatabaseNow() + KEPT_S)
            .returning(SessionViewers.session_id)
            .execution_options(synchronize_session=False)
        )
        ended = select(SessionViewers.session_id).where(~LIVING)
        return set(written).symmetric_difference(watched).union(await self.tx.scalars(ended))

    async def write(self, session_id: UUID, viewers: int, now: datetime) -> None:
        """Write down that so many look at a session here, and what follows for it.

        One session in one transaction, and its own row first: whoever holds that one waits for
        nobody who waits for it.
        """
        sessions = SessionRepository(self.tx)
        is_watched = False
        if viewers:
            changed = await sessions.set_status(session_id, SessionStatus.ACTIVE, now)
            is_watched = changed is not None
        else:
            # Two servers whose viewers leave at one moment would else each see the other's row.
            row = select(SessionRow.id).where(SessionRow.id == session_id)
            await self.tx.execute(row.with_for_update())
        mine_or_ended = (SessionViewers.server == self.server) | ~LIVING
        of_it = SessionViewers.session_id == session_id
        await self.tx.execute(
            delete(SessionViewers).where(of_it, mine_or_ended),
            execution_options={"synchronize_session": False},
        )
        if is_watched:
            expires_at = DatabaseNow() + KEPT_S
            await self.tx.execute(
                insert(SessionViewers).values(
                    session_id=session_id, server=self.server, expires_at=expires_at
                )
            )
        elif await self.tx.scalar(select(SessionViewers.server).where(of_it).limit(1)) is None:
            await sessions.set_status(session_id, SessionStatus.INACTIVE, now)

    async def forget_all(self, now: datetime) -> None:
        """Forget what every server said: this one is alone, and nobody looks through it yet."""
        await self.tx.execute(delete(SessionViewers))
        await SessionRepository(self.tx).detach_all(now)
