"""session_viewers: through which server a session is looked at.

Revision: 0017
Follows: 0016
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "session_viewers",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("server", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.Double[float](), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("fk_session_viewers_session_id_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "server", name=op.f("pk_session_viewers")),
    )
    op.create_index(op.f("ix_session_viewers_server"), "session_viewers", ["server"])


def downgrade() -> None:
    op.drop_table("session_viewers")
