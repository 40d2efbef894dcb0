"""Where things are inside a sandbox. Pure."""

from uuid import UUID

from craftastic.runtimes.base import HOME
from craftastic.worktrees._branches import encode_branch

WORKSPACE = f"{HOME}/workspace"


def repository_path(environment_id: UUID) -> str:
    """Return the bare repository of an environment, as paths are inside its sandbox."""
    return f"{HOME}/.craftastic/repos/{environment_id}"


def new_repository_path(environment_id: UUID) -> str:
    """Return where a new clone is made beside a damaged one, until it takes its place."""
    # Inside of it: the folder itself is a mount, which cannot be renamed.
    return f"{repository_path(environment_id)}/craftastic-new"


def worktrees_path(environment_id: UUID) -> str:
    return f"{HOME}/.craftastic/worktrees/{environment_id}"


def worktree_path(environment_id: UUID, branch: str) -> str:
    """Return the worktree of a branch, as paths are inside the sandbox."""
    return f"{worktrees_path(environment_id)}/{encode_branch(branch)}"


def jobs_path(session_id: UUID) -> str:
    """Return the folder of the state and the logs of a session's jobs, inside the sandbox."""
    return f"{HOME}/.craftastic/jobs/{session_id}"
