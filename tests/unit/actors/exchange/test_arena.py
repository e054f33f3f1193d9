"""The arena's layout and steps, how arrays are cut, how calls are compared, and what arrays are taken. One process."""

from __future__ import annotations

import array
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from raymaker.actors.exchange import raymaker_exchange, seam
from raymaker.actors.exchange.raymaker_exchange import calls
from raymaker.actors.exchange.raymaker_exchange.arena import FIRST_STEP, LEADER, LEFT, LOST, MISMATCH, Arena, Plan
from raymaker.actors.exchange.raymaker_exchange.buffers import as_bytes, find_dtype, make_array, make_like
from raymaker.actors.exchange.raymaker_exchange.calls import Call

ROOM_BYTES = 3 * 1024**2


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    made = Arena.create(tmp_path / "arena", ROOM_BYTES, local_ranks=3)
    yield made
    made.close()


def test_the_client_knows_the_same_types_and_operations_as_the_hub() -> None:
    assert calls.DTYPES == seam.DTYPES
    assert calls.OPERATIONS == seam.OPERATIONS
    for kind, dtype, operation, root in [
        ("barrier", "", "", -1),
        ("broadcast", "int32", "", 2),
        ("all-reduce", "float16", "max", -1),
    ]:
        ours, theirs = Call(kind, dtype, 7, operation, root), seam.Call(kind, dtype, 7, operation, root)
        assert ours.describe() == theirs.describe()


@pytest.mark.parametrize("machine_count", [1, 2])
@pytest.mark.parametrize("local_ranks", [1, 2, 3, 8])
def test_no_two_parts_of_an_arena_overlap(tmp_path: Path, local_ranks: int, machine_count: int) -> None:
    path = tmp_path / "arena"
    arena = Arena.create(path, ROOM_BYTES, local_ranks, machine_count)
    slots, size = arena.plan.slot_count, arena.plan.chunk_bytes
    parts = [(arena.small(rank, turn), arena.small_bytes) for rank in range(local_ranks) for turn in (0, 1)]
    parts += [(arena.slot(rank, chunk), size) for rank in range(local_ranks) for chunk in range(slots)]
    parts += [(arena.result(chunk), size) for chunk in range(slots)]
    parts += [(0, arena.words.nbytes), (arena.room_start, ROOM_BYTES)]
    parts.sort()
    for (start, length), (following, _) in itertools.pairwise(parts):
        assert start + length <= following
    assert all(start % 4096 == 0 for start, _ in parts)
    assert parts[-1][0] + parts[-1][1] == path.stat().st_size
    arena.close()


def test_places_of_chunks_and_calls_come_round(arena: Arena) -> None:
    slots = arena.plan.slot_count
    assert len({arena.slot(1, chunk) for chunk in range(slots)}) == slots
    assert arena.slot(1, 2) == arena.slot(1, 2 + slots)
    assert arena.result(1) == arena.result(1 + slots)
    arena.call(2, 4)[:1] = b"x"
    assert (arena.call(2, 6)[0], arena.call(2, 5)[0], arena.call(1, 4)[0]) == (ord("x"), 0, 0)


@pytest.mark.parametrize("machine_count", [1, 2])
@pytest.mark.parametrize("local_ranks", [1, 2, 4, 16])
def test_a_plan_has_places_for_what_is_under_way(local_ranks: int, machine_count: int) -> None:
    plan = Plan.choose(local_ranks, machine_count)
    # What _run relies on: a peer that is `slack` turns behind has let go of every place that this turn writes to.
    assert plan.slot_count >= plan.look_ahead + plan.slack + 1
    assert plan.slot_count >= plan.lag + plan.slack + 1
    assert plan.lag >= plan.slack + 1
    assert plan.look_ahead >= plan.slack + 1
    assert plan.chunk_bytes % calls.LINE_BYTES == 0


def test_an_arena_takes_only_the_pages_that_are_used(tmp_path: Path) -> None:
    path = tmp_path / "arena"
    arena = Arena.create(path, 1024**3, 4)
    assert path.stat().st_size > 1024**3
    assert path.stat().st_blocks * 512 <= 64 * 1024
    arena.reserve(arena.room_start, 100_000)
    assert 100_000 <= path.stat().st_blocks * 512 <= 200_000
    arena.close()


def test_an_arena_is_for_everyone_whatever_the_umask(tmp_path: Path) -> None:
    Arena.create(tmp_path / "arena", 0, 1).close()
    assert (tmp_path / "arena").stat().st_mode & 0o777 == 0o666


def test_an_arena_is_never_made_over_another(tmp_path: Path) -> None:
    Arena.create(tmp_path / "arena", 0, 1).close()
    with pytest.raises(FileExistsError):
        Arena.create(tmp_path / "arena", 0, 1)


@pytest.mark.parametrize("content", [b"", b"raymaker", b"raymaker\x02\0\0\0" + bytes(9000), bytes(9000)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is not an arena of version 1"):
        Arena.open(tmp_path / "file")


def test_whoever_opens_an_arena_sees_what_its_maker_sees(tmp_path: Path, arena: Arena) -> None:
    other = Arena.open(tmp_path / "arena")
    assert (other.local_ranks, other.room_start, other.slot(2, 3)) == (3, arena.room_start, arena.slot(2, 3))
    arena.publish(1, arena.step(1) + 1)
    arena.set_state(2, LEFT)
    assert other.reached(1, FIRST_STEP + 1)
    assert not other.reached(1, FIRST_STEP + 2)
    assert (other.state(2), other.state(1)) == (LEFT, 0)
    other.close()


def test_steps_pass_their_wrap_around(arena: Arena) -> None:
    step = arena.step(0)
    for _ in range(200):
        assert not arena.reached(0, step + 1)
        step += 1
        arena.publish(0, step)
        assert arena.reached(0, step)
        assert arena.reached(0, step - 1)
    assert step > 2**32 > arena.step(0)


def test_a_waiter_is_woken_by_the_step_and_not_before(arena: Arena) -> None:
    seen = []
    waiter = threading.Thread(target=lambda: seen.append(arena.wait(LEADER, FIRST_STEP + 2, lambda: None)))
    waiter.start()
    arena.publish(LEADER, FIRST_STEP + 1)
    assert waiter.is_alive()
    arena.publish(LEADER, FIRST_STEP + 2)
    waiter.join(10)
    assert len(seen) == 1


def test_the_first_reason_of_a_failure_stays_and_wakes_who_waits(arena: Arena) -> None:
    class Seen(Exception):
        pass

    def look() -> None:
        if arena.failure:
            raise Seen

    caught = []

    def wait() -> None:
        try:
            arena.wait(1, FIRST_STEP + 1, look)
        except Seen as seen:
            caught.append(seen)

    waiter = threading.Thread(target=wait)
    waiter.start()
    arena.mark_failed(MISMATCH)
    arena.fail(LOST)
    waiter.join(10)
    assert len(caught) == 1
    assert arena.failure == MISMATCH


def test_arrays_of_an_arena_outlive_its_closing(tmp_path: Path) -> None:
    arena = Arena.create(tmp_path / "arena", ROOM_BYTES, 1)
    kept = np.frombuffer(arena.view[arena.room_start : arena.room_start + 8], np.int64)
    arena.close()
    arena.close()
    kept[0] = 5
    assert kept.tolist() == [5]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("byte_count", [0, 1, 4, 12, 64, 1000, 262_144, 1_000_003])
def test_shares_cover_everything_once_and_share_no_cache_line(byte_count: int, parts: int) -> None:
    shares = [calls.share(byte_count, part, parts) for part in range(parts)]
    assert shares[0][0] == 0
    assert shares[-1][1] == byte_count
    for (_, end), (start, _) in itertools.pairwise(shares):
        assert end == start
        assert start % 64 == 0


def test_pieces_of_an_all_gather_fit_into_a_chunk() -> None:
    for world_size in (1, 2, 3, 7, 64):
        piece = calls.piece_bytes(524_288, world_size)
        assert piece > 0
        assert piece * world_size <= 524_288
        assert piece % 64 == 0


def test_calls_come_out_of_the_arena_as_they_went_in() -> None:
    for call in (Call("barrier"), Call("all-reduce", "int64", 2**40, "min"), Call("broadcast", "float16", 3, root=5)):
        assert calls.unpack_call(calls.pack_call(call, by_hub=True)) == (call, True)


def test_the_odd_rank_is_the_one_that_differs_from_most() -> None:
    a, b = Call("barrier"), Call("all-reduce", "int64", 1, "sum")
    assert calls.find_odd({0: a, 1: b, 2: b}) == (0, 1)
    assert calls.find_odd({2: b, 0: b, 1: a}) == (1, 0)
    assert calls.find_odd({1: b, 0: a}) == (1, 0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (array.array("f", [1]), "float32"),
        (array.array("d", [1]), "float64"),
        (array.array("i", [1]), "int32"),
        (array.array("l", [1]), "int64"),
        (array.array("q", [1]), "int64"),
        (memoryview(bytearray(8)).cast("d"), "float64"),
        (np.ones((2, 3), np.float16), "float16"),
        (np.ones(3, "<f4"), "float32"),
        (np.ones(0, np.int64), "int64"),
    ],
)
def test_element_types_are_read_off_arrays(given: object, name: str) -> None:
    assert find_dtype(given, None) == name
    assert find_dtype(given, name) == name
    assert as_bytes(given, writable=True).nbytes == memoryview(given).nbytes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "dtype", "error", "words"),
    [
        ([1.0, 2.0], None, TypeError, "a list has no buffer.*array.array"),
        (bytearray(8), None, TypeError, "name it, e.g. dtype='float32'"),
        (bytearray(7), "float32", ValueError, "7 bytes are no whole number of float32"),
        (bytearray(8), "float8", ValueError, "dtype 'float8' is none of float16, "),
        (array.array("I", [1]), None, TypeError, "format 'I' cannot be exchanged: convert them to one of float16"),
        (np.ones(2, ">f4"), None, TypeError, "cannot be exchanged"),
        (np.ones(2, np.complex64), None, TypeError, "cannot be exchanged"),
        (np.ones(2, np.float32), "float64", ValueError, "elements are float32, not float64"),
    ],
)
def test_what_cannot_be_exchanged_is_refused_with_the_remedy(
    given: object, dtype: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        find_dtype(given, dtype)


def test_memory_that_is_strided_or_read_only_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="numpy.ascontiguousarray"):
        as_bytes(np.ones((4, 4))[:, 1], writable=True)
    with pytest.raises(ValueError, match="read-only.*pass a copy"):
        as_bytes(b"12345678", writable=True)
    assert bytes(as_bytes(b"12345678", writable=False)) == b"12345678"


def test_bytes_of_an_array_are_the_array() -> None:
    given = np.zeros((2, 3), np.float16)
    as_bytes(given, writable=True)[:2] = b"\x00\x3c"
    assert given[0, 0] == 1.0


def test_new_arrays_are_like_those_given() -> None:
    made, into = make_like(np.ones((2, 3), np.float16), "float16", 4)
    assert (made.shape, made.dtype, into.nbytes) == ((4, 2, 3), np.float16, 48)
    made, into = make_like(array.array("i", [1, 2]), "int32", 3)
    assert (made.format, len(made), into.nbytes) == ("i", 6, 24)
    assert make_array(memoryview(bytearray(24)), (2, 3), "float32").shape == (2, 3)
    assert make_array(memoryview(bytearray()), (0, 3), "float32").shape == (0, 3)


def test_outside_raymaker_a_script_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYMAKER_EXCHANGE", raising=False)
    with raymaker_exchange.join() as exchange:
        mine = exchange.empty((2, 2))
        mine[:] = 3
        assert exchange.all_reduce(mine, "mean") is mine
        assert mine.tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert exchange.all_gather(exchange.broadcast(mine)).shape == (1, 2, 2)
        exchange.barrier()
        assert (exchange.rank, exchange.world_size, exchange.machine_count) == (0, 1, 1)
        assert exchange.pull("total") is None
        assert [exchange.add("total", np.ones(2, np.float32)) for _ in range(3)] == [1, 2, 3]
        pulled = exchange.pull("total", after=2)
        assert pulled is not None
        assert np.frombuffer(pulled.content, np.float32).tolist() == [3.0, 3.0]
        assert exchange.pull("total", after=3) is None
        exchange.put_document("strategy", {"rate": 1})
        assert exchange.get_document("strategy") == {"rate": 1}
    with pytest.raises(raymaker_exchange.ExchangeError, match="rank 0 has left the exchange"):
        exchange.barrier()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda exchange: exchange.all_reduce(np.ones(2), "product"), "op 'product' is none of sum, mean, min, max"),
        (lambda exchange: exchange.all_reduce(np.ones(2, np.int32), "mean"), "use sum and divide"),
        (lambda exchange: exchange.broadcast(np.ones(2), root=1), "root 1 is no rank of this job"),
        (lambda exchange: exchange.empty((2, -1)), "negative length"),
        (lambda exchange: exchange.empty(2, "int8"), "dtype 'int8' is none of"),
    ],
)
def test_impossible_calls_are_refused_before_anyone_waits(
    monkeypatch: pytest.MonkeyPatch, call: object, words: str
) -> None:
    monkeypatch.delenv("RAYMAKER_EXCHANGE", raising=False)
    with raymaker_exchange.join() as exchange, pytest.raises(ValueError, match=words):
        call(exchange)  # type: ignore[operator]
