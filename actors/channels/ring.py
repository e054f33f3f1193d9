"""Bytes of many objects, read ahead by several threads and handed over in order, in memory of a fixed size.

Knows no channels: it is given a plan, which says what comes after what, and gives back views of its buffers.
"""

from __future__ import annotations

import collections
import mmap
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from raymaker.actors.storage import ObjectStore, PinnedObject

LARGEST_SPAN_BYTES = 8 * 1024 * 1024
"""What one request asks for at most: large enough that the time to its first byte hardly counts."""
SMALLEST_SPAN_BYTES = 64 * 1024
BUFFERS_COUNT = 8
"""How many spans share the memory, unless that would make them larger than the largest."""
OVERHEAD_PART = 32
"""What part of the memory is left to the threads and connections that fill the buffers."""
MOST_THREADS_COUNT = 16
STEPS_PER_BUFFER = 8


@dataclass(frozen=True)
class Span:
    """`size_bytes` bytes of an object, from `start` on."""

    item: PinnedObject
    start: int
    size_bytes: int


Step = Span | bytes
"""What comes next: part of an object, or these bytes."""


def spans(item: PinnedObject, span_bytes: int) -> Iterator[Span]:
    """Cut an object into spans of `span_bytes`."""
    for start in range(0, item.size_bytes, span_bytes):
        yield Span(item, start, min(span_bytes, item.size_bytes - start))


class Buffers:
    """The memory of a stream: a few buffers of one size, each made when it is first needed."""

    def __init__(self, total_bytes: int) -> None:
        left_bytes = total_bytes - total_bytes // OVERHEAD_PART
        wanted_bytes = left_bytes // BUFFERS_COUNT // mmap.PAGESIZE * mmap.PAGESIZE
        self.span_bytes = max(SMALLEST_SPAN_BYTES, min(wanted_bytes, LARGEST_SPAN_BYTES))
        self.count = max(2, left_bytes // self.span_bytes)
        self._unmade_count = self.count
        self._free: list[mmap.mmap] = []
        self._changed = threading.Condition()

    def take(self, is_over: threading.Event) -> mmap.mmap | None:
        """Return a buffer once one is free; None where that is no longer wanted (`wake` after setting `is_over`)."""
        with self._changed:
            self._changed.wait_for(lambda: is_over.is_set() or self._free or self._unmade_count)
            if is_over.is_set():
                return None
            if self._free:
                return self._free.pop()
            self._unmade_count -= 1
        return mmap.mmap(-1, self.span_bytes)  # which costs nothing before it is written to

    def give(self, buffer: mmap.mmap) -> None:
        """Give a buffer back."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def wake(self) -> None:
        """Have those look up that wait for a buffer."""
        with self._changed:
            self._changed.notify_all()


class Ring:
    """Carries out one plan. It begins to read when it is made; one thread iterates over it, once, and closes it.

    A failure is raised where its bytes would have come, and no sooner.
    """

    def __init__(self, store: ObjectStore, plan: Iterator[Step], buffers: Buffers) -> None:
        self._store = store
        self._plan = plan
        self._buffers = buffers
        self._slots: collections.deque[_Slot] = collections.deque()
        self._slots_limit = STEPS_PER_BUFFER * buffers.count
        self._is_planned = False
        self._is_over = threading.Event()
        self._changed = threading.Condition()
        self._planning = threading.Lock()
        self._threads_left = min(buffers.count, MOST_THREADS_COUNT)
        self._is_flowing = False
        self._add_thread()

    def __iter__(self) -> Iterator[tuple[Step, memoryview]]:
        """Yield each step with some of its bytes, in order, until `abort`. A view is good until the next."""
        while (slot := self._front()) is not None:
            taken = 0
            while not (slot.is_settled and taken == slot.size_bytes):
                until = self._wait_for_more(slot, taken)
                if self._is_over.is_set():
                    return
                if until > taken:
                    with memoryview(slot.content) as content, content[taken:until] as view:
                        yield slot.step, view
                    self._flow()
                taken = until
            with self._changed:
                self._slots.popleft()
                self._changed.notify_all()
            self._give_back(slot)

    def abort(self) -> None:
        """Read no more, and end the iteration. Any thread may call it."""
        self._is_over.set()
        self._buffers.wake()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Abort, and let go of the buffers; a thread that waits for the store does so when that answers."""
        self.abort()
        with self._changed:
            left = [slot for slot in self._slots if slot.is_settled]
            self._slots.clear()
        for slot in left:
            self._give_back(slot)

    def _front(self) -> _Slot | None:
        """The next slot, None at the plan's end and once aborted."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._is_planned or self._is_over.is_set())
            return self._slots[0] if self._slots and not self._is_over.is_set() else None

    def _wait_for_more(self, slot: _Slot, taken: int) -> int:
        """Tell how far a slot is filled, once that is more, all, or aborted. Raises what kept it from being filled."""
        with self._changed:
            self._changed.wait_for(lambda: slot.filled > taken or slot.is_settled or self._is_over.is_set())
            if slot.filled == taken and slot.error is not None:
                raise slot.error
            return slot.filled

    def _flow(self) -> None:
        """Have other threads read too, now that the first bytes are on their way: until then they have it all."""
        with self._changed:
            is_first, self._is_flowing = not self._is_flowing, True
        if is_first:
            self._add_thread()

    def _add_thread(self) -> None:
        with self._changed:
            is_wanted = self._threads_left > 0
            self._threads_left -= is_wanted
        if is_wanted:
            threading.Thread(target=self._work, name="stream-reader", daemon=True).start()

    def _work(self) -> None:
        while (buffer := self._buffers.take(self._is_over)) is not None:
            with self._planning:
                slot = self._next_span(buffer)
                if slot is not None and self._is_flowing:
                    self._add_thread()
            if slot is None:
                self._buffers.give(buffer)
                return
            self._fill(slot)

    def _next_span(self, buffer: mmap.mmap) -> _Slot | None:
        """Go on in the plan up to a span, which gets the buffer; None where none comes any more."""
        while not self._is_planned:
            try:
                step = next(self._plan, None)
                slot = None if step is None else _Slot.of(step, buffer)
            except Exception as error:
                slot = _Slot(b"", b"", size_bytes=1, error=error, is_settled=True)
            with self._changed:
                self._changed.wait_for(lambda: len(self._slots) < self._slots_limit or self._is_over.is_set())
                if self._is_over.is_set():
                    return None
                self._is_planned = slot is None or slot.error is not None
                if slot is not None:
                    self._slots.append(slot)
                self._changed.notify_all()
            if slot is not None and slot.content is buffer:
                return slot
        return None

    def _fill(self, slot: _Slot) -> None:
        def tell(filled: int) -> None:
            with self._changed:
                slot.filled = filled
                if self._slots and self._slots[0] is slot:  # nobody waits for the others yet
                    self._changed.notify_all()

        error: Exception | None = None
        try:
            assert isinstance(slot.step, Span)
            with memoryview(slot.content) as content, content[: slot.size_bytes] as view:
                self._store.fill(slot.step.item, slot.step.start, view, tell, self._is_over.is_set)
        except Exception as caught:
            error = caught
        with self._changed:
            slot.error, slot.is_settled = error, True
            is_forgotten = slot not in self._slots
            self._changed.notify_all()
        self._flow()
        if is_forgotten:
            self._give_back(slot)

    def _give_back(self, slot: _Slot) -> None:
        if isinstance(slot.content, mmap.mmap):
            self._buffers.give(slot.content)


@dataclass(eq=False)
class _Slot:
    """A step under way: where its bytes are, and how many of them."""

    step: Step
    content: bytes | mmap.mmap
    size_bytes: int
    filled: int = 0
    error: Exception | None = None
    is_settled: bool = False
    """Whether no thread writes to it any more."""

    @classmethod
    def of(cls, step: Step, buffer: mmap.mmap) -> _Slot:
        """Begin a step; a span is read into the buffer."""
        if isinstance(step, bytes):
            return cls(step, step, len(step), filled=len(step), is_settled=True)
        return cls(step, buffer, step.size_bytes)
