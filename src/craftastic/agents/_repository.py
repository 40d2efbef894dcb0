"""Table and queries of agents. Private to this package (checked)."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, String, Uuid, column, delete, func, select, table, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from craftastic.agents._agent import AgentNotFound
from craftastic.database import Base, Transaction, UtcDateTime, violated
from craftastic.errors import NotFound

ADD_LOCK = 7_201_534
"""First half of the key of PostgreSQL's advisory lock under which an owner's agents are added."""

# Sessions are another domain's rows: known here by name, to let go of an agent that is deleted.
SESSIONS = table("sessions", column("id", Uuid()), column("agent_id", Uuid()))


class OwnerGone(NotFound):
    """The account that the agent would belong to is not there."""

    code = "USER_NOT_FOUND"


class AgentRow(Base):
    """An agent without its credential's value, which is one of the secrets."""

    __tablename__ = "agents"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(50))
    credential_type: Mapped[str | None] = mapped_column(String(50))
    secret_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("secrets.id", ondelete="SET NULL"), index=True
    )
    base_url: Mapped[str | None] = mapped_column(String(300))
    model: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AgentRepository:
    """The agents of one owner."""

    def __init__(self, tx: Transaction, owner_id: UUID) -> None:
        self.tx = tx
        self.owner_id = owner_id

    async def hold(self) -> None:
        """Let nobody else add an agent of the owner's until the transaction ends."""
        if self.tx.get_bind().dialect.name == "postgresql":
            half = int.from_bytes(self.owner_id.bytes[:4], signed=True)
            await self.tx.execute(select(func.pg_advisory_xact_lock(ADD_LOCK, half)))

    async def count(self) -> int:
        statement = select(func.count()).where(AgentRow.owner_id == self.owner_id)
        return await self.tx.scalar(statement) or 0

    async def exists(self, agent_id: UUID) -> bool:
        statement = select(AgentRow.id).where(
            AgentRow.id == agent_id, AgentRow.owner_id == self.owner_id
        )
        return await self.tx.scalar(statement) is not None

    async def get(self, agent_id: UUID, *, to_change: bool = False) -> AgentRow:
        """Return one of the owner's agents.

        Args:
            agent_id: Which one.
            to_change: Whether others that would change it wait until the transaction ends.

        Raises:
            AgentNotFound: It is absent or somebody else's.
        """
        statement = select(AgentRow).where(
            AgentRow.id == agent_id, AgentRow.owner_id == self.owner_id
        )
        row = await self.tx.scalar(statement.with_for_update() if to_change else statement)
        if row is None:
            raise AgentNotFound("Agent not found")
        return row

    async def list(self) -> Sequence[AgentRow]:
        """List the owner's agents, the oldest first."""
        statement = select(AgentRow).where(AgentRow.owner_id == self.owner_id)
        found = await self.tx.scalars(statement.order_by(AgentRow.created_at, AgentRow.id))
        return found.all()

    async def add(self, row: AgentRow) -> None:
        """Insert an agent.

        Raises:
            OwnerGone: There is no such user.
        """
        self.tx.add(row)
        try:
            await self.tx.flush()
        except IntegrityError as error:
            if violated(error, "fk_agents_owner_id_users", "FOREIGN KEY constraint"):
                raise OwnerGone("User not found") from error
            raise

    async def remove(self, agent_id: UUID) -> None:
        """Delete an agent; sessions that were its stay, without one."""
        await self.tx.execute(
            update(SESSIONS).where(SESSIONS.c.agent_id == agent_id).values(agent_id=None)
        )
        await self.tx.execute(
            delete(AgentRow).where(AgentRow.id == agent_id, AgentRow.owner_id == self.owner_id)
        )
