"""What the routes of sessions have in common: their service, and forms of their fields."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from pydantic import Field, PlainSerializer

from craftastic.http.wire import timestamp
from craftastic.sessions.service import SessionService

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Absent = Field(None, exclude_if=lambda value: value is None)
"""For fields that are left out where there is nothing."""


async def session_service(request: Request) -> SessionService:
    service: SessionService = request.state.sessions
    return service


Sessions = Annotated[SessionService, Depends(session_service)]
