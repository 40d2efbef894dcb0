"""Tables and queries of pushes. Private to this package (checked)."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    String,
    Uuid,
    column,
    delete,
    func,
    insert,
    select,
    table,
)
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime
from craftastic.environments.service import EnvironmentNotFound
from craftastic.pushes._model import PushOutcome, RecordedUpdate, RefResult, RefUpdate
from craftastic.pushes._policy import branch_of

KEPT_PER_ENVIRONMENT = 1000
MAX_OWN_BRANCHES = 10_000
MAX_REASON_CHARACTERS = 500
AT_ONCE = 500

# Environments are another domain's rows: known here by name, for ownership in the query.
ENVIRONMENTS = table(
    "environments", column("id", Uuid()), column("owner_id", Uuid()), column("desired", String())
)


class GitPushRow(Base):
    """One ref of one push; the newest `KEPT_PER_ENVIRONMENT` of each environment are kept."""

    __tablename__ = "git_pushes"
    __table_args__ = (Index("ix_git_pushes_environment_id_id", "environment_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    environment_id: Mapped[UUID] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"))
    owner_id: Mapped[UUID]
    push_id: Mapped[str | None] = mapped_column(String(32), index=True)
    ref: Mapped[str] = mapped_column(String(1024))
    old: Mapped[str] = mapped_column(String(64))
    new: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(MAX_REASON_CHARACTERS))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class GitOwnBranchRow(Base):
    """A branch that an environment made by a push, which it may go on to push to."""

    __tablename__ = "git_own_branches"

    environment_id: Mapped[UUID] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    branch: Mapped[str] = mapped_column(String(1024), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PushRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def lock(self, environment_id: UUID) -> bool:
        """Let one transaction at a time write an environment's pushes; False when it is gone."""
        found = await self.tx.scalar(
            select(ENVIRONMENTS.c.id)
            .where(ENVIRONMENTS.c.id == environment_id)
            .with_for_update(key_share=True)
        )
        return found is not None

    async def add(
        self,
        environment_id: UUID,
        owner_id: UUID,
        push_id: str | None,
        updates: Sequence[RefUpdate],
        results: Mapping[str, RefResult],
        now: datetime,
    ) -> None:
        """Write the refs of a push, as many as are kept, and forget the oldest ones."""
        rows = [
            {
                "environment_id": environment_id,
                "owner_id": owner_id,
                "push_id": push_id,
                "ref": update.ref,
                "old": update.old,
                "new": update.new,
                "outcome": results[update.ref].outcome.value,
                "reason": (results[update.ref].reason or "")[:MAX_REASON_CHARACTERS] or None,
                "created_at": now,
            }
            for update in updates[:KEPT_PER_ENVIRONMENT]
        ]
        await self.tx.execute(insert(GitPushRow), rows)
        oldest = await self.tx.scalar(
            select(GitPushRow.id)
            .where(GitPushRow.environment_id == environment_id)
            .order_by(GitPushRow.id.desc())
            .offset(KEPT_PER_ENVIRONMENT)
            .limit(1)
        )
        if oldest is not None:
            await self.tx.execute(
                delete(GitPushRow).where(
                    GitPushRow.environment_id == environment_id, GitPushRow.id <= oldest
                )
            )

    async def own(self, environment_id: UUID, branches: Collection[str]) -> set[str]:
        """Return those of the branches that the environment made."""
        wanted, found = sorted(branches), set[str]()
        for start in range(0, len(wanted), AT_ONCE):
            found |= set(
                await self.tx.scalars(
                    select(GitOwnBranchRow.branch).where(
                        GitOwnBranchRow.environment_id == environment_id,
                        GitOwnBranchRow.branch.in_(wanted[start : start + AT_ONCE]),
                    )
                )
            )
        return found

    async def note_branches(
        self,
        environment_id: UUID,
        updates: Sequence[RefUpdate],
        results: Mapping[str, RefResult],
        now: datetime,
    ) -> None:
        """Remember the branches that a push made, and forget those that it deleted."""
        made, gone = set[str](), set[str]()
        for update in updates:
            # A reason beside `ok` says that the upstream did something else than was asked for.
            branch = branch_of(update.ref)
            if branch is not None and results[update.ref] == RefResult(PushOutcome.OK):
                if update.deletes:
                    gone.add(branch)
                elif update.creates:
                    made.add(branch)
        for branch in sorted(gone):
            await self.tx.execute(
                delete(GitOwnBranchRow).where(
                    GitOwnBranchRow.environment_id == environment_id,
                    GitOwnBranchRow.branch == branch,
                )
            )
        await self._add_branches(environment_id, made, now)

    async def seen(self, environment_id: UUID, push_id: str) -> list[RecordedUpdate]:
        """Return the refs of a push in their order."""
        rows = await self.tx.scalars(
            select(GitPushRow)
            .where(GitPushRow.environment_id == environment_id, GitPushRow.push_id == push_id)
            .order_by(GitPushRow.id)
        )
        return [_recorded(row) for row in rows]

    async def list_owned(
        self, owner_id: UUID, environment_id: UUID, limit: int
    ) -> list[RecordedUpdate]:
        """Return what was pushed from the owner's environment, newest first.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        found = await self.tx.scalar(
            select(ENVIRONMENTS.c.id).where(
                ENVIRONMENTS.c.id == environment_id,
                ENVIRONMENTS.c.owner_id == owner_id,
                ENVIRONMENTS.c.desired != "deleted",
            )
        )
        if found is None:
            raise EnvironmentNotFound("Environment not found")
        rows = await self.tx.scalars(
            select(GitPushRow)
            .where(GitPushRow.environment_id == environment_id)
            .order_by(GitPushRow.id.desc())
            .limit(limit)
        )
        return [_recorded(row) for row in rows]

    async def _add_branches(self, environment_id: UUID, made: set[str], now: datetime) -> None:
        new = sorted(made - await self.own(environment_id, made))
        if not new:
            return
        known = await self.tx.scalar(
            select(func.count()).where(GitOwnBranchRow.environment_id == environment_id)
        )
        rows = [
            {"environment_id": environment_id, "branch": branch, "created_at": now}
            for branch in new[: max(0, MAX_OWN_BRANCHES - (known or 0))]
        ]
        if rows:
            await self.tx.execute(insert(GitOwnBranchRow), rows)


def _recorded(row: GitPushRow) -> RecordedUpdate:
    return RecordedUpdate(
        ref=row.ref,
        old=row.old,
        new=row.new,
        outcome=PushOutcome(row.outcome),
        reason=row.reason,
        created_at=row.created_at,
    )
