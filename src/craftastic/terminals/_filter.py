"""The pane's raw bytes, made fit for viewers: what tmux answers or swallows itself is taken out.

Sans-I/O and indifferent to how the bytes are cut. Taken out are

- the programs' questions (device attributes, positions, modes, colours, versions, ENQ): tmux
  answers them, and a viewer that saw one would answer a second time;
- strings of which tmux shows nothing but which some emulators would (DCS, APC, PM, SOS and
  screen's `ESC k` title), and operating system commands that are not known to be harmless;
- 8-bit controls written as UTF-8, which tmux ignores and emulators obey.

What it returns ends at a whole character and a whole sequence, so a snapshot may begin there. Only
a long operating system command (a clipboard write) may be open at its end.
"""

import re
from enum import Enum, auto

HELD_BYTES = 4 << 10
"""An operating system command up to this length is decided on as a whole."""
LONGEST_STRING = 1 << 20
"""What is longer than this is cancelled, as tmux does (INPUT_BUF_LIMIT)."""
STRING_TIMEOUT_S = 5.0
"""tmux gives up a string that has not ended by then. Source: tmux input.c, input_start_timer."""
LONGEST_CSI = 256
CANCEL = b"\x18"

_SEQUENCE = rb"""
    \x1b(?:
        [Z\]P_^Xk]
        | \[(?![0-9;:]*m)(?:
            [0-?]*(?: [cx] | \$[pwu] | \*y | '\| | \#[|RS] | "v | &u )
            | (?!>)[0-?]*n
            | (?!2[23][;t])[0-?]*t
            | >[0-?]*q
            | \?[0-?]*[umS]
        )
    )
"""
# Two patterns, since searching for one first byte is several times as fast as for one of three.
_TOKEN = re.compile(_SEQUENCE, re.VERBOSE)
_TOKEN_OR_CONTROL = re.compile(_SEQUENCE + rb"| \x05 | \xc2[\x80-\x9f]", re.VERBOSE)
_OPEN_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)\Z")
_OSC_END = re.compile(rb"[\x07\x18\x1a]|\x1b(?s:.)")
_STRING_END = re.compile(rb"[\x18\x1a]|\x1b(?s:.)")
_DCS_HEAD = re.compile(rb"[\x00-\x17\x19\x1c-\x3f]*")
_DCS_END = re.compile(rb"\x1b(?s:.)")
_INTERRUPTED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[ -/]*)[\x00-\x17\x19\x1c-\x1f\x7f]")
_MIXED = re.compile(rb"\x1b[\x00-\x17\x19\x1c-\x1f\x7f -/]*(?:\[[\x00-\x17\x19\x1c-\x1f\x7f -?]*)?")
"""A sequence with controls in it: emulators obey those at once and go on with the sequence."""
_CONTROLS = bytes([*range(0x20), 0x7F])
_OTHERS = bytes(one for one in range(256) if one not in _CONTROLS)
_ANY_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ASKING = frozenset(b"%d" % number for number in (4, 5, *range(10, 20), 52))
"""Commands that ask when one of their parameters is a question mark, and set otherwise."""
_SETTING = frozenset(b"%d" % number for number in (0, 1, 2, 7, 8, 9, *range(104, 120), 133, 777))


class _In(Enum):
    GROUND = auto()
    OSC = auto()  # passed on, being too long to be decided on as a whole
    STRING = auto()  # dropped up to its terminator or any other escape sequence
    OSC_STRING = auto()  # the same; a bell ends it too
    DCS_HEAD = auto()
    DCS = auto()  # dropped up to its terminator alone


class OutputFilter:
    def __init__(self) -> None:
        self._held = b""
        self._state = _In.GROUND
        self._passed = 0
        self._since: float | None = None

    @property
    def held(self) -> int:
        """How many bytes wait for what completes them."""
        return len(self._held)

    @property
    def in_osc(self) -> bool:
        """Whether what was returned so far ends inside an operating system command."""
        return self._state is _In.OSC

    def feed(self, data: bytes, now: float) -> bytes:
        """Return what viewers get of `data`.

        Args:
            data: The next bytes, cut anywhere.
            now: Seconds on any clock that only grows.
        """
        out: list[bytes] = []
        if self._since is not None and now - self._since > STRING_TIMEOUT_S:
            self._give_up(out)
        if self._held:
            data, self._held = self._held + data, b""
        if _INTERRUPTED.search(data) is not None:
            data = _MIXED.sub(_apart, data)
        position = 0
        while position < len(data):
            if self._state is _In.GROUND:
                position = self._ground(data, position, out)
            else:
                position = self._string(data, position, out)
        if self._state is _In.GROUND and not self._held.startswith(b"\x1b]"):
            self._since = None
        elif self._since is None:
            self._since = now
        return out[0] if len(out) == 1 else b"".join(out)

    def _give_up(self, out: list[bytes]) -> None:
        if self._state is _In.OSC:
            out.append(CANCEL)
        self._held, self._state, self._since = b"", _In.GROUND, None

    def _ground(self, data: bytes, position: int, out: list[bytes]) -> int:
        pattern = _TOKEN_OR_CONTROL if b"\x05" in data or b"\xc2" in data else _TOKEN
        for match in pattern.finditer(data, position):
            start = match.start()
            out.append(data[position:start])
            position = match.end()
            kind = match.group()
            if kind == b"\x1b]":
                return self._osc(data, start, out)
            if kind in _STRINGS:
                self._state = _STRINGS[kind]
                return position
        end = _whole(data, position)
        self._held = data[end:]
        out.append(data[position:end] if position or end < len(data) else data)
        return len(data)

    def _osc(self, data: bytes, start: int, out: list[bytes]) -> int:
        match = _OSC_END.search(data, start + 2)
        if match is not None:
            end = _after(match)
            if _is_harmless(data[start + 2 : match.start()]):
                out.append(data[start:end])
            return end
        if len(data) - start <= HELD_BYTES:
            self._held = data[start:]
            return len(data)
        # A long list of colours may hide a question further on; any other shows it at its start.
        number = data[start + 2 : start + 8].partition(b";")[0]
        command = data[start + 2 :]
        asks = number in _ASKING and (number != b"52" or command.count(b";") < 2)  # noqa: PLR2004
        if asks or not _is_harmless(command):
            self._state = _In.OSC_STRING
            return start + 2
        self._state, self._passed = _In.OSC, 0
        out.append(b"\x1b]")
        return start + 2

    def _string(self, data: bytes, position: int, out: list[bytes]) -> int:
        if self._state is _In.DCS_HEAD:
            head = _DCS_HEAD.match(data, position)
            position = head.end() if head else position
            if position < len(data):
                aborted = data[position] in b"\x18\x1a\x1b"
                self._state = _In.GROUND if aborted else _In.DCS
            return position
        ends = _ENDS[self._state]
        match = ends.search(data, position)
        if match is None:
            end = len(data) - data.endswith(b"\x1b")  # perhaps half of the terminator
            self._held = data[end:]
            self._pass(data[position:end], out)
            return len(data)
        if self._state is _In.DCS:
            if match.group() == b"\x1b\\":
                self._state = _In.GROUND
            return match.end()
        end = _after(match)
        passing = self._pass(data[position : match.start()], out)
        if passing:
            out.append(data[match.start() : end])
        self._state = _In.GROUND
        return end

    def _pass(self, data: bytes, out: list[bytes]) -> bool:
        """Hand on a piece of a long command; False when it is being dropped."""
        if self._state is not _In.OSC:
            return False
        self._passed += len(data)
        if self._passed > LONGEST_STRING:
            out.append(CANCEL)
            self._state = _In.OSC_STRING
            return False
        out.append(data)
        return True


_STRINGS = {
    b"\x1bP": _In.DCS_HEAD,
    b"\x1b_": _In.STRING,
    b"\x1b^": _In.STRING,
    b"\x1bX": _In.STRING,
    b"\x1bk": _In.STRING,
}
_ENDS = {
    _In.OSC: _OSC_END,
    _In.OSC_STRING: _OSC_END,
    _In.STRING: _STRING_END,
    _In.DCS: _DCS_END,
}


def _apart(match: "re.Match[bytes]") -> bytes:
    """Put the controls in a sequence before it, which is what they do."""
    sequence = match.group()
    controls = sequence[1:].translate(None, _OTHERS)
    return controls + b"\x1b" + sequence[1:].translate(None, _CONTROLS)


def _is_harmless(command: bytes) -> bool:
    if _ANY_CONTROL.search(command) is not None:
        return False  # Emulators pass over them, so `;\0?` asks too; no program sends them.
    number, *rest = command.split(b";", 2 if command.startswith(b"52;") else -1)
    if number in _ASKING:
        # Of a clipboard command only the last part asks, of the others each.
        return not any(part.startswith(b"?") for part in rest)
    return number in _SETTING


def _after(match: "re.Match[bytes]") -> int:
    r"""Return where a string's end ends: an escape other than ESC \ begins something new."""
    if match.group()[0] == 0x1B and match.group() != b"\x1b\\":  # noqa: PLR2004 - ESC
        return match.start()
    return match.end()


def _whole(data: bytes, position: int) -> int:
    """Return where the last sequence or character that has not ended begins, or the end."""
    end = len(data)
    escape = data.rfind(b"\x1b", max(position, end - LONGEST_CSI))
    if escape >= 0 and _OPEN_SEQUENCE.match(data, escape):
        return escape
    for back in range(1, min(4, end - position + 1)):
        byte = data[end - back]
        if byte < 0x80:  # noqa: PLR2004 - a whole character
            return end
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a longer one
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004
            return end - back if byte < 0xF8 and back < needed else end  # noqa: PLR2004
    return end
