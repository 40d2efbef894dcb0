"""`craftastic github …` and `craftastic host …` against the whole app and a small GitHub."""

import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import uvicorn

from craftastic.app import build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.test_cli_commands import Asked, Cli, Ended
from tests.contract.test_every_route import PASSWORD
from tests.fakes.toy_github import REDEEM, ToyGitHub
from tests.fakes.whole_app import whole_settings
from tests.secrecy import Place, allow, canary

START_S = 20.0
CODE = re.compile(rb"Type   ([0-9A-Z]{4}-[0-9A-Z]{4})")
TOKEN = canary("git-token")

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The command line sees no database: one is enough, and each call is a program to start."""


@dataclass
class Person:
    """Somebody with a command line, and their GitHub."""

    cli: Cli
    github: ToyGitHub

    async def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        return await self.cli(*arguments, stdin=stdin)

    async def connecting(self, *arguments: str) -> tuple[Asked, str]:
        """Begin to connect, and return the code that is shown."""
        asked = Asked(self.cli, "github", "connect", *arguments)
        await asked.shows(b"Ctrl-C leaves")
        found = CODE.search(asked.shown)
        assert found is not None, asked.shown
        return asked, found[1].decode()

    async def connect(self) -> None:
        asked, code = await self.connecting()
        self.github.approve(code, "ada")
        assert await asked.ended() == 0, asked.shown


async def in_memory(settings: Settings, instance: str) -> Runtimes:
    def make(_settings: Settings, _instance: str) -> Runtime:
        return MemoryRuntime()

    return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})


@pytest.fixture
def github() -> object:
    with ToyGitHub(interval=0) as toy:
        toy.add_user("ada")
        yield toy


@pytest.fixture
async def person(tmp_path: Path, database_url: str, github: ToyGitHub) -> AsyncIterator[Person]:
    settings = whole_settings(tmp_path, database_url, **github.settings)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(settings, in_memory), host="127.0.0.1", port=port, log_config=None, ws="none"
        )
    )
    cli = Cli(tmp_path / "person", f"http://127.0.0.1:{port}")
    cli.home.mkdir()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        try:
            with anyio.fail_after(START_S):
                while not server.started:  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.01)
            account = ("--register", "--email", "ada@example.com", "--password-stdin")
            done = await cli("login", *account, stdin=PASSWORD)
            assert done.code == 0, done.err
            yield Person(cli, github)
        finally:
            server.should_exit = True


# ---- GitHub -----------------------------------------------------------------------------------


async def test_connecting_shows_a_code_and_the_fixed_address_and_waits(person: Person) -> None:
    assert "No GitHub account" in (await person("github", "status")).out
    asked, code = await person.connecting()
    assert f"Open   {person.github.url}/login/device\r\n".encode() in asked.shown

    person.github.approve(code, "ada")

    assert await asked.ended() == 0, asked.shown
    assert b"Connected to GitHub as ada." in asked.shown
    assert (await person("github", "status")).out == "Connected to GitHub as ada.\n"
    assert (await person("github", "status", "--json")).json["connected"] is True
    again = await person("github", "connect")
    assert (again.code, "disconnect" in again.err) == (0, True)
    assert (await person("github", "disconnect")).out == "GitHub account disconnected.\n"
    assert (await person("github", "status", "--json")).json["connected"] is False


async def test_a_script_gets_the_account_and_its_person_the_code(person: Person) -> None:
    asked, code = await person.connecting("--json")
    person.github.approve(code, "ada")

    assert await asked.ended() == 0
    assert b'"username": "ada"' in asked.shown


async def test_who_says_no_at_github_is_told_so(person: Person) -> None:
    asked, code = await person.connecting()

    person.github.deny(code)

    assert await asked.ended() == 3
    assert b"was cancelled at GitHub" in asked.shown


async def test_a_code_that_expired_has_the_exit_code_of_what_took_too_long(person: Person) -> None:
    asked, code = await person.connecting()

    person.github.expire(code)

    assert await asked.ended() == 6
    assert b"expired" in asked.shown


async def test_a_github_that_is_away_for_a_while_does_not_end_the_waiting(person: Person) -> None:
    asked, code = await person.connecting()
    person.github.fail(REDEEM, status=502)
    person.github.approve(code, "ada")

    assert await asked.ended() == 0, asked.shown


async def test_leaving_connects_nothing(person: Person) -> None:
    asked, code = await person.connecting()

    asked.process.send_signal(signal.SIGINT)

    assert await asked.ended() == 130
    assert b"Left. Nothing was connected" in asked.shown
    assert (await person("github", "status", "--json")).json["connected"] is False
    assert code in asked.shown.decode()


async def test_a_browser_is_opened_only_when_asked(person: Person) -> None:
    opened = person.cli.home / "opened"
    programs = person.cli.home / "bin"
    programs.mkdir()
    browser = programs / "xdg-open"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >{opened}.new; mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    path = f"{programs}:{person.cli.environment()['PATH']}"
    mine = _WithPath(person.cli.home, person.cli.url, path)
    for arguments, expected in (((), False), (("--open",), True)):
        asked, code = await Person(mine, person.github).connecting(*arguments)
        person.github.approve(code, "ada")
        assert await asked.ended() == 0, asked.shown
        with anyio.move_on_after(5):
            while expected and not opened.exists():  # noqa: ASYNC110 - a program of the system's
                await anyio.sleep(0.02)
        assert opened.exists() is expected
        await person("github", "disconnect")
    assert opened.read_text() == f"{person.github.url}/login/device"


@dataclass(frozen=True)
class _WithPath(Cli):
    path: str

    def environment(self, **variables: str) -> dict[str, str]:
        return super().environment(**variables) | {"PATH": self.path}


async def test_repositories_are_listed_searched_and_given_to_scripts(person: Person) -> None:
    without = await person("github", "repos")
    assert (without.code, "craftastic github connect" in without.err) == (3, True)
    for name in ("first", "second", "evil\x1b[2J"):
        person.github.add_repository("ada", f"ada/{name}", installation=1, private=name == "second")
    await person.connect()

    listed = await person("github", "repos")
    assert listed.code == 0, listed.err
    rows = {line.split("\t")[0]: line.split("\t") for line in listed.out.splitlines()[1:]}
    assert rows["ada/second"][1] == "private"
    assert "\x1b" not in listed.out
    found = await person("github", "repos", "first", "-q")
    assert found.out == f"{rows['ada/first'][4]}\n"
    page = await person("github", "repos", "-n", "1", "--json")
    assert (len(page.json["repositories"]), page.json["has_more"]) == (1, True)
    assert "--page 2" in (await person("github", "repos", "-n", "1")).err


# ---- git hosts --------------------------------------------------------------------------------


async def test_a_host_is_added_replaced_listed_and_removed(person: Person) -> None:
    added = await person("host", "add", "GitLab.example.com", "--password-stdin", stdin=TOKEN)
    assert added.code == 0, added.err
    assert added.out.startswith("Stored for https://gitlab.example.com, user ")
    origin = "https://gitlab.example.com/"
    again = await person("host", "add", origin, "-u", "me", "--password-stdin", stdin=TOKEN)
    assert again.out == "Stored for https://gitlab.example.com, user me.\n"

    listed = await person("host", "ls")
    assert [line.split("\t")[1:3] for line in listed.out.splitlines()[1:]] == [
        ["https://gitlab.example.com", "me"]
    ]
    (known,) = (await person("host", "ls", "--json")).json
    assert (await person("host", "ls", "-q")).out == f"{known['id']}\n"
    assert TOKEN not in added.out + added.err + listed.out + str(known)
    assert (await person("host", "rm", "gitlab.example.com")).code == 2, "nobody can be asked"
    removed = await person("host", "rm", known["id"][:8], "--yes")
    assert removed.code == 0, removed.err
    assert (await person("host", "ls", "--json")).json == []
    assert (await person("host", "rm", "gitlab.example.com", "--yes")).code == 4


async def test_a_password_is_never_an_argument_and_is_never_told(person: Person) -> None:
    allow(Place.ARGUMENTS, value=TOKEN, because="that an argument is refused takes one")
    for arguments, stdin in (
        ((f"https://me:{TOKEN}@gitlab.example.com",), ""),
        ((f"me:{TOKEN}@gitlab.example.com",), ""),
        (("https://gitlab.example.com",), ""),
        (("https://gitlab.example.com", "--password-stdin"), "\n"),
        (("ftp://gitlab.example.com", "--password-stdin"), TOKEN),
        (("https://gitlab.example.com/group", "--password-stdin"), TOKEN),
    ):
        refused = await person("host", "add", *arguments, stdin=stdin)
        assert refused.code == 2, (arguments, refused)
        assert TOKEN not in refused.out + refused.err
    assert (await person("host", "ls", "--json")).json == []
