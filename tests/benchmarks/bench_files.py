"""Training data as files: the second job's data beside the first's, and FastFile mode in a container beside `cat`.

S3 is nginx, which gives out a file by ranges with its ETag: what is measured is the reader, not the store. All take
turns; the store's file and the local copy stay in the page cache.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import docker
from bench_stream import BUFFER_BYTES, SIZE_BYTES, make_object, running_store
from botocore.config import Config

from raymaker.actors.channels.cache import ObjectCache
from raymaker.actors.channels.fast import FastFiles
from raymaker.actors.channels.laying import Laying
from raymaker.actors.contract import JobFolder
from raymaker.actors.mounting import may_mount, remove_tree
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.engine import BASE_IMAGE
from support.measure import median, print_table

ROUNDS = 5
CAT, S3, AGAIN, HERE = "cat of a local copy", "S3", "S3, read again", "file of this machine"
KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}
TIMED_READ = "b=$(date +%s%N); dd if=/data/big of=/dev/null bs=1M 2> /dev/null; e=$(date +%s%N); echo $((e - b))"
TIMED_CAT = "b=$(date +%s%N); cat /data/big > /dev/null; e=$(date +%s%N); echo $((e - b))"


def main() -> None:
    """Let all take turns, and print the tables."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(remove_tree, folder / "jobs")
        big = make_object(folder)
        endpoint = stack.enter_context(running_store(folder))
        config = StoreConfig(endpoint, "bench", "bench", "us-east-1")
        compare_jobs(folder, config)
        compare_fast(folder, config, big)


def compare_jobs(folder: Path, config: StoreConfig) -> None:
    """The data step of the first job, and of the second on the same data; beside boto3's own download."""
    rival = boto3.client(
        "s3", endpoint_url=config.s3_endpoint_url, config=Config(s3={"addressing_style": "path"}), **KEYS
    )
    times: dict[str, list[float]] = {}

    def take(what: str, step: Callable[[], object]) -> None:
        os.sync()  # so that nobody waits for what another has left to be written
        began = time.monotonic()
        step()
        times.setdefault(what, []).append(time.monotonic() - began)

    for number in range(ROUNDS):
        take("boto3 download_file", lambda: rival.download_file("bucket", "big", str(folder / "rival")))
        take("cp of a local copy", lambda: shutil.copyfile(folder / "rival", folder / "copy"))
        for mounts, how in ((True, "under a layer"), (False, "copied")):
            cache = ObjectCache(folder / f"cache-{number}-{mounts}", 4 * SIZE_BYTES)
            laying = Laying(ObjectStore(config), cache, lambda *_: None, may_mount=mounts and may_mount("docker"))
            for job in ("first job", "second job"):
                place = folder / "jobs" / job
                take(f"{job}, {how}", lambda laying=laying, place=place: laying.lay(_channel("File"), place))  # type: ignore[misc]
            remove_tree(folder / "jobs")
            shutil.rmtree(folder / f"cache-{number}-{mounts}")
    first = median(times["first job, under a layer"])
    rows = [
        [what, f"{median(seconds) * 1e3:.0f} ms", f"{max(seconds) * 1e3:.0f} ms", f"{median(seconds) / first:.3f}"]
        for what, seconds in times.items()
    ]
    print_table(f"1 GiB of S3 laid before a job, {ROUNDS} rounds", ["", "median", "slowest", "of the first"], rows)


def compare_fast(folder: Path, config: StoreConfig, big: Path) -> None:
    """A file read in order in a container: fetched as it is read, read again, and beside `cat` of a local copy."""
    times: dict[str, list[float]] = {it: [] for it in (CAT, S3, AGAIN, HERE)}
    for number in range(ROUNDS):
        times[CAT] += _read_in_container(big.parent, TIMED_CAT)
        for what, uri in ((S3, "s3://bucket/big"), (HERE, big.as_uri())):
            job = folder / "jobs" / f"{what}-{number}"
            fast = FastFiles(ObjectStore(config), config, job / "fast", BUFFER_BYTES, "docker")
            seat = JobFolder.of_one(job / "0")
            fast.find(_channel("FastFile", uri), {0: seat}, 1)
            fast.show()
            seconds = _read_in_container(seat.channel(_channel("FastFile")), f"{TIMED_READ}; {TIMED_READ}")
            fast.close()
            times[what].append(seconds[0])
            if what == S3:
                times[AGAIN].append(seconds[1])
    floor = median(times[CAT])
    rows = [
        [
            what,
            f"{SIZE_BYTES / median(seconds) / 1e9:.2f}",
            f"{SIZE_BYTES / max(seconds) / 1e9:.2f}",
            f"{floor / median(seconds):.2f}",
        ]
        for what, seconds in times.items()
    ]
    print_table(f"1 GiB read in a container, {ROUNDS} rounds", ["", "median GB/s", "slowest", "of cat's rate"], rows)


def _channel(mode: str, uri: str = "s3://bucket/big") -> ChannelSpec:
    return ChannelSpec("train", uri, input_mode=mode)


def _read_in_container(folder: Path, script: str) -> list[float]:
    """Run a script in a container that sees the folder; returns the seconds that it says."""
    engine = docker.from_env()
    said = engine.containers.run(
        BASE_IMAGE, ["sh", "-c", script], network_mode="none", volumes={str(folder): {"bind": "/data"}}, remove=True
    )
    engine.close()
    return [int(line) / 1e9 for line in said.split()]


if __name__ == "__main__":
    main()
