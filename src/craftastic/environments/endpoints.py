"""HTTP face of environments: /api/environments."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field, PlainSerializer

from craftastic.accounts.current_user import CurrentUser
from craftastic.environments import _repair_endpoints
from craftastic.environments.listing import environments_as_json
from craftastic.environments.service import (
    Environment,
    EnvironmentService,
    IdleStop,
    PushPolicy,
    acting_for,
    suggestions,
    way_on,
)
from craftastic.http.hot import hot
from craftastic.http.wire import Wire, timestamp
from craftastic.idempotency.once import ONCE

router = APIRouter(prefix="/api/environments", tags=["environments"])

MAX_IDLE_MINUTES = 525_600
"""A year."""

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Absent = Field(None, exclude_if=lambda value: value is None)
"""For fields that are left out where there is nothing."""


async def environment_service(request: Request) -> EnvironmentService:
    service: EnvironmentService = request.state.environments
    return service


Environments = Annotated[EnvironmentService, Depends(environment_service)]


class NewEnvironment(Wire):
    user_id: str | None = Field(None, max_length=64)
    name: str = Field(max_length=200)
    repository_url: str | None = Field(None, max_length=4096)
    branch: str | None = Field(None, max_length=400)


class EnvironmentChange(Wire):
    """What is left out stays as it is."""

    name: str | None = Field(None, max_length=200)
    push_policy: PushPolicy | None = None
    idle_stop_minutes: int | None = Field(None, ge=0, le=MAX_IDLE_MINUTES)
    """0 for never, null for what the server's settings say."""

    @property
    def idle_stop(self) -> IdleStop | None:
        """The idle policy that is wished; None where nothing was said about it."""
        said = "idle_stop_minutes" in self.model_fields_set
        return IdleStop(self.idle_stop_minutes) if said else None


class StopWish(Wire):
    """With `force` agents that are at work are cut short."""

    force: bool = False


class ProgressView(Wire):
    step: str
    message: str
    percent: int | None = Absent


class StepTimeView(Wire):
    """A step of the last start, and how long it took."""

    step: str
    ms: int


class EnvironmentView(Wire):
    """An environment; what it does not have is left out."""

    id: UUID
    user_id: UUID
    name: str
    repository_url: str | None = Absent
    branch: str
    container_id: str | None = Absent
    status: str
    created_at: Timestamp
    updated_at: Timestamp
    runtime: str
    clone_status: str
    clone_reason: str | None = Absent
    reason: str | None = Absent
    reason_code: str | None = Absent
    progress: ProgressView | None = Absent
    isolation: str | None = Absent
    push_policy: str
    desired: str
    status_since: Timestamp
    way_on: str | None = Absent
    idle_stop_minutes: int | None = Absent
    timings: Sequence[StepTimeView] | None = Absent


class SessionLineView(Wire):
    id: UUID
    environment_id: UUID
    name: str
    tmux_session_name: str
    working_directory: str
    status: str
    created_at: Timestamp
    updated_at: Timestamp
    last_activity: Timestamp | None = Absent
    git_branch: str | None
    agent_state: str | None = Absent
    agent_state_since: Timestamp | None = Absent
    agent_message: str | None = Absent
    agent_waits_for: str | None = Absent


class ListedEnvironment(EnvironmentView):
    sessions: Sequence[SessionLineView]


class EnvironmentList(Wire):
    environments: Sequence[ListedEnvironment]


class NameAnswer(Wire):
    available: bool
    name: str
    suggestions: Sequence[str]
    message: str


class DiscardedView(Wire):
    branch: str
    uncommitted: bool
    unpushed: int


class DeletedAnswer(Wire):
    """What a deletion did; `discarded` and `pending` only where there is something to say."""

    success: Literal[True] = True
    discarded: Sequence[DiscardedView] | None = Absent
    pending: bool | None = Absent


def environment_view(environment: Environment) -> EnvironmentView:
    timings = [StepTimeView(step=one.step, ms=one.ms) for one in environment.timings]
    return EnvironmentView.model_validate({**_fields(environment), "timings": timings or None})


def _fields(environment: Environment) -> dict[str, object]:
    progress = environment.progress
    return {
        "id": environment.id,
        "user_id": environment.owner_id,
        "name": environment.name,
        "repository_url": environment.repository_url,
        "branch": environment.branch,
        "container_id": environment.sandbox_id,
        "status": environment.status.value,
        "created_at": environment.created_at,
        "updated_at": environment.updated_at,
        "runtime": environment.runtime,
        "clone_status": environment.clone_status.value,
        "clone_reason": environment.clone_reason,
        "reason": environment.reason,
        "reason_code": environment.reason_code,
        "progress": None if progress is None else ProgressView.model_validate(progress),
        "isolation": environment.isolation,
        "push_policy": environment.push_policy.value,
        "desired": environment.desired.value,
        "status_since": environment.status_since,
        "way_on": way_on(environment),
        "idle_stop_minutes": environment.idle_stop_minutes,
    }


@router.post("", dependencies=[ONCE])
async def create_environment(
    body: NewEnvironment, caller: CurrentUser, environments: Environments
) -> EnvironmentView:
    """Create an environment; answers when its sandbox runs, the clone may go on after that."""
    created = await environments.create(
        acting_for(caller, body.user_id),
        name=body.name,
        repository_url=body.repository_url,
        branch=body.branch or "main",
        actor=caller.user_id,
    )
    return environment_view(created)


@router.get("/user/{user_id}", response_model=EnvironmentList)
@hot
async def list_environments(
    user_id: str, caller: CurrentUser, environments: Environments
) -> Response:
    """List a user's environments with their sessions, newest first."""
    listed = await environments_as_json(environments.database, acting_for(caller, user_id))
    return Response(listed, media_type="application/json")


@router.get("/check-name/{user_id}/{name}")
async def check_environment_name(
    user_id: str, name: str, caller: CurrentUser, environments: Environments
) -> NameAnswer:
    """Tell whether a name is free, and offer three others where it is not."""
    owner = acting_for(caller, user_id)
    if await environments.is_name_free(owner, name):
        return NameAnswer(
            available=True, name=name, suggestions=[], message=f'"{name}" is available'
        )
    return NameAnswer(
        available=False,
        name=name,
        suggestions=suggestions(name, environments.clock.now()),
        message=f'"{name}" is already taken',
    )


@router.get("/{environment_id}")
async def get_environment(
    environment_id: UUID, caller: CurrentUser, environments: Environments
) -> EnvironmentView:
    """Return an environment, with its progress while it starts or clones."""
    return environment_view(await environments.get_owned(caller.user_id, environment_id))


@router.patch("/{environment_id}")
async def update_environment(
    environment_id: UUID,
    body: EnvironmentChange,
    caller: CurrentUser,
    environments: Environments,
) -> EnvironmentView:
    """Change an environment's name, its idle policy, or what may be pushed from it."""
    changed = await environments.update(
        caller.user_id,
        environment_id,
        name=body.name,
        push_policy=body.push_policy,
        idle_stop=body.idle_stop,
    )
    return environment_view(changed)


@router.post("/{environment_id}/stop")
async def stop_environment(
    environment_id: UUID,
    caller: CurrentUser,
    environments: Environments,
    body: StopWish | None = None,
) -> EnvironmentView:
    """End all that runs in an environment; working trees stay, and sessions come back in them."""
    force = body is not None and body.force
    return environment_view(await environments.stop(caller.user_id, environment_id, force=force))


@router.post("/{environment_id}/start")
async def start_environment(
    environment_id: UUID, caller: CurrentUser, environments: Environments
) -> EnvironmentView:
    """Start an environment that is stopped or failed; one that runs is left as it is."""
    return environment_view(await environments.start(caller.user_id, environment_id))


@router.post("/{environment_id}/retry")
async def retry_environment(
    environment_id: UUID, caller: CurrentUser, environments: Environments
) -> EnvironmentView:
    """Start an environment that failed or stopped; clone again where that failed."""
    return environment_view(await environments.retry(caller.user_id, environment_id))


router.include_router(_repair_endpoints.router)


@router.delete("/{environment_id}")
async def delete_environment(
    environment_id: UUID, caller: CurrentUser, environments: Environments
) -> DeletedAnswer:
    """Delete an environment, its sandbox and everything in it; says what nobody else had."""
    deleted = await environments.delete(caller.user_id, environment_id)
    return DeletedAnswer(
        discarded=[DiscardedView.model_validate(one) for one in deleted.discarded] or None,
        pending=True if deleted.pending else None,
    )
