"""Long texts for a person: through the user's pager on a terminal, straight out otherwise."""

import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DEFAULT = "less"
LESS_OPTIONS = "-FRX"
"""Colours, no stop for what fits on one screen, and the screen is left as it was."""


def colours() -> bool:
    """Whether standard output is a terminal that takes colours from us (`NO_COLOR` counts)."""
    from rich.console import Console

    console = Console()
    return console.is_terminal and console.color_system is not None and not console.no_color


def show_lines(lines: Iterable[str], pager: str | None) -> None:
    """Print lines; on a terminal through the pager, which may be left before their end.

    Args:
        lines: Without control characters, but for our own colours.
        pager: The user's command; None for `less`, empty for none.
    """
    command = _command(pager) if sys.stdout.isatty() else []
    if not command or not _paged(lines, command):
        for line in lines:
            print(line)


def _command(pager: str | None) -> list[str]:
    try:
        words = shlex.split(DEFAULT if pager is None else pager)
    except ValueError:
        words = []
    if words and Path(words[0]).name == "less":
        words.append(LESS_OPTIONS)
    return [] if words == ["cat"] else words


def _paged(lines: Iterable[str], command: list[str]) -> bool:
    """Show lines in the pager; False when there is no such program."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
    except OSError:
        return False
    assert process.stdin is not None
    # The reader has seen enough when the pipe breaks; Ctrl-C is the pager's own affair.
    with suppress(BrokenPipeError, KeyboardInterrupt):
        for line in lines:
            process.stdin.write(f"{line}\n")
    with suppress(BrokenPipeError):
        process.stdin.close()
    while True:
        try:
            process.wait()
        except KeyboardInterrupt:
            continue
        return True
