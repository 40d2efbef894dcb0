"""A client of an app in the same process, without a server around it."""

from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send


class WithState:
    """Gives requests the lifespan state that a server would give them."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": dict(self.state)}, receive, send)


def client_of(app: ASGIApp, **state: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(WithState(app, state))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3000")
