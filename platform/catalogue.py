"""Instance types: the built-in catalogue, and the user's own TOML file over it."""

from __future__ import annotations

import importlib.resources
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.settings import Settings

GIB = 1024**3


class CatalogueError(Exception):
    """A catalogue file cannot be read. The message names the file, the instance type and the key."""


def load_catalogue(settings: Settings) -> dict[str, InstanceType]:
    """Read the built-in instance types and, over them, those of `settings.catalogue`. Raises CatalogueError."""
    built_in = importlib.resources.files("raymaker.actors").joinpath("catalogue.toml")
    types = parse_catalogue(built_in.read_text(), "the built-in catalogue")
    if settings.catalogue is not None:
        types |= parse_catalogue(_read(settings.catalogue), str(settings.catalogue))
    return types


def parse_catalogue(text: str, where: str) -> dict[str, InstanceType]:
    """Read instance types from TOML: a table each, `cpus`, `memory_gib` and where there are any `gpus`, `labels`.

    `where` names the file in errors. Raises CatalogueError.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{where} is not TOML: {error}") from error
    return {name: _instance_type(name, table, where) for name, table in tables.items()}


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(
            f"the catalogue {path} cannot be read: {error}. Mend it or unset RAYMAKER_CATALOGUE"
        ) from error


def _instance_type(name: str, table: Any, where: str) -> InstanceType:
    at = f"instance type {name} in {where}"
    if not isinstance(table, dict):
        raise CatalogueError(f'{at} must be a table: ["{name}"] with cpus and memory_gib in it')
    if unknown := table.keys() - {"cpus", "memory_gib", "gpus", "labels"}:
        raise CatalogueError(f"{at} has the unknown key {min(unknown)}: it takes cpus, memory_gib, gpus and labels")
    cpus = _number(table, "cpus", at, least=0.01)
    memory_gib = _number(table, "memory_gib", at, least=0.0)
    gpus = _number({"gpus": 0, **table}, "gpus", at, least=0.0)
    return InstanceType(name, Resources(cpus, round(memory_gib * GIB), gpus), _labels(table.get("labels", {}), at))


def _number(table: Mapping[str, Any], key: str, at: str, *, least: float) -> float:
    if key not in table:
        raise CatalogueError(f"{at} has no {key}")
    value = table[key]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < least:
        raise CatalogueError(f"{at} has {key} = {value!r}: it must be a number, at least {least:g}")
    return float(value)


def _labels(value: Any, at: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(label, str) for label in value.values()):
        raise CatalogueError(f"{at} has labels = {value!r}: they must be strings by name")
    return dict(value)
