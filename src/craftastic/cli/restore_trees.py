"""Puts environments' trees back: nothing is ever written outside of the folder that is given.

A member is made in a folder that was made and opened right before it, by its name alone. No path
is walked, no link is followed, nothing is replaced; so neither a name nor a link of a backup can
lead anywhere, whoever wrote it.
"""

import os
import tarfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

from craftastic.cli.backup_archive import REGULAR, TREES, ArchiveReader, BackupBroken

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
RIGHTS = 0o777
PARENT_MODE = 0o711
"""Of the folders above the trees: sandboxes' users pass them, and cannot list them."""
MAX_DEPTH = 200
TREE_DEPTH = 2
"""Parts of the name of a tree's own folder: `homes` and the environment's id."""

Owner = tuple[int, int]
OwnerOf = Callable[[UUID], Owner | None]
"""Tells whose an environment's files are; None for the caller's own."""


@dataclass(frozen=True, slots=True)
class Open:
    """A folder that is being filled: its rights and time are set when it is full."""

    name: str
    descriptor: int
    mode: int
    mtime: int


@dataclass(slots=True)
class TreeWriter:
    """Makes what members say, in the order that they come.

    Args:
        root: An open folder of the caller's own, which nobody else can reach.
        owner_of: See `OwnerOf`; raises `BackupBroken` for an environment that is not known.
    """

    root: int
    owner_of: OwnerOf
    left_out: int = 0
    """Further names of files that could not be made."""
    _stack: list[Open] = field(default_factory=list[Open])
    _owner: Owner | None = None

    def put(self, archive: ArchiveReader, member: tarfile.TarInfo) -> None:
        """Make a folder, a file or a link.

        Raises:
            BackupBroken: Its name or its place is wrong, or it is of another kind.
            OSError: It cannot be made.
        """
        parts = parts_of(member.name)
        self._leave_to(parts[:-1])
        if member.type == tarfile.DIRTYPE:
            self._enter(parts, member)
            return
        if len(parts) <= TREE_DEPTH or len(self._stack) != len(parts) - 1:
            raise _out_of_place(member.name)
        folder, name = self._stack[-1].descriptor, parts[-1]
        try:
            self._make(archive, member, folder, name)
        except FileExistsError as error:
            raise _out_of_place(member.name) from error

    def _make(
        self, archive: ArchiveReader, member: tarfile.TarInfo, folder: int, name: str
    ) -> None:
        if member.type in REGULAR:
            self._file(archive, member, folder, name)
        elif member.type == tarfile.SYMTYPE:
            os.symlink(member.linkname, name, dir_fd=folder)
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)
            times = (int(member.mtime), int(member.mtime))
            os.utime(name, times, dir_fd=folder, follow_symlinks=False)
        elif member.type == tarfile.LNKTYPE:
            self._another_name(member.linkname, folder, name)
        else:
            raise BackupBroken(f"The backup is damaged: {member.name[:200]!r} is of no known kind.")

    def close(self) -> None:
        """Finish the folders that are open still."""
        self._leave_to(())

    def abandon(self) -> None:
        """Let go of the open folders as they are."""
        while self._stack:
            os.close(self._stack.pop().descriptor)

    def _enter(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        if len(parts) < TREE_DEPTH or len(parts) > MAX_DEPTH:
            raise _out_of_place(member.name)
        if len(parts) == TREE_DEPTH:
            self._begin_tree(parts)
        if len(self._stack) != len(parts) - 1:
            raise _out_of_place(member.name)
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=self._stack[-1].descriptor)
        except FileExistsError as error:
            raise _out_of_place(member.name) from error
        opened = os.open(parts[-1], FOLDER, dir_fd=self._stack[-1].descriptor)
        self._stack.append(Open(parts[-1], opened, member.mode & RIGHTS, int(member.mtime)))

    def _begin_tree(self, parts: tuple[str, ...]) -> None:
        """Open the folder above a tree, making it first: it is the server's own."""
        tree, key = parts
        if tree not in TREES:
            raise _out_of_place("/".join(parts))
        try:
            if str(UUID(key)) != key:
                raise ValueError  # noqa: TRY301 - another spelling of an id is none
            self._owner = self.owner_of(UUID(key))
        except ValueError:
            raise _out_of_place("/".join(parts)) from None
        if not self._stack:
            with suppress(FileExistsError):
                os.mkdir(tree, 0o700, dir_fd=self.root)
            opened = os.open(tree, FOLDER, dir_fd=self.root)
            self._stack.append(Open(tree, opened, PARENT_MODE, -1))

    def _leave_to(self, parts: tuple[str, ...]) -> None:
        """Finish the folders that are not on the way to the next member."""
        names = tuple(one.name for one in self._stack)
        while names != parts[: len(names)]:
            done = self._stack.pop()
            names = names[:-1]
            try:
                if self._owner is not None and done.mtime >= 0:
                    os.fchown(done.descriptor, *self._owner)
                os.fchmod(done.descriptor, done.mode)
                if done.mtime >= 0:
                    os.utime(done.descriptor, (done.mtime, done.mtime))
            finally:
                os.close(done.descriptor)

    def _file(
        self, archive: ArchiveReader, member: tarfile.TarInfo, folder: int, name: str
    ) -> None:
        size, pieces = archive.pieces(member)
        made = os.open(name, NEW, 0o600, dir_fd=folder)
        try:
            for offset, piece in pieces:
                _write_all(made, piece, offset)
            os.ftruncate(made, size)  # a hole at the end is no piece
            if self._owner is not None:
                os.fchown(made, *self._owner)
            os.fchmod(made, member.mode & RIGHTS)
            os.utime(made, (int(member.mtime), int(member.mtime)))
        finally:
            os.close(made)

    def _another_name(self, first: str, folder: int, name: str) -> None:
        """Give a file of the same tree one more name."""
        parts = parts_of(first)
        tree = tuple(one.name for one in self._stack[:TREE_DEPTH])
        if len(parts) <= TREE_DEPTH or parts[:TREE_DEPTH] != tree:
            raise _out_of_place(first)
        try:
            with _walked(self._stack[TREE_DEPTH - 1].descriptor, parts[TREE_DEPTH:-1]) as place:
                os.link(parts[-1], name, src_dir_fd=place, dst_dir_fd=folder, follow_symlinks=False)
        except PermissionError:
            self.left_out += 1  # its folder is closed to its own owner, who is not root
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _out_of_place(first) from error


def parts_of(name: str) -> tuple[str, ...]:
    """Split a member's name.

    Raises:
        BackupBroken: It is absolute, leads upwards, or is none.
    """
    parts = tuple(name.split("/"))
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise _out_of_place(name)
    return parts


def _write_all(descriptor: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


@contextmanager
def _walked(folder: int, parts: tuple[str, ...]) -> Generator[int]:
    """Open a folder inside another, step by step, following no link."""
    place = os.dup(folder)
    try:
        for part in parts:
            below = os.open(part, PASS, dir_fd=place)
            os.close(place)
            place = below
        yield place
    finally:
        os.close(place)


def _out_of_place(name: str) -> BackupBroken:
    return BackupBroken(f"The backup is damaged: {name[:200]!r} is out of place in it.")
