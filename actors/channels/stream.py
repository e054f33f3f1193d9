"""Streamed channels: what comes through pipes while the containers run, pass after pass, as long as they ask for it.

Each container has pipes of its own, `/opt/ml/input/data/<channel>_<pass>`, as SageMaker's Pipe mode has them. What a
pass holds is in `entries.py`, how it is read in `delivery.py`. A stream that breaks never ends its pass: a reader would
take that for the end of the data. It says why, and whoever runs the containers ends them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from raymaker.actors.channels.delivery import Form, Pins, deliver, hand_over, plan
from raymaker.actors.channels.entries import Passes, Source, find_entries
from raymaker.actors.channels.fifo import Aborted, Pipes, PipeWriter, ReaderLeft
from raymaker.actors.channels.ring import Buffers, Ring
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.errors import WorkError
from raymaker.actors.spec import ChannelSpec, host_name
from raymaker.actors.storage import ObjectStore

logger = logging.getLogger(__name__)

JOIN_S = 10.0


class Stream:
    """One channel of one container. `problem` says why it cannot go on, None where it can."""

    def __init__(
        self,
        store: ObjectStore,
        channel: ChannelSpec,
        passes: Passes,
        pins: Pins,
        *,
        folder: Path,
        scratch: Path,
        buffer_bytes: int,
    ) -> None:
        self._store = store
        self._channel = channel
        self._passes = passes
        self._pins = pins
        self._form = Form.of(channel)
        self._scratch = scratch
        self._buffers = Buffers(buffer_bytes)
        self._pipes = Pipes(folder, channel.name)
        self._pipes.make(0)
        self._ring: Ring | None = None
        self._pipe: PipeWriter | None = None
        self._past_bytes = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"stream-{channel.name}", daemon=True)
        self.problem: str | None = None
        self.pass_count = 0
        """How many passes a reader has begun."""

    @property
    def delivered_bytes(self) -> int:
        """What the container has had so far."""
        pipe = self._pipe
        return self._past_bytes + (pipe.written_bytes if pipe is not None else 0)

    def start(self) -> None:
        """Begin to read ahead, and wait for the first reader."""
        self._thread.start()

    def abort(self) -> None:
        """Deliver no more. A pass under way does not end before `close`."""
        self._pipes.abort()
        if (ring := self._ring) is not None:
            ring.abort()

    def close(self) -> None:
        """Let go of the pipes, now that no container reads from them."""
        self.abort()
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        if self._thread.is_alive():
            logger.error("the stream of channel %s did not come to its end, and keeps its pipes", self._channel.name)
        elif not self._is_closed:
            self._is_closed = True
            self._end_pass(is_whole=False)
            self._pipes.close()

    def _run(self) -> None:
        try:
            for epoch in itertools.count():
                self._pipes.make(epoch + 1)  # so that whoever has come to the end of this one finds the next
                self._deliver(epoch)
                self._pipes.remove(epoch)
        except Aborted:
            return
        except WorkError as error:
            self.problem = f"channel {self._channel.name}: {error}"
        except Exception as error:
            logger.exception("streaming %s failed", self._channel.name)
            self.problem = f"channel {self._channel.name} could not be streamed: {error!r}"

    def _deliver(self, epoch: int) -> None:
        """Go through one pass, once a reader comes for it, until it has all or leaves."""
        with self._reading(epoch) as ring:
            self._pipe = pipe = self._pipes.open(epoch)
            self.pass_count += 1
            is_whole = False
            with contextlib.suppress(ReaderLeft):
                if ring is None:
                    sources = (record for record in self._passes.records(epoch) if isinstance(record, Source))
                    hand_over(self._store, sources, self._pins, self._form, pipe)
                else:
                    deliver(ring, self._form, self._scratch, pipe)
                is_whole = True
        if self._pipes.is_over.is_set():
            raise Aborted
        self._end_pass(is_whole=is_whole)

    @contextlib.contextmanager
    def _reading(self, epoch: int) -> Iterator[Ring | None]:
        """Read a pass ahead; files of this machine need none of that."""
        if self._passes.are_files and not self._form.is_packed:
            yield None
            return
        steps = plan(self._passes.records(epoch), self._pins, self._form, self._buffers.span_bytes)
        self._ring = ring = Ring(self._store, steps, self._buffers)
        try:
            yield ring
        finally:
            ring.close()

    def _end_pass(self, *, is_whole: bool) -> None:
        """Let the reader find the end of the data, and count what it has had, or will have where it has not left."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            self._past_bytes += pipe.written_bytes - (0 if is_whole else pipe.unread_bytes())
            pipe.close()


class Streams:
    """The streamed channels of one machine's containers. `note` hears the kind and the message of events of the job.

    `buffer_bytes` is the memory that one channel's streams share, however large its objects and many the containers.
    """

    def __init__(self, store: ObjectStore, scratch: Path, buffer_bytes: int, note: Callable[[str, str], None]) -> None:
        self._store = store
        self._scratch = scratch
        self._buffer_bytes = buffer_bytes
        self._note = note
        self._streams: dict[str, dict[int, Stream]] = {}
        self._started_at: float | None = None

    def open(self, channel: ChannelSpec, folders: Mapping[int, Path], world_size: int) -> None:
        """Find what a channel consists of, and have its first pipe be there for each container, given by its rank.

        Raises UnsupportedError where there is less to share than containers, ObjectNotFound where there is nothing at
        all, StorageError. Each names the channel.
        """
        try:
            entries, pins = find_entries(self._store, channel), Pins(self._store)
            if not any(entries.sizes.values()):
                self._note("ChannelEmpty", f"Channel {channel.name}: no object at {channel.uri} holds a single byte")
            buffer_bytes = self._buffer_bytes // len(folders)
            self._streams[channel.name] = {
                rank: Stream(
                    self._store,
                    channel,
                    Passes(entries, channel, Shard(rank, world_size)),
                    pins,
                    folder=folder,
                    scratch=self._scratch,
                    buffer_bytes=buffer_bytes,
                )
                for rank, folder in folders.items()
            }
        except WorkError as error:
            raise type(error)(f"channel {channel.name}: {error}") from error

    def start(self) -> None:
        """Begin to stream."""
        self._started_at = time.monotonic()
        for stream in self._all():
            stream.start()

    @property
    def problem(self) -> str | None:
        """Why a container cannot have its data, None where all can."""
        return next((stream.problem for stream in self._all() if stream.problem is not None), None)

    def delivered_bytes(self) -> dict[str, int]:
        """What the containers have had so far, by channel."""
        return {
            name: sum(stream.delivered_bytes for stream in streams.values()) for name, streams in self._streams.items()
        }

    def pass_counts(self) -> dict[str, int]:
        """How many passes the container has begun that is furthest, by channel."""
        return {name: max(stream.pass_count for stream in streams.values()) for name, streams in self._streams.items()}

    def close(self) -> None:
        """Stop streaming, once no container runs any more, and tell what each has had. Closing twice does nothing."""
        for stream in self._all():
            stream.abort()
        for stream in self._all():
            stream.close()
        for name, streams in self._streams.items() if self._started_at is not None else ():
            had = ", ".join(
                f"{host_name(rank)} {stream.delivered_bytes} bytes in {stream.pass_count} passes"
                for rank, stream in streams.items()
            )
            self._note("ChannelStreamed", f"Channel {name}: {had}")
        self._started_at = None

    def _all(self) -> Iterator[Stream]:
        return (stream for streams in self._streams.values() for stream in streams.values())
