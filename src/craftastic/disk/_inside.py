"""Runs in a sandbox, by itself: tells what the disk is used for, and frees what nobody would miss.

Its text and those of its parts, `_inside_*`, are sent to the sandbox's python3: they import nothing
else of this project. What is asked comes as a JSON object on the standard input; the answer is one
on the standard output. It gives way to everything else in the sandbox. Whoever owns the sandbox
can make it say anything about that sandbox, and nothing else.

`measure` changes nothing. `tokens` tells which worktrees were given to sessions, and when.
`reclaim` removes, `tidy` finishes or undoes what a `reclaim` that was cut short has left.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from craftastic.disk._inside_git import (
    DEADLINES,
    Entry,
    GitFailed,
    belongs,
    entries,
    in_the_way,
    pack,
    regenerable,
    to_pack,
    unsaved,
)
from craftastic.disk._inside_removal import Admitted, Holding, Refused, look
from craftastic.disk._inside_walk import (
    CACHE_FOLDERS,
    CACHES,
    MAX_CANDIDATES,
    Budget,
    Counted,
    Folder,
    Places,
    Walk,
    is_folder,
    readable,
)

NAME = b"craftastic-disk"
"""By this name the idle policy knows the program, and does not take it for somebody's work."""

IDLE_CLASS, WHO_PROCESS = 3 << 13, 1
LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
LOCK_S = 60.0
GIT_GRACE_S = 20.0
"""How much longer git may be asked than files are looked at."""

MAX_ITEMS = 100
MAX_WORKTREES = 500
MAX_KEPT = 200
CACHE, GIT, IGNORED, WORKTREE = "cache", "git", "ignored", "worktree"
TIERS = {CACHE: 1, GIT: 1, IGNORED: 2, WORKTREE: 3}

Json = dict[str, Any]


@dataclass
class Ask:
    """What the server asks for.

    Args:
        sessions: By worktree: the session, its branch, and whether it has ended.
        tokens: By worktree: the word that it had before the server looked which sessions live.
    """

    places: Places
    repository: bool
    sessions: dict[str, Json]
    tokens: dict[str, str]
    tier: int
    entries: int
    seconds: float

    @classmethod
    def read(cls, told: Json) -> "Ask":
        sessions = {one["path"]: one for one in told["sessions"]}
        places = Places(
            told["home"],
            told["repository"],
            told["worktrees"],
            told["workspace"],
            tuple(sessions),
        )
        return cls(
            places,
            told["has_repository"],
            sessions,
            told.get("tokens", {}),
            told.get("tier", 0),
            told["entries"],
            told["seconds"],
        )

    def ended(self, path: str) -> bool:
        return path in self.sessions and self.sessions[path]["state"] == "ended"

    def branch(self, path: str) -> str | None:
        return self.sessions[path]["branch"] if path in self.sessions else None


def main() -> None:
    """Do what is asked, and answer."""
    give_way()
    told = json.load(sys.stdin)
    ask = Ask.read(told)
    DEADLINES.append(time.monotonic() + ask.seconds + GIT_GRACE_S)
    try:
        answer = COMMANDS[told["command"]](ask)
    except Refused as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(answer))


def give_way() -> None:
    """Take processor and disk only where nothing else wants them; then be called by a name."""
    os.nice(15)
    with contextlib.suppress(Exception):
        import ctypes  # noqa: PLC0415 - absent in small pythons

        number = {"x86_64": 251, "aarch64": 30}.get(os.uname().machine)
        if number is not None:
            ctypes.CDLL(None).syscall(number, WHO_PROCESS, 0, IDLE_CLASS)
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:
        file.write(NAME)


# ---- looking ----------------------------------------------------------------------------------


def tokens(ask: Ask) -> Json:
    found = {one.path: one.token for one in entries(ask.places.repository)}
    return {"tokens": {path: word for path, word in found.items() if path in ask.sessions}}


def measure(ask: Ask) -> Json:
    budget = Budget(ask.entries, ask.seconds)
    known = {one.path: one for one in entries(ask.places.repository)}
    others = [one for one in known if one.startswith(f"{ask.places.worktrees}/")]
    ask.places.known = tuple(dict.fromkeys([*ask.sessions, *others]))[:MAX_WORKTREES]
    walk = Walk(ask.places, budget)
    counted = walk.run()
    view = View(ask, counted)
    for path, folder in counted.worktrees.items():
        if not os.path.lexists(path):
            continue
        view.worktree(folder, known.get(path), budget)
    view.tier_one()
    return {
        "complete": walk.complete and not budget.cut,
        "repository": counted.repository,
        "home": counted.home,
        "cache": counted.cache,
        "other": counted.other,
        "sessions": view.sessions,
        "tiers": [
            {"tier": tier, "bytes": view.bytes[tier], "items": view.listed(tier)}
            for tier in (1, 2, 3)
        ],
    }


@dataclass
class View:
    """What is told about what was counted."""

    ask: Ask
    counted: Counted
    sessions: list[Json] = field(default_factory=list[Json])
    bytes: dict[int, int] = field(default_factory=lambda: dict[int, int]({1: 0, 2: 0, 3: 0}))
    items: list[tuple[int, Json]] = field(default_factory=list[tuple[int, Json]])

    def worktree(self, folder: Folder, entry: Entry | None, budget: Budget) -> None:
        """Tell of one worktree; what git cannot say in the time is not known."""
        path, ended = folder.path, self.ask.ended(folder.path)
        made_again: list[Folder] = []
        saved = removable = None
        with contextlib.suppress(GitFailed, OSError):
            if entry is not None and budget.seconds() > 0:
                made_again = _made_again(self.counted.regenerable.get(path, []), path, budget)
                why = unsaved(entry, path, self.ask.places.repository, self.ask.branch(path))
                saved = why is None
                if saved and ended and not folder.nested:
                    removable = in_the_way(entry, path) is None
        again = sum(one.bytes for one in made_again)
        of_it = {"path": path, "bytes": folder.bytes, "regenerable": again, "saved": saved}
        self.sessions.append(of_it)
        if not ended:
            return
        movable = [one for one in made_again if not one.nested]
        for one in movable:
            self._add(one.path, one.bytes, IGNORED, path)
        if removable and len(movable) == len(made_again):
            rest = folder.bytes - sum(one.bytes for one in movable)
            self._add(path, max(0, rest), WORKTREE, path)

    def tier_one(self) -> None:
        for one in self.counted.caches:
            if not one.nested:
                self._add(one.path, one.bytes, CACHE, None)
        if self.ask.repository:
            loose = to_pack(self.ask.places.repository)
            if loose is not None:
                self._add(self.ask.places.repository, loose // 2, GIT, None)

    def listed(self, tier: int) -> list[Json]:
        """Return the largest items of a tier."""
        of_it = [one for at, one in self.items if at == tier]
        return sorted(of_it, key=lambda one: -one["bytes"])[:MAX_ITEMS]

    def _add(self, path: str, size: int, kind: str, worktree: str | None) -> None:
        tier = TIERS[kind]
        self.bytes[tier] += size
        item = {"path": path, "bytes": size, "kind": kind, "worktree": worktree}
        self.items.append((tier, item))


def _made_again(found: list[Folder], tree: str, budget: Budget) -> list[Folder]:
    ignored = regenerable(tree, [one.path for one in found], max(1.0, budget.seconds()))
    return [one for one in found if one.path in ignored]


# ---- freeing ----------------------------------------------------------------------------------


def reclaim(ask: Ask) -> Json:
    with alone(ask):
        work = Work(ask, Budget(ask.entries, ask.seconds))
        work.tidy()
        work.caches()
        if ask.repository:
            work.git()
            if ask.tier > 1:
                work.worktrees()
        return {"freed": work.freed, "removed": work.removed, "kept": work.kept}


def tidy(ask: Ask) -> Json:
    with alone(ask):
        Work(ask, Budget(ask.entries, ask.seconds)).tidy()
    return {}


@contextlib.contextmanager
def alone(ask: Ask) -> Generator[None]:
    """Be the only one that frees in this sandbox."""
    own = f"{ask.places.home}/.craftastic"
    os.makedirs(own, exist_ok=True)
    with _locked(f"{own}/reclaim.lock", LOCK_S):
        yield


@contextlib.contextmanager
def locked(repository: str, budget: Budget) -> Generator[None]:
    """Hold the lock of the scripts that make and remove worktrees (see `prelude.sh`).

    They wait for it no longer than `LOCK_S`: nothing that takes long is done under it.

    Raises:
        Refused: Somebody else has it for too long.
    """
    with _locked(f"{repository}/craftastic.lock", min(LOCK_S, budget.seconds())):
        yield


@contextlib.contextmanager
def _locked(path: str, seconds: float) -> Generator[None]:
    fd = os.open(path, LOCK, 0o666)
    try:
        until = time.monotonic() + seconds
        while not _taken(fd):
            if time.monotonic() > until:
                raise Refused("another operation on the repository takes too long")
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Work:
    """Frees tier after tier; each thing is looked at again right before it goes."""

    def __init__(self, ask: Ask, budget: Budget) -> None:
        self.ask = ask
        self.budget = budget
        self.freed = 0
        self.removed: list[Json] = []
        self.kept: list[Json] = []
        home, trees = ask.places.home, ask.places.worktrees
        self.home = Holding(home, f"{home}/.craftastic")
        self.trees = Holding(trees, trees)

    def tidy(self) -> None:
        self.home.tidy()
        repository = self.ask.places.repository
        if self.ask.repository and os.path.isdir(repository):
            self.trees.tidy(lambda: locked(repository, self.budget))

    def caches(self) -> None:
        home = self.ask.places.home
        paths = [f"{home}/{one}" for one in CACHE_FOLDERS]
        with contextlib.suppress(OSError):
            paths += [f"{home}/{CACHES}/{one}" for one in sorted(os.listdir(f"{home}/{CACHES}"))]
        for path in paths[:MAX_CANDIDATES]:
            if readable(os.fsencode(path)) is not None and is_folder(path):
                self._remove(self.home, path, CACHE)

    def git(self) -> None:
        repository = self.ask.places.repository
        if not os.path.exists(f"{repository}/craftastic-cloned") or to_pack(repository) is None:
            return
        before = look(repository, set(), self.budget, own=True).bytes
        try:
            pack(repository, self.budget.seconds() / 2)
        except GitFailed as error:
            self._keep(repository, str(error))
            return
        freed = max(0, before - look(repository, set(), self.budget, own=True).bytes)
        self._tell(repository, freed, GIT, None)

    def worktrees(self) -> None:
        known = {one.path: one for one in entries(self.ask.places.repository)}
        for path in self.ask.sessions:
            if not os.path.lexists(path):
                continue
            if not self.ask.ended(path):
                self._keep(path, "its session is alive")
                continue
            try:
                entry = self._entry(path, known.get(path))
                self._ignored(path, entry)
                if self.ask.tier > 2:  # noqa: PLR2004 - the third tier
                    self._worktree(path, entry)
            except (Refused, GitFailed, OSError) as error:
                self._keep(path, _said(error))

    def _entry(self, path: str, entry: Entry | None) -> Entry:
        """Return what the repository knows of a worktree that may be touched.

        Raises:
            Refused: It is not what it seems, or a session has it since.
        """
        if entry is None or os.path.realpath(path) != path:
            raise Refused("git does not know it as a worktree")
        if not is_folder(path) or not self._belongs(entry, path):
            raise Refused("git does not know it as a worktree")
        self._insist_on_token(path, entry)
        return entry

    def _insist_on_token(self, path: str, entry: Entry) -> None:
        if entry.token != self.ask.tokens.get(path):
            raise Refused("it was opened a moment ago")

    def _admitted(self, path: str, entry: Entry) -> Admitted:
        """Return what keeps sessions from being given the worktree, once none was given it."""

        @contextlib.contextmanager
        def admitted() -> Generator[None]:
            with locked(self.ask.places.repository, self.budget):
                self._insist_on_token(path, entry)
                yield

        return admitted

    def _belongs(self, entry: Entry, tree: str) -> bool:
        return belongs(entry, tree, self.ask.places.repository)

    def _ignored(self, path: str, entry: Entry) -> None:
        found = Walk(self.ask.places, self.budget).within(path)
        admitted = self._admitted(path, entry)
        for one in sorted(_made_again(found, path, self.budget), key=lambda one: -one.bytes):
            self._remove(self.trees, one.path, IGNORED, worktree=path, admitted=admitted)

    def _worktree(self, path: str, entry: Entry) -> None:
        def why(tree: str) -> str | None:
            if not self._belongs(entry, tree):
                return "git does not know it as a worktree"
            repository, branch = self.ask.places.repository, self.ask.branch(path)
            return unsaved(entry, tree, repository, branch) or in_the_way(entry, tree)

        if (reason := why(path)) is not None:
            raise Refused(reason)
        home, admitted = self.ask.places.home, self._admitted(path, entry)
        freed = self.trees.remove(path, WORKTREE, entry.own, home, self.budget, why, admitted)
        self._tell(path, freed, WORKTREE, path)

    def _remove(
        self,
        holding: Holding,
        path: str,
        kind: str,
        *,
        worktree: str | None = None,
        admitted: Admitted = contextlib.nullcontext,
    ) -> None:
        home = self.ask.places.home
        try:
            freed = holding.remove(
                path, kind, None, home, self.budget, lambda _item: None, admitted
            )
        except (Refused, OSError) as error:
            self._keep(path, _said(error))
        else:
            self._tell(path, freed, kind, worktree)

    def _tell(self, path: str, freed: int, kind: str, worktree: str | None) -> None:
        self.freed += freed
        if len(self.removed) < MAX_ITEMS:
            item = {"path": path, "bytes": freed, "kind": kind, "worktree": worktree}
            self.removed.append(item)

    def _keep(self, path: str, why: str) -> None:
        if len(self.kept) < MAX_KEPT:
            self.kept.append({"path": path, "why": why[:300]})


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be removed: {error.strerror}"
    return str(error)


COMMANDS = {"measure": measure, "tokens": tokens, "reclaim": reclaim, "tidy": tidy}

if __name__ == "__main__":
    main()
