"""The form of a backup: a compressed tar that is written and read in one pass, in bounded memory.

Members, in this order: `manifest.json`, the database, `agent-types/…`, `keys/…` where they were
asked for, the environments' trees (each folder before what is in it, depth first), `end.json`. The
last one tells that nothing was cut off.

A file with holes is a member with the record `CRAFTASTIC.size`, its whole length in bytes. Its
content begins with the number of its pieces and a line `offset length` for each, filled up to a
whole block; the pieces follow.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Protocol, cast
from uuid import UUID

from craftastic.errors import InvalidInput, Unavailable

FORMAT = 1
MANIFEST = "manifest.json"
END = "end.json"
SQLITE = "database.sqlite"
POSTGRESQL = "database.dump"
AGENT_TYPES = "agent-types"
KEYS = "keys"
TREES = ("repos", "worktrees", "homes")
SIZE = "CRAFTASTIC.size"
LEVEL = 1
"""Of the compression: a higher one takes several times as long and saves little."""
MAX_TEXT_BYTES = 16 << 20
MAX_EXTENTS = 100_000
MAX_ENVIRONMENTS = 1 << 16
MAX_REST_BYTES = 64 << 10
CHUNK_BYTES = 1 << 20
BLOCK = tarfile.BLOCKSIZE
ENCODING = "utf-8"
SHORTENED = "it became shorter while it was read; zeros stand for what was gone"
ERRORS = "surrogateescape"
"""Names of files are bytes: those that are no text come back as they were."""

Extent = tuple[int, int]
"""Where a piece of a file begins, and how long it is, in bytes."""


class BackupBroken(InvalidInput):
    """The file is no backup, or is damaged or cut short."""


class BackupNotWritten(Unavailable):
    """The backup cannot be written where it was to go."""


class Source(Protocol):
    """Where a file's bytes come from."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to so many bytes from an offset on; fewer only where they are gone."""
        ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds, told before everything else.

    Args:
        revision: Of the database's schema.
        database: `sqlite` or `postgresql`.
        environments: The number of each environment; the owner of its files follows from it.
        keys: Whether the key files are in it.
        secrets: How many secrets are under each key's id; None where that could not be told.
    """

    program: str
    revision: str
    database: str
    made_at: str
    environments: dict[str, int]
    keys: bool = False
    secrets: dict[str, int] | None = None
    format: int = FORMAT

    @property
    def database_file(self) -> str:
        return SQLITE if self.database == "sqlite" else POSTGRESQL


@dataclass(slots=True)
class Written:
    """What is in a backup so far."""

    files: int = 0
    links: int = 0
    folders: int = 0
    bytes: int = 0
    special: int = 0
    """Sockets, pipes and devices: they mean nothing elsewhere, and are not in it."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    examples: list[str] = field(default_factory=list[str])


class ArchiveWriter:
    """Writes members one after the other; remembers none of them.

    Every method raises `BackupNotWritten` when what it writes to is full or gone.
    """

    def __init__(self, out: IO[bytes]) -> None:
        with _writable():
            self._out = gzip.GzipFile("", "wb", LEVEL, out, mtime=0)
        self.written = Written()

    def manifest(self, manifest: Manifest) -> None:
        self.text(MANIFEST, json.dumps(asdict(manifest)).encode())

    def text(self, name: str, content: bytes) -> None:
        """Add a small file of the server's own."""
        self._begin(_info(name, tarfile.REGTYPE, 0o600, size=len(content)))
        self._write(content)
        self._pad(len(content))

    def folder(self, name: str, mode: int, mtime: int) -> None:
        self._begin(_info(name, tarfile.DIRTYPE, mode, mtime))
        self.written.folders += 1

    def symbolic_link(self, name: str, target: str, mtime: int) -> None:
        self._begin(_info(name, tarfile.SYMTYPE, 0o777, mtime, target=target))
        self.written.links += 1

    def hard_link(self, name: str, first: str) -> None:
        """Add another name of a file that was added before as `first`."""
        self._begin(_info(name, tarfile.LNKTYPE, 0o600, target=first))
        self.written.links += 1

    def file(
        self,
        name: str,
        source: Source,
        *,
        mode: int,
        mtime: int,
        size: int,
        extents: Sequence[Extent] | None = None,
    ) -> None:
        """Add a file; where it has become shorter meanwhile, zeros stand for what is gone.

        Args:
            name: Its path in the backup.
            source: Of its bytes.
            mode: Its rights.
            mtime: In seconds of the epoch.
            size: Its length in bytes.
            extents: The pieces of it that are no holes; None for a file without holes.
        """
        if extents is None:
            self._begin(_info(name, tarfile.REGTYPE, mode, mtime, size=size))
            stored, whole = size, self._pieces(source, [(0, size)])
        else:
            table = _table(extents)
            stored = len(table) + sum(length for _, length in extents)
            info = _info(name, tarfile.REGTYPE, mode, mtime, size=stored)
            info.pax_headers = {SIZE: str(size)}
            self._begin(info)
            self._write(table)
            whole = self._pieces(source, extents)
        self._pad(stored)
        if not whole:
            self.leave_out(name, SHORTENED)
        self.written.files += 1
        self.written.bytes += stored

    def leave_out(self, name: str, why: str) -> None:
        """Note what is not in the backup, to be told at its end."""
        self.written.left_out[why] = self.written.left_out.get(why, 0) + 1
        if len(self.written.examples) < 10:  # noqa: PLR2004 - a few are enough to find the rest
            self.written.examples.append(f"{name[:200]}: {why}")

    def close(self) -> None:
        """Write the last member, and the end of the tar."""
        self.text(END, json.dumps(asdict(self.written)).encode())
        self._write(bytes(2 * BLOCK))
        with _writable():
            self._out.close()

    def _begin(self, info: tarfile.TarInfo) -> None:
        self._write(info.tobuf(tarfile.PAX_FORMAT, ENCODING, ERRORS))

    def _write(self, content: bytes) -> None:
        with _writable():
            self._out.write(content)

    def _pieces(self, source: Source, extents: Sequence[Extent]) -> bool:
        """Write pieces of a file; False where some of it was not there any more."""
        whole = True
        for offset, length in extents:
            done = 0
            while done < length:
                wanted = min(CHUNK_BYTES, length - done)
                piece = source.read_at(offset + done, wanted)
                self._write(piece)
                if len(piece) < wanted:
                    # What was announced has to come: the next member begins after it.
                    self._write(bytes(wanted - len(piece)))
                    whole = False
                done += wanted
        return whole

    def _pad(self, length: int) -> None:
        self._write(bytes(-length % BLOCK))


@contextmanager
def _writable() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise BackupNotWritten(
            f"The backup cannot be written: {error.strerror}.",
            details="Make room there, or choose another place.",
        ) from error


def _info(
    name: str, kind: bytes, mode: int, mtime: int = 0, *, size: int = 0, target: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.size, info.linkname = kind, mode, mtime, size, target
    return info


def _table(extents: Sequence[Extent]) -> bytes:
    lines = [str(len(extents)), *(f"{offset} {length}" for offset, length in extents)]
    text = ("\n".join(lines) + "\n").encode()
    return text + bytes(-len(text) % BLOCK)


# ---- reading --------------------------------------------------------------------------------


class ArchiveReader:
    """Reads a backup's members one after the other; remembers none of them."""

    def __init__(self, tar: tarfile.TarFile, file: IO[bytes]) -> None:
        self._tar: Any = tar  # its list of members is not in the library's types
        self._file = file

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield every member.

        Raises:
            BackupBroken: What is read is no tar.
        """
        while True:
            with _readable():
                found = self._tar.next()
            self._tar.members.clear()
            if found is None:
                self._finish()
                return
            yield found

    def _finish(self) -> None:
        """Read what is behind the tar's end: the checksum of all of it stands there."""
        left = MAX_REST_BYTES
        while left > 0:
            with _readable():
                rest = self._file.read(left)
            if not rest:  # only now it was looked at
                return
            if rest.strip(b"\0"):
                break
            left -= len(rest)
        raise BackupBroken("The backup is damaged: something follows its end.")

    def manifest(self) -> Manifest:
        """Return the first member's content.

        Raises:
            BackupBroken: It is none that this program knows.
        """
        first = next(self.members(), None)
        if first is None or first.name != MANIFEST:
            raise BackupBroken("This file is no backup of Craftastic.")
        return _manifest(self.text(first))

    def text(self, member: tarfile.TarInfo) -> bytes:
        """Return the content of a small file.

        Raises:
            BackupBroken: It is damaged, or not small.
        """
        if member.size > MAX_TEXT_BYTES:
            raise BackupBroken(f"The backup is damaged: {member.name[:200]!r} is too long.")
        return b"".join(self.content(member))

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Yield a member's bytes in pieces; none is longer than `CHUNK_BYTES`."""
        file = self.open(member)
        left = member.size
        while left:
            with _readable():
                piece = file.read(min(left, CHUNK_BYTES))
            if not piece:
                raise BackupBroken("The backup is cut short.")
            left -= len(piece)
            yield piece

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """Return a member's content, to be read once, before the next member.

        Raises:
            BackupBroken: The member is no file.
        """
        with _readable():
            file = self._tar.extractfile(member) if member.type in REGULAR else None
        if file is None:
            raise BackupBroken(f"The backup is damaged: {member.name[:200]!r} is no file.")
        return file

    def pieces(self, member: tarfile.TarInfo) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """Return a file's length, and its bytes in pieces, each with its offset.

        Raises:
            BackupBroken: It is damaged.
        """
        text = member.pax_headers.get(SIZE)
        if text is None:
            return member.size, self._dense(member)
        size = _number(text)
        file = self.open(member)
        return size, self._sparse(member, file, size)

    def _dense(self, member: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
        offset = 0
        for piece in self.content(member):
            yield offset, piece
            offset += len(piece)

    def _sparse(
        self, member: tarfile.TarInfo, file: IO[bytes], size: int
    ) -> Iterator[tuple[int, bytes]]:
        with _readable():
            extents, used = _read_table(file)
            file.read(-used % BLOCK)
        for offset, length in extents:
            if offset + length > size:
                raise BackupBroken(f"The backup is damaged: {member.name[:200]!r} is too long.")
            done = 0
            while done < length:
                with _readable():
                    piece = file.read(min(CHUNK_BYTES, length - done))
                if not piece:
                    raise BackupBroken("The backup is cut short.")
                yield offset + done, piece
                done += len(piece)


REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


@contextmanager
def opened(file: IO[bytes]) -> Generator[ArchiveReader]:
    """Read a backup from a stream.

    Raises:
        BackupBroken: It is none.
    """
    options: Any = {"encoding": ENCODING, "errors": ERRORS, "errorlevel": 2}
    # The library's own way to open a compressed stream does not look at its checksum.
    with gzip.GzipFile(fileobj=file) as plain:
        with _readable():
            tar = tarfile.open(fileobj=plain, mode="r|", **options)  # noqa: SIM115 - closed below
        with tar:
            yield ArchiveReader(tar, cast("IO[bytes]", plain))


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupBroken(
            "This file is no backup, or it is damaged or cut short.", why=str(error)
        ) from error


def _read_table(file: IO[bytes]) -> tuple[list[Extent], int]:
    line = file.readline(32)
    used, extents, count, end = len(line), list[Extent](), _number(line), 0
    if count > MAX_EXTENTS:
        raise BackupBroken("The backup is damaged: a file has too many pieces.")
    for _ in range(count):
        line = file.readline(64)
        used += len(line)
        first, _, second = line.partition(b" ")
        offset, length = _number(first), _number(second)
        if offset < end:
            raise BackupBroken("The backup is damaged: a file's pieces are not in order.")
        end = offset + length
        extents.append((offset, length))
    return extents, used


def _number(text: str | bytes) -> int:
    text = text.strip()
    if not text.isdigit() or len(text) > 19:  # noqa: PLR2004 - digits of 2^63
        raise BackupBroken("The backup is damaged: a length is no number.")
    return int(text)


def _manifest(content: bytes) -> Manifest:
    try:
        found: Any = json.loads(content)
        if found["format"] != FORMAT:
            raise BackupBroken(
                "This backup was made by a newer Craftastic.",
                details=f"It is of Craftastic {str(found['program'])[:50]}: restore it with that.",
            )
        manifest = Manifest(**found)
        _check_environments(manifest.environments)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupBroken("The backup's list of its contents is damaged.") from error
    if manifest.database not in {"sqlite", "postgresql"}:
        raise BackupBroken("The backup's database is of an unknown kind.")
    return manifest


def _check_environments(environments: Mapping[str, object]) -> None:
    """Refuse ids that are none, and numbers that would become a strange owner of files.

    Raises:
        ValueError: There are some.
    """
    numbers = list(environments.values())
    for key, number in environments.items():
        if str(UUID(key)) != key or not isinstance(number, int) or isinstance(number, bool):
            raise ValueError("no environment")
        if not 0 <= number < MAX_ENVIRONMENTS:
            raise ValueError("no number of an environment")
    if len(set(cast("list[int]", numbers))) < len(numbers):
        raise ValueError("two environments of one number")
