"""Endpoints on a whole platform: deployed, updated, hurt, refused and taken away, always over HTTP."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from botocore.exceptions import ClientError

from support.faults import eventually
from support.hosting import Hosting, Traffic
from support.jobs import Jobs, fresh_name
from support.platform import Platform
from support.s3 import ObjectStore


def test_a_trained_model_is_served_with_its_own_image(platform: Platform, jobs: Jobs, hosting: Hosting) -> None:
    job = jobs.create(hyperparameters={"steps": 3})
    jobs.finish(job)
    name = fresh_name("endpoint")
    deployed = platform.cli("deploy", job, "--name", name)
    assert deployed.returncode == 0, deployed.stderr
    hosting.made.append(name)
    answer = hosting.invoke(name, b"1,2", ContentType="text/csv; charset=utf-8", Accept="text/odd")
    assert answer["Body"] == b"model=3 got=1,2"
    assert answer["ContentType"] == "text/odd"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    with pytest.raises(ClientError) as failed:
        hosting.invoke(name, b"fail")
    assert failed.value.response["Error"]["Code"] == "ModelError"
    assert failed.value.response["OriginalStatusCode"] == 500
    with pytest.raises(ClientError) as refused:
        hosting.invoke(name, b"x" * (7 * 1024 * 1024))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 413}


def test_an_update_loses_no_request_and_a_bad_one_rolls_back(hosting: Hosting) -> None:
    name = hosting.create(hosting.config({"SAY": "one"}))
    assert hosting.settle(name)["EndpointStatus"] == "InService"
    with Traffic(hosting, name) as traffic:
        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=hosting.config({"SAY": "two"}))
        assert hosting.settle(name)["EndpointStatus"] == "InService"
        eventually(lambda: traffic.last == b"two=none got=x", "the new container answers")
        bad = hosting.config({"EXITS": "1"})
        worked = hosting.describe(name)["EndpointConfigName"]
        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bad)
        found = hosting.settle(name)
    assert found["EndpointStatus"] == "InService"
    assert found["EndpointConfigName"] == worked
    assert "cannot serve" in found["FailureReason"]
    assert traffic.failures == []
    assert traffic.count > 100
    assert traffic.last == b"two=none got=x"


def test_an_endpoint_is_split_reweighed_live_and_joined_again_and_no_request_is_lost(
    platform: Platform, hosting: Hosting
) -> None:
    name = hosting.create(hosting.config({"SAY": "one"}))
    assert hosting.settle(name)["EndpointStatus"] == "InService"
    with Traffic(hosting, name) as traffic:
        hosting.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=hosting.split({"shadow": 50}, a=90, b=10)
        )
        found = hosting.settle(name)
        assert (found["EndpointStatus"], found["ShadowProductionVariants"][0]["VariantName"]) == ("InService", "shadow")
        eventually(lambda: traffic.last.startswith((b"a=", b"b=")), "the variants answer")
        seen = traffic.count_answers(300)
        expected, spread = 0.1 * seen.total(), (0.09 * seen.total()) ** 0.5
        assert abs(seen["b"] - expected) < 5 * spread, seen
        before = {c.id for c in hosting.containers(name)}

        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=name,
            DesiredWeightsAndCapacities=[
                {"VariantName": "a", "DesiredWeight": 0},
                {"VariantName": "b", "DesiredWeight": 100, "DesiredInstanceCount": 2},
            ],
        )
        found = hosting.settle(name)
        assert [(v["CurrentWeight"], v["CurrentInstanceCount"]) for v in found["ProductionVariants"]] == [
            (0, 1),
            (100, 2),
        ]
        eventually(lambda: traffic.last.startswith(b"b="), "b answers")
        assert set(traffic.count_answers(100)) == {"b"}
        assert before < {c.id for c in hosting.containers(name)}, "nothing was made anew"

        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=hosting.config({"SAY": "last"}))
        assert hosting.settle(name)["EndpointStatus"] == "InService"
        eventually(lambda: traffic.last.startswith(b"last="), "the one variant answers again")
        eventually(lambda: len(hosting.containers(name)) == 1, "the variants are gone")
    assert traffic.failures == []
    assert "Shadow shadow heard" in platform.cli("events", name).stdout


def test_a_killed_container_is_replaced_behind_the_same_name(hosting: Hosting) -> None:
    name = hosting.create(hosting.config({"SAY": "alive"}))
    hosting.settle(name)
    first = hosting.containers(name)
    first[0].kill()
    eventually(lambda: answers(hosting, name), "the endpoint answers again", 60)
    assert {c.id for c in hosting.containers(name) if c.status == "running"}.isdisjoint({c.id for c in first})


@pytest.mark.long
def test_a_first_deployment_that_never_pings_fails_with_the_reason_and_leaves_nothing(hosting: Hosting) -> None:
    config = hosting.config({"NEVER_WELL": "1"}, ContainerStartupHealthCheckTimeoutInSeconds=60)
    name = hosting.create(config)
    found = hosting.settle(name, 240)
    assert found["EndpointStatus"] == "Failed"
    assert "/ping" in found["FailureReason"]
    assert "serving" in found["FailureReason"], "the container's last log lines are in the reason"
    eventually(lambda: not hosting.containers(name), "no container is left", 60)


def test_a_hostile_model_archive_fails_the_endpoint_and_writes_nothing_outside(
    hosting: Hosting, s3: ObjectStore
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../escaped")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    bucket, client = s3.bucket(), s3.client()
    client.put_object(Bucket=bucket, Key="model.tar.gz", Body=content.getvalue())
    client.close()
    name = hosting.create(hosting.config({}, model_uri=f"s3://{bucket}/model.tar.gz"))
    found = hosting.settle(name)
    assert found["EndpointStatus"] == "Failed"
    assert "../../escaped" in found["FailureReason"]


def test_a_failed_job_cannot_be_deployed_and_an_unknown_endpoint_is_told(
    platform: Platform, jobs: Jobs, hosting: Hosting
) -> None:
    job = jobs.create(hyperparameters={"steps": 1, "exit_code": 5})
    jobs.finish(job)
    refused = platform.cli("deploy", job)
    assert refused.returncode == 1
    assert "Failed" in refused.stderr
    with pytest.raises(ClientError, match="not found"):
        hosting.invoke(fresh_name("nowhere"), b"x")


def test_nothing_of_the_platform_listens_beyond_loopback(platform: Platform, hosting: Hosting) -> None:
    from support.faults import platform_processes

    hosting.settle(hosting.create(hosting.config({})))
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = {f"pid={pid}," for pid in platform_processes(platform.home)}
    seen = [line for line in listening if any(pid in line for pid in ours)]
    assert seen
    open_ones = [line for line in seen if not any(host in line.split()[3] for host in ("127.0.0.", "[::1]"))]
    assert open_ones == []


def answers(hosting: Hosting, name: str) -> bool:
    try:
        return hosting.invoke(name, b"x")["Body"].startswith(b"alive")
    except ClientError:
        return False
