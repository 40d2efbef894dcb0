"""Reading from descriptors where they become readable: no task wakes for each piece."""

import asyncio
import os
from collections.abc import Mapping

from craftastic.runtimes.base import Take

CHUNK = 65536
LEFT_BYTES = 4 << 20


async def follow(takers: Mapping[int, Take]) -> None:
    """Hand over each piece that comes on any of the descriptors, until one of them has ended.

    What the others hold at that end is handed over too, up to `LEFT_BYTES` of each. The descriptors
    do not block, and nobody else reads them or waits for them meanwhile. What a taker raises is
    raised here. Cancellation leaves the rest unread.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def ready(fd: int, take: Take) -> None:
        if ended.done():
            return
        try:
            if (data := _read(fd)) is not None:
                if data:
                    take(data)
                else:
                    ended.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            ended.set_exception(error)

    try:
        for fd, take in takers.items():
            loop.add_reader(fd, ready, fd, take)
        await ended
    finally:
        for fd in takers:
            loop.remove_reader(fd)
    for fd, take in takers.items():
        left = LEFT_BYTES
        while left > 0 and (data := _read(fd)):
            take(data)
            left -= len(data)


def _read(fd: int) -> bytes | None:
    """Return what is there, b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
