"""The whole of a model's life with nothing but boto3: train an image, host its model, score rows, clean up.

    python examples/prepare_data.py digits /tmp/digits
    docker build -t digits examples/digits_image
    python examples/boto3_stock.py --image digits --data /tmp/digits

Nothing here knows raymaker: with another `--endpoint-url` and S3 URIs it is an ordinary SageMaker script.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import boto3

ROLE = "arn:aws:iam::000000000000:role/any"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint-url", default="http://127.0.0.1:8000")
    parser.add_argument("--image", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare_data.py wrote")
    parser.add_argument("--instance-type", default="ml.m5.large")
    arguments = parser.parse_args()

    # boto3 signs every request, so it needs a region and some credentials, whatever the other side makes of them.
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    session = boto3.Session(region_name=os.environ.get("AWS_REGION", "us-east-1"))
    sagemaker = session.client("sagemaker", endpoint_url=arguments.endpoint_url)
    runtime = session.client("sagemaker-runtime", endpoint_url=arguments.endpoint_url)

    name = f"digits-{int(time.time())}"
    data = f"file://{arguments.data.resolve()}"
    model_data = train(sagemaker, name, arguments.image, data, arguments.instance_type)
    host(sagemaker, name, arguments.image, model_data, arguments.instance_type)
    try:
        score(runtime, name, arguments.data / "test" / "test.csv")
    finally:
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)
    print("deleted the endpoint, its configuration and the model")


def train(sagemaker: Any, name: str, image: str, data: str, instance_type: str) -> str:
    """Run one training job to its end and return where its model lies."""
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"}],
        },
        HyperParameters={"epochs": "15", "hidden": "64"},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ContentType": "text/csv",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{data}/train/"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": f"{data}/models"},
        ResourceConfig={"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig={"Delay": 1})
    job = sagemaker.describe_training_job(TrainingJobName=name)
    print(f"{name}: {job['TrainingJobStatus']}, {[m['Value'] for m in job['FinalMetricDataList']]}")
    return str(job["ModelArtifacts"]["S3ModelArtifacts"])


def host(sagemaker: Any, name: str, image: str, model_data: str, instance_type: str) -> None:
    """Put the model behind an endpoint and wait until it answers."""
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image, "ModelDataUrl": model_data}
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {"VariantName": "main", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": instance_type}
        ],
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    print(f"{name}: {sagemaker.describe_endpoint(EndpointName=name)['EndpointStatus']}")


def score(runtime: Any, name: str, test: Path) -> None:
    """Send the held-out rows in one request and print how many labels come back right."""
    pairs = [line.split(",", 1) for line in test.read_text().splitlines()]
    answer = runtime.invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Body="\n".join(row for _, row in pairs).encode()
    )
    predicted = answer["Body"].read().decode().split()
    right = sum(int(p) == int(label) for p, (label, _) in zip(predicted, pairs, strict=True))
    print(f"{name}: {right} of {len(pairs)} held-out rows right, accuracy {right / len(pairs):.4f}")


if __name__ == "__main__":
    main()
