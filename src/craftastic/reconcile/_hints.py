"""Makes rounds of the reconciler from what runtimes tell, and never more than one in a while.

A hint is no fact: all that it does is wake the step that looks. A program in a sandbox that makes
its runtime tell a lot, or a runtime that tells nonsense, costs a look in a second.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.clock import Clock
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import FOLLOW_PAUSE_S, Hint, Runtime

Look = Callable[[], Awaitable[object]]
Note = Callable[[UUID], Awaitable[None]]
Followed = Callable[[], Awaitable[Sequence[Runtime]]]

QUIET_S = 1.0
"""Between the end of a look and the next one."""

AGAIN_S = (0.0, 2.0)
"""An engine tells of an end before its own list does: how long after a look and `QUIET_S` it is
looked again, without another hint."""

NOTED_S = 60.0
"""How often one environment's want of memory is told."""

NEW_RUNTIMES_S = 60.0
MAX_NOTED = 4096

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def nothing_followed() -> Sequence[Runtime]:
    """Follow no runtime."""
    return ()


async def nothing_noted(_environment_id: UUID) -> None:
    """Tell nobody."""


class Hints:
    """Follows runtimes, and looks when they tell something.

    Args:
        followed: Returns the runtimes that environments use.
        look: Looks at all sandboxes, and returns when it has.
        note: Is given each environment in which something was killed for its memory.
        clock: For intervals.
    """

    def __init__(self, followed: Followed, look: Look, note: Note, clock: Clock) -> None:
        self._followed = followed
        self._look = look
        self._note = note
        self._clock = clock
        self._heard = anyio.Event()
        self._exhausted: set[UUID] = set()
        self._noted_at: dict[UUID, float] = {}

    async def run(self) -> None:
        """Follow and look for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_all, tasks)
            again = iter(())
            while True:
                with anyio.move_on_after(next(again, math.inf)):
                    await self._heard.wait()
                    self._heard = anyio.Event()
                    again = iter(AGAIN_S)
                exhausted, self._exhausted = self._exhausted, set()
                await self._look()
                for environment_id in exhausted:
                    await self._tell(environment_id)
                await anyio.sleep(QUIET_S)

    def tell(self, hint: Hint) -> None:
        """Take a hint; many of them are like one."""
        if hint.out_of_memory and hint.environment_id is not None and self._room():
            self._exhausted.add(hint.environment_id)
        self._heard.set()

    def _room(self) -> bool:
        return len(self._exhausted) < MAX_NOTED

    async def _follow_all(self, tasks: TaskGroup) -> None:
        """Follow each runtime that is in use, also those that come into use later."""
        names: set[str] = set()
        while True:
            try:
                found = await self._followed()
            except CraftasticError as error:
                log.info("runtimes in use are not known", reason=error.message)
                await anyio.sleep(FOLLOW_PAUSE_S)
                continue
            except Exception:  # an edge: whatever it is, it must not end the server's work
                log.exception("runtimes in use are not known")
                await anyio.sleep(FOLLOW_PAUSE_S)
                continue
            for runtime in found:
                if runtime.name not in names:
                    names.add(runtime.name)
                    tasks.start_soon(self._follow, runtime)
            await anyio.sleep(NEW_RUNTIMES_S)

    async def _follow(self, runtime: Runtime) -> None:
        while True:
            try:
                await runtime.follow(self.tell)
            except Exception:  # an edge: without hints the interval is enough
                log.exception("runtime is not followed", runtime=runtime.name)
            await anyio.sleep(FOLLOW_PAUSE_S)

    async def _tell(self, environment_id: UUID) -> None:
        now = self._clock.monotonic()
        if now - self._noted_at.get(environment_id, float("-inf")) < NOTED_S:
            return
        if len(self._noted_at) >= MAX_NOTED:
            self._noted_at = {one: at for one, at in self._noted_at.items() if now - at < NOTED_S}
        self._noted_at[environment_id] = now
        log.warning("sandbox at its limit of memory", environment=str(environment_id))
        try:
            await self._note(environment_id)
        except CraftasticError as error:
            log.info("not noted", environment=str(environment_id), reason=error.message)
        except Exception:  # an edge, as above
            log.exception("not noted", environment=str(environment_id))
