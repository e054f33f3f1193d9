"""Containers that wait inside their start, on a real engine: what they become is what a cold start would have made."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from raymaker.actors.lease import is_held
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_KIND, LABEL_OWNER, ContainerHandle, Phase
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.standby import LABEL_STANDBY, Standbys
from raymaker.actors.spec import ContainerSpec, Mount, Network, Resources

TELL_ALL = """\
echo "$0|$1|$ODD|$PWD|$(hostname)|$(readlink /proc/self/fd/0)|$(id -u)"
echo "$LINES_OF_IT"
cat /data/in/note /data/in/deep/note /data/file
(echo x > /data/in/new) 2>/dev/null && echo "written" || echo "read-only"
echo result > /data/out/result
exit 7
"""


@pytest.fixture
def image(engine: docker.DockerClient, base_image: str) -> str:
    return str(engine.images.get(base_image).id)


@dataclasses.dataclass
class World:
    home: Path
    image: str
    engine: docker.DockerClient
    standbys: Standbys
    handles: list[ContainerHandle] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = DockerRuntime(self.home, self.standbys)

    def spec(self, name: str = "one", **changes: object) -> ContainerSpec:
        made = ContainerSpec(
            name=f"raymaker-test-{self.home.parent.name}-{name}",
            image=self.image,
            command=("-c", TELL_ALL, "zero", "it's one"),
            entrypoint=("/bin/sh",),
            environment={"ODD": "a 'b' \"c\" $d `e`", "LINES_OF_IT": "first\nsecond\n"},
            labels={LABEL_KIND: "training", LABEL_OWNER: name, LABEL_HOME: str(self.home), "raymaker.job": name},
            resources=Resources(cpus=1, memory_bytes=256 * 1024**2),
            hostname="algo-1",
        )
        return dataclasses.replace(made, **changes)  # type: ignore[arg-type]

    def with_mounts(self) -> tuple[Mount, ...]:
        for folder in ("in", "deep", "out"):
            (self.home / "data" / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "data" / "in" / "note").write_text("outer\n")
        (self.home / "data" / "deep" / "note").write_text("inner\n")
        (self.home / "data" / "file").write_text("a file\n")
        data = self.home / "data"
        return (
            Mount(str(data / "deep"), "/data/in/deep"),
            Mount(str(data / "in"), "/data/in", read_only=True),
            Mount(str(data / "out"), "/data/out"),
            Mount(str(data / "file"), "/data/file", read_only=True),
        )

    def start(self, spec: ContainerSpec) -> ContainerHandle:
        self.handles.append(self.runtime.start(spec))
        return self.handles[-1]

    def was_standby(self, handle: ContainerHandle) -> bool:
        return LABEL_STANDBY in self.engine.containers.get(handle.id).labels

    def run(self, spec: ContainerSpec) -> tuple[ContainerHandle, int, list[str]]:
        handle = self.start(spec)
        status = self.runtime.wait(handle, 30)
        assert status is not None
        return handle, status.code, [line.text for line in self.runtime.logs(handle)]

    def waiting(self) -> list[str]:
        labels = {"label": [LABEL_STANDBY, f"{LABEL_HOME}={self.home}"]}
        found = self.engine.containers.list(all=True, filters=labels)
        return [str(each.id) for each in found if "-standby-" in str(each.name)]


@pytest.fixture
def world(engine: docker.DockerClient, image: str, home: Path) -> Iterator[World]:
    standbys = Standbys(home, 1)
    there = World(home, image, engine, standbys)
    yield there
    standbys.close()
    for handle in there.handles:
        there.runtime.remove(handle)
    assert not there.waiting()
    assert not list((home / "standbys").glob("*"))


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_what_waited_becomes_what_a_cold_start_makes(world: World) -> None:
    mounts = world.with_mounts()
    cold = world.run(world.spec("cold", mounts=mounts))
    assert not world.was_standby(cold[0])
    world.standbys.replenish()
    assert len(world.waiting()) == 1
    begun = time.time()
    warm = world.run(world.spec("warm", mounts=mounts))
    assert world.was_standby(warm[0])
    assert warm[1:] == cold[1:]
    assert warm[1] == 7
    assert "zero|it's one|a 'b' \"c\" $d `e`|" in warm[2][0]
    assert warm[2][1:] == ["first", "second", "", "outer", "inner", "a file", "read-only"]
    assert (world.home / "data" / "out" / "result").read_text() == "result\n"
    state = world.runtime.inspect(warm[0])
    assert state.phase is Phase.EXITED
    assert state.started_at is not None
    assert begun <= state.started_at <= time.time(), "it began when it was told to"
    ((found, labels),) = world.runtime.owned({"raymaker.job": "warm", LABEL_HOME: str(world.home)})
    assert (found.id, found.name, labels[LABEL_OWNER]) == (warm[0].id, warm[0].name, "warm")
    assert not world.waiting()


def test_the_images_own_program_is_run_where_none_is_named(world: World) -> None:
    plain = world.spec(entrypoint=None, command=("echo", "by the image"))
    assert world.run(dataclasses.replace(plain, name=f"{plain.name}-cold"))[1:] == (0, ["by the image"])
    world.standbys.replenish()
    handle, code, lines = world.run(plain)
    assert (world.was_standby(handle), code, lines) == (True, 0, ["by the image"])


@pytest.mark.parametrize("network", [Network.NONE, Network.INTERNAL, Network.OPEN])
def test_its_network_and_its_name_are_those_of_a_cold_start(world: World, network: Network) -> None:
    asks = 'getent hosts "$(hostname)" | sed "s/.* //"; exec sleep 60'
    asking = world.spec("cold", network=network, command=("-c", asks))
    found = []
    for name in ("cold", "warm"):
        handle = world.start(dataclasses.replace(asking, name=f"{asking.name}-{name}"))
        until(lambda handle=handle: any(True for _ in world.runtime.logs(handle)), "it says its name")  # type: ignore[misc]
        (line,) = world.runtime.logs(handle)
        found.append((line.text, world.runtime.inspect(handle).address is not None))
        world.standbys.replenish()
    assert world.was_standby(handle)
    assert found == [("algo-1", network is not Network.NONE)] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": Resources(cpus=1, memory_bytes=300 * 1024**2)},
        {"network": Network.OPEN},
        {"network": Network.HOST},
        {"network": Network.OPEN, "hosts": {"other": "192.0.2.1"}},
        {"hostname": "algo-2"},
        {"environment": {"not-a-name": "1"}},
        {"read_only_root": True},
    ],
)
def test_one_of_another_kind_starts_cold(world: World, changes: dict[str, object]) -> None:
    world.run(world.spec("first", command=("-c", "true")))
    world.standbys.replenish()
    handle, code, _ = world.run(world.spec("other", command=("-c", "exit 3"), **changes))
    assert (world.was_standby(handle), code) == (False, 3)


def test_one_that_died_while_it_waited_costs_nothing_but_time(world: World) -> None:
    world.run(world.spec("first", command=("-c", "true")))
    world.standbys.replenish()
    (waiting,) = world.waiting()
    world.engine.containers.get(waiting).kill()
    handle, code, _ = world.run(world.spec("second", command=("-c", "exit 3")))
    assert (world.was_standby(handle), code) == (False, 3)
    assert not world.waiting(), "nothing is left of it"
    world.standbys.replenish()
    assert len(world.waiting()) == 1


def test_one_whose_maker_dies_ends_by_itself_and_is_reaped(world: World) -> None:
    world.run(world.spec("first", command=("-c", "true")))
    world.standbys.replenish()
    (waiting,) = world.waiting()
    (standby,) = world.standbys._waiting
    assert is_held(world.home, standby._token)
    standby._hang_up()
    until(lambda: world.engine.containers.get(waiting).status == "exited", "it ends")
    assert world.engine.containers.get(waiting).attrs["State"]["ExitCode"] == 125
    standby._lease.release()
    world.standbys._waiting.clear()
    reaper = Reaper([world.runtime], world.home, reap_after_s=0)
    reaper.step(1.0)
    reaper.step(2.0)
    assert not world.waiting()


def test_one_that_was_told_half_starts_nothing_and_is_lost(world: World) -> None:
    world.run(world.spec("first", command=("-c", "true")))
    world.standbys.replenish()
    (standby,) = world.standbys._waiting
    marker = world.home / "data" / "out"
    marker.mkdir(parents=True)

    def half(program: list[str], _environment: object) -> None:
        standby._stream.sendall(f"exec {program[0]} -c 'echo ran > /data/out/ran".encode())
        raise ConnectionResetError("the maker died")

    standby._tell = half  # type: ignore[method-assign]
    standby.close = lambda: None  # type: ignore[method-assign]
    spec = world.spec("second", mounts=(Mount(str(marker), "/data/out"),))
    with contextlib.suppress(ConnectionResetError):
        standby.become(spec)
    world.standbys._waiting.clear()
    standby._hang_up()
    ((found, _),) = world.runtime.owned({"raymaker.job": "second"})
    world.handles.append(found)
    status = world.runtime.wait(found, 20)
    assert status is not None
    assert status.lost
    assert not (marker / "ran").exists()
    standby._lease.release()
