"""Score a folder of rows in one batch, with nothing but boto3: train an image, then run a transform job on its model.

    python examples/prepare_data.py digits /tmp/digits
    docker build -t digits examples/digits_image
    python examples/transform_driver.py --image digits --data /tmp/digits

The rows' first field is the label, which the model must not see: InputFilter leaves it out, JoinSource puts the answer
beside the row, and OutputFilter keeps the label and the answer.
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
    parser.add_argument("--instance-type", default="local")
    arguments = parser.parse_args()

    # boto3 signs every request, so it needs a region and some credentials, whatever the other side makes of them.
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    session = boto3.Session(region_name=os.environ.get("AWS_REGION", "us-east-1"))
    sagemaker = session.client("sagemaker", endpoint_url=arguments.endpoint_url)

    name, data = f"digits-{int(time.time())}", f"file://{arguments.data.resolve()}"
    model_data = train(sagemaker, name, arguments.image, data, arguments.instance_type)
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": arguments.image, "ModelDataUrl": model_data}
    )
    transform(sagemaker, name, data, arguments.instance_type)
    print_score(arguments.data / "scored" / name / "test.csv.out")
    sagemaker.delete_model(ModelName=name)


def train(sagemaker: Any, name: str, image: str, data: str, instance_type: str) -> str:
    """Run one training job to its end and return where its model lies."""
    objects = {"S3DataType": "S3Prefix", "S3Uri": f"{data}/train/"}
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        HyperParameters={"epochs": "15", "hidden": "64"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": objects}}],
        OutputDataConfig={"S3OutputPath": f"{data}/models"},
        ResourceConfig={"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig={"Delay": 1})
    return str(sagemaker.describe_training_job(TrainingJobName=name)["ModelArtifacts"]["S3ModelArtifacts"])


def transform(sagemaker: Any, name: str, data: str, instance_type: str) -> None:
    """Score every row of the test folder, four payloads at a time."""
    objects = {"S3DataType": "S3Prefix", "S3Uri": f"{data}/test/"}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=name,
        MaxConcurrentTransforms=4,
        MaxPayloadInMB=1,
        TransformInput={"DataSource": {"S3DataSource": objects}, "ContentType": "text/csv", "SplitType": "Line"},
        TransformOutput={"S3OutputPath": f"{data}/scored/{name}", "Accept": "text/csv", "AssembleWith": "Line"},
        TransformResources={"InstanceType": instance_type, "InstanceCount": 1},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=name, WaiterConfig={"Delay": 1})
    print(f"{name}: {sagemaker.describe_transform_job(TransformJobName=name)['TransformJobStatus']}")


def print_score(output: Path) -> None:
    """Count the rows whose answer is their label."""
    pairs = [line.split(",") for line in output.read_text().splitlines()]
    right = sum(int(label) == int(answer) for label, answer in pairs)
    print(f"{output}: {right} of {len(pairs)} held-out rows right, accuracy {right / len(pairs):.4f}")


if __name__ == "__main__":
    main()
