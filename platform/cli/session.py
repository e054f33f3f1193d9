"""What the commands of the command line share: the client, `--json`, and how an error is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from raymaker.platform.client.errors import RaymakerError, RequestRefused
from raymaker.platform.errors import PlatformError

if TYPE_CHECKING:
    from raymaker.platform.client import Client


@dataclass
class Session:
    """One run of the command line."""

    endpoint_url: str | None = None
    as_json: bool = False
    known_client: Client | None = None

    @property
    def client(self) -> Client:
        """The client, made at its first use: `--help` and `up` need none."""
        if self.known_client is None:
            from raymaker.platform.client import Client

            self.known_client = Client(self.endpoint_url)
        return self.known_client


class Commands(TyperGroup):
    """The commands, with errors that a user can mend told in words: exit code 1, no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Anything that is not such an error is a bug, and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except (RaymakerError, PlatformError) as error:
            _tell(error, as_json=ctx.obj.as_json)
            raise typer.Exit(1) from error


def client_of(ctx: typer.Context) -> Client:
    """The client of this run."""
    session: Session = ctx.obj
    return session.client


def pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """Split the values of a repeated `--option key=value`. A wrong one is a usage error."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} is {value!r}: write it as name=value")
        if name in found:
            raise typer.BadParameter(f"{option} names {name} twice")
        found[name] = text
    return found


def _remember_json(ctx: typer.Context, value: bool) -> bool:  # noqa: FBT001 - typer calls it
    """Let errors be told as JSON too."""
    ctx.obj.as_json = value
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", callback=_remember_json)]


def _tell(error: Exception, *, as_json: bool) -> None:
    code = error.code if isinstance(error, RequestRefused) else type(error).__name__
    if as_json:
        import json

        typer.echo(json.dumps({"error": code, "message": str(error)}), err=True)
    else:
        typer.secho(f"Error: {error}", fg="red", err=True)


def read_config(option: str, path: Path | None) -> dict[str, Any] | None:
    """Read a JSON object from a file. One that is missing, or is none, is a usage error."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} cannot be read as JSON: {error}", param_hint=option) from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds no JSON object", param_hint=option)
    return found
