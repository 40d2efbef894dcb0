"""F38 and F39: the server has no file descriptor left, or cannot write its log."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from tests.e2e.harness import Server, until
from tests.faults._figures import note
from tests.faults._invariants import hold
from tests.faults._load import load
from tests.faults._outages import fill, small_disk

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    # Nothing here depends on the runtime or on the database.
    pytest.mark.parametrize(
        "runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True
    ),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

FILES = 256
STRANGERS = 400
LOOKED_S = 5.0
BUSY_PART = 0.5
"""Of a processor; a server that spins takes a whole one."""


# ---- F38 ----------------------------------------------------------------------------------------


@contextmanager
def files_limited(server: Server, limit: Callable[[int], int]) -> Generator[None]:
    """Let the running server have no more file descriptors than the limit inside the block."""
    assert server.process is not None
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit(pid), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def none_left(pid: int) -> int:
    """Return the lowest descriptor's number that a process could get."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(taken) + 1) if number not in taken)


@asynccontextmanager
async def flooded(server: Server) -> AsyncGenerator[None]:
    """Let strangers open connections and say nothing, until nobody else gets one."""
    with ExitStack() as stack:

        def more(number: int) -> None:
            for _ in range(number):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))

        async def refused() -> bool:
            more(10)  # a file that the server has closed meanwhile leaves a place
            return await asked_anew(server) == (503, "2")

        more(STRANGERS)
        await until(refused, "new connections are refused")
        yield


async def asked_anew(server: Server) -> tuple[int, str | None]:
    """Ask over a new connection; status 0 for one that was refused or closed."""
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        try:
            answer = await client.get("/api/auth/me")
        except httpx.TransportError:
            return 0, None
        return answer.status_code, answer.headers.get("retry-after")


async def busy_part(server: Server) -> float:
    """Ask again and again over new connections, and return how busy the server was meanwhile."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    began, before = time.monotonic(), sum(process.cpu_times()[:2])
    while time.monotonic() - began < LOOKED_S:
        assert (await asked_anew(server))[0] in {0, 401, 503}
        await anyio.sleep(0.2)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


async def test_more_connections_than_files_are_refused_and_what_is_connected_goes_on(
    server: Server,
) -> None:
    async with load(server) as work:
        with files_limited(server, lambda _: FILES):
            async with flooded(server):
                busy = await busy_part(server)
                assert (await work.viewer.run("echo $$")).strip() == work.shell
            came = time.monotonic()
            await until(lambda: _served(server), "new connections are taken again")
            note("F38", "used again", time.monotonic() - came, "s")

            # Who is connected already is served, with all that it takes.
            async with work.going_on(), flooded(server):
                before = work.journal.acknowledged
                await until(lambda: work.journal.acknowledged > before + 4, "work goes on")

        assert busy < BUSY_PART
        note("F38", "busy meanwhile", 100 * busy, "% of a processor")
        assert work.reads.statuses | work.writes.statuses <= {200, 503}
        await hold(server, journal=work.journal)


async def _served(server: Server) -> bool:
    return (await asked_anew(server))[0] == 401


async def test_server_without_a_file_left_takes_nothing_for_dead_and_recovers(
    server: Server,
) -> None:
    server.stop()
    server.environment["CRAFTASTIC_RECONCILE_INTERVAL_S"] = "1"
    server.start()
    await server.ready()
    async with load(server) as work:
        async with work.going_on():
            with files_limited(server, none_left):
                await until(lambda: work.journal.refused, "writes are refused")
                await anyio.sleep(3)  # some rounds of every reconciler
                busy = await busy_part(server)

            note("F38", "used again when none was left", await work.taken_again(), "s")

        assert work.reads.statuses <= {200, 503}
        assert work.writes.statuses == {200, 503}
        assert [*work.reads.without_way_on, *work.writes.without_way_on] == []
        note("F38", "busy when none was left", 100 * busy, "% of a processor")
        await hold(server, journal=work.journal)
        shown = await work.journal.api.get(f"/api/sessions/{work.viewer.session_id}")
        assert shown["status"] == "active"
        assert busy < BUSY_PART


# ---- F39 ----------------------------------------------------------------------------------------


class Unheard(Server):
    """A server whose standard streams lead nowhere."""

    kind = "full"

    def start(self) -> None:
        self.log.touch()
        with ExitStack() as stack:
            prefix: list[str] = []
            stream: int | None = None
            if self.kind == "closed":
                prefix = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
            elif self.kind == "full":
                stream = stack.enter_context(open("/dev/full", "wb")).fileno()  # noqa: PTH123
            else:
                reader, stream = os.pipe()
                stack.callback(os.close, stream)
                os.close(reader)
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "craftastic", "serve"],
                env=self.environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )


@pytest.fixture(params=["full", "closed", "unread"])
async def unheard(
    request: pytest.FixtureRequest, data_dir: Path, runtime: str, database_url: str
) -> AsyncIterator[Server]:
    server = Unheard(data_dir, runtime=runtime, database_url=database_url)
    server.kind = request.param
    server.environment["LOG_LEVEL"] = "info"  # at `debug` the harness reads the log
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


async def test_server_that_cannot_write_its_log_serves_and_ends_as_ever(unheard: Server) -> None:
    unheard.start()
    await unheard.ready()
    async with load(unheard) as work:
        async with work.going_on():
            await until(lambda: work.journal.acknowledged > 8, "work goes on")
        assert work.reads.statuses == {200}
        assert work.writes.statuses == {200}
        await hold(unheard, journal=work.journal)

    assert unheard.stop() == 0


async def test_log_whose_disk_is_full_stops_nothing_and_goes_on_when_there_is_space(
    server: Server,
) -> None:
    server.stop()
    with small_disk(256) as disk:
        kept, server.log = server.log, disk / "server.log"
        try:
            server.start()
            await server.ready()
            async with load(server) as work:
                async with work.going_on():
                    ballast = fill(disk)
                    before = work.journal.acknowledged
                    await until(lambda: work.journal.acknowledged > before + 4, "work goes on")
                    size = server.log.stat().st_size
                    ballast.unlink()
                    await until(lambda: server.log.stat().st_size > size, "lines come again")
                assert work.reads.statuses == {200}
                assert work.writes.statuses == {200}
                await hold(server, journal=work.journal)
            assert server.stop() == 0
        finally:
            server.log = kept
