"""Statements that every table needs: insert unless it is there, and pages cut by keys.

A page's token holds the keys of its last row, so pages stay right while rows come and go.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from raymaker.platform.errors import ValidationException

DEFAULT_PAGE_COUNT = 10
"""SageMaker's own, where MaxResults is not given."""

_ROWS_AT_ONCE = 500
"""So that a statement stays far below SQLite's limit of 32,766 values."""

SORT_COLUMNS = {"Name": "name", "CreationTime": "created_at", "Status": "status"}


class Versioned(Protocol):
    """A record that is guarded by a version: `created_at` and `version` tell whether it is still as it was read."""

    @property
    def created_at(self) -> float:
        """Epoch seconds."""

    @property
    def version(self) -> int:
        """How often it was written."""


R = TypeVar("R", bound=Versioned)


@dataclass(frozen=True)
class Listing:
    """What to list, and in which order. `sort_by` is one of SORT_COLUMNS; times are epoch seconds, bounds excluded."""

    sort_by: str = "CreationTime"
    descending: bool = False
    limit_count: int = DEFAULT_PAGE_COUNT
    token: str | None = None
    name_contains: str | None = None
    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    warm_pool_status: str | None = None
    """Of training jobs only."""


@dataclass(frozen=True)
class Page:
    """Some rows, and the token of the next page, None where this is the last."""

    rows: Sequence[RowMapping]
    next_token: str | None


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose unique keys are not there yet. Returns how many those were."""
    if not rows:
        return 0
    # RETURNING counts what was inserted; PostgreSQL's driver does not give a rowcount for every insert.
    statement = _insert(connection, table).on_conflict_do_nothing().returning(*table.primary_key)
    return len(connection.execute(statement, [dict(row) for row in rows]).all())


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose unique keys are not there yet, many times as fast as `insert_new`, which counts them."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), [dict(row) for row in rows])


def fetch_page(connection: Connection, table: Table, listing: Listing) -> Page:
    """Fetch one page of a table of named records. Raises ValidationException for another listing's token."""
    key, name = table.c[SORT_COLUMNS[listing.sort_by]], table.c.name
    statement = _filter(select(table), table, listing)
    if listing.token is not None:
        last = _last_keys(listing)
        after = tuple_(key, name) < tuple_(*last) if listing.descending else tuple_(key, name) > tuple_(*last)
        statement = statement.where(after)
    order = (key.desc(), name.desc()) if listing.descending else (key.asc(), name.asc())
    statement = statement.order_by(*order).limit(listing.limit_count + 1)
    rows = connection.execute(statement).mappings().all()
    page = rows[: listing.limit_count]
    if len(rows) <= listing.limit_count:
        return Page(page, None)
    return Page(page, encode_token([*_order_of(listing), page[-1][key.name], page[-1]["name"]]))


def fetch_changed(
    connection: Connection,
    table: Table,
    condition: ColumnElement[bool],
    known: Mapping[str, R],
    read: Callable[[RowMapping], R],
) -> list[R]:
    """Fetch all rows of a table of named records under a condition, oldest first; only those that changed in full.

    `known` are records of an earlier call, by name: one that is still at its version is given back as it is.
    """
    columns = table.c
    keys = select(columns.name, columns.created_at, columns.version).where(condition)
    found = connection.execute(keys.order_by(columns.created_at, columns.name)).all()
    same = {
        name: record
        for name, created_at, version in found
        if (record := known.get(name)) is not None and (record.created_at, record.version) == (created_at, version)
    }
    changed = [row.name for row in found if row.name not in same]
    for start in range(0, len(changed), _ROWS_AT_ONCE):
        some = columns.name.in_(changed[start : start + _ROWS_AT_ONCE])
        same |= {row["name"]: read(row) for row in connection.execute(select(table).where(some)).mappings()}
    return [same[row.name] for row in found if row.name in same]


def fetch_rows_after(
    connection: Connection, statement: Select[Any], table: Table, limit: int, token: str | None
) -> Page:
    """Fetch one page of a table of numbered rows, oldest first. Raises ValidationException for a bad token."""
    if token is not None:
        statement = statement.where(table.c.id > _last_id(token))
    rows = connection.execute(statement.order_by(table.c.id).limit(limit + 1)).mappings().all()
    return Page(rows[:limit], encode_token([rows[limit - 1]["id"]]) if len(rows) > limit else None)


def encode_token(parts: list[Any]) -> str:
    """Wrap the keys of a page's last row in an opaque token."""
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode()


def decode_token(token: str) -> list[Any]:
    """Unwrap a token. Raises ValidationException where it is not one of ours."""
    try:
        parts = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        raise _bad_token() from None
    if not isinstance(parts, list):
        raise _bad_token()
    return parts


def clean_text(text: str) -> str:
    """Make a container's words fit to be stored: PostgreSQL takes no NUL, and neither takes half a character."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _filter(statement: Select[Any], table: Table, listing: Listing) -> Select[Any]:
    columns = table.c
    if listing.name_contains:
        lowered = func.lower(columns.name)
        statement = statement.where(lowered.contains(listing.name_contains.lower(), autoescape=True))
    if listing.status is not None:
        statement = statement.where(columns.status == listing.status)
    if listing.created_after is not None:
        statement = statement.where(columns.created_at > listing.created_after)
    if listing.created_before is not None:
        statement = statement.where(columns.created_at < listing.created_before)
    if listing.modified_after is not None:
        statement = statement.where(columns.modified_at > listing.modified_after)
    if listing.modified_before is not None:
        statement = statement.where(columns.modified_at < listing.modified_before)
    if listing.warm_pool_status is not None:
        statement = statement.where(columns.warm_pool_status == listing.warm_pool_status)
    return statement


def _order_of(listing: Listing) -> list[Any]:
    return [listing.sort_by, listing.descending]


def _insert(connection: Connection, table: Table) -> Any:
    """The database's own INSERT, which knows conflicts."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _last_keys(listing: Listing) -> tuple[float | str, str]:
    """Read a token's keys, each as its column has it."""
    match decode_token(listing.token or ""):
        case [sort_by, descending, str() as key, str() as name] if listing.sort_by != "CreationTime":
            keys: tuple[float | str, str] = (key, name)
        case [sort_by, descending, float() as key, str() as name] if math.isfinite(key):
            keys = (key, name)
        case _:
            raise _bad_token()
    if [sort_by, descending] != _order_of(listing) or not all(
        str(part).isascii() and "\0" not in str(part) for part in keys
    ):
        raise _bad_token()
    return keys


def _last_id(token: str) -> int:
    match decode_token(token):
        case [int() as last] if 0 <= last < 2**63:
            return last
    raise _bad_token()


def _bad_token() -> ValidationException:
    return ValidationException(
        "NextToken is not valid here: give it back unchanged, with the same SortBy and SortOrder, or leave it out"
    )
