"""The command line: where the commands are put together, and those that start and stop the platform itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from raymaker.platform.cli import captured, display, either, endpoints, evaluations, jobs, pools, transforms, updates
from raymaker.platform.cli.session import AsJson, Commands, Session
from raymaker.platform.client.connection import MODEL_FOLDER
from raymaker.platform.client.settings import read_settings

app = typer.Typer(
    cls=Commands,
    help="Train and host machine learning models in your own containers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

Home = Annotated[Path | None, typer.Option(help="Folder that holds all state; default: RAYMAKER_HOME.")]


def main() -> None:
    """Run the command line."""
    app()


@app.callback()
def begin(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="RAYMAKER_ENDPOINT_URL", help="Where the platform answers.")] = None,
) -> None:
    """Take the options that stand before a command."""
    ctx.obj = ctx.obj or Session(endpoint_url=url)


@app.command()
def up(
    *,
    address: Annotated[str | None, typer.Option(help="Join the Ray cluster at this address.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API and of all endpoints.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the Ray head.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Start the platform, or join it to a Ray cluster. Does nothing where it is up."""
    settings = read_settings(ray_address=address, host=host, port=port, cpus=cpus, home=home)
    from raymaker.platform.cluster import switch

    state = switch.up(settings)
    if as_json:
        display.show_json({"status": "up", "url": state.url, "home": settings.home_path})
    else:
        typer.echo(f"raymaker is up at {state.url}, with its state in {settings.home_path}")


@app.command()
def down(*, home: Home = None, as_json: AsJson = False) -> None:
    """Stop the platform and every container it started. Unfinished jobs start again at the next up."""
    settings = read_settings(home=home)
    from raymaker.platform.cluster import switch

    was_up = switch.down(settings)
    if as_json:
        display.show_json({"status": "down", "was_up": was_up, "home": settings.home_path})
    else:
        typer.echo("raymaker is down" if was_up else f"raymaker was not up in {settings.home_path}")


@app.command()
def status(*, home: Home = None, as_json: AsJson = False) -> None:
    """Tell whether the platform is up, where it answers and what the cluster has."""
    settings = read_settings(home=home)
    from raymaker.platform.cluster import switch

    seen = switch.status(settings)
    if as_json:
        display.show_json(seen)
    else:
        display.show_fields({name.replace("_", " ").capitalize(): value for name, value in seen.items()})


@app.command()
def env(*, home: Home = None, as_json: AsJson = False) -> None:
    """Print the variables that lead boto3, `ray` and this command to the platform: eval "$(raymaker env)"."""
    settings = read_settings(home=home)
    from raymaker.platform.cluster import switch

    variables = {**switch.environment(settings), "AWS_DATA_PATH": str(MODEL_FOLDER)}
    if as_json:
        display.show_json(variables)
    else:
        for name, value in variables.items():
            typer.echo(f"export {name}={shlex.quote(value)}")


for command in (
    jobs.train,
    jobs.jobs,
    either.describe,
    either.logs,
    jobs.metrics,
    jobs.checkpoints,
    evaluations.evaluate,
    evaluations.evaluations,
    evaluations.records,
    either.events,
    updates.update,
    jobs.stop,
    pools.pools,
    endpoints.deploy,
    endpoints.endpoints,
    endpoints.invoke,
    captured.captured,
    transforms.transform,
    either.delete,
):
    app.command()(command)
