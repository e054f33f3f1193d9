"""FastFile mode: channels whose files are fetched as they are read, shown to containers by a process of their own.

That process (`fast_server.py`) shows all such channels of a machine in one filesystem, of which each container sees its
own part. It ends with this one, and takes along what it has mounted; where it is killed, its readers get errors and the
job hears why. Where no filesystem can be shown, whoever asks has the channels fetched before the containers start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from raymaker.actors.channels.file import find_work
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.contract import MOUNT_POINT, SEEN, JobFolder, is_sharded
from raymaker.actors.errors import StorageError, UnsupportedError
from raymaker.actors.mounting import bind, empty_tree, may_mount, read_ahead, unmount_below
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig

SERVER = "raymaker.actors.channels.fast_server"
FUSE = Path("/dev/fuse")
START_S = 60.0
END_S = 5.0
READ_AHEAD_BYTES = 8 * 1024 * 1024
"""How far the kernel reads ahead of whoever reads a file in order."""
LOG_TAIL_COUNT = 500
KEPT_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
}
"""Has the server's C library use the memory of earlier blocks again, instead of getting new pages for each."""


class CannotShow(Exception):
    """No filesystem can be shown here. The message says why."""


class FastFiles:
    """The FastFile channels of one machine's containers, in a folder that is theirs."""

    def __init__(self, store: ObjectStore, config: StoreConfig, folder: Path, buffer_bytes: int, driver: str) -> None:
        self._store = store
        self._config = config
        self._folder = folder
        self._buffer_bytes = buffer_bytes
        self._driver = driver
        self._files: list[dict[str, Any]] = []
        self._places: dict[Path, str] = {}
        self._server: subprocess.Popen[str] | None = None
        self._problem: str | None = None
        self._is_shown = False
        self._is_settled = threading.Event()
        """Whether it is known if they are shown."""

    @property
    def problem(self) -> str | None:
        """What could not be read, None where all could."""
        if self._problem is None and self._server is not None and self._server.poll() is not None:
            return f"the process that fetches files as they are read has ended: {self._last_words()}"
        return self._problem

    def find(self, channel: ChannelSpec, folders: Mapping[int, JobFolder], world_size: int) -> None:
        """Find what a channel consists of, for containers given by rank. Raises as `fetch_channel`."""
        if not is_sharded(channel):
            self._add(
                channel, f"/all/{channel.name}", Shard(0, 1), [folder.place(channel) for folder in folders.values()]
            )
            return
        for rank, folder in folders.items():
            self._add(channel, f"/shard-{rank}/{channel.name}", Shard(rank, world_size), [folder.place(channel)])

    def show(self) -> None:
        """Have the channels that were found seen in their places. Raises CannotShow."""
        if not may_mount(self._driver):
            raise CannotShow("the platform may not mount here, or the container engine would not see it")
        if not FUSE.exists():
            raise CannotShow(f"this machine has no {FUSE}")
        mount_point = self._folder / MOUNT_POINT
        empty_tree(self._folder)
        mount_point.mkdir()
        self._start(mount_point)
        read_ahead(mount_point, READ_AHEAD_BYTES)
        for place, path in self._places.items():
            empty_tree(place)
            (place / MOUNT_POINT).mkdir()
            bind(mount_point / path.lstrip("/"), place / MOUNT_POINT)

    def close(self) -> None:
        """Show them no longer, now that no container reads them. Closing twice does nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        for place in (*self._places, self._folder):
            unmount_below(place)
        assert server.stdin is not None
        with contextlib.suppress(OSError):
            server.stdin.close()
        try:
            server.wait(END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _add(self, channel: ChannelSpec, path: str, shard: Shard, places: Iterable[Path]) -> None:
        try:
            work = find_work(self._store, channel, shard)
        except (UnsupportedError, StorageError) as error:
            raise type(error)(f"channel {channel.name}: {error}") from error
        self._files += [
            {
                "path": f"{path}/{SEEN}/{target}",
                "uri": item.uri,
                "size_bytes": item.size_bytes,
                "modified_at": item.modified_at,
            }
            for item, target in work
        ]
        self._places |= dict.fromkeys(places, path)

    def _start(self, mount_point: Path) -> None:
        with (self._folder / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **KEPT_MEMORY},
            )
        assert server.stdin is not None
        assert server.stdout is not None
        self._server, self._problem, self._is_shown = server, None, False
        self._is_settled.clear()
        told = {
            "store": dataclasses.asdict(self._config),
            "buffer_bytes": self._buffer_bytes,
            "folders": [str(folder) for folder in (*self._places, self._folder)],
            "mount_point": str(mount_point),
            "files": self._files,
        }
        threading.Thread(target=self._listen, args=(server.stdout,), name="fast-file", daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            server.stdin.write(json.dumps(told) + "\n")
            server.stdin.flush()
        self._is_settled.wait(START_S)
        if not self._is_shown:
            reason = self._last_words()
            self.close()
            raise CannotShow(reason)

    def _listen(self, output: IO[str]) -> None:
        """Hear what the server says, until it has ended."""
        with output:
            for line in output:
                told = json.loads(line)
                if "ready" in told:
                    self._is_shown = True
                    self._is_settled.set()
                elif self._problem is None:
                    self._problem = told["problem"]
        self._is_settled.set()

    def _last_words(self) -> str:
        text = (self._folder / "log").read_text(errors="replace").strip()
        return " ".join(text[-LOG_TAIL_COUNT:].split()) or "it said nothing"
