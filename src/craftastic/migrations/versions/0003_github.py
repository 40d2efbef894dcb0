"""GitHub accounts.

Revision: 0003
Follows: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "github_accounts",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=300), nullable=False),
        sa.Column("github_id", sa.BigInteger(), nullable=True),
        sa.Column("login", sa.String(length=255), nullable=True),
        sa.Column("name", sa.String(length=2000), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("access_secret_id", sa.Uuid(), nullable=False),
        sa.Column("refresh_secret_id", sa.Uuid(), nullable=True),
        sa.Column("scopes", sa.String(length=1000), nullable=False),
        sa.Column("access_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refresh_holder", sa.String(length=64), nullable=True),
        sa.Column("refresh_until", sa.Double[float](), nullable=True),
        sa.ForeignKeyConstraint(
            ["access_secret_id"],
            ["secrets.id"],
            name=op.f("fk_github_accounts_access_secret_id_secrets"),
        ),
        sa.ForeignKeyConstraint(
            ["refresh_secret_id"],
            ["secrets.id"],
            name=op.f("fk_github_accounts_refresh_secret_id_secrets"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_github_accounts_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_github_accounts")),
        sa.UniqueConstraint("host", "github_id", name=op.f("uq_github_accounts_host_github_id")),
    )
    op.create_table(
        "github_flows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("handle_hash", sa.String(length=64), nullable=False),
        sa.Column("secret_id", sa.Uuid(), nullable=True),
        sa.Column("user_code", sa.String(length=32), nullable=True),
        sa.Column("verification_uri", sa.String(length=500), nullable=True),
        sa.Column("interval_s", sa.Double[float](), nullable=False),
        sa.Column("next_poll_at", sa.Double[float](), nullable=False),
        sa.Column("created_at", sa.Double[float](), nullable=False),
        sa.Column("expires_at", sa.Double[float](), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["secret_id"],
            ["secrets.id"],
            name=op.f("fk_github_flows_secret_id_secrets"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_github_flows_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_github_flows")),
        sa.UniqueConstraint("handle_hash", name=op.f("uq_github_flows_handle_hash")),
    )
    with op.batch_alter_table("github_flows", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_github_flows_user_id"), ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_table("github_flows")
    op.drop_table("github_accounts")
