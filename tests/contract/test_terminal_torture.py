"""What programs printed against what viewers got, over every kind of runtime."""

import random
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import SandboxSpec
from craftastic.terminals._pane import GIVE
from craftastic.terminals._tmux_commands import quote
from tests.contract.conftest import REAL, benches
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import FixedLease, Rig, RunningHub, Watcher, settled, until

pytestmark = pytest.mark.slow

RUN_DIR = "/run/craftastic"
STALL_S = 6.0
PRODUCER = """
import random, sys, time
r = random.Random(int(sys.argv[1]))
number = 0
last = int(sys.argv[2])
while number < last:
    for _ in range(min(r.choice((1, 1, 20, 300)), last - number)):
        number += 1
        sys.stdout.write('%07d %s\\n' % (number, '\\u6f22\\u5b57 \\u00e9' * (number % 5)))
    sys.stdout.flush()
    time.sleep(r.random() * 0.01)
print('END-OF-' + 'OUTPUT')
"""


@pytest.fixture(params=["host", *REAL])
async def rig(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Rig]:
    """Give a sandbox with a session in each kind of runtime, and on the bare host."""
    if request.param == "host":
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        runtime = HostRuntime(data_dir)
        sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
        rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
        await rig.start()
        yield rig
        await rig.end()
        return
    async for bench in benches(request, request.param, data_dir):
        rig = Rig(bench.runtime, await bench.sandbox(), RUN_DIR)
        await rig.start()
        yield rig


async def _produce(running: RunningHub, watcher: Watcher, rig: Rig, seed: int, last: int) -> None:
    script = await rig.runtime.run(
        rig.sandbox, ["sh", "-c", "cat >/tmp/produce.py"], stdin=PRODUCER.encode()
    )
    assert script.exit_code == 0
    await running.type(watcher, f"clear; python3 /tmp/produce.py {seed} {last}\r")


def _numbers(lines: list[str]) -> list[int]:
    return [int(line[:7]) for line in lines if line[:7].isdigit()]


@pytest.mark.parametrize("seed", [1, 2])
async def test_viewers_that_come_go_and_stall_miss_nothing(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    last = 3000
    async with rig.hub() as running:
        steady = running.watch()
        stalling = running.watch()
        coming = running.watch()
        await until(lambda: steady.shows("$") or steady.shows("#"), "a prompt")
        await _produce(running, steady, rig, seed, last)

        while not steady.shows("END-OF-OUTPUT"):
            await anyio.sleep(chance.random() * 0.05)
            stalling.stalled = chance.random() < 0.5
            running.leave(coming)
            await anyio.sleep(chance.random() * 0.02)
            coming = running.come_back(coming)
        stalling.stalled = False

        for watcher in (steady, stalling, coming):
            await settled(rig, watcher)
            assert _numbers(watcher.emulator().lines()) == list(range(1, last + 1))
            assert watcher.emulator().lines() == await rig.lines()


async def test_a_connection_that_dies_leaves_no_gap(rig: Rig) -> None:
    last = 5000
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await _produce(running, watcher, rig, 3, last)
        while not watcher.shows("END-OF-OUTPUT"):
            await anyio.sleep(0.2)
            await rig.control("detach-client", "-s", f"={rig.session}")

        await until(lambda: rig.opened > 1, "a second connection")
        await settled(rig, watcher)
        assert _numbers(watcher.emulator().lines()) == list(range(1, last + 1))


async def test_a_server_that_dies_leaves_no_gap(rig: Rig) -> None:
    last = 3000
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await _produce(running, watcher, rig, 4, last)
    for _ in range(3):
        async with rig.hub() as running:
            watcher = running.watch()
            await until(
                lambda one=watcher: len(one.kinds) > 3 or one.shows("END-OF-OUTPUT"), "some output"
            )
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.shows("END-OF-OUTPUT"), "the end")
        await settled(rig, watcher)
        assert _numbers(watcher.emulator().lines()) == list(range(1, last + 1))


@pytest.mark.parametrize("held", [True, False])
async def test_a_flood_arrives_whole_by_either_way(rig: Rig, held: bool) -> None:
    rig.lease = FixedLease(held=held)
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await running.type(watcher, "seq -f %07.f 1 300000; echo EN''D\r")
        await until(lambda: watcher.shows("END"), "the end")

        assert running.hub.by_pipe is held
        seen = [int(line) for line in re.findall(rb"(\d{7})\r\n", watcher.raw)]
        assert seen == list(range(1, 300_001))
        assert watcher.kinds.count("Snapshot") == 1


async def test_whoever_joins_does_not_disturb_the_others(rig: Rig) -> None:
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        script = "for i in $(seq 1 30); do seq -f %05.f $i $((i+20)); sleep 0.05; done; echo EN''D"
        await running.type(watcher, f"{script}\r")
        late: list[Watcher] = []
        while not watcher.shows("END"):
            running.hub.snapshot = None  # so that each asks for one of its own
            late.append(running.watch())
            await anyio.sleep(0.05)
        await until(lambda: all(one.snapshot for one in late), "snapshots")

        assert len(late) > 5
        assert watcher.kinds.count("Snapshot") == 1
        lines = await rig.lines()
        for one in (watcher, *late[-3:]):
            await settled(rig, one)
            assert one.emulator().lines() == lines


async def test_whoever_joins_a_flood_gets_everything_and_so_do_the_others(rig: Rig) -> None:
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await running.type(watcher, "clear; seq -f %07.f 1 9000; sleep 3; echo EN''D\r")
        await until(lambda: watcher.raw.count(b"\n") > 100, "some of it")
        late = running.watch()
        await until(lambda: watcher.shows("END") and late.shows("END"), "the end")

        for one in (watcher, late):
            await settled(rig, one)
            assert _numbers(one.emulator().lines()) == list(range(1, 9_001))


async def test_the_pipe_is_taken_when_it_becomes_ours(rig: Rig) -> None:
    last = 3000
    rig.lease = FixedLease(held=False)
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await _produce(running, watcher, rig, 5, last)
        rig.lease.held = True
        await until(lambda: watcher.shows("END-OF-OUTPUT"), "the end")
        await until(lambda: running.hub.by_pipe, "the pipe")

        await settled(rig, watcher)
        assert _numbers(watcher.emulator().lines()) == list(range(1, last + 1))


async def test_two_servers_share_a_session_and_both_see_everything(rig: Rig) -> None:
    last = 3000
    other = Rig(rig.runtime, rig.sandbox, rig.run_dir, FixedLease(held=False))
    async with rig.hub() as running, other.hub() as second:
        one, two = running.watch(), second.watch()
        await until(lambda: one.snapshot and two.snapshot, "snapshots")
        await _produce(running, one, rig, 6, last)
        await until(lambda: one.shows("END-OF-OUTPUT"), "the end")

        for watcher in (one, two):
            await settled(rig, watcher)
            assert _numbers(watcher.emulator().lines()) == list(range(1, last + 1))


async def test_a_server_that_stops_reading_costs_tmux_nothing_and_the_terminal_goes_on(
    rig: Rig,
) -> None:
    target = f"={rig.session}:"
    pid = (await rig.control("display-message", "-p", "-t", target, "#{pid}")).strip()
    # What is never read is what a stopped server is to the sandbox.
    async with rig.open() as stream:
        greeting = await stream.receive_stderr()
        folder = greeting[9:-1].decode()
        give = f"cd {folder} && exec python3 -I -S -c '{GIVE}' give 1"
        await stream.send(f"pipe-pane -O -t {quote(target)} {quote(give)}\n".encode())
        await until(lambda: rig.control("display-message", "-p", "-t", target, "#{pane_pipe}"), "")
        await rig.control("send-keys", "-t", target, "yes", "Enter")
        await anyio.sleep(0.5)
        before = await _memory(rig, pid)
        await anyio.sleep(STALL_S)
        grown = await _memory(rig, pid) - before
    assert grown < 20 << 10, f"tmux grew by {grown} KiB"
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.shows("y\r\ny"), "yes goes on")
        await running.type(watcher, "\x03")
        await running.type(watcher, "echo al''ive\r")
        await until(lambda: watcher.shows("alive"), "the prompt")
        assert await _memory(rig, pid) - before < 20 << 10


async def _memory(rig: Rig, pid: str) -> int:
    """Return the resident memory of a process in the sandbox, in KiB."""
    result = await rig.runtime.run(rig.sandbox, ["cat", f"/proc/{pid}/status"])
    found = re.search(rb"VmRSS:\s+(\d+)", result.stdout)
    assert found, result
    return int(found[1])


async def test_the_end_of_the_shell_is_told(rig: Rig) -> None:
    async with rig.hub() as running:
        watcher = running.watch()
        await until(lambda: watcher.snapshot, "a snapshot")
        await running.type(watcher, "exit\r")
        await until(lambda: watcher.ended, "the end")
        assert watcher.ended is not None
        assert watcher.ended.exited
