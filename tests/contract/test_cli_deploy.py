"""`craftastic deploy`, `deployment …` and `coolify …` against the whole app and a small Coolify."""

import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from anyio import to_thread
from anyio.abc import TaskGroup

from craftastic.app import build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.test_cli_commands import Asked, Cli
from tests.contract.test_cli_git_commands import CloningRuntime, Person
from tests.contract.test_every_route import PASSWORD
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_rig import Upstream
from tests.fakes.toy_coolify import ToyApplication, ToyCoolify, ToyRun, line
from tests.fakes.whole_app import whole_settings
from tests.secrecy import Place, allow, canary

START_S = 30.0
EVIL = "\x1b]0;pwned\x07\x1b[2J\u202e"
RAW = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]")

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The command line sees no database: one is enough, and each call is a program to start."""


@dataclass
class Deployer(Person):
    """Somebody with a command line, a sandbox, and a Coolify."""

    coolify: ToyCoolify = field(kw_only=True)
    house: "House" = field(kw_only=True)

    @property
    def url(self) -> str:
        return self.server.url("upstream/project.git")

    async def begin(self, branch: str = "work") -> None:
        made = await self.ok("up", self.url, "-b", branch, "--detach", "--json")
        self.session = made.json["session"]

    async def connect(self, *abilities: str) -> str:
        """Connect the Coolify with a token, and return the token."""
        token = self.coolify.token(*abilities)
        await self.ok("coolify", "connect", self.coolify.url, "--token-stdin", stdin=token)
        return token

    async def work(self, text: str = "two\n") -> str:
        """Have a session `work`, with a commit that is pushed; return the commit."""
        await self.begin()
        return await self.more(text)

    async def more(self, text: str) -> str:
        (self.tree / "a.txt").write_text(text)
        await self.ok("commit", "work", "-m", "a")
        await self.ok("push", "work")
        return self.git("rev-parse", "work")

    def application(self, name: str = "web", branch: str = "work", **more: Any) -> ToyApplication:
        repository = more.pop("repository", self.url)
        return self.coolify.application(name, branch=branch, repository=repository, **more)

    async def asked(self, count: int = 1) -> ToyRun:
        """Wait until Coolify was asked for so many deployments, and return the newest."""
        await to_thread.run_sync(
            lambda: self.coolify.wait_until(lambda: len(self.coolify.runs) >= count, "a run")
        )
        return self.coolify.runs[-1]

    async def hook(self) -> str:
        return (await self.ok("coolify", "hook")).out.strip()

    async def tell(self, hook: str, run: ToyRun) -> None:
        """Let Coolify say that something happened, so that nobody waits for the next look."""
        await to_thread.run_sync(lambda: self.coolify.webhook(hook, "deployment_success", run))


@dataclass
class House:
    """The server, which may be ended and started again at the same place."""

    settings: Settings
    runtime: CloningRuntime
    port: int
    tasks: TaskGroup
    server: uvicorn.Server | None = None
    closed: anyio.Event = field(default_factory=anyio.Event)

    async def open(self) -> None:
        async def make_runtimes(settings: Settings, instance: str) -> Runtimes:
            def make(_settings: Settings, _instance: str) -> Runtime:
                return self.runtime

            return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})

        config = uvicorn.Config(
            build_app(self.settings, make_runtimes),
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            ws="none",
        )
        self.server, self.closed = uvicorn.Server(config), anyio.Event()
        self.tasks.start_soon(self._serve, self.server, self.closed)
        with anyio.fail_after(START_S):
            while not self.server.started:  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.01)

    async def close(self) -> None:
        assert self.server is not None
        self.server.should_exit = True
        with anyio.fail_after(START_S):
            await self.closed.wait()

    @staticmethod
    async def _serve(server: uvicorn.Server, closed: anyio.Event) -> None:
        await server.serve()
        closed.set()


@pytest.fixture
async def person(tmp_path: Path, data_dir: Path, database_url: str) -> AsyncIterator[Deployer]:
    runtime = CloningRuntime(data_dir, tmp_path)
    port, upstream = free_port(), Upstream(tmp_path)
    cli = Cli(tmp_path / "person", f"http://127.0.0.1:{port}")
    cli.home.mkdir()
    with ToyCoolify() as coolify, GitHttpServer(tmp_path) as git_server:
        settings = whole_settings(
            tmp_path, database_url, gateway_port=free_port(), git_allow_http=True,
            git_allow_private=True, coolify_origins=coolify.origin,
            public_url=f"http://127.0.0.1:{port}",
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            house = House(settings, runtime, port, tasks)
            try:
                await house.open()
                one = Deployer(cli, runtime, upstream, git_server, coolify=coolify, house=house)
                account = ("--email", "ada@example.com", "--name", "Ada", "--password-stdin")
                await one.ok("login", "--register", *account, stdin=PASSWORD)
                yield one
            finally:
                if house.server is not None:
                    house.server.should_exit = True
                with anyio.CancelScope(shield=True):
                    await runtime.close()


# ---- connecting -------------------------------------------------------------------------------


async def test_a_coolify_is_connected_checked_listed_and_forgotten(person: Deployer) -> None:
    assert "craftastic coolify connect" in (await person.ok("coolify", "status")).out
    token = person.coolify.token()
    typed = f"{token}\n"

    done = await person.ok("coolify", "connect", person.coolify.url, "--token-stdin", stdin=typed)

    assert done.out.splitlines()[0] == f"Your Coolify: {person.coolify.url}, version 4.3.11"
    assert re.search("^read +yes .*\ndeploy +yes ", done.out, re.MULTILINE)
    status = await person.ok("coolify", "status", "--check")
    assert status.out.splitlines()[0] == done.out.splitlines()[0]
    assert (await person.ok("coolify", "status", "--json")).json["abilities"]["deploy"] is True
    assert token not in done.out + done.err + status.out + status.err
    assert (await person.ok("coolify", "disconnect")).out == "Coolify disconnected.\n"
    assert (await person.ok("coolify", "status", "--json")).json["configured"] is False


async def test_what_a_token_lacks_is_told_with_the_order_of_the_ticks(person: Deployer) -> None:
    token = person.coolify.token("deploy")

    done = await person.ok("coolify", "connect", person.coolify.url, "--token-stdin", stdin=token)

    assert re.search("^read +no ", done.out, re.MULTILINE)
    assert re.search("^deploy +yes ", done.out, re.MULTILINE)
    assert "tick deploy first" in done.err


async def test_a_token_that_coolify_does_not_take_is_not_stored_and_not_told(
    person: Deployer,
) -> None:
    token = person.coolify.token()
    person.coolify.kill_token(token)

    done = await person("coolify", "connect", person.coolify.url, "--token-stdin", stdin=token)

    assert (done.code, token in done.out + done.err) == (2, False)
    assert "does not take this token" in done.err
    assert (await person.ok("coolify", "status", "--json")).json["configured"] is False


async def test_a_token_is_asked_for_without_showing_it(person: Deployer) -> None:
    token = person.coolify.token()
    asked = Asked(person.cli, "coolify", "connect", person.coolify.url)

    await asked.answer(b"API token of ", token)

    assert await asked.ended() == 0, asked.shown
    assert token.encode() not in asked.shown
    assert b"Your Coolify: " in asked.shown


async def test_a_token_is_never_an_argument(person: Deployer) -> None:
    token = canary("coolify-in-an-address")
    allow(Place.ARGUMENTS, value=token, because="that an argument is refused takes one")
    for address, options in (
        (f"https://me:{token}@coolify.example.com", ("--token-stdin",)),
        (f"https://coolify.example.com?token={token}", ("--token-stdin",)),
        ("https://coolify.example.com", ()),
    ):
        refused = await person("coolify", "connect", address, *options, stdin="7|abcdefghijklm")
        assert refused.code == 2, refused
        assert token not in refused.out + refused.err
    assert person.coolify.calls == []


async def test_applications_of_the_environments_repository_come_first(person: Deployer) -> None:
    person.application("b")
    person.application(f"a{EVIL}", repository="other/thing")
    without = await person("coolify", "apps")
    assert (without.code, "craftastic coolify connect" in without.err) == (7, True)
    await person.connect()
    await person.begin()

    listed = await person.ok("coolify", "apps", "--env", "project")

    rows = [row.split("\t") for row in listed.out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["b", "a ]0;pwned [2J"]
    assert rows[0][2:5] == ["work", "running:healthy", "https://web.example.com"]
    assert rows[0][5].endswith("(this one)")
    ids = (await person.ok("coolify", "apps", "-q")).out.split()
    assert set(ids) == {row[0] for row in rows}
    assert len((await person.ok("coolify", "apps", "--json")).json) == 2


async def test_the_address_for_coolifys_messages_is_made_and_taken_away(person: Deployer) -> None:
    await person.connect()
    app = person.application()
    hook = await person.hook()
    assert hook.startswith(f"{person.cli.url}/api/deployment/hook/")

    status = await to_thread.run_sync(lambda: person.coolify.webhook(hook, application=app))

    assert status == 200
    assert (await person.ok("coolify", "status", "--json")).json["hook"]["createdAt"]
    await person.ok("coolify", "hook", "--delete")
    assert (await person.ok("coolify", "status", "--json")).json["hook"] is None


# ---- deploying --------------------------------------------------------------------------------


async def test_a_deployment_is_followed_from_the_queue_to_the_healthy_application(
    person: Deployer,
) -> None:
    await person.connect()
    hook = await person.hook()
    commit = await person.work()
    app = person.application(fqdn="https://web.example.com", status="exited")
    followed = Asked(person.cli, "deploy", "work", "--app", "web", "--follow")
    run = await person.asked()
    await followed.shows(b"Waits for Coolify.")

    person.coolify.start(run, commit=commit)
    person.coolify.say(run, line(f"step 1 {EVIL}"), line("secret", hidden=True))
    await person.tell(hook, run)
    await followed.shows(b"step 1")
    await followed.shows(b"Coolify builds it.")
    app.after_finish = "starting:unknown"
    person.coolify.say(run, line("step 2\nand more"))
    person.coolify.finish(run, commit=commit)
    await person.tell(hook, run)
    await followed.shows(b"Waiting for the application")
    app.status = "running:healthy"

    assert await followed.ended() == 0, followed.shown
    shown = followed.shown.decode().replace("\r\n", "\n")
    assert f"web runs commit {commit[:7]}, healthy: https://web.example.com\n" in shown
    assert "\nstep 2\nand more\n" in shown
    assert "secret" not in shown
    assert not RAW.search(shown), shown
    assert f"Coolify's page about it: {person.coolify.url}/project/" in shown


async def test_without_a_name_the_applications_are_listed_and_the_chosen_one_is_remembered(
    person: Deployer,
) -> None:
    await person.connect()
    await person.work()
    other = person.application("a", repository="other/thing")
    app = person.application("web")

    told = await person("deploy", "work")

    assert told.code == 2
    lines = told.err.splitlines()
    assert "--app" in lines[0]
    assert [text.split()[0] for text in lines[1:]] == [app.uuid, other.uuid]
    assert person.coolify.runs == []
    asked = Asked(person.cli, "deploy", "work")
    await asked.answer(b"Which application (1-2)", "1")
    assert await asked.ended() == 0, asked.shown
    assert person.coolify.runs[-1].application is app
    person.coolify.finish()
    again = await person.ok("deploy", "work", "--force", "--json")
    assert (again.json["app_name"], again.json["force"]) == ("web", True)
    del person.coolify.applications[app.uuid]
    gone = await person("deploy", "work", "--force")
    assert (gone.code, "no longer at Coolify" in gone.err) == (2, True)
    assert f"{other.uuid}  a" in gone.err


async def test_an_id_and_a_state_are_printed_for_scripts(person: Deployer) -> None:
    await person.connect()
    await person.work()
    app = person.application()

    done = await person.ok("deploy", "project/work", "--app", app.uuid)

    first, second = done.out.splitlines()
    deployment = first.removeprefix("deployment ")
    assert second == "status pending"
    assert f"craftastic deployment logs {deployment[:8]} --follow" in done.err
    again = await person("deploy", "work")
    assert again.code == 5
    assert f"craftastic deployment logs {deployment} --follow" in again.err
    shown = await person.ok("deployment", "show", deployment[:8])
    assert re.search("^app_name +web$", shown.out, re.MULTILINE)
    by_run = await person.ok("deployment", "show", person.coolify.runs[-1].uuid, "--json")
    assert by_run.json["id"] == deployment


async def test_an_environment_is_deployed_without_a_session(person: Deployer) -> None:
    await person.connect()
    await person.begin()
    person.application("main-app", branch="main")

    done = await person.ok("deploy", "project", "--app", "main-app", "--json")

    assert done.json["session_id"] is None
    assert done.json["branch"] == "main"


async def test_applications_of_one_name_are_told_apart_by_their_ids(person: Deployer) -> None:
    await person.connect()
    await person.work()
    ids = [person.application().uuid for _ in range(2)]

    refused = await person("deploy", "work", "--app", "web")

    assert refused.code == 2
    assert all(one in refused.err for one in ids)
    assert (await person("deploy", "work", "--app", "nothing")).code == 4
    assert (await person.ok("deploy", "work", "--app", ids[1], "--json")).json["app_id"] == ids[1]


# ---- refusals ---------------------------------------------------------------------------------


async def test_work_that_is_not_pushed_is_refused_with_the_commands_that_help(
    person: Deployer,
) -> None:
    await person.connect()
    await person.begin()
    person.application()
    (person.tree / "a.txt").write_text("two\n")

    changed = await person("deploy", "work", "--app", "web")
    await person.ok("commit", "work", "-m", "a")
    unpushed = await person("deploy", "work", "--app", "web")

    assert (changed.code, unpushed.code) == (5, 5)
    assert "`craftastic commit project/work -m MESSAGE`" in changed.err
    assert "`craftastic push project/work`" in unpushed.err
    assert "--pushed-only" in unpushed.err
    assert person.coolify.runs == []
    await person.ok("push", "work")
    (person.tree / "a.txt").write_text("three\n")
    await person.ok("deploy", "work", "--app", "web", "--pushed-only")


async def test_an_application_of_another_branch_is_refused_unless_it_is_named(
    person: Deployer,
) -> None:
    await person.connect()
    await person.work()
    person.application(branch="main")

    refused = await person("deploy", "work", "--app", "web", "--pushed-only")

    assert refused.code == 5
    assert "main" in refused.err
    assert person.coolify.runs == []
    await person.ok("deploy", "work", "--app", "web", "--branch", "main", "--pushed-only")


async def test_without_a_coolify_it_is_told_how_to_connect_one(person: Deployer) -> None:
    await person.begin()

    refused = await person("deploy", "work", "--app", "web")
    unnamed = await person("deploy", "work")
    absent = await person("deploy", "nothing")

    assert (refused.code, unnamed.code) == (7, 7)
    assert "`craftastic coolify connect URL`" in refused.err
    assert (absent.code, absent.err) == (
        4, "craftastic: There is no session and no environment nothing.\n",
    )  # fmt: skip


async def test_a_token_that_has_expired_is_told_as_what_is_not_allowed(person: Deployer) -> None:
    token = await person.connect()
    await person.work()
    app = person.application()
    person.coolify.kill_token(token)

    refused = await person("deploy", "work", "--app", app.uuid)

    assert refused.code == 3
    assert "`craftastic coolify connect URL`" in refused.err
    assert token not in refused.err


# ---- how it ends ------------------------------------------------------------------------------


async def test_a_build_that_fails_ends_the_command_with_its_reason(person: Deployer) -> None:
    await person.connect()
    hook = await person.hook()
    await person.work()
    person.application()
    followed = Asked(person.cli, "deploy", "work", "--app", "web", "-f")
    run = await person.asked()

    person.coolify.fail(run, log=[line(f"no such file{EVIL}", stream="stderr")])
    await person.tell(hook, run)

    assert await followed.ended() == 1
    assert b"The deployment failed: " in followed.shown
    assert b"no such file" in followed.shown
    assert not RAW.search(followed.shown.decode().replace("\r\n", "\n"))
    (ended,) = (await person.ok("deployment", "ls", "-q")).out.split()
    late = await person("deployment", "cancel", ended)
    assert (late.code, "ended already: failed" in late.err) == (5, True)


async def test_leaving_leaves_the_deployment_which_can_be_found_followed_and_cancelled(
    person: Deployer,
) -> None:
    await person.connect()
    await person.work()
    person.application()
    followed = Asked(person.cli, "deploy", "work", "--app", "web", "--follow")
    await person.asked()
    await followed.shows(b"Waits for Coolify.")

    followed.process.send_signal(signal.SIGINT)

    assert await followed.ended() == 130
    assert b"Left. The deployment goes on" in followed.shown
    (found,) = (await person.ok("deployment", "ls", "work", "--json")).json
    assert found["live"] is True
    assert (await person.ok("deployment", "ls", "-q")).out == f"{found['id']}\n"
    listed = await person.ok("deployment", "ls", "project")
    assert listed.out.splitlines()[1].split("\t")[:5] == [
        found["id"][:8], "project", "web", "deploy", "pending",
    ]  # fmt: skip
    again = Asked(person.cli, "deployment", "logs", found["id"][:8], "--follow")
    await again.shows(b"Waits for Coolify.")
    # The answer waits for it some seconds, and on a busy machine says that it is to come.
    told = (await person.ok("deployment", "cancel", found["id"][:8])).out
    assert told in {"Cancelled.\n", "To be cancelled; it is pending still.\n"}
    assert await again.ended() == 1
    assert b"The deployment was cancelled." in again.shown
    assert person.coolify.runs[-1].status == "cancelled-by-user"
    assert (await person("deployment", "show", "0000")).code == 4


async def test_following_goes_on_over_a_restart_of_the_server(person: Deployer) -> None:
    await person.connect()
    commit = await person.work()
    person.application()
    followed = Asked(person.cli, "deploy", "work", "--app", "web", "--follow")
    run = await person.asked()
    await followed.shows(b"Waits for Coolify.")

    await person.house.close()
    await followed.shows(b"The deployment goes on; asking again.")
    person.coolify.finish(run, commit=commit)
    await person.house.open()

    assert await followed.ended() == 0, followed.shown
    assert b"The server answers again." in followed.shown
    assert f"web runs commit {commit[:7]}, healthy".encode() in followed.shown
    assert len(person.coolify.runs) == 1


async def test_a_log_that_cannot_be_read_for_a_while_does_not_end_the_following(
    person: Deployer,
) -> None:
    token = await person.connect()
    hook = await person.hook()
    commit = await person.work()
    person.application()
    followed = Asked(person.cli, "deploy", "work", "--app", "web", "--follow")
    run = await person.asked()
    await followed.shows(b"Waits for Coolify.")

    person.coolify.kill_token(token)
    await followed.shows(b"No build log: ")
    person.coolify.tokens[token].dead = False
    person.coolify.finish(run, commit=commit)
    await person.tell(hook, run)

    assert await followed.ended() == 0, followed.shown
    assert f"web runs commit {commit[:7]}, healthy".encode() in followed.shown


async def test_the_end_of_a_followed_deployment_can_be_had_as_json(person: Deployer) -> None:
    await person.connect()
    await person.work()
    person.application()
    person.coolify.auto = True

    done = await person.ok("deploy", "work", "--app", "web", "--follow", "--json")

    assert (done.json["status"], done.json["health"]) == ("succeeded", "healthy")


async def test_the_preview_of_a_pull_request_is_deployed(person: Deployer) -> None:
    await person.connect()
    await person.work()
    app = person.application(branch="main", head="c" * 40)
    app.previews.add(12)
    person.coolify.auto = True

    done = await person.ok("deploy", "work", "--app", "web", "--pull-request", "12", "-f")

    assert person.coolify.runs[-1].pull_request_id == 12
    assert "web: built commit ccccccc for pull request 12\n" in done.out


# ---- logs and going back ----------------------------------------------------------------------


async def test_the_logs_of_a_build_and_of_its_application_are_printed(person: Deployer) -> None:
    await person.connect()
    await person.work()
    app = person.application()
    app.runtime_log = f"listening{EVIL}\nready\n"
    deployment = (await person.ok("deploy", "work", "--app", "web", "--json")).json["id"]
    run = await person.asked()
    person.coolify.start(run)
    person.coolify.say(run, *[line(f"line {number}") for number in range(1, 3001)])

    built = await person.ok("deployment", "logs", deployment)
    running = await person.ok("deployment", "logs", deployment[:8], "--application")

    assert [one for one in built.out.splitlines() if one.startswith("line ")] == [
        f"line {number}" for number in range(1001, 3001)
    ]
    assert "lines are missing" in built.err
    assert "--follow shows it to the end" in built.err
    assert running.out == "listening\nready\n"
    app.status = "exited"
    stopped = await person.ok("deployment", "logs", deployment, "--application", "--lines", "5")
    assert (stopped.out, "not running" in stopped.err) == ("", True)
    for wrong in (("--lines", "5"), ("--follow", "--application")):
        assert (await person("deployment", "logs", deployment, *wrong)).code == 2


async def test_a_log_that_the_token_may_not_read_is_told(person: Deployer) -> None:
    await person.connect("deploy", "read")
    await person.work()
    person.application()
    deployment = (await person.ok("deploy", "work", "--app", "web", "--json")).json["id"]
    run = await person.asked()
    person.coolify.start(run)
    person.coolify.say(run, line("hidden from it"))

    done = await person("deployment", "logs", deployment)

    assert (done.code, done.out) == (5, "")
    assert "read:sensitive" in done.err


async def test_one_goes_back_to_an_image_that_coolify_has_kept(person: Deployer) -> None:
    await person.connect()
    await person.work()
    app = person.application()
    old, now = "a1b2c3d" + "0" * 33, "b" * 40
    app.images = [
        {"tag": one, "created_at": "2026-07-19 10:00:00", "is_current": one == now}
        for one in (now, old)
    ]
    person.coolify.auto = True

    listed = await person.ok("deployment", "rollback", "work", "--app", "web")
    rows = [row.split("\t") for row in listed.out.splitlines()[1:]]
    assert [(row[0], row[2]) for row in rows] == [(now, "runs"), (old, "-")]
    assert (await person.ok("deployment", "rollback", "work", "--app", "web", "--json")).json
    absent = await person("deployment", "rollback", "work", "ffff", "--app", "web")
    assert (absent.code, "no image of ffff" in absent.err) == (4, True)
    assert person.coolify.runs == []

    done = await person.ok("deployment", "rollback", "work", "A1B2", "--app", "web", "--follow")

    assert person.coolify.runs[-1].asked_commit == old
    assert "web runs commit a1b2c3d, healthy" in done.out
    (row,) = (await person.ok("deployment", "ls", "--json")).json
    assert (row["kind"], row["commit"]) == ("rollback", old)
