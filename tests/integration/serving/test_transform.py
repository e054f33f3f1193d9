"""One machine of a transform job on real containers, with no platform around it."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from raymaker.actors.reports import Outcome
from raymaker.actors.runtime.docker import DockerRuntime
from raymaker.actors.site import Site
from raymaker.actors.storage import StoreConfig
from raymaker.serving.transform.reports import Phase
from raymaker.serving.transform.splitting import FRAME, RECORD_IO_MAGIC
from support.faults import eventually
from support.s3 import ObjectStore
from support.transforming import TransformTrial

ROWS = [f"{number},row-{number}" for number in range(4000)]
BY_LINE = {"split_type": "Line"}


@pytest.fixture
def trial(
    engine: docker.DockerClient, base_image: str, transforming_image: str, tmp_path: Path
) -> Iterator[TransformTrial]:
    home = tmp_path / "home"
    home.mkdir()
    runtime = DockerRuntime(home)
    site = Site(home, "docker", StoreConfig(), base_image, stop_grace_s=2.0)
    yield TransformTrial(site, runtime, tmp_path, transforming_image)
    assert runtime.owned({"raymaker.home": str(home)}) == [], "a container was left behind"
    assert list((home / "transforms").glob("*/*")) == [], "a machine's folder was left behind"
    assert list((home / "leases").glob("*")) == [], "a lease was left behind"


def text(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def scored(rows: list[str]) -> bytes:
    return text([f"<{row}>" for row in rows])


def containers(engine: docker.DockerClient, trial: TransformTrial) -> list[docker.models.containers.Container]:
    filters = {"label": f"raymaker.home={trial.site.home}"}
    return list(engine.containers.list(filters=filters, ignore_removed=True))


def test_many_objects_are_transformed_each_into_its_own_output_in_the_order_of_its_records(
    trial: TransformTrial,
) -> None:
    objects = {f"part-{number % 3}/{number}.csv": text(ROWS[number : number + 40]) for number in range(60)}
    objects |= {"empty.csv": b"", "large.csv": text(ROWS), "packed é #1.csv": text(ROWS[:3])}
    trial.put(objects)
    outputs = trial.complete(
        source=BY_LINE,
        output={"assemble_with": "Line"},
        environment={"PARAMETERS": '{"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD"}'},
    )
    assert set(outputs) == {f"{name}.out" for name in objects}
    assert all(outputs[f"{name}.out"] == scored(content.decode().split()) for name, content in objects.items())
    progress = trial.kept.end.progress
    assert (progress.object_count, progress.done_count, progress.failed_count) == (63, 63, 0)
    assert progress.record_count == 60 * 40 + 4000 + 3
    assert progress.input_bytes == sum(map(len, objects.values()))
    assert ("Limits", "BatchStrategy SingleRecord, MaxPayloadInMB 6, MaxConcurrentTransforms 4") in trial.kept.notes
    assert trial.kept.lines == ["serving"]


def test_records_that_are_sent_together_by_four_at_once_keep_their_order_and_every_byte(trial: TransformTrial) -> None:
    rows = [f"{number}," + "x" * 1000 for number in range(12_000)]
    trial.put({"large.csv": text(rows), "other.csv": text(rows[:5])})
    outputs = trial.complete(
        source=BY_LINE, environment={"MODE": "echo", "DELAY_S": "0.02"}, max_payload_mib=1, max_concurrency=4
    )
    assert outputs == {"large.csv.out": text(rows), "other.csv.out": text(rows[:5])}


def test_what_the_request_says_reaches_the_container(trial: TransformTrial) -> None:
    trial.put({"a": b"1\n", "b": b"2\n"})
    outputs = trial.complete(
        source={"content_type": "text/csv; charset=utf-8", "split_type": "None"},
        output={"accept": "application/json"},
        environment={"MODE": "about", "DELAY_S": "0.3", "SAGEMAKER_MODEL": "yes"},
        max_concurrency=2,
        max_payload_mib=5,
        strategy="SingleRecord",
    )
    told = json.loads(outputs["a.out"])
    assert (told["accept"], told["type"]) == ("application/json", "text/csv; charset=utf-8")
    assert told["environment"] == {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "5",
        "SAGEMAKER_MODEL": "yes",
    }
    assert max(json.loads(output)["most"] for output in outputs.values()) == 2


def test_filters_and_a_join_bring_identifiers_back_beside_the_answers(trial: TransformTrial) -> None:
    trial.put({"a.csv": text(ROWS)})
    outputs = trial.complete(
        source=BY_LINE,
        output={"accept": "text/csv"},
        processing={"input_filter": "$[1:]", "join_source": "Input", "output_filter": "$[0,-1]"},
        max_concurrency=4,
    )
    assert outputs == {"a.csv.out": text([f"{row.partition(',')[0]},<{row.partition(',')[2]}>" for row in ROWS])}


def test_packed_objects_are_sent_unpacked_and_one_that_is_no_gzip_fails_alone(trial: TransformTrial) -> None:
    torn = gzip.compress(text(ROWS))[:-50]
    trial.put({"a.csv.gz": gzip.compress(text(ROWS)), "b.csv.gz": text(ROWS), "c.csv.gz": torn})
    end = trial.run(source={"split_type": "Line", "compression": "Gzip"})
    assert (end.outcome, end.progress.failed_count) == (Outcome.COMPLETED, 2)
    assert trial.outputs() == {"a.csv.gz.out": scored(ROWS)}
    assert all("no gzip" in failure for failure in trial.kept.failures().values())


def test_an_object_of_any_size_is_streamed_where_payloads_have_no_limit(trial: TransformTrial) -> None:
    content = bytes(range(256)) * 120_000
    trial.put({"a.bin": content, "b.bin": b"small", "c.bin": b"", "d.bin": b"a bad one"})
    source = {"content_type": "application/octet-stream"}
    end = trial.run(source=source, environment={"MODE": "echo"}, max_payload_mib=0, max_concurrency=2)
    assert trial.outputs() == {"a.bin.out": content, "b.bin.out": b"small", "c.bin.out": b""}
    assert trial.kept.failures() == {"d.bin": "the container answered with status 400: cannot score a bad record"}
    assert end.progress.input_bytes == len(content) + 5


def test_a_streamed_answer_ends_with_one_newline_where_lines_are_asked_for(trial: TransformTrial) -> None:
    trial.put({"a": b"1\n", "b": b"2"})
    outputs = trial.complete(output={"assemble_with": "Line"}, environment={"MODE": "echo"}, max_payload_mib=0)
    assert outputs == {"a.out": b"1\n", "b.out": b"2\n"}


def test_a_bad_record_fails_its_own_object_and_says_which_it_was(trial: TransformTrial) -> None:
    trial.put({"good.csv": b"1\n2\n", "wrong.csv": b"1\n2\nbad\n4\n", "long.csv": b"1\n" + b"9" * 1_100_000})
    end = trial.run(source=BY_LINE, strategy="SingleRecord", max_payload_mib=1, max_concurrency=2)
    assert (end.outcome, end.progress.done_count, end.progress.failed_count) == (Outcome.COMPLETED, 1, 2)
    assert trial.outputs() == {"good.csv.out": b"<1>\n<2>\n"}
    assert trial.kept.failures() == {
        "wrong.csv": "record 3: the container answered with status 400: cannot score a bad record",
        "long.csv": "a line is larger than a payload may be (1 MB): raise MaxPayloadInMB",
    }


def test_a_container_that_fails_or_hangs_now_and_then_is_asked_again(trial: TransformTrial) -> None:
    trial.put({"a.csv": b"flaky\n", "b.csv": b"sleep\n"})
    trial.run(source=BY_LINE, timeout_s=1, max_retries=1, max_concurrency=2)
    assert trial.outputs() == {"a.csv.out": b"<flaky>\n"}
    assert "did not answer within 1 s (InvocationsTimeoutInSeconds). It was tried 2" in trial.kept.failures()["b.csv"]


def test_a_container_killed_in_the_middle_is_replaced_and_nothing_is_lost_or_doubled(
    trial: TransformTrial, engine: docker.DockerClient
) -> None:
    trial.put({f"{number:02}.csv": text(ROWS[number * 100 : number * 100 + 100]) for number in range(40)})
    machine = trial.begin(source=BY_LINE, strategy="SingleRecord", max_concurrency=4, environment={"DELAY_S": "0.004"})
    trial.kept.until_through(5)
    containers(engine, trial)[0].kill()
    assert machine.wait(120)
    assert trial.kept.end.progress.done_count == 40
    assert b"".join(output for _, output in sorted(trial.outputs().items())) == scored(ROWS)
    assert any(kind == "Container" and "exit code 137" in said for kind, said in trial.kept.notes)


def test_a_record_that_kills_the_container_fails_its_own_object_only(trial: TransformTrial) -> None:
    trial.put({f"{number}.csv": text(ROWS[:20]) for number in range(6)} | {"poison.csv": b"1\nkill\n3\n"})
    trial.run(source=BY_LINE, strategy="SingleRecord", max_concurrency=4, environment={"DELAY_S": "0.005"})
    assert set(trial.kept.failures()) == {"poison.csv"}
    assert "record 2: the container gave no answer" in trial.kept.failures()["poison.csv"]
    assert trial.outputs() == {f"{number}.csv.out": scored(ROWS[:20]) for number in range(6)}


def test_a_container_that_does_not_start_ends_the_job_with_its_last_words(trial: TransformTrial) -> None:
    trial.put({"a.csv": b"1\n"})
    end = trial.run(environment={"MODE": "broken"})
    assert end.outcome is Outcome.FAILED
    assert "exit code 3" in (end.failure_reason or "")
    assert "serving" in (end.failure_reason or "")


def test_nothing_at_the_input_ends_the_job(trial: TransformTrial) -> None:
    end = trial.run()
    assert (end.outcome, "nothing lies at" in (end.failure_reason or "")) == (Outcome.FAILED, True)


def test_a_stop_keeps_what_is_stored_and_the_time_limit_does_too(trial: TransformTrial) -> None:
    trial.put({"1.csv": b"1\n", "2.csv": b"sleep\n"})
    machine = trial.begin(source=BY_LINE, max_concurrency=2)  # whichever is sent first, the other is not held up by it
    trial.kept.until_through(1)
    machine.stop()
    assert machine.wait(60)
    assert (trial.kept.end.outcome, trial.outputs()) == (Outcome.STOPPED, {"1.csv.out": b"<1>\n"})
    trial.kept.started_at = time.time() - 100
    assert trial.run(source=BY_LINE, max_runtime_s=100).outcome is Outcome.TIMED_OUT


def test_the_next_attempt_does_only_what_is_not_through(trial: TransformTrial, engine: docker.DockerClient) -> None:
    trial.put({"1.csv": b"1\n", "2.csv": b"sleep\n", "3.csv": b"bad\n"})
    machine = trial.begin(source=BY_LINE, max_concurrency=3, job_name="again")
    trial.kept.until_through(2)
    trial.kept.fence()
    assert machine.wait(60)
    trial.kept.is_fenced = False
    eventually(lambda: not containers(engine, trial), "the fenced machine leaves no container")
    (trial.folder / "out" / "1.csv.out").write_bytes(b"not touched again")
    (trial.folder / "in" / "2.csv").write_bytes(b"2\n")
    end = trial.run(source=BY_LINE, attempt=2, job_name="again")
    assert (end.outcome, end.progress.done_count, end.progress.failed_count) == (Outcome.COMPLETED, 2, 1)
    assert trial.outputs() == {"1.csv.out": b"not touched again", "2.csv.out": b"<2>\n"}
    assert [report.phase for report in trial.kept.reports[-1:]] == [Phase.ENDED]


def test_machines_share_the_objects_and_each_does_its_own(trial: TransformTrial) -> None:
    trial.put({f"{number}.csv": text(ROWS[:number]) for number in range(1, 8)})
    three = {"job_name": "three", "machine_count": 3, "source": BY_LINE}
    machines = [trial.begin(machine_index=index, **three) for index in range(3)]
    assert all(machine.wait(120) for machine in machines)
    assert trial.outputs() == {f"{number}.csv.out": scored(ROWS[:number]) for number in range(1, 8)}
    ends = [report for report in trial.kept.reports if report.outcome is not None]
    assert sorted(report.progress.object_count for report in ends) == [2, 2, 3]


def test_a_manifest_of_record_io_on_s3_is_transformed_back_to_s3(trial: TransformTrial, s3: ObjectStore) -> None:
    bucket, store = s3.bucket(), StoreConfig(s3.endpoint_url, s3.access_key, s3.secret_key)
    trial.site = dataclasses.replace(trial.site, store=store)
    records = b"".join(FRAME.pack(RECORD_IO_MAGIC, 8) + b"%08d" % number for number in range(300))
    manifest = json.dumps([{"prefix": f"s3://{bucket}/in/"}, "x/a.rec", "b.rec", "b.rec"])
    with contextlib.closing(s3.client()) as client:
        for key, body in {"in/x/a.rec": records, "in/b.rec": records[:16], "in/c.rec": b"", "m.json": manifest}.items():
            client.put_object(Bucket=bucket, Key=key, Body=body)
        end = trial.run(
            source={
                "uri": f"s3://{bucket}/m.json",
                "data_type": "ManifestFile",
                "content_type": "application/x-recordio-protobuf",
                "split_type": "RecordIO",
            },
            output={"uri": f"s3://{bucket}/out"},
            environment={"MODE": "echo"},
            strategy="SingleRecord",
            max_concurrency=4,
        )
        assert (end.outcome, end.progress.done_count, end.progress.record_count) == (Outcome.COMPLETED, 2, 301)
        found = client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
        assert [item["Key"] for item in found] == ["out/b.rec.out", "out/x/a.rec.out"]
        assert client.get_object(Bucket=bucket, Key="out/x/a.rec.out")["Body"].read() == records


def test_a_stop_ends_a_container_that_is_still_starting(trial: TransformTrial, engine: docker.DockerClient) -> None:
    trial.put({"a.csv": b"1\n"})
    machine = trial.begin(environment={"MODE": "slow"})
    eventually(lambda: containers(engine, trial), "the container is there")
    machine.stop()
    assert machine.wait(60)
    assert trial.kept.end.outcome is Outcome.STOPPED
