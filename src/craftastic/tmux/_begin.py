"""The first program of a pane that gets a program of its own: it takes that one and runs it.

A program and what it is to know are too long for tmux's command line, and hold secrets. So they
come through a fifo, like the variables that `_take` reads, and are in no argument, no file and no
environment.

Its text is sent to the sandbox's python3: it imports nothing of this project.

Usage: FIFO SECONDS. What comes are eight digits, the length of the rest, and a JSON object:
`program`, the text to run, and `launch`, which that finds as LAUNCH; RUN_DIR is the fifo's folder.
When they do not come whole and in time, or the program fails, a login shell starts and says so.
"""

import _signal  # pyright: ignore[reportMissingImports]
import os
import select
import stat
import sys
import time

DIGITS = 8
MOST = 4 << 20
CHUNK = 65536
OLD_S = 60
DEFAULT, IGNORE = 0, 1
FROM_TERMINAL = (2, 3, 20)
BACKGROUND = (21, 22)
IGNORED_BY_PYTHON = (13, 25)
"""SIGINT, SIGQUIT, SIGTSTP; SIGTTIN, SIGTTOU; SIGPIPE, SIGXFSZ. Linux's. Source: signal(7)."""

SET_MASK = 2

MISSING = (
    b"craftastic: the agent was not started, its program did not arrive.\n"
    b"This is a shell. End the session and start it again for another try.\n"
)
FAILED = b"craftastic: the agent could not be started here. This is a shell.\n"


def main() -> None:
    """Take the program and run it; become a login shell where that is not possible."""
    for one in FROM_TERMINAL:
        _signal.signal(one, IGNORE)  # a key that is pressed now must not end the pane
    fifo = sys.argv[1]
    taken = take(fifo, float(sys.argv[2]))
    if taken is None:
        os.write(2, MISSING)
    else:
        run_dir = os.path.dirname(fifo)  # noqa: PTH120 - `pathlib` starts slowly
        space = {"__name__": "__main__", "LAUNCH": taken["launch"], "RUN_DIR": run_dir}
        try:
            exec(compile(taken["program"], "craftastic", "exec"), space)  # noqa: S102 - its purpose
        except Exception as error:  # noqa: BLE001 - whatever it is, the pane goes on
            os.write(2, FAILED + f"({type(error).__name__})\n".encode())
    shell = os.environ.get("SHELL") or "/bin/bash"  # noqa: TID251 - the sandbox's
    for one in (*FROM_TERMINAL, *BACKGROUND, *IGNORED_BY_PYTHON):
        _signal.signal(one, DEFAULT)
    _signal.pthread_sigmask(SET_MASK, [])
    os.execv(shell, ["-" + shell.rpartition("/")[2]])  # noqa: S606


def take(path: str, wait_s: float) -> "dict[str, str] | None":
    """Read the fifo to its end and remove it; None when what came is not whole."""
    end = time.monotonic() + wait_s
    got = b""
    try:
        fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        poll = select.poll()
        poll.register(fifo, select.POLLIN)
        while len(got) <= MOST and poll.poll(max(0, end - time.monotonic()) * 1000):
            remove(path)  # the writer has it open: nobody else needs to find it
            data = os.read(fifo, CHUNK)
            if not data:
                break
            got += data
        os.close(fifo)
    except OSError:
        got = b""
    remove(path)
    sweep(os.path.dirname(path))  # noqa: PTH120
    length, text = got[:DIGITS], got[DIGITS:]
    if len(length) < DIGITS or not length.isdigit() or int(length) != len(text):
        return None
    import json  # noqa: PLC0415 - starts slowly, and is not needed where nothing comes

    return json.loads(text)


def remove(path: str) -> None:
    try:  # noqa: SIM105 - `contextlib` starts slowly
        os.unlink(path)  # noqa: PTH108
    except OSError:
        pass


def sweep(folder: str) -> None:
    """Remove the empty fifos of starts that were killed half-way."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith("program.")]  # noqa: PTH208
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
