"""git and sessions' jobs from the command line: the whole app on a port, over real git."""

import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
import uvicorn

from craftastic.app import build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from craftastic.worktrees.service import repository_path
from tests.conftest import free_port
from tests.contract.test_cli_commands import Asked, Cli, Ended
from tests.contract.test_every_route import PASSWORD
from tests.fakes.git_http_server import GitHttpServer, run_git
from tests.fakes.git_rig import Upstream
from tests.fakes.served import ServedRuntime
from tests.fakes.whole_app import whole_settings

START_S = 20.0
EVIL = "\x1b]0;pwned\x07\x1b[2J"
CONFIG = """
[worktree]
setup = "printf 'one\\\\n\\\\033[31mtwo\\\\033[0m\\\\n'; exit ${SETUP_CODE:-0}"
teardown = "printf 'gone\\\\n\\\\033[31mwrong\\\\n'; exit 3"
[commands]
count = "for i in 1 2 3; do echo line-$i; sleep 0.2; done; exit 7"
wait = "echo begun; sleep 600"
"""
SGR = re.compile(rb"\x1b\[(?:0|1|31|32|36)m")

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The command line sees no database: one is enough, and each call is a program to start."""


@dataclass
class Person:
    """Somebody with a command line, a sandbox, and a git server that wants a password or not."""

    cli: Cli
    runtime: ServedRuntime
    upstream: Upstream
    server: GitHttpServer
    session: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> Ended:
        return await self.cli(*arguments, stdin=stdin, **variables)

    async def ok(self, *arguments: str, stdin: str = "") -> Ended:
        done = await self.cli(*arguments, stdin=stdin)
        assert done.code == 0, done
        return done

    async def begin(self, branch: str = "work") -> None:
        """Have an environment `project` and a session on a new branch."""
        url = self.server.url("project.git")
        made = await self.ok("up", url, "-b", branch, "--detach", "--json")
        self.session = made.json["session"]

    @property
    def tree(self) -> Path:
        return self.runtime.inside(
            UUID(self.session["environmentId"]), self.session["workingDirectory"]
        )

    @property
    def bare(self) -> Path:
        """The environment's repository on the host."""
        environment_id = UUID(self.session["environmentId"])
        return self.runtime.inside(environment_id, repository_path(environment_id))

    def git(self, *arguments: str) -> str:
        """Run git on the environment's repository, as whoever owns the machine could."""
        found = run_git("-c", "safe.directory=*", "--git-dir", str(self.bare), *arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout.strip()


class CloningRuntime(ServedRuntime):
    """Clones through the gateway, as true sandboxes do: nothing is put in its place."""

    async def create(self, *arguments: Any, **more: Any) -> Any:
        return await super(ServedRuntime, self).create(*arguments, **more)


@pytest.fixture
async def person(tmp_path: Path, data_dir: Path, database_url: str) -> AsyncIterator[Person]:
    runtime = CloningRuntime(data_dir, tmp_path)

    async def make_runtimes(settings: Settings, instance: str) -> Runtimes:
        def make(_settings: Settings, _instance: str) -> Runtime:
            return runtime

        return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})

    settings = whole_settings(
        tmp_path, database_url, gateway_port=free_port(), git_allow_http=True,
        git_allow_private=True,
    )  # fmt: skip
    port = free_port()
    config = uvicorn.Config(
        build_app(settings, make_runtimes), host="127.0.0.1", port=port, log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    upstream = Upstream(tmp_path)
    cli = Cli(tmp_path / "person", f"http://127.0.0.1:{port}")
    cli.home.mkdir()
    with GitHttpServer(upstream.root) as git_server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            try:
                with anyio.fail_after(START_S):
                    while not server.started:  # noqa: ASYNC110 - it tells nobody
                        await anyio.sleep(0.01)
                one = Person(cli, runtime, upstream, git_server)
                account = ("--email", "ada@example.com", "--name", "Ada", "--password-stdin")
                await one.ok("login", "--register", *account, stdin=PASSWORD)
                yield one
            finally:
                server.should_exit = True
                with anyio.CancelScope(shield=True):
                    await runtime.close()


async def test_a_piece_of_work_from_the_first_look_to_the_merge(person: Person) -> None:
    await person.begin()
    assert (await person.ok("status", "work")).out == "## work...origin/main\n"
    (person.tree / "a.txt").write_text("one\nmore\n")
    (person.tree / "new").write_text("x\n")

    status = await person.ok("status", "project/work")
    assert status.out == "## work...origin/main\n M a.txt\t+1 -0\n?? new\t+1 -0\n"
    diff = await person.ok("diff", "work", "a.txt")
    assert diff.out.endswith("@@ -1 +1,2 @@\n one\n+more\n")

    made = await person.ok("commit", "work", "-m", "Work", "-m", "and a reason")
    head = person.git("rev-parse", "work")
    assert made.out == f"[work {head[:7]}] Work\n2 files changed, +2 -0\n"
    assert person.git("log", "-1", "--format=%B|%an <%ae>", "work") == (
        "Work\n\nand a reason|Ada <ada@example.com>"
    )
    assert (await person("commit", "work", "-m", "again")).code == 5

    pushed = await person.ok("push", "work", "--expected", head)
    assert pushed.out == (f"Changes pushed to origin/work\n{head[:7]} (new) refs/heads/work: ok\n")
    assert person.upstream.refs()["refs/heads/work"] == head
    again = await person.ok("push", "work")
    assert again.out == "origin/work has everything already\n"

    theirs = person.upstream.commit({"t.txt": "1\n"}, branch="work")
    (person.tree / "mine").write_text("x\n")
    await person.ok("commit", "work", "mine", "-m", "mine")
    rejected = await person("push", "work")
    assert (rejected.code, "`craftastic pull project/work`" in rejected.err) == (5, True)
    diverged = await person("pull", "work")
    assert (diverged.code, "`craftastic pull --rebase project/work`" in diverged.err) == (5, True)

    pulled = await person.ok("pull", "work", "--rebase")
    assert pulled.out.splitlines()[0] == "work is up to date with origin/work"
    assert pulled.out.splitlines()[1].startswith("1 new commit, ")
    assert person.git("rev-parse", "work~1") == theirs
    assert (await person.ok("push", "work", "--json")).json["updates"][0]["outcome"] == "ok"
    assert (await person.ok("pull", "work")).out.splitlines()[1] == "There was nothing new."

    log = await person.ok("log", "work", "-n", "2")
    assert [line.split("\t")[2:] for line in log.out.splitlines()[1:]] == [
        ["Ada", "yes", "mine"], ["a", "yes", "change"],
    ]  # fmt: skip
    branches = await person.ok("branches", "--env", "project")
    names = {line.split("\t")[0]: line.split("\t") for line in branches.out.splitlines()[1:]}
    assert names["work"][2:6] == ["both", "0", "0", "work"]
    assert (await person.ok("branches", "work", "--json")).json["defaultBranch"] == "main"


async def test_nothing_of_a_repository_reaches_a_terminal_raw(person: Person) -> None:
    await person.begin()
    (person.tree / f"a{EVIL}\n\u202eb").write_text(f"{EVIL}\r\u202ehidden\n")
    (person.tree / "a.txt").write_text(f"{EVIL}\n")
    await person.ok("commit", "work", "a.txt", "-m", f"subject {EVIL}")
    await person.ok("session", "create", "project", "-b", "other", "--from", "work")

    for command in ("status", "diff", "log", "branches"):
        asked = Asked(person.cli, command, "work", *(["--pager", "cat"] * (command == "diff")))
        assert await asked.ended() == 0, asked.shown
        harmless = SGR.sub(b"", asked.shown).decode()
        assert "pwned" in harmless, command
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", harmless), harmless
        piped = await person.ok(command, "work")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", piped.out), piped.out
    shown = await person.ok("diff", "work")
    assert "+^[]0;pwned^G^[[2J^M<U+202E>hidden\n" in shown.out


async def test_a_pager_gets_a_diff_in_colours_and_may_end_before_it(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n" * 300_000)
    pager = person.cli.home / "pager"
    pager.write_text('#!/bin/sh\nhead -n 8 >"$1"\necho pager has seen it\n')
    pager.chmod(0o755)

    seen = person.cli.home / "a file"
    asked = Asked(person.cli, "diff", "work", "--pager", f"{pager} '{seen}'")

    assert await asked.ended() == 0, asked.shown
    assert b"pager has seen it" in asked.shown
    coloured = "\x1b[36m@@ -1 +1,300000 @@\x1b[0m\n\x1b[31m-one\x1b[0m\n\x1b[32m+two"
    assert coloured in seen.read_text()


async def test_without_a_pager_that_runs_a_diff_is_printed(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")

    asked = Asked(person.cli, "diff", "work", "--pager", "/nowhere/pager")

    assert await asked.ended() == 0, asked.shown
    assert b"+two" in asked.shown


async def test_a_raw_diff_can_be_applied_and_is_not_for_a_terminal(
    person: Person, tmp_path: Path
) -> None:
    await person.begin()
    (person.tree / "a.txt").write_bytes(b"one\r\n\x1b[1mtwo\x0c\n")
    (person.tree / "new").write_text("x\n")
    clone = tmp_path / "clone"
    run_git("clone", "-q", person.server.url("project.git"), str(clone))

    (tmp_path / "patch").write_bytes((await person.ok("diff", "work", "--raw")).out.encode())

    applied = run_git("apply", str(tmp_path / "patch"), cwd=clone)
    assert applied.returncode == 0, applied.stderr
    assert (clone / "a.txt").read_bytes() == (person.tree / "a.txt").read_bytes()
    assert (clone / "new").read_text() == "x\n"
    refused = Asked(person.cli, "diff", "work", "--raw")
    assert await refused.ended() == 2
    assert b"\x1b[1m" not in refused.shown


async def test_exactly_the_named_files_are_shown_and_committed(person: Person) -> None:
    await person.begin()
    for name in ("a.txt", "b.txt", "folder/c", "-n", ":(glob)*"):
        (person.tree / name).parent.mkdir(exist_ok=True)
        (person.tree / name).write_text("new\n")
    (person.tree / "c.txt").unlink()
    odd = "odd-\udcff"
    (person.tree / odd).write_text("two\n")

    diff = await person.ok("diff", "work", "folder", "folder/c", "b.txt", odd, "--json")
    assert len(diff.json["files"]) == 3
    assert {one["filename"] for one in diff.json["files"]} >= {"folder/c", "b.txt"}
    done = await person.ok(
        "commit", "-m", "some", "--", "work", "-n", "c.txt", ":(glob)*", odd, "folder/c"
    )

    assert done.out.splitlines()[1] == "5 files changed, +4 -1"
    status = await person.ok("status", "work")
    assert status.out.splitlines()[1:] == [" M a.txt\t+1 -1", " M b.txt\t+1 -1"]


async def test_messages_come_from_arguments_files_and_the_commit_that_is_changed(
    person: Person,
) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")
    text = "# no comment\n\nbody  \n-- \n"

    await person.ok("commit", "work", "-F", "-", stdin=text)
    assert person.git("log", "-1", "--format=%B", "work") == text.strip()
    (person.tree / "a.txt").write_text("three\n")
    await person.ok("commit", "work", "--amend")

    assert person.git("log", "-1", "--format=%B", "work") == text.strip()
    assert person.git("show", "work:a.txt") == "three"
    assert person.git("rev-list", "--count", "origin/main..work") == "1"
    (person.cli.home / "message").write_text("from a file\n")
    await person.ok("commit", "work", "--amend", "-F", "message")
    assert person.git("log", "-1", "--format=%s", "work") == "from a file"


async def test_a_commit_without_a_usable_message_is_a_usage_error(person: Person) -> None:
    for arguments, stdin in (
        (("work",), ""),
        (("work", "-m", "a", "-F", "-"), "b"),
        (("work", "-F", "-"), " \n"),
        (("work", "-F", "-"), "x" * (65 << 10)),
        (("work", "-F", "/nowhere"), ""),
        (("work", "a.txt", "--staged", "-m", "a"), ""),
    ):
        done = await person("commit", *arguments, stdin=stdin)
        assert done.code == 2, (arguments, done)
        assert "Traceback" not in done.err


async def test_what_a_hook_says_is_told_line_by_line_and_can_be_passed_by(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")
    (person.bare / "hooks").mkdir(exist_ok=True)
    hook = person.bare / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho 'line one is wrong'\nprintf '\\033[2Jline two\\n'\nexit 1\n")
    hook.chmod(0o755)

    refused = await person("commit", "work", "-m", "a")

    assert refused.code == 5
    lines = refused.err.splitlines()
    assert "  line one is wrong" in lines
    assert any(line.endswith("line two") and "\x1b" not in line for line in lines)
    assert "--no-verify" in lines[-1]
    assert (await person("commit", "work", "-m", "a", "--no-verify")).code == 0


async def test_the_push_policy_is_changed_here_and_told_where_it_refuses(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")
    await person.ok("commit", "work", "-m", "a")
    changed = await person.ok("env", "set", "project", "--push-policy", "none")
    assert "pushPolicy       none" in changed.out

    refused = await person("push", "work")

    assert refused.code == 3
    assert "`craftastic env set project --push-policy any`" in refused.err
    renamed = await person.ok(
        "env", "set", "project", "--push-policy", "any", "--name", "other", "--json"
    )
    assert (renamed.json["name"], renamed.json["pushPolicy"]) == ("other", "any")
    assert (await person("push", "other/work")).code == 0
    for arguments in ((), ("--push-policy", "everything")):
        assert (await person("env", "set", "other", *arguments)).code == 2


async def test_a_branch_that_was_rewritten_is_pushed_by_force(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")
    await person.ok("commit", "work", "-m", "first try")
    await person.ok("push", "work")
    await person.ok("commit", "work", "--amend", "-m", "second try")

    refused = await person("push", "work")
    assert (refused.code, "--force" in refused.err) == (5, True)
    moved = await person("push", "work", "--force", "--expected", "a" * 40)
    assert (moved.code, "`craftastic log project/work`" in moved.err) == (5, True)
    await person.ok("push", "work", "--force")

    assert person.upstream.refs()["refs/heads/work"] == person.git("rev-parse", "work")


async def test_a_session_begins_from_a_branch_a_commit_or_a_pull_request(person: Person) -> None:
    first = person.upstream.commit({"base.txt": "1\n"}, branch="base")
    person.upstream.commit({"deadbeef.txt": "1\n"}, branch="deadbeef")
    person.upstream.commit({"pr.txt": "1\n"}, branch="proposed")
    proposed = person.upstream.refs()["refs/heads/proposed"]
    run_git("update-ref", "refs/pull/7/head", proposed, cwd=person.upstream.bare)
    await person.begin()

    for branch, start, file in (
        ("b1", ("--from", "base"), "base.txt"),
        ("b2", ("--from", first[:10]), "base.txt"),
        ("b3", ("--from", "deadbeef"), "deadbeef.txt"),
        ("b4", ("--pr", "7"), "pr.txt"),
    ):
        made = await person.ok("session", "create", "project", "-b", branch, *start, "--json")
        person.session = made.json
        assert (person.tree / file).exists(), branch
        assert person.session["startedFrom"]
    unnamed = await person.ok("session", "create", "project", "--pr", "7", "--json")
    assert unnamed.json["gitBranch"] == "pr-7"
    for start, code in (
        (("--from", "nowhere"), 4),
        (("--from", "fedcba98"), 4),
        (("--pr", "99"), 4),
        (("--pr", "0"), 2),
        (("--from", "base", "--pr", "7"), 2),
    ):
        refused = await person("session", "create", "project", "-b", "no", *start)
        assert refused.code == code, (start, refused)


async def test_the_setup_and_the_commands_of_a_repository_are_run_and_followed(
    person: Person,
) -> None:
    person.upstream.commit({".craftastic/config.toml": CONFIG})
    await person.begin()

    followed = await person.ok("session", "setup", "work", "--follow")
    assert followed.out.startswith("$ printf ")
    assert followed.out.endswith("}\none\ntwo\n")
    shown = await person.ok("session", "setup", "work")
    assert re.search("^status +succeeded$", shown.out, re.MULTILINE)
    assert shown.out.endswith(f"\n\n{followed.out}")
    assert (await person.ok("session", "setup", "work", "--json")).json["exitCode"] == 0
    again = await person.ok("session", "setup", "work", "--again", "--follow")
    assert again.out == followed.out

    counted = await person("session", "run", "count", "work", "--follow")
    assert counted.code == 7
    assert counted.out.endswith("; exit 7\nline-1\nline-2\nline-3\n")
    assert "exit code 7" in counted.err
    begun = await person.ok("session", "run", "wait", "work")
    assert begun.out == "wait: running\n"
    assert (await person("session", "run", "wait", "work")).code == 5
    listed = await person.ok("session", "commands", "work")
    states = {line.split("\t")[0]: line.split("\t")[1:3] for line in listed.out.splitlines()[1:]}
    assert states == {"count": ["failed", "7"], "wait": ["running", "-"]}
    assert (await person.ok("session", "run", "wait", "work", "--stop")).out != begun.out
    log = await person.ok("session", "commands", "work", "--log", "wait")
    assert log.out.endswith("; sleep 600\nbegun\n")
    assert (await person("session", "run", "nothing", "work")).code == 4
    removed = await person.ok("session", "rm", "work", "--yes")
    assert removed.out == "Removed work.\n"
    assert "Its teardown failed: exit code 3.\n" in removed.err
    assert removed.err.endswith("gone\nwrong\n")


async def test_leaving_a_job_that_is_followed_leaves_it_running(person: Person) -> None:
    person.upstream.commit({".craftastic/config.toml": CONFIG})
    await person.begin()
    asked = Asked(person.cli, "session", "run", "wait", "work", "--follow")
    await asked.shows(b"begun")

    asked.process.send_signal(signal.SIGINT)

    assert await asked.ended() == 130
    assert b"It goes on" in asked.shown
    shown = await person.ok("session", "commands", "work", "--log", "wait", "--json")
    assert shown.json["status"] == "running"


async def test_a_private_repository_is_reached_by_a_credential_that_is_no_argument(
    person: Person,
) -> None:
    person.server.password = "let-me-in"
    url = person.server.url("project.git")
    origin = url.removesuffix("/project.git")

    refused = await person("up", url, "--detach")
    assert refused.code == 5
    assert f"`craftastic host add {origin}` stores a token for it." in refused.err
    wrong = await person.ok("host", "add", origin, "--password-stdin", stdin="wrong\n")
    assert wrong.out.startswith(f"Stored for {origin}, user ")
    still = await person("up", url, "--detach")
    assert (still.code, "`craftastic host add" in still.err) == (5, True)
    asked = Asked(person.cli, "host", "add", origin)
    await asked.answer(b"Password or token for", "let-me-in")
    assert await asked.ended() == 0, asked.shown
    assert b"let-me-in" not in asked.shown

    await person.begin()

    listed = await person.ok("host", "ls")
    assert listed.out.splitlines()[1].split("\t")[1] == origin
    assert "let-me-in" not in listed.out + (await person.ok("host", "ls", "--json")).out
    (person.tree / "a.txt").write_text("two\n")
    await person.ok("commit", "work", "-m", "a")
    await person.ok("push", "work")
    assert (await person.ok("host", "rm", origin, "--yes")).out == (
        f"Removed the credential for {origin}.\n"
    )
    (person.tree / "a.txt").write_text("three\n")
    await person.ok("commit", "work", "-m", "b")
    without = await person("push", "work")
    assert without.code == 3
    assert "craftastic host add" in without.err
    assert "let-me-in" not in without.err


async def test_what_is_no_session_and_what_has_no_worktree_are_told(person: Person) -> None:
    await person.begin()
    await person.ok("env", "create", "--name", "empty")
    await person.ok("session", "create", "empty", "--name", "bare")

    for command in ("status", "diff", "log", "push", "pull"):
        assert (await person(command, "nothing")).code == 4
        assert (await person(command, "bare")).code == 2
        unsaid = await person(command)
        assert (unsaid.code, "Name the session" in unsaid.err) == (2, True)
    assert (await person("branches", "--env", "empty")).code == 4
    assert (await person("branches", "work", "--env", "empty")).code == 2


async def test_every_command_tells_a_script_what_the_server_answered(person: Person) -> None:
    await person.begin()
    (person.tree / "a.txt").write_text("two\n")

    assert (await person.ok("status", "work", "--json")).json["files"][0]["filename"] == "a.txt"
    assert "+two" in (await person.ok("diff", "work", "--json")).json["diff"]
    assert (await person.ok("diff", "work", "--json", "--base", "main")).json["base"] == "main"
    assert (await person.ok("diff", "work", "--json", "--staged")).json["diff"] == ""
    assert (await person.ok("commit", "work", "-m", "a", "--json")).json["filesChanged"] == 1
    assert (await person.ok("push", "work", "--json")).json["branch"] == "work"
    assert (await person.ok("pull", "work", "--json")).json["updated"] is False
    assert len((await person.ok("log", "work", "--json")).json["commits"]) == 2
