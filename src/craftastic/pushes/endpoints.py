"""HTTP face of pushes: /api/git/pushes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, PlainSerializer

from craftastic.accounts.current_user import CurrentUser
from craftastic.http.wire import Wire, timestamp
from craftastic.pushes.service import PushService

router = APIRouter(prefix="/api/git/pushes", tags=["git"])

MAX_LISTED = 200


async def push_service(request: Request) -> PushService:
    service: PushService = request.state.pushes
    return service


Pushes = Annotated[PushService, Depends(push_service)]


class PushedRef(Wire):
    """One ref of a push; `outcome` is ok, rejected, refused, failed or unknown.

    The reason says why; unknown is one that is on its way, or whose end could not be written.
    """

    ref: str
    old: str
    new: str
    outcome: str
    reason: str | None = Field(None, exclude_if=lambda value: value is None)
    created_at: Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


class PushesData(Wire):
    pushes: Sequence[PushedRef]


class PushesAnswer(Wire):
    success: Literal[True] = True
    data: PushesData


@router.get("/{environment_id}")
async def list_pushes(
    environment_id: UUID,
    caller: CurrentUser,
    pushes: Pushes,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
) -> PushesAnswer:
    """List what was pushed from an environment as the gateway saw it, newest first."""
    listed = await pushes.list_for_environment(caller.user_id, environment_id, limit=limit)
    return PushesAnswer(data=PushesData(pushes=[PushedRef.model_validate(one) for one in listed]))
