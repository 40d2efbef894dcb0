"""Databases that a test takes away for a while, each in the way that its kind can go away."""

import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.conftest import PostgresServer, free_port
from tests.leaks import RUN

SHM_LOCKS = (120, 8)
"""First byte and number of the locks in SQLite's -shm file: writers' and readers'. Source: SQLite's
documentation, "WAL-mode File Format", section 2.3."""


class Outage(Protocol):
    """A database that can be away."""

    @property
    def url(self) -> str: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...


@dataclass
class SqliteOutage:
    """Holds every lock of a SQLite file in write-ahead mode: nobody reads and nobody writes."""

    file: Path
    _held: int | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def begin(self) -> None:
        self._held = os.open(f"{self.file}-shm", os.O_RDWR | os.O_CLOEXEC)
        # Of the open file, not of the process: what else this process opens gives none back.
        start, length = SHM_LOCKS
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        fcntl.fcntl(self._held, fcntl.F_OFD_SETLKW, lock)  # it waits for a reader's or two

    def end(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


class OwnCluster(PostgresServer):
    """A second PostgreSQL, which may be ended or filled without harm to other tests."""

    def create_at(self, disk: Path) -> str:
        """Make a database whose tables are on a disk of their own, apart from the server's log."""
        place = disk / "tables"
        place.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(place, self.user)
        self.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
        self.sql("CREATE DATABASE small TABLESPACE small")
        return "small"

    def dump(self, url: str) -> None:
        """Read every row."""
        self._run("pg_dump", "--file", "/dev/null", url)


@dataclass
class PostgresOutage:
    """A PostgreSQL of the test's own, which ends as in a crash and comes back."""

    cluster: OwnCluster
    url: str

    def begin(self) -> None:
        self.cluster.halt()

    def end(self) -> None:
        self.cluster.run()


@contextmanager
def own_cluster(like: PostgresServer) -> Generator[OwnCluster]:
    """Run one until the end of the block."""
    folder = RUN.new_folder("pg", 0o700)
    if like.user is not None:
        shutil.chown(folder, like.user)
    cluster = OwnCluster(like.binaries, folder, free_port(), like.user, lasting=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def small_disk(size_kib: int) -> Generator[Path]:
    """Mount a file system in memory that is soon full."""
    folder = RUN.new_folder("disk", 0o711)
    subprocess.run(
        [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size_kib}k,mode=711",
            "craftastic-test",
            str(folder),
        ],
        check=True,
        capture_output=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Take the last byte that a disk has, and return the file that has it."""
    file = folder / "ballast"
    with file.open("ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while ballast.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return file


def sound(file: Path) -> str:
    """Return what SQLite says of a file's integrity: `ok`, or what is damaged."""
    with sqlite3.connect(file) as database:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])
