"""Containers that are started, watched, stopped and removed together."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from raymaker.actors.containers import AttemptLost, Containers
from raymaker.actors.errors import ContainerMissing, StartError
from raymaker.actors.runtime.base import ContainerHandle, ContainerState, ExitStatus, Phase
from raymaker.actors.spec import ContainerSpec

RANK = "raymaker.rank"
OWNER = {"raymaker.owner": "me"}
LONG_S = 30.0


class Engine:
    """Containers in name only. They end when they are told to, are stopped or go missing."""

    name = "fake"

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._states: dict[str, ExitStatus | str] = {}
        self._labels: dict[str, Mapping[str, str]] = {}
        self._refused: set[str] = set()

    def refuse(self, name: str) -> None:
        """Have the start of a container fail."""
        self._refused.add(name)

    def end(self, name: str, code: int) -> None:
        """End a container by itself."""
        self._become(name, ExitStatus.of_code(code))

    def lose(self, name: str) -> None:
        """Have a container go missing."""
        self._become(name, "missing")

    def names(self) -> set[str]:
        return set(self._states)

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        if spec.name in self._refused:
            raise StartError(f"container {spec.name} was refused")
        self._labels[spec.name] = spec.labels
        self._become(spec.name, "running")
        return ContainerHandle(self.name, spec.name, spec.name)

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        state = self._states.get(handle.name, "missing")
        if isinstance(state, ExitStatus):
            return ContainerState(Phase.EXITED, exit_status=state)
        return ContainerState(Phase(state))

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        with self._changed:
            self._changed.wait_for(lambda: self._states.get(handle.name, "missing") != "running", timeout_s)
            state = self._states.get(handle.name, "missing")
        if isinstance(state, ExitStatus):
            return state
        raise ContainerMissing(f"container {handle.name} is gone")

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        if self._states[handle.name] == "running":
            self.end(handle.name, 143)

    def remove(self, handle: ContainerHandle) -> None:
        with self._changed:
            self._states.pop(handle.name, None)
            self._changed.notify_all()

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        return [
            (ContainerHandle(self.name, name, name), there)
            for name, there in self._labels.items()
            if name in self._states and labels.items() <= there.items()
        ]

    def _become(self, name: str, state: ExitStatus | str) -> None:
        with self._changed:
            self._states[name] = state
            self._changed.notify_all()


def two() -> dict[int, ContainerSpec]:
    return {rank: ContainerSpec(f"c{rank}", ("train",), labels={**OWNER, RANK: str(rank)}) for rank in (2, 3)}


@pytest.fixture
def engine() -> Engine:
    return Engine()


def owner(engine: Engine, folder: Path, ended: list[int] | None = None) -> Containers:
    heard = ended if ended is not None else []
    return Containers(engine, folder / "started.json", lambda rank, _: heard.append(rank))


def test_ends_are_told_in_the_order_in_which_they_came(engine: Engine, tmp_path: Path) -> None:
    heard: list[int] = []
    containers = owner(engine, tmp_path, heard)
    containers.start(two())
    engine.end("c3", 1)
    assert list(containers.wait(LONG_S, known_count=0)) == [3]
    engine.end("c2", 0)
    assert {rank: status.code for rank, status in containers.wait(LONG_S).items()} == {3: 1, 2: 0}
    assert list(containers.wait(0)) == [3, 2]


def test_waiting_ends_with_its_time(engine: Engine, tmp_path: Path) -> None:
    containers = owner(engine, tmp_path)
    containers.start(two())
    assert containers.wait(0) == {}


def test_where_one_cannot_start_none_is_left(engine: Engine, tmp_path: Path) -> None:
    engine.refuse("c3")
    containers = owner(engine, tmp_path)
    with pytest.raises(StartError, match="c3 was refused"):
        containers.start(two())
    assert engine.names() == set()
    assert not (tmp_path / "started.json").exists()


def test_a_later_owner_finds_and_watches_what_an_earlier_one_started(engine: Engine, tmp_path: Path) -> None:
    owner(engine, tmp_path).start(two())
    later = owner(engine, tmp_path)
    assert later.were_started(OWNER, RANK)
    later.take_up([2, 3])
    engine.end("c2", 0)
    engine.end("c3", 0)
    assert set(later.wait(LONG_S)) == {2, 3}


def test_a_later_owner_finds_them_though_the_earlier_one_died_before_it_could_write_them_down(
    engine: Engine, tmp_path: Path
) -> None:
    owner(engine, tmp_path).start(two())
    (tmp_path / "started.json").unlink()
    later = owner(engine, tmp_path)
    assert later.were_started(OWNER, RANK)
    later.take_up([2, 3])
    assert later.started_at() > 0, "nobody knows when, and that is no error"


def test_where_one_of_them_is_gone_the_rest_cannot_be_taken_up(engine: Engine, tmp_path: Path) -> None:
    owner(engine, tmp_path).start(two())
    engine.lose("c3")
    later = owner(engine, tmp_path)
    assert later.were_started(OWNER, RANK)
    with pytest.raises(AttemptLost, match="rank 3 is gone"):
        later.take_up([2, 3])


def test_nothing_was_started_where_there_is_nothing(engine: Engine, tmp_path: Path) -> None:
    assert not owner(engine, tmp_path).were_started(OWNER, RANK)


def test_one_that_goes_missing_costs_the_attempt(engine: Engine, tmp_path: Path) -> None:
    containers = owner(engine, tmp_path)
    containers.start(two())
    engine.lose("c2")
    with pytest.raises(AttemptLost, match="rank 2"):
        containers.wait(LONG_S)


def test_stopping_ends_all_of_them_and_removing_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    containers = owner(engine, tmp_path)
    containers.start(two())
    containers.stop(1.0)
    assert {status.code for status in containers.wait(LONG_S).values()} == {143}
    containers.remove()
    containers.remove()
    assert engine.names() == set()
