"""One session's terminal: the one stream from its pane, and everybody who watches it."""

import re
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.clock import Clock
from craftastic.runtimes.base import RuntimeUnavailable, SandboxExhausted, SandboxGone, Stream
from craftastic.terminals._control import Notice, Reply
from craftastic.terminals._feed import PaneFeed
from craftastic.terminals._output import Output, remember
from craftastic.terminals._pane import PaneConnection, PaneLost
from craftastic.terminals._ring import Ring
from craftastic.terminals._tmux_commands import (
    MAX_COLUMNS,
    MAX_ROWS,
    quote,
    resize,
    send_keys,
    translate_key,
)
from craftastic.terminals._viewer import Ended, Role, Size, Snapshot, Viewer
from craftastic.tmux.service import without_hooks

log = structlog.get_logger(__name__)

RESIZE_INTERVAL_S = 0.1
SNAPSHOT_INTERVAL_S = 0.1
SNAPSHOT_SHARE = 5
"""A snapshot is taken at most once in this many times the time that the last one took."""
QUIET_S = 1.0
MAX_TYPED = 256 << 10
"""Bytes of input that may wait for tmux; whoever types more waits."""
KEY_BYTES = 256
"""What is typed and no longer goes at once, when nothing is before it."""
USABLE_S = 1.0
"""How long what is typed waits for the pane to be made usable for a viewer who came."""
FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 5.0
GIVE_UP_S = 60.0
STABLE_S = 10.0
_PANE = re.compile(rb"%([0-9]{1,9}) ([1-9][0-9]{0,4}) ([1-9][0-9]{0,4})")
_SHAPE = re.compile(rb"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
"""Sizes as tmux tells them, and none that could not be true: what tells may be no tmux at all."""


class Lease(Protocol):
    """The right to the pane's pipe, of which tmux has one for all servers."""

    @property
    def held(self) -> bool: ...


class Source(Protocol):
    """Where a session's pane is."""

    @property
    def session(self) -> str:
        """The tmux session's name."""
        ...

    def open(self) -> AbstractAsyncContextManager[Stream]:
        """Start the pump and its control client in the sandbox."""
        ...

    async def alive(self) -> bool:
        """Tell whether the tmux session still exists."""
        ...


@dataclass(slots=True)
class _Retry:
    """Grows while connections fail one after another."""

    since: float | None = None
    delay_s: float = FIRST_RETRY_S


class Hub:
    """Keeps the stream while `run` runs; viewers pull from it at their own pace.

    Args:
        source: Where the pane is.
        lease: The right to the pane's pipe.
        clock: For intervals.
        history_lines: How much history a snapshot brings at most.
    """

    def __init__(
        self, source: Source, lease: Lease, clock: Clock, *, history_lines: int = 50_000
    ) -> None:
        self.stream_id = uuid.uuid4().hex
        self.viewers: set[Viewer] = set()
        self.size = Size(80, 24)
        self.snapshot: Snapshot | None = None
        self.ended: Ended | None = None
        self.ready = anyio.Event()
        self.typed = False
        self._source = source
        self._lease = lease
        self._clock = clock
        self._history_lines = history_lines
        self._output = Output(clock.monotonic)
        self._connection: PaneConnection | None = None
        self._feed: PaneFeed | None = None
        self._connected = anyio.Event()
        self._wanted = anyio.Event()
        self._came = anyio.Event()
        self._usable = anyio.Event()
        self._wanted_size: Size | None = None
        self._size_wanted = anyio.Event()
        self._size_settled = anyio.Event()
        self._typed_waiting = 0
        self._typed_less = anyio.Event()
        self._lost = PaneLost("")
        self._retry = _Retry()
        self._saved = ""

    # For viewers.

    @property
    def ring(self) -> Ring:
        return self._output.ring

    @property
    def epoch(self) -> int:
        return self._output.epoch

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the pane now."""
        return self._connection is not None

    @property
    def by_pipe(self) -> bool:
        """Whether the bytes come by the pane's pipe now."""
        return self._feed is not None and self._feed.by_pipe

    def want_snapshot(self) -> None:
        self._wanted.set()

    def attach(
        self, role: Role, *, follows: bool, stream: str | None = None, seen: int | None = None
    ) -> Viewer:
        """Add a viewer; it begins with a snapshot unless it goes on where it was.

        Args:
            role: Whether it types and gives a size.
            follows: It wants to be told of sizes that others gave.
            stream: The `stream_id` it knows from before, with `seen`.
            seen: The number of the next byte it wants.
        """
        viewer = Viewer(self, role, self._clock.monotonic, follows=follows)
        if stream == self.stream_id and seen is not None:
            viewer.resume(seen)
        viewer.told(self.size)
        self.viewers.add(viewer)
        if self.ended is None:
            self._usable = anyio.Event()
        self._came.set()
        return viewer

    def detach(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)

    async def type(self, viewer: Viewer, data: bytes) -> None:
        """Type into the pane; waits while tmux has not taken what was typed before.

        What is typed while the stream is being restarted waits for it.
        """
        if viewer.role is not Role.DRIVE or not data:
            return
        self._was_typed(viewer)
        with anyio.move_on_after(USABLE_S):
            await self._usable.wait()
        for chunk in range(0, len(data), MAX_TYPED):
            await self._type(translate_key(data[chunk : chunk + MAX_TYPED]))

    def try_type(self, viewer: Viewer, data: bytes) -> bool:
        """Do what `type` does if that takes no wait (a key's way); else return False."""
        connection, feed = self._connection, self._feed
        if (
            connection is None
            or feed is None
            or viewer.role is not Role.DRIVE
            or not 0 < len(data) <= KEY_BYTES
            or self._typed_waiting + len(data) > MAX_TYPED
            or not self._usable.is_set()
            or self.ended is not None
        ):
            return False
        (line, length), *more = send_keys(feed.pane, translate_key(data))
        if more or not connection.try_send(line, 1, lambda _replies: self._took(length)):
            return False
        self._typed_waiting += length
        self._was_typed(viewer)
        return True

    def _was_typed(self, viewer: Viewer) -> None:
        self.typed = True
        if viewer.size is not None and viewer.size != self.size:
            self._want_size(viewer.size)

    async def _type(self, data: bytes) -> None:
        while self._typed_waiting >= MAX_TYPED and self.ended is None:
            self._typed_less = anyio.Event()
            await self._typed_less.wait()
        while self.ended is None:
            connection, feed = self._connection, self._feed
            if connection is None or feed is None:
                await self._connected.wait()
                continue
            try:
                for line, length in send_keys(feed.pane, data):
                    self._typed_waiting += length
                    await connection.send(line, 1, lambda _replies, n=length: self._took(n))
            except PaneLost:
                return  # how much of it arrived is unknown: typing it again could do harm
            return

    def _took(self, length: int) -> None:
        self._typed_waiting -= length
        if self._typed_waiting < MAX_TYPED:
            self._typed_less.set()

    def resize(self, viewer: Viewer, columns: int, rows: int) -> None:
        """Give the terminal this viewer's size, soon; of many in a row the last counts."""
        if not (1 <= columns <= MAX_COLUMNS and 1 <= rows <= MAX_ROWS):
            return
        viewer.size = Size(columns, rows)
        viewer.told(viewer.size)
        if viewer.role is Role.DRIVE:
            self._want_size(viewer.size)

    def _want_size(self, size: Size) -> None:
        if size != (self._wanted_size or self.size):
            self._wanted_size = size
            self._size_settled = anyio.Event()
            self._size_wanted.set()

    async def has_size(self, size: Size) -> None:
        """Wait until the terminal has this size, or somebody wanted another."""
        while self.ended is None and self._wanted_size == size:
            await self._size_settled.wait()

    def _wake_all(self) -> None:
        for viewer in self.viewers:
            viewer.wake()

    def _more_output(self) -> None:
        for viewer in self.viewers:
            viewer.output()

    # The stream.

    async def run(self) -> None:
        """Hold the stream until the session ends or cannot be reached; then tell the viewers.

        Cancellation ends the connection and leaves the session as it is.
        """
        try:
            while self.ended is None:
                await self._one_connection()
        except Exception:  # an edge: one sandbox's answers must not end everybody's terminals
            log.exception("terminal.failed", session=self._source.session)
            self.ended = Ended(exited=False, message="The terminal failed; connect again.")
        finally:
            self.ended = self.ended or Ended(exited=False, message="Server is restarting")
            self.ready.set()
            self._connected.set()
            self._typed_less.set()
            self._size_settled.set()
            self._usable.set()
            self._wake_all()

    async def _one_connection(self) -> None:
        self._lost = PaneLost("the sandbox's command could not be started")
        started = self._clock.monotonic()
        try:
            async with self._source.open() as stream:
                await self._hold(stream)
        except SandboxGone as error:
            self.ended = Ended(exited=False, message=error.message)
        except (RuntimeUnavailable, SandboxExhausted) as error:
            self._lost = PaneLost(error.message)
        finally:
            self._forget_connection()
        if self.ended is None:
            await self._after_loss(self._clock.monotonic() - started)

    def _forget_connection(self) -> None:
        self._connection = self._feed = None
        self._connected = anyio.Event()
        self._typed_waiting = 0
        self._typed_less.set()
        self._output.cut()
        self._wake_all()

    async def _after_loss(self, lasted_s: float) -> None:
        try:
            if not await self._source.alive():
                self.ended = Ended(exited=True)
                return
        except SandboxGone as error:
            self.ended = Ended(exited=False, message=error.message)
            return
        except (RuntimeUnavailable, SandboxExhausted) as error:
            self._lost = PaneLost(error.message)
        log.info("terminal.stream_lost", session=self._source.session, reason=str(self._lost))
        retry = self._retry
        if lasted_s > STABLE_S or retry.since is None:
            retry.since, retry.delay_s = self._clock.monotonic(), FIRST_RETRY_S
        elif self._clock.monotonic() - retry.since > GIVE_UP_S:
            self.ended = Ended(exited=False, message="The terminal does not answer; try later.")
            return
        await anyio.sleep(retry.delay_s)
        retry.delay_s = min(LONGEST_RETRY_S, retry.delay_s * 2)

    async def _hold(self, stream: Stream) -> None:
        feed = PaneFeed(
            self._output,
            by_pipe=self._lease.held,
            clock=self._clock.monotonic,
            changed=self._more_output,
            broken=self._on_break,
            noticed=self._on_notice,
        )
        connection = PaneConnection(stream, feed)
        async with anyio.create_task_group() as tasks:
            for reader in connection.readers:
                tasks.start_soon(self._until_lost, tasks, reader)
            tasks.start_soon(self._until_lost, tasks, self._serve, connection, feed)

    async def _until_lost(
        self, tasks: TaskGroup, what: Callable[..., Awaitable[None]], *arguments: object
    ) -> None:
        try:
            await what(*arguments)
        except PaneLost as error:
            if not tasks.cancel_scope.cancel_called:
                self._lost = error
        tasks.cancel_scope.cancel()

    async def _serve(self, connection: PaneConnection, feed: PaneFeed) -> None:
        await connection.attached.wait()
        await connection.greeted.wait()
        shape = quote("#{pane_id} #{window_width} #{window_height}")
        target = quote(f"={self._source.session}")
        replies = await connection.call(f"list-panes -s -t {target} -F {shape}".encode())
        feed.pane, self.size = _lowest_pane(replies)
        self._connection, self._feed = connection, feed
        self._connected.set()
        self.ready.set()
        self._wake_all()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_lost, tasks, self._keep_size, connection, feed)
            tasks.start_soon(self._until_lost, tasks, self._keep_modes, connection, feed)
            tasks.start_soon(self._until_lost, tasks, self._keep_way, feed)
            tasks.start_soon(self._until_lost, tasks, self._keep_usable, connection, feed)
            tasks.start_soon(self._until_lost, tasks, self._keep_snapshots, connection, feed)
        raise self._lost

    async def _keep_snapshots(self, connection: PaneConnection, feed: PaneFeed) -> None:
        while True:
            await self._wanted.wait()
            await self._settled()
            self._wanted = anyio.Event()
            began = self._clock.monotonic()
            self.snapshot = snapshot = await feed.take(connection, self._history_lines)
            self.size = Size(snapshot.columns, snapshot.rows)
            self._wake_all()
            took = self._clock.monotonic() - began
            await anyio.sleep(max(SNAPSHOT_INTERVAL_S - took, took * (SNAPSHOT_SHARE - 1)))

    async def _settled(self) -> None:
        """Wait a little for a size that was asked for: a snapshot before it would be for nobody."""
        with anyio.move_on_after(RESIZE_INTERVAL_S * 3):
            while self._wanted_size is not None:
                await self._size_settled.wait()

    async def _keep_size(self, connection: PaneConnection, feed: PaneFeed) -> None:
        while True:
            await self._size_wanted.wait()
            self._size_wanted = anyio.Event()
            if (size := self._wanted_size) is None:
                continue
            replies = await connection.call(resize(feed.pane, size.columns, size.rows))
            if replies[0].ok:
                self.size = size
            if self._wanted_size == size:
                self._wanted_size = None
                self._size_settled.set()
            self._wake_all()
            await anyio.sleep(RESIZE_INTERVAL_S)

    async def _keep_way(self, feed: PaneFeed) -> None:
        """Begin anew by the pipe when it becomes ours, at a quiet moment."""
        while feed.by_pipe or not self._lease.held or feed.quiet_s < QUIET_S:  # noqa: ASYNC110
            await anyio.sleep(QUIET_S)
        raise PaneLost("the pane's pipe is ours now")

    async def _keep_usable(self, connection: PaneConnection, feed: PaneFeed) -> None:
        """Undo, for each viewer who comes, what would keep them from typing into the pane.

        What runs inside may set any option of tmux: a pane that stays when its program has ended,
        hooks on the commands that type, a mode that takes the keys.
        """
        pane = feed.pane
        lines = [" ".join(words) for words in without_hooks()]
        lines += [f"set-option -p -t {pane} remain-on-exit off", f"select-pane -e -t {pane}"]
        while True:
            usable = self._usable
            await connection.call(" ; ".join(lines).encode(), len(lines))
            state = quote("#{?pane_dead,dead,#{?pane_in_mode,mode,}}")
            replies = await connection.call(f"display-message -p -t {pane} {state}".encode())
            if replies[0].body == b"dead":
                await connection.call(f"respawn-pane -t {pane}".encode())
            elif replies[0].body == b"mode":
                await connection.call(f"copy-mode -q -t {pane}".encode())
            usable.set()
            await self._came.wait()
            self._came = anyio.Event()

    async def _keep_modes(self, connection: PaneConnection, feed: PaneFeed) -> None:
        """Leave the modes with the session, where the next server finds them."""
        seen = -1
        while True:
            await anyio.sleep(QUIET_S)
            if self.ring.end == seen:
                continue
            quiet, seen = self.ring.end, self.ring.end
            format_ = quote("#{pane_current_command}")
            replies = await connection.call(f"display-message -p -t {feed.pane} {format_}".encode())
            modes = replace(self._output.tracker.modes, title=b"")
            text = remember(modes, replies[0].body.decode("utf-8", "replace"))
            if text != self._saved and self.ring.end == quiet:
                self._saved = text
                line = f"set-option -p -t {feed.pane} @craftastic_modes {quote(text)}"
                await connection.call(line.encode())

    def _on_break(self) -> None:
        self._wanted.set()
        self._wake_all()

    def _on_notice(self, notice: Notice) -> None:
        if notice.name == "session-changed":
            name = notice.rest.partition(b" ")[2].decode("utf-8", "replace")
            if self.ready.is_set() and name != self._source.session:
                raise PaneLost("tmux went to another session")
        elif notice.name == "layout-change" and (size := _layout_size(notice.rest)):
            self.size = size
            self._wake_all()


def _lowest_pane(replies: list[Reply]) -> tuple[str, Size]:
    """Return the session's oldest pane and its size.

    Raises:
        PaneLost: There is none.
    """
    panes: list[tuple[int, Size]] = []
    for line in replies[0].body.split(b"\n") if replies and replies[0].ok else []:
        if (match := _PANE.fullmatch(line)) is not None:
            number, columns, rows = (int(word) for word in match.groups())
            panes.append((number, Size(columns, rows)))
    if not panes:
        raise PaneLost("the session has no pane")
    number, size = min(panes, key=lambda pane: pane[0])
    return f"%{number}", size


def _layout_size(rest: bytes) -> Size | None:
    """`@0 b25d,80x24,0,0,0 …`: the window's size."""
    try:
        match = _SHAPE.fullmatch(rest.split(b" ")[1].split(b",")[1])
    except IndexError:
        return None
    return None if match is None else Size(int(match[1]), int(match[2]))
