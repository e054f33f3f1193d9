"""Source code made into images by a real engine, and built on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from raymaker.actors.errors import PackagingError
from raymaker.actors.packaging import StagedSource, build_here, build_image, stage_source
from raymaker.actors.spec import SourceSpec
from raymaker.actors.storage import ObjectStore, StoreConfig
from support.s3 import ObjectStore as S3Server

STORE = ObjectStore(StoreConfig(retry_s=0))
BUILDS_TRAIN = """\
#!/bin/sh
set -eu
printf '#!/usr/bin/perl\\nprint "trained with @ARGV\\\\n";' >train
printf '#!/bin/sh\\necho serving' >serve
chmod +x train serve
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


@pytest.fixture
def images(engine: docker.DockerClient) -> Iterator[list[str]]:
    """Ids of images to remove after the test."""
    built: list[str] = []
    yield built
    for image in built:
        engine.images.remove(image, force=True)


def stage(code: Path, entry_point: str, tmp_path: Path) -> StagedSource:
    return stage_source(STORE, SourceSpec(code.as_uri(), entry_point), tmp_path / "work")


def run(engine: docker.DockerClient, image: str, *command: str) -> str:
    output: bytes = engine.containers.run(image, list(command), remove=True, network_mode="none", stderr=True)
    return output.decode()


def test_python_code_becomes_an_image_that_trains_and_serves(
    engine: docker.DockerClient, base_image: str, images: list[str], code: Path, tmp_path: Path
) -> None:
    (code / "train.py").write_text("import numpy, sys; print('numpy', numpy.arange(3).sum(), *sys.argv[1:])")
    (code / "serve.py").write_text("print('serving')")
    images.append(build_image(stage(code, "train.py", tmp_path), base_image, engine))
    assert run(engine, images[0], "train", "--lr", "a b") == "numpy 3 --lr a b\n"
    assert run(engine, images[0], "serve") == "serving\n"


def test_the_same_code_on_the_same_base_is_built_once(
    engine: docker.DockerClient, base_image: str, images: list[str], code: Path, tmp_path: Path
) -> None:
    (code / "train.sh").write_text("date +%N")
    staged = stage(code, "train.sh", tmp_path)
    images.append(build_image(staged, base_image, engine))
    assert build_image(staged, base_image, engine) == images[0]
    assert [tag.partition(":")[0] for tag in engine.images.get(images[0]).tags] == ["raymaker-source"]


def test_a_build_script_runs_in_the_image_and_may_make_the_entry_point(
    engine: docker.DockerClient, base_image: str, images: list[str], code: Path, tmp_path: Path
) -> None:
    (code / "build.sh").write_text(BUILDS_TRAIN)
    images.append(build_image(stage(code, "train", tmp_path), base_image, engine, network="none"))
    assert run(engine, images[0], "train", "-a", "1") == "trained with -a 1\n"
    assert run(engine, images[0], "serve") == "serving\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no compiler here >&2; exit 3", r"no compiler here"),
        ("true", "build.sh made no entry point train"),
    ],
)
def test_a_build_that_fails_shows_its_log_and_leaves_nothing(
    engine: docker.DockerClient, base_image: str, code: Path, script: str, message: str
) -> None:
    (code / "build.sh").write_text(f"#!/bin/sh\n{script}\n")
    staged = stage(code, "train", code.parent)
    with pytest.raises(PackagingError, match=message):
        build_image(staged, base_image, engine)
    label = {"label": f"raymaker.source={staged.sha256}"}
    assert engine.images.list(filters=label) == engine.containers.list(all=True, filters=label) == []


def test_a_missing_base_image_is_named_with_the_remedy(engine: docker.DockerClient, code: Path, tmp_path: Path) -> None:
    (code / "train.sh").write_text("true")
    with pytest.raises(PackagingError, match="no base image no-such-base:1.*docker pull"):
        build_image(stage(code, "train.sh", tmp_path), "no-such-base:1", engine)


def test_an_engine_that_is_away_is_named(code: Path, tmp_path: Path) -> None:
    (code / "train.sh").write_text("true")
    client = docker.DockerClient("tcp://127.0.0.1:9", version="1.41")
    with pytest.raises(PackagingError, match="the engine could not build"):
        build_image(stage(code, "train.sh", tmp_path), "any", client)
    client.close()


def test_code_from_s3_runs_though_s3_keeps_no_modes(
    engine: docker.DockerClient, base_image: str, images: list[str], s3: S3Server, tmp_path: Path
) -> None:
    bucket, client = s3.bucket(), s3.client()
    client.put_object(Bucket=bucket, Key="code/go", Body=b"#!/bin/sh\necho from s3")
    client.close()
    store = ObjectStore(StoreConfig(s3.endpoint_url, s3.access_key, s3.secret_key, s3.region))
    staged = stage_source(store, SourceSpec(f"s3://{bucket}/code", "go"), tmp_path / "work")
    images.append(build_image(staged, base_image, engine))
    assert run(engine, images[0], "train") == "from s3\n"


def test_a_build_on_this_machine_makes_the_entry_point_once_in_a_copy(code: Path, tmp_path: Path) -> None:
    (code / "build.sh").write_text(f"{BUILDS_TRAIN}echo built >>{tmp_path}/log\n")
    staged = stage(code, "train", tmp_path)
    built = build_here(staged)
    assert build_here(staged) == built
    assert (tmp_path / "log").read_text() == "built\n"
    assert not (staged.folder / "code" / "train").exists()
    done = subprocess.run([str(built.folder / "bin" / "train"), "x"], capture_output=True, text=True, check=True)
    assert done.stdout == "trained with x\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo no compiler >&2; exit 3", "no compiler\nexit code 3"), ("true", "made no entry point train")],
)
def test_a_build_on_this_machine_that_fails_shows_its_log_and_leaves_nothing(
    code: Path, tmp_path: Path, script: str, message: str
) -> None:
    (code / "build.sh").write_text(script)
    staged = stage(code, "train", tmp_path)
    with pytest.raises(PackagingError, match=message):
        build_here(staged)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [staged.sha256]
