"""Endpoints of several variants: what each runs, how many instances of each answer, and how far an update is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_endpoints = sa.table(
    "endpoints",
    sa.column("name", sa.Text),
    sa.column("generation", sa.Integer),
    sa.column("running_count", sa.Integer),
    sa.column("running_counts", sa.JSON),
    sa.column("desired", sa.JSON),
    sa.column("deployed", sa.JSON(none_as_null=True)),
)


def upgrade() -> None:
    """Write each deployment anew in the shape that it has from now on, so that code knows but one shape."""
    op.add_column("endpoints", sa.Column("running_counts", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("endpoints", sa.Column("stage", sa.String(32)))
    connection = op.get_bind()
    for row in connection.execute(sa.select(_endpoints)).mappings().all():
        values = {key: _reshape(row[key], row["generation"]) for key in ("desired", "deployed")}
        counts = {row["desired"]["variant"]["VariantName"]: row["running_count"]}
        connection.execute(
            sa.update(_endpoints).where(_endpoints.c.name == row["name"]).values(**values, running_counts=counts)
        )
    with op.batch_alter_table("endpoints") as table:
        table.drop_column("running_count")
        table.alter_column("running_counts", server_default=None)


def _reshape(deployment: dict[str, Any] | None, generation: int) -> dict[str, Any] | None:
    """The one variant and its one container, as the first of several."""
    if deployment is None:
        return None
    request = deployment["variant"]
    container = {key: deployment[key] for key in ("image", "source", "model_uri", "environment")}
    variant = {
        "request": request,
        "model_name": deployment["model_name"],
        "containers": [{**container, "hostname": None}],
        "weight": request.get("InitialVariantWeight", 1.0),
        "instance_count": request.get("InitialInstanceCount", 1),
    }
    return {
        "config_name": deployment["config_name"],
        "variants": [variant],
        "shadows": [],
        "revision": generation,
        "data_capture": None,
        "async_inference": None,
    }
