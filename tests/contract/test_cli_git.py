"""One person's work from `up` to `pull`: a real server, a real sandbox, a private repository."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.contract.test_cli_commands import Cli, Ended
from tests.e2e.harness import PASSWORD, Server
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_rig import Upstream
from tests.leaks import RUN
from tests.secrecy import canary

EMAIL = "a@example.com"
GIT_PASSWORD = canary("git-password")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    folder = RUN.new_folder("cli-git", 0o711)
    server = Server(folder, runtime="local", database_url=None)
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.local
async def test_a_private_repository_is_worked_on_without_its_password_in_the_sandbox(
    server: Server, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "person", server.url)
    cli.home.mkdir()
    upstream = Upstream(tmp_path)

    async def ok(*arguments: str, stdin: str = "") -> Ended:
        done = await cli(*arguments, stdin=stdin, CRAFTASTIC_DATA_DIR=str(server.data_dir))
        assert done.code == 0, done
        return done

    with GitHttpServer(upstream.root, password=GIT_PASSWORD) as git_server:
        url = git_server.url("project.git")
        await ok("login", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
        refused = await cli("up", url, "-b", "work", "--detach")
        assert refused.code == 5
        assert "craftastic host add http://127.0.0.1:" in refused.err

        await ok("host", "add", url.removesuffix("/project.git"), "--password-stdin",
                 stdin=GIT_PASSWORD)  # fmt: skip
        await ok("up", url, "-b", "work", "--detach")
        typed = "echo two >> a.txt; echo new > new.txt; env; git config --list; exit\n"
        shown = await ok("session", "attach", "work", stdin=typed)
        assert "HOME=/home/dev" in shown.out
        assert "remote.origin.url=" in shown.out
        assert GIT_PASSWORD not in shown.out

        status = await ok("status", "work")
        assert status.out.splitlines()[1:] == [" M a.txt\t+1 -0", "?? new.txt\t+1 -0"]
        assert "+two\n" in (await ok("diff", "work")).out
        await ok("commit", "work", "-m", "from here")
        head = (await ok("log", "work", "-n", "1", "--json")).json["commits"][0]["hash"]
        pushed = await ok("push", "work")
        assert f"{head[:7]} (new) refs/heads/work: ok" in pushed.out
        assert upstream.refs()["refs/heads/work"] == head

        theirs = upstream.commit({"t.txt": "1\n"}, branch="work")
        pulled = await ok("pull", "work")
        assert pulled.out.splitlines()[1] == f"1 new commit, {head[:7]}..{theirs[:7]}"
        told = (await ok("status", "work")).err + pushed.err + pulled.err
        assert GIT_PASSWORD not in told + server.log.read_text()
