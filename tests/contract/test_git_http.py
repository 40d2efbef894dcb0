"""All of git's routes in one piece of work, over both databases and in every kind of sandbox."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from craftastic.database import Database
from tests.conftest import driver_url
from tests.contract.conftest import benches
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.leaks import RUN

PLACES = [
    pytest.param(("quick", "sqlite"), id="quick-sqlite"),
    pytest.param(("quick", "postgres"), id="quick-postgres", marks=pytest.mark.postgres),
    pytest.param(("docker", "sqlite"), id="docker-sqlite", marks=pytest.mark.docker),
    pytest.param(
        ("local", "postgres"),
        id="local-postgres",
        marks=[pytest.mark.local, pytest.mark.postgres],
    ),
]


@pytest.fixture(params=PLACES)
async def rig(
    request: pytest.FixtureRequest,
    clock: FakeClock,
    tmp_path: Path,
    data_dir: Path,
    copy_of_template: Callable[[str], str],
    docker_network_if_used: None,
) -> AsyncIterator[GitRig]:
    kind, backend = request.param
    database = Database(driver_url(copy_of_template(backend)))
    try:
        if kind == "quick":
            runtime = GitRuntime(data_dir)
            async with git_rig(database, clock, runtime, tmp_path) as rig:
                yield rig
            await runtime.close()
            return
        async for bench in benches(request, kind, data_dir):
            port = bench.settings.gateway_port
            async with git_rig(database, clock, bench.runtime, tmp_path, port=port) as rig:
                RUN.environments.add(str(rig.environment.id))
                try:
                    yield rig
                finally:
                    with anyio.CancelScope(shield=True):
                        await rig.shop.environments.delete(rig.shop.owner, rig.environment.id)
    finally:
        await database.close()


@pytest.fixture
def docker_network_if_used(request: pytest.FixtureRequest) -> None:
    """Ask for the network outside of the event loop, where this sandbox needs it."""
    if "docker" in request.node.callspec.id:
        request.getfixturevalue("docker_network")


async def test_a_piece_of_work_from_the_first_look_to_the_merge(rig: GitRig) -> None:
    first = await rig.head()
    assert (await rig.get("status"))["clean"] is True
    await rig.sh("echo more >> a.txt; printf 'é\\n' > $'n\\xffew'; git mv b.txt moved.txt")

    status = await rig.get("status")
    diff = await rig.get("diff")
    since = await rig.get("diff", base="main")
    assert [(one["status"], one["added"]) for one in status["files"]] == [
        ("M", 1), ("R", 0), ("??", 1),
    ]  # fmt: skip
    assert "+more\n" in diff["diff"]
    assert "+é\n" in diff["diff"]
    assert len(since["files"]) == 3

    committed = (await rig.post("commit", message="Work é\n\nfor the test"))["data"]
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="again")
    assert (committed["filesChanged"], committed["summary"]) == (3, "Work é")

    pushed = (await rig.post("push", expectedSha=committed["commit"]))["data"]
    assert [one["outcome"] for one in pushed["updates"]] == ["ok"]
    assert rig.upstream.refs()["refs/heads/work"] == committed["commit"]

    log = (await rig.get("log"))["commits"]
    assert [(one["message"], one["body"], one["pushed"]) for one in log] == [
        ("Work é", "for the test", True), ("first", "", True),
    ]  # fmt: skip
    assert log[1]["hash"] == first

    theirs = rig.upstream.commit({"t.txt": "1\n"}, branch="work")
    mine = await rig.commit_typed("m.txt")
    assert (await rig.post("fetch"))["data"]["behind"] == 1
    await rig.refused(409, "PUSH_REJECTED", "push")
    await rig.refused(409, "PULL_DIVERGED", "pull")
    pulled = (await rig.post("pull", mode="rebase"))["data"]
    assert (pulled["before"], pulled["commits"]) == (mine, 1)
    assert await rig.sh("git rev-parse HEAD~1; cat t.txt m.txt") == f"{theirs}\n1\nx"
    await rig.post("push")

    branches = {one["name"]: one for one in (await rig.get("branches"))["branches"]}
    assert branches["work"]["sessionId"] == str(rig.session.id)
    assert branches["work"]["head"] == rig.upstream.refs()["refs/heads/work"]
    assert (await rig.get("repo"))["branches"] == ["main", "work"]
