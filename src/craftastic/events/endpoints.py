"""The stream of events: GET /api/events."""

from collections.abc import Callable, Sequence
from typing import Annotated
from uuid import UUID

import anyio
import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from craftastic.accounts.current_user import CurrentUser
from craftastic.accounts.service import Caller
from craftastic.events.service import MOST_WATCHED_PER_STREAM, EventService, EventStream
from craftastic.http.connection import ABORT

router = APIRouter(prefix="/api/events", tags=["events"])
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

STALLED_S = 60.0
"""How long a client may leave what it was sent unread."""
LAST_WORDS_S = 0.25
"""How long a stream that has to end may take to write that it ends."""
GONE_S = 1.0

MAX_ID_CHARS = 64


async def event_service(request: Request) -> EventService:
    service: EventService = request.state.events
    return service


Events = Annotated[EventService, Depends(event_service)]


@router.get(
    "",
    response_class=Response,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
)
async def follow(
    caller: CurrentUser,
    events: Events,
    last_event_id: Annotated[
        str | None, Header(description="Id of the last event that the client has.")
    ] = None,
    watch: Annotated[
        Sequence[UUID],
        Query(
            max_length=MOST_WATCHED_PER_STREAM,
            description="Sessions that the client shows: what happens in them is told as well.",
        ),
    ] = (),
) -> Response:
    """Follow what changes of the caller's, as it happens (docs: reference/events)."""
    known = None if last_event_id is None else last_event_id[:MAX_ID_CHARS]
    return EventStreamResponse(events, caller, known, watch)


class EventStreamResponse(Response):
    """Writes a stream until the client goes away, or the stream ends.

    A client that does not read cannot be told of the end: its connection is cut.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: EventService,
        caller: Caller,
        last_event_id: str | None,
        watched: Sequence[UUID],
    ) -> None:
        self.events = events
        self.caller = caller
        self.last_event_id = last_event_id
        self.watched = watched
        self.background = None
        self.status_code = 200
        # Proxies that gather what they pass on would hold events back.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Opened here and not in the endpoint: it is sure to be closed.
        with self.events.opened(self.caller, self.last_event_id, self.watched) as stream:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            is_told = False
            async with anyio.create_task_group() as tasks:

                async def until_gone() -> None:
                    await _gone(receive)
                    tasks.cancel_scope.cancel()

                async def until_over() -> None:
                    await stream.over()
                    await anyio.sleep(LAST_WORDS_S)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_gone)
                tasks.start_soon(until_over)
                is_told = await self._write(stream, send)
                tasks.cancel_scope.cancel()
        if not is_told:
            await _cut(scope, receive)

    @staticmethod
    async def _write(stream: EventStream, send: Send) -> bool:
        """Write the stream and its end; False when the client does not read."""
        body = "http.response.body"
        while (chunk := await stream.next()) is not None:
            with anyio.move_on_after(STALLED_S) as stalled:
                await send({"type": body, "body": chunk, "more_body": True})
            if stalled.cancelled_caught:
                log.info("a client does not read its events")
                return False
        await send({"type": body, "body": b"", "more_body": False})
        return True


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut(scope: Scope, receive: Receive) -> None:
    """End a connection without a word: to close it would wait for a client that does not read."""
    abort: Callable[[], None] | None = scope.get(ABORT)
    if abort is not None:
        abort()
    with anyio.move_on_after(GONE_S):
        await _gone(receive)
