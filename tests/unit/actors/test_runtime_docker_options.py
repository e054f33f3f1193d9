"""What the engine is asked for, and its refusals in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raymaker.actors.errors import ImageError, StartError
from raymaker.actors.runtime.base import LABEL_GROUP, LABEL_HOME
from raymaker.actors.runtime.docker_options import (
    EngineMachine,
    container_config,
    exec_failure,
    group_label,
    host_config,
    start_error,
)
from raymaker.actors.spec import ContainerSpec, Mount, Network, Resources

SPEC = ContainerSpec(name="job", command=("train",), image="algo:1")
TWO_CPUS, EIGHT_CPUS = EngineMachine(2), EngineMachine(8)


def test_a_container_has_no_privileges_and_limits() -> None:
    config = host_config(
        ContainerSpec("job", (), resources=Resources(cpus=1.5, memory_bytes=2**30)), "none", {}, EIGHT_CPUS
    )
    assert config["security_opt"] == ["no-new-privileges"]
    assert config["cap_drop"] == ["ALL"]
    assert not {"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "MKNOD"} & set(config["cap_add"])
    assert (config["nano_cpus"], config["mem_limit"], config["memswap_limit"]) == (1_500_000_000, 2**30, 2**30)
    assert config["network_mode"] == "none"
    assert config["init"]


@pytest.mark.parametrize("cpus", [0, 2, 64])
def test_as_many_cpus_as_the_engine_has_or_none_named_are_no_limit(cpus: float) -> None:
    config = host_config(ContainerSpec("job", (), resources=Resources(cpus=cpus)), "none", {}, TWO_CPUS)
    assert "nano_cpus" not in config
    assert "mem_limit" not in config


def test_one_that_yields_comes_after_others_where_cpu_time_is_short() -> None:
    assert "cpu_shares" not in host_config(SPEC, "none", {}, TWO_CPUS)
    assert host_config(replace(SPEC, yields_cpu=True), "none", {}, TWO_CPUS)["cpu_shares"] == 64


def test_gpus_are_those_that_were_set_aside_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ContainerSpec("job", (), resources=Resources(gpus=1.5))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    (request,) = host_config(spec, "none", {}, TWO_CPUS)["device_requests"]
    assert request["DeviceIDs"] == ["2", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (request,) = host_config(spec, "none", {}, TWO_CPUS)["device_requests"]
    assert request["DeviceIDs"] == ["0", "1"]


def test_a_containers_own_gpus_are_asked_for_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,6,7")
    spec = ContainerSpec("job", (), resources=Resources(gpus=2), gpu_ids=("6", "7"))
    (request,) = host_config(spec, "none", {}, TWO_CPUS)["device_requests"]
    assert (request["DeviceIDs"], request["Count"], request["Capabilities"]) == (["6", "7"], 0, [["gpu"]])
    assert "device_requests" not in host_config(ContainerSpec("job", ()), "none", {}, TWO_CPUS)


def test_gpus_that_the_engine_finds_are_asked_for_by_their_names_there() -> None:
    machine = EngineMachine.of(
        {
            "NCPU": 2,
            "DiscoveredDevices": [
                {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
                {"Source": "cdi", "ID": "nvidia.com/gpu=1"},
                {"Source": "cdi", "ID": "vendor.com/net=7"},
            ],
        }
    )
    spec = ContainerSpec("job", (), resources=Resources(gpus=2), gpu_ids=("0", "1"))
    (request,) = host_config(spec, "none", {}, machine)["device_requests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=0", "nvidia.com/gpu=1"])
    (request,) = host_config(replace(spec, gpu_ids=("0", "7")), "none", {}, machine)["device_requests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("", ["0", "7"]), "others are for NVIDIA's hook"


def test_an_engine_that_finds_no_devices_says_nothing_of_them() -> None:
    assert EngineMachine.of({"NCPU": 4}) == EngineMachine(4)


def test_a_read_only_root_leaves_tmp_to_write_where_nothing_is_mounted_there() -> None:
    assert "read_only" not in host_config(SPEC, "none", {}, TWO_CPUS)
    config = host_config(replace(SPEC, read_only_root=True), "none", {}, TWO_CPUS)
    assert config["read_only"]
    assert list(config["tmpfs"]) == ["/tmp"]
    mounted = replace(SPEC, read_only_root=True, mounts=(Mount("/data", "/tmp"),))
    assert host_config(mounted, "none", {}, TWO_CPUS)["tmpfs"] == {}


def test_mounts_come_after_those_that_they_lie_in() -> None:
    targets = ("/opt/ml/exchange/arena", "/opt/ml/exchange", "/opt/ml/exchange-of-others", "/opt")
    config = host_config(replace(SPEC, mounts=tuple(Mount("/x", target) for target in targets)), "none", {}, TWO_CPUS)
    assert [mount["Target"] for mount in config["mounts"]] == [
        "/opt",
        "/opt/ml/exchange",
        "/opt/ml/exchange/arena",
        "/opt/ml/exchange-of-others",
    ]


def test_the_group_is_a_label_where_the_group_has_a_network() -> None:
    grouped = replace(SPEC, group="a-job")
    assert group_label(grouped) == group_label(SPEC) == {}
    assert group_label(replace(grouped, network=Network.OPEN)) == {LABEL_GROUP: "a-job"}
    labels = container_config(replace(grouped, network=Network.OPEN), Path("/home/rm"))["labels"]
    assert labels == {LABEL_GROUP: "a-job", LABEL_HOME: "/home/rm"}


def test_the_home_is_a_label_whatever_the_others_say() -> None:
    config = container_config(ContainerSpec("job", (), labels={"a": "b", LABEL_HOME: "elsewhere"}), Path("/home/rm"))
    assert config["labels"] == {"a": "b", LABEL_HOME: "/home/rm"}


def test_an_entrypoint_is_replaced_only_where_one_is_given() -> None:
    assert "entrypoint" not in container_config(SPEC, Path("/"))
    assert container_config(ContainerSpec("job", (), entrypoint=("a", "b")), Path("/"))["entrypoint"] == ["a", "b"]
    assert container_config(ContainerSpec("job", (), entrypoint=()), Path("/"))["entrypoint"] == [""]


@pytest.mark.parametrize(
    ("explanation", "kind", "words"),
    [
        ("No such image: algo:1", ImageError, "pull it, load it or build it"),
        ("No command specified", ImageError, "nothing to run"),
        ('exec: "train": executable file not found in $PATH: unknown', ImageError, "no program 'train'"),
        ("exec /usr/bin/train: exec format error", ImageError, "another processor"),
        ('exec: "train": permission denied', ImageError, "chmod"),
        ('could not select device driver "" with capabilities: [[gpu]]', StartError, "NVIDIA container toolkit"),
        ("bind source path does not exist: /data", StartError, "/data"),
        ("no space left on device", StartError, "no space left on device"),
    ],
)
def test_refusals_name_the_cause_and_the_remedy(explanation: str, kind: type[StartError], words: str) -> None:
    error = start_error(SPEC, explanation)
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[FATAL tini (7)] exec train failed: No such file or directory", "train: No such file or directory"),
        ("ERROR (catatonit:2): failed to exec pid1: No such file or directory", "No such file or directory"),
        ("Epoch 1: exec train failed: not at all", None),
    ],
)
def test_what_init_says_of_a_program_that_it_cannot_run_is_understood(line: str, why: str | None) -> None:
    assert exec_failure(line) == why
