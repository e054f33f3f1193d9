"""Training jobs through the API: what is accepted, what is refused and in which words, and what Describe tells."""

from __future__ import annotations

import math

import pytest

from raymaker.actors.reports import Metric, Outcome
from raymaker.actors.spec import Resources
from raymaker.platform.database import events, metrics, training
from raymaker.platform.errors import ResourceInUse, ValidationException

CHANNEL = {
    "ChannelName": "train",
    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data"}},
}
SOURCE = {"SourceUri": "file:///code", "EntryPoint": "train.py"}


def algorithm(**changes):
    return {"TrainingImage": "algo:1", "TrainingInputMode": "File", **changes}


def channel(**changes):
    return [{**CHANNEL, **changes}]


def resources(**changes):
    return {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, **changes}


def s3_source(**changes):
    return channel(DataSource={"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/x", **changes}})


def pipe(channels, **changes):
    return [{**it, "InputMode": "Pipe", **changes} for it in channels]


def test_streamed_channels_are_kept_as_they_were_asked_for(api):
    given = {
        "AlgorithmSpecification": algorithm(TrainingInputMode="Pipe"),
        "InputDataConfig": [
            *channel(CompressionType="Gzip", RecordWrapperType="RecordIO", ShuffleConfig={"Seed": 7}),
            *pipe(s3_source(S3DataType="AugmentedManifestFile", AttributeNames=["a-ref", "b"]), ChannelName="lines"),
            *channel(ChannelName="files_0", InputMode="File"),
            *channel(
                ChannelName="tables",
                InputMode="Arrow",
                CompressionType="Gzip",
                ArrowConfig={
                    "Columns": ["a", "b"],
                    "Filters": [{"Column": "c", "Operator": "In", "Values": ["1", "2"]}],
                    "ShuffleRowCount": 100,
                },
            ),
        ],
    }
    api.create_job("job", **given)
    told = api("DescribeTrainingJob", TrainingJobName="job")
    assert {key: told[key] for key in given} == given


def test_a_created_job_is_described_as_it_was_asked_for(api):
    given = {
        "HyperParameters": {"epochs": "3"},
        "InputDataConfig": channel(ContentType="text/csv"),
        "Environment": {"A": "b"},
        "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "ProfilerConfig": {"DisableProfiler": True},
        "ExperimentConfig": {"ExperimentName": "e"},
        "EnableManagedSpotTraining": True,
    }
    arn = api.create_job("job", **given)["TrainingJobArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:training-job/job"
    told = api("DescribeTrainingJob", TrainingJobName="job")
    assert {key: told[key] for key in given} == given
    assert told["TrainingJobArn"] == arn
    assert told["RoleArn"] == "arn:aws:iam::123456789012:role/anyone"
    assert told["AlgorithmSpecification"] == algorithm()
    assert told["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/out/job/output/model.tar.gz"}
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("InProgress", "Starting")
    assert told["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert told["EnableNetworkIsolation"] is True
    assert told["CreationTime"] == api.now


def test_source_code_is_described_back(api):
    api.create_job("job", AlgorithmSpecification={"AlgorithmSource": SOURCE, "TrainingInputMode": "File"})
    assert api("DescribeTrainingJob", TrainingJobName="job")["AlgorithmSpecification"]["AlgorithmSource"] == SOURCE


def test_the_reconciler_is_woken_once_the_job_is_written(api):
    api.create_job("job")
    assert api.cluster.wake_count == 1


def test_a_finished_job_tells_model_times_and_last_metrics(api):
    api.create_job("job")
    values = [Metric("loss", 0.5, 1.0), Metric("loss", 0.25, 2.0), Metric("odd", math.nan, 3.0)]
    metrics.insert_metrics(api.context.database, "job", 1, values)
    api.complete_job("job")
    told = api("DescribeTrainingJob", TrainingJobName="job")
    assert told["TrainingJobStatus"] == told["SecondaryStatus"] == "Completed"
    assert told["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/out/model.tar.gz"}
    assert told["TrainingTimeInSeconds"] == told["BillableTimeInSeconds"] == 7
    assert told["TrainingEndTime"] - told["TrainingStartTime"] == 7
    assert told["FinalMetricDataList"] == [
        {"MetricName": "loss", "Value": 0.25, "Timestamp": 2.0},
        {"MetricName": "odd", "Value": "NaN", "Timestamp": 3.0},
    ]
    stays = told["SecondaryStatusTransitions"]
    assert [stay["Status"] for stay in stays] == ["Starting", "Training", "Completed"]
    assert stays[-1]["StatusMessage"] == "Completed it is"


def test_a_failed_job_tells_why_and_names_no_model(api):
    api.create_job("job")
    api.start_job("job")
    api.report("job", "Failed", Outcome.FAILED, failure_reason="AlgorithmError: no\0 data, exit code: 1")
    told = api("DescribeTrainingJob", TrainingJobName="job")
    assert told["FailureReason"] == "AlgorithmError: no\N{REPLACEMENT CHARACTER} data, exit code: 1"
    assert told["ModelArtifacts"] == {"S3ModelArtifacts": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AlgorithmSpecification": None}, "AlgorithmSpecification is missing"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "exactly one of TrainingImage"),
        ({"AlgorithmSpecification": algorithm(AlgorithmSource=SOURCE)}, "exactly one of TrainingImage"),
        ({"AlgorithmSpecification": algorithm(TrainingImage=" ")}, "AlgorithmSpecification.TrainingImage is empty"),
        ({"AlgorithmSpecification": algorithm(AlgorithmName="mine")}, "AlgorithmSpecification.AlgorithmName is not"),
        (
            {
                "AlgorithmSpecification": {
                    "AlgorithmSource": {**SOURCE, "EntryPoint": "../x"},
                    "TrainingInputMode": "File",
                }
            },
            "EntryPoint ../x leads out of SourceUri",
        ),
        (
            {
                "AlgorithmSpecification": algorithm(TrainingInputMode="FastFile"),
                "InputDataConfig": channel(CompressionType="Gzip"),
            },
            r"CompressionType Gzip goes with Pipe and Arrow mode: in FastFile mode leave it out",
        ),
        (
            {"AlgorithmSpecification": algorithm(MetricDefinitions=[{"Name": "a", "Regex": "("}])},
            r"MetricDefinitions\[0\].Regex of a is no regular expression",
        ),
        (
            {"AlgorithmSpecification": algorithm(MetricDefinitions=[{"Name": "a", "Regex": "a=.*"}])},
            r"MetricDefinitions\[0\].Regex of a has no group",
        ),
        ({"InputDataConfig": channel() + channel()}, "channel name train comes twice"),
        ({"InputDataConfig": channel(ChannelName="..")}, r"InputDataConfig\[0\].ChannelName .. cannot"),
        (
            {
                "InputDataConfig": [
                    {**each, "InputMode": "FastFile", "ShardBy": "Record"}
                    for each in s3_source(S3DataDistributionType="ShardedByS3Key")
                ]
            },
            r"InputDataConfig\[0\].ShardBy Record is not supported in FastFile mode",
        ),
        ({"InputDataConfig": channel(CompressionType="Gzip")}, r"InputDataConfig\[0\].CompressionType Gzip"),
        ({"InputDataConfig": channel(RecordWrapperType="RecordIO")}, r"InputDataConfig\[0\].RecordWrapperType"),
        ({"InputDataConfig": channel(DataSource={})}, r"InputDataConfig\[0\].DataSource needs S3DataSource"),
        (
            {"InputDataConfig": s3_source(S3DataType="AugmentedManifestFile", AttributeNames=["a"])},
            r"AugmentedManifestFile goes with Pipe mode: set InputDataConfig\[0\].InputMode to Pipe",
        ),
        (
            {"InputDataConfig": pipe(s3_source(S3DataType="AugmentedManifestFile"))},
            r"InputDataConfig\[0\].DataSource.S3DataSource.AttributeNames go with .* which needs them",
        ),
        ({"InputDataConfig": s3_source(AttributeNames=["a"])}, "AttributeNames go with"),
        ({"InputDataConfig": s3_source(S3DataType="Converse")}, "S3DataType Converse is not supported here"),
        (
            {"InputDataConfig": pipe(channel()) + channel(ChannelName="train_0")},
            r"InputDataConfig\[1\].ChannelName train_0 is also what a pipe of the channel train is called",
        ),
        (
            {"InputDataConfig": pipe(s3_source(S3DataDistributionType="ShardedByS3Key"), ShardBy="Record")},
            r"InputDataConfig\[0\].ShardBy Record is not supported in Pipe mode",
        ),
        (
            {"InputDataConfig": pipe(channel(), ArrowConfig={"Columns": ["a"]})},
            r"InputDataConfig\[0\].ArrowConfig goes with Arrow mode",
        ),
        (
            {"InputDataConfig": channel(InputMode="Arrow", RecordWrapperType="RecordIO")},
            r"InputDataConfig\[0\].RecordWrapperType RecordIO goes with Pipe mode: in Arrow mode leave it out",
        ),
        (
            {
                "InputDataConfig": channel(
                    InputMode="Arrow",
                    ArrowConfig={"Filters": [{"Column": "a", "Operator": "Less", "Values": ["1", "2"]}]},
                )
            },
            r"InputDataConfig\[0\].ArrowConfig.Filters\[0\].Values are several",
        ),
        (
            {
                "InputDataConfig": channel(
                    DataSource={
                        "FileSystemDataSource": {
                            "FileSystemId": "fs-12345678901",
                            "FileSystemAccessMode": "ro",
                            "FileSystemType": "EFS",
                            "DirectoryPath": "/",
                        }
                    }
                )
            },
            "FileSystemDataSource is not supported",
        ),
        ({"OutputDataConfig": {"S3OutputPath": "s3://b/o", "KmsKeyId": "key"}}, "OutputDataConfig.KmsKeyId is not"),
        ({"ResourceConfig": None}, "ResourceConfig is missing"),
        ({"ResourceConfig": {"InstanceCount": 1, "VolumeSizeInGB": 1}}, "ResourceConfig.InstanceType is missing"),
        ({"ResourceConfig": resources(InstanceCount=0)}, "ResourceConfig.InstanceCount 0 is too few"),
        ({"ResourceConfig": resources(InstanceCount=-1)}, "-1.*resourceConfig.instanceCount"),
        ({"ResourceConfig": resources(MinInstanceCount=0)}, "resourceConfig.minInstanceCount"),
        (
            {"ResourceConfig": resources(InstanceCount=3, MinInstanceCount=4)},
            "MinInstanceCount 4, InstanceCount 3 and MaxInstanceCount 3 are not in order",
        ),
        (
            {"ResourceConfig": resources(InstanceCount=3, MinInstanceCount=1, MaxInstanceCount=2)},
            "MinInstanceCount 1, InstanceCount 3 and MaxInstanceCount 2 are not in order",
        ),
        ({"ResourceConfig": resources(ContainersPerInstance=0)}, "resourceConfig.containersPerInstance"),
        ({"ResourceConfig": resources(ContainersPerInstance=65)}, "resourceConfig.containersPerInstance"),
        (
            {"ResourceConfig": resources(InstanceCount=33, ContainersPerInstance=32)},
            "ResourceConfig.InstanceCount 33 with ContainersPerInstance 32 makes 1056 containers",
        ),
        (
            {"ResourceConfig": resources(MaxInstanceCount=1025)},
            "ResourceConfig.MaxInstanceCount 1025 with ContainersPerInstance 1 makes 1025",
        ),
        (
            {"ResourceConfig": resources(InstanceCount=10)},
            (
                "InstanceCount 10: this cluster can never hold so many instances of ml.m5.large at once. Each needs "
                "2 CPUs, 8.0 GiB of memory, and there is room for 9 in all: 1 node of 16 CPUs, 64.0 GiB"
            ),
        ),
        (
            {"ResourceConfig": resources(InstanceCount=12, MinInstanceCount=10)},
            "ResourceConfig.MinInstanceCount 10: this cluster can never hold",
        ),
        ({"ResourceConfig": resources(PlacementStrategy="Scatter")}, "resourceConfig.placementStrategy"),
        (
            {
                "ResourceConfig": {
                    "VolumeSizeInGB": 1,
                    "InstanceGroups": [
                        {"InstanceType": "local", "InstanceCount": 1, "InstanceGroupName": "a"},
                    ],
                }
            },
            "ResourceConfig.InstanceGroups is not supported here: Ray Train gives all workers of a gang the same",
        ),
        ({"ResourceConfig": resources(SelectedInstanceCount=1)}, "SelectedInstanceCount is not supported"),
        ({"InputDataConfig": channel(ShardBy="Record")}, r"InputDataConfig\[0\].ShardBy Record says how to share"),
        ({"InputDataConfig": channel(ShardBy="Line")}, "shardBy"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.tiny", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "ResourceConfig.InstanceType: there is no instance type ml.m5.tiny. Known are ml.m5.large",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.24xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "96 CPUs of at most 16, 384.0 GiB of memory of at most 64.0. Choose a smaller instance type",
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 8}},
            "MaxWaitTimeInSeconds 8 is less",
        ),
        ({"StoppingCondition": {"MaxPendingTimeInSeconds": 7200}}, "MaxPendingTimeInSeconds is not supported"),
        ({"TensorBoardOutputConfig": {"S3OutputPath": "s3://b/t"}}, "TensorBoardOutputConfig is not supported"),
        ({"RemoteDebugConfig": {"EnableRemoteDebug": True}}, "RemoteDebugConfig.EnableRemoteDebug is not supported"),
        ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}, "Tags: the key a comes twice"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name_and_leaves_nothing(api, changes, said):
    with pytest.raises(ValidationException, match=said):
        api.create_job("job", **changes)
    assert api("ListTrainingJobs")["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"RemoteDebugConfig": {"EnableRemoteDebug": False}},
        {"OutputDataConfig": {"S3OutputPath": "file:///tmp/out", "KmsKeyId": ""}},
        {"InputDataConfig": s3_source(S3DataDistributionType="ShardedByS3Key")},
        {"InputDataConfig": [{**s3_source(S3DataDistributionType="ShardedByS3Key")[0], "ShardBy": "Record"}]},
        {"ResourceConfig": resources(InstanceCount=9)},
        {"ResourceConfig": resources(InstanceCount=100, MinInstanceCount=1)},
        {"ResourceConfig": resources(InstanceCount=2, MaxInstanceCount=512, PlacementStrategy="Spread")},
        {"ResourceConfig": resources(InstanceCount=2, ContainersPerInstance=64, PlacementStrategy="Pack")},
        {"ResourceConfig": {"InstanceType": "local", "MinInstanceCount": 1, "MaxInstanceCount": 2}},
        {"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/checkpoints/"}},
        {"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/modelled"}},
        {"Environment": {"RANK": "7", "WORLD_SIZE": "9", "MASTER_ADDR": "x", "RAYMAKER_EXCHANGE_ARENA_MIB": "64"}},
        {"InputDataConfig": channel(CompressionType="None", RecordWrapperType="None", InputMode="File")},
        {"EnableInterContainerTrafficEncryption": True},
        {"DebugHookConfig": {"S3OutputPath": "s3://b/d"}},
        {"ResourceConfig": {"InstanceType": "local", "VolumeSizeInGB": 9, "KeepAlivePeriodInSeconds": 60}},
    ],
)
def test_what_is_harmless_is_accepted(api, changes):
    api.create_job("job", **changes)


def test_what_no_living_node_holds_is_accepted_where_nobody_knows_which_may_come(api):
    large = {"InstanceType": "ml.m5.24xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    with pytest.raises(ValidationException, match="96 CPUs of at most 16"):
        api.create_job("job", ResourceConfig=large)
    api.cluster.may_grow = True
    api.create_job("job", ResourceConfig=large)
    api.create_job("jobs", ResourceConfig={**large, "InstanceCount": 100})


@pytest.mark.parametrize(
    "path",
    [
        *("/opt/ml/model", "/opt/ml/input/data/x", "/opt/ml/", "/opt", "/", "//opt/ml/./output", "/opt/ml/exchange"),
        *("/opt/ml/code/a", "/proc", "/dev/shm/a"),
    ],
)
def test_checkpoints_may_not_lie_where_the_platform_or_the_system_has_something_else(api, path):
    with pytest.raises(ValidationException, match=f"CheckpointConfig.LocalPath {path} overlaps /"):
        api.create_job("job", CheckpointConfig={"S3Uri": "s3://b/c", "LocalPath": path})


@pytest.mark.parametrize("path", ["checkpoints", "./opt/ml/checkpoints", "/opt/ml/checkpoints/../model"])
def test_checkpoints_need_an_absolute_path(api, path):
    with pytest.raises(ValidationException, match="CheckpointConfig.LocalPath .* is not an absolute path"):
        api.create_job("job", CheckpointConfig={"S3Uri": "s3://b/c", "LocalPath": path})


@pytest.mark.parametrize("size", ["0", "-1", "", "a lot", "1.5"])
def test_an_arena_that_has_no_size_is_refused(api, size):
    with pytest.raises(ValidationException, match="Environment.RAYMAKER_EXCHANGE_ARENA_MIB"):
        api.create_job("job", Environment={"RAYMAKER_EXCHANGE_ARENA_MIB": size})


def test_containers_that_no_engine_could_start_with_their_share_are_refused(api):
    api.cluster.add_type("tiny", Resources(0.02, 64 * 1024**2))
    api.create_job("job", ResourceConfig=resources(InstanceType="tiny", ContainersPerInstance=2))
    with pytest.raises(ValidationException, match="ContainersPerInstance 3 is too many for tiny, which has 0.02 CPUs"):
        api.create_job("job2", ResourceConfig=resources(InstanceType="tiny", ContainersPerInstance=3))


def test_a_type_that_no_single_node_can_hold_is_refused_even_where_the_cluster_has_enough_of_each(api):
    api.cluster.add_node(Resources(2, 1024**3, 4))
    api.cluster.add_type("gpu", Resources(4, 1024**3, 1))
    with pytest.raises(ValidationException, match="it needs 4 CPUs, 1.0 GiB of memory, 1 GPUs on one node"):
        api.create_job("job", ResourceConfig=resources(InstanceType="gpu"))


def test_a_gang_is_described_as_it_was_asked_for(api):
    asked = resources(
        InstanceCount=3, MinInstanceCount=2, MaxInstanceCount=4, ContainersPerInstance=2, PlacementStrategy="Spread"
    )
    sharded = s3_source(S3DataDistributionType="ShardedByS3Key")
    sharded[0]["ShardBy"] = "Record"
    api.create_job("job", ResourceConfig=asked, InputDataConfig=sharded)
    told = api("DescribeTrainingJob", TrainingJobName="job")
    assert told["ResourceConfig"] == asked
    assert told["InputDataConfig"] == sharded


def test_starts_and_notes_are_events_of_the_job(api):
    api.create_job("job", ResourceConfig=resources(InstanceCount=2))
    api.start_job("job")
    database = api.context.database
    assert training.begin_start(database, "job", 1, "Starting training on 2 instances", api.now) == 1
    api.report("job", "Training", start=1)
    note = "Machine 2: checkpoint 7 was not stored: no such bucket"
    events.record_job_event(database, "job", 1, "CheckpointSyncFailed", note, now=api.now)
    events.record_job_event(database, "nobody", 1, "CheckpointSyncFailed", note, now=api.now)
    assert training.begin_start(database, "job", 1, "machine 2 was lost", api.now) == 2
    told = [(event["Kind"], event["Message"]) for event in api("ListEvents", TrainingJobName="job")["Events"]]
    assert told == [
        ("Starting", "Starting the training job"),
        ("Starting", "Starting training on 2 instances"),
        ("Training", "Training it is"),
        ("CheckpointSyncFailed", note),
        ("Restarting", "machine 2 was lost"),
    ]
    assert api("DescribeTrainingJob", TrainingJobName="job")["SecondaryStatus"] == "Restarting"


def test_a_name_is_given_once(api):
    api.create_job("job")
    with pytest.raises(ResourceInUse, match="must be unique"):
        api.create_job("job")


def test_what_is_not_there_is_told_as_waiters_expect(api):
    for name in ("DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob", "GetTrainingMetrics", "ListEvents"):
        with pytest.raises(ValidationException, match="Requested resource not found"):
            api(name, TrainingJobName="nobody")


def test_a_waiting_job_stops_at_once(api):
    api.create_job("job")
    api("StopTrainingJob", TrainingJobName="job")
    assert api("DescribeTrainingJob", TrainingJobName="job")["TrainingJobStatus"] == "Stopped"


def test_a_running_job_is_stopping_until_its_machine_says_more(api):
    api.create_job("job")
    api.start_job("job")
    woken = api.cluster.wake_count
    api("StopTrainingJob", TrainingJobName="job")
    api("StopTrainingJob", TrainingJobName="job")
    assert api("DescribeTrainingJob", TrainingJobName="job")["TrainingJobStatus"] == "Stopping"
    assert api.cluster.wake_count > woken


def test_an_ended_job_cannot_be_stopped(api):
    api.trained("job")
    with pytest.raises(ValidationException, match="the training job is in status Completed"):
        api("StopTrainingJob", TrainingJobName="job")


def test_only_an_ended_job_can_be_deleted_and_its_name_is_free_again(api):
    api.create_job("job", Tags=[{"Key": "a", "Value": "b"}])
    with pytest.raises(ResourceInUse, match="InProgress"):
        api("DeleteTrainingJob", TrainingJobName="job")
    api.complete_job("job")
    api("DeleteTrainingJob", TrainingJobName="job")
    arn = api.create_job("job")["TrainingJobArn"]
    assert api("ListTags", ResourceArn=arn)["Tags"] == []
    assert api("ListEvents", TrainingJobName="job")["Events"] == []


def test_listing_filters_sorts_and_pages(api):
    for number in range(5):
        api.now += 1
        api.create_job(f"Job-{number}")
    api.complete_job("Job-3")

    def names(**request):
        return [job["TrainingJobName"][-1] for job in api("ListTrainingJobs", **request)["TrainingJobSummaries"]]

    assert names() == list("01234")
    assert names(SortOrder="Descending", MaxResults=2) == list("43")
    assert names(SortBy="Status", SortOrder="Ascending") == list("30124")
    assert names(StatusEquals="Completed") == ["3"]
    assert names(NameContains="job-4") == ["4"]
    assert names(CreationTimeAfter=api.now - 2, CreationTimeBefore=api.now) == ["3"]
    assert names(LastModifiedTimeAfter=api.now - 1) == ["3", "4"]
    assert names(WarmPoolStatusEquals="InUse") == []
    first = api("ListTrainingJobs", MaxResults=3)
    assert names(NextToken=first["NextToken"], MaxResults=3) == list("34")


@pytest.mark.parametrize(
    "token", ["x", "bm9wZQ==", "W10=", "WzEsMl0=", "\N{SNOWMAN}", "WyJOYW1lIixmYWxzZSwieCIsIngiXQ=="]
)
def test_a_token_that_is_not_ours_is_refused(api, token):
    with pytest.raises(ValidationException, match="NextToken"):
        api("ListTrainingJobs", NextToken=token)


def test_a_token_belongs_to_its_order(api):
    api.create_job("a")
    api.create_job("b")
    token = api("ListTrainingJobs", MaxResults=1)["NextToken"]
    with pytest.raises(ValidationException, match="same SortBy and SortOrder"):
        api("ListTrainingJobs", NextToken=token, SortOrder="Descending")


def test_metrics_are_told_oldest_first_by_name_and_page(api):
    api.create_job("job")
    said = [Metric("loss" if number % 2 else "acc", number / 4, float(number)) for number in range(6)]
    metrics.insert_metrics(api.context.database, "job", 1, said)
    metrics.insert_metrics(api.context.database, "job", 1, said)  # told again after a lost acknowledgement
    first = api("GetTrainingMetrics", TrainingJobName="job", MaxResults=4)
    rest = api("GetTrainingMetrics", TrainingJobName="job", NextToken=first["NextToken"])
    assert [metric["Value"] for metric in first["Metrics"] + rest["Metrics"]] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    losses = api("GetTrainingMetrics", TrainingJobName="job", MetricName="loss")["Metrics"]
    assert [metric["Timestamp"] for metric in losses] == [1.0, 3.0, 5.0]


def test_metrics_are_summed_up_by_periods_or_to_so_many_points(api):
    api.create_job("job")
    said = [Metric("loss", float(number), float(number)) for number in range(100)]
    metrics.insert_metrics(api.context.database, "job", 1, said)
    periods = api("GetTrainingMetrics", TrainingJobName="job", PeriodInSeconds=40)["Metrics"]
    assert [(it["Timestamp"], it["Value"], it["Minimum"], it["Maximum"], it["SampleCount"]) for it in periods] == [
        (0.0, 19.5, 0, 39, 40),
        (40.0, 59.5, 40, 79, 40),
        (80.0, 89.5, 80, 99, 20),
    ]
    points = api("GetTrainingMetrics", TrainingJobName="job", MaxPoints=10, StartTime=20, EndTime=60)["Metrics"]
    assert (len(points), points[0]["Timestamp"], sum(it["SampleCount"] for it in points)) == (10, 20.0, 40)
    (alone,) = api("GetTrainingMetrics", TrainingJobName="job", MaxPoints=10, StartTime=99)["Metrics"]
    assert (alone["Value"], alone["SampleCount"]) == (99, 1)
    assert api("GetTrainingMetrics", TrainingJobName="job", MaxPoints=10, StartTime=200)["Metrics"] == []


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"PeriodInSeconds": 0.001}, "PeriodInSeconds 0.001 makes 99001 periods, and 10000 are the most"),
        ({"PeriodInSeconds": 1, "MaxPoints": 1}, "leave one of them out"),
        ({"PeriodInSeconds": 1, "MaxResults": 5}, "MaxResults does not go with PeriodInSeconds or MaxPoints"),
    ],
)
def test_metrics_that_cannot_be_summed_up_so_are_refused(api, request_, said):
    api.create_job("job")
    metrics.insert_metrics(api.context.database, "job", 1, [Metric("loss", 1.0, 0.0), Metric("loss", 1.0, 99.0)])
    with pytest.raises(ValidationException, match=said):
        api("GetTrainingMetrics", TrainingJobName="job", **request_)


def test_events_tell_the_way_of_a_job(api):
    api.create_job("job")
    api.complete_job("job")
    events = api("ListEvents", TrainingJobName="job")["Events"]
    assert [event["Kind"] for event in events] == ["Starting", "Training", "Completed"]


def test_events_are_asked_of_one_thing(api):
    for request in ({}, {"TrainingJobName": "a", "EndpointName": "b"}):
        with pytest.raises(ValidationException, match="exactly one of TrainingJobName, TransformJobName"):
            api("ListEvents", **request)


def test_tags_come_with_a_job_and_change_by_its_arn(api):
    arn = api.create_job("job", Tags=[{"Key": "a", "Value": "1"}])["TrainingJobArn"]
    told = api("AddTags", ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}])["Tags"]
    assert told == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]
    api("DeleteTags", ResourceArn=arn, TagKeys=["a", "none"])
    assert api("ListTags", ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": ""}]


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        ("arn:aws:sagemaker:us-east-1:123456789012:training-job/nobody", "Requested resource not found"),
        ("arn:aws:sagemaker:us-east-1:123456789012:model/nobody", "Could not find model"),
        ("arn:aws:sagemaker:us-east-1:123456789012:endpoint/nobody", "Could not find endpoint"),
        ("arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/nobody", "Could not find endpoint configuration"),
        ("arn:aws:sagemaker:us-east-1:123456789012:pipeline/x", "names nothing that can be here"),
        ("arn:aws:sagemaker:eu-west-1:123456789012:model/x", "whose region is us-east-1"),
    ],
)
def test_tags_of_what_is_not_there_are_refused(api, arn, said):
    with pytest.raises(ValidationException, match=said):
        api("ListTags", ResourceArn=arn)
