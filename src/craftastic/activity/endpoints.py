"""HTTP face of the audit log: /api/audit for oneself, /api/admin/audit for administrators."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import PlainSerializer

from craftastic.accounts.current_user import AdminUser, CurrentUser
from craftastic.activity.service import ActivityService, AuditEvent
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api", tags=["audit"])

MAX_LISTED = 200
MAX_NUMBER = 2**53 - 1

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Limit = Annotated[int, Query(ge=1, le=MAX_LISTED)]
Before = Annotated[int | None, Query(ge=1, le=MAX_NUMBER)]
Action = Annotated[str | None, Query(max_length=64, pattern=r"^[a-z][a-z_.-]*$")]


async def activity_service(request: Request) -> ActivityService:
    service: ActivityService = request.state.activity
    return service


Activity = Annotated[ActivityService, Depends(activity_service)]


class EventView(Wire):
    """One thing that was done; `outcome` is ok, or how else it ended."""

    seq: int
    at: Timestamp
    action: str
    object_type: str
    object_id: str | None
    outcome: str
    request_id: str | None
    details: Mapping[str, Any]


class AnybodysEventView(EventView):
    """Who did it; without an actor it was the operator at the machine, or the server itself."""

    actor_id: UUID | None
    actor_email: str | None = None


class EventList(Wire):
    """`nextBefore` asks for what came before; null at the log's beginning."""

    events: Sequence[EventView]
    next_before: int | None


class AnybodysEventList(Wire):
    events: Sequence[AnybodysEventView]
    next_before: int | None


class Head(Wire):
    seq: int
    hash: str


class VerificationView(Wire):
    """`head` is to be noted elsewhere: who can write the database can make all of it anew."""

    ok: bool
    checked: int
    head: Head | None
    broken_at: int | None
    reason: str | None


@router.get("/audit")
async def list_own_events(
    caller: CurrentUser, activity: Activity, limit: Limit = 50, before: Before = None
) -> EventList:
    """List what the caller did, newest first."""
    events = await activity.own(caller.user_id, limit=limit, before=before)
    return EventList(
        events=[EventView.model_validate(one) for one in events],
        next_before=_next(events, limit),
    )


@router.get("/admin/audit")
async def list_all_events(
    _caller: AdminUser,
    activity: Activity,
    limit: Limit = 50,
    before: Before = None,
    actor_id: Annotated[UUID | None, Query(alias="actorId")] = None,
    action: Action = None,
) -> AnybodysEventList:
    """List what anybody did, newest first: of one user, of one action, or of all of a domain."""
    events, addresses = await activity.everybody(
        limit=limit, before=before, actor_id=actor_id, action=action
    )
    views = [AnybodysEventView.model_validate(one) for one in events]
    for view in views:
        view.actor_email = None if view.actor_id is None else addresses.get(view.actor_id)
    return AnybodysEventList(events=views, next_before=_next(events, limit))


@router.get("/admin/audit/export", response_class=StreamingResponse)
async def export_events(_caller: AdminUser, activity: Activity) -> StreamingResponse:
    """Send the whole log, a JSON object in a line, oldest first, with the hashes of its chain."""
    return StreamingResponse(
        activity.exported(),
        media_type="application/x-ndjson",
        headers={
            "Content-Disposition": 'attachment; filename="audit.jsonl"',
            "Cache-Control": "no-store",
        },
    )


@router.get("/admin/audit/verify")
async def verify_events(_caller: AdminUser, activity: Activity) -> VerificationView:
    """Check that no event was changed, removed or put elsewhere since it was written."""
    found = await activity.verify()
    head = None if found.head is None else Head(seq=found.head[0], hash=found.head[1])
    return VerificationView(
        ok=found.ok,
        checked=found.checked,
        head=head,
        broken_at=found.broken_at,
        reason=found.reason,
    )


def _next(events: Sequence[AuditEvent], limit: int) -> int | None:
    return events[-1].seq if len(events) == limit and events[-1].seq > 1 else None
