"""What CreateModel checks of several containers and how they work together, and how DescribeModel draws that.

Pure: whether models that a graph names exist, and whether an image can be found, is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.serving.graph.checks import LEAST_CONTAINERS, find_faults
from raymaker.serving.graph.document import (
    Graph,
    GraphInvalid,
    TargetKind,
    direct_graph,
    parse_graph,
    serial_graph,
)
from raymaker.serving.graph.drawing import draw_mermaid
from raymaker.serving.graph.svg import draw_svg

LISTED_FAULT_COUNT = 10
DIRECT = "Direct"


def read_graph(request: Mapping[str, Any]) -> Graph | None:
    """Read how a model's containers work together; None for a model of one container.

    Raises ValidationException that names every faulty field.
    """
    containers = request.get("Containers", [])
    if "InferenceGraph" in request:
        return _read_inference_graph(request, containers)
    if len(containers) < LEAST_CONTAINERS:
        return None
    hostnames = container_hostnames(containers)
    if execution_mode(request) == DIRECT:
        _check_named(containers, "InferenceExecutionConfig.Mode Direct, where a request names the container it wants")
        return direct_graph(hostnames)
    return serial_graph(hostnames)


def execution_mode(request: Mapping[str, Any]) -> str:
    """SageMaker's own way for several containers: Serial where nothing else is said, or Direct."""
    mode: str = request.get("InferenceExecutionConfig", {}).get("Mode", "Serial")
    return mode


def container_hostnames(containers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name every container: all by themselves, or all by their place. Raises ValidationException."""
    given = [container["ContainerHostname"] for container in containers if "ContainerHostname" in container]
    if not given:
        return [f"container-{number}" for number in range(1, len(containers) + 1)]
    if len(given) < len(containers):
        index = next(index for index, container in enumerate(containers) if "ContainerHostname" not in container)
        raise ValidationException(
            f"Containers[{index}].ContainerHostname is missing: where one container has a hostname, all need one"
        )
    for index, hostname in enumerate(given):
        if hostname in given[:index]:
            raise ValidationException(
                f"Containers[{index}].ContainerHostname {hostname} is taken by Containers[{given.index(hostname)}]: "
                "give each a name of its own"
            )
    return given


def models_called(request: Mapping[str, Any]) -> list[str]:
    """The models that a model's graph calls beside its own containers."""
    graph = read_graph(request)
    if graph is None:
        return []
    return [target.name for target in graph.targets() if target.kind is TargetKind.MODEL]


def describe_drawing(graph: Graph) -> dict[str, Any]:
    """Draw a graph, as DescribeModel answers."""
    return {"InferenceGraphDrawing": {"Mermaid": draw_mermaid(graph), "Svg": draw_svg(graph)}}


def _read_inference_graph(request: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Graph:
    if "PrimaryContainer" in request:
        raise ValidationException("PrimaryContainer goes with no InferenceGraph: give Containers, each with a hostname")
    if "InferenceExecutionConfig" in request:
        raise ValidationException(
            "InferenceExecutionConfig and InferenceGraph both say how containers work together: leave the former out"
        )
    _check_named(containers, "InferenceGraph, whose steps call containers by it")
    hostnames = container_hostnames(containers)
    try:
        graph = parse_graph(request["InferenceGraph"])
    except GraphInvalid as fault:
        raise ValidationException(str(fault)) from None
    taken = [target.name for target in graph.targets() if target.kind is TargetKind.MODEL and target.name in hostnames]
    if taken:
        raise ValidationException(
            f"InferenceGraph calls the model {taken[0]}, and a container has that ContainerHostname: name it otherwise"
        )
    if faults := find_faults(graph, hostnames):
        shown = faults[:LISTED_FAULT_COUNT]
        more = len(faults) - len(shown)
        raise ValidationException("; ".join([*shown, f"and {more} more faults"] if more else shown))
    return graph


def _check_named(containers: Sequence[Mapping[str, Any]], why: str) -> None:
    for index, container in enumerate(containers):
        if "ContainerHostname" not in container:
            raise ValidationException(f"Containers[{index}].ContainerHostname is missing: it goes with {why}")
