"""The way of a session's variables from the server into the environment of its shell."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from craftastic.errors import InvalidInput

MAX_BYTES = 128 << 10
MAX_COUNT = 200
TAKE_S = 5.0
"""How long a pane waits for its variables before its shell starts without them."""

GIVE_S = 8.0
"""How long the giving waits for the pane: longer, so that the pane is the one that gives up."""

PYTHON = "/usr/bin/python3"
"""The system's own, as for everything that the drivers start in a sandbox: what a user has put on
the PATH may be slow, or change the environment on its way.
"""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class BadSessionVariables(InvalidInput):
    """The variables of a session are too many, too large, or not possible in an environment."""

    code = "BAD_SESSION_VARIABLES"


def packed(variables: Mapping[str, str]) -> bytes:
    """Return the form in which a pane's first program takes its variables.

    Raises:
        BadSessionVariables: There are more than 200, they have more than 128 KiB together, a name
            is none, or a value has a NUL or is no text.
    """
    if len(variables) > MAX_COUNT:
        raise BadSessionVariables(f"A session can have at most {MAX_COUNT} variables.")
    for name, value in variables.items():
        if not NAME.fullmatch(name):
            raise BadSessionVariables("A variable's name has characters that are not allowed.")
        if "\0" in value:
            raise BadSessionVariables(f"The value of {name} must not contain NUL characters.")
    try:
        pairs = "".join(f"{name}={value}\0" for name, value in variables.items()).encode()
    except UnicodeEncodeError:  # its message would hold the values
        raise BadSessionVariables("A variable's value is not valid Unicode text.") from None
    if len(pairs) > MAX_BYTES:
        raise BadSessionVariables(
            f"A session's variables can have at most {MAX_BYTES >> 10} KiB together."
        )
    return b"%08d" % len(pairs) + pairs


def first_program(fifo: str) -> list[str]:
    """Return what a pane starts with instead of tmux's own choice, the login shell."""
    return [PYTHON, "-I", "-S", "-c", _source("_take.py"), fifo, f"{TAKE_S:g}"]


def giving(fifo: str) -> list[str]:
    """Return what gives the script's input to the pane's first program."""
    return [PYTHON, "-I", "-S", "-c", _source("_give.py"), fifo, f"{GIVE_S:g}"]


@cache
def _source(name: str) -> str:
    return (files("craftastic.tmux") / name).read_text("utf-8")
