"""The command on transform jobs: transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raymaker.platform.cli import display
from raymaker.platform.cli.session import AsJson, client_of, pairs
from raymaker.platform.client.errors import RaymakerError
from raymaker.platform.client.names import given, made_up_name, to_uri
from raymaker.platform.client.polling import look_until

if TYPE_CHECKING:
    from raymaker.platform.client import Client

ENDED = frozenset({"Completed", "Failed", "Stopped"})


def transform(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to score with.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Objects to score: a folder or URI.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Where the outputs go: a folder or URI.")],
    *,
    content_type: Annotated[str, typer.Option(help="What the objects are.")] = "text/csv",
    accept: Annotated[str | None, typer.Option(help="What the outputs are to be.")] = None,
    split: Annotated[str, typer.Option(metavar="None|Line|RecordIO", help="What a record is.")] = "Line",
    strategy: Annotated[str | None, typer.Option(metavar="MultiRecord|SingleRecord", help="How to send them.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="How many payloads are under way at once.")] = None,
    max_payload: Annotated[int | None, typer.Option(metavar="MB", help="The largest payload; 0: no limit.")] = None,
    input_filter: Annotated[str | None, typer.Option(metavar="PATH", help="What of a record is sent.")] = None,
    output_filter: Annotated[str | None, typer.Option(metavar="PATH", help="What is stored.")] = None,
    join: Annotated[bool, typer.Option("--join", help="Put each answer beside its record.")] = False,
    env: Annotated[list[str], typer.Option("--env", metavar="NAME=VALUE", help="Environment variable. Repeat.")] = [],  # noqa: B006
    instance_type: Annotated[str, typer.Option(help="What machine to score on.")] = "local",
    instance_count: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
    name: Annotated[str | None, typer.Option(help="The job's name; made up where none is given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Tell how far it is until its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score every object of a folder with a model, without an endpoint."""
    client = client_of(ctx)
    chosen = name or made_up_name(model)
    objects = {"S3DataType": "S3Prefix", "S3Uri": to_uri("INPUT", source)}
    processing = given(InputFilter=input_filter, OutputFilter=output_filter, JoinSource="Input" if join else None)
    client.connection.call(
        "create_transform_job",
        TransformJobName=chosen,
        ModelName=model,
        TransformInput={"DataSource": {"S3DataSource": objects}, "ContentType": content_type, "SplitType": split},
        TransformOutput={
            "S3OutputPath": to_uri("OUTPUT", output, must_exist=False),
            **given(Accept=accept, AssembleWith="Line" if split == "Line" else None),
        },
        TransformResources={"InstanceType": instance_type, "InstanceCount": instance_count},
        **given(
            BatchStrategy=strategy,
            MaxConcurrentTransforms=concurrency,
            MaxPayloadInMB=max_payload,
            DataProcessing=processing or None,
            Environment=pairs("--env", env) or None,
        ),
    )
    if follow:
        _follow(client, chosen, as_json=as_json)
    if as_json:
        display.show_json(client.connection.call("describe_transform_job", TransformJobName=chosen))
    elif not follow:
        typer.echo(chosen)


def _follow(client: Client, name: str, *, as_json: bool) -> None:
    """Print what the job does until it has ended. Raises RaymakerError where it failed."""
    said = ""

    def look() -> Any:
        nonlocal said
        seen = client.connection.call("describe_transform_job", TransformJobName=name)
        if seen["TransformJobMessage"] != said:
            said = seen["TransformJobMessage"]
            typer.echo(f"{name}: {said}", err=as_json)
        return seen

    what = f"transform job {name} did not end"
    ended = look_until(look, lambda seen: seen["TransformJobStatus"] in ENDED, what=what, clock=client.clock)
    if ended["TransformJobStatus"] == "Failed":
        raise RaymakerError(f"transform job {name} failed: {ended['FailureReason']}")
