"""The wire form of agents, and who may read a credential back."""

import io
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog

from craftastic import logs
from craftastic.agents.setting_up import AgentSetupService
from craftastic.environments.service import EnvironmentNotFound
from craftastic.errors import InvalidInput
from tests.conftest import BACKENDS
from tests.contract.test_credentials_service import dumped
from tests.fakes.agents import PlayedCheck, PlayedSetup
from tests.fakes.people import access_token, bearer, people_of, signed_in, state_of
from tests.fakes.whole_app import whole_app, whole_settings

AGENTS = "/api/agents"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CANARY = "sk-ant-api03-canary-5b0e"
LOGIN = '{"claudeAiOauth": {"accessToken": "canary-5b0e"}}'
KEY = {"type": "anthropic_api_key", "value": CANARY}
AGENT = {"id", "user_id", "name", "type", "created_at", "updated_at", "base_url", "model"}
ERROR = {"error", "code", "requestId"}


@dataclass
class Served:
    """The app with one user, who is the client, and what a test plays."""

    client: httpx.AsyncClient
    user_id: str
    check: PlayedCheck
    setup: PlayedSetup

    async def make(self, **more: Any) -> dict[str, Any]:
        body = {"userId": self.user_id, "name": "mine", "type": "claude-code", **more}
        answer = await self.client.post(AGENTS, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()


def play(client: httpx.AsyncClient) -> tuple[PlayedCheck, PlayedSetup]:
    """Put what a test plays in the place of model APIs and sandboxes."""
    state, check, setup = state_of(client), PlayedCheck(), PlayedSetup()
    state["agents"] = replace(state["agents"], check=check)
    state["agent_setup"] = AgentSetupService(state["agents"], setup)
    return check, setup


@pytest.fixture(params=BACKENDS)
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Served]:
    async with whole_app(whole_settings(tmp_path, copy_of_template(request.param))) as (client, _):
        client.headers.update(await signed_in(client, "a@example.com"))
        me = (await client.get("/api/auth/me")).json()["data"]["user"]
        yield Served(client, me["id"], *play(client))


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Return status, sentence and code of an error in family B's form."""
    body = answer.json()
    assert set(body) <= ERROR | {"details"}, body
    assert set(body) >= ERROR, body
    return answer.status_code, body["error"], body["code"]


async def test_an_agent_is_made_listed_shown_changed_and_deleted(served: Served) -> None:
    client = served.client
    body = {"userId": served.user_id, "name": "mine", "type": "claude-code", "credential": KEY}

    made = await client.post(AGENTS, json=body)
    agent = made.json()
    path = f"{AGENTS}/{agent['id']}"
    listed = await client.get(f"{AGENTS}/user/{served.user_id}")
    shown = await client.get(path)
    changed = await client.patch(
        path, json={"name": "other", "credential": {"type": "claude_cli_json", "value": LOGIN}}
    )
    after = await client.get(path)
    deleted = await client.delete(path)
    gone = [await client.get(path), await client.patch(path, json={}), await client.delete(path)]

    assert made.status_code == 201
    assert set(agent) == AGENT
    assert (agent["user_id"], agent["name"], agent["type"]) == (
        served.user_id,
        "mine",
        "claude-code",
    )
    assert MOMENT.fullmatch(agent["created_at"])
    assert MOMENT.fullmatch(agent["updated_at"])
    assert listed.status_code == shown.status_code == changed.status_code == 200
    assert shown.json() == {**agent, "credential_type": "anthropic_api_key"}
    assert listed.json() == {"agents": [shown.json()]}
    assert set(changed.json()) == AGENT
    assert changed.json()["name"] == "other"
    assert after.json()["credential_type"] == "claude_cli_json"
    assert (deleted.status_code, deleted.json()) == (
        200,
        {"message": "Agent deleted successfully"},
    )
    assert [refusal(one) for one in gone] == [(404, "Agent not found", "AGENT_NOT_FOUND")] * 3
    for answer in (made, listed, shown, changed, after, deleted, *gone):
        assert "5b0e" not in answer.text


async def test_without_a_credential_its_type_is_null(served: Served) -> None:
    agent = await served.make()

    shown = await served.client.get(f"{AGENTS}/{agent['id']}")

    assert shown.json()["credential_type"] is None


@pytest.mark.parametrize("name", ["claude-code", "gemini-cli", "qwen-coder", "cursor-cli"])
async def test_older_clients_names_of_types_are_taken(served: Served, name: str) -> None:
    assert (await served.make(type=name))["type"] == name


async def test_address_and_model_are_set_changed_and_removed(served: Served) -> None:
    agent = await served.make(baseUrl="https://models.example/", model="opus")
    path = f"{AGENTS}/{agent['id']}"

    moved = await served.client.patch(path, json={"base_url": "https://other.example"})
    same = await served.client.patch(path, json={"name": "x"})
    none = await served.client.patch(path, json={"baseUrl": None, "model": None})

    assert (agent["base_url"], agent["model"]) == ("https://models.example", "opus")
    assert moved.json()["base_url"] == same.json()["base_url"] == "https://other.example"
    assert (none.json()["base_url"], none.json()["model"]) == (None, None)


async def test_a_new_address_needs_the_credential_again(served: Served) -> None:
    agent = await served.make(credential=KEY)

    answer = await served.client.patch(
        f"{AGENTS}/{agent['id']}", json={"baseUrl": "https://evil.example"}
    )

    assert refusal(answer)[::2] == (400, "AGENT_CREDENTIAL_NEEDED")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": ""}, "INVALID_INPUT"),
        ({"name": None}, "INVALID_INPUT"),
        ({"name": "x" * 256}, "INVALID_INPUT"),
        ({"name": " "}, "BAD_AGENT"),
        ({"name": "a\u0000"}, "INVALID_INPUT"),
        ({"userId": ""}, "INVALID_INPUT"),
        ({"type": "robot"}, "UNKNOWN_AGENT_TYPE"),
        ({"type": 1}, "INVALID_INPUT"),
        ({"baseUrl": "nowhere"}, "BAD_AGENT"),
        ({"model": "-rf"}, "BAD_AGENT"),
        ({"credential": CANARY}, "INVALID_INPUT"),
        ({"credential": {"type": "", "value": CANARY}}, "INVALID_INPUT"),
        ({"credential": {"type": "api_key", "value": ""}}, "INVALID_INPUT"),
        ({"credential": {"value": CANARY}}, "INVALID_INPUT"),
        ({"credential": {"type": "api_key", "value": [CANARY]}}, "INVALID_INPUT"),
        ({"credential": {"type": "api_key", "value": CANARY * 4000}}, "INVALID_INPUT"),
        ({"credential": {"type": "api_key", "value": f"a {CANARY}"}}, "BAD_AGENT_CREDENTIAL"),
        ({"credential": {"type": "other", "value": CANARY}}, "UNKNOWN_CREDENTIAL_TYPE"),
        ({"credential": {"type": "claude_cli_json", "value": CANARY}}, "BAD_AGENT_CREDENTIAL"),
    ],
)
async def test_a_body_that_cannot_be_is_400_and_not_repeated(
    served: Served, change: dict[str, Any], code: str
) -> None:
    body = {"userId": served.user_id, "name": "mine", "type": "claude-code", **change}

    answer = await served.client.post(AGENTS, json=body)

    assert refusal(answer)[::2] == (400, code)
    assert CANARY not in answer.text
    assert (await served.client.get(f"{AGENTS}/user/{served.user_id}")).json() == {"agents": []}


async def test_an_unknown_credential_names_the_ones_that_are_taken(served: Served) -> None:
    credential = {"type": "robot_key", "value": "x"}

    answer = await served.client.post(
        AGENTS, json={"name": "mine", "type": "codex", "credential": credential}
    )

    assert refusal(answer)[0] == 400
    assert "openai_api_key" in answer.json()["details"]


async def test_agents_of_others_are_as_absent_ones_and_their_lists_closed(served: Served) -> None:
    agent, theirs = await served.make(credential=KEY), served.user_id
    served.client.headers.update(await signed_in(served.client, "b@example.com"))

    async def answers(agent_id: str) -> list[tuple[int, str, str]]:
        path = f"{AGENTS}/{agent_id}"
        return [
            refusal(one)
            for one in (
                await served.client.get(path),
                await served.client.patch(path, json={"name": "x"}),
                await served.client.post(f"{path}/test"),
                await served.client.post(
                    f"{path}/setup/start", json={"environmentId": str(uuid4())}
                ),
                await served.client.post(f"{path}/setup/ingest", json={"token": "x"}),
                await served.client.delete(path),
            )
        ]

    foreign = await answers(agent["id"])
    assert foreign == await answers(str(uuid4())) == await answers("no-id")
    assert foreign == [(404, "Agent not found", "AGENT_NOT_FOUND")] * 6
    listed = await served.client.get(f"{AGENTS}/user/{theirs}")
    body = {"userId": theirs, "name": "x", "type": "codex"}
    made = await served.client.post(AGENTS, json=body)
    assert refusal(listed) == refusal(made)
    assert refusal(listed)[::2] == (403, "NOT_YOUR_USER_ID")


async def test_a_deleted_agents_sessions_stay_without_it(served: Served) -> None:
    agent, kept = await served.make(), await served.make()
    environment = (await served.client.post("/api/environments", json={"name": "one"})).json()
    sessions: list[dict[str, Any]] = []
    for one in (agent, kept):
        body = {"environmentId": environment["id"], "name": one["id"], "agentId": one["id"]}
        sessions.append((await served.client.post("/api/sessions", json=body)).json())
    assert [one["agentId"] for one in sessions] == [agent["id"], kept["id"]]

    await served.client.delete(f"{AGENTS}/{agent['id']}")

    shown = [(await served.client.get(f"/api/sessions/{one['id']}")).json() for one in sessions]
    assert [one["agentId"] for one in shown] == [None, kept["id"]]
    assert [one["status"] for one in shown] == ["inactive"] * 2


async def test_an_agent_session_needs_an_agent_of_its_owner(served: Served) -> None:
    agent = await served.make()
    served.client.headers.update(await signed_in(served.client, "b@example.com"))
    environment = (await served.client.post("/api/environments", json={"name": "one"})).json()
    body = {"environmentId": environment["id"], "name": "a", "sessionType": "agent"}

    for wrong in (agent["id"], str(uuid4())):
        answer = await served.client.post("/api/sessions", json={**body, "agentId": wrong})
        assert refusal(answer) == (404, "Agent not found", "AGENT_NOT_FOUND")


# ---- types ------------------------------------------------------------------------------------


async def test_the_types_tell_their_credentials_and_who_could_read_them(served: Served) -> None:
    answer = await served.client.get(f"{AGENTS}/types")

    assert answer.status_code == 200
    assert set(answer.json()) == {"types"}
    types = {one["name"]: one for one in answer.json()["types"]}
    assert len(types) == 6
    for one in types.values():
        fields = {"name", "title", "version", "installable", "missing"}
        assert set(one) == fields | {"credentials", "installed"}
        assert one["installed"] is None
        for kind in one["credentials"]:
            assert kind["entersSandbox"] == (kind["delivery"] != "gateway")
            assert ("never enters a sandbox" in kind["readableBy"]) != kind["entersSandbox"]
    assert [one["type"] for one in types["claude-code"]["credentials"]] == [
        "anthropic_api_key",
        "claude_oauth_token",
        "claude_cli_json",
    ]


async def test_administrators_alone_are_told_what_is_wrong_with_a_type(tmp_path: Path) -> None:
    settings = whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}")
    (settings.data_dir / "agent-types").mkdir(parents=True)
    (settings.data_dir / "agent-types" / "robot.toml").write_text('name = "robot"')
    async with whole_app(settings) as (client, _):
        people = await people_of(client)

        told = await client.get(f"{AGENTS}/types", headers=people.administrator.headers)
        hidden = await client.get(f"{AGENTS}/types", headers=people.owner.headers)

    problems = told.json()["problems"]
    assert {one["file"] for one in problems} == {"agent-types/robot.toml"}
    assert {"place": "command", "message": "is missing", "file": problems[0]["file"]} in problems
    assert "problems" not in hidden.json()
    assert told.json()["types"] == hidden.json()["types"]


# ---- testing ----------------------------------------------------------------------------------


async def test_a_credential_is_tested(served: Served) -> None:
    agent, empty = await served.make(credential=KEY), await served.make()
    path = f"{AGENTS}/{agent['id']}/test"

    refused = await served.client.post(path)
    served.check.good.add(CANARY)
    accepted = await served.client.post(path)
    absent = await served.client.post(f"{AGENTS}/{empty['id']}/test")

    assert refused.json() == {"ok": False, "message": "anthropic refuses the key."}
    assert accepted.json() == {"ok": True, "message": "anthropic accepts the key."}
    assert refusal(absent) == (404, "Agent credentials not found", "AGENT_CREDENTIAL_NOT_FOUND")


# ---- setting up -------------------------------------------------------------------------------


async def test_a_set_up_begins_in_a_session(served: Served) -> None:
    agent, environment = await served.make(), str(uuid4())
    path = f"{AGENTS}/{agent['id']}/setup/start"

    started = await served.client.post(path, json={"environmentId": environment})

    assert started.status_code == 200
    assert started.json() == {
        "sessionId": str(served.setup.session_id),
        "containerHome": f"/home/dev/.agents/{agent['id']}",
    }
    assert [str(part) for part in served.setup.started[0]] == [
        served.user_id,
        agent["id"],
        environment,
    ]
    for refused, wanted in [
        (EnvironmentNotFound("Environment not found"), (404, "Environment not found")),
        (
            InvalidInput("Environment not ready", details="It is stopped."),
            (400, "Environment not ready"),
        ),
    ]:
        served.setup.refusal = refused
        answer = await served.client.post(path, json={"environmentId": environment})
        assert refusal(answer)[:2] == wanted
    assert (await served.client.post(path, json={"environmentId": "x"})).status_code == 400
    assert (await served.client.post(path, json={})).status_code == 400


async def test_a_set_up_ends_with_a_token_or_a_login_file(served: Served) -> None:
    agent = await served.make()
    path = f"{AGENTS}/{agent['id']}"

    token = await served.client.post(f"{path}/setup/ingest", json={"token": "sk-ant-oat01-x"})
    by_token = (await served.client.get(path)).json()["credential_type"]
    absent = await served.client.post(f"{path}/setup/ingest")
    served.setup.files[".credentials.json"] = "{"
    broken = await served.client.post(f"{path}/setup/ingest", json={})
    served.setup.files[".credentials.json"] = LOGIN
    file = await served.client.post(f"{path}/setup/ingest", json={"token": ""})
    by_file = (await served.client.get(path)).json()["credential_type"]

    assert (token.status_code, token.json()) == (200, {"success": True, "mode": "token"})
    assert by_token == "claude_oauth_token"
    assert refusal(absent)[:2] == (400, "Credentials file not found")
    assert ".credentials.json" in absent.json()["details"]
    assert refusal(broken)[:2] == (400, "Invalid JSON in credentials file")
    assert file.json() == {"success": True, "mode": "file", "path": ".credentials.json"}
    assert by_file == "claude_cli_json"


# ---- reading a credential back ----------------------------------------------------------------

CLOSED, BY_TOKEN_ONLY, LOOKING = "CREDENTIAL_READS_OFF", "ACCESS_TOKEN_NEEDED", "READ_ONLY_TOKEN"
HIDDEN, NOBODY = "AGENT_NOT_FOUND", "UNAUTHENTICATED"
READERS = {
    "anonymous": (NOBODY, NOBODY),
    "unknown token": (NOBODY, NOBODY),
    "owner": (CLOSED, BY_TOKEN_ONLY),
    "other": (CLOSED, BY_TOKEN_ONLY),
    "administrator": (CLOSED, BY_TOKEN_ONLY),
    "read-only token": (CLOSED, LOOKING),
    "administrator's token": (CLOSED, HIDDEN),
    "token": (CLOSED, None),
}
"""Who gets which code where the operator has not allowed it, and where so; None gets it."""


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_credential_is_read_by_its_owners_programs_alone_and_only_where_allowed(
    tmp_path: Path, allowed: bool
) -> None:
    """SEC-50."""
    more = {"agent_credential_reads": True} if allowed else {}
    settings = whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}", **more)
    async with whole_app(settings) as (client, _):
        people = await people_of(client)
        body = {"name": "mine", "type": "claude-code", "credential": KEY}
        agent = (await client.post(AGENTS, json=body, headers=people.owner.headers)).json()
        found: dict[str, str | None] = {}
        for who in READERS:
            answer = await client.get(
                f"{AGENTS}/{agent['id']}/credentials", headers=people.headers[who]
            )
            found[who] = None if answer.status_code == 200 else answer.json()["code"]
            assert (CANARY in answer.text) == (answer.status_code == 200), who
            assert answer.headers["cache-control"] == "no-store", who
            if answer.status_code == 200:
                assert answer.json() == {"credential": KEY}
            elif found[who] not in {NOBODY, HIDDEN}:
                assert answer.status_code == 403, who
        trail = await state_of(client)["agents"].audit.list_all(action="agent.credential")

    assert found == {who: codes[allowed] for who, codes in READERS.items()}
    reads = [(str(one.actor_id), one.object_id, one.outcome) for one in trail]
    assert reads == ([(people.owner.id, agent["id"], "ok")] if allowed else [])


async def test_an_agent_without_a_credential_has_none_to_read(tmp_path: Path) -> None:
    settings = whole_settings(
        tmp_path, f"sqlite:///{tmp_path / 'a.db'}", agent_credential_reads=True
    )
    async with whole_app(settings) as (client, _):
        owner = await signed_in(client, "a@example.com")
        agent = (
            await client.post(AGENTS, json={"name": "a", "type": "codex"}, headers=owner)
        ).json()
        _, text = await access_token(client, owner, "program", "write")

        empty = await client.get(f"{AGENTS}/{agent['id']}/credentials", headers=bearer(text))
        absent = await client.get(f"{AGENTS}/{uuid4()}/credentials", headers=bearer(text))

    assert refusal(empty) == (404, "Agent credentials not found", "AGENT_CREDENTIAL_NOT_FOUND")
    assert refusal(absent) == (404, "Agent not found", "AGENT_NOT_FOUND")


# ---- secrecy ----------------------------------------------------------------------------------


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


async def test_a_credential_is_in_no_log_no_answer_and_not_in_the_database(
    log: io.StringIO, served: Served, request: pytest.FixtureRequest
) -> None:
    answers = [
        await served.client.post(
            AGENTS, json={"name": "a", "type": "claude-code", "credential": KEY}
        ),
        await served.client.post(
            AGENTS,
            json={
                "name": "a",
                "type": "claude-code",
                "credential": {"type": "claude_cli_json", "value": f"broken {LOGIN}"},
            },
        ),
    ]
    path = f"{AGENTS}/{answers[0].json()['id']}"
    answers += [
        await served.client.post(f"{path}/test"),
        await served.client.patch(
            path, json={"credential": {"type": "claude_cli_json", "value": LOGIN}}
        ),
        await served.client.post(f"{path}/setup/ingest", json={"token": CANARY}),
        await served.client.get(f"{path}/credentials"),
        await served.client.get(f"{AGENTS}/user/{served.user_id}"),
    ]

    assert [one.status_code for one in answers] == [201, 400, 200, 200, 200, 403, 200]
    for answer in answers:
        assert "5b0e" not in answer.text + repr(answer.headers)
    assert "/api/agents" in log.getvalue()
    assert "5b0e" not in log.getvalue()
    stolen = await dumped(state_of(served.client)["agents"].database, request)
    assert b"agent.update" in stolen
    assert b"5b0e" not in stolen
