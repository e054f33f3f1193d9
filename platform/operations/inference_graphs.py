"""What CreateModel checks of several containers and how they work together, and how DescribeModel draws that.

Pure: whether models that a graph names exist, and whether an image can be found, is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raymaker.platform.errors import ValidationException
from raymaker.serving.graph.checks import LEAST_CONTAINERS, find_faults
from raymaker.serving.graph.document import (
    RESPONSE,
    ROOT,
    Graph,
    GraphInvalid,
    Placement,
    RouterType,
    Target,
    TargetKind,
    direct_graph,
    parse_graph,
    serial_graph,
    step_path,
)
from raymaker.serving.graph.drawing import draw_mermaid
from raymaker.serving.graph.svg import draw_svg

LISTED_FAULT_COUNT = 10
DIRECT = "Direct"
MULTI_MODEL = "MultiModel"
"""The mode of a container that serves many models."""


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


def why_not_a_step(request: Mapping[str, Any]) -> str | None:
    """Say why no step of another model's graph can call this model; None where one can."""
    containers = request.get("Containers", [])
    if any(container.get("Mode") == MULTI_MODEL for container in [request.get("PrimaryContainer", {}), *containers]):
        return "which serves many models: name one of them in a model of its own"
    if len(containers) > 1 and execution_mode(request) == DIRECT:
        return "whose requests name the container they want (Mode Direct): add the container to Containers"
    if models_called(request):
        return "whose own graph calls models: call those in this graph"
    return None


def expand_graph(document: Mapping[str, Any], called: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make of each step that calls a model of several containers one that calls a node, which holds that model's steps.

    `called` are the CreateModel requests of such models, by name. A container `c` of a model `m` is then called `m.c`,
    and a node `n` of its graph `m.n`: no name that a request may give has a dot.
    """
    default = document.get("Placement")
    nodes: dict[str, Any] = {}
    for node, content in document["Nodes"].items():
        nodes[node] = {**content, "Steps": [_call_node(step, called) for step in content["Steps"]]}
    for step in (step for content in document["Nodes"].values() for step in content["Steps"]):
        name = step.get("ModelName")
        if name in called and f"{name}.{ROOT}" not in nodes:
            nodes |= _nodes_of(name, called[name], step.get("Placement", default))
    return {**document, "Nodes": nodes}


def check_expanded(request: Mapping[str, Any], called: Mapping[str, Mapping[str, Any]]) -> None:
    """See that a graph is sound with all containers of the models that it calls. Raises ValidationException."""
    if not called:
        return
    for path, target, _ in scaled_targets(request["InferenceGraph"]):
        if target.name in called:
            raise ValidationException(f"{path}: the {target} has several containers. Give it to that model's own steps")
    hostnames = [container["ContainerHostname"] for container in request.get("Containers", [])]
    for name, model in called.items():
        hostnames += [f"{name}.{hostname}" for hostname in container_hostnames(model["Containers"])]
    _refuse_faults(find_faults(parse_graph(expand_graph(request["InferenceGraph"], called)), hostnames))


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
    _refuse_faults(find_faults(graph, hostnames) or list(_scaling_faults(request["InferenceGraph"], graph)))
    return graph


def scaled_targets(document: Mapping[str, Any]) -> Iterator[tuple[str, Target, Mapping[str, Any]]]:
    """The steps that say how whom they call is scaled: where each stands in the request, whom it calls, and how."""
    for node, content in document["Nodes"].items():
        for index, step in enumerate(content["Steps"]):
            if "InstanceScaling" in step:
                (kind,) = (kind for kind in TargetKind if kind in step)
                yield f"{step_path(node, index)}.InstanceScaling", Target(kind, step[kind]), step["InstanceScaling"]


def _scaling_faults(document: Mapping[str, Any], graph: Graph) -> Iterator[str]:
    seen: dict[Target, Mapping[str, Any]] = {}
    for path, target, scaling in scaled_targets(document):
        least = scaling.get("MinInstanceCount", 1)
        if target.kind is TargetKind.NODE:
            yield f"{path}: a node has no instances of its own. Give it to the steps that call containers"
        elif graph.targets()[target] is not Placement.DISTRIBUTED:
            yield f"{path}: the {target} runs with its variant's others. Give it Placement {Placement.DISTRIBUTED}"
        elif scaling.get("MaxInstanceCount", least) < least:
            yield f"{path}: MaxInstanceCount {scaling['MaxInstanceCount']} is below MinInstanceCount {least}"
        elif seen.setdefault(target, scaling) != scaling:
            yield f"{path}: another step scales the {target} otherwise. Give the same to both, or leave one out"


def _refuse_faults(faults: Sequence[str]) -> None:
    if faults:
        shown = faults[:LISTED_FAULT_COUNT]
        more = len(faults) - len(shown)
        raise ValidationException("; ".join([*shown, f"and {more} more faults"] if more else shown))


def _call_node(step: Mapping[str, Any], called: Mapping[str, Any]) -> Mapping[str, Any]:
    """A step as it is, or calling a model's first node: where its containers run is said with those."""
    if step.get("ModelName") not in called:
        return step
    kept = {key: value for key, value in step.items() if key not in {"ModelName", "Placement"}}
    return {**kept, "NodeName": f"{step['ModelName']}.{ROOT}"}


def _nodes_of(name: str, request: Mapping[str, Any], placement: str | None) -> dict[str, Any]:
    """The nodes of a model of several containers, under names that are its own. Its own placements come first."""
    document = request.get("InferenceGraph")
    if document is None:
        names = container_hostnames(request["Containers"])
        steps = [{"StepName": each, "ContainerHostname": each, "Data": RESPONSE} for each in names]
        document = {"Nodes": {ROOT: {"RouterType": RouterType.SEQUENCE, "Steps": steps}}}
    placement = document.get("Placement", placement)
    own = {"Placement": placement} if placement is not None else {}

    def rename(step: Mapping[str, Any]) -> dict[str, Any]:
        (kind,) = (kind for kind in TargetKind if kind in step)
        inner = own if kind is TargetKind.CONTAINER else {}
        return {**inner, **step, kind.value: f"{name}.{step[kind]}"}

    return {
        f"{name}.{node}": {**content, "Steps": [rename(step) for step in content["Steps"]]}
        for node, content in document["Nodes"].items()
    }


def _check_named(containers: Sequence[Mapping[str, Any]], why: str) -> None:
    for index, container in enumerate(containers):
        if "ContainerHostname" not in container:
            raise ValidationException(f"Containers[{index}].ContainerHostname is missing: it goes with {why}")
