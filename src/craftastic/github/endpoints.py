"""HTTP face of GitHub accounts: /api/auth/github."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from craftastic.accounts.current_user import CurrentUser, SignedInUser
from craftastic.github.service import GitHubService
from craftastic.http.policy import PUBLIC
from craftastic.http.wire import Wire

router = APIRouter(prefix="/api/auth/github", tags=["github"])


async def github_service(request: Request) -> GitHubService:
    service: GitHubService = request.state.github
    return service


GitHub = Annotated[GitHubService, Depends(github_service)]


class AsGitHub(BaseModel):
    """A part of an answer in GitHub's own casing, as clients know it from there."""

    model_config = ConfigDict(from_attributes=True)


class FlowView(AsGitHub):
    """A device flow; `device_code` is this server's name for it, not GitHub's secret."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int


class FlowAnswer(Wire):
    success: Literal[True] = True
    data: FlowView


class Poll(Wire):
    device_code: str = Field(max_length=256)
    interval: float | None = None


class Done(Wire):
    success: Literal[True] = True
    message: str


class StillPending(Wire):
    success: Literal[False] = False
    pending: Literal[True] = True
    error: Literal["authorization_pending", "slow_down"]
    message: str
    interval: int


class StatusView(Wire):
    connected: bool
    username: str | None
    configured: bool
    needs_reconnect: bool
    reason: str | None
    kind: str | None
    scopes: Sequence[str]
    missing_scopes: Sequence[str]
    install_url: str | None


class StatusAnswer(Wire):
    success: Literal[True] = True
    data: StatusView


class RepositoryView(AsGitHub):
    id: int
    name: str
    full_name: str
    description: str | None
    html_url: str
    clone_url: str
    ssh_url: str
    private: bool
    default_branch: str
    updated_at: str
    language: str | None
    stargazers_count: int
    open_issues_count: int


class RepositoriesData(AsGitHub):
    repositories: Sequence[RepositoryView]
    page: int
    per_page: int
    total_count: int
    has_more: bool
    next_page: int | None
    install_url: str | None
    sso_url: str | None


class RepositoriesAnswer(Wire):
    success: Literal[True] = True
    data: RepositoriesData


@router.post("/initiate")
async def initiate(caller: SignedInUser, github: GitHub) -> FlowAnswer:
    """Begin to connect a GitHub account: the code is typed at the address, then `poll` says so."""
    flow = await github.initiate(caller.user_id)
    return FlowAnswer(
        data=FlowView(
            device_code=flow.handle,
            user_code=flow.user_code,
            verification_uri=flow.verification_uri,
            expires_in=flow.expires_in_s,
            interval=flow.interval_s,
        )
    )


@router.post("/poll")
async def poll(body: Poll, caller: SignedInUser, github: GitHub) -> Done | StillPending:
    """Tell whether the code was typed; ask again after `interval` seconds while it is pending."""
    answer = await github.poll(caller.user_id, body.device_code)
    if answer.state == "completed":
        return Done(message=answer.message)
    return StillPending(error=answer.state, message=answer.message, interval=answer.interval_s)


@router.delete("/disconnect")
async def disconnect(caller: SignedInUser, github: GitHub) -> Done:
    """Forget the caller's GitHub account and end its tokens."""
    await github.disconnect(caller.user_id)
    return Done(message="GitHub account disconnected")


@router.get("/status")
async def status(caller: CurrentUser, github: GitHub) -> StatusAnswer:
    """Tell whether a GitHub account is connected."""
    return StatusAnswer(data=StatusView.model_validate(await github.status(caller.user_id)))


@router.get("/repos")
async def repos(
    caller: CurrentUser,
    github: GitHub,
    page: Annotated[int, Query(ge=1, le=1000)] = 1,
    per_page: Annotated[int, Query(ge=1, le=100)] = 30,
    sort: Literal["created", "updated", "pushed", "full_name"] = "updated",
    q: Annotated[str | None, Query(max_length=200)] = None,
) -> RepositoriesAnswer:
    """List the repositories of the connected account, newest first; `q` looks for words."""
    found = await github.repos(caller.user_id, page=page, per_page=per_page, sort=sort, query=q)
    views = [RepositoryView.model_validate(one) for one in found.repositories]
    return RepositoriesAnswer(
        data=RepositoriesData(
            repositories=views,
            page=found.page,
            per_page=found.per_page,
            total_count=len(views),
            has_more=found.next_page is not None,
            next_page=found.next_page,
            install_url=found.install_url,
            sso_url=found.sso_url,
        )
    )


@router.post("/webhook", dependencies=[PUBLIC])
async def webhook(
    request: Request,
    github: GitHub,
    x_github_event: Annotated[str, Header(max_length=100)] = "",
    x_hub_signature_256: Annotated[str, Header(max_length=200)] = "",
) -> dict[str, Any]:
    """Take GitHub's word that somebody revoked this app; signed with the webhook's secret."""
    body = await request.body()
    return {
        "success": True,
        "acted": await github.webhook(x_github_event, x_hub_signature_256, body),
    }
