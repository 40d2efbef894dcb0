"""Snapshots of a pane and the bytes that follow each, over one connection.

The pane's bytes come by one of two ways. By the pane's pipe, from the moment of a snapshot on: the
command that starts the pipe stands in the snapshot's own line. Or, while another server holds the
pane's one pipe, as `%output` of the control client: half as fast, and ordered with its answers.

A snapshot for one more viewer must not disturb the others, and tmux throws away what a pipe still
holds when it is started anew. So the place of such a snapshot is proved: marks that travel behind
the last byte show that nothing was printed around it. Where a program prints without a pause the
pipe is started anew, and everybody gets the snapshot. (Switching `no-output` on and off instead
does not work: tmux 3.3a stops answering a client that still had output waiting.)
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
UNDISTURBED_S = 1.0
"""So long a snapshot waits for a pause in the output before it disturbs the other viewers."""
PAUSE_S = 0.01
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
        by_pipe: bool,
        clock: Callable[[], float],
        changed: Callable[[], None],
        broken: Callable[[], None],
        noticed: Callable[[Notice], None],
    ) -> None:
        self.pane = ""
        self.command = ""
        self.cuts = 0
        """How often everybody got a snapshot because one viewer needed it."""
        self._output = output
        self._clock = clock
        self._changed = changed
        self._broken = broken
        self._noticed = noticed
        self._by_pipe = by_pipe
        self._asked = 0  # the newest generation of the pipe that was asked for
        self._active = 0  # the one whose bytes come, 0 while none do
        self._control = False  # bytes come as `%output`
        self._fresh = True  # the bytes after the next snapshot continue nothing
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._unchecked = False  # the first byte after a snapshot has not come yet
        self._began = anyio.Event()
        self._marked = anyio.Event()
        self._pipe_bytes = 0
        self._last_at = 0.0
        self._most_lines = 1 << 30

    @property
    def by_pipe(self) -> bool:
        return self._by_pipe

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
            self._receive(data)

    def pipe_ended(self, generation: int, reason: bytes) -> None:
        if generation != self._active or self._asked != generation:
            return
        if reason != b"overflow":
            raise PaneLost("the pane's pipe was taken")
        self.break_off()

    def pipe_marked(self) -> None:
        self._marked.set()

    def control_bytes(self, pane: str, data: bytes) -> None:
        if self._control and pane == self.pane and data:
            self._receive(data)

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
        self._active, self._fresh = 0, True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._output.cut()

    def _receive(self, data: bytes) -> None:
        self._last_at = self._clock()
        if self._fresh:
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
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for data in waiting:
            self._receive(data)

    # What the hub asks for.

    async def take(self, connection: PaneConnection, history_lines: int) -> Snapshot:
        """Take a snapshot; the bytes that follow it come after it.

        Raises:
            PaneLost: The connection ended, the pane is gone, or tmux does not answer.
        """
        lines = history_lines
        deadline = self._clock() + UNDISTURBED_S
        for _ in range(50):
            lines = min(lines, self._most_lines)
            if self._fresh or not self._by_pipe:
                snapshot = await self._attempt(connection, lines)
            elif self._clock() > deadline:
                self.cuts += 1
                self.break_off()
                continue
            else:
                snapshot = await self._undisturbed(connection, lines)
            if snapshot is None:
                continue
            if len(snapshot.data) <= MAX_SNAPSHOT or lines <= FEWEST_LINES:
                return snapshot
            lines = max(FEWEST_LINES, lines * MAX_SNAPSHOT // len(snapshot.data) * 9 // 10)
        raise PaneLost("no snapshot could be taken")

    async def _undisturbed(self, connection: PaneConnection, lines: int) -> Snapshot | None:
        """Take a snapshot beside the running pipe, if nothing is printed meanwhile."""
        epoch = self._output.epoch
        if not await self._mark(connection) or epoch != self._output.epoch:
            return None
        seen = self._pipe_bytes
        capture = await self._capture(connection, lines, (), lambda: None)
        # The second mark comes after everything that tmux held when the first was written.
        still = await self._mark(connection) and await self._mark(connection)
        if capture is None or not still or self._pipe_bytes != seen or epoch != self._output.epoch:
            await anyio.sleep(PAUSE_S)
            return None
        return await self._finish(capture, self._output.mark())

    async def _attempt(self, connection: PaneConnection, lines: int) -> Snapshot | None:
        start = self._start(connection) if self._fresh else ()
        self._began = anyio.Event()
        mark: Mark | None = None

        def place() -> None:
            nonlocal mark
            self._control = not self._by_pipe
            mark = self._output.mark()

        capture = await self._capture(connection, lines, start, place)
        if self._by_pipe:
            with anyio.move_on_after(PIPE_BEGINS_S):
                await self._began.wait()
            if not self._began.is_set():
                raise PaneLost("the pipe did not begin")
        # The pipe and the answers come by two ways: a pipe that ran over may have ended before the
        # answer that the snapshot stands in, and then nothing would ever come after the snapshot.
        ended = self._by_pipe and self._active != self._asked
        if capture is None or mark is None or mark.epoch != self._output.epoch or ended:
            self._break_again()
            return None
        return await self._finish(capture, mark)

    def _break_again(self) -> None:
        """Begin anew: what came since the last attempt has no snapshot."""
        if self._fresh:
            self._cut()

    async def _capture(
        self,
        connection: PaneConnection,
        lines: int,
        start: tuple[str, ...],
        place: Callable[[], None],
    ) -> _snapshot.Capture | None:
        request = _snapshot.Request(self.pane, secrets.token_hex(8), lines, start)
        answers = await self._ask(connection, request.line(), request.replies, place)
        try:
            capture = _snapshot.read(request, answers)
        except _snapshot.SnapshotRefused as error:
            raise PaneLost(f"no snapshot: {error}") from error
        if any(reply.truncated for reply in answers):
            self._most_lines = max(FEWEST_LINES, lines // 4)
            return None
        return capture

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

    def _start(self, connection: PaneConnection) -> tuple[str, ...]:
        if not self._by_pipe:
            return (
                "refresh-client -f '!no-output,pause-after=1'",
                f"refresh-client -A '{self.pane}:continue'",
            )
        if not _PLAIN_PATH.fullmatch(connection.folder):
            raise PaneLost("the pump did not say where it is")
        self._asked += 1
        # From its folder, since a socket's whole path may be 107 bytes long.
        give = f"cd {connection.folder} && exec python3 -I -S -c '{GIVE}' give {self._asked}"
        return (f"pipe-pane -O -t {self.pane} {quote(give)}",)

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
