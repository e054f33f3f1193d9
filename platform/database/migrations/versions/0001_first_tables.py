"""The first tables: training jobs, models, endpoint configurations, endpoints, tags, events and metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create all of them."""
    _create_training_jobs()
    _create_models_and_configs()
    _create_endpoints()
    _create_tags_events_metrics()


def _create_training_jobs() -> None:
    op.create_table(
        "training_jobs",
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("secondary", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("modified_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("stop_requested_at", sa.Double),
        sa.Column("failure_reason", sa.Text),
        sa.Column("exit_code", sa.Integer),
        sa.Column("model_uri", sa.Text),
        sa.Column("image_digest", sa.Text),
        sa.Column("node_id", sa.Text),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("transitions", sa.JSON, nullable=False),
    )
    op.create_index("ix_training_jobs_created", "training_jobs", ["created_at", "name"])
    op.create_index("ix_training_jobs_status", "training_jobs", ["status", "created_at", "name"])
    op.create_index("ix_training_jobs_modified", "training_jobs", ["modified_at"])
    op.create_index("ix_training_jobs_model", "training_jobs", ["model_uri"])


def _create_models_and_configs() -> None:
    for table in ("models", "endpoint_configs"):
        op.create_table(
            table,
            sa.Column("name", _NAME, primary_key=True),
            sa.Column("arn", sa.Text, nullable=False),
            sa.Column("account", sa.String(12), nullable=False),
            sa.Column("created_at", sa.Double, nullable=False),
            sa.Column("request", sa.JSON, nullable=False),
        )
        op.create_index(f"ix_{table}_created", table, ["created_at", "name"])


def _create_endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("arn", sa.Text, nullable=False),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("modified_at", sa.Double, nullable=False),
        sa.Column("running_count", sa.Integer, nullable=False),
        sa.Column("failure_reason", sa.Text),
        sa.Column("desired", sa.JSON, nullable=False),
        sa.Column("deployed", sa.JSON),
    )
    op.create_index("ix_endpoints_created", "endpoints", ["created_at", "name"])
    op.create_index("ix_endpoints_status", "endpoints", ["status", "created_at", "name"])


def _create_tags_events_metrics() -> None:
    op.create_table(
        "tags",
        sa.Column("arn", _NAME, nullable=False),
        sa.Column("key", _NAME, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("arn", "key"),
    )
    op.create_table(
        "events",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("ix_events_subject", "events", ["subject", "id"])
    op.create_table(
        "metrics",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("job_name", _NAME, sa.ForeignKey("training_jobs.name", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("value", sa.Double),
        sa.UniqueConstraint("job_name", "name", "attempt", "time", name="uq_metrics_said_once"),
    )
    op.create_index("ix_metrics_job", "metrics", ["job_name", "id"])
