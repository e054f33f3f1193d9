"""Images found in a real engine and pulled from a real registry."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from raymaker.actors.errors import ImageError
from raymaker.actors.images import LOOKUPS, ImageStore
from support.gate import Gate

_numbers = itertools.count(1)


@pytest.fixture
def images(engine: docker.DockerClient) -> ImageStore:
    return ImageStore(engine)


@pytest.fixture
def pushed(engine: docker.DockerClient, registry: str, tmp_path: Path) -> Iterator[str]:
    """A reference that only the registry knows."""
    yield from _push(engine, f"{registry}/team/model-{next(_numbers)}", tmp_path, "linux/amd64")


@pytest.fixture
def pushed_for_arm(engine: docker.DockerClient, registry: str, tmp_path: Path) -> Iterator[str]:
    """The same for a machine of another kind."""
    yield from _push(engine, f"{registry}/team/model-{next(_numbers)}", tmp_path, "linux/arm64")


def _push(engine: docker.DockerClient, repository: str, folder: Path, platform: str) -> Iterator[str]:
    (folder / "train").write_text(repository)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY train /train\nENTRYPOINT ["/train"]\nCMD ["now"]\n')
    engine.images.build(path=str(folder), tag=f"{repository}:1", platform=platform, rm=True)
    answer = engine.images.push(repository, tag="1")
    assert "errorDetail" not in answer, answer
    engine.images.remove(f"{repository}:1", force=True)
    yield f"{repository}:1"
    for image in engine.images.list(repository):
        engine.images.remove(image.id, force=True)


def test_a_local_image_is_found_by_tag_and_by_id_without_a_registry(images: ImageStore, base_image: str) -> None:
    found = images.resolve(base_image)
    assert found.id.startswith("sha256:")
    assert found.digest is None
    assert images.resolve(found.id).id == found.id


def test_an_image_is_pulled_by_tag_with_progress_and_then_known_by_its_digest(
    images: ImageStore, pushed: str, engine: docker.DockerClient
) -> None:
    steps: list[str] = []
    found = images.resolve(pushed, steps.append)
    assert any("Pull complete" in step or "Download" in step for step in steps)
    assert (found.entrypoint, found.command) == (("/train",), ("now",))
    assert found.digest is not None
    by_digest = f"{pushed.rpartition(':')[0]}@{found.digest}"
    engine.images.remove(found.id, force=True)
    assert images.resolve(by_digest).id == found.id


def test_an_image_of_another_architecture_is_refused_with_both_names(images: ImageStore, pushed_for_arm: str) -> None:
    with pytest.raises(ImageError, match="made for linux/arm64.*runs linux/amd64.*--platform linux/amd64"):
        images.resolve(pushed_for_arm)


def test_an_image_that_is_nowhere_names_where_it_was_looked_for(images: ImageStore, registry: str) -> None:
    with pytest.raises(ImageError, match=f"neither in the engine nor in registry {registry}.*docker load"):
        images.resolve(f"{registry}/team/no-such-model:7")


def test_a_registry_that_is_away_is_named(images: ImageStore) -> None:
    with pytest.raises(ImageError, match="registry 127.0.0.1:9 cannot be reached"):
        images.resolve("127.0.0.1:9/model:1")


@pytest.mark.parametrize("reference", ["No Reference", "UPPER/case:1", "a@sha256:short", ""])
def test_what_is_no_reference_is_refused(images: ImageStore, reference: str) -> None:
    with pytest.raises(ImageError):
        images.resolve(reference)


def test_an_id_that_the_engine_does_not_know_cannot_be_pulled(images: ImageStore) -> None:
    with pytest.raises(ImageError, match="ids cannot be pulled"):
        images.resolve("sha256:" + "0" * 64)


@pytest.fixture
def halting(engine: docker.DockerClient) -> Iterator[tuple[Gate, docker.DockerClient]]:
    """A gate before the engine, and a client of it that waits for half a second."""
    with (
        contextlib.closing(Gate(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))) as gate,
        contextlib.closing(docker.DockerClient(gate.endpoint_url, version="1.41", timeout=0.5)) as client,  # type: ignore[arg-type]  # requests takes fractions of a second
    ):
        yield gate, client


def test_an_image_is_looked_up_again_where_an_answer_does_not_come(
    halting: tuple[Gate, docker.DockerClient], images: ImageStore, base_image: str
) -> None:
    gate, client = halting
    with gate.spoil("/images/", after_bytes=0, is_halt=True, count=LOOKUPS - 1) as flaw:
        assert ImageStore(client, architecture="amd64").resolve(base_image) == images.resolve(base_image)
    assert len(flaw.spoilt) == LOOKUPS - 1


def test_an_engine_whose_answers_never_come_is_named_in_the_end(
    halting: tuple[Gate, docker.DockerClient], base_image: str
) -> None:
    gate, client = halting
    with (
        gate.spoil("/images/", after_bytes=0, is_halt=True, count=LOOKUPS) as flaw,
        pytest.raises(ImageError, match=f"engine does not answer, looking for image {base_image}"),
    ):
        ImageStore(client, architecture="amd64").resolve(base_image)
    assert len(flaw.spoilt) == LOOKUPS


def test_an_engine_that_does_not_answer_is_named_as_the_cause() -> None:
    client = docker.DockerClient("tcp://127.0.0.1:9", version="1.41")
    with pytest.raises(ImageError, match="engine does not answer, looking for image a:1"):
        ImageStore(client).resolve("a:1")
    client.close()
