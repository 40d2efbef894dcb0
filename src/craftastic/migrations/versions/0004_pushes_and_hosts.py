"""pushes, and credentials of git hosts.

Revision: 0004
Follows: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "push_policy", sa.String(length=16), server_default="sessions", nullable=False
            )
        )

    op.create_table(
        "git_hosts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(length=300), nullable=True),
        sa.ForeignKeyConstraint(
            ["secret_id"],
            ["secrets.id"],
            name=op.f("fk_git_hosts_secret_id_secrets"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_git_hosts_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_git_hosts")),
        sa.UniqueConstraint("user_id", "origin", name=op.f("uq_git_hosts_user_id_origin")),
    )
    with op.batch_alter_table("git_hosts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_git_hosts_secret_id"), ["secret_id"], unique=False)

    op.create_table(
        "git_own_branches",
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("branch", sa.String(length=1024), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_git_own_branches_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("environment_id", "branch", name=op.f("pk_git_own_branches")),
    )
    op.create_table(
        "git_pushes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("intent_id", sa.Uuid(), nullable=False),
        sa.Column("push_id", sa.String(length=32), nullable=True),
        sa.Column("ref", sa.String(length=1024), nullable=False),
        sa.Column("old", sa.String(length=64), nullable=False),
        sa.Column("new", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_git_pushes_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_git_pushes")),
    )
    with op.batch_alter_table("git_pushes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_git_pushes_environment_id_id", ["environment_id", "id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_git_pushes_push_id"), ["push_id"], unique=False)

    op.create_table(
        "git_ref_lists",
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("push_id", sa.String(length=32), nullable=False),
        sa.Column("refs", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_git_ref_lists_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("environment_id", "push_id", name=op.f("pk_git_ref_lists")),
    )
    with op.batch_alter_table("git_ref_lists", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_git_ref_lists_created_at"), ["created_at"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("git_ref_lists", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_git_ref_lists_created_at"))

    op.drop_table("git_ref_lists")
    with op.batch_alter_table("git_pushes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_git_pushes_push_id"))
        batch_op.drop_index("ix_git_pushes_environment_id_id")

    op.drop_table("git_pushes")
    op.drop_table("git_own_branches")
    with op.batch_alter_table("git_hosts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_git_hosts_secret_id"))

    op.drop_table("git_hosts")
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.drop_column("push_policy")
