"""Snapshots of a pane and the bytes that follow each, over one connection.

The pane's bytes come by one of two ways. By the pipe: each snapshot starts a new generation of it
in the same command line, the pump delivers the generations one after the other, and the beginning
of a generation is the place where its snapshot fits. Or, while another server holds the pane's one
pipe, as `%output` of the control client, ordered with its answers.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import anyio
from anyio import to_thread

from craftastic.terminals import _snapshot
from craftastic.terminals._control import Notice, Reply
from craftastic.terminals._output import Mark, Output, recall
from craftastic.terminals._pane import PaneConnection, PaneLost
from craftastic.terminals._tmux_commands import quote
from craftastic.terminals._viewer import Snapshot

PIPE_BEGINS_S = 5.0
ANSWER_S = 30.0
MAX_WAITING = 8 << 20
MAX_SNAPSHOT = 6 << 20
SMALL = 256 << 10
FEWEST_LINES = 100
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]+")


class Lease(Protocol):
    """The right to the pane's pipe, of which tmux has one for all servers."""

    @property
    def held(self) -> bool: ...


class PaneFeed:
    """One connection's way of the bytes; the listener of its `PaneConnection`."""

    def __init__(
        self,
        output: Output,
        lease: Lease,
        *,
        changed: Callable[[], None],
        broken: Callable[[], None],
        noticed: Callable[[Notice], None],
    ) -> None:
        self.pane = ""
        self.command = ""
        self._output = output
        self._lease = lease
        self._changed = changed
        self._broken = broken
        self._noticed = noticed
        self._asked = 0  # the newest generation of the pipe that was asked for
        self._active = 0  # the one whose bytes come now
        self._control = False  # bytes come as `%output`
        self._fresh = True  # the bytes after the next snapshot continue nothing
        self._holding = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._unchecked = False  # the first byte after a snapshot has not come yet
        self._began = anyio.Event()
        self._mark: Mark | None = None
        self._never_watched = True
        self._most_lines = 1 << 30

    @property
    def may_take_pipe(self) -> bool:
        """Whether the pipe became ours while the bytes come the slow way."""
        return self._control and self._lease.held

    # What the connection reports, in order.

    def pipe_began(self, generation: int) -> None:
        if generation == self._asked:
            self._active = generation
            self._mark = self._output.mark()
            self._began.set()

    def pipe_bytes(self, generation: int, data: bytes) -> None:
        if generation == self._active:
            self._receive(data)

    def pipe_ended(self, generation: int, reason: bytes) -> None:
        if generation != self._active:
            return
        self._active = 0
        if self._asked == generation or reason == b"overflow":
            self.break_off()

    def control_bytes(self, pane: str, data: bytes) -> None:
        if self._control and pane == self.pane:
            self._receive(data)

    def notice(self, notice: Notice) -> None:
        if notice.name == "pause":  # tmux did not get rid of this pane's bytes and dropped them
            self.break_off()
        else:
            self._noticed(notice)

    def break_off(self) -> None:
        """Bytes were lost: what comes next starts with a snapshot."""
        self._active, self._fresh = 0, True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._output.cut()
        self._broken()

    def _receive(self, data: bytes) -> None:
        if self._fresh or self._holding:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > MAX_WAITING:
                raise PaneLost("the snapshot takes too long")
            return
        if self._unchecked:
            self._unchecked = False
            if data[0] & 0xC0 == 0x80:  # noqa: PLR2004 - the snapshot fell inside a character
                self.break_off()
                return
        if self._output.receive(data):
            self._changed()

    # What the hub asks for.

    async def take(self, connection: PaneConnection, history_lines: int) -> Snapshot:
        """Take a snapshot; the bytes that follow it come by the way that is open to us.

        Raises:
            PaneLost: The connection ended, the pane is gone, or tmux does not answer.
        """
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
        by_pipe = self._lease.held
        self._began, self._mark = anyio.Event(), None
        start = self._start(connection, by_pipe=by_pipe)
        request = _snapshot.Request(self.pane, secrets.token_hex(8), lines, start)
        was_control, self._holding = self._control, by_pipe and self._control
        was_pipe = by_pipe and not self._fresh and not was_control
        answers: list[Reply] = []
        answered = anyio.Event()

        def finish(replies: list[Reply]) -> None:
            answers.extend(replies)
            if not by_pipe or was_control:  # the place is here, among tmux's answers
                self._mark = self._output.mark()
            if not by_pipe:
                self._active, self._control = 0, True
            elif was_control:
                self._control = False
            answered.set()

        if not by_pipe and self._active:
            self.break_off()  # the pipe is another server's now
        try:
            await connection.send(request.line(), request.replies, finish)
            with anyio.fail_after(ANSWER_S):
                await answered.wait()
            capture = _snapshot.read(request, answers)
            if by_pipe:
                with anyio.fail_after(PIPE_BEGINS_S):
                    await self._began.wait()
        except (TimeoutError, _snapshot.SnapshotRefused) as error:
            # Raised anew, since whoever waits must not take it for a time limit of its own.
            raise PaneLost(f"no snapshot: {error}") from error
        if was_pipe and not capture.numbers["pane_pipe"]:
            self.break_off()  # it had ended before the snapshot: what was printed since is lost
            return None
        if any(reply.truncated for reply in answers):
            self._most_lines = max(FEWEST_LINES, lines // 4)
            return None
        return await self._finish(capture)

    async def _finish(self, capture: _snapshot.Capture) -> Snapshot | None:
        self.command = capture.command
        mark, tail = self._mark, b""
        if mark is None:  # the bytes broke off in between
            return None
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
        big = len(capture.history) > SMALL
        build = _snapshot.build
        data = (
            await to_thread.run_sync(build, capture, modes, tail)
            if big
            else build(capture, modes, tail)
        )
        return Snapshot(mark.number, mark.epoch, data, capture.columns, capture.height)

    def _begin(self, capture: _snapshot.Capture) -> tuple[Mark, bytes]:
        """Start a run of bytes after this snapshot."""
        output = self._output
        if self._never_watched and not output.ring.end:
            output.tracker.modes = recall(capture.saved_modes, capture.command)
        self._never_watched = False
        tail = output.prime(capture.pending)
        output.tracker.feed(tail)
        self._fresh = False
        self._unchecked = not self._waiting and not capture.pending
        return output.mark(), tail

    def _release(self) -> None:
        self._holding = False
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for data in waiting:
            self._receive(data)

    def _start(self, connection: PaneConnection, *, by_pipe: bool) -> tuple[str, ...]:
        if not by_pipe:
            return (
                "refresh-client -f '!no-output,pause-after=1'",
                f"refresh-client -A '{self.pane}:continue'",
            )
        if not _PLAIN_PATH.fullmatch(connection.folder):
            raise PaneLost("the pump did not say where its fifos are")
        self._asked += 1
        fifo = f"{connection.folder}/{self._asked}"
        # The line feed tells that the pipe is there; without its reader there is no fifo to find.
        shell = f"[ -p {fifo} ] && {{ echo; exec cat; }} >{fifo}"
        pipe = f"pipe-pane -O -t {self.pane} {quote(shell)}"
        return (pipe, "refresh-client -f no-output") if self._control else (pipe,)
