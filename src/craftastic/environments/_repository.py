"""Table and queries of environments. Private to this package (checked)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    CursorResult,
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
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, DatabaseNow, Transaction, UtcDateTime, violated
from craftastic.environments._model import (
    CloneStatus,
    Desired,
    Environment,
    EnvironmentStatus,
    PushPolicy,
)
from craftastic.environments._timings import unpacked
from craftastic.errors import Conflict, NotFound
from craftastic.events.service import EventLog
from craftastic.runtimes.base import Progress

CREATE_LOCK = 7_201_533_001
"""Key of PostgreSQL's advisory lock under which environments are inserted, one at a time."""

LONGEST_CLAIM_S = 60.0
"""Longer than any claim: what is claimed until later was, before the clock went back."""


class EnvironmentNotFound(NotFound):
    code = "ENVIRONMENT_NOT_FOUND"


class EnvironmentNameTaken(Conflict):
    code = "ENVIRONMENT_NAME_IN_USE"


class TooManyEnvironments(Conflict):
    code = "TOO_MANY_ENVIRONMENTS"


class UserNotFound(NotFound):
    code = "USER_NOT_FOUND"


class EnvironmentRow(Base):
    __tablename__ = "environments"
    __table_args__ = (
        # A deleted environment gives its name back at once, before its storage is gone.
        Index(
            "uq_environments_owner_id_name",
            "owner_id",
            "name",
            unique=True,
            sqlite_where=text("desired <> 'deleted'"),
            postgresql_where=text("desired <> 'deleted'"),
        ),
        Index("ix_environments_status", "status"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    repository_url: Mapped[str | None] = mapped_column(String(2048))
    branch: Mapped[str] = mapped_column(String(200))
    runtime: Mapped[str] = mapped_column(String(32))
    sandbox_id: Mapped[str | None] = mapped_column(String(255), index=True)
    number: Mapped[int] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(String(16))
    desired: Mapped[str] = mapped_column(String(16))
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(2000))
    progress_step: Mapped[str | None] = mapped_column(String(32))
    progress_message: Mapped[str | None] = mapped_column(String(500))
    progress_percent: Mapped[int | None]
    clone_status: Mapped[str] = mapped_column(String(16))
    clone_reason: Mapped[str | None] = mapped_column(String(2000))
    gateway_token_hash: Mapped[str | None] = mapped_column(String(64))
    isolation: Mapped[str | None] = mapped_column(String(2000))
    push_policy: Mapped[str] = mapped_column(
        String(16), default=PushPolicy.SESSIONS.value, server_default=PushPolicy.SESSIONS.value
    )
    # Who works on the environment, and until when by the database's clock; a worker that does not
    # renew in time has lost it. The holder's random name is the fence of everything it writes.
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status_since: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    idle_stop_minutes: Mapped[int | None]
    timings: Mapped[str | None] = mapped_column(String(1000))


def _environment(row: EnvironmentRow) -> Environment:
    return Environment(
        id=row.id,
        owner_id=row.owner_id,
        name=row.name,
        repository_url=row.repository_url,
        branch=row.branch,
        runtime=row.runtime,
        sandbox_id=row.sandbox_id,
        number=row.number,
        status=EnvironmentStatus(row.status),
        desired=Desired(row.desired),
        reason_code=row.reason_code,
        reason=row.reason,
        progress=None
        if row.progress_step is None
        else Progress(row.progress_step, row.progress_message or "", row.progress_percent),
        clone_status=CloneStatus(row.clone_status),
        clone_reason=row.clone_reason,
        gateway_token_hash=row.gateway_token_hash,
        isolation=row.isolation,
        push_policy=PushPolicy(row.push_policy),
        created_at=row.created_at,
        updated_at=row.updated_at,
        status_since=row.status_since,
        used_at=row.used_at,
        idle_stop_minutes=row.idle_stop_minutes,
        timings=unpacked(row.timings),
    )


LIVING = EnvironmentRow.desired != Desired.DELETED.value
WAITING = or_(
    EnvironmentRow.desired == Desired.DELETED.value,
    EnvironmentRow.status == EnvironmentStatus.STARTING.value,
    and_(
        EnvironmentRow.desired == Desired.STOPPED.value,
        EnvironmentRow.status != EnvironmentStatus.STOPPED.value,
    ),
    and_(
        EnvironmentRow.status == EnvironmentStatus.RUNNING.value,
        EnvironmentRow.clone_status.in_(
            [CloneStatus.PENDING.value, CloneStatus.CLONING.value, CloneStatus.REPAIRING.value]
        ),
    ),
)
"""What a reconciler has to work on."""


class EnvironmentRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def add(
        self,
        *,
        owner_id: UUID,
        name: str,
        repository_url: str | None,
        branch: str,
        runtime: str,
        limit: int,
        now: datetime,
    ) -> Environment:
        """Insert an environment that is to be started, with the smallest free number.

        Raises:
            TooManyEnvironments: The owner has `limit` already.
            EnvironmentNameTaken: The owner has one of that name.
            UserNotFound: There is no such owner.
        """
        if self.tx.get_bind().dialect.name == "postgresql":
            await self.tx.execute(select(func.pg_advisory_xact_lock(CREATE_LOCK)))
        others = select(func.count()).where(EnvironmentRow.owner_id == owner_id, LIVING)
        taken = select(func.count()).where(
            EnvironmentRow.owner_id == owner_id, EnvironmentRow.name == name, LIVING
        )
        counts = await self.tx.execute(
            select(others.scalar_subquery(), taken.scalar_subquery(), _free_number())
        )
        count, same_name, number = counts.one()
        if same_name:
            raise EnvironmentNameTaken("Environment name already exists")
        if count >= limit:
            raise TooManyEnvironments(
                "You have as many environments as you may have",
                details=f"The limit is {limit}; delete one that you no longer need.",
            )
        row = EnvironmentRow(
            owner_id=owner_id,
            name=name,
            repository_url=repository_url,
            branch=branch,
            runtime=runtime,
            number=number,
            status=EnvironmentStatus.STARTING.value,
            desired=Desired.RUNNING.value,
            progress_step="sandbox",
            progress_message="Waiting to start",
            clone_status=(CloneStatus.PENDING if repository_url else CloneStatus.NONE).value,
            created_at=now,
            updated_at=now,
            status_since=now,
        )
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            if _is_name_taken(error):
                raise EnvironmentNameTaken("Environment name already exists") from error
            if violated(error, "fk_environments_owner_id_users", "FOREIGN KEY constraint"):
                raise UserNotFound("User not found") from error
            raise
        return self._told(_environment(row))

    async def get_owned(self, owner_id: UUID, environment_id: UUID) -> Environment:
        """Return the owner's environment.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self._one(
            EnvironmentRow.id == environment_id, EnvironmentRow.owner_id == owner_id, LIVING
        )
        if environment is None:
            raise EnvironmentNotFound("Environment not found")
        return environment

    async def find(self, environment_id: UUID) -> Environment | None:
        return await self._one(EnvironmentRow.id == environment_id)

    async def find_by_sandbox(self, owner_id: UUID, sandbox_id: str) -> Environment | None:
        return await self._one(
            EnvironmentRow.owner_id == owner_id, EnvironmentRow.sandbox_id == sandbox_id, LIVING
        )

    async def owner_of(self, environment_id: UUID | None, sandbox_id: str | None) -> UUID | None:
        """Return whose the environment is that has the id, or the sandbox where no id is given."""
        by_id = EnvironmentRow.id == environment_id
        wanted = EnvironmentRow.sandbox_id == sandbox_id if environment_id is None else by_id
        return await self.tx.scalar(select(EnvironmentRow.owner_id).where(wanted, LIVING).limit(1))

    async def list_owned(self, owner_id: UUID) -> list[Environment]:
        """List the owner's environments, newest first."""
        return await self._list(EnvironmentRow.owner_id == owner_id, LIVING)

    async def name_taken(self, owner_id: UUID, name: str) -> bool:
        found = await self.tx.scalar(
            select(EnvironmentRow.id).where(
                EnvironmentRow.owner_id == owner_id, EnvironmentRow.name == name, LIVING
            )
        )
        return found is not None

    async def others_in(self, runtime: str, owner_id: UUID) -> bool:
        """Tell whether somebody else has an environment in this runtime."""
        found = await self.tx.scalar(
            select(EnvironmentRow.id)
            .where(EnvironmentRow.runtime == runtime, EnvironmentRow.owner_id != owner_id)
            .limit(1)
        )
        return found is not None

    async def list_waiting(self) -> list[Environment]:
        """List what has to be worked on and nobody works on."""
        return await self._list(WAITING, _unclaimed())

    async def list_settled(self, runtime: str) -> list[Environment]:
        """List the environments of a runtime that are believed to run or to be stopped."""
        return await self._list(
            EnvironmentRow.runtime == runtime,
            LIVING,
            EnvironmentRow.status.in_(
                [EnvironmentStatus.RUNNING.value, EnvironmentStatus.STOPPED.value]
            ),
            _unclaimed(),
        )

    async def list_running(self) -> list[Environment]:
        return await self._list(LIVING, EnvironmentRow.status == EnvironmentStatus.RUNNING.value)

    async def runtimes(self) -> set[str]:
        """Return the names of the runtimes that any environment has."""
        return set(await self.tx.scalars(select(EnvironmentRow.runtime).distinct()))

    async def ids(self) -> set[UUID]:
        """Return the ids of all environments, deleted ones that are not gone yet among them."""
        return set(await self.tx.scalars(select(EnvironmentRow.id)))

    async def claim(self, environment_id: UUID, holder: str, seconds: float) -> Environment | None:
        """Take the environment to work on it; None when it is gone or somebody works on it."""
        return await self._update(
            (EnvironmentRow.id == environment_id, _unclaimed()),
            claimed_by=holder,
            claimed_until=DatabaseNow() + seconds,
        )

    async def renew(self, environment_id: UUID, holder: str, seconds: float) -> bool:
        """Prolong a claim; False when it was lost."""
        renewed = await self._update(
            (EnvironmentRow.id == environment_id, EnvironmentRow.claimed_by == holder),
            claimed_until=DatabaseNow() + seconds,
        )
        return renewed is not None

    async def release(self, environment_id: UUID, holder: str) -> None:
        await self._update(
            (EnvironmentRow.id == environment_id, EnvironmentRow.claimed_by == holder),
            claimed_by=None,
            claimed_until=None,
        )

    async def void_claims(self) -> None:
        """End everybody's claim."""
        await self.tx.execute(
            update(EnvironmentRow)
            .where(EnvironmentRow.claimed_by.is_not(None))
            .values(claimed_by=None, claimed_until=None)
        )

    async def write(
        self, environment_id: UUID, holder: str, desired: Desired, **values: Any
    ) -> Environment | None:
        """Change an environment as its worker; None when it lost the claim or the wish changed."""
        return await self._changed(
            (
                EnvironmentRow.id == environment_id,
                EnvironmentRow.claimed_by == holder,
                EnvironmentRow.desired == desired.value,
            ),
            **values,
        )

    async def wish(
        self, owner_id: UUID, environment_id: UUID, desired: Desired, **values: Any
    ) -> Environment:
        """Record what the owner wants now.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
        """
        environment = await self._changed(
            (EnvironmentRow.id == environment_id, EnvironmentRow.owner_id == owner_id, LIVING),
            desired=desired.value,
            **values,
        )
        if environment is None:
            raise EnvironmentNotFound("Environment not found")
        if desired is Desired.DELETED:
            EventLog(self.tx).add(owner_id, "environment.deleted", environment_id)
        return environment

    async def wish_idle(
        self, seen: Environment, reason_code: str, reason: str, now: datetime
    ) -> Environment | None:
        """Record that an environment is to be stopped, if nothing of it has changed since."""
        return await self._changed(
            (
                EnvironmentRow.id == seen.id,
                EnvironmentRow.status == EnvironmentStatus.RUNNING.value,
                EnvironmentRow.desired == Desired.RUNNING.value,
                EnvironmentRow.updated_at == seen.updated_at,
                _unclaimed(),
            ),
            desired=Desired.STOPPED.value,
            reason_code=reason_code,
            reason=reason,
            updated_at=now,
        )

    async def used(self, environment_id: UUID, now: datetime) -> None:
        """Record that an environment is in use; its owner is not told of that."""
        await self._update((EnvironmentRow.id == environment_id,), used_at=now)

    async def change(
        self, owner_id: UUID, environment_id: UUID, now: datetime, **values: Any
    ) -> Environment:
        """Change what the owner may set at any time; nothing is started or stopped by it.

        Raises:
            EnvironmentNotFound: It is absent, deleted or somebody else's.
            EnvironmentNameTaken: The owner has another one of that name.
        """
        try:
            environment = await self._changed(
                (EnvironmentRow.id == environment_id, EnvironmentRow.owner_id == owner_id, LIVING),
                updated_at=now,
                **values,
            )
        except IntegrityError as error:
            if _is_name_taken(error):
                raise EnvironmentNameTaken("Environment name already exists") from error
            raise
        if environment is None:
            raise EnvironmentNotFound("Environment not found")
        return environment

    async def settle(self, seen: Environment, **values: Any) -> Environment | None:
        """Change an environment if it is still as it was seen and nobody works on it."""
        return await self._changed(
            (
                EnvironmentRow.id == seen.id,
                EnvironmentRow.status == seen.status.value,
                EnvironmentRow.desired == seen.desired.value,
                EnvironmentRow.updated_at == seen.updated_at,
                _unclaimed(),
            ),
            **values,
        )

    async def note(
        self, environment_id: UUID, *, reason_code: str, **values: Any
    ) -> Environment | None:
        """Say something about a running environment, whoever works on it.

        What is said of it for another reason stays.
        """
        said = EnvironmentRow.reason_code
        return await self._changed(
            (
                EnvironmentRow.id == environment_id,
                EnvironmentRow.status == EnvironmentStatus.RUNNING.value,
                EnvironmentRow.desired == Desired.RUNNING.value,
                or_(said.is_(None), said == reason_code),
            ),
            reason_code=reason_code,
            **values,
        )

    async def remove(self, environment_id: UUID, holder: str) -> bool:
        statement = delete(EnvironmentRow).where(
            EnvironmentRow.id == environment_id,
            EnvironmentRow.claimed_by == holder,
            EnvironmentRow.desired == Desired.DELETED.value,
        )
        result = cast("CursorResult[Any]", await self.tx.execute(statement))
        return result.rowcount > 0

    async def _one(self, *conditions: ColumnElement[bool]) -> Environment | None:
        row = await self.tx.scalar(select(EnvironmentRow).where(*conditions).limit(1))
        return None if row is None else _environment(row)

    async def _list(self, *conditions: ColumnElement[bool]) -> list[Environment]:
        statement = (
            select(EnvironmentRow)
            .where(*conditions)
            .order_by(EnvironmentRow.created_at.desc(), EnvironmentRow.id)
        )
        return [_environment(row) for row in await self.tx.scalars(statement)]

    async def _changed(
        self, conditions: Sequence[ColumnElement[bool]], **values: Any
    ) -> Environment | None:
        """Update, and tell the owner."""
        environment = await self._update(conditions, **values)
        return None if environment is None else self._told(environment)

    def _told(self, environment: Environment) -> Environment:
        if environment.desired is not Desired.DELETED:  # of those the owner heard the last
            EventLog(self.tx).add(environment.owner_id, "environment.changed", environment.id)
        return environment

    async def _update(
        self, conditions: Sequence[ColumnElement[bool]], **values: Any
    ) -> Environment | None:
        if "status" in values and "updated_at" in values:
            values["status_since"] = case(
                (EnvironmentRow.status == values["status"], EnvironmentRow.status_since),
                else_=literal(values["updated_at"], UtcDateTime),
            )
        statement = (
            update(EnvironmentRow)
            .where(*conditions)
            .values(**values)
            .returning(EnvironmentRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        row = await self.tx.scalar(statement)
        return None if row is None else _environment(row)


def _is_name_taken(error: IntegrityError) -> bool:
    return violated(
        error, "uq_environments_owner_id_name", "environments.owner_id, environments.name"
    )


def _unclaimed() -> ColumnElement[bool]:
    return or_(
        EnvironmentRow.claimed_until.is_(None),
        EnvironmentRow.claimed_until < DatabaseNow(),
        EnvironmentRow.claimed_until > DatabaseNow() + LONGEST_CLAIM_S,
    )


def _free_number() -> Any:
    """Return the smallest positive number that no environment has, as a subquery."""
    taken = EnvironmentRow.__table__.alias("taken")
    after = EnvironmentRow.__table__.alias("after")
    first = EnvironmentRow.__table__.alias("first")
    next_free = (
        select(func.min(taken.c.number) + 1)
        .where(~select(after.c.id).where(after.c.number == taken.c.number + 1).exists())
        .scalar_subquery()
    )
    one_taken = select(first.c.id).where(first.c.number == 1).exists()
    return case((one_taken, next_free), else_=1)
