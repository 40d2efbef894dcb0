"""Where a session's branch begins, and what it is called. Pure."""

from craftastic.environments.service import Environment
from craftastic.worktrees.service import (
    BadBase,
    BaseAmbiguous,
    BaseNotFound,
    BaseUnreachable,
    BranchExists,
    Start,
    StartKind,
)

NOTHING_MADE = (BaseAmbiguous, BaseNotFound, BaseUnreachable, BranchExists)
"""Refusals before anything was made: what lies at the worktree's place is somebody else's."""


def branch_of(branch: str | None, start: Start | None, environment: Environment) -> str:
    """Return the name of a session's branch.

    Raises:
        BadBase: There is nothing to begin at, or no new branch to begin there.
    """
    if start is None:
        return branch or environment.branch
    if environment.repository_url is None:
        raise BadBase("The environment has no repository: a session in it begins from nothing.")
    if branch:
        return branch
    if start.kind is StartKind.PULL_REQUEST:
        return f"pr-{start.ref}"
    raise BadBase("Name the new branch (branch) that shall begin there.")
