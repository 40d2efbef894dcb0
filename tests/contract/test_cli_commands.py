"""The commands as processes of their own, against a small API: what they print, and their codes."""

import contextlib
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.fakes.api_server import PASSWORD, SETUP_TOKEN, ApiServer, running
from tests.fakes.git_http_server import GitHttpServer

EMAIL = "a@example.com"
TIMEOUT_S = 120.0
REPOSITORY = "https://example.com/owner/project.git"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """The command line of one user on one machine."""

    home: Path
    url: str | None

    async def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> Ended:
        with anyio.fail_after(TIMEOUT_S):
            done = await anyio.run_process(
                [sys.executable, "-m", "craftastic", *arguments],
                input=stdin.encode(),
                env=self.environment(**variables),
                cwd=self.home,
                check=False,
            )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],  # noqa: TID251 - a child's environment
            "LANG": "C.UTF-8",
            "CRAFTASTIC_DATA_DIR": str(self.home / "data"),
            **({"CRAFTASTIC_URL": self.url} if self.url else {}),
            **variables,
        }

    @property
    def contexts(self) -> Path:
        return self.home / ".config" / "craftastic" / "contexts.json"


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with running() as api:
        yield api


@pytest.fixture
def stranger(api: ApiServer, tmp_path: Path) -> Cli:
    return Cli(tmp_path, api.url)


@pytest.fixture
async def cli(api: ApiServer, stranger: Cli) -> Cli:
    """Give the command line of somebody who is signed in."""
    api.add_account(EMAIL)
    done = await stranger("login", "--email", EMAIL, "--password-stdin", stdin=PASSWORD + "\n")
    assert done.code == 0, done.err
    return stranger


# ---- signing in -------------------------------------------------------------------------------


async def test_signing_in_keeps_tokens_that_only_the_user_can_read(
    api: ApiServer, cli: Cli
) -> None:
    assert stat.S_IMODE(cli.contexts.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.contexts.parent.stat().st_mode) == 0o700

    done = await cli("whoami")

    assert (done.code, done.out) == (0, f"{EMAIL} (A) at {api.url}\n")


async def test_the_server_that_was_signed_in_to_is_the_one_talked_to(
    api: ApiServer, tmp_path: Path
) -> None:
    api.add_account(EMAIL)
    cli = Cli(tmp_path, None)

    done = await cli("login", api.url, "--email", EMAIL, "--password-stdin", stdin=PASSWORD)

    assert done.code == 0
    assert (await cli("whoami")).code == 0


async def test_a_wrong_password_has_the_exit_code_of_sign_ins(
    api: ApiServer, stranger: Cli
) -> None:
    done = await stranger("login", "--email", EMAIL, "--password-stdin", stdin="wrong")

    assert done.code == 3
    assert done.err == "craftastic: Invalid email or password\n"


async def test_signing_out_ends_the_sign_in_at_the_server_too(api: ApiServer, cli: Cli) -> None:
    done = await cli("logout")

    assert done.code == 0
    assert api.living == {}
    assert (await cli("whoami")).code == 3


async def test_the_first_account_finds_its_token_on_this_machine(
    api: ApiServer, stranger: Cli
) -> None:
    keys = stranger.home / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "first-account-token").write_text(SETUP_TOKEN)

    done = await stranger("login", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)

    assert done.code == 0, done.err
    assert api.registrations[0]["setupToken"] == SETUP_TOKEN
    assert api.registrations[0]["email"] == EMAIL


async def test_later_accounts_come_by_invitation(api: ApiServer, cli: Cli) -> None:
    invitation = cli.home / "invitation"
    invitation.write_text((await cli("invite")).out)
    other = Cli(cli.home / "other", cli.url)
    other.home.mkdir()

    done = await other(
        "login",
        "--register",
        *("--email", "b@example.com"),
        *("--name", "B"),
        "--password-stdin",
        *("--invitation-file", str(invitation)),
        stdin=PASSWORD,
    )

    assert done.code == 0, done.err
    assert api.registrations[-1]["invitation"] == "invited"


async def test_a_refresh_token_on_standard_input_signs_in(api: ApiServer, stranger: Cli) -> None:
    api.add_account(EMAIL)
    token = api.tokens(api.accounts[EMAIL])["refreshToken"]

    done = await stranger("login", "--token-stdin", stdin=token)

    assert done.code == 0
    assert token not in api.living


async def test_without_a_terminal_nobody_is_asked(api: ApiServer, stranger: Cli) -> None:
    done = await stranger("up", REPOSITORY)

    assert done.code == 3
    assert "--email, --password-stdin" in done.err
    assert api.registrations == []


async def test_twelve_commands_at_once_renew_one_sign_in_once(tmp_path: Path) -> None:
    async with running(refresh_pause_s=2.0) as api:
        api.add_account(EMAIL)
        cli = Cli(tmp_path, api.url)
        await cli("login", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
        contexts = json.loads(cli.contexts.read_text())
        contexts["contexts"][api.url]["expires_at"] = 0
        cli.contexts.write_text(json.dumps(contexts))
        ended: list[Ended] = []

        async def command() -> None:
            ended.append(await cli("whoami"))

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(command)

        assert [one.code for one in ended] == [0] * 12
        assert (api.refreshes, api.reused) == (1, 0)


async def test_a_token_that_the_server_refuses_is_renewed_and_the_request_repeated(
    api: ApiServer, cli: Cli
) -> None:
    api.access.clear()

    assert (await cli("whoami")).code == 0
    assert api.refreshes == 1


async def test_a_sign_in_that_has_ended_is_forgotten(api: ApiServer, cli: Cli) -> None:
    api.access.clear()
    api.living.clear()

    done = await cli("whoami")

    assert done.code == 3
    assert "craftastic login" in done.err
    assert json.loads(cli.contexts.read_text())["contexts"] == {}


async def test_a_damaged_file_of_sign_ins_says_what_to_do(cli: Cli) -> None:
    cli.contexts.write_text("{")

    done = await cli("whoami")

    assert done.code == 2
    assert f"{cli.contexts}" in done.err


# ---- listings ---------------------------------------------------------------------------------


async def test_listings_come_as_table_as_json_and_as_ids(api: ApiServer, cli: Cli) -> None:
    made = api.add_environment("one", REPOSITORY)
    session = api.add_session(made, "main")
    api.add_session(made, "old", status="dead")

    assert (await cli("env", "ls", "-q")).out == f"{made['id']}\n"
    assert (await cli("env", "ls", "--json")).json == [made]
    assert (await cli("env", "ls")).out.splitlines()[1].split("\t")[:3] == [
        made["id"][:8],
        "one",
        "running",
    ]
    assert (await cli("session", "ls", "-q")).out == f"{session['id']}\n"
    assert len((await cli("session", "ls", "--all", "--json")).json) == 2


async def test_what_strangers_named_cannot_drive_the_terminal(api: ApiServer, cli: Cli) -> None:
    api.add_environment("evil\x1b]0;pwned\x07\nname", None)

    done = await cli("env", "ls")

    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 2


@pytest.mark.parametrize("how", ["name", "id", "prefix"])
async def test_an_environment_is_found_by_name_id_or_prefix(
    api: ApiServer, cli: Cli, how: str
) -> None:
    made = api.add_environment("one", REPOSITORY)
    api.add_environment("another", None)
    wanted = {"name": "one", "id": made["id"], "prefix": made["id"][:13]}[how]

    assert (await cli("env", "show", wanted, "--json")).json["id"] == made["id"]


async def test_an_absent_name_and_an_unclear_one_have_their_codes(api: ApiServer, cli: Cli) -> None:
    first, second = api.add_environment("a", None), api.add_environment("b", None)
    first["id"], second["id"] = "abc-1", "abc-2"

    assert (await cli("env", "show", "nothing")).code == 4
    unclear = await cli("env", "show", "abc")
    assert unclear.code == 2
    assert "abc-1" in unclear.err


async def test_removing_asks_for_yes_and_tells_what_is_gone_and_kept(
    api: ApiServer, cli: Cli
) -> None:
    made = api.add_environment("one", REPOSITORY)
    api.add_session(made, "main")

    assert (await cli("env", "rm", "one")).code == 2
    session = await cli("session", "rm", "main", "--yes")
    environment = await cli("env", "rm", "one", "--yes")

    assert "1 commit that was not pushed: refs/craftastic/kept/x" in session.out
    assert "2 commits that were not pushed" in environment.out
    assert api.environments == []


async def test_creating_prints_the_id(api: ApiServer, cli: Cli) -> None:
    made = await cli("env", "create", REPOSITORY, "-q")
    session = await cli("session", "create", made.out.strip(), "-b", "work", "-q")

    assert made.out.strip() == api.environments[0]["id"]
    assert session.out.strip() == api.sessions[0]["id"]
    assert api.sessions[0]["gitBranch"] == "work"


# ---- up ---------------------------------------------------------------------------------------


async def test_up_makes_everything_and_shows_every_stage(api: ApiServer, cli: Cli) -> None:
    api.stages = [
        {"step": "image", "message": "Building the image", "percent": 40},
        {"step": "sandbox", "message": "Starting the sandbox"},
        {"step": "clone", "message": "Cloning", "percent": 90},
    ]

    done = await cli("up", REPOSITORY, "-b", "work", "--detach")

    assert done.code == 0, done.err
    assert done.out == (
        f"environment {api.environments[0]['id']}\nsession {api.sessions[0]['id']}\n"
    )
    assert api.environments[0]["name"] == "project"
    assert api.sessions[0]["gitBranch"] == "work"
    for line in (
        "Sandbox image: Building the image (40 %)",
        "Sandbox: Starting the sandbox",
        "Clone: Cloning (90 %)",
    ):
        assert line in done.err


@pytest.mark.parametrize(
    "spelling",
    [REPOSITORY, "https://EXAMPLE.com/owner/project/", "git@example.com:owner/project.git"],
)
async def test_up_again_finds_what_is_there(api: ApiServer, cli: Cli, spelling: str) -> None:
    first = await cli("up", REPOSITORY, "--detach")
    again = await cli("up", spelling, "--detach")

    assert again.out == first.out
    assert len(api.sessions) == 1


async def test_up_chooses_another_name_when_another_repository_has_it(
    api: ApiServer, cli: Cli
) -> None:
    api.add_environment("project", "https://example.com/other/project")

    done = await cli("up", REPOSITORY, "--detach")

    assert done.code == 0
    assert api.environments[0]["name"] == "project-2"


async def test_up_never_takes_a_chosen_name_from_another_repository(
    api: ApiServer, cli: Cli
) -> None:
    api.add_environment("mine", "https://example.com/other/project")

    done = await cli("up", REPOSITORY, "--name", "mine", "--detach")

    assert done.code == 5


async def test_up_starts_a_stopped_environment(api: ApiServer, cli: Cli) -> None:
    made = api.add_environment("project", REPOSITORY, status="stopped")

    done = await cli("up", REPOSITORY, "--detach")

    assert done.code == 0
    assert made["status"] == "running"


async def test_up_tells_why_a_create_failed(api: ApiServer, cli: Cli) -> None:
    api.fail_create = (503, {"error": "Docker does not answer.", "details": "Start it."})

    done = await cli("up", REPOSITORY, "--detach")

    assert done.code == 7
    assert "craftastic: Docker does not answer.\n  Start it.\n" in done.err


async def test_up_in_a_clone_takes_its_origin_without_the_password(
    api: ApiServer, cli: Cli
) -> None:
    origin = "https://me:secret@example.com/owner/project.git"
    for command in (["init", "-q", "clone"], ["-C", "clone", "remote", "add", "origin", origin]):
        await anyio.run_process(["git", *command], cwd=cli.home, env=cli.environment())

    done = await cli("up", "./clone", "--detach")

    assert done.code == 0, done.err
    assert api.environments[0]["repositoryUrl"] == REPOSITORY
    assert "secret" not in done.out + done.err


async def test_up_in_a_folder_that_is_no_clone_is_a_usage_error(cli: Cli) -> None:
    assert (await cli("up", ".", "--detach")).code == 2


async def test_a_newcomer_goes_from_nothing_to_a_session_in_one_command(
    api: ApiServer, stranger: Cli
) -> None:
    keys = stranger.home / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "first-account-token").write_text(SETUP_TOKEN)

    done = await stranger(
        "up", REPOSITORY, "--email", EMAIL, "--password-stdin", "--detach", stdin=PASSWORD
    )

    assert done.code == 0, done.err
    assert len(api.sessions) == 1


class Asked:
    """A command on a terminal of its own that asks questions."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "craftastic", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=cli.environment(),
            start_new_session=True,
        )
        os.close(slave)

    def _read(self) -> None:
        if select.select([self.master], [], [], 0)[0]:
            with contextlib.suppress(OSError):  # the other side is closed
                self.shown += os.read(self.master, 4096)

    async def shows(self, text: bytes) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"shows {text!r}; shown: {self.shown!r}"
            self._read()
            await anyio.sleep(0.01)

    async def answer(self, question: bytes, reply: str) -> None:
        await self.shows(question)
        os.write(self.master, reply.encode() + b"\n")

    async def ended(self) -> int:
        deadline = time.monotonic() + TIMEOUT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the command ends; shown: {self.shown!r}"
            self._read()
            await anyio.sleep(0.01)
        self._read()
        os.close(self.master)
        return int(self.process.returncode)


async def test_a_person_is_asked_and_the_password_never_shows(
    api: ApiServer, stranger: Cli
) -> None:
    keys = stranger.home / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "first-account-token").write_text(SETUP_TOKEN)
    asked = Asked(stranger, "login")

    await asked.answer(b"E-mail: ", EMAIL)
    await asked.answer(b"Your name: ", "A")
    await asked.answer(b"New password", PASSWORD)
    await asked.answer(b"The same again: ", PASSWORD)

    assert await asked.ended() == 0, asked.shown
    assert PASSWORD.encode() not in asked.shown
    assert api.registrations[0]["name"] == "A"


async def test_an_answer_that_cannot_be_right_is_asked_for_once_more(
    api: ApiServer, stranger: Cli
) -> None:
    keys = stranger.home / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "first-account-token").write_text(SETUP_TOKEN)
    asked = Asked(stranger, "login")

    await asked.answer(b"E-mail: ", "nobody")
    await asked.answer(b"is no e-mail address; once more.\r\nE-mail: ", EMAIL)
    await asked.answer(b"Your name: ", "A")
    await asked.answer(b"New password", "short")
    await asked.answer(b"too short; once more.\r\nNew password (8 characters or more): ", PASSWORD)
    await asked.answer(b"The same again: ", PASSWORD)

    assert await asked.ended() == 0, asked.shown
    assert api.registrations[0]["email"] == EMAIL


async def test_a_mistyped_password_may_be_typed_again(api: ApiServer, stranger: Cli) -> None:
    api.add_account(EMAIL)
    asked = Asked(stranger, "login", "--email", EMAIL)

    await asked.answer(b"Password: ", "wrong")
    await asked.answer(b"Invalid email or password\r\nPassword: ", PASSWORD)

    assert await asked.ended() == 0, asked.shown


async def test_an_interrupted_create_says_that_the_server_goes_on(api: ApiServer, cli: Cli) -> None:
    api.stages = [{"step": "sandbox", "message": "Starting the sandbox"}] * 100
    asked = Asked(cli, "up", REPOSITORY)
    await asked.shows(b"Sandbox")

    asked.process.send_signal(signal.SIGINT)

    assert await asked.ended() == 130
    assert b"the same command finds it again" in asked.shown
    api.stages.clear()  # the create goes on, and ends


async def test_a_question_can_be_interrupted(stranger: Cli) -> None:
    asked = Asked(stranger, "login")
    await asked.shows(b"E-mail: ")

    asked.process.send_signal(signal.SIGINT)

    assert await asked.ended() == 130


async def test_what_is_not_named_is_chosen_from_a_list(api: ApiServer, cli: Cli) -> None:
    api.add_environment("one", None)
    api.add_environment("two", None)
    asked = Asked(cli, "env", "rm", "--yes")

    await asked.shows(b"1  ")
    await asked.answer(b"Which environment (1-2): ", "2")

    assert await asked.ended() == 0
    assert [one["name"] for one in api.environments] == ["two"]


# ---- the rest ---------------------------------------------------------------------------------


async def test_no_server_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        cli = Cli(tmp_path, f"http://127.0.0.1:{probe.getsockname()[1]}")

    done = await cli("up", REPOSITORY)

    assert done.code == 7
    assert "craftastic serve" in done.err
    assert "Traceback" not in done.err


async def test_a_wrong_branch_is_refused_before_anything_is_made(api: ApiServer, cli: Cli) -> None:
    done = await cli("up", REPOSITORY, "--branch", "a b", "--detach")

    assert (done.code, api.environments) == (2, [])
    assert "must not contain ' '" in done.err


async def test_a_clone_that_failed_is_told_once_and_with_a_way_on(api: ApiServer, cli: Cli) -> None:
    made = api.add_environment("project", REPOSITORY)
    made["cloneStatus"] = "failed"
    message = "The repository could not be cloned."
    answer = {"error": "CLONE_FAILED", "message": message, "details": f"{message} no such host"}
    api.fail_session = (409, answer)

    done = await cli("up", REPOSITORY, "--detach")

    assert done.code == 5
    assert done.err.count(message) == 1
    assert "\n  no such host\n" in done.err
    assert "`craftastic env rm project` removes it" in done.err


async def test_a_server_of_another_kind_is_told(tmp_path: Path) -> None:
    with GitHttpServer(tmp_path) as other:
        cli = Cli(tmp_path, other.url("").rstrip("/"))
        done = await cli("up", REPOSITORY, "--email", EMAIL, "--password-stdin", stdin=PASSWORD)

    assert done.code == 7
    assert "is not a Craftastic server" in done.err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["env", "create"], ["up"], ["env", "ls", "-x"]]
)
async def test_wrong_usage_has_its_code(cli: Cli, arguments: list[str]) -> None:
    assert (await cli(*arguments)).code == 2


async def test_settings_are_printed_with_their_source_and_without_secrets(tmp_path: Path) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    (tmp_path / ".env").write_text("CRAFTASTIC_GATEWAY_PORT=4010\n")

    done = await Cli(tmp_path, None)(
        "settings", "--json", JWT_SECRET=secret, PORT="4000", DATABASE_URL="postgresql://u:p@h/d"
    )

    rows = {row["name"]: row for row in done.json}
    assert (rows["port"]["value"], rows["port"]["variable"]) == (4000, "PORT")
    assert (rows["port"]["source"], rows["host"]["source"]) == ("environment", "default")
    assert (rows["gateway_port"]["value"], rows["gateway_port"]["source"]) == (4010, ".env")
    assert secret not in done.out
    assert "u:p" not in done.out


async def test_a_wrong_setting_is_told_without_its_value(tmp_path: Path) -> None:
    done = await Cli(tmp_path, None)("settings", JWT_SECRET="too-short")

    assert done.code == 2
    assert "32 bytes" in done.err
    assert "too-short" not in done.err


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("CRAFTASTIC_RUNTIME", "foo", "CRAFTASTIC_RUNTIME: Input should be"),
        ("DATABASE_URL", "mysql://u:p@h/d", "DATABASE_URL: it must begin with postgresql://"),
    ],
)
async def test_a_wrong_setting_is_named_as_the_user_wrote_it(
    tmp_path: Path, variable: str, value: str, sentence: str
) -> None:
    done = await Cli(tmp_path, None)("serve", **{variable: value})

    assert done.code == 2
    assert sentence in done.err
    assert value not in done.err


async def test_migrating_an_empty_machine_makes_the_database(tmp_path: Path) -> None:
    done = await Cli(tmp_path, None)("migrate")

    assert done.code == 0, done.err
    assert (tmp_path / "data" / "craftastic.db").exists()


HEAVY = ("fastapi", "starlette", "sqlalchemy", "httpx", "rich", "pydantic", "anyio", "websockets")


async def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, contextlib, craftastic.cli.main as cli\n"
        "sys.argv = ['craftastic', '--help']\n"
        "with contextlib.suppress(SystemExit): cli.main()\n"
        "print('loaded:', *sorted(sys.modules), file=sys.stderr)"
    )
    done = await anyio.run_process([sys.executable, "-c", code], cwd=tmp_path)

    loaded = set(done.stderr.decode().rpartition("loaded:")[2].split())
    assert b"up " in done.stdout
    assert loaded & set(HEAVY) == set()


NOT_FOR_A_START = ("alembic", "mako", "aiodocker", "aiohttp", "asyncpg")


async def test_a_start_on_sqlite_without_docker_loads_neither_alembic_nor_docker(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, anyio\n"
        "from pathlib import Path\n"
        "import craftastic.cli.serve\n"
        "from craftastic.app import build_app\n"
        "from craftastic.settings import Settings\n"
        "settings = Settings.model_validate({'data_dir': Path(sys.argv[1]), 'runtime': 'local',\n"
        "    'gateway_port': 0, 'sandbox_self_test': False, 'agent_tools': 'none'})\n"
        "async def main():\n"
        "    app = build_app(settings)\n"
        "    async with app.router.lifespan_context(app):\n"
        "        print('loaded:', *sorted(sys.modules), file=sys.stderr)\n"
        "anyio.run(main)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "data")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # noqa: TID251 - as above
    first, second = [
        set((await anyio.run_process(argv, env=environment)).stderr.decode().split())
        for _ in range(2)
    ]

    assert "alembic" in first  # it makes the tables
    assert second & set(NOT_FOR_A_START) == set()
    assert {"fastapi", "sqlalchemy"} <= second
