"""`craftastic backup`: everything of a server in one file, while it and its sandboxes go on."""

import os
import stat
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

from craftastic import __version__
from craftastic.cli.backup_archive import (
    AGENT_TYPES,
    KEYS,
    ArchiveWriter,
    BackupNotWritten,
    Manifest,
    Written,
)
from craftastic.cli.backup_database import DatabaseCopy, copy_database
from craftastic.cli.backup_trees import OpenFile, add_trees
from craftastic.cli.output import printable, say
from craftastic.cli.progress import Checklist, checklist
from craftastic.cli.running import run
from craftastic.errors import InvalidInput
from craftastic.settings import Settings

KEY_FILES = ("encryption-key", "jwt-secret")
"""What of `keys/` a server on another machine needs. Its own id is not among them: the sandboxes
of the server that was backed up are not the restored one's."""
STANDARD = "-"
MAX_OWN_BYTES = 1 << 20
"""Most bytes of a file of the server's own."""


def back_up(settings: Settings, where: str, *, with_keys: bool) -> Written:
    """Write a backup, and return what is in it.

    The file appears when it is complete, closed to other users; an interrupt leaves none.

    Args:
        settings: The server's.
        where: A new file's name, or `-` for standard output.
        with_keys: Whether the key files are in it too.

    Raises:
        InvalidInput: The file is there already, or standard output is a terminal.
        NoDatabase, DatabaseProgramMissing, DatabaseNotCopied: See `copy_database`.
        BackupNotWritten: There is no room, or no right.
    """
    with checklist() as shown, _target(where, settings.data_dir) as (out, folder):
        shown.show("Database", "copying it", None)
        copy = run(partial(copy_database, settings.sqlalchemy_url, folder))
        written = _write(out, settings, copy, with_keys, shown)
        shown.finish()
    return written


def _write(
    out: IO[bytes], settings: Settings, copy: DatabaseCopy, with_keys: bool, shown: Checklist
) -> Written:
    archive = ArchiveWriter(out)
    manifest = Manifest(
        program=__version__,
        revision=copy.revision,
        database=copy.kind,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environments=copy.environments,
        keys=with_keys,
        secrets=copy.secrets,
    )
    archive.manifest(manifest)
    _add_database(archive, manifest.database_file, copy.file)
    _add_own(archive, settings.data_dir / AGENT_TYPES, AGENT_TYPES, ".toml")
    if with_keys:
        _add_own(archive, settings.keys_dir, KEYS, "", KEY_FILES)
    for place, key in enumerate(copy.environments):
        shown.show(
            "Environments",
            f"{place + 1} of {len(copy.environments)}",
            100 * place // len(copy.environments),
        )
        add_trees(archive, settings.data_dir, UUID(key))
    archive.close()
    return archive.written


def _add_database(archive: ArchiveWriter, name: str, file: Path) -> None:
    with file.open("rb") as content:
        about = os.fstat(content.fileno())
        archive.file(
            name,
            OpenFile(content.fileno()),
            mode=0o600,
            mtime=int(about.st_mtime),
            size=about.st_size,
        )


def _add_own(
    archive: ArchiveWriter,
    folder: Path,
    name: str,
    suffix: str,
    only: tuple[str, ...] | None = None,
) -> None:
    """Put small files of the server's own into the archive."""
    try:
        found = sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_readable(folder, error) from error
    for path in found:
        if only is None or path.name in only:
            with suppress(FileNotFoundError):
                archive.text(f"{name}/{path.name}", _own(path))


def _own(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput(f"{path} is no file.")
            content = file.read(MAX_OWN_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _not_readable(path, error) from error
    if len(content) > MAX_OWN_BYTES:
        raise InvalidInput(f"{path} is too long to be one of the server's own files.")
    return content


def _not_readable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"{path} cannot be read: {error.strerror}.",
        details="Run this command as the server's user, or as root.",
    )


# ---- where it goes --------------------------------------------------------------------------


@contextmanager
def _target(where: str, data_dir: Path) -> Generator[tuple[IO[bytes], Path]]:
    """Give a stream to write to and a private folder beside it; a file appears at the end."""
    if where == STANDARD:
        if sys.stdout.isatty():
            raise InvalidInput("A backup is not for a terminal: name a file, or pipe it on.")
        with _private(data_dir) as folder:
            yield sys.stdout.buffer, folder
            try:
                sys.stdout.buffer.flush()
            except OSError as error:
                raise _no_room(where, error) from error
        return
    file = Path(where).absolute()
    if file.exists() or file.is_symlink():
        raise InvalidInput(f"{file} is there already; choose another name.")
    with _private(file.parent) as folder:
        part = folder / "part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            yield out, folder
            _settle(out, part, file)


def _settle(out: IO[bytes], part: Path, file: Path) -> None:
    try:
        out.flush()
        os.fsync(out.fileno())
        os.link(part, file)  # unlike a rename it replaces nothing
    except FileExistsError as error:
        raise InvalidInput(f"{file} was made by somebody else meanwhile.") from error
    except PermissionError:
        part.rename(file)  # file systems of Windows and the like have no links
    except OSError as error:
        raise _no_room(file, error) from error


@contextmanager
def _private(parent: Path) -> Generator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix=".craftastic-backup-", dir=parent)
    except OSError as error:
        raise _no_room(parent, error) from error
    with made as folder:
        yield Path(folder)


def _no_room(where: object, error: OSError) -> BackupNotWritten:
    return BackupNotWritten(f"Nothing can be written to {where}: {error.strerror}.")


# ---- what is told ---------------------------------------------------------------------------


def tell(written: Written, where: str, *, with_keys: bool) -> None:
    """Say what the backup holds, and what it does not."""
    counted = f"{written.files} files, {written.bytes / (1 << 20):.1f} MiB before compression"
    say(f"{'The backup' if where == STANDARD else where} is complete: {counted}.")
    for why, count in written.left_out.items():
        say(f"Left out or cut, {count} times: {why}.")
    for example in written.examples:
        say(f"  {printable(example)}")
    if with_keys:
        say("It holds the keys: whoever has it can read every secret. Keep it so.")
    else:
        say(
            "The keys are not in it. Without them nobody stays signed in and no stored secret can"
            " be read: keep a copy of keys/ apart from it, or use --with-keys."
        )
