"""Composition root: the only place that knows every concrete class."""

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypedDict

import anyio
import structlog
from fastapi import Depends, FastAPI

from craftastic import __version__, failpoints
from craftastic.access_tokens import endpoints as access_tokens_endpoints
from craftastic.access_tokens.service import AccessTokenService
from craftastic.accounts import endpoints as accounts_endpoints
from craftastic.accounts import sign_in_endpoints
from craftastic.accounts.service import AccountService, access_tokens
from craftastic.accounts.sign_ins import SignInService
from craftastic.activity import endpoints as activity_endpoints
from craftastic.activity.service import ActivityService
from craftastic.admin import endpoints as admin_endpoints
from craftastic.admin.service import AdminService
from craftastic.agent_runs import endpoints as agent_runs_endpoints
from craftastic.agent_runs.launching import Launcher
from craftastic.agent_runs.service import AgentRunService
from craftastic.agent_runs.setup_desk import SessionSetupDesk
from craftastic.agents import endpoints as agents_endpoints
from craftastic.agents.agent_types import AgentTypes
from craftastic.agents.service import AgentService
from craftastic.agents.setting_up import AgentSetupService
from craftastic.audit.service import AuditService
from craftastic.clock import SystemClock
from craftastic.coolify import endpoints as coolify_endpoints
from craftastic.coolify.api import open_coolify
from craftastic.coolify.service import CoolifyService
from craftastic.credentials.service import CredentialService, has_secrets
from craftastic.database import Database
from craftastic.deployments import endpoints as deployments_endpoints
from craftastic.deployments.service import DeploymentService
from craftastic.disk import endpoints as disk_endpoints
from craftastic.disk.service import DISK_INTERVAL_S, DiskRoom, DiskService
from craftastic.environments import container_endpoints
from craftastic.environments import endpoints as environments_endpoints
from craftastic.environments.service import EnvironmentService
from craftastic.errors import CraftasticError
from craftastic.events import endpoints as events_endpoints
from craftastic.events.service import EventService
from craftastic.gateway.app import build_gateway, upstream_check, upstream_origin
from craftastic.gateway.credential_check import build_credential_check
from craftastic.gateway.listener import GatewayListener
from craftastic.gateway.pinned_http import pinned_client
from craftastic.git import endpoints as git_endpoints
from craftastic.git.service import GitService
from craftastic.githosts import endpoints as githosts_endpoints
from craftastic.githosts.service import GitHostService
from craftastic.github import endpoints as github_endpoints
from craftastic.github.service import GitHubService, open_client
from craftastic.health import endpoints as health_endpoints
from craftastic.health.service import HealthService
from craftastic.http import errors as http_errors
from craftastic.http import health, hot, middleware, static
from craftastic.idempotency.once import KeptAnswers, refuse_key
from craftastic.idempotency.service import IdempotencyService
from craftastic.keys import Keys, load_keys
from craftastic.mail.service import MailService
from craftastic.metrics import Metrics
from craftastic.migrations import runner
from craftastic.pushes import endpoints as pushes_endpoints
from craftastic.pushes.service import PushService
from craftastic.reconcile import endpoints as reconcile_endpoints
from craftastic.reconcile.service import Reconciler, ReconcileService, standard_reconcilers
from craftastic.runtimes.base import Runtime, RuntimeUnavailable
from craftastic.runtimes.registry import Runtimes, build_runtimes, install_agent_tools
from craftastic.runtimes.self_test import self_test
from craftastic.sessions import endpoints as sessions_endpoints
from craftastic.sessions.service import SessionLists, SessionService
from craftastic.sessions.watching import SessionWatches
from craftastic.settings import Settings, load_settings
from craftastic.terminals import endpoints as terminals_endpoints
from craftastic.terminals.service import TerminalService
from craftastic.tmux.service import TmuxService
from craftastic.variables import endpoints as variables_endpoints
from craftastic.variables.service import VariableService
from craftastic.worktrees.service import WorktreeService

Step = Callable[[], Awaitable[None]]
MakeRuntimes = Callable[[Settings, str], Awaitable[Runtimes]]

PREPARE_RETRY_S = 15.0
AGENT_TOOLS_RETRY_S = 900.0
FORGET_INTERVAL_S = 3600.0
EVENTS_INTERVAL_S = 600.0
GITHUB_INTERVAL_S = 60.0
AGENTS_INTERVAL_S = 10.0
DEPLOYMENTS_INTERVAL_S = 1.0
IDLE_INTERVAL_S = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class State(TypedDict):
    """What endpoints find in `request.state`."""

    settings: Settings
    metrics: Metrics
    accounts: AccountService
    access_tokens: AccessTokenService
    sign_ins: SignInService
    admin: AdminService
    activity: ActivityService
    agents: AgentService
    agent_setup: AgentSetupService
    environments: EnvironmentService
    variables: VariableService
    git_hosts: GitHostService
    github: GitHubService
    pushes: PushService
    git: GitService
    coolify: CoolifyService
    deployments: DeploymentService
    disk: DiskService
    idempotency: IdempotencyService
    sessions: SessionService
    agent_runs: AgentRunService
    terminals: TerminalService
    events: EventService
    reconcile: ReconcileService
    health: HealthService
    runtimes: Runtimes


def build_app(
    settings: Settings | None = None, make_runtimes: MakeRuntimes = build_runtimes
) -> FastAPI:
    """Make the application; its lifespan starts everything else and ends it again.

    Args:
        settings: Read from the environment when None.
        make_runtimes: Makes the places where sandboxes run.
    """
    settings = settings or load_settings()
    failpoints.arm(settings.failpoint)
    metrics = Metrics()
    readiness = health.Readiness()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[State]:
        async with running(settings, metrics, readiness, make_runtimes) as state:
            app.state.terminals = state["terminals"]
            app.state.events = state["events"]
            yield state

    app = FastAPI(
        title="Craftastic",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_key)],
    )
    http_errors.install(app)
    app.add_middleware(hot.HotRoutes, routes=app.routes)
    app.add_middleware(KeptAnswers)
    middleware.install(
        app,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        cors_origins=settings.cors_origin,
        host_names=settings.host_names,
        trusted_proxies=settings.trusted_proxies,
        https=settings.https,
    )
    app.include_router(health.build_router(metrics, readiness))
    for router in (
        accounts_endpoints.router,
        sign_in_endpoints.router,
        access_tokens_endpoints.router,
        admin_endpoints.router,
        activity_endpoints.router,
        agents_endpoints.router,
        events_endpoints.router,
        environments_endpoints.router,
        container_endpoints.router,
        variables_endpoints.router,
        githosts_endpoints.router,
        github_endpoints.router,
        pushes_endpoints.router,
        git_endpoints.router,
        sessions_endpoints.router,
        agent_runs_endpoints.router,
        coolify_endpoints.router,
        deployments_endpoints.router,
        disk_endpoints.router,
        terminals_endpoints.router,
        reconcile_endpoints.router,
        health_endpoints.router,
    ):
        app.include_router(router)
    # Behind the routes: a wrong method of a route stays one, and no page hides a route.
    app.router.default = static.Site(app.router.not_found, https=settings.https)
    return app


@asynccontextmanager
async def running(  # noqa: PLR0915 - a statement or two for each part of the server
    settings: Settings,
    metrics: Metrics,
    readiness: health.Readiness,
    make_runtimes: MakeRuntimes,
) -> AsyncGenerator[State]:
    """Open the database, start every domain's background work and the gateway.

    What takes long (an image to build) goes on after the server answers. At the end background
    work is cancelled, which leaves intents in the database, and sandboxes go on.
    """
    await anyio.to_thread.run_sync(prepare_data_dir, settings.data_dir)
    await runner.upgrade(settings.sqlalchemy_url)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        database = Database(settings.sqlalchemy_url)
        stack.push_async_callback(database.close)
        keys = await _keys(settings, database)
        audit = AuditService(database, clock)
        credentials = CredentialService(database, keys.keyring, clock, audit)
        await credentials.tell_missing_keys()
        runtimes = await make_runtimes(settings, keys.instance)
        stack.push_async_callback(runtimes.close)
        mail = MailService(settings, clock)
        personal = AccessTokenService(database, audit, clock)
        accounts = _accounts(settings, keys, mail, personal, lambda: runtimes.only_one_user)
        worktrees = WorktreeService(runtimes, settings.gateway_port, settings.git_timeout_s)
        tmux = TmuxService(runtimes, settings.terminal_history_lines)
        environments = EnvironmentService(
            database,
            runtimes,
            worktrees,
            SessionLists(database, clock),
            settings,
            clock,
            audit,
            check_upstream=upstream_check(settings),
            find_profile=accounts.profile,
            at_work=tmux.at_work,
            room=DiskRoom(database, settings),
            took=metrics.step_took,
        )
        variables = VariableService(database, credentials, environments, audit, clock)
        agents = await _agents(stack, credentials, settings)
        launcher = Launcher(agents, runtimes, settings.gateway_port)
        sessions = SessionService(
            database,
            environments,
            worktrees,
            tmux,
            clock,
            max_per_environment=settings.max_sessions_per_environment,
            launcher=launcher,
            variables=variables.for_session,
            mask=variables.text_masker,
        )
        agent_runs = _agent_runs(
            sessions, launcher, agents, tmux, metrics, settings.agent_token_limit
        )
        github, git_hosts = await _git_accounts(stack, credentials, settings)
        pushes = PushService(database, audit, clock, sessions.branches_of)
        git = GitService(
            sessions,
            environments,
            worktrees,
            runtimes,
            pushes,
            audit,
            find_profile=accounts.profile,
            masker_for=variables.masker,
        )
        deployments = await _deployments(stack, credentials, settings, git, metrics)
        disk = DiskService(database, environments, sessions, runtimes, audit, clock)
        terminals = TerminalService(database, runtimes, sessions, accounts, clock, settings, audit)
        metrics.watch(terminals)
        idempotency = IdempotencyService(database, clock)
        watches = SessionWatches(sessions)
        events = EventService(
            database, accounts, settings.event_retention_s, watch=watches.watching
        )
        reconcile = ReconcileService(
            [
                *standard_reconcilers(environments, sessions, settings.reconcile_interval_s),
                Reconciler("idle", environments.stop_idle, IDLE_INTERVAL_S),
                Reconciler("agents", agent_runs.reconcile, AGENTS_INTERVAL_S),
                Reconciler("deployments", deployments.reconcile, DEPLOYMENTS_INTERVAL_S),
                Reconciler("disk", disk.reconcile, DISK_INTERVAL_S),
                Reconciler("accounts", _forget_expired(accounts, personal), FORGET_INTERVAL_S),
                Reconciler("events", events.forget, EVENTS_INTERVAL_S),
                Reconciler("github", github.reconcile, GITHUB_INTERVAL_S),
                Reconciler("idempotency", idempotency.forget_expired, FORGET_INTERVAL_S),
                Reconciler("variables", variables.forget_ownerless, FORGET_INTERVAL_S),
            ],
            clock,
            followed=lambda: _runtimes_in_use(runtimes, environments),
            exhausted=environments.note_out_of_memory,
        )
        readiness.add("database", database.ping)
        readiness.add("runtime", lambda: _runtime_answers(runtimes))
        await _serve_sandboxes(
            stack,
            _gateway_listener(stack, settings, environments, git_hosts, pushes, agent_runs),
            runtimes,
            environments,
            settings,
        )
        for one in (
            mail,
            idempotency,
            watches,
            events,
            environments,
            agent_runs,
            terminals,
            reconcile,
        ):
            await stack.enter_async_context(one.running())
        await _announce(settings, accounts)
        yield State(
            settings=settings,
            metrics=metrics,
            accounts=accounts,
            access_tokens=personal,
            sign_ins=SignInService(accounts, audit),
            admin=AdminService(accounts, personal, audit),
            activity=ActivityService(database, audit),
            agents=agents,
            agent_setup=AgentSetupService(agents, SessionSetupDesk(sessions, runtimes)),
            environments=environments,
            variables=variables,
            git_hosts=git_hosts,
            github=github,
            pushes=pushes,
            git=git,
            coolify=deployments.coolify,
            deployments=deployments,
            disk=disk,
            idempotency=idempotency,
            sessions=sessions,
            agent_runs=agent_runs,
            terminals=terminals,
            events=events,
            reconcile=reconcile,
            health=HealthService(database, runtimes, environments, reconcile, clock),
            runtimes=runtimes,
        )


async def _serve_sandboxes(
    stack: AsyncExitStack,
    listener: GatewayListener,
    runtimes: Runtimes,
    environments: EnvironmentService,
    settings: Settings,
) -> None:
    """Prepare each runtime that is in use, and listen for its sandboxes, until the stack ends."""
    background = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(background.cancel_scope.cancel)
    stack.callback(listener.stop)
    for runtime in await _runtimes_in_use(runtimes, environments):
        background.start_soon(listener.serve, runtime, background)
        background.start_soon(_prepare, runtimes, runtime, settings)


def _accounts(
    settings: Settings,
    keys: Keys,
    mail: MailService,
    personal: AccessTokenService,
    only_one_user: Callable[[], str | None],
) -> AccountService:
    return AccountService(
        personal.database,
        personal.clock,
        access_tokens(keys.jwt_secret, settings.access_token_ttl_s),
        settings.keys_dir,
        registration=settings.registration,
        single_user=only_one_user,
        refresh_ttl_s=settings.refresh_token_ttl_s,
        mail=mail,
        audit=personal.audit,
        base_url=settings.base_url,
        require_verified_email=settings.require_verified_email,
        attempts_per_minute=settings.sign_in_attempts_per_minute,
        personal=personal,
    )


async def _agents(
    stack: AsyncExitStack, credentials: CredentialService, settings: Settings
) -> AgentService:
    types = await anyio.to_thread.run_sync(AgentTypes.load, settings.data_dir)
    check = build_credential_check(settings)
    stack.push_async_callback(check.aclose)
    database, audit, clock = credentials.database, credentials.audit, credentials.clock
    return AgentService(database, credentials, audit, clock, types, check)


def _agent_runs(
    sessions: SessionService,
    launcher: Launcher,
    agents: AgentService,
    tmux: TmuxService,
    metrics: Metrics,
    token_limit: int,
) -> AgentRunService:
    """Make what knows how agents are, and let it know of their starts."""
    runs = AgentRunService(
        agents.database,
        sessions,
        tmux,
        agents,
        agents.types,
        agents.audit,
        agents.clock,
        metrics=metrics,
        token_limit=token_limit or None,
    )
    launcher.starts = runs
    return runs


def _gateway_listener(
    stack: AsyncExitStack,
    settings: Settings,
    environments: EnvironmentService,
    git_hosts: GitHostService,
    pushes: PushService,
    agent_runs: AgentRunService,
) -> GatewayListener:
    gateway = build_gateway(
        settings, environments, credentials=git_hosts, ref_policy=pushes, agents=agent_runs
    )
    stack.push_async_callback(gateway.aclose)
    return GatewayListener(gateway, settings.gateway_port)


async def _git_accounts(
    stack: AsyncExitStack, credentials: CredentialService, settings: Settings
) -> tuple[GitHubService, GitHostService]:
    """Make what knows users' GitHub accounts, and their credentials for other git hosts."""
    database, audit, clock = credentials.database, credentials.audit, credentials.clock
    http = await stack.enter_async_context(open_client())
    github = GitHubService(database, credentials, audit, clock, http, settings)
    return github, GitHostService(
        database,
        credentials,
        github,
        audit,
        clock,
        upstream_origin(settings),
        github.origin,
    )


async def _deployments(
    stack: AsyncExitStack,
    credentials: CredentialService,
    settings: Settings,
    git: GitService,
    metrics: Metrics,
) -> DeploymentService:
    """Make what deploys; users' own Coolifies are reached by the rules of git's upstreams."""
    database, audit, clock = credentials.database, credentials.audit, credentials.clock
    for_users = pinned_client(settings, open_to=settings.coolify_origins)
    http = await stack.enter_async_context(open_coolify(for_users))
    return DeploymentService(
        database,
        CoolifyService(database, credentials, audit, clock, http, settings),
        git.sessions,
        git.environments,
        git,
        audit,
        clock,
        metrics,
        masker_for=git.masker_for,
    )


def prepare_data_dir(data_dir: Path) -> None:
    """Make the data folder; where sandboxes have users of their own, those may pass through it."""
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        data_dir.chmod(0o711)


async def _keys(settings: Settings, database: Database) -> Keys:
    """Read the keys; where secrets are stored, a lost one is not replaced by a new one."""
    stored = await has_secrets(database)
    return await anyio.to_thread.run_sync(_load_keys, settings, not stored)


def _load_keys(settings: Settings, make_encryption_key: bool) -> Keys:
    jwt, encryption = settings.jwt_secret, settings.encryption_key
    return load_keys(
        settings.keys_dir,
        jwt_secret=jwt.get_secret_value() if jwt else None,
        encryption_key=encryption.get_secret_value() if encryption else None,
        old_encryption_keys=settings.old_encryption_keys,
        make_encryption_key=make_encryption_key,
    )


async def _runtime_answers(runtimes: Runtimes) -> None:
    runtime = runtimes.default
    if runtime.name in runtimes.refused:
        raise RuntimeUnavailable(f"sandboxes do not work: {runtimes.refused[runtime.name]}")
    failed = [finding for finding in await runtime.check() if finding.ok is False]
    if failed:
        raise RuntimeUnavailable("; ".join(finding.message for finding in failed))


async def _runtimes_in_use(runtimes: Runtimes, environments: EnvironmentService) -> list[Runtime]:
    names = {runtimes.default_name, *await environments.runtimes_in_use()}
    return [runtimes[name] for name in sorted(names) if name in runtimes]


async def _prepare(runtimes: Runtimes, runtime: Runtime, settings: Settings) -> None:
    """Make what the runtime's sandboxes need before the first one asks, and try one."""
    while True:
        try:
            await runtime.prepare()
            reason = await self_test(runtime) if settings.sandbox_self_test else None
        except CraftasticError as error:
            log.warning("runtime is not ready", runtime=runtime.name, reason=error.message)
            await anyio.sleep(PREPARE_RETRY_S)
        else:
            break
    if reason is None:
        log.info("runtime is ready", runtime=runtime.name)
        await _tell_doubts(runtime)
        await _install_agent_tools(runtime)
    else:
        runtimes.refused[runtime.name] = reason
        log.error("sandboxes do not work: none is made", runtime=runtime.name, reason=reason)


async def _tell_doubts(runtime: Runtime) -> None:
    """Say in the log what works, and will not under all circumstances (REL-09)."""
    try:
        findings = await runtime.check()
    except CraftasticError as error:
        log.info("runtime not checked", runtime=runtime.name, reason=error.message)
        return
    for one in findings:
        if one.ok is None:
            log.warning(one.message, finding=one.name, way_on=one.remedy, runtime=runtime.name)


async def _install_agent_tools(runtime: Runtime) -> None:
    """Install the agents' command lines; everything else works without them."""
    while True:
        try:
            await install_agent_tools(runtime)
        except CraftasticError as error:
            log.warning(
                "agents' command lines are not installed",
                runtime=runtime.name,
                reason=error.message,
                way_on=error.details,
            )
            await anyio.sleep(AGENT_TOOLS_RETRY_S)
        else:
            return


def _forget_expired(accounts: AccountService, personal: AccessTokenService) -> Step:
    async def step() -> None:
        await accounts.forget_expired()
        await personal.forget_expired()

    return step


async def _announce(settings: Settings, accounts: AccountService) -> None:
    token = await accounts.first_account_token()
    if token is not None:
        log.warning(
            "no account yet: the first one needs the one-time token in the file below; "
            "the command line on this machine finds it by itself",
            file=str(settings.keys_dir / "first-account-token"),
        )
        if sys.stderr.isatty():  # a person is looking; a log that is kept must not hold it
            print(f"\n  One-time token of the first account: {token}\n", file=sys.stderr)  # noqa: T201
    if "*" in settings.allowed_hosts or "*" in settings.cors_origin:
        log.warning(
            "any name, or any page, may reach this server: name them instead of *",
            settings="CRAFTASTIC_ALLOWED_HOSTS, CORS_ORIGIN",
        )
    log.info("serving", url=settings.base_url, data_dir=str(settings.data_dir))
