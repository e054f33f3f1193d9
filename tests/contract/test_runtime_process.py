"""What only the process driver does, or can get wrong: staged source code, shims, folders left half made."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.runtime_harness import SHARED, SOON_S, Harness, eventually, processes_with

from raymaker.actors.errors import StartError, UnsupportedError
from raymaker.actors.runtime.base import LABEL_HOME, ContainerHandle, Phase
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.spec import Network, Resources
from support.namespaces import two_wired_machines


def _folder(harness: Harness, handle: ContainerHandle) -> Path:
    return harness.home / "containers" / handle.name


def test_an_image_is_refused_with_the_remedy(process_harness: Harness) -> None:
    with pytest.raises(UnsupportedError, match="image python:3.12 cannot run.*start one.*or give source code"):
        process_harness.start("true", image="python:3.12")
    assert not (process_harness.home / "containers").exists()


def test_gpus_that_nobody_set_aside_are_refused(process_harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UnsupportedError, match="asks for GPUs"):
        process_harness.start("true", resources=Resources(gpus=1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    said = process_harness.run("echo $CUDA_VISIBLE_DEVICES", resources=Resources(gpus=1))
    assert said == ["3"]


def test_a_container_sees_the_gpus_that_are_its_own(process_harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,6,7")
    said = process_harness.run(
        "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER", resources=Resources(gpus=2), gpu_ids=("6", "7")
    )
    assert said == ["6,7 PCI_BUS_ID"]
    assert process_harness.run("echo in ${CUDA_VISIBLE_DEVICES-all}") == ["in"], "one that asks for none sees none"


@pytest.mark.parametrize("name", ["", "../escape", "a/b", ".hidden", "x" * 300])
def test_a_name_that_is_no_plain_name_is_refused(process_harness: Harness, name: str) -> None:
    with pytest.raises(StartError, match="cannot name a container"):
        process_harness.start("true", name=name)


START = """
import json, pickle, sys
from dataclasses import asdict
runtime, spec = pickle.loads(bytes.fromhex(sys.argv[1]))
print(json.dumps(asdict(runtime.start(spec))))
"""
MEET = """
import socket, sys, time
own, other = sys.argv[1:]
server = socket.create_server((own, 23456))
deadline = time.monotonic() + 20
while True:
    try:
        with socket.create_connection((other, 23456), 2) as connection:
            connection.sendall(own.encode())
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.05)
connection, _ = server.accept()
with connection:
    print("heard", connection.recv(100).decode())
"""


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces that stand for machines on one wire, each with its address."""
    with two_wired_machines() as wired:
        yield {machine.namespace: machine.address for machine in wired}


def test_containers_of_a_group_on_two_machines_reach_each_other_by_name(
    process_harness: Harness, machines: dict[str, str]
) -> None:
    """Each by the address that its machine has at the other, though each knows only the other's."""
    (process_harness.shared / "meet.py").write_text(MEET)
    handles = []
    pairs = (("algo-1", "algo-2"), ("algo-2", "algo-1"))
    for (machine, own_address), (own, other) in zip(machines.items(), pairs, strict=True):
        (other_address,) = set(machines.values()) - {own_address}
        spec = process_harness.spec(
            f"exec python3 {SHARED}/meet.py {own} {other}",
            hostname=own,
            group="a-job",
            peers=(own,),
            hosts={other: other_address},
            network=Network.OPEN,
        )
        told = pickle.dumps((process_harness.runtime(), spec)).hex()
        start = ["ip", "netns", "exec", machine, sys.executable, "-c", START, told]
        done = subprocess.run(start, capture_output=True, text=True, check=True)
        handles.append(ContainerHandle(**json.loads(done.stdout)))
    for handle in handles:
        assert process_harness.runtime().wait(handle, SOON_S) is not None
    assert [process_harness.said(handle) for handle in handles] == [["heard algo-2"], ["heard algo-1"]]


def test_the_sources_train_is_on_the_path(process_harness: Harness) -> None:
    assert process_harness.run("", command=("train", "--epochs", "3")) == ["train was run with: --epochs 3"]


def test_the_code_is_the_working_folder_and_a_private_copy(process_harness: Harness) -> None:
    source = process_harness.home / "source" / "code"
    said = process_harness.run(f"pwd; cat name.txt; echo; echo changed >name.txt; cat {source}/name.txt")
    assert said == ["/opt/ml/code", "the code", "changed"]
    assert (source / "name.txt").read_text() == "the code"


def test_nothing_is_made_on_the_machine_for_the_mounts(process_harness: Harness) -> None:
    before = sorted(Path("/").iterdir()), sorted(Path("/opt").iterdir()), Path("/proc/self/mounts").read_text()
    process_harness.run("test -d /opt/ml/shared && test -e /proc/self/exe && test -d /usr/bin")
    assert (sorted(Path("/").iterdir()), sorted(Path("/opt").iterdir())) == before[:2]
    assert str(process_harness.home) not in Path("/proc/self/mounts").read_text()


def test_home_is_private_and_goes_with_the_container(process_harness: Harness) -> None:
    handle = process_harness.start("echo secret >$HOME/.netrc; echo $HOME")
    process_harness.runtime().wait(handle, SOON_S)
    home = Path(process_harness.said(handle)[0])
    assert (home / ".netrc").exists()
    process_harness.runtime().remove(handle)
    assert not home.exists()
    assert not list((process_harness.home / "containers").iterdir())


def test_a_program_sees_only_its_own_processes(process_harness: Harness) -> None:
    said = process_harness.run("ls /proc | grep -c '^[0-9]'")
    assert int(said[0]) < 8


def test_a_killed_shim_takes_its_container_along_and_the_end_is_told_as_lost(process_harness: Harness) -> None:
    mark = f"600.{uuid.uuid4().int % 10**9}"
    handle = process_harness.start(f"setsid sleep {mark} & sleep {mark}")
    eventually(lambda: len(processes_with(mark)) == 2)
    shim = json.loads((_folder(process_harness, handle) / "state.json").read_text())["shim"]["pid"]
    os.kill(shim, signal.SIGKILL)
    status = process_harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert (status.code, status.lost) == (137, True)
    eventually(lambda: not processes_with(mark))
    assert process_harness.runtime().inspect(handle).phase is Phase.EXITED


def test_an_id_that_another_process_has_by_now_is_not_taken_for_the_container(process_harness: Harness) -> None:
    """As after a restart of the machine: the folder names processes that are others now, and none of them is harmed."""
    handle = process_harness.start("exit 0")
    process_harness.runtime().wait(handle, SOON_S)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        path = _folder(process_harness, handle) / "state.json"
        state = json.loads(path.read_text())
        old = {"pid": stranger.pid, "ticks": 1}
        path.write_text(json.dumps({"shim": old, "init": old, "started_at": state["started_at"]}))
        status = process_harness.runtime().wait(handle, SOON_S)
        assert status is not None
        assert status.lost
        process_harness.runtime().stop(handle, 1)
        process_harness.runtime().remove(handle)
        assert stranger.poll() is None
        stranger.kill()


def test_a_folder_that_was_left_half_made_is_found_and_started_anew(process_harness: Harness) -> None:
    spec = process_harness.spec("echo hello")
    folder = process_harness.home / "containers" / spec.name
    folder.mkdir(parents=True)
    labels = {LABEL_HOME: str(process_harness.home)}
    (folder / "container.json").write_text(json.dumps({"id": "half", "labels": labels}))
    ((half, _),) = process_harness.runtime().owned(labels)
    assert process_harness.runtime().inspect(half).phase is Phase.MISSING
    handle = process_harness.runtime().start(spec)
    assert handle.id != "half"
    process_harness.runtime().wait(handle, SOON_S)
    assert process_harness.said(handle) == ["hello"]


def test_a_folder_that_was_left_half_made_can_be_removed(process_harness: Harness) -> None:
    folder = process_harness.home / "containers" / "half"
    folder.mkdir(parents=True)
    labels = {LABEL_HOME: str(process_harness.home)}
    (folder / "container.json").write_text(json.dumps({"id": "half", "labels": labels}))
    ((half, _),) = process_harness.runtime().owned(labels)
    process_harness.runtime().remove(half)
    assert not folder.exists()


def test_what_is_said_in_the_containers_folder_is_nobody_elses_to_read(process_harness: Harness) -> None:
    handle = process_harness.start("true", environment={"TOKEN": "secret"})
    folder = _folder(process_harness, handle)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "container.json").stat().st_mode & 0o077 == 0


def test_one_that_yields_comes_after_others_where_cpu_time_is_short(process_harness: Harness) -> None:
    assert int(process_harness.run("nice")[0]) < int(process_harness.run("nice", yields_cpu=True)[0]) == 19


AS_NOBODY = """
import os, sys
sys.path[:] = [path for path in sys.path if path]
from pathlib import Path
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.spec import ContainerSpec, Mount
home = Path(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chdir("/")
runtime = ProcessRuntime(home)
script = "cat /opt/ml/input/rows; touch /opt/ml/input/x || exit 3"
mounts = (Mount(str(home / "data"), "/opt/ml/input", read_only=True),)
for fixed in (False, True):
    spec = ContainerSpec("plain", ("sh", "-c", script), source_dir=str(home), mounts=mounts, read_only_root=fixed)
    handle = runtime.start(spec)
    print(runtime.wait(handle, 20).code)
    print(next(runtime.logs(handle)).text)
    runtime.remove(handle)
"""


def test_it_needs_no_root_where_the_kernel_grants_user_namespaces() -> None:
    """The interpreter of these tests may lie where only root reads, so Debian's own runs this one."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "data").mkdir()
        (home / "data" / "rows").write_text("1,2,3\n")
        package = home / "lib" / "raymaker"
        package.mkdir(parents=True)
        actors = Path(sys.modules[ProcessRuntime.__module__].__file__ or "").parents[1]
        subprocess.run(["cp", "-r", str(actors), str(package / "actors")], check=True)
        subprocess.run(["chmod", "-R", "a+rwX", str(home)], check=True)
        done = subprocess.run(
            ["/usr/bin/python3", "-B", "-c", AS_NOBODY, str(home)],
            env={"PYTHONPATH": str(home / "lib"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines() == ["3", "1,2,3"] * 2, done.stderr
