"""What tests of terminals stand on: a real tmux session, its hub, and viewers with an emulator."""

import codecs
import copy
import os
import re
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pyte

from craftastic.clock import SystemClock
from craftastic.runtimes.base import Runtime, SandboxRef, Stream
from craftastic.terminals._hub import Hub
from craftastic.terminals._pane import attach_command
from craftastic.terminals._sgr import PLAIN
from craftastic.terminals._snapshot import paint
from craftastic.terminals._viewer import Bytes, Ended, Role, Size, Snapshot, Viewer
from craftastic.tmux.service import TmuxService

WAIT_S = 30.0
SESSION = "work-1"
HISTORY = 200_000
RECENT = 20_000


@dataclass
class FixedLease:
    held: bool = True


async def until(condition: Callable[[], object], what: str, *, timeout_s: float = WAIT_S) -> None:
    """Wait until a condition, plain or async, is true."""
    with anyio.move_on_after(timeout_s):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await anyio.sleep(0.01)
    raise AssertionError(f"did not come true within {timeout_s:.0f} s: {what}")


class _Screen(pyte.HistoryScreen):
    """pyte with the alternate screen, which it lacks."""

    _primary: tuple[Any, Any] | None = None

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private") and 1049 in modes and self._primary is None:
            self._primary = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.buffer.clear()
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        super().reset_mode(*modes, **kwargs)
        if kwargs.get("private") and 1049 in modes and self._primary is not None:
            self.buffer, self.cursor = self._primary
            self._primary = None


class Emulator:
    """pyte, from the last snapshot on. It wraps like tmux and knows no modes but its own."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.screen = _Screen(snapshot.columns, snapshot.rows, history=HISTORY, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        self._stream.use_utf8 = False  # only then it obeys character sets
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.feed(snapshot.data)

    def feed(self, data: bytes) -> None:
        self._stream.feed(self._decoder.decode(data))

    def lines(self) -> list[str]:
        """Return history and screen, without the blanks at line ends."""
        width = self.screen.columns
        top: Any = self.screen.history.top
        history = ["".join(row[x].data for x in range(width)).rstrip() for row in top]
        return [*history, *self.text()]

    def text(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def cursor(self) -> tuple[int, int]:
        # pyte, like xterm, remembers a wrap that is still to come by one column too many.
        return self.screen.cursor.x, self.screen.cursor.y


@dataclass
class Watcher:
    """A viewer that keeps what it got since its last snapshot."""

    hub: Hub
    viewer: Viewer
    snapshot: Snapshot | None = None
    pieces: list[bytes] = field(default_factory=list[bytes])
    following: int = 0
    kinds: list[str] = field(default_factory=list[str])
    recent: bytearray = field(default_factory=bytearray)
    ended: Ended | None = None
    sizes: list[Size] = field(default_factory=list[Size])
    stalled: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    async def run(self) -> None:
        """Take whatever comes, checking that it continues what came before."""
        with self.scope:
            while self.ended is None:
                while self.stalled:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                self.take(await self.viewer.next())

    def take(self, item: object) -> None:
        self.kinds.append(type(item).__name__)
        if isinstance(item, Snapshot):
            self.snapshot, self.pieces, self.following = item, [], item.number
            self._remember(item.data)
        elif isinstance(item, Bytes):
            assert item.number == self.following, "bytes are missing or came twice"
            self.pieces.append(item.data)
            self._remember(item.data)
            self.following += len(item.data)
        elif isinstance(item, Size):
            self.sizes.append(item)
        elif isinstance(item, Ended):
            self.ended = item

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    def emulator(self) -> Emulator:
        assert self.snapshot is not None
        emulator = Emulator(self.snapshot)
        emulator.feed(self.raw)
        return emulator

    def _remember(self, data: bytes) -> None:
        self.recent += data
        del self.recent[:-RECENT]

    def shows(self, text: str) -> bool:
        """Tell whether what came lately contains this text (an emulator would be slow)."""
        return text.encode() in self.recent


@dataclass
class Rig:
    """One sandbox with one tmux session; a `Source` for hubs."""

    runtime: Runtime
    sandbox: SandboxRef
    run_dir: str
    lease: FixedLease = field(default_factory=FixedLease)
    session: str = SESSION
    opened: int = 0

    @property
    def tmux(self) -> TmuxService:
        return TmuxService({self.sandbox.runtime: self.runtime}, 50_000, self.run_dir)

    def open(self) -> AbstractAsyncContextManager[Stream]:
        self.opened += 1
        command = attach_command(self.run_dir, self.tmux.socket(), self.session)
        return self.runtime.open(self.sandbox, command)

    async def alive(self) -> bool:
        return self.session in await self.tmux.names(self.sandbox)

    async def start(self, columns: int = 80, rows: int = 24) -> None:
        await self.tmux.ensure(self.sandbox, self.session, "/tmp", columns=columns, rows=rows)

    async def control(self, *command: str) -> str:
        argv = ["tmux", "-N", "-u", "-S", self.tmux.socket(), *command]
        result = await self.runtime.run(self.sandbox, argv)
        return result.stdout.decode("utf-8", "replace")

    async def lines(self) -> list[str]:
        """Return tmux's own history and screen."""
        text = await self.control("capture-pane", "-p", "-S", "-", "-t", f"={self.session}:")
        return [line.rstrip() for line in text.split("\n")[:-1]]

    async def screen(self) -> tuple[list[str], tuple[int, int]]:
        """Return tmux's own screen and cursor."""
        target = f"={self.session}:"
        text = await self.control("capture-pane", "-p", "-e", "-t", target)
        place = await self.control("display-message", "-p", "-t", target, "#{cursor_x} #{cursor_y}")
        column, row = place.split()
        return _plain(text), (int(column), int(row))

    @asynccontextmanager
    async def hub(self) -> AsyncGenerator["RunningHub"]:
        """Run a hub; leaving lets go of the pane and keeps the session."""
        async with anyio.create_task_group() as tasks:
            hub = Hub(self, self.lease, SystemClock())
            tasks.start_soon(hub.run)
            with anyio.fail_after(WAIT_S):
                await hub.ready.wait()
            yield RunningHub(hub, tasks)
            tasks.cancel_scope.cancel()

    async def end(self) -> None:
        """End the tmux server and what runs in it; only for a sandbox that is the host itself."""
        with anyio.CancelScope(shield=True):
            pids = (await self.control("list-panes", "-a", "-F", "#{pane_pid}")).split()
            await self.control("kill-server")
            for pid in pids:
                await until(
                    lambda one=pid: not os.path.exists(f"/proc/{one}"),  # noqa: PTH110
                    "a shell has ended",
                )


def _plain(capture: str) -> list[str]:
    """Return captured lines without their sequences, line drawing as what it shows."""
    text = paint(capture.encode(), PLAIN)[0].decode()
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;:]*m", "", text).split("\r\n")[:-1]]


@dataclass
class RunningHub:
    hub: Hub
    tasks: Any

    def watch(
        self, role: Role = Role.DRIVE, *, stream: str | None = None, seen: int | None = None
    ) -> Watcher:
        """Attach a viewer that takes what comes, in the background."""
        viewer = self.hub.attach(role, follows=True, stream=stream, seen=seen)
        watcher = Watcher(self.hub, viewer, following=viewer.position or 0)
        self.tasks.start_soon(watcher.run)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Cut a viewer's connection."""
        watcher.scope.cancel()
        self.hub.detach(watcher.viewer)

    def come_back(self, watcher: Watcher) -> Watcher:
        """Attach again where a viewer was when its connection was cut."""
        again = self.watch(stream=self.hub.stream_id, seen=watcher.following)
        if again.viewer.resumed:
            again.snapshot, again.pieces = watcher.snapshot, list(watcher.pieces)
        return again

    async def type(self, watcher: Watcher, text: str) -> None:
        await self.hub.type(watcher.viewer, text.encode())


async def settled(rig: Rig, watcher: Watcher, *, timeout_s: float = WAIT_S) -> None:
    """Wait until a viewer shows exactly tmux's own screen and cursor, or fail with both."""
    mine: object = None
    theirs: object = None
    with anyio.move_on_after(timeout_s):
        while True:
            theirs = await rig.screen()
            if watcher.snapshot is not None:
                emulator = watcher.emulator()
                mine = (emulator.text(), emulator.cursor())
                if mine == theirs:
                    return
            await anyio.sleep(0.05)
    raise AssertionError(f"the viewer shows\n{mine}\nand tmux\n{theirs}")


def kill_later(pid: int) -> None:
    """Kill a process of this test's own on the host, at once."""
    os.kill(pid, signal.SIGKILL)
