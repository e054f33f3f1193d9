"""Models, endpoint configurations and endpoints in the database, and the moves of endpoints.

What a legal move is stands in `transitions.py`; here it is loaded, made and written as one, with its event.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, delete, func, or_, select, update

from raymaker.actors.spec import SourceSpec
from raymaker.platform import transitions
from raymaker.platform.database.activity import delete_activity
from raymaker.platform.database.engine import Database
from raymaker.platform.database.events import delete_events, insert_event
from raymaker.platform.database.invocations import delete_invocations
from raymaker.platform.database.schema import endpoint_configs, endpoints, models
from raymaker.platform.database.statements import Listing, clean_text, fetch_page, insert_new
from raymaker.platform.database.tags import delete_all_tags
from raymaker.platform.errors import ConflictException
from raymaker.platform.hosting import rollout, sleep
from raymaker.platform.records import (
    Deployment,
    EndpointConfigRecord,
    EndpointRecord,
    EndpointStatus,
    EventRecord,
    ModelRecord,
    ResolvedContainer,
    ResolvedVariant,
    Rollout,
    RolloutStage,
    SleepStage,
)

Move = Callable[[EndpointRecord], EndpointRecord]


class EndpointMissing(Exception):
    """There is no endpoint of that name (any more)."""


def insert_model(connection: Connection, record: ModelRecord) -> bool:
    """Write a new model. False where the name is taken."""
    return insert_new(connection, models, [vars(record)]) == 1


def find_model(connection: Connection, name: str) -> ModelRecord | None:
    """Read one model."""
    row = _find(connection, models, name)
    return ModelRecord(**row) if row is not None else None


def list_models(connection: Connection, listing: Listing) -> tuple[list[ModelRecord], str | None]:
    """Read one page of models, and the next page's token. Raises ValidationException for a bad token."""
    page = fetch_page(connection, models, listing)
    return [ModelRecord(**row) for row in page.rows], page.next_token


def delete_model(connection: Connection, record: ModelRecord) -> None:
    """Forget a model and its tags."""
    connection.execute(delete(models).where(models.c.name == record.name))
    delete_all_tags(connection, record.arn)


def insert_endpoint_config(connection: Connection, record: EndpointConfigRecord) -> bool:
    """Write a new endpoint configuration. False where the name is taken."""
    return insert_new(connection, endpoint_configs, [vars(record)]) == 1


def find_endpoint_config(connection: Connection, name: str) -> EndpointConfigRecord | None:
    """Read one endpoint configuration."""
    row = _find(connection, endpoint_configs, name)
    return EndpointConfigRecord(**row) if row is not None else None


def list_endpoint_configs(connection: Connection, listing: Listing) -> tuple[list[EndpointConfigRecord], str | None]:
    """Read one page of configurations, and the next page's token. Raises ValidationException for a bad token."""
    page = fetch_page(connection, endpoint_configs, listing)
    return [EndpointConfigRecord(**row) for row in page.rows], page.next_token


def delete_endpoint_config(connection: Connection, record: EndpointConfigRecord) -> None:
    """Forget an endpoint configuration and its tags."""
    connection.execute(delete(endpoint_configs).where(endpoint_configs.c.name == record.name))
    delete_all_tags(connection, record.arn)


def insert_endpoint(connection: Connection, record: EndpointRecord) -> bool:
    """Write a new endpoint. False where the name is taken."""
    if insert_new(connection, endpoints, [_to_row(record)]) != 1:
        return False
    insert_event(connection, _event_of(record))
    return True


def find_endpoint(connection: Connection, name: str, *, lock: bool = False) -> EndpointRecord | None:
    """Read one endpoint; with `lock`, nobody else changes it before the transaction ends."""
    row = _find(connection, endpoints, name, lock=lock)
    return _from_row(row) if row is not None else None


def list_endpoints(connection: Connection, listing: Listing) -> tuple[list[EndpointRecord], str | None]:
    """Read one page of endpoints, and the next page's token. Raises ValidationException for a bad token."""
    page = fetch_page(connection, endpoints, listing)
    return [_from_row(row) for row in page.rows], page.next_token


def save_endpoint(connection: Connection, record: EndpointRecord) -> EndpointRecord:
    """Write a changed endpoint over the version it was read as, and return it as it is now.

    Raises ConflictException where somebody else wrote meanwhile.
    """
    saved = dataclasses.replace(record, version=record.version + 1)
    guard = (endpoints.c.name == record.name) & (endpoints.c.version == record.version)
    if connection.execute(update(endpoints).where(guard).values(_to_row(saved))).rowcount != 1:
        raise ConflictException(f"Endpoint {record.name} was changed by somebody else meanwhile. Try again.")
    return saved


def move_endpoint(connection: Connection, name: str, move: Move) -> EndpointRecord:
    """Load an endpoint, move it, write it where that changed it, and note a new status as an event.

    Raises EndpointMissing.
    """
    record = find_endpoint(connection, name, lock=True)
    if record is None:
        raise EndpointMissing(f"there is no endpoint {name}")
    moved = move(record)
    if moved == record:
        return record
    if moved.status is not record.status:
        insert_event(connection, _event_of(moved))
    if (news := rollout.describe(moved)) is not None and news != rollout.describe(record):
        insert_event(connection, EventRecord(moved.arn, moved.modified_at, "Rollout", news, moved.generation))
    return save_endpoint(connection, moved)


def apply_move(database: Database, name: str, move: Move) -> EndpointRecord:
    """Move an endpoint in a transaction of its own. Raises EndpointMissing."""
    with database.transaction() as connection:
        return move_endpoint(connection, name, move)


def count_endpoints(connection: Connection) -> dict[str, int]:
    """Count all endpoints, by status."""
    statement = select(endpoints.c.status, func.count()).group_by(endpoints.c.status).order_by(endpoints.c.status)
    return dict(connection.execute(statement).all())


def active_endpoints(database: Database) -> list[EndpointRecord]:
    """Read all endpoints but sleepers, oldest first: each is to be made, kept, gone back, cleared away or removed."""
    columns = endpoints.c
    has_work = or_(
        columns.sleep.is_(None), columns.sleep != SleepStage.ASLEEP, columns.status != EndpointStatus.IN_SERVICE
    )
    with database.reading() as connection:
        ordered = select(endpoints).where(has_work).order_by(columns.created_at, columns.name)
        return [_from_row(row) for row in connection.execute(ordered).mappings()]


def endpoint_healthy(
    database: Database,
    name: str,
    generation: int,
    running_counts: Mapping[str, int],
    now: float,
    *,
    wanted_counts: Mapping[str, int] | None = None,
) -> EndpointRecord:
    """Take the news that a generation answers, and return the endpoint as it is then. Raises EndpointMissing.

    `wanted_counts` are `running_counts` where nothing is scaled at this moment.
    """

    def move(record: EndpointRecord) -> EndpointRecord:
        moved = transitions.endpoint_healthy(record, generation, running_counts, now)
        return sleep.be_awake(moved, wanted_counts or running_counts) if generation == record.generation else moved

    return apply_move(database, name, move)


def endpoint_failed(database: Database, name: str, generation: int, reason: str, now: float) -> EndpointRecord:
    """Take the news that a generation cannot come up, and return the endpoint as it goes on. Raises EndpointMissing."""
    return apply_move(database, name, lambda record: transitions.endpoint_failed(record, generation, reason, now))


def endpoint_gone(database: Database, name: str) -> None:
    """Forget a Deleting endpoint whose fleet is gone, with all that is its own. One that is not Deleting stays."""
    with database.transaction() as connection:
        record = find_endpoint(connection, name, lock=True)
        if record is not None and record.status is EndpointStatus.DELETING:
            connection.execute(delete(endpoints).where(endpoints.c.name == name))
            delete_events(connection, record.arn)
            delete_all_tags(connection, record.arn)
            delete_invocations(connection, name)
            delete_activity(connection, name)


def _find(connection: Connection, table: Table, name: str, *, lock: bool = False) -> RowMapping | None:
    statement = select(table).where(table.c.name == name)
    return connection.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()


def _event_of(record: EndpointRecord) -> EventRecord:
    message = record.failure_reason or f"configuration {record.desired.config_name}"
    return EventRecord(record.arn, record.modified_at, record.status, message, record.generation)


def _to_row(record: EndpointRecord) -> dict[str, Any]:
    row = dataclasses.asdict(record)
    row["failure_reason"] = clean_text(record.failure_reason) if record.failure_reason is not None else None
    return row


def _from_row(row: RowMapping) -> EndpointRecord:
    stage = RolloutStage(row["stage"]) if row["stage"] is not None else None
    deployments = {key: _deployment(row[key]) for key in ("desired", "deployed")}
    states = {
        "status": EndpointStatus(row["status"]),
        "stage": stage,
        "sleep": SleepStage(row["sleep"]) if row["sleep"] is not None else None,
    }
    progress = {"rollout": Rollout(**row["rollout"]) if row["rollout"] is not None else None}
    return EndpointRecord(**{**row, **deployments, **states, **progress})


def _deployment(value: dict[str, Any] | None) -> Deployment | None:
    if value is None:
        return None
    fleets = {key: tuple(map(_variant, value[key])) for key in ("variants", "shadows")}
    return Deployment(**{**value, **fleets})


def _variant(value: dict[str, Any]) -> ResolvedVariant:
    return ResolvedVariant(**{**value, "containers": tuple(map(_container, value["containers"]))})


def _container(value: dict[str, Any]) -> ResolvedContainer:
    source = value["source"]
    return ResolvedContainer(**{**value, "source": SourceSpec(**source) if source is not None else None})
