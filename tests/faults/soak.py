"""F45: half an hour of faults at random over two servers; `python -m tests.faults.soak` is one.

Two server processes share one PostgreSQL and one data folder. In a few environments programs
print numbered lines, clients look at them, type, are cut and come back, and others make and remove
sessions and environments, while a nemesis brings about five faults a minute. Every few minutes,
and at the end, everything rests and is looked at: the invariants, the journal, every producer's
lines, each operation's number of doings, memory and descriptors.

The seed decides which fault comes when. What happens is written to `.cache/soak.jsonl`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import anyio
import httpx

from craftastic.database import Database
from tests.conftest import PostgresServer, driver_url, free_port
from tests.e2e.harness import Api, Server, Viewer
from tests.fakes.git_http_server import GitHttpServer
from tests.faults._facts import database_url_of, rows_of
from tests.faults._figures import note, percentile
from tests.faults._invariants import hold
from tests.faults._journal import Journal
from tests.faults._nemesis import schedule, torment
from tests.faults._soakers import (
    GONE,
    build_and_raze,
    check_screen,
    come_and_go,
    grows,
    hole_in,
    remove,
    watch,
)
from tests.faults._world import EMAIL, PRODUCER, TMUX, Counted, World, as_line
from tests.leaks import RUN, left_behind

PROJECT = Path(__file__).resolve().parents[2]
RECORD = PROJECT / ".cache" / "soak.jsonl"

ENVIRONMENTS = 4
SESSIONS_OF_EACH = 5
MAKERS = 3
BUILDERS = 2
REST_EVERY_S = 300.0
CONVERGED_S = 90.0
GOES_ON_S = 90.0
IMAGE_S = 1800.0
"""The first environment of Docker's waits until the image is built."""

SAMPLE_S = 2.0
WARM_UP_S = 180.0
JUDGED_S = 300.0
"""A shorter life after the warm-up gives no slope that means anything."""

SLOPE_KIB = 1024.0
SPARE_DESCRIPTORS = 16
ONCE = {
    "environment.create",
    "environment.delete",
    "session.create",
    "session.delete",
}
"""What is done to an object once at most; each is in the audit log as often as it was done."""

WAYS_TO_REFUSE = {404, 409, 503, 504}


@dataclass
class Life:
    """One server process: what it had of memory and descriptors, second by second.

    Attributes:
        at_rest: Its descriptors each time that nobody used it.
    """

    process: int
    name: str
    memory: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    descriptors: list[int] = field(default_factory=list[int])
    at_rest: list[int] = field(default_factory=list[int])

    @property
    def seconds(self) -> float:
        """Return how long it was looked at after it was warm."""
        warm = self._warm
        return warm[-1][0] - warm[0][0] if warm else 0.0

    @property
    def slope_kib(self) -> float:
        """Return how fast its memory grows, in KiB a minute, by least squares."""
        return slope(self._warm) * 60

    @property
    def _warm(self) -> list[tuple[float, float]]:
        return [one for one in self.memory if one[0] - self.memory[0][0] >= WARM_UP_S]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that is nearest to the points by least squares."""
    middle = sum(x for x, _ in points) / len(points)
    height = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - height) for x, y in points) / spread if spread else 0.0


def memory_kib(process: int) -> float:
    """Return what a process has of memory.

    Raises:
        ProcessLookupError: It has ended, and was not waited for yet.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise ProcessLookupError(process)


def descriptors(process: int) -> int:
    """Return how many files a process has open."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def sample(world: World, lives: dict[int, Life]) -> None:
    """Look at the memory and the descriptors of both servers for ever."""
    while True:
        for number, server in enumerate(world.servers):
            if server.process is None or server.process.poll() is not None:
                continue
            one = server.process.pid
            life = lives.setdefault(one, Life(one, f"server {number + 1}"))
            with suppress(OSError):
                life.memory.append((time.monotonic(), memory_kib(one)))
                life.descriptors.append(descriptors(one))
        await anyio.sleep(SAMPLE_S)


async def look(world: World, lives: dict[int, Life]) -> None:
    """Look at everything while nothing is under way."""
    async with world.rest():
        for journal in world.journals:
            await journal.api.login(EMAIL)
        await _tidy(world)
        async with anyio.create_task_group() as tasks:
            for one in world.counted:
                tasks.start_soon(_goes_on, world, one)
        try:
            took = await hold(world.servers[0], within_s=CONVERGED_S, journal=world.journals[0])
        except AssertionError as error:
            world.violated(str(error))
        else:
            note("F45", "converged", took, "s")
            world.out({"held_after_s": round(took, 2)})
        await _nothing_twice(world)
        await _all_lines(world)
        world.doubtful.clear()
        for server in world.servers:
            if server.process is not None and (life := lives.get(server.process.pid)):
                life.at_rest.append(descriptors(life.process))


async def _tidy(world: World) -> None:
    """Delete what requests without an answer made, so that there is room for more."""
    journal = world.journals[0]
    kept = {one.session["id"] for one in world.counted}
    for environment_id in world.environments:
        listed = await journal.api.get(f"/api/sessions/environment/{environment_id}")
        for one in listed["sessions"]:
            if one["id"] not in kept:
                await remove(world, f"/api/sessions/{one['id']}")
    listed = await journal.api.get(f"/api/environments/user/{journal.api.user['id']}")
    for one in listed["environments"]:
        if one["id"] not in world.environments:
            await remove(world, f"/api/environments/{one['id']}")


async def _goes_on(world: World, counted: Counted) -> None:
    """See the producer's numbers go on; one that somebody ended is started anew."""
    began = time.monotonic()
    while time.monotonic() - began < GOES_ON_S:
        world.aim(counted.viewer)
        counted.viewer.document.clear()
        try:
            async with counted.viewer.attached():
                if await grows(counted, 10):
                    break
                if counted.viewer.ended is None and world.may_have_ended(counted):
                    await counted.start(world.ends[counted.environment_id])
        except* GONE as gone:
            world.out({"not_attached": [repr(one) for one in gone.exceptions]})
            await anyio.sleep(0.5)
    else:
        world.violated(f"the producer of {counted.session['id']} does not go on")
        world.out({"screen": counted.viewer.text[-1000:]})
    check_screen(world, counted)


async def _nothing_twice(world: World) -> None:
    database = Database(driver_url(database_url_of(world.servers[0])))
    try:
        events = await rows_of(database, "audit_events")
    finally:
        await database.close()
    done = Counter((one["action"], one["object_id"]) for one in events if one["action"] in ONCE)
    if not done:
        world.violated("nothing of what was done is in the audit log")
    for (action, object_id), count in done.items():
        if count > 1:
            world.violated(f"{action} of {object_id} was done {count} times")


async def _all_lines(world: World) -> None:
    """See in what tmux has kept that no line is missing, and none was typed twice."""
    for one in world.counted:
        name = one.session["tmuxSessionName"]
        capture = ("capture-pane", "-p", "-J", "-S", "-", "-t", f"={name}:")
        kept = await world.inside(one.environment_id, *TMUX, *capture)
        if kept is None or kept.exit_code != 0:
            world.violated(f"{name} cannot be read: {kept and kept.stderr[-300:]!r}")
            continue
        lines = [line.rstrip() for line in kept.stdout.decode(errors="replace").splitlines()]
        if hole := hole_in("\n".join(lines), one.run):
            world.violated(f"the producer of {one.session['id']} printed {hole}")
        counts = Counter(line for line in lines if line.startswith("tw"))
        for typed in one.typed:
            if counts[f"t{typed}"] > 1 or (typed in one.echoed and not counts[f"t{typed}"]):
                world.violated(f"{typed} was typed once, and arrived {counts[f't{typed}']} times")


async def furnish(world: World, url: str) -> None:
    """Make the environments and sessions that are there for the whole time."""
    journal = world.journals[0]
    user, usual = journal.api.user["id"], journal.api.client.timeout
    journal.api.client.timeout = httpx.Timeout(IMAGE_S)
    for number in range(ENVIRONMENTS):
        made = await journal.create(
            "/api/environments", userId=user, name=f"stays {number}", repositoryUrl=url
        )
        assert made is not None, journal.refused
        world.environments.append(made["id"])
        for count in range(SESSIONS_OF_EACH):
            session = await journal.create(
                "/api/sessions",
                environmentId=made["id"],
                name=f"counter {count}",
                branch=f"counter/{count}",
            )
            assert session is not None, journal.refused
            viewer = Viewer("", session["id"], made["id"], "", cols=60, rows=20)
            world.counted.append(Counted(made["id"], session, viewer))
        put = ("sh", "-c", 'printf %s "$1" >"$HOME/producer.py"', "sh", PRODUCER)
        done = await world.inside(made["id"], *put)
        assert done is not None
        assert done.exit_code == 0, done.stderr
    journal.api.client.timeout = usual


async def soak(
    minutes: float, seed: int, runtime: str, record: TextIO, rest_every_s: float = REST_EVERY_S
) -> World:
    """Run a whole soak, and return what it saw; everything that it started has ended then."""

    def out(line: dict[str, Any]) -> None:
        record.write(as_line(line) + "\n")
        record.flush()

    async with _stage(runtime) as (servers, postgres, url), AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(Api(one.url)) for one in servers]
        await apis[0].register(EMAIL, setupToken=servers[0].setup_token)
        await apis[1].login(EMAIL)
        first = Journal(apis[0])
        other = Journal(apis[1], first.there, first.gone, first.doubtful, first.refused)
        dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        world = World(servers, postgres, [first, other], dice, out, half_s=minutes * 30)
        lives: dict[int, Life] = {}
        out({"seed": seed, "minutes": minutes, "runtime": runtime})
        await furnish(world, url)
        out({"furnished": len(world.counted)})
        world.begin()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sample, world, lives)
            for one in world.counted:
                tasks.start_soon(watch, world, one, random.Random(dice.random()))  # noqa: S311
            for number in range(MAKERS):
                own = random.Random(dice.random())  # noqa: S311
                tasks.start_soon(come_and_go, world, number, own)
            for number in range(BUILDERS):
                own = random.Random(dice.random())  # noqa: S311
                tasks.start_soon(build_and_raze, world, number, url, own)
            async with anyio.create_task_group() as until_the_end:
                until_the_end.start_soon(torment, world, schedule(seed, minutes), minutes)
                until_the_end.start_soon(_looks, world, lives, minutes, rest_every_s)
            await look(world, lives)
            tasks.cancel_scope.cancel()
        _judge(world, lives)
    return world


async def _looks(world: World, lives: dict[int, Life], minutes: float, rest_every_s: float) -> None:
    next_s = rest_every_s
    while next_s <= minutes * 60 - 60:  # the last look comes at the end
        await world.reach(next_s)
        await look(world, lives)
        next_s += rest_every_s


def _judge(world: World, lives: dict[int, Life]) -> None:
    """Say what was, and note what it must not have been."""
    journal = world.journals[0]
    refused = Counter(status for status, _ in journal.refused)
    for status, path in journal.refused:
        if status not in WAYS_TO_REFUSE:
            world.violated(f"{path} answered {status}")
    for life in lives.values():
        if life.seconds >= JUDGED_S and life.slope_kib >= SLOPE_KIB:
            world.violated(f"{life.name} grows by {life.slope_kib:.0f} KiB a minute")
        if life.at_rest and max(life.at_rest) > life.at_rest[0] + SPARE_DESCRIPTORS:
            world.violated(f"{life.name} has {life.at_rest} descriptors when nobody uses it")
    summary = {
        "acknowledged": sum(one.acknowledged for one in world.journals),
        "unanswered": sum(one.unanswered for one in world.journals),
        "refused": dict(refused),
        "refused_sockets": dict(world.refused_sockets),
        "attached_and_going_on": len(world.reattached_s),
        "reattached_p95_s": round(percentile(world.reattached_s or [0], 95), 2),
        "drained_max_s": round(max(world.drained_s, default=0), 2),
        "ends_cut_short": world.cut_short,
        "processes": [
            {
                "server": life.name,
                "lived_warm_s": round(life.seconds),
                "slope_kib_per_minute": round(life.slope_kib) if life.seconds >= JUDGED_S else None,
                "memory_kib": [life.memory[0][1], life.memory[-1][1]],
                "descriptors": [min(life.descriptors), max(life.descriptors)],
                "at_rest": life.at_rest,
            }
            for life in lives.values()
            if life.memory
        ],
        "violations": len(world.violations),
    }
    world.summary = summary
    world.out({"summary": summary})


def new_database() -> PostgresServer:
    """Start a PostgreSQL server of the soak's own."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert binaries, "PostgreSQL's server programs are not in /usr/lib/postgresql"
    folder = RUN.new_folder("pg", 0o700)
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    postgres = PostgresServer(binaries[-1].parent, folder, free_port(), user)
    postgres.start()
    return postgres


def publish(bare: Path) -> None:
    """Put this project's history where it can be cloned from."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    push = ["git", "-C", str(PROJECT), "push", "-q", str(bare), "HEAD:refs/heads/main"]
    subprocess.run(push, check=True)


@asynccontextmanager
async def _stage(runtime: str) -> AsyncGenerator[tuple[list[Server], PostgresServer, str]]:
    """Start the database, a git server with this project's history, and two servers."""
    data_dir, upstream = RUN.new_folder("soak", 0o711), RUN.new_folder("upstream")
    publish(upstream / "craftastic.git")
    postgres = new_database()
    url = postgres.url(postgres.create())
    first = Server(
        data_dir,
        runtime=runtime,
        database_url=url,
        LOG_LEVEL="info",
        CRAFTASTIC_RECONCILE_INTERVAL_S="10",
    )
    try:
        first.start()
        await first.ready()
        second = first.beside()
        try:
            second.start()
            await second.ready()
            with GitHttpServer(upstream) as git:
                yield [first, second], postgres, git.url("craftastic.git")
        finally:
            second.stop()
    finally:
        with anyio.CancelScope(shield=True):
            await first.clean()
            for log in data_dir.glob("*.log"):
                shutil.copy(log, RECORD.parent / f"soak-{log.name}")
            postgres.stop()
            shutil.rmtree(data_dir, ignore_errors=True)
            shutil.rmtree(upstream, ignore_errors=True)


def main() -> int:
    """Run one soak by the command line; 1 when anything was violated."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    asked.add_argument("--minutes", type=float, default=30)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--runtime", choices=["local", "docker"], default="local")
    asked.add_argument("--rest-every", type=float, default=REST_EVERY_S, help="seconds of work")
    wanted = asked.parse_args()
    RECORD.parent.mkdir(exist_ok=True)
    with RECORD.open("a", encoding="utf-8") as record:
        world = anyio.run(
            soak, wanted.minutes, wanted.seed, wanted.runtime, record, wanted.rest_every
        )
    found = [*world.violations, *(f"left behind: {one}" for one in left_behind(RUN))]
    summary = json.dumps(world.summary, indent=2)
    sys.stdout.write("\n".join([summary, *found, f"{len(found)} violations", ""]))
    return 1 if found else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    sys.exit(main())
