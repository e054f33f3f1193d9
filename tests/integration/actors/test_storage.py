"""The object store against S3 over the wire, whole and with a network that fails."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from raymaker.actors.artifacts import pack, unpack
from raymaker.actors.channels.rows import ParquetRecords
from raymaker.actors.errors import ObjectNotFound, StorageError
from raymaker.actors.storage import ObjectStore, PinnedObject, StoreConfig
from support.faulty_network import FaultyNetwork
from support.s3 import ObjectStore as S3Server


def config(s3: S3Server, endpoint_url: str | None = None, retry_s: float = 20) -> StoreConfig:
    return StoreConfig(endpoint_url or s3.endpoint_url, s3.access_key, s3.secret_key, s3.region, retry_s)


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(config(s3))


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = s3.bucket()
    client = s3.client()
    for key in ("train/a.csv", "train/sub/b.csv", "train-2/c.csv", "part-1", "part-2", "odd/ü %41+.txt"):
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    client.put_object(Bucket=name, Key="train/", Body=b"")
    client.put_object(Bucket=name, Key="hollow/", Body=b"")
    client.close()
    return name


def keys(s3: S3Server, bucket: str) -> list[str]:
    client = s3.client()
    found = [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    client.close()
    return found


def names(store: ObjectStore, uri: str) -> list[str]:
    return [item.relative_name for item in store.list_objects(uri)]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("train/", ["a.csv", "sub/b.csv"]),
        ("train", ["a.csv", "sub/b.csv", "train-2/c.csv"]),
        ("part-", ["part-1", "part-2"]),
        ("part-1", ["part-1"]),
        ("train/sub/b", ["b.csv"]),
        ("odd/", ["ü %41+.txt"]),
    ],
)
def test_a_prefix_is_the_beginning_of_a_key(store: ObjectStore, bucket: str, prefix: str, expected: list[str]) -> None:
    assert names(store, f"s3://{bucket}/{prefix}") == expected


def test_a_whole_bucket_can_be_listed(store: ObjectStore, bucket: str) -> None:
    assert len(names(store, f"s3://{bucket}")) == len(names(store, f"s3://{bucket}/")) == 6


@pytest.mark.parametrize("prefix", ["nothing", "hollow/", "train/a.csv/"])
def test_a_prefix_of_nothing_is_not_found(store: ObjectStore, bucket: str, prefix: str) -> None:
    with pytest.raises(ObjectNotFound, match=prefix):
        names(store, f"s3://{bucket}/{prefix}")


def test_a_missing_bucket_is_told_as_such_for_reading_writing_and_checking(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for act in (
        lambda: store.list_objects("s3://no-such-bucket/x"),
        lambda: store.upload(tmp_path / "f", "s3://no-such-bucket/x"),
        lambda: store.check_writable("s3://no-such-bucket/x"),
    ):
        with pytest.raises(ObjectNotFound, match=r"s3://no-such-bucket/x.*no such bucket"):
            act()


def test_what_is_uploaded_comes_down_the_same_over_many_parts(
    store: ObjectStore, bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4 * 1024 * 40
    (tmp_path / "up").write_bytes(content)
    store.upload(tmp_path / "up", f"s3://{bucket}/new/deep/object")
    store.download(f"s3://{bucket}/new/deep/object", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert "new/deep/" not in keys(s3, bucket)


def test_odd_keys_are_literal_and_can_be_read_back(store: ObjectStore, bucket: str) -> None:
    uri = store.list_objects(f"s3://{bucket}/odd")[0].uri
    assert store.read_bytes(uri, 100) == "odd/ü %41+.txt".encode()


def test_deleting_takes_the_folder_but_not_its_namesakes_and_leaves_no_markers(
    store: ObjectStore, bucket: str, s3: S3Server
) -> None:
    store.delete_prefix(f"s3://{bucket}/train")
    store.delete_prefix(f"s3://{bucket}/train")
    assert [key for key in keys(s3, bucket) if key.startswith("train")] == ["train-2/c.csv"]


def test_a_whole_bucket_is_never_deleted(store: ObjectStore, bucket: str) -> None:
    with pytest.raises(StorageError, match="never deleted"):
        store.delete_prefix(f"s3://{bucket}/")


def test_checking_a_place_leaves_nothing_behind(store: ObjectStore, bucket: str, s3: S3Server) -> None:
    before = keys(s3, bucket)
    store.check_writable(f"s3://{bucket}/jobs/out")
    assert keys(s3, bucket) == before


def test_a_model_goes_to_s3_and_comes_back(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"w" * 100)
    for compression, name in (("GZIP", "model.tar.gz"), ("NONE", "model")):
        uri = pack(tmp_path / "model", store, f"s3://{bucket}/job/output/{name}", compression)
        unpack(store, uri, tmp_path / compression)
        assert (tmp_path / compression / "sub" / "weights").read_bytes() == b"w" * 100


def test_a_store_that_is_overloaded_for_a_while_is_borne_with(
    s3: S3Server, bucket: str, network: FaultyNetwork, tmp_path: Path
) -> None:
    store = ObjectStore(config(s3, network.endpoint_url))
    network.refuse_next(4, 503)
    store.download(f"s3://{bucket}/train/a.csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "train/a.csv"


def test_a_cut_transfer_goes_on_where_it_was(s3: S3Server, bucket: str, network: FaultyNetwork, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4 * 1024 * 20
    (tmp_path / "up").write_bytes(content)
    ObjectStore(config(s3)).upload(tmp_path / "up", f"s3://{bucket}/big")
    store = ObjectStore(config(s3, network.endpoint_url))
    network.cut_next_transfers(2)
    store.download(f"s3://{bucket}/big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    ranges = [span for method, span in network.requests if method == "GET"]
    assert len(ranges) > len(set(ranges)), "the cut piece was asked for again"
    assert None not in ranges


def test_rows_of_a_large_object_are_read_by_range_also_where_transfers_are_cut(
    s3: S3Server, bucket: str, network: FaultyNetwork, tmp_path: Path
) -> None:
    noise = random.Random(0)
    table = pa.table({"x": [noise.randbytes(1000) for _ in range(4000)]})
    parquet.write_table(table, tmp_path / "up", row_group_size=500, use_dictionary=False)
    uri = f"s3://{bucket}/rows.parquet"
    ObjectStore(config(s3)).upload(tmp_path / "up", uri)
    store = ObjectStore(config(s3, network.endpoint_url))
    network.cut_next_transfers(2)
    records = ParquetRecords(store, PinnedObject(uri, store.size(uri)))
    assert records.count(lambda _: None) == 4000
    with (tmp_path / "part").open("wb") as part:
        records.copy(range(1200, 1300), part)
    assert parquet.read_table(tmp_path / "part").equals(table.slice(1200, 100))
    spans = {span for method, span in network.requests if method == "GET" and span}
    first, last = zip(*(span.removeprefix("bytes=").split("-") for span in spans), strict=True)
    assert sum(map(int, last)) - sum(map(int, first)) < (tmp_path / "up").stat().st_size / 4


def test_no_access_is_told_at_once_with_the_remedy(s3: S3Server, bucket: str, network: FaultyNetwork) -> None:
    store = ObjectStore(config(s3, network.endpoint_url))
    network.refuse_next(10, 403)
    with pytest.raises(StorageError, match="access was denied.*check|set an access key"):
        store.list_objects(f"s3://{bucket}/train/")


def test_an_endpoint_that_nobody_listens_at_is_named(s3: S3Server, bucket: str) -> None:
    store = ObjectStore(config(s3, "http://127.0.0.1:9", retry_s=0))
    for act in (
        lambda: store.list_objects(f"s3://{bucket}/train/"),
        lambda: store.delete_prefix(f"s3://{bucket}/train/"),
    ):
        with pytest.raises(StorageError, match=rf"s3://{bucket}/train/: the object store is away"):
            act()


def test_a_process_that_used_s3_ends_without_a_word(s3: S3Server, bucket: str) -> None:
    program = (
        "from raymaker.actors.storage import *\n"
        f"store = ObjectStore(StoreConfig({s3.endpoint_url!r}, 'k', 's'))\n"
        f"print(len(store.list_objects('s3://{bucket}/train/')))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
