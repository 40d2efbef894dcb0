"""HTTP face of Coolify: /api/coolify."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, PlainSerializer, SecretStr

from craftastic.accounts.current_user import AdminUser, CurrentUser, SignedInUser
from craftastic.accounts.service import UserId
from craftastic.coolify.api import Application
from craftastic.coolify.service import ConnectionStatus, CoolifyService, same_repository
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/coolify", tags=["coolify"])

MAX_URL_CHARS = 300
MAX_TOKEN_CHARS = 500
HOOK_PATH = "/api/deployment/hook/"
Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


class WithRepository(Protocol):
    """What is asked of an environment here."""

    @property
    def repository_url(self) -> str | None: ...


class EnvironmentsOfOwner(Protocol):
    """What is asked of environments here; their own domain stands above this one."""

    async def get_owned(self, owner: UserId, environment_id: UUID) -> WithRepository:
        """Return the owner's environment.

        Raises:
            NotFound: It is absent or somebody else's.
        """
        ...


async def coolify_service(request: Request) -> CoolifyService:
    service: CoolifyService = request.state.coolify
    return service


async def environments_of_owner(request: Request) -> EnvironmentsOfOwner:
    service: EnvironmentsOfOwner = request.state.environments
    return service


CoolifyConnections = Annotated[CoolifyService, Depends(coolify_service)]
Environments = Annotated[EnvironmentsOfOwner, Depends(environments_of_owner)]


class NewConnection(Wire):
    """A Coolify's address and one of its API tokens, which is never shown again."""

    url: str = Field(min_length=1, max_length=MAX_URL_CHARS)
    token: SecretStr = Field(min_length=1, max_length=MAX_TOKEN_CHARS)


class AbilitiesView(Wire):
    """What the token may do; `readSensitive` is null where it could not be found out."""

    read: bool
    deploy: bool
    read_sensitive: bool | None


class ConnectionProblemView(Wire):
    code: str
    message: str


class HookView(Wire):
    created_at: Timestamp
    last_used_at: Timestamp | None


class ConnectionView(Wire):
    """The connection that the caller's deployments go through; its token is never shown.

    `problem` keeps deployments from working; `advice` says what would make them better.
    """

    configured: bool
    source: Literal["user", "server"] | None
    url: str | None
    version: str | None
    abilities: AbilitiesView | None
    missing: Sequence[str]
    problem: ConnectionProblemView | None
    advice: str | None
    checked_at: Timestamp | None
    server_configured: bool
    hook: HookView | None


class ApplicationView(Wire):
    """An application of Coolify's; `matches` when it is built from the environment's repository."""

    id: str
    name: str
    branch: str | None
    repository: str | None
    status: str
    state: str
    health: str | None
    address: str | None
    matches: bool


class ApplicationList(Wire):
    applications: Sequence[ApplicationView]


class HookAddress(Wire):
    """Where Coolify is to send its messages; shown this once."""

    url: str


class CoolifyDone(Wire):
    message: str


@router.get("/connection")
async def get_connection(caller: CurrentUser, coolify: CoolifyConnections) -> ConnectionView:
    """Tell what is known of the Coolify that the caller deploys by; it is not asked."""
    return _view(await coolify.status(caller.user_id))


@router.put("/connection")
async def put_connection(
    body: NewConnection, caller: SignedInUser, coolify: CoolifyConnections
) -> ConnectionView:
    """Connect a Coolify, which is asked first; a connection that is there is replaced."""
    return _view(await coolify.put(caller.user_id, body.url, body.token.get_secret_value()))


@router.delete("/connection")
async def remove_connection(caller: SignedInUser, coolify: CoolifyConnections) -> CoolifyDone:
    """Forget the caller's own connection and its token."""
    await coolify.remove(caller.user_id)
    return CoolifyDone(message="Coolify disconnected")


@router.post("/connection/check")
async def check_connection(caller: CurrentUser, coolify: CoolifyConnections) -> ConnectionView:
    """Ask Coolify what the connection's token may do."""
    return _view(await coolify.check(caller.user_id))


@router.get("/applications")
async def list_applications(
    caller: CurrentUser,
    coolify: CoolifyConnections,
    environments: Environments,
    environment_id: Annotated[UUID | None, Query(alias="environmentId")] = None,
) -> ApplicationList:
    """List what can be deployed; what is built from the environment's repository comes first."""
    repository: str | None = None
    if environment_id is not None:
        repository = (await environments.get_owned(caller.user_id, environment_id)).repository_url
    views = [_application(one, repository) for one in await coolify.applications(caller.user_id)]
    views.sort(key=lambda one: (not one.matches, one.name.casefold(), one.id))
    return ApplicationList(applications=views)


@router.post("/hook")
async def make_hook(
    request: Request, caller: SignedInUser, coolify: CoolifyConnections
) -> HookAddress:
    """Make an address for Coolify's messages about the caller's deployments; an older one ends."""
    return _address(request, await coolify.make_hook(caller.user_id))


@router.delete("/hook")
async def remove_hook(caller: SignedInUser, coolify: CoolifyConnections) -> CoolifyDone:
    """End the caller's address for Coolify's messages."""
    await coolify.remove_hook(caller.user_id)
    return CoolifyDone(message="Hook removed")


@router.post("/server-hook")
async def make_server_hook(
    request: Request, caller: AdminUser, coolify: CoolifyConnections
) -> HookAddress:
    """Make an address for the messages of the server's Coolify; an older one ends."""
    return _address(request, await coolify.make_hook(None, caller.user_id))


@router.delete("/server-hook")
async def remove_server_hook(caller: AdminUser, coolify: CoolifyConnections) -> CoolifyDone:
    """End the address for the messages of the server's Coolify."""
    await coolify.remove_hook(None, caller.user_id)
    return CoolifyDone(message="Hook removed")


def _view(status: ConnectionStatus) -> ConnectionView:
    return ConnectionView.model_validate(status)


def _application(one: Application, repository: str | None) -> ApplicationView:
    return ApplicationView(
        id=one.id,
        name=one.name,
        branch=one.branch,
        repository=one.repository,
        status=one.status,
        state=one.state,
        health=one.health,
        address=one.address,
        matches=same_repository(one.repository, repository),
    )


def _address(request: Request, key: str) -> HookAddress:
    return HookAddress(url=f"{request.state.settings.base_url}{HOOK_PATH}{key}")
