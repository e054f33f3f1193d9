"""The nodes that may be added to a cluster which grows, as Ray's cluster configuration tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from raymaker.actors.spec import Resources
from raymaker.platform.errors import PlatformError
from raymaker.platform.settings import Settings

MANY = 1000
"""As many of a type are taken for possible where the file does not limit them, and no more where it does."""


def nodes_to_come(settings: Settings) -> list[Resources] | None:
    """What each node has in all that may ever be added; None where that is not known. Raises PlatformError.

    Of a cluster that is joined it is not, nor where the file leaves a type's CPUs to the cloud.
    """
    if settings.autoscaling_config is None:
        return None if settings.autoscaling else []
    configuration = _read(settings.autoscaling_config.expanduser())
    types = configuration.get("available_node_types")
    if not isinstance(types, dict) or not all(isinstance(each, dict) for each in types.values()):
        raise PlatformError(
            f"{settings.autoscaling_config} has no table available_node_types. The setting autoscaling_config takes "
            "the file that `ray up` takes"
        )
    most = _limit(configuration, MANY)
    workers = {name: each for name, each in types.items() if name != configuration.get("head_node_type")}
    if any("CPU" not in (each.get("resources") or {}) for each in workers.values()):
        return None
    return [_resources(each["resources"]) for each in workers.values() for _ in range(min(_limit(each, most), most))]


def _limit(of: Mapping[str, Any], default: int) -> int:
    """The most workers of all types, or of one; where it is left out or empty, the default."""
    found = of.get("max_workers")
    return default if found is None else min(int(found), MANY)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlatformError(
            f"the cluster configuration {path} cannot be read: {error}. Mend it or unset RAYMAKER_AUTOSCALING_CONFIG"
        ) from error
    return found if isinstance(found, dict) else {}


def _resources(told: Mapping[str, float]) -> Resources:
    return Resources(float(told["CPU"]), int(told.get("memory", 0)), float(told.get("GPU", 0)))
