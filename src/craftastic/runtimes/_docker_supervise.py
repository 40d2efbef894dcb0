"""The program that runs one command inside a container and ends it with its connection.

The engine has no way to end the process of an exec, and leaves it alone when its connection dies.
But it closes the process's input then; so this small parent watches the input for its end and ends
the command. That needs no second exec, which a sandbox at its process limit could not start, and
holds when the server is killed.

Its text is sent to a `python3` in the sandbox: it imports nothing of this project, and only what
starts fast (the public `signal` and `contextlib` would cost 8 ms of each command).

Usage: TOKEN LENGTH COMMAND [ARGUMENT…]. With LENGTH 0 or more, that many bytes of the input are the
command's, which then sees its end; with -1 the command reads the input itself, and the input's end
is the end of the command too.

The first byte on the second output says that the command starts. Both outputs end with a trailer of
TOKEN and exit code: what a command leaves behind may hold its outputs open for long.
"""

import _signal  # pyright: ignore[reportMissingImports]
import errno
import os
import select
import sys

HELLO = b"\x06"
EXHAUSTED = b"\x15"
SPAWN_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
GRACE_MS = 1000
"""How long a command may take to end by itself once its input has ended, in milliseconds."""

CHUNK = 65536
SIGKILL, SIGPIPE, SIGXFSZ, DEFAULT = 9, 13, 25, 0
"""Linux's numbers. Source: signal(7)."""


def main() -> int:
    """Run the command of the argument list and return its exit code as a shell would."""
    token, length, argv = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    theirs = feed = -1
    if length >= 0:
        theirs, feed = os.pipe()
    wait, go = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.write(2, EXHAUSTED)
        return SPAWN_FAILED
    if child == 0:
        start(argv, theirs, wait, go)
    # Said before the command can say anything itself.
    os.write(2, HELLO)
    os.close(go)
    if length >= 0:
        os.close(theirs)
        os.set_blocking(feed, False)
    # The command has copies of its own, and these are not handed on to it.
    outputs = [os.dup(1), os.dup(2)]
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = watch(child, length, feed)
    for one in outputs:
        try:  # noqa: SIM105
            os.write(one, trailer(token, code))
        except OSError:
            pass  # Nobody is left who reads it.
    return code


def trailer(token: str, code: int) -> bytes:
    """Return the last bytes of both outputs; their length is that of every other trailer."""
    return f"\x00{token} {code:03}\n".encode()


def start(argv: list[str], theirs: int, wait: int, go: int) -> None:
    """Become the command, in a session of its own: all of it can be ended, and nothing else."""
    code = NOT_EXECUTABLE
    try:
        os.setsid()
        if theirs >= 0:
            os.dup2(theirs, 0)
        os.close(go)
        os.read(wait, 1)
        for one in (SIGPIPE, SIGXFSZ):
            # Python ignores these, and a command would inherit it.
            _signal.signal(one, DEFAULT)
        os.execvp(argv[0], argv)  # noqa: S606
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR):
            code = NOT_FOUND
        reason = getattr(error, "strerror", None) or str(error)
        os.write(2, f"{argv[0]}: {reason}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def watch(child: int, length: int, feed: int) -> int:
    """Feed the command its input, and wait for its end or the input's, whichever is first."""
    ended = os.pidfd_open(child)
    left, waiting = length, b""
    while True:
        if feed >= 0 and not waiting and left <= 0:
            os.close(feed)
            feed = -1
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        # Without POLLIN, poll still tells that the other end is closed, and reads nothing.
        poll.register(0, select.POLLIN if feed >= 0 and not waiting else 0)
        if feed >= 0:
            poll.register(feed, select.POLLOUT if waiting else 0)
        events = dict(poll.poll())
        if ended in events:
            return reap(child)
        if feed in events:
            written = write_some(feed, waiting, events[feed])
            if written < 0:
                # The command reads no more: the rest of its input is not read either.
                os.close(feed)
                feed, waiting = -1, b""
            else:
                waiting = waiting[written:]
        if events.get(0, 0) & select.POLLIN:
            waiting = os.read(0, min(CHUNK, left))
            left -= len(waiting)
        elif 0 in events:
            return end(child, ended, GRACE_MS if length < 0 else 0)


def write_some(feed: int, waiting: bytes, event: int) -> int:
    """Return how much the command's input took, or -1 when nobody reads it any more."""
    if event & select.POLLERR:
        return -1
    try:
        return os.write(feed, waiting)
    except BrokenPipeError:
        return -1


def end(child: int, ended: int, grace_ms: int) -> int:
    """Wait a moment for a command that ends with its input, then end its whole group."""
    if grace_ms:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll(grace_ms)
    try:  # noqa: SIM105
        os.killpg(child, SIGKILL)
    except ProcessLookupError:
        pass  # It ended by itself just now.
    return reap(child)


def reap(child: int) -> int:
    """Return the exit code of a command that has ended, as a shell counts it."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
