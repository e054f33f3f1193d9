"""Changes of a training job that runs, and whether its model is to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("revision", "restart_revision", "move_count"):
        op.add_column("training_jobs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("training_jobs", sa.Column("deletes_model", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("training_jobs", sa.Column("updates", sa.JSON, nullable=False, server_default="[]"))
