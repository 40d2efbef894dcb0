"""Connecting a GitHub account by the device flow, on both databases, against a toy GitHub."""

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from craftastic.circuit import VAIN
from craftastic.database import Database
from craftastic.github._client import GitHubClient
from craftastic.github._device_flow import DeviceCode
from craftastic.github.service import (
    FlowFailed,
    FlowNotFound,
    FlowRefused,
    GitHubAccountTaken,
    GitHubNotConfigured,
    GitHubRateLimited,
    GitHubUnavailable,
    TooManyFlows,
)
from tests.conftest import free_port
from tests.fakes.clock import FakeClock
from tests.fakes.github_rig import GitHubRig, eventually, github_rig
from tests.fakes.toy_github import DEVICE_CODE, DEVICE_GRANT, REDEEM, ToyGitHub

INTERVAL_S = 0.2
TABS = 5


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitHubRig]:
    toy = ToyGitHub(interval=INTERVAL_S, slow_down_step=INTERVAL_S)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        yield rig


@pytest.fixture
async def oauth_rig(
    database: Database, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[GitHubRig]:
    toy = ToyGitHub(kind="oauth", interval=INTERVAL_S, slow_down_step=INTERVAL_S)
    async with github_rig(database, clock, tmp_path, toy) as rig:
        yield rig


def gaps(toy: ToyGitHub) -> list[float]:
    times = [call.at for call in toy.called(REDEEM, grant_type=DEVICE_GRANT)]
    return [after - before for before, after in pairwise(times)]


def said(toy: ToyGitHub) -> list[str | None]:
    """Return what GitHub answered to each question about a flow; None for tokens."""
    return [call.answer.get("error") for call in toy.called(REDEEM, grant_type=DEVICE_GRANT)]


async def test_a_code_that_is_typed_connects_the_account(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    first = await rig.due(service, rig.alice, flow)
    rig.toy.approve(flow.user_code, "octocat")

    last = await rig.polled(service, rig.alice, flow)

    assert first.state == "authorization_pending"
    assert last.message == "GitHub authentication completed"
    status = await service.status(rig.alice)
    assert (status.connected, status.username, status.kind) == (True, "octocat", "app")
    token = await rig.token(service, rig.alice)
    assert token is not None
    assert rig.toy.is_valid(token)
    assert flow.verification_uri == f"{rig.toy.url}/login/device"
    assert (await rig.rows("github_accounts"))[0]["github_id"] == rig.toy.users["octocat"].id
    assert await rig.actions() == ["github.connect"]


async def test_an_oauth_apps_token_connects_too_and_does_not_end(oauth_rig: GitHubRig) -> None:
    service = await oauth_rig.server()

    await oauth_rig.connect(service, oauth_rig.alice, "octocat")
    oauth_rig.later(100 * 86400)

    status = await service.status(oauth_rig.alice)
    assert (status.connected, status.kind, status.missing_scopes) == (True, "oauth", ())
    assert oauth_rig.toy.called(DEVICE_CODE)[0].body["scope"] == "repo read:user user:email"
    assert oauth_rig.toy.count(REDEEM, grant_type="refresh_token") == 0


async def test_fewer_scopes_than_asked_for_connect_and_are_told(oauth_rig: GitHubRig) -> None:
    service = await oauth_rig.server()

    await oauth_rig.connect(service, oauth_rig.alice, "octocat", scopes="user")

    status = await service.status(oauth_rig.alice)
    assert (status.connected, status.scopes, status.missing_scopes) == (True, ("user",), ("repo",))


async def test_the_secret_of_the_app_is_never_part_of_a_flow(rig: GitHubRig) -> None:
    service = await rig.server(github_client_secret=rig.toy.client_secret)

    await rig.connect(service, rig.alice, "octocat")
    rig.later(28800 - 60)
    await rig.token(service, rig.alice)

    assert rig.toy.count(REDEEM, grant_type="refresh_token") == 1
    assert all("client_secret" not in call.body for call in rig.toy.calls)
    assert all("authorization" not in call.headers for call in rig.toy.called(REDEEM))


async def test_many_tabs_and_servers_ask_github_once_an_interval(rig: GitHubRig) -> None:
    services = [await rig.server(), await rig.server()]
    flow = await services[0].initiate(rig.alice)
    ends: list[str] = []

    async def tab(number: int) -> None:
        await rig.polled(services[number % 2], rig.alice, flow)
        ends.append("completed")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tabs:
            for number in range(TABS):
                tabs.start_soon(tab, number)
            await eventually(lambda: rig.toy.count(REDEEM) >= 3, "three intervals have passed")
            rig.toy.approve(flow.user_code, "octocat")

    assert ends == ["completed"] * TABS
    assert "slow_down" not in said(rig.toy)
    assert said(rig.toy).count(None) == 1
    assert min(gaps(rig.toy)) >= INTERVAL_S
    assert rig.toy.count("/user") == 1


async def test_polls_between_two_questions_are_answered_from_memory(rig: GitHubRig) -> None:
    rig.toy.interval = 30
    service = await rig.server()
    flow = await service.initiate(rig.alice)

    answers = [await service.poll(rig.alice, flow.handle) for _ in range(20)]

    assert {answer.state for answer in answers} == {"authorization_pending"}
    assert rig.toy.count(REDEEM) == 0
    assert answers[0].interval_s == flow.interval_s == 31


async def test_slow_down_makes_the_interval_longer_for_good(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    (toys,) = rig.toy.flows.values()
    toys.interval = 0.6  # what GitHub knows and did not say

    slow = await rig.due(service, rig.alice, flow)
    rig.toy.approve(flow.user_code, "octocat")
    await rig.polled(service, rig.alice, flow)

    assert slow.state == "slow_down"
    assert said(rig.toy) == ["slow_down", None]
    assert gaps(rig.toy)[0] >= 0.8


async def test_slow_down_without_a_number_adds_five_seconds(rig: GitHubRig) -> None:
    rig.toy.slow_down_names_interval = False
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    (toys,) = rig.toy.flows.values()
    toys.interval = 30

    slow = await rig.due(service, rig.alice, flow)
    again = await service.poll(rig.alice, flow.handle)

    assert (slow.state, again.state) == ("slow_down", "authorization_pending")
    assert (await rig.rows("github_flows"))[0]["interval_s"] == pytest.approx(INTERVAL_S + 5)
    assert again.interval_s == 6


@pytest.mark.parametrize(
    ("what", "error"), [("expire", "expired_token"), ("deny", "access_denied")]
)
async def test_a_flow_that_ended_tells_every_tab_why(rig: GitHubRig, what: str, error: str) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    getattr(rig.toy, what)(flow.user_code)

    with pytest.raises(FlowFailed) as first:
        await rig.due(service, rig.alice, flow)
    with pytest.raises(FlowFailed) as second:
        await (await rig.server()).poll(rig.alice, flow.handle)

    assert first.value.message == second.value.message == error
    assert rig.toy.count(REDEEM) == 1
    assert await rig.rows("secrets") == []


async def test_a_flow_ends_by_itself_when_its_time_is_over(rig: GitHubRig) -> None:
    rig.toy.expires_in, rig.toy.interval = 0.2, 30
    service = await rig.server()
    flow = await service.initiate(rig.alice)

    with pytest.raises(FlowFailed, match="expired_token"):
        await rig.polled(service, rig.alice, flow)

    assert rig.toy.count(REDEEM) == 0


async def test_another_users_flow_answers_like_an_unknown_one(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)

    with pytest.raises(FlowNotFound) as foreign:
        await service.poll(rig.bob, flow.handle)
    with pytest.raises(FlowNotFound) as unknown:
        await service.poll(rig.bob, "0" * 40)

    assert foreign.value.message == unknown.value.message
    assert rig.toy.count(REDEEM) == 0


async def test_githubs_own_code_is_worth_nothing_at_our_door(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    (theirs,) = rig.toy.flows

    assert flow.handle != theirs
    assert len(flow.handle) == 40
    with pytest.raises(FlowNotFound):
        await service.poll(rig.alice, theirs)


async def test_a_newer_flow_ends_the_older_one(rig: GitHubRig) -> None:
    service = await rig.server()
    older = await service.initiate(rig.alice)
    others = await service.initiate(rig.bob)
    newer = await service.initiate(rig.alice)

    with pytest.raises(FlowFailed, match="expired_token"):
        await service.poll(rig.alice, older.handle)
    rig.toy.approve(newer.user_code, "octocat")
    await rig.polled(service, rig.alice, newer)
    assert (await service.poll(rig.bob, others.handle)).state == "authorization_pending"


async def test_a_flow_goes_on_in_a_server_that_was_started_anew(rig: GitHubRig) -> None:
    flow = await (await rig.server()).initiate(rig.alice)
    rig.toy.approve(flow.user_code, "octocat")

    anew = await rig.server()
    await rig.polled(anew, rig.alice, flow)

    assert (await anew.status(rig.alice)).username == "octocat"


async def test_a_user_begins_ten_flows_an_hour(rig: GitHubRig) -> None:
    service = await rig.server()
    rig.toy.fail(DEVICE_CODE, 503)
    with pytest.raises(GitHubUnavailable):
        await service.initiate(rig.alice)  # GitHub began none, so it does not count
    outcomes: list[str] = []

    async def begin() -> None:
        try:
            await service.initiate(rig.alice)
            outcomes.append("begun")
        except TooManyFlows as error:
            outcomes.append("too many" if 3500 < error.retry_after_s <= 3600 else "too long")

    async with anyio.create_task_group() as tasks:
        for _ in range(13):
            tasks.start_soon(begin)

    assert sorted(outcomes) == ["begun"] * 10 + ["too many"] * 3
    assert rig.toy.count(DEVICE_CODE) == 11
    assert [row["state"] for row in await rig.rows("github_flows")].count("pending") == 1
    await service.initiate(rig.bob)


@pytest.mark.parametrize("status", [429, 500, 502])
async def test_a_github_that_is_down_ends_no_flow(rig: GitHubRig, status: int) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    rig.toy.approve(flow.user_code, "octocat")
    rig.toy.fail(REDEEM, status, body=b"<html>unicorn", headers={"Retry-After": "1"})

    down = await rig.due(service, rig.alice, flow)
    await rig.polled(service, rig.alice, flow)

    assert down.state == "authorization_pending"
    assert gaps(rig.toy)[0] >= 2 * INTERVAL_S


async def test_answers_as_a_form_are_read_too(rig: GitHubRig) -> None:
    rig.toy.form_answers = True
    service = await rig.server()

    await rig.connect(service, rig.alice, "octocat")

    assert (await service.status(rig.alice)).connected


@pytest.mark.parametrize("fault", [(403, {"X-RateLimit-Remaining": "0"}), (403, {}), (500, {})])
async def test_tokens_are_kept_when_github_does_not_say_whose_they_are(
    rig: GitHubRig, fault: tuple[int, dict[str, str]]
) -> None:
    service = await rig.server()
    rig.toy.fail("/user", fault[0], headers=fault[1], times=2)

    await rig.connect(service, rig.alice, "octocat")

    before = await service.status(rig.alice)
    assert (before.connected, before.username) == (True, None)
    assert await rig.token(service, rig.alice) in rig.toy.tokens_valid()
    rig.later(60)
    assert (await service.status(rig.alice)).username is None  # the second fault
    rig.later(60)
    assert (await service.status(rig.alice)).username == "octocat"


async def test_an_account_without_a_name_gets_it_without_anybody_asking(rig: GitHubRig) -> None:
    service = await rig.server()
    rig.toy.limit("/user")
    await rig.connect(service, rig.alice, "octocat")
    rig.later(60)

    await service.reconcile()

    assert (await rig.rows("github_accounts"))[0]["login"] == "octocat"


async def test_a_nameless_account_that_turns_out_to_be_anothers_is_given_up(
    rig: GitHubRig,
) -> None:
    service = await rig.server()
    await rig.connect(service, rig.bob, "octocat")
    rig.toy.limit("/user")
    await rig.connect(service, rig.alice, "octocat")
    hers = await rig.token(service, rig.alice)
    rig.later(60)

    await service.reconcile()

    assert not (await service.status(rig.alice)).connected
    assert hers not in rig.toy.tokens_valid()
    assert await rig.token(service, rig.bob) in rig.toy.tokens_valid()


async def test_a_token_that_is_not_known_everywhere_yet_is_tried_again(rig: GitHubRig) -> None:
    rig.toy.lag = 3
    service = await rig.server()

    await rig.connect(service, rig.alice, "octocat")

    assert rig.toy.count("/user") == 4
    assert (await service.status(rig.alice)).username == "octocat"


async def test_a_token_that_github_never_takes_fails_the_flow(rig: GitHubRig) -> None:
    rig.toy.lag = 100
    service = await rig.server()

    with pytest.raises(FlowFailed, match="token_rejected"):
        await rig.connect(service, rig.alice, "octocat")

    assert not (await service.status(rig.alice)).connected
    assert rig.toy.tokens_valid() == set()


async def test_an_account_of_another_user_is_refused_and_the_new_token_ended(
    rig: GitHubRig,
) -> None:
    service = await rig.server()
    await rig.connect(service, rig.bob, "octocat")
    await rig.connect(service, rig.alice, "hubot")
    kept = rig.toy.tokens_valid()
    flow = await service.initiate(rig.alice)
    rig.toy.approve(flow.user_code, "octocat")

    with pytest.raises(GitHubAccountTaken):
        await rig.polled(service, rig.alice, flow)
    with pytest.raises(GitHubAccountTaken):
        await service.poll(rig.alice, flow.handle)

    assert rig.toy.tokens_valid() == kept
    assert (await service.status(rig.alice)).username == "hubot"
    assert (await service.status(rig.bob)).username == "octocat"


async def test_an_account_is_known_by_its_number_whatever_it_is_called(rig: GitHubRig) -> None:
    service = await rig.server()
    await rig.connect(service, rig.bob, "octocat")
    rig.toy.add_user("renamed", id=rig.toy.users["octocat"].id)

    with pytest.raises(GitHubAccountTaken):
        await rig.connect(service, rig.alice, "renamed")


async def test_connecting_again_takes_the_place_of_the_old_tokens(rig: GitHubRig) -> None:
    service = await rig.server()
    await rig.connect(service, rig.alice, "octocat")
    old = await rig.token(service, rig.alice)

    await rig.connect(service, rig.alice, "hubot")

    assert (await service.status(rig.alice)).username == "hubot"
    assert rig.toy.tokens_valid() == {await rig.token(service, rig.alice)}
    assert old not in rig.toy.tokens_valid()
    assert len(await rig.rows("secrets")) == 2


async def test_a_poll_that_is_cut_off_loses_no_token(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    rig.toy.approve(flow.user_code, "octocat")
    rig.toy.hang(REDEEM, after=True)  # GitHub has given the tokens, and the answer is on its way

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.polled, service, rig.alice, flow)
        await eventually(rig.toy.tokens_valid, "the code is redeemed")
        tasks.cancel_scope.cancel()
        rig.toy.release()

    assert [row["state"] for row in await rig.rows("github_flows")] == ["redeemed"]
    await rig.sql("UPDATE github_flows SET next_poll_at = 0")  # the dead server's time is over
    await (await rig.server()).reconcile()
    assert (await service.status(rig.alice)).username == "octocat"
    assert (await service.poll(rig.alice, flow.handle)).state == "completed"


async def test_disconnecting_ends_tokens_that_are_on_their_way(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    rig.toy.approve(flow.user_code, "octocat")
    rig.toy.hang(REDEEM, after=True)
    failures: list[str] = []

    async def poll() -> None:
        try:
            await rig.polled(service, rig.alice, flow)
        except FlowFailed as error:
            failures.append(error.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll)
        await eventually(rig.toy.tokens_valid, "the code is redeemed")
        await service.disconnect(rig.alice)
        rig.toy.release()

    assert failures == ["expired_token"]
    assert rig.toy.tokens_valid() == set()
    assert not (await service.status(rig.alice)).connected
    assert await rig.rows("secrets") == []


async def test_what_only_the_operator_can_mend_is_said_in_words(rig: GitHubRig) -> None:
    service = await rig.server()
    flow = await service.initiate(rig.alice)
    rig.toy.client_id = "Iv1.another"

    with pytest.raises(FlowRefused, match="GITHUB_CLIENT_ID"):
        await service.initiate(rig.bob)
    with pytest.raises(FlowFailed, match="incorrect_client_credentials") as polled:
        await rig.due(service, rig.alice, flow)
    assert "operator" in str(polled.value.answer["message"])

    service = await rig.server()
    rig.toy.device_flow_enabled = False
    with pytest.raises(FlowRefused, match="Enable Device Flow"):
        await service.initiate(rig.bob)


async def test_a_limited_github_says_when_to_try_again(rig: GitHubRig) -> None:
    service = await rig.server()
    rig.toy.fail(DEVICE_CODE, 429, headers={"Retry-After": "77"})

    with pytest.raises(GitHubRateLimited) as limited:
        await service.initiate(rig.alice)

    assert limited.value.retry_after_s == 77


async def test_without_a_client_id_github_is_not_offered(rig: GitHubRig) -> None:
    service = await rig.server(github_client_id="")

    with pytest.raises(GitHubNotConfigured, match="GitHub is not configured"):
        await service.initiate(rig.alice)

    status = await service.status(rig.alice)
    assert (status.configured, status.connected) == (False, False)
    assert await rig.token(service, rig.alice) is None
    await service.reconcile()
    assert rig.toy.calls == []


async def test_ended_flows_are_forgotten_after_an_hour(rig: GitHubRig) -> None:
    service = await rig.server()
    await rig.connect(service, rig.alice, "octocat")
    await service.initiate(rig.bob)
    await service.reconcile()
    assert len(await rig.rows("github_flows")) == 2

    await rig.sql(
        "UPDATE github_flows SET created_at = created_at - 4000, expires_at = expires_at - 4000"
    )
    await service.reconcile()

    assert await rig.rows("github_flows") == []
    assert len(await rig.rows("secrets")) == 2  # the account's own


async def test_a_user_who_is_deleted_takes_everything_along(rig: GitHubRig) -> None:
    service = await rig.server()
    await rig.connect(service, rig.alice, "octocat")
    await service.initiate(rig.alice)

    await rig.sql("DELETE FROM users WHERE name = 'alice'")

    for table in ("github_accounts", "github_flows", "secrets"):
        assert await rig.rows(table) == []


async def test_an_api_that_cannot_be_reached_shuts_nobody_out_of_signing_in(rig: GitHubRig) -> None:
    service = await rig.server(github_api_url=f"http://127.0.0.1:{free_port()}")
    client = GitHubClient(service.http, service.settings, rig.clock)
    for _ in range(VAIN):
        with pytest.raises(GitHubUnavailable):
            await client.person("any")
    with pytest.raises(GitHubUnavailable) as refused:
        await client.person("any")

    begun = await client.begin()

    assert refused.value.context["reason"] == "nor did it lately"
    assert isinstance(begun, DeviceCode)
    assert rig.toy.count(DEVICE_CODE) == 1
