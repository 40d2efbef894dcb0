"""HTTP face of personal access tokens: /api/auth/tokens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainSerializer

from craftastic.access_tokens.service import (
    DEFAULT_DAYS,
    MAX_DAYS,
    MAX_NAME_CHARS,
    AccessTokenService,
    TokenScope,
)
from craftastic.accounts.current_user import SignedInUser
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/auth/tokens", tags=["accounts"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


async def access_token_service(request: Request) -> AccessTokenService:
    service: AccessTokenService = request.state.access_tokens
    return service


Tokens = Annotated[AccessTokenService, Depends(access_token_service)]


class NewAccessToken(Wire):
    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    scope: TokenScope = "read"
    expires_in_days: int = Field(DEFAULT_DAYS, ge=1, le=MAX_DAYS, strict=True)


class AccessTokenView(Wire):
    id: UUID
    name: str
    scope: TokenScope
    created_at: Timestamp
    expires_at: Timestamp
    last_used_at: Timestamp | None


class AccessTokensData(Wire):
    tokens: Sequence[AccessTokenView]


class AccessTokensAnswer(Wire):
    success: Literal[True] = True
    data: AccessTokensData


class MadeData(Wire):
    secret: str
    token: AccessTokenView


class MadeAnswer(Wire):
    success: Literal[True] = True
    data: MadeData


class Done(Wire):
    success: Literal[True] = True
    message: str


@router.post("")
async def create_access_token(
    body: NewAccessToken, caller: SignedInUser, tokens: Tokens
) -> MadeAnswer:
    """Make an access token for a program; the answer shows its text, `secret`, this once."""
    made = await tokens.create(caller.user_id, body.name, body.scope, body.expires_in_days)
    return MadeAnswer(
        data=MadeData(secret=made.text, token=AccessTokenView.model_validate(made.token))
    )


@router.get("")
async def list_access_tokens(caller: SignedInUser, tokens: Tokens) -> AccessTokensAnswer:
    """List the caller's access tokens, without their texts."""
    listed = await tokens.list_owned(caller.user_id)
    return AccessTokensAnswer(
        data=AccessTokensData(tokens=[AccessTokenView.model_validate(one) for one in listed])
    )


@router.delete("/{token_id}")
async def revoke_access_token(token_id: UUID, caller: SignedInUser, tokens: Tokens) -> Done:
    """Revoke an access token; within 5 s no server takes it, and what it opened is closed."""
    await tokens.revoke(caller.user_id, token_id)
    return Done(message="Access token revoked")
