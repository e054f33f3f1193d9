"""The shared-memory arena: its layout, and how processes of one machine wait for each other in it.

The hub makes it, the ranks map it. What ranks do with it is collectives.py's.

Nobody ever takes a lock in the arena, so a process may die at any instruction and leave nothing held. Every word has
one writer. A rank writes data first and then *publishes* a step, a counter in a cache line of its own; whoever needs
the data waits for the step. Steps are 32 bits wide and wrap around: two ranks are never more than a few apart.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable

MIB = 1024 * 1024
MAGIC = b"raymaker"
VERSION = 1
LEADER = -1
"""Stands where a local rank stands for the thread in the hub that follows the ranks (leader.py)."""
FIRST_STEP = 0xFFFFFFC0
"""Steps begin short of their wrap-around, so that every job passes it early and not one in a million."""
SMALL_BYTES = 128 * 1024
"""Up to here every rank reads what every other wrote: more work than slices of it, but one wait instead of two."""
JOINED, LEFT = 1, 2
"""What a rank's state word says; 0 before it has joined."""
LOST, MISMATCH, STALLED, FULL = 1, 2, 3, 4
"""Why an exchange failed, as its failure word says it; 0 while it has not. The hub has the words."""

_PAGE_BYTES = 4096
_HEADER = struct.Struct("<8sIIIIQQQQ")
_FAILURE_WORD, _LEADER_WORD = 128 // 4, 256 // 4
_RANK_BYTES, _STATE_OFFSET, _CALLS_OFFSET, _CALL_BYTES = 512, 64, 128, 64
_MASK, _HALF = 0xFFFFFFFF, 0x80000000

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(platform.machine())
_WAIT, _WAKE, _EVERYONE = 0, 1, 0x7FFFFFFF
_POINTER_BYTES = 8
"""Of the processes whose calls have these numbers: a 32-bit one has others, on the same machine."""
_NAP_S = 0.25
"""How long a sleeper sleeps at most before it looks up: it misses what comes between its look and its sleep."""
_STORES_STAY_IN_ORDER = platform.machine() == "x86_64"


class Plan:
    """How a long array passes through the arena, chunk by chunk; the same at every rank, from the arena's header.

    A rank fills its slot `look_ahead` chunks before they are combined and reads what was combined `lag` chunks later,
    so that it waits only for a neighbour that is more than `slack` chunks behind. That takes `slot_count` places.
    """

    def __init__(self, chunk_bytes: int, look_ahead: int, lag: int) -> None:
        self.chunk_bytes, self.look_ahead, self.lag = chunk_bytes, look_ahead, lag
        self.slack = look_ahead - 1
        self.slot_count = look_ahead + lag

    @classmethod
    def choose(cls, local_ranks: int, machine_count: int) -> Plan:
        """Chunks that stay in a core's cache; where a network stands between, chunks that are worth a message."""
        if machine_count > 1:
            return cls(16 * MIB, look_ahead=1, lag=2)
        return cls(256 * 1024 * min(max(2, local_ranks), 8), look_ahead=2, lag=2)


class Arena:
    """One tmpfs file, mapped by the hub and by every rank of a machine.

    Its parts: a header; words and call descriptions of each rank; two small buffers for each rank; a slot (a ring of
    chunks) for each rank; one ring of results; room for arrays that ranks allocate. Pages are taken as they are used.
    """

    def __init__(self, descriptor: int) -> None:
        """Map an open file, which is the arena's from here on."""
        if _FUTEX is None or struct.calcsize("P") != _POINTER_BYTES:
            raise OSError(errno.ENOSYS, f"the arena knows no futex call on {platform.machine()}")
        self._descriptor = descriptor
        self.mapped = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self.view = memoryview(self.mapped)
        numbers: tuple[int, ...] = _HEADER.unpack_from(self.view)[2:]
        self.local_ranks, look_ahead, lag, chunk_bytes, self.small_bytes, self.room_bytes, _ = numbers
        self.plan = Plan(chunk_bytes, look_ahead, lag)
        self.words = self.view[: _PAGE_BYTES + self.local_ranks * _RANK_BYTES].cast("I")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.view))
        sizes = _part_bytes(self.local_ranks, self.plan, self.small_bytes)
        self._small_start = sizes[0]
        self._slots_start = self._small_start + sizes[1]
        self._ring_start = self._slots_start + sizes[2]
        self.room_start = self._ring_start + sizes[3]
        self._futex = _load_futex()
        if self._call_futex(_FAILURE_WORD, _WAKE, 0) < 0:
            raise OSError(ctypes.get_errno(), "the futex system call is refused here")

    @classmethod
    def create(cls, path: str | os.PathLike[str], room_bytes: int, local_ranks: int, machine_count: int = 1) -> Arena:
        """Make the file, mode 0666, with room for `room_bytes` of allocated arrays (all ranks' together).

        The fixed parts come on top of the room. Raises OSError, FileExistsError among them.
        """
        plan, room_bytes = Plan.choose(local_ranks, machine_count), _up_to_page(room_bytes)
        total = sum(_part_bytes(local_ranks, plan, SMALL_BYTES)) + room_bytes
        numbers = (plan.look_ahead, plan.lag, plan.chunk_bytes, SMALL_BYTES, room_bytes, total)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o666)  # whatever the umask: containers may run as anyone
        os.ftruncate(descriptor, total)
        os.posix_fallocate(descriptor, 0, _part_bytes(local_ranks, plan, SMALL_BYTES)[0])
        os.pwrite(descriptor, _HEADER.pack(MAGIC, VERSION, local_ranks, *numbers), 0)
        arena = cls(descriptor)
        for who in range(LEADER, local_ranks):
            arena.words[_step_word(who)] = FIRST_STEP
        return arena

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Arena:
        """Map an arena that a hub has made. Raises OSError; ValueError where the file is none, or another version's."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        is_one = os.pread(descriptor, 12, 0) == MAGIC + struct.pack("<I", VERSION)
        if is_one:
            return cls(descriptor)
        os.close(descriptor)
        raise ValueError(f"{os.fspath(path)} is not an arena of version {VERSION}")

    def fail(self, reason: int = LOST) -> None:
        """Say that no rank can go on (the first reason stays) and wake everyone who waits."""
        self.mark_failed(reason)
        for who in range(LEADER, self.local_ranks):
            self.wake(who)

    def mark_failed(self, reason: int) -> None:
        """Say that no rank can go on, before the hub has heard why: the first reason stays. Wakes nobody."""
        if not self.words[_FAILURE_WORD]:
            self.words[_FAILURE_WORD] = reason

    @property
    def failure(self) -> int:
        """Why the exchange failed; 0 while it has not."""
        return self.words[_FAILURE_WORD]

    def close(self) -> None:
        """Unmap it. Arrays that live in it keep it mapped until they are gone. Closing twice does nothing."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        self.words.release()
        try:
            self.view.release()
            self.mapped.close()
        except BufferError:  # somebody holds an array of ours: its last reference unmaps
            pass

    # -- steps

    def publish(self, who: int, step: int) -> None:
        """Let everyone see that local rank `who` (or LEADER) has come to `step`, and all that it wrote before."""
        word = _step_word(who)
        if not _STORES_STAY_IN_ORDER:
            self._call_futex(word, _WAKE, 0)  # for the full barrier in it: Python has none
        self.words[word] = step & _MASK
        # The kernel is always asked whether someone sleeps: it looks behind a full barrier. A flag of ours could not.
        self._call_futex(word, _WAKE, _EVERYONE)

    def step(self, who: int) -> int:
        """How far local rank `who` (or LEADER) has come."""
        return self.words[_step_word(who)]

    def reached(self, who: int, step: int) -> bool:
        """Tell whether local rank `who` (or LEADER) has come to `step`."""
        return not (self.words[_step_word(who)] - step) & _HALF

    def wait(self, who: int, step: int, look: Callable[[], object], spin_count: int = 0, yield_every: int = 1) -> bool:
        """Return when local rank `who` (or LEADER) has come to `step`; False if that took a sleep.

        Before a sleep it looks `spin_count` times, and each `yield_every` of them lets others have this core: the one
        who is waited for may be waiting for it. `look` is called after each sleep that ends without the step, at least
        four times a second, and raises what it sees.
        """
        words, word = self.words, _step_word(who)
        for turn in range(1, spin_count + 2):
            if not (words[word] - step) & _HALF:
                self._load_in_order(word)
                return True
            if not turn % yield_every:
                os.sched_yield()
        while True:
            seen = words[word]
            if not (seen - step) & _HALF:
                self._load_in_order(word)
                return False
            self._call_futex(word, _WAIT, seen)  # sleeps only while the word is still what we saw
            if (words[word] - step) & _HALF:
                look()

    def wake(self, who: int) -> None:
        """Make everyone who waits for local rank `who` (or LEADER) look up."""
        self._call_futex(_step_word(who), _WAKE, _EVERYONE)

    def _load_in_order(self, word: int) -> None:
        if not _STORES_STAY_IN_ORDER:
            self._call_futex(word, _WAKE, 0)  # for its barrier: what we read next is not older than the step

    def _call_futex(self, word: int, operation: int, value: int) -> int:
        return self._futex(_FUTEX, self.address + 4 * word, operation, value, _NAP, None, 0)

    # -- what stands where

    def set_state(self, rank: int, state: int) -> None:
        """Say that a local rank has joined or left, and wake those who wait for it."""
        self.words[(_PAGE_BYTES + rank * _RANK_BYTES + _STATE_OFFSET) // 4] = state
        self.wake(rank)

    def state(self, rank: int) -> int:
        """Whether a local rank has JOINED or LEFT; 0 for neither."""
        return self.words[(_PAGE_BYTES + rank * _RANK_BYTES + _STATE_OFFSET) // 4]

    def call(self, rank: int, number: int) -> memoryview:
        """Where local rank `rank` describes its call `number`. Two places take turns.

        A rank that describes call n + 2 has seen all others begin n + 1, so nobody still reads n.
        """
        start = _PAGE_BYTES + rank * _RANK_BYTES + _CALLS_OFFSET + number % 2 * _CALL_BYTES
        return self.view[start : start + _CALL_BYTES]

    def small(self, rank: int, number: int) -> int:
        """Where local rank `rank` puts the small array of its call `number`. Two places take turns, as for calls."""
        return self._small_start + (2 * rank + number % 2) * self.small_bytes

    def slot(self, rank: int, chunk: int) -> int:
        """Where local rank `rank` puts its share of a chunk for others to combine."""
        return self._slots_start + (rank * self.plan.slot_count + chunk % self.plan.slot_count) * self.plan.chunk_bytes

    def result(self, chunk: int) -> int:
        """Where a combined chunk stands for all to read."""
        return self._ring_start + chunk % self.plan.slot_count * self.plan.chunk_bytes

    def reserve(self, start: int, byte_count: int) -> None:
        """Take the memory for a part of the file now: OSError (ENOSPC) here instead of a SIGBUS at the first touch."""
        if byte_count:
            os.posix_fallocate(self._descriptor, start, byte_count)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_NAP = ctypes.byref(_Timespec(0, int(_NAP_S * 1e9)))


def _load_futex() -> Callable[..., int]:
    """The system call itself: the C library has no function for it. ctypes lets other threads run meanwhile."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    number, pointer = ctypes.c_long, ctypes.c_void_p
    call.argtypes = (number, pointer, number, ctypes.c_uint32, ctypes.POINTER(_Timespec), pointer, number)
    call.restype = number
    return call


def _step_word(who: int) -> int:
    return _LEADER_WORD if who == LEADER else (_PAGE_BYTES + who * _RANK_BYTES) // 4


def _part_bytes(local_ranks: int, plan: Plan, small_bytes: int) -> tuple[int, int, int, int]:
    """How long the header with the ranks' words is, the small buffers, the slots, and the ring of results."""
    chunks = plan.slot_count * plan.chunk_bytes
    words = _up_to_page(_PAGE_BYTES + local_ranks * _RANK_BYTES)
    return words, 2 * local_ranks * small_bytes, local_ranks * chunks, chunks


def _up_to_page(byte_count: int) -> int:
    return -(-byte_count // _PAGE_BYTES) * _PAGE_BYTES
