"""Table and queries of disk use. Private to this package (checked)."""

from datetime import datetime
from typing import Any, cast
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    Double,
    ForeignKey,
    String,
    Text,
    Uuid,
    column,
    false,
    literal,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, DatabaseNow, Transaction, UtcDateTime
from craftastic.disk._model import DiskUse, Level, ListedUse, Report
from craftastic.events.service import EventLog

LONGEST_CLAIM_S = 60.0
"""Longer than any claim: what is claimed until later was, before the clock went back."""

LONGEST_PAUSE_S = 86_400.0
"""Longer than any pause between two measurements, for the same reason."""

CHANGED = "disk.changed"
MAX_FAULT_CHARACTERS = 500
MAX_LISTED = 1000

# Environments are another domain's rows: known here by name, for ownership in the query.
ENVIRONMENTS = table(
    "environments",
    column("id", Uuid()),
    column("owner_id", Uuid()),
    column("name", String()),
    column("desired", String()),
    column("status", String()),
)


class DiskUseRow(Base):
    __tablename__ = "disk_uses"

    environment_id: Mapped[UUID] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    measured_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    report: Mapped[str | None] = mapped_column(Text)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    fault: Mapped[str | None] = mapped_column(String(MAX_FAULT_CHARACTERS))
    is_near: Mapped[bool]
    is_over: Mapped[bool]
    mark_bytes: Mapped[int | None] = mapped_column(BigInteger)
    reclaim_tier: Mapped[int | None]
    """What was begun; where nobody holds the claim, somebody has to finish or undo it."""

    # Who measures or frees, and until when by the database's clock; when it is due again.
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[float | None] = mapped_column(Double)
    next_at: Mapped[float] = mapped_column(Double)


class DiskRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def find_owned(self, owner_id: UUID, environment_id: UUID) -> DiskUse | None:
        return await self._one(
            DiskUseRow.environment_id == environment_id,
            DiskUseRow.environment_id.in_(
                select(ENVIRONMENTS.c.id).where(
                    ENVIRONMENTS.c.owner_id == owner_id, ENVIRONMENTS.c.desired != "deleted"
                )
            ),
        )

    async def find(self, environment_id: UUID) -> DiskUse | None:
        return await self._one(DiskUseRow.environment_id == environment_id)

    async def list_all(self) -> list[ListedUse]:
        """List everybody's environments with what is known of them, the largest first."""
        found = await self.tx.execute(
            select(
                ENVIRONMENTS.c.id,
                ENVIRONMENTS.c.name,
                ENVIRONMENTS.c.owner_id,
                DiskUseRow.total_bytes,
                DiskUseRow.measured_at,
                DiskUseRow.is_over,
            )
            .select_from(ENVIRONMENTS)
            .outerjoin(DiskUseRow, DiskUseRow.environment_id == ENVIRONMENTS.c.id)
            .where(ENVIRONMENTS.c.desired != "deleted")
            .order_by(DiskUseRow.total_bytes.desc().nulls_last(), ENVIRONMENTS.c.id)
            .limit(MAX_LISTED)
        )
        return [
            ListedUse(id_, name, owner_id, total or 0, measured_at, bool(over))
            for id_, name, owner_id, total, measured_at, over in found
        ]

    async def note_running(self, first_after_s: float) -> None:
        """Make a row for each running environment that has none, due after a while."""
        missing = await self.tx.scalars(
            select(ENVIRONMENTS.c.id)
            .outerjoin(DiskUseRow, DiskUseRow.environment_id == ENVIRONMENTS.c.id)
            .where(
                ENVIRONMENTS.c.status == "running",
                ENVIRONMENTS.c.desired != "deleted",
                DiskUseRow.environment_id.is_(None),
            )
            .limit(MAX_LISTED)
        )
        for environment_id in missing.all():
            await self._add(environment_id, first_after_s)

    async def due(self) -> list[UUID]:
        """Return running environments that are due; first those where something is unfinished."""
        found = await self.tx.scalars(
            select(DiskUseRow.environment_id)
            .join(ENVIRONMENTS, DiskUseRow.environment_id == ENVIRONMENTS.c.id)
            .where(
                ENVIRONMENTS.c.status == "running",
                ENVIRONMENTS.c.desired == "running",
                _unclaimed(),
                or_(
                    DiskUseRow.next_at <= DatabaseNow(),
                    DiskUseRow.next_at > DatabaseNow() + LONGEST_PAUSE_S,
                ),
            )
            .order_by(DiskUseRow.reclaim_tier.is_(None), DiskUseRow.next_at)
            .limit(MAX_LISTED)
        )
        return list(found)

    async def claim(
        self, environment_id: UUID, holder: str, seconds: float, *, tier: int | None = None
    ) -> DiskUse | None:
        """Take an environment's disk to look at it or, with a tier, to free it.

        Returns:
            What was known; None while somebody else has it. What was begun to be freed is due at
            once for whoever comes next.
        """
        await self._add(environment_id, 0.0)
        before = await self.find(environment_id)
        begun = {"reclaim_tier": tier, "next_at": DatabaseNow()}
        values: dict[str, Any] = {} if tier is None else begun
        taken = await self._update(
            (DiskUseRow.environment_id == environment_id, _unclaimed()),
            claimed_by=holder,
            claimed_until=DatabaseNow() + seconds,
            **values,
        )
        return before if taken else None

    async def renew(self, environment_id: UUID, holder: str, seconds: float) -> bool:
        """Prolong a claim; False when it was lost."""
        return await self._update(
            _held(environment_id, holder), claimed_until=DatabaseNow() + seconds
        )

    async def release(self, environment_id: UUID, holder: str) -> None:
        await self._update(_held(environment_id, holder), claimed_by=None, claimed_until=None)

    async def finished(self, environment_id: UUID, holder: str) -> bool:
        """Record that a reclaim has ended; False when the claim was lost."""
        return await self._update(_held(environment_id, holder), reclaim_tier=None)

    async def measured(
        self,
        environment_id: UUID,
        holder: str,
        report: Report,
        level: Level,
        *,
        at: datetime,
        pause_s: float,
    ) -> bool:
        """Store figures; False when the claim was lost."""
        return await self._update(
            _held(environment_id, holder),
            measured_at=at,
            report=report.model_dump_json(),
            total_bytes=report.total,
            fault=None,
            is_near=level.near,
            is_over=level.over,
            mark_bytes=level.mark,
            next_at=DatabaseNow() + pause_s,
        )

    async def marked(self, environment_id: UUID, holder: str, level: Level) -> None:
        """Record how much an environment used when it was stopped for it."""
        await self._update(_held(environment_id, holder), mark_bytes=level.mark)

    async def failed(self, environment_id: UUID, holder: str, why: str, *, pause_s: float) -> None:
        """Record why there are no new figures; the old ones stay."""
        await self._update(
            _held(environment_id, holder),
            fault=why[:MAX_FAULT_CHARACTERS],
            next_at=DatabaseNow() + pause_s,
        )

    def tell(self, owner_id: UUID, environment_id: UUID) -> None:
        """Tell the owner that what is known about the disk is another."""
        EventLog(self.tx).add(owner_id, CHANGED, environment_id)

    async def _one(self, *conditions: ColumnElement[bool]) -> DiskUse | None:
        found = await self.tx.execute(select(DiskUseRow, ~_unclaimed()).where(*conditions).limit(1))
        row = found.one_or_none()
        return None if row is None else _use(row[0], bool(row[1]))

    async def _add(self, environment_id: UUID, after_s: float) -> None:
        """Make the environment's row, unless it has one or is gone itself."""
        on_postgresql = self.tx.get_bind().dialect.name == "postgresql"
        insert = postgresql.insert if on_postgresql else sqlite.insert
        made = select(
            ENVIRONMENTS.c.id, literal(0), false(), false(), DatabaseNow() + after_s
        ).where(ENVIRONMENTS.c.id == environment_id)
        names = ["environment_id", "total_bytes", "is_near", "is_over", "next_at"]
        await self.tx.execute(insert(DiskUseRow).from_select(names, made).on_conflict_do_nothing())

    async def _update(self, conditions: tuple[ColumnElement[bool], ...], **values: Any) -> bool:
        statement = (
            update(DiskUseRow)
            .where(*conditions)
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        result = cast("CursorResult[Any]", await self.tx.execute(statement))
        return result.rowcount > 0


def _held(environment_id: UUID, holder: str) -> tuple[ColumnElement[bool], ...]:
    return (DiskUseRow.environment_id == environment_id, DiskUseRow.claimed_by == holder)


def _unclaimed() -> ColumnElement[bool]:
    return or_(
        DiskUseRow.claimed_until.is_(None),
        DiskUseRow.claimed_until < DatabaseNow(),
        DiskUseRow.claimed_until > DatabaseNow() + LONGEST_CLAIM_S,
    )


def _use(row: DiskUseRow, busy: bool) -> DiskUse:
    return DiskUse(
        environment_id=row.environment_id,
        measured_at=row.measured_at,
        report=_report(row.report),
        total_bytes=row.total_bytes,
        fault=row.fault,
        busy=busy,
        tier=row.reclaim_tier,
        near=row.is_near,
        over=row.is_over,
        mark=row.mark_bytes,
    )


def _report(text: str | None) -> Report | None:
    """Return stored figures; None where an older version stored them in another form."""
    try:
        return None if text is None else Report.model_validate_json(text)
    except ValidationError:
        return None
