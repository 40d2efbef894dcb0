"""HTTP face of a user's own sign-ins: /api/auth/sign-ins."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import PlainSerializer

from craftastic.accounts.current_user import SignedInUser
from craftastic.accounts.sign_ins import SignInService
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/auth/sign-ins", tags=["accounts"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


async def sign_in_service(request: Request) -> SignInService:
    service: SignInService = request.state.sign_ins
    return service


SignIns = Annotated[SignInService, Depends(sign_in_service)]


class SignInView(Wire):
    id: UUID
    device: str | None
    address: str | None
    created_at: Timestamp
    last_used_at: Timestamp
    current: bool


class SignInsData(Wire):
    sign_ins: Sequence[SignInView]


class SignInsAnswer(Wire):
    success: Literal[True] = True
    data: SignInsData


class Ended(Wire):
    success: Literal[True] = True
    message: str


@router.get("")
async def list_sign_ins(caller: SignedInUser, sign_ins: SignIns) -> SignInsAnswer:
    """List where the caller is signed in; `current` is the sign-in that asks."""
    listed = await sign_ins.list_owned(caller.user_id)
    views = [
        SignInView(
            id=one.id,
            device=one.device,
            address=one.address,
            created_at=one.created_at,
            last_used_at=one.last_used_at,
            current=one.id == caller.sign_in_id,
        )
        for one in listed
    ]
    return SignInsAnswer(data=SignInsData(sign_ins=views))


@router.delete("/{sign_in_id}")
async def end_sign_in(sign_in_id: UUID, caller: SignedInUser, sign_ins: SignIns) -> Ended:
    """End one of the caller's sign-ins, its terminals and streams within 5 s."""
    await sign_ins.end(caller.user_id, sign_in_id)
    return Ended(message="Signed out there")
