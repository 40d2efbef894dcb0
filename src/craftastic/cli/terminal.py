"""Attaches the user's terminal to a session, and holds on through every cut of the connection."""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.lowlevel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from craftastic.cli._escape_keys import HELP, Action, EscapeKeys
from craftastic.cli._frames import (
    MAX_INPUT_BYTES,
    BadFrame,
    Control,
    Gap,
    Output,
    Position,
    Snapshot,
    decode,
    encode_acknowledge,
    encode_input,
    encode_resize,
    encode_role,
)
from craftastic.cli._reconnect import LOST, Next, Reconnects, Verdict
from craftastic.cli._replies import ReplyFilter
from craftastic.cli._screen import ScreenTracker
from craftastic.cli._tty import OutputThread, RawMode, descriptors, read_some, reset, size
from craftastic.cli.output import printable
from craftastic.cli.remote import TERMINAL_S, Remote, ServerUnreachable, is_local, segment
from craftastic.errors import CraftasticError

SUBPROTOCOL = Subprotocol("craftastic.v2")
RESIZE_QUIET_S = 0.05
ACKNOWLEDGE_BYTES = 64 << 10
MAX_FRAME_BYTES = 64 << 20
MAX_UNWRITTEN_BYTES = 16 << 20
"""Above this much unwritten output the socket is not read: the server is bound to stop before."""

MAX_UNSENT_BYTES = 256 << 10
"""Most typed bytes that wait for the connection; later keys are refused with a bell."""

PING_S = 10.0
LOST_AFTER_S = 20.0
OPEN_TIMEOUT_S = 15.0
SNAPSHOT_NOTICE_S = 3.0
"""After this long without a connection the notice is worth a fresh snapshot, in seconds."""

PIPE_GIVES_UP_S = 300.0
CONTINUE_ONCE_S = 0.5
START_OVER_S = 0.05
NOTICE = "[reconnecting…]"
BELL = b"\x07"


@dataclass(frozen=True, slots=True)
class Target:
    """Which session, and what to call it."""

    session_id: str
    environment_id: str
    label: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How to attach.

    Args:
        read_only: Look without typing and without giving a size.
        detach_keys: Bytes that detach; empty for none.
        timeout_s: Leave after so many seconds; None for never.
    """

    read_only: bool = False
    detach_keys: bytes = b"\x10\x11"
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How it ended: the exit code, and a sentence to say once the terminal is the shell's again."""

    exit_code: int
    message: str | None = None


@dataclass(slots=True)
class _Wake:
    """An event that can be waited for again and again."""

    _event: anyio.Event = field(default_factory=anyio.Event)

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = anyio.Event()


async def attach(remote: Remote, target: Target, manner: Manner) -> End:
    """Be the session's terminal until it ends, the user detaches, or the time is over.

    On a terminal the keys go raw; otherwise input and output are pipes: bytes pass as they are,
    the end of the input ends only the typing. The terminal is given back as it was found however
    this ends; a signal ends it with 128 plus the signal's number.

    Raises:
        CraftasticError: The sign-in has ended.
    """
    reads, writes, is_terminal = descriptors()
    attachment = Attachment(remote, target, manner, reads, writes, is_terminal)
    return await attachment.run()


class Attachment:
    """One attached terminal over all its connections."""

    def __init__(
        self,
        remote: Remote,
        target: Target,
        manner: Manner,
        reads: int,
        writes: int,
        is_terminal: bool,
    ) -> None:
        self._remote = remote
        self._target = target
        self._manner = manner
        self._reads = reads
        self._writes = writes
        self._is_terminal = is_terminal
        self._raw = RawMode(reads)
        self._escapes = EscapeKeys(manner.detach_keys)
        self._replies = ReplyFilter()
        self._screen = ScreenTracker()
        self._reconnects = Reconnects()
        self._position = Position()
        self._end: End | None = None
        self._scope = anyio.CancelScope()
        # Typed and not sent yet.
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._typed = _Wake()
        self._room_to_type = _Wake()
        # Received and not written yet: the bytes, and the number of the byte that follows them.
        self._unwritten: deque[tuple[bytes, int | None]] = deque()
        self._unwritten_bytes = 0
        self._received = _Wake()
        self._room_to_receive = _Wake()
        self._written: int | None = None
        self._acknowledged = 0
        self._due = _Wake()
        self._connection: ClientConnection | None = None
        self._connection_scope: anyio.CancelScope | None = None
        self._fresh_screen = True
        self._pending_resize = _Wake()
        self._noticed: bytes | None = None
        self._was_ready = False
        self._may_type = anyio.Event()
        self._writing = False
        self._snapshots = 0
        self._help_over = anyio.Event()
        self._help_over.set()
        self._last_token = ""
        self._continued_at = 0.0

    async def run(self) -> End:
        self._output = OutputThread(self._writes)
        try:
            if self._is_terminal:
                self._raw.enter()
            with self._scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._watch_signals)
                    group.start_soon(self._write_output)
                    group.start_soon(self._debounce_resizes)
                    group.start_soon(self._read_keys)
                    if self._manner.timeout_s is not None:
                        group.start_soon(self._leave_after, self._manner.timeout_s)
                    await self._keep_connected()
        finally:
            self._output.stop()
            if self._is_terminal:
                with anyio.CancelScope(shield=True):
                    await self._output.last_words(self._goodbye())
                self._raw.leave()
        return self._end or End(1, "The terminal ended for no known reason.")

    def _leave(self, exit_code: int, message: str | None = None) -> None:
        if self._end is None:
            self._end = End(exit_code, message)
        self._scope.cancel()

    async def _leave_after(self, timeout_s: float) -> None:
        await anyio.sleep(timeout_s)
        self._leave(6, f"Left {self._target.label} after {timeout_s:g} s; the session goes on.")

    def _goodbye(self) -> bytes:
        """Return what gives the screen back to the shell, its prompt on a line of its own."""
        alternate = self._screen.alternate
        return reset(alternate=alternate) + (b"" if alternate else b"\r\n")

    # ---- signals --------------------------------------------------------------------------

    async def _watch_signals(self) -> None:
        wanted = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
        if self._is_terminal:
            wanted += [signal.SIGWINCH, signal.SIGCONT]
        with anyio.open_signal_receiver(*wanted) as signals:
            async for number in signals:
                if number == signal.SIGWINCH:
                    self._pending_resize.set()
                elif number == signal.SIGCONT:
                    self._continue()
                else:
                    self._leave(128 + number)

    async def _debounce_resizes(self) -> None:
        while True:
            await self._pending_resize.wait()
            await anyio.sleep(RESIZE_QUIET_S)
            with contextlib.suppress(ConnectionClosed):
                if self._connection is not None:
                    await self._send_size(self._connection)

    async def _send_size(self, connection: ClientConnection) -> None:
        if self._is_terminal and not self._manner.read_only:
            await connection.send(encode_resize(*size(self._writes)))

    async def _suspend(self) -> None:
        """Stop this process as ^Z stops any other; go on with a fresh screen."""
        await self._output.last_words(self._goodbye())
        self._raw.leave()
        os.kill(0, signal.SIGTSTP)
        # The shell has continued us; the signal's receiver does the same where it was not we
        # who stopped the process.
        self._continue()

    def _continue(self) -> None:
        # After a suspension both its caller and the signal come here: once is enough.
        now = time.monotonic()
        if now - self._continued_at > CONTINUE_ONCE_S:
            self._continued_at = now
            self._raw.enter()
            self._start_over()

    def _start_over(self) -> None:
        """Connect anew and want a snapshot: the screen is not what the stream left there."""
        self._position.forget()
        if self._connection_scope is not None:
            self._connection_scope.cancel()

    # ---- keys -----------------------------------------------------------------------------

    async def _read_keys(self) -> None:
        while True:
            keys = await self._next_keys()
            if keys is None:
                # The end of a pipe ends the typing; a terminal at its end is gone.
                if self._is_terminal:
                    self._leave(128 + signal.SIGHUP)
                return
            if not self._is_terminal:
                await self._type(keys)
                continue
            for event in self._escapes.feed(keys):
                if isinstance(event, bytes):
                    await self._type(event)
                else:
                    await self._act(event)

    async def _next_keys(self) -> bytes | None:
        if not self._is_terminal:
            return await read_some(self._reads) or None
        wait_s = self._replies.wait_s
        with anyio.move_on_after(wait_s) if wait_s is not None else contextlib.nullcontext():
            data = await read_some(self._reads)
            return self._replies.feed(data) if data else None
        return self._replies.flush()

    async def _act(self, action: Action) -> None:
        if action is Action.DETACH:
            self._leave(0, f"[detached from {self._target.label}]")
            await anyio.lowlevel.checkpoint()
        elif action is Action.SUSPEND:
            await self._suspend()
        else:
            await self._show_help()

    async def _show_help(self) -> None:
        """Show the help until a key is pressed; what the session prints waits meanwhile.

        The emulator's other screen keeps the shell's one whole. Over a full-screen program, which
        is on that other screen, a fresh snapshot brings it back.
        """
        over_program = self._screen.alternate
        self._help_over = anyio.Event()
        text = (HELP + "Press a key to go on.").replace("\n", "\r\n").encode()
        begin = b"" if over_program else b"\x1b[?1049h"
        await self._output.write(begin + b"\x1b[0m\x1b[H\x1b[2J" + text)
        await read_some(self._reads)
        if over_program:
            self._start_over()
        else:
            await self._output.write(b"\x1b[?1049l")
        self._help_over.set()

    async def _type(self, data: bytes) -> None:
        if self._manner.read_only or not data:
            return
        while self._unsent_bytes >= MAX_UNSENT_BYTES:
            if self._is_terminal and self._connection is None:
                self._queue(BELL, None)
                return
            await self._room_to_type.wait()
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._typed.set()

    # ---- output ---------------------------------------------------------------------------

    def _queue(self, data: bytes, following: int | None) -> None:
        self._unwritten.append((data, following))
        self._unwritten_bytes += len(data)
        self._received.set()

    async def _write_output(self) -> None:
        try:
            while True:
                while self._unwritten:
                    await self._help_over.wait()
                    await self._write_next()
                await self._received.wait()
        except BrokenPipeError:
            self._leave(0 if self._is_terminal else 141)

    async def _write_next(self) -> None:
        data, following = self._unwritten.popleft()
        self._unwritten_bytes -= len(data)
        self._writing = True
        snapshots = self._snapshots
        await self._output.write(data)
        self._writing = False
        # A snapshot that came meanwhile begins another count.
        if following is not None and snapshots == self._snapshots:
            self._screen.feed(data)
            self._written = following
            self._acknowledge_when_due()
        self._room_to_receive.set()

    def _acknowledge_when_due(self) -> None:
        if self._written is not None and (
            not self._unwritten or self._written - self._acknowledged >= ACKNOWLEDGE_BYTES
        ):
            self._due.set()

    def _place_snapshot(self, snapshot: Snapshot) -> None:
        """Show the whole screen; what waits to be written is part of it already."""
        was_alternate = self._screen.alternate
        self._snapshots += 1
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._noticed = None
        self._screen.reset()
        self._acknowledged = 0
        self._written = None
        if self._is_terminal:
            self._queue(reset(alternate=was_alternate) + self._clear(), None)
        self._queue(snapshot.data, snapshot.following)

    def _clear(self) -> bytes:
        if not self._fresh_screen:
            return b"\x1b[H\x1b[2J"
        # What the user's shell had on the screen moves up into the scrollback, not away.
        self._fresh_screen = False
        _columns, rows = size(self._writes)
        return f"\x1b[{rows};1H".encode() + b"\n" * rows + b"\x1b[H\x1b[2J"

    # ---- the notice -----------------------------------------------------------------------

    def _notice(self, lost_for_s: float) -> None:
        """Say that the connection is lost, where that does no harm to the screen."""
        if not self._is_terminal or self._noticed is not None or self._unwritten:
            return
        if self._screen.alternate or not self._screen.between:
            return
        columns, _rows = size(self._writes)
        line = self._screen.line(columns)
        if line is None and lost_for_s < SNAPSHOT_NOTICE_S:
            return
        if line is None:
            # The line under the notice cannot be written again: only a snapshot brings it back.
            self._position.forget()
        self._noticed = line or b""
        self._queue(f"\r\x1b[K{NOTICE}".encode(), None)

    def _take_notice_back(self) -> None:
        if self._noticed is not None:
            self._queue(b"\r\x1b[K" + self._noticed, None)
            self._noticed = None

    # ---- connections ----------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        lost_at = time.monotonic()
        while True:
            started = time.monotonic()
            self._was_ready = False
            self._may_type = anyio.Event()
            code, reason = await self._one_connection()
            now = time.monotonic()
            if code is None:
                await anyio.sleep(START_OVER_S)  # ours to end: a new one at once
                continue
            if self._was_ready:
                lost_at = now
            verdict = self._reconnects.judge(code, reason, now - started)
            await self._follow(verdict, now - lost_at)

    async def _follow(self, verdict: Verdict, lost_for_s: float) -> None:
        if verdict.next is Next.STOP:
            await self._flush()
            message = printable(verdict.message) if verdict.message else None
            self._leave(verdict.exit_code, message or f"[{self._target.label} has ended]")
        elif verdict.next is Next.SIGN_IN:
            await self._renew_token()
        else:
            if not self._is_terminal and lost_for_s > PIPE_GIVES_UP_S:
                self._leave(7, "The connection was lost and does not come back.")
            self._notice(lost_for_s)
            await anyio.sleep(self._reconnects.wait_s())
        await anyio.lowlevel.checkpoint()

    async def _renew_token(self) -> None:
        with contextlib.suppress(ServerUnreachable):
            await self._remote.token(not_this=self._last_token)

    async def _flush(self) -> None:
        """Write what came before the end; a terminal that takes nothing is not waited for."""
        with anyio.move_on_after(5.0 if self._is_terminal else None):
            while self._unwritten or self._writing:
                await self._room_to_receive.wait()

    async def _one_connection(self) -> tuple[int | None, str]:
        """Be connected once; return the close code and reason, or None when it was ours to end."""
        with anyio.CancelScope() as self._connection_scope:
            try:
                async with self._opened() as connection:
                    return await self._converse(connection)
            except CraftasticError as error:
                if not isinstance(error, ServerUnreachable):
                    raise
                return LOST, error.message
            except InvalidStatus as error:
                return LOST, f"The server answered {error.response.status_code}."
            except (OSError, TimeoutError, WebSocketException) as error:
                return LOST, _why(error)
        return None, ""

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[ClientConnection]:
        self._last_token = await self._remote.token(least_s=TERMINAL_S)
        parts = urlsplit(self._remote.url)
        query = {"environmentId": self._target.environment_id, **self._position.query}
        address = parts._replace(
            scheme="wss" if parts.scheme == "https" else "ws",
            path=f"{parts.path}/api/terminal/ws/{segment(self._target.session_id)}",
            query=urlencode(query),
        ).geturl()
        async with connect(
            address,
            # A header, as no browser could: what is in an address gets into logs of proxies.
            additional_headers={"Authorization": f"Bearer {self._last_token}"},
            subprotocols=[SUBPROTOCOL],
            compression=None,
            proxy=None if is_local(self._remote.url) else True,
            max_size=MAX_FRAME_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=PING_S,
            ping_timeout=LOST_AFTER_S,
            close_timeout=1.0,
        ) as connection:
            yield connection

    async def _converse(self, connection: ClientConnection) -> tuple[int | None, str]:
        # First of all who we are and how large: the first snapshot already has our size.
        try:
            if self._manner.read_only:
                await connection.send(encode_role("view"))
            await self._send_size(connection)
            async with anyio.create_task_group() as group:
                self._connection = connection
                group.start_soon(self._send_keys, connection)
                group.start_soon(self._send_acknowledgements, connection)
                await self._receive(connection)
                group.cancel_scope.cancel()
        except ConnectionClosed:
            pass
        finally:
            self._connection = None
            self._room_to_type.set()
        return connection.close_code or LOST, connection.close_reason or ""

    async def _receive(self, connection: ClientConnection) -> None:
        while True:
            while self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
                await self._room_to_receive.wait()
            try:
                frame = decode(await connection.recv())
                self._take(frame)
                if isinstance(frame, Control) and frame.type == "request-resize":
                    await self._send_size(connection)
            except ConnectionClosed:
                return
            except (BadFrame, Gap):
                # Going on would show a screen with a hole; a snapshot shows it whole.
                self._start_over()
                await anyio.lowlevel.checkpoint()

    def _take(self, frame: Output | Snapshot | Control) -> None:
        if isinstance(frame, Snapshot):
            self._position.place(frame)
            self._place_snapshot(frame)
            self._may_type.set()
        elif isinstance(frame, Output):
            fresh = self._position.take(frame)
            if fresh:
                self._take_notice_back()
                self._queue(fresh, self._position.following)
        elif frame.type in {"ready", "stream"}:
            self._position.enter(str(frame.fields.get("stream")))
            if frame.type == "ready":
                self._ready(resumed=frame.fields.get("resumed") is True)

    def _ready(self, *, resumed: bool) -> None:
        self._reconnects.ready()
        self._was_ready = True
        if resumed:
            self._may_type.set()
            self._take_notice_back()
        else:
            # A snapshot follows, and typing waits for it: of a session that keys have ended
            # before, there is nothing left to make one from.
            self._position.following = None

    async def _send_keys(self, connection: ClientConnection) -> None:
        # Keys sent to a connection that the server then refuses would be lost.
        await self._may_type.wait()
        with contextlib.suppress(ConnectionClosed):
            while True:
                while self._unsent:
                    data = self._unsent.popleft()
                    self._unsent_bytes -= len(data)
                    for start in range(0, len(data), MAX_INPUT_BYTES):
                        await connection.send(encode_input(data[start : start + MAX_INPUT_BYTES]))
                    self._room_to_type.set()
                await self._typed.wait()

    async def _send_acknowledgements(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                if self._written is not None and self._written > self._acknowledged:
                    self._acknowledged = self._written
                    await connection.send(encode_acknowledge(self._written))
                await self._due.wait()


def _why(error: BaseException) -> str:
    return f"The terminal cannot be opened: {printable(error) or type(error).__name__}."
