"""The gateway with agent sessions that a test makes up."""

import hmac
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import structlog

from craftastic.agent_runs.service import Asked, GatewayRun, ModelCredential, RunEvent, Usage
from craftastic.errors import CraftasticError, NotFound
from craftastic.gateway._upstream import Resolver
from craftastic.gateway.app import Gateway, build_gateway
from craftastic.gateway.model_proxy import ModelLimits
from craftastic.settings import Settings
from tests.fakes.gateway import BranchesOnly, Sandboxes, ServedGateway, Strangers, served
from tests.fakes.model_api import KEY

SCHEMES = {"anthropic": "x-api-key", "openai": "bearer", "gemini": "x-goog-api-key"}
OPEN = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})
WAIT_S = 15.0


@dataclass(frozen=True)
class FakeRun:
    """An agent session of a test, and the token in its sandbox."""

    run: GatewayRun
    token: str
    credential: ModelCredential | None

    @property
    def id(self) -> UUID:
        return self.run.session_id

    def path(self, rest: str) -> str:
        return f"/agent/{self.id}{rest}"

    def model(self, rest: str = "") -> str:
        return self.path(f"/model{rest}")


@dataclass
class FakeRuns:
    """Agent sessions in memory; it keeps what the gateway tells.

    Attributes:
        gate: When set, `admit` waits for it.
        refusal: When set, `admit` raises it.
        broken: When set, everything but `by_token` raises it.
    """

    runs: dict[UUID, FakeRun] = field(default_factory=dict)
    usages: list[tuple[UUID, Usage]] = field(default_factory=list)
    rejections: list[tuple[UUID, int]] = field(default_factory=list)
    events: list[tuple[UUID, RunEvent]] = field(default_factory=list)
    files: list[tuple[UUID, str, str, str]] = field(default_factory=list)
    answers: dict[UUID, Asked] = field(default_factory=dict)
    admitted: anyio.Event = field(default_factory=anyio.Event)
    polled: anyio.Event = field(default_factory=anyio.Event)
    poll_cancelled: anyio.Event = field(default_factory=anyio.Event)
    gate: anyio.Event | None = None
    refusal: CraftasticError | None = None
    broken: CraftasticError | None = None

    def add(
        self,
        provider: str | None = "anthropic",
        base_url: str | None = None,
        *,
        scheme: str | None = None,
        key: str = KEY,
    ) -> FakeRun:
        run = GatewayRun(uuid4(), uuid4(), uuid4(), provider)
        credential = None
        if provider is not None:
            scheme = scheme or SCHEMES.get(provider, "bearer")
            credential = ModelCredential(provider, scheme, base_url, key)
        made = FakeRun(run, f"run-token-{uuid4().hex}", credential)
        self.runs[made.id] = made
        return made

    def end(self, run: FakeRun) -> None:
        del self.runs[run.id]

    def used_by(self, run: FakeRun) -> Usage:
        return sum((usage for one, usage in self.usages if one == run.id), Usage())

    async def by_token(
        self, session_id: UUID, token: str, *, leaving: bool = False
    ) -> GatewayRun | None:
        found = self.runs.get(session_id)
        return found.run if found and hmac.compare_digest(found.token, token) else None

    async def admit(self, run: GatewayRun) -> None:
        self.admitted.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal

    async def credential(self, run: GatewayRun) -> ModelCredential:
        self._works()
        credential = self.runs[run.session_id].credential
        assert credential
        return credential

    async def used(self, run: GatewayRun, usage: Usage) -> None:
        self.usages.append((run.session_id, usage))
        self._works()

    async def rejected(self, run: GatewayRun, status: int) -> None:
        self.rejections.append((run.session_id, status))

    async def event(self, run: GatewayRun, event: RunEvent) -> None:
        self._works()
        self.events.append((run.session_id, event))

    async def ask(self, run: GatewayRun, event: RunEvent) -> Asked:
        self._works()
        self.events.append((run.session_id, event))
        asked = Asked(uuid4(), settled=False)
        assert asked.approval_id
        self.answers[asked.approval_id] = asked
        return asked

    async def answer(self, run: GatewayRun, approval_id: UUID, wait_s: float) -> Asked:
        self._works()
        if approval_id not in self.answers:
            raise NotFound("Approval not found")
        self.polled.set()
        try:
            with anyio.move_on_after(wait_s):
                while not self.answers[approval_id].settled:  # noqa: ASYNC110 - a test settles it
                    await anyio.sleep(0.01)
        except anyio.get_cancelled_exc_class():
            self.poll_cancelled.set()
            raise
        return self.answers[approval_id]

    async def take_back(self, run: GatewayRun, path: str, was_sha256: str, text: str) -> bool:
        self._works()
        self.files.append((run.session_id, path, was_sha256, text))
        return was_sha256 != "0" * 64

    def _works(self) -> None:
        if self.broken is not None:
            raise self.broken


def agent_gateway(
    runs: FakeRuns | None,
    settings: Settings = OPEN,
    *,
    limits: ModelLimits | None = None,
    resolver: Resolver | None = None,
) -> Gateway:
    """Make a gateway; None for one without agent sessions."""
    gateway = build_gateway(
        settings,
        Sandboxes(),
        credentials=Strangers(),
        ref_policy=BranchesOnly(),
        agents=runs,
        resolver=resolver,
    )
    if limits is None or gateway.agents is None:
        return gateway
    models = replace(gateway.agents.models, limits=limits)
    return replace(gateway, agents=replace(gateway.agents, models=models))


@asynccontextmanager
async def serving(
    runs: FakeRuns, settings: Settings = OPEN, **options: Any
) -> AsyncGenerator[ServedGateway]:
    async with served(agent_gateway(runs, settings, **options)) as gateway:
        yield gateway


async def _process(provider: str, base_url: str) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    runs = FakeRuns()
    run = runs.add(provider, base_url)
    async with serving(runs) as gateway:
        _say([gateway.port, str(run.id), run.token])
        await anyio.to_thread.run_sync(sys.stdin.readline)
        status = await anyio.Path("/proc/self/status").read_text()
        used = runs.used_by(run)
        _say([int(status.partition("VmHWM:")[2].split()[0]) * 1024, used.output_tokens])


def _say(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


class agent_gateway_process:  # noqa: N801 - reads as the function it would be
    """A gateway in a process of its own: its port, a session's id and token, and its peak."""

    def __init__(self, provider: str, base_url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.agent_gateway", provider, base_url],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> tuple[int, str, str, Callable[[], list[int]]]:
        assert self.process.stdout
        port, session_id, token = json.loads(self.process.stdout.readline())
        return port, session_id, token, self.peak

    def peak(self) -> list[int]:
        """Return the process's peak memory in bytes, and the tokens that it counted."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    anyio.run(_process, sys.argv[1], sys.argv[2])
