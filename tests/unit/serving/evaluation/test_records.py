"""Results of single records: written once, and asked for the worst, the best, or those of a class."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.serving.evaluation.answers import Prediction
from raymaker.serving.evaluation.data import Record
from raymaker.serving.evaluation.records import RecordQuery, RecordWriter, read_records

CLASSIFIED = [
    ("a", Prediction("a", {"a": 0.9, "b": 0.1})),
    ("a", Prediction("b", {"a": 0.3, "b": 0.7})),
    ("b", Prediction("a", {"a": 0.95, "b": 0.05})),
    ("b", Prediction("b", {"a": 0.4, "b": 0.6})),
]


@pytest.fixture
def stored(tmp_path: Path) -> str:
    path = tmp_path / "records.parquet"
    with RecordWriter(path) as writer:
        for number, (label, found) in enumerate(CLASSIFIED):
            writer.write([Record(number, f"record {number}", f"{number},0", label, f"t{number}")], [found])
    return path.as_uri()


def numbers(uri: str, **query: object) -> list[int]:
    return [found.record for found in read_records(ObjectStore(), uri, RecordQuery(**query))]  # type: ignore[arg-type]


def test_the_worst_are_furthest_off_and_the_best_nearest(stored: str) -> None:
    assert numbers(stored) == [2, 1, 3, 0]
    assert numbers(stored, count=2) == [2, 1]
    assert numbers(stored, order="Best") == [0, 3, 1, 2]
    assert numbers(stored, order="Record") == [0, 1, 2, 3]


def test_records_are_chosen_by_class_by_distance_and_by_being_wrong(stored: str) -> None:
    assert numbers(stored, label="b") == [2, 3]
    assert numbers(stored, output="a", label="b") == [2]
    assert numbers(stored, least_difference=0.4, most_difference=0.7) == [1, 3]
    assert numbers(stored, only_wrong=True) == [2, 1]
    assert numbers(stored, label="z") == []


def test_each_row_tells_all_of_a_record(stored: str) -> None:
    (worst, *_) = read_records(ObjectStore(), stored, RecordQuery())
    assert (worst.where, worst.tag, worst.input, worst.output, worst.label) == ("record 2", "t2", "2,0", "a", "b")
    assert (worst.difference, worst.confidence, worst.is_right) == (pytest.approx(0.95), 0.95, False)


def test_numbers_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with RecordWriter(path) as writer:
        writer.write([Record(0, "r", "1", 2.0)], [Prediction(2.5, {})])
    (found,) = read_records(ObjectStore(), path.as_uri(), RecordQuery())
    assert (found.difference, found.is_right, found.confidence) == (0.5, None, None)
    assert numbers(path.as_uri(), only_wrong=True) == []


def test_what_is_no_such_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "records.parquet").write_text("not columns")
    with pytest.raises(StorageError, match="cannot be read"):
        read_records(ObjectStore(), (tmp_path / "records.parquet").as_uri(), RecordQuery())
