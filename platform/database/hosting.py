"""Models, endpoint configurations and endpoints in the database, and the moves of endpoints.

What a legal move is stands in `transitions.py`; here it is loaded, made and written as one, with its event.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, delete, select, update

from raymaker.actors.spec import SourceSpec
from raymaker.platform import transitions
from raymaker.platform.database.engine import Database
from raymaker.platform.database.events import delete_events, insert_event
from raymaker.platform.database.schema import endpoint_configs, endpoints, models
from raymaker.platform.database.statements import Listing, clean_text, fetch_page, insert_new
from raymaker.platform.database.tags import delete_all_tags
from raymaker.platform.errors import ConflictException
from raymaker.platform.records import (
    Deployment,
    EndpointConfigRecord,
    EndpointRecord,
    EndpointStatus,
    EventRecord,
    ModelRecord,
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
    return save_endpoint(connection, moved)


def active_endpoints(database: Database) -> list[EndpointRecord]:
    """Read all endpoints, oldest first: each is to be made, kept, gone back, cleared away or removed."""
    with database.reading() as connection:
        rows = connection.execute(select(endpoints).order_by(endpoints.c.created_at, endpoints.c.name)).mappings()
        return [_from_row(row) for row in rows]


def endpoint_healthy(database: Database, name: str, generation: int, running_count: int, now: float) -> EndpointRecord:
    """Take the news that a generation answers, and return the endpoint as it is then. Raises EndpointMissing."""
    with database.transaction() as connection:
        return move_endpoint(
            connection, name, lambda record: transitions.endpoint_healthy(record, generation, running_count, now)
        )


def endpoint_failed(database: Database, name: str, generation: int, reason: str, now: float) -> EndpointRecord:
    """Take the news that a generation cannot come up, and return the endpoint as it goes on. Raises EndpointMissing."""
    with database.transaction() as connection:
        return move_endpoint(
            connection, name, lambda record: transitions.endpoint_failed(record, generation, reason, now)
        )


def endpoint_gone(database: Database, name: str) -> None:
    """Forget a Deleting endpoint whose fleet is gone, with its events and tags. One that is not Deleting stays."""
    with database.transaction() as connection:
        record = find_endpoint(connection, name, lock=True)
        if record is not None and record.status is EndpointStatus.DELETING:
            connection.execute(delete(endpoints).where(endpoints.c.name == name))
            delete_events(connection, record.arn)
            delete_all_tags(connection, record.arn)


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
    deployments = {key: _deployment(row[key]) for key in ("desired", "deployed")}
    return EndpointRecord(**{**row, **deployments, "status": EndpointStatus(row["status"])})


def _deployment(value: dict[str, Any] | None) -> Deployment | None:
    if value is None:
        return None
    source = value["source"]
    return Deployment(**{**value, "source": SourceSpec(**source) if source is not None else None})
