"""The terminal's WebSocket, and the tickets that open it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi import APIRouter, Header, Request
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from craftastic.accounts.current_user import CurrentUser
from craftastic.accounts.service import Caller
from craftastic.errors import CraftasticError, NotFound, Unauthenticated
from craftastic.http.answers import answer_for
from craftastic.http.hosts import origin_allowed
from craftastic.http.policy import SELF_CHECKED
from craftastic.http.sockets import NOT_READ, NOT_READ_REASON
from craftastic.http.wire import Wire
from craftastic.terminals import _protocol as protocol
from craftastic.terminals._attendance import Visit
from craftastic.terminals._tickets import TICKET_TTL_S
from craftastic.terminals._viewer import Ended, Role
from craftastic.terminals.service import Terminal, TerminalService

router = APIRouter()
log = structlog.get_logger(__name__)

EARLY_FRAMES = 64
"""Frames that are kept while the attach goes on; more wait in the connection itself."""
SIGN_IN_CHECK_S = 1.0
"""What is known of a sign-in may be some seconds old itself; both together stay below five."""
FIRST_SIZE_S = 0.25
"""A first snapshot of the viewer's own size is worth this wait."""
FIRST_SHOWN_S = 3.0
"""How long what is typed waits for the terminal's first appearance."""
LAST_WORDS_S = 10.0
"""How long what a client typed before it went away may take to arrive."""
MAX_WAITING_BYTES = 2 << 20
"""Typed bytes of one socket that wait, before the attach or behind the rate; more stay in the
connection itself."""
INPUT_BYTES_PER_S = 1 << 20
INPUT_BURST = 2 << 20
MAX_REASON_BYTES = 120
BEARER = "bearer"
"""Offered as a subprotocol, it is followed by the access token."""


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str
    say: bool = False
    """Whether an error frame comes before the close frame."""


GONE = Close(1000, "")
ENDED = Close(1000, "Terminal session ended")
SIGNED_OUT = Close(1008, "Authentication required")
RESTARTING = Close(1012, "Server is restarting")
TOO_BIG = Close(1009, "Message too big")
TOO_MANY_BAD = Close(1008, "Too many frames that could not be understood")
STALLED = Close(NOT_READ, NOT_READ_REASON)
BAD_TOKEN = Close(1008, "Invalid authentication token")
BAD_TICKET = Close(1008, "Invalid authentication ticket")
READ_ONLY = Close(1008, "Not allowed: this access token may only read")
NO_ENVIRONMENT = Close(1008, "Environment ID required")
NO_SESSION = Close(1008, "Session not found")
BAD_ORIGIN = Close(1008, "Origin not allowed")


class NewTicket(Wire):
    session_id: UUID


class TicketView(Wire):
    ticket: str
    expires_in_ms: int


@router.post("/api/terminal/ticket", tags=["terminals"])
async def create_ticket(
    body: NewTicket,
    caller: CurrentUser,
    request: Request,
    origin: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> TicketView:
    """Get a ticket for `?ticket=` of one terminal's WebSocket: good once, and for 30 seconds."""
    service: TerminalService = request.state.terminals
    ticket = await service.issue_ticket(caller, body.session_id, origin)
    return TicketView(ticket=ticket, expires_in_ms=int(TICKET_TTL_S * 1000))


@router.websocket("/api/terminal/ws/{session_id}", dependencies=[SELF_CHECKED])
async def terminal(socket: WebSocket, session_id: str) -> None:
    """Attach to a session's terminal; refusals are close frames (docs: terminal-protocol)."""
    service: TerminalService = socket.state.terminals
    offered = socket.scope.get("subprotocols", ())
    chosen = next((one for one in (protocol.V2, BEARER) if one in offered), None)
    try:
        await socket.accept(subprotocol=chosen)
    except OSError:
        return  # it went away while the server was busy
    codec = protocol.BinaryCodec() if chosen == protocol.V2 else protocol.JsonCodec()
    connection = Connection(socket, service, codec)
    close = await connection.run(session_id)
    await connection.close(close)


@dataclass(slots=True)
class Connection:
    """One WebSocket from its accept to its close."""

    socket: WebSocket
    service: TerminalService
    codec: protocol.Codec
    sized: anyio.Event = field(default_factory=anyio.Event)
    shown: anyio.Event = field(default_factory=anyio.Event)
    result: Close | None = None
    visit: Visit | None = None
    bad_frames: int = 0
    allowance: float = INPUT_BURST
    allowed_at: float = 0.0
    waiting_bytes: int = 0
    taken: anyio.Event = field(default_factory=anyio.Event)
    attached: Terminal | None = None
    behind: int = 0
    """Frames that `_obey` has not obeyed yet: what comes then waits behind them."""

    async def run(self, session_id: str) -> Close:
        """Serve the socket; return how to close it."""
        send, receive = anyio.create_memory_object_stream[protocol.Message](EARLY_FRAMES)
        with send, receive:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._receive, tasks, send)
                    tasks.start_soon(
                        self._first, tasks, lambda: self._serve(tasks, session_id, receive)
                    )
            except* WebSocketDisconnect:
                self.result = GONE
        return self.result or GONE

    async def close(self, close: Close) -> None:
        """Say why, and close; a client that does not read is not waited for."""
        if self.socket.client_state is not WebSocketState.CONNECTED or close is GONE:
            return
        with anyio.move_on_after(2):
            try:
                if close.say:
                    await self._send(protocol.error(close.reason))
                await self.socket.close(close.code, _short(close.reason))
            except (RuntimeError, WebSocketDisconnect):
                return  # the client was faster

    async def _first(self, tasks: TaskGroup, what: Callable[[], Awaitable[Close]]) -> None:
        """Run one part; the first that ends decides how all end."""
        try:
            close = await what()
        except CraftasticError as error:
            close = _close_for(error)
        self._decide(close)
        tasks.cancel_scope.cancel()

    def _decide(self, close: Close) -> None:
        """Take how the connection is closed, unless that is decided already."""
        if self.result is None:
            self.result = close
            if self.visit is not None:
                self.visit.closed = (close.code, close.reason or "The client went away")

    async def _serve(
        self,
        tasks: TaskGroup,
        session_id: str,
        frames: MemoryObjectReceiveStream[protocol.Message],
    ) -> Close:
        query = self.socket.query_params
        session = _uuid(session_id)
        caller = await self._caller(session)
        if isinstance(caller, Close):
            return caller
        if not query.get("environmentId"):
            return NO_ENVIRONMENT
        environment = _uuid(query["environmentId"])
        if environment is None or session is None:
            return NO_SESSION
        await self.service.look_up(caller, environment, session)
        if not self._origin_allowed():
            return BAD_ORIGIN
        async with self.service.attach(
            caller,
            environment,
            session,
            follows=self.codec.follows,
            stream=query.get("stream"),
            seen=_number(query.get("seen")),
        ) as attached:
            self.visit, self.attached = attached.visit, attached
            log.info("terminal.attached", session=session_id, resumed=attached.viewer.resumed)
            for part in (
                lambda: self._write(attached),
                lambda: self._watch_sign_in(caller),
                self._watch_end,
            ):
                tasks.start_soon(self._first, tasks, part)
            await self._first(tasks, lambda: self._obey(attached, frames))  # it leaves after that
            return GONE

    async def _caller(self, session_id: UUID | None) -> Caller | Close:
        """Return who connects: by ticket, or by access token in any of its three places.

        Raises:
            EmailNotVerified: Their address has to be confirmed first.
        """
        ticket, token = self.socket.query_params.get("ticket"), self._token()
        if not ticket and not token:
            return SIGNED_OUT
        try:
            if ticket:
                origin = self.socket.headers.get("origin")
                caller = await self.service.redeem_ticket(ticket, session_id, origin)
            else:
                caller = await self.service.accounts.authenticate(token)
        except Unauthenticated:
            return BAD_TICKET if ticket else BAD_TOKEN
        self.service.accounts.insist_on_verified(caller)
        return READ_ONLY if caller.scope == "read" else caller

    def _token(self) -> str:
        """Return the access token: of the query, of the header, or offered as a subprotocol."""
        if token := self.socket.query_params.get("token"):
            return token
        scheme, _, token = self.socket.headers.get("authorization", "").partition(" ")
        if scheme.lower() == BEARER:
            return token.strip()
        offered: list[str] = self.socket.scope.get("subprotocols", [])
        return next((token for name, token in pairwise(offered) if name == BEARER), "")

    async def _receive(
        self, tasks: TaskGroup, frames: MemoryObjectSendStream[protocol.Message]
    ) -> None:
        """Read frames from the start on: what comes before the attach is kept."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                if message.get("code") == NOT_READ:
                    await self._first(tasks, _just(STALLED))
                # What was typed before the tab was shut still arrives: `_obey` ends after it.
                frames.close()
                self.shown.set()
                await anyio.sleep(LAST_WORDS_S)
                await self._first(tasks, _just(GONE))
                return
            frame = self.codec.decode(message.get("text"), message.get("bytes"))
            if isinstance(frame, protocol.TooBig):
                await self._first(tasks, _just(TOO_BIG))
            elif isinstance(frame, protocol.Bad):
                self.bad_frames += 1
                if self.bad_frames >= protocol.MAX_BAD_FRAMES:
                    await self._first(tasks, _just(TOO_MANY_BAD))
            elif self.behind or not self._obey_at_once(frame):
                await self._room_for(frame)
                self.behind += 1
                await frames.send(frame)

    async def _room_for(self, frame: protocol.Message) -> None:
        if isinstance(frame, protocol.Typed):
            while self.waiting_bytes and self.waiting_bytes + len(frame.data) > MAX_WAITING_BYTES:
                self.taken = anyio.Event()
                await self.taken.wait()
            self.waiting_bytes += len(frame.data)

    def _obey_at_once(self, frame: protocol.Message) -> bool:
        """Obey a key or an acknowledgement here and now, when nothing keeps it from that.

        A wake of `_obey` and its waits would be half of what the server does for a key.
        """
        attached = self.attached
        if attached is None:
            return False
        match frame:
            case protocol.Typed(data):
                free = self.shown.is_set() and self._allowed(len(data)) >= 0
                if not free or not attached.hub.try_type(attached.viewer, data):
                    return False
                self.allowance -= len(data)
                return True
            case protocol.Acknowledged(number):
                attached.viewer.acknowledge(number)
                return True
            case _:
                return False

    async def _obey(
        self, attached: Terminal, frames: MemoryObjectReceiveStream[protocol.Message]
    ) -> Close:
        hub, viewer = attached.hub, attached.viewer
        async for frame in frames:
            match frame:
                case protocol.Typed(data):
                    self.waiting_bytes -= len(data)
                    self.taken.set()
                    # Typed earlier, an `exit` would end the terminal before it was ever shown.
                    with anyio.move_on_after(FIRST_SHOWN_S):
                        await self.shown.wait()
                    self.shown.set()
                    await self._throttle(len(data))
                    await hub.type(viewer, data)
                case protocol.Resized(columns, rows):
                    hub.resize(viewer, columns, rows)
                    self.sized.set()
                case protocol.Acknowledged(number):
                    viewer.acknowledge(number)
                case protocol.RoleChanged(role):
                    viewer.role = role
                    if role is Role.VIEW:
                        self.sized.set()
                case _:
                    pass
            self.behind -= 1
        return GONE

    def _allowed(self, count: int) -> float:
        """Return how many bytes may still be typed now after `count` more."""
        now = self.service.clock.monotonic()
        grown = self.allowance + (now - self.allowed_at) * INPUT_BYTES_PER_S
        self.allowance, self.allowed_at = min(INPUT_BURST, grown), now
        return self.allowance - count

    async def _throttle(self, count: int) -> None:
        self.allowance = self._allowed(count)
        if self.allowance < 0:
            await anyio.sleep(-self.allowance / INPUT_BYTES_PER_S)

    async def _write(self, attached: Terminal) -> Close:
        hub, viewer = attached.hub, attached.viewer
        for frame in self.codec.attached(
            hub.stream_id, hub.size, viewer.role, resumed=viewer.resumed
        ):
            await self._send(frame)
        if viewer.resumed:
            # What it shows already is enough to type into; there may be nothing new to send.
            self.shown.set()
        else:
            await self._await_size(attached)
        while True:
            item = await viewer.next()
            if isinstance(item, Ended):
                for frame in self.codec.encode(item):
                    await self._send(frame)
                return _close_at(item)
            for frame in self.codec.encode(item):
                await self._send(frame)
            self.shown.set()

    async def _await_size(self, attached: Terminal) -> None:
        with anyio.move_on_after(FIRST_SIZE_S):
            await self.sized.wait()
            if attached.viewer.size is not None:
                await attached.hub.has_size(attached.viewer.size)

    async def _watch_sign_in(self, caller: Caller) -> Close:
        while await self.service.still_signed_in(caller):  # noqa: ASYNC110 - asks a database
            await anyio.sleep(SIGN_IN_CHECK_S)
        return SIGNED_OUT

    async def _watch_end(self) -> Close:
        await self.service.ending.wait()
        return RESTARTING

    async def _send(self, frame: protocol.Frame) -> None:
        kind = "text" if isinstance(frame, str) else "bytes"
        try:
            await self.socket.send({"type": "websocket.send", kind: frame})
        except (WebSocketDisconnect, RuntimeError):
            # `_receive` learns of it too, and ends everything when what was typed has arrived.
            await anyio.sleep_forever()

    def _origin_allowed(self) -> bool:
        settings = self.service.settings
        return origin_allowed(self.socket.headers, (*settings.cors_origin, settings.base_url))


def _just(close: Close) -> Callable[[], Awaitable[Close]]:
    async def result() -> Close:
        return close

    return result


def _close_at(end: Ended) -> Close:
    if end.exited:
        return ENDED
    if end.message == RESTARTING.reason:
        return RESTARTING
    return Close(1011, end.message or "The terminal failed; connect again", say=True)


def _close_for(error: CraftasticError) -> Close:
    if isinstance(error, NotFound):
        return NO_SESSION
    return Close(answer_for(error).close_code, error.message, say=True)


def _short(reason: str) -> str:
    """Cut a reason to what a close frame may carry."""
    return reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004
