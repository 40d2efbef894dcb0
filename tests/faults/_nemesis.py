"""The nemesis of a soak: which fault comes when is a function of the seed."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from craftastic.errors import CraftasticError
from craftastic.runtimes.base import SandboxState
from tests.conftest import PostgresServer
from tests.e2e.harness import Server
from tests.faults._soakers import remove
from tests.faults._world import TMUX, World

PER_MINUTE = 5
DRAINED_S = 10.0
READY_S = 300.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the schedule.

    Args:
        at_s: Seconds of work after the begin.
        kind: Its name in `FAULTS`.
        pick: A number from 0 to 1 that says which of several things it hits.
        lasts_s: How long what can last does.
    """

    at_s: float
    kind: str
    pick: float
    lasts_s: float


async def kill(world: World, fault: Fault) -> None:
    """End a server as the kernel does, and start it again."""
    async with _of(world, fault) as server:
        server.kill()
        await anyio.sleep(fault.lasts_s / 4)
        await started(server)


async def pause(world: World, fault: Fault) -> None:
    """Let one of the servers sleep, at times for longer than a claim or a lease lives."""
    async with _Held(world.servers[int(fault.pick * 2)]) as server:
        server.signal(signal.SIGSTOP)
        try:
            await anyio.sleep(fault.lasts_s * 2)
        finally:
            server.signal(signal.SIGCONT)


async def drain(world: World, fault: Fault) -> None:
    """Tell a server to end, and start it again."""
    async with _of(world, fault) as server:
        assert server.process is not None
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        try:
            code = await anyio.to_thread.run_sync(server.process.wait, 3 * DRAINED_S)
        except subprocess.TimeoutExpired:
            world.violated("a server that was told to end did not")
            server.kill()
        else:
            took = time.monotonic() - began
            world.drained_s.append(took)
            # One that is too busy to end in order ends itself by its own limit: with 1, as a kill.
            if code not in {0, 1} or (code == 1 and took < DRAINED_S - 1):
                world.violated(f"a server that was told to end ended with {code} after {took} s")
            world.cut_short += code
        await started(server)


async def end_sandbox(world: World, fault: Fault) -> None:
    """Kill the first process of a sandbox."""
    environment_id = _environment(world, fault)
    found = await world.sandbox(environment_id)
    if found is None or found.state is not SandboxState.RUNNING:
        return
    async with world.ending(environment_id):
        if world.servers[0].environment["CRAFTASTIC_RUNTIME"] == "docker":
            await anyio.run_process(["docker", "kill", found.ref.id], check=False)
            return
        for process in first_processes(world.servers[0], environment_id):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


async def end_tmux(world: World, fault: Fault) -> None:
    """End the tmux server of a sandbox, and all terminals with it."""
    environment_id = _environment(world, fault)
    async with world.ending(environment_id):
        with suppress(CraftasticError):
            await world.inside(environment_id, *TMUX, "kill-server")


async def cut_viewers(world: World, _fault: Fault) -> None:
    """Drop every connection of a terminal, as a network does."""
    for one in world.counted:
        if one.attached and one.viewer.socket is not None:
            one.viewer.cut()


async def restart_database(world: World, fault: Fault) -> None:
    """Take the database away for a while."""
    process = world.postgres.process
    assert process is not None
    process.send_signal(signal.SIGINT)  # ends connections; what was committed is kept
    await anyio.to_thread.run_sync(process.wait, 30)
    await anyio.sleep(fault.lasts_s)
    start_again(world.postgres)


def start_again(postgres: PostgresServer) -> None:
    """Start a database server that has ended, over its data."""
    assert postgres.process is not None
    with (postgres.folder / "log").open("ab") as log:
        postgres.process = subprocess.Popen(
            postgres.process.args, stdout=log, stderr=log, user=postgres.user, cwd=postgres.folder
        )


async def remove_worktree(world: World, fault: Fault) -> None:
    """Remove a session's working tree as its user may; the session can be deleted all the same."""
    environment_id, journal = _environment(world, fault), world.journal
    name = f"lost{int(fault.at_s)}"
    made = await journal.create(
        "/api/sessions", environmentId=environment_id, name=name, branch=name
    )
    if made is None:
        return
    with suppress(CraftasticError):
        await world.inside(environment_id, "rm", "-rf", made["workingDirectory"])
    await remove(world, f"/api/sessions/{made['id']}")


FAULTS: dict[str, Callable[[World, Fault], Awaitable[None]]] = {
    "kill": kill,
    "pause": pause,
    "drain": drain,
    "sandbox": end_sandbox,
    "tmux": end_tmux,
    "network": cut_viewers,
    "database": restart_database,
    "worktree": remove_worktree,
}


def schedule(seed: int, minutes: float) -> list[Fault]:
    """Return the faults of a soak, in their order; one seed always gives the same."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    kinds: list[str] = []
    found: list[Fault] = []
    for number in range(int(minutes * PER_MINUTE)):
        if not kinds:  # each kind comes up before any comes up again
            kinds = dice.sample(list(FAULTS), len(FAULTS))
        found.append(
            Fault(
                at_s=round((number + dice.random()) * 60 / PER_MINUTE, 2),
                kind=kinds.pop(),
                pick=dice.random(),
                lasts_s=round(dice.uniform(1, 9), 2),
            )
        )
    return found


async def torment(world: World, faults: list[Fault], minutes: float) -> None:
    """Bring the faults about, each at its time, and return when the last is over."""
    async with anyio.create_task_group() as tasks:
        for fault in faults:
            await world.reach(fault.at_s)
            tasks.start_soon(_bring, world, fault)
        await world.reach(minutes * 60)


async def _bring(world: World, fault: Fault) -> None:
    async with world.deed():
        began = time.monotonic()
        try:
            await FAULTS[fault.kind](world, fault)
        except Occupied:
            world.out({"left_out": fault.kind, "scheduled_s": fault.at_s})
            return
        took = round(time.monotonic() - began, 1)
        world.out({"fault": fault.kind, "scheduled_s": fault.at_s, "took_s": took})


async def started(server: Server) -> None:
    """Start a server and wait for it, more than once where the database is away meanwhile."""
    deadline = time.monotonic() + READY_S
    while True:
        server.start()
        try:
            await server.ready(READY_S)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        assert server.process is not None
        if server.process.poll() is None:
            server.kill()
        await anyio.sleep(0.5)


def first_processes(server: Server, environment_id: str) -> list[int]:
    """Return the processes of the host that are number 1 in a local sandbox."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = dict(
                line.split(":\t", 1)
                for line in (entry / "status").read_text().splitlines()
                if ":\t" in line
            )
            groups = (entry / "cgroup").read_text()
            ours = server.uid_base <= entry.stat().st_uid < server.uid_base + 65536
            if ours and environment_id in groups and status["NSpid"].split()[-1] == "1":
                found.append(int(entry.name))
    return found


class Occupied(Exception):
    """Another fault still ends or starts the server."""


class _Held:
    """One server that nobody else ends, starts or stops meanwhile.

    Raises:
        Occupied: Somebody does.
    """

    _locks: dict[int, anyio.Lock] = {}  # noqa: RUF012 - one for each server, as long as the run

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = self._locks.setdefault(server.port, anyio.Lock())

    async def __aenter__(self) -> Server:
        try:
            self._lock.acquire_nowait()
        except anyio.WouldBlock:
            raise Occupied from None
        return self._server

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def _of(world: World, fault: Fault) -> _Held:
    """Choose the server that ends: in the second half the other, so that each lives long once."""
    return _Held(world.servers[fault.at_s > world.half_s])


def _environment(world: World, fault: Fault) -> str:
    return world.environments[int(fault.pick * len(world.environments))]
