"""Specs: a record's request in the words of those who run it."""

from __future__ import annotations

import pytest

from raymaker.actors.spec import ArrowSpec, ChannelSpec, MetricDefinition, Network, Placement, Resources, SourceSpec
from raymaker.platform import specs, transitions
from raymaker.platform.catalogue import CatalogueError, load_catalogue
from raymaker.platform.records import Deployment, ResolvedContainer, ResolvedVariant
from raymaker.platform.settings import Settings

REQUEST = {
    "AlgorithmSpecification": {"TrainingImage": "algo:1", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1},
}


def job(**changes):
    record = transitions.create_training_job("job", "arn:job", "000000000000", {**REQUEST, **changes}, 0.0)
    return transitions.start_attempt(record, 1.0)


def spec_of(tmp_path, *, settings=None, **changes):
    settings = settings or Settings(home=tmp_path)
    return specs.training_spec(job(**changes), load_catalogue(settings), settings)


def test_the_smallest_request_gets_the_contracts_defaults(tmp_path):
    spec = spec_of(tmp_path)
    assert (spec.job_name, spec.job_arn, spec.region, spec.attempt) == ("job", "arn:job", "us-east-1", 1)
    assert spec.instance_type.resources == Resources(1.0, 1024**3)
    assert (spec.image, spec.source, spec.entrypoint, spec.arguments) == ("algo:1", None, None, None)
    assert (spec.output_uri, spec.output_compression, spec.max_runtime_s) == ("s3://bucket/out", "GZIP", 86_400)
    assert (spec.network, spec.checkpoint_uri) == (Network.NONE, None)
    assert (spec.instance_count, spec.min_instance_count, spec.containers_per_instance) == (1, None, 1)
    assert (spec.placement, spec.max_failures, spec.retries_errors, spec.start) == (Placement.PACK, 2, False, 0)


def test_everything_that_is_asked_for_is_passed_on(tmp_path):
    spec = spec_of(
        tmp_path,
        AlgorithmSpecification={
            "AlgorithmSource": {"SourceUri": "file:///code", "EntryPoint": "go.sh", "BaseImage": "debian"},
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python"],
            "ContainerArguments": ["-v"],
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
        },
        HyperParameters={"a": "1"},
        Environment={"B": "2"},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ContentType": "text/csv",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "ManifestFile",
                        "S3Uri": "s3://b/m",
                        "S3DataDistributionType": "ShardedByS3Key",
                    }
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": "s3://b/o", "CompressionType": "NONE"},
        CheckpointConfig={"S3Uri": "s3://b/c", "LocalPath": "/tmp/c"},
        StoppingCondition={"MaxRuntimeInSeconds": 5},
    )
    assert (spec.image, spec.source) == (None, SourceSpec("file:///code", "go.sh", "debian"))
    assert (spec.entrypoint, spec.arguments) == (("python",), ("-v",))
    assert spec.metric_definitions == (MetricDefinition("loss", "loss=(.*)"),)
    assert (spec.hyperparameters, spec.environment) == ({"a": "1"}, {"B": "2"})
    assert spec.channels == (ChannelSpec("train", "s3://b/m", "ManifestFile", "ShardedByS3Key", "text/csv"),)
    assert (spec.output_compression, spec.max_runtime_s) == ("NONE", 5)
    assert (spec.checkpoint_uri, spec.checkpoint_local_path) == ("s3://b/c", "/tmp/c")


@pytest.mark.parametrize(
    ("asked", "setting", "expected"),
    [
        ({}, "none", Network.NONE),
        ({}, "open", Network.OPEN),
        ({"EnableNetworkIsolation": True}, "open", Network.NONE),
        ({"EnableNetworkIsolation": False}, "none", Network.OPEN),
    ],
)
def test_the_network_is_as_the_request_says_else_as_the_setting_does(tmp_path, asked, setting, expected):
    settings = Settings(home=tmp_path, training_network=setting)
    assert spec_of(tmp_path, settings=settings, **asked).network is expected


def test_a_gang_is_asked_for_with_its_size_placement_and_retries(tmp_path):
    spec = spec_of(
        tmp_path,
        ResourceConfig={
            "InstanceType": "ml.m5.large",
            "InstanceCount": 3,
            "MinInstanceCount": 2,
            "MaxInstanceCount": 4,
            "ContainersPerInstance": 2,
            "PlacementStrategy": "Spread",
        },
        RetryStrategy={"MaximumRetryAttempts": 7},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ShardBy": "Record",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": "s3://b/rows.csv",
                        "S3DataDistributionType": "ShardedByS3Key",
                    }
                },
            }
        ],
    )
    assert (spec.instance_count, spec.min_instance_count, spec.containers_per_instance) == (4, 2, 2)
    assert (spec.placement, spec.max_failures, spec.retries_errors) == (Placement.SPREAD, 7, True)
    assert (spec.channels[0].distribution, spec.channels[0].shard_by) == ("ShardedByS3Key", "Record")


def test_a_streamed_channel_is_asked_for_with_its_order_and_attributes(tmp_path):
    source = {"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://b/m", "AttributeNames": ["a-ref", "b"]}
    spec = spec_of(
        tmp_path,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "InputMode": "Pipe",
                "RecordWrapperType": "RecordIO",
                "ShuffleConfig": {"Seed": 7},
                "DataSource": {"S3DataSource": source},
            }
        ],
    )
    (channel,) = spec.channels
    assert (channel.is_streamed, channel.record_wrapper) == (True, "RecordIO")
    assert (channel.attribute_names, channel.shuffle_seed) == (("a-ref", "b"), 7)


def test_a_channel_of_tables_is_asked_for_with_its_columns_and_conditions(tmp_path):
    config = {"Columns": ["a"], "Filters": [{"Column": "b", "Operator": "In", "Values": ["1"]}], "BatchRowCount": 10}
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://b/m"}
    channel = {"ChannelName": "train", "InputMode": "Arrow", "ArrowConfig": config}
    spec = spec_of(tmp_path, InputDataConfig=[{**channel, "DataSource": {"S3DataSource": source}}])
    assert spec.channels[0].arrow == ArrowSpec(("a",), (("b", "In", ("1",)),), 10)


def test_the_spec_says_which_start_of_the_attempt_is_the_jobs(tmp_path):
    settings = Settings(home=tmp_path)
    begun = transitions.begin_start(job(), 1, "go", 2.0)
    assert specs.training_spec(begun, load_catalogue(settings), settings).start == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (1, 1)),
        ({"InstanceCount": 3}, (3, 3)),
        ({"InstanceCount": 3, "MinInstanceCount": 2}, (2, 3)),
        ({"InstanceCount": 3, "MaxInstanceCount": 5}, (3, 5)),
        ({"MinInstanceCount": 2, "MaxInstanceCount": 5}, (2, 5)),
        ({"MaxInstanceCount": 5}, (5, 5)),
        ({"MinInstanceCount": 2}, (2, 2)),
    ],
)
def test_a_missing_end_of_the_range_is_the_instance_count(given, expected):
    assert specs.instance_counts(given) == expected


def test_an_instance_type_that_left_the_catalogue_is_named(tmp_path):
    with pytest.raises(CatalogueError, match="instance type local of training job job"):
        specs.training_spec(job(), {}, Settings(home=tmp_path))


def test_an_endpoints_limits_come_from_its_variant(tmp_path):
    settings = Settings(home=tmp_path)
    variant = {
        "VariantName": "v",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 3,
        "ContainerStartupHealthCheckTimeoutInSeconds": 61,
        "ModelDataDownloadTimeoutInSeconds": 62,
        "InvocationTimeoutInSeconds": 63,
        "MaxPayloadInBytes": 64,
    }
    container = ResolvedContainer(image="i", model_uri="s3://b/m", environment={"A": "b"})
    desired = Deployment("c", (ResolvedVariant(variant, "m", (container,), weight=2.0, instance_count=3),))
    record = transitions.create_endpoint("e", "arn:e", "000000000000", desired, 0.0)
    spec = specs.endpoint_spec(record, desired, load_catalogue(settings), settings)
    assert (spec.endpoint_name, spec.config_name, spec.generation, spec.revision) == ("e", "c", 1, 1)
    assert (spec.endpoint_arn, spec.shadows) == ("arn:e", ())
    (served,) = spec.variants
    assert (served.name, served.weight, served.replica_count, served.instance_type.name) == ("v", 2.0, 3, "ml.m5.large")
    scoring = served.scoring
    assert (scoring.image, scoring.model_uri, scoring.environment) == ("i", "s3://b/m", {"A": "b"})
    assert (scoring.startup_timeout_s, scoring.download_timeout_s) == (61, 62)
    assert (scoring.invocation_timeout_s, scoring.max_body_bytes) == (63, 64)
    assert scoring.resources == served.instance_type.resources
    assert scoring.network is Network.INTERNAL
    assert served.graph is None


def test_several_containers_share_their_instance_and_are_known_by_their_hostnames(tmp_path):
    settings = Settings(home=tmp_path)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InvocationTimeoutInSeconds": 63}
    containers = tuple(ResolvedContainer(image=f"i-{name}", hostname=name) for name in ("a", "b"))
    nodes = {"root": {"RouterType": "Ensemble", "Steps": [{"ContainerHostname": "b"}, {"ContainerHostname": "a"}]}}
    desired = Deployment(
        "c",
        (
            ResolvedVariant(variant, "m", containers, execution_mode="Serial"),
            ResolvedVariant(variant, "m", containers, execution_mode="Direct"),
            ResolvedVariant(variant, "m", containers, inference_graph={"Nodes": nodes}),
        ),
    )
    record = transitions.create_endpoint("e", "arn:e", "000000000000", desired, 0.0)
    served = specs.endpoint_spec(record, desired, load_catalogue(settings), settings).variants
    for each in served:
        whole = each.instance_type.resources
        assert {name: scoring.image for name, scoring in each.scorings.items()} == {"a": "i-a", "b": "i-b"}
        assert all(scoring.invocation_timeout_s == 63 for scoring in each.scorings.values())
        assert all(scoring.resources == whole.share(2) for scoring in each.scorings.values())
    assert [each.graph.graph.nodes["root"].router for each in served] == ["Sequence", "Switch", "Ensemble"]
    assert [each.graph.is_direct for each in served] == [False, True, False]
