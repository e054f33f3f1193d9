"""Drawings of graphs: complete, well formed whatever the names, nothing on top of anything, always the same."""

from __future__ import annotations

import ast
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from raymaker.serving.graph.checks import find_faults
from raymaker.serving.graph.document import Graph, direct_graph, parse_graph, serial_graph
from raymaker.serving.graph.drawing import draw_mermaid
from raymaker.serving.graph.layout import Box, Link, arrange
from raymaker.serving.graph.svg import draw_svg
from support.graph_cases import CASES, node, step, to_node

HOSTILE = '"]<b>&`;\n|}}\x00 %% end'
SVG = "{http://www.w3.org/2000/svg}"


def nested() -> Graph:
    """Fifteen containers behind four routers, one of them called from two columns."""
    names = [f"c{number}" for number in range(15)]
    return parse_graph(
        {
            "Nodes": {
                "root": node("Sequence", step(names[0]), to_node("left"), step(names[1], Mirror=True)),
                "left": node("Switch", to_node("wide", Condition="request.wide"), to_node("deep")),
                "wide": node("Ensemble", *(step(name) for name in names[2:12])),
                "deep": node("Splitter", step(names[12], Weight=9), to_node("end", Weight=1)),
                "end": node("Sequence", step(names[13]), step(names[0], StepName="again"), step(names[14])),
            }
        }
    )


def texts(svg: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(svg).iter(f"{SVG}text")]


def test_mermaid_names_routers_containers_conditions_and_mirrors() -> None:
    nodes = {
        "root": node("Sequence", step("small"), to_node("choose", StepName="sure", Condition="score < `0.8`")),
        "choose": node("Splitter", step("big", Weight=3), step("huge", Weight=1), step("next", Mirror=True)),
    }
    assert draw_mermaid(parse_graph({"Nodes": nodes})).splitlines() == [
        "flowchart LR",
        "    start([request]) --> n0",
        '    n0{{"root<br/>Sequence"}}',
        '    n1{{"choose<br/>Splitter"}}',
        '    t0["small<br/>container"]',
        '    t1["big<br/>container"]',
        '    t2["huge<br/>container"]',
        '    t3["next<br/>container"]',
        '    n0 -->|"0"| t0',
        '    n0 -->|"sure<br/>if score #60; #96;0.8#96;"| n1',
        '    n1 -->|"0<br/>75 %"| t1',
        '    n1 -->|"1<br/>25 %"| t2',
        '    n1 -.->|"2<br/>mirror"| t3',
    ]


def test_the_documentation_shows_a_sound_graph_and_its_own_drawing() -> None:
    page = (Path(__file__).parents[3] / "docs/inference-graphs.md").read_text()
    document, drawing = re.search(
        r"InferenceGraph=(\{.*?\n    \}),\n\).*?```mermaid\n(.*?)```", page, re.DOTALL
    ).groups()
    graph = parse_graph(ast.literal_eval(document))
    assert find_faults(graph, ["scaler", "forest", "svm", "big", "next"]) == []
    assert draw_mermaid(graph) == drawing


def test_an_image_shows_every_node_step_and_container_once() -> None:
    shown = texts(draw_svg(nested()))
    assert sorted(text for text in shown if text.startswith("c") and text[1:].isdigit()) == sorted(
        f"c{number}" for number in range(15)
    )
    assert {"request", "root", "left", "wide", "deep", "end", "Switch", "Splitter", "again", "90 %"} <= set(shown)


def test_an_image_shows_models_that_are_deployed_apart() -> None:
    graph = parse_graph({"Placement": "Distributed", "Nodes": {"root": node("Sequence", step(ModelName="m"))}})
    assert "model, deployed apart" in texts(draw_svg(graph))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_graph_of_the_table_can_be_drawn_and_looks_the_same_again(case) -> None:
    first, second = parse_graph(case.document), parse_graph(case.document)
    ET.fromstring(draw_svg(first))
    assert draw_svg(first) == draw_svg(second)
    assert draw_mermaid(first) == draw_mermaid(second)


def test_hostile_text_stays_text() -> None:
    graph = parse_graph({"Nodes": {"root": node("Sequence", step("a", StepName=HOSTILE, Condition=HOSTILE))}})
    assert any('"]<b>&`;' in text for text in texts(draw_svg(graph)))
    lines = draw_mermaid(graph).splitlines()
    assert len(lines) == 5
    assert lines[-1].count('"') == 2
    assert "<b>" not in lines[-1]


def test_serial_and_direct_models_can_be_drawn_too() -> None:
    for graph in (serial_graph(["a", "b"]), direct_graph(["a", "b"])):
        assert {"a", "b"} <= set(texts(draw_svg(graph)))


def test_nothing_lies_on_anything_and_no_link_runs_through_a_box() -> None:
    heights = [30.0, 90.0, 42.0, 200.0, 42.0, 60.0, 42.0]
    boxes = [Box(f"b{index}", column, 80.0, heights[index]) for index, column in enumerate([0, 1, 1, 2, 2, 3, 3])]
    ends = [("b0", "b1"), ("b0", "b2"), ("b0", "b5"), ("b1", "b3"), ("b1", "b4"), ("b2", "b6"), ("b3", "b6")]
    layout = arrange(boxes, [Link(source, 10.0, target) for source, target in ends])
    places = {box.key: (*layout.corners[box.key], box.width, box.height) for box in boxes}
    for first, second in combinations(places.values(), 2):
        assert first[0] + first[2] <= second[0] or second[0] + second[2] <= first[0] or not _overlap(first, second)
    for (source, target), path in zip(ends, layout.paths, strict=True):
        assert path[0] == (places[source][0] + 80.0, places[source][1] + 10.0)
        assert path[-1] == (places[target][0], places[target][1] + places[target][3] / 2)
        for x, y in path[1:-1]:
            assert not any(
                left < x < left + width and top < y < top + height for left, top, width, height in places.values()
            )


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[1] < second[1] + second[3] and second[1] < first[1] + first[3]
