"""`craftastic agent …` against the whole app."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
import uvicorn

from craftastic.agents.agent_types import BUILT_IN
from craftastic.app import build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.test_cli_commands import Asked, Cli, Ended
from tests.fakes.agents import PlayedCheck
from tests.fakes.people import PASSWORD
from tests.fakes.whole_app import whole_settings

START_S = 20.0
CANARY = "sk-ant-api03-canary-1c7b"
LOGIN = '{"claudeAiOauth": {"accessToken": "canary-1c7b"}}\n'

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The command line sees no database: one is enough, and each call is a program to start."""


@dataclass
class Person:
    """Somebody with a command line, and the model APIs of the server."""

    cli: Cli
    check: PlayedCheck
    state: dict[str, Any]

    async def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        return await self.cli("agent", *arguments, stdin=stdin)


async def in_memory(settings: Settings, instance: str) -> Runtimes:
    def make(_settings: Settings, _instance: str) -> Runtime:
        return MemoryRuntime()

    return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})


@pytest.fixture
async def person(tmp_path: Path, database_url: str) -> AsyncIterator[Person]:
    app, port = build_app(whole_settings(tmp_path, database_url), in_memory), free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, ws="none")
    )
    cli = Cli(tmp_path / "person", f"http://127.0.0.1:{port}")
    cli.home.mkdir()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        try:
            with anyio.fail_after(START_S):
                while not server.started:  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.01)
            state, check = server.lifespan.state, PlayedCheck()
            state["agents"] = replace(state["agents"], check=check)
            account = ("--register", "--email", "ada@example.com", "--password-stdin")
            done = await cli("login", *account, stdin=PASSWORD)
            assert done.code == 0, done.err
            yield Person(cli, check, state)
        finally:
            server.should_exit = True


async def stored(person: Person, agent_id: str) -> str | None:
    """Return an agent's credential as the server has it."""
    me = json.loads((await person.cli("whoami", "--json")).out)["user"]["id"]
    found = await person.state["agents"].credential(UUID(me), UUID(agent_id))
    return None if found is None else found.value


async def test_agents_are_made_listed_tested_and_deleted(person: Person) -> None:
    made = await person(
        "add", "mine", "--type", "claude-code", "--credential-stdin", "--model", "opus", "--json",
        stdin=f"{CANARY}\n",
    )  # fmt: skip
    assert made.code == 0, made.err
    agent = made.json
    assert (agent["name"], agent["model"]) == ("mine", "opus")
    assert await stored(person, agent["id"]) == CANARY

    listed = await person("ls")
    columns = [agent["id"][:8], "mine", "claude-code", "anthropic_api_key", "opus"]
    assert [line.split() for line in listed.out.splitlines()[1:]] == [columns]
    assert (await person("ls", "-q")).out.strip() == agent["id"]
    assert (await person("ls", "--json")).json[0]["credential_type"] == "anthropic_api_key"

    refused = await person("test", "mine")
    person.check.good.add(CANARY)
    accepted = await person("test", agent["id"][:8])
    assert (refused.code, refused.out) == (1, "")
    assert "refuses the key" in refused.err
    assert (accepted.code, accepted.out) == (0, "anthropic accepts the key.\n")
    assert (await person("test", "mine", "--json")).json["ok"] is True

    unsure = await person("rm", "mine")
    assert (unsure.code, "--yes" in unsure.err) == (2, True)
    deleted = await person("rm", "--yes", "mine")
    assert (deleted.code, deleted.out) == (0, "Deleted mine.\n")
    assert (await person("ls", "--json")).json == []
    assert (await person("rm", "--yes", "mine")).code == 4
    for done in (made, listed, refused, accepted, deleted):
        assert CANARY not in done.out + done.err


async def test_a_login_file_is_taken_as_it_is(person: Person, tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    path.write_text(LOGIN)

    made = await person(
        "add", "mine", "--type", "claude-code", "--credential", "claude_cli_json",
        "--credential-file", str(path), "--json",
    )  # fmt: skip

    assert made.code == 0, made.err
    assert await stored(person, made.json["id"]) == LOGIN


async def test_a_person_is_asked_for_the_credential_which_is_not_shown(person: Person) -> None:
    asked = Asked(person.cli, "agent", "add", "mine", "--type", "claude-code")
    await asked.answer(b"API key: ", CANARY)

    assert await asked.ended() == 0, asked.shown
    assert b"Made the agent mine" in asked.shown
    assert CANARY.encode() not in asked.shown
    agent = (await person("ls", "--json")).json[0]
    assert await stored(person, agent["id"]) == CANARY


async def test_an_agent_may_have_no_credential_yet(person: Person) -> None:
    made = await person("add", "mine", "--type", "codex", "--no-credential")
    tested = await person("test", "mine")

    assert made.code == 0, made.err
    assert (tested.code, "credentials not found" in tested.err) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("--type", "robot", "--credential-stdin"), CANARY, "claude-code, codex"),
        (("--type", "robot", "--no-credential"), "", "claude-code, codex"),
        (("--type", "codex", "--credential", "x", "--credential-stdin"), CANARY, "openai_api_key"),
        (("--type", "codex"), "", "--credential-stdin"),
        (("--type", "codex", "--credential", "codex_auth_json"), "", "--credential-file"),
        (("--type", "codex", "--credential-stdin"), "", "empty"),
        (("--type", "codex", "--credential-stdin"), "x" * 70_000, "64 KiB"),
        (("--type", "codex", "--credential-stdin"), f"{CANARY} {CANARY}", "printable"),
        (("--type", "codex", "--credential-file", "/nonexistent"), "", "cannot be read"),
        (("--type", "codex", "--credential-stdin", "--no-credential"), "", "one way"),
        (("--type", "codex", "--no-credential", "--base-url", "x"), "", "baseUrl"),
    ],
    ids=range(11),
)
async def test_what_cannot_be_made_is_refused_with_a_way_on(
    person: Person, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    done = await person("add", "mine", *arguments, stdin=stdin)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert CANARY not in done.err


async def test_types_are_listed_with_their_credentials(person: Person) -> None:
    table = await person("types")
    names = (await person("types", "-q")).out.split()
    listed = (await person("types", "--json")).json

    assert names == ["claude-code", "codex", "cursor-cli", "gemini-cli", "opencode", "qwen-coder"]
    assert [one["name"] for one in listed["types"]] == names
    rows = [line.split() for line in table.out.splitlines()]
    assert rows[0] == ["type", "title", "credential", "in", "the", "sandbox"]
    assert ["claude-code", "Claude", "Code", "anthropic_api_key", "no"] in rows
    assert ["claude-code", "Claude", "Code", "claude_cli_json", "yes"] in rows
    assert ["cursor-cli", "Cursor", "CLI", "cursor_api_key", "yes"] in rows


async def test_descriptions_of_types_are_checked_without_a_server(
    tmp_path: Path, database_url: str
) -> None:
    cli = Cli(tmp_path, None)
    bad = tmp_path / "bad.toml"
    text = (BUILT_IN / "codex.toml").read_text()
    bad.write_text(text.replace('command = "codex"', 'command = "/bin/codex"\ncolour = 1'))
    good = str(BUILT_IN / "codex.toml")

    fine = await cli("agent", "validate", good)
    wrong = await cli("agent", "validate", str(bad), good, "/nonexistent")
    told = await cli("agent", "validate", str(bad), good, "--json")

    assert (fine.code, fine.err) == (0, "")
    assert fine.out == f"{good}: describes the agent type codex\n"
    assert wrong.code == told.code == 2
    assert wrong.out == fine.out
    lines = wrong.err.splitlines()
    assert f"{bad}: colour: is not known here" in lines
    assert f"{bad}: command: has another form than it must have" in lines
    assert "/nonexistent: cannot be read: No such file or directory" in lines
    assert {one["place"] for one in told.json[0]["problems"]} == {"colour", "command"}
    assert told.json[1] == {"file": good, "name": "codex", "problems": []}
