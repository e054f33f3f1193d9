"""Tags, by the ARN of what they are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, select

from raymaker.platform.database.schema import tags
from raymaker.platform.database.statements import insert_new


def list_tags(connection: Connection, arn: str) -> dict[str, str]:
    """Read the tags of a resource, sorted by key."""
    rows = connection.execute(select(tags.c.key, tags.c.value).where(tags.c.arn == arn).order_by(tags.c.key))
    return {row.key: row.value for row in rows}


def put_tags(connection: Connection, arn: str, values: Mapping[str, str]) -> None:
    """Set tags; a key that is there gets the new value."""
    if not values:
        return
    delete_tags(connection, arn, list(values))
    insert_new(connection, tags, [{"arn": arn, "key": key, "value": value} for key, value in values.items()])


def delete_tags(connection: Connection, arn: str, keys: Sequence[str]) -> None:
    """Remove some tags; keys that are not there are no error."""
    connection.execute(delete(tags).where(tags.c.arn == arn, tags.c.key.in_(keys)))


def delete_all_tags(connection: Connection, arn: str) -> None:
    """Remove every tag of a resource that goes."""
    connection.execute(delete(tags).where(tags.c.arn == arn))
