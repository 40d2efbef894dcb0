"""One connection to one pane: control commands in, replies and the pane's raw bytes out."""

import struct
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import anyio

from craftastic.runtimes.base import DirectStream, SandboxGone, Stream
from craftastic.terminals._control import ControlParser, Notice, PaneOutput, Reply
from craftastic.terminals._tmux_commands import TMUX

HEADER = struct.Struct("!BII")
HELLO, DATA, BEGIN, END, EXIT, MARK = 1, 2, 3, 4, 5, 6
LONGEST_FRAME = 1 << 20
LAST = 0x0A
GIVE = (
    "import _socket,sys;s=_socket.socket(1,2);s.connect(sys.argv[1]);"
    "s.sendmsg([sys.argv[2].encode()],[(1,1,bytes(4))])"
)
"""What `pipe-pane` starts: it hands its input, tmux's pipe, over to the pump and ends.

1 is AF_UNIX, SOL_SOCKET and SCM_RIGHTS, 2 is SOCK_DGRAM, and four zero bytes are descriptor 0.
"""


class Listener(Protocol):
    """What happens on the connection, in order; called from its readers, must not wait."""

    def pipe_began(self, generation: int) -> None: ...

    def pipe_bytes(self, generation: int, data: bytes) -> None: ...

    def pipe_ended(self, generation: int, reason: bytes) -> None: ...

    def pipe_marked(self) -> None: ...

    def control_bytes(self, pane: str, data: bytes) -> None: ...

    def notice(self, notice: Notice) -> None: ...


class PaneLost(Exception):
    """The connection ended; the message says why. Hostile text, for logs alone."""


@cache
def pump_source() -> str:
    return (files("craftastic.terminals") / "_pump.py").read_text("utf-8")


def attach_command(run_dir: str, socket: str, session: str) -> list[str]:
    """Return what runs in the sandbox for one connection to the session of that exact name."""
    tmux = [*TMUX, "-S", socket, "-C", "attach-session", "-f", "no-output,ignore-size"]
    return ["python3", "-I", "-S", "-c", pump_source(), run_dir, *tmux, "-t", f"={session}:"]


@dataclass(slots=True)
class _Call:
    wanted: int
    finish: Callable[[list[Reply]], None]
    replies: list[Reply] = field(default_factory=list[Reply])


class PaneConnection:
    """Commands are answered in order; each line's answers are counted off by its command count."""

    def __init__(self, stream: Stream, listener: Listener) -> None:
        self._stream = stream
        self._direct = stream if isinstance(stream, DirectStream) else None
        self._listener = listener
        self._calls: deque[_Call] = deque()
        self._sending = anyio.Lock(fast_acquire=True)
        self._parser = ControlParser()
        self._buffer = bytearray()
        self.message = ""
        self.folder = ""
        self.greeted = anyio.Event()
        """Set when `folder` is known."""
        self.attached = anyio.Event()
        """Set when tmux has made the client one of the session's; before, commands are lost."""

    @property
    def readers(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What reads tmux's answers and the pane's bytes; each runs until the connection ends.

        Raises:
            PaneLost: Each of them, always, in the end.
        """
        return (self._follow,) if self._direct else (self._read_replies, self._read_frames)

    async def _follow(self) -> None:
        assert self._direct is not None
        await self._direct.follow(self._replies, self._frames)
        raise PaneLost(self.message)

    async def _read_replies(self) -> None:
        while data := await self._stream.receive_stdout():
            self._replies(data)
        raise PaneLost(self.message)

    async def _read_frames(self) -> None:
        while data := await self._stream.receive_stderr():
            self._frames(data)
        raise PaneLost(self.message)

    def try_send(self, line: bytes, replies: int, finish: Callable[[list[Reply]], None]) -> bool:
        """Do what `send` does if that takes no wait; else do nothing and return False."""
        direct = self._direct
        if direct is None or self._sending.locked() or not direct.try_send(line + b"\n"):
            return False
        self._calls.append(_Call(replies, finish))
        return True

    async def send(self, line: bytes, replies: int, finish: Callable[[list[Reply]], None]) -> None:
        """Send one command line; `finish` gets its answers, in order with the pane's bytes.

        tmux stops at the first command of a line that fails: then that answer is the last.

        Raises:
            PaneLost: The command in the sandbox has ended.
        """
        async with self._sending:
            self._calls.append(_Call(replies, finish))
            with anyio.CancelScope(shield=True):  # half a line would swallow the next
                try:
                    await self._stream.send(line + b"\n")
                except SandboxGone as error:
                    raise PaneLost(self.message) from error

    async def call(self, line: bytes, replies: int = 1) -> list[Reply]:
        """Send one command line and wait for its answers.

        Raises:
            PaneLost: The command in the sandbox has ended.
        """
        done = anyio.Event()
        answers: list[Reply] = []

        def finish(replies: list[Reply]) -> None:
            answers.extend(replies)
            done.set()

        await self.send(line, replies, finish)
        await done.wait()
        return answers

    def _replies(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, Reply):
                if event.own:
                    self._answer(event)
            elif isinstance(event, PaneOutput):
                self._listener.control_bytes(event.pane, event.data)
            else:
                if event.name == "session-changed":
                    self.attached.set()
                self._listener.notice(event)

    def _answer(self, reply: Reply) -> None:
        if not self._calls:
            raise PaneLost("tmux answered what nobody asked")
        call = self._calls[0]
        call.replies.append(reply)
        if len(call.replies) == call.wanted or not reply.ok:
            self._calls.popleft()
            call.finish(call.replies)

    def _frames(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        position = 0
        pieces: list[bytes] = []
        of = 0
        while len(buffer) - position >= HEADER.size:
            kind, generation, length = HEADER.unpack_from(buffer, position)
            start = position + HEADER.size
            end = start + length
            known = HELLO <= kind <= MARK and length <= LONGEST_FRAME
            if known and end >= len(buffer):
                break
            if not known or buffer[end] != LAST:
                noise = bytes(buffer[position : position + 200]).decode("utf-8", "replace")
                raise PaneLost(f"not a frame of the pump: {noise}")
            if pieces and (kind != DATA or generation != of):
                self._listener.pipe_bytes(of, b"".join(pieces))
                pieces.clear()
            with memoryview(buffer) as view:
                body = bytes(view[start:end])
            if kind == DATA:
                pieces.append(body)
                of = generation
            else:
                self._frame(kind, generation, body)
            position = end + 1
        if pieces:
            self._listener.pipe_bytes(of, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        del buffer[:position]

    def _frame(self, kind: int, generation: int, data: bytes) -> None:
        if kind == BEGIN:
            self._listener.pipe_began(generation)
        elif kind == END:
            self._listener.pipe_ended(generation, data)
        elif kind == MARK:
            self._listener.pipe_marked()
        elif kind == HELLO:
            self.folder = data.decode("utf-8", "replace")
            self.greeted.set()
        else:
            self.message = data.decode("utf-8", "replace").strip()
