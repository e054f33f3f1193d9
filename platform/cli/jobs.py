"""Commands on training jobs: train, jobs, stop, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of, pairs, read_config

if TYPE_CHECKING:
    from rich.text import Text

    from raymaker.platform.client import Metric, TrainingJob

DRAWN_SOURCES = ("Log", "Exchange", "Evaluation")
"""What is drawn where nothing is asked for by name: not what containers use."""
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The training job's name.")]


def train(
    ctx: typer.Context,
    *,
    source: Annotated[str | None, typer.Option(help="Folder or archive of source code: a path or URI.")] = None,
    entry_point: Annotated[str | None, typer.Option(help="The file in it that starts training.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image to train with, instead of source.")] = None,
    base_image: Annotated[str | None, typer.Option(help="Image to run the source in.")] = None,
    inputs: Annotated[list[str], typer.Option("--input", metavar="NAME=URI", help="Channel of data. Repeat.")] = [],  # noqa: B006
    hp: Annotated[list[str], typer.Option("--hp", metavar="NAME=VALUE", help="Hyperparameter. Repeat.")] = [],  # noqa: B006
    env: Annotated[list[str], typer.Option("--env", metavar="NAME=VALUE", help="Environment variable. Repeat.")] = [],  # noqa: B006
    metric: Annotated[list[str], typer.Option(metavar="NAME=REGEX", help="Number to read from the log. Repeat.")] = [],  # noqa: B006
    output: Annotated[str | None, typer.Option(help="Where the model goes; default: the platform's home.")] = None,
    instance_type: Annotated[str, typer.Option(help="What machine to train on.")] = "local",
    instance_count: Annotated[int | None, typer.Option(help="How many machines; default: 1.")] = None,
    min_instance_count: Annotated[
        int | None, typer.Option(help="Go on with as few as this, where some are lost.")
    ] = None,
    max_instance_count: Annotated[
        int | None, typer.Option(help="Grow to as many as this, where there is room.")
    ] = None,
    containers_per_instance: Annotated[int, typer.Option(help="How many containers share each machine.")] = 1,
    placement: Annotated[str | None, typer.Option(metavar="pack|spread", help="Where the machines go.")] = None,
    keep_alive: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Keep its machine for so long, for a job that matches.")
    ] = None,
    shard: Annotated[
        list[str], typer.Option(metavar="NAME=object|record", help="Give each container a part of this input. Repeat.")
    ] = [],  # noqa: B006
    stream: Annotated[
        list[str],
        typer.Option(metavar="NAME=pipe|arrow|fastfile", help="Bring this input while it is read. Repeat."),
    ] = [],  # noqa: B006
    checkpoint_uri: Annotated[str | None, typer.Option(help="Where checkpoints are kept: a path or URI.")] = None,
    checkpoint_path: Annotated[
        str | None, typer.Option(help="Where containers write them; default: /opt/ml/checkpoints.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="An EvaluationConfig: judge the job while it trains.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The job's name; made up where none is given.")] = None,
    max_runtime: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="Time limit of training.")] = 86_400,
    network: Annotated[bool, typer.Option("--network", help="Let the container reach the network.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end and show its progress.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print the job's log until its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a training job from source code or an image."""
    if (source is None) == (image is None):
        raise typer.BadParameter("give --source or --image, one of them")
    if source is not None and entry_point is None:
        raise typer.BadParameter("--source needs --entry-point, the file in it that starts training")
    job = client_of(ctx).train(
        source=source,
        entry_point=entry_point,
        image=image,
        base_image=base_image,
        inputs=pairs("--input", inputs),
        output=output,
        hyperparameters=pairs("--hp", hp),
        instance_type=instance_type,
        instance_count=instance_count,
        min_instance_count=min_instance_count,
        max_instance_count=max_instance_count,
        containers_per_instance=containers_per_instance,
        placement=placement,
        keep_alive_s=keep_alive,
        shard=pairs("--shard", shard),
        stream=pairs("--stream", stream),
        checkpoints=checkpoint_uri,
        checkpoint_path=checkpoint_path,
        evaluation=read_config("--evaluation", evaluation),
        name=name,
        max_runtime_s=max_runtime,
        metrics=pairs("--metric", metric),
        environment=pairs("--env", env),
        network=network,
    )
    if wait or follow:
        _see_to_end(job, follow=follow, as_json=as_json)
    if as_json:
        display.show_json(job.describe())
    else:
        typer.echo(job.name)


def jobs(
    ctx: typer.Context,
    *,
    status: Annotated[str | None, typer.Option(help="Only those that are Completed, Failed, InProgress, …")] = None,
    contains: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait, the next one first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List training jobs, newest first."""
    if waiting and status is not None:
        raise typer.BadParameter("give --waiting or --status, not both")
    found = client_of(ctx).jobs(status=status, name_contains=contains, waiting=waiting)
    items = [item for _, item in zip(range(limit), found, strict=False)]
    if as_json:
        display.show_json(items)
        return
    display.show_table(
        ("NAME", "STATUS", "PHASE", "CREATED", "ENDED"),
        (
            (
                item["TrainingJobName"],
                item["TrainingJobStatus"],
                item.get("SecondaryStatus"),
                item["CreationTime"],
                item.get("TrainingEndTime"),
            )
            for item in items
        ),
        empty="no training jobs",
    )


def stop(
    ctx: typer.Context,
    name: JobName,
    *,
    delete_model_data: Annotated[
        bool, typer.Option("--delete-model-data", help="Keep nothing of what it has made.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a training job; what it has made so far is kept as its model."""
    job = client_of(ctx).job(name)
    job.stop(wait=wait, delete_model_data=delete_model_data)
    if as_json:
        display.show_json({"TrainingJobName": name, "TrainingJobStatus": job.status})
    else:
        typer.echo(f"{name}: {job.status}")


def metrics(
    ctx: typer.Context,
    name: JobName,
    *,
    metric: Annotated[str | None, typer.Option("--name", help="Show every value of this one.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="log|exchange|resources|evaluation", help="Only those that come from there.")
    ] = None,
    chart: Annotated[bool, typer.Option("--chart", help="Draw them.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw them until the job ends.")] = False,
    image: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw them into a file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the numbers that a job said, or that were told of it."""
    job = client_of(ctx).job(name)
    source = source.capitalize() if source is not None else None
    if chart or follow or image is not None:
        sources = (source,) if source is not None or metric is not None else DRAWN_SOURCES
        _draw(job, metric, sources, image, follow=follow)
        return
    points = list(job.metric_points(metric, source))
    if as_json:
        display.show_json([_as_fields(point) for point in points])
    elif metric:
        rows = ((point.time, point.rank, point.step, point.value) for point in points)
        display.show_table(("TIME", "RANK", "STEP", metric.upper()), rows, empty="no values")
    else:
        display.show_table(
            ("METRIC", "VALUES", "FIRST", "LAST", "LEAST", "MOST"), _summaries(points), empty="no metrics"
        )


def checkpoints(ctx: typer.Context, name: JobName, *, as_json: AsJson = False) -> None:
    """List a job's whole checkpoints, newest first. `raymaker deploy JOB --checkpoint NAME` serves one."""
    found = client_of(ctx).job(name).checkpoints()
    if as_json:
        display.show_json(found)
    else:
        rows = (
            (it["CheckpointName"], it["SizeInBytes"], it["FileCount"], it["LastModifiedTime"], it.get("Metrics"))
            for it in found
        )
        display.show_table(("CHECKPOINT", "BYTES", "FILES", "STORED", "EVALUATED"), rows, empty="no checkpoints")


def _draw(
    job: TrainingJob, metric: str | None, sources: Sequence[str | None], image: Path | None, *, follow: bool
) -> None:
    """Draw a job's numbers, and keep the drawing where that is asked for."""
    from raymaker.platform.cli import charts
    from raymaker.platform.client.job import ENDED

    if image is not None and image.suffix != ".svg":
        raise typer.BadParameter(f"{image} is no .svg: that is the one kind of image there is", param_hint="--image")
    width = charts.console_width()

    def look() -> tuple[Text, bool]:
        is_last = not follow or job.status in ENDED
        points = (
            point for source in sources for point in job.metric_periods(metric, source=source, max_points=2 * width)
        )
        return charts.draw(points, width), is_last

    drawn = charts.follow(look, job.clock.sleep)
    if image is not None:
        charts.save_svg(drawn, job.name, image, width)


def _see_to_end(job: TrainingJob, *, follow: bool, as_json: bool) -> None:
    try:
        if follow:
            for line in job.logs(follow=True):
                typer.echo(line, err=as_json)
        job.wait(progress=not follow)
    except KeyboardInterrupt:
        typer.echo(
            f"\n{job.name} goes on. `raymaker logs -f {job.name}` follows it, `raymaker stop` ends it.", err=True
        )
        raise typer.Exit(130) from None


def _as_fields(point: Metric) -> dict[str, object]:
    fields = {"MetricName": point.name, "Value": point.value, "Timestamp": point.time}
    return fields | {key: at for key, at in (("Step", point.step), ("Rank", point.rank)) if at is not None}


def _summaries(points: list[Metric]) -> list[tuple[object, ...]]:
    columns: dict[str, list[float]] = {}
    for point in points:
        columns.setdefault(point.name, []).append(point.value)
    return [(name, len(all_), all_[0], all_[-1], min(all_), max(all_)) for name, all_ in columns.items()]
