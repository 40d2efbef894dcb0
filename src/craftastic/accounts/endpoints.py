"""HTTP face of accounts: /api/auth."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Request
from pydantic import Field

from craftastic.accounts.current_user import Accounts, AdminUser, CurrentUser
from craftastic.accounts.service import Caller, Device, Invited, NewAccount, Tokens
from craftastic.http.policy import PUBLIC
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/auth", tags=["accounts"])

Token = Annotated[str, Field(min_length=1, max_length=512)]


class Registration(Wire):
    email: str = Field(max_length=254)
    password: str = Field(min_length=8, max_length=128)
    name: str = Field(min_length=1, max_length=200)
    invitation: str | None = Field(None, max_length=512)
    setup_token: str | None = Field(None, max_length=512)


class Login(Wire):
    email: str = Field(max_length=254)
    password: str = Field(min_length=1, max_length=128)


class RefreshTokenBody(Wire):
    refresh_token: Token


class NewInvitation(Wire):
    email: str | None = Field(None, max_length=254)


class UserView(Wire):
    id: UUID
    email: str
    name: str
    email_verified: bool


class TokensData(Wire):
    access_token: str
    refresh_token: str
    user: UserView


class TokensAnswer(Wire):
    success: Literal[True] = True
    data: TokensData


class MeData(Wire):
    user: UserView


class MeAnswer(Wire):
    success: Literal[True] = True
    data: MeData


class Done(Wire):
    success: Literal[True] = True
    message: str


class InvitationData(Wire):
    token: str
    email: str | None
    expires_at: str


class InvitationAnswer(Wire):
    success: Literal[True] = True
    data: InvitationData


@router.post("/register", dependencies=[PUBLIC])
async def register(
    body: Registration,
    request: Request,
    accounts: Accounts,
    x_craftastic_setup_token: Annotated[str | None, Header(max_length=512)] = None,
) -> TokensAnswer:
    """Create an account: the first with the one-time token, others as the server's setting says."""
    new = NewAccount(
        email=body.email,
        password=body.password,
        name=body.name,
        invitation=body.invitation,
        setup_token=body.setup_token or x_craftastic_setup_token,
    )
    return _tokens(await accounts.register(new, _device(request)))


@router.post("/login", dependencies=[PUBLIC])
async def login(body: Login, request: Request, accounts: Accounts) -> TokensAnswer:
    """Sign in with e-mail address and password."""
    return _tokens(await accounts.login(body.email, body.password, _device(request)))


@router.post("/refresh", dependencies=[PUBLIC])
async def refresh(body: RefreshTokenBody, accounts: Accounts) -> TokensAnswer:
    """Exchange a refresh token, which works once, for new tokens."""
    return _tokens(await accounts.refresh(body.refresh_token))


@router.post("/logout", dependencies=[PUBLIC])
async def logout(body: RefreshTokenBody, accounts: Accounts) -> Done:
    """End the sign-in of a refresh token; needs no access token, which may have expired."""
    await accounts.logout(body.refresh_token)
    return Done(message="Logged out successfully")


@router.post("/logout-all")
async def logout_all(caller: CurrentUser, accounts: Accounts) -> Done:
    """End all sign-ins of the caller, this one too."""
    await accounts.logout_all(caller.user_id)
    return Done(message="Logged out from all sessions")


@router.get("/me")
async def me(caller: CurrentUser) -> MeAnswer:
    """Return the caller's account."""
    return MeAnswer(data=MeData(user=_caller_view(caller)))


@router.post("/invitations")
async def create_invitation(
    caller: AdminUser, accounts: Accounts, body: NewInvitation | None = None
) -> InvitationAnswer:
    """Invite one person, for administrators; the answer shows the token this once."""
    invited = await accounts.create_invitation(caller.user_id, email=body and body.email)
    return InvitationAnswer(data=_invitation(invited))


def _tokens(tokens: Tokens) -> TokensAnswer:
    return TokensAnswer(
        data=TokensData(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            user=UserView.model_validate(tokens.user),
        )
    )


def _caller_view(caller: Caller) -> UserView:
    return UserView(
        id=caller.user_id,
        email=caller.email,
        name=caller.name,
        email_verified=caller.email_verified,
    )


def _invitation(invited: Invited) -> InvitationData:
    return InvitationData(
        token=invited.token, email=invited.email, expires_at=timestamp(invited.expires_at)
    )


def _device(request: Request) -> Device:
    address = request.client.host if request.client else None
    return Device(user_agent=request.headers.get("user-agent"), address=address)
