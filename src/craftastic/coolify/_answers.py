"""Coolify's answers made values, and what may be put into a question. Pure.

An answer is whatever somebody's server chose to send: each field is checked for its type, each
text is cleaned and bounded, each list has an end.

Source: Coolify v4.3.11, `Api/DeployController.php`, `Api/ApplicationsController.php`,
`ApplicationDeploymentQueue.php`, `ApplicationDeploymentStatus.php`.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, cast

from craftastic.coolify.errors import (
    BadApplicationId,
    BadCommit,
    BadCoolifyUrl,
    CoolifyUnavailable,
)

MAX_URL_CHARS = 300
MAX_NAME_CHARS = 200
MAX_MESSAGE_CHARS = 300
MAX_PATH_CHARS = 500
MAX_LINE_CHARS = 8192
MAX_LOG_CHARS = 1 << 20
MAX_LIST = 500
MAX_LINES = 10_000
MAX_NUMBER = (1 << 31) - 1
MAX_VALUES = 200_000
MAX_VALUES_OF_LOG = 300_000
"""Most values in an answer, about. Each takes many times the memory, and the time, of its text."""


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_VERSION = re.compile(r"v?[0-9]{1,4}(?:\.[0-9]{1,6}){1,3}(?:[.+-][A-Za-z0-9.+-]{1,30})?")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#\\\s]+)(?P<path>(?:/[^?#\\\s]*)?)", re.IGNORECASE
)
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_.])?|\[[0-9a-f:.]{2,45}\])")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]{1,100}")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# Control characters but for the ends of lines and tabs, halves of characters, other ends of lines,
# and marks that turn the order of what is shown around.
_NOT_SHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_ALREADY = "already queued"


class RunStatus(StrEnum):
    """How far a run is; a word that is not known counts as still running."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled-by-user"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a build that may be shown.

    Args:
        at: When, in Coolify's own words (UTC).
    """

    order: int
    text: str
    stream: Literal["stdout", "stderr"]
    at: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment at Coolify.

    Args:
        word: Coolify's own word for the status.
        commit: What is built; None while Coolify has not looked yet.
        pull_request_id: 0 for what is no preview.
        path: Its page at Coolify, beginning with one slash.
        log: In order, without hidden lines, the last 10,000; None where the token may not read
            it. In lists of runs it is left empty where it may be read.
    """

    id: str
    status: RunStatus
    word: str
    commit: str | None
    pull_request_id: int
    created_at: datetime | None
    path: str | None
    log: tuple[LogLine, ...] | None


@dataclass(frozen=True, slots=True)
class Application:
    """One application at Coolify.

    Args:
        state: What comes before the colon of the status (`running`, `exited`).
        health: What comes after it; None where nothing does.
        status: Both, as Coolify says it.
        address: Where it is served; None where it has no domain.
    """

    id: str
    name: str
    branch: str | None
    repository: str | None
    state: str
    health: str | None
    status: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What Coolify said to a wish for a deployment.

    Args:
        run_id: None where there is none to be found by it: it is not the kind of thing that has
            runs, it was refused after all, or it was queued already.
    """

    run_id: str | None
    already_queued: bool
    message: str


@dataclass(frozen=True, slots=True)
class RollbackImage:
    """One image that is still there to go back to."""

    commit: str
    created_at: str | None
    current: bool


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a token may do; `read_sensitive` is None where it could not be found out."""

    read: bool
    deploy: bool
    read_sensitive: bool | None


# ---- what is put into a question ------------------------------------------------------------


def check_application_id(text: str) -> str:
    """Return an id that can stand in a path as it is.

    Raises:
        BadApplicationId: It cannot.
    """
    if _ID.fullmatch(text) is None:
        raise BadApplicationId(
            "That is no id of an application at Coolify.",
            details="It stands at the end of the address of the application's page at Coolify.",
        )
    return text


def check_run_id(text: str) -> str:
    """Return a deployment's id that can stand in a path as it is.

    Raises:
        BadApplicationId: It cannot.
    """
    if _ID.fullmatch(text) is None:
        raise BadApplicationId("That is no id of a deployment at Coolify.")
    return text


def check_commit(text: str) -> str:
    """Return a commit's hash in lower case.

    Raises:
        BadCommit: It is not 7 to 64 hexadecimal digits.
    """
    lower = text.strip().lower()
    if _COMMIT.fullmatch(lower) is None:
        raise BadCommit("A commit is 7 to 64 hexadecimal digits.")
    return lower


def base_of(url: str) -> str:
    """Return the API's base of a Coolify, `https://host/api/v1`, in one form for each.

    Whether the host may be reached is decided when it is connected to.

    Args:
        url: With or without `/api/v1`, with or without slashes at the end.

    Raises:
        BadCoolifyUrl: With what would be right.
    """
    text = url.strip()
    match = _URL.fullmatch(text)
    if match is None or len(text) > MAX_URL_CHARS:
        raise BadCoolifyUrl(
            "Write Coolify's address as https://host.", details="As in https://coolify.example.com."
        )
    if "@" in match["authority"]:
        raise BadCoolifyUrl("Coolify's address must not have a user or a password in it.")
    scheme = match["scheme"].lower()
    path = match["path"].rstrip("/").removesuffix("/api/v1").rstrip("/")
    segments = path.split("/")[1:]
    if any(_SEGMENT.fullmatch(one) is None or one in {".", ".."} for one in segments):
        raise BadCoolifyUrl("Coolify's address has a path that cannot be right.")
    base = f"{scheme}://{_authority(match['authority'], scheme)}{path}/api/v1"
    if len(base) > MAX_URL_CHARS:
        raise BadCoolifyUrl("Coolify's address is too long.")
    return base


def _authority(text: str, scheme: str) -> str:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(.*))?", text)
    host = _ascii(match[1]) if match is not None else ""
    if match is None or _HOST.fullmatch(host) is None or ".." in host:
        raise BadCoolifyUrl("Coolify's address has no valid host.")
    if match[2] is None:
        return host
    if _PORT.fullmatch(match[2]) is None or int(match[2]) > 65535:  # noqa: PLR2004
        raise BadCoolifyUrl("Coolify's address has no valid port.")
    return host if int(match[2]) == _DEFAULT_PORTS[scheme] else f"{host}:{match[2]}"


def _ascii(host: str) -> str:
    composed = unicodedata.normalize("NFC", host).lower()
    if composed.isascii():
        return composed
    try:
        encoded = composed.encode("idna")
        # Letters that this encoding replaces by others have become another host.
        same = encoded.decode("idna") == composed
    except UnicodeError:
        same, encoded = False, b""
    if not same:
        raise BadCoolifyUrl("Write the name of Coolify's host in its ASCII form (xn--…).")
    return encoded.decode()


# ---- texts ----------------------------------------------------------------------------------


def clean(value: object, most: int) -> str:
    """Return a text in one line that can be shown and stored; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    kept = value[: most * 4]
    if not kept.isprintable():
        kept = "".join(one if one.isprintable() else " " for one in kept)
    return " ".join(kept.split())[:most].rstrip()


def clean_lines(value: object, most: int) -> str:
    """Return a text of lines without colours and control characters; the end when too long."""
    if not isinstance(value, str):
        return ""
    return _NOT_SHOWN.sub("", _ANSI.sub("", value[-most:].replace("\r\n", "\n")))


def said(body: bytes) -> str:
    """Return the message of an answer; empty where it has none."""
    found = _dict(_json(body))
    return clean(found.get("message"), MAX_MESSAGE_CHARS)


def is_object(body: bytes, key: str, value: object = ...) -> bool:
    """Tell whether an answer is an object with a key, and with this value where one is given."""
    fields = _dict(_json(body))
    return key in fields and (value is ... or fields[key] is value)


# ---- values ---------------------------------------------------------------------------------


def parsed(body: bytes) -> object:
    """Return what an answer says.

    Raises:
        CoolifyUnavailable: It is no JSON, or deeper than anything that is meant.
    """
    found = _json(body)
    if found is None:
        raise unreadable()
    return found


def unreadable() -> CoolifyUnavailable:
    """Make the error for an answer that is none of Coolify's."""
    return CoolifyUnavailable(
        "What answers there does not answer as Coolify does.",
        details="Check Coolify's address; when it is right, try again in a minute.",
    )


def read_version(body: bytes) -> str:
    """Return the version, which is plain text.

    Raises:
        CoolifyUnavailable: It is none.
    """
    text = body[:200].decode("utf-8", "replace").strip().strip('"')
    if _VERSION.fullmatch(text) is None:
        raise unreadable()
    return text.removeprefix("v")


def read_applications(found: object) -> list[Application]:
    """Return the applications of a list, or of an object that ought to be one.

    Raises:
        CoolifyUnavailable: It is neither.
    """
    return [one for one in map(_application, _rows(found)) if one is not None]


def read_application(found: object) -> Application:
    """Return one application.

    Raises:
        CoolifyUnavailable: It is none.
    """
    if (application := _application(found)) is None:
        raise unreadable()
    return application


def read_runs(found: object) -> list[Run]:
    """Return an application's runs in their order, `{"count": …, "deployments": […]}`.

    Raises:
        CoolifyUnavailable: It is no such thing.
    """
    fields = _dict(found)
    rows = fields.get("deployments", found)
    return [one for row in _rows(rows) if (one := _run(row, with_log=False)) is not None]


def read_run(found: object) -> Run:
    """Return one run.

    Raises:
        CoolifyUnavailable: It is none.
    """
    if (run := _run(found, with_log=True)) is None:
        raise unreadable()
    return run


def read_asked(found: object, application_id: str) -> Asked:
    """Return what Coolify said about one application: a 200 may mean that nothing is deployed.

    Raises:
        CoolifyUnavailable: It says nothing about it.
    """
    fields = _dict(found)
    rows = _rows(fields["deployments"]) if "deployments" in fields else [fields]
    told = next(
        (row for row in rows if _dict(row).get("resource_uuid") == application_id),
        rows[0] if rows else None,
    )
    about = _dict(told)
    message = clean(about.get("message"), MAX_MESSAGE_CHARS)
    run_id = _id(about.get("deployment_uuid"))
    if not message and run_id is None:
        raise unreadable()
    already = _ALREADY in message.lower()
    # The id beside that message is a fresh one that Coolify never stored.
    return Asked(None if already else run_id, already, message)


def read_images(found: object) -> list[RollbackImage]:
    """Return the images that one may go back to.

    Raises:
        CoolifyUnavailable: It is no list of images.
    """
    fields = _dict(found)
    rows = next(
        (fields[key] for key in ("images", "rollback_images", "data") if key in fields), found
    )
    return [one for one in map(_image, _rows(rows)) if one is not None]


def _image(found: object) -> RollbackImage | None:
    fields = _dict(found)
    commit = next(
        (one for key in ("commit", "tag", "image_tag") if (one := _commit(fields.get(key)))), None
    )
    if commit is None:
        return None
    current = fields.get("is_current", fields.get("current"))
    return RollbackImage(commit, clean(fields.get("created_at"), 60) or None, current is True)


def _application(found: object) -> Application | None:
    fields = _dict(found)
    app_id = _id(fields.get("uuid"))
    if app_id is None:
        return None
    status = clean(fields.get("status"), 60)
    state, _, health = status.partition(":")
    return Application(
        id=app_id,
        name=clean(fields.get("name"), MAX_NAME_CHARS) or app_id,
        branch=clean(fields.get("git_branch"), MAX_NAME_CHARS) or None,
        repository=clean(fields.get("git_repository"), MAX_PATH_CHARS) or None,
        state=state.lower() or "unknown",
        health=health.partition(":")[0].lower() or None,
        status=status or "unknown",
        address=_address(fields.get("fqdn")),
    )


def _address(found: object) -> str | None:
    for one in clean(found, 2000).split(","):
        address = one.strip()
        if re.fullmatch(r"https?://[!-~]{1,400}", address, re.IGNORECASE) and "@" not in address:
            return address
    return None


def _run(found: object, *, with_log: bool) -> Run | None:
    fields = _dict(found)
    run_id = _id(fields.get("deployment_uuid"))
    if run_id is None:
        return None
    word = clean(fields.get("status"), 40)
    log = (_log(fields["logs"]) if with_log else ()) if "logs" in fields else None
    return Run(
        id=run_id,
        status=RunStatus(word) if word in _STATUSES else RunStatus.UNKNOWN,
        word=word,
        commit=_commit(fields.get("commit")),
        pull_request_id=_number(fields.get("pull_request_id")),
        created_at=_time(fields.get("created_at")),
        path=_path(fields.get("deployment_url")),
        log=log,
    )


_STATUSES = frozenset(RunStatus) - {RunStatus.UNKNOWN}


def _log(found: object) -> tuple[LogLine, ...]:
    """Return what may be shown of a log, which is a text of JSON inside of the JSON."""
    rows = found
    if isinstance(found, str):
        rows = _json(found.encode("utf-8", "replace"), MAX_VALUES_OF_LOG)
    if not isinstance(rows, list):
        return ()
    every = cast("list[object]", rows)
    last = every[-MAX_LINES:]
    lines = (_line(number, row) for number, row in enumerate(last, len(every) - len(last) + 1))
    return tuple(sorted((one for one in lines if one is not None), key=lambda one: one.order))


def _line(number: int, found: object) -> LogLine | None:
    fields = _dict(found)
    # Hidden lines hold what builds are made with; an odd value hides, too.
    if not fields or fields.get("hidden") not in (None, False):
        return None
    text = clean_lines(fields.get("output"), MAX_LINE_CHARS).rstrip("\n")
    if not text and (command := clean(fields.get("command"), MAX_LINE_CHARS)):
        text = f"$ {command}"
    return LogLine(
        order=_number(fields.get("order")) or number,
        text=text,
        stream="stderr" if fields.get("type") == "stderr" else "stdout",
        at=clean(fields.get("timestamp"), 40) or None,
    )


def read_application_log(found: object) -> str:
    """Return what an application printed.

    Raises:
        CoolifyUnavailable: It is no such answer.
    """
    fields = _dict(found)
    if "logs" not in fields:
        raise unreadable()
    return clean_lines(fields["logs"], MAX_LOG_CHARS)


def _json(body: bytes, most: int = MAX_VALUES) -> object:
    if _has_more_values(body, most):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _has_more_values(body: bytes, most: int) -> bool:
    """Tell whether an answer has more values than are read; what texts have in them is none."""
    if _marks(body) <= most:
        return False
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * most:
        return True
    # Texts begin and end with these: every other part is outside of them.
    return _marks(b"".join(plain.split(b'"')[::2])) > most


def _marks(body: bytes) -> int:
    return sum(body.count(mark) for mark in (b"{", b"[", b","))


def _dict(found: object) -> dict[str, Any]:
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _rows(found: object) -> Sequence[object]:
    """Return the rows of a list; after a sort of Coolify's it is an object keyed by number."""
    if isinstance(found, dict):
        keyed = cast("dict[str, object]", found)
        if not all(key.isdecimal() for key in keyed):
            raise unreadable()
        return _first(keyed.values())
    if not isinstance(found, list):
        raise unreadable()
    return _first(cast("list[object]", found))


def _first(rows: Iterable[object]) -> Sequence[object]:
    return list(rows)[:MAX_LIST]


def _id(found: object) -> str | None:
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def _commit(found: object) -> str | None:
    lower = found.lower() if isinstance(found, str) else ""
    return lower if _COMMIT.fullmatch(lower) else None


def _number(found: object) -> int:
    if isinstance(found, str) and re.fullmatch(r"[0-9]{1,10}", found):
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int):
        return 0
    return found if 0 <= found <= MAX_NUMBER else 0


def _time(found: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(found if isinstance(found, str) else "")
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _path(found: object) -> str | None:
    """Return the path of a page, unless a browser would take it for another host."""
    text = found if isinstance(found, str) else ""
    plain = re.fullmatch(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?", text)
    return text if plain and len(text) <= MAX_PATH_CHARS else None
