"""The subset of JSONPath that filters may use, and what lies beyond it."""

from __future__ import annotations

import pytest

from raymaker.serving.transform.paths import PathMissing, PathSyntaxError, parse_path

RECORD = {"id": 7, "in": {"a": 1, "b": [10, 20, 30], "odd name": "x"}, "rows": [{"x": 1}, {"x": 2}]}
ROW = [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", RECORD),
        ("$.id", 7),
        ("$['id']", 7),
        ('$["id"]', 7),
        ("$.in.a", 1),
        ("$.in['odd name']", "x"),
        ("$.in.['a','b']", {"a": 1, "b": [10, 20, 30]}),
        ("$['id', 'rows']", {"id": 7, "rows": [{"x": 1}, {"x": 2}]}),
        ("$.in.b[0]", 10),
        ("$.in.b[-1]", 30),
        ("$.in.b[0,2]", [10, 30]),
        ("$.in.b[1:]", [20, 30]),
        ("$.in.b[:2]", [10, 20]),
        ("$.in.b[-2:-1]", [20]),
        ("$.rows[*].x", [1, 2]),
        ("$.rows.*.x", [1, 2]),
        ("$.rows[*]['x']", [1, 2]),
        ("$.in.*", [1, [10, 20, 30], "x"]),
    ],
)
def test_a_path_finds_what_it_says_in_a_document(path, found):
    assert parse_path(path).find(RECORD) == found


@pytest.mark.parametrize(
    ("path", "found"), [("$[0]", b"a"), ("$[1:]", [b"b", b"c", b"d"]), ("$[0,-1]", [b"a", b"d"]), ("$[*]", ROW)]
)
def test_a_row_is_an_array_of_its_fields(path, found):
    assert parse_path(path).find(ROW) == found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$.none", "no 'none' in an object with id, in, rows"),
        ("$.in.b[3]", "no 3 in 3 elements"),
        ("$.in.b[0,9]", "no 9"),
        ("$.id.x", "no 'x' in the value '7'"),
        ("$.id[1:]", "looks for elements in the value '7'"),
        ("$.rows.x", "no 'x' in 2 elements"),
    ],
)
def test_what_is_not_there_is_told(path, said):
    with pytest.raises(PathMissing, match=said):
        parse_path(path).find(RECORD)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "does not begin with"),
        ("features", "does not begin with"),
        ("$..a", "recursive descent"),
        ("$[?(@.a>1)]", "a filter expression"),
        ("$[(@.length-1)]", "a script expression"),
        ("$.a[0:4:2]", "cannot be understood from"),
        ("$.a['b'", "cannot be understood"),
        ("$['a','b'].c", "must come last"),
        ("$a", "cannot be understood"),
        ("$.", "cannot be understood"),
        ("$[]", "cannot be understood"),
        ("$.a b", "cannot be understood"),
    ],
)
def test_what_is_not_supported_is_named(path, said):
    with pytest.raises(PathSyntaxError, match=said):
        parse_path(path)


def test_only_the_root_means_everything():
    assert parse_path("$").is_all
    assert not parse_path("$[0:]").is_all
