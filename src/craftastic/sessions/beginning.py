"""What a server that was alone when it started does with what earlier ones said of viewers."""

from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.sessions._viewers import ViewerRepository


async def forget_viewers(database: Database, clock: Clock) -> None:
    """Mark every active session inactive: there is no server through which anybody looks at one.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    async with database.begin() as tx:
        await ViewerRepository(tx, "").forget_all(clock.now())
