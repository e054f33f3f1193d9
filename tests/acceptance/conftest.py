"""What the acceptance tests share: real data on disk, the example image in the engine, and a platform of two nodes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support.faults import eventually
from support.gang_faults import GangFaults
from support.gangs import Gangs, Lives, gangs_on
from support.gate import Gate
from support.hosting import Hosting, hosting_on
from support.platform import ROOT, Platform, running_platform
from support.s3 import ObjectStore

NODE_CPUS = 2
WHOLE_NODE = "whole = { cpus = 2, memory_gib = 0.25 }\n"
"""An instance type of which a node holds one."""
DIGITS_IMAGE = f"raymaker-test-digits:{os.getpid()}"
"""Of this session alone: another one may build, and remove, the same content under its own name."""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits data set, as prepare_data.py writes it."""
    return prepare("digits", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def breast_cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast-cancer data set, as prepare_data.py writes it."""
    return prepare("breast-cancer", tmp_path_factory.mktemp("breast-cancer"))


@pytest.fixture(scope="session")
def digits_image(engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """The name of the example image, built on the base image of the tests."""
    folder = ROOT / "examples" / "digits_image"
    engine.images.build(path=str(folder), tag=DIGITS_IMAGE, buildargs={"BASE_IMAGE": base_image}, rm=True)
    yield DIGITS_IMAGE
    engine.images.remove(DIGITS_IMAGE, force=True)


@pytest.fixture
def hosting(platform: Platform, engine: docker.DockerClient, steps_image: str) -> Iterator[Hosting]:
    with hosting_on(platform, engine, steps_image) as made:
        yield made


@pytest.fixture(scope="module")
def gate(s3: ObjectStore) -> Iterator[Gate]:
    """What stands between the platform of two nodes and its object store."""
    with contextlib.closing(Gate(s3.endpoint_url)) as made:
        yield made


@pytest.fixture(scope="module")
def gang_platform(
    engine: docker.DockerClient, base_image: str, s3: ObjectStore, gate: Gate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform of two Ray nodes, of each module's own."""
    catalogue = tmp_path_factory.mktemp("catalogue") / "types.toml"
    catalogue.write_text(WHOLE_NODE)
    with running_platform(
        nodes=2,
        cpus=NODE_CPUS,
        driver="docker",
        catalogue=catalogue,
        stop_grace_s=5,
        reap_after_s=5,
        s3_endpoint_url=gate.endpoint_url,
        s3_access_key_id=s3.access_key,
        s3_secret_access_key=s3.secret_key,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def gangs(
    gang_platform: Platform, engine: docker.DockerClient, s3: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gangs]:
    with gangs_on(gang_platform, engine, s3, tmp_path_factory.mktemp("source")) as made:
        yield made


@pytest.fixture
def hurt(gangs: Gangs, gate: Gate) -> GangFaults:
    return GangFaults(gangs, gate, NODE_CPUS)


@pytest.fixture
def lives(gang_platform: Platform) -> Iterator[Lives]:
    watching = Lives(gang_platform.home)
    yield watching
    watching.close()


@pytest.fixture
def both_nodes(gang_platform: Platform) -> None:
    """See that the second node is there, whatever an earlier test did to it."""
    if not gang_platform.nodes:
        gang_platform.add_node(NODE_CPUS)
    eventually(
        lambda: gang_platform.node_count() == 2,
        lambda: f"the cluster has two nodes: {gang_platform.cli('status').stdout}; said: {gang_platform.nodes_log()}",
        180,
    )


def prepare(dataset: str, folder: Path) -> Path:
    subprocess.run([sys.executable, str(ROOT / "examples" / "prepare_data.py"), dataset, str(folder)], check=True)
    return folder
