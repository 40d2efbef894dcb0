"""Whether there is room for more: the quota of an environment, and the free space of the server."""

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import anyio
import structlog

from craftastic.database import Database
from craftastic.disk._model import NEAR_PERCENT, size
from craftastic.disk._repository import DiskRepository
from craftastic.errors import StorageFull
from craftastic.settings import Settings

LOOK_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DiskQuotaExceeded(StorageFull):
    """The environment uses more than it may; freeing disk space in it is the way on."""

    code = "DISK_QUOTA_EXCEEDED"


class ServerDiskFull(StorageFull):
    """The server's disk has less free space than is kept back."""

    code = "SERVER_DISK_FULL"


@dataclass(frozen=True, slots=True)
class Space:
    """A file system: what is free for the server, and all of it, in bytes."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """Refuses what would need more of a disk that is full."""

    database: Database
    settings: Settings

    @property
    def quota(self) -> int | None:
        """What one environment may use, in bytes; None for as much as there is."""
        return (self.settings.disk_quota_mib << 20) or None

    @property
    def floor(self) -> int:
        """What stays free of the data folder's file system, in bytes."""
        return self.settings.disk_free_floor_mib << 20

    async def check(self) -> None:
        """Refuse where the server's disk is full.

        Raises:
            ServerDiskFull: Less is free than is kept back.
        """
        space = await self.space()
        if space is not None and space.free < self.floor:
            raise ServerDiskFull(
                "The server's disk is full",
                details=f"{size(space.free)} are free and {size(self.floor)} are kept back. Free"
                " disk space in your environments, delete one that you no longer need, or ask the"
                " operator.",
            )

    async def check_in(self, environment_id: UUID) -> None:
        """Refuse where the server's disk is full or the environment is over its quota.

        Raises:
            ServerDiskFull: Less is free than is kept back.
            DiskQuotaExceeded: The environment was over its quota when it was last measured.
        """
        await self.check()
        quota = self.quota
        if quota is None:
            return
        async with self.database.read() as tx:
            use = await DiskRepository(tx).find(environment_id)
        if use is not None and use.over:
            below = size(quota * NEAR_PERCENT // 100)
            raise DiskQuotaExceeded(
                "The environment uses more disk than it may",
                details=f"It uses {size(use.total_bytes)} of {size(quota)}. Free disk space in it"
                f" until it uses less than {below}: on its page, or with `craftastic disk"
                " reclaim`; what you delete by hand counts once it is measured again.",
            )

    async def space(self) -> Space | None:
        """Return the free space of the data folder's file system; None where nobody knows."""
        with anyio.move_on_after(LOOK_S):
            try:
                return await anyio.to_thread.run_sync(
                    _space, self.settings.data_dir, abandon_on_cancel=True
                )
            except OSError as error:
                log.info("free disk space not known", reason=str(error))
        return None


def _space(folder: Path) -> Space:
    found = os.statvfs(folder)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
