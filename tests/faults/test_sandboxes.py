"""F07 to F09: what happens to sandboxes behind the server's back is seen, said, and mended."""

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from craftastic.runtimes._local_process import read_state
from tests.conftest import free_port
from tests.e2e.harness import Server, until
from tests.faults._engine import Wire, small_upstream, wired
from tests.faults._invariants import hold
from tests.faults._work import Work, begun

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

BY_EVENT_S = 15.0
BY_POLL_S = 30.0
HOG = "python3 -c 'kept = [bytes([65]) * (16 << 20) for _ in range(64)]'"
FILL = "head -c 512M /dev/zero >/tmp/fill; head -c 512M /dev/zero >/dev/shm/fill"
"""What is in a file system of memory belongs to no process that could be killed for it."""


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


async def first_process(work: Work) -> int:
    """Return the id of the sandbox's first process, as the host sees it."""
    sandbox = str((await work.shown())["containerId"])
    if work.server.environment["CRAFTASTIC_RUNTIME"] == "docker":
        return int(docker("inspect", "--format", "{{.State.Pid}}", sandbox))
    state = read_state(work.server.data_dir / "sandboxes" / sandbox)
    assert state is not None
    assert state.init is not None
    return state.init.pid


def be_taken_first(process: int) -> None:
    """Have the kernel kill this process before any other of its sandbox, for want of memory."""
    Path(f"/proc/{process}/oom_score_adj").write_text("1000")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    with small_upstream(tmp_path) as url:
        yield url


@pytest.fixture
async def wire(data_dir: Path, runtime: str) -> AsyncIterator[Wire | None]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(wired(data_dir)) if runtime == "docker" else None


@pytest.fixture
async def server(
    data_dir: Path, runtime: str, database_url: str | None, wire: Wire | None
) -> AsyncIterator[Server]:
    more = {} if wire is None else {"DOCKER_HOST": f"unix://{data_dir}/engine.sock"}
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=database_url,
        CRAFTASTIC_SANDBOX_MEMORY_LIMIT="256m",
        **more,
    )
    server.gateway_port = free_port()
    server.environment["CRAFTASTIC_GATEWAY_PORT"] = str(server.gateway_port)
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.fixture
async def work(server: Server, upstream: str) -> AsyncIterator[Work]:
    async with begun(server, upstream) as work:
        yield work


async def test_program_that_is_killed_for_its_memory_is_told_and_its_terminal_lives(
    work: Work,
) -> None:
    async with work.viewer.attached() as viewer:
        shell = (await viewer.run("echo $$")).strip()

        said = await viewer.run(f"{HOG}; echo code $?")

        assert "code 137" in said
        await work.seen("F07", BY_EVENT_S, "OUT_OF_MEMORY")
        assert (await viewer.run("echo $$")).strip() == shell
    shown = await work.shown()
    assert shown["status"] == "running"
    assert "0.25 GiB" in shown["reason"]
    assert (await work.session_shown())["status"] in {"active", "inactive"}
    await hold(work.server, journal=work.journal)


async def test_sandbox_whose_first_process_is_killed_is_stopped_and_comes_back(work: Work) -> None:
    async with work.viewer.attached() as viewer:
        await viewer.run("true")
        os.kill(await first_process(work), signal.SIGKILL)

        await work.seen("F08", BY_EVENT_S, "SANDBOX_STOPPED")
        await until(lambda: viewer.ended, "the socket is closed")

    assert (await work.shown())["status"] == "stopped"
    session = await work.session_shown()
    assert session["status"] == "dead"
    assert session["reason"] == "Its sandbox has ended."
    await hold(work.server, journal=work.journal)
    await work.is_back()
    await hold(work.server, journal=work.journal)


async def test_sandbox_that_ends_for_want_of_memory_says_so_and_comes_back(work: Work) -> None:
    be_taken_first(await first_process(work))

    async with work.viewer.attached() as viewer:
        await viewer.type(f"{FILL}\r")
        await work.seen("F08, memory", BY_EVENT_S, "SANDBOX_OUT_OF_MEMORY")
        await until(lambda: viewer.ended, "the socket is closed")

    shown = await work.shown()
    assert shown["status"] == "stopped"
    assert "limit of memory" in shown["reason"]
    assert "limit of memory" in (await work.session_shown())["reason"]
    await hold(work.server, journal=work.journal)
    await work.is_back()
    await hold(work.server, journal=work.journal)


@pytest.mark.parametrize("runtime", [pytest.param("docker", marks=pytest.mark.docker)])
@pytest.mark.parametrize("with_events", [True, False])
async def test_container_that_is_removed_by_somebody_else_is_seen_and_made_anew(
    work: Work, wire: Wire, with_events: bool
) -> None:
    if not with_events:
        wire.without_events = True
        work.server.kill()
        work.server.start()
        await work.server.ready()
        await work.journal.api.login("a@example.com")
        await until(lambda: wire.refused_events, "the server asks for events, and gets none")
    before = str((await work.shown())["containerId"])

    async with work.viewer.attached() as viewer:
        await viewer.run("true")
        docker("rm", "-f", before)
        within_s, how = (BY_EVENT_S, "events") if with_events else (BY_POLL_S, "none")
        # It ends first, and then it is gone: what is told depends on when it was looked at.
        await work.seen(f"F09, {how}", within_s, "SANDBOX_STOPPED", "SANDBOX_GONE")
        await until(lambda: viewer.ended, "the socket is closed")

    assert viewer.ended is not None
    assert viewer.ended[0] == 1011
    assert (await work.shown())["status"] == "stopped"
    assert (await work.session_shown())["status"] == "dead"
    await hold(work.server, journal=work.journal)
    await work.is_back()
    assert (await work.shown())["containerId"] != before
    await hold(work.server, journal=work.journal)


@pytest.mark.parametrize("runtime", [pytest.param("docker", marks=pytest.mark.docker)])
async def test_container_that_is_removed_is_made_anew_by_an_attach_before_anybody_has_seen_it(
    work: Work,
) -> None:
    docker("rm", "-f", str((await work.shown())["containerId"]))

    await work.is_back()

    await hold(work.server, journal=work.journal)
