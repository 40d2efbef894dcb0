"""Copies the database as it is at one moment, while servers go on with it, and puts a copy back."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import anyio
import anyio.to_thread
import sqlalchemy
import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from craftastic.cli.backup_archive import BackupBroken
from craftastic.cli.running import run
from craftastic.database import Database
from craftastic.errors import Conflict, NotConfigured, NotFound, Unavailable

COPY_TIMEOUT_S = 4 * 3600.0
"""Longest run of PostgreSQL's own programs."""
BUSY_TIMEOUT_S = 30.0
MAX_COMPLAINT_CHARS = 300
MODES = {"SSL": "PGSSLMODE", "SSLMODE": "PGSSLMODE", "HOST": "PGHOST", "PORT": "PGPORT"}
"""Parts of an address that are given as its query, by what libpq calls them."""


class NoDatabase(NotFound):
    """There is nothing to back up."""


class DatabaseNotCopied(Unavailable):
    """The database could not be copied, or put back."""


class DatabaseProgramMissing(NotConfigured):
    """PostgreSQL's own program is not on this machine."""


class DatabaseNotEmpty(Conflict):
    """There is something where the backup is to be put."""


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """A copy in a file, and what it holds.

    Args:
        revision: Of its schema.
        environments: The number of each environment that is not being deleted.
        secrets: How many secrets are under each key's id.
    """

    file: Path
    kind: str
    revision: str
    environments: dict[str, int]
    secrets: dict[str, int] | None


REVISION = "SELECT version_num FROM alembic_version"
ENVIRONMENTS = "SELECT id, number FROM environments WHERE desired <> 'deleted'"
SECRETS = "SELECT key_id, count(*) FROM secrets GROUP BY key_id"
SECRETS_SINCE = "0002"
"""The revision that made the table of secrets."""
OTHERS = (
    "SELECT count(*) FROM information_schema.tables"
    " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
)

Rows = Sequence[Sequence[Any]]


def _copy_of(
    file: Path, kind: str, revision: str, environments: Rows, secrets: Rows | None
) -> DatabaseCopy:
    numbers = {str(UUID(str(key))): int(number) for key, number in environments}
    counts = None if secrets is None else {str(key): int(count) for key, count in secrets}
    return DatabaseCopy(file, kind, revision, numbers, counts)


async def copy_database(url: str, folder: Path) -> DatabaseCopy:
    """Write a copy into a folder of the caller's own.

    Args:
        url: With an async driver, as `Settings.sqlalchemy_url` gives it.
        folder: Private: the copy has everything that the database has. Secrets in it are
            encrypted, as they are there.

    Raises:
        NoDatabase: It is not there, or was never used.
        DatabaseProgramMissing: pg_dump is not here.
        DatabaseNotCopied: It does not answer, or is damaged.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "")
        return await anyio.to_thread.run_sync(_copy_sqlite, file, folder / "copy.sqlite")
    return await _copy_postgresql(url, parsed, folder / "copy.dump")


def _copy_sqlite(file: Path, copy: Path) -> DatabaseCopy:
    if not file.is_file():
        raise _none(file)
    try:
        with closing(_open_sqlite(file)) as source, closing(sqlite3.connect(copy)) as target:
            # In one step it is one moment of the database; writers of its log do not wait.
            source.backup(target, pages=-1)
            return _finished_sqlite(target, copy, file)
    except sqlite3.Error as error:
        raise DatabaseNotCopied(f"The database {file} cannot be copied: {error}.") from error


def _open_sqlite(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)


def _finished_sqlite(target: sqlite3.Connection, copy: Path, file: Path) -> DatabaseCopy:
    target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    if (found := target.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise DatabaseNotCopied(
            f"The database {file} is damaged: {found}.",
            details="Restore the last good backup; keep the damaged file.",
        )
    tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master")}
    if "alembic_version" not in tables:
        raise _none(file)
    revision = target.execute(REVISION).fetchone()
    secrets = target.execute(SECRETS).fetchall() if "secrets" in tables else None
    return _copy_of(
        copy, "sqlite", str(revision[0]), target.execute(ENVIRONMENTS).fetchall(), secrets
    )


async def _copy_postgresql(url: str, parsed: URL, copy: Path) -> DatabaseCopy:
    program = find_program("pg_dump")
    database = Database(url)
    try:
        engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
        # The transaction stays open: pg_dump sees the same moment as the questions here.
        async with engine.connect() as connection:

            async def ask(statement: str) -> Rows:
                return (await connection.execute(sqlalchemy.text(statement))).fetchall()

            if not (await ask("SELECT to_regclass('alembic_version')"))[0][0]:
                raise _none(parsed.database)
            revision = str((await ask(REVISION))[0][0])
            environments = await ask(ENVIRONMENTS)
            secrets = await ask(SECRETS) if revision >= SECRETS_SINCE else None
            snapshot = str((await ask("SELECT pg_export_snapshot()"))[0][0])
            await _run_program(
                [
                    *(program, "--format=custom", "--no-owner", "--no-privileges"),
                    *(f"--snapshot={snapshot}", f"--file={copy}"),
                ],
                parsed,
                copy.parent,
            )
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise DatabaseNotCopied("The database does not answer.") from error
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()
    return _copy_of(copy, "postgresql", revision, environments, secrets)


# ---- putting it back ------------------------------------------------------------------------


def refuse_used_database(url: str, kind: str) -> None:
    """Make sure that a backup's database can be put where the settings say, and harms nothing.

    Args:
        url: As `Settings.sqlalchemy_url` gives it.
        kind: Of the backup's database.

    Raises:
        DatabaseNotEmpty: There is one, or it is of another kind.
        DatabaseProgramMissing: pg_restore is not here.
        DatabaseUnavailable: It does not answer.
    """
    parsed = make_url(url)
    here = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql"
    if here != kind:
        raise DatabaseNotEmpty(
            f"The backup's database is {NAMES[kind]}'s, and the settings want {NAMES[here]}.",
            details="Set DATABASE_URL to an empty PostgreSQL database."
            if kind == "postgresql"
            else "Leave DATABASE_URL unset.",
        )
    if here == "sqlite":
        file = Path(parsed.database or "")
        if file.exists() or file.is_symlink():
            raise DatabaseNotEmpty(f"There is a database at {file}.", details=ELSEWHERE)
        return
    find_program("pg_restore")
    if run(partial(_tables, url)):
        raise DatabaseNotEmpty("The database has tables already.", details=ELSEWHERE)


async def _tables(url: str) -> int:
    database = Database(url)
    try:
        async with database.read() as tx:
            return int(await tx.scalar(sqlalchemy.text(OTHERS)) or 0)
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
ELSEWHERE = "A backup is restored into an empty data folder and an empty database only."


def check_sqlite(copy: Path, revision: str) -> None:
    """Make sure that a database from a backup is whole, and what its backup says.

    Raises:
        BackupBroken: It is not.
    """
    try:
        with closing(sqlite3.connect(copy, timeout=BUSY_TIMEOUT_S)) as found:
            whole = found.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            is_it = whole and found.execute(REVISION).fetchone() == (revision,)
    except sqlite3.Error as error:
        raise BackupBroken("The backup's database is damaged.", why=str(error)) from error
    if not is_it:
        raise BackupBroken("The backup's database is damaged.")


async def put_back_postgresql(url: str, copy: Path) -> None:
    """Fill the empty database, in one transaction: all of it, or nothing.

    Args:
        url: As `Settings.sqlalchemy_url` gives it.
        copy: Of pg_dump, in a private folder.

    Raises:
        DatabaseNotCopied: pg_restore failed; the database is as it was.
    """
    parsed = make_url(url)
    await _run_program(
        [
            *(find_program("pg_restore"), "--exit-on-error", "--single-transaction"),
            *("--no-owner", "--no-privileges", f"--dbname={_quoted(parsed.database or '')}"),
            str(copy),
        ],
        parsed,
        copy.parent,
    )


def _quoted(name: str) -> str:
    """Return a database's name so that nothing in it is read as another option."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def find_program(name: str) -> str:
    """Return where one of PostgreSQL's programs is.

    Raises:
        DatabaseProgramMissing: It is not on the PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise DatabaseProgramMissing(
            f"{name} is not on this machine.",
            details="Install PostgreSQL's client programs, not older than its server:"
            " apt-get install postgresql-client",
        )
    return found


async def _run_program(argv: Sequence[str], url: URL, folder: Path) -> None:
    """Run one of PostgreSQL's programs.

    The password is in none of its arguments and variables, which others may be able to read, but
    in a file of a private folder, for as long as it runs.
    """
    environment = {"PATH": os.defpath, "HOME": str(Path.home()), **libpq(url)}
    passwords = folder / "passwords"
    if url.password is not None:
        environment["PGPASSFILE"] = str(passwords)
        await anyio.to_thread.run_sync(_write_password, passwords, str(url.password))
    try:
        with anyio.fail_after(COPY_TIMEOUT_S):
            done = await anyio.run_process(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
    except (OSError, TimeoutError) as error:
        raise DatabaseNotCopied(f"{Path(argv[0]).name} did not do its work.") from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.Path(passwords).unlink(missing_ok=True)
    if done.returncode != 0:
        raise DatabaseNotCopied(
            f"{Path(argv[0]).name} failed: {_complaint(done.stderr)}",
            details="It must not be older than the server, and be able to reach it.",
        )


def _write_password(file: Path, password: str) -> None:
    """Write libpq's file of passwords, for any server.

    Source: PostgreSQL's documentation, libpq, the password file.
    """
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(made, "w", encoding="utf-8") as out:
        out.write(f"*:*:*:*:{escaped}\n")


def _complaint(stderr: bytes) -> str:
    """Return the first line of what a program said; later ones may show rows."""
    text = stderr.decode(errors="replace").strip().partition("\n")[0]
    return text[:MAX_COMPLAINT_CHARS] or "it does not say why"


def libpq(url: URL) -> dict[str, str]:
    """Return the variables by which PostgreSQL's own programs find the same database.

    Source: PostgreSQL's documentation, libpq, environment variables.
    """
    found: dict[str, str | None] = {
        "PGHOST": url.host,
        "PGPORT": None if url.port is None else str(url.port),
        "PGUSER": url.username,
        "PGDATABASE": url.database,
        "PGCONNECT_TIMEOUT": "10",
    }
    for name, value in cast("Mapping[str, Any]", url.query).items():
        if (variable := MODES.get(name.upper())) is not None:
            found[variable] = value if isinstance(value, str) else value[0]
    return {name: value for name, value in found.items() if value is not None}


def _none(where: object) -> NoDatabase:
    return NoDatabase(
        f"There is no database of Craftastic at {where}.",
        details="Run this command with the server's settings and its user's rights.",
    )
