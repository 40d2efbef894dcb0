"""Takes the terminal emulator's own answers out of what the user types. Without I/O.

Programs' questions are answered on the server and never reach the user's emulator, but an emulator
also speaks unasked (after a change of its colours or size) or answers what was asked before. Such
an answer, sent on as keys, would be typed into the program.
"""

import re

AMBIGUOUS_WAIT_S = 0.03
"""How long a lone ESC or an Alt key may wait to become a sequence, in seconds."""

SEQUENCE_WAIT_S = 0.5
"""How long a sequence that has clearly begun may wait for its end, in seconds."""

MAX_HELD_BYTES = 8 << 10

ESC = 0x1B
BEL = 0x07
PASTE_START = b"\x1b[200~"
PASTE_END = b"\x1b[201~"
STRING_STARTS = b"]P_"

REPLY = re.compile(
    rb"\x1b\["
    rb"(?:[?>=][0-?]*[ -/]*[@-~]"  # attributes, modes, kitty's flags: no key has these prefixes
    rb"|[03]n"  # status
    rb"|[0-9;]+t"  # sizes of the window
    rb"|[0-9;]+\$y"  # modes
    rb"|[0-9]+(?:;[0-9]+){4,}x"  # terminal parameters
    # The cursor's position, except where it reads as F3 with modifiers (row 1, columns 2 to 16).
    rb"|(?!1;(?:[2-9]|1[0-6])R)[0-9]+;[0-9]+R"
    rb")",
)
STRING_REPLY = re.compile(
    rb"\x1b(?:\][0-9]+;[^\x1b\x07]*(?:\x07|\x1b\\)"  # colours, clipboard
    rb"|P[^\x1b]*\x1b\\"  # version, settings, capabilities
    rb"|_G[^\x1b]*\x1b\\)",  # graphics
)


class ReplyFilter:
    """Lets keys pass untouched and swallows complete replies.

    Bytes that may still become a reply are held; the caller flushes them when nothing came for
    `wait_s`, so a lone Escape key is late by a moment and never lost.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._paste = False
        self._marker = b""

    @property
    def wait_s(self) -> float | None:
        """Return how long to wait before `flush`, or None when nothing is held."""
        if not self._held:
            return None
        return AMBIGUOUS_WAIT_S if len(self._held) <= 2 else SEQUENCE_WAIT_S  # noqa: PLR2004

    def feed(self, data: bytes) -> bytes:
        """Return the keys; what may still become a reply stays behind."""
        keys = bytearray()
        for byte in data:
            self._take(byte, keys)
        return bytes(keys)

    def flush(self) -> bytes:
        """Return what is held: it was keys after all."""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _take(self, byte: int, keys: bytearray) -> None:
        if self._paste:
            self._take_pasted(byte, keys)
            return
        if not self._held:
            if byte == ESC:
                self._held.append(byte)
            else:
                keys.append(byte)
            return
        if byte == ESC and not self._in_string():
            keys += self.flush()
            self._held.append(byte)
            return
        self._held.append(byte)
        if len(self._held) > MAX_HELD_BYTES or self._complete():
            self._settle(keys)

    def _take_pasted(self, byte: int, keys: bytearray) -> None:
        # The marker passes through; only where it ends matters.
        keys.append(byte)
        self._marker += bytes((byte,))
        if not PASTE_END.startswith(self._marker):
            self._marker = PASTE_END[:1] if byte == ESC else b""
        elif self._marker == PASTE_END:
            self._marker = b""
            self._paste = False

    def _in_string(self) -> bool:
        return len(self._held) > 1 and self._held[1] in STRING_STARTS

    def _complete(self) -> bool:
        held = self._held
        kind = held[1]
        if kind == ord("["):
            return len(held) > 2 and 0x40 <= held[-1] <= 0x7E  # noqa: PLR2004
        if kind in STRING_STARTS:
            # Any byte after an ESC inside ends the string; only a backslash makes it a reply.
            after_escape = len(held) > 3 and held[-2] == ESC  # noqa: PLR2004
            return after_escape or (held[-1] == BEL and kind == ord("]"))
        return True

    def _settle(self, keys: bytearray) -> None:
        held = self.flush()
        if REPLY.fullmatch(held) or STRING_REPLY.fullmatch(held):
            return
        keys += held
        if held == PASTE_START:
            self._paste = True
