"""Arithmetic on what came as bytes, and how a call's arrays become its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raymaker.actors.exchange.gathering import Gathering
from raymaker.actors.exchange.reduce import Room, as_elements, check_operation, combine, count_elements, divide
from raymaker.actors.exchange.seam import DTYPES, Call, Failure, Values
from raymaker.actors.exchange.values import LocalValues
from raymaker.actors.spec import Place


class OtherMachine:
    """Across, where one other machine always brings `theirs`. It notes what it was asked."""

    def __init__(self, theirs: list[float], *, is_first: bool = False) -> None:
        self.values: Values = LocalValues()
        self.asked: list[str] = []
        self._theirs = np.array(theirs, np.float32)
        self._is_first = is_first

    def agree(self, call: Call) -> None:
        self.asked.append(call.describe())

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        self.asked.append(operation)
        combine(as_elements(data, dtype), self._theirs, operation)

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        self.asked.append(f"from {root_machine}")
        if root_machine == (0 if self._is_first else 1):
            data[:] = self._theirs.tobytes()

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        parts = [bytes(data), self._theirs.tobytes()]
        into[:] = b"".join(reversed(parts) if self._is_first else parts)

    def barrier(self) -> None:
        self.asked.append("barrier")

    def fail(self, failure: Failure) -> None:
        self.asked.append(failure.message)

    def watch(self, on_failure: Any) -> None:
        """Nothing fails here."""

    def close(self) -> None:
        """Nothing is held."""


def bring_all(call: Call, place: Place, parts: dict[int, list[float]], across: OtherMachine | None = None) -> Any:
    gathering = Gathering(call, place)
    lasts = [gathering.bring(rank, np.array(part, call.dtype or "uint8")) for rank, part in parts.items()]
    assert lasts == [False] * (len(parts) - 1) + [True]
    gathering.finish(across)
    assert gathering.is_complete
    assert gathering.done.is_set()
    return np.frombuffer(gathering.result, call.dtype or "uint8").tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("operation", "expected"), [("sum", [6, 6]), ("min", [1, 2]), ("max", [3, 2])])
def test_ranks_are_combined_element_by_element_in_whatever_order_they_come(
    dtype: str, operation: str, expected: list[float]
) -> None:
    call = Call("all-reduce", dtype, 2, operation)
    assert bring_all(call, Place(0, 1, 3), {2: [3, 2], 0: [1, 2], 1: [2, 2]}) == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_mean_is_the_sum_by_the_number_of_ranks(dtype: str) -> None:
    assert bring_all(Call("all-reduce", dtype, 2, "mean"), Place(0, 1, 2), {0: [1, 2], 1: [2, 4]}) == [1.5, 3]


def test_equal_arrays_give_equal_bits_in_whatever_order_they_come() -> None:
    call, place = Call("all-reduce", "float32", 3, "sum"), Place(0, 1, 3)
    parts = {0: [1e8, 1, 0.1], 1: [1, 1e-8, 0.2], 2: [-1e8, 3, 0.3]}
    turned = {rank: parts[rank] for rank in (2, 0, 1)}
    assert bring_all(call, place, parts) == bring_all(call, place, turned)


def test_overflow_is_infinity_and_nan_stays() -> None:
    call = Call("all-reduce", "float16", 2, "sum")
    first, second = bring_all(call, Place(0, 1, 2), {0: [60000, np.nan], 1: [60000, 1]})
    assert first == np.inf
    assert np.isnan(second)


def test_all_gather_has_the_ranks_in_order() -> None:
    call = Call("all-gather", "int64", 2)
    assert bring_all(call, Place(0, 1, 3), {2: [5, 6], 1: [3, 4], 0: [1, 2]}) == [1, 2, 3, 4, 5, 6]


def test_broadcast_gives_everyone_what_the_root_brought() -> None:
    call = Call("broadcast", "float32", 2, root=1)
    assert bring_all(call, Place(0, 1, 3), {0: [], 1: [7, 8], 2: []}) == [7, 8]


@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "broadcast"])
def test_arrays_without_elements_are_exchanged_too(kind: str) -> None:
    call = Call(kind, "float32", 0, "sum" if kind == "all-reduce" else "", 0 if kind == "broadcast" else -1)
    assert bring_all(call, Place(0, 1, 2), {0: [], 1: []}) == []


def test_with_other_machines_the_mean_is_over_all_ranks() -> None:
    across = OtherMachine([10, 20])
    call = Call("all-reduce", "float32", 2, "mean")
    assert bring_all(call, Place(0, 2, 2), {0: [1, 2], 1: [1, 2]}, across) == [3, 6]
    assert across.asked == ["all-reduce mean of 2 float32", "sum"]


def test_with_other_machines_ranks_count_through_the_machines() -> None:
    call = Call("all-gather", "float32", 1)
    assert bring_all(call, Place(1, 2, 2), {3: [4], 2: [3]}, OtherMachine([1, 2], is_first=True)) == [1, 2, 3, 4]


def test_a_broadcast_comes_from_the_machine_that_has_the_root() -> None:
    place, across = Place(0, 2, 2), OtherMachine([5, 6])
    assert bring_all(Call("broadcast", "float32", 2, root=3), place, {0: [], 1: []}, across) == [5, 6]
    assert bring_all(Call("broadcast", "float32", 2, root=1), place, {0: [], 1: [7, 8]}, across) == [7, 8]
    assert across.asked[1::2] == ["from 1", "from 0"]


def test_a_barrier_waits_for_the_other_machines() -> None:
    across = OtherMachine([])
    assert bring_all(Call("barrier"), Place(0, 2, 2), {1: [], 0: []}, across) == []
    assert across.asked == ["barrier", "barrier"]


def test_what_cannot_be_combined_is_refused_with_what_can() -> None:
    with pytest.raises(ValueError, match="op 'product' is none of sum, mean, min, max"):
        check_operation("product", "float32")
    with pytest.raises(ValueError, match="op 'mean' is not defined for int32: use sum and divide, or send floats"):
        check_operation("mean", "int32")
    with pytest.raises(ValueError, match="dtype 'bfloat16' is none of float16, float32, float64, int32, int64"):
        count_elements(4, "bfloat16")
    with pytest.raises(ValueError, match="a body of 7 bytes is no whole number of float32"):
        count_elements(7, "float32")


def test_divide_works_in_place_in_the_arrays_own_type() -> None:
    array = np.array([3, 6], np.float16)
    divide(array, 3)
    assert array.dtype == np.float16
    assert array.tolist() == [1, 2]


def test_room_is_taken_again_only_when_nothing_sees_it() -> None:
    room = Room()
    first = room.take(1000)
    seen = as_elements(first, "float32")
    address = first.ctypes.data
    del first
    other = room.take(1000)
    assert other.ctypes.data != address
    seen[:] = 1
    del seen
    again = room.take(1000)
    assert again.ctypes.data == address
    assert room.take(500).ctypes.data not in {address, other.ctypes.data}


def test_the_room_of_long_arrays_is_given_back() -> None:
    room = Room()
    room.take(5 * 1024 * 1024)
    assert room._kept == []
