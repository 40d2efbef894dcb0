"""A client that went away while the server was busy is no fault of the server's."""

from typing import Any, NoReturn

from starlette.websockets import WebSocket

from craftastic.terminals.endpoints import terminal


async def test_a_client_that_is_gone_before_it_is_let_in_is_no_fault() -> None:
    tried: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def gone(message: Any) -> NoReturn:
        tried.append(message["type"])
        raise ConnectionResetError

    scope = {"type": "websocket", "headers": [], "state": {"terminals": None}}

    await terminal(WebSocket(scope, receive, gone), "any")

    assert tried == ["websocket.accept"]
