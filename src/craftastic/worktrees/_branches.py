"""Branch names: which are accepted, when two are one, and how one becomes a folder. Pure."""

import hashlib
import re
import unicodedata

from craftastic.errors import InvalidInput

MAX_BRANCH_BYTES = 200
MAX_COMPONENT_BYTES = 120
MAX_FOLDER_CHARACTERS = 200
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")

# Source: git-check-ref-format(1), rules 1 to 10, and gitrevisions(7) for `@{`.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


class BadBranchName(InvalidInput):
    """git, or this product, takes no branch of that name."""

    code = "BRANCH_NAME_INVALID"


def check_branch(branch: str) -> str:
    """Return the name of a branch, unchanged, when it may be used.

    The rules are those of `git check-ref-format --branch`, and stricter ones where a name that
    git takes would mislead: `@`, `refs/…`, names that Unicode writes in more than one way.

    Raises:
        BadBranchName: With the first rule that is broken.
    """
    if (fault := _fault(branch)) is not None:
        raise BadBranchName(f"The branch name {fault}.")
    return branch


def _fault(branch: str) -> str | None:
    if not branch:
        return "is empty"
    if any(
        unicodedata.category(one) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for one in branch
    ):
        return "has an invisible character"
    if len(branch.encode()) > MAX_BRANCH_BYTES:
        return f"is longer than {MAX_BRANCH_BYTES} bytes"
    if unicodedata.normalize("NFC", branch) != branch:
        return "is not in Unicode's composed form (NFC)"
    return _git_fault(branch)


def _git_fault(branch: str) -> str | None:
    if (match := _FORBIDDEN.search(branch)) is not None:
        return f"must not contain {match[0]!r}"
    if branch in {"@", "HEAD"} or branch.startswith(("-", "refs/")):
        return "must not be @ or HEAD, nor begin with - or refs/"
    if branch.startswith("/") or branch.endswith(("/", ".")):
        return "must not begin or end with /, nor end with a dot"
    for component in branch.split("/"):
        if component.startswith(".") or component.endswith(".lock"):
            return "must have no part that begins with a dot or ends with .lock"
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            return f"must have no part longer than {MAX_COMPONENT_BYTES} bytes"
    return None


def branch_key(branch: str) -> str:
    """Return what two names share that some file system or reader takes for one."""
    folded = unicodedata.normalize("NFC", branch).casefold()
    return unicodedata.normalize("NFC", folded)


def conflicting(key: str, other: str) -> bool:
    """Tell whether one key is a folder of the other: git cannot have both branches."""
    return key.startswith(f"{other}/") or other.startswith(f"{key}/")


def encode_branch(branch: str) -> str:
    """Return the relative folder of a branch: one for each branch, on every file system.

    Everything but ASCII letters, digits, `_`, `-`, `/` and dots inside a part is percent-escaped
    in capitals, `%` too, so that different names have different folders. Parts that are special
    somewhere (a leading or trailing dot) come out escaped. Capital letters stay readable: two live
    branches that differ by case alone are refused by `branch_key`.
    """
    return "/".join(_encode_component(component) for component in branch.split("/"))


def _encode_component(component: str) -> str:
    raw = component.encode()
    last = len(raw) - 1
    encoded = "".join(
        chr(byte) if byte in PLAIN or (byte == ord(".") and 0 < at < last) else f"%{byte:02X}"
        for at, byte in enumerate(raw)
    )
    if len(encoded) <= MAX_FOLDER_CHARACTERS:
        return encoded
    # File systems stop at 255. `%=` begins no escape, so nothing else is written like this.
    digest = hashlib.sha256(raw).hexdigest()
    return f"{encoded[: MAX_FOLDER_CHARACTERS - 80]}%={digest}"
