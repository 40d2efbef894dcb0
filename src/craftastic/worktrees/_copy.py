"""The program that copies ignored files into a new worktree, inside a sandbox.

Its text is sent to a `python3` there: it imports nothing of this project. Patterns come as lines of
its input. What is copied is untracked in the worktree it comes from, matched by a pattern, and
ignored by git there and in the new worktree: a branch that does not ignore a file would soon have
it in a commit. Nothing is overwritten, no link is followed, and links are copied as links.

Usage: REPOSITORY WORKTREES TARGET PREFERRED JOBS. The source is the worktree PREFERRED if there is
one, else the oldest of the REPOSITORY's under WORKTREES. What was copied is written to JOBS/copied,
each name with a NUL at its end, and to JOBS/notes what was not, as lines of a word and a number.
"""

import contextlib
import os
import stat
import subprocess
import sys

MAX_FILES = 2000
MAX_BYTES = 200 << 20
MAX_LISTED_BYTES = 32 << 20
MAX_LINK_BYTES = 4096
TEMPORARY = b".craftastic-copied"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
GIT = (b"git", b"-c", b"core.fsmonitor=false", b"-c", b"core.hooksPath=/dev/null")


def main() -> int:
    """Copy, and say in `JOBS` what was copied."""
    repository, root, target, preferred, jobs = (os.fsencode(one) for one in sys.argv[1:6])
    os.umask(0o077)
    os.makedirs(jobs, exist_ok=True)  # noqa: PTH103 - names are bytes
    # True until the end is reached.
    with open(jobs + b"/notes", "wb") as file:  # noqa: PTH123
        file.write(b"unfinished 1\n")
    with open(jobs + b"/patterns", "wb") as file:  # noqa: PTH123
        file.write(sys.stdin.buffer.read())
    copied: list[bytes] = []
    notes: dict[str, int] = {}
    source = find_source(repository, root, target, preferred)
    if source is not None:
        names = within(target, wanted(source, jobs, notes), notes)
        names = ignored(target, jobs, names, notes)
        copied = copy_all(source, target, names, notes)
    os.unlink(jobs + b"/patterns")  # noqa: PTH108
    with open(jobs + b"/copied", "wb") as file:  # noqa: PTH123
        file.writelines(name + b"\0" for name in copied)
    with open(jobs + b"/notes", "wb") as file:  # noqa: PTH123
        file.writelines(b"%s %d\n" % (word.encode(), count) for word, count in notes.items())
    return 0


def find_source(repository: bytes, root: bytes, target: bytes, preferred: bytes) -> bytes | None:
    """Return the worktree to copy from, None when there is no other."""
    found: list[tuple[bool, float, bytes]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(repository + b"/worktrees"):
            with contextlib.suppress(OSError), open(entry.path + b"/gitdir", "rb") as file:  # noqa: PTH123
                path = file.read(4096).rstrip(b"\n")
                if not path.startswith(root + b"/") or not path.endswith(b"/.git"):
                    continue
                path = path[:-5]
                if path != target and stat.S_ISREG(os.lstat(path + b"/.git").st_mode):
                    found.append((path != preferred, os.fstat(file.fileno()).st_mtime, path))
    return min(found)[2] if found else None


def wanted(source: bytes, jobs: bytes, notes: dict[str, int]) -> list[bytes]:
    """List what is untracked, matched by a pattern, and ignored."""
    excludes = b"--exclude-from=" + jobs + b"/patterns"
    matched = git(source, [b"ls-files", b"--others", b"--ignored", excludes], os.devnull, notes)
    # A folder is a repository inside this one, which is nobody's to copy.
    names = [name for name in matched if not name.endswith(b"/")]
    return ignored(source, jobs, names, notes)


def ignored(worktree: bytes, jobs: bytes, names: list[bytes], notes: dict[str, int]) -> list[bytes]:
    """Return the names that git ignores in a worktree."""
    if not names:
        return []
    listed = jobs + b"/listed"
    with open(listed, "wb") as file:  # noqa: PTH123
        file.writelines(name + b"\0" for name in names)
    found = git(worktree, [b"check-ignore", b"--stdin"], listed, notes)
    os.unlink(listed)  # noqa: PTH108
    return found


def within(worktree: bytes, names: list[bytes], notes: dict[str, int]) -> list[bytes]:
    """Leave out what lies behind a link of the worktree: git would not look at any more names."""
    kept: list[bytes] = []
    plain: dict[bytes, bool] = {b"": True}
    for name in names:
        folder = b""
        for part in name.split(b"/")[:-1]:
            above, folder = folder, folder + b"/" + part
            if folder not in plain:
                plain[folder] = plain[above] and is_folder_or_absent(worktree + folder)
        if plain[folder]:
            kept.append(name)
        else:
            notes["failed"] = notes.get("failed", 0) + 1
    return kept


def is_folder_or_absent(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def git(
    source: bytes, arguments: list[bytes], given: bytes | str, notes: dict[str, int]
) -> list[bytes]:
    """Run git and return the names that it prints, as many as are allowed."""
    with (
        open(given, "rb") as stdin,  # noqa: PTH123
        subprocess.Popen(
            [*GIT, b"-C", source, arguments[0], b"-z", *arguments[1:]],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environb, b"GIT_OPTIONAL_LOCKS": b"0"},
        ) as process,
    ):
        assert process.stdout is not None
        answer = process.stdout.read(MAX_LISTED_BYTES + 1)
        process.kill()
    if len(answer) > MAX_LISTED_BYTES:
        notes["unlisted"] = 1
        answer = answer[:MAX_LISTED_BYTES].rpartition(b"\0")[0]
    return [name for name in answer.split(b"\0") if name]


def copy_all(
    source: bytes, target: bytes, names: list[bytes], notes: dict[str, int]
) -> list[bytes]:
    """Copy files until a bound is reached; return which, and note how many were left out."""
    copied: list[bytes] = []
    left = MAX_BYTES
    here, there = os.open(source, FOLDER), os.open(target, FOLDER)
    for name in names:
        size, why = (0, "files") if len(copied) >= MAX_FILES else attempt(here, there, name, left)
        if why is None:
            copied.append(name)
            left -= size
        elif why:
            notes[why] = notes.get(why, 0) + 1
    return copied


def attempt(here: int, there: int, name: bytes, room: int) -> tuple[int, str | None]:
    """Copy one file; return its size, and why it was left out (empty: the worktree has its own)."""
    try:
        return copy_one(here, there, name, room), None
    except FileExistsError:
        return 0, ""
    except TooMuch:
        return 0, "bytes"
    except OSError:
        return 0, "failed"


class TooMuch(Exception):
    pass


def copy_one(here: int, there: int, name: bytes, room: int) -> int:
    """Copy one file and return its size; every folder on the way is opened, no link followed.

    Raises:
        FileExistsError: The target has something of that name.
        TooMuch: It is larger than what may still be copied.
        OSError: It cannot be copied.
    """
    *parents, last = name.split(b"/")
    with contextlib.ExitStack() as stack:
        for part in parents:
            if part in (b"", b".", b".."):
                raise OSError
            here = enter(stack, here, part)
            # The folder's rights come along too; an existing one keeps its own.
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, stat.S_IMODE(os.fstat(here).st_mode) | 0o700, dir_fd=there)
                os.chmod(part, stat.S_IMODE(os.fstat(here).st_mode) | 0o700, dir_fd=there)
            there = enter(stack, there, part)
        return place(here, there, last, room)


def enter(stack: contextlib.ExitStack, parent: int, name: bytes) -> int:
    """Open a folder, and close it with the others."""
    folder = os.open(name, FOLDER, dir_fd=parent)
    stack.callback(os.close, folder)
    return folder


def place(here: int, there: int, name: bytes, room: int) -> int:
    """Copy one entry of a folder; it appears whole or not at all."""
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=there, follow_symlinks=False)
        raise FileExistsError
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
        return 0
    reading = os.open(name, PLAIN, dir_fd=here)
    try:
        found = os.fstat(reading)
        if not stat.S_ISREG(found.st_mode):
            raise OSError
        if found.st_size > room:
            raise TooMuch
        with contextlib.suppress(FileNotFoundError):
            os.unlink(TEMPORARY, dir_fd=there)
        write(reading, there, found)
        try:
            # Unlike a rename, a link never takes the place of another file.
            os.link(TEMPORARY, name, src_dir_fd=there, dst_dir_fd=there, follow_symlinks=False)
        finally:
            os.unlink(TEMPORARY, dir_fd=there)
    finally:
        os.close(reading)
    return found.st_size


def write(reading: int, there: int, found: os.stat_result) -> None:
    """Write a copy under a passing name, with the rights and the times of what it copies."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    writing = os.open(TEMPORARY, flags, 0o600, dir_fd=there)
    try:
        left = found.st_size
        while left and (count := os.sendfile(writing, reading, None, min(left, 1 << 24))):
            left -= count
        os.fchmod(writing, stat.S_IMODE(found.st_mode) & 0o777)
        os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
    except BaseException:
        os.unlink(TEMPORARY, dir_fd=there)
        raise
    finally:
        os.close(writing)


if __name__ == "__main__":
    sys.exit(main())
