"""git's machine formats, parsed. Pure; every input is hostile, and none makes it raise.

Source: git-status(1) "Porcelain Format Version 2", git-diff(1) "Raw output format" and `--numstat`
with `-z`, git-push(1) "Output" with `--porcelain`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

_NUMBER = re.compile(rb"[0-9]{1,18}")
_AHEAD_BEHIND = re.compile(rb"\+(\d{1,9}) -(\d{1,9})")
_TRACK = re.compile(r"(ahead|behind) (\d{1,9})")
_SHORTSTAT = re.compile(r"(\d{1,9}) (file|insertion|deletion)")
_RAW = re.compile(rb":+[0-9]{6}(?: [0-9]{6})+(?: [0-9a-f]+)+ ([A-Z]+)[0-9]*")
_PUSHED = re.compile(r"([ +\-*!=])\t([^\t]*):([^\t:]*)\t(.*)")
_WHY = re.compile(r"\[([^\]]*)\](?: \((.*)\))?")

ORDINARY_FIELDS, RENAMED_FIELDS, UNMERGED_FIELDS = 8, 9, 10
COMMIT_FIELDS, REF_FIELDS = 7, 8


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
    """What `git status` tells; `head` is None before the first commit."""

    head: str | None = None
    branch: str | None = None
    upstream: str | None = None
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


def parse_status(raw: bytes) -> Status:
    """Read `git status --porcelain=v2 -z --branch`; a record that was cut off is left out."""
    status = Status(complete=raw.endswith(b"\0"))
    records = iter(raw.split(b"\0")[:-1])
    for record in records:
        kind, _, rest = record.partition(b" ")
        if kind == b"#":
            _header(status, rest)
        elif kind == b"?":
            status.files.append(StatusFile(rest, "??"))
        elif kind in {b"1", b"2", b"u"} and (found := _entry(kind, rest, records)) is not None:
            status.files.append(found)
    return status


def _header(status: Status, rest: bytes) -> None:
    name, _, value = rest.partition(b" ")
    if name == b"branch.oid":
        status.head = None if value == b"(initial)" else text(value)
    elif name == b"branch.head":
        status.branch = None if value == b"(detached)" else text(value)
    elif name == b"branch.upstream":
        status.upstream = text(value)
    elif name == b"branch.ab" and (match := _AHEAD_BEHIND.fullmatch(value)) is not None:
        status.ahead, status.behind = int(match[1]), int(match[2])


def _entry(kind: bytes, rest: bytes, records: Iterator[bytes]) -> StatusFile | None:
    fields = {b"1": ORDINARY_FIELDS, b"2": RENAMED_FIELDS, b"u": UNMERGED_FIELDS}[kind]
    parts = rest.split(b" ", fields - 1)
    original = next(records, None) if kind == b"2" else None
    code = text(parts[0]).replace(".", " ")
    if len(parts) != fields or len(code) != len("XY") or (kind == b"2" and original is None):
        return None
    return StatusFile(
        parts[-1],
        code,
        original,
        submodule=parts[1].startswith(b"S"),
        conflicted=kind == b"u",
    )


def parse_counts(raw: bytes) -> dict[bytes, Counts]:
    """Read `--numstat -z`: counts by name; of a rename by its new name."""
    found: dict[bytes, Counts] = {}
    records = iter(raw.split(b"\0")[:-1])
    for record in records:
        parts = record.split(b"\t", 2)
        if len(parts) != 3:  # noqa: PLR2004 (added, deleted, name)
            continue
        name = parts[2]
        if not name:
            next(records, None)
            name = next(records, b"")
        found[name] = Counts(number(parts[0]), number(parts[1]))
    return found


def parse_raw(raw: bytes) -> list[ChangedFile]:
    """Read `--raw -z`; a file that comes twice, as one with conflicts does, is listed once."""
    found: dict[bytes, ChangedFile] = {}
    records = iter(raw.split(b"\0")[:-1])
    for record in records:
        match = _RAW.fullmatch(record)
        if match is None:
            continue
        status, name, original = text(match[1]), next(records, None), None
        if status in {"R", "C"}:
            original, name = name, next(records, None)
        if name is not None and (name not in found or status == "U"):
            found[name] = ChangedFile(name, status, original)
    return list(found.values())


def counted(files: Sequence[ChangedFile], counts: dict[bytes, Counts]) -> list[ChangedFile]:
    return [replace(one, counts=counts.get(one.name)) for one in files]


def _chunks(raw: bytes, fields: int) -> Iterator[list[bytes]]:
    parts = raw.split(b"\0")
    for start in range(0, len(parts) - fields, fields):
        yield parts[start : start + fields]


def parse_log(raw: bytes) -> list[Commit]:
    """Read commits of seven fields, each ended by NUL; `log -z` adds one more NUL after each."""
    return [
        Commit(
            id=text(parts[0]),
            parents=tuple(text(parts[1]).split()),
            author=text(parts[2]),
            email=text(parts[3]),
            date=text(parts[4]),
            refs=_decorations(text(parts[5])),
            subject=subject_of(message := text(parts[6])),
            body=body_of(message),
        )
        for parts in _chunks(raw, COMMIT_FIELDS + 1)
    ]


def _decorations(shown: str) -> tuple[str, ...]:
    names = (one.removeprefix("HEAD -> ").removeprefix("tag: ") for one in shown.split(", "))
    return tuple(one for one in names if one and one != "HEAD")


def _paragraphs(message: str) -> tuple[list[str], list[str]]:
    lines = message.split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    end = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
    return lines[:end], lines[end:]


def subject_of(message: str) -> str:
    """Return the first paragraph as one line, as git does, but nothing taken off its ends."""
    return " ".join(_paragraphs(message)[0])


def body_of(message: str) -> str:
    """Return what follows the first paragraph, without the empty lines around it."""
    rest = _paragraphs(message)[1]
    while rest and not rest[0].strip():
        rest.pop(0)
    return "\n".join(rest).rstrip("\n")


def parse_refs(raw: bytes) -> list[Ref]:
    """Read refs of eight fields, each ended by NUL, one ref a line."""
    found: list[Ref] = []
    for parts in _chunks(raw, REF_FIELDS):
        ahead, behind = parse_track(text(parts[4]))
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
                subject=text(parts[7]),
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


def names(raw: bytes) -> list[bytes]:
    """Read names ended by NUL; one that was cut off is left out."""
    return [one for one in raw.split(b"\0")[:-1] if one]


def cut_to_lines(raw: bytes, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes that end with a whole line, and whether some were left out."""
    if len(raw) <= limit:
        return raw, False
    return raw[: raw.rfind(b"\n", 0, limit) + 1], True
