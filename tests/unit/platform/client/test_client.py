"""The client against the whole API, without a socket; the machines' part is played by the test."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.actors.reports import Outcome, UpdateStage
from raymaker.platform.client import Client
from raymaker.platform.client.connection import Connection
from raymaker.platform.client.errors import (
    JobFailed,
    PlatformUnreachable,
    RaymakerError,
    RequestRefused,
    UpdateFailed,
    WaitTimeout,
    WrongArgument,
)
from support.near_platform import NearPlatform, near_platform


@pytest.fixture
def platform(home: Path) -> Iterator[NearPlatform]:
    with near_platform(home) as platform:
        yield platform


@pytest.fixture
def client(platform: NearPlatform) -> Client:
    return platform.client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "my code"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')")
    return folder


def test_training_an_image_asks_for_what_was_given(client: Client, tmp_path: Path) -> None:
    data = tmp_path / "rows 1.csv"
    data.write_text("1,2")
    job = client.train(
        image="registry:5000/algo:1",
        inputs={"train": data, "test": "s3://bucket/test"},
        output="s3://bucket/out",
        hyperparameters={"epochs": 3, "rate": 0.5, "shuffle": True, "layers": [8, 4], "name": "x"},
        metrics={"loss": "loss=(.*)"},
        environment={"A": "b"},
        max_runtime_s=60,
        name="one",
    )
    seen = job.describe()
    assert seen["TrainingJobName"] == "one"
    assert seen["AlgorithmSpecification"]["TrainingImage"] == "registry:5000/algo:1"
    assert seen["AlgorithmSpecification"]["MetricDefinitions"] == [{"Name": "loss", "Regex": "loss=(.*)"}]
    assert seen["HyperParameters"] == {
        "epochs": "3",
        "rate": "0.5",
        "shuffle": "true",
        "layers": "[8, 4]",
        "name": "x",
    }
    assert [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in seen["InputDataConfig"]] == [
        f"file://{tmp_path}/rows%201.csv",
        "s3://bucket/test",
    ]
    assert seen["OutputDataConfig"]["S3OutputPath"] == "s3://bucket/out"
    assert seen["Environment"] == {"A": "b"}
    assert seen["StoppingCondition"]["MaxRuntimeInSeconds"] == 60
    assert seen["EnableNetworkIsolation"] is True


def test_training_on_many_containers_asks_for_what_was_given(client: Client, tmp_path: Path) -> None:
    job = client.train(
        image="algo",
        inputs={"train": "s3://b/train", "rows": "s3://b/rows.csv", "test": "s3://b/test"},
        output="s3://b/out",
        instance_count=3,
        min_instance_count=2,
        max_instance_count=4,
        containers_per_instance=2,
        placement="spread",
        shard={"train": "object", "rows": "Record"},
        stream={"train": "fastfile", "rows": "arrow", "test": "Pipe"},
        checkpoints=tmp_path / "kept",
        checkpoint_path="/checkpoints",
    )
    seen = job.describe()
    assert seen["ResourceConfig"] == {
        "InstanceType": "local",
        "InstanceCount": 3,
        "VolumeSizeInGB": 1,
        "MinInstanceCount": 2,
        "MaxInstanceCount": 4,
        "ContainersPerInstance": 2,
        "PlacementStrategy": "Spread",
    }
    assert [
        (channel["DataSource"]["S3DataSource"]["S3DataDistributionType"], channel.get("ShardBy"))
        for channel in seen["InputDataConfig"]
    ] == [("ShardedByS3Key", "Object"), ("ShardedByS3Key", "Record"), ("FullyReplicated", None)]
    assert [channel.get("InputMode") for channel in seen["InputDataConfig"]] == ["FastFile", "Arrow", "Pipe"]
    assert seen["CheckpointConfig"] == {"S3Uri": (tmp_path / "kept").as_uri(), "LocalPath": "/checkpoints"}


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, 1), ({"max_instance_count": 4}, 4), ({"min_instance_count": 2}, 2), ({"instance_count": 3}, 3)],
)
def test_a_job_has_one_instance_unless_more_are_asked_for(client: Client, given: dict[str, int], count: int) -> None:
    assert client.train(image="algo", output="s3://b/o", **given).describe()["ResourceConfig"]["InstanceCount"] == count


def test_no_instances_are_refused_by_the_platform(client: Client) -> None:
    with pytest.raises(RequestRefused, match="InstanceCount 0 is too few"):
        client.train(image="algo", output="s3://b/o", instance_count=0)


def test_training_source_code_makes_up_a_name_from_the_entry_point(client: Client, source: Path) -> None:
    job = client.train(source=source, entry_point="train.py", base_image="python:3.11")
    assert job.name.startswith("train-")
    algorithm = job.describe()["AlgorithmSpecification"]
    assert algorithm["AlgorithmSource"] == {
        "SourceUri": source.as_uri(),
        "EntryPoint": "train.py",
        "BaseImage": "python:3.11",
    }


def test_a_relative_path_becomes_an_absolute_uri(client: Client, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    job = client.train(source="my code", entry_point="train.py", output="models")
    assert job.describe()["OutputDataConfig"]["S3OutputPath"] == (source.parent / "models").as_uri()


def test_without_an_output_models_go_to_the_home_folder(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYMAKER_HOME", str(tmp_path / "state"))
    job = client.train(image="algo")
    assert job.describe()["OutputDataConfig"]["S3OutputPath"] == (tmp_path / "state" / "models").as_uri()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "source .* or image, one of them"),
        ({"image": "a", "source": "s3://b/c"}, "source .* or image, one of them"),
        ({"image": "a", "entry_point": "train.py"}, "entry_point and base_image go with source"),
        ({"source": "s3://b/c"}, "entry_point is not given"),
        ({"source": "/not/here", "entry_point": "x.py"}, "source is /not/here, but there is no /not/here"),
        ({"image": "a", "inputs": {"train": "/not/here"}}, r"inputs\['train'\] is /not/here"),
        ({"image": "a", "shard": {"train": "record"}}, "shard names train, which is no input"),
        ({"image": "a", "stream": {"train": "pipe"}}, "stream names train, which is no input"),
        (
            {"image": "a", "inputs": {"train": "s3://b/x"}, "stream": {"train": "file"}},
            r"stream\['train'\] is 'file': it is Pipe, Arrow or FastFile",
        ),
        (
            {"image": "a", "inputs": {"train": "s3://b/x"}, "shard": {"train": "line"}},
            r"shard\['train'\] is 'line': it is Object or Record",
        ),
        ({"image": "a", "checkpoint_path": "/checkpoints"}, "checkpoint_path goes with checkpoints"),
    ],
)
def test_a_wrong_argument_is_told_by_name_before_anything_is_sent(
    platform: NearPlatform, client: Client, arguments: dict[str, object], told: str
) -> None:
    platform.away = True
    with pytest.raises(WrongArgument, match=told):
        client.train(**arguments)


def test_an_entry_point_that_is_not_in_the_source_is_told(client: Client, source: Path) -> None:
    with pytest.raises(WrongArgument, match="entry_point is main.py, but there is no such file"):
        client.train(source=source, entry_point="main.py")


def test_what_the_platform_refuses_comes_with_its_code_and_message(client: Client) -> None:
    with pytest.raises(RequestRefused, match="ResourceConfig.InstanceType.*there is no instance type huge") as caught:
        client.train(image="algo", instance_type="huge")
    assert caught.value.code == "ValidationException"


def test_a_name_that_is_taken_is_refused(client: Client) -> None:
    client.train(image="algo", name="taken")
    with pytest.raises(RequestRefused, match="already exists") as caught:
        client.train(image="algo", name="taken")
    assert caught.value.code == "ResourceInUse"


def test_no_real_key_signs_requests_to_this_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "REAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "REAL")
    with near_platform(home, share_clients=False) as platform:
        list(platform.client.jobs())
        assert platform.signed_with == {"local"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8000"])
def test_loopback_is_this_machine(url: str) -> None:
    assert Connection(url).is_local


def test_a_user_s_own_key_signs_requests_to_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "REAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "REAL")
    connection = Connection("https://ml.example.com")
    assert not connection.is_local
    assert connection._made_up_key is None


def test_a_platform_on_another_machine_must_be_told_where_models_go() -> None:
    with pytest.raises(WrongArgument, match="output is not given"):
        Client("https://ml.example.com").train(image="algo")


def test_an_endpoint_url_that_is_none_is_refused() -> None:
    with pytest.raises(WrongArgument, match="give an http:// or https:// URL"):
        Client("127.0.0.1:8000")


def test_a_platform_that_does_not_answer_is_told_with_the_remedy(
    platform: NearPlatform, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore pauses between its own attempts
    platform.away = True
    with pytest.raises(PlatformUnreachable, match="raymaker up"):
        list(client.jobs())


def test_waiting_shows_every_phase_and_what_a_job_waits_for(
    platform: NearPlatform, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    job = client.train(image="algo", name="job")
    platform.meanwhile(
        lambda: platform.keep_job_waiting("job", "no machine has 4 CPUs free"),
        lambda: platform.start_job("job"),
        lambda: platform.report("job", "Downloading"),
        lambda: platform.report("job", "Training", training_started_at=platform.now),
        lambda: platform.report("job", "Completed", Outcome.COMPLETED, model_uri="s3://b/m.tar.gz"),
    )
    assert job.wait() is job
    told = capsys.readouterr()
    assert told.out == ""
    positions = [told.err.index(text) for text in ("no machine has 4 CPUs", "Downloading", "Training", "Completed")]
    assert positions == sorted(positions)


def test_waiting_for_a_job_that_fails_raises_its_reason_and_last_lines(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    platform.job_says("job", *(f"line {number}" for number in range(30)), "no such column: y")
    platform.meanwhile(lambda: platform.fail_job("job", "AlgorithmError: it broke, exit code: 1"))
    with pytest.raises(JobFailed, match="training job job failed: AlgorithmError: it broke") as caught:
        job.wait(progress=False)
    assert caught.value.log_lines[-1] == "no such column: y"
    assert len(caught.value.log_lines) == 20
    assert "no such column: y" in str(caught.value)


def test_waiting_goes_on_while_the_platform_is_started_again(
    platform: NearPlatform, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    job = client.train(image="algo", name="job")

    def go_away() -> None:
        platform.away = True

    def come_back() -> None:
        platform.away = False
        platform.complete_job("job")

    platform.meanwhile(go_away, lambda: None, come_back)
    job.wait(progress=False)
    assert job.status == "Completed"


def test_a_limit_on_waiting_leaves_the_job_alone(client: Client) -> None:
    job = client.train(image="algo", name="job")
    with pytest.raises(WaitTimeout, match="training job job has not ended within 5 s"):
        job.wait(timeout_s=5, progress=False)
    assert job.status == "InProgress"


def test_following_a_log_yields_each_line_once_until_the_job_ends(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    platform.meanwhile(
        lambda: platform.job_says("job", "first", "second"),
        lambda: None,
        lambda: platform.job_says("job", "third"),
        lambda: (platform.job_says("job", "last"), platform.complete_job("job")),
    )
    assert list(job.logs(follow=True)) == ["first", "second", "third", "last"]


def test_a_log_without_lines_is_empty_and_other_jobs_lines_stay_out(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    assert list(job.logs()) == []
    platform.job_says("job-2", "not mine")
    assert list(job.logs()) == []
    platform.job_says("job", "mine")
    assert list(job.logs()) == ["mine"]


def test_streams_of_a_log_come_in_the_order_of_their_first_lines(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    platform.job_says("job", "of the first attempt", stream="z")
    platform.now += 60
    platform.job_says("job", "of the second attempt", stream="a")
    assert list(job.logs()) == ["of the first attempt", "of the second attempt"]


def test_lines_of_several_containers_come_in_their_order_in_time_each_with_its_host(
    platform: NearPlatform, client: Client
) -> None:
    job = client.train(image="algo", name="job", containers_per_instance=2)
    for number in range(2):
        for host in ("algo-1", "algo-2"):
            platform.now += 1
            platform.job_says("job", f"epoch {number}", stream=f"{host}-1")
    assert list(job.logs()) == [
        "algo-1 | epoch 0",
        "algo-2 | epoch 0",
        "algo-1 | epoch 1",
        "algo-2 | epoch 1",
    ]
    assert [event.host for event in job.log_events()] == ["algo-1", "algo-2"] * 2


def test_a_gangs_log_is_followed_through_its_starts(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job", instance_count=2)
    platform.meanwhile(
        lambda: platform.job_says("job", "of the first start", stream="algo-2-1-1"),
        lambda: platform.job_says("job", "of the second start", stream="algo-2-1-2"),
        lambda: platform.complete_job("job"),
    )
    assert list(job.logs(follow=True)) == ["algo-2 | of the first start", "algo-2 | of the second start"]


def test_a_job_that_fails_tells_the_last_lines_of_the_container_that_is_to_blame(
    platform: NearPlatform, client: Client
) -> None:
    job = client.train(image="algo", name="job", containers_per_instance=2)
    platform.job_says("job", "no such column: y", stream="algo-1-1")
    platform.now += 1
    platform.job_says("job", "algo-1 went away", stream="algo-2-1")
    platform.fail_job("job", "AlgorithmError: algo-1 (rank 0 of 2): exit 1")
    with pytest.raises(JobFailed) as caught:
        job.wait(progress=False)
    assert list(caught.value.log_lines) == ["no such column: y"]


def test_metrics_come_as_columns_and_as_points(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    platform.start_job("job")
    platform.job_measures("job", "loss", *(1.0 / n for n in range(1, 1501)))
    platform.job_measures("job", "accuracy", 0.5)
    columns = job.metrics()
    assert len(columns["loss"]) == 1500
    assert columns["loss"][1] == 0.5
    assert columns["accuracy"] == [0.5]
    periods = job.metric_periods("loss", max_points=50)
    assert (len(periods), sum(period.count for period in periods)) == (50, 1500)
    assert (periods[0].most, periods[-1].least) == (1.0, 1 / 1500)
    assert len(job.metric_periods("loss", period_s=300.0)) == 5
    (point,) = job.metric_points("accuracy")
    assert (point.name, point.value, point.time.timestamp()) == ("accuracy", 0.5, platform.now)


def test_the_model_is_unpacked_into_the_folder(platform: NearPlatform, client: Client, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("weights.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"1 2"))
    job = client.train(image="algo", name="job")
    platform.complete_job("job", archive.as_uri())
    folder = job.download_model(tmp_path / "model")
    assert (folder / "weights.txt").read_text() == "1 2"
    with pytest.raises(RaymakerError, match="model of training job job could not be fetched.*not empty"):
        job.download_model(folder)


def test_a_job_that_has_not_ended_has_no_model_yet(client: Client, tmp_path: Path) -> None:
    job = client.train(image="algo", name="job")
    with pytest.raises(RaymakerError, match="job is InProgress and has no model"):
        job.download_model(tmp_path / "model")
    with pytest.raises(RequestRefused, match="wait for its end"):
        job.deploy()


def test_a_job_is_stopped_and_deleted(client: Client) -> None:
    job = client.train(image="algo", name="job")
    job.stop(wait=True)
    assert job.status == "Stopped"
    job.delete()
    with pytest.raises(RequestRefused, match="no training job job"):
        job.describe()


def test_a_job_is_changed_while_it_trains(platform: NearPlatform, client: Client, source: Path) -> None:
    job = client.train(source=source, entry_point="train.py", name="job", hyperparameters={"rate": 0.1})
    platform.start_job("job")
    platform.report("job", "Training")
    platform.meanwhile(lambda: None, lambda: platform.make_update("job", 1))
    changed = job.update(hyperparameters={"rate": 0.01})
    assert (changed["Revision"], changed["Status"]) == (1, "Applied")
    assert job.describe()["HyperParameters"] == {"rate": "0.01"}
    asked = job.update(source=source, wait=False)
    assert asked["Status"] == "Pending"
    assert asked["Summary"] == [f"code from {source.as_uri()}, which starts with train.py"]
    platform.meanwhile(lambda: platform.make_update("job", 2, stage=UpdateStage.FAILED, reason="nobody listens"))
    with pytest.raises(UpdateFailed, match="revision 2 of training job job failed: nobody listens"):
        job.wait_for_update(2)
    assert [update["Revision"] for update in job.updates()] == [1, 2]


def test_jobs_are_listed_newest_first_and_over_pages(platform: NearPlatform, client: Client) -> None:
    for number in range(12):
        platform.now += 1
        client.train(image="algo", name=f"job-{number}")
    client.job("job-3").stop()
    assert [job["TrainingJobName"] for job in client.jobs()] == [f"job-{number}" for number in reversed(range(12))]
    assert [job["TrainingJobName"] for job in client.jobs(status="Stopped")] == ["job-3"]
    assert [job["TrainingJobName"] for job in client.jobs(name_contains="11")] == ["job-11"]


def test_what_happened_to_a_job_can_be_read(platform: NearPlatform, client: Client) -> None:
    job = client.train(image="algo", name="job")
    platform.complete_job("job")
    assert [event["Message"] for event in job.events()]
