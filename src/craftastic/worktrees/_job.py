"""The program that runs a worktree's jobs inside a sandbox, and tells how they are.

Its text is sent to a `python3` there: it imports nothing of this project. A job is a row of texts
for the shell, run in turn in a worktree, by a process of its own that outlives whoever started it
and ends with the sandbox. All that is known of it lies in its folder, JOBS/NAME:

- `lock` is locked as long as the job runs: whoever can lock it knows that it does not.
- `state` is a JSON object: command, started, pid; once it has ended also finished, exit and ended
  (timeout, stopped or empty). One that has no end and no lock was cut short.
- `log` and `log.1` are the newest output, `log.1` the older half of it.

Values and variables come by the input, as a JSON object: no argument and no file ever has them.

Usage:
start JOBS NAME WORKTREE LIMIT_S    starts a job; 0 for no limit. Input: command, variables.
first JOBS NAME WORKTREE LIMIT_S    the same, where the worktree is fresh; else as if it ran.
wait  JOBS NAME WORKTREE LIMIT_S    starts a job, waits for its end, and shows it.
join  JOBS NAME WORKTREE            waits for the end of one that runs, and shows it.
show  JOBS NAME WORKTREE TAIL       prints a JSON object: the repository's files, all states, and
                                    of NAME the newest TAIL bytes of the log.
stop  JOBS NAME WORKTREE            ends a job, all but the teardown when NAME is empty, and shows
                                    them.
done  JOBS                          the worktree is not fresh any more.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

RUNNING, NO_WORKTREE, NOT_STARTED = 41, 42, 43
TEARDOWN = "teardown"
GIT_S = 10.0
MAX_FILE_BYTES = 64 << 10
MAX_STATE_BYTES = 512 << 10
MAX_COPIED_BYTES = 256 << 10
MAX_JOBS = 64
HALF_LOG_BYTES = 1 << 20
CHUNK = 1 << 16
GRACE_S = 5.0
"""How long what is ended may take to end by itself, in seconds."""

STOP_S = 8.0
LAST_WORDS_S = 0.2
SHOWN_AFTER_WAIT = 4096
POLL_S = 0.05
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PULLS = "refs/remotes/pull/"
GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
FILES = {"config": ".craftastic/config.toml", "include": ".worktreeinclude"}


def main() -> int:
    """Do what the first argument says."""
    os.umask(0o077)
    mode, jobs = sys.argv[1], Path(sys.argv[2])
    if mode in ("start", "first", "wait"):
        return start(mode, jobs, sys.argv[3], Path(sys.argv[4]), float(sys.argv[5]))
    if mode == "show":
        return show(jobs, sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    if mode == "join":
        return ended(jobs, sys.argv[3], Path(sys.argv[4]))
    if mode == "stop":
        stop(jobs, sys.argv[3])
        return show(jobs, sys.argv[3], Path(sys.argv[4]), 0)
    if mode == "done":
        prepared(jobs)
    return 0


def prepared(jobs: Path) -> None:
    with contextlib.suppress(OSError):
        (jobs / "fresh").unlink()


# ---- files ------------------------------------------------------------------------------------


def read(path: Path, limit: int) -> bytes | None:
    """Return the first bytes of a regular file, None when it is absent.

    Raises:
        OSError: It is something else.
    """
    try:
        fd = os.open(path, PLAIN)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError
        return file.read(limit)


def read_state(folder: Path) -> dict[str, object] | None:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        state: object = json.loads(read(folder / "state", MAX_STATE_BYTES) or b"")
        return cast("dict[str, object]", state) if isinstance(state, dict) else None
    return None


def write_state(folder: Path, state: dict[str, object]) -> None:
    """Put a new state in the place of the old one, whole."""
    new = folder / "state.new"
    new.write_text(json.dumps(state))
    new.replace(folder / "state")


def locked(folder: Path) -> int | None:
    """Lock a job and return the open lock, None when it runs.

    Raises:
        OSError: There is no such job.
    """
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def runs(folder: Path) -> bool:
    try:
        fd = locked(folder)
    except OSError:
        return False
    if fd is not None:
        os.close(fd)
    return fd is None


class Log:
    """The newest output of a job, in two files: what is older is forgotten."""

    def __init__(self, folder: Path) -> None:
        self.path, self.older = folder / "log", folder / "log.1"
        self.older.unlink(missing_ok=True)
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o600)
        self.size = 0

    def write(self, words: bytes) -> None:
        """Add to the log; what the disk does not take is lost, and the job goes on."""
        with contextlib.suppress(OSError):
            if self.size + len(words) > HALF_LOG_BYTES:
                os.close(self.fd)
                self.path.replace(self.older)
                self._open()
            self.size += os.write(self.fd, words)


# ---- running ----------------------------------------------------------------------------------


def start(mode: str, jobs: Path, name: str, worktree: Path, limit_s: float) -> int:
    """Start a job in a process of its own; its state says so before this returns."""
    wanted = json.load(sys.stdin)
    folder = jobs / name
    folder.mkdir(parents=True, exist_ok=True)
    if not worktree.is_dir():
        return NO_WORKTREE
    lock = folder / "lock"
    os.close(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    held = locked(folder)
    if held is None:
        return RUNNING
    # Whoever else found it fresh may have run it from start to end meanwhile.
    if mode == "first" and not (jobs / "fresh").exists():
        return RUNNING
    ready, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(held)
        os.close(tell)
        if not os.read(ready, 1):
            return NOT_STARTED
        if mode != "wait":
            return 0
        return ended(jobs, name, worktree)
    try:
        detach(tell, held)
        job = Job(folder, worktree, wanted["command"], wanted["variables"], limit_s)
        prepared(jobs)
        os.write(tell, b"1")
        os.close(tell)
        job.run()
    finally:
        os._exit(0)


def ended(jobs: Path, name: str, worktree: Path) -> int:
    """Wait for a job's end, whoever started it, and show it; one that is gone has ended."""
    with contextlib.suppress(FileNotFoundError), (jobs / name / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return show(jobs, name, worktree, SHOWN_AFTER_WAIT)


def detach(*kept: int) -> None:
    """Belong to nobody: no session, no stream and no file of whoever started this."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for one in (0, 1, 2):
        os.dup2(null, one)
    for one in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if one not in (0, 1, 2, *kept):
            with contextlib.suppress(OSError):
                os.close(one)


class Job:
    """One run of a row of commands."""

    def __init__(
        self,
        folder: Path,
        worktree: Path,
        command: list[str],
        variables: dict[str, str],
        limit_s: float,
    ) -> None:
        self.folder, self.worktree, self.command = folder, worktree, command
        self.variables = {key.encode(): value.encode() for key, value in variables.items()}
        self.deadline = time.monotonic() + limit_s if limit_s else None
        self.ended = ""
        self.output, self.theirs = os.pipe()
        os.set_blocking(self.output, False)
        # Both ends of this one wake the loop: the signal's number is written to it.
        self.wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.log = Log(folder)
        self.state: dict[str, object] = {
            "command": command,
            "started": time.time(),
            "pid": os.getpid(),
        }
        write_state(folder, self.state)

    def _stop(self, _number: int, _frame: object) -> None:
        self.ended = self.ended or "stopped"

    def run(self) -> None:
        """Run the commands until one fails, and write down how it ended."""
        code = 0
        for text in self.command:
            self.log.write(f"$ {text}\n".encode(errors="replace"))
            code = self._one(text)
            if code or self.ended:
                break
        os.close(self.theirs)
        open_still = not self._drain(LAST_WORDS_S)
        end = {"finished": time.time(), "exit": code, "ended": self.ended}
        with contextlib.suppress(OSError):
            write_state(self.folder, {**self.state, **end})
        if open_still:
            # What the commands left running must not end for want of a reader. The lock is closed.
            os.set_blocking(self.output, True)
            os.dup2(self.output, 0)
            os.execvp("cat", ["cat"])  # noqa: S606 - a constant program

    def _one(self, text: str) -> int:
        """Run one text in a login shell and return its exit code, as a shell tells it."""
        try:
            shell = subprocess.Popen(
                ["bash", "-l", "-c", text],
                stdin=subprocess.DEVNULL,
                stdout=self.theirs,
                stderr=self.theirs,
                cwd=self.worktree,
                env={**os.environb, **self.variables},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "a variable cannot be set"
            self.log.write(f"It could not be started: {reason}\n".encode())
            return 127
        ended = os.pidfd_open(shell.pid)
        while not self.ended and not self._wait(ended, self._left()):
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.ended = self.ended or "timeout"
        if self.ended:
            self._end(shell, ended)
        os.close(ended)
        code = shell.wait()
        return code if code >= 0 else 128 - code

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def _wait(self, ended: int, within_s: float | None) -> bool:
        """Take output until the command has ended, a signal came, or the time is over."""
        poll = select.poll()
        for one in (ended, self.output, self.wake):
            poll.register(one, select.POLLIN)
        found = [fd for fd, _ in poll.poll(None if within_s is None else int(within_s * 1000) + 1)]
        if self.wake in found:
            os.read(self.wake, CHUNK)
        if self.output in found:
            self.log.write(os.read(self.output, CHUNK))
        return ended in found

    def _end(self, shell: subprocess.Popen[bytes], ended: int) -> None:
        """End a command and its whole group: kindly, and then by force."""
        group = shell.pid
        deadline = time.monotonic() + GRACE_S
        signal_group(group, signal.SIGTERM)
        signal_group(group, signal.SIGCONT)
        while time.monotonic() < deadline and not self._wait(ended, POLL_S):
            pass
        # Once its first process is reaped, a group that can be asked has others.
        while shell.poll() is not None and time.monotonic() < deadline and signal_group(group, 0):
            self._drain(POLL_S)
        signal_group(group, signal.SIGKILL)

    def _drain(self, within_s: float) -> bool:
        """Take output until there is an end, and tell so, or until the time is over."""
        deadline = time.monotonic() + within_s
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(int(left * 1000) + 1):
                words = os.read(self.output, CHUNK)
                if not words:
                    return True
                self.log.write(words)
        return False


def signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def stop(jobs: Path, name: str) -> None:
    """End jobs and wait until they have ended; all are told before any is waited for."""
    # A teardown is the last thing that a worktree sees: whoever finds one running waits for it.
    folders = [jobs / one for one in ([name] if name else names(jobs)) if name or one != TEARDOWN]
    running = [one for one in folders if runs(one)]
    for folder in running:
        end(folder, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while any(runs(one) for one in running) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for folder in running:
        if runs(folder):
            end(folder, signal.SIGKILL)


def end(folder: Path, number: int) -> None:
    pid = (read_state(folder) or {}).get("pid")
    if isinstance(pid, int) and pid > 1:
        with contextlib.suppress(OSError, OverflowError):
            os.kill(pid, number)


# ---- telling ----------------------------------------------------------------------------------


def names(jobs: Path) -> list[str]:
    try:
        return sorted(one.name for one in jobs.iterdir() if one.is_dir())[:MAX_JOBS]
    except OSError:
        return []


def show(jobs: Path, name: str, worktree: Path, tail: int) -> int:
    """Print everything that is asked about, in one answer."""
    found = {one: shown(jobs, one, whole=one == name) for one in names(jobs)}
    answer: dict[str, object] = {"jobs": found, "foreign": foreign(worktree)}
    for key, path in FILES.items():
        try:
            content = read(worktree / path, MAX_FILE_BYTES + 1)
        except OSError:
            answer[key] = {"fault": "is not a regular file"}
        else:
            answer[key] = {} if content is None else {"content": encoded(content)}
    for key, limit in (("copied", MAX_COPIED_BYTES), ("notes", 1000)):
        with contextlib.suppress(OSError):
            answer[key] = encoded(read(jobs / key, limit) or b"")
    if name and tail:
        log, whole = newest(jobs / name, tail)
        answer |= {"log": encoded(log), "truncated": not whole}
    sys.stdout.write(json.dumps(answer))
    return 0


def foreign(worktree: Path) -> bool:
    """Tell whether the branch has commits of a pull request that no branch of the remote has.

    True where git does not say.
    """
    try:
        if not git(worktree, "for-each-ref", "--count=1", PULLS):
            return False
        known = ("--not", "--glob=refs/remotes/origin/*")
        ours, theirs, both = (
            int(git(worktree, "rev-list", "--count", *commits, *known))
            for commits in (["HEAD"], [f"--glob={PULLS}*"], ["HEAD", f"--glob={PULLS}*"])
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return True
    return ours + theirs > both


def git(worktree: Path, *arguments: str) -> str:
    """Run git on a worktree and return what it prints.

    Raises:
        OSError, SubprocessError: It failed.
    """
    done = subprocess.run(
        [*GIT, "-C", worktree, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=GIT_S,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def shown(jobs: Path, name: str, *, whole: bool) -> dict[str, object]:
    """Return a job's state. Asked in this order: a job writes its end before it lets go."""
    folder = jobs / name
    told: dict[str, object] = {"running": runs(folder)}
    state = read_state(folder) or {}
    for key in ("started", "finished", "exit", "ended", *(("command",) if whole else ())):
        if key in state:
            told[key] = state[key]
    return told


def newest(folder: Path, tail: int) -> tuple[bytes, bool]:
    """Return the newest bytes of a log, and whether they are all that there ever was."""
    path, half = folder / "log", folder / "log.1"
    for _ in range(5):
        try:
            before = path.stat().st_ino
            older, newer = read(half, HALF_LOG_BYTES), read(path, HALF_LOG_BYTES)
            if path.stat().st_ino == before:
                break
        except OSError:
            continue
    else:
        return b"", True
    both = (older or b"") + (newer or b"")
    return both[-tail:], older is None and len(both) <= tail


if __name__ == "__main__":
    sys.exit(main())
