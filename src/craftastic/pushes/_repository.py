"""Tables and queries of pushes. Private to this package (checked)."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    Uuid,
    column,
    delete,
    func,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime
from craftastic.environments.service import EnvironmentNotFound
from craftastic.pushes._model import (
    GatewayEnvironment,
    PushIntent,
    PushOutcome,
    RecordedUpdate,
    RefResult,
    RefUpdate,
)
from craftastic.pushes._policy import MAX_REFS, branch_of

KEPT_PER_ENVIRONMENT = 1000
KEPT_REFUSED = MAX_REFS
KEPT_LISTS = 10
MAX_OWN_BRANCHES = 10_000
MAX_REASON_CHARACTERS = 500
AT_ONCE = 500

# Environments are another domain's rows: known here by name, for ownership in the query.
ENVIRONMENTS = table(
    "environments", column("id", Uuid()), column("owner_id", Uuid()), column("desired", String())
)


class GitPushRow(Base):
    """One ref of one push; of each environment the newest ones are kept.

    `KEPT_REFUSED` of those that the policy refused and `KEPT_PER_ENVIRONMENT` of the others: what
    costs nothing to ask for does not push out what happened.
    """

    __tablename__ = "git_pushes"
    __table_args__ = (Index("ix_git_pushes_environment_id_id", "environment_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    environment_id: Mapped[UUID] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"))
    owner_id: Mapped[UUID]
    intent_id: Mapped[UUID]
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


class GitRefListRow(Base):
    """What an upstream listed before a push that somebody finds by its id; kept for a while."""

    __tablename__ = "git_ref_lists"

    environment_id: Mapped[UUID] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    push_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    refs: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


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
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
        now: datetime,
    ) -> None:
        """Write the refs of a push that have a result, and forget the oldest ones."""
        rows = [
            {
                "environment_id": environment.id,
                "owner_id": environment.owner_id,
                "intent_id": intent.id,
                "push_id": intent.push_id,
                "ref": one.ref,
                "old": one.old,
                "new": one.new,
                "created_at": now,
                **_columns(results[one.ref]),
            }
            for one in intent.updates
            if one.ref in results
        ]
        await self.tx.execute(insert(GitPushRow), rows)
        refused = GitPushRow.outcome == PushOutcome.REFUSED.value
        await self._forget(environment.id, refused, KEPT_REFUSED)
        await self._forget(environment.id, ~refused, KEPT_PER_ENVIRONMENT)

    async def end(
        self, environment_id: UUID, intent_id: UUID, results: Mapping[str, RefResult]
    ) -> None:
        """Write how a push ended, of the refs that are still kept."""
        groups: dict[RefResult, list[str]] = {}
        for ref, result in results.items():
            groups.setdefault(result, []).append(ref)
        for result, refs in groups.items():
            await self.tx.execute(
                update(GitPushRow)
                .where(
                    GitPushRow.environment_id == environment_id,
                    GitPushRow.intent_id == intent_id,
                    GitPushRow.ref.in_(refs),
                )
                .values(**_columns(result))
            )

    async def _forget(self, environment_id: UUID, which: ColumnElement[bool], kept: int) -> None:
        oldest = await self.tx.scalar(
            select(GitPushRow.id)
            .where(GitPushRow.environment_id == environment_id, which)
            .order_by(GitPushRow.id.desc())
            .offset(kept)
            .limit(1)
        )
        if oldest is not None:
            await self.tx.execute(
                delete(GitPushRow).where(
                    GitPushRow.environment_id == environment_id, which, GitPushRow.id <= oldest
                )
            )

    async def keep_list(
        self, environment_id: UUID, push_id: str, refs: Mapping[str, str], now: datetime
    ) -> None:
        """Keep a list of refs in place of the push's last one, and forget the oldest ones."""
        mine = GitRefListRow.environment_id == environment_id
        await self.tx.execute(delete(GitRefListRow).where(mine, GitRefListRow.push_id == push_id))
        newest = (
            select(GitRefListRow.push_id)
            .where(mine)
            .order_by(GitRefListRow.created_at.desc())
            .limit(KEPT_LISTS - 1)
        )
        kept = (await self.tx.scalars(newest)).all()
        await self.tx.execute(delete(GitRefListRow).where(mine, GitRefListRow.push_id.not_in(kept)))
        self.tx.add(
            GitRefListRow(
                environment_id=environment_id,
                push_id=push_id,
                refs=json.dumps(refs, separators=(",", ":")),
                created_at=now,
            )
        )
        await self.tx.flush()

    async def forget_lists(self, before: datetime) -> None:
        """Forget what was listed before a time, of all environments."""
        await self.tx.execute(delete(GitRefListRow).where(GitRefListRow.created_at < before))

    async def find_list(
        self, environment_id: UUID, push_id: str, since: datetime
    ) -> dict[str, str] | None:
        found = await self.tx.scalar(
            select(GitRefListRow.refs).where(
                GitRefListRow.environment_id == environment_id,
                GitRefListRow.push_id == push_id,
                GitRefListRow.created_at >= since,
            )
        )
        return None if found is None else json.loads(found)

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
        for one in updates:
            # A reason beside `ok` says that the upstream did something else than was asked for.
            branch = branch_of(one.ref)
            if branch is not None and results[one.ref] == RefResult(PushOutcome.OK):
                if one.deletes:
                    gone.add(branch)
                elif one.creates:
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


def _columns(result: RefResult) -> dict[str, str | None]:
    return {
        "outcome": result.outcome.value,
        "reason": (result.reason or "")[:MAX_REASON_CHARACTERS] or None,
    }


def _recorded(row: GitPushRow) -> RecordedUpdate:
    return RecordedUpdate(
        ref=row.ref,
        old=row.old,
        new=row.new,
        outcome=PushOutcome(row.outcome),
        reason=row.reason,
        created_at=row.created_at,
    )
