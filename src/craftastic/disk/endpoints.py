"""HTTP face of disk use: /api/environments/{id}/disk, and /api/disk for administrators."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainSerializer

from craftastic.accounts.current_user import AdminUser, CurrentUser
from craftastic.disk.service import DiskService, Item, Shown, TreeOfSession
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api", tags=["disk"])

Moment = Annotated[
    datetime | None,
    PlainSerializer(lambda at: None if at is None else timestamp(at), return_type=str | None),
]


async def disk_service(request: Request) -> DiskService:
    service: DiskService = request.state.disk
    return service


Disk = Annotated[DiskService, Depends(disk_service)]


class ReclaimWish(Wire):
    """`tier` 1 to 3; each does what those before it do."""

    tier: int = Field(ge=1, le=3, strict=True)


class ItemView(Wire):
    """Something that can be removed, or was; `sessionId` where it is of a session's worktree."""

    path: str
    bytes: int
    kind: Literal["cache", "git", "ignored", "worktree"]
    session_id: UUID | None


class TierView(Wire):
    """What one tier would free by itself; `items` are the largest ones."""

    tier: int
    bytes: int
    items: Sequence[ItemView]


class SessionDiskView(Wire):
    """A worktree; `saved` is whether all in it is committed and pushed, null for not known."""

    session_id: UUID | None
    name: str | None
    branch: str | None
    path: str
    bytes: int
    regenerable_bytes: int
    state: Literal["living", "ended", "none"]
    saved: bool | None


class DiskView(Wire):
    """What an environment uses; `reason` says why the figures are not fresh, or not whole."""

    environment_id: UUID
    state: Literal["measured", "never"]
    measured_at: Moment
    measuring: bool
    reason: str | None
    total_bytes: int
    quota_bytes: int | None
    near_quota: bool
    over_quota: bool
    repository_bytes: int
    home_bytes: int
    cache_bytes: int
    other_bytes: int
    complete: bool
    sessions: Sequence[SessionDiskView]
    tiers: Sequence[TierView]


class KeptView(Wire):
    """Something that was not removed, and why."""

    path: str
    why: str


class ReclaimAnswer(Wire):
    """What was freed, what stayed, and what is used now."""

    freed_bytes: int
    removed: Sequence[ItemView]
    kept: Sequence[KeptView]
    use: DiskView


class ListedDisk(Wire):
    environment_id: UUID
    name: str
    owner: str | None
    total_bytes: int
    quota_bytes: int | None
    measured_at: Moment
    over_quota: bool


class DiskOverview(Wire):
    """The file system of the data folder, and everybody's environments, the largest first."""

    free_bytes: int | None
    total_bytes: int | None
    floor_bytes: int
    environments: Sequence[ListedDisk]


def _item(item: Item, shown: Shown) -> ItemView:
    return ItemView(
        path=item.path,
        bytes=item.bytes,
        kind=item.kind,
        session_id=shown.session_at(item.worktree),
    )


def _session(one: TreeOfSession) -> SessionDiskView:
    session = one.session
    return SessionDiskView(
        session_id=None if session is None else session.id,
        name=None if session is None else session.name,
        branch=None if session is None else session.branch,
        path=one.tree.path,
        bytes=one.tree.bytes,
        regenerable_bytes=one.tree.regenerable,
        state=one.state,
        saved=one.tree.saved,
    )


def _view(shown: Shown) -> DiskView:
    use, report = shown.use, shown.report
    return DiskView(
        environment_id=shown.environment_id,
        state="never" if report is None else "measured",
        measured_at=None if use is None else use.measured_at,
        measuring=use is not None and use.busy,
        reason=shown.reason,
        total_bytes=0 if report is None else report.total,
        quota_bytes=shown.quota,
        near_quota=use is not None and use.near,
        over_quota=use is not None and use.over,
        repository_bytes=0 if report is None else report.repository,
        home_bytes=0 if report is None else report.home,
        cache_bytes=0 if report is None else report.cache,
        other_bytes=0 if report is None else report.other,
        complete=report is not None and report.complete,
        sessions=[_session(one) for one in shown.trees],
        tiers=[
            TierView(
                tier=one.tier, bytes=one.bytes, items=[_item(item, shown) for item in one.items]
            )
            for one in ([] if report is None else report.tiers)
        ],
    )


@router.get("/environments/{environment_id}/disk")
async def get_disk_use(environment_id: UUID, caller: CurrentUser, disk: Disk) -> DiskView:
    """Tell what an environment uses of the disk, as it was when it was last looked at."""
    return _view(await disk.get(caller.user_id, environment_id))


@router.post("/environments/{environment_id}/disk/measure")
async def measure_disk_use(environment_id: UUID, caller: CurrentUser, disk: Disk) -> DiskView:
    """Look now what an environment uses; it has to be running."""
    return _view(await disk.measure(caller.user_id, environment_id))


@router.post("/environments/{environment_id}/disk/reclaim")
async def reclaim_disk(
    environment_id: UUID, body: ReclaimWish, caller: CurrentUser, disk: Disk
) -> ReclaimAnswer:
    """Free disk space without losing work: caches, what tools make again, saved worktrees."""
    done = await disk.reclaim(caller.user_id, environment_id, body.tier)
    return ReclaimAnswer(
        freed_bytes=done.freed,
        removed=[_item(one, done.use) for one in done.removed],
        kept=[KeptView(path=one.path, why=one.why) for one in done.kept],
        use=_view(done.use),
    )


@router.get("/disk")
async def get_disk_overview(_caller: AdminUser, disk: Disk) -> DiskOverview:
    """Tell how full the server's disk is, and who uses how much of it."""
    found = await disk.overview()
    return DiskOverview(
        free_bytes=None if found.space is None else found.space.free,
        total_bytes=None if found.space is None else found.space.total,
        floor_bytes=found.floor,
        environments=[
            ListedDisk(
                environment_id=one.environment_id,
                name=one.name,
                owner=found.owners.get(one.owner_id),
                total_bytes=one.total_bytes,
                quota_bytes=found.quota,
                measured_at=one.measured_at,
                over_quota=one.over,
            )
            for one in found.environments
        ],
    )
