"""Two things of a start side by side."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from craftastic.errors import CraftasticError

T = TypeVar("T")


async def beside(first: Callable[[], Awaitable[T]], other: Callable[[], Awaitable[object]]) -> T:
    """Do two things at the same time, both to their ends, and return what the first one did.

    Cancellation cancels both.

    Raises:
        CraftasticError: The first one's, else the other's.
    """
    failures: list[CraftasticError] = []

    async def do_other() -> None:
        try:
            await other()
        except CraftasticError as error:  # a task group would wrap it
            failures.append(error)

    done: list[T] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(do_other)
        try:
            done.append(await first())
        except CraftasticError as error:
            failures.insert(0, error)
    if failures:
        raise failures[0]
    return done[0]
