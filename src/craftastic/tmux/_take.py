"""The first program of a pane that gets variables: it takes them, then becomes the login shell.

tmux can give variables to a shell in two ways, as arguments and in the session's environment, and
everything in the sandbox can read both. So they come through a fifo of which this program alone
knows when to read it; afterwards they are in the shell's own environment and nowhere else.

Its text is sent to the sandbox's python3: it imports nothing of this project, and only what
starts fast (the public `signal` would cost 8 ms of each start).

Usage: FIFO SECONDS. What comes are eight digits, the length of the rest, and NAME=VALUE pairs, each
ended by a NUL. When they do not come whole and in time, the shell starts without them and says so.
"""

import _signal  # pyright: ignore[reportMissingImports]
import os
import select
import stat
import sys
import time

DIGITS = 8
MOST = 1 << 20
CHUNK = 65536
OLD_S = 60
DEFAULT, IGNORE = 0, 1
FROM_TERMINAL = (2, 3, 20)
IGNORED_BY_PYTHON = (13, 25)
"""SIGINT, SIGQUIT, SIGTSTP; SIGPIPE, SIGXFSZ. Linux's numbers. Source: signal(7)."""

MISSING = (
    b"craftastic: this shell has none of your variables, they did not arrive.\n"
    b"End the session and open it again for another try.\n"
)


def main() -> None:
    """Take the variables and become the shell that tmux would have started by itself."""
    for one in FROM_TERMINAL:
        # A key that somebody presses now is meant for the shell: it must not end the pane.
        _signal.signal(one, IGNORE)
    own = dict(os.environb)
    taken = take(sys.argv[1], float(sys.argv[2]))
    if taken is None:
        os.write(2, MISSING)
    shell = own.get(b"SHELL") or b"/bin/bash"
    name = b"-" + shell.rpartition(b"/")[2]  # how a login shell is called. Source: tmux, spawn.c
    for one in (*FROM_TERMINAL, *IGNORED_BY_PYTHON):
        _signal.signal(one, DEFAULT)
    try:
        os.execve(shell, [name], {**own, **(taken or {})})  # noqa: S606
    except OSError:  # more than the kernel passes on here
        os.write(2, MISSING)
        os.execve(shell, [name], own)  # noqa: S606


def take(path: str, wait_s: float) -> "dict[bytes, bytes] | None":
    """Read the fifo to its end and remove it; None when what came is not whole."""
    end = time.monotonic() + wait_s
    got = b""
    try:
        fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        poll = select.poll()
        poll.register(fifo, select.POLLIN)
        while len(got) <= MOST and poll.poll(max(0, end - time.monotonic()) * 1000):
            # The writer has it open: nobody else needs to find it.
            remove(path)
            data = os.read(fifo, CHUNK)
            if not data:
                break
            got += data
        os.close(fifo)
    except OSError:
        got = b""
    remove(path)
    sweep(os.path.dirname(path))  # noqa: PTH120 - `pathlib` starts slowly
    return parsed(got)


def parsed(got: bytes) -> "dict[bytes, bytes] | None":
    """Return the variables, or None when they are not exactly as long as was announced."""
    length, pairs = got[:DIGITS], got[DIGITS:]
    if len(length) < DIGITS or not length.isdigit() or int(length) != len(pairs):
        return None
    parts = [pair.partition(b"=") for pair in pairs.split(b"\0")[:-1]]
    return {name: value for name, _, value in parts}


def remove(path: str) -> None:
    try:  # noqa: SIM105 - `contextlib` starts slowly
        os.unlink(path)  # noqa: PTH108
    except OSError:
        pass


def sweep(folder: str) -> None:
    """Remove the empty fifos of starts that were killed half-way."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith("variables.")]  # noqa: PTH208
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        try:
            status = os.lstat(path)
        except OSError:
            continue  # its own reader was faster
        if stat.S_ISFIFO(status.st_mode) and time.time() - status.st_mtime > OLD_S:
            remove(path)


if __name__ == "__main__":
    main()
