"""The folders of one environment on the host: made and removed without trusting what is in them.

A sandbox writes into these trees, so nothing here follows a symbolic link, crosses a mount or walks
a path that a sandbox could have changed: every step is relative to an open folder (SEC-10). The
server only ever makes them and removes them.

`homes/<id>`, `repos/<id>` and `worktrees/<id>` in the data folder belong to the sandbox's user
(0700). Their parents belong to the server and can be passed but not listed (0711).
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from craftastic.failpoints import failpoint

TREES = ("homes", "repos", "worktrees")
PARENT_MODE = 0o711
TRASH = ".trash-"
MAX_REPEATS = 1000
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Storage:
    """Where one environment's folders are on this host."""

    home: Path
    repos: Path
    worktrees: Path


def storage_of(data_dir: Path, environment_id: UUID) -> Storage:
    """Name the folders of an environment; whether they exist is another question."""
    key = str(environment_id)
    return Storage(data_dir / "homes" / key, data_dir / "repos" / key, data_dir / "worktrees" / key)


def prepare_storage(data_dir: Path, environment_id: UUID, uid: int, gid: int) -> Storage:
    """Make the environment's folders and the places in its home where the others are mounted.

    Safe to repeat. Blocks; call it in a thread.

    Args:
        data_dir: The server's own folder; never writable by a sandbox.
        environment_id: Names the folders.
        uid: Owner of the folders. When it is not the server's own, the server must be root.
        gid: Their group.

    Raises:
        OSError: A folder could not be made, or something else holds its name.
    """
    key = str(environment_id)
    data_dir.mkdir(parents=True, exist_ok=True)
    if uid != os.geteuid():
        # The sandbox's user passes the folder on its way to its own, and cannot list it.
        data_dir.chmod(stat.S_IMODE(data_dir.stat().st_mode) | stat.S_IXOTH)
    with _opened(data_dir) as root:
        for tree in TREES:
            with _folder(root, tree, PARENT_MODE) as parent, _folder(parent, key, 0o700) as own:
                _give(own, uid, gid)
                if tree == "homes":
                    _mount_points(own, key, uid, gid)
    failpoint("sandbox.storage.made")
    return storage_of(data_dir, environment_id)


def remove_storage(data_dir: Path, environment_id: UUID) -> None:
    """Remove everything an environment ever wrote; what is already gone is no error.

    Each tree is first moved aside in one step, so a crash leaves no half-removed tree under the
    environment's name; what an earlier crash left aside is removed too. Blocks; call it in a
    thread.

    Raises:
        OSError: Something could not be removed, such as a mounted file system.
    """
    for tree in TREES:
        remove_tree(data_dir / tree / str(environment_id))
        failpoint("sandbox.storage.removed")


def remove_tree(folder: Path) -> None:
    """Remove a folder that a sandbox has written, whatever its depth; absent is no error.

    Its parent must be the server's own. Blocks; call it in a thread.

    Raises:
        OSError: See `remove_storage`.
    """
    try:
        parent = os.open(folder.parent, FOLDER)
    except FileNotFoundError:
        return
    try:
        _remove_from(parent, folder.name)
    finally:
        os.close(parent)


def _remove_from(parent: int, key: str) -> None:
    """Move the folder aside and empty everything that lies aside."""
    trash = f"{TRASH}{key}-{secrets.token_hex(4)}"
    os.mkdir(trash, 0o700, dir_fd=parent)
    with contextlib.suppress(FileNotFoundError), _folder(parent, trash, 0o700) as aside:
        os.rename(key, "0", src_dir_fd=parent, dst_dir_fd=aside)
    failpoint("sandbox.storage.aside")
    for name in os.listdir(parent):
        if name.startswith(f"{TRASH}{key}-"):
            with _folder(parent, name, 0o700) as aside:
                _empty(aside)
            os.rmdir(name, dir_fd=parent)


def _empty(aside: int) -> None:
    """Empty a folder that only the server can reach.

    Every folder that is found is moved up into `aside` before it is entered: a tree of any depth
    needs two open folders and no recursion, and a mounted folder cannot be moved (EBUSY), so no
    mount is ever crossed.
    """
    number = rounds = 0
    found = True
    while found:
        found = False
        for name in _names(aside):
            found = True
            folder = _enter(aside, name)
            if folder is None:
                os.unlink(name, dir_fd=aside)
                continue
            try:
                for child in _names(folder):
                    number += 1
                    # What something else takes away meanwhile is gone as it should be.
                    with contextlib.suppress(FileNotFoundError):
                        _take_out(folder, child, aside, f"{number}-{secrets.token_hex(4)}")
            finally:
                os.close(folder)
            try:
                os.rmdir(name, dir_fd=aside)
            except OSError as error:
                # What the listing passed over is found in the next round; a process that still
                # writes here does not keep the server busy for ever.
                rounds += 1
                if error.errno != errno.ENOTEMPTY or rounds > MAX_REPEATS:
                    raise


def _names(folder: int) -> Iterator[str]:
    """Yield the names in an open folder, a block at a time: there may be millions."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _take_out(folder: int, child: str, aside: int, name: str) -> None:
    try:
        os.unlink(child, dir_fd=folder)
    except OSError as error:
        # POSIX lets unlink answer EPERM for a folder; Linux says EISDIR.
        if error.errno not in (errno.EISDIR, errno.EPERM) or not _is_folder(folder, child):
            raise
        _move_up(folder, child, aside, name)


def _move_up(folder: int, child: str, aside: int, name: str) -> None:
    try:
        os.rename(child, name, src_dir_fd=folder, dst_dir_fd=aside)
    except PermissionError:
        # A user who is not root must be able to write into a folder to give it a new parent.
        _allow_owner(folder, child)
        os.rename(child, name, src_dir_fd=folder, dst_dir_fd=aside)


def _enter(parent: int, name: str) -> int | None:
    """Open a folder for emptying, whatever its mode; None when it is not a folder."""
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        if error.errno != errno.EACCES:
            raise
        if not _is_folder(parent, name):
            return None
        _allow_owner(parent, name)
        folder = os.open(name, FOLDER, dir_fd=parent)
    with contextlib.suppress(PermissionError):
        os.fchmod(folder, 0o700)
    return folder


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _allow_owner(parent: int, name: str) -> None:
    """Give the owner all rights on a folder that cannot be opened; never follows a link."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # chmod has no no-follow form on Linux before 6.6; the kernel's link to an open file has
        # nothing left to follow. Source: proc(5), /proc/pid/fd; fchmodat(2).
        os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101
    finally:
        os.close(handle)


def _mount_points(home: int, key: str, uid: int, gid: int) -> None:
    """Make the folders that the repositories and worktrees are mounted on.

    The home is the sandbox's to write: where it put something else in a folder's place, that is
    moved aside and kept.
    """
    _own_folder(home, "workspace", uid, gid)
    with _own(home, ".craftastic", uid, gid) as product:
        for tree in ("repos", "worktrees"):
            with _own(product, tree, uid, gid) as parent:
                _own_folder(parent, key, uid, gid)


def _own_folder(parent: int, name: str, uid: int, gid: int) -> None:
    with _own(parent, name, uid, gid):
        pass


@contextlib.contextmanager
def _own(parent: int, name: str, uid: int, gid: int) -> Generator[int]:
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=parent)
        folder = os.open(name, FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.EACCES:
            _allow_owner(parent, name)
        else:
            kept = f"{name}.replaced-{secrets.token_hex(4)}"
            os.rename(name, kept, src_dir_fd=parent, dst_dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)
        folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        _give(folder, uid, gid)
        yield folder
    finally:
        os.close(folder)


def _give(folder: int, uid: int, gid: int) -> None:
    found = os.fstat(folder)
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.fchown(folder, uid, gid)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def _folder(parent: int, name: str, mode: int) -> Generator[int]:
    """Open a folder in one that only the server writes, making it first; its mode is set."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        os.fchmod(folder, mode)
        yield folder
    finally:
        os.close(folder)
