"""Commands on evaluations: evaluate, evaluations, records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.jobs import JobName
from raymaker.platform.cli.session import AsJson, client_of, read_config

SHOWN_CHARS = 60
"""So much of an input a table shows."""


def evaluate(
    ctx: typer.Context,
    name: JobName,
    *,
    checkpoint: Annotated[str | None, typer.Option(help="Which one: its name, or latest; default: the model.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="An EvaluationConfig; default: the job's own.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end and show what it came to.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a checkpoint or the model of a training job evaluated."""
    job = client_of(ctx).job(name)
    number = job.evaluate(checkpoint, read_config("--config", config))
    found: dict[str, Any] = job.wait_for_evaluation(number) if wait else {"EvaluationNumber": number}
    if as_json:
        display.show_json(found)
    elif wait:
        display.show_fields({"Evaluation": number, "Records": found["RecordCount"], **found["Metrics"]})
    else:
        typer.echo(f"evaluation {number} of {name} was asked for; `raymaker evaluations {name}` shows it")


def evaluations(ctx: typer.Context, name: JobName, *, as_json: AsJson = False) -> None:
    """List the evaluations of a training job's checkpoints and model."""
    found = client_of(ctx).job(name).evaluations()
    if as_json:
        display.show_json(found)
        return
    display.show_table(
        ("NUMBER", "STATUS", "OF", "ENDED", "RECORDS", "METRICS"),
        (
            (
                each["EvaluationNumber"],
                each["EvaluationStatus"],
                each.get("CheckpointName", "the model"),
                each.get("EndTime"),
                each.get("RecordCount"),
                each.get("FailureReason") or each.get("Metrics") or each.get("Message"),
            )
            for each in found
        ),
        empty="no evaluations",
    )


def records(
    ctx: typer.Context,
    name: JobName,
    *,
    evaluation: Annotated[int | None, typer.Option(help="Its number; default: the latest that has completed.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best first, instead of the worst.")] = False,
    label: Annotated[str | None, typer.Option(help="Only records whose known result is this.")] = None,
    output: Annotated[str | None, typer.Option(help="Only records whose result is this.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only records that a classifier got wrong.")] = False,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="How many.")] = 10,
    pictures: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Show inputs, rows of grey values, as pictures.")
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Keep the pictures in a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the records that a model got most wrong, or most right."""
    found = (
        client_of(ctx)
        .job(name)
        .evaluation_records(
            evaluation,
            order="Best" if best else "Worst",
            count=count,
            label=label,
            output=output,
            only_wrong=wrong,
        )
    )
    if as_json:
        display.show_json(found)
    elif pictures is not None:
        _show_pictures(name, found, pictures, image)
    else:
        display.show_table(
            ("RECORD", "TAG", "KNOWN", "RESULT", "DIFFERENCE", "CONFIDENCE", "INPUT"),
            (_row(each) for each in found),
            empty="no records",
        )


def _row(found: Mapping[str, Any]) -> tuple[object, ...]:
    shown = found["Input"] if len(found["Input"]) <= SHOWN_CHARS else f"{found['Input'][:SHOWN_CHARS]}…"
    fields = ("RecordNumber", "Tag", "Label", "Output", "Difference", "Confidence")
    return (*(found.get(field) for field in fields), shown)


def _show_pictures(name: str, found: list[dict[str, Any]], size: str, image: Path | None) -> None:
    """Draw inputs as pictures, and keep the drawing where that is asked for."""
    from raymaker.platform.cli import charts, drawings

    if image is not None and image.suffix != ".svg":
        raise typer.BadParameter(f"{image} is no .svg: that is the one kind of image there is", param_hint="--image")
    try:
        width, height = map(int, size.split("x"))
        columns = charts.console_width()
        drawn = drawings.draw(found, width, height, columns)
        shown = drawn if charts.has_colour() else drawings.draw(found, width, height, columns, in_colour=False)
    except ValueError as error:
        raise typer.BadParameter(f"{size}: {error}", param_hint="--pictures") from error
    charts.show(shown)
    if image is not None:
        charts.save_svg(drawn, f"{name}: known result, then the model's", image, columns)
