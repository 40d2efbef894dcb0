"""Engine, transactions, declarative base: the one place that sets SQLAlchemy up."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel
import sqlalchemy
from sqlalchemy import DateTime, Dialect, Double, MetaData, TypeDecorator, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.functions import FunctionElement

from craftastic.errors import CraftasticError, Unavailable

Transaction = AsyncSession

BUSY_TIMEOUT_MS = 5000
WRITE_TURN_TIMEOUT_S = 10.0
POOL_TIMEOUT_S = 10.0
SQLITE_FULL = 13
PG_ONE_OF_TWO = {"40001", "40P01"}
"""serialization_failure and deadlock_detected: the other one goes on, this one may try again."""
PG_DISK_FULL = "53100"
PG_OUTAGES = frozenset({"08", "53", "57", "58"})
"""Classes of SQLSTATE: connection, resources, an operator's hand or a restart, the system below.
Source: PostgreSQL 17, appendix A."""
READ_ONLY = "craftastic_read_only"
LAST_STEPS = "craftastic_last_steps"

LastStep = Callable[[Transaction], Awaitable[None]]


class DatabaseUnavailable(Unavailable):
    """The database did not answer, or stayed locked longer than the busy timeout."""

    code = "DATABASE_UNAVAILABLE"


class DatabaseFull(DatabaseUnavailable):
    """There is no space left where the database is; nothing was written."""

    code = "DATABASE_FULL"


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python on both databases; SQLite itself knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive time is ambiguous; give an aware one")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class DatabaseNow(FunctionElement[float]):
    """Seconds since 1970 by the database's own clock, which all server processes share."""

    type = Double[float]()
    inherit_cache = True


@compiles(DatabaseNow, "postgresql")
def _now_of_postgresql(_element: object, _compiler: object, **_options: object) -> str:
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


@compiles(DatabaseNow, "sqlite")
def _now_of_sqlite(_element: object, _compiler: object, **_options: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are opened by `_begin_sqlite` alone
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",  # first: the switch to WAL itself needs a lock
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class Database:
    """One engine for one database URL.

    On SQLite the writers of this process take turns in memory, in order: its own waiting is a
    poll with growing pauses, in which one of many writers can starve past the busy timeout.
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self.engine = create_async_engine(url, pool_timeout=POOL_TIMEOUT_S, **_options(url))
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        self.after_commit: list[Callable[[Transaction], None]] = []
        """Called with each transaction that was committed, in this process; they must be quick."""
        self._transactions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._writer = anyio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[Transaction]:
        """Open a transaction: committed on exit, rolled back on error or cancellation.

        Keep it short: never await a runtime or a remote API inside, nor open another one. A
        cancellation that arrives while it commits takes effect after the commit.

        Raises:
            DatabaseUnavailable: The database is down or stayed locked.
        """
        with _translated():
            if not self.is_sqlite:
                async with self._finished(self._transactions()) as tx:
                    yield tx
                return
            async with self._write_turn(), self._finished(self._transactions()) as tx:
                yield tx

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Transaction]:
        """Open a transaction that only reads; on SQLite it never waits for a writer.

        Raises:
            DatabaseUnavailable: The database is down.
        """
        with _translated():
            tx = self._transactions()
            try:
                await _connect(tx, {READ_ONLY: True})
                yield tx
            finally:
                with anyio.CancelScope(shield=True):
                    await tx.close()

    async def ping(self) -> None:
        """Read as little as there is, in the database.

        Raises:
            DatabaseUnavailable: It did not answer.
        """
        # SQLite answers what names no table without a look at its file.
        source = "sqlite_master" if self.is_sqlite else "pg_namespace"
        async with self.read() as tx:
            await tx.execute(sqlalchemy.text(f"SELECT 1 FROM {source} LIMIT 1"))  # noqa: S608

    @property
    def kind(self) -> str:
        return "SQLite" if self.is_sqlite else "PostgreSQL"

    async def version(self) -> str:
        """Return the database's own version.

        Raises:
            DatabaseUnavailable: It did not answer.
        """
        query = "SELECT sqlite_version()" if self.is_sqlite else "SHOW server_version"
        async with self.read() as tx:
            return str(await tx.scalar(sqlalchemy.text(query)))

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _write_turn(self) -> AsyncGenerator[None]:
        with anyio.move_on_after(WRITE_TURN_TIMEOUT_S) as waiting:
            await self._writer.acquire()
        if waiting.cancelled_caught:
            raise DatabaseUnavailable("The database is busy; try again.")
        try:
            yield
        finally:
            self._writer.release()

    @asynccontextmanager
    async def _finished(self, tx: Transaction) -> AsyncGenerator[Transaction]:
        try:
            await _connect(tx, {})
            yield tx
            for step in tx.info.get(LAST_STEPS, ()):
                await step(tx)
            with anyio.CancelScope(shield=True):
                await tx.commit()
            for tell in self.after_commit:
                tell(tx)
        finally:
            # Without the shield a cancelled task could leave its transaction, and with it
            # SQLite's only write lock, open until the garbage collector comes by.
            with anyio.CancelScope(shield=True):
                await tx.close()


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        from craftastic import _sqlite  # noqa: PLC0415 - a server on PostgreSQL has no use for it

        return {"connect_args": {"async_creator_fn": _sqlite.connection}}
    return {
        "pool_size": 10,
        "max_overflow": 10,
        "pool_pre_ping": True,
        "connect_args": {"timeout": 5, "command_timeout": 30},
    }


def at_the_end(tx: Transaction, step: LastStep) -> None:
    """Let a step run right before the transaction is committed, once however often it is given.

    What makes other transactions wait is best done there: they wait for little more than the
    commit then, and nothing that comes after it can wait for them.
    """
    steps: list[LastStep] = tx.info.setdefault(LAST_STEPS, [])
    if step not in steps:
        steps.append(step)


async def _connect(tx: Transaction, options: dict[str, bool]) -> None:
    # A connection whose making is cancelled half-way is lost with noise; the time is bounded by
    # the timeouts of pool, connection and lock.
    with anyio.CancelScope(shield=True):
        await tx.connection(execution_options=options)
    await anyio.lowlevel.checkpoint_if_cancelled()


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once when another writer
    # came between, whatever the busy timeout: what may write asks for the lock at its start.
    reads = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except (CraftasticError, IntegrityError):
        raise
    except Exception as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = str(getattr(cause, "sqlstate", None) or "")
        if state == PG_DISK_FULL or getattr(cause, "sqlite_errorcode", None) == SQLITE_FULL:
            raise DatabaseFull(
                "The database's disk is full: nothing was written.",
                details="The operator has to make space for it; try again after that.",
            ) from error
        if state in PG_ONE_OF_TWO:
            raise DatabaseUnavailable("The database was busy; try again.") from error
        if _is_outage(error, state):
            raise DatabaseUnavailable("The database does not answer; try again.") from error
        raise


def _is_outage(error: Exception, state: str) -> bool:
    if isinstance(error, DBAPIError):
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            return True
    # asyncpg lets the errors of connecting through as they are.
    elif isinstance(error, PoolTimeout | OSError | TimeoutError):
        return True
    return state[:2] in PG_OUTAGES


def violated(error: IntegrityError, *names: str) -> bool:
    """Tell whether a uniqueness error is about one of these indexes or column lists.

    PostgreSQL names the index, SQLite the columns (`sessions.environment_id, sessions.name`):
    pass both forms.
    """
    text = str(error.orig)
    return any(name in text for name in names)
