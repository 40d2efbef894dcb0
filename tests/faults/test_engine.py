"""F04 to F06: the Docker engine is started anew, or takes calls and answers none."""

import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from tests.conftest import missing
from tests.e2e.harness import Server, until
from tests.faults._engine import IMAGE, OwnEngine, Wire, small_upstream, wired
from tests.faults._figures import note, percentile
from tests.faults._invariants import hold
from tests.faults._work import Work, begun
from tests.leaks import RUN

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.docker]

REATTACHED_S = 10.0
SEEN_S = 15.0
QUICK_S = 1.0
CALL_S = 30.0
"""The longest deadline of an ordinary call to the engine."""

LET_GO_S = 15.0
"""What was begun has to be let go of, each step with a deadline of its own."""

AT_ONCE_S = 5.0
"""More than the one short question that a silent engine is asked takes, 3 s."""

OTHER_ROUTES = ("/api/auth/me", "/api/environments/{environment}", "/api/sessions/{session}")


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    """Give an engine of the tests' own, which has the sandboxes' image."""
    if os.geteuid() != 0 or any(shutil.which(one) is None for one in ("dockerd", "nsenter")):
        missing("an engine of the test's own needs root, dockerd and nsenter")
    folder = RUN.new_folder("engine")
    with OwnEngine(folder) as engine:
        engine.configure(live_restore=False)
        engine.bring_image("craftastic-sandbox:latest")
        yield engine
    shutil.rmtree(folder)


@asynccontextmanager
async def at_work(engine: OwnEngine, data_dir: Path, root: Path) -> AsyncGenerator[Work]:
    """Work on a server of that engine; called inside of its network."""
    server = Server(
        data_dir,
        runtime="docker",
        database_url=None,
        DOCKER_HOST=engine.address,
        CRAFTASTIC_SANDBOX_IMAGE=IMAGE,
    )
    try:
        server.start()
        await server.ready()
        with small_upstream(root) as upstream:
            async with begun(server, upstream) as work:
                yield work
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


async def told_of_live_restore(work: Work) -> bool | None:
    """Return what the page about the server's health says of it."""
    health = await work.journal.api.get("/api/admin/health")
    (runtime,) = health["runtimes"]
    found = {one["name"]: one["ok"] for one in runtime["findings"]}
    return found["docker.live_restore"]


async def refusal(work: Work) -> tuple[int, str]:
    """Ask for something that needs the engine, and return the status and the code."""
    answer = await work.journal.api.client.post(
        "/api/sessions",
        json={"environmentId": work.environment["id"], "name": "new", "branch": "new"},
    )
    return answer.status_code, str(answer.json().get("code"))


async def not_shown_active(work: Work) -> bool:
    return (await work.session_shown())["status"] != "active"


def test_engine_that_leaves_containers_alone_when_it_is_started_anew_costs_no_terminal(
    engine: OwnEngine, data_dir: Path, tmp_path: Path
) -> None:
    engine.configure(live_restore=True)

    async def run() -> None:
        async with at_work(engine, data_dir, tmp_path) as work:
            assert await told_of_live_restore(work) is True
            async with work.viewer.attached() as viewer:
                shell = (await viewer.run("cd /; marker=same; echo $$")).strip()
                await anyio.to_thread.run_sync(engine.stop)

                assert await refusal(work) == (503, "RUNTIME_UNAVAILABLE")
                assert (await work.shown())["status"] == "running"
                await anyio.to_thread.run_sync(engine.start)
                began = time.monotonic()

                # The socket was open all the time; what was typed waits.
                assert (await viewer.run("echo $$", REATTACHED_S)).strip() == shell
                note("F04", "re-attached", time.monotonic() - began, "s")
                assert (await viewer.run("pwd; echo $marker")).split() == ["/", "same"]
            async with work.viewer.attached() as another:
                assert (await another.run("echo $$")).strip() == shell
            await hold(work.server, journal=work.journal)

    engine.inside(run)


def test_engine_that_ends_containers_when_it_is_started_anew_costs_no_work(
    engine: OwnEngine, data_dir: Path, tmp_path: Path
) -> None:
    engine.configure(live_restore=False)

    async def run() -> None:
        async with at_work(engine, data_dir, tmp_path) as work:
            assert await told_of_live_restore(work) is None
            async with work.viewer.attached() as viewer:
                await viewer.run("true")
                await anyio.to_thread.run_sync(engine.stop)

                assert await refusal(work) == (503, "RUNTIME_UNAVAILABLE")
                await anyio.to_thread.run_sync(engine.start)
                await until(lambda: not_shown_active(work), "nobody is said to look at it")
                await work.seen("F05", SEEN_S, "ENGINE_RESTARTED")
                await until(lambda: viewer.ended, "the socket is closed")

            session = await work.session_shown()
            assert session["status"] == "dead"
            assert "engine that ran it was started anew" in session["reason"]
            assert (await work.shown())["status"] == "stopped"
            await hold(work.server, journal=work.journal)
            began = time.monotonic()
            await work.is_back()
            note("F05", "back by an attach", time.monotonic() - began, "s")
            await hold(work.server, journal=work.journal)

    engine.inside(run)


# ---- an engine that does not answer ---------------------------------------------------------


@pytest.fixture
def wire(data_dir: Path) -> Iterator[Wire]:
    with wired(data_dir) as wire:
        yield wire


@pytest.fixture
async def work(wire: Wire, data_dir: Path, tmp_path: Path) -> AsyncIterator[Work]:
    server = Server(
        data_dir,
        runtime="docker",
        database_url=None,
        DOCKER_HOST=f"unix://{data_dir}/engine.sock",
    )
    try:
        server.start()
        await server.ready()
        with small_upstream(tmp_path) as upstream:
            async with begun(server, upstream) as work:
                yield work
    finally:
        wire.release()
        with anyio.CancelScope(shield=True):
            await server.clean()


async def timed(client: httpx.AsyncClient, path: str) -> tuple[int, float]:
    began = time.monotonic()
    answer = await client.get(path)
    return answer.status_code, time.monotonic() - began


async def test_engine_that_answers_nothing_holds_up_only_those_who_need_it_and_them_not_for_long(
    work: Work, wire: Wire
) -> None:
    client = work.journal.api.client
    paths = [
        one.format(environment=work.environment["id"], session=work.session["id"])
        for one in OTHER_ROUTES
    ]
    status = f"/api/sessions/{work.session['id']}/status"
    others: list[float] = []
    first: list[tuple[float, Any]] = []
    later: list[float] = []
    opened = 0.0

    async def need_it() -> None:
        began = time.monotonic()
        answer = await refusal(work)
        first.append((time.monotonic() - began, answer))

    async def need_it_not() -> None:
        while True:
            for path in paths:
                code, took = await timed(client, path)
                assert code == 200
                others.append(took)
            await anyio.sleep(0.05)

    async with work.viewer.attached() as viewer:
        shell = (await viewer.run("echo $$")).strip()
        wire.stall()
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(need_it_not)
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(need_it)
                # Whoever looks at the server's state has a short deadline, which tells all others.
                ready, took = await timed(client, "/readyz")
                assert (ready, took < AT_ONCE_S * 2) == (503, True)
                await timed(client, status)
                opened = time.monotonic() - began
                later = [(await timed(client, status))[1] for _ in range(10)]
            tasks.cancel_scope.cancel()
        wire.release()
        began = time.monotonic()
        await until(lambda: _is_ready(client), "the engine is trusted again")
        back = time.monotonic() - began
        assert (await viewer.run("echo $$")).strip() == shell

    ((waited, answer),) = first
    assert answer == (503, "RUNTIME_UNAVAILABLE")
    assert waited < CALL_S + LET_GO_S
    assert percentile(later, 50) < QUICK_S
    assert max(later) < AT_ONCE_S
    assert len(others) > 20
    note("F06", "a call that waits for its deadline", waited, "s")
    note("F06", "until calls fail at once", opened, "s")
    note("F06", "calls after that", percentile(later, 50), "s")
    note("F06", "other routes, p99", percentile(others, 99), "s")
    note("F06", "trusted again", back, "s")
    assert percentile(others, 99) < QUICK_S
    assert (await work.shown())["status"] == "running"
    await hold(work.server, journal=work.journal)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200
