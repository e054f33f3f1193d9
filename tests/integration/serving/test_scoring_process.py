"""A scoring container where no engine answers: source code, served by a child process on a port of its own."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.errors import UnsupportedError
from raymaker.actors.runtime.process import ProcessRuntime
from raymaker.actors.scoring import ScoringContainer, fetch_model, ping
from raymaker.actors.site import Site
from raymaker.actors.spec import ScoringSpec, SourceSpec
from raymaker.actors.storage import ObjectStore, StoreConfig

SERVER = Path(__file__).with_name("scoring_server.py")


@pytest.fixture
def site(home: Path) -> Site:
    return Site(home=home, driver="process", store=StoreConfig(), base_image="")


def test_source_code_serves_a_model_on_a_port_of_its_own(site: Site, tmp_path: Path) -> None:
    code, model = tmp_path / "code", tmp_path / "stored"
    code.mkdir()
    model.mkdir()
    (code / "serve.py").write_bytes(SERVER.read_bytes())
    (code / "train.py").touch()
    (model / "weights.txt").write_text("1 2 3")
    spec = ScoringSpec(
        source=SourceSpec(code.as_uri(), "train.py"),
        model_uri=model.as_uri(),
        startup_timeout_s=30,
        additional_models={"again": model.as_uri()},
    )
    runtime = ProcessRuntime(site.home)
    store = ObjectStore()
    fetch_model(store, spec, tmp_path / "model")
    algorithm = prepare_algorithm(runtime, store, site, image=None, source=spec.source)
    container = ScoringContainer(
        runtime, algorithm, spec, name="scoring-process", folder=tmp_path / "model", labels={}, on_log=lambda _: None
    )
    try:
        host, port = container.start()
        assert (host, port != 8080) == ("127.0.0.1", True)
        assert ping((host, port)) is None
        for name in ("weights.txt", "../additional-model-data-sources/again/weights.txt"):
            asked = urllib.request.Request(
                f"http://{host}:{port}/invocations", b"", {"X-Amzn-SageMaker-Custom-Attributes": f"model {name}"}
            )
            with urllib.request.urlopen(asked) as answer:
                assert answer.read() == b"1 2 3"
        container.stop()
        assert container.wait().startswith("exit code 0")
    finally:
        container.remove()
    assert runtime.owned({}) == []


def test_an_image_is_refused_with_the_remedy(site: Site) -> None:
    with pytest.raises(UnsupportedError, match=r"start one \(Docker, Podman\).*source code"):
        prepare_algorithm(ProcessRuntime(site.home), ObjectStore(), site, image="mine:latest", source=None)


def test_a_base_image_is_refused_too(site: Site, tmp_path: Path) -> None:
    source = SourceSpec(tmp_path.as_uri(), "train.py", base_image="python:3.11")
    with pytest.raises(UnsupportedError, match="python:3.11"):
        prepare_algorithm(ProcessRuntime(site.home), ObjectStore(), site, image=None, source=source)
