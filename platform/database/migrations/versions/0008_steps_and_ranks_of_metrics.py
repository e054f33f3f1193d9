"""Which container said a number, and at which step of its own count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metrics", sa.Column("step", sa.BigInteger))
    op.add_column("metrics", sa.Column("rank", sa.Integer))
