"""Which tmux session is which, whatever its user calls it. Pure.

A session carries its name in an option of ours too. A user who renames it finds it under its own
name again; one who changes the option as well has a session of their own.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

MARK = "@craftastic_session"
LISTED = f"#{{session_id}} #{{{MARK}}} #{{session_name}}"
_LINE = re.compile(r"(\$[0-9]{1,9}) ((?:[A-Za-z0-9_][A-Za-z0-9_-]{0,79})?) (.+)")
_OTHER_MARK = re.compile(r"(\$[0-9]{1,9}) .* (.+)")


@dataclass(frozen=True, slots=True)
class Listed:
    """One session; `mark` is the name that it was made with, empty when that is not known."""

    id: str
    mark: str
    name: str


def listed(text: str) -> list[Listed]:
    """Read what `list-sessions` answered in the form of `LISTED`; it may say anything."""
    found: list[Listed] = []
    for line in text.split("\n"):
        if (match := _LINE.fullmatch(line)) is not None:
            found.append(Listed(match[1], match[2], match[3]))
        elif (match := _OTHER_MARK.fullmatch(line)) is not None:
            found.append(Listed(match[1], "", match[2]))
    return found


def naming_back(found: Sequence[Listed]) -> list[str]:
    """Return the words of tmux's command line that name sessions back; none when all are right.

    Of several with one mark, the one that has its name is the right one, else the oldest. Names
    may have been exchanged: all take leave of theirs first.
    """
    right = {one.mark for one in found if one.mark == one.name}
    wrong: dict[str, Listed] = {}
    for one in sorted(found, key=lambda one: int(one.id[1:])):
        if one.mark and one.mark not in right:
            wrong.setdefault(one.mark, one)
    # Whoever else took one of the names has to give it up.
    others = [one for one in found if one.name in wrong and one not in wrong.values()]
    words: list[str] = []
    for one in [*wrong.values(), *others]:
        # A name that nobody inside can have taken before.
        words += [";", "rename-session", "-t", one.id, f"renamed-{secrets.token_hex(8)}"]
    for mark, one in wrong.items():
        words += [";", "rename-session", "-t", one.id, mark]
    return words[1:]
