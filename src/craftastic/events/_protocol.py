"""The text of server-sent events: ids, frames, bodies. Pure.

Source: HTML Living Standard, section 9.2, "Server-sent events".
"""

import json
import re
from collections.abc import Mapping, Sequence
from uuid import UUID

from craftastic.events._repository import Event, Place

RETRY_MS = 1000
HEARTBEAT = b": still here\n\n"
ID = re.compile(r"([0-9]{1,18})-([0-9a-f]{1,16})")


def body(
    kind: str,
    about: UUID | str,
    environment_id: UUID | None = None,
    session_id: UUID | None = None,
    job: str | None = None,
) -> str:
    """Return an event's data: which thing changed, never what it is now."""
    found: dict[str, str] = {"type": kind, "id": str(about)}
    if environment_id is not None:
        found["environmentId"] = str(environment_id)
    if session_id is not None:
        found["sessionId"] = str(session_id)
    if job is not None:
        found["job"] = job
    return json.dumps(found, separators=(",", ":"))


def ready(place: Place, *, resumed: bool) -> bytes:
    """Return the first frame of a stream that begins, or goes on, at a place.

    A stream that goes on gives no id here: what was missed still comes after the client's own.
    """
    named = b"" if resumed else _id(place)
    said = json.dumps({"type": "ready", "resumed": resumed}, separators=(",", ":")).encode()
    return b"retry: %d\n%sevent: ready\ndata: %s\n\n" % (RETRY_MS, named, said)


def reset(place: Place) -> bytes:
    """Return the frame that says: events are missing before this place, read everything again."""
    head = b"retry: %d\n%s" % (RETRY_MS, _id(place))
    return head + b'event: reset\ndata: {"type":"reset"}\n\n'


def frames(events: Sequence[Event]) -> bytes:
    """Return events as they go over the wire."""
    return b"".join(
        _id(one.place) + f"event: {one.type}\ndata: {one.body}\n\n".encode() for one in events
    )


def passing(bodies: Mapping[str, str]) -> bytes:
    """Return what has no place among the events, and so no id: nobody comes back for it."""
    return b"".join(f"event: {kind}\ndata: {text}\n\n".encode() for text, kind in bodies.items())


def parse_id(text: str) -> Place | None:
    """Return the place that an id names; None when it is none of ours."""
    match = ID.fullmatch(text)
    return None if match is None else Place(int(match[1]), match[2])


def _id(place: Place) -> bytes:
    return f"id: {place.seq}-{place.tag}\n".encode()
