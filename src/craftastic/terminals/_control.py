"""tmux's control protocol, client side, without any I/O: replies and notifications out of bytes."""

from dataclasses import dataclass

MAX_REPLY_BYTES = 24 << 20
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Reply:
    """What one command answered.

    Args:
        ok: False when tmux refused the command.
        body: The answer without its last line feed. Hostile: a pane prints what it likes.
        own: The command was ours (the reply to the attach itself is not).
        truncated: The answer was longer than `MAX_REPLY_BYTES`; the rest was dropped.
    """

    ok: bool
    body: bytes
    own: bool = True
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification: `%name rest`."""

    name: str
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class PaneOutput:
    """Bytes of a pane, from a client that did not ask for `no-output`."""

    pane: str
    data: bytes


Event = Reply | Notice | PaneOutput


class ControlParser:
    """Turns the output of `tmux -C` into events, however it is cut into chunks.

    A reply ends only at `%end` or `%error` with the exact three words of its own `%begin`: a
    captured pane may contain any other line of this protocol. Notifications never occur inside
    a reply. Source: tmux(1), CONTROL MODE.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._ends: tuple[bytes, bytes] | None = None
        self._own = True
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return what they complete."""
        events: list[Event] = []
        self._buffer += data
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._scanned))) >= 0:
            self._line(bytes(self._buffer[start:end]), events)
            start = end + 1
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        if self._scanned > MAX_LINE_BYTES:  # a line that long is of a reply
            self._keep(bytes(self._buffer))
            self._buffer.clear()
            self._scanned = 0
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._ends is not None:
            if line in self._ends:
                body = b"\n".join(self._lines)
                events.append(
                    Reply(line == self._ends[0], body, self._own, self._size > MAX_REPLY_BYTES)
                )
                self._ends, self._lines, self._size = None, [], 0
            else:
                self._keep(line)
        elif line.startswith(b"%begin "):
            words = line[len(b"%begin ") :]
            self._ends = (b"%end " + words, b"%error " + words)
            self._own = words.endswith(b" 1")
        elif line.startswith((b"%output ", b"%extended-output ")):
            events.append(_pane_output(line))
        elif line.startswith(b"%"):
            name, _, rest = line[1:].partition(b" ")
            events.append(Notice(name.decode("ascii", "replace"), rest))

    def _keep(self, line: bytes) -> None:
        self._size += len(line) + 1
        if self._size <= MAX_REPLY_BYTES:
            self._lines.append(line)


def _pane_output(line: bytes) -> PaneOutput:
    """`%output %1 text` or `%extended-output %1 age : text`."""
    kind, _, rest = line.partition(b" ")
    pane, _, text = rest.partition(b" ")
    if kind == b"%extended-output":
        text = text.partition(b" : ")[2]
    return PaneOutput(pane.decode("ascii", "replace"), unescape_octal(text))


def unescape_octal(text: bytes) -> bytes:
    r"""Undo tmux's `\ooo`, by which it writes control characters and the backslash."""
    if b"\\" not in text:
        return text
    first, *parts = text.split(b"\\")
    out = [first]
    for part in parts:
        try:
            out.append(_OCTAL[part[:3]])
        except KeyError:
            out.append(b"\\" + part)
        else:
            out.append(part[3:])
    return b"".join(out)


_OCTAL = {b"%03o" % value: bytes([value]) for value in range(256)}
