"""Disk use of one environment over real git: its rig, the service, and an HTTP client of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
from fastapi import FastAPI

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditService
from craftastic.disk import endpoints
from craftastic.disk.service import DiskRoom, DiskService
from craftastic.errors import Unauthenticated
from craftastic.http import errors, middleware
from craftastic.metrics import Metrics
from craftastic.sessions import endpoints as session_endpoints
from craftastic.sessions.service import Session, SessionStatus
from tests.fakes.asgi import client_of
from tests.fakes.served import Rig

IGNORES = "node_modules\ntarget/\n.venv/\n__pycache__/\ndist/\n*.log\n.env\n"
FILES = {".gitignore": IGNORES, "file": "one\n", "src/build/kept.txt": "tracked\n"}


class Accounts:
    """Takes a user's id for that user's token; `admin:` before it makes an administrator."""

    async def authenticate(self, token: str) -> Caller:
        name, _, rest = token.rpartition(":")
        try:
            user_id = UserId(UUID(rest))
        except ValueError:
            raise Unauthenticated("Unauthorized") from None
        return Caller(user_id, "a@example.com", "a", True, name == "admin", user_id)

    def insist_on_verified(self, caller: Caller) -> None:
        pass


def disk_of(rig: Rig, **settings: object) -> DiskService:
    """Return the service over a rig, with settings of its own; the rig's sessions keep to them."""
    shop = rig.shop
    changed = shop.environments.settings.model_copy(update=settings)
    environments = replace(
        shop.environments, settings=changed, room=DiskRoom(shop.database, changed)
    )
    rig.shop = replace(
        shop, environments=environments, sessions=replace(shop.sessions, environments=environments)
    )
    return DiskService(
        shop.database,
        environments,
        rig.shop.sessions,
        environments.runtimes,
        AuditService(shop.database, shop.clock),
        shop.clock,
    )


async def ended(rig: Rig, branch: str, *, pushed: bool = True) -> Session:
    """Make a session on a new branch, with its worktree, and end it."""
    session = await rig.make(branch)
    if pushed:
        await rig.git(session, "push", "-q", "origin", f"HEAD:refs/heads/{branch}")
    return await rig.shop.sessions.update(rig.shop.owner, session.id, status=SessionStatus.DEAD)


def fill(folder: Path, name: str, size: int = 64 << 10) -> Path:
    """Write a file of so many bytes, with the folders around it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@asynccontextmanager
async def client_for(rig: Rig, disk: DiskService) -> AsyncGenerator[httpx.AsyncClient]:
    """Give an HTTP client of the routes of disk use, signed in as the rig's owner."""
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    app.include_router(session_endpoints.router)
    state = {"accounts": Accounts(), "disk": disk, "sessions": rig.shop.sessions}
    async with client_of(app, **state) as client:
        client.headers["Authorization"] = f"Bearer {rig.shop.owner}"
        yield client
