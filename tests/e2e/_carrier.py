"""A port that carries connections on to a server's, in whatever way."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

BROKEN = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass
class Carrier(ABC):
    to_port: int
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def laid(self) -> AsyncGenerator[Self]:
        """Carry connections as long as the block runs."""
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            self.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - not Django
            group.start_soon(listener.serve, self._carry)
            yield self
            group.cancel_scope.cancel()

    @abstractmethod
    async def _carry(self, near: SocketStream) -> None:
        """Carry one connection until it ends."""
