"""Reads the trees that sandboxes write, while they write: nothing that is found there is trusted.

Every step is relative to an open folder, follows no link and crosses no mount (SEC-10). A name is
looked at by a descriptor that cannot read (`O_PATH`), so what is opened after that is what was
looked at: a pipe is never opened, and what is put in a file's place meanwhile is not read.

A repository is read so that what is copied is whole: objects come after everything that names
them, packs after the loose objects that may have become a part of them, and a folder that has lost
a name while it was read is listed again.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from craftastic.cli.backup_archive import (
    MAX_EXTENTS,
    TREES,
    ArchiveWriter,
    Extent,
)

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
RIGHTS = 0o777
MAX_DEPTH = 128
"""Folders inside each other; each of them is open while what is in it is read."""
MAX_NAMES = 500_000
"""Names that are remembered at once, of all the folders that are open."""
MAX_LISTINGS = 4
MAX_LINKED_BYTES = 32 << 20
"""Bytes of the names of files with several names that are remembered, for each tree."""
LAST = ("objects", "pack")
CACHES = frozenset({".cache"})
"""Folders in a home that programs fill again by themselves."""
STAT_BLOCK = 512

UNREADABLE = "it could not be read"
TOO_DEEP = f"more than {MAX_DEPTH} folders inside each other"
TOO_MANY = "its folder holds too many names"
MOUNT = "another file system is mounted there"
FRAGMENTS = f"more than {MAX_EXTENTS} holes"


@dataclass(slots=True)
class Budget:
    """How many names may be remembered still."""

    names: int = MAX_NAMES


class Listing:
    """The names in an open folder, each once; listed again when one was gone before its turn."""

    def __init__(self, folder: int, budget: Budget) -> None:
        self.lost = False
        self.cut = False
        self._folder = folder
        self._budget = budget
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        for _ in range(MAX_LISTINGS):
            self.lost = False
            yield from self._fresh()
            if not self.lost or self.cut:
                return

    def _fresh(self) -> Iterator[str]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name in self._seen:
                    continue
                if not self._budget.names:
                    self.cut = True
                    return
                self._budget.names -= 1
                self._seen.add(entry.name)
                yield entry.name

    def close(self) -> None:
        self._budget.names += len(self._seen)
        self._seen.clear()


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open, read by offsets."""

    descriptor: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Return what is there; nothing where the disk cannot read it."""
        try:
            return os.pread(self.descriptor, length, offset)
        except OSError:
            return b""


@dataclass(slots=True)
class TreeReader:
    """Puts one tree of an environment into the archive.

    Args:
        archive: Where to.
        mount: The kernel's number of the mount that the tree is on.
        caches: Whether folders named in `CACHES` at its top are left out.
    """

    archive: ArchiveWriter
    mount: str
    caches: bool
    budget: Budget = field(default_factory=Budget)
    _linked: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    _linked_bytes: int = 0

    def folder(self, folder: int, path: str, depth: int = 0) -> None:
        """Put an open folder and everything in it into the archive."""
        about = os.fstat(folder)
        self.archive.folder(path, about.st_mode & RIGHTS, int(about.st_mtime))
        listing = Listing(folder, self.budget)
        try:
            held: set[str] = set()
            for name in listing:
                if name in LAST:
                    held.add(name)
                elif not (self.caches and depth == 0 and name in CACHES):
                    self._child(folder, name, f"{path}/{name}", depth, listing)
            for name in LAST:
                if name in held:
                    self._child(folder, name, f"{path}/{name}", depth, listing)
            if listing.cut:
                self.archive.leave_out(path, TOO_MANY)
        except OSError:
            self.archive.leave_out(path, UNREADABLE)
        finally:
            listing.close()

    def _child(self, folder: int, name: str, path: str, depth: int, listing: Listing) -> None:
        try:
            with _closing(os.open(name, LOOK, dir_fd=folder)) as seen:
                self._put(seen, path, depth)
        except FileNotFoundError:
            listing.lost = True
        except OSError:
            self.archive.leave_out(path, UNREADABLE)

    def _put(self, seen: int, path: str, depth: int) -> None:
        about = os.fstat(seen)
        if stat.S_ISLNK(about.st_mode):
            target = os.readlink("", dir_fd=seen)
            self.archive.symbolic_link(path, target, int(about.st_mtime))
        elif not (stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode)):
            self.archive.written.special += 1
        elif mount_of(seen) != self.mount:
            self.archive.leave_out(path, MOUNT)
        elif stat.S_ISREG(about.st_mode):
            self._file(seen, path, about)
        elif depth >= MAX_DEPTH:
            self.archive.leave_out(path, TOO_DEEP)
        else:
            with _closing(_again(seen, FOLDER & ~os.O_NOFOLLOW)) as opened:
                self.folder(opened, path, depth + 1)

    def _file(self, seen: int, path: str, about: os.stat_result) -> None:
        key = (about.st_dev, about.st_ino)
        if about.st_nlink > 1 and (first := self._linked.get(key)) is not None:
            self.archive.hard_link(path, first)
            return
        with _closing(_again(seen, READ)) as opened:
            about = os.fstat(opened)
            extents = None
            if about.st_blocks * STAT_BLOCK < about.st_size:
                extents = extents_of(opened, about.st_size)
                if extents is not None and len(extents) > MAX_EXTENTS:
                    self.archive.leave_out(path, FRAGMENTS)
                    return
            self.archive.file(
                path,
                OpenFile(opened),
                mode=about.st_mode & RIGHTS,
                mtime=int(about.st_mtime),
                size=about.st_size,
                extents=extents,
            )
        if about.st_nlink > 1 and self._linked_bytes < MAX_LINKED_BYTES:
            self._linked[key] = path
            self._linked_bytes += len(path)


def add_trees(archive: ArchiveWriter, data_dir: Path, environment_id: UUID) -> None:
    """Put an environment's trees into the archive; one that is not there is left out.

    Blocks. Sandboxes go on meanwhile, and nothing of theirs is changed.

    Raises:
        BackupNotWritten: The archive cannot be written.
    """
    key = str(environment_id)
    for tree in TREES:
        try:
            parent = os.open(data_dir / tree, FOLDER & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        with _closing(parent):
            try:
                folder = os.open(key, FOLDER, dir_fd=parent)
            except FileNotFoundError:
                continue
            with _closing(folder):
                reader = TreeReader(archive, mount_of(folder), caches=tree == "homes")
                reader.folder(folder, f"{tree}/{key}")


def mount_of(descriptor: int) -> str:
    """Return the kernel's number of the mount that an open file is on.

    Unlike the device it tells a folder that is mounted once more on the same file system.

    Source: proc(5), /proc/pid/fdinfo, `mnt_id`.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("mnt_id:"):
                return line.split()[1]
    return ""


def extents_of(descriptor: int, size: int) -> list[Extent] | None:
    """Return where a file has no holes; None where the file system cannot tell.

    At most one more than `MAX_EXTENTS` are returned.
    """
    found: list[Extent] = []
    at = 0
    try:
        while at < size and len(found) <= MAX_EXTENTS:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
            if begin < at:
                found.append((begin, at - begin))
            elif begin >= size:
                break
    except OSError as error:
        # Behind the last piece there is none (ENXIO).
        return found if error.errno == errno.ENXIO else None
    return found


def _again(seen: int, flags: int) -> int:
    """Open what was looked at, to be read: the kernel's link to it leads nowhere else."""
    return os.open(f"/proc/self/fd/{seen}", flags)


@contextmanager
def _closing(descriptor: int) -> Generator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
