"""Arrow mode on real pipes: what of tables comes, to whom, and in which order."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.errors import StorageError, UnsupportedError
from raymaker.actors.spec import ArrowSpec, ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.streaming import streaming

ROWS = 10_000


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(StoreConfig(retry_s=0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def table(first: int = 0, count: int = ROWS) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table({"n": list(numbers), "x": [n / 2 for n in numbers], "word": [f"word {n % 7}" for n in numbers]})


def arrow_channel(folder: Path, arrow: ArrowSpec | None = None, **changes: object) -> ChannelSpec:
    return ChannelSpec("rows", folder.as_uri(), input_mode="Arrow", arrow=arrow or ArrowSpec(), **changes)


def read(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(io.BytesIO(stream)).read_all()


def write_all_kinds(folder: Path) -> None:
    """Four objects of three kinds, whose records go on from one to the next."""
    parquet.write_table(table(0, 4000), folder / "1.parquet", row_group_size=1000)
    rows = table(4000, 6000).to_pylist()
    text = "n,x,word\n" + "".join(f"{row['n']},{row['x']},{row['word']}\n" for row in rows[:2000])
    (folder / "2.csv").write_text(text)
    (folder / "3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[2000:4000]))
    (folder / "4.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows[4000:]).encode()))
    (folder / "_SUCCESS").touch()


def test_parquet_csv_and_json_lines_come_as_one_stream_pass_after_pass(store, data, tmp_path):
    write_all_kinds(data)
    with streaming(store, tmp_path, arrow_channel(data, ArrowSpec(batch_rows_count=1024))) as machine:
        for number in range(2):
            found = read(machine.containers[0].read(f"rows_{number}"))
            assert found.equals(table())
            assert [len(batch) for batch in found.to_batches()] == [1024] * 9 + [784]
    assert machine.streams.problem is None


def test_columns_are_selected_and_records_filtered_also_by_columns_that_are_not_wanted(store, data, tmp_path):
    write_all_kinds(data)
    filters = (("n", "GreaterOrEqual", ("3990",)), ("n", "Less", ("4010",)), ("word", "In", ("word 1", "word 2")))
    with streaming(store, tmp_path, arrow_channel(data, ArrowSpec(("x",), filters))) as machine:
        found = read(machine.containers[0].read("rows_0"))
    assert found.column_names == ["x"]
    assert found["x"].to_pylist() == [n / 2 for n in range(3990, 4010) if n % 7 in {1, 2}]


def test_containers_share_records_evenly_whatever_the_objects_and_the_filter(store, data, tmp_path):
    write_all_kinds(data)
    channel = arrow_channel(
        data, ArrowSpec(filters=(("word", "NotEqual", ("word 3",)),)), distribution="ShardedByS3Key", shard_by="Record"
    )
    with streaming(store, tmp_path, channel, ranks=range(3), world_size=3) as machine:
        shares = [read(it.read("rows_0"))["n"].to_pylist() for it in machine.containers]
    assert sorted(n for share in shares for n in share) == [n for n in range(ROWS) if n % 7 != 3]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_records_are_mixed_within_a_window_and_anew_in_each_pass(store, data, tmp_path):
    parquet.write_table(table(), data / "1.parquet")
    channel = arrow_channel(data, ArrowSpec(shuffle_rows_count=500), shuffle_seed=1)
    with streaming(store, tmp_path, channel) as machine:
        first, second = (read(machine.containers[0].read(f"rows_{n}"))["n"].to_pylist() for n in range(2))
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
    assert first[:500] != list(range(500))
    assert sorted(first[:500]) == list(range(500))


def test_batches_of_more_columns_than_one_call_takes_come_whole(store, data, tmp_path):
    wide = pa.table({f"c{number}": [number, number + 1, None] for number in range(1500)})
    parquet.write_table(wide, data / "1.parquet")
    with streaming(store, tmp_path, arrow_channel(data, ArrowSpec(batch_rows_count=2))) as machine:
        assert read(machine.containers[0].read("rows_0")).equals(wide)


def test_columns_that_are_larger_than_the_pipe_come_whole(store, data, tmp_path):
    large = pa.table({"word": ["x" * 3_000_000, "y", "z" * 5_000_000], "n": [1, 2, 3]})
    parquet.write_table(large, data / "1.parquet")
    with streaming(store, tmp_path, arrow_channel(data)) as machine:
        assert read(machine.containers[0].read("rows_0")).equals(large)


def test_a_reader_that_leaves_early_finds_the_next_pass(store, data, tmp_path):
    parquet.write_table(table(count=300_000), data / "1.parquet")
    with streaming(store, tmp_path, arrow_channel(data)) as machine:
        machine.containers[0].taste("rows_0", 1000)
        assert read(machine.containers[0].read("rows_1")).num_rows == 300_000


@pytest.mark.parametrize(
    ("arrow", "said"),
    [
        (ArrowSpec(("nothing",)), "has no column 'nothing'.* it has n, x, word"),
        (ArrowSpec(filters=(("nothing", "Equal", ("1",)),)), "has no column 'nothing'"),
        (ArrowSpec(filters=(("n", "Equal", ("one",)),)), r"ArrowConfig.Filters: .*one.* the column 'n'"),
    ],
)
def test_what_the_data_does_not_have_is_refused_by_name(store, data, tmp_path, arrow, said):
    parquet.write_table(table(), data / "1.parquet")
    with pytest.raises(UnsupportedError, match=said), streaming(store, tmp_path, arrow_channel(data, arrow)):
        pass


def test_an_object_that_is_no_table_is_refused_by_name(store, data, tmp_path):
    (data / "notes.txt").write_text("hello")
    with (
        pytest.raises(UnsupportedError, match=r"notes.txt is neither Parquet"),
        streaming(store, tmp_path, arrow_channel(data)),
    ):
        pass
    (data / "notes.txt").rename(data / "notes.parquet")
    with (
        pytest.raises(StorageError, match=r"notes.parquet could not be read"),
        streaming(store, tmp_path / "again", arrow_channel(data)),
    ):
        pass


def unlike(folder: Path) -> dict[str, bytes]:
    other = io.BytesIO()
    parquet.write_table(table().drop_columns(["x"]), other)
    packed = gzip.compress(("n,x,word\n" + "1,2,a\n" * 10_000).encode())
    return {
        "2.parquet": other.getvalue(),
        "2.csv": b"n,x,word\nmany,1,2\n",
        "2.jsonl": b'{"n": 1, "x": 2, "word": "a"}\nnothing\n',
        "2.csv.gz": packed[:-100],
    }


@pytest.mark.parametrize("name", unlike(Path()))
def test_an_object_unlike_the_first_or_broken_breaks_the_stream_by_name(store, data, tmp_path, name):
    parquet.write_table(table(), data / "1.parquet")
    (data / name).write_bytes(unlike(data)[name])
    with streaming(store, tmp_path, arrow_channel(data)) as machine:
        reading = machine.containers[0].begin("rows_0")
        assert name in machine.until_problem()
        assert not reading.done()


def test_a_table_that_changes_breaks_the_stream_by_name(store, data, tmp_path):
    parquet.write_table(table(), data / "1.parquet")
    with streaming(store, tmp_path, arrow_channel(data)) as machine:
        machine.containers[0].read("rows_0")
        parquet.write_table(table(5), data / "1.parquet")
        machine.containers[0].begin("rows_1")
        assert "1.parquet changed" in machine.until_problem()
