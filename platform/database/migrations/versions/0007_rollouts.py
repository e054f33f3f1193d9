"""How updates take the traffic over, how far one is, and how the fleets behind a router answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("deployment_config", sa.JSON))
    op.add_column("endpoints", sa.Column("rollout", sa.JSON))
    op.add_column("endpoint_activity", sa.Column("fleets", sa.JSON, nullable=False, server_default="{}"))
    with op.batch_alter_table("endpoint_activity") as table:
        table.alter_column("fleets", server_default=None)
