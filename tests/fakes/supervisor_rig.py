"""An agent's session with a real tmux, a scripted CLI and a gateway that can be away."""

import json
import secrets
import shlex
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from craftastic.agent_runs.programs import Launch, LaunchFile, hook_file, pack
from craftastic.runtimes.base import SandboxSpec
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.run_gateway import RunGateway
from tests.fakes.terminal_rig import Rig, until

FAKES = Path(__file__).parent
ALLOW = '{"hookSpecificOutput":{"decision":{"behavior":"allow"}}}'
DENY = '{"hookSpecificOutput":{"decision":{"behavior":"deny","message":"not today"}}}'
EVENTS = [
    "SessionStart", "UserPromptSubmit", "PreToolUse", "PermissionRequest", "PostToolUse",
    "PermissionDenied", "Stop", "StopFailure", "SubagentStart", "SubagentStop", "SessionEnd",
]  # fmt: skip
LOGIN = ".credentials.json"
CANARY = f"canary-{secrets.token_hex(16)}"

ASK = """
import json, os, socket, sys
os.chdir(os.path.dirname(sys.argv[1]))
door = socket.socket(socket.AF_UNIX)
door.connect(os.path.basename(sys.argv[1]))
door.sendall(sys.stdin.buffer.read() + b"\\n")
sys.stdout.write(door.makefile().readline())
"""
"""Says its input to a supervisor's socket and prints the answer."""

FIND = """
import os, stat, sys
canary = sys.stdin.buffer.read()
allowed = {int(one) for one in sys.argv[1].split(",") if one}
for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    for name in ("cmdline", "environ"):
        try:
            found = canary in open(f"/proc/{pid}/{name}", "rb").read()
            if found and (name == "cmdline" or pid not in allowed):
                print("process", pid, name)
        except OSError:
            pass
for folder in sys.argv[2:]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode) and canary in open(path, "rb").read():
                    print("file", path)
            except OSError:
                pass
"""
"""Prints where the text on its input is, but for the environments of some processes."""


@dataclass
class Desk:
    """One agent session: its sandbox and pane, its supervisor's gateway, and what it is given."""

    rig: Rig
    gateway: RunGateway
    home: str
    cwd: str
    launch: Launch

    @property
    def program(self) -> str:
        return f"{self.launch.env['PATH'].partition(':')[0]}/fake-agent"

    async def start(self, prompt: str = "", **changes: Any) -> None:
        argv = (*self.launch.argv, *([prompt] if prompt else []))
        launch = replace(self.launch, **{"argv": argv, **changes})
        await self.rig.tmux.ensure(self.rig.sandbox, "work-1", self.cwd, program=pack(launch))

    async def run(self, *argv: str, stdin: bytes = b"") -> str:
        return (await self.rig.runtime.run(self.rig.sandbox, argv, stdin=stdin)).stdout.decode()

    async def screen(self) -> str:
        return await self.rig.control("capture-pane", "-p", "-J", "-t", "=work-1:")

    async def shows(self, *texts: str) -> None:
        screen = ""

        async def shown() -> bool:
            nonlocal screen
            screen = await self.screen()
            return all(text in screen for text in texts)

        try:
            await until(shown, f"the screen shows {texts}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{screen}") from None

    async def type(self, text: str) -> None:
        await self.rig.control("send-keys", "-t", "=work-1:", "-l", text)
        await self.rig.control("send-keys", "-t", "=work-1:", "Enter")

    async def key(self, name: str) -> None:
        await self.rig.control("send-keys", "-t", "=work-1:", name)

    async def told(self, *names: str) -> None:
        """Wait until the gateway has these events, in this order, maybe with others between."""

        def arrived() -> bool:
            rest = iter(self.gateway.names)
            return all(name in rest for name in names)

        try:
            await until(arrived, f"the gateway has {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.gateway.names}\n{await self.screen()}") from None

    async def waits(self, count: int = 1) -> list[str]:
        await until(lambda: len(self.gateway.waiting()) == count, f"{count} asks wait")
        return self.gateway.waiting()

    @property
    def socket(self) -> str:
        return f"{self.rig.run_dir}/agent-{self.launch.session}.sock"

    async def say(self, **words: Any) -> dict[str, Any]:
        text = await self.run("python3", "-c", ASK, self.socket, stdin=json.dumps(words).encode())
        return json.loads(text or "{}")

    async def is_idle(self) -> bool:
        return (await self.say(op="idle?")).get("idle") is True

    async def pid(self) -> int:
        """Return the supervisor's process."""
        told = await self.rig.control("display-message", "-p", "-t", "=work-1:", "#{pane_pid}")
        return int(told or 0)

    async def agent(self) -> int:
        """Return the CLI's process, once it is told."""
        await self.told("craftastic:started")
        return next(
            one["payload"]["pid"]
            for one in self.gateway.events
            if one["event"] == "craftastic:started"
        )

    async def ended(self) -> None:
        await until(self.is_gone, "the session has ended")

    async def is_gone(self) -> bool:
        return await self.rig.tmux.names(self.rig.sandbox) == set()


def settings(home: str) -> str:
    hooks = {
        event: [{"hooks": [{"type": "command", "command": shlex.join([f"{home}/hook", event])}]}]
        for event in EVENTS
    }
    return json.dumps({"hooks": hooks})


def with_login(desk: Desk) -> dict[str, Any]:
    """Return the files of a launch with a login, which the server has too."""
    desk.gateway.files[LOGIN] = json.dumps({"login": CANARY})
    login = LaunchFile(LOGIN, desk.gateway.files[LOGIN], memory=True, take_back=True)
    return {"files": (login, *desk.launch.files)}


def there(path: object) -> bool:
    return Path(str(path)).exists()


def names_in(folder: str) -> set[str]:
    return {one.name for one in Path(folder).iterdir()}


async def desk_in(folder: Path, gateway: RunGateway) -> Desk:
    runtime = HostRuntime(folder)
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    return desk_at(Rig(runtime, sandbox, runtime.run_dir(sandbox)), gateway, folder)


def desk_at(rig: Rig, gateway: RunGateway, folder: Path) -> Desk:
    own = folder / rig.sandbox.id
    home, cwd, programs = own / "agent home", own / "work", own / "bin"
    for one in (cwd, programs):
        one.mkdir()
    shutil.copy(FAKES / "fake_agent.py", programs / "fake-agent")
    (programs / "fake-agent").chmod(0o755)
    assert isinstance(rig.runtime, HostRuntime)
    path = f"{programs}:{rig.runtime.environment(rig.sandbox)['PATH']}"
    return Desk(rig, gateway, str(home), str(cwd), launch_of(gateway, str(home), str(cwd), path))


def launch_of(gateway: RunGateway, home: str, cwd: str, path: str) -> Launch:
    return Launch(
        session=gateway.session,
        home=home,
        memory=f"/dev/shm/craftastic-{gateway.session}",
        cwd=cwd,
        argv=("fake-agent", "--settings", f"{home}/settings.json", "--unknown"),
        env={"PATH": path, "CLAUDE_CONFIG_DIR": home, "ANTHROPIC_API_KEY": gateway.token,
             "ANTHROPIC_BASE_URL": f"{gateway.url}/model"},
        files=(LaunchFile("settings.json", settings(home)), hook_file()),
        gateway=gateway.url,
        token=gateway.token,
        nonce=secrets.token_hex(8),
        idle_events=("SessionStart", "Stop"),
        ask_event="PermissionRequest",
        missing="Fake Agent is not here.\nGet it.",
        title="Fake Agent",
        resume="fake-agent --resume {conversation}",
    )  # fmt: skip


async def foreground_of(desk: Desk) -> str:
    shell = await desk.run("ps", "-o", "tpgid=", "-p", str(await desk.pid()))
    return shell.strip()


async def is_dead(desk: Desk, pid: int) -> bool:
    state = await desk.run("ps", "-o", "stat=", "-p", str(pid))
    return not state.strip() or state.startswith("Z")


@contextmanager
def open_gateway() -> Generator[RunGateway]:
    gateway = RunGateway(str(uuid4()), f"token-{secrets.token_hex(16)}")
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


@asynccontextmanager
async def open_desk(folder: Path) -> AsyncGenerator[Desk]:
    """Give a session of a sandbox that is the host itself; leaving ends it."""
    with open_gateway() as gateway:
        desk = await desk_in(folder, gateway)
        try:
            yield desk
        finally:
            await desk.rig.end()
