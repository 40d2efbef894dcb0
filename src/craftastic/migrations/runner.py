"""Brings a database to the newest schema; safe to call from several processes at once."""

import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sqlalchemy
import sqlalchemy.exc
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from craftastic.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

# ruff: noqa: PLC0415 - a start whose database is as it should be does without Alembic

FOLDER = Path(__file__).parent
LOCK_TIMEOUT_S = 300.0
ADVISORY_LOCK = 0x6372_6166_7461  # "crafta": one number that only this program uses


class MigrationRefused(Unavailable):
    """The database cannot be brought to this program's schema; the message says why."""

    code = "MIGRATION_REFUSED"


async def upgrade(database_url: str) -> str | None:
    """Run every revision that the database lacks, all of them in one transaction.

    A SQLite file and its folder are made first, closed to other users. Two processes that start
    at once take turns; the second finds nothing to do. A revision that fails leaves the database
    as it was.

    Args:
        database_url: With an async driver, as `Settings.sqlalchemy_url` gives it.

    Returns:
        The revision that the database is at now; None when there are no revisions.

    Raises:
        MigrationRefused: The database cannot be used, it is newer than this program, or another
            process kept the lock for `LOCK_TIMEOUT_S`.
    """
    try:
        async with _locked(database_url) as connection:
            return await connection.run_sync(_upgrade)
    except sqlalchemy.exc.OperationalError as error:
        raise _unusable(error) from error  # the disk is full, or the server went away


async def current(database_url: str) -> str | None:
    """Return the revision that the database is at; None for an empty database."""
    async with _connected(database_url) as connection:
        return await connection.run_sync(_current)


async def differences(database_url: str, metadata: MetaData) -> list[Any]:
    """Compare the database with the tables that the code declares; empty means equal."""

    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "target_metadata": metadata}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with _connected(database_url) as connection:
        return await connection.run_sync(compare)


async def write_revision(
    database_url: str, metadata: MetaData, message: str, revision_id: str
) -> Path:
    """Write the file of a new revision: what lies between the database and the declared tables.

    A developer's tool: upgrade an empty database first, then call it, then read what it wrote.
    """

    from alembic import command

    def write(connection: Connection) -> Path:
        config = _config(connection)
        config.attributes["metadata"] = metadata
        script = command.revision(config, message, autogenerate=True, rev_id=revision_id)
        return Path(script.path)  # type: ignore[union-attr]

    async with _connected(database_url) as connection:
        return await connection.run_sync(write)


def newest() -> str | None:
    """Return the newest revision that this program knows; None when it has none."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None)).get_current_head()


def newest_by_name() -> str | None:
    """Return the same by the names of the revisions' files, which begin with their numbers."""
    numbers = (file.name.partition("_")[0] for file in (FOLDER / "versions").glob("*_*.py"))
    return max((number for number in numbers if number.isdecimal()), default=None)


def _config(connection: Connection | None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _current(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _is_at(connection: Connection, revision: str | None) -> bool:
    if revision is None or not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return False
    stored = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
    return list(stored.scalars()) == [revision]


def _upgrade(connection: Connection) -> str | None:
    newest_name = newest_by_name()
    if _is_at(connection, newest_name):
        return newest_name
    if newest() is None:
        return None
    from alembic import command
    from alembic.util.exc import CommandError

    try:
        command.upgrade(_config(connection), "head")
    except CommandError as error:
        raise MigrationRefused(
            "This database was made by a newer Craftastic: start that version, or restore a "
            "backup that is as old as this program.",
            details=str(error),
        ) from error
    return _current(connection)


@asynccontextmanager
async def _locked(database_url: str) -> AsyncGenerator[AsyncConnection]:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        try:
            _prepare_file(file)
        except OSError as error:
            raise _unusable(error) from error
        with _file_lock_holder(file.with_name(file.name + ".migrate.lock")) as lock:
            await _wait_for_file(lock)
            async with _connected(database_url) as connection:
                yield connection
        return
    async with _connected(database_url) as connection:
        await _wait_for_advisory_lock(connection)
        yield connection


async def _wait_for_advisory_lock(connection: AsyncConnection) -> None:
    # The lock belongs to the transaction and goes with it, whatever happens to this process.
    attempt = sqlalchemy.text("SELECT pg_try_advisory_xact_lock(:key)")
    with anyio.move_on_after(LOCK_TIMEOUT_S):
        while not await connection.scalar(attempt, {"key": ADVISORY_LOCK}):  # noqa: ASYNC110
            await anyio.sleep(0.1)
        return
    raise MigrationRefused("Another process is changing this database; try again later.")


async def _wait_for_file(lock: int) -> None:
    with anyio.move_on_after(LOCK_TIMEOUT_S):
        while True:
            try:
                await anyio.to_thread.run_sync(
                    partial(fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                )
            except BlockingIOError:
                await anyio.sleep(0.1)
            else:
                return
    raise MigrationRefused("Another process is changing this database; try again later.")


@contextmanager
def _file_lock_holder(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _prepare_file(file: Path) -> None:
    # The folder may exist with wider rights: sandboxes' users pass it to reach their storage.
    file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@asynccontextmanager
async def _connected(database_url: str) -> AsyncGenerator[AsyncConnection]:
    async with AsyncExitStack() as stack:
        try:
            engine = _engine(database_url)
            stack.push_async_callback(_dispose, engine)
            connection = await stack.enter_async_context(engine.begin())
        except (OSError, sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            raise _unusable(error) from error
        yield connection


async def _dispose(engine: AsyncEngine) -> None:
    with anyio.CancelScope(shield=True):
        await engine.dispose()


def _unusable(error: Exception) -> MigrationRefused:
    # The driver's own sentence: SQLAlchemy's adds its class and a link to its manual.
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    text = str(cause).strip().rstrip(".") or type(cause).__name__
    return MigrationRefused(
        f"The database cannot be used: {text}.",
        details="Start it, and check DATABASE_URL and the rights of its file.",
    )


def _engine(database_url: str) -> AsyncEngine:
    engine = create_async_engine(database_url, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Foreign keys stay off: SQLite changes a table by making it anew, which would cascade.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "foreign_keys=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
