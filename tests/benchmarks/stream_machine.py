"""What bench_stream.py runs in processes of their own: a machine that streams, and the rival that reads by itself.

Told what to do as lines of JSON on standard input; each is answered by one line.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from raymaker.actors.channels.stream import Streams
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig

KEYS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}
PIECE_BYTES = 512 * 1024
MOST_THREADS = 32


def main() -> None:
    told = json.loads(sys.argv[1])
    actor = Machine(**told["machine"]) if "machine" in told else Rival(**told["rival"])
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(actor, command.pop("do"))(**command)), flush=True)


class Machine:
    """Streams channels into a folder."""

    def __init__(self, folder: str, buffer_bytes: int, endpoint_url: str) -> None:
        self._folder = Path(folder)
        self._buffer_bytes = buffer_bytes
        self._store = ObjectStore(StoreConfig(endpoint_url, "bench", "bench", "us-east-1"))
        self._streams: list[Streams] = []

    def start(self, channel: str, uri: str, mode: str = "Pipe") -> float:
        """Begin to stream; returns when that was, on the system's monotonic clock."""
        streams = Streams(self._store, self._folder, self._buffer_bytes, lambda _kind, _message: None)
        streams.find(ChannelSpec(channel, uri, input_mode=mode), {0: self._folder}, 1)
        self._streams.append(streams)
        began = time.monotonic()
        streams.start()
        return began

    def stop(self) -> None:
        """End all streams. Raises where one has broken."""
        for streams in self._streams:
            streams.close()
            if streams.problem is not None:
                raise RuntimeError(streams.problem)
        self._streams = []
        gc.collect()

    def memory(self) -> tuple[int, int]:
        """The resident memory now and at most since the last time, in bytes."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        Path("/proc/self/clear_refs").write_text("5")
        return tuple(int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


class Rival:
    """Reads an object of S3 into memory by ranges at once, as well as boto3 can."""

    def __init__(self, endpoint_url: str, bucket: str, key: str) -> None:
        config = Config(
            s3={"addressing_style": "path"},
            max_pool_connections=MOST_THREADS,
            response_checksum_validation="when_required",
        )
        self._client = boto3.client("s3", endpoint_url=endpoint_url, config=config, **KEYS)
        self._place: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._size = self._client.head_object(**self._place)["ContentLength"]
        self._content = bytearray(self._size)  # made once: what it costs to get the pages is nobody's reading

    def read(self, threads: int, part_bytes: int) -> float:
        """Read all of it; returns the seconds."""
        began = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda start: self._read_part(start, part_bytes), range(0, self._size, part_bytes)))
        return time.monotonic() - began

    def first_byte(self) -> float:
        """Seconds to the first byte of one GET."""
        began = time.monotonic()
        body = self._client.get_object(**self._place)["Body"]
        body.read(1)
        passed = time.monotonic() - began
        body.close()
        return passed

    def _read_part(self, start: int, part_bytes: int) -> None:
        stop = min(start + part_bytes, self._size)
        body = self._client.get_object(**self._place, Range=f"bytes={start}-{stop - 1}")["Body"]
        with memoryview(self._content) as view:
            while start < stop:
                start += body.readinto(view[start : min(stop, start + PIECE_BYTES)])


if __name__ == "__main__":
    main()
