"""What an inference graph is, as frozen values: nodes that route, steps that call, and how a request writes them down.

Only the reading happens here. Whether a graph makes sense is `checks`' matter, what it does `rules`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ROOT = "root"
"""The node that takes the request in."""
REQUEST, RESPONSE = "$request", "$response"
"""What a step may be given whole: the node's own input, and the answer of the step before."""
TARGET_CONTAINER_HEADER = "x-amzn-sagemaker-target-container-hostname"


class GraphInvalid(Exception):
    """A graph that says nothing; the message names the field and the remedy."""


class RouterType(StrEnum):
    """How a node chooses among its steps. KServe's four."""

    SEQUENCE = "Sequence"
    SWITCH = "Switch"
    ENSEMBLE = "Ensemble"
    SPLITTER = "Splitter"


class Dependency(StrEnum):
    """What a step's failure means: the end of its node, or no more than that the step is passed over."""

    HARD = "Hard"
    SOFT = "Soft"


class Placement(StrEnum):
    """Where a target's container runs: on the machine of the endpoint's replica, or in a deployment of its own."""

    COLOCATED = "Colocated"
    DISTRIBUTED = "Distributed"


class TargetKind(StrEnum):
    """Whom a step calls, by the name of the field that says so."""

    CONTAINER = "ContainerHostname"
    MODEL = "ModelName"
    NODE = "NodeName"


@dataclass(frozen=True)
class Target:
    """Whom a step calls."""

    kind: TargetKind
    name: str

    def __str__(self) -> str:
        return f"{_WORDS[self.kind]} {self.name}"


_WORDS = {TargetKind.CONTAINER: "container", TargetKind.MODEL: "model", TargetKind.NODE: "node"}


@dataclass(frozen=True)
class Step:
    """One call that a node may make."""

    label: str
    """Its StepName; where it has none, its place in the node, from 0. The key of its answer in an ensemble."""
    target: Target
    condition: str = ""
    data: str = ""
    """`$request`, `$response` or a JMESPath projection; '' is the node's own input."""
    weight: float | None = None
    dependency: Dependency = Dependency.HARD
    is_mirror: bool = False
    timeout_s: float | None = None
    """How long one attempt may take; None leaves it to the endpoint."""
    retry_count: int = 0
    """How many more attempts follow one that failed."""
    placement: Placement | None = None
    """Where the target runs, if not where the graph says."""


@dataclass(frozen=True)
class Node:
    """A router and its steps, in order."""

    name: str
    router: RouterType
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes by name; the one named `root` takes the request."""

    nodes: Mapping[str, Node]
    placement: Placement = Placement.COLOCATED

    def steps(self) -> Iterator[Step]:
        """Every step of every node."""
        for node in self.nodes.values():
            yield from node.steps

    def targets(self) -> dict[Target, Placement]:
        """Every container and model that is called, each once, in the order of the graph, and where it runs."""
        placements: dict[Target, Placement] = {}
        for step in self.steps():
            if step.target.kind is not TargetKind.NODE:
                placed = placements.get(step.target, self.placement)
                placements[step.target] = step.placement or placed
        return placements


def parse_graph(document: Mapping[str, Any]) -> Graph:
    """Read the `InferenceGraph` of a request that fits its shape. Raises GraphInvalid for a step without one target."""
    nodes = {name: _parse_node(name, node) for name, node in document["Nodes"].items()}
    return Graph(nodes, Placement(document.get("Placement", Placement.COLOCATED)))


def serial_graph(hostnames: Sequence[str]) -> Graph:
    """SageMaker's Serial: each container gets the answer of the one before, its Content-Type verbatim."""
    steps = [Step(name, Target(TargetKind.CONTAINER, name), data=RESPONSE) for name in hostnames]
    return Graph({ROOT: Node(ROOT, RouterType.SEQUENCE, tuple(steps))})


def direct_graph(hostnames: Sequence[str]) -> Graph:
    """SageMaker's Direct: the container that the request's TargetContainerHostname names."""
    steps = [
        Step(name, Target(TargetKind.CONTAINER, name), condition=f"headers.\"{TARGET_CONTAINER_HEADER}\" == '{name}'")
        for name in hostnames
    ]
    return Graph({ROOT: Node(ROOT, RouterType.SWITCH, tuple(steps))})


def step_path(node: str, index: int) -> str:
    """Name a step as the request has it, for messages."""
    return f"InferenceGraph.Nodes.{node}.Steps[{index}]"


def _parse_node(name: str, document: Mapping[str, Any]) -> Node:
    steps = tuple(_parse_step(name, index, step) for index, step in enumerate(document["Steps"]))
    return Node(name, RouterType(document["RouterType"]), steps)


def _parse_step(node: str, index: int, document: Mapping[str, Any]) -> Step:
    return Step(
        label=document.get("StepName", str(index)),
        target=_parse_target(document, step_path(node, index)),
        condition=document.get("Condition", ""),
        data=document.get("Data", ""),
        weight=document.get("Weight"),
        dependency=Dependency(document.get("Dependency", Dependency.HARD)),
        is_mirror=document.get("Mirror", False),
        timeout_s=document.get("TimeoutInSeconds"),
        retry_count=document.get("Retries", 0),
        placement=Placement(document["Placement"]) if "Placement" in document else None,
    )


def _parse_target(document: Mapping[str, Any], path: str) -> Target:
    named = [Target(kind, document[kind]) for kind in TargetKind if kind in document]
    if len(named) != 1:
        given = f"has {' and '.join(target.kind for target in named)}" if named else "names nothing to call"
        raise GraphInvalid(f"{path} {given}: give one of {', '.join(TargetKind)}")
    return named[0]
