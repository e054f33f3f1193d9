"""Collectives through a real arena: real rank processes, real hubs, real kills. Containers are in the job tests."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.exchange_ranks import running_ranks

EVERYTHING = """
world, me = exchange.world_size, exchange.rank
for size in (0, 1, 3, 50_000, 1_000_003):
    base = np.arange(size) % 7
    for dtype in raymaker_exchange.DTYPES:
        wanted = {"sum": base * world + world * (world - 1) // 2, "min": base, "max": base + world - 1}
        if dtype.startswith("float"):
            wanted["mean"] = base + (world - 1) / 2
        for op in wanted:
            mine = (base + me).astype(dtype)
            assert exchange.all_reduce(mine, op) is mine
            assert (mine == wanted[op].astype(dtype)).all(), (size, dtype, op)
        for root in (0, world - 1):
            copied = np.full(size, me, dtype)
            exchange.broadcast(copied, root)
            assert (copied == root).all(), (size, dtype, root)
        gathered = exchange.all_gather(np.full(size, me, dtype))
        assert gathered.shape == (world, size) and gathered.dtype == dtype
        assert (gathered == np.arange(world)[:, None]).all(), (size, dtype)
    exchange.barrier()
say("done")
exchange.leave()
"""

WITHOUT_NUMPY = """
assert np is None
world, me = exchange.world_size, exchange.rank
codes = {"float32": "f", "float64": "d", "int32": "i", "int64": "q"}
for size in (0, 1, 3, 100_003, 1_000_003):
    for dtype, code in codes.items():
        mine = array.array(code, [me + 1]) * size
        exchange.all_reduce(mine, "sum")
        assert mine == array.array(code, [world * (world + 1) // 2]) * size, (size, dtype)
        exchange.broadcast(mine, world - 1)
        gathered = exchange.all_gather(array.array(code, [me]) * size)
        assert len(gathered) == world * size and gathered.format == code
        assert all(gathered[rank * size] == rank for rank in range(world) if size)
    exchange.all_reduce(mean := array.array("f", [me]) * size, "mean")
    assert mean == array.array("f", [(world - 1) / 2]) * size
halves = bytearray(b"\\x00\\x3c" * 5)  # 1.0 in float16
exchange.all_reduce(halves, "sum", dtype="float16")
assert halves == {1: b"\\x00\\x3c", 2: b"\\x00\\x40", 4: b"\\x00\\x44"}[world] * 5
assert exchange.empty((2, 3), "float64").shape == (2, 3)
exchange.barrier()
exchange.leave()
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_operation_gives_the_right_result_for_every_type_and_size(tmp_path: Path, ranks: int) -> None:
    with running_ranks(tmp_path / "x", EVERYTHING, ranks=ranks) as started:
        assert started.succeed() == ['["done"]'] * ranks
        assert started.hubs[0].failure is None


@pytest.mark.parametrize(("machines", "ranks"), [(2, 1), (2, 2), (3, 1)])
def test_several_machines_give_the_same_results(tmp_path: Path, machines: int, ranks: int) -> None:
    with running_ranks(tmp_path / "x", EVERYTHING, ranks=ranks, machines=machines) as started:
        assert started.succeed() == ['["done"]'] * machines * ranks


def test_chunks_of_several_machines_follow_one_another(tmp_path: Path) -> None:
    script = """
size = 30_000_001
mine = np.arange(size, dtype=np.int64) + exchange.rank
exchange.all_reduce(mine)
assert (mine == np.arange(size, dtype=np.int64) * 4 + 6).all()
gathered = exchange.all_gather(np.arange(5_000_001, dtype=np.int64) * exchange.rank)
assert all((gathered[rank] == np.arange(5_000_001) * rank).all() for rank in range(4))
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script, ranks=2, machines=2) as started:
        started.succeed()


@pytest.mark.parametrize(("machines", "ranks"), [(1, 2), (1, 4), (2, 1), (2, 2)])
def test_ranks_without_numpy_have_the_hub_reduce(tmp_path: Path, machines: int, ranks: int) -> None:
    with running_ranks(tmp_path / "x", WITHOUT_NUMPY, ranks=ranks, machines=machines, without_numpy=True) as started:
        started.succeed()


def test_arrays_in_the_arena_are_combined_where_they_are_also_in_parts_and_mixed_with_others(tmp_path: Path) -> None:
    script = """
whole = exchange.empty((1000, 501), "float32")
for turn in range(3):
    whole[:] = exchange.rank + 1
    assert exchange.all_reduce(whole, "sum") is whole
    assert (whole == 6).all()
whole[:] = exchange.rank
exchange.all_reduce(whole[200:700], "max")
assert (whole[200:700] == 2).all() and (whole[:200] == exchange.rank).all() and (whole[700:] == exchange.rank).all()
mixed = whole if exchange.rank == 1 else np.empty((1000, 501), np.float32)
mixed[:] = exchange.rank
exchange.all_reduce(mixed, "mean")
assert (mixed == 1).all()
second = exchange.empty(100_000, "int64")
second[:] = 1
exchange.all_reduce(second[50_000 * (exchange.rank > 0):][:50_000])  # at different places of one allocation
assert (second[50_000 * (exchange.rank > 0):][:50_000] == 3).all()
exchange.leave()
whole[0, 0] = 5  # stays mapped as long as it is used
"""
    with running_ranks(tmp_path / "x", script, ranks=3) as started:
        started.succeed()


def test_all_ranks_get_the_same_bits_of_sums_that_round(tmp_path: Path) -> None:
    script = """
import hashlib
random = np.random.default_rng(exchange.rank)
for size in (1000, 999_999):
    for dtype in ("float16", "float32", "float64"):
        mine = random.standard_normal(size).astype(dtype)
        exchange.all_reduce(mine, "mean")
        say(hashlib.sha256(mine).hexdigest())
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script, ranks=4) as started:
        assert len(set(started.succeed())) == 1


def test_an_overflow_is_infinite_without_a_warning_at_one_rank_only(tmp_path: Path) -> None:
    script = """
import warnings
warnings.simplefilter("error")
for size in (10, 1_000_000):
    mine = np.full(size, 60000, np.float16)
    exchange.all_reduce(mine)
    assert np.isinf(mine).all()
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script) as started:
        started.succeed()


def test_many_calls_of_changing_sizes_never_mix(tmp_path: Path) -> None:
    script = """
random = np.random.default_rng(7)
for turn in range(3000):
    size = int(random.choice([1, 10, 40_000, 200_000]))
    mine = np.full(size, turn + exchange.rank, np.int64)
    kind = random.integers(3)
    if kind == 0:
        exchange.all_reduce(mine)
        assert (mine == 3 * turn + 3).all(), turn
    elif kind == 1:
        exchange.broadcast(mine, root=turn % 3)
        assert (mine == turn + turn % 3).all(), turn
    else:
        assert (exchange.all_gather(mine) == np.arange(3)[:, None] + turn).all(), turn
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script, ranks=3) as started:
        started.succeed()


def test_threads_of_a_rank_take_turns(tmp_path: Path) -> None:
    script = """
import threading
def work():
    for _ in range(200):
        mine = np.ones(30_000, np.float32)
        exchange.all_reduce(mine)
        assert (mine == 2).all()
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script) as started:
        started.succeed()


FAILING = """
try:
    {call}
except raymaker_exchange.ExchangeError as error:
    say(type(error).__name__, error.rank, str(error))
try:
    exchange.barrier()
except raymaker_exchange.ExchangeError as error:
    say("again", type(error).__name__)
exchange.leave()
"""


@pytest.mark.parametrize(
    ("others", "odd", "words"),
    [
        (
            "exchange.all_reduce(np.ones(8, np.float32))",
            "exchange.barrier()",
            ["barrier", "all-reduce sum of 8 float32"],
        ),
        (
            "exchange.all_reduce(np.ones(8, np.float32))",
            "exchange.all_reduce(np.ones(9, np.float32))",
            ["sum of 9 float32", "sum of 8 float32"],
        ),
        (
            "exchange.all_reduce(np.ones(10**6, np.float32), 'max')",
            "exchange.all_reduce(np.ones(10**6, np.float64), 'max')",
            ["max of 1000000 float64", "max of 1000000 float32"],
        ),
        ("exchange.all_reduce(np.ones(8), 'min')", "exchange.all_reduce(np.ones(8), 'max')", ["min of", "max of"]),
        (
            "exchange.broadcast(np.ones(8), 0)",
            "exchange.broadcast(np.ones(8), 1)",
            ["from rank 0 of 8 float64", "from rank 1 of 8 float64"],
        ),
        ("exchange.empty(100)", "exchange.empty(101)", ["empty of 400 bytes", "empty of 404 bytes"]),
    ],
)
def test_ranks_that_disagree_all_hear_who_differs_and_how(
    tmp_path: Path, others: str, odd: str, words: list[str]
) -> None:
    call = f"({odd}) if exchange.rank == 1 else ({others})"
    with running_ranks(tmp_path / "x", FAILING.format(call=call), ranks=3) as started:
        for output in started.succeed():
            (kind, rank, message), again = map(json.loads, output.splitlines())
            assert (kind, rank, again) == ("Mismatch", 1, ["again", "Mismatch"])
            assert message.startswith("rank 1 calls ")
            assert all(word in message for word in words), message
        failure = started.hubs[0].failure
        assert failure is not None
        assert failure.rank == 1


def test_machines_that_disagree_fail_at_every_rank(tmp_path: Path) -> None:
    script = FAILING.format(call="exchange.all_reduce(np.ones(8 + exchange.machine_index))")
    with running_ranks(tmp_path / "x", script, ranks=2, machines=2) as started:
        for output in started.succeed():
            assert "machines disagree" in output.splitlines()[0]


@pytest.mark.parametrize("size", [8, 30_000_000])
@pytest.mark.parametrize("machines", [1, 2])
def test_a_rank_that_is_killed_in_the_middle_of_calls_fails_all_others(
    tmp_path: Path, size: int, machines: int
) -> None:
    script = f"""
mine = np.ones({size}, np.float32)
say("ready")
try:
    while True:
        exchange.all_reduce(mine, "max")
except raymaker_exchange.ExchangeError as error:
    say(type(error).__name__, error.rank, str(error))
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script, ranks=3 // machines + (machines - 1), machines=machines) as started:
        assert {started.line(rank) for rank in range(len(started.processes))} == {'["ready"]'}
        started.kill(1)
        for rank, (code, output, errors) in enumerate(started.endings()):
            if rank == 1:
                assert code == -signal.SIGKILL
                continue
            assert code == 0, errors
            _, _, message = json.loads(output)
            assert "rank 1 " in message


def test_a_rank_that_stalls_is_named_after_the_deadline(tmp_path: Path) -> None:
    script = FAILING.format(call="exchange.rank == 2 and sys.stdin.readline()\n    exchange.all_reduce(np.ones(8))")
    with running_ranks(tmp_path / "x", script, ranks=3, timeout_s=3.0) as started:
        for rank in (0, 1):
            kind, blamed, message = json.loads(started.line(rank))
            assert (kind, blamed) == ("Stalled", 2)
            assert "rank 2 did not come to all-reduce sum of 8 float64 (call 1) within 3 s" in message
        for process in started.processes:
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()
        late = json.loads(started.line(2))
        assert late[:2] == ["Stalled", 2]
        started.succeed()


def test_a_rank_that_stops_in_a_long_call_is_named_after_the_deadline(tmp_path: Path) -> None:
    script = FAILING.format(call="say('ready')\n    while True: exchange.all_reduce(np.ones(4_000_000))")
    with running_ranks(tmp_path / "x", script, timeout_s=3.0) as started:
        assert started.line(0) == started.line(1) == '["ready"]'
        os.kill(started.processes[1].pid, signal.SIGSTOP)
        kind, blamed, message = json.loads(started.line(0))
        os.kill(started.processes[1].pid, signal.SIGCONT)
        assert (kind, blamed) == ("Stalled", 1), message
        started.succeed()


def test_a_rank_that_has_left_is_named_by_whoever_waits_for_it(tmp_path: Path) -> None:
    script = FAILING.format(call="exchange.leave() if exchange.rank == 1 else exchange.barrier()")
    with running_ranks(tmp_path / "x", script) as started:
        (_, first, _), _ = started.endings()
        kind, blamed, message = json.loads(first.splitlines()[0])
        assert (kind, blamed) == ("RankLost", 1)
        assert "rank 1" in message
        assert "left" in message


def test_an_exception_in_the_middle_of_training_is_told_to_the_others(tmp_path: Path) -> None:
    script = """
with exchange:
    if exchange.rank == 1:
        raise KeyError("no such column")
    try:
        exchange.barrier()
    except raymaker_exchange.RankLost as error:
        say(error.rank, str(error))
"""
    with running_ranks(tmp_path / "x", script) as started:
        (code, output, _), (other_code, _, _) = started.endings()
        assert (code, other_code) == (0, 1)
        rank, message = json.loads(output)
        assert (rank, message) == (1, "rank 1 gave up: KeyError: 'no such column'")


def test_an_interrupt_in_a_call_fails_the_others_too(tmp_path: Path) -> None:
    script = FAILING.format(
        call="signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored\n"
        "    say('ready')\n    exchange.rank == 2 and sys.stdin.readline()\n    exchange.barrier()"
    )
    script = f"import signal\n{script}"
    with running_ranks(tmp_path / "x", script, ranks=3) as started:
        assert {started.line(rank) for rank in range(3)} == {'["ready"]'}
        os.kill(started.processes[1].pid, signal.SIGINT)
        kind, blamed, message = json.loads(started.line(0))
        assert (kind, blamed) == ("RankLost", 1)
        assert "rank 1" in message
        assert json.loads(started.endings()[2][1].splitlines()[0])[:2] == ["RankLost", 1]


def test_a_hub_that_ends_fails_its_ranks(tmp_path: Path) -> None:
    script = FAILING.format(
        call="say('ready')\n    exchange.rank == 1 and sys.stdin.readline()\n    exchange.barrier()"
    )
    with running_ranks(tmp_path / "x", script) as started:
        assert started.line(0) == started.line(1) == '["ready"]'
        started.hubs[0].close()
        kind, _, message = json.loads(started.line(0))
        assert kind == "RankLost"
        assert "hub" in message
        assert all(code == 0 for code, _, _ in started.endings())


def test_a_full_arena_is_told_to_all_with_the_setting_to_raise(tmp_path: Path) -> None:
    script = FAILING.format(call="[exchange.empty(300_000) for _ in range(3)]")
    with running_ranks(tmp_path / "x", script, arena_bytes=4 * 1024**2) as started:
        for output in started.succeed():
            kind, rank, message = json.loads(output.splitlines()[0])
            assert (kind, rank) == ("ArenaFull", None)
            assert "RAYMAKER_EXCHANGE_ARENA_MIB to 5 or more" in message


def test_the_exchange_holds_at_most_ranks_plus_one_times_the_largest_tensor(tmp_path: Path) -> None:
    script = """
exchange.all_reduce(np.ones({count}, np.float32))
say(os.stat(os.path.join(os.environ["RAYMAKER_EXCHANGE"], "arena")).st_blocks * 512)
exchange.barrier()
exchange.leave()
"""
    for ranks in (2, 4):
        for count in (500_000, 10_000_000):
            with running_ranks(tmp_path / f"x{ranks}-{count}", script.format(count=count), ranks=ranks) as started:
                held = max(json.loads(line)[0] for line in started.succeed())
            assert held <= (ranks + 1) * count * 4 + 64 * 1024


def test_a_forked_child_cannot_make_its_parents_calls_and_does_not_hide_its_death(tmp_path: Path) -> None:
    script = """
if exchange.rank == 1:
    child = os.fork()
    if not child:
        try:
            exchange.barrier()
        except raymaker_exchange.ExchangeError as error:
            say(str(error))
        time.sleep(30)
        os._exit(0)
    time.sleep(0.5)
    say(child)
    os.kill(os.getpid(), 9)
try:
    exchange.barrier()
except raymaker_exchange.ExchangeError as error:
    say(error.rank)
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script) as started:
        assert "is no rank" in started.line(1)
        (child,) = json.loads(started.line(1))
        assert started.line(0) == "[1]"
        os.kill(child, signal.SIGKILL)


def test_named_values_and_documents_pass_between_ranks(tmp_path: Path) -> None:
    script = """
assert exchange.pull("nothing") is None and exchange.get_document("nothing") is None
exchange.barrier()
exchange.add("total", np.full(5, exchange.rank + 1, np.float32))
exchange.barrier()
assert np.frombuffer(exchange.pull("total").content, np.float32).tolist() == [3.0] * 5
if exchange.rank == 0:
    exchange.put_document("strategy", {"rate": 0.5})
    exchange.push("weights/first", np.arange(3))
assert exchange.get_document("strategy", wait_s=20) == {"rate": 0.5}
exchange.barrier()
weights = exchange.pull("weights/first")
assert weights.version == 1 and np.frombuffer(weights.content, np.int64).tolist() == [0, 1, 2]
assert exchange.pull("weights/first", after=1) is None
exchange.leave()
"""
    with running_ranks(tmp_path / "x", script) as started:
        started.succeed()
