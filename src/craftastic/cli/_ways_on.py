"""What the user can do about the server's refusals, in commands of this program."""

import re
import shlex
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from craftastic.cli._git_text import file_name
from craftastic.cli.output import printable, say
from craftastic.errors import CraftasticError, Forbidden

MAX_FILES_TOLD = 20

PULL = "`craftastic pull {session}` brings the other commits here."
LOOK = "`craftastic status {session}` and `craftastic log {session}` show how it is now."
ACCESS = (
    "`craftastic github connect` connects your GitHub account; `craftastic host add ORIGIN` stores"
    " a token for another git server."
)
START = "`craftastic up {repository} --detach` starts the environment again."

WAYS_ON = {
    "BRANCH_MOVED": LOOK,
    "COMMIT_REFUSED": "--no-verify commits without the repository's hooks.",
    "ENVIRONMENT_STOPPED": START,
    "GIT_AUTHENTICATION_REQUIRED": ACCESS,
    "GIT_LOCKED": "Try again when the other git command has ended. `craftastic session repair"
    " {session}` removes what one that was cut short has left.",
    "GITHUB_AUTHENTICATION_REQUIRED": "`craftastic github connect` connects your account.",
    "NO_UPSTREAM": "`craftastic push {session}` makes the branch there.",
    "NOTHING_TO_COMMIT": "`craftastic status {session}` shows what has changed.",
    "PULL_CONFLICT": "`craftastic session attach {session}` opens the terminal.",
    "PULL_DIVERGED": "`craftastic pull --rebase {session}` puts your commits on top of the others.",
    "PUSH_HOOK_REFUSED": "--no-verify pushes without the repository's hooks.",
    "PUSH_NOT_ALLOWED": "`craftastic env set {environment} --push-policy any` allows every push.",
    "PUSH_REJECTED": PULL + " --force puts your branch in the place of the one there.",
    "PUSH_UNCONFIRMED": "The same command again tells whether everything arrived.",
    "REPOSITORY_CORRUPT": "`craftastic env repair {environment}` clones it anew, and keeps the"
    " damaged one.",
    "REPOSITORY_MISSING": "`craftastic env repair {environment}` clones it again.",
    "SANDBOX_NOT_RUNNING": START,
    "UNCOMMITTED_CHANGES": "`craftastic commit {session} -m MESSAGE` commits them.",
    "UPSTREAM_REFUSES_ACCESS": ACCESS,
    "WORKTREE_LOCKED": "`craftastic session repair {session}` unlocks it.",
    "WORKTREE_MISSING": "`craftastic session repair {session}` makes the worktree again.",
}
WRONG_ACCOUNT = {
    "GIT_AUTHENTICATION_REQUIRED": "The git server asks for an account.",
    "GITHUB_AUTHENTICATION_REQUIRED": "There is no GitHub account to ask with.",
}
"""These are no mistakes in the command line, and end as what is not allowed."""


@contextmanager
def ways_on(
    session: Mapping[str, Any] | None = None, environment: Mapping[str, Any] | None = None
) -> Generator[None]:
    """Add to a refusal inside the block what to do about it.

    Args:
        session: That the command is about, to name it.
        environment: Of the session.
    """
    try:
        yield
    except CraftasticError as error:
        code = str(error.answer.get("code"))
        told = [error.details or "", *_files(error.answer.get("files"))]
        if way_on := WAYS_ON.get(code):
            told.append(way_on.format_map(_named(session or {}, environment or {})))
        error.details = "\n".join(one for one in told if one) or None
        if code in WRONG_ACCOUNT:
            raise Forbidden(WRONG_ACCOUNT[code], details=error.details) from error
        raise


def _named(session: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    name = environment.get("name", "ENVIRONMENT")
    return {
        "session": shlex.quote(printable(f"{name}/{session.get('name') or session.get('id')}")),
        "environment": shlex.quote(printable(name)),
        "repository": shlex.quote(printable(environment.get("repositoryUrl", "REPOSITORY"))),
    }


def _files(files: object) -> list[str]:
    if not isinstance(files, list):
        return []
    names = [file_name(str(one)) for one in cast("Sequence[object]", files)]
    more = len(names) - MAX_FILES_TOLD
    return [*names[:MAX_FILES_TOLD], *([f"and {more} more"] if more > 0 else [])]


def say_lines(text: str) -> None:
    """Tell what a program said, line by line."""
    for line in text.splitlines():
        say(line)


# ---- a repository that cannot be cloned -------------------------------------------------------

_NO_ACCESS = re.compile(
    r"asks for an account|refuses access to this repository|does not show it"
    r"|credential of the git host|credential's account"
)


def access_way_on(repository: str, reason: str) -> str | None:
    """Return how to get in to a repository whose clone failed; None if access was not the reason.

    Args:
        repository: Its address.
        reason: What the server says about the clone.
    """
    said = " ".join(reason.split())
    if not _NO_ACCESS.search(said):
        return None
    parts = urlsplit(repository)
    host = printable(parts.netloc.rpartition("@")[2])
    if "GitHub" in said or host == "github.com":
        first = "`craftastic github connect` connects your GitHub account."
    else:
        first = f"`craftastic host add {printable(parts.scheme)}://{host}` stores a token for it."
    return f"{first} Is the address right, and may the account read the repository?"
