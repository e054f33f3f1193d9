"""Streams beside what they are made of: a file into a container beside `cat`, S3 beside boto3's best, and its memory;
Parquet in Arrow mode beside pyarrow in the container.

The reader is `dd` in one container, told by a pipe what to read next, so that all take turns. S3 is nginx, which gives
out a file by ranges with its ETag: what is measured is the reader, not the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

import docker
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from support.engine import BASE_IMAGE
from support.measure import MIB, median, percentile, print_table
from support.servers import find_program, free_port, running_server

ROUNDS = 7
FIRST_BYTES_COUNT = 30
SIZE_BYTES = 1024 * MIB
ROWS_COUNT = 4 * 1024 * 1024
BUFFER_BYTES = 64 * MIB
RIVALS = [(threads, part * MIB) for threads in (4, 8, 16) for part in (8, 16)]
HERE = Path(__file__).parent
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.error;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile on; sendfile_max_chunk 512k; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root {folder}/store; location / {{ }} }}
}}
"""
READ_TABLES = """
import time
from pyarrow import ipc, parquet

def read_stream(path):
    with open(path, "rb") as pipe, ipc.open_stream(pipe) as batches:
        return sum(batch.num_rows for batch in batches)

def read_file(path):
    with parquet.ParquetFile(path) as file:
        return sum(batch.num_rows for batch in file.iter_batches(8192))

with open("/data/wanted") as wanted, open("/data/taken", "w") as taken:
    for line in wanted:
        path = "/data/" + line.strip()
        begun = time.monotonic_ns()
        (read_file if path.endswith(".parquet") else read_stream)(path)
        print(time.monotonic_ns() - begun, file=taken, flush=True)
"""
READ_ON_DEMAND = """
while read -r name; do
    begun=$(date +%s%N); dd if="/data/$name" of=/dev/null bs=1M 2> /dev/null; ended=$(date +%s%N)
    echo "$((ended - begun))"
done < /data/wanted > /data/taken
"""


def main() -> None:
    """Let all take turns, and print the tables."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        big = make_object(folder)
        endpoint = stack.enter_context(running_store(folder))
        pipes = folder / "pipes"
        pipes.mkdir()
        told = {"buffer_bytes": BUFFER_BYTES, "endpoint_url": endpoint}
        tables = folder / "tables"
        tables.mkdir()
        machine = stack.enter_context(Helper({"machine": {**told, "folder": str(pipes)}}))
        rival = stack.enter_context(Helper({"rival": {"endpoint_url": endpoint, "bucket": "bucket", "key": "big"}}))
        reader = stack.enter_context(Reader(pipes))
        compare_tables(stack.enter_context(Helper({"machine": {**told, "folder": str(tables)}})), tables)
        compare_files(machine, reader, pipes, big)
        compare_s3(machine, rival, reader)
        compare_first_bytes(machine, rival, pipes)


def make_object(folder: Path) -> Path:
    """Write the object, where nginx finds it too; it stays in the page cache."""
    big = folder / "store" / "bucket" / "big"
    big.parent.mkdir(parents=True)
    with big.open("wb") as file:
        for _ in range(SIZE_BYTES // MIB):
            file.write(os.urandom(MIB))
    for path in (folder, big.parent.parent, big.parent):
        path.chmod(0o755)  # nginx's workers are another account
    return big


@contextlib.contextmanager
def running_store(folder: Path) -> Iterator[str]:
    """Run nginx over the folder `store`; yield its URL."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port))
    nginx = find_program("nginx", "/usr/sbin", package="nginx-light")
    with running_server([nginx, "-c", str(configuration), "-p", str(folder)], port, folder / "nginx.log"):
        yield f"http://127.0.0.1:{port}"


class Helper:
    """A process of stream_machine.py."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "stream_machine.py"), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, do: str, **arguments: Any) -> Any:
        """Have it do something, and return what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Reader:
    """A container that reads what it is told to."""

    def __init__(self, folder: Path, command: Sequence[str] = ("sh", "-c", READ_ON_DEMAND), **options: Any) -> None:
        for name in ("wanted", "taken"):
            os.mkfifo(folder / name)
        self._folder = folder
        self._engine = docker.from_env()
        self._container = self._engine.containers.run(
            BASE_IMAGE,
            list(command),
            network_mode="none",
            detach=True,
            **{**options, "volumes": {**options.get("volumes", {}), str(folder): {"bind": "/data"}}},
        )
        self._wanted: IO[str] = (folder / "wanted").open("w")
        self._taken: IO[str] = (folder / "taken").open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted.close()
        self._taken.close()
        self._container.remove(force=True)
        self._engine.close()

    def read(self, name: str) -> float:
        """Have it read a pipe to its end; returns the seconds."""
        print(name, file=self._wanted, flush=True)
        return int(self._taken.readline()) / 1e9


def compare_files(machine: Helper, reader: Reader, pipes: Path, big: Path) -> None:
    """A file of this machine, beside `cat file > pipe`."""
    machine("start", channel="file", uri=big.as_uri())
    ours, floor = [], []
    for number in range(ROUNDS):
        ours.append(reader.read(f"file_{number}"))
        pipe = pipes / f"cat-{number}"
        os.mkfifo(pipe)
        with subprocess.Popen(f"cat '{big}' > '{pipe}'", shell=True):
            floor.append(reader.read(pipe.name))
    machine("stop")
    rates = [[f"{name}", *_rates(seconds)] for name, seconds in (("Pipe mode", ours), ("cat file > pipe", floor))]
    print_table(f"1 GiB from a file into a container, {ROUNDS} rounds", ["", "median GB/s", "slowest"], rates)
    print(f"Pipe mode reaches {_ratio(ours, floor):.2f} of cat's rate (reach: 0.95)")


def compare_tables(machine: Helper, folder: Path) -> None:
    """Parquet in Arrow mode, beside the same file read in the container by this machine's pyarrow."""
    numbers = np.random.default_rng(0)
    columns = {f"x{index}": numbers.normal(size=ROWS_COUNT) for index in range(10)}
    file = folder / "rows.parquet"
    parquet.write_table(pa.table({**columns, "label": numbers.integers(0, 10, ROWS_COUNT)}), file)
    packages = Path(pa.__file__).parents[1]
    options = {"volumes": {str(packages): {"bind": "/packages", "mode": "ro"}}, "environment": ["PYTHONPATH=/packages"]}
    machine("start", channel="rows", uri=file.as_uri(), mode="Arrow")
    ours, floor = [], []
    with Reader(folder, ("python3", "-c", READ_TABLES), **options) as reader:
        reader.read(file.name)
        for number in range(ROUNDS):
            ours.append(reader.read(f"rows_{number}"))
            floor.append(reader.read(file.name))
        machine("stop")
    rows = [
        [name, *(f"{it:.2f} s" for it in (median(seconds), max(seconds)))]
        for name, seconds in (("Arrow mode", ours), ("pyarrow", floor))
    ]
    print_table(f"{ROWS_COUNT} records of Parquet in a container, {ROUNDS} rounds", ["", "median", "slowest"], rows)
    print(f"Arrow mode reaches {_ratio(ours, floor):.2f} of pyarrow's rate (reach: 0.8)")


def compare_s3(machine: Helper, rival: Helper, reader: Reader) -> None:
    """An object of S3 into a container, beside the best of boto3 into memory; and the memory that it takes."""
    machine("start", channel="warm", uri="s3://bucket/big")
    reader.read("warm_0")
    machine("stop")
    idle, _ = machine("memory")
    machine("start", channel="s3", uri="s3://bucket/big")
    rivals: dict[tuple[int, int], list[float]] = {it: [rival("read", threads=it[0], part_bytes=it[1])] for it in RIVALS}
    best = sorted(RIVALS, key=lambda it: rivals[it])[:2]
    rivals = {it: [] for it in best}
    ours: list[float] = []
    for number in range(ROUNDS):
        seconds = reader.read(f"s3_{number}")
        ours.append(seconds * SIZE_BYTES / (SIZE_BYTES - BUFFER_BYTES))  # what was read ahead is not counted
        for threads, part_bytes in best:
            rivals[threads, part_bytes].append(rival("read", threads=threads, part_bytes=part_bytes))
    _, peak = machine("memory")
    machine("stop")
    found = min(rivals.items(), key=lambda it: median(it[1]))
    rows = [["Pipe mode", *_rates(ours)]]
    rows += [
        [f"boto3, {threads} threads, {part // MIB} MiB", *_rates(seconds)]
        for (threads, part), seconds in rivals.items()
    ]
    title = f"1 GiB from S3 over the wire, {ROUNDS} rounds"
    print_table(title, ["", "median GB/s", "slowest"], rows)
    print(f"Pipe mode reaches {_ratio(ours, found[1]):.2f} of boto3's rate into memory (reach: 0.85)")
    print(
        f"memory of the streaming process: at most {(peak - idle) / MIB:.0f} MiB above what it has when it is idle, "
        f"{idle / MIB:.0f} MiB; the setting is {BUFFER_BYTES // MIB} MiB"
    )


def compare_first_bytes(machine: Helper, rival: Helper, pipes: Path) -> None:
    """From the start of a stream, whose reader waits already, to its first byte; beside one GET."""
    ours, floor = [], []
    for number in range(FIRST_BYTES_COUNT):
        channel = f"first-{number}"
        os.mkfifo(pipes / f"{channel}_0")
        with ThreadPoolExecutor(1) as waiting:
            heard = waiting.submit(_first_byte_at, pipes / f"{channel}_0")
            began = machine("start", channel=channel, uri="s3://bucket/big")
        machine("stop")
        ours.append(heard.result() - began)
        floor.append(rival("first_byte"))
    rows = [
        [name, *(f"{percentile(seconds, percent) * 1e3:.1f} ms" for percent in (50, 90))]
        for name, seconds in (("Pipe mode", ours), ("one GET", floor))
    ]
    print_table(f"time to the first byte, {FIRST_BYTES_COUNT} rounds", ["", "median", "p90"], rows)
    print(f"Pipe mode takes {median(ours) / median(floor):.2f} of one GET's time (reach: 1.3)")


def _first_byte_at(path: Path) -> float:
    with path.open("rb", buffering=0) as pipe:
        pipe.read(1)
        return time.monotonic()


def _rates(seconds: list[float]) -> list[str]:
    return [f"{SIZE_BYTES / it / 1e9:.2f}" for it in (median(seconds), max(seconds))]


def _ratio(ours: list[float], floor: list[float]) -> float:
    return median(floor) / median(ours)


if __name__ == "__main__":
    main()
