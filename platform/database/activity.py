"""The last word of each replica of an endpoint's front about its load. What is old counts no longer, and goes."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, RowMapping, delete, select

from raymaker.actors.reports import Activity, FleetSignals, Latency
from raymaker.platform.database.engine import Database
from raymaker.platform.database.schema import endpoint_activity as table

KEPT_S = 300.0


def record_activity(database: Database, activity: Activity) -> None:
    """Keep a replica's word, instead of its last, and forget replicas that have long been silent."""
    of_endpoint = table.c.endpoint_name == activity.endpoint_name
    is_replaced = (table.c.replica_id == activity.replica_id) | (table.c.time < activity.time - KEPT_S)
    with database.transaction() as connection:
        connection.execute(delete(table).where(of_endpoint & is_replaced))
        connection.execute(table.insert().values(dataclasses.asdict(activity)))


def activities(connection: Connection, endpoint_name: str) -> list[Activity]:
    """Read what the replicas of an endpoint said last."""
    rows = connection.execute(select(table).where(table.c.endpoint_name == endpoint_name)).mappings()
    return [_from_row(row) for row in rows]


def all_activities(connection: Connection) -> dict[str, list[Activity]]:
    """Read what the replicas of every endpoint said last, by endpoint."""
    said: dict[str, list[Activity]] = {}
    for row in connection.execute(select(table).order_by(table.c.endpoint_name)).mappings():
        said.setdefault(row["endpoint_name"], []).append(_from_row(row))
    return said


def delete_activity(connection: Connection, endpoint_name: str) -> None:
    """Forget what the replicas of an endpoint said: they are gone."""
    connection.execute(delete(table).where(table.c.endpoint_name == endpoint_name))


def _from_row(row: RowMapping) -> Activity:
    latencies = {name: Latency(**each) for name, each in row["latencies"].items()}
    fleets = {name: FleetSignals(**each) for name, each in row["fleets"].items()}
    return Activity(**{**row, "latencies": latencies, "fleets": fleets})
