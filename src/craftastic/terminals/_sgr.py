"""Graphic rendition (colours and attributes): the state after any number of `CSI … m`."""

import re
from dataclasses import dataclass

SGR = re.compile(rb"\x1b\[([0-9;:]*)m")
_OFF = {22: (1, 2), 23: (3,), 24: (4, 21), 25: (5, 6), 27: (7,), 28: (8,), 29: (9,), 55: (53,)}
_ON = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 53))
_COLOURS = {38: "foreground", 48: "background", 58: "underline"}
_ENDS = {39: "foreground", 49: "background", 59: "underline"}
_LONG_COLOUR = {b"5": 2, b"2": 4}


@dataclass(frozen=True, slots=True)
class Rendition:
    """What the next character will look like; each part is ready to be written in a sequence."""

    flags: tuple[bytes, ...] = ()
    foreground: bytes = b""
    background: bytes = b""
    underline: bytes = b""

    def encode(self) -> bytes:
        """Return the sequence that sets exactly this, whatever was set before."""
        colours = [c for c in (self.foreground, self.background, self.underline) if c]
        return b"\x1b[" + b";".join([b"0", *self.flags, *colours]) + b"m"


PLAIN = Rendition()


def after(state: Rendition, text: bytes) -> Rendition:
    """Return the state after the sequences in `text`; everything else in it is passed over."""
    reset = max(text.rfind(b"\x1b[m"), text.rfind(b"\x1b[0m"))
    if reset >= 0:
        state = PLAIN
    found: list[bytes] = SGR.findall(text, max(reset, 0))
    if not found:
        return state
    flags = {int(flag.partition(b":")[0]): flag for flag in state.flags}
    colours = {name: getattr(state, name) for name in _COLOURS.values()}
    # Each sequence assigns constants, so only the last of several equal ones counts.
    for parameters in reversed(dict.fromkeys(reversed(found))):
        _apply(parameters.split(b";"), flags, colours)
    return Rendition(tuple(flags.values()), **colours)


def _apply(words: list[bytes], flags: dict[int, bytes], colours: dict[str, bytes]) -> None:
    index = 0
    while index < len(words):
        word = words[index]
        number = int((word.partition(b":")[0] or b"0")[:4])
        index += 1
        if number in _COLOURS and b":" not in word:
            length = _LONG_COLOUR.get(words[index] if index < len(words) else b"", 0)
            colours[_COLOURS[number]] = b";".join(words[index - 1 : index + length])
            if not length or index + length > len(words):
                colours[_COLOURS[number]] = b""
            index += length
        else:
            _simple(number, word, flags, colours)


def _simple(number: int, word: bytes, flags: dict[int, bytes], colours: dict[str, bytes]) -> None:
    if number == 0:
        flags.clear()
        colours.update(dict.fromkeys(colours, b""))
    elif word == b"4:0":
        flags.pop(4, None)
    elif number in _ON:
        flags[number] = word
    elif number in _OFF:
        for flag in _OFF[number]:
            flags.pop(flag, None)
    elif number in _COLOURS:
        colours[_COLOURS[number]] = word
    elif number in _ENDS:
        colours[_ENDS[number]] = b""
    elif 30 <= number <= 37 or 90 <= number <= 97:  # noqa: PLR2004 - the sixteen colours
        colours["foreground"] = word
    elif 40 <= number <= 47 or 100 <= number <= 107:  # noqa: PLR2004
        colours["background"] = word
