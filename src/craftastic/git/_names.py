"""Names from outside: of files, branches, commits and people. Pure."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Sequence

from craftastic.git._refusals import BadCommitId, BadFileName, BadIdentity, BadRef

MAX_NAME_BYTES = 4096
MAX_REF_BYTES = 400
MAX_IDENTITY_BYTES = 512

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Source: git-check-ref-format(1); and what gitrevisions(7) gives a meaning.
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
# Source: git's ident.c, crud(): what it takes off the ends of a name.
_CRUD = "".join(chr(one) for one in range(33)) + ".,:;<>\"\\'"


def check_file_name(raw: bytes) -> bytes:
    """Return the name of a file or folder in its plain form; empty for the whole tree.

    Raises:
        BadFileName: It is absolute, leads out of the worktree, is too long or has a NUL.
    """
    if b"\0" in raw:
        raise BadFileName("The name of a file must not contain NUL characters.")
    if len(raw) > MAX_NAME_BYTES:
        raise BadFileName(f"The name of a file must have at most {MAX_NAME_BYTES} bytes.")
    if raw.startswith(b"/"):
        raise BadFileName("The name of a file must be relative to the worktree's top folder.")
    parts = raw.split(b"/")
    if b".." in parts:
        raise BadFileName("The name of a file must not lead out of the worktree.")
    return b"/".join(part for part in parts if part not in {b"", b"."})


def chosen_name(file: str | None, encoded: str | None) -> bytes:
    """Return the one name that a request gives, as text or in base64; empty for none.

    Raises:
        BadFileName: It cannot be the name of a file, or there are two.
    """
    if file and encoded:
        raise BadFileName("Give a file's name as text or in base64, not both.")
    return check_file_name(from_base64(encoded) if encoded else (file or "").encode())


def chosen_names(files: Sequence[str], encoded: Sequence[str]) -> list[bytes]:
    """Return the names that a request lists, each of something in the worktree.

    Raises:
        BadFileName: One of them cannot be the name of a file.
    """
    raw = [*(one.encode() for one in files), *(from_base64(one) for one in encoded)]
    names = [check_file_name(one) for one in raw]
    if b"" in names:
        raise BadFileName("The name of a file must not be empty; leave the list out for all files.")
    return list(dict.fromkeys(names))


def from_base64(text: str) -> bytes:
    """Return the bytes of a name that was sent in base64.

    Raises:
        BadFileName: It is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadFileName("The name of a file is not valid base64.") from None


def shown(raw: bytes) -> str:
    """Return a name as text; what is not UTF-8 comes as replacement characters."""
    return raw.decode(errors="replace")


def exact(raw: bytes) -> str | None:
    """Return in base64 a name whose text does not tell its bytes, None for any other."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode()
    return None


def check_ref(name: str) -> str:
    """Return the name of a branch, tag or commit, unchanged, when it can be one.

    Raises:
        BadRef: It cannot, or would mean a calculation.
    """
    if (
        not name
        or len(name.encode()) > MAX_REF_BYTES
        or _NO_REF.search(name)
        or name.startswith(("-", "/"))
    ):
        raise BadRef("This cannot be the name of a branch, a tag or a commit.")
    return name


def check_commit_id(text: str | None) -> str:
    """Return a whole commit hash in lower case, empty for None.

    Raises:
        BadCommitId: It is something else.
    """
    if text is None:
        return ""
    if not _HASH.fullmatch(text.lower()):
        raise BadCommitId("The expected commit must be given as its whole hash.")
    return text.lower()


def check_identity(name: str, email: str) -> tuple[str, str]:
    """Return whom a commit is by, unchanged, when git can write it as it is.

    Raises:
        BadIdentity: It would break or change the header of the commit.
    """
    for what, text in (("name", name), ("e-mail address", email)):
        if any(one in "<>" or unicodedata.category(one) in {"Cc", "Cs"} for one in text):
            raise BadIdentity(
                f"Your account's {what} has a line break, a control character, < or > in it, which "
                "a commit cannot carry. Change it in your account."
            )
        if not text.strip(_CRUD) or len(text.encode()) > MAX_IDENTITY_BYTES:
            raise BadIdentity(
                f"Your account's {what} is empty or too long for a commit. Change it in your "
                "account."
            )
    return name, email
