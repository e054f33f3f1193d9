"""Models, endpoint configurations, endpoints and Deploy through the API."""

from __future__ import annotations

import json

import pytest

from raymaker.actors.reports import Outcome
from raymaker.actors.spec import SourceSpec
from raymaker.platform.database import hosting
from raymaker.platform.errors import ValidationException
from support.graph_cases import node, step

ARN = "arn:aws:sagemaker:us-east-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role/anyone"
URL = "s3://bucket/model.tar.gz"
MANY_MODELS = {"Image": "i", "Mode": "MultiModel", "ModelDataUrl": "s3://b/models"}
PAIR = [{"ContainerHostname": name, "Image": f"image-{name}", "Environment": {"N": name}} for name in "ab"]
CHAIN = {"Nodes": {"root": node("Sequence", step("a"), step("b", Data="$response"))}}


def calling(model):
    return {"Nodes": {"root": node("Sequence", step("a"), step(ModelName=model))}}


CALLING = calling("other")


def create_model(api, name="m", **container):
    return api(
        "CreateModel",
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer=container or {"Image": "i", "ModelDataUrl": URL},
    )


def variant(**changes):
    return {"VariantName": "v", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1, **changes}


def create_config(api, name="c", **changes):
    return api("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant(**changes)])


def create_endpoint(api, name="e", config="c"):
    return api("CreateEndpoint", EndpointName=name, EndpointConfigName=config)


def describe_endpoint(api, name="e"):
    return api("DescribeEndpoint", EndpointName=name)


def stored(api, name="e"):
    with api.context.database.reading() as connection:
        return hosting.find_endpoint(connection, name)


def container_of(api, name="e"):
    """What the only container of an endpoint's only variant runs."""
    (served,) = stored(api, name).desired.variants
    (container,) = served.containers
    return container


def more(name="a", **source):
    """One more model of a container."""
    objects = {"S3Uri": "s3://b/more/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    return {"ChannelName": name, "S3DataSource": objects | source}


def with_more(*sources, **container):
    """What CreateModel is told of a container with more models."""
    return {"PrimaryContainer": {"Image": "i", "AdditionalModelDataSources": list(sources), **container}}


def test_a_container_may_have_more_models_beside_its_own(api):
    job = api.trained("job")
    archive = {"S3DataType": "S3Object", "CompressionType": "Gzip"}
    container = with_more(more(), more("b", S3Uri=f"training-job://{job}", **archive))["PrimaryContainer"]
    create_model(api, **container)
    create_config(api)
    create_endpoint(api)
    assert container_of(api).additional_models == {"a": "s3://b/more/", "b": "s3://bucket/out/job/output/model.tar.gz"}


def test_a_model_is_described_as_it_was_asked_for_and_then_gone(api):
    assert create_model(api)["ModelArn"] == f"{ARN}:model/m"
    told = api("DescribeModel", ModelName="m")
    assert told == {
        "ModelName": "m",
        "ModelArn": f"{ARN}:model/m",
        "PrimaryContainer": {"Image": "i", "ModelDataUrl": URL},
        "ExecutionRoleArn": ROLE,
        "CreationTime": api.now,
    }
    assert [model["ModelName"] for model in api("ListModels")["Models"]] == ["m"]
    api("DeleteModel", ModelName="m")
    with pytest.raises(ValidationException, match=f'Could not find model "{ARN}:model/m"'):
        api("DescribeModel", ModelName="m")


def test_a_models_name_is_given_once(api):
    create_model(api)
    with pytest.raises(ValidationException, match="Cannot create already existing model"):
        create_model(api)


@pytest.mark.parametrize(
    ("how", "drawn"),
    [
        ({}, "Sequence"),
        ({"InferenceExecutionConfig": {"Mode": "Direct"}}, "Switch"),
        ({"InferenceGraph": CHAIN}, "$response"),
    ],
)
def test_a_model_of_several_containers_is_described_as_it_was_asked_for_with_a_drawing(api, how, drawn):
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR, **how)
    told = api("DescribeModel", ModelName="m")
    assert {key: told.get(key) for key in ("Containers", *how)} == {"Containers": PAIR, **how}
    assert drawn in told["InferenceGraphDrawing"]["Mermaid"]
    assert told["InferenceGraphDrawing"]["Svg"].startswith("<svg")


@pytest.mark.parametrize(
    ("how", "mode", "graph"),
    [
        ({}, "Serial", None),
        ({"InferenceExecutionConfig": {"Mode": "Direct"}}, "Direct", None),
        ({"InferenceGraph": CHAIN}, None, CHAIN),
    ],
)
def test_an_endpoint_keeps_all_containers_of_a_model_and_how_they_work_together(api, how, mode, graph):
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR, **how)
    create_config(api)
    create_endpoint(api)
    api("DeleteModel", ModelName="m")
    (served,) = stored(api).desired.variants
    assert [(each.hostname, each.image) for each in served.containers] == [("a", "image-a"), ("b", "image-b")]
    assert (served.execution_mode, served.inference_graph) == (mode, graph)
    (told,) = describe_endpoint(api)["ProductionVariants"]
    assert [each["SpecifiedImage"] for each in told["DeployedImages"]] == ["image-a", "image-b"]


def test_a_graph_runs_the_containers_of_the_models_that_it_calls_as_they_are_when_an_endpoint_is_made(api):
    create_model(api, "other", Image="before")
    create_model(api, "m", Image="unused")
    api("DeleteModel", ModelName="m")
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR[:1], InferenceGraph=CALLING)
    api("DeleteModel", ModelName="other")
    create_config(api)
    with pytest.raises(ValidationException, match="other"):
        create_endpoint(api)
    create_model(api, "other", Image="after")
    create_endpoint(api)
    (served,) = stored(api).desired.variants
    assert [(each.hostname, each.image) for each in served.containers] == [("a", "image-a"), ("other", "after")]


@pytest.mark.parametrize(
    ("called", "why"),
    [
        ({"Containers": PAIR, "InferenceExecutionConfig": {"Mode": "Direct"}}, "whose requests name the container"),
        ({"PrimaryContainer": MANY_MODELS}, "which serves many models"),
        ({"Containers": PAIR[:1], "InferenceGraph": CALLING}, "whose own graph calls models"),
    ],
)
def test_a_graph_cannot_call_every_model(api, called, why):
    create_model(api, "alone")
    called = json.loads(json.dumps(called).replace('"other"', '"alone"'))
    api("CreateModel", ModelName="other", ExecutionRoleArn=ROLE, **called)
    with pytest.raises(ValidationException, match=f"calls the model other, {why}"):
        api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR[:1], InferenceGraph=CALLING)


def test_a_graph_calls_a_model_of_several_containers_as_a_node_of_its_own(api):
    api("CreateModel", ModelName="other", ExecutionRoleArn=ROLE, Containers=PAIR)
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR[:1], InferenceGraph=CALLING)
    create_config(api)
    create_endpoint(api)
    (served,) = stored(api).desired.variants
    assert [each.hostname for each in served.containers] == ["a", "other.a", "other.b"]
    nodes = served.inference_graph["Nodes"]
    assert list(nodes) == ["root", "other.root"]
    assert [step.get("NodeName") for step in nodes["root"]["Steps"]][-1] == "other.root"
    assert api("DescribeModel", ModelName="m")["InferenceGraph"] == CALLING, "the model is told as it was given"


def test_a_graph_with_its_models_containers_is_not_larger_than_any_other(api):
    many = [{"ContainerHostname": f"c{number}", "Image": "i"} for number in range(15)]
    api("CreateModel", ModelName="other", ExecutionRoleArn=ROLE, Containers=many)
    with pytest.raises(ValidationException, match="InferenceGraph calls 16 containers"):
        api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=PAIR[:1], InferenceGraph=CALLING)


def test_a_graph_may_call_nothing_but_models(api):
    for name in ("one", "two"):
        create_model(api, name, Image=name)
    steps = node("Sequence", step(ModelName="one"), step(ModelName="two", Data="$response"))
    api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, InferenceGraph={"Nodes": {"root": steps}})
    create_config(api)
    create_endpoint(api)
    (served,) = stored(api).desired.variants
    assert [(each.hostname, each.image) for each in served.containers] == [("one", "one"), ("two", "two")]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "PrimaryContainer is missing"),
        ({"PrimaryContainer": {}}, "PrimaryContainer needs Image"),
        ({"PrimaryContainer": {"Image": "i"}, "Containers": [{"Image": "i"}]}, "goes with no Containers"),
        ({"PrimaryContainer": {"Image": "i"}, "Containers": [{"Image": "j"}] * 2}, "goes with no Containers"),
        ({"Containers": [{"Image": "i"}, {}]}, r"Containers\[1\] needs Image"),
        ({"Containers": [{"Image": "i"}] * 16}, "at 'containers'.*less than or equal to 15"),
        ({"Containers": [{"Image": "i"}, {**MANY_MODELS}]}, r"Containers\[1\].Mode MultiModel"),
        ({"Containers": [{"Image": "i"}, {"ModelDataUrl": "training-job://nobody"}]}, "no training job nobody"),
        ({"Containers": PAIR[:1], "InferenceGraph": CALLING}, "Could not find model.*other"),
        ({"Containers": PAIR[:1], "InferenceGraph": calling("a")}, "and a container has that ContainerHostname"),
        ({"Containers": PAIR, "InferenceGraph": CALLING}, "no step of InferenceGraph calls b"),
        ({"Containers": [{"Image": "i", "Mode": "MultiModel"}]}, r"Containers\[0\].ModelDataUrl is missing"),
        (
            {"PrimaryContainer": {"ModelDataUrl": "s3://b/models", "Mode": "MultiModel"}},
            "PrimaryContainer.Image is missing",
        ),
        (
            {"PrimaryContainer": {"Image": "i", "MultiModelConfig": {"ModelCacheSetting": "Enabled"}}},
            "PrimaryContainer.MultiModelConfig goes with Mode MultiModel",
        ),
        ({"PrimaryContainer": {"ModelPackageName": "p"}}, "PrimaryContainer.ModelPackageName is not supported"),
        ({"PrimaryContainer": {"ModelDataUrl": "training-job://nobody"}}, "no training job nobody"),
        ({"PrimaryContainer": {"ModelDataUrl": "training-job://nobody/checkpoints/1"}}, "no training job nobody"),
        ({"PrimaryContainer": {"ModelDataUrl": "s3://elsewhere/m"}}, "name an Image"),
        (
            {
                "PrimaryContainer": {
                    "Image": "i",
                    "ModelDataSource": {
                        "S3DataSource": {"S3Uri": "s3://b/m", "S3DataType": "S3Object", "CompressionType": "None"}
                    },
                }
            },
            "S3DataType S3Object with CompressionType None",
        ),
        (with_more(more(S3DataType="S3Object")), r"Sources\[0\].S3DataSource: S3DataType S3Object with"),
        (with_more(more(ETag="abc")), r"AdditionalModelDataSources\[0\].S3DataSource.ETag is not supported here"),
        (with_more(more(), more()), r"AdditionalModelDataSources\[1\].ChannelName a comes twice"),
        (with_more(more("..")), r"ChannelName \.\. cannot name a folder"),
        (with_more(more(S3Uri="training-job://nobody")), "no training job nobody"),
        (
            with_more(more(), Mode="MultiModel", ModelDataUrl="s3://b/models"),
            "AdditionalModelDataSources goes with one model",
        ),
        ({"PrimaryContainer": {"Image": "i"}, "InferenceExecutionConfig": {"Mode": "Direct"}}, "Mode Direct"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_by_name(api, request_, said):
    with pytest.raises(ValidationException, match=said):
        api("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, **request_)
    assert api("ListModels")["Models"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"InstanceType": "ml.none.large"}, r"ProductionVariants\[0\].InstanceType: there is no instance type"),
        ({"InstanceType": "ml.m5.24xlarge"}, "no machine of this cluster can hold"),
        ({"RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE"}}, "RoutingStrategy PREFIX_AWARE"),
    ],
)
def test_a_variant_that_cannot_be_served_is_refused_by_name(api, changes, said):
    create_model(api)
    with pytest.raises(ValidationException, match=said):
        create_config(api, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ProductionVariants": [variant(), variant()]}, r"ProductionVariants\[1\].VariantName v comes twice"),
        ({"ShadowProductionVariants": [variant()]}, r"ShadowProductionVariants\[0\].VariantName v comes twice"),
        ({"ProductionVariants": [variant(InitialVariantWeight=0)]}, "All weights are 0"),
        (
            {"ShadowProductionVariants": [variant(VariantName="w", InstanceType="ml.none.large")]},
            r"ShadowProductionVariants\[0\].InstanceType: there is no instance type",
        ),
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "AsyncInferenceConfig.OutputConfig.S3OutputPath is missing"),
        (
            {
                "AsyncInferenceConfig": {
                    "OutputConfig": {
                        "S3OutputPath": "s3://b/out",
                        "NotificationConfig": {"ErrorTopic": "arn:aws:sns:us-east-1:123456789012:topic"},
                    }
                }
            },
            "ErrorTopic arn:aws:sns:us-east-1:123456789012:topic is not supported here: give the URL",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused_by_name(api, changes, said):
    create_model(api)
    with pytest.raises(ValidationException, match=said):
        api("CreateEndpointConfig", **{"EndpointConfigName": "c", "ProductionVariants": [variant()], **changes})


def test_a_configuration_is_described_and_deleted(api):
    create_model(api)
    assert create_config(api)["EndpointConfigArn"] == f"{ARN}:endpoint-config/c"
    assert api("DescribeEndpointConfig", EndpointConfigName="c")["ProductionVariants"] == [variant()]
    assert [config["EndpointConfigName"] for config in api("ListEndpointConfigs")["EndpointConfigs"]] == ["c"]
    api("DeleteEndpointConfig", EndpointConfigName="c")
    with pytest.raises(ValidationException, match="Could not find endpoint configuration"):
        api("DescribeEndpointConfig", EndpointConfigName="c")


def test_an_endpoint_is_creating_until_it_is_seen_to_answer(api):
    create_model(api)
    create_config(api, InitialInstanceCount=1)
    assert create_endpoint(api)["EndpointArn"] == f"{ARN}:endpoint/e"
    told = describe_endpoint(api)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("Creating", "c")
    assert told["ProductionVariants"][0]["CurrentInstanceCount"] == 0
    api.endpoint_comes_up("e")
    told = describe_endpoint(api)
    assert told["EndpointStatus"] == "InService"
    assert told["ProductionVariants"] == [
        {
            "VariantName": "v",
            "DeployedImages": [{"SpecifiedImage": "i"}],
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 1,
            "DesiredInstanceCount": 1,
        }
    ]
    assert api("ListEndpoints", StatusEquals="InService")["Endpoints"][0]["EndpointName"] == "e"


def test_an_endpoint_that_does_not_come_up_tells_why(api):
    create_model(api)
    create_config(api)
    create_endpoint(api)
    api.endpoint_fails("e", "no /ping")
    told = describe_endpoint(api)
    assert (told["EndpointStatus"], told["FailureReason"]) == ("Failed", "no /ping")
    assert [event["Kind"] for event in api("ListEvents", EndpointName="e")["Events"]] == ["Creating", "Failed"]


def test_an_update_that_fails_goes_back_and_tells_why(api):
    create_model(api)
    create_config(api)
    create_config(api, "d", InitialInstanceCount=2)
    create_endpoint(api)
    api.endpoint_comes_up("e")
    api("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    told = describe_endpoint(api)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("Updating", "c")
    assert told["PendingDeploymentSummary"]["EndpointConfigName"] == "d"
    with pytest.raises(ValidationException, match="Cannot update in-progress endpoint"):
        api("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    api.endpoint_fails("e", "no /ping", generation=2)
    assert describe_endpoint(api)["EndpointStatus"] == "RollingBack"
    api.endpoint_comes_up("e", generation=3)
    told = describe_endpoint(api)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", "c")
    assert told["FailureReason"] == "no /ping"


def test_an_endpoint_outlives_its_configuration_its_model_and_its_job(api):
    name = api("Deploy", TrainingJobName=api.trained("job"))["EndpointName"]
    api("DeleteEndpointConfig", EndpointConfigName=name)
    api("DeleteModel", ModelName=name)
    api("DeleteTrainingJob", TrainingJobName="job")
    assert describe_endpoint(api, name)["EndpointConfigName"] == name
    assert container_of(api, name).image == "algo:1"


def test_a_deleted_endpoint_is_deleting_until_its_fleet_is_gone(api):
    create_model(api)
    create_config(api)
    create_endpoint(api)
    hosting.endpoint_gone(api.context.database, "e")
    api("DeleteEndpoint", EndpointName="e")
    api("DeleteEndpoint", EndpointName="e")
    assert describe_endpoint(api)["EndpointStatus"] == "Deleting"
    with pytest.raises(ValidationException, match="Cannot create already existing endpoint"):
        create_endpoint(api)
    hosting.endpoint_gone(api.context.database, "e")
    for name in ("DescribeEndpoint", "DeleteEndpoint"):
        with pytest.raises(ValidationException, match=f'Could not find endpoint "{ARN}:endpoint/e"'):
            api(name, EndpointName="e")
    create_endpoint(api)


@pytest.mark.parametrize("name", ["CreateEndpoint", "UpdateEndpoint"])
def test_an_endpoint_needs_a_configuration_that_is_there(api, name):
    with pytest.raises(ValidationException, match="Could not find endpoint configuration"):
        api(name, EndpointName="e", EndpointConfigName="nobody")


def test_an_update_of_what_is_not_there_is_refused(api):
    create_model(api)
    create_config(api)
    with pytest.raises(ValidationException, match="Could not find endpoint"):
        api("UpdateEndpoint", EndpointName="nobody", EndpointConfigName="c")


def test_a_model_without_an_image_takes_its_training_jobs(api):
    api.trained("job")
    for number, url in enumerate(("training-job://job", "s3://bucket/out/job/output/model.tar.gz")):
        create_model(api, f"m{number}", ModelDataUrl=url, Environment={"A": "b"})
        create_config(api, f"c{number}", ModelName=f"m{number}")
        create_endpoint(api, f"e{number}", f"c{number}")
        container = container_of(api, f"e{number}")
        assert (container.image, container.model_uri) == ("algo:1", "s3://bucket/out/job/output/model.tar.gz")
        assert container.environment == {"A": "b"}


def test_a_model_of_source_code_is_served_by_it(api):
    source = {"SourceUri": "file:///code", "EntryPoint": "train.py"}
    api.create_job("job", AlgorithmSpecification={"AlgorithmSource": source, "TrainingInputMode": "File"})
    api.complete_job("job")
    name = api("Deploy", TrainingJobName="job")["EndpointName"]
    assert container_of(api, name).source == SourceSpec("file:///code", "train.py")
    assert container_of(api, name).image is None


def test_deploy_makes_model_configuration_and_endpoint_with_one_name(api):
    told = api(
        "Deploy",
        TrainingJobName=api.trained("job"),
        Environment={"A": "b"},
        ContainerStartupHealthCheckTimeoutInSeconds=61,
    )
    name = told["EndpointName"]
    assert name.startswith("job-")
    assert told == {
        "EndpointName": name,
        "EndpointArn": f"{ARN}:endpoint/{name}",
        "ModelName": name,
        "EndpointConfigName": name,
    }
    container = api("DescribeModel", ModelName=name)["PrimaryContainer"]
    assert container == {"ModelDataUrl": "training-job://job", "Environment": {"A": "b"}}
    made = api("DescribeEndpointConfig", EndpointConfigName=name)["ProductionVariants"][0]
    assert (made["InstanceType"], made["InitialInstanceCount"]) == ("local", 1)
    assert made["ContainerStartupHealthCheckTimeoutInSeconds"] == 61
    assert describe_endpoint(api, name)["EndpointStatus"] == "Creating"
    for noun in ("model", "endpoint-config"):
        owner = api("ListTags", ResourceArn=f"{ARN}:{noun}/{name}")["Tags"]
        assert owner == [{"Key": "raymaker:endpoint", "Value": name}]


def test_a_made_up_name_fits_however_long_the_jobs_is(api):
    long = "j" * 63
    assert len(api("Deploy", TrainingJobName=api.trained(long))["EndpointName"]) == 63


def test_deploy_to_an_endpoint_that_serves_updates_it(api):
    api("Deploy", TrainingJobName=api.trained("job"), EndpointName="e")
    with pytest.raises(ValidationException, match="Cannot update in-progress endpoint"):
        api("Deploy", TrainingJobName="job", EndpointName="e")
    assert len(api("ListModels")["Models"]) == 1
    api.endpoint_comes_up("e")
    second = api("Deploy", TrainingJobName=api.trained("job2"), EndpointName="e")
    told = describe_endpoint(api)
    assert told["EndpointStatus"] == "Updating"
    assert told["PendingDeploymentSummary"]["EndpointConfigName"] == second["EndpointConfigName"]


def test_a_job_without_a_model_cannot_be_deployed_and_leaves_nothing(api):
    api.create_job("job")
    with pytest.raises(ValidationException, match=r"InProgress \(Starting\): wait for its end"):
        api("Deploy", TrainingJobName="job")
    api.start_job("job")
    api.report("job", "Failed", Outcome.FAILED, failure_reason="AlgorithmError: no data")
    with pytest.raises(ValidationException, match="is Failed and has no model: AlgorithmError: no data"):
        api("Deploy", TrainingJobName="job")
    api.create_job("empty")
    api.complete_job("empty", model_uri=None)
    with pytest.raises(ValidationException, match="stored no model"):
        api("Deploy", TrainingJobName="empty")
    with pytest.raises(ValidationException, match="Requested resource not found"):
        api("Deploy", TrainingJobName="nobody")
    assert api("ListModels")["Models"] == api("ListEndpoints")["Endpoints"] == []


def test_a_stopped_job_that_stored_a_model_can_be_deployed(api):
    api.create_job("job")
    api.start_job("job")
    api("StopTrainingJob", TrainingJobName="job")
    api.report("job", "Stopped", Outcome.STOPPED, model_uri=URL)
    name = api("Deploy", TrainingJobName="job")["EndpointName"]
    assert container_of(api, name).model_uri == URL


def test_tags_go_with_models_configurations_and_endpoints(api):
    tags = [{"Key": "team", "Value": "a"}]
    model = {"ModelName": "m", "PrimaryContainer": {"Image": "i"}, "ExecutionRoleArn": ROLE}
    made = {
        "model": api("CreateModel", **model, Tags=tags)["ModelArn"],
        "config": api("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant()], Tags=tags)[
            "EndpointConfigArn"
        ],
        "endpoint": api("CreateEndpoint", EndpointName="e", EndpointConfigName="c", Tags=tags)["EndpointArn"],
    }
    for arn in made.values():
        assert api("ListTags", ResourceArn=arn)["Tags"] == tags


def serve_two(api):
    """An endpoint of two variants and a shadow, in service."""
    create_model(api)
    variants = [variant(VariantName="a", InitialVariantWeight=90), variant(VariantName="b", InitialVariantWeight=10)]
    shadows = [variant(VariantName="s", InitialVariantWeight=50)]
    for name in ("c", "d"):
        api(
            "CreateEndpointConfig",
            EndpointConfigName=name,
            ProductionVariants=variants,
            ShadowProductionVariants=shadows,
        )
    create_endpoint(api)
    api.endpoint_comes_up("e")


def weights(told):
    return [(v["VariantName"], v["CurrentWeight"], v["DesiredWeight"]) for v in told["ProductionVariants"]]


def test_weights_and_counts_are_desired_at_once_and_current_once_they_are_so(api):
    serve_two(api)
    changes = [{"VariantName": "a", "DesiredWeight": 0}, {"VariantName": "b", "DesiredInstanceCount": 2}]
    api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)
    told = describe_endpoint(api)
    assert told["EndpointStatus"] == "Updating"
    assert weights(told) == [("a", 90, 0), ("b", 10, 10)]
    assert [v["DesiredInstanceCount"] for v in told["ProductionVariants"]] == [1, 2]
    assert [v["VariantName"] for v in told["ShadowProductionVariants"]] == ["s"]
    assert "PendingDeploymentSummary" not in told
    api.endpoint_comes_up("e", generation=2)
    assert weights(describe_endpoint(api)) == [("a", 0, 0), ("b", 10, 10)]
    assert stored(api).desired.revision == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([{"VariantName": "x", "DesiredWeight": 1}], "there is no variant x, only a, b"),
        ([{"VariantName": "a"}, {"VariantName": "a"}], "a comes twice"),
        ([{"VariantName": "a", "DesiredInstanceCount": 0}], "a variant has at least 1 instance"),
        ([{"VariantName": "a", "DesiredWeight": 0}, {"VariantName": "b", "DesiredWeight": 0}], "All weights are 0"),
        ([{"VariantName": "a", "ServerlessUpdateConfig": {"MaxConcurrency": 1}}], "ServerlessUpdateConfig"),
    ],
)
def test_a_change_of_weights_that_cannot_be_is_refused_by_name(api, changes, said):
    serve_two(api)
    with pytest.raises(ValidationException, match=said):
        api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)
    assert describe_endpoint(api)["EndpointStatus"] == "InService"


def test_weights_of_what_is_not_there_or_busy_are_refused(api):
    changes = [{"VariantName": "a", "DesiredWeight": 1}]
    with pytest.raises(ValidationException, match="Could not find endpoint"):
        api("UpdateEndpointWeightsAndCapacities", EndpointName="nobody", DesiredWeightsAndCapacities=changes)
    serve_two(api)
    api("UpdateEndpoint", EndpointName="e", EndpointConfigName="d")
    with pytest.raises(ValidationException, match="Cannot update in-progress endpoint"):
        api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)


@pytest.mark.parametrize(
    ("excluded", "expected"), [([], [("a", 5, 1), ("b", 10, 2)]), (["DesiredWeight"], [("a", 90, 1), ("b", 10, 2)])]
)
def test_an_update_retains_weights_and_counts_where_it_is_asked_to(api, excluded, expected):
    serve_two(api)
    changes = [{"VariantName": "a", "DesiredWeight": 5}, {"VariantName": "b", "DesiredInstanceCount": 2}]
    api("UpdateEndpointWeightsAndCapacities", EndpointName="e", DesiredWeightsAndCapacities=changes)
    api.endpoint_comes_up("e", generation=2)
    api(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="d",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": kind} for kind in excluded],
    )
    assert [(v.name, v.weight, v.instance_count) for v in stored(api).desired.variants] == expected
