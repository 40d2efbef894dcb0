"""The first process of a local sandbox: it starts commands for the server, inside.

The server cannot enter a sandbox from outside (its namespaces nest), and a fresh one beside it
would have processes of its own, which end with the command: a tmux server could not be left behind.
So process 1 listens on a socket that the server made and that has no name inside. For each
connection it forks a keeper, which takes one request and three descriptors, starts the command,
says how it ended, and ends it when the connection ends: when the server cancels, or dies.

Being process 1, it cannot be killed from inside, and it adopts what commands leave behind. It
cannot be traced either: commands run as the same user, and one that took its listener would
answer in its place.

This file runs inside, by itself: it imports nothing of this project, and it must go on talking to
servers older and newer than itself. Protocol: 4 bytes of length, a JSON object {"argv": […]} with
descriptors 0, 1 and 2; then lines of JSON: {"started": true} or {"error": name, "errno": number},
and {"exit": code}.

Usage: LISTENER LIMITS, with LIMITS a JSON object of RLIMIT names.
"""

import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

MAX_REQUEST_BYTES = 8 << 20
REQUEST_S = 10.0
GRACE_S = 0.5
"""How long a command that is ended may take to clean up, in seconds."""

KILL_ROUNDS = 200
MAX_FD = 4096
SCORE = "500"
"""Commands are killed for want of memory before process 1 is. Source: proc(5), oom_score_adj."""

DUMPABLE, SUBREAPER = 4, 36
"""PR_SET_DUMPABLE and PR_SET_CHILD_SUBREAPER. Source: prctl(2)."""

NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
STREAMS = 3


def main() -> NoReturn:
    """Serve for ever; a connection that goes wrong is nothing to the next one."""
    _prctl(DUMPABLE, 0)
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    # What was needed to come here (namespaces, the filter) is nobody's business inside.
    os.closerange(STREAMS, listener.fileno())
    os.closerange(listener.fileno() + 1, MAX_FD)
    for name, wanted in json.loads(sys.argv[2]).items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))
    # Ignored children are reaped by the kernel: also those that commands leave behind.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.freeze()
    while True:
        with contextlib.suppress(Exception):
            connection, _ = listener.accept()
            with connection:
                _fork_keeper(listener, connection)


def _fork_keeper(listener: socket.socket, connection: socket.socket) -> None:
    try:
        keeper = os.fork()
    except OSError as error:
        connection.setblocking(False)
        _reply(connection, {"error": "exhausted", "errno": error.errno})
        return
    if keeper == 0:
        with contextlib.suppress(BaseException):
            listener.close()
            _keep(connection)
        os._exit(0)


def _keep(connection: socket.socket) -> None:
    """Take one request, run its command, and stay until it has ended."""
    os.setsid()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, _wake)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    _prctl(SUBREAPER, 1)
    connection.settimeout(REQUEST_S)
    request = _receive(connection)
    if request is None:
        return
    argv, streams = request
    trouble, started = os.pipe()
    try:
        command = os.fork()
    except OSError as error:
        _reply(connection, {"error": "exhausted", "errno": error.errno})
        return
    if command == 0:
        _become(argv, streams, started)
    os.close(started)
    for one in streams:
        os.close(one)
    refusal = os.read(trouble, 4)
    if refusal:
        (number,) = struct.unpack("<I", refusal)
        _reply(connection, {"error": "exec", "errno": number})
        return
    _reply(connection, {"started": True})
    code = _watch(command, connection, wake)
    _reply(connection, {"exit": code})


def _receive(connection: socket.socket) -> tuple[list[str], list[int]] | None:
    """Return the argument list and the three streams, or None when nobody asks anything."""
    received, streams, _, _ = socket.recv_fds(connection, 65536, STREAMS)
    for one in streams:
        os.set_inheritable(one, False)
    while len(received) < STREAMS + 1 or len(received) < 4 + _length(received):
        if not received or _length(received) > MAX_REQUEST_BYTES:
            return None
        more = connection.recv(1 << 20)
        if not more:
            return None
        received += more
    if len(streams) != STREAMS:
        return None
    return json.loads(received[4:])["argv"], list(streams)


def _length(received: bytes) -> int:
    return struct.unpack("<I", received[:4])[0] if len(received) >= STREAMS + 1 else 0


def _become(argv: list[str], streams: list[int], started: int) -> NoReturn:
    """Become the command, in a session of its own; say why not, if not."""
    number = errno.EIO
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        # Its own entries in /proc are the sandbox's user's again.
        _prctl(DUMPABLE, 1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
            score.write(SCORE)
        for target, one in enumerate(streams):
            os.dup2(one, target)
        home = os.environ.get("HOME", "/")  # noqa: TID251 - the sandbox's own, not the server's
        os.chdir(home if os.path.isdir(home) else "/")  # noqa: PTH112
        os.execvp(argv[0], argv)  # noqa: S606 - the rest is closed by being close-on-exec
    except OSError as error:
        number = error.errno or number
    except ValueError:
        number = errno.EINVAL
    os.write(started, struct.pack("<I", number))
    os._exit(NOT_EXECUTABLE)


def _watch(command: int, connection: socket.socket, wake: int) -> int:
    """Wait for the end of the command, or of the connection, which ends the command."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(connection, select.POLLIN | select.POLLRDHUP)
    while True:
        code = _reap(command)
        if code is not None:
            return code
        for fd, _ in poll.poll():
            if fd == wake:
                os.read(wake, 4096)
            else:
                return _end(command, poll, wake, connection)


def _end(command: int, poll: Any, wake: int, connection: socket.socket) -> int:
    """End the command and everything that it started, however often it forked."""
    poll.unregister(connection)
    code = SIGNALLED + signal.SIGKILL
    deadline = time.monotonic() + GRACE_S
    for one in _descendants():
        _signal(one, signal.SIGTERM)
        _signal(one, signal.SIGCONT)
    while _descendants() and (left := deadline - time.monotonic()) > 0:
        for _ in poll.poll(int(left * 1000) + 1):
            os.read(wake, 4096)
        code = _reap(command) or code
    for _ in range(KILL_ROUNDS):
        found = _descendants()
        if not found:
            break
        for one in found:
            _signal(one, signal.SIGKILL)
        poll.poll(20)
        _reap(command)
    return code


def _reap(command: int) -> int | None:
    """Reap everything that has ended, and return the command's exit code if it is among it."""
    code = None
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if child == 0:
            return code
        if child == command:
            ended_by = os.WTERMSIG(status)
            code = SIGNALLED + ended_by if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _descendants() -> list[int]:
    """Return what descends from this keeper; orphans come back to it, as it is their reaper."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names, not paths, and many
        if name.isdigit():
            # Whatever ends in between is nobody's descendant any more.
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        mine = children.pop(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process, number)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wake(_number: int, _frame: object) -> None:
    """Do nothing: that there is a handler makes the interpreter write to the wakeup pipe."""


def _reply(connection: socket.socket, answer: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
