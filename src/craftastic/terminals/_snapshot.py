"""From what tmux tells about a pane to the bytes that put an emulator of that size into its state.

Pure. The command line that asks and the builder that reads the answers stand together. What the
pane shows is hostile text; the fields are checked before they are used.
"""

import re
from dataclasses import dataclass

from craftastic.terminals._control import Reply, unescape_octal
from craftastic.terminals._modes import Modes
from craftastic.terminals._sgr import PLAIN, Rendition, after
from craftastic.terminals._tmux_commands import quote

RESET = b"\x1bc\x1b[3J"
"""For viewers of the plain protocol, whose emulator only the stream can reset."""

FIELDS = (
    "pane_width", "pane_height", "cursor_x", "cursor_y", "history_size", "alternate_on",
    "alternate_saved_x", "alternate_saved_y", "scroll_region_upper", "scroll_region_lower",
    "cursor_flag", "insert_flag", "keypad_cursor_flag", "keypad_flag", "origin_flag", "wrap_flag",
    "mouse_standard_flag", "mouse_button_flag", "mouse_all_flag", "mouse_utf8_flag",
    "mouse_sgr_flag", "pane_in_mode",
)  # fmt: skip
LARGEST = 10_000
"""Most columns or rows of a pane. Source: tmux.h, WINDOW_MAXIMUM."""
LARGEST_NUMBER = (1 << 32) - 1
"""tmux's word for a position that was never saved, and more than any other field."""
TEXTS = (
    "#{pane_tabs}",
    "#{pane_current_command}",
    "#{@craftastic_modes}",
    "#{?#{==:#{pane_title},#{host}},,#{pane_title}}",
)
"""Texts that programs choose: each has an answer of its own."""
FLAGS = {
    "keypad_cursor_flag": b"\x1b[?1h",
    "keypad_flag": b"\x1b=",
    "insert_flag": b"\x1b[4h",
    "mouse_standard_flag": b"\x1b[?1000h",
    "mouse_button_flag": b"\x1b[?1002h",
    "mouse_all_flag": b"\x1b[?1003h",
    "mouse_utf8_flag": b"\x1b[?1005h",
    "mouse_sgr_flag": b"\x1b[?1006h",
}
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
# tmux keeps line drawing as such and gives it back between shift out and shift in.
_DRAWING = re.compile(rb"\x0e([^\x0f]*)\x0f?")
_GRAPHICS = {
    code: glyph.encode()
    for code, glyph in zip(b"+,-.0`abcdefghijklmnopqrstuvwxyz{|}~",
                           "→←↑↓▮◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·", strict=True)
}  # fmt: skip


class SnapshotRefused(Exception):
    """tmux did not answer as it should: the pane is gone, or prints tmux's own protocol."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, and what makes the answer recognisable.

    Args:
        pane: tmux's id of the pane (`%0`).
        nonce: Random text that stands in the first and the last answer: a pane that imitates
            tmux's replies cannot know it.
        history_lines: How many lines of history to bring.
        start: Commands after it, such as what starts the bytes that follow.
    """

    pane: str
    nonce: str
    history_lines: int
    start: tuple[str, ...] = ()

    def line(self) -> bytes:
        """Return one command line: everything in it happens between two bytes of the pane."""
        pane = self.pane
        shape = "|".join(f"#{{{name}}}" for name in FIELDS)
        return " ; ".join(
            (
                f"display-message -p -t {pane} {quote(f'{self.nonce}|{shape}')}",
                f"capture-pane -p -e -J -S -{self.history_lines} -E -1 -t {pane}",
                f"capture-pane -p -J -S -1 -E 0 -t {pane}",
                f"capture-pane -p -e -J -S 0 -t {pane}",
                f"capture-pane -p -e -N -S 0 -t {pane}",
                f"capture-pane -p -e -J -a -q -t {pane}",
                f"capture-pane -p -P -C -t {pane}",
                *(f"display-message -p -t {pane} {quote(text)}" for text in TEXTS),
                *self.start,
                f"display-message -p -t {pane} {quote(self.nonce)}",
            )
        ).encode()

    @property
    def replies(self) -> int:
        return 8 + len(TEXTS) + len(self.start)


@dataclass(frozen=True, slots=True)
class Capture:
    """tmux's answers, taken apart."""

    numbers: dict[str, int]
    tabs: str
    command: str
    saved_modes: str
    title: bytes
    history: bytes
    history_wraps: bool
    screen: bytes
    rows: list[bytes]
    primary: bytes
    pending: bytes

    @property
    def columns(self) -> int:
        return self.numbers["pane_width"]

    @property
    def height(self) -> int:
        return self.numbers["pane_height"]


def read(request: Request, replies: list[Reply]) -> Capture:
    """Take the answers apart.

    Raises:
        SnapshotRefused: An answer is missing, refused or not ours.
    """
    if len(replies) != request.replies or not all(reply.ok for reply in replies):
        raise SnapshotRefused(replies[-1].body.decode("utf-8", "replace") if replies else "")
    fields, history, probe, screen, rows, primary, pending, *texts = (r.body for r in replies)
    nonce, *values = fields.decode("utf-8", "replace").split("|")
    if nonce != request.nonce or replies[-1].body != request.nonce.encode():
        raise SnapshotRefused("the answers are not tmux's")
    try:
        numbers = {name: int(value or "0") for name, value in zip(FIELDS, values, strict=True)}
    except ValueError as error:
        raise SnapshotRefused("a field is not a number") from error
    if not all(
        0 <= number <= (LARGEST if name in {"pane_width", "pane_height"} else LARGEST_NUMBER)
        for name, number in numbers.items()
    ):
        raise SnapshotRefused("a field is not a number of tmux's")
    has_history = numbers["history_size"] > 0
    return Capture(
        numbers=numbers,
        tabs=texts[0].decode("ascii", "replace"),
        command=texts[1].decode("utf-8", "replace"),
        saved_modes=texts[2].decode("ascii", "replace"),
        title=texts[3],
        history=history if has_history else b"",
        # The last line of history and the first of the screen came back as one.
        history_wraps=has_history and b"\n" not in probe,
        screen=screen,
        rows=rows.split(b"\n"),
        primary=primary,
        pending=unescape_octal(pending),
    )


def build(capture: Capture, modes: Modes, tail: bytes) -> bytes:
    """Return the bytes that bring a freshly reset emulator of the pane's size into its state.

    Args:
        capture: What tmux tells.
        modes: What it does not.
        tail: What viewers already got of a command that has not ended.
    """
    numbers = capture.numbers
    out: list[bytes] = [b"\x1b[m\x1b[H"]
    if numbers["history_size"]:
        text, _ = paint(capture.history, PLAIN)
        out += [text, b"" if capture.history_wraps else b"\x1b[m\r\n"]
    if numbers["alternate_on"]:
        text, _ = paint(capture.primary, PLAIN)
        row = min(numbers["alternate_saved_y"], capture.height - 1)
        column = min(numbers["alternate_saved_x"], capture.columns - 1)
        out += [b"\x1b[m", text, _move(row, column), modes.saved_rendition.encode()]
        out.append(b"\x1b[?1049h\x1b[m\x1b[H")
    else:
        out.append(b"\x1b[m")
    text, _ = paint(capture.screen, PLAIN)
    out += [text, b"\x1b[m", *_tabs(capture), *_cursor(capture)]
    out += [sequence for flag, sequence in FLAGS.items() if numbers[flag]]
    if not numbers["cursor_flag"]:
        out.append(b"\x1b[?25l")
    out += [modes.encode(), tail]
    return b"".join(out)


def paint(text: bytes, state: Rendition) -> tuple[bytes, Rendition]:
    """Return captured lines as an emulator must get them, and the rendition at their end.

    No line is ended in a colour: emulators fill the line that scrolls in with it.
    """
    if b"\xc2" in text:
        text = _C1.sub(b"", text)
    if b"\x0e" in text:
        text = _DRAWING.sub(_draw, text.replace(b"\n\x0f", b"\x0f\n"))
    if b"\x1b" not in text:
        return text.replace(b"\n", b"\r\n"), state
    lines = text.split(b"\n")
    for index, line in enumerate(lines):
        before = state
        if b"\x1b" in line:
            state = after(state, line)
        elif state is PLAIN:
            continue
        start = b"" if before == PLAIN else before.encode()
        lines[index] = start + line + (b"" if state == PLAIN else b"\x1b[m")
    return b"\r\n".join(lines), state


def _draw(match: "re.Match[bytes]") -> bytes:
    """Turn line drawing into the characters that it shows; sequences in between stay."""
    pieces = re.split(rb"(\x1b\[[0-9;:]*m|\n)", match[1])
    pieces[::2] = [b"".join(_GRAPHICS.get(code, bytes([code])) for code in p) for p in pieces[::2]]
    return b"".join(pieces)


def _move(row: int, column: int) -> bytes:
    return b"\x1b[%d;%dH" % (row + 1, column + 1)


def _tabs(capture: Capture) -> list[bytes]:
    usual = ",".join(str(column) for column in range(8, capture.columns, 8))
    if capture.tabs == usual:
        return []
    stops = [int(stop) for stop in capture.tabs.split(",") if stop.isdigit() and len(stop) < 5]  # noqa: PLR2004
    return [b"\x1b[3g", *(_move(0, stop) + b"\x1bH" for stop in stops if stop < capture.columns)]


def _cursor(capture: Capture) -> list[bytes]:
    """Margins, origin and the cursor, in this order: each of them moves the cursor."""
    numbers = capture.numbers
    upper, lower = numbers["scroll_region_upper"], numbers["scroll_region_lower"]
    row, column = numbers["cursor_y"], numbers["cursor_x"]
    out: list[bytes] = []
    if (upper, lower) != (0, capture.height - 1):
        out.append(b"\x1b[%d;%dr" % (upper + 1, lower + 1))
    base = 0
    if numbers["origin_flag"]:
        out.append(b"\x1b[?6h")
        base = upper
    if column >= capture.columns and row < len(capture.rows):
        # The next character wraps: only writing the last one again brings that about.
        text, state = paint(b"\n".join(capture.rows[: row + 1]), PLAIN)
        last = text.rpartition(b"\r\n")[2]
        out += [_move(row - base, 0), last, state.encode()]
    else:
        out.append(_move(row - base, column))
    if not numbers["wrap_flag"]:
        out.append(b"\x1b[?7l")
    return out
