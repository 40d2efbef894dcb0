"""Count the lines of new files; runs in a sandbox, where it is given to `python3 -c` as a text.

Input: `git status --porcelain=v2 -z`. Output: as `git diff --numstat -z`. Bounded, and it opens
nothing but regular files: a pipe would keep it waiting, a link would lead elsewhere.
"""

import os
import stat
import sys

MAX_FILES = 1000
MAX_FILE_BYTES = 1 << 20
MAX_BYTES = 16 << 20
BINARY_IN = 8000


def lines_of(name: bytes, most: int) -> tuple[bytes, int] | None:
    """Return a file's number of lines, `-` for a binary one, and its size; None: not counted."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            return None
        content = os.read(file, most)
    finally:
        os.close(file)
    if b"\0" in content[:BINARY_IN]:
        return b"-", len(content)
    unended = bool(content) and not content.endswith(b"\n")
    return b"%d" % (content.count(b"\n") + unended), len(content)


def main() -> None:
    """Count the files that standard input lists as new."""
    left, output = MAX_BYTES, sys.stdout.buffer
    names = [one[2:] for one in sys.stdin.buffer.read().split(b"\0") if one.startswith(b"? ")]
    for name in names[:MAX_FILES]:
        counted = lines_of(name, min(MAX_FILE_BYTES, left))
        if counted is not None:
            left -= counted[1]
            deleted = b"-" if counted[0] == b"-" else b"0"
            output.write(b"%b\t%b\t%b\0" % (counted[0], deleted, name))


if __name__ == "__main__":
    main()
