"""F03, F41: of two servers over one PostgreSQL one dies, and nothing is lost or done twice."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from craftastic.database import Database
from tests.conftest import driver_url
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git
from tests.faults._facts import database_url_of, rows_of, runtime_of
from tests.faults._figures import note
from tests.faults._invariants import hold

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.parametrize(
        "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
    ),
]

GOES_ON_S = 10.0
TAKEN_OVER_S = 15.0 + 10.0 + 15.0
"""A claim's end, the next round of the other server, and the work itself on a busy machine."""

SESSIONS = 8
ONCE = {
    *("environment.create", "environment.stop", "environment.delete"),
    *("session.create", "session.delete"),
}


@pytest.fixture
def counting(tmp_path: Path) -> str:
    """Make a repository whose worktrees' setup leaves a line for each time that it is run."""
    work = tmp_path / "work"
    git("init", "--quiet", "--initial-branch=main", str(work))
    setup = '[worktree]\nsetup = "pwd >>$HOME/setups"\n'
    (work / ".craftastic").mkdir()
    (work / ".craftastic" / "config.toml").write_text(setup)
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", "counts its setups", cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(tmp_path / "counting.git"))
    return "counting.git"


@pytest.fixture
def upstream(tmp_path: Path, counting: str) -> Any:
    with GitHttpServer(tmp_path) as served:
        yield served.url(counting)


async def test_a_terminal_goes_on_at_the_other_server_when_its_own_is_killed(
    server: Server, second: Server, runtime: str
) -> None:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("shared")
        session = await api.post("/api/sessions", environmentId=environment["id"], name="one")
    viewer = Viewer(server.url, session["id"], environment["id"], api.token)
    async with viewer.attached():
        await viewer.type("i=0; while :; do i=$((i+1)); echo k$i; sleep 0.05; done\r")
        await viewer.shows("\nk20\n")
        server.kill()
        killed = time.monotonic()
        await until(lambda: viewer.ended, "the socket noticed the dead server")
    last = viewer.numbers("k")[-1]

    viewer.url = second.url
    async with viewer.attached():
        await until(lambda: viewer.numbers("k")[-1:] > [last], "it counts on")
        took = time.monotonic() - killed
        numbers = viewer.numbers("k")
        await viewer.type("\x03")
        assert (await viewer.run("echo alone")).strip() == "alone"

    note("F41", f"terminal goes on at the other server, {runtime}", took, "s")
    assert took <= GOES_ON_S
    assert numbers == list(range(1, len(numbers) + 1))
    assert viewer.gaps == []


async def test_what_a_server_dies_at_is_finished_by_the_other_once_its_claim_has_ended(
    server: Server, second: Server, runtime: str, upstream: str
) -> None:
    server.stop()
    server.environment["CRAFTASTIC_FAILPOINT"] = "sandbox.create.made"
    server.environment["CRAFTASTIC_SANDBOX_SELF_TEST"] = "false"
    server.start()
    await server.ready()
    async with Api(server.url) as doomed, Api(second.url) as api:
        await doomed.register("a@example.com", setupToken=server.setup_token)
        await api.login("a@example.com")
        with pytest.raises(httpx.TransportError):
            await doomed.environment("taken over", upstream)
        assert server.process is not None
        await until(server.process.poll, "the server died")
        died = time.monotonic()

        async def runs() -> bool:
            listed = await api.get(f"/api/environments/user/{api.user['id']}")
            return [one["status"] for one in listed["environments"]] == ["running"]

        await until(runs, "the other finished it", timeout_s=TAKEN_OVER_S)
        note("F41", f"taken over, {runtime}", time.monotonic() - died, "s")

    await hold(second)
    assert await _times(second) == {("environment.create"): [1]}
    del server.environment["CRAFTASTIC_FAILPOINT"]


async def test_two_servers_that_look_all_the_time_do_everything_once(
    server: Server, second: Server, upstream: str
) -> None:
    for one in (server, second):
        one.stop()
        one.environment["CRAFTASTIC_RECONCILE_INTERVAL_S"] = "0.2"
        one.start()
        await one.ready()
    async with Api(server.url) as here, Api(second.url) as there:
        await here.register("a@example.com", setupToken=server.setup_token)
        await there.login("a@example.com")
        environment = await here.environment("counted", upstream)
        both = (here, there)

        async def make(number: int) -> None:
            made = await both[number % 2].post(
                "/api/sessions", environmentId=environment["id"], branch=f"b{number}"
            )
            if number < SESSIONS // 2:
                await both[(number + 1) % 2].delete(f"/api/sessions/{made['id']}")

        async with anyio.create_task_group() as tasks:
            for number in range(SESSIONS):
                tasks.start_soon(make, number)
        setups = await until(lambda: _setups(server), "the setups of those that stay have run")

        assert set(Counter(setups).values()) == {1}
        await here.post(f"/api/environments/{environment['id']}/stop", force=True)
        await there.delete(f"/api/environments/{environment['id']}")

    await hold(second)
    assert await _times(second) == {
        "environment.create": [1],
        "environment.stop": [1],
        "environment.delete": [1],
        "session.create": [1] * SESSIONS,
        "session.delete": [1] * (SESSIONS // 2),
    }


async def _times(server: Server) -> dict[str, list[int]]:
    """Return how often each thing was done to each object, by the audit log."""
    database = Database(driver_url(database_url_of(server)))
    try:
        events = await rows_of(database, "audit_events")
    finally:
        await database.close()
    counts = Counter((one["action"], one["object_id"]) for one in events)
    found: dict[str, list[int]] = {}
    for (action, _), count in counts.items():
        if action in ONCE:
            found.setdefault(action, []).append(count)
    return found


async def _setups(server: Server) -> list[str]:
    """Return where setups ran, a line for each; nothing before all that stay have run.

    Of a session that is deleted the setup may have been ended before it did anything.
    """
    runtime = runtime_of(server)
    try:
        (sandbox,) = await runtime.list()
        told = await runtime.run(sandbox.ref, ["sh", "-c", 'cat "$HOME/setups"'])
    finally:
        await runtime.close()
    lines = told.stdout.decode().splitlines()
    staying = {f"b{number}" for number in range(SESSIONS // 2, SESSIONS)}
    return lines if staying <= {line.rpartition("/")[2] for line in lines} else []
