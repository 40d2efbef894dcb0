"""The routes of agent runs, over the whole app and both databases."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from craftastic.accounts.service import UserId
from craftastic.agent_runs.service import AgentRunService, GatewayRun, RunEvent, Start, Usage
from tests.conftest import BACKENDS
from tests.fakes.agent_rig import AgentRuntime
from tests.fakes.people import signed_in, state_of
from tests.fakes.whole_app import whole_app, whole_settings
from tests.fakes.workshop import until


@dataclass
class Desk:
    """A signed-in user with an agent that runs, and the same of nobody else's."""

    client: httpx.AsyncClient
    runtime: AgentRuntime
    runs: AgentRunService
    run: GatewayRun
    start: Start
    other: dict[str, str]
    seq: int = 0

    @property
    def path(self) -> str:
        return f"/api/sessions/{self.run.session_id}"

    def report(self, name: str, **payload: object) -> RunEvent:
        self.seq += 1
        return RunEvent(self.start.nonce, self.seq, name, payload, 1.0)

    async def says(self, name: str, **payload: object) -> None:
        await self.runs.event(self.run, self.report(name, **payload))

    async def asks(self, command: str = "ls") -> str:
        given = {"tool_name": "Bash", "tool_input": {"command": command}}
        asked = await self.runs.ask(self.run, self.report("PermissionRequest", **given))
        return str(asked.approval_id)

    async def shown(self) -> dict[str, Any]:
        return (await self.client.get(self.path)).json()


@pytest.fixture(params=BACKENDS)
async def desk(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Desk]:
    runtime = AgentRuntime()
    settings = whole_settings(tmp_path, copy_of_template(request.param))
    async with whole_app(settings, runtime) as (client, _):
        other = await signed_in(client, "b@example.com")
        client.headers.update(await signed_in(client, "a@example.com"))
        yield await desk_of(client, runtime, other)


async def desk_of(client: httpx.AsyncClient, runtime: AgentRuntime, other: dict[str, str]) -> Desk:
    environment = (await client.post("/api/environments", json={"name": "one"})).json()
    body = {"environmentId": environment["id"], "name": "work"}
    made = (await client.post("/api/sessions", json=body)).json()
    given = {
        "name": "a",
        "type": "claude-code",
        "credential": {"type": "anthropic_api_key", "value": "sk-ant-api-canary-1f3b"},
    }
    agent = (await client.post("/api/agents", json=given)).json()
    state = state_of(client)
    owner = UserId(UUID((await client.get("/api/auth/me")).json()["data"]["user"]["id"]))
    found = await state["agents"].get_owned(owner, UUID(agent["id"]))
    kind = state["agents"].types.get("claude-code").kind("anthropic_api_key")
    session = await state["sessions"].get(owner, UUID(made["id"]))
    start = await state["agent_runs"].begin(owner, session, found, kind)
    run = await state["agent_runs"].by_token(session.id, start.token)
    assert run is not None
    return Desk(client, runtime, state["agent_runs"], run, start, other)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_what_waits_is_listed_for_its_owner_alone(desk: Desk) -> None:
    assert (await desk.client.get("/api/approvals")).json() == {"approvals": []}
    approval = await desk.asks("rm -rf build")

    [one] = (await desk.client.get("/api/approvals")).json()["approvals"]

    assert set(one) == {
        "id", "sessionId", "sessionName", "environmentId", "agentId", "kind", "tool", "input",
        "createdAt",
    }  # fmt: skip
    assert (one["id"], one["sessionName"], one["kind"]) == (approval, "work", "permission")
    theirs = await desk.client.get("/api/approvals", headers=desk.other)
    assert theirs.json() == {"approvals": []}


async def test_an_answer_counts_once_and_the_second_hears_who_was_first(desk: Desk) -> None:
    path = f"/api/approvals/{await desk.asks()}"

    first = await desk.client.post(path, json={"decision": "deny", "message": "no"})
    second = await desk.client.post(path, json={"decision": "allow"})

    assert (first.status_code, first.json()["status"]) == (200, "denied")
    assert code_of(second) == (409, "APPROVAL_ANSWERED")
    assert (second.json()["answeredBy"], second.json()["status"]) == ("user", "denied")


async def test_an_answer_in_the_terminal_is_told_as_such(desk: Desk) -> None:
    path = f"/api/approvals/{await desk.asks()}"
    await desk.says("PostToolUse", tool_name="Bash")

    answer = await desk.client.post(path, json={"decision": "allow"})

    assert code_of(answer) == (409, "APPROVAL_ANSWERED")
    assert answer.json()["answeredBy"] == "terminal"


async def test_a_request_of_somebody_else_answers_like_one_that_is_not_there(desk: Desk) -> None:
    approval = await desk.asks()
    answers = [
        await desk.client.post(
            f"/api/approvals/{id_}", json={"decision": "allow"}, headers=desk.other
        )
        for id_ in (approval, uuid4())
    ]

    assert [code_of(one) for one in answers] == [(404, "APPROVAL_NOT_FOUND")] * 2
    assert len((await desk.client.get("/api/approvals")).json()["approvals"]) == 1


@pytest.mark.parametrize(
    "body", [{}, {"decision": "maybe"}, {"decision": "deny", "message": "x" * 2001}]
)
async def test_a_decision_that_is_none_is_refused(desk: Desk, body: dict[str, str]) -> None:
    path = f"/api/approvals/{await desk.asks()}"

    assert (await desk.client.post(path, json=body)).status_code == 400
    assert len((await desk.client.get("/api/approvals")).json()["approvals"]) == 1


async def test_the_session_shows_what_its_agent_does_in_both_places(desk: Desk) -> None:
    await desk.says("Stop", last_assistant_message="done it")
    session = await desk.shown()
    [environment] = (await desk.client.get(f"/api/environments/user/{desk.run.owner_id}")).json()[
        "environments"
    ]

    for shown in (session, environment["sessions"][0]):
        assert (shown["agentState"], shown["agentMessage"]) == ("done", "done it")
        assert shown["agentStateSince"].endswith("Z")
        assert "agentWaitsFor" not in shown


async def test_a_terminal_shows_nothing_of_an_agent(desk: Desk) -> None:
    body = {"environmentId": (await desk.shown())["environmentId"], "name": "plain"}
    made = (await desk.client.post("/api/sessions", json=body)).json()

    assert not {one for one in made if one.startswith("agent")} - {"agentId"}
    answer = await desk.client.get(f"/api/sessions/{made['id']}/agent")
    assert code_of(answer) == (404, "AGENT_RUN_NOT_FOUND")
    answer = await desk.client.post(f"/api/sessions/{made['id']}/prompt", json={"text": "a"})
    assert code_of(answer) == (409, "SESSION_HAS_NO_AGENT")


async def test_a_prompt_gets_a_receipt_and_is_typed_when_the_agent_is_idle(desk: Desk) -> None:
    sent = await desk.client.post(f"{desk.path}/prompt", json={"text": "do it"})
    assert (sent.status_code, sent.json()["status"]) == (202, "queued")
    assert sent.json()["reason"] == "The agent is starting."
    await desk.says("SessionStart")

    async def delivered() -> bool:
        listed = (await desk.client.get(f"{desk.path}/prompts")).json()["prompts"]
        return [one["status"] for one in listed] == ["delivered"]

    await until(delivered)
    assert [text for _, text in desk.runtime.typed] == ["do it"]
    answer = await desk.client.delete(f"{desk.path}/prompts/{sent.json()['id']}")
    assert code_of(answer) == (409, "PROMPT_DELIVERED")


async def test_a_prompt_that_waits_is_taken_back(desk: Desk) -> None:
    sent = (await desk.client.post(f"{desk.path}/prompt", json={"text": "do it"})).json()
    one = f"{desk.path}/prompts/{sent['id']}"

    assert (await desk.client.delete(one, headers=desk.other)).status_code == 404
    assert (await desk.client.delete(one)).json() == {"success": True}
    assert code_of(await desk.client.delete(one)) == (404, "PROMPT_NOT_FOUND")
    assert (await desk.client.get(f"{desk.path}/prompts")).json() == {"prompts": []}


@pytest.mark.parametrize("text", ["", " \n", "\x1b\x03", "x" * 100_001])
async def test_a_prompt_that_cannot_be_typed_is_refused(desk: Desk, text: str) -> None:
    answer = await desk.client.post(f"{desk.path}/prompt", json={"text": text})

    assert answer.status_code == 400


async def test_a_prompt_that_is_sent_again_with_its_key_is_queued_once(desk: Desk) -> None:
    for _ in range(2):
        answer = await desk.client.post(
            f"{desk.path}/prompt", json={"text": "once"}, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code == 202

    assert len((await desk.client.get(f"{desk.path}/prompts")).json()["prompts"]) == 1


async def test_interrupting_says_whether_it_did(desk: Desk) -> None:
    await desk.says("SessionStart")
    idle = await desk.client.post(f"{desk.path}/interrupt")
    await desk.says("UserPromptSubmit")
    done = await desk.client.post(f"{desk.path}/interrupt")

    assert idle.json() == {"interrupted": False, "reason": "The agent is idle."}
    assert done.json() == {"interrupted": True}
    assert (await desk.shown())["agentState"] == "unknown"


async def test_the_agents_page_says_what_it_used_and_who_could_read_its_credential(
    desk: Desk,
) -> None:
    await desk.says("SessionStart", session_id="c-1")
    await desk.runs.used(desk.run, Usage(2, 300, 40))

    shown = (await desk.client.get(f"{desk.path}/agent")).json()

    assert shown["usage"] == {"requests": 2, "inputTokens": 300, "outputTokens": 40}
    assert (shown["type"], shown["title"], shown["conversation"]) == (
        "claude-code",
        "Claude Code",
        "c-1",
    )
    assert shown["credential"] == {
        "type": "anthropic_api_key",
        "delivery": "gateway",
        "entersSandbox": False,
        "readableBy": "Nothing in the sandbox: the gateway adds it to what the agent sends.",
    }
    assert (shown["limitTokens"], shown["allowedTokens"]) == (None, None)


async def test_a_limit_is_set_changed_and_taken_away(desk: Desk) -> None:
    await desk.runs.used(desk.run, Usage(1, 60, 40))
    path = f"{desk.path}/agent"

    changed = await desk.client.patch(path, json={"limitTokens": 500})
    assert (changed.json()["limitTokens"], changed.json()["allowedTokens"]) == (500, 600)
    assert (await desk.client.patch(path, json={"limitTokens": None})).json()["limitTokens"] is None
    for body in ({}, {"limitTokens": 0}, {"limitTokens": 10**13}, {"limitTokens": "x"}):
        assert (await desk.client.patch(path, json=body)).status_code == 400


async def test_the_key_of_the_agent_is_in_no_answer(desk: Desk) -> None:
    await desk.asks("ls")
    for path in ("/agent", "/prompts", ""):
        assert "canary-1f3b" not in (await desk.client.get(f"{desk.path}{path}")).text
    assert "canary-1f3b" not in (await desk.client.get("/api/approvals")).text
