"""A job changed while its containers run, through the supervisor alone: real containers, no platform around it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from raymaker.actors.instance import Instance
from raymaker.actors.reports import Outcome, UpdateReport, UpdateStage
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec, Manner, Place, SourceSpec
from raymaker.actors.storage import StoreConfig
from support.faults import eventually
from support.supervised import Trial

LISTENS = """
import json, os, time, raymaker_exchange
with raymaker_exchange.join() as exchange:
    print("ready", exchange.rank, flush=True)
    while True:
        change = exchange.wait_for_change(60) if exchange.rank == 0 else None
        if change:
            file = json.load(open("/opt/ml/input/config/hyperparameters.json"))
            code = open(change.code + "/train.py").read() if change.code else ""
            print("heard", change.revision, change.changed, file, code, flush=True)
            exchange.put_document("end", change.hyperparameters)
        if (exchange.get_document("end", wait_s=0.2) or {}).get("end"):
            break
"""
DEAF = """
import json, os, sys, time
folder = "/opt/ml/input/data/train/"
print("ready", json.load(open("/opt/ml/input/config/hyperparameters.json")), sys.argv[1:],
      [open(folder + name).read() for name in os.listdir(folder)], os.listdir("/opt/ml/model"), flush=True)
open("/opt/ml/model/old", "w").write("old")
time.sleep(600)
"""


@pytest.fixture(params=["docker", "process"])
def trial(
    request: pytest.FixtureRequest, engine: docker.DockerClient, base_image: str, tmp_path: Path
) -> Iterator[Trial]:
    home = tmp_path / "home"
    home.mkdir()
    site = Site(home, request.param, StoreConfig(), base_image, stop_grace_s=2.0)
    runtime = select_runtime(request.param, home)
    yield Trial(site, runtime, tmp_path)
    assert runtime.owned({"raymaker.home": str(home)}) == [], "a container was left behind"
    assert list(Path("/dev/shm").glob(f"raymaker-{site.tag}-*")) == [], "shared memory was left behind"
    assert list((home / "jobs").glob("*/*")) == [], "a job's folder was left behind"


def channel(trial: Trial) -> tuple[Path, dict]:
    data = trial.folder / "data"
    data.mkdir()
    (data / "rows").write_text("rows")
    return data / "rows", {"channels": (ChannelSpec("train", data.as_uri()),), "hyperparameters": {"rate": "1"}}


def containers(trial: Trial) -> set[str]:
    assert trial.spec is not None
    labels = {"raymaker.home": str(trial.site.home), "raymaker.job": trial.spec.job_name}
    return {handle.id for handle, _ in trial.runtime.owned(labels)}


def test_containers_that_listen_go_on_with_other_hyperparameters_and_code(trial: Trial) -> None:
    supervisor = trial.begin(LISTENS, containers_per_instance=2, hyperparameters={"rate": "1"})
    trial.kept.until_said("ready", 2)
    before = containers(trial)
    trial.want(1, hyperparameters={"rate": "2"})
    supervisor.update(1)
    assert trial.kept.until_told(UpdateStage.APPLIED).heard_by == (0,)
    trial.want(2, script="print('new')")
    supervisor.update(2)
    trial.kept.until_said("print('new')")
    assert containers(trial) == before
    trial.kept.told.clear()
    assert trial.kept.until_told(UpdateStage.APPLIED).revision == 2
    trial.want(3, hyperparameters={"rate": "2", "end": "1"})
    supervisor.update(3)
    assert supervisor.wait(60)
    assert trial.kept.outcome is Outcome.COMPLETED
    assert trial.spec is not None
    heard = [it for it in trial.kept.lines[f"{trial.spec.job_name}/algo-1-1"] if it.startswith("heard")]
    assert heard[0] == "heard 1 ('hyperparameters',) {'rate': '2'} "
    assert heard[1] == "heard 2 ('code',) {'rate': '2'} print('new')"
    assert len(heard) == 3


@pytest.mark.parametrize("deletes_model", [True, False])
def test_containers_that_do_not_listen_are_replaced_with_the_data_that_is_here(
    trial: Trial, *, deletes_model: bool
) -> None:
    rows, settings = channel(trial)
    supervisor = trial.begin(DEAF, **settings)
    trial.kept.until_said("ready")
    before = containers(trial)
    rows.unlink()
    trial.want(1, hyperparameters={"rate": "2"}, hear_timeout_s=1.0, may_restart=True, deletes_model=deletes_model)
    supervisor.update(1)
    trial.kept.until_said("ready", 2)
    assert len(containers(trial)) == 1
    assert containers(trial).isdisjoint(before)
    supervisor.stop()
    assert supervisor.wait(60)
    assert trial.spec is not None
    first, second = trial.kept.lines[f"{trial.spec.job_name}/algo-1-1"]
    assert first == "ready {'rate': '1'} ['--rate', '1'] ['rows'] []"
    assert second == f"ready {{'rate': '2'}} ['--rate', '2'] ['rows'] {[] if deletes_model else ['old']}"
    assert [(it.phase, it.revision) for it in trial.kept.reports[-4:]] == [
        ("Training", 0),
        ("Training", 1),
        ("Uploading", 1),
        ("Stopped", 1),
    ]


def test_containers_that_do_not_listen_go_on_where_no_restart_was_allowed(trial: Trial) -> None:
    _, settings = channel(trial)
    supervisor = trial.begin(DEAF, **settings)
    trial.kept.until_said("ready")
    before = containers(trial)
    trial.want(1, hyperparameters={"rate": "2"}, hear_timeout_s=1.0)
    supervisor.update(1)
    assert "no container asked" in trial.kept.until_told(UpdateStage.FAILED).reason
    assert containers(trial) == before
    supervisor.stop()
    assert supervisor.wait(60)
    assert trial.kept.outcome is Outcome.STOPPED


def test_new_code_replaces_containers_only_once_it_is_ready(trial: Trial) -> None:
    rows, settings = channel(trial)
    supervisor = trial.begin(DEAF, **settings)
    trial.kept.until_said("ready")
    before = containers(trial)
    rows.unlink()
    trial.want(1, Manner.REPLACE, source=SourceSpec((trial.folder / "nowhere").as_uri(), "train.py"))
    supervisor.update(1)
    assert "nowhere" in trial.kept.until_told(UpdateStage.FAILED).reason
    assert containers(trial) == before
    trial.want(2, Manner.REPLACE, script=DEAF.replace("ready", "as new as"))
    supervisor.update(2)
    trial.kept.until_said("as new as {'rate': '1'} ['--rate', '1'] ['rows'] ['old']")
    supervisor.stop()
    assert supervisor.wait(60)


@pytest.mark.parametrize("is_gone", [True, False])
def test_whoever_takes_over_from_an_owner_that_died_while_it_replaced_containers_goes_on_with_that(
    trial: Trial, *, is_gone: bool
) -> None:
    rows, settings = channel(trial)
    spec = trial.plan(DEAF, **settings)
    with Instance(spec, trial.site, trial.runtime, Place(), lambda *_: None) as died:
        release, died.input.release = died.input.release, lambda: None  # type: ignore[method-assign]
        died.prepare_algorithm()
        died.fetch_channels(lambda _: None)
        died.restore_checkpoints()
        died.start(None, {})
        eventually(lambda: list(trial.runtime.logs(died.handles[0])), "it runs")
        if is_gone:
            died._containers.remove()
    rows.unlink()
    trial.want(1, hyperparameters={"rate": "2"}, deletes_model=True)
    report = UpdateReport(spec.job_name, 1, 1, UpdateStage.RESTARTING)
    assert trial.kept.report_update(report)
    supervisor = trial.supervise()
    trial.kept.until_said("ready {'rate': '2'} ['--rate', '2'] ['rows'] []")
    supervisor.stop()
    assert supervisor.wait(60)
    died._exchange.close()  # type: ignore[union-attr]
    release()


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [("../evil", 0, "../evil"), ("/etc/evil", 0, "/etc/evil"), ("zeros", 256 * 1024**2, "200 times its size")],
)
def test_code_in_an_archive_that_leads_out_or_is_a_bomb_is_refused_and_the_job_goes_on(
    trial: Trial, name: str, size: int, reason: str
) -> None:
    supervisor = trial.begin(LISTENS)
    trial.kept.until_said("ready")
    archive = trial.folder / "code.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("train.py"), io.BytesIO())
        member = tarfile.TarInfo(name)
        member.size = size
        packed.addfile(member, io.BytesIO(bytes(size)))
    trial.want(1, source=SourceSpec(archive.as_uri(), "train.py"))
    supervisor.update(1)
    assert reason in trial.kept.until_told(UpdateStage.FAILED).reason
    supervisor.stop()
    assert supervisor.wait(60)
    assert trial.kept.outcome is Outcome.STOPPED


def test_a_stop_without_a_model_stores_none_and_deletes_what_was_stored(trial: Trial) -> None:
    _, settings = channel(trial)
    supervisor = trial.begin(DEAF, **settings)
    trial.kept.until_said("ready")
    trial.output.mkdir(parents=True)
    (trial.output / "model.tar.gz").write_text("an earlier owner's")
    trial.kept.deletes_model()
    supervisor.stop()
    assert supervisor.wait(60)
    assert (trial.kept.outcome, trial.kept.end.model_uri) == (Outcome.STOPPED, None)
    assert "deleted" in trial.kept.end.message
    assert not (trial.output / "model.tar.gz").exists()
