"""The command that shows what an endpoint's data capture has kept."""

from __future__ import annotations

import base64
import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of

if TYPE_CHECKING:
    from raymaker.platform.client.captured import Captured
    from raymaker.platform.client.payload import Answer

SHOWN_CHARS = 60
DEFAULT_COUNT = 100


def captured(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name.")],
    *,
    since: Annotated[datetime | None, typer.Option(help="Only from this time on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only before this time (UTC).")] = None,
    variant: Annotated[str | None, typer.Option(help="Only what this variant answered.")] = None,
    inference_id: Annotated[str | None, typer.Option(help="Only what was asked with this inference id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most records to show.")] = DEFAULT_COUNT,
    as_json: AsJson = False,
) -> None:
    """Show what an endpoint was asked and answered, where it captures data."""
    found = client_of(ctx).endpoint(name).captured(since=since, until=until, variant=variant, inference_id=inference_id)
    records = list(itertools.islice(found, limit))
    if as_json:
        display.show_json([_as_fields(record) for record in records])
        return
    display.show_table(
        ("TIME", "VARIANT", "INFERENCE ID", "ASKED", "ANSWERED"),
        (
            (record.time, record.variant, record.inference_id or "", _short(record.asked), _short(record.answered))
            for record in records
        ),
        empty="nothing was captured",
    )


def _as_fields(record: Captured) -> dict[str, Any]:
    return {
        "EventId": record.event_id,
        "InferenceTime": record.time,
        "VariantName": record.variant,
        "InferenceId": record.inference_id,
        "CustomAttributes": record.custom_attributes,
        "Input": _payload(record.asked),
        "Output": _payload(record.answered),
    }


def _payload(side: Answer | None) -> dict[str, str] | None:
    """Lay one side out for JSON; data that is no text goes as base64."""
    if side is None:
        return None
    text = _text(side)
    data = {"DataBase64": base64.b64encode(side.body).decode()} if text is None else {"Data": text}
    return {**data, "ContentType": side.content_type}


def _short(side: Answer | None) -> str:
    if side is None:
        return ""
    text = _text(side)
    shown = f"{len(side.body)} bytes" if text is None else " ".join(text.split())
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 1]}…"


def _text(side: Answer) -> str | None:
    try:
        return side.text
    except (UnicodeDecodeError, LookupError):
        return None
