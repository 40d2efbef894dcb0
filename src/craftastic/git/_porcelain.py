"""git's machine formats, parsed. Pure; every input is hostile, and none makes it raise.

Whatever the input's length, no parser makes more than it was asked for, nor reads much further.

Source: git-status(1) "Porcelain Format Version 2", git-diff(1) "Raw output format" and `--numstat`
with `-z`, git-push(1) "Output" with `--porcelain`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

_NUMBER = re.compile(rb"[0-9]{1,18}")
_AHEAD_BEHIND = re.compile(rb"\+(\d{1,9}) -(\d{1,9})")
_TRACK = re.compile(r"(ahead|behind) (\d{1,9})")
_SHORTSTAT = re.compile(r"(\d{1,9}) (file|insertion|deletion)")
_RAW = re.compile(rb":[0-9]{6} [0-9]{6} [0-9a-f]{4,64} [0-9a-f]{4,64} ([A-Z])[0-9]{0,3}")
_PUSHED = re.compile(r"([ +\-*!=])\t([^\t]*):([^\t:]*)\t(.*)")
_WHY = re.compile(r"\[([^\]]*)\](?: \((.*)\))?")
_BLANK_LINE = re.compile(r"\n[^\S\n]*(?=\n|\Z)")

_FIELDS = {b"1": 8, b"2": 9, b"u": 10}
COMMIT_FIELDS, REF_FIELDS = 7, 8
MAX_REF_BYTES = 4096
MAX_TRACK_BYTES = 200
MAX_DECORATIONS = 1000
MAX_PARENTS = 1000
RECORDS_OF_FILE = 3
"""The most records that one file takes: of a renamed one the rest and two names."""
HEADERS = 50
"""More records than come before the files of a status."""

Mask = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Counts:
    """Lines that a change adds and takes away; None for a binary file."""

    added: int | None
    deleted: int | None


@dataclass(frozen=True, slots=True)
class StatusFile:
    """One changed file.

    Args:
        code: Two letters for index and working tree, a space where nothing changed.
        original: Its name before, when it was renamed or copied.
        counts: Against the last commit; None where nobody counted.
    """

    name: bytes
    code: str
    original: bytes | None = None
    submodule: bool = False
    conflicted: bool = False
    counts: Counts | None = None

    @property
    def untracked(self) -> bool:
        return self.code == "??"

    @property
    def staged(self) -> bool:
        return self.code[0] not in {" ", "?"}

    @property
    def modified(self) -> bool:
        return self.code[1] != " "


@dataclass(slots=True)
class Status:
    """What `git status` tells; `head` is None before the first commit.

    Args:
        upstream: None also where one is configured that is not there (yet, or any more): there is
            nothing to be ahead of.
        configured: The upstream that is configured, whether it is there or not.
    """

    head: str | None = None
    branch: str | None = None
    upstream: str | None = None
    configured: str | None = None
    ahead: int = 0
    behind: int = 0
    files: list[StatusFile] = field(default_factory=list[StatusFile])
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file of a diff; `status` is git's letter."""

    name: bytes
    status: str
    original: bytes | None = None
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    id: str
    parents: tuple[str, ...]
    author: str
    email: str
    date: str
    refs: tuple[str, ...]
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Ref:
    name: str
    symbolic: bool
    commit: str
    upstream: str | None
    ahead: int
    behind: int
    checked_out: bool
    date: str
    subject: str


@dataclass(frozen=True, slots=True)
class PushedRef:
    """What git's own side says of one ref.

    Args:
        flag: ` ` moved, `+` forced, `*` new, `=` was so already, `!` not done.
        why: For what was not done: `rejected`, `remote rejected`, …
    """

    flag: str
    ref: str
    why: str | None
    reason: str | None


def text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def number(raw: bytes) -> int | None:
    return int(raw) if _NUMBER.fullmatch(raw) else None


class Records:
    """What ends with NUL, one after the other, at most so many; what was cut off is left out."""

    def __init__(self, raw: bytes, limit: int, end: bytes = b"\0") -> None:
        self._raw = raw
        self._left = limit
        self._end = end
        self._at = 0

    @property
    def ended(self) -> bool:
        """Whether all of the input was taken."""
        return self._at == len(self._raw)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        stop = self._raw.find(self._end, self._at) if self._left else -1
        if stop < 0:
            raise StopIteration
        self._left -= 1
        record = self._raw[self._at : stop]
        self._at = stop + 1
        return record


def parse_status(
    raw: bytes, limit: int, keep: Callable[[StatusFile], bool] | None = None
) -> Status:
    """Read `git status --porcelain=v2 -z --branch`; a record that was cut off is left out.

    Args:
        raw: What git printed.
        limit: The most files that are looked at; with more, the status is not complete.
        keep: Tells which of them are wanted; all by default.
    """
    status = Status()
    found = Records(raw, HEADERS + RECORDS_OF_FILE * limit)
    left = limit
    while left and (record := next(found, None)) is not None:
        kind, _, rest = record.partition(b" ")
        if kind == b"#":
            _header(status, rest)
            continue
        file = _entry(kind, rest, found)
        if file is not None:
            left -= 1
            if keep is None or keep(file):
                status.files.append(file)
    status.complete = found.ended and bool(raw)
    return status


def _header(status: Status, rest: bytes) -> None:
    name, _, value = rest[:MAX_REF_BYTES].partition(b" ")
    if name == b"branch.oid":
        status.head = None if value == b"(initial)" else text(value)
    elif name == b"branch.head":
        status.branch = None if value == b"(detached)" else text(value)
    elif name == b"branch.upstream":
        status.configured = text(value)
    elif name == b"branch.ab" and (match := _AHEAD_BEHIND.fullmatch(value)) is not None:
        status.ahead, status.behind = int(match[1]), int(match[2])
        status.upstream = status.configured


def _entry(kind: bytes, rest: bytes, found: Iterator[bytes]) -> StatusFile | None:
    if kind == b"?":
        return StatusFile(rest, "??")
    fields = _FIELDS.get(kind)
    if fields is None:
        return None
    parts = rest.split(b" ", fields - 1)
    original = next(found, None) if kind == b"2" else None
    code = text(parts[0][:4]).replace(".", " ")
    if len(parts) != fields or len(code) != len("XY") or (kind == b"2" and original is None):
        return None
    return StatusFile(
        parts[-1],
        code,
        original,
        submodule=parts[1].startswith(b"S"),
        conflicted=kind == b"u",
    )


def parse_counts(raw: bytes, limit: int) -> dict[bytes, Counts]:
    """Read `--numstat -z`: counts by name; of a rename by its new name."""
    counts: dict[bytes, Counts] = {}
    found = Records(raw, RECORDS_OF_FILE * limit)
    for record in found:
        parts = record.split(b"\t", 2)
        if len(parts) != 3:  # noqa: PLR2004 (added, deleted, name)
            continue
        name = parts[2]
        if not name:
            next(found, None)
            name = next(found, b"")
        counts[name] = Counts(number(parts[0]), number(parts[1]))
    return counts


def parse_raw(raw: bytes, limit: int) -> list[ChangedFile]:
    """Read `--raw -z`; a file that comes twice, as one with conflicts does, is listed once."""
    files: dict[bytes, ChangedFile] = {}
    found = Records(raw, RECORDS_OF_FILE * limit)
    while len(files) < limit and (record := next(found, None)) is not None:
        match = _RAW.fullmatch(record)
        if match is None:
            continue
        status, name, original = text(match[1]), next(found, None), None
        if status in {"R", "C"}:
            original, name = name, next(found, None)
        if name is not None and (name not in files or status == "U"):
            files[name] = ChangedFile(name, status, original)
    return list(files.values())


def counted(files: Sequence[ChangedFile], counts: dict[bytes, Counts]) -> list[ChangedFile]:
    return [replace(one, counts=counts.get(one.name)) for one in files]


def _chunks(raw: bytes, fields: int, limit: int) -> list[list[bytes]]:
    found = Records(raw, fields * limit)
    chunks = [list(islice(found, fields)) for _ in range(limit)]
    return [parts for parts in chunks if len(parts) == fields]


def masked(texts: Sequence[bytes], mask: Mask) -> Sequence[bytes]:
    """Mask texts without NULs in one go: what that may cost has its bound once, not for each."""
    hidden = mask(b"\0".join(texts))
    parts = hidden.split(b"\0", len(texts))
    return parts if len(parts) == len(texts) else [hidden[:MAX_REF_BYTES]] * len(texts)


def parse_log(raw: bytes, limit: int, mask: Mask) -> list[Commit]:
    """Read commits of seven fields, each ended by NUL; `log -z` adds one more NUL after each."""
    chunks = _chunks(raw, COMMIT_FIELDS + 1, limit)
    people = masked([one for parts in chunks for one in parts[2:4]], mask)
    messages = masked([parts[6] for parts in chunks], mask)
    return [
        Commit(
            id=text(parts[0][:MAX_REF_BYTES]),
            parents=tuple(text(one) for one in parts[1].split(maxsplit=MAX_PARENTS)[:MAX_PARENTS]),
            author=text(people[2 * at]),
            email=text(people[2 * at + 1]),
            date=text(parts[4][:MAX_REF_BYTES]),
            refs=_decorations(text(parts[5])),
            subject=subject_of(message := text(messages[at])),
            body=body_of(message),
        )
        for at, parts in enumerate(chunks)
    ]


def _decorations(shown: str) -> tuple[str, ...]:
    listed = shown.split(", ", MAX_DECORATIONS)[:MAX_DECORATIONS]
    names = (one.removeprefix("HEAD -> ").removeprefix("tag: ") for one in listed)
    return tuple(one for one in names if one and one != "HEAD")


def _from_first_line(message: str) -> str:
    """Leave out the empty lines that a text begins with."""
    begin = len(message) - len(message.lstrip())
    if begin == len(message):
        return ""
    return message[message.rfind("\n", 0, begin) + 1 :]


def _paragraphs(message: str) -> tuple[str, str]:
    message = _from_first_line(message)
    end = _BLANK_LINE.search(message)
    return (message, "") if end is None else (message[: end.start()], message[end.start() + 1 :])


def subject_of(message: str) -> str:
    """Return the first paragraph as one line, as git does, but nothing taken off its ends."""
    return _paragraphs(message)[0].replace("\n", " ")


def body_of(message: str) -> str:
    """Return what follows the first paragraph, without the empty lines around it."""
    return _from_first_line(_paragraphs(message)[1]).rstrip("\n")


def parse_refs(raw: bytes, limit: int, mask: Mask) -> list[Ref]:
    """Read refs of eight fields, each ended by NUL, one ref a line."""
    chunks = _chunks(raw, REF_FIELDS, limit)
    subjects = masked([parts[7] for parts in chunks], mask)
    found: list[Ref] = []
    for parts, subject in zip(chunks, subjects, strict=True):
        ahead, behind = parse_track(text(parts[4][:MAX_TRACK_BYTES]))
        found.append(
            Ref(
                name=text(parts[0].lstrip(b"\n")),
                symbolic=bool(parts[1]),
                commit=text(parts[2]),
                upstream=text(parts[3]) or None,
                ahead=ahead,
                behind=behind,
                checked_out=bool(parts[5]),
                date=text(parts[6]),
                subject=text(subject),
            )
        )
    return found


def parse_track(shown: str) -> tuple[int, int]:
    found = {name: int(count) for name, count in _TRACK.findall(shown)}
    return found.get("ahead", 0), found.get("behind", 0)


def parse_shortstat(shown: str) -> tuple[int, int, int]:
    """Return numbers of files, of lines added and of lines taken away."""
    found = {name: int(count) for count, name in _SHORTSTAT.findall(shown)}
    return found.get("file", 0), found.get("insertion", 0), found.get("deletion", 0)


def parse_push(output: str) -> list[PushedRef]:
    """Read `git push --porcelain`."""
    found: list[PushedRef] = []
    for line in output.splitlines():
        match = _PUSHED.fullmatch(line)
        if match is not None:
            why = _WHY.match(match[4]) if match[1] == "!" else None
            found.append(PushedRef(match[1], match[3], why and why[1], why and why[2]))
    return found


def names(raw: bytes, limit: int) -> list[bytes]:
    """Read names ended by NUL; one that was cut off is left out."""
    return [one for one in Records(raw, limit) if one]


def cut_to_lines(raw: bytes, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes that end with a whole line, and whether some were left out."""
    if len(raw) <= limit:
        return raw, False
    return raw[: raw.rfind(b"\n", 0, limit) + 1], True
