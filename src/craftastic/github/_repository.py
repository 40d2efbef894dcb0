"""Tables and queries of connected accounts and of flows. Private to this package (checked)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    ForeignKey,
    String,
    UniqueConstraint,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.database import Base, DatabaseNow, Transaction, UtcDateTime, violated
from craftastic.errors import Conflict
from craftastic.events.service import EventLog

ACCOUNTS_LOCK = 7_201_533_004
"""Key of PostgreSQL's advisory lock under which flows begin and accounts are bound, one by one."""

BACKING_OFF = "backing-off"
"""Stands in the place of a holder while nobody may refresh: GitHub was asked and had no answer."""

FlowState = Literal["starting", "pending", "redeemed", "completed", "failed", "ended"]
AccountState = Literal["connected", "unidentified", "reconnect"]

OPEN_STATES = ("starting", "pending", "redeemed")


class GitHubAccountTaken(Conflict):
    """The GitHub account belongs to another account of this server already."""

    code = "GITHUB_ACCOUNT_TAKEN"

    def __init__(self) -> None:
        super().__init__(
            "This GitHub account is connected to another account of this server",
            details="Disconnect it there first, or choose another GitHub account.",
        )


class FlowRow(Base):
    """One device flow; a user has at most one that is pending. Times are the database's seconds."""

    __tablename__ = "github_flows"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    handle_hash: Mapped[str] = mapped_column(String(64), unique=True)
    # While pending: GitHub's device code. Once redeemed: the tokens, until it is known whose.
    secret_id: Mapped[UUID | None] = mapped_column(ForeignKey("secrets.id", ondelete="SET NULL"))
    user_code: Mapped[str | None] = mapped_column(String(32))
    verification_uri: Mapped[str | None] = mapped_column(String(500))
    interval_s: Mapped[float] = mapped_column(Double)
    next_poll_at: Mapped[float] = mapped_column(Double)
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(String(64))


class AccountRow(Base):
    """A user's GitHub account; its tokens are in `secrets`."""

    __tablename__ = "github_accounts"
    __table_args__ = (UniqueConstraint("host", "github_id"),)

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    host: Mapped[str] = mapped_column(String(300))
    github_id: Mapped[int | None] = mapped_column(BigInteger)
    login: Mapped[str | None] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(2000))
    kind: Mapped[str] = mapped_column(String(16))
    access_secret_id: Mapped[UUID] = mapped_column(ForeignKey("secrets.id"))
    refresh_secret_id: Mapped[UUID | None] = mapped_column(ForeignKey("secrets.id"))
    scopes: Mapped[str] = mapped_column(String(1000))
    access_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    refresh_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(200))
    # Counts the pairs of tokens: what was decided about one pair must not hit the next.
    generation: Mapped[int]
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    connected_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # Who exchanges the refresh token now, and until when by the database's clock.
    refresh_holder: Mapped[str | None] = mapped_column(String(64))
    refresh_until: Mapped[float | None] = mapped_column(Double)


@dataclass(frozen=True, slots=True)
class Flow:
    id: UUID
    user_id: UUID
    secret_id: UUID | None
    interval_s: float
    state: FlowState
    error: str | None
    expired: bool


@dataclass(frozen=True, slots=True)
class Account:
    user_id: UUID
    host: str
    github_id: int | None
    login: str | None
    kind: str
    access_secret_id: UUID
    refresh_secret_id: UUID | None
    scopes: str
    access_expires_at: datetime | None
    refresh_expires_at: datetime | None
    state: AccountState
    reason: str | None
    generation: int
    issued_at: datetime
    checked_at: datetime
    refresh_holder: str | None

    @property
    def secret_ids(self) -> tuple[UUID, ...]:
        more = () if self.refresh_secret_id is None else (self.refresh_secret_id,)
        return (self.access_secret_id, *more)


def _account(row: AccountRow) -> Account:
    return Account(
        user_id=row.user_id,
        host=row.host,
        github_id=row.github_id,
        login=row.login,
        kind=row.kind,
        access_secret_id=row.access_secret_id,
        refresh_secret_id=row.refresh_secret_id,
        scopes=row.scopes,
        access_expires_at=row.access_expires_at,
        refresh_expires_at=row.refresh_expires_at,
        state=row.state,  # type: ignore[arg-type]  # only this module writes it
        reason=row.reason,
        generation=row.generation,
        issued_at=row.issued_at,
        checked_at=row.checked_at,
        refresh_holder=row.refresh_holder,
    )


def _flow(row: FlowRow, now: float) -> Flow:
    return Flow(
        id=row.id,
        user_id=row.user_id,
        secret_id=row.secret_id,
        interval_s=row.interval_s,
        state=row.state,  # type: ignore[arg-type]  # only this module writes it
        error=row.error,
        expired=row.expires_at <= now,
    )


class FlowRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def begin(
        self, user_id: UUID, handle_hash: str, *, limit: int, window_s: float, life_s: float
    ) -> UUID | float:
        """Insert a flow that is about to start; with too many, return for how long to wait."""
        await _one_at_a_time(self.tx)
        recent = select(func.count(), func.min(FlowRow.created_at), DatabaseNow()).where(
            FlowRow.user_id == user_id, FlowRow.created_at > DatabaseNow() - window_s
        )
        count, oldest, now = (await self.tx.execute(recent)).one()
        if count >= limit:
            return float(oldest + window_s - now)
        row = FlowRow(
            user_id=user_id,
            handle_hash=handle_hash,
            interval_s=0.0,
            next_poll_at=now + life_s,
            created_at=now,
            expires_at=now + life_s,
            state="starting",
        )
        self.tx.add(row)
        await self.tx.flush()
        return row.id

    async def one_at_a_time(self) -> None:
        """Wait until nobody else begins a flow, and keep it so until the transaction ends."""
        await _one_at_a_time(self.tx)

    async def offer(
        self,
        flow_id: UUID,
        *,
        secret_id: UUID,
        user_code: str,
        verification_uri: str,
        interval_s: float,
        wait_s: float,
        expires_in_s: float,
    ) -> bool:
        """Let the user begin; False when the flow was ended meanwhile."""
        return await self._changed(
            FlowRow.id == flow_id,
            FlowRow.state == "starting",
            state="pending",
            secret_id=secret_id,
            user_code=user_code,
            verification_uri=verification_uri,
            interval_s=interval_s,
            next_poll_at=DatabaseNow() + wait_s,
            expires_at=DatabaseNow() + expires_in_s,
        )

    async def forget(self, flow_id: UUID) -> None:
        await self.tx.execute(delete(FlowRow).where(FlowRow.id == flow_id))

    async def find(self, user_id: UUID, handle_hash: str) -> Flow | None:
        return await self._one(FlowRow.user_id == user_id, FlowRow.handle_hash == handle_hash)

    async def get(self, flow_id: UUID) -> Flow | None:
        return await self._one(FlowRow.id == flow_id)

    async def claim(self, flow_id: UUID, hold_s: float) -> Flow | None:
        """Take the right to ask GitHub about a flow; None when it is too early for anybody."""
        changed = await self._changed(
            FlowRow.id == flow_id,
            FlowRow.next_poll_at <= DatabaseNow(),
            or_(
                FlowRow.state == "redeemed",
                and_(FlowRow.state == "pending", FlowRow.expires_at > DatabaseNow()),
            ),
            next_poll_at=DatabaseNow() + FlowRow.interval_s + hold_s,
        )
        return await self._one(FlowRow.id == flow_id) if changed else None

    async def wait(self, flow_id: UUID, *, interval_s: float, wait_s: float) -> None:
        """Set when the next question may be asked, counted from now."""
        await self._changed(
            FlowRow.id == flow_id,
            FlowRow.state.in_(["pending", "redeemed"]),
            interval_s=interval_s,
            next_poll_at=DatabaseNow() + wait_s,
        )

    async def redeemed(self, flow_id: UUID, secret_id: UUID) -> bool:
        """Keep the tokens with the flow; False when the flow was ended meanwhile.

        One that failed is taken too: of two that asked at once, one got the tokens and the other
        was told that the code had been used.
        """
        return await self._changed(
            FlowRow.id == flow_id,
            FlowRow.state.in_(["pending", "failed"]),
            state="redeemed",
            secret_id=secret_id,
            error=None,
        )

    async def finish(
        self, flow_id: UUID, state: FlowState, error: str | None, *, of: Sequence[FlowState]
    ) -> bool:
        """End a flow that is in one of these states, and forget its secret's id."""
        return await self._changed(
            FlowRow.id == flow_id,
            FlowRow.state.in_(of),
            state=state,
            error=error,
            secret_id=None,
        )

    async def open_of(self, user_id: UUID, states: Sequence[FlowState]) -> list[Flow]:
        return await self._list(FlowRow.user_id == user_id, FlowRow.state.in_(states))

    async def redeemed_and_due(self, limit: int) -> list[Flow]:
        """List flows whose tokens wait to be bound, and nobody is at it."""
        return await self._list(
            FlowRow.state == "redeemed", FlowRow.next_poll_at <= DatabaseNow(), limit=limit
        )

    async def expired(self, limit: int) -> list[Flow]:
        return await self._list(
            FlowRow.state.in_(["starting", "pending"]),
            FlowRow.expires_at <= DatabaseNow(),
            limit=limit,
        )

    async def forget_ended(self, older_than_s: float) -> None:
        await self.tx.execute(
            delete(FlowRow).where(
                FlowRow.state.not_in(OPEN_STATES),
                FlowRow.created_at <= DatabaseNow() - older_than_s,
            )
        )

    async def _one(self, *conditions: ColumnElement[bool]) -> Flow | None:
        found = await self._list(*conditions, limit=1)
        return found[0] if found else None

    async def _list(self, *conditions: ColumnElement[bool], limit: int = 100) -> list[Flow]:
        statement = (
            select(FlowRow, DatabaseNow())
            .where(*conditions)
            .order_by(FlowRow.created_at, FlowRow.id)
            .limit(limit)
            .execution_options(populate_existing=True)
        )
        return [_flow(row, now) for row, now in await self.tx.execute(statement)]

    async def _changed(self, *conditions: ColumnElement[bool], **values: Any) -> bool:
        statement = (
            update(FlowRow)
            .where(*conditions)
            .values(**values)
            .returning(FlowRow.id)
            .execution_options(synchronize_session=False)
        )
        return await self.tx.scalar(statement) is not None


class AccountRepository:
    def __init__(self, tx: Transaction) -> None:
        self.tx = tx

    async def find(self, user_id: UUID) -> Account | None:
        return await self._one(AccountRow.user_id == user_id)

    async def find_by_github(self, host: str, github_id: int) -> Account | None:
        return await self._one(AccountRow.host == host, AccountRow.github_id == github_id)

    async def put(self, user_id: UUID, **values: Any) -> Account | None:
        """Bind a user to a GitHub account; return the one that was bound before.

        Raises:
            GitHubAccountTaken: It is another user's.
        """
        await _one_at_a_time(self.tx)
        before = await self.find(user_id)
        values |= {"refresh_holder": None, "refresh_until": None}
        try:
            if before is None:
                self.tx.add(AccountRow(user_id=user_id, generation=1, **values))
                await self.tx.flush()
            else:
                await self._update(
                    AccountRow.user_id == user_id, generation=before.generation + 1, **values
                )
        except IntegrityError as error:
            raise _taken(error) from error
        self._tell(user_id)
        return before

    async def identify(
        self, account: Account, *, github_id: int, login: str, name: str | None, scopes: str | None
    ) -> Account | None:
        """Write down whom this pair of tokens acts for; None when there is another pair by now.

        Raises:
            GitHubAccountTaken: It is another user's.
        """
        more = {} if scopes is None else {"scopes": scopes}
        try:
            identified = await self._update(
                *_this_pair(account),
                github_id=github_id,
                login=login,
                name=name,
                state="connected",
                reason=None,
                **more,
            )
        except IntegrityError as error:
            raise _taken(error) from error
        if identified is not None:
            self._tell(identified.user_id)
        return identified

    async def claim_refresh(self, account: Account, holder: str, hold_s: float) -> Account | None:
        """Take the right to exchange this pair's refresh token; None when another has it."""
        return await self._update(
            *_this_pair(account),
            AccountRow.state != "reconnect",
            or_(AccountRow.refresh_holder.is_(None), AccountRow.refresh_until <= DatabaseNow()),
            refresh_holder=holder,
            refresh_until=DatabaseNow() + hold_s,
        )

    async def refresh_is_held(self, user_id: UUID) -> bool:
        """Tell whether somebody has the right to exchange now, or nobody may have it."""
        found = await self.tx.scalar(
            select(AccountRow.user_id).where(
                AccountRow.user_id == user_id,
                AccountRow.refresh_holder.is_not(None),
                AccountRow.refresh_until > DatabaseNow(),
            )
        )
        return found is not None

    async def release_refresh(self, account: Account, holder: str, back_off_s: float) -> None:
        """Give the right back; nobody gets it for `back_off_s`."""
        await self._update(
            AccountRow.user_id == account.user_id,
            AccountRow.refresh_holder == holder,
            refresh_holder=BACKING_OFF if back_off_s > 0 else None,
            refresh_until=DatabaseNow() + back_off_s,
        )

    async def renew(self, account: Account, **values: Any) -> Account | None:
        """Write the next pair's facts in the place of this one's; None when it is not there.

        Whether the right to exchange has run out is not asked: the old pair is dead, and what is
        not written now is lost.
        """
        return await self._update(
            *_this_pair(account),
            generation=account.generation + 1,
            state="unidentified" if account.github_id is None else "connected",
            reason=None,
            refresh_holder=None,
            refresh_until=None,
            **values,
        )

    async def needs_reconnect(self, account: Account, reason: str) -> bool:
        """Mark this pair as dead; False when there is another pair, or it is marked already."""
        changed = await self._update(
            *_this_pair(account),
            AccountRow.state != "reconnect",
            state="reconnect",
            reason=reason,
            refresh_holder=None,
            refresh_until=None,
        )
        if changed is not None:
            self._tell(changed.user_id)
        return changed is not None

    async def claim_check(self, account: Account, now: datetime) -> bool:
        """Take the right to look whether this pair is alive: whoever changes the time has it."""
        changed = await self._update(
            *_this_pair(account), AccountRow.checked_at == account.checked_at, checked_at=now
        )
        return changed is not None

    async def unidentified(self, checked_before: datetime, limit: int) -> list[Account]:
        statement = (
            select(AccountRow)
            .where(AccountRow.state == "unidentified", AccountRow.checked_at <= checked_before)
            .order_by(AccountRow.checked_at)
            .limit(limit)
        )
        return [_account(row) for row in await self.tx.scalars(statement)]

    async def remove(self, user_id: UUID) -> Account | None:
        """Delete a user's account and return what it was."""
        row = await self.tx.scalar(
            delete(AccountRow).where(AccountRow.user_id == user_id).returning(AccountRow)
        )
        if row is not None:
            self._tell(user_id)
        return None if row is None else _account(row)

    def _tell(self, user_id: UUID) -> None:
        EventLog(self.tx).add(user_id, "github.changed", user_id)

    async def _one(self, *conditions: ColumnElement[bool]) -> Account | None:
        statement = select(AccountRow).where(*conditions).limit(1)
        row = await self.tx.scalar(statement.execution_options(populate_existing=True))
        return None if row is None else _account(row)

    async def _update(self, *conditions: ColumnElement[bool], **values: Any) -> Account | None:
        statement = (
            update(AccountRow)
            .where(*conditions)
            .values(**values)
            .returning(AccountRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        row = await self.tx.scalar(statement)
        return None if row is None else _account(row)


def _this_pair(account: Account) -> tuple[ColumnElement[bool], ...]:
    # The number alone begins anew when a user disconnects and connects again.
    return (
        AccountRow.user_id == account.user_id,
        AccountRow.access_secret_id == account.access_secret_id,
        AccountRow.generation == account.generation,
    )


def _taken(error: IntegrityError) -> Exception:
    if violated(
        error,
        "uq_github_accounts_host_github_id",
        "github_accounts.host, github_accounts.github_id",
    ):
        return GitHubAccountTaken()
    return error


async def _one_at_a_time(tx: Transaction) -> None:
    if tx.get_bind().dialect.name == "postgresql":
        await tx.execute(select(func.pg_advisory_xact_lock(ACCOUNTS_LOCK)))
