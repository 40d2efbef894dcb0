"""HTTP face of git hosts: /api/git/hosts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainSerializer, SecretStr

from craftastic.accounts.current_user import CurrentUser, SignedInUser
from craftastic.githosts.service import GitHostService
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/git/hosts", tags=["git"])

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
ABSENT: Any = Field(None, exclude_if=lambda value: value is None)


async def git_host_service(request: Request) -> GitHostService:
    service: GitHostService = request.state.git_hosts
    return service


GitHosts = Annotated[GitHostService, Depends(git_host_service)]


class GitHostCredential(Wire):
    """A username and a password or token for one host; the password is never shown again."""

    origin: str = Field(max_length=300)
    username: str | None = Field(None, max_length=255)
    password: SecretStr = Field(min_length=1, max_length=2000)


class GitHostView(Wire):
    id: UUID
    origin: str
    username: str
    created_at: Timestamp
    updated_at: Timestamp
    last_used_at: Timestamp | None = ABSENT
    last_error: str | None = ABSENT


class GitHostsData(Wire):
    hosts: Sequence[GitHostView]


class GitHostsAnswer(Wire):
    success: Literal[True] = True
    data: GitHostsData


class GitHostData(Wire):
    host: GitHostView


class GitHostAnswer(Wire):
    success: Literal[True] = True
    data: GitHostData


class Done(Wire):
    success: Literal[True] = True
    message: str


@router.get("")
async def list_git_hosts(caller: CurrentUser, hosts: GitHosts) -> GitHostsAnswer:
    """List the git hosts that the caller has stored a credential for, without the credentials."""
    listed = await hosts.list_owned(caller.user_id)
    return GitHostsAnswer(
        data=GitHostsData(hosts=[GitHostView.model_validate(one) for one in listed])
    )


@router.put("")
async def put_git_host(
    body: GitHostCredential, caller: SignedInUser, hosts: GitHosts
) -> GitHostAnswer:
    """Store a credential for a git host, in the place of one that is there."""
    host = await hosts.put(
        caller.user_id, body.origin, body.password.get_secret_value(), body.username
    )
    return GitHostAnswer(data=GitHostData(host=GitHostView.model_validate(host)))


@router.delete("/{host_id}")
async def remove_git_host(host_id: UUID, caller: SignedInUser, hosts: GitHosts) -> Done:
    """Forget a git host and its credential."""
    await hosts.remove(caller.user_id, host_id)
    return Done(message="Git host removed")
