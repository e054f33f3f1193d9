"""A scoring container's start, wait and end, on a runtime that is a small class and a clock that only it moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.actors.algorithm import Algorithm
from raymaker.actors.errors import ContainerMissing, ScoringError
from raymaker.actors.runtime.base import ContainerHandle, ContainerState, ExitStatus, LogLine, Phase
from raymaker.actors.scoring import STOP_GRACE_S, ScoringContainer
from raymaker.actors.spec import ContainerSpec, Network, ScoringSpec


class FakeRuntime:
    """Runs one container that lives until `dies_at`; every second waited for passes on its own clock."""

    def __init__(self, name: str = "docker") -> None:
        self.name = name
        self.now = 0.0
        self.dies_at = float("inf")
        self.address: str | None = "10.0.0.1"
        self.log = ["hello"]
        self.started: list[ContainerSpec] = []
        self.stopped: list[float] = []
        self.removed = 0

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        self.started.append(spec)
        return ContainerHandle(self.name, spec.name, str(len(self.started)))

    def inspect(self, handle: ContainerHandle) -> ContainerState:
        dead = self.now >= self.dies_at
        return ContainerState(Phase.EXITED if dead else Phase.RUNNING, address=self.address)

    def wait(self, handle: ContainerHandle, timeout_s: float | None = None) -> ExitStatus | None:
        if self.removed:
            raise ContainerMissing("gone")
        if timeout_s is not None and self.now + timeout_s < self.dies_at:
            self.now += timeout_s
            return None
        self.now = max(self.now, self.dies_at)
        return ExitStatus(137, 9, oom_killed=True)

    def stop(self, handle: ContainerHandle, grace_s: float) -> None:
        self.stopped.append(grace_s)

    def remove(self, handle: ContainerHandle) -> None:
        self.removed += 1

    def logs(self, handle: ContainerHandle, since_ns: int = 0, *, follow: bool = False) -> Iterator[LogLine]:
        yield from (LogLine(number, text) for number, text in enumerate(self.log))


class FakePing:
    """Says what is wrong until `healthy_after` questions were asked."""

    def __init__(self, healthy_after: float) -> None:
        self.healthy_after = healthy_after
        self.asked: list[tuple[str, int]] = []

    def __call__(self, address: tuple[str, int]) -> str | None:
        self.asked.append(address)
        return None if len(self.asked) > self.healthy_after else "status 503"


def container(runtime: FakeRuntime, ask: FakePing, said: list[str] | None = None, **spec: object) -> ScoringContainer:
    return ScoringContainer(
        runtime,  # type: ignore[arg-type]
        Algorithm(image="sha256:1"),
        ScoringSpec(image="i", startup_timeout_s=60, **spec),  # type: ignore[arg-type]
        name="c",
        folder=Path("/models/m"),
        labels={"a": "b"},
        on_log=lambda lines: (said if said is not None else []).extend(line.text for line in lines),
        ask=ask,
        clock=lambda: runtime.now,
    )


def test_it_is_asked_until_it_is_healthy() -> None:
    runtime, ask = FakeRuntime(), FakePing(healthy_after=5)
    assert container(runtime, ask).start() == ("10.0.0.1", 8080)
    assert ask.asked == [("10.0.0.1", 8080)] * 6


def test_it_is_started_as_the_contract_says() -> None:
    runtime = FakeRuntime()
    container(runtime, FakePing(0), model_uri="file:///m", environment={"A": "1"}).start()
    (spec,) = runtime.started
    assert spec.command == ("serve",)
    assert spec.network is Network.INTERNAL
    assert [(mount.source, mount.target, mount.read_only) for mount in spec.mounts] == [
        ("/models/m", "/opt/ml/model", True)
    ]
    assert dict(spec.environment) == {"A": "1"}
    assert dict(spec.labels) == {"a": "b"}


def test_a_model_in_the_image_is_not_hidden_by_a_mount() -> None:
    runtime = FakeRuntime()
    container(runtime, FakePing(0)).start()
    assert runtime.started[0].mounts == ()


def test_a_container_that_never_answers_is_given_up_after_its_time_and_removed() -> None:
    runtime = FakeRuntime()
    with pytest.raises(ScoringError, match=r"(?s)within 60 s \(last try: status 503\).*hello"):
        container(runtime, FakePing(healthy_after=1e9)).start()
    assert 60 <= runtime.now < 62
    assert runtime.removed == 1


def test_a_container_that_dies_while_it_starts_is_seen_at_once_and_removed() -> None:
    runtime = FakeRuntime()
    runtime.dies_at = 3.0
    with pytest.raises(ScoringError, match=r"(?s)ended before it answered GET /ping: .*137.*memory.*hello"):
        container(runtime, FakePing(healthy_after=1e9)).start()
    assert runtime.now == 3.0
    assert runtime.removed == 1


def test_its_end_is_told_with_its_cause_and_last_words() -> None:
    runtime = FakeRuntime()
    runtime.log = [f"line {number}" for number in range(100)]
    running = container(runtime, FakePing(0))
    running.start()
    runtime.dies_at = 10.0
    told = running.wait()
    assert "137" in told
    assert told.count("line ") == 20
    assert told.endswith("line 99")


def test_a_container_that_was_removed_from_outside_is_told_so() -> None:
    runtime = FakeRuntime()
    running = container(runtime, FakePing(0))
    running.start()
    runtime.removed = 1
    assert "removed from outside" in running.wait()


def test_stopping_gives_grace_and_is_for_good() -> None:
    runtime = FakeRuntime()
    running = container(runtime, FakePing(0))
    running.start()
    running.stop()
    assert runtime.stopped == [STOP_GRACE_S]
    with pytest.raises(ScoringError, match="was stopped"):
        running.start()
    assert runtime.removed == 2


def test_every_line_it_said_is_delivered_by_its_end() -> None:
    runtime, said = FakeRuntime(), []
    runtime.log = [str(number) for number in range(2500)]
    running = container(runtime, FakePing(0), said)
    running.start()
    running.remove()
    assert said == runtime.log


def test_starting_again_leaves_nothing_of_the_one_before() -> None:
    runtime = FakeRuntime()
    running = container(runtime, FakePing(0))
    running.start()
    runtime.removed = 0
    running.start()
    assert len(runtime.started) == 2
