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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raymaker.actors.channels.delivery import Form, Pins, deliver, hand_over, plan
from raymaker.actors.channels.entries import Entries, Passes, Record, Source, find_entries
from raymaker.actors.channels.fifo import Aborted, Pipes, PipeWriter, ReaderLeft
from raymaker.actors.channels.ring import Buffers, Ring, Step, spans
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.errors import UnsupportedError, WorkError
from raymaker.actors.spec import ChannelSpec, host_name
from raymaker.actors.storage import ObjectStore, PinnedObject

if TYPE_CHECKING:
    from raymaker.actors.channels.tables import Tables

logger = logging.getLogger(__name__)

JOIN_S = 10.0


@dataclass
class _Pass:
    """A pass that is to be delivered: what writes it, and what is read ahead of that."""

    write: Callable[[PipeWriter], None]
    ring: Ring | None = None

    def close(self) -> None:
        """Read no more ahead. Closing twice does nothing."""
        if self.ring is not None:
            self.ring.close()


class Stream:
    """One channel of one container. `problem` says why it cannot go on, None where it can."""

    def __init__(
        self,
        store: ObjectStore,
        channel: ChannelSpec,
        passes: Passes,
        pins: Pins,
        *,
        tables: Tables | None,
        folder: Path,
        scratch: Path,
        buffer_bytes: int,
    ) -> None:
        self._store = store
        self._channel = channel
        self._passes = passes
        self._pins = pins
        self._tables = tables
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
        self._first: _Pass | None = None
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
        self._first = self._prepare(0)
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
                ahead, self._first = self._first or self._prepare(epoch), None
                with contextlib.closing(ahead):
                    self._pipes.make(epoch + 1)  # so that whoever has come to the end of this one finds the next
                    self._deliver(epoch, ahead)
                self._pipes.remove(epoch)
        except Aborted:
            return
        except WorkError as error:
            self.problem = f"channel {self._channel.name}: {error}"
        except Exception as error:
            logger.exception("streaming %s failed", self._channel.name)
            self.problem = f"channel {self._channel.name} could not be streamed: {error!r}"

    def _deliver(self, epoch: int, ahead: _Pass) -> None:
        """Go through one pass, once a reader comes for it, until it has all or leaves."""
        self._pipe = pipe = self._pipes.open(epoch)
        self.pass_count += 1
        is_whole = False
        with contextlib.suppress(ReaderLeft):
            ahead.write(pipe)
            is_whole = True
        ahead.close()
        if self._pipes.is_over.is_set():
            raise Aborted
        self._end_pass(is_whole=is_whole)

    def _prepare(self, epoch: int) -> _Pass:
        """Begin what can begin before a reader comes."""
        records = self._passes.records(epoch)
        if self._tables is not None:
            return _Pass(partial(self._write_records, self._tables, epoch))
        if self._passes.are_files and not self._form.is_packed:
            return _Pass(partial(hand_over, self._store, _sources(records), self._pins, self._form))
        ring = self._read_ahead(plan(records, self._pins, self._form, self._buffers.span_bytes))
        return _Pass(partial(deliver, ring, self._form, self._scratch), ring)

    def _write_records(self, tables: Tables, epoch: int, pipe: PipeWriter) -> None:
        from raymaker.actors.channels.tables import Share, write_stream

        def read_ahead(item: PinnedObject) -> Ring:
            return self._read_ahead(spans(item, self._buffers.span_bytes))

        share = Share(self._channel.arrow, self._passes.record_shard, self._passes.shuffling(epoch))
        with contextlib.closing(tables.batches(_sources(self._passes.records(epoch)), read_ahead)) as batches:
            write_stream(batches, tables.schema, share, pipe)

    def _read_ahead(self, steps: Iterator[Step]) -> Ring:
        self._ring = ring = Ring(self._store, steps, self._buffers)
        if self._pipes.is_over.is_set():
            ring.abort()
        return ring

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
        self._found: dict[str, dict[int, Callable[[], Stream]]] = {}
        self._streams: Mapping[str, Mapping[int, Stream]] = {}
        self._is_open = False

    def find(self, channel: ChannelSpec, folders: Mapping[int, Path], world_size: int) -> None:
        """Find what a channel consists of, to stream it to containers, given by rank and the folder of their pipes.

        Raises UnsupportedError where there is less to share than containers, ObjectNotFound where there is nothing at
        all, StorageError. Each names the channel.
        """
        try:
            entries, pins = find_entries(self._store, channel), Pins(self._store)
            tables = self._find_tables(channel, entries, pins) if channel.input_mode == "Arrow" else None
            first = _first_of_some_size(entries)
            if first is None:
                self._note("ChannelEmpty", f"Channel {channel.name}: no object at {channel.uri} holds a single byte")
            elif tables is None and not entries.are_files:
                self._read_first_byte(entries.records(first), pins)
            buffer_bytes = self._buffer_bytes // len(folders)
            self._found[channel.name] = {
                rank: partial(
                    Stream,
                    self._store,
                    channel,
                    Passes(entries, channel, Shard(rank, world_size)),
                    pins,
                    tables=tables,
                    folder=folder,
                    scratch=self._scratch,
                    buffer_bytes=buffer_bytes,
                )
                for rank, folder in folders.items()
            }
        except WorkError as error:
            raise type(error)(f"channel {channel.name}: {error}") from error

    def start(self) -> None:
        """Begin to stream from pass 0 on, also anew once it was closed; the first pipes are there when it returns."""
        self._is_open = True
        self._streams = {
            name: {rank: make() for rank, make in streams.items()} for name, streams in self._found.items()
        }
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
        for name, streams in self._streams.items() if self._is_open else ():
            had = ", ".join(
                f"{host_name(rank)} {stream.delivered_bytes} bytes in {stream.pass_count} passes"
                for rank, stream in streams.items()
            )
            self._note("ChannelStreamed", f"Channel {name}: {had}")
        self._is_open = False

    def _read_first_byte(self, records: Sequence[Record], pins: Pins) -> None:
        """See that the store gives out what it lists. What reading takes, connections too, is there from then on."""
        source = next(_sources(records), None)
        if source is not None and (item := pins.find(source)).size_bytes:
            self._store.fill(item, 0, memoryview(bytearray(1)), lambda _: None)

    def _find_tables(self, channel: ChannelSpec, entries: Entries, pins: Pins) -> Tables:
        """Look at the first object that is not empty: the others are to be like it."""
        from raymaker.actors.channels.tables import Tables  # pyarrow.dataset takes long to load

        index = _first_of_some_size(entries)
        if index is None:
            raise UnsupportedError(
                f"no object at {channel.uri} holds a single byte, so that nothing says what it is of"
            )

        def read_ahead(item: PinnedObject) -> Ring:
            buffers = Buffers(self._buffer_bytes)
            return Ring(self._store, spans(item, buffers.span_bytes), buffers)

        (first,) = _sources(entries.records(index))
        return Tables(self._store, channel, pins, first, read_ahead)

    def _all(self) -> Iterator[Stream]:
        return (stream for streams in self._streams.values() for stream in streams.values())


def _first_of_some_size(entries: Entries) -> int | None:
    return next((index for index, size_bytes in enumerate(entries.sizes.values()) if size_bytes), None)


def _sources(records: Iterable[Record]) -> Iterator[Source]:
    return (record for record in records if isinstance(record, Source))
