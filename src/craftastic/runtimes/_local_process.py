"""Processes of local sandboxes on the host: started, recognised again, and ended.

A process id alone says nothing after a while: the number may be another's. What is written down is
the id with the time it was started at, the boot of the machine and its process namespace; signals
go by way of a descriptor that is opened first and checked then.

Source: proc(5) (field 22 of stat, boot_id), pidfd_open(2), pidfd_send_signal(2).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from craftastic.runtimes.base import RuntimeUnavailable

START_TIME_FIELD = 22
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE = "state.json"
MAX_STATE_BYTES = 65536
POLL_S = 0.004


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told from every other one that had or will have its number."""

    pid: int
    started: int
    boot: str
    namespace: str = ""

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Return who has this number now, or None."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started, boot_id(), _namespace(pid))

    def alive(self) -> bool:
        """Report whether that very process still runs; a zombie does not.

        Raises:
            RuntimeUnavailable: Nothing can be looked at now.
        """
        return (
            self.boot == boot_id()
            and _start_time(self.pid) == self.started
            # Where it cannot be read (a process that shut itself in), the rest has to do.
            and _namespace(self.pid) in {"", self.namespace}
        )

    def end(self, wait_s: float) -> bool:
        """Kill that process and wait for its end; True when it is gone. Blocks."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return not self.alive()
        try:
            if not self.alive():  # The number was another's when the descriptor was opened.
                return True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            return _wait(self.pid, handle, wait_s)
        finally:
            os.close(handle)

    def wait(self, wait_s: float) -> bool:
        """Wait for that process's end; True when it is gone. Blocks."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return not self.alive()
        try:
            return not self.alive() or _wait(self.pid, handle, wait_s)
        finally:
            os.close(handle)


def _wait(pid: int, handle: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    ended = bool(poll.poll(int(wait_s * 1000)))
    # It is this server's child unless the server was restarted meanwhile.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return ended


def boot_id() -> str:
    """Return the name of this run of the machine."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError as error:
        raise _not_seen(error) from error


def _not_seen(error: OSError) -> RuntimeUnavailable:
    """Tell that nothing is known: a server without a free descriptor must take nothing for dead."""
    return RuntimeUnavailable(f"The sandboxes cannot be looked at: {error.strerror}")


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise _not_seen(error) from error
    # The name, which may hold anything, is field 2; what is split here begins with field 3.
    return None if fields[0] in (b"Z", b"X") else int(fields[START_TIME_FIELD - 3])


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one sandbox when the server that started it is gone.

    Args:
        instance: The installation it belongs to.
        environment_id: The environment.
        owner_id: The user.
        name: The environment's name.
        init: Its first process.
        helpers: What runs beside it, outermost last; empty without a network of its own.
        out_of_memory: It has ended, and for want of memory.
    """

    instance: str
    environment_id: str
    owner_id: str
    name: str
    init: Identity | None = None
    helpers: tuple[Identity, ...] = ()
    out_of_memory: bool = False

    @property
    def alive(self) -> bool:
        return self.init is not None and self.init.alive()


def read_state(folder: Path) -> State | None:
    """Return what was written, or None when it is absent or not whole.

    Raises:
        RuntimeUnavailable: It cannot be read now.
    """
    try:
        with (folder / STATE).open("rb") as file:
            found: dict[str, Any] = json.loads(file.read(MAX_STATE_BYTES))
        init = found.pop("init")
        helpers = tuple(Identity(**one) for one in found.pop("helpers"))
        return State(**found, init=None if init is None else Identity(**init), helpers=helpers)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise _not_seen(error) from error


def write_state(folder: Path, state: State) -> None:
    """Write the state in one step, readable by the server alone.

    Raises:
        OSError: It cannot be written.
    """
    fd, name = tempfile.mkstemp(dir=folder, prefix=".state-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file)
        file.flush()
        os.fsync(fd)
    Path(name).replace(folder / STATE)


_started: set[int] = set()


def spawn(
    argv: Sequence[str],
    *,
    uid: int,
    pass_fds: Sequence[int] = (),
    stderr: int | None = None,
    executable: str | None = None,
) -> int:
    """Start a program that outlives the server, and return its process id. Blocks for a moment.

    It has a session of its own, no descriptor of the server's, no variable of its environment and
    its working folder at the root. It runs as `uid` without any group where that is not the
    server's own. `subprocess` does all of that between fork and exec in C, safe in a server with
    threads, and the same under every event loop; a launcher in between would only cost time.
    With an `executable` the first of `argv` is only the name that it goes by.

    Raises:
        OSError: It does not start.
    """
    reap()
    identity: dict[str, Any] = {}
    if uid != os.geteuid():
        identity = {"user": uid, "group": uid, "extra_groups": []}
    process = subprocess.Popen(
        list(argv),
        executable=executable,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
        env={"PATH": TOOL_PATH, "LC_ALL": "C"},
        cwd="/",
        close_fds=True,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        umask=0o022,
        **identity,
    )
    # It is let go: what waits for its end knows it by its identity, as after a restart.
    process.returncode = 0
    _started.add(process.pid)
    return process.pid


def reap() -> None:
    """Take note of the programs of `spawn` that have ended: else each leaves its entry behind."""
    for pid in tuple(_started):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid  # somebody else was faster
        if ended:
            _started.discard(pid)


def children(pid: int) -> list[int]:
    """Return the children of a process; empty when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(one) for one in (task / "children").read_text().split()]
    return found


def program(pid: int) -> str:
    """Return the name of the program that a process executes, or "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def moments(deadline_s: float) -> Iterator[None]:
    """Yield again and again until the time is over; for conditions that no event tells."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
        time.sleep(POLL_S)
