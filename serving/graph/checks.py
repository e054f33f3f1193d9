"""What is wrong with a graph, found when it is created: each fault names the field and the remedy. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from raymaker.serving.graph.document import (
    REQUEST,
    RESPONSE,
    ROOT,
    Dependency,
    Graph,
    Node,
    RouterType,
    Step,
    TargetKind,
    step_path,
)
from raymaker.serving.graph.expressions import Expression, NoExpression, read_expression

LEAST_CONTAINERS, MOST_CONTAINERS = 2, 15
MOST_CALLS = 256
"""How many calls one request may cost at the most. Nodes that refer to nodes multiply."""
_ROUTER = {router: f"{'an' if router is RouterType.ENSEMBLE else 'a'} {router}" for router in RouterType}


def find_faults(graph: Graph, hostnames: Sequence[str]) -> list[str]:
    """Name all that is wrong with a graph over containers with these hostnames; nothing for a sound one.

    Faults of shape come alone: what follows from them would only confuse.
    """
    faults = [*_root_faults(graph), *_target_faults(graph, hostnames), *_cycle_faults(graph)]
    if faults:
        return faults
    faults += [*_reach_faults(graph), *_container_faults(graph, hostnames), *_call_count_faults(graph)]
    for node in graph.nodes.values():
        faults += [*_name_faults(node), *_mirror_faults(node), *_weight_faults(node), *_order_faults(node)]
        for index, step in enumerate(node.steps):
            faults += _step_faults(graph, node, index, step)
    return faults


def most_calls(graph: Graph) -> int:
    """How many calls of containers one request may cost, retries apart. The graph must have no cycle."""
    counts: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in counts:
            steps = graph.nodes[name].steps
            counts[name] = sum(count(s.target.name) if s.target.kind is TargetKind.NODE else 1 for s in steps)
        return counts[name]

    return count(ROOT)


def _root_faults(graph: Graph) -> Iterator[str]:
    if ROOT not in graph.nodes:
        yield f"InferenceGraph.Nodes has no node {ROOT}, which takes the request in: name the first node {ROOT}"
    for node in graph.nodes.values():
        if not node.steps:
            yield f"{_node_path(node)}.Steps is empty: give at least one step, or leave the node out"


def _target_faults(graph: Graph, hostnames: Sequence[str]) -> Iterator[str]:
    for node in graph.nodes.values():
        for index, step in enumerate(node.steps):
            kind, name = step.target.kind, step.target.name
            known = {TargetKind.NODE: list(graph.nodes), TargetKind.CONTAINER: list(hostnames)}.get(kind)
            if known is not None and name not in known:
                yield f"{step_path(node.name, index)}.{kind}: there is no {step.target}. Known are {_listed(known)}"


def _cycle_faults(graph: Graph) -> Iterator[str]:
    """Find a way that leads back, by depth first search without recursion deeper than there are nodes."""
    finished: set[str] = set()

    def find(name: str, way: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in way:
            return (*way[way.index(name) :], name)
        if name in finished or name not in graph.nodes:
            return None
        for step in graph.nodes[name].steps:
            if step.target.kind is TargetKind.NODE and (cycle := find(step.target.name, (*way, name))):
                return cycle
        finished.add(name)
        return None

    for name in graph.nodes:
        if cycle := find(name, ()):
            way = " -> ".join(cycle)
            yield f"InferenceGraph.Nodes: {way} is a cycle: no request would ever leave it. Take one step out"
            return


def _reach_faults(graph: Graph) -> Iterator[str]:
    reached, waiting = set[str](), [ROOT]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [s.target.name for s in graph.nodes[name].steps if s.target.kind is TargetKind.NODE]
    for name in graph.nodes.keys() - reached:
        yield f"InferenceGraph.Nodes.{name}: no step leads to this node from {ROOT}. Refer to it, or leave it out"


def _container_faults(graph: Graph, hostnames: Sequence[str]) -> Iterator[str]:
    targets = graph.targets()
    count = len(targets)
    if not LEAST_CONTAINERS <= count <= MOST_CONTAINERS:
        yield (
            f"InferenceGraph calls {count} container{'' if count == 1 else 's'}: a graph has {LEAST_CONTAINERS} to "
            f"{MOST_CONTAINERS}, models of their own included"
        )
    called = {target.name for target in targets if target.kind is TargetKind.CONTAINER}
    for index, hostname in enumerate(hostnames):
        if hostname not in called:
            yield f"Containers[{index}]: no step of InferenceGraph calls {hostname}. Call it, or leave it out"


def _call_count_faults(graph: Graph) -> Iterator[str]:
    if (count := most_calls(graph)) > MOST_CALLS:
        yield f"InferenceGraph may make {count} calls for one request: at most {MOST_CALLS} are allowed"


def _name_faults(node: Node) -> Iterator[str]:
    for label, count in Counter(step.label for step in node.steps).items():
        if count > 1:
            yield (
                f"{_node_path(node)}: {count} steps are called {label}, where a step without StepName is called by its "
                "place: give each a StepName of its own"
            )


def _mirror_faults(node: Node) -> Iterator[str]:
    if all(step.is_mirror for step in node.steps):
        yield f"{_node_path(node)}: every step is a Mirror, so that nobody answers. Add a step that is none"


def _weight_faults(node: Node) -> Iterator[str]:
    """KServe asks for a sum of 100. Any weights will do, as with ProductionVariants; 0 takes a step out for now."""
    for index, step in enumerate(node.steps):
        path = f"{step_path(node.name, index)}.Weight"
        is_weighed = node.router is RouterType.SPLITTER and not step.is_mirror
        if is_weighed and step.weight is None:
            yield f"{path} is missing: a Splitter draws by it"
        elif not is_weighed and step.weight is not None:
            where = "on a Mirror" if step.is_mirror else f"in {_ROUTER[node.router]}"
            yield f"{path} means nothing {where}: leave it out"
        elif step.weight is not None and step.weight < 0:
            yield f"{path} {step.weight:g} is negative: give 0 or more"
    live = [step for step in node.steps if not step.is_mirror]
    if node.router is RouterType.SPLITTER and live and all(step.weight == 0 for step in live):
        yield f"{_node_path(node)}: every Weight is 0, so that no step is ever drawn. Give one at least more"


def _order_faults(node: Node) -> Iterator[str]:
    """In a switch nothing is reached behind a step that is always taken, unless that one may be passed over."""
    if node.router is not RouterType.SWITCH:
        return
    live = [(index, step) for index, step in enumerate(node.steps) if not step.is_mirror]
    always = next((index for index, step in live if not step.condition and step.dependency is Dependency.HARD), None)
    for index, _ in live:
        if always is not None and index > always:
            yield (
                f"{step_path(node.name, index)} is never reached, since Steps[{always}] has no Condition: "
                "put that one last, or give it a Condition"
            )


def _step_faults(graph: Graph, node: Node, index: int, step: Step) -> Iterator[str]:
    path = step_path(node.name, index)
    if step.condition:
        yield from _expression_faults(node, f"{path}.Condition", step.condition)
    if step.data == RESPONSE and node.router is not RouterType.SEQUENCE:
        yield f"{path}.Data: no step comes before another in {_ROUTER[node.router]}. Leave {RESPONSE} out"
    elif step.data.startswith("$") and step.data not in {REQUEST, RESPONSE}:
        yield f"{path}.Data {step.data} is not known: give {REQUEST}, {RESPONSE} or a JMESPath expression"
    elif step.data not in {"", REQUEST, RESPONSE}:
        yield from _expression_faults(node, f"{path}.Data", step.data)
    yield from _placement_faults(graph, path, step)


def _expression_faults(node: Node, path: str, text: str) -> Iterator[str]:
    try:
        expression: Expression = read_expression(text)
    except NoExpression as fault:
        yield f"{path} {text}: {fault}"
        return
    if expression.uses_answer and node.router is not RouterType.SEQUENCE:
        yield f"{path} {text}: no step comes before another in {_ROUTER[node.router]}. Use request or headers"


def _placement_faults(graph: Graph, path: str, step: Step) -> Iterator[str]:
    if step.placement is None:
        return
    if step.target.kind is TargetKind.NODE:
        yield f"{path}.Placement: a node runs nowhere of its own. Give it to the steps that call containers"
    elif graph.targets()[step.target] is not step.placement:
        yield f"{path}.Placement {step.placement}: another step places the {step.target} elsewhere. Give one to both"


def _node_path(node: Node) -> str:
    return f"InferenceGraph.Nodes.{node.name}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
