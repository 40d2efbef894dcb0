"""F01 and F02: the server is killed under load, or told to end; what it acknowledged stays true."""

import itertools
import random
import re
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from craftastic.runtimes.base import SandboxRef
from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._facts import runtime_of
from tests.faults._figures import note, percentile
from tests.faults._invariants import hold
from tests.faults._journal import Journal

pytestmark = [pytest.mark.fault, pytest.mark.slow]

KILLS = 20
WRITERS = 4
REATTACHED_S = 5.0
DRAINED_S = 10.0
PAUSE_S = 5.0
"""More than a busy machine makes a program wait; a pane that nobody reads would wait for ever."""

PRODUCER = """
import itertools, time
for number in itertools.count(1):
    print(f"n{number} {time.monotonic():.3f}", flush=True)
    time.sleep(0.02)
"""
SEEDS = {"docker": 1, "local": 2}


@pytest.fixture
async def journal(server: Server) -> AsyncIterator[Journal]:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        yield Journal(api)


async def write(journal: Journal, environment: dict[str, Any], name: str) -> None:
    """Make, rename and delete sessions until the server dies."""
    for number in range(1000):
        before = journal.unanswered
        made = await journal.create(
            "/api/sessions",
            environmentId=environment["id"],
            name=f"{name} {number}",
            branch=f"{name.replace(' ', '/')}/{number}",
        )
        if made is not None:
            path = f"/api/sessions/{made['id']}"
            if number % 3 == 1:
                await journal.change(path, name=f"{name} {number} renamed")
            elif number % 3 == 2:
                await journal.delete(path)
        if journal.unanswered > before:
            return


async def inside(server: Server, environment: dict[str, Any], *argv: str) -> str:
    runtime = runtime_of(server)
    try:
        sandbox = SandboxRef(runtime.name, str(environment["containerId"]))
        result = await runtime.run(sandbox, argv, max_output_bytes=16 << 20)
    finally:
        await runtime.close()
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode()


async def tidied(journal: Journal, environment: dict[str, Any], kept: dict[str, Any]) -> None:
    """Delete what the last round made, unanswered or not: the number of sessions is limited."""
    listed = await journal.api.get(f"/api/sessions/environment/{environment['id']}")
    for one in listed["sessions"]:
        if one["id"] != kept["id"]:
            assert await journal.delete(f"/api/sessions/{one['id']}")


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_of_twenty_kills_under_load_none_loses_anything_and_the_terminal_goes_on(
    server: Server, runtime: str, journal: Journal, own_history: str
) -> None:
    dice = random.Random(SEEDS[runtime])  # noqa: S311 - repeatable, not secret
    environment = await journal.create(
        "/api/environments",
        userId=journal.api.user["id"],
        name="killed",
        repositoryUrl=own_history,
    )
    assert environment is not None
    counted = await journal.create(
        "/api/sessions", environmentId=environment["id"], name="counter", branch="main"
    )
    assert counted is not None
    put = ("sh", "-c", 'printf %s "$1" >"$HOME/producer.py"', "sh", PRODUCER)
    await inside(server, environment, *put)
    viewer = Viewer(server.url, counted["id"], environment["id"], journal.api.token)
    async with viewer.attached():
        await viewer.type("clear; python3 ~/producer.py\r")
        await viewer.shows("n10 ")
    reattached: list[float] = []

    for number in range(KILLS):
        async with viewer.attached():
            async with anyio.create_task_group() as group:
                for writer in range(WRITERS):
                    group.start_soon(write, journal, environment, f"round {number} by {writer}")
                wanted = journal.acknowledged + dice.randint(2, 8)
                await until(lambda wanted=wanted: journal.acknowledged >= wanted, "some answers")
                await anyio.sleep(dice.uniform(0, 0.5))  # the moment is what is random here
                server.kill()
            await until(lambda: viewer.ended, "the socket noticed the dead server")
        assert viewer.ended is not None
        assert viewer.ended[0] == 1006
        last = max(_numbers(viewer.text))

        server.start()
        await server.ready()
        back = time.monotonic()
        await journal.api.login("a@example.com")
        viewer.token = journal.api.token
        async with viewer.attached():
            await until(lambda last=last: max(_numbers(viewer.text)) > last, "it counts on")
            reattached.append(time.monotonic() - back)

        note("F01", f"converged, {runtime}", await hold(server, journal=journal), "s")
        await tidied(journal, environment, counted)

    assert await journal.lost() == []
    assert {status for status, _ in journal.refused} <= {503}
    assert percentile(reattached, 95) <= REATTACHED_S
    for one in reattached:
        note("F01", f"re-attached after the server answers, {runtime}", one, "s")
    async with viewer.attached():
        await viewer.type("\x03")
        await viewer.run("true")
    socket = ("tmux", "-S", "/run/craftastic/tmux.sock")
    kept = await inside(
        server,
        environment,
        *socket,
        "capture-pane",
        "-p",
        "-S",
        "-",
        "-t",
        counted["tmuxSessionName"],
    )
    lines = [
        (int(n), float(at)) for n, at in re.findall(r"^n(\d+) (\d+\.\d+)$", kept, re.MULTILINE)
    ]
    assert [n for n, _ in lines] == list(range(lines[0][0], lines[0][0] + len(lines)))
    assert lines[0][0] == 1
    pauses = [later - at for (_, at), (_, later) in itertools.pairwise(lines)]
    note("F01", f"longest pause of the producer, {runtime}", max(pauses), "s")
    assert max(pauses) < PAUSE_S
    note("F01", f"operations acknowledged, {runtime}", journal.acknowledged, "operations")
    note("F01", f"operations without an answer, {runtime}", journal.unanswered, "operations")
    note("F01", f"operations lost, {runtime}", 0, "operations")


def _numbers(text: str) -> list[int]:
    return [int(one) for one in re.findall(r"^n(\d+) ", text, re.MULTILINE)] or [0]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_server_that_is_told_to_end_under_load_ends_in_time_and_loses_nothing(
    server: Server, runtime: str, journal: Journal, own_history: str
) -> None:
    environment = await journal.create(
        "/api/environments",
        userId=journal.api.user["id"],
        name="drained",
        repositoryUrl=own_history,
    )
    assert environment is not None
    session = await journal.create(
        "/api/sessions", environmentId=environment["id"], name="watched", branch="main"
    )
    assert session is not None
    viewers = [
        Viewer(server.url, session["id"], environment["id"], journal.api.token) for _ in range(10)
    ]

    def ended() -> str | None:
        code = None if server.process is None else server.process.poll()
        return None if code is None else str(code)

    shell, took, code = "", 0.0, ""

    async def watch(viewer: Viewer) -> None:
        async with viewer.attached():
            await until(lambda: viewer.ended, "the socket is closed", timeout_s=60)

    async def create(number: int) -> None:
        body = {"environmentId": environment["id"], "branch": f"drained/{number}"}
        if number % 2:
            await journal.create("/api/sessions", name=f"drained {number}", **body)
        else:
            user = journal.api.user["id"]
            await journal.create("/api/environments", userId=user, name=f"drained {number}")

    async with anyio.create_task_group() as group:
        for viewer in viewers:
            group.start_soon(watch, viewer)
        await until(lambda: all(one.snapshots for one in viewers), "all sockets are open")
        shell = (await viewers[0].run("echo $$")).strip()
        for number in range(10):
            group.start_soon(create, number)
        await anyio.sleep(0.2)  # some have begun by now, and none has ended
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        code = await until(ended, "its end")
        took = time.monotonic() - began

    assert code == "0"
    assert took <= DRAINED_S
    note("F02", f"drained, {runtime}", took, "s")
    assert {one.ended for one in viewers} == {(1012, "Server is restarting")}
    assert {status for status, _ in journal.refused} <= {503}

    server.start()
    await server.ready()
    note("F02", f"converged, {runtime}", await hold(server, journal=journal), "s")
    again = Viewer(server.url, session["id"], environment["id"], journal.api.token)
    async with again.attached():
        assert (await again.run("echo $$")).strip() == shell
