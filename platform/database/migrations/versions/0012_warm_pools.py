"""Warm pools: what is kept of a training job's machines after its end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_jobs", sa.Column("warm_pool", sa.JSON(none_as_null=True)))
    op.add_column("training_jobs", sa.Column("warm_pool_status", sa.String(16)))
    op.create_index("ix_training_jobs_warm_pool", "training_jobs", ["warm_pool_status", "created_at", "name"])
