"""HTTP face of repairs of sessions: /api/sessions/{id}/repair."""

from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter

from craftastic.accounts.current_user import CurrentUser
from craftastic.http.wire import Wire
from craftastic.sessions._wire import Sessions
from craftastic.sessions.repairs import SessionRepairs

router = APIRouter()


class SessionRepairAnswer(Wire):
    """What a repair did; nothing where nothing was wrong."""

    done: Sequence[str]


@router.post("/{session_id}/repair")
async def repair_session(
    session_id: UUID, caller: CurrentUser, sessions: Sessions
) -> SessionRepairAnswer:
    """Make the session's worktree whole again, with the files that are in it."""
    done = await SessionRepairs(sessions).repair(caller.user_id, session_id)
    return SessionRepairAnswer(done=done)
