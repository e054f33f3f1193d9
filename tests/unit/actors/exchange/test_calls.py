"""Copies of any length, with numpy and without."""

from __future__ import annotations

import os

import numpy as np
import pytest

from raymaker.actors.exchange.raymaker_exchange import calls


@pytest.mark.parametrize("has_numpy", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70_001, 512 * 1024 - 1, 512 * 1024])
def test_a_copy_is_every_byte_and_no_more(monkeypatch: pytest.MonkeyPatch, size: int, *, has_numpy: bool) -> None:
    if not has_numpy:
        monkeypatch.setattr(calls, "np", None)
    source, target = os.urandom(size), bytearray(size + 2)
    calls.copy(memoryview(target)[1 : 1 + size], memoryview(source))
    assert target == b"\0" + source + b"\0"


def test_arrays_are_copied_whatever_stands_in_them() -> None:
    source = np.array([np.nan, -0.0, np.inf] * 1000, "float32")
    target = np.zeros_like(source)
    calls.copy(target.view("u1"), source.view("u1"))
    assert target.tobytes() == source.tobytes()
