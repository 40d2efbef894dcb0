"""F17 to F20: viewers that are slow, deaf, cut off without a word, or many and gone at once."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from craftastic.database import Database
from craftastic.runtimes.base import SandboxRef
from craftastic.terminals._viewer import Snapshot
from tests.conftest import driver_url
from tests.e2e.harness import Api, Viewer, until
from tests.fakes.terminal_rig import Emulator
from tests.faults._facts import database_url_of, rows_of, runtime_of
from tests.faults._figures import note, percentile
from tests.faults._footprint import Footprint, footprint, pid_of, rss
from tests.faults._invariants import hold
from tests.faults._lines import SHORTENED, Line, OftenAsking, deaf, narrow

pytestmark = [pytest.mark.fault, pytest.mark.slow]

MIB = 1 << 20
PER_CLIENT = 8 * MIB
OF_TMUX = 20 * MIB
SLOW = 1000.0
"""Bytes each second of a slow viewer."""
SLOW_S = 15.0
SLOW_VIEWERS = 4
ECHOES = 20
SLOWER = 0.25
"""Seconds by which a busy machine alone may change the median of a few echoes."""
GONE_S = 45.0
LATE_S = 5.0
"""What a busy machine may add to a time that was shortened."""
DROPS = 1000
AT_ONCE = 250
HISTORY = 60_000


@dataclass
class House:
    """A server, somebody signed in, and an environment with terminals."""

    server: OftenAsking
    api: Api
    environment: dict[str, Any]
    sessions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def session(self, name: str) -> dict[str, Any]:
        made = await self.api.post("/api/sessions", environmentId=self.environment["id"], name=name)
        self.sessions.append(made)
        return made

    def viewer(self, session: dict[str, Any], url: str = "", *, v2: bool = True) -> Viewer:
        place = url or self.server.url
        return Viewer(place, session["id"], self.environment["id"], self.api.token, v2=v2)

    async def inside(self, *argv: str) -> str:
        runtime = runtime_of(self.server)
        try:
            sandbox = SandboxRef(runtime.name, str(self.environment["containerId"]))
            result = await runtime.run(sandbox, argv, max_output_bytes=16 << 20)
        finally:
            await runtime.close()
        assert result.exit_code == 0, result.stderr
        return result.stdout.decode()

    async def tmux(self, *words: str) -> str:
        return await self.inside("tmux", "-S", "/run/craftastic/tmux.sock", *words)

    async def tmux_memory(self) -> int:
        """Return the resident memory of the sandbox's tmux server, in bytes."""
        pid = (await self.tmux("display-message", "-p", "#{pid}")).strip()
        return int((await self.inside("cat", f"/proc/{pid}/statm")).split()[1]) * 4096

    async def closed(self) -> list[int]:
        """Return the code that each viewer's socket was closed with, as the audit log tells."""
        database = Database(driver_url(database_url_of(self.server)))
        try:
            events = await rows_of(database, "audit_events")
        finally:
            await database.close()
        return [
            int(json.loads(one["details"])["closeCode"])
            for one in events
            if one["action"] == "terminal.detach"
        ]

    async def status(self, session: dict[str, Any]) -> str:
        return str((await self.api.get(f"/api/sessions/{session['id']}"))["status"])


@pytest.fixture
async def house(
    data_dir: Path, runtime: str, request: pytest.FixtureRequest
) -> AsyncIterator[House]:
    server = OftenAsking(
        data_dir,
        runtime=runtime,
        database_url=None,
        CRAFTASTIC_SANDBOX_SELF_TEST="false",
        CRAFTASTIC_MAX_TERMINALS_PER_USER=str(2 * DROPS),
        LOG_LEVEL="debug",
    )
    try:
        server.start()
        await server.ready()
        async with Api(server.url) as api:
            await api.register("a@example.com", setupToken=server.setup_token)
            yield House(server, api, await api.environment("watched"))
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


async def echo_s(viewer: Viewer) -> float:
    """Return how many seconds a key takes to be shown."""
    word = secrets.token_hex(5)
    began = time.monotonic()
    await viewer.type(f"#{word}")
    await until(lambda: word in viewer.lately, "the echo", every_s=0.002)
    took = time.monotonic() - began
    await viewer.type("\x15")
    return took


async def echoes(viewer: Viewer, seconds: float = 0.0) -> list[float]:
    """Return the seconds that keys took, typed one after the other for so long at least."""
    found: list[float] = []
    began = time.monotonic()
    while len(found) < ECHOES or time.monotonic() - began < seconds:
        found.append(await echo_s(viewer))
        await anyio.sleep(0.02)
    return found


@asynccontextmanager
async def watching(
    what: Callable[[], Awaitable[int] | int], seen: list[int]
) -> AsyncGenerator[None]:
    """Look at a number again and again inside the block."""

    async def look() -> None:
        while True:
            value = what()
            seen.append(value if isinstance(value, int) else await value)
            await anyio.sleep(0.2)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        yield
        group.cancel_scope.cancel()


async def flood(viewer: Viewer) -> None:
    """Let a program print without end, in a terminal whose history is full already."""
    await viewer.run(f"clear; yes | head -n {HISTORY}; echo", timeout_s=60)
    await viewer.type("yes\r")
    at = viewer.seen
    await until(lambda: viewer.seen > at + MIB, "it prints")


async def right_screen(house: House, session: dict[str, Any], viewer: Viewer) -> None:
    """Wait until a viewer's screen is tmux's own."""
    target = f"={session['tmuxSessionName']}:"

    async def same() -> bool:
        text = await house.tmux("capture-pane", "-p", "-t", target)
        own = [line.rstrip() for line in text.split("\n")[: viewer.rows]]
        last = bytes(viewer.document[-16384:])
        shown = Emulator(Snapshot(0, 0, last, viewer.cols, viewer.rows))
        return shown.text() == own

    await until(same, "the viewer shows tmux's screen", every_s=0.3)


@pytest.mark.timeout(300)
async def test_viewer_that_reads_slowly_in_a_flood_costs_little_and_is_redrawn(
    house: House, runtime: str
) -> None:
    flooded, other = await house.session("flooded"), await house.session("other")
    quick, beside = house.viewer(flooded), house.viewer(other)
    line = Line(house.server.port)
    slow = [house.viewer(flooded, v2=number % 2 == 0) for number in range(SLOW_VIEWERS)]
    used: list[int] = []
    used_by_tmux: list[int] = []
    taken: list[int] = []
    with_them: list[float] = []
    async with line.laid(), beside.attached(), quick.attached():
        await beside.run("true")
        await flood(quick)
        usual = percentile(await echoes(beside, 3), 50)
        memory, of_tmux = rss(pid_of(house.server)), await house.tmux_memory()
        async with anyio.create_task_group() as group:
            away = anyio.Event()

            async def be_slow(viewer: Viewer) -> None:
                viewer.url = line.url
                async with viewer.attached():
                    await away.wait()

            for one in slow:
                group.start_soon(be_slow, one)
            await until(lambda: all(one.snapshots for one in slow), "all slow ones are attached")
            line.change(rate=SLOW)
            seen_before = [len(one.document) for one in slow]
            async with (
                watching(lambda: rss(pid_of(house.server)), used),
                watching(house.tmux_memory, used_by_tmux),
            ):
                with_them += await echoes(beside, SLOW_S)
            taken += [len(one.document) - at for one, at in zip(slow, seen_before, strict=True)]
            drawn = sum(one.snapshots for one in slow)

            line.change()
            await quick.type("\x03")
            await quick.run("clear; echo o''ver")
            for one in slow:
                await one.shows("over", timeout_s=60)
            # One that the ring still had everything for goes on without a redraw.
            assert sum(one.snapshots for one in slow) > drawn
            for one in slow:
                assert one.ended is None
                assert one.gaps == []
                await right_screen(house, flooded, one)
            away.set()
    grown, grown_tmux = max(used) - memory, max(used_by_tmux) - of_tmux
    note("F17", f"memory for each slow viewer, {runtime}", grown / SLOW_VIEWERS / MIB, "MiB")
    note("F17", f"memory of tmux, {runtime}", grown_tmux / MIB, "MiB")
    note("F17", f"echo of another terminal before, {runtime}", usual * 1000, "ms")
    note("F17", f"echo of another terminal, {runtime}", percentile(with_them, 50) * 1000, "ms")
    assert max(taken) < 20 * SLOW * SLOW_S  # they were slow indeed
    assert grown <= SLOW_VIEWERS * PER_CLIENT
    assert grown_tmux <= OF_TMUX
    assert percentile(with_them, 50) <= 2 * usual + SLOWER
    await hold(house.server)


@pytest.mark.timeout(300)
async def test_viewer_that_stops_reading_is_closed_and_its_session_lives(
    house: House, runtime: str
) -> None:
    session = await house.session("flooded")
    quick = house.viewer(session)
    used: list[int] = []
    async with quick.attached(), AsyncExitStack() as stack:
        shell = (await quick.run("echo $$")).strip()
        await flood(quick)
        memory = rss(pid_of(house.server))
        of_tmux = await house.tmux_memory()
        began = time.monotonic()
        address = (house.server.port, session["id"], house.environment["id"], house.api.token)
        clients = [await stack.enter_async_context(deaf(*address, v2=v2)) for v2 in (True, False)]
        async with watching(lambda: rss(pid_of(house.server)), used):
            await until(lambda: _count(house, 1013, 2), "both are closed", timeout_s=60)
        took = time.monotonic() - began
        await quick.type("\x03")
        # They find out as soon as they read again.
        for one in clients:
            code, reason = await one.read_to_the_end()
            assert (code, reason) == (1013, "Nothing was read for too long; connect again")
        assert (await quick.run("echo $$")).strip() == shell
        grown, grown_tmux = max(used) - memory, await house.tmux_memory() - of_tmux
    note("F18", f"closed after, times {SHORTENED:g}, {runtime}", took, "s")
    note("F18", f"memory for each, {runtime}", grown / len(clients) / MIB, "MiB")
    assert took * SHORTENED <= 120 + LATE_S * SHORTENED
    assert grown <= len(clients) * PER_CLIENT
    assert grown_tmux <= OF_TMUX
    await hold(house.server)


async def _count(house: House, code: int, wanted: int) -> bool:
    return (await house.closed()).count(code) >= wanted


@pytest.mark.timeout(300)
async def test_viewer_whose_network_goes_silent_is_gone_in_time(house: House, runtime: str) -> None:
    idle, flooded = await house.session("idle"), await house.session("flooded")
    line = Line(house.server.port)
    gone: dict[str, float] = {}
    async with line.laid():
        quiet, busy = house.viewer(idle, line.url), house.viewer(flooded, line.url)
        async with quiet.attached(), busy.attached():
            await quiet.run("true")
            await flood(busy)
            for one in (idle, flooded):
                assert await house.status(one) == "active"

            line.change(still=True)
            began = time.monotonic()

            async def all_gone() -> bool:
                for one in (idle, flooded):
                    if one["name"] not in gone and await house.status(one) == "inactive":
                        gone[one["name"]] = time.monotonic() - began
                return len(gone) == 2

            await until(all_gone, "both viewers are gone", timeout_s=120)
            assert quiet.ended is None  # they have not been told

        async def none_left() -> bool:
            return await house.tmux("list-clients") == ""

        await until(none_left, "no client of tmux is left", timeout_s=60)
        line.change()
    again = house.viewer(flooded)
    async with again.attached():
        await again.type("\x03")
        await again.run("true")
    for name, took in gone.items():
        note("F19", f"gone after, times {SHORTENED:g}, {name}, {runtime}", took, "s")
        assert took <= GONE_S / SHORTENED + LATE_S
    await hold(house.server)


@pytest.mark.timeout(300)
async def test_of_a_thousand_viewers_that_come_and_drop_at_once_nothing_is_left(
    house: House, runtime: str
) -> None:
    session = await house.session("crowded")
    port, token = house.server.port, house.api.token
    address = (port, session["id"], house.environment["id"], token)

    async def come_and_drop(number: int) -> None:
        if number % 4 == 0:  # nobody has answered yet
            async with await narrow(port) as stream:
                await stream.send(b"GET /api/terminal/ws/" + session["id"].encode())
                await anyio.aclose_forcefully(stream)
        else:
            async with deaf(*address, v2=number % 2 == 0) as one:
                if number % 4 == 1:
                    await one.stream.receive()
                await anyio.aclose_forcefully(one.stream)

    async def crowd(count: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(come_and_drop, number)

    await crowd(40)  # what is made once and kept has been made by then
    before = await settled(house)
    for _ in range(DROPS // AT_ONCE):
        await crowd(AT_ONCE)

    viewer = house.viewer(session)
    began = time.monotonic()
    async with viewer.attached():
        await viewer.run("true")
        note("F20", f"the attach after them, {runtime}", time.monotonic() - began, "s")
    note("F20", f"converged, {runtime}", await hold(house.server, before=before), "s")
    after = await footprint(house.server)
    for what in ("fds", "tasks", "threads"):
        grown = getattr(after, what) - getattr(before, what)
        note("F20", f"{what} more than before, {runtime}", grown, what)
    assert await house.tmux("list-clients") == ""


async def settled(house: House) -> Footprint:
    """Return what the server holds when nobody is attached any more."""

    async def idle() -> Footprint | None:
        now = await footprint(house.server)
        return None if now.viewers or now.panes or now.requests else now

    return await until(idle, "nobody is attached", timeout_s=60)
