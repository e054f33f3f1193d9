"""FastFile mode: files that are fetched as they are read, from a store over the wire that fails, and what is left."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raymaker.actors.channels import fast_server
from raymaker.actors.channels.fast import CannotShow, FastFiles
from raymaker.actors.contract import JobFolder
from raymaker.actors.errors import UnsupportedError
from raymaker.actors.input_data import InputData
from raymaker.actors.mounting import mounts_below
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec, ContainerSpec, Mount
from raymaker.actors.storage import ObjectStore, StoreConfig
from support import fast_job
from support.faults import eventually
from support.faulty_network import FaultyNetwork
from support.s3 import ObjectStore as S3Server

MIB = 1024 * 1024
BIG = random.Random(0).randbytes(30 * MIB)
READ_MAPPED = """
import mmap, sys

with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    sys.stdout.buffer.write(mapped[20 * 1024 * 1024 : 20 * 1024 * 1024 + 100])
"""
DATA = "/opt/ml/input/data/train"
OBJECTS = {"big": BIG, "sub/small": b"1,2\n", "sub/empty": b""}


@pytest.fixture
def config(s3: S3Server, network: FaultyNetwork) -> StoreConfig:
    return StoreConfig(network.endpoint_url, s3.access_key, s3.secret_key, s3.region, retry_s=20)


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = s3.bucket()
    for key, body in OBJECTS.items():
        s3.put(name, f"data/{key}", body)
    return name


@pytest.fixture
def fast(config: StoreConfig, tmp_path: Path) -> Iterator[FastFiles]:
    fast = FastFiles(ObjectStore(config), config, tmp_path / "job" / "fast", 16 * MIB, "process")
    yield fast
    fast.close()
    assert mounts_below(tmp_path) == []


def folders(tmp_path: Path, count: int = 1) -> dict[int, JobFolder]:
    return {rank: JobFolder.of_one(tmp_path / "job" / str(rank)) for rank in range(count)}


def channel(bucket: str, **options: str) -> ChannelSpec:
    return ChannelSpec("train", f"s3://{bucket}/data", input_mode="FastFile", **options)


def show(fast: FastFiles, channel: ChannelSpec, tmp_path: Path) -> Path:
    """Show a channel to one container, and return where it sees it."""
    fast.find(channel, folders(tmp_path), 1)
    fast.show()
    return folders(tmp_path)[0].channel(channel)


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


WHOLE = {name: hashlib.sha256(body).hexdigest() for name, body in OBJECTS.items()}


def test_files_are_there_at_once_and_fetched_as_they_are_read_also_where_the_network_fails(
    fast: FastFiles, network: FaultyNetwork, bucket: str, tmp_path: Path
) -> None:
    seen = show(fast, channel(bucket), tmp_path)
    assert {path.name: path.stat().st_size for path in (seen / "sub").iterdir()} == {"small": 4, "empty": 0}
    assert (seen / "big").stat().st_size == len(BIG)
    assert [span for method, span in network.requests if method == "GET" and span] == [], "nothing was read yet"
    network.cut_next_transfers(3)
    assert digests(seen) == WHOLE
    with pytest.raises(OSError, match="Read-only") as refused:
        (seen / "big").open("r+b")
    assert refused.value.errno == errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        (seen / "new").touch()
    assert fast.problem is None


def test_reads_here_and_there_and_mapped_files_have_the_right_bytes(
    fast: FastFiles, network: FaultyNetwork, bucket: str, tmp_path: Path
) -> None:
    seen, places = show(fast, channel(bucket), tmp_path), random.Random(1)

    def read(_number: int) -> bool:
        with (seen / "big").open("rb", buffering=0) as file:
            start = places.randrange(len(BIG))
            file.seek(start)
            return file.read(10_000) == BIG[start : start + 10_000]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(50)))
    # In a process of its own: whoever touches a mapped page keeps Python's other threads from running meanwhile.
    found = subprocess.run([sys.executable, "-c", READ_MAPPED, str(seen / "big")], capture_output=True, check=True)
    assert found.stdout == BIG[20 * MIB : 20 * MIB + 100]


def test_an_object_that_changes_is_an_error_to_its_reader_and_the_job_hears_why(
    fast: FastFiles, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    seen = show(fast, channel(bucket), tmp_path)
    with (seen / "big").open("rb", buffering=0) as file:
        assert file.read(1000) == BIG[:1000]
        s3.put(bucket, "data/big", BIG[::-1])
        file.seek(25 * MIB)
        with pytest.raises(OSError, match="Input/output") as broken:
            file.read(1000)
    assert broken.value.errno == errno.EIO
    said = f"s3://{bucket}/data/big changed while it was read: write new data under new names"
    eventually(lambda: fast.problem and said in fast.problem, "the problem is told")


def test_containers_get_their_shares_of_objects(fast: FastFiles, bucket: str, tmp_path: Path) -> None:
    shared = channel(bucket, distribution="ShardedByS3Key")
    seats = folders(tmp_path, 2)
    fast.find(shared, seats, 2)
    fast.show()
    found = [digests(seats[rank].channel(shared)) for rank in (0, 1)]
    assert found[0] | found[1] == WHOLE
    assert not found[0].keys() & found[1].keys()
    with pytest.raises(UnsupportedError, match="channel train: 4 containers are more than there are objects"):
        fast.find(shared, folders(tmp_path, 4), 4)


def test_files_of_this_machine_are_shown_too(fast: FastFiles, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big").write_bytes(BIG)
    local = ChannelSpec("train", (tmp_path / "data").as_uri(), input_mode="FastFile")
    seen = show(fast, local, tmp_path)
    assert digests(seen) == {"big": WHOLE["big"]}
    (tmp_path / "data" / "big").write_bytes(BIG[::-1])
    with pytest.raises(OSError, match="Input/output"):
        (seen / "big").open("rb")
    eventually(lambda: "changed while it was read" in str(fast.problem), "the problem is told")


def test_the_process_driver_shows_them_too(fast: FastFiles, bucket: str, tmp_path: Path, home: Path) -> None:
    seen = show(fast, channel(bucket), tmp_path)
    runtime = ProcessRuntime(home)
    script = "cd /opt/ml/input/data/train; sha256sum big < big; ls sub"
    handle = runtime.start(
        ContainerSpec("reader", ("sh", "-c", script), source_dir=str(tmp_path), mounts=(Mount(str(seen), DATA),))
    )
    ended = runtime.wait(handle, 60)
    said = [line.text for line in runtime.logs(handle)]
    runtime.remove(handle)
    assert ended is not None
    assert (ended.code, said) == (0, [f"{WHOLE['big']}  big", "empty", "small"])


def test_when_the_process_that_fetches_is_killed_readers_get_errors_and_the_job_hears_of_it(
    fast: FastFiles, bucket: str, tmp_path: Path
) -> None:
    seen = show(fast, channel(bucket), tmp_path)
    assert fast._server is not None
    os.kill(fast._server.pid, signal.SIGKILL)
    eventually(lambda: "has ended" in str(fast.problem), "the problem is told")
    with pytest.raises(OSError, match="not connected"):
        (seen / "big").read_bytes()


def test_nothing_stays_mounted_when_the_process_of_the_job_is_killed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("a")
    command = [sys.executable, "-P", str(Path(fast_job.__file__)), str(tmp_path / "data"), str(tmp_path / "job")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "shown\n"
        assert len(mounts_below(tmp_path)) == 2
        job.kill()
    eventually(lambda: not mounts_below(tmp_path), "the filesystems go")
    eventually(lambda: not any(_is_server_of(path, tmp_path) for path in Path("/proc").glob("[0-9]*")), "it ends")


def _is_server_of(process: Path, folder: Path) -> bool:
    try:
        log = (process / "fd" / "2").readlink()
        return log.is_relative_to(folder) and fast_server.__name__.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_where_no_filesystem_can_be_shown_the_files_are_fetched_and_an_event_says_so(
    config: StoreConfig, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # an engine that does not see this machine's mounts
    site = Site(tmp_path / "home", "docker", config, "base")
    notes: list[tuple[str, str]] = []
    own, shared = tmp_path / "home" / "jobs" / "j" / "1", tmp_path / "home" / "jobs" / "j" / "1-channels"
    data = InputData.of(ObjectStore(config), site, "docker", lambda *note: notes.append(note), own=own, shared=shared)
    data.hold()
    seats = {rank: JobFolder(own / str(rank), shared, own / "checkpoints") for rank in (0, 1)}
    whole, part = channel(bucket), ChannelSpec("part", f"s3://{bucket}/data", "S3Prefix", "ShardedByS3Key")
    data.fetch([whole, part], seats, 2, lambda _: None, is_new=True)
    for folder in seats.values():
        assert digests(folder.channel(whole).resolve()) == WHOLE
    assert [kind for kind, _ in notes] == ["FastFileFallback"]
    assert notes[0][1].startswith("Channel train is fetched as in File mode: the platform may not mount here")
    assert data.problem is None
    data.release()


def test_a_machine_without_the_library_says_which(
    fast: FastFiles, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse3.so.3")
    with pytest.raises(CannotShow, match=r"/nowhere/libfuse3\.so\.3"):
        show(fast, channel(bucket), tmp_path)
