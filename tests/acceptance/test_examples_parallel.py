"""The examples that many containers train together: however many there are, all end with one and the same model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import numpy as np
import pytest

from raymaker.platform.client import Client
from raymaker.platform.client.job import TrainingJob
from support.jobs import fresh_name
from support.platform import ROOT, Platform

EXAMPLES = ROOT / "examples"
TORCH_IMAGE = f"raymaker-test-torch:{os.getpid()}"
MPI_IMAGE = f"raymaker-test-mpi:{os.getpid()}"
EPOCHS = 40
METRICS = {"loss": r"loss=([0-9.]+)", "accuracy": r"accuracy=([0-9.]+)"}
ROWS = 1437
"""Of the digits, four fifths of 1797."""


@dataclass(frozen=True)
class Trained:
    """What came of one job: its model's arrays, and what its containers printed."""

    job: TrainingJob
    model: dict[str, np.ndarray]
    lines: list[str]

    def ends(self) -> list[tuple[int, int, str]]:
        """Of every container that said with which weights it ended: rank, world size, digest."""
        found = [re.fullmatch(r"rank=(\d+) of (\d+) ended with \w+=(\w+)", line) for line in self.lines]
        return sorted((int(end[1]), int(end[2]), end[3]) for end in found if end)

    def row_counts(self) -> list[int]:
        """How many rows each container had to itself."""
        found = [re.match(r"rank=\d+ of \d+ has (\d+) ", line) for line in self.lines]
        return [int(rows[1]) for rows in found if rows]

    def assert_agreed(self, containers: int) -> None:
        """Every container ended, and with the very same weights."""
        ends = self.ends()
        assert [(rank, size) for rank, size, _ in ends] == [(rank, containers) for rank in range(containers)]
        assert len({digest for _, _, digest in ends}) == 1, ends

    def assert_same_model(self, other: Trained) -> None:
        """The two models differ by no more than the order of additions can make them."""
        assert self.model.keys() == other.model.keys()
        for name, array in self.model.items():
            np.testing.assert_allclose(array, other.model[name], rtol=1e-7, atol=1e-8, err_msg=name)


@dataclass
class Trainer:
    """Trains examples on the digits and fetches what came of it."""

    client: Client
    digits: Path
    folder: Path

    def train(self, containers: int, **options: object) -> Trained:
        """Run one job to its end, on one machine unless the options say otherwise."""
        options = {"inputs": {"train": self.digits / "train"}, "containers_per_instance": containers, **options}
        job = self.client.train(name=fresh_name("parallel"), output=self.folder / "models", **options)
        job.wait(progress=False)
        downloaded = job.download_model(self.folder / job.name)
        (file,) = downloaded.glob("*.npz")
        with np.load(file) as stored:
            model = {name: stored[name] for name in stored.files}
        return Trained(job, model, [event.text for event in job.log_events()])

    def digits_parallel(self, containers: int, **options: object) -> Trained:
        """Train examples/digits_parallel."""
        chosen = {"hyperparameters": {"epochs": EPOCHS}, "metrics": METRICS, **options}
        return self.train(containers, source=EXAMPLES / "digits_parallel", entry_point="train.py", **chosen)

    def kmeans(self, containers: int) -> Trained:
        """Train examples/kmeans."""
        return self.train(containers, source=EXAMPLES / "kmeans", entry_point="train.py")


@pytest.fixture(scope="module")
def trainer(platform: Platform, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with Client(platform.url) as client:
        yield Trainer(client, digits, tmp_path_factory.mktemp("parallel"))


@pytest.fixture(scope="module")
def alone(trainer: Trainer) -> Trained:
    """The network that one container makes of the digits."""
    return trainer.digits_parallel(1)


@pytest.fixture(scope="module")
def mpi_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The image of the MPI example, with what Debian's mirror has."""
    context = str(EXAMPLES / "mpi_image")
    engine.images.build(path=context, tag=MPI_IMAGE, buildargs={"BASE_IMAGE": base_image}, rm=True)
    yield MPI_IMAGE
    engine.images.remove(MPI_IMAGE, force=True)


@pytest.fixture(scope="module")
def torch_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The image of the torch example, made by its own script of the torch in this Python."""
    script = EXAMPLES / "torch_ddp" / "build.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [str(script), TORCH_IMAGE, base_image], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield TORCH_IMAGE
    engine.images.remove(TORCH_IMAGE, force=True)


def test_a_lone_container_learns_the_digits(alone: Trained) -> None:
    alone.assert_agreed(1)
    assert alone.row_counts() == [ROWS]
    assert alone.job.metrics()["accuracy"][-1] > 0.98


@pytest.mark.parametrize("containers", [2, 4])
def test_containers_that_average_their_gradients_learn_what_one_learns(
    trainer: Trainer, alone: Trained, containers: int
) -> None:
    together = trainer.digits_parallel(containers)
    together.assert_agreed(containers)
    assert sum(together.row_counts()) == ROWS
    assert max(together.row_counts()) - min(together.row_counts()) <= 1
    together.assert_same_model(alone)
    assert len(together.job.metrics()["loss"]) == EPOCHS  # said once, not by every container


def test_two_machines_of_two_containers_learn_what_one_container_learns(trainer: Trainer, alone: Trained) -> None:
    together = trainer.digits_parallel(2, instance_count=2)
    together.assert_agreed(4)
    assert sum(together.row_counts()) == ROWS
    together.assert_same_model(alone)


def test_two_containers_that_share_one_file_by_record_learn_the_same(trainer: Trainer, alone: Trained) -> None:
    together = trainer.digits_parallel(2, shard={"train": "record"})
    together.assert_agreed(2)
    first, second = together.row_counts()
    assert first + second == ROWS
    assert min(first, second) > ROWS // 4
    together.assert_same_model(alone)


def test_a_job_goes_on_from_the_checkpoint_of_another_with_another_number_of_containers(
    trainer: Trainer, alone: Trained, tmp_path: Path
) -> None:
    half = {"epochs": EPOCHS // 2}
    trainer.digits_parallel(2, checkpoints=tmp_path, hyperparameters=half)
    whole = trainer.digits_parallel(4, checkpoints=tmp_path)
    assert f"going on from checkpoint epoch-{EPOCHS // 2:04d}.npz" in whole.lines
    assert len(whole.job.metrics()["loss"]) == EPOCHS // 2
    whole.assert_agreed(4)
    whole.assert_same_model(alone)


def test_a_model_of_several_containers_is_served_like_any_other(trainer: Trainer, digits: Path) -> None:
    pairs = [line.split(",", 1) for line in (digits / "test" / "test.csv").read_text().splitlines()]
    endpoint = trainer.digits_parallel(2).job.deploy()
    answers = endpoint.invoke("\n".join(row for _, row in pairs), content_type="text/csv").text.split()
    endpoint.delete(wait=True)
    right = sum(int(answer) == int(label) for answer, (label, _) in zip(answers, pairs, strict=True))
    assert right / len(pairs) > 0.94


def test_k_means_finds_the_same_centroids_in_one_two_and_four_containers(trainer: Trainer) -> None:
    alone = trainer.kmeans(1)
    assert alone.model["centroids"].shape == (10, 64)
    for containers in (2, 4):
        together = trainer.kmeans(containers)
        together.assert_agreed(containers)
        together.assert_same_model(alone)


def test_torch_finds_its_peers_and_ddp_learns_what_one_process_learns(trainer: Trainer, torch_image: str) -> None:
    options = {"image": torch_image, "network": True, "hyperparameters": {"epochs": 15}}
    alone, together = trainer.train(1, **options), trainer.train(2, **options)
    together.assert_agreed(2)
    together.assert_same_model(alone)


def test_mpi_starts_a_process_in_every_container_of_two_machines(
    trainer: Trainer, mpi_image: str, digits: Path
) -> None:
    together = trainer.train(2, image=mpi_image, network=True, instance_count=2)
    assert sorted(together.row_counts()) == [ROWS // 4] * 3 + [ROWS // 4 + ROWS % 4]
    table = np.loadtxt(digits / "train" / "train.csv", delimiter=",")
    means = [table[table[:, 0] == label, 1:].mean(axis=0) for label in range(10)]
    np.testing.assert_allclose(together.model["means"], means, rtol=1e-12)


def test_the_parallel_driver_script_shows_that_the_containers_agree(platform: Platform, digits: Path) -> None:
    told = platform.cli("env", "--json")
    assert told.returncode == 0, told.stderr
    variables = [f"{name}={value}" for name, value in json.loads(told.stdout).items()]
    script = [sys.executable, str(EXAMPLES / "parallel_driver.py"), str(digits), "--epochs", str(EPOCHS)]
    done = platform.run(["env", *variables, *script])
    assert done.returncode == 0, done.stdout + done.stderr
    digests = re.findall(r"algo-\d\S* \| rank=\d of 2 ended with weights=(\w+)", done.stdout)
    assert len(digests) == 2, done.stdout
    assert len(set(digests)) == 1, done.stdout
