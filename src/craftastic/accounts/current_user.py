"""`CurrentUser` and `AdminUser`: what an endpoint declares to say who may call it."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from craftastic.accounts.service import AccountService, Caller
from craftastic.errors import Forbidden, Unauthenticated
from craftastic.http.errors import refuse_empty_json
from craftastic.http.policy import Policy, declares

BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An access token.")


class AdminNeeded(Forbidden):
    code = "ADMIN_NEEDED"


def account_service(request: Request) -> AccountService:
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
    """
    if credentials is None:
        raise Unauthenticated("Unauthorized")
    caller = await accounts.authenticate(credentials.credentials)
    refuse_empty_json(request.scope)
    return caller


CurrentUser = Annotated[Caller, Depends(current_user)]


@declares(Policy.ADMIN)
async def admin_user(caller: CurrentUser) -> Caller:
    """Return the caller, who is an administrator.

    Raises:
        Unauthenticated: No token, or a bad one.
        AdminNeeded: The caller is somebody else.
    """
    if not caller.is_admin:
        raise AdminNeeded("Only an administrator may do this")
    return caller


AdminUser = Annotated[Caller, Depends(admin_user)]
