"""What is kept of agents and their credentials, and who gets it, on both databases."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
import structlog.testing

from craftastic.accounts._repository import User
from craftastic.accounts.service import UserId
from craftastic.agents import service as agents_service
from craftastic.agents.agent_types import AgentTypes, UnknownAgentType
from craftastic.agents.service import (
    Agent,
    AgentChanges,
    AgentCredentialNeeded,
    AgentCredentialNotFound,
    AgentNotFound,
    AgentService,
    BadAgent,
    BadAgentCredential,
    NewCredential,
    OwnerGone,
    TooManyAgents,
    UnknownCredentialType,
)
from craftastic.agents.setting_up import (
    AgentSetupService,
    LoginFileBroken,
    LoginFileNotFound,
)
from craftastic.audit.service import AuditEvent
from craftastic.database import Database
from tests.contract.test_credentials_service import dumped
from tests.fakes.agents import PlayedCheck, PlayedSetup, agents_of
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import rows

CANARY = "sk-ant-api03-canary-7d1f"
LOGIN = '{"claudeAiOauth": {"accessToken": "canary-7d1f"}}'
KEY = NewCredential("anthropic_api_key", CANARY)
FILE = NewCredential("claude_cli_json", LOGIN)


@dataclass
class Desk:
    database: Database
    clock: FakeClock
    check: PlayedCheck
    agents: AgentService
    owner: UserId
    other: UserId

    async def make(
        self, credential: NewCredential | None = KEY, agent_type: str = "claude-code", **more: str
    ) -> Agent:
        given = AgentChanges(name="mine", credential=credential, **more)
        return await self.agents.create(self.owner, agent_type, given)

    async def value(self, agent: Agent) -> str | None:
        found = await self.agents.credential(self.owner, agent.id)
        return None if found is None else found.value

    async def trail(self) -> list[tuple[str, Mapping[str, object]]]:
        """Return actions and details of the audit log, the oldest first."""
        events: list[AuditEvent] = await self.agents.audit.list_all()
        return [(one.action, one.details) for one in reversed(events)]


@pytest.fixture
async def desk(database: Database, clock: FakeClock, tmp_path: Path) -> Desk:
    check = PlayedCheck()
    users = [uuid4(), uuid4()]
    async with database.begin() as tx:
        tx.add_all(
            User(
                id=one,
                email=f"{one}@example.com",
                name="a",
                created_at=clock.now(),
                updated_at=clock.now(),
            )
            for one in users
        )
    agents = agents_of(database, clock, tmp_path, check)
    return Desk(database, clock, check, agents, UserId(users[0]), UserId(users[1]))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- making, changing, deleting ---------------------------------------------------------------


async def test_an_agent_is_made_listed_changed_and_deleted(desk: Desk) -> None:
    first = await desk.make()
    desk.clock.advance(60)
    second = await desk.make(None, "codex", model="gpt-5.5")

    assert await desk.agents.list_owned(desk.owner) == [first, second]
    assert await desk.agents.get_owned(desk.owner, first.id) == first
    assert (first.credential_type, second.credential_type) == ("anthropic_api_key", None)
    assert (first.model, second.model) == (None, "gpt-5.5")
    assert await desk.value(first) == CANARY
    assert await desk.value(second) is None

    changed = await desk.agents.update(
        desk.owner, second.id, AgentChanges(name=" other ", model="")
    )

    assert changed == replace(second, name="other", model=None, updated_at=desk.clock.now())
    await desk.agents.delete(desk.owner, first.id)
    assert await desk.agents.list_owned(desk.owner) == [changed]
    assert await rows(desk.database, "SELECT id FROM secrets") == []


async def test_agents_are_their_owners_alone(desk: Desk) -> None:
    agent = await desk.make()

    assert await desk.agents.exists(desk.owner, agent.id)
    assert not await desk.agents.exists(desk.other, agent.id)
    assert not await desk.agents.exists(desk.owner, uuid4())
    assert await desk.agents.list_owned(desk.other) == []
    for wrong in (agent.id, uuid4()):
        for call in (
            desk.agents.get_owned(desk.other, wrong),
            desk.agents.update(desk.other, wrong, AgentChanges(name="x")),
            desk.agents.delete(desk.other, wrong),
            desk.agents.credential(desk.other, wrong),
            desk.agents.read_credential(desk.other, wrong),
            desk.agents.test(desk.other, wrong),
        ):
            with pytest.raises(AgentNotFound):
                await call
        taken = desk.agents.take_back(desk.other, wrong, KEY.type, sha256(CANARY), "x")
        assert not await taken
    assert await desk.agents.list_owned(desk.owner) == [agent]
    assert await desk.value(agent) == CANARY


async def test_a_user_that_is_not_there_gets_no_agent(desk: Desk) -> None:
    with pytest.raises(OwnerGone):
        await desk.agents.create(UserId(uuid4()), "codex", AgentChanges(name="x"))


async def test_agents_of_a_user_are_bounded_whoever_is_faster(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_service, "MAX_AGENTS_PER_USER", 3)
    refused: list[TooManyAgents] = []

    async def make() -> None:
        try:
            await desk.make(None)
        except TooManyAgents as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(make)

    assert len(refused) == 5
    assert len(await desk.agents.list_owned(desk.owner)) == 3


# ---- what it is made of -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 256, "a\0"])
async def test_a_name_that_cannot_be_one_is_refused(desk: Desk, name: str) -> None:
    agent = await desk.make()

    with pytest.raises(BadAgent):
        await desk.agents.create(desk.owner, "codex", AgentChanges(name=name))
    with pytest.raises(BadAgent):
        await desk.agents.update(desk.owner, agent.id, AgentChanges(name=name))


@pytest.mark.parametrize(
    "address",
    [
        "models.example",
        "ftp://models.example",
        "https://",
        "https://u:p@models.example",
        "https://models.example/?a=b",
        "https://models.example/#a",
        "https://models.example:99999",
        "https://models.example/a b",
        "https://[::1",
    ],
)
async def test_an_address_that_cannot_be_one_is_refused(desk: Desk, address: str) -> None:
    with pytest.raises(BadAgent):
        await desk.make(base_url=address)


@pytest.mark.parametrize("model", ["-x", "a b", "x" * 101, "a;b", "$(x)", "\u00e9"])
async def test_a_model_that_could_be_something_else_on_a_command_line_is_refused(
    desk: Desk, model: str
) -> None:
    with pytest.raises(BadAgent):
        await desk.make(model=model)


async def test_an_unknown_type_is_refused_with_those_that_are_known(desk: Desk) -> None:
    with pytest.raises(UnknownAgentType) as caught:
        await desk.make(None, "robot")

    assert "claude-code, codex" in str(caught.value.details)


async def test_a_credential_that_the_type_does_not_take_is_refused_with_those_it_takes(
    desk: Desk,
) -> None:
    with pytest.raises(UnknownCredentialType) as caught:
        await desk.make(NewCredential("openai_api_key", CANARY))

    assert caught.value.details == (
        "It takes anthropic_api_key, claude_oauth_token, claude_cli_json."
    )
    assert await desk.agents.list_owned(desk.owner) == []


async def test_a_kind_of_credential_may_be_called_by_its_alias(desk: Desk) -> None:
    agent = await desk.make(NewCredential("api_key", CANARY))

    assert agent.credential_type == "anthropic_api_key"
    found = await desk.agents.credential(desk.owner, agent.id)
    assert found is not None
    assert (found.kind.type, found.value) == ("anthropic_api_key", CANARY)


@pytest.mark.parametrize(
    ("credential", "stored"),
    [
        (NewCredential("api_key", f" {CANARY}\n"), CANARY),
        (NewCredential("api_key", "x" * (64 << 10)), "x" * (64 << 10)),
        (NewCredential("claude_cli_json", f" {LOGIN}\n"), f" {LOGIN}\n"),
    ],
)
async def test_a_key_is_stored_without_blanks_around_it_and_a_file_as_it_is(
    desk: Desk, credential: NewCredential, stored: str
) -> None:
    agent = await desk.make(credential)

    assert await desk.value(agent) == stored


@pytest.mark.parametrize(
    "credential",
    [
        NewCredential("api_key", ""),
        NewCredential("api_key", " \n"),
        NewCredential("api_key", f"{CANARY} {CANARY}"),
        NewCredential("api_key", f"{CANARY}\r\nX-Evil: 1"),
        NewCredential("api_key", f"{CANARY}\u00e9"),
        NewCredential("api_key", f"{CANARY}\ud800"),
        NewCredential("api_key", CANARY * 5000),
        NewCredential("claude_cli_json", ""),
        NewCredential("claude_cli_json", CANARY),
        NewCredential("claude_cli_json", f'["{CANARY}"]'),
        NewCredential("claude_cli_json", f'{{"a": "{CANARY}"'),
        NewCredential("claude_cli_json", "[" * 30_000),
        NewCredential("claude_cli_json", f'{{"a": "{CANARY * 5000}"}}'),
    ],
    ids=range(13),
)
async def test_a_text_that_cannot_be_the_credential_is_refused_and_not_repeated(
    desk: Desk, credential: NewCredential
) -> None:
    with pytest.raises(BadAgentCredential) as caught:
        await desk.make(credential)

    assert CANARY not in f"{caught.value.message} {caught.value.details}"
    assert CANARY not in repr(credential)
    assert await rows(desk.database, "SELECT id FROM secrets") == []


# ---- the credential and its address -----------------------------------------------------------


async def test_a_new_credential_takes_the_place_of_the_one_before(desk: Desk) -> None:
    agent = await desk.make()

    changed = await desk.agents.update(desk.owner, agent.id, AgentChanges(credential=FILE))

    assert changed.credential_type == "claude_cli_json"
    assert await desk.value(agent) == LOGIN
    assert len(await rows(desk.database, "SELECT id FROM secrets")) == 1


async def test_who_changes_the_address_gives_the_credential_again(desk: Desk) -> None:
    agent = await desk.make()
    elsewhere = AgentChanges(base_url="https://evil.example")

    with pytest.raises(AgentCredentialNeeded):
        await desk.agents.update(desk.owner, agent.id, elsewhere)
    assert (await desk.agents.get_owned(desk.owner, agent.id)).base_url is None

    moved = await desk.agents.update(desk.owner, agent.id, replace(elsewhere, credential=KEY))
    assert moved.base_url == "https://evil.example"
    same = AgentChanges(base_url="https://evil.example/", name="same")
    assert (await desk.agents.update(desk.owner, agent.id, same)).base_url == moved.base_url
    with pytest.raises(AgentCredentialNeeded):
        await desk.agents.update(desk.owner, agent.id, AgentChanges(base_url=""))


async def test_an_agent_without_a_credential_gets_its_address_first(desk: Desk) -> None:
    agent = await desk.make(None, "qwen-coder")

    await desk.agents.update(
        desk.owner, agent.id, AgentChanges(base_url="https://models.example/api/")
    )
    await desk.agents.update(
        desk.owner, agent.id, AgentChanges(credential=NewCredential("openai_api_key", CANARY))
    )

    found = await desk.agents.credential(desk.owner, agent.id)
    assert found is not None
    assert found.base_url == "https://models.example/api"


async def test_another_kind_of_credential_is_not_sent_to_the_address_of_the_one_before(
    desk: Desk,
) -> None:
    agent = await desk.make(
        NewCredential("openai_api_key", "old"), "qwen-coder", base_url="https://models.example"
    )
    credential = NewCredential("dashscope_api_key", CANARY)

    changed = await desk.agents.update(desk.owner, agent.id, AgentChanges(credential=credential))

    found = await desk.agents.credential(desk.owner, agent.id)
    assert changed.base_url is None
    assert found is not None
    assert found.base_url == "https://dashscope.aliyuncs.com/compatible-mode"


async def test_a_credential_in_clear_is_never_in_a_repr(desk: Desk) -> None:
    agent = await desk.make()

    assert CANARY not in repr(await desk.agents.credential(desk.owner, agent.id))
    assert CANARY not in repr(AgentChanges(credential=KEY))


# ---- reading and taking back ------------------------------------------------------------------


async def test_reading_a_credential_back_is_on_record_each_time(desk: Desk) -> None:
    """SEC-50."""
    agent, empty = await desk.make(), await desk.make(None)

    assert (await desk.agents.read_credential(desk.owner, agent.id)).value == CANARY
    assert (await desk.agents.read_credential(desk.owner, agent.id)).value == CANARY
    with pytest.raises(AgentCredentialNotFound):
        await desk.agents.read_credential(desk.owner, empty.id)

    trail = [action for action, _ in await desk.trail()]
    assert trail == ["agent.create"] * 2 + ["agent.credential.read"] * 2


async def test_a_login_file_that_its_agent_renewed_is_stored_unless_it_was_replaced(
    desk: Desk,
) -> None:
    agent = await desk.make(FILE)
    renewed = LOGIN.replace("7d1f", "8e2a")

    async def take(was: str, value: str, kind: str = FILE.type) -> bool:
        return await desk.agents.take_back(desk.owner, agent.id, kind, sha256(was), value)

    assert not await take("another", renewed)
    assert not await take(LOGIN, renewed, "anthropic_api_key")
    assert await take(LOGIN, LOGIN)
    assert await desk.value(agent) == LOGIN
    assert await take(LOGIN, renewed)
    assert await desk.value(agent) == renewed
    assert not await take(LOGIN, LOGIN.replace("7d1f", "late"))
    assert await desk.value(agent) == renewed
    trail = [action for action, _ in await desk.trail()]
    assert trail == ["agent.create", "agent.credential.refresh"]


async def test_of_many_that_renew_one_login_file_at_once_one_wins(desk: Desk) -> None:
    agent = await desk.make(FILE)
    won: list[str] = []

    async def take(number: int) -> None:
        value = json.dumps({"number": number})
        if await desk.agents.take_back(desk.owner, agent.id, FILE.type, sha256(LOGIN), value):
            won.append(value)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(take, number)

    assert len(won) == 1
    assert await desk.value(agent) == won[0]


@pytest.mark.parametrize(
    ("was", "value"),
    [
        (sha256(LOGIN), "no json"),
        (sha256(LOGIN), ""),
        (sha256(LOGIN), '{"a": "' + "x" * (64 << 10) + '"}'),
        (sha256(LOGIN), '{"a": "\ud800"}'),
        ("\ud800", "{}"),
        ("", "{}"),
    ],
)
async def test_nonsense_from_a_sandbox_is_not_taken(desk: Desk, was: str, value: str) -> None:
    agent = await desk.make(FILE)

    assert not await desk.agents.take_back(desk.owner, agent.id, FILE.type, was, value)
    assert await desk.value(agent) == LOGIN


async def test_a_key_is_never_taken_back(desk: Desk) -> None:
    agent = await desk.make()

    taken = desk.agents.take_back(desk.owner, agent.id, KEY.type, sha256(CANARY), "other")
    assert not await taken
    assert await desk.value(agent) == CANARY


# ---- testing ----------------------------------------------------------------------------------


async def test_a_key_is_tested_at_its_model_api(desk: Desk) -> None:
    agent = await desk.make(base_url="https://models.example/")
    refused = await desk.agents.test(desk.owner, agent.id)
    desk.check.good.add(CANARY)

    accepted = await desk.agents.test(desk.owner, agent.id)

    assert (refused.ok, accepted.ok) == (False, True)
    assert desk.check.asked == [("anthropic", "x-api-key", "https://models.example", CANARY)] * 2


async def test_what_only_the_agent_can_find_out_is_said_so(desk: Desk) -> None:
    file = await desk.make(FILE)
    env = await desk.make(NewCredential("api_key", CANARY), "cursor-cli")
    none = await desk.make(None)

    for agent in (file, env):
        assert (await desk.agents.test(desk.owner, agent.id)).ok is None
    with pytest.raises(AgentCredentialNotFound):
        await desk.agents.test(desk.owner, none.id)
    assert desk.check.asked == []


async def test_an_agent_whose_type_is_gone_is_still_there_to_be_deleted(desk: Desk) -> None:
    agent = await desk.make()
    without = replace(desk.agents, types=AgentTypes({}))

    assert await without.list_owned(desk.owner) == [agent]
    assert (await without.update(desk.owner, agent.id, AgentChanges(name="x"))).name == "x"
    with pytest.raises(UnknownAgentType):
        await without.credential(desk.owner, agent.id)
    await without.delete(desk.owner, agent.id)


# ---- setting up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent_type", "token", "kind", "stored"),
    [
        ("claude-code", "sk-ant-oat01-x", "claude_oauth_token", "sk-ant-oat01-x"),
        ("claude-code", "any-other", "claude_oauth_token", "any-other"),
        ("claude-code", CANARY, "anthropic_api_key", CANARY),
        ("claude-code", "CLAUDE_CODE_OAUTH_TOKEN=abc\n", "claude_oauth_token", "abc"),
        ("codex", "sk-proj-x", "openai_api_key", "sk-proj-x"),
        ("gemini-cli", "AIza-x", "gemini_api_key", "AIza-x"),
        ("cursor-cli", "key-x", "cursor_api_key", "key-x"),
    ],
)
async def test_a_token_of_a_set_up_becomes_the_kind_that_it_tells(
    desk: Desk, agent_type: str, token: str, kind: str, stored: str
) -> None:
    agent = await desk.make(None, agent_type)
    setup = AgentSetupService(desk.agents, PlayedSetup())

    done = await setup.ingest(desk.owner, agent.id, token)

    assert (done.path, done.agent.credential_type) == (None, kind)
    assert await desk.value(agent) == stored


async def test_the_login_file_of_a_set_up_is_looked_for_and_stored(desk: Desk) -> None:
    agent = await desk.make(None)
    played = PlayedSetup()
    setup = AgentSetupService(desk.agents, played)

    with pytest.raises(LoginFileNotFound) as absent:
        await setup.ingest(desk.owner, agent.id, None)
    played.files[".credentials.json"] = "{broken"
    with pytest.raises(LoginFileBroken):
        await setup.ingest(desk.owner, agent.id, None)
    played.files[".credentials.json"] = LOGIN
    done = await setup.ingest(desk.owner, agent.id, None)

    assert str(absent.value.details) == "Looked in the set-up's home for .credentials.json."
    assert set(played.looked_for) == {".credentials.json"}
    assert (done.path, done.agent.credential_type) == (".credentials.json", "claude_cli_json")
    assert await desk.value(agent) == LOGIN


async def test_a_type_without_a_login_file_asks_for_a_token(desk: Desk) -> None:
    agent = await desk.make(None, "cursor-cli")
    played = PlayedSetup()

    with pytest.raises(LoginFileNotFound) as caught:
        await AgentSetupService(desk.agents, played).ingest(desk.owner, agent.id, None)

    assert "give a token" in str(caught.value.details)
    assert played.looked_for == []


async def test_a_set_up_is_its_owners_alone(desk: Desk) -> None:
    agent = await desk.make(None)
    played = PlayedSetup(files={".credentials.json": LOGIN})
    setup = AgentSetupService(desk.agents, played)

    for token in (None, "sk-ant-oat01-x"):
        with pytest.raises(AgentNotFound):
            await setup.ingest(desk.other, agent.id, token)
    with pytest.raises(AgentNotFound):
        await setup.start(desk.other, agent.id, uuid4())
    assert (played.started, played.looked_for) == ([], [])


# ---- secrecy ----------------------------------------------------------------------------------


async def test_each_change_is_on_record_without_the_credential_which_is_nowhere_in_clear(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    with structlog.testing.capture_logs() as logged:
        agent = await desk.make()
        await desk.agents.update(desk.owner, agent.id, AgentChanges(name="x", credential=FILE))
        await desk.agents.take_back(
            desk.owner, agent.id, FILE.type, sha256(LOGIN), LOGIN.replace("access", "refresh")
        )
        await desk.agents.read_credential(desk.owner, agent.id)
        await desk.agents.test(desk.owner, agent.id)
        stolen = await dumped(desk.database, request)
        await desk.agents.delete(desk.owner, agent.id)

    trail = await desk.trail()
    assert [action for action, _ in trail] == [
        "agent.create",
        "agent.update",
        "agent.credential.refresh",
        "agent.credential.read",
        "agent.delete",
    ]
    assert trail[0][1] == {
        "name": "mine",
        "type": "claude-code",
        "kind": "anthropic_api_key",
        "base_url": None,
        "stored": "anthropic_api_key",
    }
    assert (trail[1][1]["kind"], trail[1][1]["stored"]) == ("claude_cli_json", "claude_cli_json")
    assert str(agent.id).replace("-", "").encode() in stolen.replace(b"-", b"")
    assert b"7d1f" not in stolen
    assert "7d1f" not in repr(logged)
    assert "7d1f" not in repr(trail)
