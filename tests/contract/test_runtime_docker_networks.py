"""The networks of groups in a container engine: apart from each other, made once, gone with their last container."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

import docker
import pytest
from contract.runtime_harness import SHARED, SOON_S, Harness
from docker.types import IPAMConfig, IPAMPool

from raymaker.actors.errors import StartError
from raymaker.actors.reaper import Reaper
from raymaker.actors.runtime import docker_networks
from raymaker.actors.runtime.base import (
    LABEL_GROUP,
    LABEL_HOME,
    LABEL_OWNER,
    ContainerHandle,
    ContainerRuntime,
    home_tag,
)
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.docker_networks import UnusedNetworks
from raymaker.actors.spec import Network

SERVE = f"exec python3 -m http.server --directory {SHARED} 8080"
REACHES = """python3 -c '
import socket, sys, time
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        socket.create_connection((sys.argv[1], 8080), 2).close()
        print("reached")
        break
    except OSError:
        if time.monotonic() > deadline:
            print("refused")
            break
        time.sleep(0.05)
' """


@pytest.fixture
def runtime(docker_harness: Harness) -> ContainerRuntime:
    return docker_harness.runtime()


class Group:
    """A group of the docker driver's containers, named at random."""

    def __init__(self, harness: Harness, engine: docker.DockerClient) -> None:
        self._harness = harness
        self._engine = engine
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.network = f"raymaker-{home_tag(harness.home)}-{self.name}"

    def start(self, script: str = "sleep 600", **fields: object) -> ContainerHandle:
        """Start a container of the group."""
        return self._harness.start(script, group=self.name, network=Network.OPEN, **fields)

    def networks(self) -> list[str]:
        """The ids of the networks of the group's name."""
        return [str(network.id) for network in self._engine.networks.list(names=[self.network])]


@pytest.fixture
def group(docker_harness: Harness, engine: docker.DockerClient) -> Iterator[Group]:
    """A group whose network is gone in the end, by the driver's doing alone."""
    group = Group(docker_harness, engine)
    yield group
    docker_harness.remove_all()
    left = group.networks()
    for network in left:
        engine.api.remove_network(network)
    assert not left


def _address(engine: docker.DockerClient, handle: ContainerHandle) -> str:
    (network,) = engine.api.inspect_container(handle.id)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def test_two_groups_do_not_see_each_other(
    docker_harness: Harness, engine: docker.DockerClient, group: Group, runtime: ContainerRuntime
) -> None:
    server = group.start(SERVE, hostname="algo-1")
    address = _address(engine, server)
    own = group.start(f"{REACHES} algo-1 20; {REACHES} {address} 0", hostname="algo-2")
    assert runtime.wait(own, SOON_S) is not None
    assert docker_harness.said(own) == ["reached", "reached"]
    other = Group(docker_harness, engine)
    stranger = other.start(f"{REACHES} algo-1 0; {REACHES} {address} 0", hostname="algo-2")
    assert runtime.wait(stranger, SOON_S) is not None
    assert docker_harness.said(stranger) == ["refused", "refused"]
    runtime.remove(stranger)
    assert not other.networks()


def test_a_group_has_a_way_out(docker_harness: Harness, group: Group, runtime: ContainerRuntime) -> None:
    handle = group.start("cut -f 2 /proc/net/route | grep -c ^00000000")
    assert runtime.wait(handle, SOON_S) is not None
    assert docker_harness.said(handle) == ["1"]


def test_the_network_is_made_once_and_goes_with_the_last_container(group: Group, runtime: ContainerRuntime) -> None:
    with ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(lambda number: group.start(hostname=f"algo-{number}"), range(4)))
    made = group.networks()
    assert len(made) == 1
    runtime.remove(handles[0])
    runtime.stop(handles[1], 0)
    runtime.remove(handles[2])
    assert group.networks() == made
    runtime.remove(handles[3])
    assert group.networks() == made, "one that has ended is still there"
    runtime.remove(handles[1])
    assert group.networks() == []


def test_the_network_goes_too_when_all_are_removed_at_once(group: Group, runtime: ContainerRuntime) -> None:
    handles = [group.start() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(runtime.remove, handles))
    assert group.networks() == []


def test_of_a_container_that_cannot_start_no_network_is_left(group: Group) -> None:
    with pytest.raises(StartError, match="no program 'trian'"):
        group.start("", command=("trian",))
    assert group.networks() == []
    with pytest.raises(StartError, match="has no image raymaker-test/nowhere:1"):
        group.start(image="raymaker-test/nowhere:1")
    assert group.networks() == []


def test_a_network_that_went_before_its_container_started_is_made_anew(
    docker_harness: Harness, engine: docker.DockerClient, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the group's only other container is removed between the two steps of a start."""
    first = group.start()
    runtime = docker_harness.runtime()
    real_start = docker.APIClient.start

    def start_late(api: docker.APIClient, container: str) -> None:
        monkeypatch.setattr(docker.APIClient, "start", real_start)
        engine.api.remove_container(first.id, force=True)
        engine.api.remove_network(group.network)
        real_start(api, container)

    monkeypatch.setattr(docker.APIClient, "start", start_late)
    second = group.start("echo hello")
    assert runtime.wait(second, SOON_S) is not None
    assert docker_harness.said(second) == ["hello"]


def test_starts_and_removals_that_meet_do_not_hurt_each_other(group: Group, runtime: ContainerRuntime) -> None:
    def come_and_go(_: int) -> int:
        handle = group.start("exit 7")
        status = runtime.wait(handle, SOON_S)
        runtime.remove(handle)
        return status.code if status is not None else -1

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(come_and_go, range(12))) == [7] * 12
    assert group.networks() == []


def test_a_taken_subnet_is_passed_over_and_a_full_pool_leaves_it_to_the_engine(
    docker_harness: Harness, engine: docker.DockerClient, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = IPv4Network("10.214.77.0/24")
    monkeypatch.setattr(docker_networks, "GROUP_POOL", pool)
    other = Group(docker_harness, engine)
    with _network_at(engine, "10.214.77.64/26"):
        first, second = (IPv4Address(_address(engine, member.start())) for member in (group, other))
        assert first in IPv4Network("10.214.77.128/25")
        assert second not in pool
    docker_harness.remove_all()
    assert not other.networks()


@contextlib.contextmanager
def _network_at(engine: docker.DockerClient, subnet: str) -> Iterator[None]:
    config = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
    network = engine.networks.create(f"test-{uuid.uuid4().hex[:8]}", ipam=config)
    yield
    network.remove()


def test_a_network_that_another_made_under_the_groups_name_is_refused(
    docker_harness: Harness, engine: docker.DockerClient, group: Group
) -> None:
    strange = engine.networks.create(group.network)
    with pytest.raises(StartError, match="is not as raymaker makes it: remove it"):
        group.start()
    strange.remove()


OWNER = """
import pickle, sys, time
from raymaker.actors.lease import Lease
runtime, spec, home = pickle.loads(bytes.fromhex(sys.argv[1]))
lease = Lease.acquire(home, "owner")
runtime.start(spec)
print("started", flush=True)
time.sleep(600)
"""


def test_what_a_killed_owner_leaves_is_gone_after_the_reapers_steps(
    docker_harness: Harness, engine: docker.DockerClient, group: Group
) -> None:
    """Its container and their network; and the network alone, where the container is gone already."""
    home, labels = docker_harness.home, {LABEL_OWNER: "owner"}
    reaper = Reaper([DockerRuntime(home)], home, reap_after_s=20, leftovers=[UnusedNetworks(home)])
    for is_container_gone in (False, True):
        spec = docker_harness.spec("sleep 600", group=group.name, network=Network.OPEN, labels=labels)
        told = _pickled(DockerRuntime(home), spec, home)
        with subprocess.Popen([sys.executable, "-c", OWNER, told], stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "started\n"
            assert [reaper.step(now) for now in (0, 100)] == [[], []]
            if is_container_gone:
                engine.api.remove_container(spec.name, force=True)
            assert reaper.step(200) == []
            assert len(group.networks()) == 1, "it is its owner's while that lives"
            owner.kill()
        assert [reaper.step(now) for now in (300, 319)] == [[], []]
        assert len(group.networks()) == 1
        assert reaper.step(320) == [group.network if is_container_gone else spec.name]
        assert group.networks() == []


def test_the_networks_of_other_homes_are_not_found(docker_harness: Harness, engine: docker.DockerClient) -> None:
    mine, another = docker_harness.home / "mine", docker_harness.home / "another"
    made = [
        engine.networks.create(f"test-{uuid.uuid4().hex[:8]}", labels={LABEL_HOME: str(home), LABEL_GROUP: "a-job"})
        for home in (mine, another)
    ]
    ((found, labels),) = UnusedNetworks(mine).owned({LABEL_HOME: str(mine)})
    assert (found.name, labels[LABEL_GROUP]) == (made[0].name, "a-job")
    for _ in range(2):
        UnusedNetworks(mine).remove(found)
    assert UnusedNetworks(mine).owned({LABEL_HOME: str(mine)}) == []
    made[1].remove()


def _pickled(*values: object) -> str:
    return pickle.dumps(values).hex()
