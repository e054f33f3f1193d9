"""What the command line prints: tables for people, JSON for programs. Standard output only."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

WIDE = 240
"""Columns of a table that goes to a file or a pipe: nothing is cut there."""


def show_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON: times in ISO 8601, numbers that JSON does not have (NaN) as text."""
    typer.echo(json.dumps(_plain(value), indent=None if one_line else 2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "none") -> None:
    """Print rows under headings, or say that there are none."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(to_text(cell), style=_style(cell)) for cell in row))
    if table.row_count:
        _print(table)
    else:
        typer.echo(empty)


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, without those that have none."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, "", {}, []):
            table.add_row(name, Text(to_text(value), style=_style(value)))
    _print(table)


def to_text(value: object) -> str:
    """Write a value for people: times in this machine's zone, mappings as `name=value`."""
    if value is None:
        return "-"
    if isinstance(value, dt.datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={to_text(item)}" for name, item in value.items())
    return str(value)


_COLOURS = {
    "red": {"Failed", "UpdateRollbackFailed", "OutOfService", "down"},
    "green": {"Completed", "InService", "up"},
    "yellow": {"InProgress", "Creating", "Updating", "RollingBack", "Stopping", "Deleting", "Stopped", "starting"},
}


def _style(value: object) -> str:
    return next((colour for colour, words in _COLOURS.items() if value in words), "") if isinstance(value, str) else ""


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table)


def _plain(value: Any) -> Any:
    """Turn what an answer holds into what JSON has."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
