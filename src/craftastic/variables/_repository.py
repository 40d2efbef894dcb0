"""Table and queries of variables. Private to this package (checked)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, ForeignKey, Index, String, delete, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, Transaction, UtcDateTime, violated
from craftastic.environments.service import EnvironmentNotFound
from craftastic.errors import Conflict
from craftastic.variables._rules import PAIR_BYTES

CHANGE_LOCK = 7_201_533
"""First half of the key of PostgreSQL's advisory lock under which an owner's variables change."""

EVERYBODYS = text("environment_id IS NULL")
AN_ENVIRONMENTS = text("environment_id IS NOT NULL")


class VariableBusy(Conflict):
    """The same variable was made at the same moment; trying again is the way on."""

    code = "VARIABLE_BUSY"


class VariableRow(Base):
    """A variable without its value, which is one of the secrets whether it is one or not."""

    __tablename__ = "variables"
    __table_args__ = (
        # Two indexes, since a NULL is never equal to another.
        Index(
            "uq_variables_owner_id_name",
            "owner_id",
            "name",
            unique=True,
            sqlite_where=EVERYBODYS,
            postgresql_where=EVERYBODYS,
        ),
        Index(
            "uq_variables_owner_id_environment_id_name",
            "owner_id",
            "environment_id",
            "name",
            unique=True,
            sqlite_where=AN_ENVIRONMENTS,
            postgresql_where=AN_ENVIRONMENTS,
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    environment_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(128))
    is_secret: Mapped[bool]
    value_bytes: Mapped[int]
    secret_id: Mapped[UUID] = mapped_column(
        ForeignKey("secrets.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VariableRepository:
    """An owner's variables; `environment_id` None stands for those of all environments."""

    def __init__(self, tx: Transaction, owner_id: UUID) -> None:
        self.tx = tx
        self.owner_id = owner_id

    async def hold(self) -> None:
        """Let nobody else change the owner's variables until the transaction ends."""
        if self.tx.get_bind().dialect.name == "postgresql":
            half = int.from_bytes(self.owner_id.bytes[:4], signed=True)
            await self.tx.execute(select(func.pg_advisory_xact_lock(CHANGE_LOCK, half)))

    async def list(self, environment_id: UUID | None) -> Sequence[VariableRow]:
        """List one scope's variables by their names."""
        statement = select(VariableRow).where(*self._scope(environment_id))
        return (await self.tx.scalars(statement.order_by(VariableRow.name))).all()

    async def find(self, environment_id: UUID | None, name: str) -> VariableRow | None:
        return await self.tx.scalar(
            select(VariableRow).where(*self._scope(environment_id), VariableRow.name == name)
        )

    async def taken(self, environment_id: UUID | None, *, but: str) -> tuple[int, int]:
        """Return how many variables of other names a scope has, and their bytes."""
        size = VariableRow.value_bytes + func.length(VariableRow.name) + PAIR_BYTES
        found = await self.tx.execute(
            select(func.count(), func.coalesce(func.sum(size), 0)).where(
                *self._scope(environment_id), VariableRow.name != but
            )
        )
        count, total = found.one()
        return int(count), int(total)

    async def add(self, row: VariableRow) -> None:
        """Insert a variable.

        Raises:
            VariableBusy: There is one of that name.
            EnvironmentNotFound: The environment went away meanwhile.
        """
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            columns = "variables.owner_id, variables."
            if violated(error, "uq_variables_owner_id", columns):
                raise VariableBusy("The variable was just made by somebody else; try again") from (
                    error
                )
            if violated(
                error, "fk_variables_environment_id_environments", "FOREIGN KEY constraint"
            ):
                raise EnvironmentNotFound("Environment not found") from error
            raise

    async def remove(self, row: VariableRow) -> None:
        await self.tx.execute(
            delete(VariableRow).where(
                VariableRow.id == row.id, VariableRow.owner_id == self.owner_id
            )
        )

    def _scope(self, environment_id: UUID | None) -> tuple[ColumnElement[bool], ...]:
        place = (
            VariableRow.environment_id.is_(None)
            if environment_id is None
            else VariableRow.environment_id == environment_id
        )
        return VariableRow.owner_id == self.owner_id, place


async def ownerless_secrets(tx: Transaction, purpose: str, limit: int) -> list[tuple[UUID, UUID]]:
    """Return owner and id of secrets that belong to no variable any more.

    A variable goes with its environment, by the database's own cascade; its secret stays behind.
    """
    secrets: Any = Base.metadata.tables["secrets"]
    used = select(VariableRow.id).where(VariableRow.secret_id == secrets.c.id).exists()
    found = await tx.execute(
        select(secrets.c.owner_id, secrets.c.id)
        .where(secrets.c.purpose == purpose, ~used)
        .limit(limit)
    )
    return [(owner, secret) for owner, secret in found]
