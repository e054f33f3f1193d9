"""Checks that several operations share: fields that cannot be honoured, instance types, tags, and what to list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.capacity import GIB, count_that_fit, describe
from raymaker.platform.database.statements import DEFAULT_PAGE_COUNT, Listing
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.naming import epoch_s
from raymaker.platform.operations.registry import Context, Request


def refuse_fields(request: Request, reasons: Mapping[str, str]) -> None:
    """Refuse every field that is set and cannot be honoured. Keys are dotted paths; lists on the way are gone through.

    Absent, false and empty values are no request for anything. Raises ValidationException that names the field.
    """
    for path, reason in reasons.items():
        if any(_values_at(request, path.split("."))):
            raise ValidationException(f"{path} is not supported here: {reason}")


def find_instance_type(context: Context, name: str, path: str) -> InstanceType:
    """Look an instance type up and see that the cluster can hold one. Raises ValidationException that names `path`."""
    types = context.cluster.instance_types()
    if name not in types:
        raise ValidationException(
            f"{path}: there is no instance type {name}. Known are {', '.join(_near(name, list(types)))}; "
            "the setting `catalogue` (RAYMAKER_CATALOGUE) adds others"
        )
    needed = types[name].resources
    if not room_for(context, needed):
        lacking = _lacking(needed, context.cluster.nodes())
        raise ValidationException(
            f"{path}: no machine of this cluster can hold an instance of {name}: it needs {lacking}. "
            "Choose a smaller instance type or add a larger node"
        )
    return types[name]


def room_for(context: Context, needed: Resources) -> float:
    """How many instances the nodes could hold if they held nothing else; infinity where nobody knows what will come."""
    return math.inf if context.cluster.is_open_ended() else count_that_fit(context.cluster.nodes(), needed)


def read_tags(request: Request) -> dict[str, str]:
    """Take the tags out of a request. Raises ValidationException where a key comes twice."""
    tags: dict[str, str] = {}
    for tag in request.get("Tags", []):
        if tag["Key"] in tags:
            raise ValidationException(f"Tags: the key {tag['Key']} comes twice")
        tags[tag["Key"]] = tag["Value"]
    return tags


def without_tags(request: Request) -> Request:
    """The request as it is kept: tags have a table of their own, since they change."""
    return {key: value for key, value in request.items() if key != "Tags"}


def read_listing(request: Request, *, default_order: str) -> Listing:
    """Read what a List operation asks for. `default_order` is SageMaker's own, Ascending or Descending."""
    return Listing(
        sort_by=request.get("SortBy", "CreationTime"),
        descending=request.get("SortOrder", default_order) == "Descending",
        limit_count=request.get("MaxResults", DEFAULT_PAGE_COUNT),
        token=request.get("NextToken"),
        name_contains=request.get("NameContains"),
        status=request.get("StatusEquals"),
        created_after=epoch_s(request.get("CreationTimeAfter")),
        created_before=epoch_s(request.get("CreationTimeBefore")),
        modified_after=epoch_s(request.get("LastModifiedTimeAfter")),
        modified_before=epoch_s(request.get("LastModifiedTimeBefore")),
        warm_pool_status=request.get("WarmPoolStatusEquals"),
    )


def _values_at(value: Any, steps: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _values_at(item, steps)
    elif not steps:
        yield value
    elif isinstance(value, dict) and steps[0] in value:
        yield from _values_at(value[steps[0]], steps[1:])


def _near(name: str, known: list[str]) -> list[str]:
    """The types of the same family, else `local` and the families there are."""
    family = name.rpartition(".")[0]
    if near := [other for other in known if family and other.startswith(f"{family}.")]:
        return near
    return sorted({other.rpartition(".")[0] + ".*" if "." in other else other for other in known})


def _lacking(needed: Resources, nodes: list[Resources]) -> str:
    """Say in words what no node has enough of. A node of unknown memory has enough."""
    cpus, gpus = (max((getattr(node, kind) for node in nodes), default=0.0) for kind in ("cpus", "gpus"))
    memory_bytes = max((node.memory_bytes for node in nodes), default=0)
    parts = []
    if needed.cpus > cpus:
        parts.append(f"{needed.cpus:g} CPUs of at most {cpus:g}")
    if needed.memory_bytes > memory_bytes > 0:
        parts.append(f"{needed.memory_bytes / GIB:.1f} GiB of memory of at most {memory_bytes / GIB:.1f}")
    if needed.gpus > gpus:
        parts.append(f"{needed.gpus:g} GPUs of at most {gpus:g}")
    return ", ".join(parts) or f"{describe(needed)} on one node"
