"""Takes secret values out of what a sandbox printed, in the forms that they usually leak in.

The search is one pass of a regular expression over the first bytes of all forms (a tree, so its
time does not grow with their number); where it stops, whole forms are compared. That work has a
bound: text that was made to exceed it is masked as a whole, which is safe and never slow.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus

REPLACEMENT = "••••••"
MIN_CHARS = 6
"""Shorter values are not masked. They are switches, ports and log levels (`true`, `3000`, `debug`)
that stand all over ordinary text, which would be destroyed; and whoever looks for a secret of five
characters needs no leak to find it.
"""

MIN_LINE_CHARS = 8
"""Lines of a longer value are masked from this length on: `{`, `"type":` are no secrets."""

MAX_LINES = 2000
ANCHOR_BYTES = 32
WORK_BASE = 100_000
BYTES_PER_WORK = 8
"""How much work text gets: so many comparisons, and one more for each so many bytes of it."""

COMPARED_AT_ONCE = 256
"""Comparing so many bytes counts once more."""

ANCHOR_BYTES_AT_ONCE = 8
"""Finding so many bytes of an anchor counts as well."""

PIECE_BYTES = 128 << 10
LARGE_PATTERN = 8192

_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")
"""The first and last line of keys and certificates: the same for everybody."""

_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_COMPONENT = "!'()*~"
"""What JavaScript's `encodeURIComponent` leaves as it is."""

_MASK = REPLACEMENT.encode()


class Masker:
    """Masks the secret values that it is made for; it does not show them itself.

    Args:
        values: Secret texts. Those under 6 characters are left out.
    """

    __slots__ = ("_forms", "_pattern")

    def __init__(self, values: Iterable[str]) -> None:
        forms = _forms(values)
        anchors = {form[:ANCHOR_BYTES] for form in forms}
        self._forms = _by_anchor(anchors, forms)
        self._pattern = _compiled(_tree(anchors)) if anchors else None

    def __repr__(self) -> str:
        return "Masker(…)"

    def mask_text(self, text: str) -> str:
        """Return the text with `••••••` in the place of each secret."""
        if self._pattern is None:
            return text
        # Half surrogates, as in names of files, are kept; UTF-8 cannot match inside a character.
        encoded = text.encode("utf-8", "surrogatepass")
        masked = self.mask_bytes(encoded)
        return text if masked is encoded else masked.decode("utf-8", "surrogatepass")

    def mask_bytes(self, data: bytes) -> bytes:
        """Return the bytes with `••••••` in UTF-8 in the place of each secret.

        Secrets that overlap are masked together: no rest of one stays.
        """
        if self._pattern is None:
            return data
        try:
            spans = list(_merged(self._found(data)))
        except _TooMuchWork:
            return _MASK
        if not spans:
            return data
        pieces: list[bytes] = []
        position = 0
        for start, end in spans:
            pieces += (data[position:start], _MASK)
            position = end
        return b"".join((*pieces, data[position:]))

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where secrets are: at each place the longest, in the order of their beginnings."""
        left = WORK_BASE + len(data) // BYTES_PER_WORK
        for start, anchor in self._candidates(data):
            left -= len(anchor) // ANCHOR_BYTES_AT_ONCE
            for form in self._forms[anchor]:
                left -= 1 + len(form) // COMPARED_AT_ONCE
                if data.startswith(form, start):
                    yield start, start + len(form)
                    break
            if left < 0:
                raise _TooMuchWork

    def _candidates(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each place where a form may begin, and the longest anchor there.

        Piece by piece: one call of the search lets no other thread run until it returns.
        """
        assert self._pattern is not None
        for begin in range(0, len(data), PIECE_BYTES):
            start, end = begin, begin + PIECE_BYTES
            while candidate := self._pattern.search(data, start, end + ANCHOR_BYTES - 1):
                start = candidate.start()
                if start >= end:
                    break  # cut off, perhaps: the next piece has it whole
                yield start, candidate.group()
                start += 1


class _TooMuchWork(Exception):
    pass


def _compiled(tree: bytes) -> re.Pattern[bytes]:
    pattern = re.compile(tree)
    if len(tree) > LARGE_PATTERN:
        re.purge()  # Python keeps the last 512 of them, however large
    return pattern


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join spans that overlap; they come in the order of their beginnings."""
    current: tuple[int, int] | None = None
    for start, end in spans:
        if current is not None and start < current[1]:
            current = current[0], max(current[1], end)
            continue
        if current is not None:
            yield current
        current = start, end
    if current is not None:
        yield current


def _forms(values: Iterable[str]) -> set[bytes]:
    whole: set[str] = set()
    lines: set[str] = set()
    for value in values:
        if len(value.strip()) >= MIN_CHARS:
            whole |= {value, value.strip()}
        if "\n" in value or "\r" in value:
            lines |= {one.strip() for one in value.splitlines()}
    long_lines = [one for one in lines if len(one) >= MIN_LINE_CHARS and not _ARMOUR.fullmatch(one)]
    long_lines.sort(key=len, reverse=True)
    found = {line.encode() for line in long_lines[:MAX_LINES]}
    for value in whole:
        found |= _forms_of(value)
    return found


def _forms_of(value: str) -> set[bytes]:
    data = value.encode()
    texts = {value}
    for ascii_only in (False, True):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        texts |= {escaped, escaped.replace("/", "\\/")}
    for in_url in (
        quote(data, safe=""),
        quote(data),
        quote(data, safe=_COMPONENT),
        quote_plus(data),
    ):
        texts |= {in_url, _ESCAPE.sub(lambda match: match[0].lower(), in_url)}
    encoded = {text.encode() for text in texts}
    for before in range(3):
        # The same bytes encode in three ways, by their place in what is encoded. Only characters
        # that no neighbour shares are certain.
        text = base64.b64encode(bytes(before) + data).rstrip(b"=")
        certain = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        encoded |= {certain, certain.translate(_URL_SAFE)}
    return encoded


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _by_anchor(anchors: Iterable[bytes], forms: Iterable[bytes]) -> Mapping[bytes, Sequence[bytes]]:
    """Return for each anchor the forms that may begin where it was found, longest first.

    The tree finds the longest anchor; a shorter one that it begins with is found there as well.
    """
    own: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for form in forms:
        own[form[:ANCHOR_BYTES]].append(form)
    return {
        anchor: sorted(
            (form for length in range(len(anchor) + 1) for form in own.get(anchor[:length], ())),
            key=len,
            reverse=True,
        )
        for anchor in anchors
    }


def _tree(words: Iterable[bytes]) -> bytes:
    """Return an expression that finds the longest of these words at a place, in one walk."""
    groups: defaultdict[bytes, set[bytes]] = defaultdict(set)
    optional = False
    for word in words:
        if word:
            groups[word[:1]].add(word[1:])
        else:
            optional = True
    branches = [re.escape(first) + _tree(rest) for first, rest in sorted(groups.items())]
    if not branches:
        return b""
    alternatives = branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"
    return b"(?:" + alternatives + b")?" if optional else alternatives
