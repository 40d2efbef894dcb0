"""One round of steps, side by side: slow ones keep nobody else's from being done meanwhile."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import anyio
import structlog

from craftastic.deployments._repository import Claim
from craftastic.errors import CraftasticError

BESIDE_S = 1.0
"""For so long a round is waited for before what has become due is begun beside it, in seconds."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Under = Mapping[UUID, int]
"""How many steps are under way by owner."""


@dataclass(slots=True)
class Round:
    """Steps of deployments.

    Args:
        claim: Takes what is due, in view of what is under way.
        step: Does one step.
    """

    claim: Callable[[Under], Awaitable[Sequence[Claim]]]
    step: Callable[[Claim], Awaitable[object]]
    _owners: Counter[UUID] = field(default_factory=Counter[UUID])
    _over: anyio.Event = field(default_factory=anyio.Event)

    async def run(self) -> None:
        """Do one step of what is due, and of what becomes due while some of them take long.

        Cancellation leaves what was claimed as it is until the claims run out.

        Raises:
            DatabaseUnavailable: Nothing was begun.
        """
        claims = await self.claim(self._owners)
        async with anyio.create_task_group() as tasks:
            while True:
                self._over = anyio.Event()
                self._owners.update(one.row.owner_id for one in claims)
                for one in claims:
                    tasks.start_soon(self._done, one)
                with anyio.move_on_after(BESIDE_S):
                    if self._owners.total():
                        await self._over.wait()
                if not self._owners.total():
                    return
                claims = await self._more()

    async def _more(self) -> Sequence[Claim]:
        try:
            return await self.claim(self._owners)
        except CraftasticError as error:
            log.warning("no more deployments are looked at for now", reason=error.message)
            return ()

    async def _done(self, claim: Claim) -> None:
        try:
            await self.step(claim)
        except CraftasticError as error:
            log.warning(
                "deployment not looked at", deployment=str(claim.row.id), reason=error.message
            )
        except Exception:  # an edge: one deployment's trouble is not the others'
            log.exception("deployment's step broke", deployment=str(claim.row.id))
        finally:
            self._owners[claim.row.owner_id] -= 1
            if not self._owners.total():
                self._over.set()
