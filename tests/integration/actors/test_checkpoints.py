"""Checkpoints on a real S3 and on local folders: processes that are killed at any moment, stores that are away."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from raymaker.actors import s3_files
from raymaker.actors.checkpoints.sync import CheckpointSync, Writer
from raymaker.actors.errors import Fenced, StorageError
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.faults import eventually
from support.s3 import ObjectStore as S3Server

PART_COUNT = 4
KILL_COUNT = 6

TRAINING = """
import sys
from pathlib import Path
from raymaker.actors.checkpoints.sync import CheckpointSync, Writer
from raymaker.actors.storage import ObjectStore, StoreConfig

uri, folder, attempt, endpoint, log = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
store = ObjectStore(StoreConfig(endpoint or None, "test-access-key", "test-secret-key", "us-east-1", 20))
sync = CheckpointSync(store, uri, folder, Writer(attempt, job="job"), lambda *_: None, settle_s=0)
sync.restore()
done = max((int(path.name[6:]) for path in folder.glob("epoch-*")), default=0)
with open(log, "a", buffering=1) as stored:
    stored.write("0\\n")
    for epoch in range(done + 1, 10_000):
        for name in (f"epoch-{epoch}", "last"):
            (folder / name).mkdir(exist_ok=True)
            for part in range(int(sys.argv[6])):
                (folder / name / f"part-{part}").write_text(str(epoch) * 1000 + "\\n" + str(epoch))
        (folder / "best.pt").write_text(str(epoch))
        sync.look()
        stored.write(f"{epoch}\\n")
"""


class Gate:
    """A way to a server that can be shut: what passes is cut, and who comes is turned away."""

    def __init__(self, endpoint_url: str) -> None:
        parts = urlsplit(endpoint_url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._passing: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_shut = False
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def shut(self) -> None:
        self._is_shut = True
        self._cut()

    def open(self) -> None:
        self._is_shut = False

    def close(self) -> None:
        self.shut()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for passing in [self._listener, *self._passing]:
            passing.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._passing.append(near)
            if self._is_shut:
                near.shutdown(socket.SHUT_RDWR)
                continue
            far = socket.create_connection(self._target)
            self._passing.append(far)
            self._start(lambda a=near, b=far: self._pass_on(a, b))
            self._start(lambda a=far, b=near: self._pass_on(a, b))

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _cut(self) -> None:
        for passing in self._passing:
            try:
                passing.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()


@dataclass
class Location:
    """Somewhere to keep checkpoints, and how to get at it."""

    uri: str
    s3: S3Server | None = None
    told: list[tuple[str, str]] = field(default_factory=list)

    def store(self, retry_s: float = 20) -> ObjectStore:
        if self.s3 is None:
            return ObjectStore(StoreConfig(retry_s=retry_s))
        s3 = self.s3
        return ObjectStore(StoreConfig(s3.endpoint_url, s3.access_key, s3.secret_key, s3.region, retry_s))

    def sync(self, folder: Path, writer: Writer, retry_s: float = 20, settle_s: float = 1) -> CheckpointSync:
        def tell(kind: str, message: str) -> None:
            self.told.append((kind, message))

        return CheckpointSync(self.store(retry_s), self.uri, folder, writer, tell, settle_s=settle_s)

    def names(self) -> list[str]:
        found = [item.relative_name for item in self.store().list_objects(f"{self.uri}/")]
        return [name for name in found if not name.startswith(".raymaker")]

    def heard(self, kind: str) -> bool:
        return kind in [heard for heard, _ in self.told]


@pytest.fixture(params=["local", "s3"])
def location(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location((tmp_path / "store").as_uri())
    return Location(f"s3://{s3.bucket()}/some/check points+ü", s3)


@pytest.fixture
def gate(s3: S3Server) -> Iterator[Gate]:
    gate = Gate(s3.endpoint_url)
    yield gate
    gate.close()


def files_in(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_a_sync_in_the_background_stores_plain_objects_which_the_next_attempt_restores(
    location: Location, tmp_path: Path
) -> None:
    files = {"epoch-1.pt": "one", "step-2/sub/odd ü %41+?.pt": "two", "step-2/.metadata": "", "step-2/big": "x" * 10**7}
    sync = location.sync(tmp_path / "first", Writer(1, job="job"))
    sync.restore()
    sync.start()
    write(tmp_path / "first", files)
    eventually(lambda: len([kind for kind, _ in location.told if kind == "CheckpointStored"]) == 2, "stored")
    files["late"] = "just before the end"
    write(tmp_path / "first", files)
    sync.stop()
    assert set(location.names()) == set(files)
    later = location.sync(tmp_path / "second", Writer(2, job="job"))
    assert later.restore().restored == ("epoch-1.pt", "late", "step-2")
    assert files_in(tmp_path / "second") == files


def test_a_folder_that_changes_in_place_is_stored_anew_and_leaves_no_stage(location: Location, tmp_path: Path) -> None:
    sync = location.sync(tmp_path / "first", Writer(1, job="job"), settle_s=0)
    sync.restore()
    for version in "123":
        write(tmp_path / "first", {"last/a": version, f"last/only-{version}": version, "last/same": "same"})
        (tmp_path / f"first/last/only-{int(version) - 1}").unlink(missing_ok=True)
        sync.look()
    sync.stop()
    assert set(location.names()) == {"last/a", "last/only-3", "last/same"}
    everything = [item.relative_name for item in location.store().list_objects(f"{location.uri}/")]
    assert [name for name in everything if name.startswith(".raymaker/staged")] == []
    location.sync(tmp_path / "second", Writer(2, job="job")).restore()
    assert files_in(tmp_path / "second") == {"last/a": "3", "last/only-3": "3", "last/same": "same"}


def test_an_object_too_large_for_one_request_is_copied_in_the_store(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(f"s3://{s3.bucket()}", s3)
    write(tmp_path, {"source": "x" * 1000})
    location.store().upload(tmp_path / "source", f"{location.uri}/a/ü %41+?")
    monkeypatch.setattr(s3_files, "COPY_LIMIT_BYTES", 999)
    location.store().copy(f"{location.uri}/a/ü %41+?", f"{location.uri}/b/ü %41+?")
    assert location.store().read_bytes(f"{location.uri}/b/ü %41+?", 2000) == b"x" * 1000


def test_a_folder_of_plain_objects_of_another_job_is_restored_as_it_lies(location: Location, tmp_path: Path) -> None:
    write(tmp_path / "other", {"model.pt": "pretrained", "sub/deep/x": "y"})
    for name in ("model.pt", "sub/deep/x"):
        location.store().upload(tmp_path / "other" / name, f"{location.uri}/{name}")
    location.sync(tmp_path / "folder", Writer(1, job="job")).restore()
    assert files_in(tmp_path / "folder") == {"model.pt": "pretrained", "sub/deep/x": "y"}


def test_two_live_attempts_end_with_one_that_writes(location: Location, tmp_path: Path) -> None:
    first = location.sync(tmp_path / "first", Writer(1, job="job"))
    first.restore()
    first.start()
    write(tmp_path / "first", {"epoch-1": "1"})
    eventually(lambda: location.heard("CheckpointStored"), "the first attempt stored its checkpoint")
    second = location.sync(tmp_path / "second", Writer(2, job="job"))
    second.restore()
    write(tmp_path / "first", {"epoch-1": "late", "epoch-2": "late"})
    eventually(lambda: location.heard("CheckpointFenced"), "the first attempt was fenced")
    write(tmp_path / "second", {"epoch-2": "2"})
    second.stop()
    with pytest.raises(Fenced):
        first.stop()
    third = location.sync(tmp_path / "third", Writer(3, job="job"))
    third.restore()
    assert files_in(tmp_path / "third") == {"epoch-1": "1", "epoch-2": "2"}


def test_a_process_killed_at_any_moment_leaves_whole_checkpoints_and_all_that_were_stored(
    location: Location, tmp_path: Path
) -> None:
    """Every attempt goes on where the last one died: it must find all epochs that were stored, each of one piece."""
    chance = random.Random(7)
    for attempt in range(1, KILL_COUNT + 1):
        log = tmp_path / "log"
        known = log.read_text() if log.exists() else ""
        endpoint = location.s3.endpoint_url if location.s3 else ""
        folder = tmp_path / f"attempt-{attempt}"
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, location.uri, folder, str(attempt), endpoint, log, str(PART_COUNT)]
        )
        try:
            eventually(lambda log=log, known=known: log.exists() and log.read_text() != known, "the attempt began")
            time.sleep(chance.uniform(0, 1.5))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        stored = max(map(int, log.read_text().split()))
        _check_whole(location, tmp_path / f"check-{attempt}", Writer(attempt, 1, job="job"), stored)


def _check_whole(location: Location, folder: Path, writer: Writer, stored: int) -> None:
    location.sync(folder, writer).restore()
    found = {path.name: path for path in folder.iterdir()}
    assert {f"epoch-{epoch}" for epoch in range(1, stored + 1)} <= set(found)
    for name, path in found.items():
        if path.is_dir():
            parts = [part.read_text().split("\n")[-1] for part in path.iterdir()]
            assert len(parts) == PART_COUNT, name
            assert len(set(parts)) == 1, (name, parts)
            assert name == "last" or name == f"epoch-{parts[0]}"
            assert name != "last" or int(parts[0]) >= stored
        else:
            assert int(path.read_text()) >= stored


def test_a_store_that_is_away_for_a_while_is_told_and_made_up_for(gate: Gate, s3: S3Server, tmp_path: Path) -> None:
    location = Location(f"s3://{s3.bucket()}/checkpoints", S3Server(gate.endpoint_url))
    sync = location.sync(tmp_path / "first", Writer(1, job="job"), retry_s=0.5)
    sync.restore()
    sync.start()
    gate.shut()
    write(tmp_path / "first", {"epoch-1/a": "1", "epoch-1/b": "1"})
    eventually(lambda: location.heard("CheckpointSyncFailed"), "the trouble was told")
    gate.open()
    eventually(lambda: location.heard("CheckpointSyncRecovered"), "its end was told")
    sync.stop()
    assert location.names() == ["epoch-1/a", "epoch-1/b"]
    assert [kind for kind, _ in location.told] == [
        "CheckpointSyncFailed",
        "CheckpointStored",
        "CheckpointSyncRecovered",
    ]


def test_a_local_place_that_is_away_at_the_end_is_an_error_that_names_it(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "store"))
    sync = location.sync(tmp_path / "first", Writer(1, job="job"), retry_s=0)
    sync.restore()
    (tmp_path / "store").rename(tmp_path / "aside")
    (tmp_path / "store").write_text("a file in its place")
    write(tmp_path / "first", {"epoch-1": "1"})
    with pytest.raises(StorageError, match=f"CheckpointConfig.S3Uri {location.uri}.*a file where a folder is needed"):
        sync.stop(timeout_s=0)
    (tmp_path / "store").unlink()
    (tmp_path / "aside").rename(tmp_path / "store")
    sync.stop()
    assert location.names() == ["epoch-1"]


@pytest.mark.parametrize("bucket", ["no-such-bucket-here", "Not A Bucket"])
def test_a_bucket_that_does_not_exist_is_told_before_training(s3: S3Server, tmp_path: Path, bucket: str) -> None:
    sync = Location(f"s3://{bucket}/checkpoints", s3).sync(tmp_path / "folder", Writer(1, job="job"), retry_s=0)
    with pytest.raises(StorageError, match=f"CheckpointConfig.S3Uri s3://{bucket}.*correct it"):
        sync.restore()


def test_many_small_files_come_back_whole(location: Location, tmp_path: Path) -> None:
    files = {f"step-{step}/shard-{shard}": f"{step} {shard}" for step in range(5) for shard in range(40)}
    sync = location.sync(tmp_path / "first", Writer(1, job="job"))
    sync.restore()
    write(tmp_path / "first", files)
    sync.stop()
    heard: list[tuple[int, int]] = []
    report = location.sync(tmp_path / "second", Writer(2, job="job")).restore(lambda *it: heard.append(it))
    assert files_in(tmp_path / "second") == files
    assert heard[-1] == (report.size_bytes, report.size_bytes)
