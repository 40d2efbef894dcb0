"""F22 and F23: the server dies at each step of making and removing; the next one puts it right."""

import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from craftastic.failpoints import EXIT_CODE
from craftastic.runtimes.base import SandboxRef
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer
from tests.faults._facts import runtime_of
from tests.faults._figures import note
from tests.faults._invariants import hold
from tests.faults._scenarios import PASSED_BEFORE, SCENARIOS, of_one_runtime

pytestmark = [pytest.mark.fault, pytest.mark.slow]

CONFIG = """
[worktree]
setup = "echo prepared >>$HOME/prepared"
teardown = "echo torn down >>$HOME/torn-down"
"""
DIES_S = 60.0
TRIED: set[str] = set()
"""The scenarios that a test below is about."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a small repository whose worktrees have a setup and a teardown."""
    root = tmp_path_factory.mktemp("upstream")
    work = root / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    (work / ".craftastic").mkdir()
    (work / ".craftastic" / "config.toml").write_text(CONFIG)
    (work / "file").write_text("one\n")
    named = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    for command in (["add", "."], [*named, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(work), *command], check=True)
    bare = Path("small.git")
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(root / bare)], check=True)
    with GitHttpServer(root) as served:
        yield served.url(str(bare))


@dataclass
class Life:
    """One server over its crash, as its only user sees it."""

    server: Server
    api: Api
    repository: str
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    session: dict[str, Any] = field(default_factory=dict[str, Any])

    async def make_environment(self) -> httpx.Response:
        body = {
            "userId": self.api.user["id"],
            "name": "crashed",
            "repositoryUrl": self.repository,
        }
        answer = await self.api.client.post("/api/environments", json=body)
        if answer.status_code == 200:
            self.environment = answer.json()
            await until(self.cloned, "the clone")
        return answer

    async def cloned(self) -> bool:
        """Tell whether the environment can be used; it is found by its name."""
        user = self.api.user["id"]
        found = (await self.api.get(f"/api/environments/user/{user}"))["environments"]
        if not found:
            return False
        self.environment = found[0]
        return found[0]["status"] == "running" and found[0]["cloneStatus"] == "ready"

    async def make_session(self) -> httpx.Response:
        body = {"environmentId": self.environment["id"], "name": "one", "branch": "topic/one"}
        answer = await self.api.client.post("/api/sessions", json=body)
        if answer.status_code == 200:
            self.session = answer.json()
        return answer

    async def delete(self, path: str) -> httpx.Response:
        return await self.api.client.delete(path)

    async def inside(self, *argv: str) -> str:
        """Run a command in the environment's sandbox and return what it printed."""
        runtime = runtime_of(self.server)
        sandbox = SandboxRef(runtime.name, str(self.environment["containerId"]))
        result = await runtime.run(sandbox, argv)
        await runtime.close()
        assert result.exit_code == 0, result.stderr
        return result.stdout.decode()

    async def works(self) -> None:
        """Use what was made: a terminal opens in the session's worktree."""
        viewer = Viewer(self.server.url, self.session["id"], self.environment["id"], self.api.token)
        async with viewer.attached():
            assert (await viewer.run("cat file")).strip() == "one"

    async def dies(self, act: Callable[[], Awaitable[object]]) -> None:
        """Do what makes the server die, and wait for its death."""
        with suppress(httpx.TransportError):  # an answer that was faster is well too
            await act()
        process = self.server.process
        assert process is not None
        code = await until(process.poll, "the server dies at the failpoint", timeout_s=DIES_S)
        assert code == EXIT_CODE

    async def comes_back(self, fault: str) -> None:
        """Start the server again, unarmed; everything is as it should be in time."""
        del self.server.environment["CRAFTASTIC_FAILPOINT"]
        self.server.start()
        await self.server.ready()
        note(fault, f"converged, {self.server.environment['CRAFTASTIC_RUNTIME']}",
             await hold(self.server), "s")  # fmt: skip


@asynccontextmanager
async def armed(
    failpoint: str, data_dir: Path, runtime: str, repository: str
) -> AsyncGenerator[Life]:
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=None,
        CRAFTASTIC_FAILPOINT=f"{failpoint}:{PASSED_BEFORE.get((failpoint, runtime), 0)}",
        # The scratch sandbox passes the same places; a crash in it is another test's.
        CRAFTASTIC_SANDBOX_SELF_TEST="false",
    )
    try:
        server.start()
        await server.ready()
        async with Api(server.url) as api:
            await api.register("a@example.com", setupToken=server.setup_token)
            yield Life(server, api, repository)
    finally:
        await server.clean()


def points(name: str) -> pytest.MarkDecorator:
    """Return the failpoints of a scenario in the runtimes that have them."""
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    TRIED.add(name)
    marks = {"docker": pytest.mark.docker, "local": pytest.mark.local}
    return pytest.mark.parametrize(
        ("failpoint", "runtime"),
        [
            pytest.param(failpoint, runtime, marks=mark, id=f"{failpoint}-{runtime}")
            for failpoint in scenario.failpoints
            for runtime, mark in marks.items()
            if of_one_runtime(failpoint) in {None, runtime}
        ],
    )


@points("environment is made")
async def test_environment_whose_making_was_cut_short_is_finished_or_was_never_there(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.dies(life.make_environment)

        await life.comes_back("F22")

        there = await life.cloned()
        assert there is (failpoint != "environment.create.inserted")
        if not there:
            assert (await life.make_environment()).status_code == 200
        assert (await life.make_session()).status_code == 200
        await life.works()


@points("session is made")
async def test_session_whose_making_was_cut_short_is_finished(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.dies(life.make_session)

        await life.comes_back("F22")

        path = f"/api/sessions/environment/{life.environment['id']}"
        (life.session,) = (await life.api.get(path))["sessions"]
        await life.works()
        assert (await life.make_session()).status_code == 409
        # Its worktree was prepared, and once.
        assert await life.inside("cat", "/home/dev/prepared") == "prepared\n"


@points("session is removed")
async def test_session_whose_removal_was_cut_short_is_removed_and_its_work_is_kept(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        worktree, session = life.session["workingDirectory"], life.session["id"]
        await life.inside("sh", "-c", 'echo precious >"$1/new"', "sh", worktree)
        await life.dies(lambda: life.delete(f"/api/sessions/{session}"))

        await life.comes_back("F23")

        assert (await life.delete(f"/api/sessions/{session}")).status_code == 404
        repo = f"/home/dev/.craftastic/repos/{life.environment['id']}"
        show = ("git", f"--git-dir={repo}", "show", f"refs/craftastic/kept/{session}:new")
        assert await life.inside(*show) == "precious\n"
        assert (await life.make_session()).status_code == 200
        await life.works()


@points("repository is repaired")
async def test_repair_of_a_repository_that_was_cut_short_is_finished_and_loses_nothing(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        worktree, key = life.session["workingDirectory"], life.environment["id"]
        await life.inside(
            *("sh", "-ec", 'cd "$1"; echo precious >new; git add new; git commit -qm new', "sh"),
            worktree,
        )
        (data_dir / "repos" / key / "HEAD").write_bytes(b"noise")
        path = f"/api/environments/{key}/repair"
        await life.dies(lambda: life.api.client.post(path))

        await life.comes_back("F28")

        assert await life.inside("cat", f"{worktree}/new") == "precious\n"
        show = ("git", "-C", worktree, "show", "HEAD:new")
        assert await life.inside(*show) == "precious\n"
        repaired = await life.api.post(path)
        assert len(repaired["kept"]) == 1
        await life.works()


@points("worktree is repaired")
async def test_repair_of_a_worktree_that_was_cut_short_is_done_by_the_next_one(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        await life.inside("rm", "-rf", "--", life.session["workingDirectory"])
        path = f"/api/sessions/{life.session['id']}/repair"
        await life.dies(lambda: life.api.client.post(path))

        del life.server.environment["CRAFTASTIC_FAILPOINT"]
        life.server.start()
        await life.server.ready()
        await life.api.post(path)

        await hold(life.server)
        await life.works()


@points("environment is stopped")
async def test_environment_whose_stop_was_cut_short_is_stopped_and_can_be_started(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        container = life.environment["containerId"]
        await life.dies(lambda: life.delete(f"/api/containers/{container}"))

        await life.comes_back("F23")

        environment = await life.api.get(f"/api/environments/{life.environment['id']}")
        assert environment["status"] == "stopped"
        await life.works()
        await hold(life.server)


@points("environment is deleted")
async def test_environment_whose_deletion_was_cut_short_is_gone_with_everything_in_it(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        path = f"/api/environments/{life.environment['id']}"
        await life.dies(lambda: life.delete(path))

        await life.comes_back("F23")

        assert (await life.delete(path)).status_code == 404
        for name in ("repos", "worktrees", "homes"):
            assert list((data_dir / name).iterdir()) == []
        assert (await life.make_environment()).status_code == 200


@points("disk space is freed")
async def test_reclaim_that_was_cut_short_is_on_record_once_and_its_session_comes_back(
    failpoint: str, runtime: str, data_dir: Path, repository: str
) -> None:
    async with armed(failpoint, data_dir, runtime, repository) as life:
        await life.make_environment()
        await life.make_session()
        session = f"/api/sessions/{life.session['id']}"
        await life.api.client.patch(session, json={"status": "dead"})
        disk = f"/api/environments/{life.environment['id']}/disk"
        await life.dies(lambda: life.api.client.post(f"{disk}/reclaim", json={"tier": 3}))

        await life.comes_back("F23")

        async def on_record() -> list[str]:
            found = await life.api.get("/api/admin/audit?action=disk.reclaimed")
            return [one["outcome"] for one in found["events"]]

        outcome = "ok" if failpoint == "disk.reclaim.recorded" else "cut_short"
        assert await until(on_record, "the reclaim is on record") == [outcome]
        # A worktree that nobody had decided to remove is there; all others are removed whole.
        there = await life.inside("sh", "-c", 'ls "$1" 2>/dev/null || true', "sh",
                                  life.session["workingDirectory"])  # fmt: skip
        assert ("file" in there) is (failpoint == "disk.reclaim.wished")
        await life.works()
        await hold(life.server)


def test_every_scenario_has_its_test() -> None:
    assert {one.name for one in SCENARIOS} == TRIED
