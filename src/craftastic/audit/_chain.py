"""What ties the audit log's events together: each hash covers its event and the hash before."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from craftastic.logs import redact

NOTHING_BEFORE = "0" * 64
MAX_ACTION_CHARS = 64
MAX_OBJECT_TYPE_CHARS = 32
MAX_OBJECT_ID_CHARS = 255
MAX_OUTCOME_CHARS = 32
MAX_REQUEST_ID_CHARS = 128
MAX_DETAILS_CHARS = 4096
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one event says, in the form that is stored and hashed."""

    at: datetime
    actor_id: UUID | None
    action: str
    object_type: str
    object_id: str | None
    outcome: str
    request_id: str | None
    details: str


def chained(seq: int, previous: str, one: Entry) -> str:
    """Return the hash of an event in its place."""
    return hashlib.sha256(_canonical(_fields(seq, previous, one)).encode()).hexdigest()


def exported_line(seq: int, previous: str, digest: str, one: Entry) -> bytes:
    """Return an event as a line of JSON: without `hash` it is the text that was hashed."""
    return _canonical(_fields(seq, previous, one) | {"hash": digest}).encode() + b"\n"


def _fields(seq: int, previous: str, one: Entry) -> dict[str, object]:
    return {
        "seq": seq,
        "previous": previous,
        "at": one.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": None if one.actor_id is None else str(one.actor_id),
        "action": one.action,
        "objectType": one.object_type,
        "objectId": one.object_id,
        "outcome": one.outcome,
        "requestId": one.request_id,
        "details": one.details,
    }


def _canonical(value: Any) -> str:
    # Escaped to ASCII: no byte that a database could refuse or change, and one form of each text.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def details_text(details: Mapping[str, object]) -> str:
    """Return the details as JSON, of a bounded length, with what looks like a secret hidden."""
    text = _canonical(redact(details))
    if len(text) <= MAX_DETAILS_CHARS:
        return text
    # Escapes double in the second round, so half of the bound is what surely fits.
    return _canonical({"cut": text[: MAX_DETAILS_CHARS // 2 - len('{"cut":""}')]})


def bounded(text: str, limit: int) -> str:
    """Return a text that fits its column and holds no control character."""
    return UNPRINTABLE.sub("�", text)[:limit]
