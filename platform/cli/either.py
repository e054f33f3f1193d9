"""Commands that take the name of a training job or of an endpoint: describe, logs, events, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of
from raymaker.platform.cli.updates import show_updates
from raymaker.platform.client.endpoint import describe_rollout
from raymaker.platform.client.errors import RaymakerError, RequestRefused

SHOWN_EVENTS = 10
"""How many events `describe` shows; `events` shows all."""
Name = Annotated[str, typer.Argument(metavar="NAME", help="A training job's or an endpoint's name.")]
IsJob = Annotated[bool, typer.Option("--job", help="NAME is a training job.")]
IsEndpoint = Annotated[bool, typer.Option("--endpoint", help="NAME is an endpoint.")]


def describe(
    ctx: typer.Context, name: Name, *, job: IsJob = False, endpoint: IsEndpoint = False, as_json: AsJson = False
) -> None:
    """Show everything about a training job or an endpoint."""
    found = _find(ctx, name, job=job, endpoint=endpoint)
    seen = found.describe()
    if as_json:
        display.show_json(seen)
    elif "TrainingJobName" in seen:
        _show_job(seen)
        _show_history(seen, found.events())
    else:
        _show_endpoint(seen)


def logs(
    ctx: typer.Context,
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    job: IsJob = False,
    endpoint: IsEndpoint = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a training job or an endpoint; with --json, one object per line."""
    found = _find(ctx, name, job=job, endpoint=endpoint)
    if as_json:
        for event in found.log_events(follow=follow):
            display.show_json({"time": event.time, "text": event.text, "stream": event.stream}, one_line=True)
    else:
        for line in found.logs(follow=follow):
            typer.echo(line)


def events(
    ctx: typer.Context,
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    job: IsJob = False,
    endpoint: IsEndpoint = False,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a training job or an endpoint; with --follow and --json, one object per line."""
    found = _find(ctx, name, job=job, endpoint=endpoint)
    if follow:
        for event in found.follow_events():
            if as_json:
                display.show_json(event, one_line=True)
            else:
                typer.echo(f"{display.to_text(event['Time'])}  {event['Kind']:<16} {event['Message']}")
    elif as_json:
        display.show_json(found.events())
    else:
        rows = ((event["Time"], event["Kind"], event["Message"]) for event in found.events())
        display.show_table(("TIME", "KIND", "MESSAGE"), rows, empty="no events")


def delete(
    ctx: typer.Context,
    name: Name,
    *,
    job: IsJob = False,
    endpoint: IsEndpoint = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until an endpoint is gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an ended training job's record, or an endpoint with what was made for it."""
    from raymaker.platform.client import Endpoint

    found = _find(ctx, name, job=job, endpoint=endpoint)
    if isinstance(found, Endpoint):
        found.delete(wait=wait)
    else:
        found.delete()
    kind = "endpoint" if isinstance(found, Endpoint) else "training job"
    if as_json:
        display.show_json({"Deleted": name, "Kind": kind})
    else:
        typer.echo(f"deleted {kind} {name}")


def _find(ctx: typer.Context, name: str, *, job: bool, endpoint: bool) -> Any:
    """Return the handle that a name means. Raises RaymakerError where it means none, or two."""
    if job and endpoint:
        raise typer.BadParameter("give --job or --endpoint, not both")
    client = client_of(ctx)
    if job or endpoint:
        return client.job(name) if job else client.endpoint(name)
    found = [handle for handle in (client.job(name), client.endpoint(name)) if _exists(handle)]
    if not found:
        raise RaymakerError(
            f"there is no training job and no endpoint named {name}: `raymaker jobs` and `raymaker endpoints` list them"
        )
    if len(found) > 1:
        raise RaymakerError(f"{name} is a training job and an endpoint: add --job or --endpoint")
    return found[0]


def _exists(handle: Any) -> bool:
    try:
        handle.describe()
    except RequestRefused as error:
        if error.code in {"ValidationException", "ResourceNotFound"}:
            return False
        raise
    return True


def _show_job(seen: Mapping[str, Any]) -> None:
    algorithm = seen["AlgorithmSpecification"]
    display.show_fields(
        {
            "Training job": seen["TrainingJobName"],
            "Status": seen["TrainingJobStatus"],
            "Failure reason": seen.get("FailureReason"),
            "Algorithm": algorithm.get("TrainingImage") or algorithm.get("AlgorithmSource"),
            "Instances": _instances(seen.get("ResourceConfig", {})),
            "Hyperparameters": seen.get("HyperParameters"),
            "Inputs": {
                channel["ChannelName"]: channel["DataSource"].get("S3DataSource", {}).get("S3Uri")
                for channel in seen.get("InputDataConfig", [])
            },
            "Created": seen["CreationTime"],
            "Started": seen.get("TrainingStartTime"),
            "Ended": seen.get("TrainingEndTime"),
            "Model": seen.get("ModelArtifacts", {}).get("S3ModelArtifacts"),
            "Warm pool": _warm_pool(seen.get("WarmPoolStatus")),
        }
    )
    if transitions := seen.get("SecondaryStatusTransitions"):
        typer.echo()
        rows = ((stay["StartTime"], stay["Status"], stay.get("StatusMessage")) for stay in transitions)
        display.show_table(("SINCE", "PHASE", "MESSAGE"), rows)
    if compared := seen.get("AlgorithmTrainingJobs"):
        typer.echo()
        fields = ("AlgorithmName", "TrainingJobName", "TrainingJobStatus", "Metrics")
        display.show_table(
            ("ALGORITHM", "JOB", "STATUS", "METRICS"), ([it.get(key) for key in fields] for it in compared)
        )
    if updates := seen.get("Updates"):
        typer.echo()
        show_updates(updates)
    if final := seen.get("FinalMetricDataList"):
        typer.echo()
        display.show_table(("METRIC", "LAST"), ((metric["MetricName"], metric["Value"]) for metric in final))


def _warm_pool(seen: Mapping[str, Any] | None) -> str | None:
    """Say how it stands with what is kept of a job."""
    if seen is None:
        return None
    said = [seen["Status"]]
    if "KeptUntil" in seen:
        said.append(f"kept until {display.to_text(seen['KeptUntil'])}")
    if "ReusedByJob" in seen:
        said.append(f"by {seen['ReusedByJob']}")
    if "TerminationReason" in seen:
        said.append(seen["TerminationReason"])
    if "ResourceRetainedBillableTimeInSeconds" in seen:
        said.append(f"{seen['ResourceRetainedBillableTimeInSeconds']} s of waiting")
    return ", ".join(said)


def _show_history(seen: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
    """Show the last of what happened to a job beside its phases, which are shown already."""
    phases = {stay["Status"] for stay in seen.get("SecondaryStatusTransitions", [])}
    told = [event for event in events if event["Kind"] not in phases]
    if told:
        typer.echo()
        rows = ((event["Time"], event["Kind"], event["Message"]) for event in told[-SHOWN_EVENTS:])
        display.show_table(("TIME", "EVENT", "MESSAGE"), rows)
    if len(told) > SHOWN_EVENTS:
        typer.echo(f"and {len(told) - SHOWN_EVENTS} before: `raymaker events {seen['TrainingJobName']}`")


def _instances(resources: Mapping[str, Any]) -> str:
    """Say what a job runs on: `ml.m5.large`, `2 to 4 x ml.m5.large, 2 containers each`."""
    count = resources.get("InstanceCount", 1)
    least, most = resources.get("MinInstanceCount", count), resources.get("MaxInstanceCount", count)
    many = f"{least} to {most} x " if least < most else f"{most} x " if most > 1 else ""
    containers = resources.get("ContainersPerInstance", 1)
    return f"{many}{resources.get('InstanceType')}" + (f", {containers} containers each" if containers > 1 else "")


def _show_endpoint(seen: Mapping[str, Any]) -> None:
    display.show_fields(
        {
            "Endpoint": seen["EndpointName"],
            "Status": seen["EndpointStatus"],
            "Update": describe_rollout(seen) or None,
            "Sleep": seen.get("Sleep"),
            "Failure reason": seen.get("FailureReason"),
            "Pending requests": seen.get("PendingRequests"),
            "Configuration": seen.get("EndpointConfigName"),
            "Created": seen["CreationTime"],
            "Changed": seen["LastModifiedTime"],
        }
    )
    if variants := seen.get("ProductionVariants"):
        typer.echo()
        display.show_table(("VARIANT", "RUNNING", "WANTED", "PER MINUTE", "P50 MS", "P99 MS"), map(_row, variants))


def _row(variant: Mapping[str, Any]) -> tuple[object, ...]:
    """How a variant is shown: its instances, and its signals where it answered lately."""
    signals = variant.get("Signals", {})
    latencies = (signals.get(f"Latency{which}InMilliseconds") for which in ("P50", "P99"))
    return (
        variant["VariantName"],
        variant.get("CurrentInstanceCount"),
        variant.get("DesiredInstanceCount"),
        signals.get("RequestsInLastMinute"),
        *(None if latency is None else f"{latency:.1f}" for latency in latencies),
    )
