"""Shows what a create is doing: a live checklist on a terminal, one line a change otherwise."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from craftastic.cli.output import printable, say

TITLES = {
    "image": "Sandbox image",
    "sandbox": "Sandbox",
    "clone": "Clone",
    "session": "Session",
}
PLAIN_PERCENT_STEP = 25


class Checklist(Protocol):
    def show(self, step: str, message: str, percent: int | None) -> None:
        """Show where a step stands; a new step ends the one before."""
        ...

    def finish(self) -> None:
        """Show that everything went well."""
        ...


@dataclass(slots=True)
class PlainChecklist:
    """One line for each change, to standard error."""

    _last: tuple[str, str, int] | None = None

    def show(self, step: str, message: str, percent: int | None) -> None:
        coarse = (percent or 0) // PLAIN_PERCENT_STEP
        if self._last == (step, message, coarse):
            return
        self._last = (step, message, coarse)
        share = "" if percent is None else f" ({percent} %)"
        say(f"{TITLES.get(step, step)}: {message}{share}")

    def finish(self) -> None:
        return


class LiveChecklist:
    """The steps under each other, done ones ticked, the present one turning."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._steps: dict[str, tuple[str, int | None]] = {}
        self._done = False

    def show(self, step: str, message: str, percent: int | None) -> None:
        text = printable(message)
        if self._steps.get(step) != (text, percent):
            self._steps[step] = (text, percent)
            self._live.update(self._render())

    def finish(self) -> None:
        self._done = True
        self._live.update(self._render())

    def _render(self) -> Any:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        rows: list[Any] = []
        for place, (step, (message, percent)) in enumerate(self._steps.items(), 1):
            title = TITLES.get(step, printable(step))
            share = "" if percent is None else f" {percent} %"
            if self._done or place < len(self._steps):
                rows.append(Text.assemble(("✓ ", "green"), f"{title}"))
            else:
                rows.append(Spinner("dots", Text(f"{title}: {message}{share}")))
        return Group(*rows)


@contextmanager
def checklist() -> Generator[Checklist]:
    """Show a checklist as long as the block lasts."""
    if not sys.stderr.isatty():
        yield PlainChecklist()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=8) as live:
        yield LiveChecklist(live)
