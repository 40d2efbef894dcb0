"""Lists of repositories, on both databases, against a toy GitHub."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from craftastic.database import Database
from craftastic.github.service import (
    GitHubAuthenticationRequired,
    GitHubRateLimited,
    GitHubRefused,
    GitHubService,
    GitHubUnavailable,
    RepositoryPage,
)
from tests.fakes.clock import FakeClock
from tests.fakes.github_rig import GitHubRig, github_rig
from tests.fakes.toy_github import REDEEM, ToyGitHub


@pytest.fixture
async def oauth(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitHubRig]:
    async with github_rig(database, clock, tmp_path, ToyGitHub(kind="oauth", interval=0.01)) as rig:
        yield rig


@pytest.fixture
async def app(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitHubRig]:
    async with github_rig(database, clock, tmp_path, ToyGitHub(interval=0.01)) as rig:
        yield rig


async def connected(rig: GitHubRig) -> GitHubService:
    service = await rig.server()
    await rig.connect(service, rig.alice, "octocat")
    return service


def names(page: RepositoryPage) -> list[str]:
    return [one.full_name for one in page.repositories]


async def test_an_oauth_apps_list_is_githubs_page_by_page(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    for number in range(5):
        oauth.toy.add_repository("octocat", f"octocat/r{number}")

    first = await service.repos(oauth.alice, page=1, per_page=2, sort="full_name")
    second = await service.repos(oauth.alice, page=2, per_page=2, sort="updated")
    last = await service.repos(oauth.alice, page=3, per_page=2, sort="full_name")

    assert (names(first), first.next_page) == (["octocat/r0", "octocat/r1"], 2)
    assert (names(second), second.next_page) == (["octocat/r2", "octocat/r1"], 3)
    assert (names(last), last.next_page) == (["octocat/r4"], None)
    assert first.install_url is None
    call = oauth.toy.called("/user/repos")[0]
    assert call.query["affiliation"] == "owner,collaborator,organization_member"
    assert call.headers["x-github-api-version"] == "2022-11-28"
    assert call.headers["accept"] == "application/vnd.github+json"
    assert call.headers["user-agent"].startswith("craftastic/")


async def test_words_are_looked_for_in_all_repositories(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    for number in range(250):
        oauth.toy.add_repository("octocat", f"octocat/r{number:03}")
    oauth.toy.add_repository("octocat", "octocat/zoo", description="The Ärgerliche Cat")

    found = await service.repos(oauth.alice, query="r24 octo", per_page=4, sort="full_name")
    more = await service.repos(oauth.alice, query="r24", per_page=4, page=3, sort="full_name")
    told = await service.repos(oauth.alice, query="ärgerliche CAT")

    assert names(found) == [f"octocat/r{number}" for number in range(240, 244)]
    assert (names(more), more.next_page) == (["octocat/r248", "octocat/r249"], None)
    assert names(told) == ["octocat/zoo"]


async def test_an_apps_list_is_that_of_all_its_installations(app: GitHubRig) -> None:
    service = await connected(app)
    for number in range(130):
        app.toy.add_repository("octocat", f"octocat/r{number:03}", installation=1)
    shared = app.toy.add_repository("octocat", "org/shared", installation=2)
    app.toy.installations["octocat"][3] = [shared]
    app.toy.add_repository("octocat", "octocat/not-installed")

    first = await service.repos(app.alice, per_page=100, sort="full_name")
    last = await service.repos(app.alice, per_page=100, page=2, sort="full_name")

    assert names(first)[0] == "octocat/r000"
    assert (len(names(first)), first.next_page) == (100, 2)
    assert (names(last)[-1], len(names(last)), last.next_page) == ("org/shared", 31, None)
    assert first.install_url == f"{app.toy.url}/github-apps/toy-app/installations/new"


async def test_an_app_that_is_not_installed_says_where_to_install_it(app: GitHubRig) -> None:
    service = await connected(app)
    named = await app.server(github_app_slug="my-app")

    nowhere = await service.repos(app.alice)
    somewhere = await named.repos(app.alice)

    assert nowhere.repositories == []
    assert nowhere.install_url == f"{app.toy.url}/settings/installations"
    assert somewhere.install_url == f"{app.toy.url}/github-apps/my-app/installations/new"


async def test_what_has_not_changed_is_not_sent_again(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    oauth.toy.add_repository("octocat", "octocat/a")
    first = await service.repos(oauth.alice)

    again = await service.repos(oauth.alice)
    oauth.toy.add_repository("octocat", "octocat/b")
    changed = await service.repos(oauth.alice)

    assert [call.status for call in oauth.toy.called("/user/repos")] == [200, 304, 200]
    assert names(first) == names(again) == ["octocat/a"]
    assert sorted(names(changed)) == ["octocat/a", "octocat/b"]


async def test_what_is_remembered_is_bounded_and_goes_with_the_connection(
    oauth: GitHubRig,
) -> None:
    service = await connected(oauth)
    for page in range(1, 40):
        await service.repos(oauth.alice, page=page)
    cache = service._lists._cache

    assert len(cache) == 25
    await service.disconnect(oauth.alice)
    assert len(cache) == 0


async def test_a_list_without_a_connection_is_refused(oauth: GitHubRig) -> None:
    service = await oauth.server()

    with pytest.raises(GitHubAuthenticationRequired, match="GitHub authentication required"):
        await service.repos(oauth.alice)


async def test_a_token_that_died_is_exchanged_for_the_list(app: GitHubRig) -> None:
    service = await connected(app)
    app.toy.add_repository("octocat", "octocat/a", installation=1)
    app.later(60)
    app.toy.fail("/user/installations", 401)

    assert names(await service.repos(app.alice)) == ["octocat/a"]

    assert app.toy.count(REDEEM, grant_type="refresh_token") == 1


async def test_a_revoked_token_ends_the_connection_and_the_list(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    for one in oauth.toy.tokens.values():
        one.dead = True
    oauth.later(60)

    with pytest.raises(GitHubAuthenticationRequired):
        await service.repos(oauth.alice)

    assert (await service.status(oauth.alice)).needs_reconnect


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"Retry-After": "7"}, 7),
        (403, {"Retry-After": "9"}, 9),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, 1),
        (403, {"X-RateLimit-Remaining": "0"}, 60),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, 3600),
    ],
)
async def test_a_limit_says_when_to_come_again_and_ends_nothing(
    oauth: GitHubRig, status: int, headers: dict[str, str], wait_s: float
) -> None:
    service = await connected(oauth)
    oauth.toy.fail("/user/repos", status, headers=headers, body={"message": "x"})

    with pytest.raises(GitHubRateLimited) as limited:
        await service.repos(oauth.alice)

    assert limited.value.retry_after_s == wait_s
    assert (await service.status(oauth.alice)).connected


async def test_single_sign_on_is_shown_by_its_address_at_github_only(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    oauth.toy.add_repository("octocat", "octocat/a")
    inside = f"{oauth.toy.url}/orgs/acme/sso?authorization_request=x"
    for header, shown in (
        (f"required; url={inside}", inside),
        ("required; url=https://evil.example/sso", None),
        ("partial-results; organizations=1,2", None),
    ):
        oauth.toy.sso = header
        assert (await service.repos(oauth.alice)).sso_url == shown, header
        oauth.toy.add_repository("octocat", f"octocat/after-{len(header)}")

    oauth.toy.fail("/user/repos", 403, headers={"X-GitHub-SSO": f"required; url={inside}"})
    with pytest.raises(GitHubRefused) as refused:
        await service.repos(oauth.alice)
    assert refused.value.answer == {"sso_url": inside}


async def test_a_next_page_elsewhere_is_not_followed(oauth: GitHubRig) -> None:
    service = await connected(oauth)
    link = f'<{oauth.toy.url}.evil.example/api/v3/user/repos?page=2>; rel="next"'
    oauth.toy.fail("/user/repos", 200, body=[], headers={"Link": link})

    found = await service.repos(oauth.alice, query="x")

    assert (found.repositories, found.next_page) == ([], None)
    assert oauth.toy.count("/user/repos") == 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>", {}),
        (200, b"[" * 100_000, {}),
        (200, b'"' + b"x" * (9 << 20) + b'"', {}),
        (301, b"", {"Location": "/api/v3/user"}),
        (302, b"", {"Location": "https://evil.example/"}),
        (502, b"unicorn", {}),
        (200, b"[]", {"Content-Encoding": "gzip"}),
    ],
    ids=["html", "deep", "large", "moved", "moved away", "down", "not what it says"],
)
async def test_an_answer_that_means_nothing_is_github_being_away(
    oauth: GitHubRig, status: int, body: bytes, headers: dict[str, str]
) -> None:
    service = await connected(oauth)
    if headers.get("Content-Encoding"):
        body = b"\x1f\x8b" + body
    oauth.toy.fail("/user/repos", status, body=body, headers=headers)
    asked = len(oauth.toy.calls)

    with pytest.raises(GitHubUnavailable):
        await service.repos(oauth.alice)

    assert len(oauth.toy.calls) == asked + 1
    assert (await service.status(oauth.alice)).connected
