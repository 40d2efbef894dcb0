"""connections to Coolify, hooks, and pauses.

Revision: 0013
Follows: 0012
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "coolify_connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(length=300), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=True),
        sa.Column("can_read", sa.Boolean(), nullable=False),
        sa.Column("can_deploy", sa.Boolean(), nullable=False),
        sa.Column("can_read_sensitive", sa.Boolean(), nullable=True),
        sa.Column("problem_code", sa.String(length=64), nullable=True),
        sa.Column("problem", sa.String(length=1000), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"],
            ["users.id"],
            name=op.f("fk_coolify_connections_owner_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["secret_id"],
            ["secrets.id"],
            name=op.f("fk_coolify_connections_secret_id_secrets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coolify_connections")),
        sa.UniqueConstraint("owner_id", name=op.f("uq_coolify_connections_owner_id")),
    )
    with op.batch_alter_table("coolify_connections", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_coolify_connections_secret_id"), ["secret_id"], unique=False
        )

    op.create_table(
        "coolify_hooks",
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id"],
            ["users.id"],
            name=op.f("fk_coolify_hooks_owner_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_coolify_hooks")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_coolify_hooks_key_hash")),
    )
    with op.batch_alter_table("coolify_hooks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_coolify_hooks_owner_id"), ["owner_id"], unique=False)

    op.create_table(
        "coolify_pauses",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Double[float](), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_coolify_pauses")),
    )


def downgrade() -> None:
    op.drop_table("coolify_pauses")
    with op.batch_alter_table("coolify_hooks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_coolify_hooks_owner_id"))

    op.drop_table("coolify_hooks")
    with op.batch_alter_table("coolify_connections", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_coolify_connections_secret_id"))

    op.drop_table("coolify_connections")
