"""Agent sessions with the scripted command line: logins that enter, tokens, every state."""

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.e2e._agents import (
    Cli,
    Seen,
    agent_session,
    found_in,
    new_agent,
    shows_words,
    state,
    watched,
    with_model,
)
from tests.e2e.harness import PASSWORD, Api, Server, Viewer, until
from tests.fakes.model_api import ModelApi

FAKES = Path(__file__).parents[1] / "fakes"
KEY = Cli("fake-agent", "anthropic_api_key")
LOGIN = Cli("fake-agent", "claude_cli_json")


@pytest.fixture
def model() -> Iterator[ModelApi]:
    with ModelApi(key=f"sk-ant-api-{secrets.token_hex(24)}") as api:
        yield api


@pytest.fixture
async def server(data_dir: Path, runtime: str, model: ModelApi) -> AsyncIterator[Server]:
    folder = data_dir / "agent-types"
    folder.mkdir()
    (folder / "fake-agent.toml").write_bytes((FAKES / "fake_agent.toml").read_bytes())
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=None,
        CRAFTASTIC_AGENT_CREDENTIAL_READS="1",
        **with_model(model),
    )
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        yield api


async def environment_with_fake(server: Server, api: Api, name: str) -> dict[str, Any]:
    """Make an environment whose user has the scripted CLI on the PATH, as installed by hand."""
    environment = await api.environment(name)
    home = server.data_dir / "homes" / environment["id"]
    owner = home.stat()
    folder = home / ".local" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "fake-agent"
    program.write_bytes((FAKES / "fake_agent.py").read_bytes())
    program.chmod(0o755)
    for one in (home / ".local", folder, program):
        os.chown(one, owner.st_uid, owner.st_gid)
    return environment


async def prompt(api: Api, session: dict[str, Any], text: str) -> None:
    sent = await api.client.post(f"/api/sessions/{session['id']}/prompt", json={"text": text})
    assert sent.status_code == 202, sent.text


def login(mark: str) -> str:
    return json.dumps({"claudeAiOauth": {"accessToken": mark, "refreshToken": f"r-{mark}"}})


@pytest.fixture
async def program(server: Server, api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Give a program of the user's own, which may read credentials back."""
    made = await api.post("/api/auth/tokens", name="reader", scope="write")
    headers = {"Authorization": f"Bearer {made['data']['secret']}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        yield client


async def stored(program: httpx.AsyncClient, agent: dict[str, Any]) -> str:
    answer = await program.get(f"/api/agents/{agent['id']}/credentials")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["credential"]["value"])


async def test_a_login_file_is_nowhere_once_its_session_is_over(
    server: Server, api: Api, program: httpx.AsyncClient, runtime: str
) -> None:
    canary = f"sk-ant-oat-{secrets.token_hex(24)}"
    environment = await environment_with_fake(server, api, "login")
    agent = await new_agent(api, LOGIN, login(canary))
    session = await agent_session(api, environment, agent, "say hello")
    async with watched(api, session) as seen:
        await state(seen, "done")
        told = await api.get(f"/api/sessions/{session['id']}/agent")
        assert told["credential"]["entersSandbox"] is True

        # It is in the sandbox's memory, where everything there could read it, and nowhere else.
        places = found_in(canary, server, environment["id"], runtime)
        assert places
        assert all("/dev/shm/" in one or "/run/craftastic/" in one for one in places), places

        await prompt(api, session, "exit 0")
        await state(seen, "exited")
    assert found_in(canary, server, environment["id"], runtime) == []

    again = await agent_session(api, environment, agent, "say hello", name="again", branch="again")
    async with watched(api, again) as seen:
        await state(seen, "done")
    await api.delete(f"/api/sessions/{again['id']}")
    assert found_in(canary, server, environment["id"], runtime) == []
    assert canary in await stored(program, agent)


async def test_what_two_sessions_renew_of_one_login_is_kept_once_and_the_later_loses_nothing(
    server: Server, api: Api, program: httpx.AsyncClient
) -> None:
    environment = await environment_with_fake(server, api, "two")
    agent = await new_agent(api, LOGIN, login("first"))
    one = await agent_session(api, environment, agent, "say one", branch="one")
    two = await agent_session(api, environment, agent, "say two", branch="two")
    async with watched(api, one) as seen_one, watched(api, two) as seen_two:
        await state(seen_one, "done")
        await state(seen_two, "done")

        so_far = len(seen_one.states)
        await prompt(api, one, "refresh login")
        await state(seen_one, "done", after=so_far)

        async def renewed() -> str | None:
            now = await stored(program, agent)
            return now if now != login("first") else None

        kept = await until(renewed, "the renewed login is stored")

        # The other session renews the file that it was given at first: that is older news.
        so_far = len(seen_two.states)
        await prompt(api, two, "refresh login")
        await state(seen_two, "done", after=so_far)
        await prompt(api, two, "exit 0")
        await state(seen_two, "exited")
    assert await stored(program, agent) == kept


async def test_a_sessions_token_opens_its_own_model_api_and_nothing_else(
    server: Server, api: Api, model: ModelApi
) -> None:
    environment = await environment_with_fake(server, api, "tokens")
    agent = await new_agent(api, KEY, model.key)
    one = await agent_session(api, environment, agent, "model hello", branch="one")
    two = await agent_session(api, environment, agent, "say two", branch="two")
    viewer = Viewer(server.url, one["id"], environment["id"], api.token)
    async with watched(api, one) as seen:
        await state(seen, "done")
    assert model.called("/v1/messages")[-1].text == "hello"
    assert model.key not in model.called("/v1/messages")[-1].text

    # What a program in the sandbox can do with the token that it finds there.
    ask = (
        "curl -s -o /dev/null -w '%{http_code} ' -X POST -H 'content-type: application/json' "
        '-H "x-api-key: $ANTHROPIC_API_KEY" -d \'{"model":"m","messages":[]}\' '
    )
    gateway = f"http://craftastic-gateway:{server.gateway_port}/agent"
    paths = {
        f"{gateway}/{one['id']}/model/v1/messages": "200",
        f"{gateway}/{two['id']}/model/v1/messages": "403",
        f"{gateway}/{one['id']}/model/v1/responses": "404",
        f"{gateway}/{one['id']}/model/v1beta/models/m:generateContent": "404",
        f"{gateway}/{one['id']}/model/v1/files": "404",
    }
    async with viewer.attached():
        await viewer.type("\x03\x03")
        await shows_words(viewer, "ended")
        answers = (await viewer.run("; ".join(ask + path for path in paths))).split()
        assert answers == list(paths.values())
        token = (await viewer.run("echo $ANTHROPIC_API_KEY")).strip()
    assert token != model.key
    calls = len(model.calls)
    await api.delete(f"/api/sessions/{one['id']}")

    other = Viewer(server.url, two["id"], environment["id"], api.token)
    async with other.attached():
        await other.type("\x03\x03")
        await shows_words(other, "ended")
        late = f"ANTHROPIC_API_KEY={token}; {ask}{gateway}/{one['id']}/model/v1/messages"
        assert (await other.run(late)).split() == ["403"]
    assert len(model.calls) == calls


async def test_every_state_is_shown_and_told(server: Server, api: Api) -> None:
    environment = await environment_with_fake(server, api, "states")
    agent = await new_agent(api, KEY, "sk-ant-api-0123456789abcdef")
    session = await agent_session(api, environment, agent, None)
    viewer = Viewer(server.url, session["id"], environment["id"], api.token)

    async def turn(seen: Seen, text: str, *wanted: str) -> None:
        so_far = len(seen.states)
        await prompt(api, session, text)
        for one in wanted:
            await state(seen, one, after=so_far)

    async with watched(api, session) as seen, viewer.attached():
        await state(seen, "idle")
        assert seen.states[0] == "starting"
        await turn(seen, "work 1", "working")
        (server.data_dir / "homes" / environment["id"] / "workspace" / "go-1").touch()
        await state(seen, "done", after=len(seen.states) - 1)
        await turn(seen, "say hello", "done")
        assert "hello" in seen.now["agentMessage"]

        await turn(seen, "question", "waiting_question")
        await viewer.type("1")
        await state(seen, "done", after=len(seen.states) - 1)

        await turn(seen, "ask permission: rm -r x", "waiting_permission")
        assert "rm -r x" in seen.now["agentWaitsFor"]
        await viewer.type("n")
        await state(seen, "done", after=len(seen.states) - 1)
        assert "agentWaitsFor" not in seen.now

        await turn(seen, "fail overloaded", "error")
        await prompt(api, session, "say again")
        listed = (await api.get(f"/api/sessions/{session['id']}/prompts"))["prompts"]
        assert [(one["status"], bool(one.get("reason"))) for one in listed[-1:]] == [
            ("blocked", True)
        ]

        await viewer.type("crash\r")
        await state(seen, "exited", after=len(seen.states) - 1)


async def test_a_task_is_given_on_the_command_line(
    server: Server, api: Api, model: ModelApi, tmp_path: Path
) -> None:
    environment = await environment_with_fake(server, api, "line")
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CRAFTASTIC_URL": server.url,
        "CRAFTASTIC_CONFIG_DIR": str(tmp_path / "config"),
    }

    async def craftastic(*words: str, given: str = "") -> str:
        done = await anyio.run_process(
            [sys.executable, "-m", "craftastic", *words],
            input=given.encode(),
            env=variables,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    await craftastic("login", "--email", "a@example.com", "--password-stdin", given=PASSWORD)
    await craftastic(
        "agent", "add", "mine", "--type", "fake-agent", "--credential-stdin", given=model.key
    )
    made = await craftastic(
        "agent", "run", "line", "-m", "ask permission: make it so", "--detach", "--json"
    )
    session = json.loads(made)["session"]
    assert json.loads(made)["environment"]["id"] == environment["id"]
    assert session["sessionType"] == "agent"

    async with watched(api, session) as seen:
        await state(seen, "waiting_permission")
        waiting = json.loads(await craftastic("inbox", "--json"))
        rows = waiting["approvals"] if isinstance(waiting, dict) else waiting
        assert len(rows) == 1
        await craftastic("approve", rows[0]["id"])
        await state(seen, "done")
        so_far = len(seen.states)
        await craftastic("session", "send", session["id"], "say thank you")
        await state(seen, "done", after=so_far)
        assert "thank you" in seen.now["agentMessage"]
