"""The way of a pane's own program from the server to the pane's first process."""

from functools import cache
from importlib.resources import files

from craftastic.errors import InvalidInput
from craftastic.tmux._variables import PYTHON, TAKE_S

MAX_BYTES = 4 << 20


class BadSessionProgram(InvalidInput):
    """The program of a session, with what it is to know, is too large."""

    code = "BAD_SESSION_PROGRAM"


def framed(program: bytes) -> bytes:
    """Return the form in which a pane's first process takes its program.

    Raises:
        BadSessionProgram: It has more than 4 MiB.
    """
    if len(program) > MAX_BYTES:
        raise BadSessionProgram(f"A session's program can have at most {MAX_BYTES >> 20} MiB.")
    return b"%08d" % len(program) + program


def beginning(fifo: str) -> list[str]:
    """Return what a pane starts with instead of tmux's own choice, the login shell."""
    return [PYTHON, "-I", "-S", "-c", _source(), fifo, f"{TAKE_S:g}"]


@cache
def _source() -> str:
    return (files("craftastic.tmux") / "_begin.py").read_text("utf-8")
