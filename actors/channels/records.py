"""Which objects can be shared out by record, and how the records of each are counted and copied.

Lines are in `lines.py`, rows of Parquet in `rows.py`; who gets which records is for `sharding.py` to say.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from raymaker.actors.backends import whole_file
from raymaker.actors.channels.lines import LineRecords
from raymaker.actors.channels.rows import ParquetRecords
from raymaker.actors.errors import StorageError, UnsupportedError
from raymaker.actors.pinned_file import open_pinned
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectInfo, ObjectStore, PinnedObject

SUFFIXES = {
    "csv": (".csv", ".tsv"),
    "lines": (".jsonl", ".ndjson", ".jsonlines"),
    "parquet": (".parquet", ".pq"),
}
CONTENT_TYPES = {
    "csv": ("text/csv", "text/tab-separated-values"),
    "lines": ("application/jsonlines", "application/jsonl", "application/x-jsonlines", "application/x-ndjson"),
    "parquet": ("application/x-parquet", "application/parquet", "application/vnd.apache.parquet"),
}
"""For objects whose names tell nothing."""
COMPRESSION_LEVEL = 1
"""As for models: the file is read once, on this machine."""


class Records(Protocol):
    """One object, seen as records in their order. `count` comes first."""

    def count(self, on_bytes: Callable[[int], None]) -> int:
        """Tell how many there are; `on_bytes` hears what was read for that. Raises StorageError, UnsupportedError."""

    def copy(self, wanted: range, target: BinaryIO) -> None:
        """Write a file of the same format with the wanted records, of which there is at least one."""


def open_records(
    store: ObjectStore,
    item: ObjectInfo,
    channel: ChannelSpec,
    opened: Callable[[], AbstractContextManager[BinaryIO]] | None = None,
) -> Records:
    """See an object as records, by its name or else the channel's content type. Raises UnsupportedError.

    `opened` opens it where all of it is read; of Parquet only what is needed is read, from the store.

    CSV has a header where the content type says `header=present`, none where it says `header=absent`; otherwise where
    no field of the first record is a number. With Gzip compression, or a name that ends in .gz, text is unpacked.
    """
    pin = PinnedObject(item.uri, item.size_bytes)
    opened = opened or partial(open_pinned, store, pin)
    is_packed = _is_packed(item, channel)
    kind = kind_of(item.relative_name, channel.content_type)
    if kind == "parquet" and not is_packed:
        return ParquetRecords(store, pin)
    if kind in {None, "parquet"}:
        known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise UnsupportedError(
            f"{item.uri} cannot be split by ShardBy Record, which knows Parquet, CSV and JSON lines ({known}, text "
            "also with .gz, or a ContentType that says so): use ShardBy Object, or store the data in such a format"
        )

    def opened_text() -> AbstractContextManager[IO[bytes]]:
        return unpacked(opened(), item.uri) if is_packed else opened()

    if kind == "lines":
        return LineRecords(opened_text, item.uri)
    return LineRecords(
        opened_text, item.uri, quoted=True, is_header=lambda first: _is_header(first, channel.content_type)
    )


def kind_of(name: str, content_type: str | None) -> str | None:
    """Tell what an object is by its name, or else by its content type: csv, lines, parquet, None for anything else."""
    name = name.removesuffix(".gz").lower()
    content_type = (content_type or "").partition(";")[0].strip().lower()
    by_name = (kind for kind, suffixes in SUFFIXES.items() if name.endswith(suffixes))
    by_type = (kind for kind, types in CONTENT_TYPES.items() if content_type in types)
    return next(by_name, None) or next(by_type, None)


def copy_records(records: Records, wanted: range, target: Path) -> None:
    """Write the wanted records to `target`, whole or not at all, packed where it is called .gz."""
    with whole_file(target) as copy:
        if target.suffix != ".gz":
            records.copy(wanted, copy)
            return
        with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, copy, mtime=0) as packed:
            records.copy(wanted, cast("BinaryIO", packed))


def open_gunzipped(store: ObjectStore, uri: str) -> AbstractContextManager[IO[bytes]]:
    """Open a gzip object as what was packed in it. Raises StorageError where it is none."""
    return unpacked(store.open_read(uri), uri)


@contextlib.contextmanager
def unpacked(opening: AbstractContextManager[IO[bytes]], where: str) -> Iterator[IO[bytes]]:
    """Open gzip as what was packed in it; `where` names it in errors. Raises StorageError where it is none."""
    try:
        with opening as packed, gzip.GzipFile(fileobj=packed) as source:
            yield cast("IO[bytes]", source)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StorageError(
            f"{where} is no gzip file ({error}): compress it, or use CompressionType None and a name without .gz"
        ) from error


def _is_packed(item: ObjectInfo, channel: ChannelSpec) -> bool:
    return channel.compression == "Gzip" or item.relative_name.endswith(".gz")


def _is_header(first: bytes, content_type: str | None) -> bool:
    said = re.search(r";\s*header\s*=\s*\"?(present|absent)", content_type or "", re.IGNORECASE)
    if said:
        return said.group(1).lower() == "present"
    return not any(_is_number(field) for field in re.split(rb"[,;\t|]", first))


def _is_number(field: bytes) -> bool:
    try:
        float(field.strip().strip(b'"'))
    except ValueError:
        return False
    return True
