"""Records every start of chosen programs on this machine, as the kernel sees it.

A process that executes a watched file waits until its record is written: none is missed, however
short its life, and whoever has seen a program run finds its record. A file is watched by what it
is, not by its name: another path to it, or another view of the file system, leads to the same.

The watching is a process of its own. A fork in this one would hold Python's lock until its
program is allowed, and the program would wait for the lock.

Source: fanotify(7), fanotify_init(2), fanotify_mark(2).
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASS_CONTENT, CLOEXEC = 0x4, 0x1
MARK_ADD, OPEN_EXEC_PERM, AT_FDCWD = 0x1, 0x0004_0000, -100
ALLOW = 0x1
EVENT = struct.Struct("=IBBHQii")
"""Length, version, reserved, its own length, mask, file, process: fanotify_event_metadata."""

ANSWER = struct.Struct("=iI")
MAX_ANCESTORS = 64
NAMESPACES = ("pid", "mnt")
READY_S = 10.0


def main() -> None:
    """Watch until the input ends. Usage: RECORDS MARK; a line of input is a file to watch too."""
    records, mark = sys.argv[1], sys.argv[2].encode()
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.fanotify_init(CLASS_CONTENT | CLOEXEC, os.O_RDONLY | os.O_CLOEXEC)
    if events < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    here = namespaces("self")
    poll = select.poll()
    poll.register(events, select.POLLIN)
    poll.register(0, select.POLLIN)
    with open(records, "ab", buffering=0) as out:  # noqa: PTH123
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if events in ready:
                answer_all(events, here, mark, out)
            elif not watch_one(libc, events):
                return


def watch_one(libc: Any, events: int) -> bool:
    """Take one name from the input and say how it went; tell whether there was one."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return False
        line += byte
    done = libc.fanotify_mark(
        events, MARK_ADD, ctypes.c_uint64(OPEN_EXEC_PERM), AT_FDCWD, line.rstrip(b"\n")
    )
    said = "watched" if done == 0 else os.strerror(ctypes.get_errno())
    os.write(1, f"{said}\n".encode())
    return True


def answer_all(events: int, here: dict[str, str], mark: bytes, out: Any) -> None:
    """Write down who executes, then let them."""
    raw = os.read(events, 1 << 16)
    at = 0
    while at < len(raw):
        length, _, _, _, _, file, pid = EVENT.unpack_from(raw, at)
        at += length
        if file < 0:
            continue
        try:
            with contextlib.suppress(Exception):  # whatever it is, nobody may be left waiting
                out.write(json.dumps(described(file, pid, here, mark)).encode() + b"\n")
        finally:
            os.write(events, ANSWER.pack(file, ALLOW))
            os.close(file)


def described(file: int, pid: int, here: dict[str, str], mark: bytes) -> dict[str, object]:
    there = namespaces(pid)
    ancestors = list(ancestors_of(pid))
    found: dict[str, object] = {
        "program": os.readlink(f"/proc/self/fd/{file}"),  # noqa: PTH115
        "pid": pid,
        "on_the_host": any(there.get(kind) == here[kind] for kind in NAMESPACES),
        "namespaces": there,
        "ancestors": ancestors,
        "uid": -1,
        "marked": False,
        "line": "",
    }
    # Each by itself: one that cannot be read takes nothing from the others.
    with contextlib.suppress(OSError):
        found["uid"] = Path(f"/proc/{pid}").stat().st_uid
    with contextlib.suppress(OSError):
        found["marked"] = mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    with contextlib.suppress(OSError):
        words = [Path(f"/proc/{one}/cmdline").read_bytes() for one in (pid, *ancestors[:3])]
        found["line"] = " <- ".join(
            word.replace(b"\0", b" ").decode(errors="replace")[:200] for word in words
        )
    return found


def namespaces(pid: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in NAMESPACES:
        with contextlib.suppress(OSError):
            found[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")  # noqa: PTH115
    return found


def ancestors_of(pid: int) -> Iterator[int]:
    """Yield a process's parent, its parent, and so on."""
    for _ in range(MAX_ANCESTORS):
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return
        pid = int(stat.rpartition(b")")[2].split()[1])
        if pid == 0:
            return
        yield pid


@dataclass(frozen=True)
class Start:
    """One start of a watched program.

    Args:
        program: Its file, as the watching process sees it.
        on_the_host: It was in the host's process or mount namespace.
        ancestors: Its parent, its parent's parent, …
        uid: Of its user, as the host counts.
        marked: This test run's mark was in its environment.
        line: The command line of who started it, and its parents'.
    """

    program: str
    pid: int
    on_the_host: bool
    namespaces: dict[str, str]
    ancestors: list[int]
    uid: int
    marked: bool
    line: str

    @property
    def name(self) -> str:
        return Path(self.program).name


class ExecRecorder:
    """Watches git, what belongs to it, and tmux, from `start` to `stop`; needs root.

    Args:
        folder: Where the records are written.
        mark: NAME=VALUE that this test run's processes have in their environment.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._records = folder / "starts"
        self._mark = mark
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Watch from now on.

        Raises:
            OSError: The kernel does not let it.
        """
        self._records.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self._records), self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for file in programs_of_the_host():
                self.watch(file)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let everything go on unseen."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(READY_S)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def watch(self, file: Path) -> None:
        """Watch one more file: a sandbox's own git, by a path that leads there."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{file}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        said = self._process.stdout.readline().strip()
        if said != "watched":
            assert self._process.stderr is not None
            raise OSError(f"{file}: {said or self._process.stderr.read()}")

    @property
    def starts(self) -> list[Start]:
        """What was started so far; a program that runs is always there."""
        return [Start(**json.loads(line)) for line in self._records.read_text().splitlines()]

    def on_the_host(self, server: Iterable[int], tests: int, uids: range = range(0)) -> list[Start]:
        """Return what servers, or sandboxes that they made, started on the host.

        Args:
            server: Process ids of servers.
            tests: Of the tests' own process, whose other children are nobody's business.
            uids: Users of the servers' sandboxes.
        """
        servers = frozenset(server)
        return [
            one for one in self.starts if one.on_the_host and _is_theirs(one, servers, tests, uids)
        ]


def _is_theirs(start: Start, servers: frozenset[int], tests: int, uids: range) -> bool:
    for one in (start.pid, *start.ancestors):
        if one in servers:
            return True
        if one == tests:
            return False
    # Whoever left its parents behind is told by what it cannot have from anybody else.
    return start.marked or start.uid in uids


def programs_of_the_host() -> list[Path]:
    """Return the files of git, of everything in its own folder, and of tmux."""
    found = {Path(path).resolve() for name in ("git", "tmux") if (path := shutil.which(name))}
    where = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    found |= {
        one.resolve()
        for one in Path(where.stdout.strip()).iterdir()
        if one.is_file() and os.access(one, os.X_OK)
    }
    return sorted(found)


if __name__ == "__main__":
    main()
