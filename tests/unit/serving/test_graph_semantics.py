"""Every case of the graphs' table, in-process. Others run the same table on real containers."""

from __future__ import annotations

import json

import pytest

from raymaker.serving.graph.checks import find_faults
from raymaker.serving.graph.document import parse_graph
from support.graph_cases import CASES, CONTAINERS, Case
from support.graphs import assert_answers, run_graph

LEAST_TWO = "a graph has 2 to 15"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_graph_answers_as_the_table_says(case: Case) -> None:
    assert_answers(case, run_graph(parse_graph(case.document), case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_graphs_of_the_table_are_sound(case: Case) -> None:
    graph = parse_graph(case.document)
    used = [name for name in CONTAINERS if any(target.name == name for target in graph.targets())]
    assert [fault for fault in find_faults(graph, used) if LEAST_TWO not in fault] == []


def test_no_two_cases_share_a_name_and_each_script_fits_its_header() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert max(len(json.dumps(case.answers)) for case in CASES) <= 1024
