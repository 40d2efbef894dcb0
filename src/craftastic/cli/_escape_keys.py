"""What the user's keys ask of the client itself: ssh's escapes and the detach keys. Without I/O.

As in ssh an escape counts only at the start of a line: `~.` detaches, `~?` helps, `~^Z` suspends,
`~~` sends one tilde. Nothing counts inside a bracketed paste, so pasted text never detaches.
"""

from enum import Enum

PASTE_START = b"\x1b[200~"
PASTE_END = b"\x1b[201~"
NEWLINES = b"\r\n"
TILDE = ord("~")

HELP = (
    "Escapes, at the start of a line:\n"
    "  ~.   detach; the session goes on\n"
    "  ~^Z  suspend the client\n"
    "  ~~   send one ~\n"
    "  ~?   this text\n"
)


class Action(Enum):
    DETACH = "detach"
    HELP = "help"
    SUSPEND = "suspend"


ACTIONS = {ord("."): Action.DETACH, ord("?"): Action.HELP, 0x1A: Action.SUSPEND}


def parse_detach_keys(text: str) -> bytes:
    r"""Turn `ctrl-p,ctrl-q` into the bytes a terminal sends; empty text means none.

    Raises:
        ValueError: A part is neither one character nor `ctrl-` and one of a-z @ [ \ ] ^ _.
    """
    keys = bytearray()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name = part.lower().removeprefix("ctrl-")
        if name != part.lower() and len(name) == 1 and 0x40 <= ord(name.upper()) <= 0x5F:  # noqa: PLR2004
            keys.append(ord(name.upper()) & 0x1F)
        elif len(part) == 1 and part.isascii() and part.isprintable():
            keys.append(ord(part))
        else:
            raise ValueError(f"{part!r} is not a key such as ctrl-p or a")
    return bytes(keys)


class EscapeKeys:
    """Sorts the keys into what goes to the session and what the client does.

    Keys of the detach sequence are sent on as they come, all but the last: none is ever held
    back, so ctrl-p works in the shell as always. A tilde at the start of a line waits for the
    next key, as in ssh.
    """

    def __init__(self, detach_keys: bytes) -> None:
        self._detach_keys = detach_keys
        self._recent = b""
        self._line_start = True
        self._tilde = False
        self._marker = b""
        self._pasting = False

    def feed(self, data: bytes) -> list[bytes | Action]:
        """Return, in order, bytes to send and actions to take."""
        out: list[bytes | Action] = []
        send = bytearray()
        for byte in data:
            action = self._key(byte, send)
            if action is not None:
                if send:
                    out.append(bytes(send))
                    send.clear()
                out.append(action)
        if send:
            out.append(bytes(send))
        return out

    def _key(self, byte: int, send: bytearray) -> Action | None:
        self._follow_paste(byte)
        if self._pasting:
            self._line_start = False
            send.append(byte)
            return None
        if self._tilde:
            self._tilde = False
            action = ACTIONS.get(byte)
            if action is not None:
                self._line_start = True
                return action
            self._line_start = False
            self._recent = b""
            send.append(TILDE)
            if byte == TILDE:
                return None
        elif self._line_start and byte == TILDE:
            self._tilde = True
            return None
        if self._detaches(byte):
            return Action.DETACH
        self._line_start = byte in NEWLINES
        send.append(byte)
        return None

    def _detaches(self, byte: int) -> bool:
        if not self._detach_keys:
            return False
        self._recent = (self._recent + bytes((byte,)))[-len(self._detach_keys) :]
        if self._recent != self._detach_keys:
            return False
        self._recent = b""
        return True

    def _follow_paste(self, byte: int) -> None:
        wanted = PASTE_END if self._pasting else PASTE_START
        self._marker += bytes((byte,))
        if not wanted.startswith(self._marker):
            self._marker = bytes((byte,)) if byte == wanted[0] else b""
        elif self._marker == wanted:
            self._marker = b""
            self._pasting = not self._pasting
