"""variables.

Revision: 0006
Follows: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "variables",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("is_secret", sa.Boolean(), nullable=False),
        sa.Column("value_bytes", sa.Integer(), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_variables_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"],
            ["users.id"],
            name=op.f("fk_variables_owner_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["secret_id"],
            ["secrets.id"],
            name=op.f("fk_variables_secret_id_secrets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variables")),
    )
    with op.batch_alter_table("variables", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_variables_environment_id"), ["environment_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_variables_secret_id"), ["secret_id"], unique=False)
        batch_op.create_index(
            "uq_variables_owner_id_environment_id_name",
            ["owner_id", "environment_id", "name"],
            unique=True,
            sqlite_where=sa.text("environment_id IS NOT NULL"),
            postgresql_where=sa.text("environment_id IS NOT NULL"),
        )
        batch_op.create_index(
            "uq_variables_owner_id_name",
            ["owner_id", "name"],
            unique=True,
            sqlite_where=sa.text("environment_id IS NULL"),
            postgresql_where=sa.text("environment_id IS NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("variables", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_variables_owner_id_name",
            sqlite_where=sa.text("environment_id IS NULL"),
            postgresql_where=sa.text("environment_id IS NULL"),
        )
        batch_op.drop_index(
            "uq_variables_owner_id_environment_id_name",
            sqlite_where=sa.text("environment_id IS NOT NULL"),
            postgresql_where=sa.text("environment_id IS NOT NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_variables_secret_id"))
        batch_op.drop_index(batch_op.f("ix_variables_environment_id"))

    op.drop_table("variables")
