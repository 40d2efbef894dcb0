"""HTTP face of the server's health, for administrators: /api/admin/health."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import PlainSerializer

from craftastic.accounts.current_user import AdminUser
from craftastic.health.service import HealthService, State
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/admin", tags=["administration"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Moment = Annotated[
    datetime | None,
    PlainSerializer(lambda at: None if at is None else timestamp(at), return_type=str | None),
]


async def health_service(request: Request) -> HealthService:
    service: HealthService = request.state.health
    return service


class FindingView(Wire):
    """One thing a check looked at; `ok` is null where it works, but not in all cases."""

    name: str
    ok: bool | None
    message: str
    remedy: str | None


class RuntimeHealthView(Wire):
    name: str
    is_default: bool
    reason: str | None
    findings: Sequence[FindingView]


class UnverifiedView(Wire):
    environment_id: UUID
    name: str
    open: Sequence[str]
    unchecked: Sequence[str]


class IsolationHealthView(Wire):
    verified: int
    waiting: int
    unverified: Sequence[UnverifiedView]
    more: int


class DatabaseHealthView(Wire):
    kind: str
    version: str


class RepeatedStepView(Wire):
    name: str
    rounds: int
    failures: int
    last_at: Moment
    last_error: str | None


class HealthView(Wire):
    looked_at: Timestamp
    state: State
    version: str
    runtimes: Sequence[RuntimeHealthView]
    isolation: IsolationHealthView
    database: DatabaseHealthView
    reconcilers: Sequence[RepeatedStepView]


@router.get("/health")
async def show_health(
    _caller: AdminUser, health: Annotated[HealthService, Depends(health_service)]
) -> HealthView:
    """Tell how the server is, with remedies, for administrators; kept for 5 seconds."""
    return HealthView.model_validate(await health.look())
