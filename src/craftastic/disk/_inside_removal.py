"""Removes folders in a sandbox so that whatever happens meanwhile, nothing of somebody's is lost.

Sent to the sandbox with `_inside`. A folder is looked at where it is, moved aside in one step, and
looked at again there, where nobody finds it by its name any more. Only then it is removed; else it
is put back. What was cut short in between is put back, or finished, by whoever comes next.
"""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from craftastic.disk._inside_walk import BARE, BLOCK, FOLDER, Budget, contents

GONE = "gone-"
ASIDE = "aside-"
ORIGIN = "origin"
ITEM = "item"
IN_USE = "a process works in it"
NESTED = "there is a git repository in it"
TOO_LARGE = "it is too large to look at in time"
PLACE = 0o700
MAX_ORIGIN_BYTES = 16 << 10
MAX_MAPS_BYTES = 4 << 20

TELLING = BARE | {b".git"}
"""Names that a git repository is known by."""

Check = Callable[[str], "str | None"]
Admitted = Callable[[], AbstractContextManager[None]]


class Refused(Exception):
    """Something is left as it is; the text says why."""


@dataclass
class Origin:
    """Where something was that lies aside, and what the repository knows it by."""

    path: str
    own: str | None


@dataclass
class Seen:
    """What was found in a folder: the bytes that go with it, and why it has to stay."""

    bytes: int = 0
    why: str | None = None


def users_of(home: str) -> set[tuple[int, int]]:
    """Return what the sandbox's processes have open, run, map or stand in, as device and inode.

    Raises:
        Refused: The processes cannot be listed.
    """
    found: set[tuple[int, int]] = set()
    try:
        processes = [one for one in os.listdir("/proc") if one.isdigit()]
    except OSError:
        raise Refused("it is not known which processes use it") from None
    for process in processes:
        if int(process) == os.getpid():
            continue
        links = [f"/proc/{process}/{one}" for one in ("cwd", "root", "exe")]
        with contextlib.suppress(OSError):
            links += [f"/proc/{process}/fd/{one}" for one in os.listdir(f"/proc/{process}/fd")]
        for link in (*links, *_mapped(process, home)):
            with contextlib.suppress(OSError, ValueError):
                about = os.stat(link)
                found.add((about.st_dev, about.st_ino))
    return found


def _mapped(process: str, home: str) -> set[str]:
    """Return the files below the home that a process has mapped, such as libraries."""
    try:
        with open(f"/proc/{process}/maps", "rb") as file:
            text = file.read(MAX_MAPS_BYTES)
    except OSError:
        return set()
    paths = {os.fsdecode(line.split(None, 5)[-1]) for line in text.splitlines()}
    return {one for one in paths if one.startswith(f"{home}/")}


def look(path: str, users: set[tuple[int, int]], budget: Budget, own: bool = False) -> Seen:
    """Look through a folder without following anything; `own` for one that is a worktree itself."""
    try:
        top = os.lstat(path)
    except OSError:
        return Seen(why="it is gone")
    if not stat.S_ISDIR(top.st_mode):
        return Seen(why="it is no folder")
    found = _Looking(top.st_dev, users, budget)
    found.entry(top)
    todo = [os.fsencode(path)]
    while todo and found.seen.why is None:
        folder = todo.pop()
        inner, is_repository = found.folder(folder)
        todo += inner
        if is_repository and not (own and folder == os.fsencode(path)):
            found.refuse(NESTED)
    return found.seen


class _Looking:
    """One look through a folder on one device."""

    def __init__(self, device: int, users: set[tuple[int, int]], budget: Budget) -> None:
        self.seen = Seen()
        self.device, self.users, self.budget = device, users, budget
        self.linked: dict[tuple[int, int], int] = {}

    def refuse(self, why: str | None) -> None:
        self.seen.why = self.seen.why or why

    def entry(self, about: os.stat_result) -> None:
        self.refuse(_reason(about, self.device, self.users))
        self.seen.bytes += _freed(about, self.linked)

    def folder(self, folder: bytes) -> tuple[list[bytes], bool]:
        """Look at a folder's entries; return its folders, and whether it is a git repository."""
        inner: list[bytes] = []
        names: set[bytes] = set()
        try:
            fd = os.open(folder, FOLDER)
        except OSError as error:
            self.refuse(f"a folder in it cannot be read: {error.strerror}")
            return inner, False
        try:
            with os.scandir(fd) as entries:
                for one in entries:
                    if not self.budget.spend():
                        self.refuse(TOO_LARGE)
                        break
                    about, name = one.stat(follow_symlinks=False), os.fsencode(one.name)
                    self.entry(about)
                    if name in TELLING:
                        names.add(name)
                    if stat.S_ISDIR(about.st_mode):
                        inner.append(folder + b"/" + name)
        except OSError:
            self.refuse("it changes while it is looked at")
        finally:
            os.close(fd)
        return inner, b".git" in names or names >= BARE


def _reason(about: os.stat_result, device: int, users: set[tuple[int, int]]) -> str | None:
    if about.st_dev != device:
        return "another file system is mounted in it"
    if (about.st_dev, about.st_ino) in users:
        return IN_USE
    return None


def _freed(about: os.stat_result, linked: dict[tuple[int, int], int]) -> int:
    """Return the bytes that are free once this is gone; a file goes with the last of its names."""
    if stat.S_ISDIR(about.st_mode) or about.st_nlink <= 1:
        return about.st_blocks * BLOCK
    key = (about.st_dev, about.st_ino)
    linked[key] = linked.get(key, 0) + 1
    return about.st_blocks * BLOCK if linked[key] == about.st_nlink else 0


@contextlib.contextmanager
def opened(root: str, path: str) -> Generator[int]:
    """Open the folder that a path below `root` is in, following no link on the way."""
    parts = path.removeprefix(f"{root}/").split("/")[:-1]
    fd = os.open(root, FOLDER)
    try:
        for part in parts:
            below = os.open(part, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


class Holding:
    """Where things are moved aside below one root: a folder on the same file system."""

    def __init__(self, root: str, base: str) -> None:
        self.root = root
        self.folder = f"{base}/.reclaim"
        self.kept = f"{base}/.kept"

    def remove(
        self,
        path: str,
        kind: str,
        own: str | None,
        home: str,
        budget: Budget,
        check: Check,
        admitted: Admitted = contextlib.nullcontext,
    ) -> int:
        """Remove a folder, and return how many bytes are free by it.

        Args:
            path: Below the root.
            kind: What it is, for whoever has to put it back.
            own: Folder of the repository that goes with it, of a worktree.
            home: Where processes' files may be.
            budget: How much may be looked at.
            check: Says once more why it has to stay, if it has, given where it is by then.
            admitted: Held from the move aside until it is decided, which is short; what takes long,
                the removal itself, comes after it.

        Raises:
            Refused: It stays, and where it was.
        """
        worktree = kind == "worktree"
        if (seen := look(path, users_of(home), budget, own=worktree)).why is not None:
            raise Refused(seen.why)
        with admitted():
            held = self._take(path, kind, own)
            item = f"{held}/{ITEM}"
            try:
                # In this order: a program that has it open is seen, and what one wrote that has
                # closed it by then is seen by the check.
                again = look(item, users_of(home), budget, own=worktree)
                why = again.why or check(item)
            except BaseException:
                self._put_back(held, path)
                raise
            if why is not None:
                self._put_back(held, path)
                raise Refused(why)
            gone = f"{self.folder}/{GONE}{os.path.basename(held).removeprefix(ASIDE)}"
            os.rename(held, gone)
            self._forget_of(gone)
        self._raze(gone)
        return again.bytes

    def tidy(self, admitted: Admitted = contextlib.nullcontext) -> None:
        """Finish what was decided, and put back what was not, of whoever was cut short.

        Args:
            admitted: Held while anything may come back or be forgotten, and not for the removal.
        """
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return
        places = [f"{self.folder}/{name}" for name in names]
        decided = [one for one, name in zip(places, names, strict=True) if name.startswith(GONE)]
        with admitted():
            for place in places:
                with contextlib.suppress(OSError):
                    if place in decided:
                        self._forget_of(place)
                    else:
                        origin = self._origin(place)
                        self._put_back(place, None if origin is None else origin.path)
        for place in decided:
            with contextlib.suppress(OSError):
                self._raze(place)
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)

    def _take(self, path: str, kind: str, own: str | None) -> str:
        for at in range(10_000):
            held = f"{self.folder}/{ASIDE}{at}"
            try:
                os.makedirs(self.folder, PLACE, exist_ok=True)
                if not os.path.lexists(f"{self.folder}/{GONE}{at}"):
                    os.mkdir(held, PLACE)
                    break
            except FileExistsError:
                continue
        else:
            raise Refused("too much lies aside already")
        with open(f"{held}/{ORIGIN}", "w", encoding="utf-8") as file:
            json.dump({"path": path, "kind": kind, "own": own}, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            to = os.open(held, FOLDER)
            try:
                with opened(self.root, path) as parent:
                    name = os.path.basename(path)
                    os.rename(name, ITEM, src_dir_fd=parent, dst_dir_fd=to)
            finally:
                os.close(to)
        except OSError as error:
            self._drop(held)
            raise Refused(f"it cannot be moved: {error.strerror}") from None
        return held

    def _origin(self, held: str) -> Origin | None:
        try:
            told = json.loads(contents(f"{held}/{ORIGIN}", MAX_ORIGIN_BYTES))
            path, own = told["path"], told["own"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(path, str) or not path.startswith(f"{self.root}/"):
            return None
        return Origin(path, own if isinstance(own, str) else None)

    def _put_back(self, held: str, path: str | None) -> None:
        """Put something where it was; where that is taken, beside it among what is kept."""
        item = f"{held}/{ITEM}"
        if os.path.lexists(item):
            try:
                if path is None or os.path.lexists(path):
                    raise FileExistsError
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.rename(item, path)
            except OSError:
                os.makedirs(self.kept, PLACE, exist_ok=True)
                name = os.path.basename(path or "unknown")
                while os.path.lexists(f"{self.kept}/{name}"):
                    name += ".1"
                os.rename(item, f"{self.kept}/{name}")
        self._drop(held)

    def _drop(self, held: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{held}/{ORIGIN}")
        os.rmdir(held)
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)

    def _forget_of(self, gone: str) -> None:
        """Remove what the repository knows of something that was decided to go."""
        origin = self._origin(gone)
        if origin is not None and origin.own is not None:
            if not os.path.lexists(origin.path):
                _forget(origin.path, origin.own)
            _drop_empty_parents(self.root, origin.path)

    def _raze(self, gone: str) -> None:
        raze(f"{gone}/{ITEM}")
        self._drop(gone)


def _forget(path: str, own: str) -> None:
    """Remove what a repository knows of a worktree, if it is still about this one."""
    try:
        about = os.fsdecode(contents(f"{own}/gitdir", 8192).strip())
    except OSError:
        about = ""
    if about in {"", f"{path}/.git"} and os.path.lexists(own):
        raze(own)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(own))


def _drop_empty_parents(root: str, path: str) -> None:
    """Remove the folders that a branch's name has left empty, as other scripts do."""
    while (path := os.path.dirname(path)).startswith(f"{root}/"):
        try:
            os.rmdir(path)
        except OSError:
            return


def raze(path: str) -> None:
    """Remove a folder with everything in it, however deep; links go, what they lead to stays.

    Raises:
        OSError: Something cannot be removed.
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    top = os.open(path, FOLDER)
    try:
        _make_writable(top)
        below = _emptied(top, top, 0)
        while below:
            name = below.pop()
            folder = _open_to_empty(name, top)
            try:
                below += _emptied(folder, top, len(below) + 1)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _emptied(folder: int, top: int, count: int) -> list[str]:
    """Remove a folder's files and move its folders up to the top; return those by name."""
    moved: list[str] = []
    with os.scandir(folder) as entries:
        listed = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
    for name, is_folder in listed:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
        elif folder == top:
            moved.append(name)
        else:
            os.close(_open_to_empty(name, folder))
            moved.append(_free_name(top, f".{count}-{len(moved)}"))
            os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
    return moved


def _free_name(top: int, name: str) -> str:
    while True:
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
        name += "-"


def _open_to_empty(name: str, parent: int) -> int:
    try:
        fd = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        os.chmod(name, PLACE, dir_fd=parent)
        fd = os.open(name, FOLDER, dir_fd=parent)
    _make_writable(fd)
    return fd


def _make_writable(fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if mode & PLACE != PLACE:
        os.fchmod(fd, stat.S_IMODE(mode) | PLACE)
