"""Objects shared out by record: CSV, JSON lines and Parquet on local folders, whatever stands in them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.channels import lines, rows
from raymaker.actors.channels.lines import count_records, end_of_records, last_end_of_record
from raymaker.actors.channels.records import copy_records, open_records
from raymaker.actors.channels.sharding import divide_records
from raymaker.actors.errors import StorageError, UnsupportedError
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig

CHANNEL = ChannelSpec("train", "/nowhere", distribution="ShardedByS3Key", shard_by="Record")


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(StoreConfig(retry_s=0))


def parts(
    store: ObjectStore, path: Path, shard_count: int, content_type: str | None = None, compression: str = "None"
) -> list[Path]:
    """The files that each of `shard_count` containers gets of one object."""
    channel = ChannelSpec("train", str(path), content_type=content_type, compression=compression)
    records = open_records(store, store.list_objects(str(path))[0], channel)
    count = records.count(lambda _: None)
    name = path.name.removesuffix(".gz") if compression == "Gzip" else path.name
    made = []
    for index, (wanted,) in enumerate(divide_records([count], shard_count)):
        made.append(path.parent / str(index) / name)
        copy_records(records, wanted, made[-1])
    return made


def contents(paths: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def test_every_part_of_a_csv_has_the_header_and_its_own_records(store: ObjectStore, write) -> None:
    path = write("a.csv", b"x,y\n1,2\n3,4\n5,6\n")
    assert contents(parts(store, path, 2)) == [b"x,y\n1,2\n3,4\n", b"x,y\n5,6\n"]


def test_a_first_record_with_a_number_in_it_is_no_header(store: ObjectStore, write) -> None:
    path = write("a.csv", b"1.5,setosa\n2.5,virginica\n")
    assert contents(parts(store, path, 2)) == [b"1.5,setosa\n", b"2.5,virginica\n"]


def test_the_content_type_decides_whether_there_is_a_header(store: ObjectStore, write) -> None:
    words = write("words.csv", b"good,film\nbad,film\n")
    assert contents(parts(store, words, 2, "text/csv; header=absent")) == [b"good,film\n", b"bad,film\n"]
    numbers = write("numbers.csv", b"0,1\n5,6\n7,8\n")
    assert contents(parts(store, numbers, 2, 'text/csv; charset=utf-8; header="present"')) == [
        b"0,1\n5,6\n",
        b"0,1\n7,8\n",
    ]


def test_newlines_commas_and_quotes_within_quotes_do_not_end_a_record(store: ObjectStore, write) -> None:
    path = write("a.csv", b'x,"the\ny"\n1,"two\nlines, and ""quotes""\n\n"\n3,""\n4,plain\n')
    assert contents(parts(store, path, 3)) == [
        b'x,"the\ny"\n1,"two\nlines, and ""quotes""\n\n"\n',
        b'x,"the\ny"\n3,""\n',
        b'x,"the\ny"\n4,plain\n',
    ]


def test_bytes_stay_as_they_are_line_ends_numbers_and_a_last_line_without_end(store: ObjectStore, write) -> None:
    path = write("a.csv", b"\xef\xbb\xbfx,y\r\n1.50,\xff\r\n1e3 ,NA")
    assert contents(parts(store, path, 2)) == [b"\xef\xbb\xbfx,y\r\n1.50,\xff\r\n", b"\xef\xbb\xbfx,y\r\n1e3 ,NA"]


def test_empty_lines_are_no_records(store: ObjectStore, write) -> None:
    path = write("a.jsonl", b'\n{"a":1}\n\r\n\n{"a":2}\n\n\n')
    assert contents(parts(store, path, 2)) == [b'\n{"a":1}\n', b'\r\n\n{"a":2}\n\n\n']


def test_a_header_alone_is_no_record(store: ObjectStore, write) -> None:
    path = write("a.csv", b"x,y\n")
    records = open_records(store, store.list_objects(str(path))[0], CHANNEL)
    assert records.count(lambda _: None) == 0


def test_quotes_mean_nothing_between_json_lines(store: ObjectStore, write) -> None:
    path = write("a.ndjson", b'{"a": "x\\"y"}\n{"b": 1}\n')
    assert contents(parts(store, path, 2)) == [b'{"a": "x\\"y"}\n', b'{"b": 1}\n']


def test_packed_text_stays_packed_under_its_name(store: ObjectStore, write) -> None:
    path = write("a.csv.gz", gzip.compress(b"x\n1\n") + gzip.compress(b"2\n"))
    first, second = parts(store, path, 2)
    assert (first.name, gzip.decompress(first.read_bytes())) == ("a.csv.gz", b"x\n1\n")
    assert gzip.decompress(second.read_bytes()) == b"x\n2\n"


def test_with_gzip_compression_parts_are_plain(store: ObjectStore, write) -> None:
    path = write("a.jsonl.gz", gzip.compress(b"1\n2\n"))
    assert contents(parts(store, path, 2, compression="Gzip")) == [b"1\n", b"2\n"]


def test_a_name_that_ends_in_gz_and_is_no_gzip_is_told(store: ObjectStore, write) -> None:
    with pytest.raises(StorageError, match=r"a.csv.gz is no gzip file .*: compress it, or use CompressionType None"):
        parts(store, write("a.csv.gz", b"1,2\n"), 2)


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 4096])
@pytest.mark.parametrize("seed", range(4))
def test_any_csv_comes_back_whole_and_in_order_wherever_blocks_end(
    store: ObjectStore, write, monkeypatch: pytest.MonkeyPatch, seed: int, block_bytes: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", block_bytes)
    chance = random.Random(seed)
    words = ["a", "", "b c", 'q"q', "two\nlines", "x,y", "\n\n", '"', "é", "1.0"]
    table = [[str(n), *(chance.choice(words) for _ in range(3))] for n in range(50)]
    text = io.StringIO()
    csv.writer(text, lineterminator=chance.choice(["\n", "\r\n"])).writerows([["n", "u", "v", "w"], *table])
    path = write("a.csv", text.getvalue().encode())
    seen = [list(csv.reader(io.StringIO(part.decode(), newline=""))) for part in contents(parts(store, path, 4))]
    assert [rows[0] for rows in seen] == [["n", "u", "v", "w"]] * 4
    assert [len(rows) - 1 for rows in seen] == [13, 13, 12, 12]
    assert [row for rows in seen for row in rows[1:]] == table


@pytest.mark.parametrize("quoted", [True, False])
def test_counting_and_finding_ends_agree(*, quoted: bool) -> None:
    chance = random.Random(1)
    for _ in range(300):
        data = bytes(chance.choice(b'ab"\n\n,') for _ in range(chance.randint(1, 30)))
        data = data[: last_end_of_record(data, quoted=quoted)]
        count = count_records(data, quoted=quoted)
        assert not data[end_of_records(data, count, quoted=quoted) :].strip(b"\n")
        assert count == 0 or data[end_of_records(data, count - 1, quoted=quoted) :].strip(b"\n")


def test_quotes_that_are_never_closed_are_told_with_a_remedy(store: ObjectStore, write) -> None:
    with pytest.raises(StorageError, match=r"a.csv ends within quotes: .*or use ShardBy Object"):
        parts(store, write("a.csv", b'x\n"1\n2\n3\n'), 2)


def test_a_record_without_end_is_not_taken_into_memory(
    store: ObjectStore, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 100)
    monkeypatch.setattr(lines, "RECORD_LIMIT_BYTES", 1000)
    with pytest.raises(StorageError, match="a record of more than 1000 bytes: .*newline, or use ShardBy Object"):
        parts(store, write("a.jsonl", b"x" * 5000), 2)


@pytest.mark.parametrize("content", ["x,y\n1,2\n".encode("utf-16"), b"PK\x03\x04\0\0\n"])
def test_what_is_no_text_is_refused_with_the_field_and_the_remedy(store: ObjectStore, write, content: bytes) -> None:
    with pytest.raises(UnsupportedError, match=r"a.csv cannot be split by ShardBy Record: .*or use ShardBy Object"):
        parts(store, write("a.csv", content), 2)


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.png", "part-0", "a.csv.bz2", "a.parquet.gz"])
def test_a_format_that_cannot_be_split_is_refused_with_object_field_and_remedy(
    store: ObjectStore, write, name: str
) -> None:
    with pytest.raises(UnsupportedError, match=rf"{name} cannot be split by ShardBy Record.*use ShardBy Object"):
        parts(store, write(name, b"x"), 2)


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines; charset=utf-8"])
def test_the_content_type_speaks_where_the_name_does_not(store: ObjectStore, write, content_type: str) -> None:
    path = write("part-00000", b"1\n2\n")
    assert contents(parts(store, path, 2, content_type)) == [b"1\n", b"2\n"]


def test_what_is_heard_while_counting_are_the_bytes_of_the_object(store: ObjectStore, write) -> None:
    path = write("a.csv", b"x\n" * 1000)
    heard: list[int] = []
    open_records(store, store.list_objects(str(path))[0], CHANNEL).count(heard.append)
    assert sum(heard) == 2000


def test_parquet_parts_have_their_rows_and_the_schema_with_its_metadata_and_codec(
    store: ObjectStore, tmp_path: Path
) -> None:
    schema = pa.schema(
        [
            pa.field("n", pa.int64(), nullable=False, metadata={"unit": "pieces"}),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
            pa.field("when", pa.timestamp("us", "UTC")),
        ],
        metadata={"made-by": "a test"},
    )
    columns = [
        list(range(1000)),
        [[str(n)] * (n % 3) if n % 5 else None for n in range(1000)],
        [f"kind-{n % 11}-{n // 300}" for n in range(1000)],
        [n * 10**6 for n in range(1000)],
    ]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300, compression="ZSTD")
    made = parts(store, tmp_path / "a.parquet", 3)
    seen = [parquet.read_table(path) for path in made]
    assert [part.num_rows for part in seen] == [334, 333, 333]
    assert pa.concat_tables(seen).to_pylist() == table.to_pylist()
    for path in made:
        assert parquet.read_schema(path).equals(parquet.read_schema(tmp_path / "a.parquet"), check_metadata=True)
        assert parquet.read_metadata(path).row_group(0).column(0).compression == "ZSTD"


def test_parquet_is_read_in_batches_that_grow_with_neither_rows_nor_bytes(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_BYTES", 1000)
    parquet.write_table(pa.table({"x": list(range(5000))}), tmp_path / "a.parquet", use_dictionary=False)
    first, second = parts(store, tmp_path / "a.parquet", 2)
    assert parquet.read_table(first)["x"].to_pylist() == list(range(2500))
    assert parquet.read_table(second)["x"].to_pylist() == list(range(2500, 5000))
    groups = parquet.read_metadata(second)
    assert max(groups.row_group(n).num_rows for n in range(groups.num_row_groups)) <= 125


def test_only_the_row_groups_that_are_needed_are_read(tmp_path: Path) -> None:
    class Counting(ObjectStore):
        read_bytes_count = 0

        def fill(self, item, start, view, on_bytes, is_over=lambda: False) -> None:
            self.read_bytes_count += len(view)
            super().fill(item, start, view, on_bytes, is_over)

    noise = random.Random(0)
    table = pa.table({"x": [noise.randbytes(100) for _ in range(20_000)]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=1000, use_dictionary=False)
    store = Counting(StoreConfig(retry_s=0))
    records = open_records(store, store.list_objects(str(path))[0], CHANNEL)
    assert records.count(lambda _: None) == 20_000
    copy_records(records, range(5500, 6500), tmp_path / "part")
    assert parquet.read_table(tmp_path / "part")["x"].to_pylist() == table["x"].to_pylist()[5500:6500]
    assert 0 < store.read_bytes_count < path.stat().st_size / 5


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_what_is_no_parquet_is_told_with_its_name(store: ObjectStore, tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"x": [str(n) for n in range(1000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(b"x" * 100 + damage if damage is not None else b"\xff" * 1000 + whole[1000:])
    with pytest.raises(StorageError, match=r"a.parquet is no Parquet file .*or use ShardBy Object"):
        parts(store, path, 2)
    assert [made for made in tmp_path.rglob("*") if made.is_file()] == [path]


def test_json_lines_of_two_containers_make_the_whole_again(store: ObjectStore, write) -> None:
    documents = [{"n": n, "text": "é\n" * (n % 4)} for n in range(101)]
    path = write("a.jsonl", "".join(json.dumps(it, ensure_ascii=False) + "\n" for it in documents).encode())
    seen = [[json.loads(line) for line in part.splitlines()] for part in contents(parts(store, path, 2))]
    assert [len(part) for part in seen] == [51, 50]
    assert seen[0] + seen[1] == documents
