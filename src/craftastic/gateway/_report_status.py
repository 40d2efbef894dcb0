"""What an upstream says became of a push, read as it passes by; no input or output happens here.

Source: gitprotocol-pack(5), "Report Status"; gitprotocol-common(5); gitprotocol-capabilities(5)
"side-band, side-band-64k".
"""

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from craftastic.gateway._pkt_line import MAX_REASON_CHARACTERS, MalformedPush, PktReader
from craftastic.pushes.service import PushOutcome, RefResult

MAX_REPORT_BYTES = 1 << 20
REPORTS = frozenset({"report-status", "report-status-v2"})
SIDE_BANDS = frozenset({"side-band", "side-band-64k"})

_REPORT_BAND, _PROGRESS_BAND, _FATAL_BAND = 1, 2, 3
_REFNAME = b"option refname "


def plain(raw: bytes) -> str:
    """Return an upstream's bytes as one printable line of bounded length."""
    text = raw[: 4 * MAX_REASON_CHARACTERS].decode(errors="replace")
    shown = "".join(one if unicodedata.category(one)[0] not in "CZ" else " " for one in text)
    return " ".join(shown.split())[:MAX_REASON_CHARACTERS]


@dataclass(slots=True)
class ReportReader:
    """Takes the bytes of an answer to a push, in any pieces, and keeps what is said of each ref.

    Nothing in the bytes makes it raise, and it holds little more than one line of them: from
    where they make no sense, it reads no further.

    Args:
        refs: The push's own; what is said of others is ignored.
        capabilities: As git asked for them, which decide the answer's form.
    """

    refs: Collection[str]
    capabilities: Collection[str]
    _results: dict[str, RefResult] = field(default_factory=dict[str, RefResult])
    _outer: PktReader = field(default_factory=PktReader)
    _inner: PktReader = field(default_factory=PktReader)
    _read: int = 0
    _ended: bool = False
    _fault: str | None = None
    _fatal: str | None = None
    _unpack: str | None = None
    _latest: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer."""
        if self._ended or not self._reports:
            return
        try:
            if SIDE_BANDS & set(self.capabilities):
                self._feed_bands(chunk)
            else:
                self._feed_report(chunk)
        except MalformedPush:
            self._stop("the upstream's report of the push could not be read")

    def unreadable(self, why: str) -> None:
        """Read no further."""
        self._stop(why)

    def results(self, otherwise: str | None = None) -> Mapping[str, RefResult]:
        """Return how each ref ended, as far as was said.

        Args:
            otherwise: Why the answer did not come to its end; None when it did.
        """
        return {ref: self._results.get(ref) or self._untold(otherwise) for ref in self.refs}

    @property
    def _reports(self) -> bool:
        return bool(REPORTS & set(self.capabilities))

    def _untold(self, otherwise: str | None) -> RefResult:
        if self._unpack is not None:
            return RefResult(PushOutcome.REJECTED, f"the upstream could not unpack: {self._unpack}")
        if self._fatal is not None:
            return RefResult(PushOutcome.FAILED, f"the upstream broke off: {self._fatal}")
        if otherwise is None and not self._reports:
            otherwise = "git asked for no report, so whether the upstream took it is not known"
        untold = "the upstream did not say whether it took it"
        return RefResult(PushOutcome.FAILED, otherwise or self._fault or untold)

    def _stop(self, fault: str) -> None:
        self._ended = True
        self._fault = self._fault or fault
        self._outer, self._inner = PktReader(), PktReader()

    def _feed_bands(self, chunk: bytes) -> None:
        self._outer.feed(chunk)
        while not self._ended and (packet := self._outer.next()) is not None:
            if not packet:
                self._stop("the upstream did not say whether it took it")
            elif packet[0] == _REPORT_BAND:
                self._feed_report(packet[1:])
            elif packet[0] == _FATAL_BAND:
                self._fatal = plain(packet[1:])
                self._ended = True
            elif packet[0] != _PROGRESS_BAND:
                raise MalformedPush("no such band")

    def _feed_report(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > MAX_REPORT_BYTES:
            raise MalformedPush("a report that is too long")
        self._inner.feed(data)
        while not self._ended and (line := self._inner.next()) is not None:
            if line:
                self._take(line.removesuffix(b"\n"))
            else:
                self._stop("the upstream did not say whether it took it")

    def _take(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        if word == b"unpack":
            self._unpack = None if rest == b"ok" else plain(rest) or "no reason given"
        elif word == b"ok":
            self._say(rest, RefResult(PushOutcome.OK))
        elif word == b"ng":
            name, _, why = rest.partition(b" ")
            reason = plain(why) or "the upstream gave no reason"
            self._say(name, RefResult(PushOutcome.REJECTED, reason))
        elif word == b"ERR":
            self._fatal = plain(rest)
            self._ended = True
        elif line.startswith(_REFNAME) and self._latest is not None:
            where = plain(line.removeprefix(_REFNAME))
            self._results[self._latest] = RefResult(PushOutcome.OK, f"the upstream made it {where}")
        # Other options of a ref, and lines that are not known, change nothing.

    def _say(self, name: bytes, result: RefResult) -> None:
        ref = name.decode(errors="replace")
        self._latest = None
        # What was said first stands: git takes a second word about a ref for a fault.
        if ref in self.refs and ref not in self._results:
            self._results[ref] = result
            self._latest = ref if result.outcome is PushOutcome.OK else None
