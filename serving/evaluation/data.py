"""Evaluation data: records read one after the other from CSV, JSON lines or Parquet, each with its known result.

Features are sent to the model as the data has them; what stands in them is for the model to judge. Labels are not: one
that is missing, or is no number where one is needed, ends the evaluation.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from raymaker.actors.channels.file import find_objects
from raymaker.actors.channels.records import CONTENT_TYPES, SUFFIXES
from raymaker.actors.errors import ObjectNotFound
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore
from raymaker.serving.evaluation.errors import EvaluationDataError
from raymaker.serving.evaluation.spec import EvaluationData, ProblemType

CSV_TYPE, LINES_TYPE = "text/csv", "application/jsonlines"
LABEL_LIMIT_BYTES = 256 * 1024 * 1024
SHOWN_CHARS = 80
BATCH_ROWS_COUNT = 1024

Label = str | float
"""A class as text, or a number."""


@dataclass(frozen=True)
class Record:
    """One record. `number` counts through all objects, from 0; `where` names it for people."""

    number: int
    where: str
    features: str
    """What is sent to the model: a row of CSV or a JSON document, without a newline."""
    label: Label
    tag: str | None = None


@dataclass(frozen=True)
class _Row:
    """A record before its label is judged. `label` is None where the row holds none."""

    where: str
    features: str
    label: Any
    tag: str | None


def request_type(data: EvaluationData) -> str:
    """Tell the content type in which records are sent."""
    if data.request_type is not None:
        return data.request_type
    return LINES_TYPE if kind_of(data.content_type) == "lines" else CSV_TYPE


def kind_of(content_type: str | None) -> str | None:
    """Tell what a content type is to us: `csv`, `lines` or `parquet`; None where it is nothing known."""
    plain = (content_type or "").partition(";")[0].strip().lower()
    return next((kind for kind, types in CONTENT_TYPES.items() if plain in types), None)


def read_records(store: ObjectStore, data: EvaluationData, problem: ProblemType) -> Iterator[Record]:
    """Read all records in their order. Raises EvaluationDataError, StorageError."""
    objects = find_objects(store, ChannelSpec("evaluation", data.uri, data.data_type))
    rows: Iterator[_Row] = (row for item in objects for row in _read_object(store, item, data))
    if data.labels_uri is not None:
        rows = _with_labels(rows, store, data.labels_uri)
    number = -1
    for number, row in enumerate(rows):
        yield Record(number, row.where, row.features, _judge_label(row, problem), row.tag)
    if number < 0:
        raise EvaluationDataError(f"{data.uri} holds no record to evaluate with: its objects are empty")


def label_text(value: Any) -> str:
    """Write a class as text, so that 3, 3.0 and "3" are one class."""
    if isinstance(value, bool):
        return str(int(value))
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if math.isfinite(number) and number == int(number) else text


def _read_object(store: ObjectStore, item: ObjectInfo, data: EvaluationData) -> Iterator[_Row]:
    name = item.uri.lower()
    kind = next((kind for kind, suffixes in SUFFIXES.items() if name.endswith(suffixes)), kind_of(data.content_type))
    try:
        if kind == "parquet":
            yield from _read_parquet(store, item.uri, data)
        elif kind in {"csv", "lines"}:
            with store.open_read(item.uri) as source, io.TextIOWrapper(source, "utf-8", newline="") as text:
                yield from (_read_csv if kind == "csv" else _read_lines)(text, item.uri, data)
        else:
            raise EvaluationDataError(
                f"{item.uri} is neither CSV nor JSON lines nor Parquet, by its name or by ContentType "
                f"{data.content_type}: set EvaluationConfig.ContentType"
            )
    except UnicodeDecodeError as error:
        raise EvaluationDataError(f"{item.uri} is not UTF-8 text: {error}") from error


def _read_csv(text: Iterable[str], uri: str, data: EvaluationData) -> Iterator[_Row]:
    rows = csv.reader(text, strict=True)
    try:
        names: list[str] | None = None
        width, number = 0, 0
        for row in rows:
            if not row:
                continue
            if not width:
                width = len(row)
                if data.has_header:
                    names = row
                    continue
            where = f"record {number} of {uri}"
            number += 1
            if len(row) != width:
                raise EvaluationDataError(f"{where} has {len(row)} columns, and the ones before it have {width}")
            yield _cut_row(row, names, where, data)
    except csv.Error as error:
        raise EvaluationDataError(f"{uri}, line {rows.line_num}, is no CSV: {error}") from error


def _cut_row(row: list[str], names: list[str] | None, where: str, data: EvaluationData) -> _Row:
    label_at, tag_at = (_column(name, row, names, where) for name in (data.label, data.tag))
    features = [value for index, value in enumerate(row) if index not in {label_at, tag_at}]
    sent = features
    if _is_json(data):
        keys = [name for index, name in enumerate(names or []) if index not in {label_at, tag_at}]
        return _Row(
            where, json.dumps(dict(zip(keys, sent, strict=True)) if keys else sent), *_held(row, label_at, tag_at)
        )
    return _Row(where, to_csv(sent), *_held(row, label_at, tag_at))


def _held(row: list[str], label_at: int | None, tag_at: int | None) -> tuple[str | None, str | None]:
    """The label and the tag of a row."""
    return (row[label_at] if label_at is not None else None), (row[tag_at] if tag_at is not None else None)


def _column(name: str | None, row: list[str], names: list[str] | None, where: str) -> int | None:
    """Find a column by its name, or by its number where there is no header."""
    if name is None:
        return None
    if names is not None:
        if name not in names:
            raise EvaluationDataError(f"{where}: there is no column {name} among {_some(names)}")
        return names.index(name)
    try:
        return range(len(row))[int(name)]
    except (ValueError, IndexError):
        raise EvaluationDataError(
            f"{where}: there is no column {name} among {len(row)}; without a header (HasHeader) columns are numbers "
            "from 0, or from -1 backwards"
        ) from None


def _read_lines(text: Iterable[str], uri: str, data: EvaluationData) -> Iterator[_Row]:
    number = 0
    for line in text:
        if not line.strip():
            continue
        where = f"record {number} of {uri}"
        number += 1
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationDataError(f"{where} is no JSON: {error}") from error
        if not isinstance(document, dict):
            if data.label is not None or data.tag is not None:
                raise EvaluationDataError(f"{where} is no object, so it has no column {data.label or data.tag}")
            yield _Row(where, json.dumps(document), None, None)
        else:
            yield _cut_document(document, where, data)


def _cut_document(document: Mapping[str, Any], where: str, data: EvaluationData) -> _Row:
    for name in (data.label, data.tag):
        if name is not None and name not in document:
            raise EvaluationDataError(f"{where}: there is no column {name} among {_some(list(document))}")
    features = {key: value for key, value in document.items() if key not in {data.label, data.tag}}
    tag = str(document[data.tag]) if data.tag is not None else None
    sent = json.dumps(features) if _is_json(data) else to_csv(list(features.values()))
    return _Row(where, sent, document[data.label] if data.label is not None else None, tag)


def _read_parquet(store: ObjectStore, uri: str, data: EvaluationData) -> Iterator[_Row]:
    number = 0
    try:
        with store.open_read(uri) as source, parquet.ParquetFile(pa.PythonFile(source, "r")) as file:
            for batch in file.iter_batches(BATCH_ROWS_COUNT):
                for document in batch.to_pylist():
                    yield _cut_document(document, f"record {number} of {uri}", data)
                    number += 1
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise EvaluationDataError(
            f"{uri} is no Parquet file that can be read: {' '.join(str(error).split())}"
        ) from error


def _with_labels(rows: Iterator[_Row], store: ObjectStore, uri: str) -> Iterator[_Row]:
    """Give the rows their labels, which are the lines of another object."""
    try:
        labels = store.read_bytes(uri, LABEL_LIMIT_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise EvaluationDataError(f"the labels at {uri} are not UTF-8 text: {error}") from error
    except ObjectNotFound as error:
        raise EvaluationDataError(f"EvaluationConfig.LabelS3Uri: {error}") from error
    count = 0
    for row in rows:
        if count >= len(labels):
            raise EvaluationDataError(f"{uri} has {len(labels)} labels, and more are needed: {row.where} has none")
        yield _Row(row.where, row.features, labels[count], row.tag)
        count += 1
    if count and count < len(labels):
        raise EvaluationDataError(f"{uri} has {len(labels)} labels for {count} records: each record needs one line")


def _judge_label(row: _Row, problem: ProblemType) -> Label:
    """Take a label as a class or a number. Raises EvaluationDataError where it is missing, or no number."""
    if row.label is None or (isinstance(row.label, str) and not row.label.strip()):
        raise EvaluationDataError(f"{row.where} has no known result: its label is missing")
    if problem is not ProblemType.REGRESSION:
        text = label_text(row.label)
        if text.lower() == "nan":
            raise EvaluationDataError(f"{row.where} has no known result: its label is NaN")
        return text
    with contextlib.suppress(ValueError, TypeError):
        if math.isfinite(number := float(row.label)):
            return number
    raise EvaluationDataError(
        f"{row.where}: its label {str(row.label)[:SHOWN_CHARS]!r} is no number that a regression can be compared with"
    )


def _is_json(data: EvaluationData) -> bool:
    return "json" in request_type(data)


def to_csv(values: list[Any]) -> str:
    """Write one row of CSV without its newline. None is an empty field."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown  # noqa: PLR2004 - enough to find a typo
