"""Streamed channels as a container sees them: their pipes, read to the end, early left, or never opened."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path

from raymaker.actors.channels.stream import Streams
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore

TIMEOUT_S = 60.0
LOOK_S = 0.01
BUFFER_BYTES = 1024 * 1024
PIECE_BYTES = 1024 * 1024


class DistantStore(ObjectStore):
    """A store whose files are read as if they were elsewhere."""

    def local_path(self, uri: str) -> str | None:
        return None


@dataclass
class Container:
    """A folder that a container would see as /opt/ml/input/data."""

    folder: Path

    def begin(self, name: str) -> Future[bytes]:
        """Read a pipe to its end, in a thread."""
        found: Future[bytes] = Future()

        def read() -> None:
            try:
                with (self.folder / name).open("rb") as pipe:
                    found.set_result(pipe.read())
            except BaseException as error:
                found.set_exception(error)

        threading.Thread(target=read, daemon=True).start()
        return found

    def read(self, name: str) -> bytes:
        """Read a pipe to its end."""
        return self.begin(name).result(TIMEOUT_S)

    def taste(self, name: str, count: int) -> bytes:
        """Read the beginning of a pipe, and leave."""
        with (self.folder / name).open("rb", buffering=0) as pipe:
            return read_exactly(pipe, count)

    def pipes(self) -> list[str]:
        """The pipes that are there."""
        return sorted(path.name for path in self.folder.iterdir())


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that will be so soon, without sleeping."""
    waiting = threading.Event()
    for _ in range(int(TIMEOUT_S / LOOK_S)):
        if condition():
            return
        waiting.wait(LOOK_S)
    raise AssertionError(f"did not happen: {what}")


def read_exactly(pipe: RawIOBase, count: int) -> bytes:
    """Read so many bytes and no more, however they come."""
    found = b""
    while len(found) < count and (piece := pipe.read(count - len(found))):
        found += piece
    return found


@dataclass
class Machine:
    """The streams of a machine's containers, and what they told."""

    streams: Streams
    containers: list[Container]
    notes: list[tuple[str, str]] = field(default_factory=list)

    def until_problem(self) -> str:
        """Wait until a stream is broken, and return why."""
        until(lambda: self.streams.problem is not None, "a stream breaks")
        return str(self.streams.problem)


def until_broken(machine: Machine, pipe: RawIOBase) -> str:
    """Read on until the stream breaks, which must not look like the end of the data."""
    reading = threading.Thread(target=lambda: [None for _ in iter(lambda: pipe.read(PIECE_BYTES), b"")], daemon=True)
    reading.start()
    said = machine.until_problem()
    assert reading.is_alive()
    machine.streams.close()
    reading.join()
    return said


@contextlib.contextmanager
def streaming(
    store: ObjectStore,
    folder: Path,
    *channels: ChannelSpec,
    ranks: range = range(1),
    world_size: int = 1,
    buffer_bytes: int = BUFFER_BYTES,
) -> Iterator[Machine]:
    """Stream channels to containers with these ranks, whose folders lie in `folder`."""
    notes: list[tuple[str, str]] = []
    places = {rank: folder / f"container-{rank}" for rank in ranks}
    for place in places.values():
        place.mkdir(parents=True)
    streams = Streams(store, folder, buffer_bytes, lambda kind, message: notes.append((kind, message)))
    try:
        for channel in channels:
            streams.find(channel, places, world_size)
        streams.start()
        yield Machine(streams, [Container(place) for place in places.values()], notes)
    finally:
        streams.close()
