"""Which credential goes to which origin, and what is kept of it, on both databases."""

import base64
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy

from craftastic.accounts._repository import User
from craftastic.credentials.service import SecretUnreadable
from craftastic.database import Database
from craftastic.errors import InvalidInput
from craftastic.githosts import service as githosts
from craftastic.githosts.service import (
    BadGitHost,
    GitHostNotFound,
    GitHostService,
    TooManyGitHosts,
    asks_for_account,
)
from tests.fakes.clock import FakeClock
from tests.fakes.git_hosts import PlayedGitHub, git_hosts_of
from tests.fakes.workshop import rows

CANARY = "glpat-canary-3f9c"
GITLAB = ("https", "gitlab.example.com", 443)


@dataclass(frozen=True)
class Of:
    """An environment, as far as git hosts look at it."""

    owner_id: UUID


@dataclass
class Desk:
    database: Database
    clock: FakeClock
    github: PlayedGitHub
    hosts: GitHostService
    owner: UUID
    other: UUID


@pytest.fixture
async def desk(database: Database, clock: FakeClock, tmp_path: Path) -> Desk:
    github = PlayedGitHub()
    hosts = git_hosts_of(database, clock, tmp_path, github=github)
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
    return Desk(database, clock, github, hosts, *users)


def header(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


async def test_credential_goes_to_its_origin_for_its_owner_and_nowhere_else(desk: Desk) -> None:
    host = await desk.hosts.put(desk.owner, "https://GitLab.example.com/", CANARY)

    assert (host.origin, host.username) == ("https://gitlab.example.com", "oauth2")
    mine, theirs = Of(desk.owner), Of(desk.other)
    assert await desk.hosts.authorization(mine, *GITLAB) == header("oauth2", CANARY)
    assert await desk.hosts.authorization(theirs, *GITLAB) is None
    for scheme, name, port in [
        ("http", "gitlab.example.com", 443),
        ("http", "gitlab.example.com", 80),
        ("https", "gitlab.example.com", 8443),
        ("https", "example.com", 443),
        ("https", "x.gitlab.example.com", 443),
        ("https", "gitlab.example.com.evil.example", 443),
    ]:
        assert await desk.hosts.authorization(mine, scheme, name, port) is None


async def test_own_credential_goes_before_githubs_token(desk: Desk) -> None:
    mine = Of(desk.owner)
    desk.github.tokens[desk.owner] = "gho_token"

    connected = await desk.hosts.authorization(mine, *desk.github.origin)
    host = await desk.hosts.put(desk.owner, "https://github.com", "github_pat_x")
    own = await desk.hosts.authorization(mine, *desk.github.origin)
    await desk.hosts.remove(desk.owner, host.id)

    assert connected == header("x-access-token", "gho_token")
    assert own == header("x-access-token", "github_pat_x")
    assert await desk.hosts.authorization(mine, *desk.github.origin) == connected
    assert await desk.hosts.authorization(Of(desk.other), *desk.github.origin) is None


async def test_second_credential_of_an_origin_replaces_the_first(desk: Desk) -> None:
    first = await desk.hosts.put(desk.owner, "https://gitlab.example.com", "one", "a")
    desk.clock.advance(60)

    second = await desk.hosts.put(desk.owner, "https://gitlab.example.com:443", "two", "b")

    assert (second.id, second.secret_id) == (first.id, first.secret_id)
    assert second.updated_at > first.updated_at == first.created_at
    assert await desk.hosts.list_owned(desk.owner) == [second]
    assert await desk.hosts.list_owned(desk.other) == []
    assert await desk.hosts.authorization(Of(desk.owner), *GITLAB) == header("b", "two")
    assert len(await rows(desk.database, "SELECT id FROM secrets")) == 1


async def test_credentials_stored_at_once_for_one_origin_leave_one(desk: Desk) -> None:
    async def put(password: str) -> None:
        await desk.hosts.put(desk.owner, "https://gitlab.example.com", password)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(put, f"p{number}")

    assert len(await desk.hosts.list_owned(desk.owner)) == 1
    assert len(await rows(desk.database, "SELECT id FROM secrets")) == 1


async def test_removed_host_takes_its_secret_along_and_is_only_the_owners_to_remove(
    desk: Desk,
) -> None:
    host = await desk.hosts.put(desk.owner, "https://gitlab.example.com", CANARY)

    with pytest.raises(GitHostNotFound):
        await desk.hosts.remove(desk.other, host.id)
    await desk.hosts.remove(desk.owner, host.id)
    with pytest.raises(GitHostNotFound):
        await desk.hosts.remove(desk.owner, host.id)

    assert await rows(desk.database, "SELECT id FROM secrets") == []
    assert await desk.hosts.authorization(Of(desk.owner), *GITLAB) is None


async def test_hosts_of_a_user_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(githosts, "MAX_HOSTS_PER_USER", 2)
    for name in ("a", "b"):
        await desk.hosts.put(desk.owner, f"https://{name}.example", "x")

    with pytest.raises(TooManyGitHosts):
        await desk.hosts.put(desk.owner, "https://c.example", "x")

    await desk.hosts.put(desk.owner, "https://b.example", "replaced")
    await desk.hosts.put(desk.other, "https://c.example", "x")
    assert len(await desk.hosts.list_owned(desk.owner)) == 2


@pytest.mark.parametrize(
    ("origin", "password", "username"),
    [
        ("https://gitlab.example.com/group", "x", None),
        ("https://u:p@gitlab.example.com", "x", None),
        ("ftp://gitlab.example.com", "x", None),
        ("https://gitlab.example.com", "", None),
        ("https://gitlab.example.com", "x\r\nX-Evil: 1", None),
        ("https://gitlab.example.com", "x", "a:b"),
        ("https://gitlab.example.com", "x", "a\n"),
    ],
)
async def test_what_cannot_be_sent_is_refused_and_nothing_is_stored(
    desk: Desk, origin: str, password: str, username: str | None
) -> None:
    with pytest.raises(BadGitHost):
        await desk.hosts.put(desk.owner, origin, password, username)

    assert await desk.hosts.list_owned(desk.owner) == []
    assert await rows(desk.database, "SELECT id FROM secrets") == []


async def test_refused_credential_is_remembered_until_it_is_taken_or_replaced(desk: Desk) -> None:
    mine = Of(desk.owner)
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", "bad")

    again = await desk.hosts.rejected(mine, *GITLAB, header("oauth2", "bad"))
    (refused,) = await desk.hosts.list_owned(desk.owner)
    await desk.hosts.accepted(mine, *GITLAB)
    (taken,) = await desk.hosts.list_owned(desk.owner)
    await desk.hosts.rejected(mine, *GITLAB, header("oauth2", "bad"))
    replaced = await desk.hosts.put(desk.owner, "https://gitlab.example.com", "good")

    assert again is False
    assert refused.last_error == "gitlab.example.com refused it at 2026-11-24 15:03 UTC."
    assert (taken.last_error, taken.last_used_at) == (None, desk.clock.now())
    assert replaced.last_error is None
    assert desk.github.rejections == []


async def test_credential_that_was_replaced_meanwhile_is_worth_another_try(desk: Desk) -> None:
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", "new")

    assert await desk.hosts.rejected(Of(desk.owner), *GITLAB, header("oauth2", "old"))

    (host,) = await desk.hosts.list_owned(desk.owner)
    assert host.last_error is None


async def test_githubs_rejection_is_told_to_it_and_a_new_token_or_none_is_worth_a_try(
    desk: Desk,
) -> None:
    mine, origin = Of(desk.owner), desk.github.origin
    desk.github.tokens[desk.owner], desk.github.renewed[desk.owner] = "old", "new"

    renewed = await desk.hosts.rejected(mine, *origin, header("x-access-token", "old"))
    after = await desk.hosts.authorization(mine, *origin)
    dead = await desk.hosts.rejected(mine, *origin, header("x-access-token", "new"))

    assert (renewed, after) == (True, header("x-access-token", "new"))
    assert dead  # once, as a stranger: the repository may be public
    assert await desk.hosts.authorization(mine, *origin) is None
    assert desk.github.rejections == [(desk.owner, "old"), (desk.owner, "new")]


async def test_use_is_written_rarely(desk: Desk) -> None:
    mine = Of(desk.owner)
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", "x")
    moments = []
    for minutes in (0, 5, 4, 2):
        desk.clock.advance(60 * minutes)
        await desk.hosts.accepted(mine, *GITLAB)
        (host,) = await desk.hosts.list_owned(desk.owner)
        moments.append(host.last_used_at)

    first = moments[0]
    assert first is not None
    assert moments == [first, first, first, first + timedelta(minutes=11)]
    await desk.hosts.accepted(Of(desk.other), *GITLAB)  # nothing of theirs to write


async def test_changes_are_audited_without_the_password(desk: Desk) -> None:
    host = await desk.hosts.put(desk.owner, "https://gitlab.example.com", CANARY, "me")
    await desk.hosts.remove(desk.owner, host.id)

    events = await desk.hosts.audit.list_for(desk.owner)

    assert [(one.action, one.object_id) for one in events] == [
        ("git_host.delete", str(host.id)),
        ("git_host.put", str(host.id)),
    ]
    assert events[0].details == {"origin": "https://gitlab.example.com", "username": "me"}
    assert CANARY not in str(events)


async def test_password_is_nowhere_in_the_database_in_the_clear(desk: Desk) -> None:
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", CANARY)
    await desk.hosts.rejected(Of(desk.owner), *GITLAB, header("oauth2", CANARY))

    async with desk.database.read() as tx:
        connection = await tx.connection()
        names = await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())
    text = "".join([str(await rows(desk.database, f"SELECT * FROM {name}")) for name in names])  # noqa: S608 - names of tables

    assert "gitlab.example.com" in text
    assert CANARY not in text
    assert base64.b64encode(f"oauth2:{CANARY}".encode()).decode() not in text


async def test_secret_that_was_tampered_with_is_not_sent(desk: Desk) -> None:
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", "mine")
    await desk.hosts.put(desk.other, "https://gitlab.example.com", "theirs")
    async with desk.database.begin() as tx:
        await tx.execute(
            sqlalchemy.text(
                "UPDATE secrets SET value = (SELECT value FROM secrets WHERE owner_id = :other)"
                " WHERE owner_id = :owner"
            ).bindparams(
                sqlalchemy.bindparam("other", desk.other, sqlalchemy.Uuid()),
                sqlalchemy.bindparam("owner", desk.owner, sqlalchemy.Uuid()),
            )
        )

    with pytest.raises(SecretUnreadable):
        await desk.hosts.authorization(Of(desk.owner), *GITLAB)


MOVES_ORIGIN = """
    UPDATE git_hosts SET origin = 'https://evil.example.com'
    WHERE origin = 'https://gitlab.example.com'
"""
MOVES_SECRET = """
    UPDATE git_hosts SET secret_id = (
        SELECT secret_id FROM git_hosts WHERE origin = 'https://gitlab.example.com'
    ) WHERE origin = 'https://evil.example.com'
"""


@pytest.mark.parametrize("change", [MOVES_ORIGIN, MOVES_SECRET], ids=["origin", "secret"])
async def test_credential_that_was_moved_to_another_origin_is_not_sent_there(
    desk: Desk, change: str
) -> None:
    """Whoever can write the database alone cannot have a password sent to a host of their own."""
    mine, evil = Of(desk.owner), ("https", "evil.example.com", 443)
    await desk.hosts.put(desk.owner, "https://gitlab.example.com", CANARY)
    if change is MOVES_SECRET:
        await desk.hosts.put(desk.owner, "https://evil.example.com", "bait")
    async with desk.database.begin() as tx:
        await tx.execute(sqlalchemy.text(change))

    with pytest.raises(SecretUnreadable):
        await desk.hosts.authorization(mine, *evil)

    await desk.hosts.put(desk.owner, "https://evil.example.com", "new")
    assert await desk.hosts.authorization(mine, *evil) == header("oauth2", "new")
    if change is MOVES_SECRET:
        assert await desk.hosts.authorization(mine, *GITLAB) == header("oauth2", CANARY)


def test_purpose_of_an_origin_is_its_own_and_fits_its_column() -> None:
    names = ["https://a.example.com", "https://a.example.com:8443", f"https://{'x' * 290}"]

    purposes = {githosts.purpose_of(name) for name in names}

    assert len(purposes) == len(names)
    assert max(len(one) for one in purposes) <= 64


async def test_rules_of_the_gateway_decide_about_origins(
    database: Database, clock: FakeClock, tmp_path: Path, desk: Desk
) -> None:
    strict = replace(desk.hosts, parse_origin=_refuse)

    with pytest.raises(InvalidInput, match="not there"):
        await strict.put(desk.owner, "https://10.0.0.1", "x")


def _refuse(address: str) -> tuple[str, str, int]:
    raise InvalidInput(f"{address} is not there")


def test_way_on_names_what_can_be_done(database_free: GitHostService) -> None:
    other, github = GITLAB, ("https", "github.com", 443)
    hosts = database_free

    assert hosts.way_on(*github, tried=False) == "connect GitHub to Craftastic, then try again"
    assert "connect GitHub again" in hosts.way_on(*github, tried=True)
    assert "add a credential for the git host https://gitlab.example.com" in hosts.way_on(
        *other, tried=False
    )
    assert "replace the credential" in hosts.way_on(*other, tried=True)
    assert "git host https://github.com" in replace(hosts, github_origin=None).way_on(
        *github, tried=False
    )


@pytest.fixture
def database_free(clock: FakeClock, tmp_path: Path) -> GitHostService:
    """Give a service whose database is never asked."""
    return git_hosts_of(Database(f"sqlite+aiosqlite:///{tmp_path}/never.db"), clock, tmp_path)


def test_wish_for_an_account_is_found_in_what_git_printed() -> None:
    said = (
        "remote: git.example asks for an account with the right\n to this repository: x.\n"
        "fatal: unable to access"
    )

    assert asks_for_account(said)
    assert not asks_for_account("fatal: repository not found")
