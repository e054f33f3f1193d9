"""The reaper: what nobody owns goes, after its time, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raymaker.actors.errors import EngineAway
from raymaker.actors.lease import Lease, is_held
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, ContainerHandle


class FakeRuntime:
    """A driver that only lists and removes. Removing checks that the reaper holds the lease meanwhile."""

    def __init__(self, home: Path, name: str = "fake") -> None:
        self.name = name
        self._home = home
        self._containers: dict[ContainerHandle, Mapping[str, str]] = {}
        self._is_away = False
        self._failures = 0

    def add(self, name: str, kind: str = "training", home: Path | None = None) -> None:
        """Have a container whose owner's lease has its name."""
        labels = {LABEL_HOME: str(home or self._home), LABEL_KIND: kind, LABEL_OWNER: name}
        self._containers[ContainerHandle(self.name, name, f"id-{name}")] = labels

    def go_away(self) -> None:
        """Answer no more."""
        self._is_away = True

    def come_back(self) -> None:
        """Answer again."""
        self._is_away = False

    def fail_next_remove(self) -> None:
        """Break down once."""
        self._failures += 1

    @property
    def names(self) -> list[str]:
        """The names of what is there."""
        return [handle.name for handle in self._containers]

    def owned(self, labels: Mapping[str, str]) -> list[tuple[ContainerHandle, Mapping[str, str]]]:
        if self._is_away:
            raise EngineAway("the engine does not answer")
        return [(handle, has) for handle, has in self._containers.items() if labels.items() <= has.items()]

    def remove(self, handle: ContainerHandle) -> None:
        assert is_held(self._home, self._containers[handle][LABEL_OWNER])
        if self._failures:
            self._failures -= 1
            raise RuntimeError("the disk is on fire")
        del self._containers[handle]


def test_an_owned_container_stays_however_long(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    reaper = Reaper([runtime], home, reap_after_s=20)
    with Lease.acquire(home, "job"):
        assert [reaper.step(now) for now in (0, 100, 10_000)] == [[], [], []]
    assert runtime.names == ["job"]


def test_a_training_container_without_an_owner_goes_when_its_time_is_over(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    reaper = Reaper([runtime], home, reap_after_s=20)
    assert [reaper.step(now) for now in (0, 10, 19.9)] == [[], [], []]
    assert reaper.step(20) == ["job"]
    assert runtime.names == []


def test_a_scoring_container_without_an_owner_goes_at_the_second_look(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("replica", kind="scoring")
    reaper = Reaper([runtime], home, reap_after_s=20)
    assert reaper.step(0) == []
    assert reaper.step(3) == ["replica"]


def test_an_owner_that_came_back_starts_the_time_anew(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    reaper = Reaper([runtime], home, reap_after_s=20)
    reaper.step(0)
    with Lease.acquire(home, "job"):
        reaper.step(15)
    assert [reaper.step(now) for now in (21, 40)] == [[], []]
    assert reaper.step(41) == ["job"]


def test_what_is_kept_is_never_removed(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    runtime.add("other")
    reaper = Reaper([runtime], home, reap_after_s=0, keep=lambda labels: labels[LABEL_OWNER] == "job")
    reaper.step(0)
    assert reaper.step(1) == ["other"]
    assert runtime.names == ["job"]


def test_containers_of_another_home_are_not_touched(home: Path, tmp_path: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job", home=tmp_path / "another")
    reaper = Reaper([runtime], home, reap_after_s=0)
    assert [reaper.step(now) for now in (0, 1, 2)] == [[], [], []]
    assert runtime.names == ["job"]


def test_an_engine_that_is_away_does_not_keep_the_others_from_being_cleaned(home: Path) -> None:
    away, here = FakeRuntime(home, "away"), FakeRuntime(home, "here")
    away.add("a-job")
    here.add("b-job")
    away.go_away()
    reaper = Reaper([away, here], home, reap_after_s=5)
    assert reaper.step(0) == []
    assert reaper.step(5) == ["b-job"]
    away.come_back()
    assert reaper.step(6) == []
    assert reaper.step(11) == ["a-job"]


def test_an_engine_that_is_away_is_told_once(home: Path, caplog: object) -> None:
    runtime = FakeRuntime(home)
    runtime.go_away()
    reaper = Reaper([runtime], home, reap_after_s=5)
    for now in range(3):
        reaper.step(now)
    assert [record.getMessage() for record in caplog.records] == [
        "containers of the fake driver cannot be listed for now: the engine does not answer"
    ]


def test_a_removal_that_fails_is_tried_again(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    runtime.fail_next_remove()
    reaper = Reaper([runtime], home, reap_after_s=5)
    assert [reaper.step(now) for now in (0, 5)] == [[], []]
    assert runtime.names == ["job"]
    assert reaper.step(6) == ["job"]


class FakeLeftovers(FakeRuntime):
    """Things of one kind, by the names of the leases of whom they belong to."""


def test_what_an_owner_left_goes_when_its_time_is_over(home: Path) -> None:
    left = FakeLeftovers(home, "fake things")
    left.add("job", kind="")
    left.add("other", kind="")
    reaper = Reaper([FakeRuntime(home)], home, reap_after_s=20, leftovers=[left])
    with Lease.acquire(home, "other"):
        assert [reaper.step(now) for now in (0, 19.9, 20)] == [[], [], ["job"]]
        assert reaper.step(1000) == []
    assert left.names == ["other"]


def test_what_an_owner_left_stays_while_a_container_of_its_is_there(home: Path) -> None:
    """Where removing the container fails, say: it may still write to the memory, and be in the network."""
    runtime, left = FakeRuntime(home), FakeLeftovers(home, "fake things")
    runtime.add("job")
    left.add("job", kind="")
    runtime.fail_next_remove()
    reaper = Reaper([runtime], home, reap_after_s=20, leftovers=[left])
    assert [reaper.step(now) for now in (0, 20)] == [[], []]
    assert left.names == ["job"]
    assert reaper.step(21) == ["job", "job"]
    assert (runtime.names, left.names) == ([], [])


def test_while_an_engine_is_away_nothing_is_taken_for_left_over(home: Path) -> None:
    """It may well run containers of the same owner."""
    runtime, left = FakeRuntime(home), FakeLeftovers(home, "fake things")
    runtime.add("job")
    runtime.go_away()
    left.add("job", kind="")
    reaper = Reaper([runtime], home, reap_after_s=0, leftovers=[left])
    assert [reaper.step(now) for now in (0, 1, 2)] == [[], [], []]
    assert left.names == ["job"]
    runtime.come_back()
    assert [reaper.step(now) for now in (3, 4)] == [[], ["job", "job"]]


def test_a_kind_of_leftovers_that_cannot_be_listed_keeps_nothing_else_from_being_cleaned(home: Path) -> None:
    runtime, away, here = FakeRuntime(home), FakeLeftovers(home, "away"), FakeLeftovers(home, "here")
    runtime.add("a-job")
    away.add("b-job", kind="")
    here.add("c-job", kind="")
    away.go_away()
    reaper = Reaper([runtime], home, reap_after_s=5, leftovers=[away, here])
    assert [reaper.step(now) for now in (0, 5)] == [[], ["a-job", "c-job"]]


def test_leases_of_the_dead_are_collected_once_their_containers_are_gone(home: Path) -> None:
    runtime = FakeRuntime(home)
    runtime.add("job")
    leases = home / "leases"
    leases.mkdir()
    for name in ("job", "long-gone"):
        (leases / name).touch()
    reaper = Reaper([runtime], home, reap_after_s=5)
    with Lease.acquire(home, "living"):
        reaper.step(0)
        assert sorted(path.name for path in leases.iterdir()) == ["job", "living"]
        assert reaper.step(5) == ["job"]
        reaper.step(6)
        assert [path.name for path in leases.iterdir()] == ["living"]


def test_it_says_when_a_look_found_nothing_at_all(home: Path) -> None:
    runtime, left = FakeRuntime(home), FakeLeftovers(home, "fake things")
    reaper = Reaper([runtime], home, reap_after_s=5, leftovers=[left])

    def finds_nothing(now: float) -> bool:
        reaper.step(now)
        return reaper.found_nothing

    assert not reaper.found_nothing, "it has not looked"
    assert finds_nothing(0)
    with Lease.acquire(home, "job"):
        runtime.add("job")
        assert not finds_nothing(1), "what is owned is there too"
    assert not finds_nothing(2)
    assert not finds_nothing(7), "it was there until this look"
    assert finds_nothing(8)
    left.add("other", kind="")
    assert not finds_nothing(9)
    assert not finds_nothing(14)
    assert finds_nothing(15)
    for source in (runtime, left):
        source.go_away()
        assert not finds_nothing(16), "what is not seen may be there"
        source.come_back()
    assert finds_nothing(17)
