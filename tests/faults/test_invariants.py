"""The checker of the invariants: silent about a sound server, and it finds each kind of fault."""

import re
import secrets
import socket
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from craftastic.runtimes.base import SandboxRef
from tests.e2e.harness import Api, Server, Viewer
from tests.faults._facts import database_url_of, runtime_of
from tests.faults._footprint import footprint
from tests.faults._invariants import hold, violations
from tests.faults._journal import Journal

pytestmark = pytest.mark.fault


@dataclass
class Scene:
    """A server that has ended, and left an environment with a repository and one session."""

    server: Server
    journal: Journal
    environment: dict[str, Any]
    session: dict[str, Any]
    seen: str
    """A text that stands for a secret; the gate of secrets knows nothing of it."""

    started: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    async def inside(self, *argv: str) -> None:
        runtime = runtime_of(self.server)
        sandbox = SandboxRef(runtime.name, str(self.environment["containerId"]))
        result = await runtime.run(sandbox, argv)
        await runtime.close()
        assert result.exit_code == 0, result.stderr

    @contextmanager
    def rows(self) -> Generator[sqlite3.Connection]:
        file = database_url_of(self.server).removeprefix("sqlite:///")
        with closing(sqlite3.connect(file)) as connection:
            yield connection
            connection.commit()


async def scene_of(server: Server, api: Api, repository: str) -> Scene:
    await api.register("a@example.com", setupToken=server.setup_token)
    journal = Journal(api)
    user = api.user["id"]
    environment = await journal.create(
        "/api/environments", userId=user, name="whole", repositoryUrl=repository
    )
    assert environment is not None
    session = await journal.create(
        "/api/sessions", environmentId=environment["id"], name="one", branch="topic"
    )
    assert session is not None
    return Scene(server, journal, environment, session, f"Seen-{secrets.token_hex(8)}")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sound_server_breaks_no_invariant_running_or_not(
    server: Server, own_history: str
) -> None:
    async with Api(server.url) as api:
        scene = await scene_of(server, api, own_history)

        await hold(server, journal=scene.journal, secrets=[scene.seen])

        server.stop()
        assert await violations(server, secrets=[scene.seen]) == []


async def stray_terminal(scene: Scene) -> None:
    socket = ("tmux", "-S", "/run/craftastic/tmux.sock")
    await scene.inside(*socket, "new-session", "-d", "-s", "stray")


async def no_terminal(scene: Scene) -> None:
    await scene.inside("tmux", "-S", "/run/craftastic/tmux.sock", "kill-server")


async def two_of_one_name(scene: Scene) -> None:
    with scene.rows() as rows:
        rows.execute("drop index uq_sessions_live_name")
        rows.execute("drop index uq_sessions_live_branch")
        rows.execute("drop index uq_sessions_tmux_name")
        rows.execute("create table more as select * from sessions")
        rows.execute("update more set id = ?", (uuid4().hex,))
        rows.execute("insert into sessions select * from more")
        rows.execute("drop table more")


async def worktree_of_nobody(scene: Scene) -> None:
    lost = scene.server.data_dir / "worktrees" / scene.environment["id"] / "lost"
    lost.mkdir()
    (lost / ".git").write_text("gitdir: nowhere\n")


async def storage_of_nobody(scene: Scene) -> None:
    (scene.server.data_dir / "homes" / str(uuid4())).mkdir()


async def session_that_is_never_made(scene: Scene) -> None:
    with scene.rows() as rows:
        rows.execute("update sessions set ready = 0")


async def pipe_that_nobody_reads(scene: Scene) -> None:
    await scene.inside("mkfifo", "/run/craftastic/variables.lost")


async def lock_that_nobody_holds(scene: Scene) -> None:
    repository = f"/home/dev/.craftastic/repos/{scene.environment['id']}"
    await scene.inside("touch", f"{repository}/packed-refs.lock")


async def process_of_no_environment(scene: Scene) -> None:
    uid = scene.server.uid_base + 77
    argv = ["sleep", "600"]
    scene.started.append(
        subprocess.Popen(argv, user=uid, group=uid, extra_groups=[])  # noqa: ASYNC220
    )


async def secret_in_the_database(scene: Scene) -> None:
    with scene.rows() as rows:
        rows.execute("update environments set clone_reason = ?", (f"said {scene.seen}",))


async def audit_event_that_was_changed(scene: Scene) -> None:
    with scene.rows() as rows:
        rows.execute("update audit_events set details = '{}' where seq = 2")


async def session_that_was_acknowledged_and_is_gone(scene: Scene) -> None:
    await scene.inside("tmux", "-S", "/run/craftastic/tmux.sock", "kill-server")
    with scene.rows() as rows:
        rows.execute("delete from sessions where id = ?", (UUID(scene.session["id"]).hex,))


FAULTS: list[tuple[str, Callable[[Scene], Awaitable[None]]]] = [
    ("I1", stray_terminal),
    ("I2", no_terminal),
    ("I3", two_of_one_name),
    ("I4", worktree_of_nobody),
    ("I4", storage_of_nobody),
    ("I5", session_that_is_never_made),
    ("I6", pipe_that_nobody_reads),
    ("I6", lock_that_nobody_holds),
    ("I6", process_of_no_environment),
    ("I7", secret_in_the_database),
    ("I8", audit_event_that_was_changed),
    ("I9", session_that_was_acknowledged_and_is_gone),
]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=lambda one: getattr(one, "__name__", one))
async def test_fault_of_each_kind_breaks_its_invariant(
    server: Server,
    own_history: str,
    name: str,
    fault: Callable[[Scene], Awaitable[None]],
) -> None:
    async with Api(server.url) as api:
        scene = await scene_of(server, api, own_history)
        await hold(server, journal=scene.journal)
        server.stop()

        await fault(scene)

        journal = None
        if name == "I9":
            server.start()
            await server.ready()
            journal = scene.journal
        found = await violations(server, journal=journal, secrets=[scene.seen])
        for one in scene.started:
            one.kill()
            one.wait(10)
        assert any(one.startswith(f"{name}: ") for one in found), found


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_the_server_itself_does_not_give_back_is_found(server: Server) -> None:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("held")
        session = await api.post("/api/sessions", environmentId=environment["id"], name="one")
        await hold(server)
        before = await footprint(server)
        await hold(server, before=before)

        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        found = await violations(server, before=before)
        for one in held:
            one.close()
        assert [one for one in found if one.startswith("I6: ")] == [
            f"I6: the server has {before.fds + 20} fds, and had {before.fds}"
        ]

        viewer = Viewer(server.url, session["id"], environment["id"], api.token)
        async with viewer.attached():
            await viewer.run("true")
            found = await violations(server, before=before)
        for what in ("tasks", "viewers", "panes", "requests"):
            assert any(re.match(rf"I6: the server has \d+ {what}, ", one) for one in found), found

        await hold(server, before=before)
