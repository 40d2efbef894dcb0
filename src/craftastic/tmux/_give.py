"""Gives what comes on its input to whoever reads a fifo, and never to anything else.

A shell's redirection would make a file of the values where the fifo is gone already, and wait for
ever where nobody comes. Its text is sent to the sandbox's python3, like that of `_take`.

Usage: FIFO SECONDS. Ends with 1 when the reader did not come, or did not take everything.
"""

import errno
import os
import select
import stat
import sys
import time

PAUSE_S = 0.002


def main() -> int:
    """Read the whole input, wait for the reader, and write."""
    data = sys.stdin.buffer.read()
    end = time.monotonic() + float(sys.argv[2])
    try:
        fifo = opened(sys.argv[1], end)
        return 0 if fifo >= 0 and written(fifo, data, end) else 1
    except OSError:
        return 1


def opened(path: str, end: float) -> int:
    """Open the fifo as soon as somebody reads it; -1 when nobody did in time."""
    while time.monotonic() < end:
        try:
            fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(PAUSE_S)
        else:
            return fifo if stat.S_ISFIFO(os.fstat(fifo).st_mode) else -1
    return -1


def written(fifo: int, data: bytes, end: float) -> bool:
    """Write everything in time; False when that was not possible."""
    poll = select.poll()
    poll.register(fifo, select.POLLOUT)
    while data and poll.poll(max(0, end - time.monotonic()) * 1000):
        data = data[os.write(fifo, data) :]
    return not data


if __name__ == "__main__":
    sys.exit(main())
