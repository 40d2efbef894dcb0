"""Whether a name or a branch is free among an environment's living sessions. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from craftastic.errors import Conflict
from craftastic.http.wire import timestamp
from craftastic.sessions._model import Session
from craftastic.worktrees.service import branch_key, conflicting

MAX_TMUX_NAME_CHARACTERS = 40


class SessionNameTaken(Conflict):
    code = "SESSION_NAME_IN_USE"
    code_is_error = True


class BranchInUse(Conflict):
    """A living session has the branch, or one that cannot be beside it."""

    code = "BRANCH_IN_USE"
    code_is_error = True


class TooManySessions(Conflict):
    code = "TOO_MANY_SESSIONS"


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a name or a branch is free; else who has it, and the sentence that says so."""

    message: str
    existing: Session | None = None

    @property
    def available(self) -> bool:
        return self.existing is None


def name_availability(live: Sequence[Session], name: str) -> Availability:
    for session in live:
        if session.name == name:
            return Availability(f'Session name "{name}" is already in use', session)
    return Availability("Name is available")


def branch_availability(live: Sequence[Session], branch: str) -> Availability:
    key = branch_key(branch)
    for session in live:
        if session.branch is None or session.branch_key is None:
            continue
        if session.branch == branch:
            return Availability(
                f'Branch "{branch}" is already in use by session "{session.name}"', session
            )
        if session.branch_key == key:
            return Availability(
                f'Branch "{branch}" differs only in letter case or spelling from '
                f'"{session.branch}", which session "{session.name}" uses',
                session,
            )
        if conflicting(session.branch_key, key):
            return Availability(
                f'Branch "{branch}" cannot be beside "{session.branch}" of session '
                f'"{session.name}": git keeps one name as a folder of the other',
                session,
            )
    return Availability("Branch is available")


def refuse_name(live: Sequence[Session], name: str) -> None:
    """Refuse a name that a living session has.

    Raises:
        SessionNameTaken: With that session in the answer.
    """
    found = name_availability(live, name)
    if found.existing is not None:
        raise SessionNameTaken(found.message, answer=_existing(found.existing))


def refuse_taken(live: Sequence[Session], name: str, branch: str | None, most: int) -> None:
    """Refuse a session that cannot be beside the living ones.

    Args:
        live: The environment's living sessions, but for itself.
        name: What it shall be called.
        branch: Its branch; None where there is no repository.
        most: How many living sessions an environment may have.

    Raises:
        SessionNameTaken, BranchInUse: With the session that has it in the answer.
        TooManySessions: There are as many as there may be.
    """
    refuse_name(live, name)
    if branch is not None:
        found = branch_availability(live, branch)
        if found.existing is not None:
            raise BranchInUse(found.message, answer=_existing(found.existing))
    if len(live) >= most:
        raise TooManySessions(
            "The environment has as many sessions as it may have",
            details=f"The limit is {most}; delete one of them.",
        )


def tmux_name(name: str, milliseconds: int) -> str:
    # tmux gives `.` and `:` a meaning in targets, and a name must survive every shell and log.
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:MAX_TMUX_NAME_CHARACTERS].strip("-")
    return f"{plain or 'session'}-{milliseconds}"


def _existing(session: Session) -> dict[str, object]:
    existing: dict[str, object] = {
        "id": str(session.id),
        "name": session.name,
        "createdAt": timestamp(session.created_at),
    }
    if session.last_activity is not None:
        existing["lastActivity"] = timestamp(session.last_activity)
    return {"existingSession": existing}
