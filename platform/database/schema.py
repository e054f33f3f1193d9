"""The tables, once for SQLite and PostgreSQL. Migrations under `migrations/` make them; a test holds the two equal.

Names compare and sort byte by byte on both databases, since pages are cut by them. Times are epoch seconds.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

Name = Text().with_variant(Text(collation="C"), "postgresql")
RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only what is called INTEGER."""

training_jobs = Table(
    "training_jobs",
    metadata,
    Column("name", Name, primary_key=True),
    Column("arn", Text, nullable=False),
    Column("account", String(12), nullable=False),
    Column("status", String(32), nullable=False),
    Column("secondary", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("start", Integer, nullable=False, server_default="0"),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("modified_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("stop_requested_at", Double),
    Column("failure_reason", Text),
    Column("exit_code", Integer),
    Column("model_uri", Text),
    Column("image_digest", Text),
    Column("node_id", Text),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("restart_revision", Integer, nullable=False, server_default="0"),
    Column("move_count", Integer, nullable=False, server_default="0"),
    Column("deletes_model", Boolean, nullable=False, server_default=false()),
    Column("updates", JSON, nullable=False, server_default="[]"),
    Column("request", JSON, nullable=False),
    Column("transitions", JSON, nullable=False),
    Column("warm_pool", JSON(none_as_null=True)),
    Column("warm_pool_status", String(16)),
    Index("ix_training_jobs_created", "created_at", "name"),
    Index("ix_training_jobs_status", "status", "created_at", "name"),
    Index("ix_training_jobs_modified", "modified_at"),
    Index("ix_training_jobs_model", "model_uri"),
    Index("ix_training_jobs_warm_pool", "warm_pool_status", "created_at", "name"),
)

models = Table(
    "models",
    metadata,
    Column("name", Name, primary_key=True),
    Column("arn", Text, nullable=False),
    Column("account", String(12), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("request", JSON, nullable=False),
    Index("ix_models_created", "created_at", "name"),
)

endpoint_configs = Table(
    "endpoint_configs",
    metadata,
    Column("name", Name, primary_key=True),
    Column("arn", Text, nullable=False),
    Column("account", String(12), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("request", JSON, nullable=False),
    Index("ix_endpoint_configs_created", "created_at", "name"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", Name, primary_key=True),
    Column("arn", Text, nullable=False),
    Column("account", String(12), nullable=False),
    Column("status", String(32), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("modified_at", Double, nullable=False),
    Column("running_counts", JSON, nullable=False),
    Column("failure_reason", Text),
    Column("stage", String(32)),
    Column("sleep", String(32)),
    Column("wanted_counts", JSON, nullable=False),
    Column("desired", JSON, nullable=False),
    Column("deployed", JSON(none_as_null=True)),
    Column("deployment_config", JSON(none_as_null=True)),
    Column("rollout", JSON(none_as_null=True)),
    Index("ix_endpoints_created", "created_at", "name"),
    Index("ix_endpoints_status", "status", "created_at", "name"),
)

endpoint_activity = Table(
    "endpoint_activity",
    metadata,
    Column("endpoint_name", Name, nullable=False),
    Column("replica_id", Name, nullable=False),
    Column("time", Double, nullable=False),
    Column("pending_count", Integer, nullable=False),
    Column("last_request_at", Double, nullable=False),
    Column("latencies", JSON, nullable=False),
    Column("fleets", JSON, nullable=False),
    PrimaryKeyConstraint("endpoint_name", "replica_id"),
)

tags = Table(
    "tags",
    metadata,
    Column("arn", Name, nullable=False),
    Column("key", Name, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("arn", "key"),
)

events = Table(
    "events",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Index("ix_events_subject", "subject", "id"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_name", Name, ForeignKey("training_jobs.name", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("name", Name, nullable=False),
    Column("time", Double, nullable=False),
    Column("value", Double),  # null means NaN, which SQLite cannot hold
    Column("step", BigInteger),
    Column("rank", Integer),
    Column("source", String(16), nullable=False, server_default="Log"),
    UniqueConstraint("job_name", "name", "attempt", "time", name="uq_metrics_said_once"),
    Index("ix_metrics_job", "job_name", "id"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("job_name", Name, ForeignKey("training_jobs.name", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("trigger", String(32), nullable=False),
    Column("checkpoint", Text),
    Column("checkpoint_at", Double),
    Column("config", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("message", Text, nullable=False),
    Column("failure_reason", Text),
    Column("record_count", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("distributions", JSON, nullable=False),
    PrimaryKeyConstraint("job_name", "number"),
    Index("ix_evaluations_status", "status"),
)

async_invocations = Table(
    "async_invocations",
    metadata,
    Column("id", Name, primary_key=True),
    Column("endpoint_name", Name, nullable=False),
    Column("accepted_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),  # while it is claimed: when the claim's lease runs out
    Column("claim", String(36)),
    Column("attempt", Integer, nullable=False),
    Column("lost_count", Integer, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("inference_id", Text, nullable=False),
    Column("input_uri", Text),
    Column("body", LargeBinary),
    Column("output_uri", Text, nullable=False),
    Column("failure_uri", Text, nullable=False),
    Column("timeout_s", Double, nullable=False),
    Column("notice", JSON(none_as_null=True)),
    Index("ix_async_invocations_due", "endpoint_name", "due_at"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job_name", Name, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("topic", Text, nullable=False),
    Column("content", JSON, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("sent_count", Integer, nullable=False),
    Index("ix_notices_due", "due_at"),
)

transform_jobs = Table(
    "transform_jobs",
    metadata,
    Column("name", Name, primary_key=True),
    Column("arn", Text, nullable=False),
    Column("account", String(12), nullable=False),
    Column("status", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("modified_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("stop_requested_at", Double),
    Column("failure_reason", Text),
    Column("request", JSON, nullable=False),
    Column("model", JSON, nullable=False),
    Column("machines", JSON, nullable=False),
    Index("ix_transform_jobs_created", "created_at", "name"),
    Index("ix_transform_jobs_status", "status", "created_at", "name"),
    Index("ix_transform_jobs_modified", "modified_at"),
)

transform_objects = Table(
    "transform_objects",
    metadata,
    Column("job_name", Name, ForeignKey("transform_jobs.name", ondelete="CASCADE"), nullable=False),
    Column("name", Name, nullable=False),
    Column("record_count", BigInteger, nullable=False),
    Column("input_bytes", BigInteger, nullable=False),
    Column("output_bytes", BigInteger, nullable=False),
    Column("failure", Text),
    PrimaryKeyConstraint("job_name", "name"),
)
