"""The command line against the whole API, without a socket; the machines' part is played by the test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from raymaker.actors.reports import Outcome, UpdateStage
from raymaker.actors.storage import ObjectStore
from raymaker.platform.cli.main import app
from raymaker.platform.cli.session import Session
from raymaker.serving import event_stream
from raymaker.serving.capture import Capture
from raymaker.serving.spec import CaptureSpec
from support.near_platform import NearPlatform, near_platform
from support.scoring import exchange

Run = Callable[..., Result]


@pytest.fixture
def platform(home: Path) -> Iterator[NearPlatform]:
    with near_platform(home) as platform:
        yield platform


@pytest.fixture
def run(platform: NearPlatform) -> Run:
    """Run `raymaker` with these arguments against the platform; an error that is no exit is a bug."""

    def run(*arguments: str, data: bytes | None = None) -> Result:
        result = CliRunner().invoke(app, arguments, input=data, obj=Session(known_client=platform.client))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def read(result: Result) -> Any:
    """What a command printed for programs."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def serve(platform: NearPlatform, name: str = "live") -> None:
    """Bring an endpoint into service that doubles numbers."""
    platform.client.train(image="algo", name="digits")
    platform.complete_job("digits")
    platform.meanwhile(lambda: platform.endpoint_comes_up(name))
    platform.client.job("digits").deploy(name)
    kind = {"Content-Type": "text/csv", "x-Amzn-Invoked-Production-Variant": "AllTraffic"}
    platform.scores_with(name, lambda body, headers: (200, kind, headers["content-type"].encode() + b"|" + body))


def test_train_hands_everything_on_and_prints_the_name(run: Run, platform: NearPlatform, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    result = run(
        *("train", "--source", str(tmp_path), "--entry-point", "train.py", "--base-image", "python:3.11"),
        *("--input", "train=s3://b/train", "--input", f"test={tmp_path}", "--output", "s3://b/out"),
        *("--hp", "epochs=3", "--hp", "expression=a=b", "--env", "A=1", "--metric", "loss=loss=(.*)"),
        *("--max-runtime", "60", "--name", "mine", "--network"),
    )
    assert (result.exit_code, result.stdout) == (0, "mine\n")
    seen = platform.client.job("mine").describe()
    assert seen["AlgorithmSpecification"]["AlgorithmSource"]["BaseImage"] == "python:3.11"
    assert [channel["ChannelName"] for channel in seen["InputDataConfig"]] == ["train", "test"]
    assert seen["HyperParameters"] == {"epochs": "3", "expression": "a=b"}
    assert seen["AlgorithmSpecification"]["MetricDefinitions"] == [{"Name": "loss", "Regex": "loss=(.*)"}]
    assert seen["Environment"] == {"A": "1"}
    assert seen["StoppingCondition"]["MaxRuntimeInSeconds"] == 60
    assert seen["EnableNetworkIsolation"] is False


def test_train_hands_on_what_many_containers_need(run: Run, platform: NearPlatform) -> None:
    result = run(
        *("train", "--image", "algo", "--name", "mine", "--output", "s3://b/out", "--input", "train=s3://b/rows.csv"),
        *("--instance-count", "2", "--min-instance-count", "1", "--max-instance-count", "3"),
        *("--containers-per-instance", "2", "--placement", "spread", "--shard", "train=record"),
        *("--stream", "train=arrow"),
        *("--checkpoint-uri", "s3://b/kept", "--checkpoint-path", "/kept"),
    )
    assert (result.exit_code, result.stdout) == (0, "mine\n")
    seen = platform.client.job("mine").describe()
    assert seen["ResourceConfig"] == {
        "InstanceType": "local",
        "InstanceCount": 2,
        "VolumeSizeInGB": 1,
        "MinInstanceCount": 1,
        "MaxInstanceCount": 3,
        "ContainersPerInstance": 2,
        "PlacementStrategy": "Spread",
    }
    assert (seen["InputDataConfig"][0]["ShardBy"], seen["InputDataConfig"][0]["InputMode"]) == ("Record", "Arrow")
    assert seen["CheckpointConfig"] == {"S3Uri": "s3://b/kept", "LocalPath": "/kept"}
    assert "1 to 3 x local, 2 containers each" in run("describe", "mine").stdout


def test_logs_of_many_containers_are_told_apart(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine", containers_per_instance=2)
    platform.job_says("mine", "one", stream="algo-1-1")
    platform.now += 1
    platform.job_says("mine", "two", stream="algo-2-1")
    assert run("logs", "mine").stdout == "algo-1 | one\nalgo-2 | two\n"
    objects = [json.loads(line) for line in run("logs", "mine", "--json").stdout.splitlines()]
    assert [(item["stream"], item["text"]) for item in objects] == [("mine/algo-1-1", "one"), ("mine/algo-2-1", "two")]


def test_train_and_follow_prints_the_log_until_the_end(run: Run, platform: NearPlatform) -> None:
    platform.meanwhile(
        lambda: platform.job_says("mine", "epoch 1"),
        lambda: (platform.job_says("mine", "epoch 2"), platform.complete_job("mine")),
    )
    result = run("train", "--image", "algo", "--name", "mine", "--follow")
    assert result.stdout == "epoch 1\nepoch 2\nmine\n"


def test_train_and_wait_keeps_standard_output_for_json(run: Run, platform: NearPlatform) -> None:
    platform.meanwhile(lambda: platform.job_says("mine", "epoch 1"), lambda: platform.complete_job("mine"))
    result = run("train", "--image", "algo", "--name", "mine", "--wait", "--follow", "--json")
    assert read(result)["TrainingJobStatus"] == "Completed"
    assert "epoch 1" in result.stderr


def test_a_job_that_fails_is_an_error_with_the_reason_and_its_last_lines(run: Run, platform: NearPlatform) -> None:
    platform.meanwhile(
        lambda: platform.job_says("mine", "no such column"), lambda: platform.fail_job("mine", "AlgorithmError: no")
    )
    result = run("train", "--image", "algo", "--name", "mine", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: training job mine failed: AlgorithmError: no" in result.stderr
    assert "no such column" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train",), "give --source or --image, one of them"),
        (("train", "--source", "x"), "--source needs --entry-point"),
        (("train", "--image", "a", "--hp", "epochs"), "--hp is 'epochs'"),
        (("train", "--image", "a", "--shard", "train"), "--shard is 'train'"),
        (("train", "--image", "a", "--hp", "a=1", "--hp", "a=2"), "--hp names a twice"),
        (("train", "--image", "a", "--max-runtime", "soon"), "--max-runtime"),
        (("deploy",), "name a training job, or give --image"),
        (("deploy", "job", "--model", "x"), "--model goes with --image"),
        (("describe", "x", "--job", "--endpoint"), "not both"),
        (("invoke", "x"), "--data"),
        (("fly",), "fly"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "--source", "/not/here", "--entry-point", "x.py"), "source is /not/here, but there is no /not/here"),
        (("train", "--image", "a", "--instance-type", "huge"), "there is no instance type huge"),
        (("describe", "ghost"), "no training job and no endpoint named ghost: `raymaker jobs`"),
        (("stop", "ghost"), "no training job ghost"),
        (("deploy", "ghost"), "no training job ghost"),
        (("invoke", "ghost", "--data", "1"), "ghost"),
        (("invoke", "ghost", "--data", "@/not/here"), "/not/here cannot be read: No such file"),
        (("delete", "--endpoint", "ghost"), "Could not find endpoint"),
        (("metrics", "ghost"), "no training job ghost"),
        (("events", "--job", "ghost"), "no training job ghost"),
        (("jobs", "--status", "Weird"), "Weird"),
    ],
)
def test_an_error_exits_with_1_in_words_and_as_json(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)
    assert told in error["message"]
    assert error["error"]


def test_a_platform_that_is_away_is_told_with_the_remedy(
    run: Run, platform: NearPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore pauses between its own attempts
    platform.away = True
    result = run("jobs")
    assert result.exit_code == 1
    assert "raymaker up" in result.stderr
    assert json.loads(run("jobs", "--json").stderr)["error"] == "PlatformUnreachable"


def test_jobs_are_a_table_for_people_and_json_for_programs(run: Run, platform: NearPlatform) -> None:
    assert run("jobs").stdout == "no training jobs\n"
    assert read(run("jobs", "--json")) == []
    for name in ("a", "b", "c" * 63):
        platform.now += 1
        platform.client.train(image="algo", name=name)
    platform.fail_job("a", "AlgorithmError: no")
    lines = run("jobs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "c" * 63, "b", "a"]
    assert "Failed" in lines[3]
    assert [job["TrainingJobName"] for job in read(run("jobs", "--json", "--limit", "2"))] == ["c" * 63, "b"]
    assert [job["TrainingJobName"] for job in read(run("jobs", "--json", "--status", "Failed"))] == ["a"]


def test_what_waits_is_listed_in_its_order_and_each_knows_its_place(run: Run, platform: NearPlatform) -> None:
    for name in ("a", "b", "c", "d"):
        platform.now += 1
        platform.client.train(image="algo", name=name)
    platform.start_job("b")
    for name in ("a", "c", "d"):
        platform.keep_job_waiting(name, "Waiting for an instance of local")
    assert [job["TrainingJobName"] for job in read(run("jobs", "--waiting", "--json"))] == ["a", "c", "d"]
    assert "behind" not in run("describe", "a").stdout
    assert "Waiting for an instance of local, behind 1 of your jobs" in run("describe", "c").stdout
    assert "Waiting for an instance of local, behind 2 of your jobs" in run("describe", "d").stdout
    assert run("jobs", "--waiting", "--status", "Failed").exit_code == 2


def test_a_job_is_described_with_its_reason_phases_model_and_numbers(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo:7", name="mine", inputs={"train": "s3://b/rows"}, hyperparameters={"epochs": 3})
    platform.start_job("mine")
    platform.job_measures("mine", "loss", 0.5, 0.25)
    platform.report("mine", "Training", training_started_at=platform.now)
    platform.report("mine", "Failed", Outcome.FAILED, failure_reason="AlgorithmError: [red] no [/red]")
    told = run("describe", "mine").stdout
    for text in (
        "algo:7",
        "train=s3://b/rows",
        "epochs=3",
        "AlgorithmError: [red] no [/red]",
        "Training it is",
        "0.25",
    ):
        assert text in told
    seen = read(run("describe", "mine", "--json"))
    assert seen["FailureReason"] == "AlgorithmError: [red] no [/red]"
    assert seen["CreationTime"].startswith("2023-11-14T")
    platform.client.train(image="algo", name="good")
    platform.complete_job("good", "s3://bucket/out/good/output/model.tar.gz")
    assert "s3://bucket/out/good/output/model.tar.gz" in run("describe", "good").stdout


def test_a_log_is_printed_and_followed(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    platform.job_says("mine", "one", "[bold]two[/]")
    assert run("logs", "mine").stdout == "one\n[bold]two[/]\n"
    objects = [json.loads(line) for line in run("logs", "mine", "--json").stdout.splitlines()]
    assert [item["text"] for item in objects] == ["one", "[bold]two[/]"]
    platform.meanwhile(lambda: (platform.job_says("mine", "three"), platform.complete_job("mine")))
    assert run("logs", "-f", "mine").stdout.splitlines()[-1] == "three"


def test_metrics_are_summed_up_listed_and_valid_json_even_where_they_explode(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    platform.start_job("mine")
    assert run("metrics", "mine").stdout == "no metrics\n"
    platform.job_measures("mine", "loss", 4, 2, 3)
    assert run("metrics", "mine").stdout.splitlines()[1].split() == ["loss", "3", "4", "3", "2", "4"]
    assert [line.split()[-1] for line in run("metrics", "mine", "--name", "loss").stdout.splitlines()[1:]] == [
        *("4", "2", "3")
    ]
    platform.job_measures("mine", "bad", float("nan"))
    values = {point["MetricName"]: point["Value"] for point in read(run("metrics", "mine", "--json"))}
    assert values == {"loss": 3.0, "bad": "NaN"}


def test_metrics_are_drawn_and_kept_as_an_image(run: Run, platform: NearPlatform, tmp_path: Path) -> None:
    platform.client.train(image="algo", name="mine")
    platform.start_job("mine")
    assert run("metrics", "mine", "--chart").stdout == "no metrics\n"
    platform.job_measures("mine", "loss", *(1 / number for number in range(1, 500)))
    platform.job_measures("mine", "bad", float("nan"), 1.0)
    image = tmp_path / "loss.svg"
    drawn = run("metrics", "mine", "--chart", "--image", str(image)).stdout
    assert "loss, last 0.00" in drawn
    assert "seconds" in drawn
    bad = run("metrics", "mine", "--chart", "--name", "bad").stdout
    assert "bad, last 1 (1 of 2 points are not finite)" in bad
    assert image.read_text().startswith("<svg")
    only = run("metrics", "mine", "--chart", "--name", "loss").stdout
    assert "bad" not in only
    refused = run("metrics", "mine", "--image", "loss.png")
    assert refused.exit_code == 2
    assert "loss.png is no .svg" in refused.stderr


def test_a_chart_is_followed_until_the_job_ends(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    platform.job_measures("mine", "loss", 2.0, 1.0)
    platform.meanwhile(lambda: platform.complete_job("mine"))
    assert "loss, last 1" in run("metrics", "mine", "--follow").stdout


def test_events_are_told_for_jobs_and_endpoints(run: Run, platform: NearPlatform) -> None:
    serve(platform)
    assert "KIND" in run("events", "digits").stdout
    assert read(run("events", "live", "--json"))[0]["Message"]


def test_events_are_followed_until_it_has_ended(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    platform.meanwhile(lambda: None, lambda: platform.complete_job("mine"))
    kinds = [line.split()[2] for line in run("events", "mine", "--follow").stdout.splitlines()]
    assert kinds == ["Starting", "Training", "Completed"]
    serve(platform)
    platform.meanwhile(
        lambda: platform.client.endpoint("live").delete(),
        lambda: None,
        lambda: platform.endpoint_goes("live"),
    )
    told = [json.loads(line)["Kind"] for line in run("events", "live", "-f", "--json").stdout.splitlines()]
    assert told == ["Creating", "InService", "Deleting"]


def test_stop_tells_where_the_job_is(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    assert run("stop", "mine", "--wait").stdout == "mine: Stopped\n"
    platform.client.train(image="algo", name="other")
    assert read(run("stop", "other", "--json"))["TrainingJobStatus"] == "Stopped"


def test_update_changes_a_job_and_describe_tells_of_it(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine", hyperparameters={"rate": 1})
    platform.start_job("mine")
    platform.report("mine", "Training")
    platform.job_measures("mine", "loss", 0.5)
    platform.meanwhile(lambda: platform.make_update("mine", 1))
    assert run("update", "mine", "--hp", "rate=2").stdout == "mine: revision 1 is Applied\n"
    image = ("update", "mine", "--image", "other", "--no-wait", "--json")
    assert "IfNotHeard" in run(*image).output
    assert read(run(*image, "--restart", "--hear-timeout", "5", "--delete-model-data"))["Status"] == "Pending"
    platform.make_update("mine", 2, stage=UpdateStage.FAILED, reason="there is no such image")
    shown = run("describe", "mine").stdout
    for words in ("hyperparameter rate from 1 to 2", "image other", "loss=0.5", "Failed: there is no such image"):
        assert words in shown
    assert run("stop", "mine", "--delete-model-data").stdout == "mine: Stopping\n"


def test_deploy_waits_and_prints_the_endpoint_s_name(run: Run, platform: NearPlatform) -> None:
    platform.client.train(image="algo", name="mine")
    platform.complete_job("mine")
    platform.meanwhile(lambda: platform.endpoint_comes_up("live"))
    assert run("deploy", "mine", "--name", "live", "--count", "2", "--env", "A=b").stdout == "live\n"
    assert read(run("deploy", "--image", "algo", "--no-wait", "--json"))["EndpointStatus"] == "Creating"


def test_endpoints_are_listed_and_described(run: Run, platform: NearPlatform) -> None:
    assert run("endpoints").stdout == "no endpoints\n"
    serve(platform)
    assert [word for line in run("endpoints").stdout.splitlines() for word in line.split()[:2]] == [
        *("NAME", "STATUS", "live", "InService")
    ]
    described = run("describe", "live").stdout
    assert "InService" in described
    assert "Update" not in described
    assert read(run("endpoints", "--json"))[0]["EndpointName"] == "live"


def test_captured_shows_what_was_asked_and_answered(run: Run, platform: NearPlatform, tmp_path: Path) -> None:
    call = platform.client.connection.call
    call("create_model", ModelName="m", PrimaryContainer={"Image": "algo"})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1}
    kept = {"InitialSamplingPercentage": 100, "DestinationS3Uri": tmp_path.as_uri()}
    kept["CaptureOptions"] = [{"CaptureMode": "InputAndOutput"}]
    call("create_endpoint_config", EndpointConfigName="c", ProductionVariants=[variant], DataCaptureConfig=kept)
    call("create_endpoint", EndpointName="live", EndpointConfigName="c")
    assert run("captured", "live").stdout == "nothing was captured\n"
    capture = Capture(CaptureSpec(tmp_path.as_uri()), "live", ObjectStore().write_bytes, pytest.fail)
    capture.offer(exchange(platform.now, answered=b"\xff", answered_type="image/png", inference_id="id-7"))
    capture.flush()
    shown = run("captured", "live", "--inference-id", "id-7").stdout
    assert "1,2" in shown
    assert "1 bytes" in shown
    (record,) = read(run("captured", "live", "--json"))
    assert record["Input"] == {"Data": "1,2", "ContentType": "text/csv"}
    assert record["Output"] == {"DataBase64": "/w==", "ContentType": "image/png"}
    assert read(run("captured", "live", "--until", "2001-01-01", "--json")) == []


def test_invoke_prints_a_stream_as_it_comes(run: Run, platform: NearPlatform) -> None:
    serve(platform)
    events = b"".join(map(event_stream.payload_part, (b"one\n", b"two\n")))
    platform.scores_with("live", lambda _body, _headers: (200, {}, events))
    assert run("invoke", "live", "--data", "1", "--stream").stdout == "one\ntwo\n"
    assert run("invoke", "live", "--data", "1", "--stream", "--json").exit_code == 2


def test_invoke_prints_the_container_s_answer_as_it_is(run: Run, platform: NearPlatform, tmp_path: Path) -> None:
    serve(platform)
    (tmp_path / "rows.json").write_text("[1]")
    assert run("invoke", "live", "--data", "1,2").stdout == "text/csv|1,2"
    assert run("invoke", "live", "--data", f"@{tmp_path}/rows.json").stdout == "application/json|[1]"
    assert run("invoke", "live", "--data", "@-", "--content-type", "a/b", data=b"\xff").stdout_bytes == b"a/b|\xff"
    answer = read(run("invoke", "live", "--data", "1,2", "--json"))
    assert answer["Body"] == "text/csv|1,2"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    answer = read(run("invoke", "live", "--data", "@-", "--json", "--content-type", "a/b", data=b"\xff"))
    assert answer["BodyBase64"] == "YS9ifP8="


def test_delete_finds_out_what_a_name_means_and_refuses_to_guess(run: Run, platform: NearPlatform) -> None:
    serve(platform, "digits")
    result = run("delete", "digits")
    assert result.exit_code == 1
    assert "digits is a training job and an endpoint: add --job or --endpoint" in result.stderr
    assert run("delete", "digits", "--endpoint").stdout == "deleted endpoint digits\n"
    platform.endpoint_goes("digits")
    assert read(run("delete", "digits", "--json")) == {"Deleted": "digits", "Kind": "training job"}


def test_a_setting_that_is_wrong_is_told_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMAKER_PORT", "many")
    for command in ("up", "status"):
        result = run(command)
        assert result.exit_code == 1
        assert "port is 'many'" in result.stderr
        assert "RAYMAKER_PORT" in result.stderr


def test_commands_that_speak_to_the_platform_load_neither_ray_nor_the_database() -> None:
    """They would make every command slow to start."""
    script = (
        "import sys, raymaker.platform.cli as cli, raymaker.platform.client\n"
        "print([name for name in ('ray', 'sqlalchemy', 'pydantic', 'pyarrow', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pools_shows_machines_and_why_so_many_wait(run: Run) -> None:
    shown = run("pools").stdout
    running, kept, waiting = (line.split() for line in shown.splitlines()[1:4])
    assert kept[:4] == ["c", "node-1", "Kept", "letters"]
    assert kept[-2].startswith("2023-11-1"), "when it is let go of"
    assert running[:4] == ["b", "node-1", "Running", "digits"]
    assert waiting[:3] == ["a", "node-1", "Waiting"]
    assert (
        "2 should wait on each node (at least 1, at most 4): 5 jobs started in the last minute; no more than its CPUs"
        in shown
    )
    head, waiting_container = (line.split() for line in shown.splitlines()[4:6])
    assert head[:2] == ["CONTAINER", "OF"]
    assert waiting_container[:2] == ["digits:1", "node-1"]
    found = json.loads(run("pools", "--json").stdout)
    assert found["WantedWaitingCount"] == 2
    assert [it["Image"] for it in found["WaitingContainers"]] == ["digits:1"]
