"""Evaluation data as records: what is sent, what is known of it, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.storage import ObjectStore
from raymaker.serving.evaluation.data import Record, label_text, read_records, request_type
from raymaker.serving.evaluation.errors import EvaluationDataError
from raymaker.serving.evaluation.spec import EvaluationData, ProblemType

MULTICLASS, REGRESSION = ProblemType.MULTICLASS, ProblemType.REGRESSION


def read(folder: Path, problem: ProblemType = MULTICLASS, **options: Any) -> list[Record]:
    return list(read_records(ObjectStore(), EvaluationData(folder.as_uri(), **options), problem))


def test_rows_of_csv_lose_their_label_and_their_tag(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('3,"one, two",first\n4,three,second\n\n')
    (tmp_path / "b.csv").write_text("5,six,third\n")
    found = read(tmp_path, label="0", tag="-1")
    assert [(each.features, each.label, each.tag, each.number) for each in found] == [
        ('"one, two"', "3", "first", 0),
        ("three", "4", "second", 1),
        ("six", "5", "third", 2),
    ]
    assert found[2].where == f"record 0 of {(tmp_path / 'b.csv').as_uri()}"


def test_a_header_names_the_columns_of_each_object(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,species\n1,2,setosa\n")
    (tmp_path / "b.csv").write_text("species,x,y\nvirginica,3,4\n")
    found = read(tmp_path, label="species", has_header=True)
    assert [(each.features, each.label) for each in found] == [("1,2", "setosa"), ("3,4", "virginica")]
    sent = read(tmp_path, label="species", has_header=True, request_type="application/json")
    assert [json.loads(each.features) for each in sent] == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]


def test_json_lines_and_parquet_are_sent_as_they_are_or_as_csv(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": [2, 3], "y": True, "id": "r0"}, {"a": 4, "b": [5], "y": False, "id": "r1"}]
    lines, columns = tmp_path / "lines", tmp_path / "columns"
    for folder in (lines, columns):
        folder.mkdir()
    (lines / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pa.Table.from_pylist(rows), columns / "a.parquet")
    expected = [({"a": 1, "b": [2, 3]}, "1", "r0"), ({"a": 4, "b": [5]}, "0", "r1")]
    found = read(lines, label="y", tag="id", content_type="application/jsonlines")
    assert [(json.loads(each.features), each.label, each.tag) for each in found] == expected
    found = read(columns, label="y", tag="id", request_type="application/jsonlines")
    assert [(json.loads(each.features), each.label, each.tag) for each in found] == expected
    assert [each.features for each in read(columns, label="y", tag="id")] == ['1,"[2, 3]"', "4,[5]"]


def test_labels_may_lie_in_an_object_of_their_own(tmp_path: Path) -> None:
    data, labels = tmp_path / "data", tmp_path / "labels.txt"
    data.mkdir()
    (data / "a.csv").write_text("1,2\n3,4\n")
    labels.write_text("0.5\n7\n")
    found = read(data, REGRESSION, labels_uri=labels.as_uri())
    assert [(each.features, each.label) for each in found] == [("1,2", 0.5), ("3,4", 7.0)]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {"label": "0"}, "holds no record to evaluate with"),
        ("1,2\n3\n", {"label": "0"}, "record 1 of .*a.csv has 1 columns, and the ones before it have 2"),
        ("1,2\n", {"label": "5"}, "there is no column 5 among 2; without a header"),
        ("x,y\n1,2\n", {"label": "z", "has_header": True}, "there is no column z among x, y"),
        ("1,2\n ,2\n", {"label": "0"}, "record 1 of .* has no known result: its label is missing"),
        ("1,2\nNaN,2\n", {"label": "0"}, "record 1 of .*: its label is NaN"),
        ('"1,2\n', {"label": "0"}, "is no CSV"),
    ],
)
def test_what_is_wrong_with_csv_is_told_by_record_and_column(
    tmp_path: Path, content: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(EvaluationDataError, match=message):
        read(tmp_path, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": 1}\n', "record 0 of .*: there is no column y among x"),
        ('{"x": 1, "y": null}\n', "its label is missing"),
        ("{x}\n", "record 0 of .* is no JSON"),
        ("[1, 2]\n", "is no object, so it has no column y"),
        ('{"x": 1, "y": "high"}\n', "its label 'high' is no number"),
        ('{"x": 1, "y": NaN}\n', "its label 'nan' is no number"),
    ],
)
def test_what_is_wrong_with_json_lines_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(EvaluationDataError, match=message):
        read(tmp_path, REGRESSION, label="y")


@pytest.mark.parametrize(
    ("labels", "message"),
    [("1\n", "has 1 labels, and more are needed: record 1"), ("1\n2\n3\n", "has 3 labels for 2 records")],
)
def test_labels_and_records_must_be_as_many(tmp_path: Path, labels: str, message: str) -> None:
    data, place = tmp_path / "data", tmp_path / "labels.txt"
    data.mkdir()
    (data / "a.csv").write_text("1,2\n3,4\n")
    place.write_text(labels)
    with pytest.raises(EvaluationDataError, match=message):
        read(data, labels_uri=place.as_uri())


def test_other_objects_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no columns here")
    with pytest.raises(EvaluationDataError, match="a.parquet is no Parquet file that can be read"):
        read(tmp_path, label="y")
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "picture").write_bytes(b"\xff\xd8")
    with pytest.raises(EvaluationDataError, match=r"neither CSV nor JSON lines nor Parquet.*set EvaluationConfig"):
        read(tmp_path, label="y", content_type="image/jpeg")
    with pytest.raises(EvaluationDataError, match="is not UTF-8 text"):
        read(tmp_path, label="0")


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.0, "3"), ("3.0", "3"), (True, "1"), (" cat ", "cat"), (0.5, "0.5")]
)
def test_a_class_is_one_text_however_it_is_written(value: Any, text: str) -> None:
    assert label_text(value) == text


def test_records_are_sent_as_the_data_is_unless_it_is_told_otherwise() -> None:
    assert request_type(EvaluationData("s3://b/d")) == "text/csv"
    assert request_type(EvaluationData("s3://b/d", content_type="application/x-ndjson")) == "application/jsonlines"
    assert request_type(EvaluationData("s3://b/d", content_type="application/x-parquet")) == "text/csv"
    assert request_type(EvaluationData("s3://b/d", request_type="application/json")) == "application/json"
