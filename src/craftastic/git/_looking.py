"""Status, diff, log, branches: what only looks, and changes nothing in the sandbox."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from uuid import UUID

from craftastic.environments.service import Environment
from craftastic.errors import InvalidInput
from craftastic.git._names import check_ref, shown
from craftastic.git._porcelain import (
    ChangedFile,
    Commit,
    Records,
    Ref,
    Status,
    StatusFile,
    counted,
    cut_to_lines,
    parse_counts,
    parse_log,
    parse_raw,
    parse_refs,
    parse_status,
)
from craftastic.git._refusals import (
    GitFailed,
    NoCommonCommit,
    RefNotFound,
    RepositoryNotFound,
    WorktreeMissing,
)
from craftastic.git._scripts import CUT, MAX_BYTES, OUT_OF_TIME, Answer, Part, Place
from craftastic.worktrees.service import repository_path

MAX_FILES = 5000
MAX_CHOSEN_BYTES = 4 * MAX_BYTES
MAX_CHOSEN_FROM = 200_000
HASH_BYTES = 41
"""A hash and the end of its line."""
MAX_BRANCHES = 5000
MAX_COMMITS = 200
MAX_OFFSET = 1_000_000

REMOTE = "refs/remotes/origin/"
LOCAL = "refs/heads/"

COUNT_LINES = (files("craftastic.git") / "_new_lines.py").read_text()


@dataclass(frozen=True, slots=True)
class WorktreeStatus:
    """A worktree's state.

    Args:
        operation: What has been begun and not ended: `merge`, `rebase`, …
        truncated: Files or their counts are missing: there are too many, or it took too long.
    """

    status: Status
    operation: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """A diff as text.

    Args:
        name: The file or folder that it is of, empty for all.
        base: The commit that it begins at, where one was asked for.
        masked: Secrets of the session's variables stood in it and were replaced.
    """

    name: bytes
    text: str
    files: Sequence[ChangedFile]
    base: str | None
    truncated: bool
    masked: bool


@dataclass(frozen=True, slots=True)
class Log:
    commits: Sequence[Commit]
    unpushed: frozenset[str]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch by its name: local, on the remote, or both; `head` is the local one's, if any."""

    name: str
    local: bool
    remote: bool
    checked_out: bool
    head: str
    upstream: str | None
    ahead: int
    behind: int
    subject: str
    date: str
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Branches:
    branches: Sequence[Branch]
    default: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class Repository:
    """An environment's repository.

    Args:
        path: As the sandbox sees it.
        remote_url: Of the true upstream; `origin` in the sandbox is the gateway.
    """

    path: str
    branches: Sequence[str]
    current_branch: str
    remote_url: str


def whole(part: Part) -> bool:
    """Tell whether a command's output came to its end, where it may be cut by size or time.

    Raises:
        GitFailed: It ended with another error.
    """
    if part.ended == CUT or part.ended in OUT_OF_TIME:
        return False
    if not part.complete:
        raise GitFailed(
            "git could not read this repository.", details=f"It ended with {part.ended}."
        )
    return True


async def status(place: Place) -> WorktreeStatus:
    """Read a worktree's state; the index is not even refreshed."""
    answer = await place.run("status", str(MAX_BYTES), COUNT_LINES, max_output_bytes=4 * MAX_BYTES)
    listed = answer.part("status")

    def read() -> Status:
        found = parse_status(listed.output, MAX_FILES)
        counts = {
            name: one
            for part in ("counts", "lines")
            for name, one in parse_counts(answer.part(part).output, MAX_FILES).items()
        }
        found.files = [replace(one, counts=counts.get(one.name)) for one in found.files]
        return found

    found = await place.reading.run(answer.size("status", "counts", "lines"), read)
    complete = whole(listed) and found.complete
    complete &= all(answer.part(name).complete for name in ("counts", "lines"))
    return WorktreeStatus(found, answer.fields.get("operation") or None, not complete)


async def chosen(place: Place, keep: Callable[[StatusFile], bool]) -> Status:
    """Read those of a worktree's changes that somebody wants, from a list that may be long."""
    answer = await place.run("status", str(MAX_CHOSEN_BYTES), "", max_output_bytes=5 * MAX_BYTES)
    listed = answer.part("status")
    found = await place.reading.run(
        answer.size("status"), lambda: parse_status(listed.output, MAX_CHOSEN_FROM, keep)
    )
    found.complete &= whole(listed)
    return found


async def diff(
    place: Place,
    name: bytes,
    mask: Callable[[bytes], bytes],
    *,
    staged: bool,
    base: str | None,
) -> Diff:
    """Compare the working tree with the index, the index with HEAD, or all with a base.

    Raises:
        BadRef, RefNotFound, NoCommonCommit: Of the base.
        InvalidInput: Both a base and only what is staged were asked for.
    """
    if staged and base:
        raise InvalidInput("A diff is of what is staged or since a base, not both.")
    what = "staged" if staged else "base" if base else "worktree"
    answer = await place.run(
        "diff",
        str(MAX_BYTES + 1),
        str(MAX_BYTES // 2),
        str(MAX_FILES),
        what,
        check_ref(base) if base else "",
        stdin=name,
    )
    _refuse(answer)
    size = answer.size("patch", "files", "counts")
    return await place.reading.run(size, lambda: _read_diff(answer, name, mask))


def _read_diff(answer: Answer, name: bytes, mask: Callable[[bytes], bytes]) -> Diff:
    patch, listed, numbers = (answer.part(one) for one in ("patch", "files", "counts"))
    found, cut = cut_to_lines(patch.output, MAX_BYTES)
    if not whole(patch) and not cut:
        found, cut = found[: found.rfind(b"\n") + 1], True
    # What stands for a secret may be longer than it; bytes, since text takes four times the memory.
    hidden, longer = cut_to_lines(mask(found), MAX_BYTES)
    cut = cut or longer
    changed = parse_raw(listed.output, MAX_FILES + 1)
    complete = whole(listed) and whole(numbers) and not cut and "cut" not in answer.fields
    return Diff(
        name=name,
        text=hidden.decode(errors="replace"),
        files=counted(changed[:MAX_FILES], parse_counts(numbers.output, MAX_FILES)),
        base=answer.fields.get("base"),
        truncated=not complete or len(changed) > MAX_FILES,
        masked=hidden != found,
    )


async def log(
    place: Place, ref: str | None, mask: Callable[[bytes], bytes], *, limit: int, offset: int
) -> Log:
    """List commits, newest first; none before the first commit.

    Raises:
        BadRef, RefNotFound: Of the branch or commit to begin at.
    """
    begin = check_ref(ref) if ref else ""
    answer = await place.run("log", str(MAX_BYTES), str(limit), str(offset), begin)
    _refuse(answer)
    commits, unpushed = answer.part("commits"), answer.part("unpushed")
    complete = whole(commits) and whole(unpushed)

    def read() -> Log:
        listed = Records(unpushed.output, min(offset + limit, MAX_BYTES // HASH_BYTES), b"\n")
        ids = frozenset(shown(one[:HASH_BYTES]) for one in listed)
        return Log(parse_log(commits.output, limit, mask), ids, truncated=not complete)

    return await place.reading.run(answer.size("commits", "unpushed"), read)


async def branches(place: Place, mask: Callable[[bytes], bytes] = bytes) -> Branches:
    """List the repository's branches, the newest commits first.

    Raises:
        RepositoryNotFound: It is not cloned.
    """
    try:
        answer = await place.run("branches", str(MAX_BYTES), str(MAX_BRANCHES))
    except WorktreeMissing:
        raise no_repository() from None
    listed = answer.part("refs")
    complete = whole(listed)
    default = answer.fields.get("default", "").removeprefix(REMOTE) or None

    def read() -> Branches:
        refs = parse_refs(listed.output, MAX_BRANCHES + 1, mask)
        cut = not complete or len(refs) > MAX_BRANCHES
        return Branches(merged(refs[:MAX_BRANCHES]), default, truncated=cut)

    return await place.reading.run(answer.size("refs"), read)


def merged(refs: Sequence[Ref]) -> list[Branch]:
    """Make one branch of a local one and the remote's of the same name."""
    found: dict[str, Branch] = {}
    for ref in refs:
        local = ref.name.startswith(LOCAL)
        name = ref.name.removeprefix(LOCAL if local else REMOTE)
        if ref.symbolic or not name:
            continue
        known = found.get(name)
        if known is None or local:
            found[name] = _branch(name, ref, local=local, remote=not local or known is not None)
        else:
            found[name] = replace(known, remote=True)
    return list(found.values())


def _branch(name: str, ref: Ref, *, local: bool, remote: bool) -> Branch:
    return Branch(
        name=name,
        local=local,
        remote=remote,
        checked_out=ref.checked_out,
        head=ref.commit,
        upstream=ref.upstream and ref.upstream.removeprefix("refs/remotes/").removeprefix(LOCAL),
        ahead=ref.ahead,
        behind=ref.behind,
        subject=ref.subject,
        date=ref.date,
    )


def repository(environment: Environment, found: Branches) -> Repository:
    """Tell of a repository what clients show; its current branch is main, else master, else one."""
    names = sorted(one.name for one in found.branches)
    current = next((one for one in ("main", "master") if one in names), names[0] if names else "")
    return Repository(
        path=repository_path(environment.id),
        branches=names,
        current_branch=current,
        remote_url=environment.repository_url or "",
    )


def no_repository() -> RepositoryNotFound:
    return RepositoryNotFound("No repository found for this environment")


def with_sessions(found: Branches, sessions: Mapping[str, UUID]) -> Branches:
    """Say of each branch which living session is on it."""
    named = [replace(one, session_id=sessions.get(one.name)) for one in found.branches]
    return replace(found, branches=named)


def _refuse(answer: Answer) -> None:
    if answer.refusal is None:
        return
    code, name = answer.refusal
    if code == "ref_not_found":
        raise RefNotFound(f"There is no branch, tag or commit '{name}' here.")
    if code == "no_common_commit":
        raise NoCommonCommit(f"'{name}' has no commit in common with this branch.")
    raise GitFailed("git could not do that.")
