"""What git's answers look like on a terminal: no byte of a repository's reaches one raw."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

CODES = {"added": "32", "removed": "31", "hunk": "36", "header": "1", "number": "33"}
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")

Paint = Callable[[str, str], str]
"""Gives a text, which has no control characters any more, the colour of its role."""


def plain(text: str, _role: str) -> str:
    return text


def coloured(text: str, role: str) -> str:
    return f"\x1b[{CODES[role]}m{text}\x1b[0m" if text else ""


def visible(line: str) -> str:
    """Return one line in which each control character is a sign that can be seen.

    Tabs stay. Characters that turn the reading direction or have no width count too: what is
    looked at has to be what is there.
    """
    if line.replace("\t", "").isprintable():
        return line
    return "".join(_sign(char) for char in line)


def _sign(char: str) -> str:
    if char == "\t" or char.isprintable() or unicodedata.category(char) not in HIDDEN:
        return char
    number = ord(char)
    if number < 0x20 or number == 0x7F:  # noqa: PLR2004 - ASCII's control characters
        return f"^{chr(number ^ 0x40)}"
    return f"<U+{number:04X}>"


def file_name(name: str) -> str:
    """Return a file's name, in quotes where something in it would not be seen."""
    if name.isprintable() and name.strip() == name and not name.startswith('"'):
        return name
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(char if _sign(char) == char else f"\\u{ord(char):04x}" for char in quoted)


def without_escapes(text: str) -> str:
    """Return a program's output as lines of text: no colours, and no other control character."""
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(visible(line) for line in lines)


# ---- a status ---------------------------------------------------------------------------------


def status_lines(status: Row, paint: Paint, *, separator: str = "  ") -> Iterator[str]:
    """Give a status in git's short form, with the count of lines behind each name."""
    yield _branch_line(status, paint)
    if status.get("operation"):
        yield f"## {visible(str(status['operation']))} in progress"
    for file in status["files"]:
        counts = _counts(file, paint)
        line = f"{_code(file, paint)} {_names(file)}"
        yield f"{line}{separator}{counts}" if counts else line


def _branch_line(status: Row, paint: Paint) -> str:
    branch = visible(str(status["branch"]))
    if status.get("detached"):
        return "## HEAD (no branch)"
    if status.get("head") is None:
        return f"## No commits yet on {paint(branch, 'added')}"
    line = f"## {paint(branch, 'added')}"
    if status.get("upstream"):
        line += f"...{paint(visible(str(status['upstream'])), 'removed')}"
    apart = [f"{word} {status[word]}" for word in ("ahead", "behind") if status.get(word)]
    return f"{line} [{', '.join(apart)}]" if apart else line


def short_code(file: Row) -> str:
    """Return git's two columns, index and working tree; the API leaves the spaces out."""
    code = visible(str(file["status"]))[:2]
    if len(code) > 1:
        return code
    return f"{code} " if file["staged"] else f" {code}"


def _code(file: Row, paint: Paint) -> str:
    code = short_code(file)
    if file.get("untracked") or file.get("conflicted"):
        return paint(code, "removed")
    index, tree = code[0], code[1:]
    return (index if index == " " else paint(index, "added")) + (
        tree if tree == " " else paint(tree, "removed")
    )


def _names(file: Row) -> str:
    original = file.get("originalFilename")
    name = file_name(str(file["filename"]))
    return name if original is None else f"{file_name(str(original))} -> {name}"


def _counts(file: Row, paint: Paint) -> str:
    if file.get("binary"):
        return "binary"
    if file.get("added") is None:
        return ""
    added, deleted = f"+{file['added']}", f"-{file['deleted']}"
    return f"{paint(added, 'added')} {paint(deleted, 'removed')}"


# ---- a diff -----------------------------------------------------------------------------------


def diff_lines(text: str, paint: Paint) -> Iterator[str]:
    """Give a diff's lines; a line of a file is never taken for a heading."""
    in_hunk = False
    lines = text.split("\n")
    for line in lines[:-1] if lines[-1] == "" else lines:
        shown = visible(line)
        if line.startswith("diff --"):
            in_hunk = False
        elif line.startswith("@@"):
            in_hunk = True
            yield paint(shown, "hunk")
            continue
        if not in_hunk:
            yield paint(shown, "header")
        elif line.startswith(("+", "-")):
            yield paint(shown, "added" if line[0] == "+" else "removed")
        else:
            yield shown


def joined_diffs(answers: Sequence[Row]) -> dict[str, Any]:
    """Put the diffs of several paths together, in the form of one."""
    first = dict(answers[0])
    if len(answers) == 1:
        return first
    return first | {
        "diff": "".join(str(one["diff"]) for one in answers),
        "file": None,
        "files": [file for one in answers for file in one["files"]],
        "truncated": any(one["truncated"] for one in answers),
        "masked": any(one["masked"] for one in answers),
    }


# ---- a log that grows -------------------------------------------------------------------------

PROBE = 200


@dataclass(slots=True)
class GrowingLog:
    """Tells what is new in the newest part of a log, whose oldest lines fall off at some size."""

    _seen: str = ""

    def new(self, log: str, *, cut: bool = False, ended: bool = False) -> str:
        """Return the lines that were not returned yet.

        Args:
            log: The newest part, as it is now.
            cut: Whether older lines are missing; the first one may be half a line then.
            ended: Whether nothing will follow; before that half a line at the end waits.
        """
        log = without_escapes(log)
        if cut:
            log = log[log.find("\n") + 1 :]
        if not ended:
            log = log[: log.rfind("\n") + 1]
        if not log:
            return ""
        seen, self._seen = self._seen, log
        return log[_overlap(seen, log) :]


def _overlap(seen: str, log: str) -> int:
    """Return how much of the log's beginning is the end of what was seen."""
    if log.startswith(seen):
        return len(seen)
    at = seen.find(log[:PROBE])
    while at >= 0:
        if log.startswith(seen[at:]):
            return len(seen) - at
        at = seen.find(log[:PROBE], at + 1)
    return 0
