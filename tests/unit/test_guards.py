"""The guards of the unit tests hold."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
import ray

Failed = pytest.fail.Exception


def test_a_unit_test_cannot_reach_the_network() -> None:
    with socket.socket() as connection, pytest.raises(Failed, match="socket.connect"):
        connection.connect(("127.0.0.1", 9))


def test_a_unit_test_cannot_listen() -> None:
    with socket.socket() as connection, pytest.raises(Failed, match="socket.bind"):
        connection.bind(("127.0.0.1", 0))


def test_a_unit_test_cannot_start_ray() -> None:
    with pytest.raises(Failed, match="ray.init"):
        ray.init()


def test_a_unit_test_cannot_sleep() -> None:
    with pytest.raises(Failed, match="time.sleep"):
        time.sleep(0.01)


def test_an_event_loop_may_give_way_but_not_sleep() -> None:
    asyncio.run(asyncio.sleep(0))
    with pytest.raises(Failed, match="asyncio.sleep"):
        asyncio.run(asyncio.sleep(0.01))
