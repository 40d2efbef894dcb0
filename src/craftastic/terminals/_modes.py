"""Follows, in the bytes that viewers got, the modes that tmux's formats do not tell.

Sans-I/O. Fed with whole sequences (`OutputFilter` returns nothing else). What is remembered about
the past costs little per byte: only the sequences after the last reset of the rendition are read,
and only when somebody asks.
"""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace

from craftastic.terminals._sgr import PLAIN, Rendition, after

FOLLOWED = frozenset(
    (5, 9, 12, 45, 1004, 1007, 1015, 1016, 1034, 1035, 1036, 1039, 2004, 2026, 2027, 2031, 2048)
)
"""Private modes that are not told by tmux's formats. Source: xterm's ctlseqs, tmux(1) FORMATS."""
LONGEST_TEXT = 2048
LONGEST_TAIL = 64 << 10
DEEPEST_KEYBOARD = 16

_SEQUENCE = rb"""
    \x1b(?!\[(?:\?25|[0-9;:]*[@-Zac-ln-r]|[0-9;:]*m))(?:
        \[(?:
            \?(?P<private>[0-9;]{1,64})(?P<set>[hl])
          | (?P<cursor>[0-9]{0,2})\x20q
          | (?P<keys>[<>=][0-9;]{0,16}u)
          | >(?P<other>[0-9;]{0,16})m
          | !(?P<soft>p)
          | (?P<saved>[su])
        )
      | (?P<charset>[()][0-~])
      | (?P<single>[78c])
      | \](?P<osc>[028];[^\x07\x18\x1a\x1b]*)(?:\x07|\x1b\\)
    )
"""
# Two patterns, since searching for one first byte is several times as fast as for one of three.
_TOKEN = re.compile(_SEQUENCE, re.VERBOSE)
_TOKEN_OR_SHIFT = re.compile(_SEQUENCE + rb"| (?P<shift>[\x0e\x0f])", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Modes:
    """What a viewer's emulator must be put into beside what tmux tells."""

    private: frozenset[int] = frozenset()
    cursor: bytes = b""
    keyboard: tuple[bytes, ...] = ()
    other_keys: bytes = b""
    charsets: tuple[bytes, bytes] = (b"B", b"B")
    shifted: bool = False
    title: bytes = b""
    link: bytes = b""
    rendition: Rendition = PLAIN
    saved_rendition: Rendition = PLAIN

    def encode(self) -> bytes:
        """Return the sequences that set it all; they leave the cursor where it is."""
        out = [b"\x1b[?%dh" % mode for mode in sorted(self.private)]
        if self.cursor:
            out.append(b"\x1b[" + self.cursor + b" q")
        out += [b"\x1b[>" + flags + b"u" for flags in self.keyboard]
        if self.other_keys:
            out.append(b"\x1b[>" + self.other_keys + b"m")
        if self.title:
            out.append(b"\x1b]2;" + self.title + b"\x07")
        out.append(self.rendition.encode())
        for intermediate, charset in zip(b"()", self.charsets, strict=True):
            if charset != b"B":
                out.append(b"\x1b" + bytes([intermediate]) + charset)
        if self.shifted:
            out.append(b"\x0e")
        if self.link:
            out.append(b"\x1b]8;" + self.link + b"\x1b\\")
        return b"".join(out)

    def dump(self) -> str:
        """Return the part that outlives a server, as one word of plain characters."""
        words = (
            ",".join(map(str, sorted(self.private))),
            self.cursor.decode(),
            ",".join(flags.decode() for flags in self.keyboard),
            self.other_keys.decode(),
            b64encode(self.title).decode(),
        )
        return " ".join(word or "-" for word in words)

    @staticmethod
    def load(text: str) -> "Modes":
        """Undo `dump`; what cannot be read (anybody in the sandbox may write it) is plain."""
        match = _DUMP.fullmatch(text)
        if match is None:
            return Modes()
        private, cursor, keyboard, other, title = (w.replace("-", "") for w in match.groups())
        numbers = {int(number) for number in private.split(",") if number}
        return Modes(
            private=frozenset(numbers & FOLLOWED),
            cursor=cursor.encode(),
            keyboard=tuple(k.encode() for k in keyboard.split(",") if k)[:DEEPEST_KEYBOARD],
            other_keys=other.encode(),
            title=_clean(b64decode(title + "=" * (-len(title) % 4))),
        )


_DUMP = re.compile(
    r"(-|[0-9,]{1,200}) (-|[0-9]{1,2}) (-|[0-9,]{1,200}) (-|[0-9;]{1,16})"
    r" (-|[A-Za-z0-9+/]{1,3000})=*"
)
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]")


def _clean(text: bytes) -> bytes:
    return _CONTROLS.sub(b"", text[:LONGEST_TEXT])


@dataclass(slots=True)
class ModeTracker:
    modes: Modes = field(default_factory=Modes)
    _tail: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes that viewers get."""
        shifts = b"\x0e" in data or b"\x0f" in data
        if not shifts and b"\x1b" not in data:
            return
        position = 0
        for match in (_TOKEN_OR_SHIFT if shifts else _TOKEN).finditer(data):
            kind = match.lastgroup or ""
            if kind in {"single", "saved", "soft"} or (
                kind == "set" and match["private"] in {b"1048", b"1049"}
            ):
                # These save, restore or reset the rendition: it must be known up to here.
                self._remember(data[position : match.start()])
                position = match.end()
            self._token(kind, match)
        self._remember(data[position:] if position else data)

    def now(self) -> Modes:
        """Return the state after everything that was fed."""
        if self._tail:
            self.modes = replace(self.modes, rendition=after(self.modes.rendition, self._tail))
            self._tail = b""
        return self.modes

    def _remember(self, data: bytes) -> None:
        reset = max(data.rfind(b"\x1b[m"), data.rfind(b"\x1b[0m"))
        if reset >= 0:
            self._tail = data[reset:]
        elif b"\x1b[" in data:
            self._tail += data
        if len(self._tail) > LONGEST_TAIL:
            self.now()

    def _token(self, kind: str, match: "re.Match[bytes]") -> None:
        modes = self.modes
        if kind == "set":
            on = match["set"] == b"h"
            if match["private"] in {b"1048", b"1049"}:
                self._save(restore=not on)
            else:
                self._private(match["private"], on=on)
        elif kind in {"single", "saved", "soft"}:
            self._save_or_reset(match.group())
        elif kind == "cursor":
            self.modes = replace(modes, cursor=match["cursor"])
        elif kind == "keys":
            self.modes = replace(modes, keyboard=_keyboard(modes.keyboard, match["keys"]))
        elif kind == "other":
            plain = not match["other"] or match["other"] == b"4"
            self.modes = replace(modes, other_keys=b"" if plain else match["other"])
        elif kind == "charset":
            g0, g1 = modes.charsets
            which, charset = match["charset"][:1], match["charset"][1:]
            self.modes = replace(modes, charsets=(charset, g1) if which == b"(" else (g0, charset))
        elif kind == "shift":
            self.modes = replace(modes, shifted=match["shift"] == b"\x0e")
        elif kind == "osc":
            self._command(match["osc"])

    def _command(self, command: bytes) -> None:
        number, _, text = command.partition(b";")
        if number != b"8":
            self.modes = replace(self.modes, title=_clean(text))
        elif len(text) <= LONGEST_TEXT:
            self.modes = replace(self.modes, link=text if text.partition(b";")[2] else b"")

    def _private(self, numbers: bytes, *, on: bool) -> None:
        for word in numbers.split(b";"):
            number = int(word[:5] or b"0")
            if number in FOLLOWED:
                private = self.modes.private
                private = private | {number} if on else private - {number}
                self.modes = replace(self.modes, private=private)

    def _save(self, *, restore: bool) -> None:
        modes = self.now()
        if restore:
            self.modes = replace(modes, rendition=modes.saved_rendition)
        else:
            self.modes = replace(modes, saved_rendition=modes.rendition)

    def _save_or_reset(self, sequence: bytes) -> None:
        if sequence == b"\x1bc":
            self.modes, self._tail = Modes(title=self.modes.title), b""
        elif sequence == b"\x1b[!p":
            self.modes, self._tail = replace(Modes(), title=self.modes.title), b""
        else:
            self._save(restore=sequence in {b"\x1b8", b"\x1b[u"})


def _keyboard(stack: tuple[bytes, ...], sequence: bytes) -> tuple[bytes, ...]:
    """Follow kitty's keyboard stack: `>` pushes, `<` pops, `=` sets the top."""
    kind, flags = sequence[:1], sequence[1:-1].partition(b";")[0][:3]
    if kind == b">":
        return (*stack, flags or b"0")[-DEEPEST_KEYBOARD:]
    if kind == b"<":
        return stack[: max(0, len(stack) - int(flags or b"1"))]
    return (*stack[:-1], flags or b"0")
