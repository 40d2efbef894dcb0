"""What git says of an environment's worktrees, and why one is not removed.

Sent to the sandbox with `_inside`. Whatever is not certain is a reason to leave a worktree alone.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from craftastic.disk._inside_walk import REGENERABLE, contents, is_folder, readable

GIT_S = 30.0
END_S = 5.0
MAX_BYTES = 16 << 20
CHUNK = 200
ANY_NAME = "craftastic-any-name"
"""Stands for whatever else may be in a folder, where git is asked what it would ignore there."""

MAX_REFLOG_BYTES = 4 << 20
GIT = (
    *("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false", "-c", "core.untrackedCache=false"),
    *("-c", "core.trustctime=true", "-c", "core.checkStat=default"),
)
STATUS = (
    *("status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored=matching"),
    *("--no-renames", "--ignore-submodules=none"),
)
BEGUN = (
    *("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG", "rebase-merge"),
    *("rebase-apply", "sequencer"),
)
KEEP_REFLOGS = (
    *("-c", "gc.reflogExpire=never", "-c", "gc.reflogExpireUnreachable=never"),
    *("-c", "gc.worktreePruneExpire=never", "-c", "gc.rerereResolved=never"),
    *("-c", "gc.rerereUnresolved=never", "-c", "gc.autoDetach=false"),
)
PRUNED_AFTER = "14.days.ago"
LOOSE_IN_PLENTY, PACKS_IN_PLENTY = 1000, 10


DEADLINES: list[float] = []
"""Moments of the monotonic clock after which nothing is asked of git any more."""


class GitFailed(Exception):
    """git did not say what it was asked in time."""


@dataclass
class Entry:
    """What the repository knows of a worktree: the folder of it, and where the worktree is."""

    own: str
    path: str

    @property
    def token(self) -> str:
        """Return a word that is another once a session was given the worktree again."""
        words: list[str] = []
        for name in ("gitdir", "craftastic-used"):
            try:
                found = os.lstat(f"{self.own}/{name}")
                words.append(f"{found.st_ino}.{found.st_ctime_ns}")
            except OSError:
                words.append("0")
        return "-".join(words)


def environment() -> dict[str, str]:
    return {
        **os.environ,  # noqa: TID251 - the sandbox's own
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": ":",
    }


def git(
    where: tuple[str, ...], *arguments: str, stdin: bytes = b"", limit_s: float = GIT_S
) -> bytes:
    """Run git and return what it printed.

    Raises:
        GitFailed: It failed, took too long, or printed more than can be held.
    """
    code, said = outcome(where, *arguments, stdin=stdin, limit_s=limit_s)
    if code != 0:
        raise GitFailed(f"git {arguments[0]} failed")
    return said


def outcome(
    where: tuple[str, ...], *arguments: str, stdin: bytes = b"", limit_s: float = GIT_S
) -> tuple[int, bytes]:
    """Run git and return its exit code and what it printed.

    Raises:
        GitFailed: It took too long, or printed more than can be held.
    """
    limit_s = min([limit_s, *(one - time.monotonic() for one in DEADLINES)])
    if limit_s <= 0:
        raise GitFailed("there is no time left to ask git")
    with subprocess.Popen(
        [*GIT, *where, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(stdin, timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise GitFailed(f"git {arguments[0]} took too long") from None
    if len(said) > MAX_BYTES:
        raise GitFailed(f"git {arguments[0]} said too much")
    return process.returncode, said


def _end(process: subprocess.Popen[bytes]) -> None:
    """End git with what it has started; asked nicely first, it removes its own leftovers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(END_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        return


def entries(repository: str) -> list[Entry]:
    """Return the worktrees that the repository knows."""
    found: list[Entry] = []
    try:
        names = sorted(os.listdir(f"{repository}/worktrees"))
    except OSError:
        return found
    for name in names[:10_000]:
        own = f"{repository}/worktrees/{name}"
        try:
            pointer = readable(contents(f"{own}/gitdir", 8192).strip())
        except OSError:
            continue
        if pointer is not None and pointer.endswith("/.git"):
            found.append(Entry(own, pointer.removesuffix("/.git")))
    return found


def regenerable(tree: str, paths: list[str], limit_s: float = GIT_S) -> set[str]:
    """Return those of a worktree's folders that git ignores, with nothing in them that it tracks.

    One counts where git ignores whatever is in it, and not whatever is beside it: in a folder that
    is ignored as a whole, or by `data/*`, no rule is about the name that a tool gives.

    Raises:
        GitFailed: It could not be asked.
    """
    kept: set[str] = set()
    names = {path.removeprefix(f"{tree}/"): path for path in paths if is_folder(path)}
    if not names:
        return kept
    within = {one: f"{one}/{ANY_NAME}" for one in names}
    beside = {one: os.path.join(os.path.dirname(one), ANY_NAME) for one in names}
    asked = {*within.values(), *beside.values(), *(f"{one}/" for one in beside.values())}
    said = _ignored(tree, asked, limit_s)
    ignored = [
        one for one in names if within[one] in said and not {beside[one], f"{beside[one]}/"} & said
    ]
    for start in range(0, len(ignored), CHUNK):
        chunk = ignored[start : start + CHUNK]
        where = ("--literal-pathspecs", "-C", tree)
        tracked = [
            os.fsdecode(one)
            for one in git(where, "ls-files", "-z", "--", *chunk, limit_s=limit_s).split(b"\0")
            if one
        ]
        kept |= {
            names[one]
            for one in chunk
            if one in names and not any(file.startswith(f"{one}/") for file in tracked)
        }
    return kept


def _ignored(tree: str, asked: set[str], limit_s: float) -> set[str]:
    """Return those of the paths, which need not exist, that git would ignore in a worktree."""
    options = ("-z", "--stdin", "--no-index")
    # Before a colon, which would begin a pattern, and which cannot be told to be none here.
    stdin = b"".join(b"./" + os.fsencode(one) + b"\0" for one in sorted(asked))
    code, said = outcome(("-C", tree), "check-ignore", *options, stdin=stdin, limit_s=limit_s)
    if code not in {0, 1}:
        raise GitFailed("git check-ignore failed")
    return {os.fsdecode(one).removeprefix("./") for one in said.split(b"\0") if one}


def unsaved(entry: Entry, tree: str, repository: str, branch: str | None) -> str | None:
    """Tell what of a worktree is nowhere else; None where nothing is.

    Args:
        entry: What the repository knows of it.
        tree: Where the worktree is now.
        repository: The bare repository.
        branch: The session's branch, where it has one.

    Raises:
        GitFailed: It could not be found out.
    """
    here = ("-C", tree)
    if (why := _elsewhere(entry, here, branch) or _changed(here)) is not None:
        return why
    if git(here, "rev-list", "--max-count=1", "HEAD", "--not", "--remotes").strip():
        return "it has commits that were not pushed"
    named = git(here, "symbolic-ref", "--quiet", "HEAD")
    if _stashed(repository, os.fsdecode(named.strip()).removeprefix("refs/heads/")):
        return "there is a stash of its branch"
    if _only_in_reflog(entry, repository):
        return "its history of checkouts has commits that no branch has"
    return None


def _elsewhere(entry: Entry, here: tuple[str, ...], branch: str | None) -> str | None:
    """Tell whether a worktree is not plainly on the branch that would be checked out again."""
    if begun := next((one for one in BEGUN if os.path.lexists(f"{entry.own}/{one}")), None):
        return f"something is under way in it ({begun})"
    code, said = outcome(here, "symbolic-ref", "--quiet", "HEAD")
    head = os.fsdecode(said.strip())
    if code != 0 or not head.startswith("refs/heads/"):
        return "it is on no branch"
    if branch is not None and head != f"refs/heads/{branch}":
        return "another branch is checked out in it"
    if outcome(here, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")[0] != 0:
        return "its branch has no commit"
    return None


def _changed(here: tuple[str, ...]) -> str | None:
    for one in git(here, "ls-files", "-v", "-z").split(b"\0"):
        if one[:1] == b"S" or one[:1].islower():
            return "git was told to overlook files in it"
    if any(one.startswith(b"160000 ") for one in git(here, "ls-files", "-s", "-z").split(b"\0")):
        return "it has submodules"
    for one in git(here, *STATUS).split(b"\0"):
        if one and not one.startswith(b"!! "):
            return "it has new files" if one.startswith(b"??") else "it has uncommitted changes"
    return None


def _stashed(repository: str, branch: str) -> bool:
    """Tell whether a stash is of the branch, or of nobody knows which."""
    bare = (f"--git-dir={repository}",)
    if outcome(bare, "rev-parse", "--verify", "--quiet", "refs/stash")[0] != 0:
        return False
    said = git(bare, "reflog", "show", "--format=%gs", "refs/stash")
    for line in said.decode(errors="replace").splitlines():
        subject = line.removeprefix("WIP on ").removeprefix("On ")
        named, colon, _ = subject.partition(": ")
        if subject == line or not colon or named in {branch, "(no branch)"}:
            return True
    return False


def _only_in_reflog(entry: Entry, repository: str) -> bool:
    """Tell whether the worktree was at commits that nothing else remembers."""
    at = _commits(f"{entry.own}/logs/HEAD")
    for folder, _, names in os.walk(f"{repository}/logs/refs"):
        for name in names:
            at -= _commits(f"{folder}/{name}")
    if not at:
        return False
    asked = "".join(f"{one}\n" for one in sorted(at)).encode()
    kept = ("--not", "--branches", "--remotes", "--tags", "--glob=refs/craftastic/*")
    bare = (f"--git-dir={repository}",)
    options = ("--ignore-missing", "--max-count=1", "--stdin")
    return bool(git(bare, "rev-list", *options, *kept, stdin=asked).strip())


def _commits(log: str) -> set[str]:
    found: set[str] = set()
    try:
        text = contents(log, MAX_REFLOG_BYTES + 1)
    except FileNotFoundError:
        return found
    except OSError as error:
        raise GitFailed("a history of checkouts cannot be read") from error
    if len(text) > MAX_REFLOG_BYTES:
        raise GitFailed("a history of checkouts is too long")
    for line in text.splitlines():
        for word in line.split(b" ", 2)[:2]:
            if len(word) in {40, 64} and word.strip(b"0"):
                found.add(word.decode("ascii", "replace"))
    return found


def in_the_way(entry: Entry, tree: str) -> str | None:
    """Tell what else keeps a worktree from being removed, though all work in it is saved.

    Raises:
        GitFailed: It could not be found out.
    """
    if os.path.lexists(f"{entry.own}/locked"):
        return "it is locked"
    if os.path.lexists(f"{entry.own}/config.worktree"):
        return "it has settings of its own"
    if any(names for _, _, names in os.walk(f"{entry.own}/refs")):
        return "it has references of its own"
    if os.path.lexists(f"{entry.own}/modules"):
        return "it has submodules"
    ignored = [one[3:] for one in git(("-C", tree), *STATUS).split(b"\0") if one[:3] == b"!! "]
    folders = {one: _tools_folder(tree, os.fsdecode(one)) for one in ignored}
    made_again = regenerable(tree, sorted({one for one in folders.values() if one is not None}))
    for one, folder in folders.items():
        if folder not in made_again and not (folder and os.path.islink(folder)):
            name = readable(one.rstrip(b"/")) or "one with a name that cannot be shown"
            return f"it has an ignored file that no tool makes again: {name[:200]}"
    return None


def _tools_folder(tree: str, path: str) -> str | None:
    """Return what on the way to a path in a worktree has a name that a tool gives."""
    parts = path.rstrip("/").split("/")
    at = next((at for at, part in enumerate(parts) if part in REGENERABLE), None)
    return None if at is None else "/".join((tree, *parts[: at + 1]))


def belongs(entry: Entry, tree: str, repository: str) -> bool:
    """Tell whether the worktree and the repository know each other."""
    code, said = outcome(("-C", tree), "rev-parse", "--git-dir", "--git-common-dir")
    lines = [os.fsdecode(one) for one in said.splitlines()]
    try:
        places = (entry.own, repository)
        return code == 0 and all(
            os.path.samefile(os.path.join(tree, one), place)
            for one, place in zip(lines, places, strict=True)
        )
    except (OSError, ValueError):
        return False


def to_pack(repository: str) -> int | None:
    """Return how much of a repository lies about unpacked, in bytes; None where that is little."""
    try:
        said = git((f"--git-dir={repository}",), "count-objects", "-v")
    except GitFailed:
        return None
    numbers: dict[str, int] = {}
    for line in said.decode(errors="replace").splitlines():
        name, _, number = line.partition(": ")
        numbers[name] = int(number) if number.isascii() and number.isdigit() else 0
    loose, packs = numbers.get("count", 0), numbers.get("packs", 0)
    if loose < LOOSE_IN_PLENTY and packs < PACKS_IN_PLENTY:
        return None
    return numbers.get("size", 0) << 10


def pack(repository: str, limit_s: float) -> None:
    """Pack a repository; nothing goes that anything refers to, a reflog among them.

    Raises:
        GitFailed: git would not, or not in time; what it had begun is dropped.
    """
    where = (*KEEP_REFLOGS, f"--git-dir={repository}")
    git(where, "gc", "--quiet", f"--prune={PRUNED_AFTER}", limit_s=limit_s)
