"""A repository full of hidden programs: whatever is asked, none of them runs on the host.

One life for each runtime: the programs are planted in every way that is known, then every route
that has git, tmux or a shell run is asked, over and over. Beside it the kernel tells of each start
of git and tmux on the machine.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.conftest import PostgresServer, missing
from tests.e2e import hostile_life as ask
from tests.e2e.canaries import PERSON, Perch, Victims, state_of
from tests.e2e.exec_recorder import ExecRecorder, namespaces
from tests.e2e.harness import Api, Server, Viewer
from tests.e2e.hostile_life import Life, inside, make_upstream
from tests.fakes.git_http_server import GitHttpServer
from tests.leaks import MARK_NAME, RUN, USERS

TEST_S = 600

RAN_FOR_THE_SERVER, RAN_AT_ALL, RAN_GIT = 25, 55, 400
"""How many canaries, and how often git, have run in the sandbox at least."""


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[ExecRecorder]:
    if os.geteuid() != 0:
        missing("only root may watch what the machine starts")
    recorder = ExecRecorder(tmp_path, f"{MARK_NAME}={RUN.mark}")
    try:
        recorder.start()
    except OSError as error:
        missing(f"the kernel does not tell what is started: {error}")
    try:
        yield recorder
    finally:
        recorder.stop()


def test_the_recorder_sees_every_git_of_the_host_and_tells_a_sandboxes_apart(
    recorder: ExecRecorder,
) -> None:
    path = os.environ["PATH"]  # noqa: TID251 - not a server's setting
    server = subprocess.Popen(["sh", "-c", "git --version; tmux -V; :"], env={"PATH": path})
    server.wait(10)
    starts = recorder.on_the_host([server.pid], os.getpid())
    assert [one.name for one in starts] == ["git", "tmux"]

    # The tests' own are nobody's business; an orphan is known by what it has of this run.
    assert recorder.on_the_host([], os.getpid()) == []
    orphan = "sh -c 'read _; git --version; :' <&0 & exit"
    with subprocess.Popen(
        ["sh", "-c", orphan],
        env={"PATH": path, MARK_NAME: RUN.mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        parent.wait(10)
        parent.communicate(b"\n", timeout=10)
    assert [one.name for one in recorder.on_the_host([], os.getpid())] == ["git"]

    apart = ["unshare", "--pid", "--mount", "--fork", "git", "--version"]
    with subprocess.Popen(apart, env={"PATH": path}) as sandbox:
        sandbox.wait(10)
    (inside,) = (one for one in recorder.starts if sandbox.pid in one.ancestors)
    assert not inside.on_the_host
    assert inside.namespaces["pid"] != starts[0].namespaces["pid"]


@pytest.fixture
def either_database(request: pytest.FixtureRequest, runtime: str) -> Iterator[str | None]:
    """Give the URL of a PostgreSQL database beside Docker, none (so SQLite) beside `local`."""
    if runtime != "docker":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def perch() -> Iterator[Perch]:
    perch = Perch(RUN.new_folder("canaries"))
    perch.make()
    yield perch
    shutil.rmtree(perch.folder)


@pytest.fixture
def victims() -> Iterator[Victims]:
    victims = Victims(RUN.new_folder("victims"), f"of the host {secrets.token_hex(8)}")
    victims.make()
    yield victims
    shutil.rmtree(victims.folder)


@pytest.fixture
async def life(
    data_dir: Path,
    tmp_path: Path,
    recorder: ExecRecorder,
    runtime: str,
    either_database: str | None,
    perch: Perch,
    victims: Victims,
) -> AsyncIterator[Life]:
    server = Server(data_dir, runtime=runtime, database_url=either_database)
    try:
        server.start()
        await server.ready()
        with GitHttpServer(tmp_path) as upstream:
            commit = make_upstream(tmp_path / "hostile.git", perch)
            async with Api(server.url) as api, inside(server) as reached:
                await api.register("a@example.com", setupToken=server.setup_token)
                environment = await api.environment("hostile", upstream.url("hostile.git"))
                environment["commit"] = commit
                yield Life(server, api, perch, victims, recorder, reached, environment)
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.mark.timeout(TEST_S)
async def test_no_hidden_program_of_a_sandbox_runs_on_the_host(life: Life) -> None:
    server, perch, folder = life.server, life.perch, str(life.perch.folder)
    victims, keys = life.victims.state(), state_of(server.data_dir / "keys")
    main = await ask.created(life, branch="main")
    assert main is not None

    await ask.furnish(life)
    await life.listen()
    await ask.looks_closely(life, main)
    await ask.changes(life, main, "main")
    of_the_home = await life.listen()
    plant = perch.plant()
    await life.sh(plant, life.repository, life.worktree("main"), str(life.victims.folder))
    await life.listen()
    await ask.looks_closely(life, main)
    await ask.changes(life, main, "main")
    await ask.lives(life, "kind")
    viewer = Viewer(server.url, main, life.id, life.api.token)
    async with viewer.attached():
        assert (await viewer.run("echo here")).strip() == "here"
    of_the_repository = await life.listen()
    # The programs behave so far, so everything is done that was asked.
    assert [one for one in life.answers if one.status != 200] == []
    await life.sh(PERSON, folder, life.worktree("main"), timeout_s=120)
    of_a_person = await life.listen()

    await ask.mood(life, "rude")
    hooks = 'git config --file "$1/config" core.hooksPath "$2/elsewhere"'
    await life.sh(hooks, life.repository, folder)
    await ask.edit(life, "main", "b.dat")
    await ask.looks(life, main)
    await ask.tries(life, main)
    await ask.lives(life, "rude")
    await ask.mood(life)
    await ask.astray(life, main)
    assert [one for one in life.answers if one.status >= 500] == []

    await ask.places(life)
    await life.ask("PATCH", f"/api/sessions/{main}", {"status": "inactive"})
    await ask.lies(life, main)
    assert perch.sung_on_the_host() == []
    by_hand = ask.sings_on_the_host(life)
    await life.listen()
    await ask.begins_again(life)
    await life.ask("PATCH", f"/api/sessions/{main}", {"status": "inactive"})
    await ask.looks(life, main)
    await life.ask("DELETE", f"/api/environments/{life.id}")
    await life.ask("POST", "/api/cleanup/sessions")

    # Nothing ran on the host, and nothing of it was touched or told.
    assert perch.sung_on_the_host() == []
    assert server.process is not None
    users = range(server.uid_base, server.uid_base + USERS)
    assert life.recorder.on_the_host([server.process.pid], os.getpid(), users) == []
    assert life.victims.state() == victims
    assert state_of(server.data_dir / "keys") == keys
    assert [one.asked for one in life.answers if life.victims.secret in one.text] == []
    storage = [server.data_dir / name for name in ("repos", "worktrees", "homes")]
    assert [one for tree in storage for one in tree.glob("*")] == []
    assert [one for one in life.answers if not one.clear] == []

    # It would have been seen: the same programs ran inside, and on the host for the test itself.
    assert by_hand >= {"repo.alias.canary", "repo.remote.near.uploadpack"}
    assert of_the_home >= {"home.filter.canary.clean", "path.git", "path.sh", "path.python3"}
    assert of_the_repository >= {
        *("hooks.pre-commit", "hooks.pre-push", "repo.filter.canary.smudge", "home.bashrc"),
        *("worktree.setup", "worktree.teardown", "worktree.command", "path.tmux"),
    }
    for_the_server = of_the_home | of_the_repository
    assert len(for_the_server) >= RAN_FOR_THE_SERVER
    assert len(for_the_server | of_a_person) >= RAN_AT_ALL
    host = namespaces("self")
    assert [one for one in life.sung if one.pid == host["pid"] or one.mnt == host["mnt"]] == []
    starts = [one for one in life.recorder.starts if one.uid in users and not one.on_the_host]
    assert len([one for one in starts if one.name == "git"]) >= RAN_GIT
