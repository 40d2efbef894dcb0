"""HTTP face of git: /api/git, but for hosts and the record of pushes."""

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field
from pydantic_core import to_json

from craftastic.accounts.current_user import CurrentUser
from craftastic.git.service import (
    Branch,
    ChangedFile,
    Commit,
    Counts,
    GitService,
    Log,
    NewCommit,
    NewPush,
    PullMode,
    Pushed,
    StatusFile,
    WorktreeStatus,
    exact,
    shown,
)
from craftastic.http.wire import Wire
from craftastic.idempotency.once import ONCE

router = APIRouter(prefix="/api/git", tags=["git"])

Absent = Field(None, exclude_if=lambda value: value is None)
"""For fields that are left out where there is nothing."""

MAX_FILES = 10_000
MAX_NAME = 6000
MAX_LIMIT = 200
MAX_OFFSET = 1_000_000

FileName = Annotated[str, Field(max_length=MAX_NAME)]


async def git_service(request: Request) -> GitService:
    service: GitService = request.state.git
    return service


Git = Annotated[GitService, Depends(git_service)]


class StatusFileView(Wire):
    """A changed file. Its counts are against the last commit."""

    filename: str
    status: str
    staged: bool
    modified: bool
    untracked: bool
    conflicted: bool
    original_filename: str | None = Absent
    filename_base64: str | None = Absent
    original_filename_base64: str | None = Absent
    added: int | None = Absent
    deleted: int | None = Absent
    binary: bool | None = Absent
    submodule: bool | None = Absent


class StatusView(Wire):
    branch: str
    upstream: str | None = Absent
    ahead: int
    behind: int
    files: Sequence[StatusFileView]
    clean: bool
    head: str | None
    detached: bool
    operation: str | None
    truncated: bool


class StatusAnswer(Wire):
    success: Literal[True] = True
    data: StatusView


class DiffQuery(Wire):
    """What to compare; `path` is another name of `file`, and both may name a folder."""

    file: FileName | None = None
    path: FileName | None = None
    filename_base64: FileName | None = None
    staged: bool = False
    base: str | None = Field(None, max_length=400)


class DiffFileView(Wire):
    filename: str
    status: str
    original_filename: str | None = Absent
    filename_base64: str | None = Absent
    original_filename_base64: str | None = Absent
    added: int | None = Absent
    deleted: int | None = Absent
    binary: bool | None = Absent


class DiffView(Wire):
    diff: str
    file: str | None
    staged: bool
    base: str | None = Absent
    base_commit: str | None = Absent
    truncated: bool
    masked: bool
    files: Sequence[DiffFileView]


class DiffAnswer(Wire):
    success: Literal[True] = True
    data: DiffView


class CommitBody(Wire):
    message: str = Field(min_length=1, max_length=64 << 10)
    files: Annotated[Sequence[FileName], Field(max_length=MAX_FILES)] | None = None
    filenames_base64: Annotated[Sequence[FileName], Field(max_length=MAX_FILES)] | None = None
    staged: bool = False
    amend: bool = False
    no_verify: bool = False
    expected_sha: str | None = Field(None, max_length=64)


class CommittedView(Wire):
    commit: str
    branch: str | None
    summary: str
    files_changed: int
    insertions: int
    deletions: int


class CommittedAnswer(Wire):
    success: Literal[True] = True
    message: str = "Changes committed successfully"
    data: CommittedView


class PushBody(Wire):
    remote: str = Field("origin", max_length=200)
    branch: str | None = Field(None, max_length=400)
    expected_sha: str | None = Field(None, max_length=64)
    force: bool = False
    set_upstream: bool = True
    no_verify: bool = False


class PushedRefView(Wire):
    """One ref as the gateway saw it arrive, and what became of it."""

    ref: str
    old: str
    new: str
    outcome: str
    reason: str | None = Absent


class PushedView(Wire):
    stdout: str
    stderr: str
    branch: str
    commit: str
    updates: Sequence[PushedRefView]


class PushedAnswer(Wire):
    success: Literal[True] = True
    message: str
    data: PushedView


class PullBody(Wire):
    mode: PullMode = PullMode.FF_ONLY


class PulledView(Wire):
    branch: str
    upstream: str
    before: str | None
    after: str
    updated: bool
    commits: int


class PulledAnswer(Wire):
    success: Literal[True] = True
    message: str
    data: PulledView


class RefMoveView(Wire):
    ref: str
    old: str | None
    new: str | None


class FetchedView(Wire):
    branch: str | None
    upstream: str | None = Absent
    ahead: int
    behind: int
    updates: Sequence[RefMoveView]


class FetchedAnswer(Wire):
    success: Literal[True] = True
    data: FetchedView


class LogQuery(Wire):
    limit: int = Field(10, ge=1, le=MAX_LIMIT)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    ref: str | None = Field(None, max_length=400)


class CommitView(Wire):
    """A commit; `message` is its first paragraph as one line, `body` the rest."""

    hash: str
    author: str
    email: str
    date: str
    message: str
    body: str
    parents: Sequence[str]
    refs: Sequence[str]
    pushed: bool


class LogView(Wire):
    commits: Sequence[CommitView]
    limit: int
    offset: int
    truncated: bool


class LogAnswer(Wire):
    success: Literal[True] = True
    data: LogView


class RepositoryView(Wire):
    path: str
    branches: Sequence[str]
    current_branch: str
    remote_url: str


class RepositoryAnswer(Wire):
    success: Literal[True] = True
    data: RepositoryView


class BranchView(Wire):
    """A branch by its name; `current` when some worktree has it checked out."""

    name: str
    current: bool
    local: bool
    remote: bool
    head: str
    upstream: str | None = Absent
    ahead: int
    behind: int
    subject: str
    date: str
    session_id: UUID | None = Absent


class BranchesView(Wire):
    branches: Sequence[BranchView]
    default_branch: str | None
    truncated: bool


class BranchesAnswer(Wire):
    success: Literal[True] = True
    data: BranchesView


@router.get("/status/{session_id}")
async def get_status(session_id: UUID, caller: CurrentUser, git: Git) -> StatusAnswer:
    """Tell what has changed in a session's worktree."""
    return StatusAnswer(data=status_view(await git.status(caller.user_id, session_id)))


@router.get("/diff/{session_id}", response_model=DiffAnswer)
async def get_diff(
    session_id: UUID, caller: CurrentUser, git: Git, asked: Annotated[DiffQuery, Query()]
) -> Response:
    """Return a diff as text: of the working tree, of what is staged, or since a base."""
    found = await git.diff(
        caller.user_id,
        session_id,
        file=asked.file or asked.path,
        file_base64=asked.filename_base64,
        staged=asked.staged,
        base=asked.base,
    )
    answer = DiffAnswer(
        data=DiffView(
            diff=found.text,
            file=shown(found.name) or None,
            staged=asked.staged,
            base=asked.base or None,
            base_commit=found.base,
            truncated=found.truncated,
            masked=found.masked,
            files=[diff_file_view(one) for one in found.files],
        )
    )
    # Made here once: a diff may be large, and every further form of it is a copy.
    return Response(to_json(answer, by_alias=True), media_type="application/json")


@router.post("/commit/{session_id}", dependencies=[ONCE])
async def commit(
    session_id: UUID, body: CommitBody, caller: CurrentUser, git: Git
) -> CommittedAnswer:
    """Commit everything, exactly the named files, or what is staged."""
    wish = NewCommit(
        message=body.message,
        files=body.files,
        filenames_base64=body.filenames_base64,
        staged=body.staged,
        amend=body.amend,
        no_verify=body.no_verify,
        expected_sha=body.expected_sha,
    )
    made = await git.commit(caller.user_id, session_id, wish)
    return CommittedAnswer(data=CommittedView.model_validate(made))


@router.post("/push/{session_id}", dependencies=[ONCE])
async def push(
    session_id: UUID, caller: CurrentUser, git: Git, body: PushBody | None = None
) -> PushedAnswer:
    """Push the session's branch; the answer tells what the gateway saw arrive."""
    asked = body or PushBody.model_validate({})
    wish = NewPush(
        remote=asked.remote,
        branch=asked.branch,
        expected_sha=asked.expected_sha,
        force=asked.force,
        set_upstream=asked.set_upstream,
        no_verify=asked.no_verify,
    )
    pushed = await git.push(caller.user_id, session_id, wish)
    return PushedAnswer(message=_push_message(pushed), data=PushedView.model_validate(pushed))


@router.post("/pull/{session_id}", dependencies=[ONCE])
async def pull(
    session_id: UUID, caller: CurrentUser, git: Git, body: PullBody | None = None
) -> PulledAnswer:
    """Bring the session's branch up to date with its upstream, or change nothing."""
    mode = PullMode.FF_ONLY if body is None else body.mode
    pulled = await git.pull(caller.user_id, session_id, mode)
    updated = pulled.after != pulled.before
    return PulledAnswer(
        message=f"{pulled.branch} is up to date with {pulled.upstream}",
        data=PulledView(
            branch=pulled.branch,
            upstream=pulled.upstream,
            before=pulled.before,
            after=pulled.after,
            updated=updated,
            commits=pulled.commits,
        ),
    )


@router.post("/fetch/{session_id}")
async def fetch(session_id: UUID, caller: CurrentUser, git: Git) -> FetchedAnswer:
    """Bring the remote's branches into the repository; no branch of the owner's moves."""
    found = await git.fetch(caller.user_id, session_id)
    return FetchedAnswer(data=FetchedView.model_validate(found))


@router.get("/log/{session_id}")
async def get_log(
    session_id: UUID, caller: CurrentUser, git: Git, asked: Annotated[LogQuery, Query()]
) -> LogAnswer:
    """List commits, newest first."""
    found = await git.log(
        caller.user_id, session_id, ref=asked.ref, limit=asked.limit, offset=asked.offset
    )
    return LogAnswer(
        data=LogView(
            commits=[commit_view(one, found) for one in found.commits],
            limit=asked.limit,
            offset=asked.offset,
            truncated=found.truncated,
        )
    )


@router.get("/repo/{environment_id}")
async def get_repository(environment_id: UUID, caller: CurrentUser, git: Git) -> RepositoryAnswer:
    """Tell of an environment's repository: its branches and where it comes from."""
    found = await git.repository(caller.user_id, environment_id)
    return RepositoryAnswer(data=RepositoryView.model_validate(found))


@router.get("/branches/{environment_id}")
async def list_branches(environment_id: UUID, caller: CurrentUser, git: Git) -> BranchesAnswer:
    """List the branches of an environment's repository, the newest commits first."""
    found = await git.branches(caller.user_id, environment_id)
    return BranchesAnswer(
        data=BranchesView(
            branches=[branch_view(one) for one in found.branches],
            default_branch=found.default,
            truncated=found.truncated,
        )
    )


def status_view(found: WorktreeStatus) -> StatusView:
    status = found.status
    return StatusView(
        branch=status.branch or "HEAD",
        upstream=status.upstream,
        ahead=status.ahead,
        behind=status.behind,
        files=[status_file_view(one) for one in status.files],
        clean=not status.files and not found.truncated,
        head=status.head,
        detached=status.branch is None,
        operation=found.operation,
        truncated=found.truncated,
    )


def status_file_view(file: StatusFile) -> StatusFileView:
    original = file.original
    return StatusFileView(
        filename=shown(file.name),
        filename_base64=exact(file.name),
        original_filename=None if original is None else shown(original),
        original_filename_base64=None if original is None else exact(original),
        status=file.code.strip(),
        staged=file.staged,
        modified=file.modified,
        untracked=file.untracked,
        conflicted=file.conflicted,
        submodule=True if file.submodule else None,
        **_lines(file.counts),
        binary=_binary(file.counts),
    )


def diff_file_view(file: ChangedFile) -> DiffFileView:
    original = file.original
    return DiffFileView(
        filename=shown(file.name),
        filename_base64=exact(file.name),
        original_filename=None if original is None else shown(original),
        original_filename_base64=None if original is None else exact(original),
        status=file.status,
        **_lines(file.counts),
        binary=_binary(file.counts),
    )


def commit_view(commit: Commit, found: Log) -> CommitView:
    return CommitView(
        hash=commit.id,
        author=commit.author,
        email=commit.email,
        date=commit.date,
        message=commit.subject,
        body=commit.body,
        parents=commit.parents,
        refs=commit.refs,
        pushed=commit.id not in found.unpushed,
    )


def branch_view(branch: Branch) -> BranchView:
    return BranchView(
        name=branch.name,
        current=branch.checked_out,
        local=branch.local,
        remote=branch.remote,
        head=branch.head,
        upstream=branch.upstream,
        ahead=branch.ahead,
        behind=branch.behind,
        subject=branch.subject,
        date=branch.date,
        session_id=branch.session_id,
    )


def _lines(counts: Counts | None) -> dict[str, int | None]:
    return {} if counts is None else {"added": counts.added, "deleted": counts.deleted}


def _binary(counts: Counts | None) -> bool | None:
    return None if counts is None else counts.added is None


def _push_message(pushed: Pushed) -> str:
    if pushed.updates:
        return f"Changes pushed to origin/{pushed.branch}"
    return f"origin/{pushed.branch} has everything already"
