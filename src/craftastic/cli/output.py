"""What commands print, and what they ask: for people, for scripts, never a control character."""

import getpass
import json
import signal
import sys
import unicodedata
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from craftastic.errors import InvalidInput, Unauthenticated

MAX_SECRET_BYTES = 4096


def printable(text: object) -> str:
    """Return one line without control characters: a name or message may come from a stranger.

    An escape sequence in a repository's name could otherwise drive the user's terminal.
    """
    return "".join(
        " " if char in "\r\n\t" else char
        for char in str(text)
        if char in "\r\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co"}
    )


def say(text: str) -> None:
    """Tell the user something that is not the command's result: standard error, at once."""
    print(printable(text), file=sys.stderr, flush=True)


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_ids(ids: Sequence[object]) -> None:
    for one in ids:
        print(printable(one))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headings: a table on a terminal, tab-separated fields otherwise."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in ([column.lower() for column in columns], *cells):
            print("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def _interruptible() -> Generator[None]:
    """Let Ctrl-C end a question at once.

    The event loop's own handler only marks its task, which a blocking read never notices.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ask(question: str) -> str:
    """Ask for a line; empty answers are asked again.

    Raises:
        Unauthenticated: The input ended.
    """
    while True:
        print(f"{question}: ", end="", file=sys.stderr, flush=True)
        with _interruptible():
            line = sys.stdin.readline()
        if not line:
            raise Unauthenticated("The input ended before the question was answered.")
        if line.strip():
            return line.strip()


def ask_secret(question: str) -> str:
    """Ask for a secret without showing it.

    Raises:
        Unauthenticated: The input ended.
    """
    try:
        with _interruptible():
            return getpass.getpass(f"{question}: ", stream=sys.stderr)
    except EOFError as error:
        raise Unauthenticated("The input ended before the question was answered.") from error


def read_secret_line() -> str:
    """Return the first line of standard input: scripts' way, which keeps secrets out of argv.

    Raises:
        InvalidInput: There is none, or it is longer than 4 KiB.
    """
    line = sys.stdin.readline(MAX_SECRET_BYTES + 1)
    secret = line.rstrip("\r\n")
    if not secret:
        raise InvalidInput("Standard input holds no secret; pipe it into the command.")
    if len(line) > MAX_SECRET_BYTES:
        raise InvalidInput("The secret on standard input is too long.")
    return secret


def choose(what: str, options: Sequence[str]) -> int:
    """Let the user pick one of the options and return its place."""
    for number, option in enumerate(options, 1):
        print(f"  {number:2}  {printable(option)}", file=sys.stderr)
    while True:
        answer = ask(f"Which {what} (1-{len(options)})")
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(options):
            return int(answer) - 1
