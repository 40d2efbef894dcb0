"""The private listener that only sandboxes reach: its routes, its token check, its server."""

import base64
import binascii
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpcore

from craftastic.clock import Clock, SystemClock
from craftastic.errors import CraftasticError
from craftastic.gateway._answers import answer_text
from craftastic.gateway._model_upstream import ModelUpstreams
from craftastic.gateway._pace import Pace
from craftastic.gateway._pushing import RefUpdatePolicy
from craftastic.gateway._throttle import PushThrottle
from craftastic.gateway._transfer import (
    Receive,
    Refusal,
    RememberedBases,
    Send,
    TransferLimits,
    TransferSlots,
)
from craftastic.gateway._upstream import (
    PinnedBackend,
    Resolver,
    SystemResolver,
    UpstreamPolicy,
    UpstreamRules,
)
from craftastic.gateway.agent_routes import PREFIX, AgentRoutes, AgentRuns
from craftastic.gateway.git_proxy import (
    KEEP_ALIVE_S,
    EnvironmentLookup,
    GitProxy,
    GitRequest,
    UpstreamCredentials,
)
from craftastic.gateway.model_proxy import ModelLimits, ModelProxy
from craftastic.http.answers import answer_for
from craftastic.pushes.service import GatewayEnvironment
from craftastic.settings import Settings

TRANSFERS_PER_ENVIRONMENT = 4
TRANSFERS_IN_ALL = 64
WAITING_PER_ENVIRONMENT = 32
SLOT_WAIT_S = 30.0
MODEL_CALLS_PER_SESSION = 16
MODEL_CALLS_IN_ALL = 128
MODEL_CALLS_WAITING = 32
REQUESTS_PER_SESSION = 64
REQUESTS_IN_ALL = 384
MAX_TOKEN_CHARACTERS = 512

_PATH = re.compile(
    rb"/git/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.git"
    rb"/(info/refs|git-upload-pack|git-receive-pack)"
)
_SERVICE = re.compile(rb"service=(git-upload-pack|git-receive-pack)")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CHALLENGE = ((b"www-authenticate", b'Basic realm="Craftastic sandbox"'),)

Scope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The ASGI application. Three routes for each environment, and nothing for anyone else.

    Agent sessions have routes of their own below `/agent/`, where there is a domain of them.
    """

    lookup: EnvironmentLookup
    git: GitProxy
    agents: AgentRoutes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            try:
                await self._serve(scope, receive, send)
            except Refusal as error:
                challenge = _CHALLENGE if error.status is HTTPStatus.UNAUTHORIZED else ()
                await answer_text(send, error.status, error.text, challenge)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._live(receive, send)

    async def aclose(self) -> None:
        """Close the connections to upstreams; for a server without lifespan events."""
        await self.git.pool.aclose()
        if self.agents is not None:
            await self.agents.models.upstreams.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path") or b""
        if self.agents is not None and path.startswith(PREFIX):
            await self.agents.serve(scope, receive, send)
            return
        environment_id, service, advertises = _route(scope)
        # The first of each name: a second one could only be there to confuse.
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        environment = await self._authenticate(environment_id, headers)
        request = GitRequest(service, advertises, headers, receive, send)
        await self.git.serve(environment, request)

    async def _authenticate(
        self, environment_id: UUID, headers: dict[bytes, bytes]
    ) -> GatewayEnvironment:
        token = _token(headers.get(b"authorization", b""))
        if token is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "This address is for sandboxes only.")
        try:
            environment = await self.lookup.by_gateway_token(environment_id, token)
        except CraftasticError as error:
            raise Refusal(HTTPStatus(answer_for(error).status), error.message) from error
        if environment is None or environment.id != environment_id:
            raise Refusal(
                HTTPStatus.FORBIDDEN, "This sandbox's token does not open this repository."
            )
        return environment


def _route(scope: Scope) -> tuple[UUID, str, bool]:
    """Recognise the request's target byte for byte: no decoding, so no encoding tricks.

    Raises:
        Refusal: It is none of the three.
    """
    # Without chunks, a cut answer could not be told from a whole one.
    if scope["http_version"] != "1.1":
        raise Refusal(HTTPStatus.FORBIDDEN, "Only HTTP/1.1 is served here.")
    match = _PATH.fullmatch(scope.get("raw_path") or b"")
    if match is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "Nothing is here.")
    environment_id, name = UUID(match[1].decode()), match[2]
    query: bytes = scope["query_string"]
    if name == b"info/refs":
        service = _SERVICE.fullmatch(query)
        if scope["method"] != "GET" or service is None:
            raise Refusal(HTTPStatus.FORBIDDEN, "Only git's smart HTTP is served here.")
        return environment_id, service[1].decode(), True
    if scope["method"] != "POST" or query:
        raise Refusal(HTTPStatus.FORBIDDEN, "Only git's smart HTTP is served here.")
    return environment_id, name.decode(), False


def _token(header: bytes) -> str | None:
    """Take the token from a Bearer header, or from the password of a Basic one."""
    scheme, _, value = header.partition(b" ")
    value = value.strip()
    if scheme.lower() == b"basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    elif scheme.lower() != b"bearer":
        return None
    token = value.decode("latin-1")
    return token if len(token) <= MAX_TOKEN_CHARACTERS and _TOKEN.fullmatch(token) else None


def build_gateway(  # noqa: PLR0913 - the parts of a server
    settings: Settings,
    lookup: EnvironmentLookup,
    *,
    credentials: UpstreamCredentials,
    ref_policy: RefUpdatePolicy,
    agents: AgentRuns | None = None,
    resolver: Resolver | None = None,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
) -> Gateway:
    """Make the gateway's ASGI application; no connection is opened and no task is started.

    Args:
        settings: Limits and upstream rules.
        lookup: Knows the sandboxes' tokens.
        credentials: Adds what an upstream asks for.
        ref_policy: Decides about pushes and takes note of them.
        agents: Knows the agent sessions; without it `/agent/` is not served.
        resolver: Name resolution; the machine's own when None.
        clock: Time of the transfers' log lines and of remembered redirects.
        tls: Trust for upstreams; the machine's and certifi's authorities when None.
    """
    clock = clock or SystemClock()
    policy = UpstreamPolicy(UpstreamRules.of(settings), resolver or SystemResolver())
    pool = httpcore.AsyncConnectionPool(
        ssl_context=tls or httpcore.default_ssl_context(),
        max_connections=TRANSFERS_IN_ALL + 8,
        keepalive_expiry=KEEP_ALIVE_S,
        http2=False,
        retries=0,
        network_backend=PinnedBackend(policy),
    )
    git = GitProxy(
        policy=policy,
        pool=pool,
        limits=TransferLimits(
            settings.git_max_bytes, settings.git_timeout_s, settings.git_idle_timeout_s
        ),
        slots=TransferSlots(
            TRANSFERS_PER_ENVIRONMENT, TRANSFERS_IN_ALL, WAITING_PER_ENVIRONMENT, SLOT_WAIT_S
        ),
        credentials=credentials,
        ref_policy=ref_policy,
        bases=RememberedBases(clock),
        throttle=PushThrottle(clock),
        clock=clock,
    )
    routes = None
    if agents is not None:
        upstreams = ModelUpstreams(
            settings, connections=MODEL_CALLS_IN_ALL + 8, resolver=resolver, tls=tls
        )
        routes = _agent_routes(agents, upstreams, clock)
    return Gateway(lookup, git, routes)


def _agent_routes(agents: AgentRuns, upstreams: ModelUpstreams, clock: Clock) -> AgentRoutes:
    calls = TransferSlots(
        MODEL_CALLS_PER_SESSION,
        MODEL_CALLS_IN_ALL,
        MODEL_CALLS_WAITING,
        SLOT_WAIT_S,
        "calls of models",
    )
    rooms = TransferSlots(
        REQUESTS_PER_SESSION, REQUESTS_IN_ALL, 0, SLOT_WAIT_S, "requests of this session"
    )
    models = ModelProxy(agents, upstreams, calls, ModelLimits(), clock)
    return AgentRoutes(agents, models, rooms, Pace(clock))


def upstream_check(
    settings: Settings, resolver: Resolver | None = None
) -> Callable[[str], Awaitable[None]]:
    """Return the check of a repository's URL that the making of an environment runs.

    The returned function raises what `UpstreamPolicy.check` raises: `UPSTREAM_NOT_ALLOWED`,
    `UPSTREAM_NOT_FOUND` (invalid input) or `NAME_RESOLUTION_FAILED` (unavailable).
    """
    return UpstreamPolicy(UpstreamRules.of(settings), resolver or SystemResolver()).check


def upstream_origin(settings: Settings) -> Callable[[str], tuple[str, str, int]]:
    """Return the check of a git host's address, `https://host[:port]`: its parts, by the rules.

    The returned function raises `UPSTREAM_NOT_ALLOWED`; nothing is looked up.
    """
    rules = UpstreamRules.of(settings)
    return lambda address: rules.parse(f"{address}/repository").origin
