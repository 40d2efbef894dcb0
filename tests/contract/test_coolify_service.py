"""Whose connection to a Coolify is used, and what is kept of it, on both databases."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy
from anyio.abc import SocketAttribute, SocketStream

from craftastic.coolify.errors import (
    BadCoolifyUrl,
    CoolifyAddressRefused,
    CoolifyApiOff,
    CoolifyBusy,
    CoolifyTokenRejected,
    CoolifyUnavailable,
)
from craftastic.coolify.service import (
    BadCoolifyToken,
    Connected,
    CoolifyService,
    DeploymentNotConfigured,
    HookOwner,
    same_repository,
)
from craftastic.credentials.service import CredentialService, SecretUnreadable
from craftastic.database import Database, Transaction
from craftastic.errors import CraftasticError, InvalidInput
from tests.contract.conftest import until
from tests.fakes.clock import FakeClock
from tests.fakes.coolify_rig import CoolifyRig, coolify_rig
from tests.fakes.toy_coolify import Role, ToyCoolify
from tests.secrecy import canary


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[CoolifyRig]:
    async with coolify_rig(database, clock, tmp_path) as rig:
        yield rig


@pytest.fixture
async def coolify(rig: CoolifyRig) -> CoolifyService:
    return await rig.server()


async def sent_token(connected: Connected, toy: ToyCoolify) -> str:
    """Ask a Coolify through a connection, and return the token that came there."""
    await connected.api.version()
    return toy.calls[-1].headers["authorization"].removeprefix("Bearer ")


async def test_connection_is_stored_after_coolify_was_asked_and_used_for_its_owner_alone(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    token = rig.toy.token()

    status = await coolify.put(rig.alice, f"{rig.toy.url}/", token)

    assert (status.configured, status.source, status.url) == (True, "user", rig.toy.url)
    assert status.version == rig.toy.version
    assert status.abilities is not None
    assert (status.abilities.read, status.abilities.deploy) == (True, True)
    assert (status.missing, status.problem, status.advice) == ((), None, None)
    assert (status.checked_at, status.server_configured) == (rig.clock.now(), False)
    assert await coolify.status(rig.alice) == status
    connected = await coolify.connected(rig.alice)
    assert (connected.source, connected.key) == ("user", str(connected.connection_id))
    assert await sent_token(connected, rig.toy) == token
    assert (await coolify.status(rig.bob)).configured is False
    with pytest.raises(DeploymentNotConfigured):
        await coolify.connected(rig.bob)
    assert await coolify.connected_as(rig.bob, "user", connected.connection_id) is None


async def test_own_connection_goes_before_the_servers_and_the_servers_after_it(
    rig: CoolifyRig,
) -> None:
    operators, own = await rig.another(), rig.toy
    operators_token, own_token = operators.token(), own.token()
    coolify = await rig.server(toy=operators, token=operators_token)

    before = await coolify.connected(rig.alice)
    await coolify.put(rig.alice, own.url, own_token)
    with_own = await coolify.connected(rig.alice)
    bobs = await coolify.connected(rig.bob)
    status = await coolify.status(rig.alice)
    still_servers = await coolify.connected_as(rig.alice, "server", None)
    await coolify.remove(rig.alice)
    after = await coolify.connected(rig.alice)

    assert (before.key, before.source, before.connection_id) == ("server", "server", None)
    assert await sent_token(before, operators) == operators_token
    assert await sent_token(with_own, own) == own_token
    assert bobs.source == after.source == "server"
    assert (status.source, status.server_configured) == ("user", True)
    assert still_servers is not None
    assert await sent_token(still_servers, operators) == operators_token


async def test_without_any_connection_the_answer_says_what_to_do(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    for asking in (coolify.connected, coolify.applications, coolify.check):
        with pytest.raises(DeploymentNotConfigured) as refused:
            await asking(rig.alice)
        assert refused.value.message == "Deployment not configured"
        assert "COOLIFY_API_URL" in (refused.value.details or "")

    status = await coolify.status(rig.alice)
    assert (status.configured, status.source, status.url) == (False, None, None)
    assert await coolify.connected_as(rig.alice, "server", None) is None
    assert await coolify.connected_as(rig.alice, "user", uuid4()) is None


async def test_address_of_the_operators_that_cannot_be_used_counts_as_none(
    rig: CoolifyRig,
) -> None:
    coolify = await rig.server(
        token=rig.toy.token(), COOLIFY_API_URL="https://coolify..example.com"
    )

    with pytest.raises(DeploymentNotConfigured):
        await coolify.connected(rig.alice)

    assert (await coolify.status(rig.alice)).server_configured is False


async def test_same_address_stays_the_same_connection_with_another_token(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    first, second = rig.toy.token(), rig.toy.token()
    await coolify.put(rig.alice, rig.toy.url, first)
    before = await coolify.connected(rig.alice)

    await coolify.put(rig.alice, f"{rig.toy.url}/api/v1/", second)

    after = await coolify.connected_as(rig.alice, "user", before.connection_id)
    assert after is not None
    assert after.connection_id == before.connection_id
    assert await sent_token(after, rig.toy) == second
    assert await rig.count("coolify_connections") == 1
    assert await rig.count("secrets") == 1


async def test_another_address_is_another_connection_and_the_old_one_is_gone(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    other = await rig.another()
    coolify = await rig.server()
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    before = await coolify.connected(rig.alice)
    token = other.token()

    status = await coolify.put(rig.alice, other.url, token)

    after = await coolify.connected(rig.alice)
    assert status.url == other.url
    assert after.connection_id != before.connection_id
    assert await coolify.connected_as(rig.alice, "user", before.connection_id) is None
    assert await sent_token(after, other) == token
    assert await rig.count("coolify_connections") == 1
    assert await rig.count("secrets") == 1


async def test_connections_put_at_once_leave_one_and_no_secret_besides_its_own(
    rig: CoolifyRig,
) -> None:
    toys = [rig.toy, await rig.another()]
    servers = [await rig.server(), await rig.server()]
    tokens = [[toy.token() for _ in range(4)] for toy in toys]

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            for toy, of_toy in zip(toys, tokens, strict=True):
                server = servers[number % 2]
                tasks.start_soon(server.put, rig.alice, toy.url, of_toy[number])

    rows = await rig.rows("coolify_connections")
    assert len(rows) == 1
    assert [row["id"] for row in await rig.rows("secrets")] == [rows[0]["secret_id"]]
    connected = await servers[0].connected(rig.alice)
    await connected.api.version()


async def test_removal_that_comes_with_a_new_connection_leaves_all_or_nothing(
    rig: CoolifyRig,
) -> None:
    toys = [rig.toy, await rig.another()]
    servers = [await rig.server(), await rig.server()]

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            toy = toys[number % 2]
            tasks.start_soon(servers[0].put, rig.alice, toy.url, toy.token())
            tasks.start_soon(servers[1].remove, rig.alice)

    kept = {row["secret_id"] for row in await rig.rows("coolify_connections")}
    assert {row["id"] for row in await rig.rows("secrets")} == kept
    await servers[0].remove(rig.alice)
    assert await rig.count("secrets") == await rig.count("coolify_connections") == 0


async def test_removed_connection_takes_its_token_along_and_leaves_others_alone(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    await coolify.put(rig.bob, rig.toy.url, rig.toy.token())
    mine = await coolify.connected(rig.alice)
    await coolify.pause(mine.key, 60)

    await coolify.remove(rig.alice)
    await coolify.remove(rig.alice)

    assert (await coolify.status(rig.alice)).configured is False
    assert await coolify.connected_as(rig.alice, "user", mine.connection_id) is None
    assert (await coolify.connected(rig.bob)).source == "user"
    assert await rig.count("secrets") == await rig.count("coolify_connections") == 1
    assert await rig.count("coolify_pauses") == 0
    assert await rig.actions() == ["coolify.connect", "coolify.connect", "coolify.disconnect"]


async def test_token_stands_nowhere_in_clear(rig: CoolifyRig, coolify: CoolifyService) -> None:
    token = rig.toy.token()
    status = await coolify.put(rig.alice, rig.toy.url, token)
    checked = await coolify.check(rig.alice)
    connected = await coolify.connected(rig.alice)

    stored = await rig.everything_stored()

    assert token.partition("|")[2] not in stored
    for shown in (status, checked, connected, coolify, coolify.http):
        assert token.partition("|")[2] not in repr(shown)


async def test_token_of_one_address_cannot_be_read_for_another(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    other = await rig.another()
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())

    async with rig.database.begin() as tx:
        await tx.execute(
            sqlalchemy.text("UPDATE coolify_connections SET url = :url"),
            {"url": other.api_url},
        )

    with pytest.raises(SecretUnreadable):
        await coolify.connected(rig.alice)
    status = await coolify.check(rig.alice)
    assert status.problem is not None
    assert status.problem.code == "SECRET_UNREADABLE"
    assert other.calls == []


@pytest.mark.parametrize(
    ("abilities", "role", "missing", "says"),
    [
        (("deploy",), "admin", ("read",), "may deploy but not read"),
        (("read",), "admin", ("deploy",), "may read but not deploy"),
        (("deploy", "read"), "member", ("deploy",), "only owners and admins of the team"),
        (("write",), "admin", ("deploy", "read"), "may neither deploy nor read"),
    ],
)
async def test_token_that_lacks_abilities_is_stored_and_the_way_to_a_better_one_told(
    rig: CoolifyRig,
    coolify: CoolifyService,
    abilities: tuple[str, ...],
    role: Role,
    missing: tuple[str, ...],
    says: str,
) -> None:
    token = rig.toy.token(*abilities, role=role)

    put = await coolify.put(rig.alice, rig.toy.url, token)
    checked = await coolify.check(rig.alice)

    assert put == checked
    assert put.missing == missing
    assert put.problem is not None
    assert put.problem.code == "COOLIFY_ABILITY_MISSING"
    assert says in put.problem.message
    assert "tick deploy first, then read and read:sensitive" in put.problem.message
    assert put.version == (rig.toy.version if "read" in abilities else None)


async def test_token_that_may_all_but_read_logs_works_and_gets_advice(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    rig.toy.finish(rig.toy.queue(rig.toy.application("web")))
    token = rig.toy.token("deploy", "read")

    status = await coolify.put(rig.alice, rig.toy.url, token)

    assert (status.missing, status.problem) == (("read:sensitive",), None)
    assert status.advice is not None
    assert "build logs cannot be shown" in status.advice
    assert "tick deploy first" in status.advice


def expired(toy: ToyCoolify, token: str) -> None:
    toy.kill_token(token)


def team_gone(toy: ToyCoolify, token: str) -> None:
    toy.tokens[token].team_gone = True


def api_off(toy: ToyCoolify, _token: str) -> None:
    toy.api_enabled = False


def other_addresses_only(toy: ToyCoolify, _token: str) -> None:
    toy.allow_ips = ["198.51.100.7"]


def no_answer(toy: ToyCoolify, _token: str) -> None:
    toy.fault("/*", drop=True, times=9)


def broken(toy: ToyCoolify, _token: str) -> None:
    toy.fault("/*", 502, body=b"<html>Bad gateway</html>", times=9)


def something_else(toy: ToyCoolify, _token: str) -> None:
    toy.fault("/*", 200, body=b"<html>Welcome to the wiki</html>", times=9)


Trouble = Callable[[ToyCoolify, str], None]

TROUBLES: list[tuple[Trouble, type[CraftasticError], str]] = [
    (expired, CoolifyTokenRejected, "may have expired"),
    (team_gone, CoolifyTokenRejected, "its team is gone"),
    (api_off, CoolifyApiOff, "turned off"),
    (other_addresses_only, CoolifyAddressRefused, "this server's address"),
    (no_answer, CoolifyUnavailable, ""),
    (broken, CoolifyUnavailable, ""),
    (something_else, CoolifyUnavailable, "Check Coolify's address"),
]


@pytest.mark.parametrize(("trouble", "error", "says"), TROUBLES)
async def test_what_coolify_refuses_is_not_stored_and_what_is_there_stays(
    rig: CoolifyRig,
    coolify: CoolifyService,
    trouble: Trouble,
    error: type[CraftasticError],
    says: str,
) -> None:
    before = await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    other = await rig.another()
    coolify = await rig.server()
    token = other.token()
    trouble(other, token)

    with pytest.raises(error) as refused:
        await coolify.put(rig.alice, other.url, token)
    with pytest.raises(error):
        await coolify.put(rig.bob, other.url, token)

    assert says in f"{refused.value.message} {refused.value.details}"
    assert token.partition("|")[2] not in f"{refused.value.message} {refused.value.details}"
    assert await coolify.status(rig.alice) == before
    assert (await coolify.status(rig.bob)).configured is False
    assert await rig.count("secrets") == await rig.count("coolify_connections") == 1


@pytest.mark.parametrize(("trouble", "error", "says"), TROUBLES)
async def test_check_tells_what_keeps_a_stored_connection_from_working_until_it_does_not(
    rig: CoolifyRig,
    coolify: CoolifyService,
    trouble: Trouble,
    error: type[CraftasticError],
    says: str,
) -> None:
    token = rig.toy.token()
    await coolify.put(rig.alice, rig.toy.url, token)
    trouble(rig.toy, token)
    rig.clock.advance(60)

    found = await coolify.check(rig.alice)

    assert found.problem is not None
    assert found.problem.code == error.code
    assert says in found.problem.message
    assert token.partition("|")[2] not in repr(found)
    assert (found.configured, found.version) == (True, rig.toy.version)
    assert found.checked_at == rig.clock.now()
    assert await coolify.status(rig.alice) == found
    rig.toy.heal()
    rig.toy.api_enabled, rig.toy.allow_ips = True, None
    rig.toy.tokens[token].dead = rig.toy.tokens[token].team_gone = False
    assert (await coolify.check(rig.alice)).problem is None


async def test_check_finds_an_ability_that_was_taken_away(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    token = rig.toy.token()
    await coolify.put(rig.alice, rig.toy.url, token)
    rig.toy.tokens[token].abilities = ("deploy",)

    found = await coolify.check(rig.alice)

    assert found.missing == ("read",)
    assert found.problem is not None
    assert found.problem.code == "COOLIFY_ABILITY_MISSING"


async def test_what_a_check_found_is_not_written_to_the_connection_that_came_meanwhile(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    old, new = rig.toy.token(), rig.toy.token()
    await coolify.put(rig.alice, rig.toy.url, old)
    rig.toy.kill_token(old)
    rig.toy.fault("/version", hang=True)
    before = rig.toy.count("GET", "/version")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(coolify.check, rig.alice)
        await until(
            lambda: rig.toy.count("GET", "/version") > before, "the check waits for an answer"
        )
        await coolify.put(rig.alice, rig.toy.url, new)
        rig.toy.release()

    assert (await coolify.status(rig.alice)).problem is None


async def test_database_is_open_to_others_while_coolify_is_waited_for(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    rig.toy.fault("/version", hang=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(coolify.put, rig.alice, rig.toy.url, rig.toy.token())
        await until(lambda: rig.toy.count("GET", "/version"), "Coolify is asked")
        with anyio.fail_after(5):
            await coolify.put(rig.bob, rig.toy.url, rig.toy.token())
        rig.toy.release()

    assert await rig.count("coolify_connections") == 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "coolify.example.com",
        "ftp://coolify.example.com",
        "https://me:secret@coolify.example.com",
        "https://coolify.example.com?a=b",
        "https://coolify.example.com/#a",
        f"https://{'a' * 300}.example.com",
    ],
)
async def test_address_that_cannot_be_one_is_refused_before_anything_is_asked(
    rig: CoolifyRig, coolify: CoolifyService, url: str
) -> None:
    with pytest.raises(BadCoolifyUrl):
        await coolify.put(rig.alice, url, rig.toy.token())

    assert await rig.count("coolify_connections") == await rig.count("secrets") == 0


async def test_address_inside_of_the_servers_network_is_refused_unless_the_operator_allows_it(
    rig: CoolifyRig,
) -> None:
    rig.origins.clear()
    token = rig.toy.token()
    closed = await rig.server()
    rig.origins.append(rig.toy.origin)
    opened = await rig.server()

    with pytest.raises(InvalidInput) as refused:
        await closed.put(rig.alice, rig.toy.url, token)
    status = await opened.put(rig.alice, rig.toy.url, token)
    later = await closed.check(rig.alice)

    assert "repository" not in f"{refused.value.message} {refused.value.details}"
    assert status.problem is None
    assert later.problem is not None
    assert later.problem.code == refused.value.code


async def test_servers_connection_may_be_at_a_private_address(rig: CoolifyRig) -> None:
    rig.origins.clear()
    rig.toy.application("web")
    coolify = await rig.server(token=rig.toy.token())

    found = await coolify.applications(rig.alice)

    assert [one.name for one in found] == ["web"]


@pytest.mark.parametrize(
    "token", ["", "   ", "7|two words", "7|a\r\nX-Evil: 1", "7|\u00e9", "7|\0", "x" * 501]
)
async def test_text_that_is_no_token_is_refused_before_anything_is_asked(
    rig: CoolifyRig, coolify: CoolifyService, token: str
) -> None:
    with pytest.raises(BadCoolifyToken):
        await coolify.put(rig.alice, rig.toy.url, token)

    assert rig.toy.calls == []


async def test_token_is_sent_whole_without_what_was_copied_around_it(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    token = rig.toy.token()

    await coolify.put(rig.alice, rig.toy.url, f"  {token}\n")

    assert await sent_token(await coolify.connected(rig.alice), rig.toy) == token
    assert token.startswith("7|")


async def test_pause_holds_for_all_servers_and_only_for_its_connection(rig: CoolifyRig) -> None:
    one, other = await rig.server(), await rig.server()

    await one.pause("a", 60)
    await other.pause("a", 1)

    assert 50 < await one.pause_left("a") <= 60
    assert 50 < await other.pause_left("a") <= 60
    assert await other.pause_left("b") == 0.0


async def test_pause_ends_and_is_an_hour_at_most(rig: CoolifyRig, coolify: CoolifyService) -> None:
    await coolify.pause("short", 0.05)
    await coolify.pause("long", 1e9)
    await coolify.pause("negative", -5)

    async def over() -> bool:
        return await coolify.pause_left("short") == 0.0

    await until(over, "the pause is over")
    assert 3500 < await coolify.pause_left("long") <= 3600
    assert await coolify.pause_left("negative") == 0.0


async def test_coolify_that_asks_to_be_left_alone_is_left_alone_by_all_servers(
    rig: CoolifyRig,
) -> None:
    one, other = await rig.server(), await rig.server()
    await one.put(rig.alice, rig.toy.url, rig.toy.token())
    rig.toy.fault("/applications", 429, headers={"Retry-After": "60"})

    with pytest.raises(CoolifyBusy) as first:
        await one.applications(rig.alice)
    asked = len(rig.toy.calls)
    with pytest.raises(CoolifyBusy) as second:
        await other.applications(rig.alice)
    with pytest.raises(CoolifyBusy):
        await other.check(rig.alice)

    assert first.value.retry_after_s == 60
    assert 50 < second.value.retry_after_s <= 60
    assert len(rig.toy.calls) == asked


async def test_check_that_is_told_to_wait_says_so_and_makes_the_pause(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    rig.toy.fault("/*", 429, headers={"Retry-After": "30"}, times=5)

    found = await coolify.check(rig.alice)

    assert found.problem is not None
    assert found.problem.code == "COOLIFY_BUSY"
    assert await coolify.pause_left((await coolify.connected(rig.alice)).key) > 20


async def test_servers_connection_is_looked_at_for_everybody_and_not_too_often(
    rig: CoolifyRig,
) -> None:
    token = rig.toy.token("read")
    coolify = await rig.server(token=token)
    before = await coolify.status(rig.alice)

    found = await coolify.check(rig.alice)
    asked = len(rig.toy.calls)
    again = await coolify.check(rig.bob)
    not_again = len(rig.toy.calls)
    rig.clock.advance(11)
    rig.toy.kill_token(token)
    later = await coolify.check(rig.bob)

    assert (before.source, before.url, before.abilities) == ("server", rig.toy.url, None)
    assert (before.checked_at, before.problem, before.server_configured) == (None, None, True)
    assert found == again
    assert asked == not_again
    assert (found.version, found.missing[0]) == (rig.toy.version, "deploy")
    assert later.problem is not None
    assert later.problem.code == "COOLIFY_TOKEN_REJECTED"
    assert later.checked_at == rig.clock.now()
    assert await rig.count("coolify_connections") == 0


@dataclass(frozen=True, slots=True)
class Overtaken(CredentialService):
    """Lets something happen right before the first secret is read."""

    meanwhile: list[Callable[[], Awaitable[object]]]

    async def reveal(self, tx: Transaction, owner: UUID, purpose: str, secret_id: UUID) -> str:
        if self.meanwhile:
            await self.meanwhile.pop()()
        return await CredentialService.reveal(self, tx, owner, purpose, secret_id)


def overtaken(
    coolify: CoolifyService, meanwhile: Callable[[], Awaitable[object]]
) -> CoolifyService:
    """Return the service with something that happens while it looks a connection up."""
    one = coolify.credentials
    late = Overtaken(one.database, one.keyring, one.clock, one.audit, [meanwhile])
    return replace(coolify, credentials=late)


async def test_connection_that_is_replaced_while_it_is_looked_up_is_found(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    other = await rig.server()
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    new = rig.toy.token()

    late = overtaken(coolify, lambda: other.put(rig.alice, rig.toy.url, new))
    found = await late.connected(rig.alice)
    afterwards = await late.connected(rig.alice)

    assert found.source == "user"
    assert found.connection_id == afterwards.connection_id
    assert await sent_token(afterwards, rig.toy) == new


async def test_connection_that_is_removed_while_it_is_looked_up_is_none(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    other = await rig.server()
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())

    late = overtaken(coolify, lambda: other.remove(rig.alice))
    with contextlib.suppress(DeploymentNotConfigured):
        await late.connected(rig.alice)  # SQLite still shows what was there at the beginning

    with pytest.raises(DeploymentNotConfigured):
        await late.connected(rig.alice)


async def test_applications_come_through_the_callers_connection(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    other = await rig.another()
    coolify = await rig.server()
    rig.toy.application("mine")
    other.application("theirs")
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    await coolify.put(rig.bob, other.url, other.token())

    mine, theirs = await coolify.applications(rig.alice), await coolify.applications(rig.bob)

    assert [one.name for one in mine] == ["mine"]
    assert [one.name for one in theirs] == ["theirs"]


async def test_secret_whose_key_is_gone_is_told_and_can_be_replaced(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    async with rig.database.begin() as tx:
        await tx.execute(sqlalchemy.text("UPDATE secrets SET value = 'broken'"))

    with pytest.raises(SecretUnreadable):
        await coolify.connected(rig.alice)
    found = await coolify.check(rig.alice)
    replaced = await coolify.put(rig.alice, rig.toy.url, rig.toy.token())

    assert found.problem is not None
    assert found.problem.code == "SECRET_UNREADABLE"
    assert replaced.problem is None
    assert (await coolify.connected(rig.alice)).source == "user"


async def test_hook_is_known_by_its_key_on_every_server_and_only_its_hash_is_stored(
    rig: CoolifyRig,
) -> None:
    one, other = await rig.server(), await rig.server()

    key = await one.make_hook(rig.alice)

    assert await other.hook_owner(key) == HookOwner(rig.alice)
    assert key not in await rig.everything_stored()
    for wrong in ("", "x", key[:-1], key + "x", key.swapcase(), "a" * 43, "\0" * 43, "é" * 43):
        assert await one.hook_owner(wrong) is None
    assert await rig.actions() == ["coolify.hook"]


async def test_owner_has_one_hook_and_a_new_key_ends_the_old_one(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    first, others = await coolify.make_hook(rig.alice), await coolify.make_hook(rig.bob)
    await coolify.hook_owner(first)

    second = await coolify.make_hook(rig.alice)

    assert await coolify.hook_owner(first) is None
    assert await coolify.hook_owner(second) == HookOwner(rig.alice)
    assert await coolify.hook_owner(others) == HookOwner(rig.bob)
    assert await rig.count("coolify_hooks") == 2
    await coolify.remove_hook(rig.alice)
    await coolify.remove_hook(rig.alice)
    assert await coolify.hook_owner(second) is None
    assert await coolify.hook_owner(others) == HookOwner(rig.bob)
    assert (await rig.actions()).count("coolify.hook_delete") == 1


async def test_hooks_made_at_once_leave_one_whose_key_is_known(rig: CoolifyRig) -> None:
    servers = [await rig.server(), await rig.server()]
    made: dict[UUID | None, list[str]] = {rig.alice: [], None: []}

    async def make(server: CoolifyService, owner: UUID | None) -> None:
        made[owner].append(await server.make_hook(owner, rig.bob))

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(make, servers[number % 2], (rig.alice, None)[number // 4])

    assert await rig.count("coolify_hooks") == 2
    for owner, keys in made.items():
        known = [key for key in keys if await servers[0].hook_owner(key) is not None]
        assert len(keys) == 4
        assert len(known) == 1
        assert await servers[0].hook_owner(known[0]) == HookOwner(owner)


async def test_servers_hook_is_nobodys_own(rig: CoolifyRig, coolify: CoolifyService) -> None:
    key = await coolify.make_hook(None, rig.bob)

    assert await coolify.hook_owner(key) == HookOwner(None)
    assert (await coolify.status(rig.alice)).hook is None
    assert (await coolify.status(rig.bob)).hook is None
    await coolify.remove_hook(rig.bob)
    assert await coolify.hook_owner(key) == HookOwner(None)
    await coolify.remove_hook(None, rig.bob)
    assert await coolify.hook_owner(key) is None
    events = await rig.rows("audit_events")
    assert {row["actor_id"] for row in events} == {rig.bob}
    assert [row["object_id"] for row in events] == ["server", "server"]


async def test_use_of_a_hook_is_shown_to_a_minute(rig: CoolifyRig, coolify: CoolifyService) -> None:
    key = await coolify.make_hook(rig.alice)
    made_at = rig.clock.now()
    unused = (await coolify.status(rig.alice)).hook
    used_at = []
    for seconds in (30, 30, 31):
        rig.clock.advance(seconds)
        await coolify.hook_owner(key)
        hook = (await coolify.status(rig.alice)).hook
        assert hook is not None
        assert hook.last_used_at is not None
        used_at.append((hook.last_used_at - made_at).total_seconds())

    assert unused is not None
    assert (unused.created_at, unused.last_used_at) == (made_at, None)
    assert used_at == [30, 30, 91]


async def test_owner_hears_of_each_change_and_nobody_else(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    await coolify.check(rig.alice)
    await coolify.make_hook(rig.alice)
    await coolify.remove_hook(rig.alice)
    await coolify.remove(rig.alice)
    await coolify.make_hook(None, rig.bob)

    events = await rig.rows("events")

    assert {row["owner_id"] for row in events} == {rig.alice}
    assert [row["type"] for row in events] == ["coolify.changed"] * 5


async def test_what_goes_with_an_account_leaves_nothing_behind(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    await coolify.put(rig.alice, rig.toy.url, rig.toy.token())
    await coolify.make_hook(rig.alice)

    async with rig.database.begin() as tx:
        await tx.execute(sqlalchemy.text("DELETE FROM users WHERE email = 'alice@example.com'"))

    for table in ("coolify_connections", "coolify_hooks", "secrets"):
        assert await rig.count(table) == 0


async def test_hostile_coolify_that_sends_the_token_back_does_not_make_it_seen(
    rig: CoolifyRig, coolify: CoolifyService
) -> None:
    token = rig.toy.token()
    await coolify.put(rig.alice, rig.toy.url, token)
    rig.toy.fault("/*", 418, body={"message": f"no\x1b[2J {token}"}, times=9)

    found = await coolify.check(rig.alice)

    assert found.problem is not None
    assert "\x1b" not in found.problem.message
    assert token.partition("|")[2] not in found.problem.message
    assert token.partition("|")[2] not in await rig.everything_stored()


@pytest.mark.parametrize(
    ("coolifys", "ours", "same"),
    [
        ("example/web", "https://github.com/example/web", True),
        ("Example/Web.git", "https://github.com/example/web", True),
        ("https://github.com/example/web.git", "https://github.com/example/web", True),
        ("git@github.com:example/web.git", "https://github.com/example/web", True),
        ("ssh://git@github.com:22/example/web", "https://github.com/example/web/", True),
        ("git@git.example.com:a/b.git", "https://git.example.com/scm/a/b", True),
        ("group/sub/web", "https://gitlab.com/group/sub/web", True),
        ("https://gitlab.com/example/web", "https://github.com/example/web", False),
        ("other/sub/web", "https://gitlab.com/group/sub/web", False),
        ("example/web2", "https://github.com/example/web", False),
        ("another/web", "https://github.com/example/web", False),
        ("https://git.example.com/web.git", "https://git.example.com/web", True),
        ("https://git.example.com/", "https://git.example.com", False),
        ("web", "https://github.com/example/web", False),
        ("", "https://github.com/example/web", False),
        (None, "https://github.com/example/web", False),
        ("example/web", None, False),
        (None, None, False),
        ("https://[", "https://github.com/example/web", False),
    ],
)
def test_repositories_are_compared_by_what_they_are(
    coolifys: str | None, ours: str | None, *, same: bool
) -> None:
    assert same_repository(coolifys, ours) is same
    assert same_repository(ours, coolifys) is same


async def test_one_who_connects_many_slow_places_keeps_no_connections_from_others(
    rig: CoolifyRig,
) -> None:
    waiting = 0

    async def serve(stream: SocketStream) -> None:
        nonlocal waiting
        waiting += 1
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
        origin = f"http://127.0.0.1:{port}"
        rig.origins.append(origin)
        coolify = await rig.server()
        for number in range(60):
            tasks.start_soon(coolify.put, rig.alice, f"{origin}/{number}", canary("token"))
        with anyio.move_on_after(1):
            await anyio.sleep_forever()  # all that can come have come

        await coolify.put(rig.bob, rig.toy.url, rig.toy.token())
        tasks.cancel_scope.cancel()

    assert [row["owner_id"] for row in await rig.rows("coolify_connections")] == [rig.bob]
    assert 0 < waiting < 20


async def test_pauses_that_are_over_are_not_kept(rig: CoolifyRig, coolify: CoolifyService) -> None:
    await coolify.pause("one/queue", 0)
    await coolify.pause("two", 60)
    await coolify.pause("three/queue", 60)

    assert sorted(row["key"] for row in await rig.rows("coolify_pauses")) == ["three/queue", "two"]
