"""A line between a browser and a server that breaks where a test says."""

import contextlib
import socket
import struct
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from tests.e2e._carrier import BROKEN, Carrier

CHUNK = 1 << 16
TERMINAL = b"GET /api/terminal/ws/"
FOR_A_TERMINAL = b" /api/terminal/"
"""Its socket, or a ticket for it."""

REQUEST_S = 1.0
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing forgets what waits and sends a reset, as a lost network does."""


@dataclass
class BreakingLine(Carrier):
    """Carries connections to a server's port, and resets them all at given moments.

    A moment is a number of bytes that went to terminals so far, on all their connections together:
    it comes in the midst of output, and of frames, however busy the machine is.
    """

    moments: list[int] = field(default_factory=list[int])
    """Still to come, in order."""

    carried: int = 0
    """Bytes that went to terminals."""

    terminals: int = 0
    """Connections that terminals made."""

    refused: int = 0
    """Tries of terminals to come back while the line was cut."""

    is_cut: bool = False
    _pairs: set[tuple[SocketStream, SocketStream]] = field(
        default_factory=set[tuple[SocketStream, SocketStream]]
    )

    async def reset(self) -> None:
        """Break off every connection that there is; new ones are carried."""
        for pair in list(self._pairs):
            for stream in pair:
                raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django
                with contextlib.suppress(OSError):  # its other end was quicker, and it is closed
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                await anyio.aclose_forcefully(stream)

    async def cut(self) -> None:
        """Break off every connection and take no new one until `mend`."""
        self.is_cut = True
        await self.reset()

    def mend(self) -> None:
        self.is_cut = False

    async def _carry(self, near: SocketStream) -> None:
        if self.is_cut:
            await self._refuse(near)
            return
        try:
            far = await anyio.connect_tcp("127.0.0.1", self.to_port)
        except OSError:
            await anyio.aclose_forcefully(near)
            return
        pair = (near, far)
        self._pairs.add(pair)
        try:
            async with near, far:
                await self._carry_pair(near, far)
        finally:
            self._pairs.discard(pair)

    async def _refuse(self, near: SocketStream) -> None:
        with contextlib.suppress(*BROKEN), anyio.move_on_after(REQUEST_S):
            self.refused += FOR_A_TERMINAL in (await near.receive(CHUNK)).partition(b"\r\n")[0]
        await anyio.aclose_forcefully(near)

    async def _carry_pair(self, near: SocketStream, far: SocketStream) -> None:
        try:
            begin = await near.receive(CHUNK)
            await far.send(begin)
        except BROKEN:
            return
        counted = begin.startswith(TERMINAL)
        self.terminals += counted
        async with anyio.create_task_group() as group:
            group.start_soon(self._copy, near, far, group, False)
            group.start_soon(self._copy, far, near, group, counted)

    async def _copy(
        self, one: SocketStream, other: SocketStream, group: TaskGroup, counted: bool
    ) -> None:
        try:
            while True:
                data = await one.receive(CHUNK)
                await (self._count(data, other) if counted else other.send(data))
        except BROKEN:
            group.cancel_scope.cancel()

    async def _count(self, data: bytes, to: SocketStream) -> None:
        """Pass on what goes to a terminal, up to the next moment, at which all breaks."""
        room = self.moments[0] - self.carried if self.moments else len(data)
        self.carried += min(len(data), room)
        await to.send(data[:room])
        if room < len(data):
            self.moments.pop(0)
            await self.reset()
