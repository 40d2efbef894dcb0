"""Table and queries of git hosts. Private to this package (checked)."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import (
    ForeignKey,
    String,
    UniqueConstraint,
    Uuid,
    column,
    delete,
    func,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime
from craftastic.errors import NotFound
from craftastic.githosts._model import GitHost

MAX_ERROR_CHARACTERS = 300

# Users are another domain's rows: known here by name, to let one request of theirs at a time in.
USERS = table("users", column("id", Uuid()))


class GitHostNotFound(NotFound):
    code = "GIT_HOST_NOT_FOUND"


class GitHostRow(Base):
    __tablename__ = "git_hosts"
    __table_args__ = (UniqueConstraint("user_id", "origin"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    origin: Mapped[str] = mapped_column(String(300))
    username: Mapped[str] = mapped_column(String(255))
    # Without its secret a host is nothing; a user's removal takes both, in any order.
    secret_id: Mapped[UUID] = mapped_column(
        ForeignKey("secrets.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None] = mapped_column(String(MAX_ERROR_CHARACTERS))


def _host(row: GitHostRow) -> GitHost:
    return GitHost(
        id=row.id,
        owner_id=row.user_id,
        origin=row.origin,
        username=row.username,
        secret_id=row.secret_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_used_at=row.last_used_at,
        last_error=row.last_error,
    )


class GitHostRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def lock(self, owner_id: UUID) -> None:
        """Let one transaction at a time change an owner's hosts."""
        await self.tx.execute(
            select(USERS.c.id).where(USERS.c.id == owner_id).with_for_update(key_share=True)
        )

    async def find(self, owner_id: UUID, origin: str) -> GitHost | None:
        row = await self.tx.scalar(
            select(GitHostRow).where(GitHostRow.user_id == owner_id, GitHostRow.origin == origin)
        )
        return None if row is None else _host(row)

    async def list_owned(self, owner_id: UUID) -> list[GitHost]:
        rows = await self.tx.scalars(
            select(GitHostRow).where(GitHostRow.user_id == owner_id).order_by(GitHostRow.origin)
        )
        return [_host(row) for row in rows]

    async def count(self, owner_id: UUID) -> int:
        counted = await self.tx.scalar(
            select(func.count()).select_from(GitHostRow).where(GitHostRow.user_id == owner_id)
        )
        return counted or 0

    async def add(
        self, owner_id: UUID, origin: str, username: str, secret_id: UUID, now: datetime
    ) -> GitHost:
        row = GitHostRow(
            user_id=owner_id,
            origin=origin,
            username=username,
            secret_id=secret_id,
            created_at=now,
            updated_at=now,
        )
        self.tx.add(row)
        await self.tx.flush()
        return _host(row)

    async def replaced(
        self, host: GitHost, username: str, secret_id: UUID, now: datetime
    ) -> GitHost:
        """Write that a host has a new credential."""
        statement = (
            update(GitHostRow)
            .where(GitHostRow.id == host.id)
            .values(username=username, secret_id=secret_id, updated_at=now, last_error=None)
            .returning(GitHostRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        return _host((await self.tx.scalars(statement)).one())

    async def used(self, host: GitHost, now: datetime, stale: datetime) -> None:
        """Write that the host accepted the credential, unless that was written after `stale`."""
        await self.tx.execute(
            update(GitHostRow)
            .where(
                GitHostRow.id == host.id,
                or_(
                    GitHostRow.last_used_at.is_(None),
                    GitHostRow.last_used_at < stale,
                    GitHostRow.last_error.is_not(None),
                ),
            )
            .values(last_used_at=now, last_error=None)
        )

    async def refused(self, host: GitHost, reason: str) -> None:
        """Write that the host refused the credential, unless that was replaced meanwhile."""
        await self.tx.execute(
            update(GitHostRow)
            .where(GitHostRow.id == host.id, GitHostRow.updated_at == host.updated_at)
            .values(last_error=reason[:MAX_ERROR_CHARACTERS])
        )

    async def remove(self, owner_id: UUID, host_id: UUID) -> GitHost:
        """Remove the owner's host and return what it was.

        Raises:
            GitHostNotFound: It is absent or somebody else's.
        """
        row = await self.tx.scalar(
            select(GitHostRow).where(GitHostRow.id == host_id, GitHostRow.user_id == owner_id)
        )
        if row is None:
            raise GitHostNotFound("Git host not found")
        host = _host(row)
        await self.tx.execute(delete(GitHostRow).where(GitHostRow.id == host_id))
        return host
