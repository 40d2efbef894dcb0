"""Questions to Coolify: counted, and not asked while it wants to be left alone."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from craftastic.coolify.errors import (
    BadCoolifyUrl,
    CoolifyAbilityMissing,
    CoolifyAddressRefused,
    CoolifyApiOff,
    CoolifyBusy,
    CoolifyNotFound,
    CoolifyRefused,
    CoolifyTokenRejected,
    CoolifyUnavailable,
)
from craftastic.coolify.service import Connected, CoolifyService
from craftastic.errors import CraftasticError
from craftastic.metrics import Metrics

REFUSALS = (
    CoolifyTokenRejected,
    CoolifyApiOff,
    CoolifyAddressRefused,
    CoolifyAbilityMissing,
    CoolifyNotFound,
    CoolifyRefused,
    BadCoolifyUrl,
)
"""Answers by which Coolify has surely done nothing, and will not by being asked again."""


@dataclass(frozen=True, slots=True)
class Calls:
    coolify: CoolifyService
    metrics: Metrics

    async def pause_left(self, connected: Connected, *, to_ask: bool = False) -> float:
        """Return how many seconds a connection is to be left alone.

        Args:
            connected: Which one.
            to_ask: Whether it is for a deployment, which a full queue of them refuses.
        """
        left_s = await self.coolify.pause_left(connected.key)
        if to_ask:
            left_s = max(left_s, await self.coolify.pause_left(_queue_of(connected)))
        return left_s

    async def insist(self, connected: Connected) -> None:
        """Refuse to ask while the connection is to be left alone.

        Raises:
            CoolifyBusy: It is.
        """
        left_s = await self.pause_left(connected)
        if left_s > 0:
            raise CoolifyBusy(retry_after_s=left_s, queue_full=False)

    @asynccontextmanager
    async def counted(self, connected: Connected) -> AsyncGenerator[None]:
        """Count how a call ends, and leave the connection alone where Coolify wants that.

        A full queue takes no deployments; everything else may still be asked.
        """
        try:
            yield
        except CoolifyBusy as error:
            self.metrics.coolify_called("refused")
            key = _queue_of(connected) if error.queue_full else connected.key
            await self.coolify.pause(key, error.retry_after_s)
            raise
        except CoolifyUnavailable:
            self.metrics.coolify_called("unavailable")
            raise
        except REFUSALS:
            self.metrics.coolify_called("refused")
            raise
        self.metrics.coolify_called("ok")


def _queue_of(connected: Connected) -> str:
    return f"{connected.key}/queue"


def words_of(error: CraftasticError) -> str:
    """Return what an error says, with the way on that it knows."""
    return error.message if error.details is None else f"{error.message} {error.details}"
