"""What a variable may be called, and how much of it there may be."""

import re

from craftastic.errors import InvalidInput

MAX_PER_SCOPE = 100
MAX_VALUE_BYTES = 32 << 10
MAX_SCOPE_BYTES = 64 << 10
"""What the variables of one scope may have together, names included: a session gets those of two
scopes, and its shell can be started with 128 KiB.
"""

PAIR_BYTES = 2
"""What a variable takes beside its name and value: `=` and the NUL after it."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
OWN_PREFIX = "CRAFTASTIC_"

RESERVED = {
    # The sandbox's account: git, shells and the product's own commands find their files by these.
    **dict.fromkeys(("HOME", "USER", "LOGNAME", "SHELL"), "it names the sandbox's account"),
    # The login shell sets it anew, so a value given here would silently not count.
    "PATH": "the shell sets it itself; change it in ~/.profile",
    # What is at the other end of the terminal is known to tmux alone.
    **dict.fromkeys(
        ("TERM", "COLORTERM", "TMUX", "TMUX_PANE", "COLUMNS", "LINES"), "it belongs to the terminal"
    ),
    # A shell counts these itself, takes them for read-only, or ignores what it inherits.
    **dict.fromkeys(
        (
            *("_", "PWD", "OLDPWD", "SHLVL", "IFS", "PPID", "UID", "EUID", "BASH"),
            *("BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "BASH_VERSION"),
        ),
        "the shell sets it itself",
    ),
    # A wrong value keeps every program from starting, the shell first: there would be no terminal
    # left to see it in.
    **dict.fromkeys(("LD_PRELOAD", "LD_AUDIT"), "it could keep every program from starting"),
}
"""Names that are refused, and why. All others are the user's: nothing of the product reads them."""


class BadVariableName(InvalidInput):
    """A variable cannot have this name; the message says why."""

    code = "BAD_VARIABLE_NAME"


class BadVariableValue(InvalidInput):
    """A variable cannot have this value; the message says why, without it."""

    code = "BAD_VARIABLE_VALUE"


def check_name(name: str) -> str:
    """Return the name as it is.

    Raises:
        BadVariableName: It has other characters than ASCII letters, digits and `_`, begins with a
            digit, is longer than 128 characters, or is reserved.
    """
    if not NAME.fullmatch(name):
        raise BadVariableName(
            "A variable's name has letters, digits and _ only, begins with no digit and has at"
            " most 128 characters"
        )
    if name.upper().startswith(OWN_PREFIX):
        raise BadVariableName(
            f"{name} cannot be set: names with {OWN_PREFIX} are the product's own"
        )
    if name in RESERVED:
        raise BadVariableName(f"{name} cannot be set: {RESERVED[name]}")
    return name


def size_of(value: str) -> int:
    """Return a value's length in bytes.

    Raises:
        BadVariableValue: It is longer than 32 KiB, has a NUL, or is no text.
    """
    if "\0" in value:
        raise BadVariableValue("A variable's value must not contain NUL characters")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # its message would hold the value
        raise BadVariableValue("A variable's value must be valid Unicode text") from None
    if size > MAX_VALUE_BYTES:
        raise BadVariableValue(f"A variable's value can have at most {MAX_VALUE_BYTES >> 10} KiB")
    return size
