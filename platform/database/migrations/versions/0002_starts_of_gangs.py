"""Training jobs on several instances: which start of an attempt's instances is the job's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `start`; no job that is there has begun one."""
    op.add_column("training_jobs", sa.Column("start", sa.Integer, nullable=False, server_default="0"))
