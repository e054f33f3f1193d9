"""Where a number comes from: the log, the exchange, what a container uses, or an evaluation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metrics", sa.Column("source", sa.String(16), nullable=False, server_default="Log"))
