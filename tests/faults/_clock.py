"""A wall clock that jumps under a running server; what measures durations goes on evenly."""

import os
from pathlib import Path

from tests.e2e.harness import Server

# Python runs a module of this name at its start. SQLite's own clock is the machine's as well.
JUMPING = """
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from craftastic.clock import SystemClock

FILE = Path({file!r})
true_time, true_connect = time.time, sqlite3.connect


def ahead():
    return float(FILE.read_text())


def connect(*arguments, **options):
    connection = true_connect(*arguments, **options)
    connection.create_function(
        "julianday", 1, lambda _: (true_time() + ahead()) / 86400 + 2440587.5
    )
    return connection


time.time = lambda: true_time() + ahead()
sqlite3.connect = connect
SystemClock.now = lambda _: datetime.now(UTC) + timedelta(seconds=ahead())
"""


class JumpingClock:
    """Shifts the wall clock of a server, its SQLite's too, while it runs.

    Args:
        folder: Where the clock is kept.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._file = folder / "ahead"
        (folder / "sitecustomize.py").write_text(JUMPING.format(file=str(self._file)))
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Let the clock be this much ahead of the true one from now on; negative is behind."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds}\n")
        draft.replace(self._file)

    def under(self, server: Server) -> None:
        """Let all further starts of the server be under this clock."""
        paths = [str(self._folder), server.environment.get("PYTHONPATH", "")]
        server.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
