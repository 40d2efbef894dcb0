"""HTTP face of operator controls: /api/admin."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, PlainSerializer

from craftastic.accounts.current_user import AdminUser
from craftastic.admin.service import MAX_LISTED, AdminService, PasswordLink, Person
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/admin", tags=["administration"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]


async def admin_service(request: Request) -> AdminService:
    service: AdminService = request.state.admin
    return service


Admin = Annotated[AdminService, Depends(admin_service)]


class NewUser(Wire):
    email: str = Field(max_length=254)
    name: str = Field(min_length=1, max_length=200)
    is_admin: bool = Field(False, strict=True)


class PersonView(Wire):
    id: UUID
    email: str
    name: str
    is_admin: bool
    email_verified: bool
    has_password: bool
    created_at: Timestamp
    last_login_at: Timestamp | None
    disabled_at: Timestamp | None


class PersonList(Wire):
    users: Sequence[PersonView]
    next: str | None


class LinkView(Wire):
    url: str
    expires_at: Timestamp


class PersonWithLink(Wire):
    user: PersonView
    link: LinkView


class InvitationView(Wire):
    id: UUID
    email: str | None
    created_by: UUID | None
    created_at: Timestamp
    expires_at: Timestamp


class InvitationList(Wire):
    invitations: Sequence[InvitationView]


class Revoked(Wire):
    success: Literal[True] = True


@router.get("/users")
async def list_users(
    _caller: AdminUser,
    admin: Admin,
    after: Annotated[str | None, Query(max_length=254)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
) -> PersonList:
    """List accounts by address, for administrators; `next` is the `after` of the next page."""
    listed = await admin.list_users(after, limit)
    return PersonList(
        users=[PersonView.model_validate(one) for one in listed],
        next=listed[-1].email if len(listed) == limit else None,
    )


@router.post("/users")
async def add_user(body: NewUser, caller: AdminUser, admin: Admin) -> PersonWithLink:
    """Make an account, for administrators; the link, shown this once, sets its password."""
    person, link = await admin.add_user(
        caller.user_id, body.email, body.name, is_admin=body.is_admin
    )
    return _with_link(person, link)


@router.post("/users/{user_id}/disable")
async def disable_user(user_id: UUID, caller: AdminUser, admin: Admin) -> PersonView:
    """Disable an account, for administrators; its sign-ins and access tokens end within 5 s."""
    return PersonView.model_validate(await admin.disable(caller.user_id, user_id))


@router.post("/users/{user_id}/enable")
async def enable_user(user_id: UUID, caller: AdminUser, admin: Admin) -> PersonView:
    """Let a disabled account sign in again, for administrators."""
    return PersonView.model_validate(await admin.enable(caller.user_id, user_id))


@router.post("/users/{user_id}/reset-password")
async def reset_password(user_id: UUID, caller: AdminUser, admin: Admin) -> PersonWithLink:
    """Void an account's password, for administrators; the link, shown this once, sets a new one.

    All of the account's sign-ins and access tokens end. The link is mailed to its person too.
    """
    return _with_link(*await admin.reset_password(caller.user_id, user_id))


@router.get("/invitations")
async def list_invitations(_caller: AdminUser, admin: Admin) -> InvitationList:
    """List the invitations that somebody may still use, for administrators."""
    listed = await admin.list_invitations()
    return InvitationList(invitations=[InvitationView.model_validate(one) for one in listed])


@router.delete("/invitations/{invitation_id}")
async def revoke_invitation(invitation_id: UUID, caller: AdminUser, admin: Admin) -> Revoked:
    """Take an invitation back, for administrators."""
    await admin.revoke_invitation(caller.user_id, invitation_id)
    return Revoked()


def _with_link(person: Person, link: PasswordLink) -> PersonWithLink:
    return PersonWithLink(
        user=PersonView.model_validate(person),
        link=LinkView(url=link.url, expires_at=link.expires_at),
    )
