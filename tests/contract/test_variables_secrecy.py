"""Where a secret's value is after it was set, and where it never is: the whole way, for real."""

import io
import logging
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog

from craftastic import logs
from craftastic.accounts.service import UserId
from craftastic.app import build_app
from craftastic.database import Database
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from craftastic.variables.service import VariableService
from tests.conftest import BACKENDS, driver_url
from tests.contract.conftest import Bench
from tests.contract.test_credentials_service import dumped
from tests.contract.test_every_route import signed_in
from tests.contract.test_tmux_sessions import FIND, environment_of, shell_of, typed
from tests.fakes.asgi import client_of
from tests.fakes.terminal_rig import Rig
from tests.fakes.whole_app import whole_settings
from tests.secrecy import Place as Seen
from tests.secrecy import allow

HOSTILE = "'\"`$(touch /tmp/owned)`\n\\ \u00e9\u6f22 %s #{pane_pid} "


@dataclass
class Place:
    """A whole server on its database with everything it logs."""

    client: httpx.AsyncClient
    variables: VariableService
    database: Database
    log: io.StringIO
    data_dir: Path
    canary: str
    answers: list[str]

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.client.request(method, path, json=body)
        self.answers.append(answer.text + repr(answer.headers))
        return answer.json()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    stream = io.StringIO()
    logs.configure(level="debug", format="json", stream=stream)
    yield stream
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    structlog.reset_defaults()
    logging.getLogger("uvicorn.access").disabled = False


async def _in_memory(settings: Settings, instance: str) -> Runtimes:
    def make(_settings: Settings, _instance: str) -> Runtime:
        return MemoryRuntime()

    return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})


@pytest.fixture(params=BACKENDS)
async def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    log: io.StringIO,
    copy_of_template: Callable[[str], str],
) -> AsyncIterator[Place]:
    url = copy_of_template(request.param)
    settings = whole_settings(tmp_path, url, log_level="debug")
    app = build_app(settings, _in_memory)
    async with AsyncExitStack() as stack:
        state: Any = await stack.enter_async_context(app.router.lifespan_context(app))
        client = await stack.enter_async_context(client_of(app, **state))
        client.headers.update(await signed_in(client, "alice@example.com"))
        database = Database(driver_url(url))
        stack.push_async_callback(database.close)
        canary = f"canary-{secrets.token_hex(16)}"
        data_dir = settings.data_dir
        yield Place(client, state["variables"], database, log, data_dir, canary, [])


async def test_a_secret_is_in_its_shell_and_nowhere_else(
    place: Place, real: Bench, request: pytest.FixtureRequest
) -> None:
    allow(Seen.ENVIRONMENT, value=place.canary, because="a variable is in the shell it is for")
    value = place.canary + HOSTILE
    owner = UserId(UUID((await place("GET", "/api/auth/me"))["data"]["user"]["id"]))
    environment = (await place("POST", "/api/environments", {"name": "one"}))["id"]
    path = f"/api/environments/{environment}/variables"
    await place("PUT", "/api/variables/SHARED", {"value": "overlaid"})
    await place("PUT", f"{path}/SHARED", {"value": value})
    await place("PUT", "/api/variables/PATH", {"value": value})
    await place("PUT", "/api/variables/LONG", {"value": value * 1000})
    await place("GET", "/api/variables")
    assert (await place("GET", path))["variables"][0]["name"] == "SHARED"

    sandbox = await real.sandbox()
    rig = Rig(real.runtime, sandbox, "/run/craftastic")
    variables = await place.variables.for_session(owner, UUID(environment))
    await rig.tmux.ensure(sandbox, "one-1", "/home/dev", variables=variables)

    pid = await shell_of(rig, "one-1")
    assert (await environment_of(rig, "one-1"))[b"SHARED"].decode() == value
    await typed(rig, "one-1", "touch seen; ls", "\nseen")
    assert await _inside(rig, pid, place.canary) == ""
    for scope in (["-g"], ["-t", "=one-1:"]):
        shown = await rig.control("show-environment", *scope)
        assert "SHARED" not in shown
        assert place.canary not in shown
    assert _outside(real, place, sandbox.id) == []
    assert place.canary not in "".join(place.answers)
    assert '"path": "/api/variables"' in place.log.getvalue()
    assert place.canary not in place.log.getvalue()
    dump = await dumped(place.database, request)
    assert b"SHARED" in dump
    assert place.canary.encode() not in dump


async def _inside(rig: Rig, shell: int, canary: str) -> str:
    folders = ["/home/dev", "/run", "/tmp", "/var/tmp", "/dev/shm"]
    found = await rig.runtime.run(
        rig.sandbox,
        ["python3", "-c", FIND, str(shell), rig.tmux.socket(), *folders],
        stdin=canary.encode(),
    )
    return (found.stdout + found.stderr).decode()


def _outside(real: Bench, place: Place, sandbox_id: str) -> list[str]:
    """List where the host shows the value; the shell itself is a process of the host, too."""
    found: list[str] = []
    if real.kind == "docker":
        command = ["docker", "inspect", sandbox_id]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        found += ["docker inspect"] if place.canary.encode() in shown else []
    shells = 0
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
                program = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if place.canary.encode() in content:
                if (name, program) == ("environ", b"-bash\0"):
                    shells += 1
                else:
                    found.append(f"{process}/{name}")
    if os.geteuid() == 0 and shells != 1:
        found.append(f"{shells} shells")
    for folder in (real.settings.data_dir, place.data_dir):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found += [str(path)] if place.canary.encode() in path.read_bytes() else []
    return found
