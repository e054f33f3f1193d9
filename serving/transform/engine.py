"""Transforms objects through one container: reads ahead, keeps calls under way, writes answers in the records' order.

Memory is bounded whatever an object's size: so many payloads at once, and answers go to a file that is stored when it
is whole. Knows no jobs: `machine.py` does.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import io
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from raymaker.actors.channels.records import open_gunzipped
from raymaker.actors.errors import StorageError
from raymaker.actors.storage import ObjectStore
from raymaker.actors.store_errors import explain
from raymaker.serving.transform.calls import Caller, ContainerGone
from raymaker.serving.transform.errors import ObjectFailed
from raymaker.serving.transform.limits import Limits
from raymaker.serving.transform.plan import Task
from raymaker.serving.transform.processing import Processor
from raymaker.serving.transform.reports import Finished
from raymaker.serving.transform.spec import HELD_MIB, MIB, TransformInput
from raymaker.serving.transform.splitting import Piece, split
from raymaker.serving.transform.streaming import Streamer
from raymaker.serving.transform.tally import Tally

READ_AHEAD = 2
"""Payloads in hand for each one under way: while one is scored, another is read or waits for its turn to be written."""
STORED_AT_ONCE = 4
"""Objects in hand beside those whose payloads are: they are being stored, which takes long for small ones."""
MOST_OBJECTS = 16
"""Objects in hand at once: each that is read has a buffer of several MiB."""
BATCH_BYTES, BATCH_COUNT = 256 * 1024, 64
"""Small pieces are read so many at a time, since each visit to a thread costs as much as a small call."""


class Engine:
    """Runs one machine's tasks. `folder` takes what is not whole yet; `tally` hears of everything."""

    def __init__(
        self,
        store: ObjectStore,
        caller: Caller,
        *,
        source: TransformInput,
        limits: Limits,
        processor: Processor,
        folder: Path,
        tally: Tally,
    ) -> None:
        self._store = store
        self._caller = caller
        self._input = source
        self._limits = limits
        self._processor = processor
        self._folder = folder
        self._tally = tally
        self._in_hand = asyncio.Semaphore(READ_AHEAD * limits.max_concurrency)
        self._streams = (
            limits.max_payload_bytes is None
            and processor.is_idle
            and (source.split_type == "None" or limits.strategy == "MultiRecord")
        )

    async def run(self, tasks: Sequence[Task]) -> None:
        """Transform every object; one that fails is told to the tally. Raises ContainerGone."""
        worker_count = min(READ_AHEAD * self._limits.max_concurrency + STORED_AT_ONCE, MOST_OBJECTS, len(tasks))
        left = iter(enumerate(tasks))
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as workers:
                streamer = await stack.enter_async_context(Streamer(self._caller)) if self._streams else None
                for _ in range(worker_count):
                    workers.create_task(self._work(left, streamer))
        except* ContainerGone as gone:
            raise gone.exceptions[0] from None

    async def _work(self, left: Iterator[tuple[int, Task]], streamer: Streamer | None) -> None:
        for number, task in left:
            spool = self._folder / f"{number}.out"
            done = Finished(task.name)
            try:
                with spool.open("w+b") as output:
                    if streamer is not None:
                        done = await self._stream(task, output, streamer)
                    else:
                        done = await self._transform(task, output)
                await asyncio.to_thread(self._store.upload, spool, task.output_uri)
            except (ObjectFailed, StorageError) as error:
                done = Finished(task.name, failure=str(error))
            except OSError as error:
                done = Finished(task.name, failure=str(explain(error, "write", str(spool))))
            finally:
                spool.unlink(missing_ok=True)
            self._tally.finish(done)

    async def _stream(self, task: Task, output: IO[bytes], streamer: Streamer) -> Finished:
        sent_bytes = await streamer.stream(lambda: self._open(task), output)
        if self._processor.ends_lines and not _ends_line(output):
            output.write(b"\n")
        return Finished(task.name, 1, sent_bytes, output.tell())

    async def _transform(self, task: Task, output: IO[bytes]) -> Finished:
        """Write the answers to an object's pieces in their order."""
        done = Finished(task.name)
        async with contextlib.aclosing(self._answers(task)) as answers:
            async for piece, answer in answers:
                output.write(answer)
                done = Finished(
                    task.name,
                    done.record_count + piece.count,
                    done.input_bytes + len(piece.data),
                    done.output_bytes + len(answer),
                )
                self._tally.advance(done)
        return done

    async def _answers(self, task: Task) -> AsyncGenerator[tuple[Piece, bytes]]:
        """Yield an object's pieces with their answers, in order, while calls for later ones are under way.

        A piece is in hand from its call to the moment when its answer is taken. Where no more may be, the oldest of
        this object's own is waited for, so that objects never wait for each other in a circle.
        """
        calls: collections.deque[tuple[Piece, asyncio.Task[bytes]]] = collections.deque()
        try:
            async with contextlib.aclosing(self._read(task)) as pieces:
                async for piece in pieces:
                    while calls and (self._in_hand.locked() or calls[0][1].done()):
                        yield calls[0][0], await calls[0][1]
                        calls.popleft()
                        self._in_hand.release()
                    await self._in_hand.acquire()
                    calls.append((piece, asyncio.create_task(self._score(piece))))
            while calls:
                yield calls[0][0], await calls[0][1]
                calls.popleft()
                self._in_hand.release()
        finally:
            for _, call in calls:
                call.cancel()
                self._in_hand.release()
            await asyncio.gather(*(call for _, call in calls), return_exceptions=True)

    async def _score(self, piece: Piece) -> bytes:
        """Have one piece scored. Raises ObjectFailed that names its records."""
        try:
            answer = await self._caller.send(self._processor.request(piece.data))
            return self._processor.output(piece.data, answer)
        except ObjectFailed as error:
            raise type(error)(f"{piece.name}: {error}") from error

    async def _read(self, task: Task) -> AsyncGenerator[Piece]:
        """Read an object's pieces in a thread, several small ones at a time."""
        pieces = self._pieces(task)
        reading: asyncio.Future[tuple[list[Piece], bool]] | None = None
        is_end = False
        try:
            while not is_end:
                reading = asyncio.ensure_future(asyncio.to_thread(_take, pieces))
                batch, is_end = await asyncio.shield(reading)
                for piece in batch:
                    yield piece
        finally:
            if reading is not None and not is_end:
                await asyncio.wait([reading])  # a thread that reads cannot be interrupted
                await asyncio.to_thread(pieces.close)

    def _pieces(self, task: Task) -> Generator[Piece]:
        limit_bytes = self._limits.max_payload_bytes or HELD_MIB * MIB
        with self._open(task) as source:
            yield from split(source, self._input.split_type, self._limits.strategy, limit_bytes)

    def _open(self, task: Task) -> AbstractContextManager[IO[bytes]]:
        if self._input.compression == "Gzip":
            return open_gunzipped(self._store, task.uri)
        return self._store.open_read(task.uri)


def _ends_line(output: IO[bytes]) -> bool:
    """Tell whether the last byte is a newline, and stay at the end."""
    if output.tell() == 0:
        return False
    output.seek(-1, io.SEEK_END)
    return output.read(1) == b"\n"


def _take(pieces: Iterator[Piece]) -> tuple[list[Piece], bool]:
    """Take a few pieces, and tell whether they were the last."""
    batch: list[Piece] = []
    size_bytes = 0
    while len(batch) < BATCH_COUNT and size_bytes < BATCH_BYTES:
        if (piece := next(pieces, None)) is None:
            return batch, True
        batch.append(piece)
        size_bytes += len(piece.data)
    return batch, False
