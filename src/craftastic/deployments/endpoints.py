"""HTTP face of deployments: /api/deployment."""

import re
from typing import Annotated, Any, cast
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request

from craftastic.accounts.current_user import CurrentUser
from craftastic.coolify.service import CoolifyService
from craftastic.deployments._model import MAX_LIST, Wish
from craftastic.deployments._wire import (
    MAX_BRANCH_CHARS,
    MAX_ID_CHARS,
    MAX_PULL_REQUEST,
    ApplicationLogAnswer,
    CheckAnswer,
    CommitList,
    DeploymentList,
    DeploymentView,
    LogLineView,
    NewDeployment,
    NewRollback,
    Received,
    RememberedAnswer,
    RememberedApplication,
    RollbackCommitView,
    RunLogAnswer,
    StartedDeployment,
    check_answer,
    deployment_view,
    started,
)
from craftastic.deployments.service import DeploymentService
from craftastic.errors import NotFound, TooLarge
from craftastic.http.errors import BrokenJson
from craftastic.http.policy import PUBLIC
from craftastic.idempotency.once import ONCE

router = APIRouter(prefix="/api/deployment", tags=["deployments"])

MAX_HOOK_BYTES = 64 << 10
MAX_LOG_LINES = 1000
MAX_ORDER = 2**31 - 1
COOLIFY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class HookNotFound(NotFound):
    """The address that a message came to is none that was made, or is no longer one."""

    code = "DEPLOYMENT_HOOK_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("There is no such hook")


async def deployment_service(request: Request) -> DeploymentService:
    service: DeploymentService = request.state.deployments
    return service


async def coolify_service(request: Request) -> CoolifyService:
    service: CoolifyService = request.state.coolify
    return service


Deployments = Annotated[DeploymentService, Depends(deployment_service)]
Coolifies = Annotated[CoolifyService, Depends(coolify_service)]
AppId = Annotated[str | None, Query(alias="appId", max_length=MAX_ID_CHARS)]


@router.post("/deploy", dependencies=[ONCE])
async def deploy(
    body: NewDeployment, caller: CurrentUser, deployments: Deployments
) -> StartedDeployment:
    """Let Coolify build and start an application from what is pushed."""
    return started(await deployments.deploy(caller.user_id, body.wish))


@router.get("/status/{deployment_id}")
async def get_deployment(
    deployment_id: UUID, caller: CurrentUser, deployments: Deployments
) -> DeploymentView:
    """Return how a deployment is, as of the server's last look."""
    return deployment_view(await deployments.get_owned(caller.user_id, deployment_id))


@router.get("/list/{target_id}")
async def list_deployments(
    target_id: UUID,
    caller: CurrentUser,
    deployments: Deployments,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 50,
) -> DeploymentList:
    """List the deployments of a session, or of an environment with its sessions, newest first."""
    listed = await deployments.list_owned(caller.user_id, target_id, limit)
    return DeploymentList(deployments=[deployment_view(one) for one in listed])


@router.get("/check/{target_id}")
async def check_deployment(
    target_id: UUID,
    caller: CurrentUser,
    deployments: Deployments,
    app_id: AppId = None,
    branch: Annotated[str | None, Query(min_length=1, max_length=MAX_BRANCH_CHARS)] = None,
    pull_request_id: Annotated[
        int | None, Query(alias="pullRequestId", ge=1, le=MAX_PULL_REQUEST)
    ] = None,
) -> CheckAnswer:
    """Tell what a deployment would build, and what of the work at hand it would not."""
    wish = Wish(target_id, app_id=app_id, branch=branch, pull_request_id=pull_request_id)
    return check_answer(await deployments.check(caller.user_id, wish))


@router.post("/rollback", dependencies=[ONCE])
async def roll_back(
    body: NewRollback, caller: CurrentUser, deployments: Deployments
) -> StartedDeployment:
    """Let Coolify start an application from an earlier commit, whose image it still has."""
    return started(
        await deployments.rollback(caller.user_id, body.target_id, body.app_id, body.commit)
    )


@router.post("/cancel/{deployment_id}")
async def cancel_deployment(
    deployment_id: UUID, caller: CurrentUser, deployments: Deployments
) -> DeploymentView:
    """End a deployment that has not ended; what runs already goes on running."""
    return deployment_view(await deployments.cancel(caller.user_id, deployment_id))


@router.get("/logs/{deployment_id}")
async def read_build_log(
    deployment_id: UUID,
    caller: CurrentUser,
    deployments: Deployments,
    after: Annotated[int, Query(ge=0, le=MAX_ORDER)] = 0,
) -> RunLogAnswer:
    """Return what a deployment's build printed, from a line on."""
    found = await deployments.log(caller.user_id, deployment_id, after)
    return RunLogAnswer(
        lines=[LogLineView.model_validate(one) for one in found.lines],
        next=found.next,
        complete=found.complete,
        truncated=found.truncated,
        available=found.available,
        reason=found.reason,
    )


@router.get("/application-logs/{deployment_id}")
async def read_application_log(
    deployment_id: UUID,
    caller: CurrentUser,
    deployments: Deployments,
    lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 100,
) -> ApplicationLogAnswer:
    """Return what a deployment's application printed last while it ran."""
    text = await deployments.application_log(caller.user_id, deployment_id, lines)
    return ApplicationLogAnswer(running=text is not None, log=text)


@router.get("/commits/{target_id}")
async def list_commits(
    target_id: UUID, caller: CurrentUser, deployments: Deployments, app_id: AppId = None
) -> CommitList:
    """List the commits that an application can go back to."""
    found = await deployments.commits(caller.user_id, target_id, app_id)
    return CommitList(commits=[RollbackCommitView.model_validate(one) for one in found])


@router.get("/application/{environment_id}")
async def get_application(
    environment_id: UUID, caller: CurrentUser, deployments: Deployments
) -> RememberedAnswer:
    """Return the application that an environment is deployed to unless another one is named."""
    app_id, app_name = await deployments.remembered(caller.user_id, environment_id) or (None, None)
    return RememberedAnswer(app_id=app_id, app_name=app_name)


@router.put("/application/{environment_id}")
async def remember_application(
    environment_id: UUID,
    body: RememberedApplication,
    caller: CurrentUser,
    deployments: Deployments,
) -> RememberedAnswer:
    """Choose the application that an environment is deployed to; Coolify has to know it."""
    app_id, app_name = await deployments.remember(caller.user_id, environment_id, body.app_id)
    return RememberedAnswer(app_id=app_id, app_name=app_name)


@router.delete("/application/{environment_id}")
async def forget_application(
    environment_id: UUID, caller: CurrentUser, deployments: Deployments
) -> RememberedAnswer:
    """Forget which application an environment is deployed to; nothing changes in Coolify."""
    await deployments.forget_application(caller.user_id, environment_id)
    return RememberedAnswer(app_id=None, app_name=None)


@router.post("/hook/{key}", dependencies=[PUBLIC])
async def take_hook(
    key: str, request: Request, coolify: Coolifies, deployments: Deployments
) -> Received:
    """Take Coolify's word that something happened: the deployment is looked at soon, no more."""
    hook = await coolify.hook_owner(key)
    if hook is None:
        raise HookNotFound
    said = _said(await _hook_body(request))
    await deployments.hint(hook, _text(said, "deployment_uuid"), _text(said, "application_uuid"))
    return Received()


async def _hook_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_HOOK_BYTES:
            raise TooLarge("The request's body is too large")
    return bytes(body)


def _said(body: bytes) -> dict[str, Any]:
    """Return a message's fields; of what is JSON and no object there are none."""
    try:
        said: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BrokenJson("The body is not valid JSON") from error
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def _text(said: dict[str, Any], name: str) -> str | None:
    """Return a field that could be an id; what else Coolify, or somebody, says is left out."""
    value = said.get(name)
    return value if isinstance(value, str) and COOLIFY_ID.fullmatch(value) else None
