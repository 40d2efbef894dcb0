"""The HTTP protocol of the private listener: what one connection of a sandbox may hold."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
IDLE_CONNECTION_S = 15.0


class GatewayProtocol(H11Protocol):
    """uvicorn's protocol, with bounds on what a hostile sandbox can hold open.

    h11, since it bounds a request's head. A connection without a request in progress, or one
    that is closing to a peer that does not read, is dropped within twice `IDLE_CONNECTION_S`;
    connections above `MAX_CONNECTIONS` are dropped at once.
    """

    _check: asyncio.TimerHandle | None = None
    _was_idle: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, or refuse."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._check = self.loop.call_later(IDLE_CONNECTION_S, self._drop_when_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._check is not None:
            self._check.cancel()
        super().connection_lost(exc)

    def _drop_when_idle(self) -> None:
        cycle: Any = self.cycle
        idle = cycle is None or cycle.response_complete or self.transport.is_closing()
        if idle and self._was_idle:
            self.transport.abort()
            return
        self._was_idle = idle
        self._check = self.loop.call_later(IDLE_CONNECTION_S, self._drop_when_idle)
