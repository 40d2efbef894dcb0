"""What asking for sessions, and deleting them, is answered with."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from craftastic.sessions._model import SessionStatus
from craftastic.sessions._preparation import Teardown
from craftastic.worktrees.service import Kept


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion.

    Args:
        kept: Work that would have been lost, and where it is.
        pending: The sandbox could not be asked; the rest is done when it can.
        teardown: How the worktree's teardown ended; None where it has none.
    """

    kept: Kept | None
    pending: bool
    teardown: Teardown | None = None


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """A session's status; `is_realtime` when its sandbox was asked a moment ago."""

    session_id: UUID
    status: SessionStatus
    is_realtime: bool
    checked_at: datetime
