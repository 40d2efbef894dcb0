"""Tables and queries of deployments. Private to this package (checked)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    String,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.coolify.service import HookOwner
from craftastic.database import Base, DatabaseNow, Transaction, UtcDateTime
from craftastic.deployments import _refusals as refusals
from craftastic.deployments._model import (
    MAX_REASON_CHARACTERS,
    UNENDED,
    Deployment,
    Health,
    Kind,
    Source,
    Status,
)
from craftastic.events.service import EventLog

ASKING_LOCK = 7_201_533_014
"""Key of PostgreSQL's advisory lock under which deployments are added, one by one."""

MAX_KEPT_PER_ENVIRONMENT = 200
MAX_LIVE_PER_OWNER = 20
MAX_LOOKED_AT_PER_OWNER = 60
"""With those that have ended and whose application is still looked at."""

MAX_PER_OWNER_AT_ONCE = 3

HELD = 9e15
"""When a deployment is due that somebody has: never, unless somebody moves it."""


class DeploymentRow(Base):
    """One run of Coolify; floats are the database's seconds."""

    __tablename__ = "deployments"
    __table_args__ = (
        Index("ix_deployments_live_next_look_at", "live", "next_look_at"),
        Index("ix_deployments_environment_id_created_at", "environment_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(index=True)
    environment_id: Mapped[UUID] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"))
    session_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("sessions.id", ondelete="SET NULL"), index=True
    )
    app_id: Mapped[str] = mapped_column(String(64))
    app_name: Mapped[str] = mapped_column(String(255))
    source: Mapped[str] = mapped_column(String(16))
    connection_id: Mapped[UUID | None]
    web_url: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(MAX_REASON_CHARACTERS))
    branch: Mapped[str | None] = mapped_column(String(255))
    commit: Mapped[str | None] = mapped_column(String(64))
    pull_request_id: Mapped[int | None]
    force: Mapped[bool] = mapped_column(Boolean)
    run_id: Mapped[str | None] = mapped_column(String(64), index=True)
    run_word: Mapped[str | None] = mapped_column(String(64))
    run_path: Mapped[str | None] = mapped_column(String(500))
    # Both are written before Coolify is asked: whoever finds them looks before asking again.
    known_run_id: Mapped[str | None] = mapped_column(String(64))
    asked_at: Mapped[float | None] = mapped_column(Double)
    vain_asks: Mapped[int]
    built_commit: Mapped[str | None] = mapped_column(String(64))
    health: Mapped[str | None] = mapped_column(String(16))
    health_text: Mapped[str | None] = mapped_column(String(100))
    queue_ahead: Mapped[int | None]
    cancel_wanted: Mapped[bool] = mapped_column(Boolean)
    looks: Mapped[int]
    next_look_at: Mapped[float] = mapped_column(Double)
    hinted_at: Mapped[float | None] = mapped_column(Double)
    # Who works on it now, and until when at the latest.
    holder: Mapped[UUID | None]
    held_until: Mapped[float | None] = mapped_column(Double)
    deadline_at: Mapped[float] = mapped_column(Double)
    live: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    building_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    health_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApplicationRow(Base):
    """The application that an environment is deployed to."""

    __tablename__ = "deployment_applications"

    environment_id: Mapped[UUID] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    owner_id: Mapped[UUID]
    app_id: Mapped[str] = mapped_column(String(64))
    app_name: Mapped[str] = mapped_column(String(255))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A wish that was checked; see `Deployment`."""

    owner_id: UUID
    environment_id: UUID
    session_id: UUID | None
    app_id: str
    app_name: str
    source: Source
    connection_id: UUID | None
    web_url: str
    kind: Kind
    branch: str | None
    commit: str | None
    pull_request_id: int | None
    force: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A deployment that is somebody's to work on for a while.

    Args:
        holder: Proves whose.
        now: The database's seconds when it was claimed.
    """

    row: Deployment
    holder: UUID
    now: float


def _deployment(row: DeploymentRow) -> Deployment:
    return Deployment(
        id=row.id,
        owner_id=row.owner_id,
        environment_id=row.environment_id,
        session_id=row.session_id,
        app_id=row.app_id,
        app_name=row.app_name,
        source=cast("Source", row.source),
        connection_id=row.connection_id,
        web_url=row.web_url,
        kind=Kind(row.kind),
        status=Status(row.status),
        reason=row.reason,
        branch=row.branch,
        commit=row.commit,
        pull_request_id=row.pull_request_id,
        force=row.force,
        run_id=row.run_id,
        run_word=row.run_word,
        run_path=row.run_path,
        known_run_id=row.known_run_id,
        asked_at=row.asked_at,
        vain_asks=row.vain_asks,
        built_commit=row.built_commit,
        health=None if row.health is None else Health(row.health),
        health_text=row.health_text,
        queue_ahead=row.queue_ahead,
        cancel_wanted=row.cancel_wanted,
        looks=row.looks,
        next_look_at=row.next_look_at,
        deadline_at=row.deadline_at,
        live=row.live,
        created_at=row.created_at,
        updated_at=row.updated_at,
        building_at=row.building_at,
        ended_at=row.ended_at,
        health_at=row.health_at,
    )


class DeploymentRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def one_at_a_time(self) -> None:
        """Wait until nobody else adds a deployment, and keep it so until the transaction ends."""
        if self._on_postgresql:
            await self.tx.execute(select(func.pg_advisory_xact_lock(ASKING_LOCK)))

    async def add(
        self, new: NewDeployment, now: datetime, *, hold_s: float, give_up_s: float
    ) -> Claim:
        """Insert a deployment that whoever inserts it has to itself at first.

        Raises:
            TargetNotFound: The environment or session is gone.
        """
        seconds = float(await self.tx.scalar(select(DatabaseNow())) or 0.0)
        holder = uuid4()
        row = DeploymentRow(
            id=uuid4(),
            owner_id=new.owner_id,
            environment_id=new.environment_id,
            session_id=new.session_id,
            app_id=new.app_id,
            app_name=new.app_name,
            source=new.source,
            connection_id=new.connection_id,
            web_url=new.web_url,
            kind=new.kind,
            status=Status.PENDING,
            branch=new.branch,
            commit=new.commit,
            pull_request_id=new.pull_request_id,
            force=new.force,
            vain_asks=0,
            cancel_wanted=False,
            looks=0,
            next_look_at=HELD,
            holder=holder,
            held_until=seconds + hold_s,
            deadline_at=seconds + give_up_s,
            live=True,
            created_at=now,
            updated_at=now,
        )
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            raise refusals.TargetNotFound from error  # deleted since it was looked up
        await self._forget_old(new.environment_id)
        made = _deployment(row)
        self._tell(made)
        return Claim(made, holder, seconds)

    async def get_owned(self, owner_id: UUID, deployment_id: UUID) -> Deployment:
        found = await self._list(
            DeploymentRow.owner_id == owner_id, DeploymentRow.id == deployment_id, limit=1
        )
        if not found:
            raise refusals.DeploymentNotFound
        return found[0]

    async def list_environment(
        self, owner_id: UUID, environment_id: UUID, limit: int
    ) -> list[Deployment]:
        return await self._list(
            DeploymentRow.owner_id == owner_id,
            DeploymentRow.environment_id == environment_id,
            limit=limit,
        )

    async def list_session(self, owner_id: UUID, session_id: UUID, limit: int) -> list[Deployment]:
        return await self._list(
            DeploymentRow.owner_id == owner_id,
            DeploymentRow.session_id == session_id,
            limit=limit,
        )

    async def unended(
        self, owner_id: UUID, app_id: str, connection_id: UUID | None
    ) -> list[Deployment]:
        """List the owner's deployments of an application that have not ended, newest first."""
        return await self._list(
            DeploymentRow.owner_id == owner_id,
            DeploymentRow.app_id == app_id,
            DeploymentRow.connection_id.is_not_distinct_from(connection_id),
            DeploymentRow.live.is_(True),
            DeploymentRow.status.in_(UNENDED),
            limit=MAX_LIVE_PER_OWNER,
        )

    async def insist_on_room(self, owner_id: UUID) -> None:
        """Refuse one more deployment of somebody who has enough.

        Raises:
            TooManyDeployments: As many are running, or are looked at, as may.
        """
        unended = case((DeploymentRow.status.in_(UNENDED), 1))
        found = await self.tx.execute(
            select(func.count(unended), func.count()).where(
                DeploymentRow.owner_id == owner_id, DeploymentRow.live.is_(True)
            )
        )
        for counted, most in zip(
            found.one(), (MAX_LIVE_PER_OWNER, MAX_LOOKED_AT_PER_OWNER), strict=True
        ):
            if counted >= most:
                raise refusals.TooManyDeployments(most)

    async def others_runs(self, row: Deployment) -> frozenset[str]:
        """Return the runs of the application that other deployments are known to have."""
        found = await self.tx.scalars(
            select(DeploymentRow.run_id)
            .where(
                DeploymentRow.app_id == row.app_id,
                DeploymentRow.web_url == row.web_url,
                DeploymentRow.id != row.id,
                DeploymentRow.run_id.is_not(None),
            )
            .order_by(DeploymentRow.created_at.desc())
            .limit(MAX_KEPT_PER_ENVIRONMENT)
        )
        return frozenset(one for one in found if one is not None)

    async def any_due(self) -> bool:
        found = await self.tx.scalar(select(DeploymentRow.id).where(*_due()).limit(1))
        return found is not None

    async def claim_due(
        self, limit: int, hold_s: float, under_way: Mapping[UUID, int] | None = None
    ) -> list[Claim]:
        """Take what is due, the longest due first, and of each owner only some at once.

        Args:
            limit: The most.
            hold_s: For how long.
            under_way: How many each owner has at work already.
        """
        left = {one: MAX_PER_OWNER_AT_ONCE - count for one, count in (under_way or {}).items()}
        # What nobody gave back is due since it might have been taken again.
        due = case(
            (DeploymentRow.next_look_at < HELD, DeploymentRow.next_look_at),
            else_=DeploymentRow.held_until,
        )
        place = func.row_number().over(partition_by=DeploymentRow.owner_id, order_by=due)
        ranked = (
            select(
                DeploymentRow.id.label("id"),
                due.label("due"),
                place.label("place"),
                _most(left).label("most"),
            )
            .where(*_due())
            .subquery()
        )
        chosen = (
            select(ranked.c.id)
            .where(ranked.c.place <= ranked.c.most)
            .order_by(ranked.c.due)
            .limit(limit)
        )
        # Processes that claim at once must not wait for each other's rows in two orders.
        free = (
            select(DeploymentRow.id)
            .where(DeploymentRow.id.in_(chosen), *_due())
            .with_for_update(skip_locked=True)
        )
        return await self._claim(DeploymentRow.id.in_(free), hold_s=hold_s)

    async def claim(self, deployment_id: UUID, hold_s: float) -> Claim | None:
        """Take one deployment; None when it is not due, or somebody else has it."""
        claims = await self._claim(DeploymentRow.id == deployment_id, hold_s=hold_s)
        return claims[0] if claims else None

    async def begin_asking(
        self, claim: Claim, known_run_id: str | None, hold_s: float
    ) -> Deployment | None:
        """Write down that Coolify is about to be asked; None when that is not ours to do now."""
        return await self._update(
            *_held(claim),
            known_run_id=known_run_id,
            asked_at=DatabaseNow(),
            held_until=DatabaseNow() + hold_s,
        )

    async def write(
        self, claim: Claim, changes: Mapping[str, object], delay_s: float | None, now: datetime
    ) -> Deployment | None:
        """Write what a step found out, and give the deployment back.

        Args:
            claim: What the step worked on; nothing is written once somebody else has it.
            changes: Columns and their new values.
            delay_s: When it is due again, unless somebody wants it sooner; None: never.
            now: The time of the change, where it is one that can be seen.
        """
        visible = any(getattr(claim.row, name) != changes[name] for name in changes.keys() - UNSEEN)
        values: dict[str, Any] = {**changes, "holder": None, "held_until": None}
        if delay_s is None:
            values["live"] = False
        else:
            moved = DeploymentRow.next_look_at < HELD
            values["next_look_at"] = case(
                (moved, DeploymentRow.next_look_at), else_=DatabaseNow() + delay_s
            )
        if visible:
            values["updated_at"] = now
        row = await self._update(*_held(claim), **values)
        if row is not None and visible:
            self._tell(row)
        return row

    async def want_cancelled(
        self, owner_id: UUID, deployment_id: UUID, now: datetime
    ) -> Deployment | None:
        """Store that a deployment is to be cancelled; None when it has ended, or is not there."""
        row = await self._update(
            DeploymentRow.owner_id == owner_id,
            DeploymentRow.id == deployment_id,
            DeploymentRow.status.in_(UNENDED),
            cancel_wanted=True,
            next_look_at=DatabaseNow(),
            updated_at=now,
        )
        if row is not None:
            self._tell(row)
        return row

    async def hint(
        self, hook: HookOwner, run_id: str | None, app_id: str | None, least_s: float
    ) -> bool:
        """Make due what a message speaks of; what was made so a moment ago is left alone."""
        whose = (
            DeploymentRow.source == "server"
            if hook.owner_id is None
            else DeploymentRow.owner_id == hook.owner_id
        )
        about = (
            DeploymentRow.run_id == run_id if run_id is not None else DeploymentRow.app_id == app_id
        )
        found = await self.tx.scalars(
            update(DeploymentRow)
            .where(
                whose,
                about,
                DeploymentRow.live.is_(True),
                or_(
                    DeploymentRow.hinted_at.is_(None),
                    DeploymentRow.hinted_at <= DatabaseNow() - least_s,
                ),
            )
            .values(
                hinted_at=DatabaseNow(),
                next_look_at=case(
                    (DeploymentRow.next_look_at > DatabaseNow(), DatabaseNow()),
                    else_=DeploymentRow.next_look_at,
                ),
            )
            .returning(DeploymentRow.id)
            .execution_options(synchronize_session=False)
        )
        return found.first() is not None

    async def counts(self) -> dict[str, int]:
        """Count what is live by status."""
        found = await self.tx.execute(
            select(DeploymentRow.status, func.count())
            .where(DeploymentRow.live.is_(True))
            .group_by(DeploymentRow.status)
        )
        return {str(status): int(count) for status, count in found}

    async def application(self, owner_id: UUID, environment_id: UUID) -> tuple[str, str] | None:
        row = await self.tx.scalar(
            select(ApplicationRow).where(
                ApplicationRow.owner_id == owner_id,
                ApplicationRow.environment_id == environment_id,
            )
        )
        return None if row is None else (row.app_id, row.app_name)

    async def remember(
        self, owner_id: UUID, environment_id: UUID, app_id: str, app_name: str, now: datetime
    ) -> None:
        """Store which application an environment is deployed to, in the place of another.

        Raises:
            TargetNotFound: The environment is gone.
        """
        insert = postgresql.insert if self._on_postgresql else sqlite.insert
        values = {"app_id": app_id, "app_name": app_name, "updated_at": now}
        statement = insert(ApplicationRow).values(
            environment_id=environment_id, owner_id=owner_id, **values
        )
        try:
            await self.tx.execute(
                statement.on_conflict_do_update(index_elements=["environment_id"], set_=values)
            )
        except IntegrityError as error:
            raise refusals.TargetNotFound from error  # deleted since it was looked up

    async def forget(self, owner_id: UUID, environment_id: UUID) -> bool:
        found = await self.tx.scalar(
            delete(ApplicationRow)
            .where(
                ApplicationRow.owner_id == owner_id,
                ApplicationRow.environment_id == environment_id,
            )
            .returning(ApplicationRow.environment_id)
        )
        return found is not None

    async def _forget_old(self, environment_id: UUID) -> None:
        newest = (
            select(DeploymentRow.id)
            .where(DeploymentRow.environment_id == environment_id)
            .order_by(DeploymentRow.created_at.desc(), DeploymentRow.id)
            .limit(MAX_KEPT_PER_ENVIRONMENT)
        )
        await self.tx.execute(
            delete(DeploymentRow)
            .where(
                DeploymentRow.environment_id == environment_id,
                DeploymentRow.live.is_(False),
                DeploymentRow.id.not_in(newest),
            )
            .execution_options(synchronize_session=False)
        )

    @property
    def _on_postgresql(self) -> bool:
        return self.tx.get_bind().dialect.name == "postgresql"

    async def _list(self, *conditions: ColumnElement[bool], limit: int) -> list[Deployment]:
        statement = (
            select(DeploymentRow)
            .where(*conditions)
            .order_by(DeploymentRow.created_at.desc(), DeploymentRow.id)
            .limit(limit)
            .execution_options(populate_existing=True)
        )
        return [_deployment(row) for row in await self.tx.scalars(statement)]

    async def _claim(self, which: ColumnElement[bool], *, hold_s: float) -> list[Claim]:
        holder = uuid4()
        statement = (
            update(DeploymentRow)
            .where(which, *_due())
            .values(holder=holder, held_until=DatabaseNow() + hold_s, next_look_at=HELD)
            .returning(DeploymentRow, DatabaseNow())
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        found = await self.tx.execute(statement)
        return [Claim(_deployment(row), holder, float(now)) for row, now in found]

    async def _update(self, *conditions: ColumnElement[bool], **values: Any) -> Deployment | None:
        statement = (
            update(DeploymentRow)
            .where(*conditions)
            .values(**values)
            .returning(DeploymentRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        row = await self.tx.scalar(statement)
        return None if row is None else _deployment(row)

    def _tell(self, row: Deployment) -> None:
        EventLog(self.tx).add(
            row.owner_id,
            "deployment.changed",
            row.id,
            environment_id=row.environment_id,
            session_id=row.session_id,
        )


UNSEEN = frozenset({"looks", "known_run_id", "asked_at", "vain_asks", "deadline_at"})
"""Columns that nobody is shown."""


def _due() -> Sequence[ColumnElement[bool]]:
    # Whoever had it and never gave it back is gone; it is due whatever was written before.
    return (
        DeploymentRow.live.is_(True),
        or_(
            and_(DeploymentRow.holder.is_(None), DeploymentRow.next_look_at <= DatabaseNow()),
            DeploymentRow.held_until <= DatabaseNow(),
        ),
    )


def _most(left: Mapping[UUID, int]) -> ColumnElement[int]:
    """Return how many more of its owner's deployments a row may be among."""
    if not left:
        return literal(MAX_PER_OWNER_AT_ONCE)
    return case(left, value=DeploymentRow.owner_id, else_=MAX_PER_OWNER_AT_ONCE)


def _held(claim: Claim) -> Sequence[ColumnElement[bool]]:
    return (DeploymentRow.id == claim.row.id, DeploymentRow.holder == claim.holder)
