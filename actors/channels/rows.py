"""Records that are rows of Parquet: counted from the footer, and a range of them written as a file of the same kind.

Reads only the row groups that hold wanted rows, one at a time and in batches. Schema, metadata and codec are kept; the
encoding of the values and the borders of row groups are the writer's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet
from pyarrow.lib import ArrowException

from raymaker.actors.errors import StorageError
from raymaker.actors.pinned_file import open_pinned
from raymaker.actors.storage import ObjectStore, PinnedObject

BATCH_BYTES = 64 * 1024 * 1024
BATCH_ROWS_COUNT = 1024 * 1024
SAME_CODEC = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4"}
"""pyarrow's names, where they are not the format's."""


class ParquetRecords:
    """One object of Parquet, which is to stay as it is while it is read."""

    def __init__(self, store: ObjectStore, item: PinnedObject) -> None:
        self._store = store
        self._item = item
        self._metadata: Any = None

    def count(self, on_bytes: Callable[[int], None]) -> int:  # noqa: ARG002 - a footer is not worth telling
        """Read the footer."""
        with self._opened() as file:
            self._metadata = file.metadata
        return int(self._metadata.num_rows)

    def copy(self, wanted: range, target: BinaryIO) -> None:
        """Write the wanted rows, once they were counted."""
        with (
            self._opened() as file,
            parquet.ParquetWriter(target, file.schema_arrow, compression=self._codec()) as writer,
        ):
            for batch in self._batches(file, wanted):
                writer.write_batch(batch)

    def _batches(self, file: Any, wanted: range) -> Iterator[Any]:
        """Yield the wanted rows, each batch of a few MiB."""
        first = 0
        for index in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(index)
            start, stop = max(wanted.start - first, 0), min(wanted.stop - first, group.num_rows)
            if start < stop:
                row_bytes = max(1, group.total_byte_size // group.num_rows)
                rows_count = min(max(1, BATCH_BYTES // row_bytes), BATCH_ROWS_COUNT)
                yield from _cut(file.iter_batches(rows_count, row_groups=[index]), start, stop)
            first += group.num_rows

    def _codec(self) -> str:
        has_columns = self._metadata.num_row_groups and self._metadata.num_columns
        codec = self._metadata.row_group(0).column(0).compression if has_columns else "SNAPPY"
        return SAME_CODEC.get(codec, codec)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            # Its reads come straight from the store: a buffer in between would fetch what the next seek throws away.
            with (
                open_pinned(self._store, self._item) as source,
                parquet.ParquetFile(pa.PythonFile(source.raw, "r"), metadata=self._metadata, pre_buffer=True) as file,
            ):
                yield file
        except (ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's own, not pyarrow's
            reason = " ".join(str(error).split())
            raise StorageError(
                f"{self._item.uri} is no Parquet file that pyarrow can read ({reason}): correct it, or use ShardBy "
                "Object"
            ) from error


def _cut(batches: Iterator[Any], start: int, stop: int) -> Iterator[Any]:
    """Yield rows `start` to `stop` of what the batches hold together."""
    first = 0
    for batch in batches:
        begin, end = max(start - first, 0), min(stop - first, batch.num_rows)
        if begin < end:
            yield batch.slice(begin, end - begin)
        first += batch.num_rows
        if first >= stop:
            return
