"""What is refused, and why, in words that say what helps."""

from uuid import UUID

from craftastic.errors import Conflict, InvalidInput, NotFound


class DeploymentNotFound(NotFound):
    """There is no such deployment, or it is somebody else's."""

    code = "DEPLOYMENT_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Deployment not found")


class TargetNotFound(NotFound):
    """The id is of no session and of no environment of the caller's."""

    code = "DEPLOYMENT_TARGET_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Session or environment not found",
            details="Give the id of one of your sessions or environments.",
        )


class ApplicationNeeded(InvalidInput):
    """Nobody said which application of Coolify is meant, and none is remembered."""

    code = "APPLICATION_NEEDED"

    def __init__(self) -> None:
        super().__init__(
            "Choose which Coolify application to deploy",
            details="Name it once; this environment remembers it from then on.",
        )


class WorkNotDeployable(Conflict):
    """What would be built is not the work at hand."""

    code = "WORK_NOT_DEPLOYABLE"


class UncommittedWork(WorkNotDeployable):
    """Files are changed that no commit has."""

    code = "UNCOMMITTED_WORK"


class UnpushedWork(WorkNotDeployable):
    """Coolify builds what is pushed, and some of the work is not."""

    code = "UNPUSHED_WORK"


class OtherBranch(WorkNotDeployable):
    """The application builds another branch than the one that is to be deployed."""

    code = "OTHER_BRANCH"


class DeploymentRunning(Conflict):
    """The same commit is being deployed to the same application already."""

    code = "DEPLOYMENT_RUNNING"

    def __init__(self, deployment_id: UUID) -> None:
        super().__init__(
            "This commit is being deployed already",
            details="Wait for that deployment, cancel it, or force another one.",
            answer={"deploymentId": str(deployment_id)},
        )


class TooManyDeployments(Conflict):
    """As many deployments of one user are running as may."""

    code = "TOO_MANY_DEPLOYMENTS"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} of your deployments are running already",
            details="Wait until some have ended, or cancel some.",
        )


class DeploymentFailed(Conflict):
    """Coolify did not take the deployment; it is listed with this reason."""

    code = "DEPLOYMENT_FAILED"

    def __init__(self, deployment_id: UUID, reason: str) -> None:
        super().__init__(
            f"Deployment failed: {reason}", answer={"deploymentId": str(deployment_id)}
        )
