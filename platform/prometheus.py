"""What Prometheus reads at /metrics: jobs and their latest numbers, endpoints and their load. Read from the records."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from raymaker.platform.database import hosting, training
from raymaker.platform.database.activity import all_activities
from raymaker.platform.database.engine import Database
from raymaker.platform.database.metrics import final_metrics
from raymaker.platform.operations.signals import describe_load, describe_variant

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SIGNALS = {
    "RequestsInLastMinute": ("raymaker_variant_requests_in_last_minute", "Requests answered within the last minute"),
    "LatencyP50InMilliseconds": ("raymaker_variant_latency_p50_milliseconds", "Median time to answer"),
    "LatencyP99InMilliseconds": ("raymaker_variant_latency_p99_milliseconds", "Time within which 99 of 100 answer"),
}


def render(database: Database, now: float) -> bytes:
    """Write all numbers as they are now, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Records(database, now))
    return generate_latest(registry)


class _Records(Collector):
    """Reads the records once for each scrape."""

    def __init__(self, database: Database, now: float) -> None:
        self._database = database
        self._now = now

    def describe(self) -> list[Metric]:
        """Nothing ahead: to say what there is, all would have to be read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything there is."""
        count = GaugeMetricFamily("raymaker_training_jobs", "Jobs that have not ended", labels=["secondary_status"])
        with self._database.reading() as connection:
            for status, number in training.count_unfinished(connection).items():
                count.add_metric([status], number)
            yield count
            yield _numbers(connection, training.names_of_begun(connection))
            yield from self._hosting(connection)

    def _hosting(self, connection: Connection) -> Iterator[Metric]:
        endpoints = GaugeMetricFamily("raymaker_endpoints", "Endpoints, asleep or not", labels=["status"])
        for status, number in hosting.count_endpoints(connection).items():
            endpoints.add_metric([status], number)
        yield endpoints
        pending = GaugeMetricFamily("raymaker_endpoint_pending_requests", "Requests under way", labels=["endpoint"])
        signals = {
            key: GaugeMetricFamily(name, about, labels=["endpoint", "variant"])
            for key, (name, about) in _SIGNALS.items()
        }
        for endpoint, told in all_activities(connection).items():
            for number in describe_load(told, self._now).values():
                pending.add_metric([endpoint], number)
            for variant in sorted({name for each in told for name in each.latencies}):
                for key, value in describe_variant(variant, told, self._now).get("Signals", {}).items():
                    signals[key].add_metric([endpoint, variant], value)
        yield pending
        yield from signals.values()


def _numbers(connection: Connection, jobs: list[str]) -> Metric:
    """The last number of each metric of jobs that train."""
    family = GaugeMetricFamily("raymaker_training_metric", "A job's latest numbers", labels=["job", "metric"])
    for job in jobs:
        for found in final_metrics(connection, job, with_use=True):
            family.add_metric([job, found.name], found.value)
    return family
