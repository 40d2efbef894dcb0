"""HTTP face of the reconciler: /api/cleanup. It only wakes the steps, and cleans what is asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import PlainSerializer

from craftastic.accounts.current_user import AdminUser, CurrentUser
from craftastic.accounts.service import Caller
from craftastic.environments.service import EnvironmentService
from craftastic.http.wire import Wire, timestamp
from craftastic.reconcile.service import ReconcileService
from craftastic.sessions.service import SessionService

router = APIRouter(prefix="/api/cleanup", tags=["cleanup"])

Moment = Annotated[
    datetime | None,
    PlainSerializer(lambda at: None if at is None else timestamp(at), return_type=str | None),
]


async def reconcile_service(request: Request) -> ReconcileService:
    service: ReconcileService = request.state.reconcile
    return service


async def session_service(request: Request) -> SessionService:
    service: SessionService = request.state.sessions
    return service


async def environment_service(request: Request) -> EnvironmentService:
    service: EnvironmentService = request.state.environments
    return service


Reconcile = Annotated[ReconcileService, Depends(reconcile_service)]
Sessions = Annotated[SessionService, Depends(session_service)]
Environments = Annotated[EnvironmentService, Depends(environment_service)]


class Stats(Wire):
    total: int
    active: int
    inactive: int
    dead: int


class Cleaned(Wire):
    success: Literal[True] = True
    message: str


class SessionsCleaned(Cleaned):
    stats: Stats


class ReconcilerView(Wire):
    name: str
    rounds: int
    failures: int
    last_at: Moment
    last_error: str | None


class ReconcilerList(Wire):
    reconcilers: Sequence[ReconcilerView]


@router.post("/sessions")
async def clean_sessions(
    caller: CurrentUser, reconcile: Reconcile, sessions: Sessions
) -> SessionsCleaned:
    """Run the reconciler now, and count the caller's sessions; an administrator's are all."""
    await reconcile.run_now()
    counts = await sessions.count(None if _administers(caller) else caller.user_id)
    return SessionsCleaned(message="Session cleanup completed", stats=Stats.model_validate(counts))


@router.post("/container/{container_id}")
async def clean_container(
    container_id: str, caller: CurrentUser, environments: Environments, sessions: Sessions
) -> Cleaned:
    """End the tmux sessions in a container that belong to no session."""
    owner = caller.user_id
    if _administers(caller):
        owner = await environments.owner_of(sandbox_id=container_id) or owner
    await sessions.end_strays(owner, container_id)
    return Cleaned(message=f"Cleaned up orphaned tmux sessions in container {container_id}")


@router.post("/environment/{environment_id}")
async def clean_environment(
    environment_id: UUID, caller: CurrentUser, environments: Environments, sessions: Sessions
) -> Cleaned:
    """End all sessions of an environment; their rows and worktrees stay."""
    owner = caller.user_id
    if _administers(caller):
        owner = await environments.owner_of(environment_id) or owner
    await sessions.end_in(owner, environment_id, by=caller.user_id)
    return Cleaned(message=f"Cleaned up all sessions for environment {environment_id}")


@router.get("/status")
async def reconciler_status(_caller: AdminUser, reconcile: Reconcile) -> ReconcilerList:
    """Tell how the reconciler has done since the server started."""
    return ReconcilerList(
        reconcilers=[ReconcilerView.model_validate(one) for one in reconcile.statuses]
    )


def _administers(caller: Caller) -> bool:
    # As for the routes of administrators: a program's access token has no more than its owner's.
    return caller.is_admin and caller.by_sign_in
