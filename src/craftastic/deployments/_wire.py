"""Bodies of the deployment routes. A deployment's own fields are snake_case, all else camelCase."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, PlainSerializer

from craftastic.coolify.api import Application
from craftastic.deployments._model import Check, Deployment, Source, Wish
from craftastic.errors import InvalidInput
from craftastic.http.wire import Wire, timestamp

MAX_ID_CHARS = 100
MAX_BRANCH_CHARS = 255
MAX_COMMIT_CHARS = 64
MAX_PULL_REQUEST = 2**31 - 1

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


class Target(Wire):
    """What is deployed: the work of a session, or of an environment.

    Either field takes the id of either; where both are there, `sessionId` counts.
    """

    session_id: UUID | None = None
    environment_id: UUID | None = None

    @property
    def target_id(self) -> UUID:
        """Return the id that counts.

        Raises:
            InvalidInput: There is none.
        """
        found = self.session_id or self.environment_id
        if found is None:
            raise InvalidInput("sessionId or environmentId is required")
        return found


class NewDeployment(Target):
    """A deployment to start; without `appId` the application that the environment remembers.

    `pushedOnly` deploys what is pushed although there is work that is not; `branch` says that this
    branch is meant, which has to be the one that the application builds.
    """

    app_id: str | None = Field(None, max_length=MAX_ID_CHARS)
    branch: str | None = Field(None, min_length=1, max_length=MAX_BRANCH_CHARS)
    force: bool = False
    pull_request_id: int | None = Field(None, ge=1, le=MAX_PULL_REQUEST)
    pushed_only: bool = False

    @property
    def wish(self) -> Wish:
        return Wish(
            target_id=self.target_id,
            app_id=self.app_id,
            branch=self.branch,
            force=self.force,
            pull_request_id=self.pull_request_id,
            pushed_only=self.pushed_only,
        )


class NewRollback(Target):
    """An earlier commit to go back to; `commits` lists those whose images are still there."""

    app_id: str | None = Field(None, max_length=MAX_ID_CHARS)
    commit: str = Field(min_length=7, max_length=MAX_COMMIT_CHARS)


class RememberedApplication(Wire):
    """The application that deployments of an environment are of."""

    app_id: str = Field(min_length=1, max_length=MAX_ID_CHARS)


class DeploymentView(Wire):
    """A deployment, in Coolify's casing.

    `status` is pending, building, succeeded, failed or cancelled; `health` tells of the application
    after it. `live` is false once nothing more is to be found out; `url` is Coolify's page.
    """

    model_config = ConfigDict(alias_generator=None)

    id: UUID
    environment_id: UUID
    session_id: UUID | None
    app_id: str
    app_name: str
    kind: Literal["deploy", "rollback"]
    status: Literal["pending", "building", "succeeded", "failed", "cancelled"]
    reason: str | None
    branch: str | None
    commit: str | None
    pull_request_id: int | None
    force: bool
    coolify_deployment_id: str | None = Field(validation_alias="run_id")
    coolify_status: str | None = Field(validation_alias="run_word")
    url: str | None
    built_commit: str | None
    health: Literal["waiting", "healthy", "running", "unhealthy", "superseded", "unknown"] | None
    health_text: str | None
    queue_ahead: int | None
    cancel_wanted: bool
    live: bool
    created_at: Timestamp
    updated_at: Timestamp
    building_at: Timestamp | None
    ended_at: Timestamp | None
    health_at: Timestamp | None
    metadata: Mapping[str, str] = {}
    """For older clients; there is nothing in it."""


class CoolifyResponse(Wire):
    """What Coolify calls what it began."""

    model_config = ConfigDict(alias_generator=None)

    deployment_uuid: str
    resource_uuid: str
    status: str | None


class StartedDeployment(Wire):
    """`started`: Coolify has taken it. `pending`: it will be asked again; `reason` says why."""

    deployment_id: UUID
    status: Literal["started", "pending"]
    coolify_response: CoolifyResponse | None
    deployment: DeploymentView


class DeploymentList(Wire):
    deployments: Sequence[DeploymentView]


class BuiltApplication(Wire):
    """An application of Coolify's; `matches`: it builds the environment's repository."""

    id: str
    name: str
    branch: str | None
    repository: str | None
    status: str
    state: str
    health: str | None
    address: str | None
    matches: bool


class WorkProblemView(Wire):
    """Why what is built would not be the work at hand; `details` say what helps."""

    code: Literal["UNCOMMITTED_WORK", "UNPUSHED_WORK", "OTHER_BRANCH"]
    message: str
    details: str


class CheckAnswer(Wire):
    """What a deployment would do. `branch` is the session's, `buildsBranch` the application's."""

    application: BuiltApplication
    source: Source
    branch: str | None
    builds_branch: str | None
    matches_repository: bool | None
    commit: str | None
    ready: bool
    problems: Sequence[WorkProblemView]
    live: DeploymentView | None


class LogLineView(Wire):
    order: int
    text: str
    stream: Literal["stdout", "stderr"]
    at: str | None


class RunLogAnswer(Wire):
    """What a build printed after the line `after`; ask for `next` as `after` for what follows.

    `complete`: nothing follows. `truncated`: lines before these, or ends of long ones, are left
    out. Where `available` is false, `reason` says why.
    """

    lines: Sequence[LogLineView]
    next: int
    complete: bool
    truncated: bool
    available: bool
    reason: str | None


class ApplicationLogAnswer(Wire):
    """What the application itself printed last; null while it does not run."""

    running: bool
    log: str | None


class RollbackCommitView(Wire):
    commit: str
    created_at: str | None
    current: bool


class CommitList(Wire):
    commits: Sequence[RollbackCommitView]


class RememberedAnswer(Wire):
    app_id: str | None
    app_name: str | None


class Received(Wire):
    received: Literal[True] = True


def deployment_view(deployment: Deployment) -> DeploymentView:
    return DeploymentView.model_validate(deployment)


def started(deployment: Deployment) -> StartedDeployment:
    """Return the answer to whoever asked for a deployment."""
    taken = deployment.run_id
    return StartedDeployment(
        deployment_id=deployment.id,
        status="pending" if taken is None else "started",
        coolify_response=None
        if taken is None
        else CoolifyResponse(
            deployment_uuid=taken, resource_uuid=deployment.app_id, status=deployment.run_word
        ),
        deployment=deployment_view(deployment),
    )


def check_answer(check: Check) -> CheckAnswer:
    return CheckAnswer(
        application=built_application(check.application, matches=check.matches_repository is True),
        source=check.source,
        branch=check.branch,
        builds_branch=check.builds_branch,
        matches_repository=check.matches_repository,
        commit=check.commit,
        ready=check.ready,
        problems=[WorkProblemView.model_validate(one) for one in check.problems],
        live=None if check.live is None else deployment_view(check.live),
    )


def built_application(application: Application, *, matches: bool) -> BuiltApplication:
    return BuiltApplication(
        id=application.id,
        name=application.name,
        branch=application.branch,
        repository=application.repository,
        status=application.status,
        state=application.state,
        health=application.health,
        address=application.address,
        matches=matches,
    )
