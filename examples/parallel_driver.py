"""Train digits_parallel in several containers at once, with boto3, and show that all of them end with the same weights.

    python examples/prepare_data.py digits /tmp/digits
    eval "$(raymaker env)"
    python examples/parallel_driver.py /tmp/digits --instances 1 --containers-per-instance 2

InstanceCount is SageMaker's own. ContainersPerInstance, AlgorithmSource and ShardBy are raymaker's: boto3 knows them
where AWS_DATA_PATH leads to raymaker's part of the service model, which is where `raymaker env` sets it to.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import boto3

SOURCE = Path(__file__).resolve().parent / "digits_parallel"
ROLE = "arn:aws:iam::000000000000:role/any"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--containers-per-instance", type=int, default=2)
    parser.add_argument("--instance-type", default="local")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--shard", action="store_true", help="give each container its records, instead of all of them")
    arguments = parser.parse_args()
    if "AWS_DATA_PATH" not in os.environ:
        parser.error('AWS_DATA_PATH is not set, so boto3 does not know ContainersPerInstance: eval "$(raymaker env)"')

    # boto3 signs every request, so it needs a region and some credentials, whatever the other side makes of them.
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    session = boto3.Session(region_name=os.environ.get("AWS_REGION", "us-east-1"))
    url = os.environ.get("RAYMAKER_ENDPOINT_URL", "http://127.0.0.1:8000")
    name = f"digits-parallel-{int(time.time())}"
    job = train(session.client("sagemaker", endpoint_url=url), name, arguments)
    print(f"{name}: {job['TrainingJobStatus']}, {job['SecondaryStatusTransitions'][-1].get('StatusMessage', '')}")
    for metric in job.get("FinalMetricDataList", []):
        print(f"{metric['MetricName']}: {metric['Value']:.4f}")
    show_last_lines(session.client("logs", endpoint_url=url), name)


def train(sagemaker: Any, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the job to its end and return its description."""
    data = arguments.data.resolve().as_uri()
    source = {"S3DataType": "S3Prefix", "S3Uri": f"{data}/train"}
    channel = {"ChannelName": "train", "DataSource": {"S3DataSource": source}}
    if arguments.shard:
        source["S3DataDistributionType"] = "ShardedByS3Key"
        channel |= {"ContentType": "text/csv", "ShardBy": "Record"}
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={
            "AlgorithmSource": {"SourceUri": SOURCE.as_uri(), "EntryPoint": "train.py"},
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": "loss", "Regex": "loss=([0-9.]+)"},
                {"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"},
            ],
        },
        HyperParameters={"epochs": str(arguments.epochs)},
        InputDataConfig=[channel],
        OutputDataConfig={"S3OutputPath": f"{data}/models"},
        CheckpointConfig={"S3Uri": f"{data}/checkpoints/{name}"},
        ResourceConfig={
            "InstanceType": arguments.instance_type,
            "InstanceCount": arguments.instances,
            "ContainersPerInstance": arguments.containers_per_instance,
            "VolumeSizeInGB": 1,
        },
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig={"Delay": 1})
    described: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
    return described


def show_last_lines(logs: Any, name: str) -> None:
    """Print what each container said last: with which weights it ended."""
    streams = logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
    for stream in streams:
        lines = logs.get_log_events(
            logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], limit=1, startFromHead=False
        )
        print(stream["logStreamName"], "|", lines["events"][-1]["message"])


if __name__ == "__main__":
    main()
