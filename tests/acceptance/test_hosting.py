"""Endpoints on a whole platform: deployed, updated, hurt, refused and taken away, always over HTTP."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import docker
import pytest
from botocore.exceptions import ClientError

from support.faults import eventually
from support.jobs import ROLE, Jobs, fresh_name
from support.platform import Platform
from support.s3 import ObjectStore


@dataclass
class Hosting:
    """What a test does with endpoints."""

    sagemaker: Any
    runtime: Any
    engine: docker.DockerClient
    image: str
    made: list[str] = field(default_factory=list)

    def config(self, environment: dict[str, str], *, model_uri: str | None = None, **variant: Any) -> str:
        """Make a model and a configuration of one variant, both of the returned name."""
        name = fresh_name("config")
        container: dict[str, Any] = {"Image": self.image, "Environment": environment}
        if model_uri is not None:
            container["ModelDataUrl"] = model_uri
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        chosen = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "local",
            **variant,
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[chosen])
        return name

    def split(self, shadows: dict[str, float], **weights: float) -> str:
        """Make a configuration of variants, each of which says its own name, and shadows; and a model for each."""
        made = {variant: self.config({"SAY": variant}) for variant in (*weights, *shadows)}

        def variants(of: dict[str, float]) -> list[dict[str, Any]]:
            return [
                {
                    "VariantName": variant,
                    "ModelName": made[variant],
                    "InitialInstanceCount": 1,
                    "InstanceType": "local",
                    "InitialVariantWeight": weight,
                }
                for variant, weight in of.items()
            ]

        name = fresh_name("split")
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=variants(weights), ShadowProductionVariants=variants(shadows)
        )
        return name

    def create(self, config: str) -> str:
        name = fresh_name("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.made.append(name)
        return name

    def settle(self, name: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait until nothing is under way for the endpoint, and describe it."""
        busy = {"Creating", "Updating", "RollingBack"}
        return eventually(
            lambda: found if (found := self.describe(name))["EndpointStatus"] not in busy else None,
            f"{name} settles",
            timeout_s,
        )

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return found

    def invoke(self, name: str, body: bytes, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.runtime.invoke_endpoint(EndpointName=name, Body=body, **options)
        return {**answer, "Body": answer["Body"].read()}

    def containers(self, name: str) -> list[Any]:
        return [c for c in self.engine.containers.list(all=True, ignore_removed=True) if f"-scoring-{name}-" in c.name]


@pytest.fixture
def hosting(platform: Platform, engine: docker.DockerClient, steps_image: str) -> Iterator[Hosting]:
    sagemaker, runtime = platform.client("sagemaker"), platform.client("sagemaker-runtime")
    made = Hosting(sagemaker, runtime, engine, steps_image)
    yield made
    for name in made.made:
        sagemaker.delete_endpoint(EndpointName=name)
    for name in made.made:
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        eventually(lambda name=name: not made.containers(name), f"no container of {name} is left", 40)
    sagemaker.close()
    runtime.close()


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
        bad = hosting.config({"NEVER_WELL": "1"}, ContainerStartupHealthCheckTimeoutInSeconds=60)
        worked = hosting.describe(name)["EndpointConfigName"]
        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bad)
        found = hosting.settle(name, 240)
    assert found["EndpointStatus"] == "InService"
    assert found["EndpointConfigName"] == worked
    assert "/ping" in found["FailureReason"]
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


class Traffic:
    """Requests to an endpoint, one after another, for as long as the block lasts."""

    def __init__(self, hosting: Hosting, name: str) -> None:
        self._hosting = hosting
        self._name = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[str] = []
        self.answers: list[str] = []
        self.count = 0
        self.last = b""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def count_answers(self, least: int) -> Counter[str]:
        """Wait for this many more answers, and count who gave them."""
        began = len(self.answers) + 1
        eventually(lambda: len(self.answers) >= began + least, f"{least} more answers")
        return Counter(self.answers[began:])

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.count += 1
            try:
                self.last = self._hosting.invoke(self._name, b"x")["Body"]
                self.answers.append(self.last.decode().partition("=")[0])
            except Exception as error:
                self.failures.append(repr(error))
