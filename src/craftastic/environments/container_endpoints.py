"""HTTP face of sandboxes as older clients know them: /api/containers. Only the caller's own."""

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from craftastic.accounts.current_user import CurrentUser
from craftastic.environments.service import (
    Environment,
    EnvironmentService,
    EnvironmentStatus,
    acting_for,
)
from craftastic.errors import Unavailable
from craftastic.http.wire import Wire
from craftastic.idempotency.once import ONCE

router = APIRouter(prefix="/api/containers", tags=["containers"])


async def environment_service(request: Request) -> EnvironmentService:
    service: EnvironmentService = request.state.environments
    return service


Environments = Annotated[EnvironmentService, Depends(environment_service)]

STATES = {
    EnvironmentStatus.RUNNING: ("running", "Up"),
    EnvironmentStatus.STARTING: ("created", "Created"),
}


class NotStarted(Unavailable):
    """The new container did not come up; the environment it belongs to is there."""

    code = "CONTAINER_NOT_STARTED"


class NewContainer(Wire):
    user_id: str | None = Field(None, max_length=64)


class CreatedContainer(Wire):
    """A container; `sessionId` is the id of its environment, as the deployment routes take it."""

    session_id: UUID
    environment_id: UUID
    container_id: str


class ContainerView(BaseModel):
    """A container in the form of the Docker Engine API's list, whatever the runtime."""

    Id: str
    Names: list[str]
    Image: str
    Created: int
    State: str
    Status: str
    Labels: dict[str, str]


class ContainerList(Wire):
    containers: Sequence[ContainerView]


class Removed(Wire):
    success: Literal[True] = True


@router.post("/create", dependencies=[ONCE])
async def create_container(
    caller: CurrentUser, environments: Environments, body: NewContainer | None = None
) -> CreatedContainer:
    """Create an environment without a repository."""
    owner = acting_for(caller, None if body is None else body.user_id)
    name = f"container-{uuid4().hex[:12]}"
    created = await environments.create(owner, name=name, actor=caller.user_id)
    if created.sandbox_id is None:
        raise NotStarted("The container did not start", details=created.reason)
    return CreatedContainer(
        session_id=created.id, environment_id=created.id, container_id=created.sandbox_id
    )


@router.get("/list")
async def list_containers(
    caller: CurrentUser,
    environments: Environments,
    user_id: Annotated[str | None, Query(alias="userId", max_length=64)] = None,
) -> ContainerList:
    """List the caller's containers."""
    found = await environments.list_sandboxes(acting_for(caller, user_id))
    image = environments.settings.sandbox_image
    return ContainerList(containers=[_view(one, image) for one in found])


@router.delete("/{container_id}")
async def delete_container(
    container_id: str, caller: CurrentUser, environments: Environments
) -> Removed:
    """Stop and remove a container; its environment stays, stopped, with its files."""
    await environments.remove_sandbox(caller.user_id, container_id)
    return Removed()


def _view(environment: Environment, image: str) -> ContainerView:
    state, status = STATES.get(environment.status, ("exited", "Exited"))
    return ContainerView(
        Id=environment.sandbox_id or "",
        Names=[f"/{environment.name}"],
        Image=image if environment.runtime == "docker" else environment.runtime,
        Created=int(environment.created_at.timestamp()),
        State=state,
        Status=status,
        Labels={
            "craftastic.environment": str(environment.id),
            "craftastic.session": str(environment.id),
            "craftastic.user": str(environment.owner_id),
        },
    )
