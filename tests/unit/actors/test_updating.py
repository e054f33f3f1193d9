"""How the machines of a job change it together: prepared, told, heard or not, replaced; without containers or time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from raymaker.actors.board import Board
from raymaker.actors.errors import PackagingError, StorageError
from raymaker.actors.reports import UpdateReport, UpdateStage
from raymaker.actors.spec import (
    InstanceType,
    Manner,
    Place,
    Revisions,
    SourceSpec,
    Standing,
    TrainingSpec,
    UpdateSpec,
)
from raymaker.actors.updating import Updating

SPEC = TrainingSpec("job", "arn", "here", 1, InstanceType("local", None), "file:///out", image="one")  # type: ignore[arg-type]


def update(manner: Manner = Manner.TELL, number: int = 1, **changes: Any) -> UpdateSpec:
    spec = dataclasses.replace(SPEC, revisions=Revisions(number))
    return dataclasses.replace(UpdateSpec(spec, manner, hear_timeout_s=10.0), **changes)


class FakeInstance:
    """Containers that hear when the test says so."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.ranks: tuple[int, ...] = ()
        self.did: list[str] = []
        self.refusals: dict[str, Exception] = {}
        self.needs_build = False

    def stage_code(self, source: SourceSpec) -> str | None:
        self._do("stage")
        return "it has a build.sh" if self.needs_build else None

    def prepare_next(self, spec: TrainingSpec) -> None:
        self._do("prepare")

    def tell(self, spec: TrainingSpec) -> None:
        self._do("tell")
        self.spec = spec

    def heard(self, number: int) -> tuple[int, ...]:
        return self.ranks

    def take_back(self, number: int, spec: TrainingSpec) -> bool:
        if self.ranks:
            return False
        self._do("take back")
        self.spec = spec
        return True

    def _do(self, what: str) -> None:
        if what in self.refusals:
            raise self.refusals[what]
        self.did.append(what)


class FakeReporter:
    """The platform: what it wants, and what it was told."""

    def __init__(self) -> None:
        self.update: UpdateSpec | None = None
        self.told: list[UpdateReport] = []

    def standing(self, job_name: str, attempt: int) -> Standing:
        return Standing(SPEC, self.update)

    def report_update(self, report: UpdateReport) -> bool:
        self.told.append(report)
        if report.stage is not UpdateStage.RESTARTING:
            self.update = None
        return True

    @property
    def stages(self) -> list[UpdateStage]:
        return [report.stage for report in self.told]


class BoardCrew:
    """A machine among those that share a board."""

    def __init__(self, board: Board, place: Place) -> None:
        self.board = board
        self.place = place

    def offer(self, name: str, mine: Any) -> Mapping[int, Any]:
        return self.board.offer(1, name, self.place.machine_index, mine)

    def wanted_revision(self) -> int:
        return self.board.wanted_revision


class World:
    """Some machines of one job, which all look at each tick."""

    def __init__(self, count: int) -> None:
        self.now = 0.0
        self.board = Board()
        self.board.begin(1, count)
        self.reporter = FakeReporter()
        self.instances = [FakeInstance() for _ in range(count)]
        self.machines = [
            Updating(instance, self.reporter, BoardCrew(self.board, Place(index, count)), lambda: self.now)  # type: ignore[arg-type]
            for index, instance in enumerate(self.instances)
        ]

    def want(self, wanted: UpdateSpec) -> None:
        self.reporter.update = wanted
        self.board.want(wanted.number)

    def until(self, condition: Callable[[], object]) -> list[UpdateSpec | None]:
        """Look at all machines until something is so; what preparing threads do ends meanwhile."""
        for _ in range(2000):
            found = [machine.look() for machine in self.machines]
            if condition() or any(found):
                return found
            for machine in self.machines:
                machine._thread.submit(lambda: None).result()
        pytest.fail("it never came to be")

    def tick(self, count: int = 3) -> None:
        for _ in range(count):
            for machine in self.machines:
                assert machine.look() is None


@pytest.fixture(params=[1, 3])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_without_a_wish_nothing_happens(world):
    world.tick()
    assert world.reporter.told == []


def test_what_one_rank_hears_of_is_in_force_at_all_machines(world):
    world.want(update())
    world.until(lambda: all("tell" in it.did for it in world.instances))
    world.instances[-1].ranks = (4,)
    world.until(lambda: world.reporter.told)
    world.tick()
    assert world.reporter.stages == [UpdateStage.APPLIED]
    assert world.reporter.told[0].heard_by == (4,)
    assert [it.spec.revisions.number for it in world.instances] == [1] * len(world.instances)
    world.now += 1000
    world.tick()
    assert all("take back" not in it.did for it in world.instances)


def test_what_nobody_hears_of_in_time_fails_and_is_taken_back(world):
    world.want(update())
    world.until(lambda: all("tell" in it.did for it in world.instances))
    world.now += 9.9
    world.tick()
    assert world.reporter.told == []
    world.now += 0.2
    world.until(lambda: world.reporter.told)
    assert world.reporter.stages == [UpdateStage.FAILED]
    assert "IfNotHeard Restart" in world.reporter.told[0].reason
    assert [it.spec for it in world.instances] == [SPEC] * len(world.instances)


def test_what_nobody_hears_of_replaces_the_containers_where_that_was_allowed(world):
    wanted = update(may_restart=True)
    world.want(wanted)
    world.until(lambda: all("tell" in it.did for it in world.instances))
    world.now += 11
    ready: set[int] = set()

    def all_give_way() -> bool:
        ready.update(i for i, machine in enumerate(world.machines) if i not in ready and machine.look() is wanted)
        return len(ready) == len(world.machines)

    for _ in range(2000):
        if all_give_way():
            break
        for machine in world.machines:
            machine._thread.submit(lambda: None).result()
    assert len(ready) == len(world.machines)
    assert all(it.did == ["tell", "take back", "prepare"] for it in world.instances)
    assert world.reporter.told == [], "that they go is told by those who end them"


def test_code_that_cannot_be_laid_out_on_one_machine_is_told_to_none(world):
    world.instances[-1].refusals["stage"] = PackagingError("'../x' leads out of the archive")
    world.want(update(changes_code=True, spec=dataclasses.replace(update().spec, source=SourceSpec("s", "e"))))
    world.until(lambda: world.reporter.told)
    assert world.reporter.stages == [UpdateStage.FAILED]
    assert "../x" in world.reporter.told[0].reason
    assert all("tell" not in it.did for it in world.instances)


def test_code_with_a_build_cannot_be_told(world):
    world.instances[0].needs_build = True
    world.want(update(changes_code=True, spec=dataclasses.replace(update().spec, source=SourceSpec("s", "e"))))
    world.until(lambda: world.reporter.told)
    assert world.reporter.stages == [UpdateStage.FAILED]
    assert "build.sh" in world.reporter.told[0].reason


def test_an_image_that_cannot_be_had_fails_before_anything_ends(world):
    world.instances[0].refusals["prepare"] = PackagingError("there is no such image")
    world.want(update(Manner.REPLACE))
    world.until(lambda: world.reporter.told)
    assert (world.reporter.stages, world.reporter.told[0].reason) == ([UpdateStage.FAILED], "there is no such image")


def test_a_machine_whose_folder_is_spoilt_counts_as_one_where_nobody_hears(world):
    world.instances[-1].refusals["tell"] = StorageError("no space is left")
    world.want(update())
    world.until(lambda: len(world.instances) == 1 or "tell" in world.instances[0].did)
    world.now += 11
    world.until(lambda: world.reporter.told)
    assert world.reporter.stages == [UpdateStage.FAILED]


def test_after_one_change_comes_the_next(world):
    for number in (1, 2):
        world.want(update(number=number))
        for it in world.instances:
            it.ranks = ()
        world.until(lambda n=number: all(it.did.count("tell") == n for it in world.instances))
        world.instances[0].ranks = (0,)
        world.until(lambda n=number: len(world.reporter.told) == n)
        world.tick()
    assert [report.revision for report in world.reporter.told] == [1, 2]


def test_a_change_that_is_settled_already_is_passed_over(world):
    world.board.want(1)
    world.tick()
    assert world.reporter.told == []
    assert all(not it.did for it in world.instances)


def test_a_machine_that_has_given_its_word_is_bound_until_all_have(world):
    world.want(update(Manner.MOVE))
    first, *others = world.machines
    first.look()
    first._thread.submit(lambda: None).result()
    found = first.look()
    assert (found is not None) == (not others)
    assert first.is_bound() == bool(others)
