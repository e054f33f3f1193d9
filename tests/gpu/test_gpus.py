"""Containers with GPUs, on a machine that has one: training, sharing, metrics and scoring, with both drivers.

`scripts/test` runs these where it finds an NVIDIA GPU. Containers need an engine that hands it out: NVIDIA's container
toolkit, or the engine's own search for devices (CDI).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.actors.gpu_use import look_at
from raymaker.platform.client import Client, TrainingJob
from support.faults import eventually
from support.platform import Platform, running_platform

SOURCE = Path(__file__).parent / "source"
HALF = "half_gpu = { cpus = 1, memory_gib = 2, gpus = 0.5 }\n"


@pytest.fixture(scope="module", params=["docker", "process"])
def gpu_platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    if request.param == "docker":
        request.getfixturevalue("base_image")
    catalogue = tmp_path_factory.mktemp("catalogue") / "types.toml"
    catalogue.write_text(HALF)
    with running_platform(driver=request.param, catalogue=catalogue, stop_grace_s=5) as running:
        yield running


@pytest.fixture
def client(gpu_platform: Platform) -> Iterator[Client]:
    with Client(gpu_platform.url) as made:
        yield made


def train(client: Client, folder: Path, instance_type: str, seconds: int = 0, **options: int) -> TrainingJob:
    return client.train(
        source=SOURCE,
        entry_point="train.py",
        output=folder / "models",
        hyperparameters={"seconds": seconds},
        instance_type=instance_type,
        wait=True,
        **options,  # type: ignore[arg-type]
    )


def test_a_job_computes_on_its_gpu_and_tells_how_busy_that_is(client: Client, tmp_path: Path) -> None:
    job = train(client, tmp_path, "local_gpu", seconds=18)
    assert list(job.logs()) == ["gpus=1 of 1", f"the gpu wrote {'07' * 8}"]
    told = job.metrics()
    assert 50 < max(told["GPUUtilization"]) <= 100
    assert 0 < max(told["GPUMemoryUtilization"]) < 100
    assert len(told["GPUUtilization"]) == len(told["CPUUtilization"])


def test_a_job_that_asks_for_no_gpu_sees_none(client: Client, tmp_path: Path) -> None:
    job = train(client, tmp_path, "local")
    assert list(job.logs()) == ["gpus=0 of 0"]


def test_containers_of_a_machine_share_its_one_gpu(client: Client, tmp_path: Path) -> None:
    job = train(client, tmp_path, "local_gpu", seconds=12, containers_per_instance=2)
    said = sorted(job.logs())
    assert said == [
        f"algo-{number} | {line}" for number in (1, 2) for line in ("gpus=1 of 1", f"the gpu wrote {'07' * 8}")
    ]
    assert {point.rank for point in job.metric_points("GPUUtilization")} == {0, 1}


def test_machines_share_a_gpu_that_is_set_aside_in_parts(client: Client, tmp_path: Path) -> None:
    job = train(client, tmp_path, "half_gpu", instance_count=2)
    assert sum("gpus=1 of 1" in line for line in job.logs()) == 2


def test_an_endpoint_of_two_instances_computes_on_the_gpu(client: Client, tmp_path: Path) -> None:
    endpoint = train(client, tmp_path, "half_gpu").deploy(instance_type="half_gpu", instance_count=2)
    try:
        for byte in range(1, 21):
            assert endpoint.invoke(bytes([byte]), "application/octet-stream").body == bytes([byte]) * 8
    finally:
        endpoint.delete(wait=True)


def test_what_ran_on_the_gpu_leaves_nothing_in_its_memory(client: Client, tmp_path: Path) -> None:
    (before,) = look_at(["0"])
    train(client, tmp_path, "local_gpu")
    assert before.memory_percent is not None
    limit = before.memory_percent + 0.5
    eventually(lambda: (look_at(["0"])[0].memory_percent or 0) <= limit, "the GPU's memory is free again", 30)
