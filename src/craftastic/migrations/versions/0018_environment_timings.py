"""environments.timings: how long the steps of its last start took.

Revision: 0018
Follows: 0017
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("environments", sa.Column("timings", sa.String(length=1000), nullable=True))


def downgrade() -> None:
    op.drop_column("environments", "timings")
