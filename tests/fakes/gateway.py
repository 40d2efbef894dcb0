"""The gateway on a port of loopback, with sandboxes that a test makes up."""

import hmac
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import structlog
import uvicorn

from craftastic.gateway._pushing import RefUpdatePolicy
from craftastic.gateway._upstream import Resolver
from craftastic.gateway.app import Gateway, build_gateway
from craftastic.gateway.git_proxy import EnvironmentLookup, UpstreamCredentials
from craftastic.gateway.listener import QuietServer
from craftastic.gateway.protocol import GatewayProtocol
from craftastic.pushes.service import (
    GatewayEnvironment,
    PushIntent,
    PushOutcome,
    PushPolicy,
    PushRefusal,
    RefResult,
)
from craftastic.settings import Settings

START_TIMEOUT_S = 10.0
OWN = "a-sandbox-token"


@dataclass(frozen=True, slots=True)
class FakeEnvironment:
    repository_url: str | None
    token: str = OWN
    id: UUID = field(default_factory=uuid4)
    owner_id: UUID = field(default_factory=uuid4)
    push_policy: PushPolicy = PushPolicy.SESSIONS


@dataclass
class Sandboxes:
    """Environments and their tokens, in memory."""

    environments: dict[UUID, FakeEnvironment] = field(default_factory=dict)

    def add(
        self, repository_url: str | None, token: str = OWN, owner_id: UUID | None = None
    ) -> FakeEnvironment:
        environment = FakeEnvironment(repository_url, token, owner_id=owner_id or uuid4())
        self.environments[environment.id] = environment
        return environment

    async def by_gateway_token(self, environment_id: UUID, token: str) -> FakeEnvironment | None:
        environment = self.environments.get(environment_id)
        matches = environment and hmac.compare_digest(environment.token, token)
        return environment if matches else None


class Strangers:
    """Credentials of nobody: every upstream is asked without one."""

    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        return None

    async def rejected(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int, value: str
    ) -> bool:
        return False

    async def accepted(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> None:
        return None

    def way_on(self, scheme: str, host: str, port: int, *, tried: bool) -> str:
        return "ask the test"


@dataclass
class Recorded:
    """A push as the gateway told of it."""

    updates: list[tuple[str, str, str]]
    results: Mapping[str, RefResult]
    push_id: str | None

    @property
    def outcomes(self) -> list[PushOutcome]:
        return [self.results[ref].outcome for ref, _, _ in self.updates]


@dataclass
class BranchesOnly:
    """Lets branches be created and updated; keeps what it is told."""

    pushes: list[Recorded] = field(default_factory=list)
    begun_pushes: list[PushIntent] = field(default_factory=list)
    lists: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def check(
        self, environment: GatewayEnvironment, intent: PushIntent
    ) -> PushRefusal | None:
        reasons: dict[str, str] = {}
        for update in intent.updates:
            if not update.ref.startswith("refs/heads/"):
                reasons[update.ref] = "only branches can be pushed from here"
            elif update.deletes:
                reasons[update.ref] = "branches cannot be deleted from here"
        return PushRefusal(reasons) if reasons else None

    async def refused(
        self, environment: GatewayEnvironment, intent: PushIntent, reasons: Mapping[str, str]
    ) -> None:
        results = {ref: RefResult(PushOutcome.REFUSED, why) for ref, why in reasons.items()}
        await self.ended(environment, intent, results)

    async def begun(self, environment: GatewayEnvironment, intent: PushIntent) -> None:
        self.begun_pushes.append(intent)

    async def ended(
        self,
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
    ) -> None:
        moves = [(update.ref, update.old, update.new) for update in intent.updates]
        self.pushes.append(Recorded(moves, results, intent.push_id))

    async def of_interest(self, environment: GatewayEnvironment) -> Collection[str]:
        return set()

    async def listed(
        self, environment: GatewayEnvironment, push_id: str, refs: Mapping[str, str]
    ) -> None:
        self.lists.append((push_id, refs))


def gateway_of(
    settings: Settings,
    lookup: EnvironmentLookup,
    *,
    credentials: UpstreamCredentials | None = None,
    ref_policy: RefUpdatePolicy | None = None,
    resolver: Resolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> Gateway:
    """Make a gateway; without more, upstreams are asked as a stranger, and branches may move."""
    return build_gateway(
        settings,
        lookup,
        credentials=credentials or Strangers(),
        ref_policy=ref_policy or BranchesOnly(),
        resolver=resolver,
        tls=tls,
    )


@dataclass(frozen=True, slots=True)
class ServedGateway:
    port: int
    gateway: Gateway

    def url(self, environment: FakeEnvironment) -> str:
        return f"http://127.0.0.1:{self.port}/git/{environment.id}.git"


def origin(environment: FakeEnvironment) -> tuple[str, str]:
    """Return git's options that send the sandbox's token."""
    return "-c", f"http.extraHeader=Authorization: Bearer {environment.token}"


@asynccontextmanager
async def served(gateway: Gateway) -> AsyncGenerator[ServedGateway]:
    """Serve a gateway as the product does."""
    config = uvicorn.Config(
        gateway,
        host="127.0.0.1",
        port=0,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = QuietServer(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        with anyio.fail_after(START_TIMEOUT_S):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.01)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield ServedGateway(port, gateway)
        finally:
            server.should_exit = True
            await gateway.aclose()


def _say(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


async def _process(options: dict[str, Any]) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    sandboxes = Sandboxes()
    environment = sandboxes.add(options.pop("repository_url"))
    settings = Settings.model_validate(options)
    async with served(gateway_of(settings, sandboxes)) as gateway:
        _say([gateway.url(environment), environment.token])
        await anyio.to_thread.run_sync(sys.stdin.readline)
        # Not getrusage: its peak is inherited from the process that started this one.
        status = await anyio.Path("/proc/self/status").read_text()
        peak_bytes = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        _say(peak_bytes)


class gateway_process:  # noqa: N801 - reads as the function it would be
    """A gateway in a process of its own: its URL, its token, and a function for its peak memory."""

    def __init__(self, repository_url: str) -> None:
        options = {
            "repository_url": repository_url,
            "git_allow_http": True,
            "git_allow_private": True,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.gateway", json.dumps(options)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> tuple[str, str, Callable[[], int]]:
        assert self.process.stdout
        url, token = json.loads(self.process.stdout.readline())
        return url, token, self.peak

    def peak(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    # A process of its own, so that its memory can be measured: `python -m tests.fakes.gateway
    # OPTIONS` prints its URL and token, and at a line of input its peak memory.
    anyio.run(_process, json.loads(sys.argv[1]))
