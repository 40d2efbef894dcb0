"""Agents that really run: the command lines from the package registry, against a model's stub."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.e2e._agents import (
    CLIS,
    TURN_S,
    Cli,
    agent_session,
    found_in,
    new_agent,
    share_tools,
    shows_words,
    state,
    tools_are_there,
    watched,
    with_model,
)
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.model_api import ModelApi

CLAUDE = CLIS[0]


@pytest.fixture
def model() -> Iterator[ModelApi]:
    with ModelApi(key=f"sk-ant-api-{secrets.token_hex(24)}") as api:
        yield api


@pytest.fixture
async def server(data_dir: Path, runtime: str, model: ModelApi) -> AsyncIterator[Server]:
    if runtime == "local":
        share_tools(data_dir)
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=None,
        SANDBOX_MEMORY_LIMIT="4g",
        CRAFTASTIC_AGENT_TOOLS=",".join(one.type for one in CLIS),
        **with_model(model),
    )
    try:
        server.start()
        await server.ready()
        await tools_are_there(server, runtime)
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    api = Api(server.url)
    async with api:
        await api.register("a@example.com", setupToken=server.setup_token)
        yield api


async def test_every_real_command_line_completes_a_turn_and_takes_another_prompt(
    server: Server, api: Api, model: ModelApi, runtime: str, own_history: str
) -> None:
    environment = await api.environment("own", own_history)
    for cli in CLIS:
        agent = await new_agent(api, cli, model.key)
        model.hold()
        session = await agent_session(
            api, environment, agent, "SLOW 2 please", branch=f"with-{cli.type}"
        )
        async with watched(api, session) as seen:
            # The model holds its answer back: the agent works until it may go on.
            await state(seen, "working")
            model.go(20)
            await state(seen, "done")
            assert "part 2" in (seen.now.get("agentMessage") or ""), (cli.type, seen.now)
            assert seen.states.index("working") < seen.states.index("done"), seen.states

            so_far = len(seen.states)
            model.hold()
            sent = await api.client.post(
                f"/api/sessions/{session['id']}/prompt", json={"text": "SLOW 3 again"}
            )
            assert sent.status_code == 202, sent.text
            await state(seen, "working", after=so_far)
            model.go(20)
            await state(seen, "done", after=so_far)
            assert "part 3" in (seen.now.get("agentMessage") or ""), (cli.type, seen.now)

            receipt = await prompt_of(api, session, sent.json()["id"])
            assert receipt["status"] == "delivered", receipt

        assert found_in(model.key, server, environment["id"], runtime) == []
        await api.delete(f"/api/sessions/{session['id']}")
    assert len(model.calls) >= 2 * len(CLIS)
    assert all(call.status == 200 for call in model.calls), [
        (call.target, call.status) for call in model.calls if call.status != 200
    ]


async def prompt_of(api: Api, session: dict[str, Any], prompt_id: str) -> dict[str, Any]:
    listed = await api.get(f"/api/sessions/{session['id']}/prompts")
    return next(one for one in listed["prompts"] if one["id"] == prompt_id)


async def waiting(api: Api, session: dict[str, Any]) -> dict[str, Any]:
    """Wait for a request for permission of a session, and return it."""

    async def look() -> dict[str, Any] | None:
        listed = (await api.get("/api/approvals"))["approvals"]
        return next((one for one in listed if one["sessionId"] == session["id"]), None)

    found: dict[str, Any] = await until(look, "a request for permission", timeout_s=TURN_S)
    return found


async def test_a_request_for_permission_is_allowed_from_outside_by_those_that_can(
    api: Api, model: ModelApi
) -> None:
    environment = await api.environment("asking")
    for cli in (one for one in CLIS if one.asks):
        agent = await new_agent(api, cli, model.key)
        session = await agent_session(
            api, environment, agent, "RUNTOOL echo made >made.txt", branch=cli.type
        )
        async with watched(api, session) as seen:
            await state(seen, "waiting_permission")
            asked = await waiting(api, session)
            assert "made.txt" in asked["input"], asked

            answered = await api.client.post(
                f"/api/approvals/{asked['id']}", json={"decision": "allow"}
            )
            assert answered.status_code == 200, answered.text
            await state(seen, "done")
            assert "the tool said" in (seen.now.get("agentMessage") or ""), (cli.type, seen.now)
        assert (await api.get("/api/approvals"))["approvals"] == []
        await api.delete(f"/api/sessions/{session['id']}")


async def test_what_is_denied_is_not_run_and_the_model_hears_why(api: Api, model: ModelApi) -> None:
    environment = await api.environment("denying")
    agent = await new_agent(api, CLAUDE, model.key)
    session = await agent_session(api, environment, agent, "RUNTOOL touch made")
    async with watched(api, session) as seen:
        asked = await waiting(api, session)
        answered = await api.client.post(
            f"/api/approvals/{asked['id']}",
            json={"decision": "deny", "message": "not on my watch"},
        )
        assert answered.status_code == 200, answered.text
        await state(seen, "done")
    assert "not on my watch" in model.called("/v1/messages")[-1].everything


async def test_an_answer_at_the_terminal_closes_the_request(
    server: Server, api: Api, model: ModelApi
) -> None:
    environment = await api.environment("terminal")
    agent = await new_agent(api, CLAUDE, model.key)
    session = await agent_session(api, environment, agent, "RUNTOOL touch made")
    viewer = Viewer(server.url, session["id"], environment["id"], api.token)
    async with watched(api, session) as seen, viewer.attached():
        asked = await waiting(api, session)
        await shows_words(viewer, "Do you want to proceed?")
        await viewer.type("\r")
        await state(seen, "done")
        late = await api.client.post(f"/api/approvals/{asked['id']}", json={"decision": "deny"})
    assert late.status_code == 409, late.text
    assert "terminal" in late.text
    assert (await api.get("/api/approvals"))["approvals"] == []


async def test_a_restart_in_the_middle_of_a_turn_loses_nothing(
    server: Server, api: Api, model: ModelApi
) -> None:
    environment = await api.environment("restart")
    agent = await new_agent(api, CLAUDE, model.key)
    session = await agent_session(api, environment, agent, "RUNTOOL touch made")
    asked = await waiting(api, session)

    server.kill()
    server.start()
    await server.ready()

    async with watched(api, session) as seen:
        await state(seen, "waiting_permission", timeout_s=5)
        assert (await waiting(api, session))["id"] == asked["id"]
        answered = await api.client.post(
            f"/api/approvals/{asked['id']}", json={"decision": "allow"}
        )
        assert answered.status_code == 200, answered.text
        await state(seen, "done")

        # What the agent does while nobody serves is told once somebody does.
        so_far = len(seen.states)
        sent = await api.client.post(
            f"/api/sessions/{session['id']}/prompt", json={"text": "SLOW 2 once more"}
        )
        assert sent.status_code == 202, sent.text
        await state(seen, "working", after=so_far)
        server.kill()
        server.start()
        await server.ready()
        await state(seen, "working", timeout_s=5)
        model.go(20)
        await state(seen, "done", after=so_far)


async def test_a_command_line_that_is_not_there_says_how_to_get_it(
    server: Server, api: Api
) -> None:
    environment = await api.environment("missing")
    cursor = Cli("cursor-cli", "cursor_api_key")
    agent = await new_agent(api, cursor, "key_0123456789abcdef")
    session = await agent_session(api, environment, agent, None)
    viewer = Viewer(server.url, session["id"], environment["id"], api.token)
    async with viewer.attached():
        await shows_words(viewer, "no package registry has it")
        assert (await viewer.run("echo a shell goes on")).strip() == "a shell goes on"


async def test_an_agent_starts_once_and_leaves_its_output_and_a_shell(
    server: Server, api: Api, model: ModelApi
) -> None:
    environment = await api.environment("once")
    agent = await new_agent(api, CLAUDE, model.key)
    session = await agent_session(api, environment, agent, "say something")
    viewer = Viewer(server.url, session["id"], environment["id"], api.token)
    async with watched(api, session) as seen:
        await state(seen, "done")
        calls = len(model.calls)
        async with viewer.attached():
            await shows_words(viewer, "stub says: say something")
        async with viewer.attached():
            await viewer.type("/exit\r")
            await shows_words(viewer, "ended")
            await state(seen, "exited")
            assert (await viewer.run("echo $((6 * 7))")).strip() == "42"
        async with viewer.attached():
            await shows_words(viewer, "stub says: say something")
    assert len(model.calls) == calls
