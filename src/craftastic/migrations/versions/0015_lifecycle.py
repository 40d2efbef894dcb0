"""when an environment became what it is, when it was used, and its idle policy.

Revision: 0015
Follows: 0014
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("status_since", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("used_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("idle_stop_minutes", sa.Integer(), nullable=True))
    op.execute("UPDATE environments SET status_since = updated_at, used_at = updated_at")
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.alter_column("status_since", nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("environments", schema=None) as batch_op:
        for name in ("idle_stop_minutes", "used_at", "status_since"):
            batch_op.drop_column(name)
