"""deployments, and the application that an environment is deployed to.

Revision: 0014
Follows: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String(length=length), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        _text("app_id", 64),
        _text("app_name", 255),
        _text("source", 16),
        sa.Column("connection_id", sa.Uuid(), nullable=True),
        _text("web_url", 300),
        _text("kind", 16),
        _text("status", 16),
        _text("reason", 500, nullable=True),
        _text("branch", 255, nullable=True),
        _text("commit", 64, nullable=True),
        sa.Column("pull_request_id", sa.Integer(), nullable=True),
        sa.Column("force", sa.Boolean(), nullable=False),
        _text("run_id", 64, nullable=True),
        _text("run_word", 64, nullable=True),
        _text("run_path", 500, nullable=True),
        _text("known_run_id", 64, nullable=True),
        sa.Column("asked_at", sa.Double[float](), nullable=True),
        sa.Column("vain_asks", sa.Integer(), nullable=False),
        _text("built_commit", 64, nullable=True),
        _text("health", 16, nullable=True),
        _text("health_text", 100, nullable=True),
        sa.Column("queue_ahead", sa.Integer(), nullable=True),
        sa.Column("cancel_wanted", sa.Boolean(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("next_look_at", sa.Double[float](), nullable=False),
        sa.Column("hinted_at", sa.Double[float](), nullable=True),
        sa.Column("holder", sa.Uuid(), nullable=True),
        sa.Column("held_until", sa.Double[float](), nullable=True),
        sa.Column("deadline_at", sa.Double[float](), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
        _moment("building_at", nullable=True),
        _moment("ended_at", nullable=True),
        _moment("health_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_deployments_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("fk_deployments_session_id_sessions"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        for column in ("owner_id", "session_id", "run_id"):
            batch_op.create_index(batch_op.f(f"ix_deployments_{column}"), [column], unique=False)
        batch_op.create_index(
            "ix_deployments_live_next_look_at", ["live", "next_look_at"], unique=False
        )
        batch_op.create_index(
            "ix_deployments_environment_id_created_at",
            ["environment_id", "created_at"],
            unique=False,
        )

    op.create_table(
        "deployment_applications",
        sa.Column("environment_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        _text("app_id", 64),
        _text("app_name", 255),
        _moment("updated_at"),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_deployment_applications_environment_id_environments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("environment_id", name=op.f("pk_deployment_applications")),
    )


def downgrade() -> None:
    op.drop_table("deployment_applications")
    op.drop_table("deployments")
