"""Endpoints through the client, against the whole API without a socket; the machines' part is played by the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.platform.client import Client, Endpoint, TrainingJob
from raymaker.platform.client.endpoint import describe_rollout
from raymaker.platform.client.errors import EndpointFailed, InvocationFailed, RequestRefused, WrongArgument
from raymaker.serving import event_stream
from support.near_platform import NearPlatform, near_platform


@pytest.fixture
def platform(home: Path) -> Iterator[NearPlatform]:
    with near_platform(home) as platform:
        yield platform


@pytest.fixture
def client(platform: NearPlatform) -> Client:
    return platform.client


@pytest.fixture
def trained(platform: NearPlatform) -> TrainingJob:
    """A job that is Completed."""
    job = platform.client.train(image="algo", name="digits")
    platform.complete_job("digits")
    return job


@pytest.fixture
def served(platform: NearPlatform, trained: TrainingJob) -> Endpoint:
    """An endpoint `live` in service, made by Deploy."""
    platform.meanwhile(lambda: platform.endpoint_comes_up("live"))
    return trained.deploy("live")


def records(platform: NearPlatform) -> tuple[list[str], list[str]]:
    """The names of all models and of all endpoint configurations."""
    return (
        platform.names("list_models", "Models", "ModelName"),
        platform.names("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
    )


def test_deploying_a_job_makes_up_a_name_and_waits(platform: NearPlatform, trained: TrainingJob) -> None:
    endpoint = trained.deploy(wait=False)
    assert endpoint.name.startswith("digits-")
    assert endpoint.status == "Creating"
    platform.meanwhile(lambda: platform.endpoint_comes_up(endpoint.name))
    assert endpoint.wait() is endpoint
    assert endpoint.status == "InService"


def test_an_endpoint_that_does_not_come_up_is_told_with_its_last_lines(
    platform: NearPlatform, trained: TrainingJob
) -> None:
    platform.endpoint_says("live", "loading", "no module named numpy")
    platform.meanwhile(lambda: platform.endpoint_fails("live", "the container did not answer /ping"))
    with pytest.raises(EndpointFailed, match="endpoint live failed: the container did not answer /ping") as caught:
        trained.deploy("live")
    assert caught.value.log_lines == ("loading", "no module named numpy")


def test_deleting_an_endpoint_removes_what_was_made_for_it(platform: NearPlatform, served: Endpoint) -> None:
    assert [len(names) for names in records(platform)] == [1, 1]
    platform.meanwhile(lambda: platform.endpoint_goes("live"))
    served.delete(wait=True)
    assert records(platform) == ([], [])
    with pytest.raises(RequestRefused, match="Could not find endpoint"):
        served.describe()


def test_deleting_an_endpoint_leaves_what_its_user_made(platform: NearPlatform, trained: TrainingJob) -> None:
    call = platform.client.connection.call
    call("create_model", ModelName="mine", PrimaryContainer={"Image": "algo"})
    variant = {"VariantName": "a", "ModelName": "mine", "InstanceType": "local", "InitialInstanceCount": 1}
    call("create_endpoint_config", EndpointConfigName="mine", ProductionVariants=[variant])
    call("create_endpoint", EndpointName="mine", EndpointConfigName="mine")
    platform.client.endpoint("mine").delete()
    assert records(platform) == (["mine"], ["mine"])


def test_deploying_an_image_with_a_model_makes_what_it_needs(
    platform: NearPlatform, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.touch()
    platform.meanwhile(lambda: platform.endpoint_comes_up("live"))
    endpoint = client.deploy(archive, image="algo:1", name="live", environment={"A": "b"}, instance_count=2)
    ((model,), (config,)) = records(platform)
    described = client.connection.call("describe_model", ModelName=model)["PrimaryContainer"]
    assert described == {"Image": "algo:1", "ModelDataUrl": archive.as_uri(), "Environment": {"A": "b"}}
    assert endpoint.config_name == config
    endpoint.delete()
    assert records(platform) == ([], [])


def test_nothing_half_made_stays_when_an_endpoint_is_refused(platform: NearPlatform, served: Endpoint) -> None:
    before = records(platform)
    with pytest.raises(RequestRefused, match="already existing endpoint"):
        platform.client.deploy(image="algo:1", name=served.name)
    with pytest.raises(RequestRefused, match="instance type huge"):
        platform.client.deploy(image="algo:1", instance_type="huge")
    assert records(platform) == before


def test_deploying_needs_a_job_or_an_image(client: Client) -> None:
    with pytest.raises(WrongArgument, match="model is None: give a training job, or the image"):
        client.deploy()
    with pytest.raises(WrongArgument, match="give a training job, or the image"):
        client.deploy("s3://bucket/model.tar.gz")
    with pytest.raises(WrongArgument, match="model is /not/here"):
        client.deploy("/not/here", image="algo")


def test_an_update_changes_the_size_and_keeps_the_model(platform: NearPlatform, served: Endpoint) -> None:
    ((model,), (config,)) = records(platform)
    platform.meanwhile(lambda: platform.endpoint_comes_up("live", generation=2))
    served.update(instance_count=3)
    models, (new_config,) = records(platform)
    assert models == [model]
    assert new_config != config
    assert served.describe()["ProductionVariants"][0]["DesiredInstanceCount"] == 3


def test_an_update_to_another_job_replaces_the_model(platform: NearPlatform, served: Endpoint) -> None:
    ((model,), _) = records(platform)
    platform.client.train(image="algo:2", name="better")
    platform.complete_job("better")
    platform.meanwhile(lambda: platform.endpoint_comes_up("live", generation=2))
    served.update(job="better", environment={"A": "b"})
    ((new_model,), (_,)) = records(platform)
    assert new_model != model
    (image,) = served.describe()["ProductionVariants"][0]["DeployedImages"]
    assert image["SpecifiedImage"] == "algo:2"


def test_an_update_may_say_how_it_takes_over_and_tells_how_far_it_is(platform: NearPlatform, served: Endpoint) -> None:
    size = {"Type": "CAPACITY_PERCENT", "Value": 10}
    routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": 60}
    config = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    served.update(instance_count=2, deployment_config=config, wait=False)
    seen = served.describe()
    assert seen["LastDeploymentConfig"] == config
    assert describe_rollout(seen).endswith("come up beside those that answer")
    platform.endpoint_comes_up("live", generation=2)
    assert describe_rollout(served.describe()) == ""


@pytest.mark.parametrize("way", ["update", "deploy"])
def test_an_update_that_is_rolled_back_is_told(
    platform: NearPlatform, served: Endpoint, trained: TrainingJob, way: str
) -> None:
    before = records(platform)
    platform.meanwhile(
        lambda: platform.endpoint_fails("live", "out of memory", generation=2),
        lambda: platform.endpoint_comes_up("live", generation=3),
    )
    with pytest.raises(EndpointFailed, match="rolled back, and it serves what it served before: .*out of memory"):
        trained.deploy("live") if way == "deploy" else served.update(environment={"A": "b"})
    assert served.status == "InService"
    assert records(platform) == before


def test_deploying_to_an_endpoint_that_is_there_updates_it(
    platform: NearPlatform, served: Endpoint, trained: TrainingJob
) -> None:
    before = records(platform)
    platform.meanwhile(lambda: platform.endpoint_comes_up("live", generation=2))
    trained.deploy("live", instance_count=2)
    after = records(platform)
    assert [len(names) for names in after] == [1, 1]
    assert after != before


def test_invoking_sends_data_and_gives_the_whole_answer(platform: NearPlatform, served: Endpoint) -> None:
    def score(body: bytes, headers: object) -> tuple[int, dict[str, str], bytes]:
        assert headers["content-type"] == "application/json"
        assert headers["accept"] == "application/json"
        assert headers["x-amzn-sagemaker-custom-attributes"] == "trace=1"
        answer = {"Content-Type": "application/json", "x-Amzn-Invoked-Production-Variant": "AllTraffic"}
        return 200, answer | {"X-Amzn-SageMaker-Custom-Attributes": "seen"}, json.dumps(sum(json.loads(body))).encode()

    platform.scores_with("live", score)
    answer = served.invoke([1, 2, 3], accept="application/json", custom_attributes="trace=1")
    assert answer.json() == 6
    assert answer.text == "6"
    assert (answer.content_type, answer.variant, answer.custom_attributes) == ("application/json", "AllTraffic", "seen")


def test_an_error_of_the_container_keeps_its_status_and_words(platform: NearPlatform, served: Endpoint) -> None:
    told = {"ErrorCode": "X", "Message": "the container failed", "OriginalStatusCode": 415, "OriginalMessage": "no csv"}
    headers = {"x-amzn-ErrorType": "ModelError", "Content-Type": "application/json"}
    platform.scores_with("live", lambda _body, _headers: (424, headers, json.dumps(told).encode()))
    with pytest.raises(InvocationFailed, match="the container failed") as caught:
        served.invoke("1,2")
    assert (caught.value.code, caught.value.status, caught.value.body) == ("ModelError", 415, "no csv")


def test_an_input_is_handed_over_to_be_answered_later(platform: NearPlatform, served: Endpoint) -> None:
    def score(body: bytes, headers: object) -> tuple[int, dict[str, str], bytes]:
        assert headers["x-amzn-sagemaker-inputlocation"] == "s3://b/in.csv"
        assert headers["x-amzn-sagemaker-content-type"] == "text/csv"
        places = {"X-Amzn-SageMaker-OutputLocation": "s3://b/out", "X-Amzn-SageMaker-FailureLocation": "s3://b/bad"}
        return 202, places, json.dumps({"InferenceId": "id-1"}).encode()

    platform.scores_with("live", score)
    accepted = served.invoke_async("s3://b/in.csv", "text/csv")
    assert (accepted.inference_id, accepted.output_uri, accepted.failure_uri) == ("id-1", "s3://b/out", "s3://b/bad")


def test_a_stream_gives_pieces_and_ends_with_the_containers_failure(platform: NearPlatform, served: Endpoint) -> None:
    def score(body: bytes, headers: object) -> tuple[int, dict[str, str], bytes]:
        assert headers["x-amzn-sagemaker-accept"] == "text/plain"
        events = [event_stream.payload_part(b"one"), event_stream.payload_part(body)]
        broken = event_stream.failure("ModelStreamError", "the model broke off", "StreamBroken")
        return 200, {"X-Amzn-SageMaker-Content-Type": "text/plain"}, b"".join([*events, broken])

    platform.scores_with("live", score)
    answer = served.invoke_stream("two", accept="text/plain")
    pieces = iter(answer)
    assert [next(pieces), next(pieces)] == [b"one", b"two"]
    assert answer.content_type == "text/plain"
    with pytest.raises(InvocationFailed, match="the model broke off"):
        next(pieces)


def test_invoking_what_is_not_there_is_refused(client: Client) -> None:
    with pytest.raises(RequestRefused, match="not found"):
        client.endpoint("nowhere").invoke("1")


def test_a_log_of_an_endpoint_is_followed_until_it_is_deleted(platform: NearPlatform, served: Endpoint) -> None:
    platform.endpoint_says("live", "ready")
    platform.meanwhile(
        lambda: platform.endpoint_says("live", "scored one"), served.delete, lambda: platform.endpoint_goes("live")
    )
    assert list(served.logs(follow=True)) == ["ready", "scored one"]


def test_endpoints_are_listed_and_their_events_read(client: Client, served: Endpoint) -> None:
    assert [item["EndpointName"] for item in client.endpoints(status="InService")] == [served.name]
    assert list(client.endpoints(name_contains="other")) == []
    assert served.events()
