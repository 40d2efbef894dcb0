"""The user's terminal: raw mode that is always undone, and output that never blocks the loop."""

import asyncio
import os
import queue
import sys
import termios
import threading
import tty
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

PIECE_BYTES = 4096
"""Most bytes of one write: a detach during a slow one waits for no more than this."""

# Mouse and focus reports off, bracketed paste off, cursor on.
QUIET_MODES = b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?25h"
# Colours and kitty's keyboard flags as they were, the keypad and the cursor keys in their normal
# modes; the scroll region last: it sends the cursor home, so its place is kept around it.
PLAIN_MODES = b"\x1b[0m\x1b[<u\x1b[?1l\x1b>\x1b7\x1b[r\x1b8"


def reset(*, alternate: bool) -> bytes:
    """Return what undoes the modes that programs set.

    Leaving the alternate screen restores the cursor that was saved on entering it, even where
    nobody is on it; then its present place is kept around that. xterm keeps one saved place for
    both, tmux one for each and goes to where the last full-screen program began.
    """
    leave = b"\x1b[?1049l"
    return QUIET_MODES + (leave if alternate else b"\x1b7" + leave + b"\x1b8") + PLAIN_MODES


@dataclass(slots=True)
class RawMode:
    """Switches a terminal between the shell's mode and raw, as often as wanted.

    Args:
        descriptor: Of the terminal.
    """

    descriptor: int
    _before: list[Any] | None = None

    def enter(self) -> None:
        """Pass every key on as it is; what was typed ahead stays in the queue."""
        if self._before is None:
            self._before = termios.tcgetattr(self.descriptor)
        # TCSADRAIN would wait for output that a stopped terminal never takes.
        tty.setraw(self.descriptor, termios.TCSANOW)

    def leave(self) -> None:
        """Give the terminal back as it was found; repeated, nothing happens."""
        if self._before is not None:
            before, self._before = self._before, None
            try:
                termios.tcsetattr(self.descriptor, termios.TCSANOW, before)
            except termios.error:
                return  # the terminal is gone: its window was closed


def size(descriptor: int) -> tuple[int, int]:
    """Return columns and rows; 80 by 24 where the terminal does not know."""
    try:
        found = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return found.columns or 80, found.lines or 24


class OutputThread:
    """Writes to a descriptor in a thread of its own.

    The descriptor stays blocking, since its flags are shared with the user's shell; a terminal
    that takes nothing (Ctrl-S, a slow line) then stops this thread and nobody else. The thread
    ends with the process.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[bytes, Callable[[], None]]] = queue.SimpleQueue()
        self._stopped = False
        self.broken = False
        threading.Thread(target=self._run, name="craftastic-output", daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Return when the bytes are written; cancelled, the piece under way may still appear.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        for start in range(0, len(data), PIECE_BYTES):
            await self._write(data[start : start + PIECE_BYTES])

    async def _write(self, piece: bytes) -> None:
        written = anyio.Event()
        self._work.put((piece, written.set))
        await written.wait()
        if self.broken:
            raise BrokenPipeError("standard output was closed")

    def stop(self) -> None:
        """Drop what is not written yet."""
        self._stopped = True

    async def last_words(self, data: bytes, timeout_s: float = 0.5) -> None:
        """Write after everything else, unless the terminal takes nothing; then go without."""
        self._stopped = False
        with anyio.move_on_after(timeout_s, shield=True):
            written = anyio.Event()
            self._work.put((data, written.set))
            await written.wait()

    def _run(self) -> None:
        while True:
            piece, done = self._work.get()
            try:
                while piece and not self._stopped and not self.broken:
                    piece = piece[os.write(self._descriptor, piece) :]
            except OSError:
                self.broken = True
            try:
                self._loop.call_soon_threadsafe(done)
            except RuntimeError:
                return  # the loop has ended


async def read_some(descriptor: int, most: int = 64 << 10) -> bytes:
    """Return what can be read, waiting for the first byte; b"" at the end.

    A file or /dev/null cannot be waited for and is always ready.
    """
    try:
        await anyio.wait_readable(descriptor)
    except PermissionError:
        await anyio.lowlevel.checkpoint()
    try:
        return os.read(descriptor, most)
    except OSError:
        return b""  # the terminal was hung up


def descriptors() -> tuple[int, int, bool]:
    """Return the descriptors of input and output, and whether both are a terminal."""
    reads, writes = sys.stdin.fileno(), sys.stdout.fileno()
    return reads, writes, os.isatty(reads) and os.isatty(writes)
