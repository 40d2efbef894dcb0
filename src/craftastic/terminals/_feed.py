"""Snapshots of a pane and the bytes that follow each, over one connection.

The pane's bytes come by one of two ways, both complete. Usually as `%output` of the control
client: ordered with its answers, so a snapshot fits exactly where its answer stands. While a
program floods the only viewer, by the pane's pipe, which is twice as fast: the answer to the
command that starts it tells where it goes on. tmux throws away what a pipe still holds when it
is closed, so the way back is taken when nothing was printed around it, which marks behind the last
byte prove; a snapshot that cannot wait for that cuts the bytes for everybody.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import replace

import anyio
from anyio import to_thread

from craftastic.terminals import _snapshot
from craftastic.terminals._control import Notice, Reply
from craftastic.terminals._output import Mark, Output, recall
from craftastic.terminals._pane import GIVE, PaneConnection, PaneLost
from craftastic.terminals._tmux_commands import quote
from craftastic.terminals._viewer import Snapshot

PIPE_BEGINS_S = 5.0
MARK_S = 2.0
ANSWER_S = 30.0
FLOOD_BYTES = 128 << 10
FLOOD_S = 0.05
MAX_WAITING = 8 << 20
MAX_SNAPSHOT = 6 << 20
SMALL = 256 << 10
FEWEST_LINES = 100
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]+")


class PaneFeed:
    """One connection's way of the bytes; the listener of its `PaneConnection`."""

    def __init__(
        self,
        output: Output,
        *,
        clock: Callable[[], float],
        changed: Callable[[], None],
        broken: Callable[[], None],
        noticed: Callable[[Notice], None],
    ) -> None:
        self.pane = ""
        self.command = ""
        self.flooded = anyio.Event()
        self._output = output
        self._clock = clock
        self._changed = changed
        self._broken = broken
        self._noticed = noticed
        self._one_at_a_time = anyio.Lock()
        self._control = False  # bytes come as `%output`
        self._asked = 0  # the newest generation of the pipe that was asked for
        self._active = 0  # the one whose bytes come, 0 while none do
        self._fresh = True  # the bytes after the next snapshot continue nothing
        self._holding = False  # the pipe's bytes wait for the last of `%output`
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._unchecked = False  # the first byte after a snapshot has not come yet
        self._began = anyio.Event()
        self._marked = anyio.Event()
        self._pipe_bytes = 0
        self._control_bytes = 0
        self._last_at = 0.0
        self._window_at = 0.0
        self._window_bytes = 0
        self._most_lines = 1 << 30

    @property
    def piped(self) -> bool:
        """Whether the bytes come by the pipe."""
        return self._active != 0

    @property
    def quiet_s(self) -> float:
        """How long nothing has been printed, in seconds."""
        return self._clock() - self._last_at

    # What the connection reports, in order.

    def pipe_began(self, generation: int) -> None:
        if generation == self._asked:
            self._active = generation
            self._began.set()

    def pipe_bytes(self, generation: int, data: bytes) -> None:
        self._pipe_bytes += len(data)
        if generation == self._active:
            self._receive(data, piped=True)

    def pipe_ended(self, generation: int, reason: bytes) -> None:
        if generation == self._active:
            self.break_off()  # the pump could not get rid of it, or somebody else took the pipe

    def pipe_marked(self) -> None:
        self._marked.set()

    def control_bytes(self, pane: str, data: bytes) -> None:
        if pane != self.pane or not data:
            return
        self._control_bytes += len(data)
        if self._control:
            self._count(len(data))
            self._receive(data, piped=False)

    def notice(self, notice: Notice) -> None:
        if notice.name == "pause":  # tmux could not get rid of this pane's bytes and dropped them
            self.break_off()
        else:
            self._noticed(notice)

    def break_off(self) -> None:
        """Bytes were lost: what comes next starts with a snapshot."""
        self._cut()
        self._broken()

    def _cut(self) -> None:
        self._active, self._fresh, self._control, self._holding = 0, True, False, False
        self._waiting.clear()
        self._waiting_bytes = 0
        self._output.cut()

    def _count(self, length: int) -> None:
        """Notice a flood: so many bytes in so short a time."""
        if self._window_bytes == 0:
            self._window_at = self._clock()
        self._window_bytes += length
        if self._window_bytes > FLOOD_BYTES:
            if self._clock() - self._window_at < FLOOD_S:
                self.flooded.set()
            self._window_bytes = 0

    def _receive(self, data: bytes, *, piped: bool) -> None:
        self._last_at = self._clock()
        if self._fresh or (piped and self._holding):
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > MAX_WAITING:
                raise PaneLost("the bytes that follow wait for too long")
            return
        if self._unchecked:
            self._unchecked = False
            if data[0] & 0xC0 == 0x80:  # noqa: PLR2004 - the snapshot fell inside a character
                self.break_off()
                return
        if self._output.receive(data):
            self._changed()

    def _release(self) -> None:
        self._holding = False
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for data in waiting:
            self._receive(data, piped=self.piped)

    # What the hub asks for.

    async def take(self, connection: PaneConnection, history_lines: int) -> Snapshot:
        """Take a snapshot; the bytes that follow it come as `%output`.

        Raises:
            PaneLost: The connection ended, the pane is gone, or tmux does not answer.
        """
        async with self._one_at_a_time:
            lines = history_lines
            for _ in range(8):
                lines = min(lines, self._most_lines)
                snapshot = await self._attempt(connection, lines)
                if snapshot is None:
                    continue
                if len(snapshot.data) <= MAX_SNAPSHOT or lines <= FEWEST_LINES:
                    return snapshot
                lines = max(FEWEST_LINES, lines * MAX_SNAPSHOT // len(snapshot.data) * 9 // 10)
            raise PaneLost("no snapshot could be taken")

    async def _attempt(self, connection: PaneConnection, lines: int) -> Snapshot | None:
        start = () if self._control and not self._fresh else self._start()
        request = _snapshot.Request(self.pane, secrets.token_hex(8), lines, start)
        mark: Mark | None = None

        def place() -> None:
            nonlocal mark
            if start:
                self._cut()
                self._control = True
            mark = self._output.mark()

        try:
            answers = await self._ask(connection, request.line(), request.replies, place)
            capture = _snapshot.read(request, answers)
        except _snapshot.SnapshotRefused as error:
            raise PaneLost(f"no snapshot: {error}") from error
        if any(reply.truncated for reply in answers):
            self._most_lines = max(FEWEST_LINES, lines // 4)
            return None
        if mark is None or mark.epoch != self._output.epoch:
            return None  # the bytes broke off in between
        return await self._finish(capture, mark)

    async def _finish(self, capture: _snapshot.Capture, mark: Mark) -> Snapshot | None:
        self.command = capture.command
        tail = b""
        if self._fresh:
            if self._waiting and self._waiting[0][0] & 0xC0 == 0x80 and not capture.pending:  # noqa: PLR2004
                self.break_off()
                return None
            mark, tail = self._begin(capture)
        elif mark.open_command:
            tail = capture.pending[: len(capture.pending) - mark.held]
        self._release()
        modes = mark.modes
        if not modes.title and capture.title:
            modes = replace(modes, title=capture.title)
        build = _snapshot.build
        data = (
            await to_thread.run_sync(build, capture, modes, tail)
            if len(capture.history) > SMALL
            else build(capture, modes, tail)
        )
        return Snapshot(mark.number, mark.epoch, data, capture.columns, capture.height)

    def _begin(self, capture: _snapshot.Capture) -> tuple[Mark, bytes]:
        """Start a run of bytes after this snapshot."""
        output = self._output
        if not output.watched:
            output.tracker.modes = recall(capture.saved_modes, capture.command)
        output.watched = True
        tail = output.prime(capture.pending)
        output.tracker.feed(tail)
        self._fresh = False
        self._unchecked = not self._waiting and not capture.pending
        return output.mark(), tail

    def _start(self) -> tuple[str, ...]:
        start = (
            "refresh-client -f '!no-output,pause-after=1'",
            f"refresh-client -A '{self.pane}:continue'",
        )
        return (*start, f"pipe-pane -t {self.pane}") if self.piped else start

    async def to_pipe(self, connection: PaneConnection) -> None:
        """Let the bytes come by the pipe from now on, if they come as `%output` now.

        Raises:
            PaneLost: The connection ended, or tmux does not answer.
        """
        async with self._one_at_a_time:
            self.flooded = anyio.Event()
            if not self._control or self._fresh:
                return
            if not _PLAIN_PATH.fullmatch(connection.folder):
                raise PaneLost("the pump did not say where it is")
            self._asked += 1
            self._began = anyio.Event()
            self._holding = True
            give = f"exec python3 -I -S -c '{GIVE}' {connection.folder}/give {self._asked}"
            line = f"pipe-pane -O -t {self.pane} {quote(give)} ; refresh-client -f no-output"

            def placed() -> None:
                self._control = False

            # Until the answer is here `%output` goes on; the pipe's bytes wait for it.
            replies = await self._ask(connection, line.encode(), 2, placed)
            with anyio.move_on_after(PIPE_BEGINS_S):
                await self._began.wait()
            if not self._began.is_set() or not replies[-1].ok:
                self.break_off()
            else:
                self._release()

    async def to_control(self, connection: PaneConnection) -> bool:
        """Let the bytes come as `%output` again, if nothing is printed meanwhile.

        Raises:
            PaneLost: The connection ended, or tmux does not answer.
        """
        async with self._one_at_a_time:
            if not self.piped:
                return True
            seen = self._pipe_bytes
            both = "refresh-client -f '!no-output,pause-after=1' ; refresh-client -A "
            both += f"'{self.pane}:continue'"
            self._control_bytes = 0
            await self._ask(connection, both.encode(), 2, lambda: None)
            # The second mark comes after everything that tmux held when the first was written.
            quiet = await self._mark(connection) and await self._mark(connection)
            if quiet and self._pipe_bytes == seen and not self._control_bytes:
                # Whatever is printed from here on comes both ways.
                self._active, self._control = 0, True
                await self._ask(connection, f"pipe-pane -t {self.pane}".encode(), 1, lambda: None)
                return True
            await self._ask(connection, b"refresh-client -f no-output", 1, lambda: None)
            return False

    async def _mark(self, connection: PaneConnection) -> bool:
        self._marked = anyio.Event()
        line = f"run-shell {quote(f'echo >{connection.folder}/mark')}"
        await self._ask(connection, line.encode(), 1, lambda: None)
        with anyio.move_on_after(MARK_S):
            await self._marked.wait()
            return True
        return False

    async def _ask(
        self,
        connection: PaneConnection,
        line: bytes,
        count: int,
        place: Callable[[], None],
    ) -> list[Reply]:
        """Send one line; `place` is called where its answers stand among the pane's bytes."""
        answers: list[Reply] = []
        answered = anyio.Event()

        def finish(replies: list[Reply]) -> None:
            answers.extend(replies)
            place()
            answered.set()

        await connection.send(line, count, finish)
        with anyio.move_on_after(ANSWER_S):
            await answered.wait()
        if not answers:
            raise PaneLost("tmux does not answer")
        return answers
