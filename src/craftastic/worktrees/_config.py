"""What a repository says about its worktrees: `.craftastic/config.toml`, `.worktreeinclude`. Pure.

Both are hostile bytes: bounded before they are parsed, and parsed in bounded time.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from craftastic.errors import Conflict

CONFIG_FILE = ".craftastic/config.toml"
INCLUDE_FILE = ".worktreeinclude"
MAX_FILE_BYTES = 64 << 10

MAX_COMMANDS = 16
MAX_STEPS = 50
MAX_TEXT_CHARACTERS = 16_384
MAX_PATTERNS = 500
MAX_PATTERN_CHARACTERS = 1000
MAX_WARNINGS = 20
DEFAULT_SETUP_TIMEOUT_S = 1800
MAX_SETUP_TIMEOUT_S = 86_400

MAX_DOTS_IN_A_LINE = 200
"""The parser's time grows with the square of the parts of a key: 32,000 parts take 18 s."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
WORKTREE_KEYS = ("copy", "setup", "teardown", "setup_timeout")


class WorktreeConfigInvalid(Conflict):
    """The repository's `.craftastic/config.toml` cannot be used; the message says why."""

    code = "WORKTREE_CONFIG_INVALID"


@dataclass(frozen=True, slots=True)
class WorktreeConfig:
    """What to do with a worktree.

    Args:
        copy: Patterns, as in a `.gitignore`, of ignored files that a new worktree gets.
        setup: Texts for the shell, run in turn in a new worktree.
        teardown: The same, run before a worktree is removed.
        setup_timeout_s: How long the setup may take, in seconds.
        commands: Named texts for the shell, run on request.
        warnings: What was left aside, in plain words.
        error: Why the file could not be used; nothing of it counts then.
    """

    copy: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    teardown: tuple[str, ...] = ()
    setup_timeout_s: int = DEFAULT_SETUP_TIMEOUT_S
    commands: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()
    error: str | None = None


def is_command_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file as the sandbox gave it: its first bytes, or why there are none."""

    content: bytes | None = None
    fault: str | None = None


def read_config(config: RawFile, include: RawFile) -> WorktreeConfig:
    """Return what both files say together; what is wrong is told in it, never raised."""
    warnings: list[str] = []
    patterns = _included(include, warnings)
    try:
        parsed = _parsed(config, warnings)
    except WorktreeConfigInvalid as error:
        return WorktreeConfig(copy=patterns, warnings=_few(warnings), error=error.message)
    return WorktreeConfig(
        copy=(parsed.copy + patterns)[:MAX_PATTERNS],
        setup=parsed.setup,
        teardown=parsed.teardown,
        setup_timeout_s=parsed.setup_timeout_s,
        commands=parsed.commands,
        warnings=_few(warnings),
    )


def _few(warnings: list[str]) -> tuple[str, ...]:
    return tuple(warnings[:MAX_WARNINGS])


def _included(include: RawFile, warnings: list[str]) -> tuple[str, ...]:
    if include.fault is not None or include.content is None:
        if include.fault is not None:
            warnings.append(f"{INCLUDE_FILE} {include.fault}.")
        return ()
    if len(include.content) > MAX_FILE_BYTES:
        warnings.append(f"{INCLUDE_FILE} is longer than {MAX_FILE_BYTES >> 10} KiB.")
        return ()
    lines = include.content.decode(errors="surrogateescape").split("\n")
    found = [line.removesuffix("\r") for line in lines]
    wanted = [one for one in found if one.strip() and not one.startswith("#") and "\0" not in one]
    if len(wanted) > MAX_PATTERNS:
        warnings.append(f"{INCLUDE_FILE} has more than {MAX_PATTERNS} patterns: the first count.")
    return tuple(wanted[:MAX_PATTERNS])


def _parsed(config: RawFile, warnings: list[str]) -> WorktreeConfig:
    if config.fault is not None:
        raise WorktreeConfigInvalid(f"{CONFIG_FILE} {config.fault}.")
    if config.content is None:
        return WorktreeConfig()
    root = _tables(config.content)
    worktree = _table(root, "worktree")
    unknown = [name for name in root if name not in {"worktree", "commands"}]
    unknown += [f"worktree.{name}" for name in worktree if name not in WORKTREE_KEYS]
    warnings += [f"{CONFIG_FILE}: {_shown(name)} means nothing." for name in unknown]
    return WorktreeConfig(
        copy=_patterns(worktree.get("copy", [])),
        setup=_steps(worktree.get("setup", []), "worktree.setup"),
        teardown=_steps(worktree.get("teardown", []), "worktree.teardown"),
        setup_timeout_s=_timeout(worktree.get("setup_timeout", DEFAULT_SETUP_TIMEOUT_S)),
        commands=_commands(_table(root, "commands")),
    )


def _tables(content: bytes) -> Mapping[str, object]:
    if len(content) > MAX_FILE_BYTES:
        raise _wrong(f"is longer than {MAX_FILE_BYTES >> 10} KiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _wrong("is not UTF-8") from None
    if any(line.count(".") > MAX_DOTS_IN_A_LINE for line in text.split("\n")):
        raise _wrong(f"has more than {MAX_DOTS_IN_A_LINE} dots in one line")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _wrong("is nested too deeply") from None
    except ValueError as error:  # of the syntax, of a number, of a date
        raise _wrong(f"is not valid TOML: {_shown(str(error), 200)}") from None


def _table(root: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = root.get(name, {})
    if not isinstance(found, dict):
        raise _wrong(f"must have a table [{name}], not a value")
    return cast("dict[str, object]", found)


def _patterns(value: object) -> tuple[str, ...]:
    found = cast("list[object]", value) if isinstance(value, list) else None
    if found is None or not all(isinstance(one, str) for one in found):
        raise _wrong("must have a list of texts as worktree.copy")
    patterns = tuple(str(one) for one in found)
    if len(patterns) > MAX_PATTERNS:
        raise _wrong(f"must have at most {MAX_PATTERNS} patterns in worktree.copy")
    for one in patterns:
        if len(one) > MAX_PATTERN_CHARACTERS or any(bad in one for bad in "\0\r\n"):
            raise _wrong("has a pattern in worktree.copy that is too long or has a line break")
    return patterns


def _steps(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    found = cast("list[object]", value) if isinstance(value, list) else None
    if found is None or not all(isinstance(one, str) for one in found):
        raise _wrong(f"must have a text or a list of texts as {name}")
    if len(found) > MAX_STEPS:
        raise _wrong(f"must have at most {MAX_STEPS} texts in {name}")
    return tuple(text for one in found if (text := _text(str(one), name)).strip())


def _timeout(value: object) -> int:
    # True is an int for Python, and no number of seconds.
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("must have a whole number of seconds as worktree.setup_timeout")
    if not 1 <= value <= MAX_SETUP_TIMEOUT_S:
        raise _wrong(f"must have 1 to {MAX_SETUP_TIMEOUT_S} seconds as worktree.setup_timeout")
    return value


def _commands(table: Mapping[str, object]) -> dict[str, str]:
    if len(table) > MAX_COMMANDS:
        raise _wrong(f"must have at most {MAX_COMMANDS} commands")
    commands: dict[str, str] = {}
    for name, value in table.items():
        if not is_command_name(name):
            raise _wrong(
                f"has a command {_shown(name)}: names are up to 64 letters, digits and . _ : -"
            )
        if not isinstance(value, str) or not value.strip():
            raise _wrong(f"must have a text as commands.{_shown(name)}")
        commands[name] = _text(value, f"commands.{_shown(name)}")
    return commands


def _text(value: str, name: str) -> str:
    if len(value) > MAX_TEXT_CHARACTERS or "\0" in value:
        raise _wrong(f"has a text as {name} that is too long or has a NUL")
    return value


def _wrong(what: str) -> WorktreeConfigInvalid:
    return WorktreeConfigInvalid(f"{CONFIG_FILE} {what}.")


def _shown(text: str, limit: int = 60) -> str:
    printable = "".join(one if one.isprintable() else "?" for one in text[:limit])
    return printable if len(text) <= limit else f"{printable}…"
