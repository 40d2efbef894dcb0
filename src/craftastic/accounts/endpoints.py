"""HTTP face of accounts: /api/auth."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from craftastic.accounts.current_user import Accounts, AdminUser, CurrentUser, SignedInUser
from craftastic.accounts.service import Device, Invited, NewAccount, Tokens
from craftastic.http.client import client_address
from craftastic.http.hot import hot
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


class MailedTokenBody(Wire):
    token: Token


class AddressBody(Wire):
    email: str = Field(max_length=254)


class PasswordReset(Wire):
    token: Token
    password: str = Field(min_length=8, max_length=128)
    revoke_tokens: bool = False


class PasswordChange(Wire):
    current_password: str = Field(min_length=1, max_length=128)
    new_password: str = Field(min_length=8, max_length=128)
    revoke_tokens: bool = False


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
    is_admin: bool


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
) -> TokensAnswer | Done:
    """Create an account: the first with the one-time token, others as the server's setting says.

    Where addresses have to be confirmed first, the answer has a message and no tokens.
    """
    new = NewAccount(
        email=body.email,
        password=body.password,
        name=body.name,
        invitation=body.invitation,
        setup_token=body.setup_token or x_craftastic_setup_token,
    )
    tokens = await accounts.sign_up(new, _device(request))
    if tokens is None:
        return Done(message="Confirm your address by the link in your mail, then sign in")
    return _tokens(tokens)


@router.post("/login", dependencies=[PUBLIC])
async def login(body: Login, request: Request, accounts: Accounts) -> TokensAnswer:
    """Sign in with e-mail address and password."""
    return _tokens(await accounts.login(body.email, body.password, _device(request)))


@router.post("/refresh", dependencies=[PUBLIC])
async def refresh(body: RefreshTokenBody, request: Request, accounts: Accounts) -> TokensAnswer:
    """Exchange a refresh token, which works once, for new tokens."""
    return _tokens(await accounts.refresh(body.refresh_token, _device(request)))


@router.post("/logout", dependencies=[PUBLIC])
async def logout(body: RefreshTokenBody, accounts: Accounts) -> Done:
    """End the sign-in of a refresh token; needs no access token, which may have expired."""
    await accounts.logout(body.refresh_token)
    return Done(message="Logged out successfully")


@router.post("/logout-all")
async def logout_all(caller: SignedInUser, request: Request, accounts: Accounts) -> Done:
    """End all sign-ins of the caller, this one too."""
    await accounts.logout_all(caller.user_id, _device(request))
    return Done(message="Logged out from all sessions")


@router.post("/verify-email", dependencies=[PUBLIC])
async def verify_email(body: MailedTokenBody, request: Request, accounts: Accounts) -> Done:
    """Confirm an address by the token that was mailed there; it works once, for a day."""
    await accounts.recovery.verify_email(body.token, _device(request))
    return Done(message="Email verified successfully")


@router.post("/resend-verification")
async def resend_verification(caller: SignedInUser, request: Request, accounts: Accounts) -> Done:
    """Mail another token to confirm the caller's address; the one before ends."""
    await accounts.recovery.resend_verification(caller, _device(request))
    return Done(message="Verification email sent if the address was not verified yet")


@router.post("/request-password-reset", dependencies=[PUBLIC])
async def request_password_reset(body: AddressBody, request: Request, accounts: Accounts) -> Done:
    """Mail a token that sets a new password, if the address has an account."""
    await accounts.recovery.request_reset(body.email, _device(request))
    return Done(message="Password reset email sent if account exists")


@router.post("/reset-password", dependencies=[PUBLIC])
async def reset_password(body: PasswordReset, request: Request, accounts: Accounts) -> Done:
    """Set a new password by a mailed token, which works once, for half an hour; sign-ins end."""
    await accounts.recovery.reset_password(
        body.token, body.password, _device(request), revoke_tokens=body.revoke_tokens
    )
    return Done(message="Password reset successfully")


@router.post("/change-password")
async def change_password(
    body: PasswordChange, caller: SignedInUser, request: Request, accounts: Accounts
) -> Done:
    """Set a new password by the present one; every sign-in ends, the caller's too."""
    await accounts.recovery.change_password(
        caller,
        body.current_password,
        body.new_password,
        _device(request),
        revoke_tokens=body.revoke_tokens,
    )
    return Done(message="Password changed successfully")


@router.get("/me", response_model=MeAnswer)
@hot
async def me(caller: CurrentUser) -> JSONResponse:
    """Return the caller's account."""
    # By hand, it is the route that is asked most; a test holds it against the model.
    user = {
        "id": str(caller.user_id),
        "email": caller.email,
        "name": caller.name,
        "emailVerified": caller.email_verified,
    }
    return JSONResponse({"success": True, "data": {"user": user, "isAdmin": caller.is_admin}})


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


def _invitation(invited: Invited) -> InvitationData:
    return InvitationData(
        token=invited.token, email=invited.email, expires_at=timestamp(invited.expires_at)
    )


def _device(request: Request) -> Device:
    agent = request.headers.get("user-agent")
    return Device(user_agent=agent, address=client_address(request))
