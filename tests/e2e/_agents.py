"""What tests of agent sessions share: a server with a model's stub, and a searching eye."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from craftastic.runtimes._agent_tools import TOOLS_DIR
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.model_api import ModelApi

PROJECT = Path(__file__).parents[2]
TOOLS = PROJECT / ".cache" / "agent-tools"
"""Where tests of the local runtime keep agents' command lines from one run to the next."""

INSTALL_S = 600.0
TURN_S = 180.0
LOOK_S = 0.02
MAX_FILE = 8 << 20


@dataclass(frozen=True)
class Cli:
    """A real command line, and what it takes to let it speak with the stub."""

    type: str
    credential: str
    model: str | None = None
    asks: bool = True
    """Its questions for permission can be answered from outside."""


CLIS = (
    Cli("claude-code", "anthropic_api_key"),
    Cli("codex", "openai_api_key", "gpt-5.5-codex", asks=False),
    Cli("gemini-cli", "gemini_api_key", "gemini-2.5-flash", asks=False),
    Cli("qwen-coder", "openai_api_key", "stub-large"),
    Cli("opencode", "openai_compatible_key", "stub-large"),
)


@dataclass
class Seen:
    """What a session's agent was seen to be, in order; twice the same where it was so anew."""

    states: list[str] = field(default_factory=list[str])
    now: dict[str, Any] = field(default_factory=dict[str, Any])

    def note(self, session: dict[str, Any]) -> None:
        before = (self.now.get("agentState"), self.now.get("agentStateSince"))
        self.now = session
        state = session.get("agentState")
        if state and before != (state, session.get("agentStateSince")):
            self.states.append(state)

    def since(self, start: int) -> list[str]:
        return self.states[start:]


@asynccontextmanager
async def watched(api: Api, session: dict[str, Any]) -> AsyncGenerator[Seen]:
    """Look at a session all the time, as long as the block runs."""
    seen = Seen()

    async def look() -> None:
        while True:
            with contextlib.suppress(httpx.TransportError):  # a server that is just restarted
                answer = await api.client.get(f"/api/sessions/{session['id']}")
                if answer.status_code == 200:
                    seen.note(answer.json())
            await anyio.sleep(LOOK_S)  # the pace of looking, not a wait for something

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        try:
            yield seen
        finally:
            group.cancel_scope.cancel()


async def state(seen: Seen, wanted: str, *, after: int = 0, timeout_s: float = TURN_S) -> None:
    """Wait until the agent is in a state, or was, after so many states that it was in."""

    def there() -> bool:
        return wanted in seen.since(after)

    try:
        await until(there, f"the agent is {wanted}", timeout_s=timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it was {seen.states}; {seen.now}") from error


async def shows_words(viewer: Viewer, what: str, *, timeout_s: float = TURN_S) -> None:
    """Wait until a screen shows a text; command lines jump over blanks instead of writing them."""

    def there() -> bool:
        return "".join(what.split()) in "".join(viewer.lately.split())

    try:
        await until(there, f"{what!r} on the terminal", timeout_s=timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; the terminal shows {viewer.text[-1500:]!r}") from error


async def new_agent(api: Api, cli: Cli, key: str, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "userId": api.user["id"],
        "name": f"my {cli.type}",
        "type": cli.type,
        "credential": {"type": cli.credential, "value": key},
        **({"model": cli.model} if cli.model else {}),
        **more,
    }
    answer = await api.client.post("/api/agents", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def agent_session(
    api: Api, environment: dict[str, Any], agent: dict[str, Any], prompt: str | None, **more: Any
) -> dict[str, Any]:
    made: dict[str, Any] = await api.post(
        "/api/sessions",
        environmentId=environment["id"],
        sessionType="agent",
        agentId=agent["id"],
        **({"prompt": prompt} if prompt is not None else {}),
        **more,
    )
    return made


def with_model(api: ModelApi) -> dict[str, str]:
    """Return the settings that lead a server's model calls to the stub."""
    return {
        "CRAFTASTIC_MODEL_UPSTREAMS": ",".join(
            f"{provider}={api.url}"
            for provider in ("anthropic", "openai", "openai-compatible", "gemini")
        )
    }


def share_tools(data_dir: Path) -> None:
    """Let a server find what another one has installed before."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    # Sandboxes' users must be able to pass on the way to it, so it is a folder of its own there.
    tools = data_dir / "tools"
    tools.mkdir(mode=0o711, exist_ok=True)
    if not (tools / "agents").exists() and any(TOOLS.iterdir()):
        _copy(TOOLS, tools / "agents")


def keep_tools(data_dir: Path) -> None:
    """Keep what a server has installed for the next one."""
    made = data_dir / "tools" / "agents"
    if made.is_dir() and not any(TOOLS.iterdir()):
        shutil.rmtree(TOOLS)
        _copy(made, TOOLS)


def _copy(source: Path, target: Path) -> None:
    """Copy a tree by links where both are on one file system, else by its bytes."""
    linked = subprocess.run(["cp", "-al", source, target], capture_output=True, check=False)
    if linked.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)


async def tools_are_there(server: Server, runtime: str) -> None:
    """Wait until a local server has installed agents' command lines; an image has them."""
    if runtime != "local":
        return
    current = server.data_dir / "tools" / "agents" / "current"

    def settled() -> bool:
        log = server.log.read_bytes()
        assert b"command lines are not installed" not in log, log[-3000:].decode(errors="replace")
        return current.is_dir()

    await until(settled, f"agents are installed at {TOOLS_DIR}", timeout_s=INSTALL_S, every_s=0.5)
    keep_tools(server.data_dir)


# ---- looking for what must not be there ------------------------------------------------------


def processes_of(server: Server, environment_id: str, runtime: str) -> list[int]:
    """Return the host's numbers of the processes that run in an environment's sandbox."""
    if runtime == "docker":
        container = container_of(environment_id)
        listed = subprocess.run(
            ["docker", "top", container, "-eo", "pid"], capture_output=True, text=True, check=True
        )
        return [int(one) for one in listed.stdout.split()[1:]]
    found: list[int] = []
    mark = environment_id.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "mountinfo").read_bytes() and entry.name != str(os.getpid()):
                found.append(int(entry.name))
    return found


def container_of(environment_id: str) -> str:
    label = f"label=craftastic.environment={environment_id}"
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]


def places(server: Server, environment_id: str, runtime: str) -> Iterator[tuple[str, bytes]]:
    """Yield everything that can be read of a sandbox, and of the server beside it."""
    for pid in processes_of(server, environment_id, runtime):
        for name in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                yield f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes()
        yield from _memory_files(pid)
    for tree in ("homes", "repos", "worktrees", "run"):
        yield from _files(server.data_dir / tree / environment_id)
    if runtime == "docker":
        inspected = subprocess.run(
            ["docker", "inspect", container_of(environment_id)], capture_output=True, check=True
        )
        yield "docker inspect", inspected.stdout
    assert server.process is not None
    yield "the server's argv", Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    yield "the server's log", server.log.read_bytes()
    for one in server.data_dir.glob("craftastic.db*"):
        yield f"the database ({one.name})", one.read_bytes()


def _memory_files(pid: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the memory file systems that a process sees."""
    for folder in ("dev/shm", "run/craftastic", "tmp", "var/tmp"):
        yield from _files(Path(f"/proc/{pid}/root/{folder}"))


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as file:
                        yield str(path), file.read(MAX_FILE)


def found_in(canary: str, server: Server, environment_id: str, runtime: str) -> list[str]:
    """Return the names of the places that hold a secret."""
    secret = canary.encode()
    shown = re.sub(r"(.{6}).*", r"\1…", canary)
    return [
        f"{name} holds {shown}"
        for name, content in places(server, environment_id, runtime)
        if secret in content
    ]
