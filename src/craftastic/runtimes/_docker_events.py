"""The engine's stream of events: hints about this installation's containers, never facts.

What a sandbox does shows in it only through the engine: that it starts and ends, and that a program
was killed for its memory. Commands (`exec`) are not asked for: a sandbox makes as many as it likes.

Source: Engine API 1.41, GET /events.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

import anyio
import orjson
import structlog
from aiohttp.http_exceptions import LineTooLong

from craftastic.runtimes._docker_container import ENVIRONMENT_LABEL, INSTANCE_LABEL
from craftastic.runtimes._docker_engine import CALL_S, Engine, EngineRefused, Json
from craftastic.runtimes.base import (
    FOLLOW_PAUSE_S,
    Ending,
    Hint,
    RuntimeUnavailable,
    TellHint,
)

EVENTS: Final = ("die", "oom", "destroy", "stop", "start")
OOM: Final = "oom"
FIRST_PAUSE_S = 0.1
RENEWED_S = 600.0
"""A stream whose other end is gone without a word is silent for ever: it is asked for anew."""

AWAY_S = 0.5
"""An engine that answers again sooner has cut a connection and nothing else, in seconds."""

ENDING_S = 30.0
"""How long an engine that ends takes to end its containers, in seconds: 10, and then some."""

STARTING_S = 5.0
OOM_S = 10.0
"""A program that was killed longer ago for its memory is not why a container has ended now."""

MAX_REMEMBERED = 1024
KILLED: Final = 128 + 9
ENDED_BY_ENGINE: Final = {KILLED, 128 + 15}
NEVER: Final = "0001-01-01"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Away:
    """A time in which the engine did not answer, by the clock of the wall, which it goes by too."""

    began: float = float("-inf")
    ended: float = float("-inf")

    def has(self, moment: float) -> bool:
        """Tell whether a container that ended at that moment ended with the engine."""
        return self.began - ENDING_S <= moment <= self.ended + STARTING_S


@dataclass(slots=True)
class DockerEvents:
    """What the engine tells of one installation's containers, for as long as somebody follows.

    Args:
        engine: Whose events.
        instance: The installation's id, which its containers carry as a label.
        now: The clock of the wall, in seconds.
    """

    engine: Engine
    instance: str
    now: Callable[[], float] = time.time
    _away: Away = field(default_factory=Away)
    _killed_at: dict[str, float] = field(default_factory=dict[str, float])

    async def follow(self, tell: TellHint) -> None:
        """Tell of what happens; see `Runtime.follow`."""
        pause_s, lost_at, failed = FIRST_PAUSE_S, None, False
        while True:
            try:
                async with self._stream() as events:
                    if lost_at is not None and (failed or self.now() - lost_at > AWAY_S):
                        self._away = Away(lost_at, self.now())
                    lost_at, failed, opened = None, False, anyio.current_time()
                    tell(Hint())
                    with anyio.move_on_after(RENEWED_S):
                        async for event in events:
                            self._tell(event, tell)
                        lost_at = self.now()
                # One that ends as soon as it is opened is asked for ever less often.
                if anyio.current_time() - opened > FOLLOW_PAUSE_S:
                    pause_s = FIRST_PAUSE_S
            except (RuntimeUnavailable, EngineRefused) as error:
                # A connection that was cut says nothing about the engine; a second failure does.
                failed, lost_at = lost_at is not None, lost_at or self.now()
                log.info("engine's events are not followed", reason=str(error), again_in_s=pause_s)
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, FOLLOW_PAUSE_S)

    def ending(self, container: Json) -> Ending:
        """Say why a container has ended, from what the engine knows of it and of itself.

        The engine's own word for a container that ran out of memory is also true of one in which
        any program was ever killed.
        """
        state = cast("Json", container.get("State") or {})
        ended_at = moment(str(state.get("FinishedAt") or ""))
        code = state.get("ExitCode")
        if ended_at is None or state.get("Running"):
            return Ending.UNKNOWN
        if state.get("OOMKilled") and code == KILLED:
            killed_at = self._killed_at.get(str(container.get("Id")))
            if killed_at is None or ended_at - killed_at < OOM_S:
                return Ending.OUT_OF_MEMORY
        if code in ENDED_BY_ENGINE and self._away.has(ended_at):
            return Ending.ENGINE_RESTART
        return Ending.UNKNOWN

    def _tell(self, event: Json, tell: TellHint) -> None:
        actor = cast("Json", event.get("Actor") or {})
        attributes = cast("dict[str, str]", actor.get("Attributes") or {})
        if attributes.get(INSTANCE_LABEL) != self.instance:
            return
        out_of_memory = event.get("Action") == OOM
        if out_of_memory:
            self._remember(str(actor.get("ID")))
        try:
            environment_id = UUID(attributes.get(ENVIRONMENT_LABEL, ""))
        except ValueError:
            environment_id = None
        tell(Hint(environment_id, out_of_memory))

    def _remember(self, container_id: str) -> None:
        self._killed_at.pop(container_id, None)
        while len(self._killed_at) >= MAX_REMEMBERED:
            self._killed_at.pop(next(iter(self._killed_at)))
        self._killed_at[container_id] = self.now()

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncGenerator[AsyncIterator[Json]]:
        """Ask for the events from now on; the context is left when they end, or fail.

        Raises:
            RuntimeUnavailable: The engine does not answer, or not any more.
            EngineRefused: It answered with an error.
        """
        filters = {
            "type": ["container"],
            "event": list(EVENTS),
            "label": [f"{INSTANCE_LABEL}={self.instance}"],
        }
        params = {"filters": orjson.dumps(filters).decode()}
        async with contextlib.AsyncExitStack() as stack:
            async with self.engine.border("asking for events", CALL_S) as docker:
                # Not aiodocker's own channel: it holds what nobody has read yet, without a bound.
                query = docker._query  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                answer: Any = await stack.enter_async_context(
                    query("events", params=params, timeout=None)
                )
                stack.callback(answer.close)
            with self.engine.translated("following events"):
                yield _events(answer.content)


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    """Read the events, one in a line; what cannot be read ends them, and they are asked for anew.

    Of a line no more is held than the client's own limit.
    """
    with contextlib.suppress(ValueError, LineTooLong):
        async for line in lines:
            event = orjson.loads(line)
            if isinstance(event, dict):
                yield cast("Json", event)


def moment(text: str) -> float | None:
    """Return a time that the engine tells as seconds since 1970, or None for never."""
    # Its nanoseconds are more than Python takes: `2026-01-02T03:04:05.123456789Z`.
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if text.startswith(NEVER):
        return None
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
    return None
