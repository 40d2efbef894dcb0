"""Reads `.env` files: the part of their many dialects that all of them understand alike.

What one program expands, another takes as it is and a third refuses (`$NAME`, backquotes, quotes in
the middle, backslashes outside of quotes), is refused here with the line's number: a wrong value
that nobody sees costs more than a line to mend. No message shows a value.
"""

import re
from collections.abc import Iterator

from craftastic.errors import CraftasticError, InvalidInput
from craftastic.variables._rules import check_name, size_of

MAX_FILE_BYTES = 1 << 20

_BLANK = re.compile(r"[ \t]*(#.*)?")
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s='\"#]+)=")
_PLAIN = re.compile(r"[^'\"\\`$]*")
_COMMENT = re.compile(r"[ \t]+#.*|[ \t]+$")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$", "`": "`"}
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_HINT = "put the value into single quotes to take it as it is"


class BadDotenv(InvalidInput):
    """A line of the file has no meaning that is certain; the message says which and why."""

    code = "BAD_DOTENV"


def parse(content: bytes) -> dict[str, str]:
    """Return the variables of a `.env` file in their order.

    Raises:
        BadDotenv: Something in it is not certain, or a variable cannot be set; see the message.
    """
    if len(content) > MAX_FILE_BYTES:
        raise BadDotenv(f"The file has more than {MAX_FILE_BYTES >> 10} KiB.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadDotenv("The file is not UTF-8 text.") from None
    found: dict[str, str] = {}
    for number, name, value in _lines(text.replace("\r\n", "\n")):
        if name in found:
            raise BadDotenv(f"Line {number}: {name} is there twice.")
        try:
            check_name(name)
            size_of(value)
        except CraftasticError as error:
            raise BadDotenv(f"Line {number}: {error.message}.") from None
        found[name] = value
    return found


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, name and value of each assignment; a quoted value may go over lines."""
    position, number = 0, 1
    while position < len(text):
        end = _end_of_line(text, position)
        if _BLANK.fullmatch(text, position, end):
            position, number = end + 1, number + 1
            continue
        name = _NAME.match(text, position, end)
        if name is None:
            raise BadDotenv(f"Line {number} is not NAME=value, without spaces around the `=`.")
        value, after = _value(text, name.end(), number)
        yield number, name[1], value
        number += text.count("\n", position, after)
        position = after


def _value(text: str, start: int, number: int) -> tuple[str, int]:
    """Return the value that begins here, and where the next line begins."""
    for quoted in (_SINGLE, _DOUBLE):
        if text.startswith(quoted.pattern[0], start):
            match = quoted.match(text, start)
            if match is None:
                raise BadDotenv(f"Line {number}: the quote is not closed.")
            end = _end_of_line(text, match.end())
            if not _BLANK.fullmatch(text, match.end(), end):
                raise BadDotenv(f"Line {number}: something follows the closing quote.")
            value = match[1] if quoted is _SINGLE else _unescaped(match[1], number)
            return value, end + 1
    end = _end_of_line(text, start)
    line = _COMMENT.sub("", text[start:end])
    if line.startswith("#") or not _PLAIN.fullmatch(line):
        raise BadDotenv(f"Line {number}: what the value is, is not certain; {_HINT}.")
    if line[:1].isspace():
        raise BadDotenv(f"Line {number} is not NAME=value, without spaces around the `=`.")
    return line, end + 1


def _unescaped(text: str, number: int) -> str:
    def meaning(match: re.Match[str]) -> str:
        found = _ESCAPES.get(match[0][1:])
        if found is None:
            raise BadDotenv(
                f"Line {number}: {match[0][:1]} in double quotes is not certain; {_HINT}."
            )
        return found

    return re.sub(r"\\.?|`|\$", meaning, text, flags=re.DOTALL)


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
