"""git's progress lines as visible steps. Pure: fed with bytes as they come."""

import re
import unicodedata
from dataclasses import dataclass, field

from craftastic.runtimes.base import Progress

MAX_LINE_BYTES = 1000
MAX_LINES = 20
MAX_TEXT = 600

_PERCENT = re.compile(
    rb"^(?:remote: )?(Receiving objects|Unpacking objects|Resolving deltas): +(\d{1,3})%"
)
_COUNTING = re.compile(rb"^remote: (?:Counting|Compressing|Enumerating) objects")
# How much of the whole each phase is, by its start and its length in percent.
_PHASES = {
    b"Receiving objects": (0, 80),
    b"Unpacking objects": (0, 99),
    b"Resolving deltas": (80, 19),
}
_NOISE = re.compile(
    rb"^(?:remote: )?(?:Counting|Compressing|Enumerating|Total|Receiving|Resolving|Unpacking)"
    rb"|^From |^ [*+=!-] |^ +[0-9a-f]+\.\.|^POST git-|^$"
)


def readable(raw: bytes, limit: int = MAX_TEXT) -> str:
    """Return hostile bytes as one short printable text for a person."""
    text = raw[: 4 * limit].decode(errors="replace")
    shown = "".join(one if unicodedata.category(one)[0] not in "CZ" else " " for one in text)
    return " ".join(shown.split())[:limit]


@dataclass(slots=True)
class CloneOutput:
    """Reads the second output of a clone: `progress` from it, and what else git said.

    The rest is bounded: the last `MAX_LINES` lines of `MAX_LINE_BYTES` each.
    """

    _buffer: bytearray = field(default_factory=bytearray)
    _lines: list[bytes] = field(default_factory=list[bytes])

    def feed(self, chunk: bytes) -> Progress | None:
        """Take the next bytes; return the newest progress in them, if any."""
        self._buffer += chunk
        *lines, rest = re.split(rb"[\r\n]", bytes(self._buffer))
        self._buffer = bytearray(rest[-MAX_LINE_BYTES:])
        newest: Progress | None = None
        for line in lines:
            newest = self._line(line) or newest
        return newest

    @property
    def said(self) -> str:
        """What git said beside progress, for a person; empty when nothing."""
        lines = [*self._lines, bytes(self._buffer)]
        return readable(b" ".join(line for line in lines if not _NOISE.match(line)))

    def _line(self, line: bytes) -> Progress | None:
        if (match := _PERCENT.match(line)) is not None:
            start, length = _PHASES[match[1]]
            percent = min(99, start + min(100, int(match[2])) * length // 100)
            return Progress("clone", match[1].decode(), percent)
        if _COUNTING.match(line):
            return Progress("clone", "The server prepares the objects")
        if not _NOISE.match(line):
            self._lines = [*self._lines[1 - MAX_LINES :], line[:MAX_LINE_BYTES]]
        return None
