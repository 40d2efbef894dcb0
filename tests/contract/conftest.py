"""Runtimes to keep promises with: in memory, and the real ones with what they need."""

import contextlib
import os
import secrets
import shutil
import socketserver
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes._docker_engine import Engine
from craftastic.runtimes._docker_network import SandboxNetwork
from craftastic.runtimes._firewall import Firewall, FirewallUnavailable
from craftastic.runtimes.base import (
    RunResult,
    Runtime,
    RuntimeUnavailable,
    SandboxRef,
    SandboxSpec,
)
from craftastic.runtimes.docker import DockerRuntime
from craftastic.runtimes.memory import Call, MemoryRuntime
from craftastic.settings import Settings
from tests.conftest import free_port, in_a_thread, missing
from tests.leaks import RUN, remove_local_rules

REAL = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("local", marks=pytest.mark.local),
]
WAIT_S = 20.0
"""How long a test waits for a condition that must come true."""


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition: a function that returns, or an async one that will return, a truth."""
    with anyio.move_on_after(WAIT_S):
        while True:
            found = condition()
            if hasattr(found, "__await__"):
                found = await found  # type: ignore[misc]
            if found:
                return
            await anyio.sleep(0.05)
    raise AssertionError(f"did not come true within {WAIT_S:.0f} s: {what}")


async def pretend(call: Call) -> RunResult:
    """Play the few commands that the shared promises use, for the driver in memory."""
    match call.argv:
        case ("false",):
            return RunResult(1, b"", b"")
        case ("cat",):
            return RunResult(0, call.stdin, b"")
        case ("sleep", seconds):
            await anyio.sleep(float(seconds))
        case _:
            pass
    return RunResult(0, b"", b"")


@dataclass
class Bench:
    """A runtime on a data folder and an installation of its own, and its sandboxes."""

    runtime: Runtime
    settings: Settings
    instance: str
    specs: list[SandboxSpec] = field(default_factory=list[SandboxSpec])

    @property
    def kind(self) -> str:
        return self.runtime.name

    def spec(self, name: str = "A test's own", pids: int = 512) -> SandboxSpec:
        spec = SandboxSpec(uuid4(), uuid4(), secrets.randbelow(60_000), name, 1 << 30, 2.0, pids)
        self.specs.append(spec)
        RUN.environments.add(str(spec.environment_id))
        return spec

    async def sandbox(self, name: str = "A test's own", pids: int = 512) -> SandboxRef:
        return await self.runtime.create(self.spec(name, pids))

    async def sh(self, sandbox: SandboxRef, script: str, *arguments: str) -> str:
        """Run a constant script that must succeed, and return what it printed."""
        result = await self.runtime.run(sandbox, ["sh", "-c", script, "sh", *arguments])
        assert result.exit_code == 0, (result.stdout, result.stderr)
        return result.stdout.decode()

    async def running(self, sandbox: SandboxRef, word: str) -> bool:
        """Report whether a process in the sandbox has this word on its command line.

        Programs given by `-c` do not count: those only carry other commands.
        """
        script = (
            "import os, sys\n"
            "found = 0\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "    try:\n"
            "        words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\\0')\n"
            "    except OSError:\n"
            "        continue\n"
            "    found += sys.argv[1].encode() in words and b'-c' not in words\n"
            "print(found)\n"
        )
        result = await self.runtime.run(sandbox, ["python3", "-c", script, word])
        return int(result.stdout) > 0

    async def gone(self, sandbox: SandboxRef, word: str) -> None:
        """Wait until no process has this word on its command line."""

        async def ended() -> bool:
            return not await self.running(sandbox, word)

        await until(ended, f"{word} has ended")


@pytest.fixture(scope="session")
def docker_network() -> Iterator[str]:
    """Give the name of a network of this test run's own, which is removed after it."""
    name = f"cft{secrets.token_hex(3)}"
    RUN.networks.add(name)

    async def probe() -> None:
        engine = Engine(None)
        try:
            await engine.ping()
        finally:
            await engine.close()

    async def clean() -> None:
        engine = Engine(None)
        network = SandboxNetwork(engine, 1, name)
        try:
            with contextlib.suppress(Exception):
                async with engine.border("cleaning") as docker:
                    await (await docker.networks.get(name)).delete()
            with contextlib.suppress(FirewallUnavailable):
                for kind, hook in (("IN", "INPUT"), ("FWD", "DOCKER-USER")):
                    await Firewall().remove(chain=network._chain_name(kind), hook=hook)
        finally:
            await engine.close()

    try:
        in_a_thread(probe)
    except RuntimeUnavailable as error:
        missing(f"no Docker engine: {error.message}")
    yield name
    in_a_thread(clean)


@pytest.fixture(scope="session")
def uid_base() -> Iterator[int]:
    """Give the range of user ids of this run's local sandboxes; its firewall rules go with it."""
    base = RUN.new_uid_base()
    yield base
    in_a_thread(lambda: remove_local_rules(base))


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Give a folder whose parents any user can pass."""
    folder = RUN.new_folder("test")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def make_bench(request: pytest.FixtureRequest, kind: str, data_dir: Path) -> Bench:
    settings = Settings.model_validate(
        {
            "data_dir": data_dir,
            "gateway_port": free_port(),
            "docker_host": None,
            "sandbox_uid_base": request.getfixturevalue("uid_base"),
        }
    )
    instance = RUN.new_instance()
    runtime: Runtime
    if kind == "memory":
        runtime = MemoryRuntime(pretend)
    elif kind == "docker":
        name = request.getfixturevalue("docker_network")
        runtime = DockerRuntime(settings, instance, network=name)
    else:
        for tool in ("bwrap", "pasta", "tmux"):
            if shutil.which(tool) is None:
                missing(f"{tool} is not installed")
        from craftastic.runtimes.local import LocalRuntime  # noqa: PLC0415

        runtime = LocalRuntime(settings, instance)
    return Bench(runtime, settings, instance)


async def benches(
    request: pytest.FixtureRequest, kind: str, data_dir: Path
) -> AsyncIterator[Bench]:
    bench = await make_bench(request, kind, data_dir)
    try:
        await bench.runtime.prepare()
        yield bench
    finally:
        with anyio.CancelScope(shield=True):
            for spec in bench.specs:
                await bench.runtime.remove(spec, storage=True)
            await bench.runtime.close()


@pytest.fixture
def docker_network_if_needed(request: pytest.FixtureRequest) -> None:
    """Ask for the session's network outside of the event loop, where that kind needs it."""
    kind = getattr(request.node, "callspec", None)
    if kind is None or "docker" in kind.params.values():
        request.getfixturevalue("docker_network")


@pytest.fixture(params=["memory", *REAL])
async def bench(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Bench]:
    """Give every kind of runtime in turn."""
    async for one in benches(request, request.param, data_dir):
        yield one


@pytest.fixture(params=REAL)
async def real(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Bench]:
    """Give every kind of runtime that has real processes."""
    async for one in benches(request, request.param, data_dir):
        yield one


@pytest.fixture
async def docker(
    request: pytest.FixtureRequest, docker_network: str, data_dir: Path
) -> AsyncIterator[Bench]:
    async for one in benches(request, "docker", data_dir):
        yield one


class _Banner(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1024)
        self.request.sendall(b"HTTP/1.0 200 OK\r\n\r\ngateway")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@pytest.fixture
async def gateway(real: Bench) -> AsyncIterator[Bench]:
    """Give a runtime whose gateway address has something that listens and answers."""
    address = await real.runtime.gateway_address()
    server = _Server((address, real.settings.gateway_port), _Banner)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield real
    server.shutdown()
    server.server_close()


def as_user(uid: int, *argv: str) -> int:
    """Run a program on the host as a sandbox's user and return its exit code."""
    assert os.geteuid() == 0
    return subprocess.run(argv, user=uid, group=uid, capture_output=True, check=False).returncode
