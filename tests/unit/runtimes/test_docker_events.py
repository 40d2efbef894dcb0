"""The engine's events: what is taken from them, and what is not."""

import json
import secrets
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from aiohttp import web

from craftastic.runtimes import _docker_events
from craftastic.runtimes._docker_engine import Engine
from craftastic.runtimes._docker_events import DockerEvents, moment
from craftastic.runtimes.base import Ending, Hint

INSTANCE = secrets.token_hex(16)
ENVIRONMENT = uuid4()
VERSION = {"Version": "1", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
ENDED_AT = "2026-11-27T18:00:00.123456789Z"
ENDED = 1795802400.123456789
WAIT_S = 10.0


def event(action: str = "die", container: str = "c1", **labels: str) -> bytes:
    attributes = {
        "craftastic.instance": INSTANCE,
        "craftastic.environment": str(ENVIRONMENT),
        **labels,
    }
    actor = {"ID": container, "Attributes": attributes}
    return json.dumps({"Type": "container", "Action": action, "Actor": actor}).encode() + b"\n"


@dataclass
class ToyEngine:
    """An engine that tells what a test wants, one list of lines for each connection."""

    path: str
    scripts: list[list[bytes]] = field(default_factory=list[list[bytes]])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answers: bool = True

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/events"):
            return web.json_response(VERSION)
        if not self.answers:
            return web.json_response({"message": "not now"}, status=500)
        self.asked.append(json.loads(request.query["filters"]))
        answer = web.StreamResponse()
        await answer.prepare(request)
        if not self.scripts:
            await anyio.sleep_forever()
        for line in self.scripts.pop(0):
            await answer.write(line)
        return answer

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        app = web.Application()
        app.router.add_get("/{any:.*}", self.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, self.path).start()
        try:
            yield
        finally:
            await runner.cleanup()
            Path(self.path).unlink(missing_ok=True)  # noqa: ASYNC240 - a test's own


@pytest.fixture
def toy() -> Iterator[ToyEngine]:
    with tempfile.TemporaryDirectory() as folder:
        yield ToyEngine(f"{folder}/docker.sock")


@pytest.fixture
def heard() -> list[Hint]:
    return []


@asynccontextmanager
async def followed(events: DockerEvents, heard: list[Hint]) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.follow, heard.append)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await events.engine.close()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - two event loops' worth of sockets are between
            await anyio.sleep(0.01)


async def test_only_this_installations_containers_are_asked_for_and_no_commands(
    toy: ToyEngine, heard: list[Hint]
) -> None:
    async with toy.listening(), followed(DockerEvents(Engine(toy.path), INSTANCE), heard):
        await until(lambda: heard)

    assert toy.asked == [
        {
            "type": ["container"],
            "event": ["die", "oom", "destroy", "stop", "start"],
            "label": [f"craftastic.instance={INSTANCE}"],
        }
    ]


async def test_what_is_told_becomes_hints_and_what_is_not_ours_does_not(
    toy: ToyEngine, heard: list[Hint]
) -> None:
    toy.scripts.append(
        [
            event("oom"),
            event("die", **{"craftastic.instance": "another's"}),
            event("die", **{"craftastic.environment": "nonsense"}),
            b'["no", "event"]\n',
            event("destroy"),
        ]
    )

    async with toy.listening(), followed(DockerEvents(Engine(toy.path), INSTANCE), heard):
        await until(lambda: len(heard) >= 4)

    assert heard[:4] == [Hint(), Hint(ENVIRONMENT, True), Hint(), Hint(ENVIRONMENT)]


@pytest.mark.parametrize("nonsense", [b"{ no json\n", b"x" * (8 << 20) + b"\n", b"\xff\n"])
async def test_after_nonsense_or_an_end_the_events_are_asked_for_anew(
    toy: ToyEngine, heard: list[Hint], nonsense: bytes
) -> None:
    toy.scripts += [[event(), nonsense], [event("start")]]

    async with toy.listening(), followed(DockerEvents(Engine(toy.path), INSTANCE), heard):
        await until(lambda: len(heard) >= 5)

    assert heard == [Hint(), Hint(ENVIRONMENT), Hint(), Hint(ENVIRONMENT), Hint()]


async def test_a_refusal_is_answered_by_pauses_that_grow(
    toy: ToyEngine, heard: list[Hint], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = anyio.sleep

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(_docker_events.anyio, "sleep", slept)
    toy.answers = False
    async with toy.listening(), followed(DockerEvents(Engine(toy.path), INSTANCE), heard):
        with anyio.fail_after(WAIT_S):
            while len(pauses) < 10:
                await sleep(0.01)
            toy.answers = True
            while not heard:
                await sleep(0.01)

    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[9] == _docker_events.FOLLOW_PAUSE_S


async def test_a_stream_that_is_silent_for_long_is_asked_for_anew(
    toy: ToyEngine, heard: list[Hint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_docker_events, "RENEWED_S", 0.1)

    async with toy.listening(), followed(DockerEvents(Engine(toy.path), INSTANCE), heard):
        await until(lambda: len(heard) >= 3)

    assert set(heard) == {Hint()}


# ---- why a container has ended --------------------------------------------------------------


def container(code: int, *, oom: bool = False, at: str = ENDED_AT) -> dict[str, Any]:
    state = {"Running": False, "OOMKilled": oom, "ExitCode": code, "FinishedAt": at}
    return {"Id": "c1", "State": state}


async def hearing(toy: ToyEngine, now: float, *lines: bytes) -> DockerEvents:
    """Return events that heard these lines at that time."""
    events, heard = DockerEvents(Engine(toy.path), INSTANCE, lambda: now), list[Hint]()
    toy.scripts.append(list(lines))
    async with toy.listening(), followed(events, heard):
        await until(lambda: len(heard) > len(lines))
    return events


async def test_a_container_that_was_killed_right_when_memory_was_out_ended_for_that(
    toy: ToyEngine,
) -> None:
    events = await hearing(toy, ENDED - 1, event("oom"))

    assert events.ending(container(137, oom=True)) is Ending.OUT_OF_MEMORY


async def test_memory_that_was_out_long_ago_is_not_why_a_container_ended(toy: ToyEngine) -> None:
    events = await hearing(toy, ENDED - 3600, event("oom"))

    assert events.ending(container(137, oom=True)) is Ending.UNKNOWN


async def test_of_want_of_memory_that_nobody_heard_the_engines_word_counts(
    toy: ToyEngine,
) -> None:
    events = DockerEvents(Engine(toy.path), INSTANCE)

    assert events.ending(container(137, oom=True)) is Ending.OUT_OF_MEMORY
    assert events.ending(container(0, oom=True)) is Ending.UNKNOWN
    assert events.ending(container(137)) is Ending.UNKNOWN
    assert events.ending({**container(137, oom=True), "State": {"Running": True}}) is Ending.UNKNOWN
    assert events.ending(container(137, oom=True, at="0001-01-01T00:00:00Z")) is Ending.UNKNOWN


@pytest.mark.parametrize(
    ("code", "away_for_s", "ending"),
    [
        (143, 5.0, Ending.ENGINE_RESTART),
        (137, 5.0, Ending.ENGINE_RESTART),
        (0, 5.0, Ending.UNKNOWN),  # it ended by itself
        (143, 0.0, Ending.UNKNOWN),  # only the connection was cut
        (143, 3600.0, Ending.UNKNOWN),  # the engine went away long before
    ],
)
async def test_a_container_that_ended_with_its_engine_is_told_from_others(
    toy: ToyEngine, heard: list[Hint], code: int, away_for_s: float, ending: Ending
) -> None:
    now = ENDED + 4 - away_for_s if away_for_s < 60 else ENDED - away_for_s - 60
    events = DockerEvents(Engine(toy.path), INSTANCE, lambda: now)
    toy.scripts.append([event()])

    async with followed(events, heard):
        async with toy.listening():
            await until(lambda: len(heard) >= 2)
            if not away_for_s:
                await until(lambda: len(heard) >= 3)
        if away_for_s:
            now += min(away_for_s, 30)
            async with toy.listening():
                await until(lambda: len(heard) >= 3)

    assert events.ending(container(code)) is ending


def test_the_engines_times_are_read() -> None:
    assert moment(ENDED_AT) == pytest.approx(ENDED)
    assert moment("2026-11-27T18:00:00Z") == pytest.approx(ENDED, abs=1)
    assert moment("0001-01-01T00:00:00Z") is None
    assert moment("nonsense") is None
    assert moment("") is None
