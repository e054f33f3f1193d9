"""What only the docker driver does, or can get wrong: images, limits, networks, and an engine that goes away."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from contract.runtime_harness import SHARED, SOON_S, Harness, eventually

from raymaker.actors.errors import EngineAway, ImageError, StartError, UnsupportedError
from raymaker.actors.runtime import docker as driver
from raymaker.actors.runtime import docker_networks
from raymaker.actors.runtime.base import LABEL_HOME, ContainerHandle, ContainerRuntime, Phase
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.spec import Network, Resources

MIB = 1024 * 1024


class EngineDoor:
    """Stands between the driver and the engine, and can be shut, as when the engine restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_open = False
        self._connections: set[socket.socket] = set()

    def open(self) -> None:
        """Let calls through."""
        door = self

        class Passage(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.socket(socket.AF_UNIX) as engine:
                    engine.connect("/var/run/docker.sock")
                    ends = {self.request, engine}
                    door._connections |= ends
                    back = threading.Thread(target=_carry, args=(engine, self.request))
                    back.start()
                    _carry(self.request, engine)
                    back.join()
                    door._connections -= ends

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: object, address: object) -> None:
                """A connection that was cut is no news."""

        self._server = Server(str(self.path), Passage)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.is_open = True

    def shut(self) -> None:
        """Cut all calls, and let none through."""
        if self.is_open:
            self.is_open = False
            self._server.shutdown()
            self.path.unlink()
            for connection in list(self._connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._server.server_close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
        source.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def door(tmp_path: Path, docker_harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineDoor]:
    """An open door, through which the driver reaches the engine."""
    door = EngineDoor(tmp_path / "engine.sock")
    door.open()
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{door.path}")
        yield door
    door.shut()


@pytest.fixture
def fresh_networks(
    docker_harness: Harness, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[Network, str]]:
    """Names of networks that nobody has made yet, used instead of the usual ones."""
    names = {network: f"rm{uuid.uuid4().hex[:12]}" for network in (Network.INTERNAL, Network.OPEN)}
    monkeypatch.setattr(docker_networks, "NETWORK_NAMES", names)
    yield names
    docker_harness.remove_all()
    for network in engine.networks.list(names=list(names.values())):
        network.remove()


@pytest.fixture
def runtime(docker_harness: Harness) -> ContainerRuntime:
    return docker_harness.runtime()


def test_a_missing_image_is_told_by_name(docker_harness: Harness) -> None:
    with pytest.raises(ImageError, match="no image raymaker-test/nowhere:1: pull it"):
        docker_harness.start("true", image="raymaker-test/nowhere:1")


def test_an_image_without_train_is_told_so_and_nothing_is_left(
    docker_harness: Harness, runtime: ContainerRuntime, base_image: str
) -> None:
    with pytest.raises(ImageError, match=f"image {base_image} has no program 'train'.*ENTRYPOINT"):
        docker_harness.start("", command=("train",))
    assert not runtime.owned({LABEL_HOME: str(docker_harness.home)})


def test_a_program_of_another_processor_is_told_so(docker_harness: Harness, base_image: str) -> None:
    """An ELF file whose header says that it is made for a machine that no engine runs on."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (0xF00D).to_bytes(2, "little") + bytes(200)
    (docker_harness.shared / "train").write_bytes(header)
    (docker_harness.shared / "train").chmod(0o755)
    handle = docker_harness.start("", command=(f"{SHARED}/train",))
    status = docker_harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert "made for another processor" in status.describe()


def test_source_code_without_an_image_is_refused(docker_harness: Harness) -> None:
    with pytest.raises(UnsupportedError, match="has no image: build one"):
        docker_harness.start("true", image=None, source_dir="/tmp")


def test_a_container_that_was_made_but_never_started_is_started(
    docker_harness: Harness, runtime: ContainerRuntime, engine: docker.DockerClient
) -> None:
    """As when its starter dies between the two steps; until then it counts as missing, and is found by its label."""
    spec = docker_harness.spec("echo hello")
    made = engine.containers.create(
        spec.image, list(spec.command), name=spec.name, labels={LABEL_HOME: str(docker_harness.home)}
    )
    handle = ContainerHandle("docker", spec.name, str(made.id))
    assert runtime.inspect(handle).phase is Phase.MISSING
    assert [found for found, _ in runtime.owned({LABEL_HOME: str(docker_harness.home)})] == [handle]
    assert runtime.start(spec) == handle
    assert runtime.wait(handle, SOON_S) is not None
    assert docker_harness.said(handle) == ["hello"]


def test_a_container_that_needs_too_much_memory_is_told_as_out_of_memory(docker_harness: Harness) -> None:
    handle = docker_harness.start(
        "exec python3 -c 'x = bytearray(500_000_000)'", resources=Resources(cpus=1, memory_bytes=64 * MIB)
    )
    status = docker_harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert status.oom_killed
    assert status.code == 137
    assert "out of memory" in status.describe()


def test_only_ordinary_capabilities_are_left(docker_harness: Harness) -> None:
    said = docker_harness.run(
        "grep CapBnd /proc/self/status; chown 1000 /tmp && echo chown works;"
        "mount -t tmpfs none /mnt 2>/dev/null || echo mount refused;"
        "mknod /tmp/null c 1 3 2>/dev/null || echo mknod refused; chroot / echo chroot works"
    )
    assert said[1:] == ["chown works", "mount refused", "mknod refused", "chroot works"]
    bits = int(said[0].split()[1], 16)
    assert bits.bit_count() == 10


def test_limits_are_those_of_the_resources(docker_harness: Harness, engine: docker.DockerClient) -> None:
    handle = docker_harness.start("sleep 600", resources=Resources(cpus=0.5, memory_bytes=256 * MIB))
    limits = engine.api.inspect_container(handle.id)["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["MemorySwap"]) == (500_000_000, 256 * MIB, 256 * MIB)
    assert limits["PidsLimit"] > 0


def test_more_cpus_than_the_machine_has_are_no_error(docker_harness: Harness) -> None:
    """Ray's CPUs are logical: a laptop may say it has eight of its two."""
    assert docker_harness.run("echo hello", resources=Resources(cpus=4096)) == ["hello"]


def test_an_internal_container_reaches_nothing_outside_and_no_other(
    docker_harness: Harness, runtime: ContainerRuntime, fresh_networks: dict[Network, str]
) -> None:
    server = docker_harness.start(f"exec python3 -m http.server --directory {SHARED} 8080", network=Network.INTERNAL)
    address = runtime.inspect(server).address
    eventually(lambda: _connects(str(address), 8080))
    said = docker_harness.run(
        f"""python3 -c '
import socket
for place in (("1.1.1.1", 53), ("{address}", 8080)):
    try:
        socket.create_connection(place, 2).close()
        print("reached")
    except OSError:
        print("refused")
'""",
        network=Network.INTERNAL,
    )
    assert said == ["refused", "refused"]


def test_networks_made_at_once_are_one(
    docker_harness: Harness, engine: docker.DockerClient, fresh_networks: dict[Network, str]
) -> None:
    with ThreadPoolExecutor(3) as pool:
        handles = list(pool.map(lambda _: docker_harness.start("true", network=Network.OPEN), range(3)))
    used = {
        network["NetworkID"]
        for handle in handles
        for network in engine.api.inspect_container(handle.id)["NetworkSettings"]["Networks"].values()
    }
    assert len(used) == 1
    assert len(engine.networks.list(names=[fresh_networks[Network.OPEN]])) == 1


def test_a_network_that_is_open_where_it_must_not_be_is_refused(
    docker_harness: Harness, engine: docker.DockerClient, fresh_networks: dict[Network, str]
) -> None:
    engine.networks.create(fresh_networks[Network.INTERNAL], driver="bridge")
    with pytest.raises(StartError, match="is not as raymaker makes it: remove it"):
        docker_harness.start("true", network=Network.INTERNAL)


def test_waiting_outlives_an_engine_that_restarts(docker_harness: Harness, door: EngineDoor) -> None:
    handle = docker_harness.start(f"while [ ! -e {SHARED}/go ]; do sleep 0.05; done; exit 3")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(docker_harness.runtime().wait, handle, SOON_S)
        time.sleep(0.2)
        door.shut()
        assert not waiting.done()
        door.open()
        time.sleep(1)
        (docker_harness.shared / "go").touch()
        status = waiting.result()
    assert status is not None
    assert (status.code, status.lost) == (3, False), "it lived through the restart, so its end is its own"


def test_a_container_that_ended_while_its_engine_was_away_is_told_as_lost(
    docker_harness: Harness, door: EngineDoor
) -> None:
    handle = docker_harness.start("sleep 600")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(docker_harness.runtime().wait, handle, SOON_S)
        time.sleep(0.2)
        door.shut()
        with contextlib.closing(docker.DockerClient("unix:///var/run/docker.sock")) as engine:
            engine.api.kill(handle.id)
        time.sleep(0.5)
        door.open()
        status = waiting.result()
    assert status is not None
    assert (status.code, status.lost) == (137, True)
    assert "engine restarted" in status.describe()


def test_a_followed_log_goes_on_after_the_engine_restarted(docker_harness: Harness, door: EngineDoor) -> None:
    handle = docker_harness.start(f"echo first; while [ ! -e {SHARED}/go ]; do sleep 0.05; done; echo second")
    following = docker_harness.runtime().logs(handle, follow=True)
    assert next(following).text == "first"
    door.shut()
    (docker_harness.shared / "go").touch()
    door.open()
    assert [line.text for line in following] == ["second"]


def test_an_engine_that_stays_away_is_told_with_the_remedy(
    docker_harness: Harness, door: EngineDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "ENGINE_AWAY_S", 0.1)
    handle = docker_harness.start("sleep 600")
    door.shut()
    runtime = docker_harness.runtime()
    assert runtime.wait(handle, 0.05) is None
    for call in (lambda: runtime.inspect(handle), lambda: runtime.wait(handle), lambda: runtime.owned({})):
        with pytest.raises(EngineAway, match="is it running"):
            call()
    with pytest.raises(StartError, match="is it running"):
        docker_harness.start("true")
    door.open()


def test_the_driver_is_chosen_by_what_answers(home: Path, door: EngineDoor) -> None:
    assert select_runtime("auto", home).name == "docker"
    assert select_runtime("docker", home).name == "docker"
    assert select_runtime("process", home).name == "process"
    door.shut()
    assert select_runtime("auto", home).name == "process"
    with pytest.raises(StartError, match="no container engine answers.*RAYMAKER_DRIVER=process"):
        select_runtime("docker", home)
    with pytest.raises(StartError, match="no driver 'podman'"):
        select_runtime("podman", home)
    door.open()


def test_no_connection_stays_open(docker_harness: Harness) -> None:
    runtime = DockerRuntime(docker_harness.home)
    before = len(list(Path("/proc/self/fd").iterdir()))
    handle = runtime.start(docker_harness.spec("seq 1 1000"))
    runtime.wait(handle, SOON_S)
    next(runtime.logs(handle))
    runtime.owned({})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True
