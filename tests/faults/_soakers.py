"""The clients of a soak: they attach, type, are cut, come back, and make and remove things."""

import itertools
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.e2e.harness import Viewer, until
from tests.faults._journal import Journal
from tests.faults._world import Counted, World

GROWS_S = 20.0
GROWTHS = 3
SEEN_S = 15.0
GONE = (OSError, TimeoutError, WebSocketException)
"""What a client sees of a server that is dead, asleep or ending."""


async def watch(world: World, counted: Counted, dice: random.Random) -> None:
    """Look at one terminal for ever, at this server and at that one."""
    while True:
        async with world.deed():
            await _look(world, counted, dice)
        await anyio.sleep(dice.uniform(0.2, 3))


async def grows(counted: Counted, within_s: float) -> bool:
    """Tell whether the producer's numbers go on, on the terminal that is attached.

    They have to grow more than once: what a server shows first may be what it last heard.
    """
    run, numbers = "", list[int]()
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and counted.viewer.ended is None:
        now, number = counted.latest()
        if now != run:
            run, numbers = now, []
        if number > (numbers[-1] if numbers else 0):
            numbers.append(number)
        if len(numbers) == GROWTHS:
            counted.goes_on(run)
            return True
        await anyio.sleep(0.5)
    return False


async def _look(world: World, counted: Counted, dice: random.Random) -> None:
    viewer = counted.viewer
    world.aim(viewer)
    viewer.document.clear()  # what it showed before says nothing of what runs now
    began = time.monotonic()
    try:
        async with viewer.attached():
            counted.attached = True
            if await grows(counted, GROWS_S / 2):
                world.reattached_s.append(time.monotonic() - began)
                await _type(counted, dice)
                with anyio.move_on_after(dice.uniform(1, 10)):
                    await until(lambda: viewer.ended, "the end of it", timeout_s=60)
            elif viewer.ended is None and world.may_have_ended(counted):
                await counted.start(world.ends[counted.environment_id])
                await grows(counted, GROWS_S / 2)
            if dice.random() < 0.3:
                viewer.cut()
    except* InvalidStatus as refused:
        world.refused_sockets.update(str(one.response.status_code) for one in leaves(refused))
    except* GONE as gone:
        world.refused_sockets.update(type(one).__name__ for one in leaves(gone))
    finally:
        counted.attached = False
    check_screen(world, counted)


async def _type(counted: Counted, dice: random.Random) -> None:
    line = f"w{dice.randrange(10**9)}"
    counted.typed.add(line)
    await counted.viewer.type(f"{line}\r")
    deadline = time.monotonic() + SEEN_S
    while time.monotonic() < deadline and counted.viewer.ended is None:
        if f"\nt{line}\n" in counted.viewer.lately:
            counted.echoed.add(line)
            return
        await anyio.sleep(0.1)


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[Any]:
    """Yield the exceptions of a group, and of those in it."""
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from leaves(one)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield one


def check_screen(world: World, counted: Counted) -> None:
    """See whether what the terminal was shown is whole."""
    if counted.viewer.gaps:
        world.violated(f"a terminal missed bytes: {counted.viewer.gaps}")
        counted.viewer.gaps.clear()
    if hole := hole_in(counted.viewer.text, counted.run):
        world.violated(f"a terminal of {counted.session['id']} shows {hole}")
        seen = [repr(bytes(one)) for one in _around(counted.viewer.document, hole)]
        world.out({"snapshots": counted.viewer.snapshots, "document": seen})
        counted.viewer.document.clear()


def _around(document: bytearray, hole: str) -> Iterator[bytearray]:
    """Yield what the terminal got around a hole, and how it began."""
    yield document[:200]
    at = document.find(f"n{hole.partition(' ')[0]} ".encode())
    yield document[max(0, at - 600) : at + 100]


def hole_in(text: str, run: str) -> str:
    """Return where the numbers of a producer do not go up by one; nothing where all do."""
    numbers = [int(one) for one in re.findall(rf"^n(\d+) {run}$", text, re.MULTILINE)]
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            return f"{after} after {before}"
    return ""


async def come_and_go(world: World, number: int, dice: random.Random) -> None:
    """Make, rename, use and delete sessions for ever."""
    for count in range(10**6):
        async with world.deed():
            await _one_session(world, f"c{number}n{count}", count, dice)
        await anyio.sleep(dice.uniform(0.5, 4))


async def _one_session(world: World, name: str, count: int, dice: random.Random) -> None:
    environment_id = dice.choice(world.environments)
    made = await world.journal.create(
        "/api/sessions", environmentId=environment_id, name=name, branch=f"of/{name}"
    )
    if made is None:
        return
    path = f"/api/sessions/{made['id']}"
    if count % 3 == 1:
        await world.journal.change(path, name=f"{name} renamed")
    if count % 3 == 2:
        viewer = Viewer("", made["id"], environment_id, "")
        world.aim(viewer)
        try:
            async with viewer.attached():
                said = await viewer.run("echo $((20 + 3))", timeout_s=SEEN_S)
                if said.strip() != "23":
                    world.violated(f"a new terminal says {said!r}")
        except* (*GONE, AssertionError):
            world.refused_sockets["a new session's"] += 1
    await remove(world, path)


async def build_and_raze(world: World, number: int, url: str, dice: random.Random) -> None:
    """Make, stop, start and delete environments for ever."""
    for count in range(10**6):
        async with world.deed():
            if count % 4 == 3:
                environment_id = dice.choice(world.environments)
                async with world.ending(environment_id):
                    path = f"/api/environments/{environment_id}"
                    if await _ask(world.journal, f"{path}/stop", force=True) != "stopped":
                        world.doubtful.add(environment_id)
                await _ask(world.journal, f"{path}/start")
            else:
                await _one_environment(world, f"e{number}n{count}", url if count % 2 else "")
        await anyio.sleep(dice.uniform(2, 10))


async def _one_environment(world: World, name: str, url: str) -> None:
    body = {"repositoryUrl": url} if url else {}
    user = world.journals[0].api.user["id"]
    made = await world.journal.create("/api/environments", userId=user, name=name, **body)
    if made is None:
        return
    path = f"/api/environments/{made['id']}"
    session = await world.journal.create(
        "/api/sessions", environmentId=made["id"], name="one", branch="main"
    )
    await _ask(world.journal, f"{path}/stop", force=True)
    if session is not None:
        await _ask(world.journal, f"{path}/start")
        # It goes with its environment: nobody promises that it is there, or that it is not.
        world.journals[0].there.pop(f"/api/sessions/{session['id']}", None)
    await remove(world, path)


async def remove(world: World, path: str) -> None:
    """Delete something; a server that ends may refuse that, and the next one finish it."""
    if not await world.journal.delete(path):
        world.journals[0].there.pop(path, None)


async def _ask(journal: Journal, path: str, **body: Any) -> str:
    """Ask for something that promises nothing for ever; the status, empty without success."""
    try:
        answer = await journal.api.client.post(path, json=body)
    except httpx.TransportError:
        journal.unanswered += 1
        return ""
    if answer.status_code != 200:
        journal.refused.append((answer.status_code, f"POST {path}"))
        return ""
    journal.acknowledged += 1
    return str(answer.json()["status"])
