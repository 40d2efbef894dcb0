"""Claims of workers that are dead for certain; all others end by themselves."""

from craftastic.database import Database
from craftastic.environments._repository import EnvironmentRepository


async def void_claims(database: Database) -> None:
    """Void every claim on an environment, so that nobody waits until it ends.

    It is for a server that was alone when it started. Should a worker live all the same it changes
    nothing any more, as one that slept through the end of its claim.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    async with database.begin() as tx:
        await EnvironmentRepository(tx).void_claims()
