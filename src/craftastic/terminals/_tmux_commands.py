"""Command lines for tmux's control mode, quoted exactly; no I/O."""

from collections.abc import Iterator

MAX_INPUT_CHUNK = 16 << 10
HEX_CHUNK = 256
SHORT_TEXT = 32
MAX_COLUMNS = 1000
MAX_ROWS = 500
TMUX = ("tmux", "-N", "-u")
"""Never starts a server by itself, and takes UTF-8 for granted."""

# tmux's parser knows these escapes inside double quotes; everything else there is literal.
_ESCAPES = {
    **{value: f"\\{value:03o}" for value in (*range(1, 32), 127, ord("~"))},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("$"): "\\$",
}
# With TERM=tmux-256color programs expect these two keys in another form than xterm's.
_KEYS = {
    b"\x1b[H": b"\x1b[1~",
    b"\x1bOH": b"\x1b[1~",
    b"\x1b[F": b"\x1b[4~",
    b"\x1bOF": b"\x1b[4~",
}


def quote(text: str) -> str:
    """Return `text` as one word of a tmux command line. NUL cannot be written."""
    return f'"{text.translate(_ESCAPES)}"'


def translate_key(data: bytes) -> bytes:
    """Return what the pane's program expects for a single key that a viewer sent by itself."""
    return _KEYS.get(data, data)


def send_keys(pane: str, data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the command lines that type `data`, each with the number of bytes that it types.

    Valid text goes as a literal (twenty times as fast), NUL and what is not UTF-8 as hexadecimal
    codes with what stands near it; every byte arrives as it is.
    """
    position = 0
    while position < len(data):
        chunk = data[position : position + MAX_INPUT_CHUNK]
        text = _valid_prefix(chunk)
        if len(text) >= min(SHORT_TEXT, len(chunk)):
            yield f"send-keys -t {pane} -l -- {quote(text.decode())}".encode(), len(text)
            position += len(text)
            continue
        end = min(HEX_CHUNK, len(chunk))
        while end < len(chunk) and chunk[end] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's tails
            end += 1
        yield f"send-keys -t {pane} -H {chunk[:end].hex(' ')}".encode(), end
        position += end


def _valid_prefix(chunk: bytes) -> bytes:
    """Return the longest start of `chunk` that is text without NUL."""
    text = chunk.partition(b"\0")[0]
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start]
    return text


def resize(pane: str, columns: int, rows: int) -> bytes:
    """Set the window's size for good, whoever else is attached to the session.

    `refresh-client -C` would count only while its client is the latest that was attached, which
    two servers on one session cannot agree on.
    """
    return f"resize-window -t {pane} -x {columns} -y {rows}".encode()
