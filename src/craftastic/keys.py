"""The installation's own secrets: files in `data_dir/keys`, made once, readable by the server only.

Each file is written whole beside its place and linked there, so of two processes that start at
once one makes it, both read the same, and no reader ever sees half a key.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from craftastic.errors import NotConfigured

KEY_BYTES = 32
FIRST_ACCOUNT_TOKEN = "first-account-token"  # noqa: S105 - a file's name


class KeyFileBroken(NotConfigured):
    """A key file is empty, cut short, or cannot be read or made."""

    code = "KEY_FILE_BROKEN"


@dataclass(frozen=True, slots=True)
class Keys:
    """What one installation is known by, and signs and encrypts with."""

    instance: str
    jwt_secret: bytes = field(repr=False)
    encryption_key: bytes = field(repr=False)


def load_keys(
    directory: Path, *, jwt_secret: str | None = None, encryption_key: str | None = None
) -> Keys:
    """Read the keys, making those that are missing; what the operator set comes first.

    Args:
        directory: `Settings.keys_dir`; made with mode 0700 when missing.
        jwt_secret: The setting's text, or None.
        encryption_key: The setting's text, or None.

    Raises:
        KeyFileBroken: A file is damaged. It is never replaced: that would end all sign-ins, or
            make every stored secret unreadable, in silence.
    """
    instance = _read_or_make(directory, "instance", str(uuid4()))
    try:
        instance = str(UUID(instance))
    except ValueError as error:
        raise _broken(directory / "instance", "is not a UUID") from error
    return Keys(
        instance=instance,
        jwt_secret=_key(directory, "jwt-secret", jwt_secret),
        encryption_key=_key(directory, "encryption-key", encryption_key),
    )


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


def _read_or_make(directory: Path, name: str, text: str) -> str:
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _read(path)
        except FileNotFoundError:
            _make(path, text)
            return _read(path)
    except OSError as error:
        raise _broken(path, f"cannot be used: {error.strerror}") from error


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
        text = file.read(4096).strip()
    if not text:
        raise _broken(path, "is empty")
    return text


def _make(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first: its key counts
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)


def _broken(path: Path, why: str) -> KeyFileBroken:
    return KeyFileBroken(
        f"The key file {path} {why}.",
        details="Restore it from a backup; remove it only if what it protects may be lost.",
    )
