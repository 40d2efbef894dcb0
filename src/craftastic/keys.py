"""The installation's own secrets: files in `data_dir/keys`, made once, readable by the server only.

Each file is written whole beside its place and linked there, so of two processes that start at
once one makes it, both read the same, and no reader ever sees half a key.

Secrets at rest have several keys, one a line: the first encrypts, all decrypt.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from craftastic.errors import Conflict, NotConfigured

KEY_BYTES = 32
KEY_ID_BYTES = 6
AES_USE = b"craftastic secrets at rest, AES-256-GCM"
KEY_ID_USE = b"craftastic secrets at rest, id of the key"
FIRST_ACCOUNT_TOKEN = "first-account-token"  # noqa: S105 - a file's name
ENCRYPTION_KEY = "encryption-key"
MAX_FILE_CHARS = 16 << 10
MAX_KEYS = 32

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class KeyFileBroken(NotConfigured):
    """A key file is empty, cut short, or cannot be read or made."""

    code = "KEY_FILE_BROKEN"


class KeyFileMissing(NotConfigured):
    """There is no key of secrets at rest, and none may be made: stored secrets need the old one."""

    code = "KEY_FILE_MISSING"


class KeyChangeRefused(Conflict):
    """The keys cannot be changed so; the message says why."""

    code = "KEY_CHANGE_REFUSED"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of secrets at rest; its id is derived from it and tells nothing about it."""

    id: str
    aes: bytes = field(repr=False)


class Keyring:
    """The keys of secrets at rest; the first one encrypts, all of them decrypt.

    In order: the operator's current key, the lines of the file, the operator's older keys. The
    file may change under a running server, when keys are rotated: it is read again when it is not
    the file that was read. A change for the worse is logged, and the keys that were read stay.
    """

    def __init__(self, path: Path, *, current: str | None = None, old: Sequence[str] = ()) -> None:
        """Read the keys.

        Raises:
            KeyFileBroken: The file is damaged, or a key of the operator's is too short.
            KeyFileMissing: There is no file, and the operator set no current key.
        """
        self._path = path
        self._set = None if current is None else _checked(current, "The current key that was set")
        self._old = tuple(_checked(one, "An older key that was set") for one in old)
        self._seen: tuple[int, ...] | None = None
        self._keys: dict[str, Key] = {}
        self._in_file: frozenset[str] = frozenset()
        self._read()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    @property
    def current(self) -> Key:
        """Return the key that encrypts, as the file has it now."""
        self._look()
        return next(iter(self._keys.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of all keys, the current one first, as the file has them now."""
        self._look()
        return tuple(self._keys)

    @property
    def is_set(self) -> bool:
        """Whether the operator set the current key, so that the file cannot give another one."""
        return self._set is not None

    @property
    def path(self) -> Path:
        return self._path

    def find(self, key_id: str) -> Key | None:
        """Return the key of an id; for an unknown one the file is looked at again."""
        if key_id not in self._keys:
            self._look()
        return self._keys.get(key_id)

    def in_file(self, key_id: str) -> bool:
        return key_id in self._in_file

    def add(self) -> Key:
        """Make a key and put it first in the file.

        Raises:
            KeyChangeRefused: The operator set the current key, or the file holds too many.
            KeyFileBroken: The file is damaged or cannot be written.
        """
        if self.is_set:
            raise KeyChangeRefused(
                "The current key is set by CRAFTASTIC_ENCRYPTION_KEY: a key in the file would "
                "not be used."
            )
        with _changing(self._path):
            lines = _lines(self._path)
            if len(lines) >= MAX_KEYS:
                raise KeyChangeRefused(
                    f"{self._path} holds {len(lines)} keys already.",
                    details="Remove those that nothing uses with `craftastic keys prune`.",
                )
            _replace(self._path, [secrets.token_hex(KEY_BYTES), *lines])
        self._read()
        return self.current

    def remove(self, key_ids: Collection[str]) -> tuple[str, ...]:
        """Take keys out of the file and return the ids of those that were in it.

        Raises:
            KeyChangeRefused: One of them is the current key.
            KeyFileBroken: The file is damaged or cannot be written.
        """
        with _changing(self._path):
            self._read()
            if self.current.id in key_ids:
                raise KeyChangeRefused(f"The key {self.current.id} is the current one.")
            kept, gone = list[str](), list[str]()
            for line in _lines(self._path) if self._in_file else ():
                key_id = derive_key(line).id
                if key_id in key_ids:
                    gone.append(key_id)
                else:
                    kept.append(line)
            if gone:
                _replace(self._path, kept)
        self._read()
        return tuple(gone)

    def _look(self) -> None:
        seen = _signature(self._path)
        if seen == self._seen:
            return
        try:
            self._read()
        except (KeyFileBroken, KeyFileMissing) as error:
            self._seen = seen  # told once for each state of the file
            log.error(  # noqa: TRY400 - a trace would tell nothing more
                "the key file cannot be used; the keys read before stay", why=error.message
            )

    def _read(self) -> None:
        seen = _signature(self._path)  # first: a change while it is read shows the next time
        try:
            lines = _lines(self._path)
        except FileNotFoundError as error:
            if self._set is None:
                raise _missing(self._path) from error
            lines = []
        except OSError as error:
            raise _broken(self._path, f"cannot be used: {error.strerror}") from error
        in_file = [derive_key(line) for line in lines]
        first = [] if self._set is None else [derive_key(self._set)]
        ring = [*first, *in_file, *(derive_key(one) for one in self._old)]
        self._keys = {key.id: key for key in ring}
        self._in_file = frozenset(key.id for key in in_file)
        self._seen = seen


@dataclass(frozen=True, slots=True)
class Keys:
    """What one installation is known by, and signs and encrypts with."""

    instance: str
    jwt_secret: bytes = field(repr=False)
    keyring: Keyring


def load_keys(
    directory: Path,
    *,
    jwt_secret: str | None = None,
    encryption_key: str | None = None,
    old_encryption_keys: Sequence[str] = (),
    make_encryption_key: bool = True,
) -> Keys:
    """Read the keys, making those that are missing; what the operator set comes first.

    Args:
        directory: `Settings.keys_dir`; made with mode 0700 when missing.
        jwt_secret: The setting's text, or None.
        encryption_key: The setting's text, or None.
        old_encryption_keys: Keys of secrets at rest that only decrypt.
        make_encryption_key: False where secrets are stored already: a new key cannot read them,
            and would hide that the old one is lost.

    Raises:
        KeyFileBroken: A file is damaged. It is never replaced: that would end all sign-ins, or
            make every stored secret unreadable, in silence.
        KeyFileMissing: There is no key of secrets at rest, and none may be made.
    """
    instance = _read_or_make(directory, "instance", str(uuid4()))
    try:
        instance = str(UUID(instance))
    except ValueError as error:
        raise _broken(directory / "instance", "is not a UUID") from error
    if encryption_key is None and make_encryption_key:
        _read_or_make(directory, ENCRYPTION_KEY, secrets.token_hex(KEY_BYTES), MAX_FILE_CHARS)
    return Keys(
        instance=instance,
        jwt_secret=_key(directory, "jwt-secret", jwt_secret),
        keyring=load_keyring(directory, encryption_key, old_encryption_keys),
    )


def load_keyring(directory: Path, current: str | None, old: Sequence[str]) -> Keyring:
    """Read the keys of secrets at rest and make none; see `Keyring`."""
    return Keyring(directory / ENCRYPTION_KEY, current=current, old=old)


def derive_key(text: str) -> Key:
    """Return the key that a text of at least 32 bytes stands for."""
    secret = text.encode()
    key_id = _derived(secret, KEY_ID_USE, KEY_ID_BYTES).hex()
    return Key(key_id, _derived(secret, AES_USE, KEY_BYTES))


def _derived(secret: bytes, use: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=use).derive(secret)


def make_first_account_token(directory: Path) -> str:
    """Return the one-time token that makes the first account, making it when there is none.

    Raises:
        KeyFileBroken: The file is there and empty, or cannot be made.
    """
    return _read_or_make(directory, FIRST_ACCOUNT_TOKEN, secrets.token_urlsafe(KEY_BYTES))


def read_first_account_token(directory: Path) -> str | None:
    """Return the token while it is unused; None after that."""
    try:
        return _read(directory / FIRST_ACCOUNT_TOKEN)
    except FileNotFoundError:
        return None


def remove_first_account_token(directory: Path) -> None:
    (directory / FIRST_ACCOUNT_TOKEN).unlink(missing_ok=True)


def _key(directory: Path, name: str, override: str | None) -> bytes:
    if override is not None:
        return override.encode()
    text = _read_or_make(directory, name, secrets.token_hex(KEY_BYTES))
    if len(text) < KEY_BYTES:
        raise _broken(directory / name, f"holds fewer than {KEY_BYTES} bytes")
    return text.encode()


def _checked(text: str, what: str) -> str:
    text = text.strip()
    if len(text.encode()) < KEY_BYTES:
        raise KeyFileBroken(f"{what} has fewer than {KEY_BYTES} bytes.")
    return text


def _lines(path: Path) -> list[str]:
    """Read the keys of secrets at rest, one a line.

    Raises:
        FileNotFoundError: There is no file.
        KeyFileBroken: A line is no key, or there are too many.
    """
    lines = [line.strip() for line in _read(path, MAX_FILE_CHARS).splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line.encode()) < KEY_BYTES:
            raise _broken(path, f"holds fewer than {KEY_BYTES} bytes in line {number}")
        if not line.isprintable() or "\N{REPLACEMENT CHARACTER}" in line:
            raise _broken(path, f"is damaged in line {number}")
    return lines


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        about = path.lstat()
    except OSError:
        return None
    return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def _read_or_make(directory: Path, name: str, text: str, most_chars: int = 4096) -> str:
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _read(path, most_chars)
        except FileNotFoundError:
            _make(path, text)
            return _read(path, most_chars)
    except OSError as error:
        raise _broken(path, f"cannot be used: {error.strerror}") from error


def _read(path: Path, most_chars: int = 4096) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
        text = file.read(most_chars + 1)
    if len(text) > most_chars:
        raise _broken(path, f"is longer than {most_chars} characters")
    if not text.strip():
        raise _broken(path, "is empty")
    return text.strip()


def _make(path: Path, text: str) -> None:
    with _draft(path, text) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first: its key counts
        _sync_folder(path.parent)


def _replace(path: Path, lines: Sequence[str]) -> None:
    """Write the file anew, or remove it when nothing is left; it keeps its owner."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)  # the draft of somebody who was killed, with keys in it
    if not lines:
        path.unlink()
        _sync_folder(path.parent)
        return
    with _draft(path, "\n".join(lines)) as draft:
        before = path.stat()
        if os.geteuid() == 0:
            # Root may change the keys of a server that runs as another user.
            os.chown(draft, before.st_uid, before.st_gid)
        draft.replace(path)
        _sync_folder(path.parent)


@contextmanager
def _changing(path: Path) -> Generator[None]:
    """Let one process at a time change the file; the lock is the kernel's, on its folder."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        raise _broken(path, f"cannot be changed: {error.strerror}") from error


@contextmanager
def _draft(path: Path, text: str) -> Generator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _broken(path: Path, why: str) -> KeyFileBroken:
    return KeyFileBroken(
        f"The key file {path} {why}.",
        details="Restore it from a backup; remove it only if what it protects may be lost.",
    )


def _missing(path: Path) -> KeyFileMissing:
    return KeyFileMissing(
        f"The key file {path} is missing, and the database holds secrets that need its key.",
        details="Restore it from a backup, or set CRAFTASTIC_ENCRYPTION_KEY to the key. If it is "
        "lost for good, write a new one of at least 32 bytes there: then all stored secrets have "
        "to be entered anew.",
    )
