"""The keeper of a container that dies: another is started, later and later, and at last it is given up."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from raymaker.actors.errors import ImageError, ScoringError
from raymaker.actors.lease import is_held
from raymaker.actors.site import Site
from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.actors.storage import StoreConfig
from raymaker.serving import keeper
from raymaker.serving.keeper import GIVE_UP_AFTER, ContainerKeeper, pause_before
from raymaker.serving.spec import EndpointSpec, VariantSpec

LEASE = "scoring-e-r1"


class FakeContainer:
    """A container that dies when told to, and whose next starts may be made to fail."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.starts = 0
        self.lives = self.is_removed = False

    def fail_next_start(self, *failures: Exception) -> None:
        self.failures += failures

    def die(self, how: str) -> None:
        if self.lives:
            self.lives = False
            self.ends.put(how)

    def start(self) -> tuple[str, int]:
        self.starts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.lives = True
        return ("10.0.0.1", 8080 + self.starts)

    def wait(self) -> str:
        return self.ends.get()

    def kill(self) -> None:
        self.die("killed")

    def rest(self) -> None:
        self.die("rests")

    def stop(self) -> None:
        self.die("stopped")

    def remove(self) -> None:
        self.is_removed = True


class FakeMachine(ContainerKeeper):
    """A keeper of a fake container, with what it told."""

    def __init__(self, home: Path) -> None:
        self.fake = FakeContainer()
        self.addresses: list[tuple[str, int] | None] = []
        self.told: list[tuple[str, bool]] = []
        self.changed = threading.Condition()
        spec = EndpointSpec("e", "c", 1, (VariantSpec("v", 1, InstanceType("local", Resources()), ScoringSpec()),))
        site = Site(home, "docker", StoreConfig(), "base")
        super().__init__(spec, site, "r1", on_address=self.hear, tell=self.note, on_log=lambda _: None)

    def _prepare(self) -> FakeContainer:  # type: ignore[override]
        self._folder.mkdir(parents=True)
        return self.fake

    def hear(self, address: tuple[str, int] | None) -> None:
        with self.changed:
            self.addresses.append(address)
            self.changed.notify_all()

    def note(self, message: str, failed: bool) -> None:  # noqa: FBT001 - the keeper's own signature
        with self.changed:
            self.told.append((message, failed))
            self.changed.notify_all()

    def wait_for_addresses(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.addresses) >= count, timeout=10)

    def wait_for_failures(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: sum(failed for _, failed in self.told) >= count, timeout=10)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.0)


def test_a_container_that_dies_is_started_again_and_both_are_told(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.fake.die("exit code 137")
    machine.wait_for_addresses(3)
    assert machine.addresses == [("10.0.0.1", 8081), None, ("10.0.0.1", 8082)]
    machine.stop()
    assert ("The scoring container ended: exit code 137", True) in machine.told


def test_stopping_leaves_no_container_no_folder_and_no_lease(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    assert is_held(tmp_path, LEASE)
    machine.stop()
    assert machine.fake.is_removed
    assert machine.fake.starts == 1
    assert not is_held(tmp_path, LEASE)
    assert list((tmp_path / "endpoints").iterdir()) == []


def test_a_first_start_that_fails_raises_and_leaves_nothing(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.fake.fail_next_start(ImageError("no such image"))
    with pytest.raises(ImageError):
        machine.start()
    assert machine.fake.is_removed
    assert not is_held(tmp_path, LEASE)
    assert list((tmp_path / "endpoints").iterdir()) == []
    machine.stop()


def test_starts_that_fail_are_told_and_tried_again_until_the_machine_is_given_up(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.fake.fail_next_start(*[ScoringError("no /ping")] * (GIVE_UP_AFTER - 1))
    assert not machine.given_up
    machine.fake.die("exit code 1")
    machine.wait_for_addresses(3)
    assert machine.given_up
    assert [message for message, failed in machine.told if failed and "no /ping" in message]
    machine.stop()


def test_a_container_that_is_no_longer_believed_in_is_killed_and_started_again(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.replace("it hangs")
    machine.wait_for_addresses(3)
    assert machine.told[1] == ("The scoring container is replaced: it hangs", True)
    machine.stop()


def test_one_that_rests_is_gone_until_it_is_wanted_and_its_rest_is_no_failure(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.expect_rest()
    machine.rest()
    machine.wait_for_addresses(2)
    assert machine.fake.starts == 1
    machine.rise()
    machine.rise()
    machine.wait_for_addresses(3)
    assert (machine.fake.starts, machine.fake.is_removed, machine.addresses[1]) == (2, True, None)
    assert not [message for message, failed in machine.told if failed]
    machine.fake.die("exit code 1")
    machine.wait_for_addresses(5)
    machine.stop()


def test_one_that_is_wanted_before_it_has_come_to_rest_starts_at_once(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.expect_rest()
    machine.rise()
    machine.rest()
    machine.wait_for_addresses(3)
    assert machine.fake.starts == 2
    machine.stop()


def test_one_that_rests_can_be_stopped(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.start()
    machine.expect_rest()
    machine.rest()
    machine.wait_for_addresses(2)
    machine.stop()
    assert machine.fake.starts == 1
    assert not is_held(tmp_path, LEASE)


def test_folders_of_dead_replicas_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    living = FakeMachine(tmp_path)
    living.start()
    (tmp_path / "endpoints" / "scoring-e-dead").mkdir()
    keeper._sweep(living._site)
    assert [folder.name for folder in (tmp_path / "endpoints").iterdir()] == [LEASE]
    living.stop()


def test_pauses_grow_from_nothing_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.5)
    assert [pause_before(count) for count in (0, 1, 2, 3, 4, 20)] == [0, 0.5, 1, 2, 4, 30]
