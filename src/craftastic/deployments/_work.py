"""Whether what Coolify would build is the work at hand. Only looks; nothing is changed.

Coolify builds what is pushed to the application's own branch, whatever is in a worktree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.coolify.api import Application
from craftastic.coolify.service import same_repository
from craftastic.deployments._following import plain
from craftastic.deployments._model import Problem, Wish
from craftastic.deployments._refusals import (
    OtherBranch,
    TargetNotFound,
    UncommittedWork,
    UnpushedWork,
    WorkNotDeployable,
)
from craftastic.environments.service import Environment, EnvironmentService
from craftastic.errors import NotFound
from craftastic.git.service import GitService, WorktreeStatus, shown
from craftastic.sessions.service import Session, SessionService, SessionStatus

MAX_FILES_NAMED = 5
MAX_NAME_CHARACTERS = 60
MAX_SESSIONS_LOOKED_AT = 4
REMOTE = "origin"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

REFUSALS: dict[str, type[WorkNotDeployable]] = {
    one.code: one for one in (OtherBranch, UncommittedWork, UnpushedWork)
}
"""The one that the others do not help against comes first."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be deployed: an environment, or one session of it."""

    environment: Environment
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen of the work; see `Check`."""

    branch: str | None
    builds_branch: str | None
    commit: str | None
    matches_repository: bool | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One worktree.

    Args:
        branch: What is checked out there, else the session's own.
        unpushed: Commits that are not pushed: a number, None where it is not known how many.
        pushed: The newest commit, if it is what is pushed.
    """

    branch: str
    files: Sequence[str]
    unpushed: int | None
    pushed: str | None


@dataclass(frozen=True, slots=True)
class Work:
    sessions: SessionService
    environments: EnvironmentService
    git: GitService

    async def target(self, owner: UserId, target_id: UUID) -> Target:
        """Return a session with its environment, or an environment.

        Raises:
            TargetNotFound: It is absent or somebody else's.
        """
        try:
            session, environment = await self.sessions.get_owned(owner, target_id)
        except NotFound:
            pass
        else:
            return Target(environment, session)
        try:
            return Target(await self.environments.get_owned(owner, target_id))
        except NotFound:
            raise TargetNotFound from None

    async def look(
        self, owner: UserId, target: Target, application: Application, wish: Wish
    ) -> Found:
        """Look at the worktrees whose work would be built, or would be missed.

        Of a session that is its own; where another branch is to be built, and of an environment,
        those of the living sessions on that branch. Nobody looks for what is to be left out.

        Raises:
            CraftasticError: Those of `GitService.status`, unless only what is pushed is wanted.
        """
        branch = target.session.branch if target.session is not None else None
        builds = None if wish.pull_request_id else application.branch
        concerned = await self._concerned(owner, target, builds, wish)
        seen = [await self._seen(owner, one) for one in concerned]
        # A session's worktree may have been switched to another branch than the session's own.
        at_hand = seen[0].branch if seen and target.session in concerned else branch
        wanted = wish.branch or at_hand
        problems: list[Problem] = []
        if builds is not None and wanted is not None and builds != wanted:
            problems.append(other_branch(application, builds, wanted))
        for one in seen:
            if one.files:
                problems.append(uncommitted(one.branch, one.files))
            if one.pushed is None:
                problems.append(unpushed(one.branch, one.unpushed))
        is_preview = wish.pull_request_id is not None
        commits = {one.pushed for one in seen if is_preview or one.branch == builds}
        return Found(
            branch=branch,
            builds_branch=builds,
            commit=(commits.pop() or None) if len(commits) == 1 else None,
            matches_repository=_matches(application, target.environment),
            problems=tuple(sorted(problems, key=lambda one: list(REFUSALS).index(one.code))),
        )

    async def _concerned(
        self, owner: UserId, target: Target, builds: str | None, wish: Wish
    ) -> Sequence[Session]:
        own = target.session
        if wish.pushed_only:
            return []
        if own is not None and (wish.branch is None or wish.branch == own.branch):
            return [own] if own.branch is not None else []
        if builds is None:
            return []
        sessions = await self.sessions.list_owned(owner, target.environment.id)
        living = [one for one in sessions if one.status is not SessionStatus.DEAD]
        return [one for one in living if one.branch == builds][:MAX_SESSIONS_LOOKED_AT]

    async def _seen(self, owner: UserId, session: Session) -> _Seen:
        found = await self.git.status(owner, session.id)
        status = found.status
        branch = status.branch or session.branch or ""
        upstream = f"{REMOTE}/{branch}"
        # The git of a sandbox may say anything.
        head = status.head if _HASH.fullmatch(status.head or "") else None
        if status.upstream == upstream and head is not None:
            pushed = None if status.ahead else head
            # A commit that is there too, and is not the newest there, is not what is built.
            known = head if not status.behind else ""
            return _Seen(branch, _names(found), status.ahead, pushed and known)
        there = await self._head_of(owner, session, upstream)
        at_remote = head if there is not None and there == head else None
        return _Seen(branch, _names(found), None, at_remote)

    async def _head_of(self, owner: UserId, session: Session, ref: str) -> str | None:
        """Return where a branch is at the remote, as far as was fetched; None when it is not."""
        try:
            log = await self.git.log(owner, session.id, ref=ref, limit=1)
        except NotFound:
            return None
        return log.commits[0].id if log.commits else None


def _names(found: WorktreeStatus) -> list[str]:
    return [shown(one.name) for one in found.status.files]


def _matches(application: Application, environment: Environment) -> bool | None:
    if application.repository is None or environment.repository_url is None:
        return None
    return same_repository(application.repository, environment.repository_url)


def uncommitted(branch: str, files: Sequence[str]) -> Problem:
    """Say which files no commit has."""
    named = ", ".join(plain(one, MAX_NAME_CHARACTERS) for one in files[:MAX_FILES_NAMED])
    more = len(files) - MAX_FILES_NAMED
    listed = named if more <= 0 else f"{named} and {more} more"
    return Problem(
        "UNCOMMITTED_WORK",
        f"Commit and push first: on '{branch}' "
        f"{_count(len(files), 'file has', 'files have')} changes that no commit has.",
        f"Changed: {listed}. Coolify builds what is pushed: `craftastic commit`, then "
        "`craftastic push`; or deploy only what is pushed already.",
    )


def unpushed(branch: str, commits: int | None) -> Problem:
    """Say how much of a branch is not pushed."""
    what = (
        f"{_count(commits, 'commit is', 'commits are')} not pushed"
        if commits
        else "it is not at the remote as it is here"
    )
    return Problem(
        "UNPUSHED_WORK",
        f"Push '{branch}' first: {what}.",
        "Coolify builds what is pushed: `craftastic push`; or deploy only what is pushed already.",
    )


def other_branch(application: Application, builds: str, wanted: str) -> Problem:
    """Say which branch is built instead, and what can be done about it."""
    return Problem(
        "OTHER_BRANCH",
        f"The application '{plain(application.name, 100)}' builds branch '{plain(builds, 100)}', "
        f"not '{plain(wanted, 100)}'.",
        f"Choose an application that builds '{plain(wanted, 100)}' (or change the branch in "
        "Coolify), deploy the preview of a pull request, or merge, push and name the branch "
        "that is built.",
    )


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse what would not be the work at hand.

    Raises:
        OtherBranch, UncommittedWork, UnpushedWork: As named; all problems are in the answer.
    """
    if not problems:
        return
    first = problems[0]
    told = [{"code": one.code, "message": one.message} for one in problems]
    raise REFUSALS[first.code](first.message, details=first.details, answer={"problems": told})


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number} {many}"
