"""`craftastic admin …` on the database, and `craftastic token …` against a server, as processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn

from craftastic.app import build_app
from craftastic.migrations import runner
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import driver_url, free_port
from tests.contract.test_cli_commands import Cli
from tests.fakes.people import PASSWORD, signed_in
from tests.fakes.whole_app import whole_app, whole_settings

START_S = 20.0


def operator(folder: Path, url: str) -> Cli:
    """Return the command line on the server's machine, with the server's settings."""

    class Here(Cli):
        def environment(self, **variables: str) -> dict[str, str]:
            more = {"DATABASE_URL": url, "CRAFTASTIC_RUNTIME": "local"}
            return super().environment(**more, **variables)

    return Here(folder, None)


async def test_accounts_are_managed_without_a_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    admin = operator(tmp_path, url)
    await runner.upgrade(driver_url(url))

    first = await admin("admin", "user", "add", "chief@example.com")
    second = await admin("admin", "user", "add", "b@example.com", "--name", "Bee", "--json")
    disabled = await admin("admin", "user", "disable", "B@example.com")
    last = await admin("admin", "user", "disable", "chief@example.com")
    listed = await admin("admin", "user", "ls")

    assert first.code == 0, first.err
    assert first.out.startswith("http://127.0.0.1:3000/reset-password#token=")
    assert "chief@example.com" in first.err
    assert (second.json["user"]["isAdmin"], second.json["user"]["name"]) == (False, "Bee")
    assert (disabled.code, disabled.out) == (0, "Disabled b@example.com.\n")
    assert (last.code, last.out) == (5, "")
    assert "only administrator" in last.err
    assert listed.out.splitlines() == [
        "email\tname\trole\tstate\tlast login",
        "b@example.com\tBee\tuser\tdisabled\t-",
        "chief@example.com\tchief\tadministrator\tno password yet\t-",
    ]


async def test_a_link_and_an_invitation_of_the_command_line_work_at_the_server(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    admin = operator(tmp_path, url)
    settings = whole_settings(tmp_path, url, registration="invite")
    async with whole_app(settings) as (client, _):
        made = await admin("admin", "user", "add", "a@example.com")
        token = made.out.strip().partition("#token=")[2]
        body = {"token": token, "password": PASSWORD}
        reset = await client.post("/api/auth/reset-password", json=body)
        login = await client.post(
            "/api/auth/login", json={"email": "a@example.com", "password": PASSWORD}
        )
        invited = await admin("admin", "invite", "b@example.com")
        await signed_in(client, "b@example.com", invitation=invited.out.strip())
        again = await admin("admin", "user", "reset", "a@example.com")
        after = await client.post(
            "/api/auth/login", json={"email": "a@example.com", "password": PASSWORD}
        )

    assert (reset.status_code, login.status_code) == (200, 200)
    assert (again.code, after.status_code) == (0, 401)


async def test_without_a_database_or_an_account_the_command_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    admin = operator(tmp_path, url)

    nothing = await admin("admin", "user", "ls")
    await runner.upgrade(driver_url(url))
    unknown = await admin("admin", "user", "enable", "nobody@example.com")

    assert (nothing.code, "no database" in nothing.err) == (7, True)
    assert (unknown.code, unknown.err) == (4, "craftastic: User not found\n")


async def _in_memory(settings: Settings, instance: str) -> Runtimes:
    def make(_settings: Settings, _instance: str) -> Runtime:
        return MemoryRuntime()

    return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})


@pytest.fixture
async def person(tmp_path: Path) -> AsyncIterator[Cli]:
    """Give the command line of somebody who is signed in at a server."""
    port = free_port()
    app = build_app(whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}"), _in_memory)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, ws="none")
    )
    url = f"http://127.0.0.1:{port}"
    async with anyio.create_task_group() as tasks, httpx.AsyncClient(base_url=url) as client:
        tasks.start_soon(server.serve)
        try:
            with anyio.fail_after(START_S):
                while not server.started:  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.01)
            await signed_in(client, "a@example.com")
            cli = Cli(tmp_path / "person", url)
            cli.home.mkdir()
            account = ("--email", "a@example.com", "--password-stdin")
            done = await cli("login", *account, stdin=PASSWORD)
            assert done.code == 0, done.err
            yield cli
        finally:
            server.should_exit = True


async def test_a_token_signs_a_program_in_until_it_is_revoked(person: Cli) -> None:
    program = Cli(person.home.parent / "program", person.url)
    program.home.mkdir()
    made = await person("token", "create", "ci", "--scope", "read", "--days", "7")
    secret = made.out.strip()

    login = await program("login", "--token-stdin", stdin=made.out)
    who = await program("whoami")
    refused = await program("token", "create", "more")
    listed = await person("token", "ls", "--json")
    removed = await person("token", "rm", "ci", "--yes")
    after = await program("whoami")
    again = await program("login", "--token-stdin", stdin=made.out)

    assert login.out == f"Signed in at {person.url} as a@example.com.\n"
    assert who.code == 0
    assert (refused.code, "may only read" in refused.err) == (3, True)
    assert [(one["name"], one["scope"]) for one in listed.json] == [("ci", "read")]
    assert listed.json[0]["lastUsedAt"] is not None
    assert removed.out == "Revoked ci.\n"
    assert (after.code, "was revoked" in after.err) == (3, True)
    assert (again.code, again.out) == (3, "")
    told = "".join(one.out + one.err for one in (login, who, refused, listed, removed, after))
    assert secret not in told


async def test_signing_out_only_forgets_an_access_token(person: Cli) -> None:
    made = await person("token", "create", "ci")
    program = Cli(person.home.parent / "program", person.url)
    program.home.mkdir()
    await program("login", "--token-stdin", stdin=made.out)

    out = await program("logout")
    before = await program("whoami")
    await program("login", "--token-stdin", stdin=made.out)
    after = await program("whoami")

    assert "stays good" in out.err
    assert (before.code, after.code) == (3, 0)
