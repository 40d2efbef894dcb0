"""Every row of every table of a database, for the gate of secrets."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg

ANSWER_S = 20.0
TABLES = """
select c.relname, query_to_xml(format('select * from %I', c.relname), true, true, '')::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind = 'r'
"""
"""One statement for all: a round trip for each table would cost every test some milliseconds."""

Rows = list[tuple[str, bytes]]
"""Cells of a table, each with the name of its column."""


def file_of(url: str) -> Path | None:
    """Return the file of an SQLite database; None when the URL is of another kind."""
    kind, _, path = url.partition(":///")
    return Path(path) if kind.startswith("sqlite") else None


def is_there(url: str) -> bool:
    """Tell whether it is a database in a file that has not been removed."""
    file = file_of(url)
    return file is not None and file.is_file()


def tables(url: str) -> Iterator[tuple[str, Rows]]:
    """Read every table; nothing of a file that is not there, or is no database.

    Args:
        url: As an operator or the engine writes it.
    """
    file = file_of(url)
    if file is None:
        yield from _postgres(url)
    elif file.is_file():
        yield from _sqlite(file)


def as_bytes(rows: Rows) -> tuple[bytes, Callable[[bytes], str]]:
    """Return all cells as one text, and a function that names the column of a part of it."""

    def part(form: bytes) -> str:
        columns = sorted({column for column, cell in rows if form in cell})
        return f", column {' '.join(columns)}"

    return b"\n".join(cell for _, cell in rows), part


def _sqlite(file: Path) -> Iterator[tuple[str, Rows]]:
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            found = connection.execute("select name from sqlite_master where type = 'table'")
            for (raw,) in found.fetchall():
                name = raw.decode()
                cursor = connection.execute(f'select * from "{name}"')  # noqa: S608 - its own name
                columns = [one[0] for one in cursor.description]
                rows = [
                    (column, cell if isinstance(cell, bytes) else str(cell).encode())
                    for row in cursor
                    for column, cell in zip(columns, row, strict=True)
                    if isinstance(cell, bytes | str)
                ]
                if rows:
                    yield name, rows
    except sqlite3.DatabaseError:
        return  # a test has damaged it, or holds it


CELL = re.compile(r"<([a-z_0-9]+)>([^<]+)</\1>")
ESCAPED = (("&lt;", "<"), ("&gt;", ">"), ("&#x0d;", "\r"), ("&amp;", "&"))


def _postgres(url: str) -> Iterator[tuple[str, Rows]]:
    address = re.sub(r"^postgresql\+\w+", "postgresql", url)
    answers: list[tuple[str, str]] = []
    failures: list[Exception] = []

    async def ask() -> None:
        async with asyncio.timeout(ANSWER_S):
            connection = await asyncpg.connect(address)
            try:
                answers.extend([(row[0], row[1]) for row in await connection.fetch(TABLES)])
            finally:
                await connection.close()

    def run() -> None:
        try:
            asyncio.run(ask())
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=run)  # the tests' own loop may be running in this one
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    for table, text in answers:
        rows: Rows = []
        for column, content in CELL.findall(text):
            for escape, meant in ESCAPED:
                content = content.replace(escape, meant)  # noqa: PLW2901
            rows.append((column, content.encode()))
        if rows:
            yield table, rows
