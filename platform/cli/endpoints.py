"""Commands on endpoints: deploy, endpoints, invoke."""

from __future__ import annotations

import base64
import mimetypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of, pairs
from raymaker.platform.client.errors import WrongArgument

if TYPE_CHECKING:
    from raymaker.platform.client.payload import Answer
    from raymaker.platform.client.streaming import StreamedAnswer


def deploy(
    ctx: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="The training job to serve.")] = None,
    *,
    image: Annotated[str | None, typer.Option(help="Serve with this image instead of a job's.")] = None,
    model: Annotated[str | None, typer.Option(help="Model archive for --image: a path or URI.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Serve this checkpoint of the job: its name, or latest.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The endpoint's name; made up where none is given.")] = None,
    instance_type: Annotated[str | None, typer.Option(help="What machine to serve on; default: the job's.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many scoring containers.")] = 1,
    env: Annotated[list[str], typer.Option("--env", metavar="NAME=VALUE", help="Environment variable. Repeat.")] = [],  # noqa: B006
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is in service.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a job's model, or an image, behind an endpoint."""
    if (job is None) == (image is None):
        raise typer.BadParameter("name a training job, or give --image, one of them")
    if model is not None and image is None:
        raise typer.BadParameter("--model goes with --image; a training job has its own model")
    if checkpoint is not None and job is None:
        raise typer.BadParameter("--checkpoint goes with a training job, whose image serves it")
    endpoint = client_of(ctx).deploy(
        job or model,
        image=image,
        name=name,
        checkpoint=checkpoint,
        instance_type=instance_type,
        instance_count=count,
        environment=pairs("--env", env),
        wait=not no_wait,
    )
    if as_json:
        display.show_json(endpoint.describe())
    else:
        typer.echo(endpoint.name)


def endpoints(
    ctx: typer.Context,
    *,
    status: Annotated[str | None, typer.Option(help="Only those that are InService, Failed, Creating, …")] = None,
    contains: Annotated[str | None, typer.Option(help="Only those with this in their name.")] = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints, newest first."""
    items = list(client_of(ctx).endpoints(status=status, name_contains=contains))
    if as_json:
        display.show_json(items)
        return
    display.show_table(
        ("NAME", "STATUS", "CREATED", "CHANGED"),
        (
            (item["EndpointName"], item["EndpointStatus"], item["CreationTime"], item["LastModifiedTime"])
            for item in items
        ),
        empty="no endpoints",
    )


def invoke(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name.")],
    *,
    data: Annotated[str, typer.Option(help="What to send: text, @FILE, or @- for standard input.")],
    content_type: Annotated[
        str | None, typer.Option(help="Its type; default: the file's by its name, text/csv for text.")
    ] = None,
    accept: Annotated[str | None, typer.Option(help="Type of the answer that is wanted.")] = None,
    custom_attributes: Annotated[str | None, typer.Option(help="Custom attributes to send along.")] = None,
    target_model: Annotated[str | None, typer.Option(help="Which model, where the container serves many.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send data to an endpoint and print what its container answers."""
    body, guessed = _read(data)
    if stream:
        if as_json or target_model:
            raise typer.BadParameter("--stream goes with neither --json nor --target-model: leave one of them out")
        _print_stream(
            client_of(ctx).endpoint(name).invoke_stream(body, content_type or guessed, accept, custom_attributes)
        )
        return
    answer = (
        client_of(ctx).endpoint(name).invoke(body, content_type or guessed, accept, custom_attributes, target_model)
    )
    if as_json:
        display.show_json(_as_fields(answer))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.body)
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _print_stream(answer: StreamedAnswer) -> None:
    """Write each piece as soon as it is there."""
    sys.stdout.flush()
    for piece in answer:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _read(data: str) -> tuple[bytes | str, str | None]:
    """Take the data that an option names, and the type that the file's name tells."""
    if not data.startswith("@"):
        return data, None
    if data == "@-":
        return sys.stdin.buffer.read(), None
    path = Path(data[1:])
    try:
        return path.read_bytes(), mimetypes.guess_type(path.name)[0]
    except OSError as error:
        raise WrongArgument(f"--data is {data}, but {path} cannot be read: {error.strerror}") from error


def _as_fields(answer: Answer) -> dict[str, Any]:
    """Lay an answer out for JSON; a body that is no text goes as base64."""
    try:
        body = {"Body": answer.text}
    except (UnicodeDecodeError, LookupError):
        body = {"BodyBase64": base64.b64encode(answer.body).decode()}
    return {
        **body,
        "ContentType": answer.content_type,
        "CustomAttributes": answer.custom_attributes,
        "InvokedProductionVariant": answer.variant,
    }
