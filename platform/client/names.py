"""Names, places and values as a request wants them, made from what a person gives: pure but for looking at paths."""

from __future__ import annotations

import datetime as dt
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymaker.platform.client.errors import WrongArgument

LONGEST_NAME = 63


def made_up_name(stem: str, now: dt.datetime | None = None) -> str:
    """Make a name of letters, digits and hyphens that nobody has used: `stem`, the time (UTC), random digits."""
    now = now or dt.datetime.now(dt.UTC)
    suffix = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[: LONGEST_NAME - len(suffix) - 1].strip("-")
    return f"{plain or 'job'}-{suffix}"


def name_of_image(image: str) -> str:
    """Return an image's own name, without registry, tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def to_uri(argument: str, place: str | Path, *, must_exist: bool = True) -> str:
    """Return `place` as a URI: one that is a URI already as it is, a local path as an absolute file:// URI.

    Raises WrongArgument, naming `argument`, where a local path is missing.
    """
    if "://" in str(place):
        return str(place)
    path = Path(place).expanduser().absolute()
    if must_exist and not path.exists():
        raise WrongArgument(f"{argument} is {place}, but there is no {path}: check the path, or give a URI")
    return path.as_uri()


def to_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return hyperparameters as the strings that a request wants: text as it is, anything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields of a request that were given, that is, are not None."""
    return {name: value for name, value in fields.items() if value is not None}
