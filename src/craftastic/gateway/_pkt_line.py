"""git's pkt-lines, and the ref updates at the head of a push; no input or output happens here.

Source: gitprotocol-common(5), gitprotocol-pack(5) "Reference Update Request and Packfile
Transfer".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

LENGTH_DIGITS = 4
LARGEST_PKT = 65520
FLUSH = b"0000"
MAX_HEAD_BYTES = 1 << 20
MAX_REF_UPDATES = 5000
"""As many as are read; how many may go on is less, and said in git's own words."""

MAX_REF_BYTES = 1024
MAX_OPTIONS = 100
MAX_OPTION_BYTES = 1024
MAX_REASON_CHARACTERS = 500
SIDEBAND_PAYLOAD = 65515
"""Bytes of one side-band-64k packet: the largest pkt-line less its length and its band."""

_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")
_HASH = rb"[0-9a-f]{40}|[0-9a-f]{64}"
_COMMAND = re.compile(rb"(%b) (%b) ([^\x00-\x20\x7f]+)" % (_HASH, _HASH))
_SHALLOW = re.compile(rb"shallow (?:%b)" % _HASH)


class MalformedPush(Exception):
    """The bytes are not the head of a push that this gateway accepts; the text says why."""


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One line of a push: move `ref` from `old` to `new`; a hash of zeros means absent."""

    ref: str
    old: str
    new: str

    @property
    def creates(self) -> bool:
        return not self.old.strip("0")

    @property
    def deletes(self) -> bool:
        return not self.new.strip("0")


@dataclass(frozen=True, slots=True)
class PushHead:
    """What a push wants, and the bytes that said so.

    Attributes:
        updates: Empty for the probe that git sends before a large push (a lone flush).
        raw: The head exactly as it came.
        rest: What came after the head, the beginning of the pack.
    """

    updates: tuple[RefUpdate, ...]
    capabilities: frozenset[str]
    options: tuple[str, ...]
    raw: bytes
    rest: bytes


class PktReader:
    """Cuts a stream of bytes into pkt-lines.

    Delimiter, response-end and empty packets have no place in a push and are refused.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bytes:
        """The bytes that are not yet part of a returned pkt-line."""
        return bytes(self._buffer)

    def feed(self, chunk: bytes) -> None:
        self._buffer += chunk

    def next(self) -> bytes | None:
        """Return the next payload, empty for a flush, or None when more bytes are needed.

        Raises:
            MalformedPush: The length is not one that a pkt-line of a push can have.
        """
        if len(self._buffer) < LENGTH_DIGITS:
            return None
        digits = bytes(self._buffer[:LENGTH_DIGITS])
        if _LENGTH.fullmatch(digits) is None:
            raise MalformedPush("a line does not begin with its length")
        length = int(digits, 16) or LENGTH_DIGITS
        if digits != FLUSH and not LENGTH_DIGITS < length <= LARGEST_PKT:
            raise MalformedPush("a line has an impossible length")
        if len(self._buffer) < length:
            return None
        payload = bytes(self._buffer[LENGTH_DIGITS:length])
        del self._buffer[:length]
        return payload


class _Section(Enum):
    COMMANDS = auto()
    OPTIONS = auto()
    DONE = auto()


@dataclass(slots=True)
class PushHeadReader:
    """Reads shallow lines, commands with capabilities, and push options, then stops.

    It is stricter than git's own reader where that reader is lenient (capabilities on a later
    line, a delimiter that ends the list), so that what is checked here cannot differ from what
    the upstream does.
    """

    _packets: PktReader = field(default_factory=PktReader)
    _raw: bytearray = field(default_factory=bytearray)
    _section: _Section = _Section.COMMANDS
    _updates: list[RefUpdate] = field(default_factory=list[RefUpdate])
    _refs: set[str] = field(default_factory=set[str])
    _options: list[str] = field(default_factory=list[str])
    _capabilities: frozenset[str] = frozenset()
    _width: int = 0

    def feed(self, chunk: bytes) -> PushHead | None:
        """Take the next bytes of the request; return the head once it is whole.

        Raises:
            MalformedPush: It is not a push, or larger than `MAX_HEAD_BYTES`.
        """
        self._raw += chunk
        self._packets.feed(chunk)
        while (packet := self._packets.next()) is not None:
            self._take(packet)
            if self._section is _Section.DONE:
                return self._head()
        if len(self._raw) > MAX_HEAD_BYTES:
            raise MalformedPush("the list of refs is too long")
        return None

    def _head(self) -> PushHead:
        rest = self._packets.pending
        raw = bytes(self._raw[: len(self._raw) - len(rest)])
        if len(raw) > MAX_HEAD_BYTES:
            raise MalformedPush("the list of refs is too long")
        return PushHead(tuple(self._updates), self._capabilities, tuple(self._options), raw, rest)

    def _take(self, payload: bytes) -> None:
        if not payload:
            wants_options = (
                self._section is _Section.COMMANDS
                and self._updates
                # With a value as well: git's own servers take both for the same.
                and any(one.partition("=")[0] == "push-options" for one in self._capabilities)
            )
            self._section = _Section.OPTIONS if wants_options else _Section.DONE
        elif self._section is _Section.OPTIONS:
            if len(self._options) >= MAX_OPTIONS or len(payload) > MAX_OPTION_BYTES:
                raise MalformedPush("too many push options, or one too long")
            self._options.append(payload.removesuffix(b"\n").decode(errors="replace"))
        else:
            self._take_command(payload)

    def _take_command(self, payload: bytes) -> None:
        line, separator, capabilities = payload.partition(b"\0")
        if separator:
            if self._updates:
                raise MalformedPush("capabilities come with the first ref only")
            self._capabilities = frozenset(_text(capabilities).split())
        else:
            line = line.removesuffix(b"\n")
        if not separator and _SHALLOW.fullmatch(line):
            return
        if line == b"push-cert":
            raise MalformedPush("signed pushes are not supported")
        command = _COMMAND.fullmatch(line)
        if command is None:
            raise MalformedPush("a line is not `old new ref`")
        self._add(command[1].decode(), command[2].decode(), command[3])

    def _add(self, old: str, new: str, name: bytes) -> None:
        self._width = self._width or len(old)
        ref = _text(name)
        if len(old) != self._width or len(new) != self._width:
            raise MalformedPush("hashes of different lengths")
        if len(name) > MAX_REF_BYTES:
            raise MalformedPush("a ref is too long")
        if len(self._updates) >= MAX_REF_UPDATES:
            raise MalformedPush("too many refs; push fewer of them at once")
        if ref in self._refs:
            raise MalformedPush("a ref is updated twice")
        self._refs.add(ref)
        self._updates.append(RefUpdate(ref, old, new))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedPush("a name is not UTF-8") from None


def pkt_line(payload: bytes) -> bytes:
    """Frame up to 65,516 bytes as one pkt-line."""
    return b"%04x" % (len(payload) + LENGTH_DIGITS) + payload


def report_refused(
    head: PushHead, reasons: Iterable[tuple[str, str]], message: str
) -> bytes | None:
    """Write the answer of a receive-pack that refused every ref.

    Args:
        head: What was asked for; its capabilities decide the answer's form.
        reasons: A pair (ref, reason) for each update.
        message: Shown by git after `remote:`, when the client can show messages.

    Returns:
        The body of the answer, or None when the client did not ask for a report.
    """
    if not head.capabilities & {"report-status", "report-status-v2"}:
        return None
    report = pkt_line(b"unpack ok\n")
    report += b"".join(pkt_line(f"ng {ref} {_line(why)}\n".encode()) for ref, why in reasons)
    report += FLUSH
    if "side-band-64k" not in head.capabilities:
        return report
    answer = pkt_line(b"\x02" + message.encode()[: SIDEBAND_PAYLOAD - 1] + b"\n")
    for start in range(0, len(report), SIDEBAND_PAYLOAD):
        answer += pkt_line(b"\x01" + report[start : start + SIDEBAND_PAYLOAD])
    return answer + FLUSH


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_REASON_CHARACTERS]
