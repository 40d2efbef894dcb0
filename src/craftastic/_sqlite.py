"""SQLite's connections as SQLAlchemy opens them, with an end that always comes."""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import aiosqlite

ITERATION_SIZE = 64
"""Rows that are fetched at once; the driver's own default."""


class SqliteConnection(aiosqlite.Connection):
    """A connection that may be stopped more than once.

    A cancelled query lets SQLAlchemy (2.1) close its connection in a task of its own, and when
    that is cancelled too, stop it at once: the task comes to stop what is stopped already. Then
    the driver (0.22.1) asks a thread that has ended and waits for its answer for ever, through
    every cancellation, and with it the end of the event loop.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, ITERATION_SIZE)
        # As SQLAlchemy does with what it makes itself: a forgotten connection must not keep the
        # process from ending.
        self._thread.daemon = True
        self._stop_asked = False
        self._stopping: asyncio.Future[Any] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        """Let the thread end after what it was asked for before; the first call counts."""
        if not self._stop_asked:
            self._stop_asked = True
            self._stopping = super().stop()
        return self._stopping


def connection(database: str, **options: Any) -> SqliteConnection:
    """Make a connection that opens when it is awaited; the options are those of `sqlite3`."""
    return SqliteConnection(partial(sqlite3.connect, database, **options))
