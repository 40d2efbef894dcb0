"""`craftastic restore`: a backup into an empty data folder and an empty database, or nothing."""

import os
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

from alembic.script import ScriptDirectory

from craftastic.cli.backup import KEY_FILES, STANDARD
from craftastic.cli.backup_archive import (
    AGENT_TYPES,
    END,
    KEYS,
    SQLITE,
    TREES,
    ArchiveReader,
    BackupBroken,
    Manifest,
    opened,
)
from craftastic.cli.backup_database import (
    DatabaseNotEmpty,
    check_sqlite,
    put_back_postgresql,
    refuse_used_database,
)
from craftastic.cli.output import say
from craftastic.cli.progress import Checklist, checklist
from craftastic.cli.restore_trees import Owner, TreeWriter, parts_of
from craftastic.cli.running import run
from craftastic.cli.starting import data_folder
from craftastic.errors import Conflict, CraftasticError, InvalidInput, Unavailable
from craftastic.keys import load_keyring
from craftastic.migrations import runner
from craftastic.settings import Settings

STAGING = ".restoring-"
OUR_OWN = frozenset({"server.lock", "lost+found", KEYS})
"""What may be in an empty data folder: the lock, what a disk begins with, and keys that were put
there before."""
OWN_DEPTH = 2


class DataFolderNotEmpty(Conflict):
    """A server has used the data folder."""


class NotRestored(Unavailable):
    """The backup cannot be written into the data folder."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now.

    Args:
        missing: How many secrets need a key that is not here; None where that is not known.
        left_out: Further names of files that could not be made.
    """

    manifest: Manifest
    missing: int | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the restored files are.

    A server that runs as root gives each environment a user id of its own: the first of its range
    and the environment's number. Any other server's environments are its own user's.
    """

    server: Owner
    first: int
    numbers: dict[str, int]

    def of(self, environment_id: UUID) -> Owner | None:
        """Return an environment's owner; None for whoever runs this.

        Raises:
            BackupBroken: The backup does not know the environment.
        """
        number = self.numbers.get(str(environment_id))
        if number is None:
            raise BackupBroken("The backup is damaged: it has files of an unknown environment.")
        if os.geteuid() != 0:
            return None
        if self.server[0] != 0:
            return self.server
        return (self.first + number, self.first + number)


def restore(settings: Settings, where: str) -> Restored:
    """Put a backup back; when it fails, the data folder and the database are as they were.

    Args:
        settings: Of the server that is to go on with it.
        where: The backup's name, or `-` for standard input.

    Raises:
        InvalidInput: The backup cannot be opened.
        BackupBroken: It is none, or is damaged, cut short or made by a newer program.
        DataFolderNotEmpty, DatabaseNotEmpty: There is something already.
        DataFolderTaken, DataFolderUnusable: A server runs there, or it cannot be written.
        DatabaseNotCopied, DatabaseProgramMissing: PostgreSQL refused it.
        NotRestored: There is no room, or no right.
    """
    # Alone, whatever the database: servers of one PostgreSQL share their data folder.
    alone = Settings.model_construct(data_dir=settings.data_dir)
    with _source(where) as file, opened(file) as archive, checklist() as shown:
        manifest = archive.manifest()
        _refuse_newer(manifest)
        _refuse_used(settings, manifest)
        with data_folder(alone, wait_s=0.0), _staging(settings.data_dir) as staging:
            refuse_used_database(settings.sqlalchemy_url, manifest.database)
            about = settings.data_dir.stat()
            owners = Owners(
                (about.st_uid, about.st_gid), settings.sandbox_uid_base, manifest.environments
            )
            try:
                left_out = _unpack(archive, manifest, staging, owners, shown)
                _put_in_place(settings, manifest, staging, owners)
            except OSError as error:
                raise NotRestored(
                    f"The backup cannot be written into {settings.data_dir}: {error.strerror}.",
                    details="Make room there, or restore into another CRAFTASTIC_DATA_DIR.",
                ) from error
        shown.finish()
    return Restored(manifest, _missing(settings, manifest), left_out)


@contextmanager
def _source(where: str) -> Generator[IO[bytes]]:
    if where == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        file = Path(where).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InvalidInput(f"{where} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def _refuse_newer(manifest: Manifest) -> None:
    known = {one.revision for one in ScriptDirectory(str(runner.FOLDER)).walk_revisions()}
    if manifest.revision not in known:
        raise BackupBroken(
            f"This backup was made by a newer Craftastic ({manifest.program[:50]}).",
            details=f"Its database is at revision {manifest.revision[:50]}, this program at "
            f"{runner.newest()}: restore it with that version.",
        )


def _refuse_used(settings: Settings, manifest: Manifest) -> None:
    folder = settings.data_dir
    try:
        there = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotRestored(f"{folder} cannot be read: {error.strerror}.") from error
    used = [name for name in there if name not in OUR_OWN and not name.startswith(STAGING)]
    if used:
        raise DataFolderNotEmpty(
            f"The data folder {folder} is not empty: it has {', '.join(used[:5])}.",
            details="Move what is there away, or set CRAFTASTIC_DATA_DIR to another folder.",
        )
    keys = folder / KEYS
    if manifest.keys and keys.exists() and any(keys.iterdir()):
        raise DataFolderNotEmpty(
            f"There are keys in {keys} already, and the backup has keys too.",
            details=f"Move {keys} away to take the backup's.",
        )


@contextmanager
def _staging(data_dir: Path) -> Generator[Path]:
    """Give a folder in the data folder that only its owner can enter; gone at the end."""
    for left in data_dir.glob(f"{STAGING}*"):
        _remove(left)  # of a restore that was killed
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=data_dir))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a staging folder, also where rights in it keep even its owner out."""
    if os.geteuid() != 0:
        for _, folders, _, descriptor in os.fwalk(folder):
            for name in folders:
                # What is there was made by a restore: a link that looks like a folder is no folder.
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    os.chmod(name, 0o700, dir_fd=descriptor)
    shutil.rmtree(folder)


# ---- unpacking ------------------------------------------------------------------------------


def _unpack(
    archive: ArchiveReader, manifest: Manifest, staging: Path, owners: Owners, shown: Checklist
) -> int:
    """Write everything below the staging folder; return how many names are missing."""
    root = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    trees = TreeWriter(root, owners.of)
    seen: set[str] = set()
    complete = False
    try:
        for member in archive.members():
            if complete:
                raise BackupBroken("The backup is damaged: something follows its end.")
            if member.name == END:
                complete = True
            elif member.name.partition("/")[0] in TREES:
                _show(shown, member.name, manifest, seen)
                trees.put(archive, member)
            else:
                _own(archive, manifest, member, staging)
        if not complete:
            raise BackupBroken("The backup is cut short: its end is missing.")
        trees.close()
    finally:
        trees.abandon()
        os.close(root)
    if not (staging / manifest.database_file).is_file():
        raise BackupBroken("The backup is damaged: it has no database.")
    return trees.left_out


def _show(shown: Checklist, name: str, manifest: Manifest, seen: set[str]) -> None:
    key = name.split("/")[1] if "/" in name else ""
    if key in manifest.environments and key not in seen:
        seen.add(key)
        count = len(manifest.environments)
        shown.show("Environments", f"{len(seen)} of {count}", 100 * (len(seen) - 1) // count)


def _own(
    archive: ArchiveReader, manifest: Manifest, member: tarfile.TarInfo, staging: Path
) -> None:
    """Write a file of the server's own: the database, a key, an agent's manifest."""
    parts = parts_of(member.name)
    if member.name == manifest.database_file:
        place = staging / member.name
    elif len(parts) == OWN_DEPTH and _is_own(manifest, *parts):
        place = staging / parts[0] / parts[1]
        place.parent.mkdir(mode=0o700, exist_ok=True)
    else:
        raise BackupBroken(f"The backup is damaged: {member.name[:200]!r} is out of place in it.")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        made = os.open(place, flags, 0o600)
    except FileExistsError as error:
        raise BackupBroken("The backup is damaged: it has a file twice.") from error
    with os.fdopen(made, "wb") as file:
        for piece in archive.content(member):
            file.write(piece)
        file.flush()
        os.fsync(made)


def _is_own(manifest: Manifest, folder: str, name: str) -> bool:
    if folder == KEYS:
        return manifest.keys and name in KEY_FILES
    return folder == AGENT_TYPES and name.endswith(".toml")


# ---- at the end -----------------------------------------------------------------------------


def _put_in_place(settings: Settings, manifest: Manifest, staging: Path, owners: Owners) -> None:
    """Move everything to where the server looks for it, the database last.

    A server that is started on a half of it would find no database and begin anew; so until the
    database is there, nothing of it is.
    """
    database = staging / manifest.database_file
    if manifest.database_file == SQLITE:
        check_sqlite(database, manifest.revision)
    _give(staging, owners)
    os.sync()
    moved: list[Path] = []
    try:
        for name in (*TREES, AGENT_TYPES, KEYS):
            if (staging / name).exists():
                _move(staging / name, settings.data_dir / name, moved)
        _place_database(settings, database)
    except BaseException:
        for one in moved:
            one.rename(staging / one.name)  # goes with the staging folder
        raise


def _move(source: Path, target: Path, moved: list[Path]) -> None:
    if target.name == KEYS and target.exists():
        target.rmdir()  # it is empty: that was looked at before
    source.rename(target)
    moved.append(target)


def _place_database(settings: Settings, copy: Path) -> None:
    if copy.name != SQLITE:
        run(partial(put_back_postgresql, settings.sqlalchemy_url, copy))
        return
    from sqlalchemy.engine import make_url

    target = Path(make_url(settings.sqlalchemy_url).database or "")
    target.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    # It may be on another disk: it appears in one step all the same, and replaces nothing.
    part = target.with_name(f".{target.name}.restoring")
    part.unlink(missing_ok=True)
    about = copy.stat()
    shutil.copyfile(copy, part)
    try:
        part.chmod(stat.S_IMODE(about.st_mode))
        if os.geteuid() == 0:
            os.chown(part, about.st_uid, about.st_gid)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(part, target)
        except FileExistsError as error:
            raise DatabaseNotEmpty(f"There is a database at {target}.") from error
    finally:
        part.unlink()


def _give(staging: Path, owners: Owners) -> None:
    """Give the server's own files to its user; those of environments have their owners."""
    if os.geteuid() != 0 or owners.server == (0, 0):
        return
    for name in TREES:
        if (staging / name).exists():
            os.chown(staging / name, *owners.server)
    for name in (AGENT_TYPES, KEYS):
        for path in (staging / name, *(staging / name).glob("*")):
            if path.exists():
                os.chown(path, *owners.server)
    for path in staging.glob("database.*"):
        os.chown(path, *owners.server)


def _missing(settings: Settings, manifest: Manifest) -> int | None:
    """Count the secrets whose key is not here; makes no key."""
    if manifest.secrets is None:
        return None
    current = settings.encryption_key
    try:
        known = load_keyring(
            settings.keys_dir,
            current.get_secret_value() if current else None,
            settings.old_encryption_keys,
        ).ids
    except CraftasticError:
        known = ()
    return sum(count for key, count in manifest.secrets.items() if key not in known)


def tell(restored: Restored, settings: Settings) -> None:
    """Say what is there now, and what is to be done before the server starts."""
    manifest = restored.manifest
    count = len(manifest.environments)
    environments = "1 environment" if count == 1 else f"{count} environments"
    say(f"Restored {environments} of {manifest.made_at[:40]} into {settings.data_dir}.")
    if restored.left_out:
        say(f"{restored.left_out} further names of files could not be made.")
    if restored.missing:
        needed = ", ".join(sorted(manifest.secrets or {}))
        say(f"{restored.missing} secrets need keys that are not here (of {needed[:200]}).")
        say(
            f"Before the server starts, put the key file at {settings.keys_dir / KEY_FILES[0]}, or"
            " set CRAFTASTIC_ENCRYPTION_KEY; without it every secret has to be entered anew."
        )
    if not manifest.keys and settings.jwt_secret is None:
        say("Everybody signs in anew, unless the old jwt-secret is put into keys/ too.")
    say(
        "Start the server with `craftastic serve`. Sandboxes start with the next session or"
        " terminal. Never let the server that was backed up go on beside it."
    )
