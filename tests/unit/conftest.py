"""Unit tests touch no network, no Ray and no real clock: whoever tries is told at once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import pytest
import ray

_real_async_sleep = asyncio.sleep


@pytest.fixture(autouse=True)
def _only_pure_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, verb, _refuse(f"socket.{verb}"))
    monkeypatch.setattr(ray, "init", _refuse("ray.init"))
    monkeypatch.setattr(time, "sleep", _refuse("time.sleep"))
    monkeypatch.setattr(asyncio, "sleep", _yield_only)


def _refuse(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail(f"a unit test called {what}: hand the code a fake, or move the test to tests/integration")

    return refuse


async def _yield_only(delay: float, result: object = None) -> object:
    """Let `asyncio.sleep(0)`, which only gives way to others, through."""
    if delay > 0:
        _refuse("asyncio.sleep")()
    return await _real_async_sleep(0, result)
