"""What Prometheus reads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raymaker.actors.reports import Activity, JobReport, Latency, Metric, Outcome
from raymaker.platform import prometheus, transitions
from raymaker.platform.app import create_app
from raymaker.platform.database import hosting, metrics, training
from raymaker.platform.database.activity import record_activity
from raymaker.platform.operations.registry import Context
from raymaker.platform.records import Deployment, ResolvedContainer, ResolvedVariant
from support.frontend import make_context


@pytest.fixture
def context(home: Path) -> Iterator[Context]:
    made = make_context(home)
    made.database.migrate()
    yield made
    made.database.dispose()


def read(context: Context, now: float = 100.0) -> dict[str, dict[tuple[str, ...], float]]:
    """Every family's samples, by the values of their labels."""
    text = prometheus.render(context.database, now).decode()
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def add_job(context: Context, name: str, *, ended: bool = False) -> None:
    database = context.database
    with database.transaction() as connection:
        training.insert_training_job(connection, transitions.create_training_job(name, f"arn:{name}", "0", {}, 1.0))
    training.start_attempt(database, name, 2.0)
    training.apply_report(database, JobReport(name, 1, "Training", "it trains", 3.0, training_started_at=3.0), 3.0)
    numbers = [Metric("loss", 2.0, 4.0), Metric("loss", 1.0, 5.0), Metric("bad", math.nan, 5.0)]
    metrics.insert_metrics(database, name, 1, numbers)
    if ended:
        training.apply_report(database, JobReport(name, 1, "Completed", "done", 6.0, outcome=Outcome.COMPLETED), 6.0)


def add_endpoint(context: Context, name: str) -> None:
    variant = ResolvedVariant({"VariantName": "v"}, "m", (ResolvedContainer("i"),))
    record = transitions.create_endpoint(name, f"arn:{name}", "0", Deployment("c", (variant,)), 1.0)
    with context.database.transaction() as connection:
        hosting.insert_endpoint(connection, record)


def test_jobs_that_train_are_counted_with_their_latest_numbers(context: Context) -> None:
    add_job(context, "one")
    add_job(context, "old", ended=True)
    with context.database.transaction() as connection:
        training.insert_training_job(connection, transitions.create_training_job("waits", "arn:w", "0", {}, 1.0))
    found = read(context)
    assert found["raymaker_training_jobs"] == {("Training",): 1, ("Starting",): 1}
    assert found["raymaker_training_metric"].keys() == {("one", "loss"), ("one", "bad")}
    assert found["raymaker_training_metric"]["one", "loss"] == 1.0
    assert math.isnan(found["raymaker_training_metric"]["one", "bad"])


def test_endpoints_are_counted_with_the_load_that_was_told_lately(context: Context) -> None:
    for name in ("e", "f"):
        add_endpoint(context, name)
    hosting.endpoint_healthy(context.database, "f", 1, {"v": 1}, 2.0)
    for replica, at, pending in (("r", 90.0, 2), ("s", 95.0, 1), ("gone", 10.0, 7)):
        record_activity(context.database, Activity("f", replica, at, pending, at, {"v": Latency(10, 0.1, 0.4)}))
    found = read(context)
    assert found["raymaker_endpoints"] == {("Creating",): 1, ("InService",): 1}
    assert found["raymaker_endpoint_pending_requests"] == {("f",): 3}
    assert found["raymaker_variant_requests_in_last_minute"] == {("f", "v"): 20}
    assert found["raymaker_variant_latency_p99_milliseconds"] == {("f", "v"): pytest.approx(400)}


def test_it_is_answered_at_metrics(context: Context) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
    asyncio.run(create_app(context)(scope, receive, send))
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"content-type"]) == (200, prometheus.CONTENT_TYPE.encode())
    assert b"# HELP raymaker_training_jobs Jobs that have not ended" in sent[1]["body"]
