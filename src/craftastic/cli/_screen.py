"""Follows what the output did to the screen, as far as a status line needs it. Without I/O."""

import re
import unicodedata

MAX_TAIL_BYTES = 4 << 10
MAX_PARTIAL_BYTES = 256

ALTERNATE_MODES = frozenset({b"47", b"1047", b"1049"})
ESC = b"\x1b"

SEQUENCE = re.compile(
    rb"\x1b(?:"
    rb"\[(?P<csi>[0-?]*)[ -/]*(?P<final>[@-~])"
    rb"|(?P<string>[\]PX^_])"
    rb"|[ -/]+[0-~]"
    rb"|(?P<single>[0-Z\\`-~])"
    rb")"
)
PARTIAL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)?\Z")
STRING_END = re.compile(rb"\x07|\x1b\\|[\x18\x1a]")
# What may stand in a line that can be written again in place: text, colours, moves within the line.
IN_LINE = re.compile(
    r"\x1b(?:\[[0-9;:]*[mKPCDGX@]|\[\?(?:25|2004|1004|1)[hl]|[=>]|\][^\x07\x1b]*(?:\x07|\x1b\\))|[\r\b\x07]"
)


class ScreenTracker:
    """Knows whether the alternate screen shows, and the bytes of the cursor's line."""

    def __init__(self) -> None:
        self.alternate = False
        self._partial = b""
        self._string = False
        self._tail = bytearray()
        self._tail_whole = True

    @property
    def between(self) -> bool:
        """Whether the output stands between sequences: bytes of ours would not tear one apart."""
        return not self._partial and not self._string

    def reset(self) -> None:
        """Begin anew: a snapshot follows."""
        self.__init__()

    def feed(self, data: bytes) -> None:
        self._follow_line(data)
        data = self._partial + data
        self._partial = b""
        at = 0
        while at < len(data):
            if self._string:
                end = STRING_END.search(data, at)
                if end is None:
                    self._partial = ESC if data.endswith(ESC) else b""
                    return
                self._string = False
                at = end.end()
                continue
            at = data.find(ESC, at)
            if at < 0:
                return
            at = self._sequence(data, at)

    def _sequence(self, data: bytes, at: int) -> int:
        match = SEQUENCE.match(data, at)
        if match is None:
            if len(data) - at <= MAX_PARTIAL_BYTES and PARTIAL.match(data, at):
                self._partial = data[at:]
                return len(data)
            return at + 1
        if match["string"]:
            self._string = True
        elif match["single"] == b"c":
            self.alternate = False
        elif (
            match["final"] in (b"h", b"l")
            and match["csi"].startswith(b"?")
            and ALTERNATE_MODES & set(match["csi"][1:].split(b";"))
        ):
            self.alternate = match["final"] == b"h"
        return match.end()

    def _follow_line(self, data: bytes) -> None:
        newline = data.rfind(b"\n")
        if newline >= 0:
            self._tail.clear()
            self._tail_whole = True
            data = data[newline + 1 :]
        if not self._tail_whole:
            return
        self._tail += data
        if len(self._tail) > MAX_TAIL_BYTES:
            self._tail.clear()
            self._tail_whole = False

    def line(self, columns: int) -> bytes | None:
        """Return the bytes that write the cursor's line again from its start.

        None when they are not known: the line wraps, or the program moved between lines.
        """
        if not self._tail_whole or self.alternate or not self.between:
            return None
        text = IN_LINE.sub("", self._tail.decode("utf-8", errors="replace"))
        width = sum(2 if unicodedata.east_asian_width(char) in "WFA" else 1 for char in text)
        if width >= columns or any(unicodedata.category(char) == "Cc" for char in text):
            return None
        return bytes(self._tail)
