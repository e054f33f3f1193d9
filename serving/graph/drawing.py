"""A graph as Mermaid text, and what its drawings say of steps and targets. Pure: a graph always looks the same."""

from __future__ import annotations

from raymaker.serving.graph.document import (
    REQUEST,
    ROOT,
    Dependency,
    Graph,
    Node,
    Placement,
    RouterType,
    Step,
    Target,
    TargetKind,
)

START = "request"


def draw_mermaid(graph: Graph) -> str:
    """Draw a graph as a Mermaid flowchart."""
    nodes = {name: f"n{index}" for index, name in enumerate(graph.nodes)}
    targets = {target: f"t{index}" for index, target in enumerate(graph.targets())}
    lines = ["flowchart LR", f"    start([{START}]) --> {nodes[ROOT]}"]
    for name, node in graph.nodes.items():
        lines.append(f'    {nodes[name]}{{{{"{_mermaid(name)}<br/>{node.router}"}}}}')
    for target, key in targets.items():
        lines.append(f'    {key}["{"<br/>".join(_mermaid(line) for line in target_lines(graph, target))}"]')
    for name, node in graph.nodes.items():
        for step in node.steps:
            reached = nodes[step.target.name] if step.target.kind is TargetKind.NODE else targets[step.target]
            text = "<br/>".join(_mermaid(part) for part in (step.label, *describe_step(node, step)))
            lines.append(f'    {nodes[name]} {"-.->" if step.is_mirror else "-->"}|"{text}"| {reached}')
    return "\n".join(lines) + "\n"


def describe_step(node: Node, step: Step) -> list[str]:
    """Say what is special about a step, in a few words each."""
    words = [f"if {step.condition}"] if step.condition else []
    if node.router is RouterType.SPLITTER and not step.is_mirror:
        total = sum(other.weight or 0.0 for other in node.steps)
        words.append(f"{100 * (step.weight or 0.0) / total:.3g} %" if total else "0 %")
    words += [step.data] if step.data not in {"", REQUEST} else []
    words += ["mirror"] if step.is_mirror else []
    words += ["soft"] if step.dependency is Dependency.SOFT else []
    words += [f"{step.timeout_s:g} s"] if step.timeout_s is not None else []
    words += [f"{step.retry_count} {'retry' if step.retry_count == 1 else 'retries'}"] if step.retry_count else []
    return words


def target_lines(graph: Graph, target: Target) -> tuple[str, str]:
    """Name a target, and say what it is."""
    kind = "model" if target.kind is TargetKind.MODEL else "container"
    is_apart = graph.targets()[target] is Placement.DISTRIBUTED
    return target.name, f"{kind}, deployed apart" if is_apart else kind


def _mermaid(text: str) -> str:
    """Write text inside quotes: what Mermaid or HTML would take for its own, as entity codes."""
    return "".join(letter if letter.isalnum() or letter in " .,:-_/()=%$" else f"#{ord(letter)};" for letter in text)
