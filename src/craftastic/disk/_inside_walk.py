"""What is where in a sandbox, and how much of the disk it takes: looking only.

Sent to the sandbox with `_inside`. The walk opens nothing but folders, follows no link, and enters
no other file system. What is found is the sandbox's own to invent.
"""

import errno
import os
import stat
import time
from dataclasses import dataclass, field

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
BLOCK = 512
MAX_LINKED = 500_000
"""Files with several names that are remembered, so that each counts once."""

MAX_CANDIDATES = 5000
MAX_PATH_BYTES = 1024
REGENERABLE = frozenset(
    (
        *("node_modules", "bower_components", ".pnpm-store", ".venv", "venv", "target", "dist"),
        *("build", ".next", ".nuxt", ".svelte-kit", ".parcel-cache", ".turbo", ".gradle"),
        *("__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    )
)
"""Names of folders that a tool makes again; they count where git ignores them."""

CACHE_FOLDERS = (
    *(".npm/_cacache", ".yarn/cache", ".yarn/berry/cache", ".local/share/pnpm/store"),
    *(".bun/install/cache", ".gradle/caches", "go/pkg/mod/cache", ".cargo/registry/cache"),
    *(".cargo/registry/src", ".composer/cache", ".pnpm-store"),
)
"""Caches below the home; besides them each folder of `CACHES` is one."""

CACHES = ".cache"
GROUPS = ("repository", "other", "home")
BARE = frozenset((b"HEAD", b"objects", b"refs"))


class Budget:
    """How much may be looked at: so many entries, until a moment of the monotonic clock."""

    def __init__(self, entries: int, seconds: float) -> None:
        self.left = entries
        self.deadline = time.monotonic() + seconds
        self.cut = False

    def spend(self) -> bool:
        """Take one entry; False once everything is used up."""
        self.left -= 1
        if self.left < 0 or (self.left % 256 == 0 and time.monotonic() > self.deadline):
            self.cut = True
        return not self.cut

    def seconds(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


@dataclass
class Folder:
    """Something that is counted by itself: a cache, a regenerable folder, a worktree."""

    path: str
    kind: str
    bytes: int = 0
    nested: bool = False
    """There is a git repository inside."""


@dataclass
class Counted:
    """What the whole storage takes, by what it is for."""

    repository: int = 0
    home: int = 0
    cache: int = 0
    other: int = 0
    caches: list[Folder] = field(default_factory=list[Folder])
    worktrees: dict[str, Folder] = field(default_factory=dict[str, Folder])
    regenerable: dict[str, list[Folder]] = field(default_factory=dict[str, list[Folder]])
    """By the worktree that they are in."""


@dataclass
class Places:
    """Where an environment's things are, as absolute paths inside."""

    home: str
    repository: str
    worktrees: str
    workspace: str
    known: tuple[str, ...]
    """The worktrees of sessions."""


def readable(path: bytes) -> str | None:
    """Return a path as text; None for one that cannot be shown as it is."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and len(path) <= MAX_PATH_BYTES else None


def is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def contents(path: str, most: int) -> bytes:
    """Return the beginning of a plain file; a pipe in its place makes nobody wait.

    Raises:
        OSError: It cannot be read, or is no plain file.
    """
    with open(os.open(path, PLAIN), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return file.read(most)


Task = tuple[bytes, str, tuple[Folder, ...], bool]
"""A folder, what it counts for, what it lies in, and whether that is a repository of its own."""


class Walk:
    """One walk over everything that an environment has stored."""

    def __init__(self, places: Places, budget: Budget) -> None:
        self.budget = budget
        self.counted = Counted()
        self.complete = True
        self._linked: set[tuple[int, int]] = set()
        self._roots = (places.repository, places.worktrees, places.home)
        self._apart = {os.fsencode(places.repository), os.fsencode(places.worktrees)}
        self._known = {os.fsencode(one): one for one in places.known}
        self._own = os.fsencode(f"{places.home}/.craftastic")
        self._cache = os.fsencode(f"{places.home}/{CACHES}")
        self._caches = {os.fsencode(f"{places.home}/{one}") for one in CACHE_FOLDERS}
        self._candidates = 0

    def run(self) -> Counted:
        """Count everything; what the budget does not suffice for is left out."""
        for one in self._known.values():
            self.counted.worktrees[one] = Folder(one, "worktree")
        for root, group in zip(self._roots, GROUPS, strict=True):
            self._tree(os.fsencode(root), group)
        self.complete = self.complete and not self.budget.cut
        return self.counted

    def within(self, path: str) -> list[Folder]:
        """Count one worktree, and return what may be regenerable in it."""
        folder = self.counted.worktrees[path] = Folder(path, "worktree")
        self._tree(os.fsencode(path), "worktree", (folder,))
        return self.counted.regenerable.get(path, [])

    def _tree(self, root: bytes, group: str, inside: tuple[Folder, ...] = ()) -> None:
        try:
            found = os.lstat(root)
        except OSError:
            return
        if not stat.S_ISDIR(found.st_mode):
            return
        self._count(found, group, inside)
        todo: list[Task] = [(root, group, inside, False)]
        while todo and not self.budget.cut:
            todo += self._entered(todo.pop(), found.st_dev)

    def _entered(self, task: Task, device: int) -> list[Task]:
        """Count what a folder holds, and return its folders."""
        path, group, inside, nested = task
        folders, is_repository = self._scan(path, device, group, inside)
        if is_repository and path not in self._known:
            nested = True
            for one in inside:
                one.nested = one.nested or one.kind != "worktree"
        more: list[Task] = []
        for child, found in folders:
            known = self._known.get(child)
            if child in self._apart or (known and known not in self.counted.worktrees):
                continue  # what is a worktree by itself is no part of the one that it lies in
            to, within = self._place(child, group, inside, nested)
            self._count(found, to, within)
            more.append((child, to, within, nested and child not in self._known))
        return more

    def _scan(
        self, path: bytes, device: int, group: str, inside: tuple[Folder, ...]
    ) -> tuple[list[tuple[bytes, os.stat_result]], bool]:
        """Count a folder's files; return its folders, and whether it is a git repository."""
        folders: list[tuple[bytes, os.stat_result]] = []
        names: set[bytes] = set()
        try:
            fd = os.open(path, FOLDER)
        except OSError:
            self.complete = False
            return folders, False
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if not self.budget.spend():
                        break
                    found = entry.stat(follow_symlinks=False)
                    name = os.fsencode(entry.name)
                    if name == b".git" or name in BARE:
                        names.add(name)
                    if not stat.S_ISDIR(found.st_mode):
                        self._count(found, group, inside)
                    elif found.st_dev == device:
                        folders.append((path + b"/" + name, found))
        except OSError:
            self.complete = False  # something went while it was looked at
        finally:
            os.close(fd)
        return folders, b".git" in names or names >= BARE

    def _place(
        self, child: bytes, group: str, inside: tuple[Folder, ...], nested: bool
    ) -> tuple[str, tuple[Folder, ...]]:
        """Return what a folder counts for, and what it lies in."""
        if (known := self._known.get(child)) is not None:
            return "worktree", (self.counted.worktrees[known],)
        parent, _, name = child.rpartition(b"/")
        if group == "home" and child == self._own:
            return "other", ()
        if group == "home" and child == self._cache:
            return "cache", ()
        if (group == "home" and child in self._caches) or parent == self._cache:
            return "cache", self._counted_apart(child, "cache", self.counted.caches, ())
        may_be = group == "worktree" and len(inside) == 1 and not nested
        if may_be and os.fsdecode(name) in REGENERABLE:
            group_of = self.counted.regenerable.setdefault(inside[0].path, [])
            return group, self._counted_apart(child, "ignored", group_of, inside)
        return group, inside

    def _counted_apart(
        self, path: bytes, kind: str, among: list[Folder], inside: tuple[Folder, ...]
    ) -> tuple[Folder, ...]:
        shown = readable(path)
        self._candidates += 1
        if shown is None or self._candidates > MAX_CANDIDATES:
            return inside
        among.append(Folder(shown, kind))
        return (*inside, among[-1])

    def _count(self, found: os.stat_result, group: str, inside: tuple[Folder, ...]) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            key = (found.st_dev, found.st_ino)
            if key in self._linked:
                return
            if len(self._linked) < MAX_LINKED:
                self._linked.add(key)
            else:
                self.complete = False
        size = found.st_blocks * BLOCK
        if group != "worktree":
            setattr(self.counted, group, getattr(self.counted, group) + size)
        for one in inside:
            one.bytes += size
