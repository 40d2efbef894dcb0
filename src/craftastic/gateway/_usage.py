"""How many tokens a model's answer cost, read as the answer passes by.

An answer is one JSON value or a stream of events whose data is JSON. Either may be long, so
neither is parsed: a scanner follows the nesting and picks the few numbers that it knows. It holds
a few hundred bytes whatever passes, and whatever passes, it raises nothing.

Sources: the API references of Anthropic (Messages), OpenAI (Responses, Chat Completions) and
Google (Gemini `generateContent`).
"""

import re
from dataclasses import dataclass, field

MAX_DEPTH = 4
MAX_NAME = 40
MAX_STEPS = 20_000_000
"""Of reading one answer, each about a microsecond. A long answer of a model takes some millions;
what takes more was made to keep the server busy, and is not read on."""

MAX_DIGITS = 9
"""Of a number of tokens; a longer one is no such number."""

_INPUT, _CREATED, _READ, _TOOLS, _OUTPUT, _THOUGHTS = range(6)
_COUNTS = {
    b"input_tokens": _INPUT,
    b"prompt_tokens": _INPUT,
    b"cache_creation_input_tokens": _CREATED,  # Anthropic counts what is cached apart
    b"cache_read_input_tokens": _READ,
    b"output_tokens": _OUTPUT,
    b"completion_tokens": _OUTPUT,
}
_PLACES: dict[tuple[bytes | None, ...], int] = {
    **{(b"usage", name): count for name, count in _COUNTS.items()},
    **{(b"message", b"usage", name): count for name, count in _COUNTS.items()},
    **{(b"response", b"usage", name): count for name, count in _COUNTS.items()},
    (b"usageMetadata", b"promptTokenCount"): _INPUT,
    (b"usageMetadata", b"toolUsePromptTokenCount"): _TOOLS,
    (b"usageMetadata", b"candidatesTokenCount"): _OUTPUT,
    (b"usageMetadata", b"thoughtsTokenCount"): _THOUGHTS,
}

_STRUCTURE = re.compile(rb'[{}\[\]",:]')
_IN_STRING = re.compile(rb'["\\]')
_NOT_NUMBER = re.compile(rb"[^0-9]")
_LINE_END = re.compile(rb"[\r\n]")
_BLANK = re.compile(rb"[\r\n]+")
_SPACE = b" \t\r\n"
_DATA = b"data:"


@dataclass(slots=True)
class Counts:
    """The largest of each number that was said: within an answer they only grow."""

    numbers: list[int | None] = field(default_factory=lambda: [None] * 6)
    steps: int = MAX_STEPS

    def note(self, which: int, number: int) -> None:
        self.numbers[which] = max(number, self.numbers[which] or 0)

    def total(self, *which: int) -> int | None:
        """Return the sum of those that were said; None when the first of them was not."""
        if self.numbers[which[0]] is None:
            return None
        return sum(self.numbers[one] or 0 for one in which)


class JsonScanner:
    """Follows one JSON value, given in any pieces."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._read = self._plain
        self._path: list[bytes | None] = []
        """For each open object the member that is read, for each open array None."""
        self._is_object: list[bool] = []
        self._deeper = 0
        self._at_name = False
        self._kept: bytes | None = None
        """The beginning of a name or number; None when it is neither, or too long."""
        self._which = 0

    def feed(self, data: bytes) -> None:
        position, counts = 0, self._counts
        while position < len(data) and counts.steps > 0:
            counts.steps -= 1
            position = self._read(data, position)

    def _plain(self, data: bytes, at: int) -> int:
        found = _STRUCTURE.search(data, at)
        if found is None:
            return len(data)
        match found[0]:
            case b'"':
                self._kept = b"" if self._at_name and not self._deeper else None
                self._read = self._string
            case b"{" | b"[":
                self._open(is_object=found[0] == b"{")
            case b"}" | b"]":
                self._close()
            case b",":
                self._at_name = bool(self._is_object) and self._is_object[-1]
            case _:
                self._value()
        return found.end()

    def _open(self, *, is_object: bool) -> None:
        if self._deeper or len(self._path) == MAX_DEPTH:
            self._deeper += 1
            return
        self._path.append(None)
        self._is_object.append(is_object)
        self._at_name = is_object

    def _close(self) -> None:
        if self._deeper:
            self._deeper -= 1
        elif self._path:
            self._path.pop()
            self._is_object.pop()
        self._at_name = False

    def _value(self) -> None:
        self._at_name = False
        if self._deeper:
            return
        # Gemini streams an array of answers to those who do not ask for events.
        from_array = bool(self._is_object) and not self._is_object[0]
        which = _PLACES.get(tuple(self._path[1:] if from_array else self._path))
        if which is not None:
            self._which, self._kept, self._read = which, b"", self._number

    def _string(self, data: bytes, at: int) -> int:
        found = _IN_STRING.search(data, at)
        end = found.start() if found else len(data)
        self._keep(data[at:end], MAX_NAME)
        if found is None:
            return end
        if found[0] == b"\\":
            self._kept, self._read = None, self._escape
        else:
            if self._at_name and not self._deeper and self._path:
                self._path[-1] = self._kept
            self._at_name, self._read = False, self._plain
        return found.end()

    def _escape(self, data: bytes, at: int) -> int:
        self._read = self._string
        return at + 1

    def _number(self, data: bytes, at: int) -> int:
        found = _NOT_NUMBER.search(data, at)
        end = found.start() if found else len(data)
        self._keep(data[at:end], MAX_DIGITS)
        if found is None:
            return end
        if found[0] in _SPACE and self._kept == b"":
            return found.end()
        if self._kept and found[0] in _SPACE + b",}":
            self._counts.note(self._which, int(self._kept))
        self._read = self._plain
        return end

    def _keep(self, data: bytes, most: int) -> None:
        if self._kept is not None:
            too_long = len(self._kept) + len(data) > most
            self._kept = None if too_long else self._kept + data


class EventScanner:
    """Follows a stream of server-sent events, given in any pieces."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._json = JsonScanner(counts)
        self._line: bytes | None = b""
        """The line's beginning; None once it is known what line it is."""
        self._is_data = False
        self._has_data = False
        self._after_return = False
        self.events = 0

    def feed(self, data: bytes) -> None:
        position, counts = 0, self._counts
        while position < len(data) and counts.steps > 0:
            counts.steps -= 1
            position = self._piece(data, position)

    def _piece(self, data: bytes, at: int) -> int:
        if self._after_return:  # a line may end with both
            self._after_return = False
            if data[at : at + 1] == b"\n":
                return at + 1
        if self._line == b"" and not self._has_data and (blank := _BLANK.match(data, at)):
            return blank.end()
        found = _LINE_END.search(data, at)
        end = found.start() if found else len(data)
        if self._line is not None:
            end = min(end, at + len(_DATA) - len(self._line))
            self._line += data[at:end]
            if self._line == _DATA or not _DATA.startswith(self._line):
                self._is_data, self._line = self._line == _DATA, None
                self._has_data |= self._is_data
        elif self._is_data:
            self._json.feed(data[at:end])
        if found is None or end < found.start():
            return end
        self._after_return = found[0] == b"\r"
        self._end_line()
        return found.end()

    def _end_line(self) -> None:
        if self._line == b"" and self._has_data:
            self.events += 1
            self._json, self._has_data = JsonScanner(self._counts), False
        self._line, self._is_data = b"", False


class UsageReader:
    """Reads what an answer says that it cost.

    Args:
        streams: The answer is a stream of events, not one JSON value.
    """

    def __init__(self, *, streams: bool) -> None:
        self._counts = Counts()
        self._events = EventScanner(self._counts) if streams else None
        self._json = JsonScanner(self._counts)

    def feed(self, data: bytes) -> None:
        (self._events or self._json).feed(data)

    @property
    def input_tokens(self) -> int | None:
        """What was read by the model, also from its cache; None when the answer did not say."""
        return self._counts.total(_INPUT, _CREATED, _READ, _TOOLS)

    @property
    def output_tokens(self) -> int | None:
        """What was written by the model; None when the answer did not say."""
        return self._counts.total(_OUTPUT, _THOUGHTS)

    @property
    def events(self) -> int:
        """How many events came: about one for each token, where providers stream token by token."""
        return self._events.events if self._events else 0
