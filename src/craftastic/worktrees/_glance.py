"""The program that tells, inside a sandbox, whether anything about a worktree is another.

Its text is sent to a `python3` there: it imports nothing of this project. It says no content, only
words that are the same as long as what they stand for is: one for what git would tell of the
worktree, and two for each job (see `_job.py`), its state and its log. It is asked again and again
while somebody looks, so it is quick, gives way to everything else, and changes nothing: not even
the times in git's index.

Usage:
JOBS WORKTREE LIMIT_S    prints a JSON object: `git`, and `jobs` by name, each [state, log, runs].
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time

MAX_LIST_BYTES = 1 << 20
MAX_STATE_BYTES = 512 << 10
MAX_FILES = 2000
MAX_JOBS = 64
CHUNK = 1 << 16
WORD_CHARS = 16
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
GIT = (
    *("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.untrackedCache=false", "-c", "status.showStash=false"),
)
STATUS = (
    *("status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--no-renames"),
    *("--ignored=no", "--ahead-behind", "--ignore-submodules=dirty"),
)
REFS = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/remotes")
BEGUN = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG", "rebase-merge")
FIELDS_BEFORE_NAME = {b"1": 8, b"u": 10, b"?": 1}


def main() -> int:
    """Look once."""
    jobs, worktree, limit_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    os.nice(10)
    deadline = time.monotonic() + limit_s
    told = {"jobs": {one: job(f"{jobs}/{one}") for one in names(jobs)}}
    json.dump({**told, "git": worktree_word(worktree, deadline)}, sys.stdout)
    return 0


def word(*parts: bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()[:WORD_CHARS]


# ---- jobs -------------------------------------------------------------------------------------


def names(jobs: str) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(jobs) if one.is_dir())[:MAX_JOBS]
    except OSError:
        return []


def job(folder: str) -> tuple[str, str, bool]:
    state = read(f"{folder}/state")
    # Where an end is written, the lock is left alone: whoever starts the job again needs it.
    running = b'"finished"' not in state and locked(f"{folder}/lock")
    return word(state, b"%d" % running), stamp(f"{folder}/log".encode()), running


def read(path: str) -> bytes:
    """Return the first bytes of a regular file; nothing where there is none."""
    try:
        fd = os.open(path, PLAIN)
    except OSError:
        return b""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_STATE_BYTES)


def locked(path: str) -> bool:
    try:
        fd = os.open(path, PLAIN)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def stamp(path: bytes) -> str:
    """Return what is another once a file's content is."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return ""
    return f"{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_mode:x}"


# ---- git --------------------------------------------------------------------------------------


def worktree_word(worktree: str, deadline: float) -> str:
    status = listed(worktree, STATUS, deadline)
    # A file that was changed already stays so in the list when it is changed again.
    stamps = [stamp(worktree.encode() + b"/" + name) for name in changed(status)]
    refs = listed(worktree, REFS, deadline)
    return word(status, "\n".join(stamps).encode(), refs, begun(worktree))


def changed(status: bytes) -> list[bytes]:
    """Return the names of changed and new files, the first of them where there are many."""
    found: list[bytes] = []
    for entry in status.split(b"\0"):
        before = FIELDS_BEFORE_NAME.get(entry[:1])
        if before is not None and len(found) < MAX_FILES:
            found.append(entry.split(b" ", before)[-1])
    return found


def begun(worktree: str) -> bytes:
    """Tell what was begun in a worktree and not ended: a merge and the like."""
    folder = read(f"{worktree}/.git").removeprefix(b"gitdir: ").rstrip(b"\n")
    there = (stamp(folder + b"/" + one.encode()) != "" for one in BEGUN)
    return b"".join(b"%d" % one for one in there) if folder else b""


def listed(worktree: str, command: tuple[str, ...], deadline: float) -> bytes:
    """Return what git prints, until there is much of it or the time is over."""
    try:
        git = subprocess.Popen(
            [*GIT, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=worktree,
            env={**os.environb, b"GIT_OPTIONAL_LOCKS": b"0"},
            start_new_session=True,
        )
    except OSError:
        return b"none"
    assert git.stdout is not None
    output = git.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLIN)
    text = bytearray()
    while len(text) < MAX_LIST_BYTES:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
            break
        chunk = os.read(output, CHUNK)
        if not chunk:
            return bytes(text) + b"%d" % ended(git, deadline)
        text += chunk
    kill(git)
    return bytes(text)


def ended(git: "subprocess.Popen[bytes]", deadline: float) -> int:
    try:
        return git.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        kill(git)
        return -1


def kill(git: "subprocess.Popen[bytes]") -> None:
    """End git with the filters that it runs."""
    with contextlib.suppress(OSError):
        os.killpg(git.pid, signal.SIGKILL)
    git.wait()


if __name__ == "__main__":
    sys.exit(main())
