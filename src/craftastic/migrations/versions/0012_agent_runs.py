"""agent runs, their tokens, approvals and prompts; the agent's state in its session.

Revision: 0012
Follows: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _session(table: str, *, nullable: bool = False) -> tuple[sa.Column[object], sa.Constraint]:
    return sa.Column("session_id", sa.Uuid(), nullable=nullable), sa.ForeignKeyConstraint(
        ["session_id"],
        ["sessions.id"],
        name=op.f(f"fk_{table}_session_id_sessions"),
        ondelete="CASCADE",
    )


def upgrade() -> None:
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("first_prompt", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("agent_state", sa.String(length=24), nullable=True))
        batch_op.add_column(_moment("agent_state_since", nullable=True))
        batch_op.add_column(sa.Column("agent_message", sa.String(length=2000), nullable=True))
        batch_op.add_column(sa.Column("agent_waits_for", sa.String(length=300), nullable=True))

    op.create_table(
        "agent_runs",
        *_session("agent_runs"),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("credential_type", sa.String(length=64), nullable=True),
        sa.Column("delivery", sa.String(length=16), nullable=True),
        sa.Column("provider", sa.String(length=40), nullable=True),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("answered_seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        _moment("state_since"),
        _moment("heard_at", nullable=True),
        sa.Column("message", sa.String(length=2000), nullable=True),
        sa.Column("waits_for", sa.String(length=300), nullable=True),
        sa.Column("kind", sa.String(length=80), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("conversation", sa.String(length=200), nullable=True),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("allowed_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_denied", sa.Boolean(), nullable=False),
        sa.Column("unconfirmed", sa.Boolean(), nullable=False),
        _moment("launched_at", nullable=True),
        _moment("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_agent_runs")),
    )
    with op.batch_alter_table("agent_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agent_runs_owner_id"), ["owner_id"], unique=False)

    op.create_table(
        "agent_run_tokens",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        *_session("agent_run_tokens"),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_agent_run_tokens")),
    )
    with op.batch_alter_table("agent_run_tokens", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_agent_run_tokens_session_id"), ["session_id"], unique=False
        )

    op.create_table(
        "agent_approvals",
        sa.Column("id", sa.Uuid(), nullable=False),
        *_session("agent_approvals"),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("tool", sa.String(length=100), nullable=False),
        sa.Column("subagent", sa.String(length=200), nullable=True),
        sa.Column("waits_for", sa.String(length=300), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(length=2000), nullable=True),
        _moment("created_at"),
        _moment("answered_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_approvals")),
    )
    with op.batch_alter_table("agent_approvals", schema=None) as batch_op:
        batch_op.create_index(
            "uq_agent_approvals_report", ["session_id", "nonce", "seq"], unique=True
        )
        batch_op.create_index(
            "ix_agent_approvals_owner_id_status", ["owner_id", "status"], unique=False
        )

    op.create_table(
        "agent_prompts",
        sa.Column("id", sa.Uuid(), nullable=False),
        *_session("agent_prompts"),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=300), nullable=True),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        _moment("created_at"),
        _moment("changed_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_prompts")),
    )
    with op.batch_alter_table("agent_prompts", schema=None) as batch_op:
        batch_op.create_index("uq_agent_prompts_number", ["session_id", "number"], unique=True)
        batch_op.create_index("ix_agent_prompts_status", ["status"], unique=False)


def downgrade() -> None:
    for table in ("agent_prompts", "agent_approvals", "agent_run_tokens", "agent_runs"):
        op.drop_table(table)
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        for name in (
            *("agent_waits_for", "agent_message", "agent_state_since", "agent_state"),
            "first_prompt",
        ):
            batch_op.drop_column(name)
