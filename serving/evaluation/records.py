"""The results of single records: written as Parquet by an evaluation, and asked for the worst and the best of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.serving.evaluation.answers import Prediction
from raymaker.serving.evaluation.data import Record
from raymaker.serving.evaluation.quality import difference

SCHEMA = pa.schema(
    [
        pa.field("record", pa.int64(), nullable=False),
        pa.field("where", pa.string(), nullable=False),
        pa.field("tag", pa.string()),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("difference", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64()),
        pa.field("is_right", pa.bool_()),
    ]
)
"""`is_right` is null of a regression."""
GROUP_ROWS_COUNT = 10_000


@dataclass(frozen=True)
class RecordResult:
    """One record's result. Fields are those of SCHEMA."""

    record: int
    where: str
    tag: str | None
    input: str
    output: str
    label: str
    difference: float
    confidence: float | None
    is_right: bool | None


@dataclass(frozen=True)
class RecordQuery:
    """Which records to tell of: the worst first, or the best, or in their own order."""

    order: str = "Worst"
    count: int = 10
    label: str | None = None
    output: str | None = None
    least_difference: float | None = None
    most_difference: float | None = None
    only_wrong: bool = False


class RecordWriter:
    """Writes a Parquet file with one row for each record, as they come. A context manager."""

    def __init__(self, path: Path) -> None:
        self._writer = parquet.ParquetWriter(path, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._writer.close()

    def write(self, records: Sequence[Record], predictions: Sequence[Prediction]) -> None:
        """Write some records with their results."""
        for record, found in zip(records, predictions, strict=True):
            self._rows.append(
                {
                    "record": record.number,
                    "where": record.where,
                    "tag": record.tag,
                    "input": record.features,
                    "output": str(found.value),
                    "label": str(record.label),
                    "difference": difference(record.label, found),
                    "confidence": found.confidence,
                    "is_right": found.value == record.label if isinstance(record.label, str) else None,
                }
            )
        if len(self._rows) >= GROUP_ROWS_COUNT:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []


def read_records(store: ObjectStore, uri: str, query: RecordQuery) -> list[RecordResult]:
    """Read the records that a query means; of equals the first come first. Raises StorageError."""
    with _reading(uri), store.open_read(uri) as source:
        file = pa.PythonFile(source, "r")
        judged = parquet.read_table(file, columns=["record", "difference", "confidence"], filters=_filter(query))
        wanted = judged["record"].take(_order(judged, query.order)[: query.count]).to_pylist()
        if not wanted:
            return []
        file.seek(0)
        rows = parquet.read_table(file, filters=pc.field("record").isin(wanted)).to_pylist()
    found = {row["record"]: RecordResult(**row) for row in rows}
    return [found[number] for number in wanted]


def _order(judged: pa.Table, order: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The places of records, the first of them first.

    The worst are those that are furthest off, and of these the ones of which the model was surest.
    """
    numbers, differences = judged["record"].to_numpy(), judged["difference"].to_numpy()
    if order == "Record":
        return np.argsort(numbers)
    surest = pc.fill_null(judged["confidence"], 0.0).to_numpy()
    return np.lexsort((numbers, -surest, -differences if order == "Worst" else differences))


def _filter(query: RecordQuery) -> Any:
    wanted = [
        pc.field("label") == query.label if query.label is not None else None,
        pc.field("output") == query.output if query.output is not None else None,
        pc.field("difference") >= query.least_difference if query.least_difference is not None else None,
        pc.field("difference") <= query.most_difference if query.most_difference is not None else None,
        ~pc.field("is_right") if query.only_wrong else None,
    ]
    found = None
    for condition in wanted:
        if condition is not None:
            found = condition if found is None else found & condition
    return found


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise StorageError(f"the results of single records at {uri} cannot be read: {error}") from error
