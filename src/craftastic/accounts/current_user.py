"""`CurrentUser`, `SignedInUser`, `AdminUser`: what an endpoint declares to say who may call it."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from craftastic.accounts.service import AccountService, Caller
from craftastic.errors import Forbidden, Unauthenticated
from craftastic.http.errors import refuse_empty_json
from craftastic.http.policy import Policy, declares

BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An access token.")
ACCOUNT_ROUTES = "/api/auth/"
READS = frozenset({"GET", "HEAD"})


class AdminNeeded(Forbidden):
    code = "ADMIN_NEEDED"


class SignInNeeded(Forbidden):
    """The route is for people: an access token, which is handed to programs, does not open it."""

    code = "SIGN_IN_NEEDED"


class ReadOnlyToken(Forbidden):
    """The access token was made to look, and the request would change something."""

    code = "READ_ONLY_TOKEN"


async def account_service(request: Request) -> AccountService:
    service: AccountService = request.state.accounts
    return service


Accounts = Annotated[AccountService, Depends(account_service)]


@declares(Policy.USER)
async def current_user(
    request: Request,
    accounts: Accounts,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Caller:
    """Return who sent the request's bearer token.

    Raises:
        Unauthenticated: No token, or a bad one.
        ReadOnlyToken: The token may only look, and the request's method may change something.
        EmailNotVerified: The caller's address is not confirmed, where that is needed; the routes
            of accounts, with which it is confirmed, are open all the same.
    """
    if credentials is None:
        raise Unauthenticated("Unauthorized")
    caller = await accounts.authenticate(credentials.credentials)
    if caller.scope == "read" and request.method not in READS:
        raise ReadOnlyToken(
            "This access token may only read; it was made without the right to this"
        )
    if not request.scope["path"].startswith(ACCOUNT_ROUTES):
        accounts.insist_on_verified(caller)
    refuse_empty_json(request.scope)
    return caller


CurrentUser = Annotated[Caller, Depends(current_user)]


@declares(Policy.SIGNED_IN)
async def signed_in_user(caller: CurrentUser) -> Caller:
    """Return the caller, who has signed in.

    Raises:
        Unauthenticated: No token, or a bad one.
        SignInNeeded: The request came by a personal access token.
    """
    if not caller.by_sign_in:
        raise SignInNeeded("An access token may not do this; sign in with your password instead")
    return caller


SignedInUser = Annotated[Caller, Depends(signed_in_user)]


@declares(Policy.ADMIN)
async def admin_user(caller: SignedInUser) -> Caller:
    """Return the caller, who is an administrator and has signed in.

    Raises:
        Unauthenticated: No token, or a bad one.
        SignInNeeded: The request came by a personal access token.
        AdminNeeded: The caller is somebody else.
    """
    if not caller.is_admin:
        raise AdminNeeded("Only an administrator may do this")
    return caller


AdminUser = Annotated[Caller, Depends(admin_user)]
