"""Tokens of connected accounts, on both databases: exchanged once, never lost, ended for good."""

import hashlib
import hmac
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
import structlog

from craftastic import logs
from craftastic.database import Database
from craftastic.github._repository import AccountRepository
from craftastic.github.service import GitHubAuthenticationRequired, GitHubService
from tests.fakes.clock import FakeClock
from tests.fakes.github_rig import GitHubRig, eventually, github_rig
from tests.fakes.toy_github import REDEEM, ToyGitHub

LIFE_S = 28800.0
NEAR_S = LIFE_S - 1799
"""Less than half an hour before a token's end."""


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitHubRig]:
    toy = ToyGitHub(interval=0.01, slow_down_step=0.01, token_life=LIFE_S)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        yield rig


@pytest.fixture
async def service(rig: GitHubRig) -> GitHubService:
    """Give a server to which alice has connected her account."""
    service = await rig.server()
    await rig.connect(service, rig.alice, "octocat")
    return service


def exchanges(rig: GitHubRig) -> int:
    return rig.toy.count(REDEEM, grant_type="refresh_token")


async def tokens_at_once(
    rig: GitHubRig, services: list[GitHubService], count: int
) -> list[str | None]:
    found: list[str | None] = []

    async def one(number: int) -> None:
        found.append(await rig.token(services[number % len(services)], rig.alice))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    return found


async def needs_reconnect(rig: GitHubRig) -> bool:
    return (await rig.rows("github_accounts"))[0]["state"] == "reconnect"


# ---- exchanging -----------------------------------------------------------------------------


async def test_ten_that_need_a_new_token_at_once_make_one_exchange(
    rig: GitHubRig, service: GitHubService
) -> None:
    services = [service, await rig.server()]
    old = await rig.token(service, rig.alice)
    rig.later(LIFE_S + 1)

    found = await tokens_at_once(rig, services, 10)

    assert exchanges(rig) == 1
    assert len(set(found)) == 1
    assert found[0] != old
    assert rig.toy.tokens_valid() == {found[0]}
    assert not await needs_reconnect(rig)


async def test_a_token_is_exchanged_half_an_hour_before_its_end(
    rig: GitHubRig, service: GitHubService
) -> None:
    old = await rig.token(service, rig.alice)
    rig.later(NEAR_S - 60)
    assert await rig.token(service, rig.alice) == old
    assert exchanges(rig) == 0

    rig.later(60)

    new = await rig.token(service, rig.alice)
    assert new != old
    assert await rig.token(service, rig.alice) == new
    assert exchanges(rig) == 1


async def test_exchanges_go_on_with_each_new_pair(rig: GitHubRig, service: GitHubService) -> None:
    for _ in range(3):
        rig.later(NEAR_S)
        assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()

    assert exchanges(rig) == 3
    assert len(await rig.rows("secrets")) == 2


async def test_a_new_pair_is_kept_whatever_follows_it(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(LIFE_S + 1)
    rig.toy.limit("/user", times=3)

    status = await service.status(rig.alice)

    assert exchanges(rig) == 1
    assert (status.connected, status.username) == (True, "octocat")
    assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()
    assert exchanges(rig) == 1


async def test_a_dead_refresh_token_ends_the_connection_for_everybody_at_once(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(15811200 + 1)

    found = await tokens_at_once(rig, [service, await rig.server()], 10)

    assert found == [None] * 10
    assert exchanges(rig) == 1
    status = await service.status(rig.alice)
    assert (status.connected, status.needs_reconnect) == (False, True)
    assert status.username == "octocat"
    assert status.reason is not None
    assert "connect again" in status.reason
    assert await rig.actions() == ["github.connect", "github.refresh_failed"]


async def test_connecting_again_mends_a_connection_that_had_ended(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(15811200 + 1)
    assert await rig.token(service, rig.alice) is None

    await rig.connect(service, rig.alice, "octocat")

    assert (await service.status(rig.alice)).connected
    assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()


@pytest.mark.parametrize("status", [403, 429, 500, 502])
async def test_no_answer_ends_no_connection_and_is_not_asked_for_at_once(
    rig: GitHubRig, service: GitHubService, status: int
) -> None:
    old = await rig.token(service, rig.alice)
    rig.later(NEAR_S)
    rig.toy.fail(REDEEM, status, body={"message": "later"})

    found = await tokens_at_once(rig, [service, await rig.server()], 5)

    assert found == [old] * 5, "the token is still good for a while"
    assert exchanges(rig) == 1
    assert not await needs_reconnect(rig)
    await rig.sql("UPDATE github_accounts SET refresh_until = 0")  # the pause is over
    assert await rig.token(service, rig.alice) != old


async def test_a_token_that_ended_is_not_given_out(rig: GitHubRig, service: GitHubService) -> None:
    rig.later(LIFE_S + 1)
    rig.toy.fail(REDEEM, 503)

    assert await rig.token(service, rig.alice) is None
    assert not await needs_reconnect(rig)


async def test_the_right_of_a_dead_server_runs_out(rig: GitHubRig, service: GitHubService) -> None:
    account = await service._tokens.find(rig.alice)
    assert account is not None
    async with rig.database.begin() as tx:
        assert await AccountRepository(tx).claim_refresh(account, "dead", 0.5) is not None
    rig.later(LIFE_S + 1)

    assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()

    assert exchanges(rig) == 1


async def test_a_slow_server_saves_its_pair_although_its_time_was_over(
    rig: GitHubRig, service: GitHubService
) -> None:
    other = await rig.server()
    rig.later(LIFE_S + 1)
    rig.toy.hang(REDEEM, after=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.token, service, rig.alice)
        await eventually(lambda: exchanges(rig) == 1, "the slow one has asked")
        await rig.sql("UPDATE github_accounts SET refresh_until = 0")
        assert await rig.token(other, rig.alice) is None  # the old refresh token is used up
        rig.toy.release()

    assert await rig.token(other, rig.alice) in rig.toy.tokens_valid()
    assert (await other.status(rig.alice)).connected


async def test_a_server_that_comes_too_late_takes_the_pair_that_another_has_saved(
    rig: GitHubRig, service: GitHubService
) -> None:
    late = await rig.server()
    account = await late._tokens.find(rig.alice)
    assert account is not None
    (old,) = rig.toy.tokens.values()
    assert old.refresh is not None
    rig.later(LIFE_S + 1)
    token = await rig.token(service, rig.alice)

    held = await late._tokens._exchange(account, old.refresh, "late")

    assert held is not None
    assert held.token == token
    assert not await needs_reconnect(rig)


async def test_an_exchange_that_is_cut_off_loses_no_pair(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(LIFE_S + 1)
    rig.toy.hang(REDEEM, after=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.token, service, rig.alice)
        await eventually(lambda: exchanges(rig) == 1, "the exchange is under way")
        tasks.cancel_scope.cancel()
        rig.toy.release()

    assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()
    assert exchanges(rig) == 1


async def test_a_pair_that_arrives_after_the_disconnection_is_ended(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(LIFE_S + 1)
    rig.toy.hang(REDEEM, after=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.token, service, rig.alice)
        await eventually(lambda: exchanges(rig) == 1, "the exchange is under way")
        await service.disconnect(rig.alice)
        await rig.connect(await rig.server(), rig.alice, "hubot")
        rig.toy.release()

    token = await rig.token(service, rig.alice)
    assert rig.toy.tokens_valid() == {token}
    assert (await service.status(rig.alice)).username == "hubot"


async def test_an_app_without_expiry_is_never_exchanged(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    toy = ToyGitHub(interval=0.01, token_life=None)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        service = await rig.server()
        await rig.connect(service, rig.alice, "octocat")
        rig.later(365 * 86400)

        assert await rig.token(service, rig.alice) in toy.tokens_valid()
        assert exchanges(rig) == 0
        assert (await service.status(rig.alice)).kind == "app"


# ---- 401 ------------------------------------------------------------------------------------


async def test_a_rejected_token_is_exchanged(rig: GitHubRig, service: GitHubService) -> None:
    old = await rig.token(service, rig.alice)
    assert old is not None
    rig.later(60)

    assert await service.rejected(rig.alice, old)

    new = await rig.token(service, rig.alice)
    assert new != old
    assert await service.rejected(rig.alice, old), "there is a newer one by now"
    assert exchanges(rig) == 1


async def test_a_fresh_token_that_is_rejected_is_worth_one_more_try(
    rig: GitHubRig, service: GitHubService
) -> None:
    token = await rig.token(service, rig.alice)
    assert token is not None

    assert await service.rejected(rig.alice, token)

    assert await rig.token(service, rig.alice) == token
    assert exchanges(rig) == 0


async def test_a_revoked_authorization_ends_the_connection(
    rig: GitHubRig, service: GitHubService
) -> None:
    token = await rig.token(service, rig.alice)
    assert token is not None
    for one in rig.toy.tokens.values():
        one.dead = True
    rig.later(60)

    assert not await service.rejected(rig.alice, token)

    assert await rig.token(service, rig.alice) is None
    assert (await service.status(rig.alice)).needs_reconnect


async def test_a_token_without_expiry_is_dead_only_when_the_api_says_so(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    async with github_rig(database, clock, tmp_path, ToyGitHub(kind="oauth", interval=0.01)) as rig:
        service = await rig.server()
        await rig.connect(service, rig.alice, "octocat")
        token = await rig.token(service, rig.alice)
        assert token is not None
        rig.later(60)

        assert not await service.rejected(rig.alice, token)
        assert (await service.status(rig.alice)).connected
        rig.toy.limit("/user")
        assert not await service.rejected(rig.alice, token)
        assert (await service.status(rig.alice)).connected

        rig.toy.revoke(token)
        assert not await service.rejected(rig.alice, token)
        assert (await service.status(rig.alice)).needs_reconnect
        assert await rig.actions() == ["github.connect", "github.refresh_failed"]


async def test_the_eleventh_token_of_an_oauth_app_ends_the_first(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    toy = ToyGitHub(kind="oauth", interval=0.01, token_limit=10)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        service = await rig.server()
        await rig.connect(service, rig.alice, "octocat")
        for _ in range(10):
            toy.issue("octocat")
        rig.later(601)

        status = await service.status(rig.alice)

        assert (status.connected, status.needs_reconnect) == (False, True)


# ---- status ---------------------------------------------------------------------------------


async def test_status_asks_github_once_in_ten_minutes(
    rig: GitHubRig, service: GitHubService
) -> None:
    services = [service, await rig.server()]

    async def ask(count: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(services[number % 2].status, rig.alice)

    await ask(20)
    assert rig.toy.count("/user") == 1  # of the connection
    rig.later(601)
    await ask(20)

    assert rig.toy.count("/user") == 2
    assert exchanges(rig) == 0


async def test_status_learns_a_new_name_and_that_a_connection_was_revoked(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.toy.users["octocat"].login = "octodog"
    rig.later(601)
    assert (await service.status(rig.alice)).username == "octodog"
    for one in rig.toy.tokens.values():
        one.dead = True
    rig.later(601)

    assert (await service.status(rig.alice)).needs_reconnect


@pytest.mark.parametrize("status", [403, 500])
async def test_status_keeps_what_it_knows_when_github_does_not_say(
    rig: GitHubRig, service: GitHubService, status: int
) -> None:
    rig.toy.fail("/user", status, times=5)
    rig.later(601)

    assert (await service.status(rig.alice)).connected
    assert exchanges(rig) == 0


async def test_status_does_not_wait_for_a_github_that_is_away(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.toy.__exit__()
    rig.later(601)

    assert (await service.status(rig.alice)).connected


# ---- where tokens go ------------------------------------------------------------------------


async def test_a_token_is_given_for_githubs_own_origin_only(
    rig: GitHubRig, service: GitHubService
) -> None:
    scheme, host, port = "http", "127.0.0.1", int(rig.toy.url.rpartition(":")[2])

    assert await service.token_for(rig.alice, (scheme, host, port)) is not None
    for origin in (
        ("https", host, port),
        (scheme, host, port + 1),
        (scheme, "localhost", port),
        (scheme, f"{host}.example.com", port),
        ("https", "github.com", 443),
    ):
        assert await service.token_for(rig.alice, origin) is None, origin
    assert await service.token_for(rig.bob, (scheme, host, port)) is None


async def test_tokens_of_one_github_never_go_to_another(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.later(601)
    with ToyGitHub(interval=0.01) as another:
        moved = await rig.server(toy=another)
        port = int(another.url.rpartition(":")[2])

        assert await moved.token_for(rig.alice, ("http", "127.0.0.1", port)) is None
        status = await moved.status(rig.alice)
        with pytest.raises(GitHubAuthenticationRequired):
            await moved.repos(rig.alice)
        await moved.disconnect(rig.alice)

        assert (status.connected, status.needs_reconnect) == (False, True)
        assert another.calls == []


async def test_the_client_keeps_no_cookies(rig: GitHubRig, service: GitHubService) -> None:
    await service.repos(rig.alice)

    assert len(rig.toy.calls) > 3
    assert all("cookie" not in call.headers for call in rig.toy.calls)


# ---- disconnecting --------------------------------------------------------------------------


async def test_disconnecting_ends_both_tokens_without_the_apps_secret(
    rig: GitHubRig, service: GitHubService
) -> None:
    token = await rig.token(service, rig.alice)

    await service.disconnect(rig.alice)

    assert rig.toy.tokens_valid() == set()
    assert all(one.refresh is None for one in rig.toy.tokens.values())
    (call,) = rig.toy.called("/credentials/revoke")
    assert "authorization" not in call.headers
    assert call.body["credentials"][0] == token
    assert await rig.rows("github_accounts") == await rig.rows("secrets") == []
    assert await rig.actions() == ["github.connect", "github.disconnect"]


async def test_with_the_apps_secret_the_token_is_ended_by_the_app(rig: GitHubRig) -> None:
    service = await rig.server(github_client_secret=rig.toy.client_secret)
    await rig.connect(service, rig.alice, "octocat")

    await service.disconnect(rig.alice)

    (call,) = rig.toy.called(f"/applications/{rig.toy.client_id}/token")
    assert (call.method, call.status) == ("DELETE", 204)
    (rest,) = rig.toy.called("/credentials/revoke")
    assert [one[:4] for one in rest.body["credentials"]] == ["ghr_"]
    assert rig.toy.tokens_valid() == set()
    assert all(one.refresh is None for one in rig.toy.tokens.values())


async def test_a_wrong_secret_of_the_app_does_not_keep_tokens_alive(rig: GitHubRig) -> None:
    service = await rig.server(github_client_secret="wrong")
    await rig.connect(service, rig.alice, "octocat")

    await service.disconnect(rig.alice)

    assert rig.toy.tokens_valid() == set()


async def test_disconnecting_works_while_github_is_down(
    rig: GitHubRig, service: GitHubService
) -> None:
    rig.toy.fail("/credentials/revoke", 503, times=5)

    await service.disconnect(rig.alice)
    await service.disconnect(rig.alice)
    await service.disconnect(rig.bob)

    assert await rig.rows("github_accounts") == await rig.rows("secrets") == []
    assert not (await service.status(rig.alice)).needs_reconnect
    assert await rig.actions() == ["github.connect", "github.disconnect"]


async def test_an_account_is_free_for_others_after_it_was_disconnected(
    rig: GitHubRig, service: GitHubService
) -> None:
    await service.disconnect(rig.alice)

    await rig.connect(service, rig.bob, "octocat")

    assert (await service.status(rig.bob)).connected


def signed(body: bytes) -> str:
    return "sha256=" + hmac.new(b"hook", body, hashlib.sha256).hexdigest()


async def test_githubs_word_that_the_app_was_revoked_disconnects(
    rig: GitHubRig, service: GitHubService
) -> None:
    hooked = await rig.server(github_webhook_secret="hook")
    someone = json.dumps({"action": "revoked", "sender": {"id": 4711}}).encode()
    octocat = json.dumps(
        {"action": "revoked", "sender": {"id": rig.toy.users["octocat"].id}}
    ).encode()
    event = "github_app_authorization"

    assert not await hooked.webhook(event, signed(someone), someone)
    assert not await hooked.webhook("ping", signed(octocat), octocat)
    assert (await service.status(rig.alice)).connected
    assert await hooked.webhook(event, signed(octocat), octocat)

    assert await rig.rows("github_accounts") == await rig.rows("secrets") == []
    assert await rig.actions() == ["github.connect", "github.disconnect"]


# ---- secrets --------------------------------------------------------------------------------


async def test_no_token_is_in_the_database_or_in_the_log(
    rig: GitHubRig, service: GitHubService
) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    stream = io.StringIO()
    logs.configure(level="debug", format="json", stream=stream)
    try:
        service = await rig.server(github_client_secret=rig.toy.client_secret)
        rig.toy.fail("/user", 500)
        await rig.connect(service, rig.alice, "octocat")
        await service.initiate(rig.bob)
        rig.later(LIFE_S + 1)
        await rig.token(service, rig.alice)
        rig.toy.fail(REDEEM, 502)
        rig.later(LIFE_S + 1)
        await rig.token(service, rig.alice)
        await service.status(rig.alice)
        for token in rig.toy.secrets() - set(rig.toy.flows):
            structlog.stdlib.get_logger("x").warning("a text", why=f"it said {token}, loudly")
        stored = await rig.everything_stored()
        await service.disconnect(rig.alice)
    finally:
        root.handlers[:], logging.raiseExceptions = before[0], before[2]
        root.setLevel(before[1])
        structlog.reset_defaults()

    told = rig.toy.secrets()
    assert len(told) > 6
    assert "octocat" in stored
    for secret in told:
        assert secret not in stored
        assert secret not in stream.getvalue()
    assert "it said [hidden], loudly" in stream.getvalue()


async def test_nothing_that_holds_a_token_shows_it(rig: GitHubRig, service: GitHubService) -> None:
    rig.toy.interval = 30
    flow = await service.initiate(rig.bob)

    shown = [repr(flow), repr(service), repr(await service.status(rig.alice))]
    shown += [repr(await service._tokens.current(rig.alice))]

    for secret in {*rig.toy.secrets(), flow.handle}:
        assert secret not in "".join(shown)
