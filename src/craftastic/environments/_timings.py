"""How long the steps of a start took, and how long they may take."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import anyio

from craftastic.clock import Clock
from craftastic.errors import Unavailable

MAX_STEPS = 8
MAX_STEP_CHARACTERS = 32
MAX_MS = 2**31 - 1

Took = Callable[[str, str, float], object]
"""Is told a step that was done, its runtime, and the seconds that it took."""


class SandboxTooSlow(Unavailable):
    """A runtime neither did what it was to do nor failed, in the longest time for it."""

    code = "SANDBOX_TOO_SLOW"


@dataclass(frozen=True, slots=True)
class StepTime:
    step: str
    ms: int


@dataclass(slots=True)
class Timings:
    """Times steps that follow each other; one that comes again goes on.

    Args:
        clock: Its monotonic time counts.
        done: What came before, which stays.
    """

    clock: Clock
    done: tuple[StepTime, ...] = ()
    _seconds: dict[str, float] = field(default_factory=dict[str, float])
    _step: str | None = None
    _since: float = 0.0

    def begin(self, step: str) -> None:
        """Begin a step, which ends the one before; of too many the last one counts on."""
        step = step[:MAX_STEP_CHARACTERS]
        if step != self._step and (step in self._seconds or len(self._seconds) < MAX_STEPS):
            self.end()
            self._step, self._since = step, self.clock.monotonic()
            self._seconds.setdefault(step, 0.0)

    def end(self) -> dict[str, float]:
        """End the step that is under way, and return the seconds that each has taken."""
        if self._step is not None:
            self._seconds[self._step] += max(0.0, self.clock.monotonic() - self._since)
            self._step = None
        return self._seconds

    def packed(self) -> str:
        """Return everything as it is stored, newest last; older steps of the same name go."""
        new = [StepTime(step, _ms(seconds)) for step, seconds in self._seconds.items()]
        old = [one for one in self.done if one.step not in self._seconds]
        return json.dumps([[one.step, one.ms] for one in [*old, *new][-MAX_STEPS:]])


def unpacked(stored: str | None) -> tuple[StepTime, ...]:
    """Read what `Timings.packed` wrote."""
    rows = cast("list[list[Any]]", json.loads(stored)) if stored else []
    return tuple(StepTime(str(step), int(ms)) for step, ms in rows)


def untold(_step: str, _runtime: str, _seconds: float) -> None:
    """Tell nobody."""


@contextmanager
def within(limit_s: float, done: str) -> Generator[None]:
    """End what takes longer than any runtime may.

    Raises:
        SandboxTooSlow: It did.
    """
    with anyio.move_on_after(limit_s) as deadline:
        yield
    if deadline.cancelled_caught:
        raise SandboxTooSlow(f"The sandbox was not {done} within {limit_s / 60:g} minutes.")


def _ms(seconds: float) -> int:
    return min(MAX_MS, round(seconds * 1000))
