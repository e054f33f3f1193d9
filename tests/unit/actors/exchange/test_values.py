"""Named values in memory: versions, sums, waiting, and limits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from raymaker.actors.exchange.seam import Value
from raymaker.actors.exchange.values import LocalValues, TooLarge


def test_a_value_is_replaced_and_each_change_has_the_next_version() -> None:
    values = LocalValues()
    assert values.get("a") is None
    assert values.put("a", b"one", "text/plain") == 1
    assert values.put("a", b"two", "text/plain") == 2
    assert values.put("b", b"", "text/plain") == 1
    assert values.get("a") == Value(2, b"two", "text/plain")
    assert values.get("b") == Value(1, b"", "text/plain")


def test_only_what_is_newer_is_read() -> None:
    values = LocalValues()
    values.put("a", b"one", "text/plain")
    assert values.get("a", after_version=1) is None
    values.put("a", b"two", "text/plain")
    assert values.get("a", after_version=1) == Value(2, b"two", "text/plain")


def test_a_reader_waits_for_what_is_newer() -> None:
    values = LocalValues()
    values.put("a", b"one", "text/plain")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(values.get, "a", 1, 60.0)
        values.put("b", b"another", "text/plain")
        values.put("a", b"two", "text/plain")
        assert reading.result(timeout=30) == Value(2, b"two", "text/plain")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
def test_arrays_are_added_element_by_element_and_the_first_one_sets_the_value(dtype: str) -> None:
    values = LocalValues()
    array = np.arange(5, dtype=dtype)
    assert values.add("sum", array.tobytes(), dtype) == 1
    assert values.add("sum", array.tobytes(), dtype) == 2
    value = values.get("sum")
    assert value is not None
    assert np.frombuffer(value.content, dtype).tolist() == [0, 2, 4, 6, 8]


def test_no_addition_is_lost_when_many_add_at_once() -> None:
    values = LocalValues()
    one = np.ones(100, np.int64).tobytes()
    start = threading.Barrier(8)

    def add(_: int) -> None:
        start.wait()
        for _ in range(50):
            values.add("sum", one, "int64")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    value = values.get("sum")
    assert value is not None
    assert value.version == 400
    assert set(np.frombuffer(value.content, np.int64)) == {400}


def test_an_array_is_added_to_what_was_put_where_it_is_as_long() -> None:
    values = LocalValues()
    values.put("weights", np.array([1, 2], np.float32).tobytes(), "application/octet-stream")
    values.add("weights", np.array([1, 1], np.float32).tobytes(), "float32")
    value = values.get("weights")
    assert value is not None
    assert np.frombuffer(value.content, np.float32).tolist() == [2, 3]


def test_arrays_that_do_not_fit_are_refused_and_the_value_stays() -> None:
    values = LocalValues()
    values.add("sum", bytes(8), "float32")
    with pytest.raises(ValueError, match="value sum holds float32: int32 cannot be added"):
        values.add("sum", bytes(8), "int32")
    with pytest.raises(ValueError, match="value sum has 8 bytes: 12 bytes of float32 cannot be added"):
        values.add("sum", bytes(12), "float32")
    with pytest.raises(ValueError, match="no whole number of float32"):
        values.add("sum", bytes(9), "float32")
    with pytest.raises(ValueError, match="dtype 'float31' is none of float16, "):
        values.add("sum", bytes(8), "float31")
    assert values.get("sum") == Value(1, bytes(8))


@pytest.mark.parametrize("name", ["", "a b", "/a", "../a", "ä", "a" * 201, "a\n", "-a"])
def test_what_is_no_name_is_refused(name: str) -> None:
    values = LocalValues()
    with pytest.raises(ValueError, match="is no name of a value"):
        values.put(name, b"", "text/plain")
    with pytest.raises(ValueError, match="is no name of a value"):
        values.get(name)


def test_too_large_too_many_and_too_much_are_refused_and_say_how_much_there_may_be() -> None:
    values = LocalValues(value_bytes=10, total_bytes=15, value_count=2)
    with pytest.raises(TooLarge, match="value a would have 11 bytes: at most 10 are kept"):
        values.put("a", bytes(11), "text/plain")
    values.put("a", bytes(10), "text/plain")
    with pytest.raises(TooLarge, match="all values would take 16 bytes: there are 15"):
        values.put("b", bytes(6), "text/plain")
    values.put("a", bytes(4), "text/plain")  # replacing gives room back
    values.put("b", bytes(6), "text/plain")
    with pytest.raises(TooLarge, match="one more than the 2 that are kept"):
        values.put("c", b"", "text/plain")
    assert values.get("a") == Value(2, bytes(4), "text/plain")
