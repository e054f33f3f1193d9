"""Which objects one machine transforms, and where each answer goes: pure functions of what lies at the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymaker.actors.channels.sharding import deal_objects
from raymaker.actors.extraction import safe_path
from raymaker.actors.storage import ObjectInfo, child_uri
from raymaker.serving.transform.spec import TransformSpec

SUFFIX = ".out"


@dataclass(frozen=True)
class Task:
    """One object, and where its answer goes. `name` is the object's below the prefix or in the manifest."""

    name: str
    uri: str
    size_bytes: int
    output_uri: str


def plan_tasks(objects: Sequence[ObjectInfo], spec: TransformSpec) -> list[Task]:
    """Pick the objects of one machine, sorted by name; machines get about equally many, and balanced by bytes.

    An object that a manifest names twice is transformed once. Raises ArchiveError for a name that leads elsewhere.
    """
    found = {item.relative_name: item for item in objects}
    sizes = {name: item.size_bytes for name, item in found.items()}
    mine = deal_objects(sizes, spec.machine_count)[spec.machine_index]
    return [Task(name, found[name].uri, sizes[name], _output_uri(spec.output.uri, found[name])) for name in mine]


def _output_uri(base: str, item: ObjectInfo) -> str:
    return child_uri(base, f"{safe_path(item.relative_name, item.uri)}{SUFFIX}")
