"""`craftastic inbox`, `approve`, `deny`, `session send`: as processes, against the whole app."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import anyio
import httpx
import pytest
import uvicorn

from craftastic.accounts.service import UserId
from craftastic.agent_runs.service import AgentRunService, GatewayRun, RunEvent, Start
from craftastic.app import State, build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.test_cli_commands import Cli
from tests.fakes.agent_rig import AgentRuntime
from tests.fakes.asgi import WithState
from tests.fakes.people import PASSWORD, signed_in
from tests.fakes.whole_app import whole_settings

START_S = 20.0


@dataclass
class Served:
    """A person's command line, and an agent of the same person."""

    cli: Cli
    runtime: AgentRuntime
    runs: AgentRunService
    run: GatewayRun
    start: Start
    session: str
    seq: int = 0

    def report(self, name: str, **payload: object) -> RunEvent:
        self.seq += 1
        return RunEvent(self.start.nonce, self.seq, name, payload, 1.0)

    async def says(self, name: str) -> None:
        await self.runs.event(self.run, self.report(name))

    async def asks(self, command: str) -> UUID:
        event = self.report("PermissionRequest", tool_name="Bash", tool_input={"command": command})
        asked = await self.runs.ask(self.run, event)
        assert asked.approval_id is not None
        return asked.approval_id


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    port, runtime = free_port(), AgentRuntime()

    async def make_runtimes(settings: Settings, instance: str) -> Runtimes:
        def make(_settings: Settings, _instance: str) -> Runtime:
            return runtime

        return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})

    app = build_app(whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}"), make_runtimes)
    async with app.router.lifespan_context(app) as state:
        config = uvicorn.Config(
            WithState(app, dict(state or {})),
            host="127.0.0.1",
            port=port,
            log_config=None,
            lifespan="off",
            ws="none",
        )
        server, url = uvicorn.Server(config), f"http://127.0.0.1:{port}"
        async with anyio.create_task_group() as tasks, httpx.AsyncClient(base_url=url) as client:
            tasks.start_soon(server.serve)
            try:
                with anyio.fail_after(START_S):
                    while not server.started:  # noqa: ASYNC110 - it tells nobody
                        await anyio.sleep(0.01)
                client.headers.update(await signed_in(client, "first@example.com"))
                cli = Cli(tmp_path / "person", url)
                yield await with_agent(cli, client, runtime, state)  # type: ignore[arg-type]
            finally:
                server.should_exit = True


async def with_agent(
    cli: Cli, client: httpx.AsyncClient, runtime: AgentRuntime, state: State
) -> Served:
    cli.home.mkdir()
    account = ("--email", "first@example.com", "--password-stdin")
    done = await cli("login", *account, stdin=PASSWORD)
    assert done.code == 0, done.err
    environment = (await client.post("/api/environments", json={"name": "one"})).json()
    body = {"environmentId": environment["id"], "name": "work"}
    made = (await client.post("/api/sessions", json=body)).json()
    agent = (await client.post("/api/agents", json={"name": "a", "type": "claude-code"})).json()
    owner = UserId(UUID((await client.get("/api/auth/me")).json()["data"]["user"]["id"]))
    runs = state["agent_runs"]
    start = await runs.begin(
        owner,
        await state["sessions"].get(owner, UUID(made["id"])),
        await state["agents"].get_owned(owner, UUID(agent["id"])),
        None,
    )
    run = await runs.by_token(UUID(made["id"]), start.token)
    assert run is not None
    served = Served(cli, runtime, runs, run, start, made["id"])
    await served.says("SessionStart")
    return served


async def test_what_waits_is_listed_and_allowed_by_the_beginning_of_its_id(served: Served) -> None:
    empty = await served.cli("inbox")
    assert (empty.code, empty.out, empty.err) == (0, "", "No agent waits for you.\n")
    approval = await served.asks("rm -rf build\x1b[31m")

    listed = await served.cli("inbox")
    heading, line = listed.out.splitlines()
    assert heading == "id\tsession\twants\tsince"
    assert line.split("\t")[:2] == [str(approval)[:8], "work"]
    assert "rm -rf build" in line
    assert "\x1b" not in line
    assert (await served.cli("inbox", "--quiet")).out == f"{approval}\n"
    assert (await served.cli("inbox", "--json")).json[0]["tool"] == "Bash"

    done = await served.cli("approve", str(approval)[:8])

    assert done.code == 0, done.err
    assert done.out.startswith("Allowed: Bash: ")
    assert (await served.runs.answer(served.run, approval, 0)).answer != ""


async def test_what_is_denied_tells_the_agent_why_and_is_answered_once(served: Served) -> None:
    approval = await served.asks("ls")

    done = await served.cli("deny", str(approval), "--because", "Ask me first.")
    again = await served.cli("approve", str(approval))

    assert (done.code, done.out) == (0, "Denied: it\n")
    assert "Ask me first." in (await served.runs.answer(served.run, approval, 0)).answer
    assert (again.code, again.err) == (5, "craftastic: It was denied before.\n")


async def test_what_does_not_wait_cannot_be_answered(served: Served) -> None:
    absent = await served.cli("approve", "0000")
    nobodys = await served.cli("deny", "00000000-0000-4000-8000-000000000000")

    assert (absent.code, nobodys.code) == (4, 4)
    assert "`craftastic inbox` lists it" in absent.err


async def test_a_text_is_sent_from_the_command_line_or_a_pipe(served: Served) -> None:
    first = await served.cli("session", "send", "work", "do it")
    assert (first.code, first.out) == (0, "queued\n")
    second = await served.cli("session", "send", "one/work", "-", "--json", stdin="and\nthat\n")

    assert second.json["status"] == "queued"
    texts = {one.text for one in await served.runs.sent(UserId(served.run.owner_id),
                                                        served.run.session_id)}  # fmt: skip
    assert texts == {"do it", "and\nthat"}


async def test_a_text_that_cannot_be_one_is_refused(served: Served) -> None:
    empty = await served.cli("session", "send", "work", "-", stdin=" \n")
    long = await served.cli("session", "send", "work", "-", stdin="x" * 400_001)

    assert (empty.code, empty.err) == (2, "craftastic: The prompt is empty\n")
    assert (long.code, "too long" in long.err) == (2, True)


async def test_an_agent_is_interrupted_while_it_works(served: Served) -> None:
    idle = await served.cli("session", "interrupt", "work")
    await served.says("UserPromptSubmit")
    done = await served.cli("session", "interrupt", "work")

    assert (idle.code, idle.err) == (5, "craftastic: It was not interrupted. The agent is idle.\n")
    assert (done.code, done.out) == (0, "Interrupted.\n")
    assert served.runtime.pressed == [("Escape",)]
