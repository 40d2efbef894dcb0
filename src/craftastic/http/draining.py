"""The end of a server, seen from outside: what is under way ends well, and nothing new begins.

The outermost application of the API's listener. While the server ends it goes on listening, so
that who comes meanwhile reads an answer with a `Retry-After`, and no refused connection.
"""

from uuid import uuid4

import anyio
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from craftastic.errors import Unavailable
from craftastic.http.connection import ABORT
from craftastic.http.errors import REQUEST_ID, respond
from craftastic.http.middleware import SECURITY_HEADERS

ALIVE = frozenset({"/healthz", "/metrics"})
"""What is answered to the end: the process lives, and is watched."""
STOPPING = "SHUTTING_DOWN"
DENIAL = "websocket.http.response"
"""The server can answer the beginning of a WebSocket in HTTP. Source: ASGI, extensions."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Draining:
    """Counts what is under way; on request it lets nothing new begin, and ends what is left."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._is_ending = False
        self._under_way: set[_Request] = set()

    @property
    def under_way(self) -> int:
        """Return how many requests and WebSockets are being answered."""
        return len(self._under_way)

    def begin(self) -> None:
        """Let nothing begin any more: 503 for requests and WebSockets, and the way on."""
        self._is_ending = True

    def cut(self) -> None:
        """End what is still under way; who has no answer yet gets one.

        What a request has asked for is an intent that is stored: the next start goes on with it.
        """
        for request in self._under_way:
            request.scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if self._is_ending and scope["path"] not in ALIVE:
            await _refuse(scope, receive, send, "The server is stopping; try again in a moment.")
            return
        request = _Request(send)
        self._under_way.add(request)
        try:
            with request.scope:
                await self.app(scope, receive, request.send)
        finally:
            self._under_way.discard(request)
        if request.scope.cancelled_caught:
            await _end(scope, receive, send, request)


class _Request:
    """One request or WebSocket that is being answered."""

    def __init__(self, send: Send) -> None:
        self.scope = anyio.CancelScope()
        self.begun = False
        self.ended = False
        self._send = send

    async def send(self, message: Message) -> None:
        self.begun = True
        kind = message["type"]
        self.ended = kind == "websocket.close" or (
            kind == "http.response.body" and not message.get("more_body", False)
        )
        await self._send(message)


async def _end(scope: Scope, receive: Receive, send: Send, request: _Request) -> None:
    log.info("request cut short: the server is stopping", path=scope["path"])
    if not request.begun:
        await _refuse(
            scope,
            receive,
            send,
            "The server is stopping before this was done; what was begun goes on when it is back.",
        )
    elif not request.ended and (abort := scope.get(ABORT)) is not None:
        abort()  # only a cut connection tells that the answer is not whole


async def _refuse(scope: Scope, receive: Receive, send: Send, message: str) -> None:
    scope.setdefault(REQUEST_ID, str(uuid4()))
    error = Unavailable(message)
    error.code = STOPPING  # type: ignore[misc] - a code of the environments' own, one layer up
    answer = respond(scope, error)
    answer.headers.update({**SECURITY_HEADERS, "X-Request-Id": scope[REQUEST_ID]})
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Connection"] = "close"
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif DENIAL in scope.get("extensions", {}):
        await answer(scope, receive, send)  # it sees by the scope what its messages are called
    else:
        await send({"type": "websocket.close", "code": 1012, "reason": "Server restarting"})
