"""Deployments: what is to be built is checked, asked for once, and followed to its end.

The wish is stored first. Whatever a deployment still needs is done in steps, each by whoever claims
it: the request that asked, or the reconciler of any server process, also after a crash.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from uuid import UUID

import anyio.to_thread

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.coolify.api import (
    Application,
    RollbackImage,
    check_application_id,
    check_commit,
)
from craftastic.coolify.service import (
    Connected,
    CoolifyService,
    DeploymentNotConfigured,
    HookOwner,
)
from craftastic.database import Database
from craftastic.deployments._calls import Calls
from craftastic.deployments._following import plain, same_commit
from craftastic.deployments._log import (
    DISCONNECTED,
    NEVER,
    NOT_YET,
    Logs,
    WholeLog,
    since,
    unreadable,
    whole_log,
)
from craftastic.deployments._model import (
    MAX_LIST,
    Check,
    Deployment,
    Health,
    Kind,
    Pace,
    Problem,
    RunLog,
    Status,
    Wish,
)
from craftastic.deployments._refusals import (
    ApplicationNeeded,
    DeploymentFailed,
    DeploymentNotFound,
    DeploymentRunning,
    OtherBranch,
    TargetNotFound,
    TooManyDeployments,
    UncommittedWork,
    UnpushedWork,
    WorkNotDeployable,
)
from craftastic.deployments._repository import (
    Claim,
    DeploymentRepository,
    NewDeployment,
)
from craftastic.deployments._rounds import Round, Under
from craftastic.deployments._steps import Steps
from craftastic.deployments._work import Target, Work, refuse
from craftastic.environments.service import EnvironmentService
from craftastic.errors import InvalidInput
from craftastic.git.service import GitService, Masker
from craftastic.metrics import Metrics
from craftastic.sessions.service import SessionService

__all__ = [
    "ApplicationNeeded",
    "Check",
    "Deployment",
    "DeploymentFailed",
    "DeploymentNotFound",
    "DeploymentRunning",
    "DeploymentService",
    "Health",
    "Kind",
    "OtherBranch",
    "Pace",
    "Problem",
    "RunLog",
    "Status",
    "TargetNotFound",
    "TooManyDeployments",
    "UncommittedWork",
    "UnpushedWork",
    "Wish",
    "WorkNotDeployable",
]

STEPS_AT_ONCE = 16
MAX_APPLICATION_LINES = 1000
MAX_BRANCH_CHARACTERS = 255
MAX_PULL_REQUEST = (1 << 31) - 1

MaskerFor = Callable[[UUID, UUID], Awaitable[Masker]]
T = TypeVar("T")


class Prepared(NamedTuple):
    """What a wish is about, once everything of it was found."""

    target: Target
    connected: Connected
    application: Application


@dataclass(frozen=True, slots=True)
class DeploymentService:
    """Deployments of users' work through Coolify.

    Args:
        masker_for: Hides what the variables of an owner and an environment keep secret.
        pace: How long things wait.
    """

    database: Database
    coolify: CoolifyService
    sessions: SessionService
    environments: EnvironmentService
    git: GitService
    audit: AuditService
    clock: Clock
    metrics: Metrics
    masker_for: MaskerFor
    pace: Pace = field(default_factory=Pace)
    _logs: Logs = field(init=False, repr=False, default_factory=Logs)

    async def deploy(self, owner: UserId, wish: Wish) -> Deployment:
        """Let Coolify build and start what is pushed; return when it has taken the wish or waits.

        The row is committed before Coolify is asked, so a crash or a cancellation in between
        leaves a deployment that the reconciler goes on with; it is never asked for twice.

        Returns:
            The deployment: `run_id` is there once Coolify took it; without one it is pending, and
            `reason` says what it waits for.

        Raises:
            TargetNotFound: It is absent or somebody else's.
            ApplicationNeeded, BadApplicationId: Which application is not known.
            DeploymentNotConfigured: There is no connection to Coolify.
            UncommittedWork, UnpushedWork, OtherBranch: What would be built is not the work at hand.
            DeploymentRunning: The same is being deployed already.
            TooManyDeployments: As many are running as may.
            DeploymentFailed: Coolify did not take it; the deployment is listed with the reason.
            CraftasticError: Those of `coolify.errors` about the application, before anything is
                stored; those of `GitService.status` about the work.
        """
        _check_pull_request(wish.pull_request_id)
        prepared = await self._prepared(owner, wish.target_id, wish.app_id)
        target, _, application = prepared
        found = await self._work.look(owner, target, application, wish)
        refuse(found.problems)
        branch = found.builds_branch or wish.branch or found.branch
        return await self._begin(
            owner, prepared, kind=Kind.DEPLOY, branch=branch, commit=found.commit, wish=wish
        )

    async def check(self, owner: UserId, wish: Wish) -> Check:
        """Tell what a deployment would do, and what keeps it from being what is at hand.

        Raises:
            CraftasticError: See `deploy`; problems with the work are told, not raised.
        """
        _check_pull_request(wish.pull_request_id)
        target, connected, application = await self._prepared(owner, wish.target_id, wish.app_id)
        found = await self._work.look(owner, target, application, wish)
        async with self.database.read() as tx:
            unended = await DeploymentRepository(tx).unended(
                owner, application.id, connected.connection_id
            )
        return Check(
            application=application,
            source=connected.source,
            branch=found.branch,
            builds_branch=found.builds_branch,
            commit=found.commit,
            matches_repository=found.matches_repository,
            problems=found.problems,
            live=unended[0] if unended else None,
        )

    async def rollback(
        self, owner: UserId, target_id: UUID, app_id: str | None, commit: str
    ) -> Deployment:
        """Let Coolify go back to an image that it still has; see `deploy` about the rest.

        Raises:
            CraftasticError: See `deploy`; `BadCommit` of `coolify.api` for what is no commit.
        """
        commit = check_commit(commit)
        prepared = await self._prepared(owner, target_id, app_id)
        wish = Wish(target_id, app_id)
        branch = prepared[2].branch
        return await self._begin(
            owner, prepared, kind=Kind.ROLLBACK, branch=branch, commit=commit, wish=wish
        )

    async def get_owned(self, owner: UserId, deployment_id: UUID) -> Deployment:
        """Return a deployment.

        Raises:
            DeploymentNotFound: It is absent or somebody else's.
        """
        async with self.database.read() as tx:
            return await DeploymentRepository(tx).get_owned(owner, deployment_id)

    async def list_owned(self, owner: UserId, target_id: UUID, limit: int = 50) -> list[Deployment]:
        """List a session's or an environment's deployments, newest first, at most 200.

        Raises:
            TargetNotFound: It is absent or somebody else's.
        """
        target = await self._work.target(owner, target_id)
        limit = max(1, min(limit, MAX_LIST))
        async with self.database.read() as tx:
            repository = DeploymentRepository(tx)
            if target.session is not None:
                return await repository.list_session(owner, target.session.id, limit)
            return await repository.list_environment(owner, target.environment.id, limit)

    async def cancel(self, owner: UserId, deployment_id: UUID) -> Deployment:
        """Let a deployment be cancelled; one that has ended stays as it is.

        The wish is stored first; what Coolify says then is the truth.

        Raises:
            DeploymentNotFound: It is absent or somebody else's.
        """
        async with self.database.begin() as tx:
            wanted = await DeploymentRepository(tx).want_cancelled(
                owner, deployment_id, self.clock.now()
            )
            if wanted is not None:
                await self.audit.record(
                    "deployment.cancel",
                    actor_id=owner,
                    object_type="deployment",
                    object_id=deployment_id,
                    details=_details(wanted),
                    tx=tx,
                )
        if wanted is not None:
            async with self.database.begin() as tx:
                claim = await DeploymentRepository(tx).claim(deployment_id, self.pace.hold_s)
            if claim is not None:
                await self._steps.run(claim)
        return await self.get_owned(owner, deployment_id)

    async def log(self, owner: UserId, deployment_id: UUID, after: int = 0) -> RunLog:
        """Return what a run printed after a line; Coolify is asked at most every two seconds.

        `after` is the order of the last line that is known, 0 for all.

        Raises:
            DeploymentNotFound: It is absent or somebody else's.
            CraftasticError: Those of `coolify.errors`.
        """
        row = await self.get_owned(owner, deployment_id)
        if row.run_id is None:
            return unreadable(NEVER if row.ended else NOT_YET, after, complete=row.ended)
        connected = await self._connected_as(row)
        if connected is None:
            return unreadable(DISCONNECTED, after, complete=True)
        run_id = row.run_id

        async def fetch() -> WholeLog:
            run = await self._asked(connected, lambda: connected.api.run(run_id))
            return await whole_log(run, await self.masker_for(owner, row.environment_id))

        return since(await self._logs.read(row.id, self.pace.log_s, fetch), after)

    async def application_log(
        self, owner: UserId, deployment_id: UUID, lines: int = 100
    ) -> str | None:
        """Return the last lines, at most 1000, that the application printed; None if not running.

        Raises:
            DeploymentNotFound: It is absent or somebody else's.
            DeploymentNotConfigured: The connection is gone.
            CraftasticError: Those of `coolify.errors`.
        """
        row = await self.get_owned(owner, deployment_id)
        connected = await self._connected_as(row)
        if connected is None:
            raise DeploymentNotConfigured
        lines = max(1, min(lines, MAX_APPLICATION_LINES))
        text = await self._asked(
            connected, lambda: connected.api.application_log(row.app_id, lines)
        )
        if text is None:
            return None
        masker = await self.masker_for(owner, row.environment_id)
        return await anyio.to_thread.run_sync(masker.mask_text, text)

    async def commits(
        self, owner: UserId, target_id: UUID, app_id: str | None = None
    ) -> list[RollbackImage]:
        """List the commits whose images Coolify still has, to roll back to.

        Raises:
            TargetNotFound, ApplicationNeeded, DeploymentNotConfigured: See `deploy`.
            CraftasticError: Those of `coolify.errors`.
        """
        target = await self._work.target(owner, target_id)
        connected = await self.coolify.connected(owner)
        chosen = await self._application_id(owner, target, app_id)
        return await self._asked(connected, lambda: connected.api.rollback_images(chosen))

    async def remembered(
        self, owner: UserId, environment_id: UUID
    ) -> tuple[str, str | None] | None:
        """Return id and name of the application that an environment is deployed to, if known.

        Raises:
            EnvironmentNotFound: It is absent or somebody else's.
        """
        await self.environments.get_owned(owner, environment_id)
        async with self.database.read() as tx:
            return await DeploymentRepository(tx).application(owner, environment_id)

    async def remember(
        self, owner: UserId, environment_id: UUID, app_id: str
    ) -> tuple[str, str | None]:
        """Remember which application an environment is deployed to; return its id and name.

        Raises:
            EnvironmentNotFound: It is absent or somebody else's.
            TargetNotFound: It was deleted meanwhile.
            BadApplicationId, DeploymentNotConfigured: As named.
            CraftasticError: Those of `coolify.errors`: it is looked up first.
        """
        await self.environments.get_owned(owner, environment_id)
        app_id = check_application_id(app_id)
        connected = await self.coolify.connected(owner)
        application = await self._asked(connected, lambda: connected.api.application(app_id))
        async with self.database.begin() as tx:
            await DeploymentRepository(tx).remember(
                owner, environment_id, application.id, application.name, self.clock.now()
            )
        return application.id, application.name

    async def forget_application(self, owner: UserId, environment_id: UUID) -> None:
        """Forget which application an environment is deployed to.

        Raises:
            EnvironmentNotFound: It is absent or somebody else's.
        """
        await self.environments.get_owned(owner, environment_id)
        async with self.database.begin() as tx:
            await DeploymentRepository(tx).forget(owner, environment_id)

    async def hint(self, hook: HookOwner, run_id: str | None, app_id: str | None) -> bool:
        """Look soon at what a message speaks of; the message itself is not believed.

        Args:
            hook: Whose deployments it may speak of.
            run_id: Coolify's id of a run.
            app_id: Coolify's id of an application, where no run is named.

        Returns:
            Whether there is anything to look at; at most once a second each.
        """
        if run_id is None and app_id is None:
            return False
        async with self.database.begin() as tx:
            return await DeploymentRepository(tx).hint(hook, run_id, app_id, self.pace.hint_s)

    async def reconcile(self) -> None:
        """Do one step of what is due, side by side; what is left is the next round's.

        While some take long, what becomes due is begun beside them: a Coolify that hangs holds up
        its owner's deployments and no others.
        """
        await Round(self._claim_due, self._steps.run).run()

    async def _claim_due(self, under_way: Under) -> Sequence[Claim]:
        async with self.database.read() as tx:
            repository = DeploymentRepository(tx)
            self.metrics.deployments_are(await repository.counts())
            is_due = await repository.any_due()
        free = STEPS_AT_ONCE - sum(under_way.values())
        if not is_due or free <= 0:
            return ()
        async with self.database.begin() as tx:
            return await DeploymentRepository(tx).claim_due(free, self.pace.hold_s, under_way)

    async def _prepared(self, owner: UserId, target_id: UUID, app_id: str | None) -> Prepared:
        target = await self._work.target(owner, target_id)
        connected = await self.coolify.connected(owner)
        chosen = await self._application_id(owner, target, app_id)
        return Prepared(
            target,
            connected,
            await self._asked(connected, lambda: connected.api.application(chosen)),
        )

    async def _application_id(self, owner: UserId, target: Target, app_id: str | None) -> str:
        if app_id is not None:
            return check_application_id(app_id)
        async with self.database.read() as tx:
            known = await DeploymentRepository(tx).application(owner, target.environment.id)
        if known is None:
            raise ApplicationNeeded
        return known[0]

    async def _begin(
        self,
        owner: UserId,
        prepared: Prepared,
        *,
        kind: Kind,
        branch: str | None,
        commit: str | None,
        wish: Wish,
    ) -> Deployment:
        target, connected, application = prepared
        new = NewDeployment(
            owner_id=owner,
            environment_id=target.environment.id,
            session_id=None if target.session is None else target.session.id,
            app_id=application.id,
            app_name=application.name,
            source=connected.source,
            connection_id=connected.connection_id,
            web_url=connected.api.web_url,
            kind=kind,
            branch=None if branch is None else plain(branch, MAX_BRANCH_CHARACTERS),
            commit=commit,
            pull_request_id=wish.pull_request_id,
            force=wish.force,
        )
        claim = await self._insert(new)
        after = await self._steps.run(claim) or await self.get_owned(owner, claim.row.id)
        if after.status is Status.FAILED:
            raise DeploymentFailed(after.id, after.reason or "Coolify did not take it.")
        return after

    async def _insert(self, new: NewDeployment) -> Claim:
        """Store the wish, with everything that has to be known of it when nothing else is."""
        action = "deployment.start" if new.kind is Kind.DEPLOY else "deployment.rollback"
        now = self.clock.now()
        async with self.database.begin() as tx:
            repository = DeploymentRepository(tx)
            await repository.one_at_a_time()
            if not new.force:
                running = await repository.unended(new.owner_id, new.app_id, new.connection_id)
                _refuse_running(new, running)
            await repository.insist_on_room(new.owner_id)
            claim = await repository.add(
                new, now, hold_s=self.pace.hold_s, give_up_s=self.pace.give_up_s
            )
            await repository.remember(
                new.owner_id, new.environment_id, new.app_id, new.app_name, now
            )
            await self.audit.record(
                action,
                actor_id=new.owner_id,
                object_type="deployment",
                object_id=claim.row.id,
                details=_details(claim.row),
                tx=tx,
            )
        return claim

    async def _connected_as(self, row: Deployment) -> Connected | None:
        found = await self.coolify.connected_as(row.owner_id, row.source, row.connection_id)
        return found if found is not None and found.api.web_url == row.web_url else None

    async def _asked(self, connected: Connected, call: Callable[[], Awaitable[T]]) -> T:
        """Ask what somebody waits for; while Coolify wants to be left alone, tell them."""
        calls = Calls(self.coolify, self.metrics)
        await calls.insist(connected)
        async with calls.counted(connected):
            return await call()

    @property
    def _work(self) -> Work:
        return Work(self.sessions, self.environments, self.git)

    @property
    def _steps(self) -> Steps:
        return Steps(
            self.database, self.coolify, self.clock, self.metrics, self.masker_for, self.pace
        )


def _check_pull_request(number: int | None) -> None:
    if number is not None and not 0 < number <= MAX_PULL_REQUEST:
        raise InvalidInput("That cannot be the number of a pull request.")


def _refuse_running(new: NewDeployment, running: Sequence[Deployment]) -> None:
    """Refuse what is on its way already; of an unknown commit nobody knows.

    Raises:
        DeploymentRunning: It is.
    """
    for one in running:
        if one.pull_request_id == new.pull_request_id and same_commit(one.commit, new.commit):
            raise DeploymentRunning(one.id)


def _details(row: Deployment) -> dict[str, object]:
    return {
        "environment": str(row.environment_id),
        "application": row.app_id,
        "coolify": row.web_url,
        "branch": row.branch,
        "commit": row.commit,
        "pull_request": row.pull_request_id,
        "force": row.force,
    }
