"""Arrow mode: Parquet, CSV and JSON lines as one stream of record batches in Arrow's IPC format.

pyarrow reads, selects and filters; here is what it reads from, and what becomes of its batches: each container's share
of the records, another order of them, batches of one size. Pipes and passes are `stream.py`'s.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv, dataset, json, parquet
from pyarrow.lib import ArrowException

from raymaker.actors.channels.delivery import Pins
from raymaker.actors.channels.entries import Source
from raymaker.actors.channels.fifo import MOST_PIECES_COUNT, PipeWriter
from raymaker.actors.channels.records import kind_of
from raymaker.actors.channels.ring import Ring
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.channels.unpacking import Unpacker
from raymaker.actors.errors import StorageError, UnsupportedError
from raymaker.actors.pinned_file import PinnedFile
from raymaker.actors.spec import ArrowSpec, ChannelSpec
from raymaker.actors.storage import ObjectStore, PinnedObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ReadAhead = Callable[[PinnedObject], Ring]
"""Begins to read an object ahead."""
BLOCK_BYTES = 1024 * 1024
DECODED_BYTES = 32 * 1024 * 1024
"""About how much of a row group is decoded at once: more than a batch, as each time has its price."""
LEAST_DECODED_COUNT = 64
HELD_BYTES = 1024 * 1024
"""What is gathered of a batch at most before it is written: a call for each of its columns has its price."""
OPERATORS = {
    "Equal": "==",
    "NotEqual": "!=",
    "Less": "<",
    "LessOrEqual": "<=",
    "Greater": ">",
    "GreaterOrEqual": ">=",
    "In": "in",
    "NotIn": "not in",
}
"""The request's words for what pyarrow knows."""


class Tables:
    """The objects of a channel as tables of one schema, which is the first object's. Raises StorageError."""

    def __init__(
        self, store: ObjectStore, channel: ChannelSpec, pins: Pins, first: Source, read_ahead: ReadAhead
    ) -> None:
        self._store = store
        self._channel = channel
        self._pins = pins
        self._schema: pa.Schema | None = None
        self._filter: Any = None
        with self._opened(first, read_ahead) as batches:
            schema = batches.schema
        self._columns = self._wanted(schema, first)
        self._filter = self._expression(schema, first)
        self._schema = schema
        self.schema = pa.schema([schema.field(name) for name in self._columns])

    def batches(self, sources: Iterable[Source], read_ahead: ReadAhead) -> Generator[pa.RecordBatch]:
        """The wanted records of all objects, in order, decoded ahead of whoever takes them.

        Raises StorageError, UnsupportedError.
        """
        return _decode_ahead(self._decode(sources, read_ahead))

    def _decode(self, sources: Iterable[Source], read_ahead: ReadAhead) -> Generator[pa.RecordBatch]:
        for source in sources:
            if self._pins.find(source).size_bytes:  # such as the _SUCCESS that Spark leaves
                with self._opened(source, read_ahead) as batches:
                    yield from batches

    @contextlib.contextmanager
    def _opened(self, source: Source, read_ahead: ReadAhead) -> Iterator[_Batches]:
        item = self._pins.find(source)
        try:
            with contextlib.ExitStack() as stack:
                yield self._scan(item, read_ahead, stack)
        except (ArrowException, ValueError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise StorageError(
                f"{item.uri} could not be read as the table that it should be ({reason}): correct it; all objects of a "
                "channel have the columns and types of its first one"
            ) from error

    def _scan(self, item: PinnedObject, read_ahead: ReadAhead, stack: contextlib.ExitStack) -> _Batches:
        kind = kind_of(item.uri, self._channel.content_type)
        is_packed = item.uri.endswith(".gz") or self._channel.compression == "Gzip"
        if kind is None or (kind == "parquet" and is_packed):
            raise UnsupportedError(
                f"{item.uri} is neither Parquet, CSV nor JSON lines by its name or the channel's ContentType, which is "
                "what Arrow mode reads: give it such a name, or use Pipe mode"
            )
        if kind == "parquet":
            return self._scan_parquet(pa.PythonFile(_SeekableObject(self._store, item), "r"))
        options: dict[str, Any] = {"batch_size": self._arrow.batch_rows_count, "batch_readahead": 1}
        if self._schema is not None:
            options |= {"columns": list(self._columns), "filter": self._filter}
        ring = stack.enter_context(contextlib.closing(read_ahead(item)))
        text = pa.PythonFile(_Text(ring, Unpacker(item.uri) if is_packed else None), "r")
        reader = self._open_csv(text) if kind == "csv" else self._open_json(text)
        return _Batches(reader.schema, dataset.Scanner.from_batches(reader, **options).to_batches())

    def _scan_parquet(self, source: pa.NativeFile) -> _Batches:
        file = parquet.ParquetFile(source, pre_buffer=True)
        found = file.schema_arrow
        if self._schema is None:
            return _Batches(found, iter(()))
        if missing := set(self._schema.names) - set(found.names):
            raise ValueError(f"it has no column {min(missing)!r}")
        return _Batches(self._schema, self._decode_parquet(source, file, self._schema))

    def _decode_parquet(
        self, source: pa.NativeFile, file: parquet.ParquetFile, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Decode a few rows of a row group after another: who asks for several groups gets all of them into memory."""
        wanted = list(dict.fromkeys([*self._columns, *(name for name, *_ in self._arrow.filters)]))
        types = pa.schema([schema.field(name) for name in wanted])
        for number in self._row_groups(source, file, schema):
            group = file.metadata.row_group(number)
            count = max(LEAST_DECODED_COUNT, DECODED_BYTES * group.num_rows // max(1, group.total_byte_size))
            for batch in file.iter_batches(count, row_groups=[number], columns=wanted):
                rows = batch.select(wanted).cast(types)
                yield (rows if self._filter is None else rows.filter(self._filter)).select(list(self._columns))

    def _row_groups(self, source: pa.NativeFile, file: parquet.ParquetFile, schema: pa.Schema) -> Sequence[int]:
        """The row groups in which something may fit the filters."""
        if self._filter is None:
            return range(file.num_row_groups)
        fragment = dataset.ParquetFileFormat().make_fragment(source)
        return [part.row_groups[0].id for part in fragment.split_by_row_group(self._filter, schema=schema)]

    def _open_csv(self, text: Any) -> Any:
        is_bare = "header=absent" in (self._channel.content_type or "").replace(" ", "").lower()
        types = {} if self._schema is None else {field.name: field.type for field in self._schema}
        return csv.open_csv(
            text,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, autogenerate_column_names=is_bare),
            convert_options=csv.ConvertOptions(column_types=types),
        )

    def _open_json(self, text: Any) -> Any:
        return json.open_json(
            text,
            read_options=json.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=json.ParseOptions(explicit_schema=self._schema),
        )

    @property
    def _arrow(self) -> ArrowSpec:
        return self._channel.arrow

    def _wanted(self, schema: pa.Schema, first: Source) -> Sequence[str]:
        named = [*self._arrow.columns, *(name for name, *_ in self._arrow.filters)]
        if missing := [name for name in named if name not in schema.names]:
            raise UnsupportedError(
                f"{first.uri} has no column {missing[0]!r}, which ArrowConfig names: it has {', '.join(schema.names)}"
            )
        return self._arrow.columns or schema.names

    def _expression(self, schema: pa.Schema, first: Source) -> Any:
        conditions = []
        for name, operator, texts in self._arrow.filters:
            kind = schema.field(name).type
            try:
                values = [pa.scalar(text).cast(kind).as_py() for text in texts]
            except (ArrowException, ValueError) as error:
                raise UnsupportedError(
                    f"ArrowConfig.Filters: {texts} cannot be compared with the column {name!r} of {first.uri}, which "
                    f"holds {kind}: {error}"
                ) from error
            is_list = operator in {"In", "NotIn"}
            conditions.append((name, OPERATORS[operator], values if is_list else values[0]))
        return parquet.filters_to_expression(conditions) if conditions else None


def _decode_ahead(batches: Generator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
    """Have the next batch decoded while one is in use."""
    with contextlib.closing(batches), ThreadPoolExecutor(1, "stream-decoder") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


@dataclass(frozen=True)
class Share:
    """What of a pass one container gets: every `shard.count`-th record, mixed by `order` where there is one."""

    arrow: ArrowSpec
    shard: Shard
    order: random.Random | None


def write_stream(batches: Iterable[pa.RecordBatch], schema: pa.Schema, share: Share, pipe: PipeWriter) -> None:
    """Write a share of the records as an Arrow IPC stream, in batches of one size.

    Containers' shares differ by one record at most. Records are mixed within each `shuffle_rows_count` of them. Raises
    what reading raises, ReaderLeft, Aborted; the stream has no end then.
    """
    order, batch_rows_count = share.order, share.arrow.batch_rows_count
    sink = _Sink(pipe)
    writer = pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema)
    mine = _share(batches, share.shard)
    for table in _gathered(mine, schema, batch_rows_count if order is None else share.arrow.shuffle_rows_count):
        mixed = table if order is None else table.take(pa.array(order.sample(range(table.num_rows), table.num_rows)))
        writer.write_table(mixed.combine_chunks(), batch_rows_count)
        sink.pass_on()
    writer.close()
    sink.pass_on()
    pipe.flush()


def _share(batches: Iterable[pa.RecordBatch], shard: Shard) -> Iterator[pa.RecordBatch]:
    """Pick every `shard.count`-th record of all."""
    first = shard.index
    for batch in batches:
        if shard.count > 1:
            mine = range(first, batch.num_rows, shard.count)
            first = (first - batch.num_rows) % shard.count
            yield batch.take(pa.array(mine, pa.int64()))
        else:
            yield batch


def _gathered(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows_count: int) -> Iterator[pa.Table]:
    """Put batches together to tables of `rows_count` records; the last has the rest."""
    held: list[pa.RecordBatch] = []
    held_count = 0
    for batch in batches:
        held.append(batch)
        held_count += batch.num_rows
        while held_count >= rows_count:
            table = pa.Table.from_batches(held, schema)
            yield table.slice(0, rows_count)
            held, held_count = table.slice(rows_count).to_batches(), held_count - rows_count
    if held_count:
        yield pa.Table.from_batches(held, schema)


class _Batches:
    """Batches of one object, and the schema of the object as a whole."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches


class _Text(io.RawIOBase):
    """What a ring reads, unpacked where it is packed, as a file."""

    def __init__(self, ring: Ring, unpacker: Unpacker | None) -> None:
        self._pieces = self._unpacked(ring, unpacker)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    @staticmethod
    def _unpacked(ring: Ring, unpacker: Unpacker | None) -> Iterator[bytes | memoryview]:
        for _, view in ring:
            if unpacker is None:
                yield bytes(view)
            else:
                yield from unpacker.feed(view)
        if unpacker is not None:
            unpacker.finish()


class _SeekableObject(PinnedFile):
    """An object as a file of which pyarrow reads without copying what was read."""

    def read_buffer(self, size_bytes: int) -> pa.Buffer:
        """Read as pyarrow does where it can."""
        buffer = pa.allocate_buffer(max(0, min(size_bytes, self._item.size_bytes - self._position)))
        self.readinto(buffer)
        return buffer


class _Sink(io.RawIOBase):
    """A pipe as pyarrow writes to it, buffer by buffer: they go on by the batch. Closing it does not end the pass."""

    def __init__(self, pipe: PipeWriter) -> None:
        self._pipe = pipe
        self._held: list[memoryview] = []
        self._held_bytes = 0

    def pass_on(self) -> None:
        """Write what is held."""
        held, self._held, self._held_bytes = self._held, [], 0
        self._pipe.write_pieces(held)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if view:
            self._held.append(view)
            self._held_bytes += len(view)
        if self._held_bytes >= HELD_BYTES or len(self._held) >= MOST_PIECES_COUNT:
            self.pass_on()
        return len(view)
