"""What environments ask of others before they make something; without an answer anything goes."""

from typing import Protocol
from uuid import UUID


class Room(Protocol):
    """Knows how full disks are; `disk.service.DiskRoom` does."""

    async def check(self) -> None:
        """Refuse something new where the server's disk is full.

        Raises:
            StorageFull: It is.
        """
        ...

    async def check_in(self, environment_id: UUID) -> None:
        """Refuse something new in an environment that uses more of the disk than it may.

        Raises:
            StorageFull: It does, or the server's disk is full.
        """
        ...


class EndlessRoom:
    """There is always room: nobody can look."""

    async def check(self) -> None: ...

    async def check_in(self, environment_id: UUID) -> None: ...


async def any_upstream(_url: str) -> None:
    """Leave the decision to the gateway."""


async def no_profile(_user: UUID) -> None:
    return None
