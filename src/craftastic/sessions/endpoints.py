"""HTTP face of sessions: /api/sessions."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from craftastic.accounts.current_user import CurrentUser
from craftastic.http.hot import hot
from craftastic.http.ids import parse_id
from craftastic.http.wire import Wire
from craftastic.idempotency.once import ONCE
from craftastic.sessions import _job_endpoints, _repair_endpoints
from craftastic.sessions._wire import Absent, Sessions, Timestamp
from craftastic.sessions.listing import sessions_as_json
from craftastic.sessions.service import (
    AgentState,
    AgentStatus,
    Session,
    SessionStatus,
    SessionType,
    WithAgent,
    nothing_to_delete,
)
from craftastic.worktrees.service import (
    MAX_PULL_REQUEST,
    JobStatus,
    Start,
    StartKind,
    start_of,
)

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


class NewSession(Wire):
    """A session to be made. The working directory follows from the branch; it is not chosen.

    At most one of `baseBranch`, `baseCommit` and `pullRequest` says where a new branch begins. With
    `sessionType` `agent` and `agentId`, the agent starts in it, with `prompt` where there is one.
    """

    environment_id: UUID
    name: str | None = Field(None, max_length=400)
    branch: str | None = Field(None, max_length=400)
    base_branch: str | None = Field(None, max_length=400)
    base_commit: str | None = Field(None, max_length=64)
    pull_request: int | None = Field(None, ge=1, le=MAX_PULL_REQUEST)
    working_directory: str | None = Field(None, max_length=4096)
    session_type: SessionType = SessionType.TERMINAL
    agent_id: UUID | None = None
    prompt: str | None = Field(None, max_length=100_000)


class SessionChanges(Wire):
    status: SessionStatus | None = None
    name: str | None = Field(None, max_length=400)


class StartedFrom(Wire):
    """What the session's branch was asked to begin from, and the commit that this was."""

    base_branch: str | None = Absent
    base_commit: str | None = Absent
    pull_request: int | None = Absent
    commit: str | None = Absent


class SessionView(Wire):
    id: UUID
    environment_id: UUID
    name: str
    tmux_session_name: str
    working_directory: str
    status: SessionStatus
    created_at: Timestamp
    updated_at: Timestamp
    last_activity: Timestamp | None = Absent
    agent_id: UUID | None
    session_type: SessionType
    git_branch: str | None
    reason: str | None = Absent
    started_from: StartedFrom | None = Absent
    agent_state: AgentState | None = Absent
    agent_state_since: Timestamp | None = Absent
    agent_message: str | None = Absent
    agent_waits_for: str | None = Absent


class SessionList(Wire):
    sessions: Sequence[SessionView]


class ExistingSession(Wire):
    id: UUID
    name: str
    branch: str | None = Absent
    created_at: Timestamp


class NameAvailability(Wire):
    available: bool
    name: str
    message: str
    existing_session: ExistingSession | None = Absent


class BranchAvailability(Wire):
    available: bool
    branch: str
    message: str
    existing_session: ExistingSession | None = Absent


class StatusAnswer(Wire):
    session_id: UUID
    status: SessionStatus
    is_realtime: bool
    checked_at: Timestamp


class KeptView(Wire):
    """Work that was only in the deleted session, and where it is in the environment now."""

    ref: str | None = Absent
    commit: str | None = Absent
    uncommitted: bool
    unpushed: int
    path: str | None = Absent


class TeardownView(Wire):
    """How the worktree's teardown ended, with its last words."""

    status: JobStatus
    exit_code: int | None = Absent
    reason: str | None = Absent
    log: str


class DeletedAnswer(Wire):
    success: Literal[True] = True
    message: str = "Session deleted successfully"
    kept: KeptView | None = Absent
    pending: bool | None = Absent
    teardown: TeardownView | None = Absent


def _started_from(start: Start | None) -> StartedFrom | None:
    match start:
        case None:
            return None
        case Start(kind=StartKind.BRANCH):
            return StartedFrom(base_branch=start.ref, commit=start.commit)
        case Start(kind=StartKind.COMMIT):
            return StartedFrom(base_commit=start.ref, commit=start.commit)
        case _:
            return StartedFrom(pull_request=int(start.ref), commit=start.commit)


def session_view(session: Session) -> SessionView:
    return SessionView(
        id=session.id,
        environment_id=session.environment_id,
        name=session.name,
        tmux_session_name=session.tmux_name,
        working_directory=session.working_directory,
        status=session.status,
        created_at=session.created_at,
        updated_at=session.updated_at,
        last_activity=session.last_activity,
        agent_id=session.agent_id,
        session_type=session.session_type,
        git_branch=session.branch,
        reason=session.reason,
        started_from=_started_from(session.start),
        **_agent(session.agent),
    )


def _agent(agent: AgentStatus | None) -> dict[str, Any]:
    if agent is None:
        return {}
    return {
        "agent_state": agent.state,
        "agent_state_since": agent.since,
        "agent_message": agent.message,
        "agent_waits_for": agent.waits_for,
    }


@router.post("", dependencies=[ONCE])
async def create_session(body: NewSession, caller: CurrentUser, sessions: Sessions) -> SessionView:
    """Create a session; on a repository also the worktree of its branch."""
    created = await sessions.create(
        caller.user_id,
        body.environment_id,
        name=body.name,
        branch=body.branch,
        start=start_of(body.base_branch, body.base_commit, body.pull_request),
        session_type=body.session_type,
        agent=WithAgent(body.agent_id, body.prompt),
    )
    return session_view(created)


@router.get("/check-name/{environment_id}/{name}")
async def check_session_name(
    environment_id: UUID, name: str, caller: CurrentUser, sessions: Sessions
) -> NameAvailability:
    """Tell whether a name is free among an environment's living sessions."""
    found = await sessions.check_name(caller.user_id, environment_id, name)
    existing = found.existing
    return NameAvailability(
        available=found.available,
        name=name,
        message=found.message,
        existing_session=None
        if existing is None
        else ExistingSession(id=existing.id, name=existing.name, created_at=existing.created_at),
    )


@router.get("/check-branch/{environment_id}/{branch}")
async def check_session_branch(
    environment_id: UUID, branch: str, caller: CurrentUser, sessions: Sessions
) -> BranchAvailability:
    """Tell whether a branch is free among an environment's living sessions."""
    found = await sessions.check_branch(caller.user_id, environment_id, branch)
    existing = found.existing
    return BranchAvailability(
        available=found.available,
        branch=branch,
        message=found.message,
        existing_session=None
        if existing is None
        else ExistingSession(
            id=existing.id,
            name=existing.name,
            branch=existing.branch,
            created_at=existing.created_at,
        ),
    )


@router.get("/environment/{environment_id}", response_model=SessionList)
@hot
async def list_sessions(environment_id: UUID, caller: CurrentUser, sessions: Sessions) -> Response:
    """List an environment's sessions, dead ones too, newest first."""
    listed = await sessions_as_json(sessions.database, caller.user_id, environment_id)
    return Response(listed, media_type="application/json")


@router.get("/{session_id}")
async def get_session(session_id: UUID, caller: CurrentUser, sessions: Sessions) -> SessionView:
    """Return a session."""
    return session_view(await sessions.get(caller.user_id, session_id))


@router.patch("/{session_id}")
async def update_session(
    session_id: UUID, body: SessionChanges, caller: CurrentUser, sessions: Sessions
) -> SessionView:
    """Rename a session, end it (`dead`), or bring it back to life (`active`, `inactive`)."""
    changed = await sessions.update(caller.user_id, session_id, status=body.status, name=body.name)
    return session_view(changed)


@router.get("/{session_id}/status")
async def get_session_status(
    session_id: UUID, caller: CurrentUser, sessions: Sessions
) -> StatusAnswer:
    """Ask the sandbox how a session is."""
    return StatusAnswer.model_validate(await sessions.status(caller.user_id, session_id))


@router.delete("/{session_id}")
async def delete_session(session_id: str, caller: CurrentUser, sessions: Sessions) -> DeletedAnswer:
    """Delete a session; unpushed and uncommitted work is kept, and the answer says where."""
    deleted = await sessions.delete(caller.user_id, parse_id(session_id, nothing_to_delete()))
    return DeletedAnswer(
        kept=None if deleted.kept is None else KeptView.model_validate(deleted.kept),
        pending=True if deleted.pending else None,
        teardown=None
        if deleted.teardown is None
        else TeardownView.model_validate(deleted.teardown),
    )


router.include_router(_job_endpoints.router)
router.include_router(_repair_endpoints.router)
