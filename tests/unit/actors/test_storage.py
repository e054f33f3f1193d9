"""URIs, names, patience and local folders of the object store."""

from __future__ import annotations

import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from raymaker.actors.errors import ObjectNotFound, StorageError
from raymaker.actors.storage import ObjectStore, StoreConfig, child_uri, relative_name
from raymaker.actors.store_errors import explain, is_transient


class FakeTime:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(StoreConfig(retry_s=0))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.csv").write_text("bb")
    (folder / "a.csv").write_text("a")
    (folder / "sub" / "odd %41 ü.txt").write_text("odd")
    return folder


@pytest.mark.parametrize(
    ("prefix", "key", "name"),
    [
        ("b/train/", "b/train/a.csv", "a.csv"),
        ("b/train", "b/train/sub/a.csv", "sub/a.csv"),
        ("b/train", "b/train-2/a.csv", "train-2/a.csv"),
        ("b/part-", "b/part-1", "part-1"),
        ("b/part-1", "b/part-1", "part-1"),
        ("b", "b/a", "a"),
    ],
)
def test_a_key_is_named_without_its_prefix(prefix: str, key: str, name: str) -> None:
    assert relative_name(prefix, key) == name


def test_a_folder_lists_its_files_sorted_with_names_and_sizes(store: ObjectStore, data: Path) -> None:
    found = [(item.relative_name, item.size_bytes) for item in store.list_objects(data.as_uri())]
    assert found == [("a.csv", 1), ("b.csv", 2), ("sub/odd %41 ü.txt", 3)]


def test_a_plain_path_and_a_file_uri_mean_the_same(store: ObjectStore, data: Path) -> None:
    assert store.list_objects(str(data)) == store.list_objects(f"{data.as_uri()}/")


def test_a_single_file_lists_as_itself(store: ObjectStore, data: Path) -> None:
    assert [item.relative_name for item in store.list_objects(f"{data}/a.csv")] == ["a.csv"]


def test_odd_names_survive_the_way_from_listing_to_reading(store: ObjectStore, data: Path) -> None:
    assert store.read_bytes(store.list_objects(data.as_uri())[2].uri, 10) == b"odd"


def test_a_listing_follows_links_but_not_in_circles_and_leaves_pipes_out(store: ObjectStore, data: Path) -> None:
    (data / "sub" / "up").symlink_to(data)
    os.mkfifo(data / "pipe")
    assert [item.relative_name for item in store.list_objects(str(data))] == ["a.csv", "b.csv", "sub/odd %41 ü.txt"]


@pytest.mark.parametrize("name", ["missing", "missing/", "a.csv/deeper"])
def test_what_does_not_exist_is_not_found(store: ObjectStore, data: Path, name: str) -> None:
    with pytest.raises((ObjectNotFound, StorageError), match=name):
        store.list_objects(f"{data}/{name}")


def test_an_empty_folder_is_not_found_either(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="no object lies at"):
        store.list_objects(str(tmp_path))


@pytest.mark.parametrize("uri", ["data/a.csv", "s3://", "http://host/x", "file://host/x", "file://x", ""])
def test_what_is_no_uri_is_refused_with_advice(store: ObjectStore, uri: str) -> None:
    with pytest.raises(StorageError, match="file:///"):
        store.list_objects(uri)


def test_a_download_appears_whole_and_leaves_no_part(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    pieces: list[int] = []
    store.download(f"{data}/b.csv", tmp_path / "new" / "copy", pieces.append)
    assert (tmp_path / "new" / "copy").read_text() == "bb"
    assert sum(pieces) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_download_to_a_place_that_is_a_file_names_the_place(store: ObjectStore, data: Path) -> None:
    with pytest.raises(StorageError, match=r"a\.csv/x: a name in it is a file"):
        store.download(f"{data}/b.csv", data / "a.csv" / "x")


def test_an_upload_replaces_the_object_and_leaves_no_part(store: ObjectStore, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "model.bin"
    store.upload(data / "a.csv", target.as_uri())
    store.upload(data / "b.csv", target.as_uri())
    assert target.read_text() == "bb"
    assert [path.name for path in (target.parent).iterdir()] == ["model.bin"]


def test_reading_more_than_the_limit_is_refused(store: ObjectStore, data: Path) -> None:
    with pytest.raises(StorageError, match="larger than 1 bytes"):
        store.read_bytes(f"{data}/b.csv", 1)


def test_only_objects_exist_not_their_folders(store: ObjectStore, data: Path) -> None:
    assert store.exists(f"{data}/a.csv")
    assert not store.exists(str(data))
    assert not store.exists(f"{data}/none")


def test_deleting_takes_a_file_or_a_folder_and_nothing_is_no_error(store: ObjectStore, data: Path) -> None:
    store.delete_prefix(f"{data}/a.csv")
    store.delete_prefix(f"{data}/sub")
    store.delete_prefix(f"{data}/none")
    assert [path.name for path in (data).iterdir()] == ["b.csv"]


def test_checking_a_place_leaves_nothing_behind(store: ObjectStore, tmp_path: Path) -> None:
    store.check_writable(f"{tmp_path}/new/deep")
    assert [path.name for path in (tmp_path).iterdir()] == []


def test_machines_that_check_the_same_place_do_not_disturb_each_other(store: ObjectStore, tmp_path: Path) -> None:
    def check(_: int) -> None:
        for n in range(100):
            store.check_writable(f"{tmp_path}/{n}/new/deep")

    with ThreadPoolExecutor(4) as machines:
        list(machines.map(check, range(4)))
    assert not list(tmp_path.iterdir())


def test_checking_a_place_below_a_file_fails_and_names_it(store: ObjectStore, data: Path) -> None:
    with pytest.raises(StorageError, match=r"a\.csv/out"):
        store.check_writable(f"{data}/a.csv/out")


def test_a_child_of_a_file_uri_is_escaped_and_of_a_key_is_not() -> None:
    assert child_uri("file:///x/", "a b%") == "file:///x/a%20b%25"
    assert child_uri("s3://b/x", "a b%") == "s3://b/x/a b%"


def test_a_store_that_is_away_is_tried_with_growing_pauses_until_the_deadline() -> None:
    time = FakeTime()
    store = ObjectStore(StoreConfig(retry_s=10), time.clock, time.sleep)

    def fail() -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7")

    with pytest.raises(StorageError, match="away or overloaded"):
        store._patiently("read", "s3://b/k", fail)
    assert time.pauses == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert time.now < 10


def test_a_store_that_comes_back_is_forgiven() -> None:
    time = FakeTime()
    store = ObjectStore(StoreConfig(retry_s=10), time.clock, time.sleep)
    answers = iter([OSError("AWS Error SLOW_DOWN during GetObject operation"), None])

    def operation() -> str:
        if error := next(answers):
            raise error
        return "read"

    assert store._patiently("read", "s3://b/k", operation) == "read"


def test_what_will_not_pass_by_itself_is_not_tried_again() -> None:
    time = FakeTime()
    store = ObjectStore(StoreConfig(retry_s=10), time.clock, time.sleep)

    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/data/timeout-throttling")

    with pytest.raises(StorageError, match="permission denied to the account"):
        store._patiently("read", "/data", fail)
    assert time.pauses == []


def test_an_access_denied_names_credentials_as_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    error = OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")
    assert not is_transient(error)
    assert "check the access key" in str(explain(error, "read", "s3://b/k"))


def test_a_missing_bucket_is_not_found_from_either_library() -> None:
    arrow = OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: gone")
    boto = ClientError({"Error": {"Code": "NoSuchBucket"}}, "DeleteObject")
    for error in (arrow, boto):
        found = explain(error, "write", "s3://b/k")
        assert isinstance(found, ObjectNotFound)
        assert "there is no such bucket" in str(found)


def test_a_configuration_travels_and_does_not_show_its_secret() -> None:
    config = StoreConfig("http://127.0.0.1:1", "key", "hidden-secret", "eu-west-1")
    assert pickle.loads(pickle.dumps(config)) == config
    assert "hidden-secret" not in repr(config)


def test_an_object_is_read_from_where_one_seeks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 100)
    with ObjectStore().open_read(f"{tmp_path}/a") as source:
        assert source.seek(-3, io.SEEK_END) == 25_597
        assert source.read() == b"\xfd\xfe\xff"
        assert source.seek(256) == 256
        assert source.read(2) == b"\x00\x01"
        assert source.seek(1, io.SEEK_CUR) == 259
        assert source.read(1) == b"\x03"
        source.seek(10**6)
        assert source.read(1) == b""
