"""The command that changes a training job while it trains, and how its changes are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of, pairs


def update(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="JOB", help="The training job's name.")],
    *,
    hp: Annotated[list[str], typer.Option("--hp", metavar="NAME=VALUE", help="Hyperparameter. Repeat.")] = [],  # noqa: B006
    source: Annotated[str | None, typer.Option(help="Folder or archive of new source code: a path or URI.")] = None,
    entry_point: Annotated[
        str | None, typer.Option(help="The file in it that starts training; default: as now.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container image to go on with. Needs --restart.")] = None,
    base_image: Annotated[str | None, typer.Option(help="Image to run the source in; default: as now.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="What machine to go on with. Needs --restart.")] = None,
    instance_count: Annotated[int | None, typer.Option(help="How many machines. Needs --restart.")] = None,
    keep_alive: Annotated[
        int | None,
        typer.Option(min=0, metavar="SECONDS", help="Keep its machine for so long after its end; 0: give it back."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace containers that do not hear of the change.")
    ] = False,
    hear_timeout: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="How long they have to hear of it; default: 60.")
    ] = None,
    delete_model_data: Annotated[
        bool, typer.Option("--delete-model-data", help="Forget what replaced containers left as their model.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the change is in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change a training job while it trains, or how long its machine is kept."""
    changed = (
        client_of(ctx)
        .job(name)
        .update(
            hyperparameters=pairs("--hp", hp),
            source=source,
            entry_point=entry_point,
            image=image,
            base_image=base_image,
            instance_type=instance_type,
            instance_count=instance_count,
            keep_alive_s=keep_alive,
            restart=restart,
            hear_timeout_s=hear_timeout,
            delete_model_data=delete_model_data,
            wait=not no_wait,
        )
    )
    if as_json:
        display.show_json(changed)
    else:
        typer.echo(f"{name}: revision {changed['Revision']} is {changed['Status']}")


def show_updates(updates: list[Mapping[str, Any]]) -> None:
    """Print a job's changes, oldest first."""
    columns = ("REVISION", "ASKED FOR", "BY", "STATUS", "WHAT", "BEFORE", "AFTER")
    display.show_table(columns, map(_row, updates))


def _row(update: Mapping[str, Any]) -> tuple[object, ...]:
    status = update["Status"] if "FailureReason" not in update else f"{update['Status']}: {update['FailureReason']}"
    before, after = (
        {metric["MetricName"]: float(metric["Value"]) for metric in update.get(field, [])} or None
        for field in ("MetricsBefore", "MetricsAfter")
    )
    what = "; ".join(update["Summary"])
    return update["Revision"], update["RequestTime"], update["RequestedBy"], status, what, before, after
