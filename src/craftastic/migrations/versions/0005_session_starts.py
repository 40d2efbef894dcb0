"""where sessions begin.

Revision: 0005
Follows: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("start_kind", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("start_ref", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("start_commit", sa.String(length=64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_column("start_commit")
        batch_op.drop_column("start_ref")
        batch_op.drop_column("start_kind")
