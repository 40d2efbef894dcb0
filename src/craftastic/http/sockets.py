"""What becomes of a WebSocket whose client is slow, stops reading, or is gone without a word.

A ping that nobody answers tells that a client is gone, as long as nothing lies before it or before
its answer: one that reads slowly gets to it late, and one that sends much answers after that. So it
counts as well whether the client takes, or sends, any bytes at all.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

NOT_READ = 1013
"""Close code for a client that took nothing of what waited for it: try again later."""
NOT_READ_REASON = "Nothing was read for too long; connect again"

PATIENCE = 1.75
"""A client that takes nothing for so many times what it has to answer a ping is given up: before
one is that answers none, which is found so much later as pings are apart."""
LOOKS = 8
"""How often is looked in the time that a client has to answer a ping."""
LINGER_S = 90.0
"""How long what waits, and the close frame behind it, are kept for a client that was given up."""
MOST_LINGERING = 256 << 10
"""Bytes that are kept so for one client; with more its connection is cut at once."""

KERNEL_BYTES = 128 << 10
"""Unsent bytes that the kernel takes: with megabytes there, a slow client would see the past."""

SMALL_MESSAGE = 4 << 10
MOST_WAITING = 16
"""Messages of that many bytes that wait for the application before nothing more is read."""

_ACKNOWLEDGED = struct.Struct("Q")
_ACKNOWLEDGED_AT = 120
"""Where `tcpi_bytes_acked` stands. Source: include/uapi/linux/tcp.h, since Linux 4.1."""


class SocketConnection(WebSocketsSansIOProtocol):
    """One WebSocket; what waits for its client is kept for a bounded time."""

    linger_s: ClassVar[float] = LINGER_S
    _acknowledged = -1
    _moved_at = 0.0
    _sends = False
    """Something came since the answer to a ping was last looked for."""
    _taken = -1
    """What `_acknowledged()` said when it was."""
    _look_timer: asyncio.TimerHandle | None = None
    """Runs while bytes wait for the client."""
    _linger_timer: asyncio.TimerHandle | None = None
    """Runs from the end of the connection until its transport is gone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        one: socket.socket | None = transport.get_extra_info("socket")
        with suppress(OSError):
            if one is not None:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)

    def data_received(self, data: bytes) -> None:
        self._sends = True
        super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """Hand a message on; reading goes on while only a few small ones wait.

        To stop and start it for each key would be two system calls more.
        """
        if self._goes_on_reading():
            # What was read is not stopped by somebody who believes that it is stopped already.
            self.read_paused = True
            super().send_receive_event_to_app()
            self.read_paused = False
        else:
            super().send_receive_event_to_app()

    def _goes_on_reading(self) -> bool:
        small = sum(map(len, self.frames)) <= SMALL_MESSAGE
        return small and not self.read_paused and self.queue.qsize() < MOST_WAITING

    def send_keepalive_ping(self) -> None:
        self._sends, self._taken = False, _acknowledged(self.transport)
        super().send_keepalive_ping()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._look_timer = self._linger_timer = None
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        waits = self.transport.get_write_buffer_size() > 0
        if waits:
            # The ping itself may wait in the queue: whether anything is taken of it counts.
            self._watch()
        sends, self._sends = self._sends, False
        taken, self._taken = self._taken, _acknowledged(self.transport)
        takes = taken != self._taken
        # What is not read yet, because a sandbox is slow to take it, may hold the answer.
        if (waits or sends or takes or self.read_paused) and not self.transport.is_closing():
            self.pong_timer = self.loop.call_later(self._pong_s, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self._linger()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._linger()

    @property
    def _pong_s(self) -> float:
        return self.ping_timeout or 0.0

    def _watch(self) -> None:
        if self._look_timer is None and self._pong_s and not self.close_sent:
            self._acknowledged = _acknowledged(self.transport)
            self._moved_at = self.loop.time()
            self._look_later()

    def _look_later(self) -> None:
        self._look_timer = self.loop.call_later(self._pong_s / LOOKS, self._look)

    def _look(self) -> None:
        self._look_timer = None
        if self.close_sent or not self.transport.get_write_buffer_size():
            return
        acknowledged, now = _acknowledged(self.transport), self.loop.time()
        if acknowledged != self._acknowledged:
            self._acknowledged, self._moved_at = acknowledged, now
        if now - self._moved_at < PATIENCE * self._pong_s:
            self._look_later()
        elif not self.transport.is_closing():
            self._give_up()

    def _give_up(self) -> None:
        self.stop_keepalive()
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": NOT_READ, "reason": NOT_READ_REASON}
        )
        self.conn.send_close(NOT_READ, NOT_READ_REASON)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        self._linger()

    def _linger(self) -> None:
        """Bound the time in which a closed transport waits for its client to take the rest."""
        waiting = self.transport.get_write_buffer_size()
        if waiting > MOST_LINGERING:
            self.transport.abort()
        elif waiting and self._linger_timer is None:
            self._linger_timer = self.loop.call_later(self.linger_s, self.transport.abort)


def _acknowledged(transport: asyncio.Transport) -> int:
    """Return how many bytes the client's machine has taken; -1 where that cannot be told."""
    one: socket.socket | None = transport.get_extra_info("socket")
    try:
        found = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256) if one else b""
        return int(_ACKNOWLEDGED.unpack_from(found, _ACKNOWLEDGED_AT)[0])
    except (OSError, struct.error):
        return -1
