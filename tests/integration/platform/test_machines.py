"""Machines on a real Ray cluster: they wait for attempts, run them, keep their room for a moment, and die."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group_table

from raymaker.actors.site import Site
from raymaker.actors.spec import InstanceType, Resources, SourceSpec, Standing, TrainingSpec
from raymaker.actors.storage import StoreConfig
from raymaker.platform.cluster.machine_rooms import ROOM_PREFIX
from raymaker.platform.cluster.machines import Machines
from raymaker.platform.cluster.reporter import CONTROL_NAME
from raymaker.platform.cluster.workers import find_actor
from raymaker.platform.pools.seen import MachineStatus
from raymaker.platform.pools.sizing import Limits
from raymaker.platform.pools.warm_pool import KeptFor
from support.ray_nodes import ray_nodes

TIMEOUT_S = 60.0
TRAIN = """\
import os, pathlib, time
pathlib.Path("/opt/ml/model/pid").write_text("done")
until = pathlib.Path(os.environ["UNTIL"])
while not until.exists():
    time.sleep(0.02)
"""


class FakeControl:
    """A control actor that keeps what it is told, and knows what each job is to run."""

    def __init__(self) -> None:
        self._specs: dict[str, TrainingSpec] = {}
        self._phases: list[tuple[str, str]] = []

    def call(self, method: str, *args: Any, **_: Any) -> Any:
        return getattr(self, f"_{method}", lambda *_: None)(*args)

    def add(self, spec: TrainingSpec) -> None:
        self._specs[spec.job_name] = spec

    def phases(self, job_name: str) -> list[str]:
        return [phase for name, phase in self._phases if name == job_name]

    def pid(self) -> int:
        return os.getpid()

    def _report(self, report: Any) -> None:
        self._phases.append((report.job_name, report.phase))

    def _standing(self, job_name: str, _attempt: int) -> Standing:
        return Standing(self._specs[job_name])

    def _last_log_time(self, _group: str, _stream: str) -> int:
        return 0


@pytest.fixture(scope="module")
def control() -> Iterator[Any]:
    """A cluster of one node with 2 CPUs, and the control actor of machines there."""
    with ray_nodes({"num_cpus": 2, "num_gpus": 1, "dashboard_agent_listen_port": 0}):
        actor: Any = ray.remote(FakeControl).options(name=CONTROL_NAME, num_cpus=0, max_concurrency=8).remote()
        ray.get(actor.pid.remote())
        yield actor


class World:
    """Machines of one home, and jobs that run on them until they are told to end."""

    def __init__(self, control: Any, home: Path) -> None:
        self.control, self.home = control, home
        self.site = Site(home, "process", StoreConfig(), "no-image", stop_grace_s=1)
        self.freed: list[float] = []
        self.machines = self.anew()
        (home / "code").mkdir()
        (home / "code" / "train.py").write_text(TRAIN)

    def anew(self, least: int = 1) -> Machines:
        return Machines(self.site, Limits(least, 2), lambda: self.freed.append(time.time()))

    def spec(self, name: str, cpus: float = 1, gpus: float = 0, pool: str | None = None) -> TrainingSpec:
        source = SourceSpec(f"file://{self.home}/code", "train.py")
        environment = {"UNTIL": str(self.home / name)}
        kind = InstanceType("type", Resources(cpus, gpus=gpus))
        spec = TrainingSpec(
            name, f"arn:{name}", "here", 1, kind, f"file://{self.home}/out", source=source, environment=environment
        )
        spec = dataclasses.replace(spec, warm_pool=pool)
        ray.get(self.control.add.remote(spec))
        return spec

    def run(self, name: str, cpus: float = 1, **how: Any) -> Any:
        """Have a job run, and return once its container trains."""
        placed = self.machines.run(self.spec(name, cpus, **how))
        self.until(lambda: "Training" in self.phases(name))
        return placed

    def end(self, name: str) -> None:
        (self.home / name).touch()
        self.until(lambda: "Completed" in self.phases(name))

    def leave(self, name: str, *, is_free: bool = True, **how: Any) -> None:
        """Run a job to its end, of which something is kept; the pool's machine is free then, or runs another."""
        self.run(name, **how)
        self.end(name)
        self.machines.note_end((name, 1))
        self.until(lambda: (name, 1) not in self.machines.attempts())
        assert self.machines.keep_pools({"pool": KeptFor(name, 9.0)}) == {"pool": is_free}

    def phases(self, name: str) -> list[str]:
        found: list[str] = ray.get(self.control.phases.remote(name))
        return found

    def pids(self) -> set[int]:
        """The processes of all machines that wait, run or warm up."""
        return {found.pid for found in ray.get([each.occupation.remote() for each in self.actors()], timeout=TIMEOUT_S)}

    def actors(self) -> list[Any]:
        """All machines that live."""
        names = [name for name in ray.util.list_named_actors() if name.startswith("machine/")]
        return [actor for name in names if (actor := find_actor(name)) is not None]

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            self.machines.keep_warm(time.time())
            time.sleep(0.05)
        return found


@pytest.fixture
def world(control: Any, home: Path) -> Iterator[World]:
    there = World(control, home)
    yield there
    for actor in there.actors():
        ray.kill(actor)
    there.machines.give_room()
    there.machines = there.anew(least=0)
    there.until(lambda: not there.machines.attempts())
    there.machines.sweep()
    there.machines.sweep()
    there.until(lambda: not rooms())


def rooms() -> list[str]:
    found = placement_group_table().values()
    return [group["name"] for group in found if group["state"] != "REMOVED" and group["name"].startswith(ROOM_PREFIX)]


def test_one_machine_runs_jobs_one_after_another_and_keeps_its_room_for_a_moment(world: World) -> None:
    world.until(world.pids)
    assert world.run("first") is None, "it has its room at once"
    assert world.machines.attempts() == {("first", 1)}
    (first_room,) = rooms()
    world.end("first")
    world.machines.note_end(("first", 1))
    assert world.machines.attempts() == frozenset()
    assert world.machines.held() == Resources(1)
    before = world.pids()
    assert world.run("second") is None
    assert rooms() == [first_room], "the second one has the room of the first"
    assert world.machines.held() == Resources(0)
    world.end("second")
    world.until(lambda: world.freed)
    world.until(lambda: not rooms())  # what nobody uses is given back
    assert before & world.pids(), "the process waits for another"


def test_a_job_of_another_kind_takes_what_a_waiting_machine_holds(world: World) -> None:
    world.run("small")
    world.end("small")
    world.machines.note_end(("small", 1))
    assert world.machines.held() == Resources(1)
    assert world.run("large", cpus=2) is None
    assert world.machines.attempts() == {("large", 1)}
    world.end("large")


def test_what_has_no_room_waits_for_it_and_is_run_then(world: World) -> None:
    world.run("running", cpus=2)
    placed = world.machines.run(world.spec("waiting", cpus=2))
    assert placed is not None
    assert not ray.wait([placed], timeout=1)[0]
    assert world.machines.attempts() == {("running", 1), ("waiting", 1)}
    world.end("running")
    world.machines.note_end(("running", 1))
    world.machines.attempts()
    world.machines.give_room()
    world.until(lambda: "Training" in world.phases("waiting"))
    world.end("waiting")
    world.until(lambda: not world.machines.attempts())


def test_a_machine_that_dies_is_missed_and_another_takes_its_container_up(world: World) -> None:
    world.run("unlucky")
    for pid in world.pids():
        os.kill(pid, signal.SIGKILL)
    world.until(lambda: not world.machines.attempts())
    world.machines.run(world.spec("unlucky"))
    world.until(lambda: world.phases("unlucky").count("Training") == 2)
    assert world.phases("unlucky").count("Downloading") == 1, "the container that runs was taken up"
    world.end("unlucky")


def test_a_new_control_actor_finds_the_machines_and_what_they_run(world: World) -> None:
    world.run("lasting")
    pids = world.pids()
    world.machines = world.anew()
    assert world.machines.attempts() == {("lasting", 1)}
    assert world.machines.sweep() == world.machines.sweep() == []
    assert world.pids() == pids
    world.end("lasting")
    world.until(lambda: not world.machines.attempts())
    assert world.freed


@pytest.mark.parametrize("gpus", [0, 1])
def test_what_a_warm_pool_keeps_is_for_its_jobs_alone_until_it_is_let_go_of(world: World, gpus: int) -> None:
    first, stranger, second = (f"{name}-{gpus}" for name in ("keeps", "stranger", "reuses"))
    world.leave(first, gpus=gpus, pool="pool")
    (room,) = rooms()
    world.machines.keep_warm(time.time())
    (kept,) = [it for it in world.machines.pool.machines if it.status is MachineStatus.KEPT]
    assert (kept.job_name, kept.kept_until) == (first, 9.0)
    assert world.machines.held() == Resources(0)
    assert not world.machines.give_room(), "nobody else has its room"
    world.run(stranger)
    assert len(rooms()) == 2
    world.end(stranger)
    world.machines.note_end((stranger, 1))
    world.machines = world.anew()
    assert world.machines.keep_pools({"pool": KeptFor(first, 9.0)}) == {"pool": True}, "a new control actor finds it"
    world.run(second, gpus=gpus, pool="pool")
    assert room in rooms()
    assert (world.home / "warm-pools" / "pool" / "0").is_dir()
    assert world.machines.keep_pools({}) == {"pool": False}, "what runs goes on, whatever the records say"
    world.end(second)
    world.machines.note_end((second, 1))
    world.until(lambda: not world.machines.attempts())
    assert world.machines.keep_pools({}) == {}
    world.until(lambda: room not in rooms())


def test_a_kept_machine_that_dies_has_its_room_given_back(world: World) -> None:
    world.leave("doomed", pool="pool")
    for pid in world.pids():
        os.kill(pid, signal.SIGKILL)
    world.until(lambda: not world.machines.keep_pools({"pool": KeptFor("doomed", 9.0)}))
    world.until(lambda: not rooms())


def test_one_machine_is_kept_for_a_pool_though_two_were_of_it(world: World) -> None:
    world.run("slow", pool="pool")
    world.leave("quick", pool="pool", is_free=False)
    assert len(rooms()) == 1, "that of the one that runs"
    world.end("slow")
    world.machines.note_end(("slow", 1))
    assert world.machines.keep_pools({"pool": KeptFor("slow", 9.0)}) == {"pool": True}
