"""Try a new model on live traffic before any client depends on it, and compare its answers with the old one's.

    python examples/prepare_data.py digits /tmp/digits-raw --raw
    python examples/shadow_driver.py /tmp/digits-raw

A small classifier answers; a big one is its shadow, which hears every request once the client has its answer. Data
capture keeps the answers of both, and each request's InferenceId tells which belong together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raymaker.platform.client import Client

SOURCE = Path(__file__).resolve().parent / "digits_graph"
ROLE = "arn:aws:iam::000000000000:role/any"
LIVE, SHADOW = "small", "big"
PARTS = {LIVE: "linear", SHADOW: "big"}
PATIENCE_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote, with --raw")
    parser.add_argument("--url", help="where the platform answers; default: as `raymaker` finds it")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        run(client, arguments.data.resolve())


def run(client: Client, data: Path) -> None:
    """Train both models in one job, ask for every held-out digit once, and compare."""
    job = client.train(source=SOURCE, entry_point="train.py", inputs={"train": data / "train"}, output=data / "models")
    job.wait()
    tables = [[float(field) for field in line.split(",")] for line in (data / "test/test.csv").read_text().splitlines()]
    labels = {f"digit-{number}": int(row[0]) for number, row in enumerate(tables)}
    with serving(client, job.name, data / "captured"):
        for name, row in zip(labels, tables, strict=True):
            client.connection.call(
                "invoke_endpoint",
                "sagemaker-runtime",
                EndpointName=job.name,
                InferenceId=name,
                ContentType="application/json",
                Body=json.dumps({"instances": [row[1:]]}),
            )
        live = wait_for_answers(client, job.name, LIVE, len(labels))
        shadow = wait_for_answers(client, job.name, SHADOW, len(labels))
    alike = sum(live.get(name) == shadow.get(name) for name in labels)
    print(f"{len(labels)} requests; both models gave the same label to {alike}")
    for variant, answers in {LIVE: live, SHADOW: shadow}.items():
        right = sum(answers.get(name) == label for name, label in labels.items())
        print(f"{variant}: {right} right, accuracy {right / len(labels):.4f}")


@contextlib.contextmanager
def serving(client: Client, name: str, captured: Path) -> Iterator[None]:
    """An endpoint of one variant with a shadow, which captures all, deleted after the block."""
    call, variants = client.connection.call, []
    for variant, part in PARTS.items():
        model = f"{name}-{variant}"
        container = {"ModelDataUrl": f"training-job://{name}", "Environment": {"PART": part}}
        call("create_model", ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variants.append(
            {"VariantName": variant, "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "local"}
        )
    capture: dict[str, Any] = {"EnableCapture": True, "InitialSamplingPercentage": 100}
    capture |= {"DestinationS3Uri": captured.as_uri(), "CaptureOptions": [{"CaptureMode": "Output"}]}
    call(
        "create_endpoint_config",
        EndpointConfigName=name,
        ProductionVariants=variants[:1],
        ShadowProductionVariants=variants[1:],
        DataCaptureConfig=capture,
    )
    call("create_endpoint", EndpointName=name, EndpointConfigName=name)
    endpoint = client.endpoint(name)
    try:
        endpoint.wait()
        yield
    finally:
        endpoint.delete(wait=True)
        call("delete_endpoint_config", EndpointConfigName=name)
        for variant in PARTS:
            call("delete_model", ModelName=f"{name}-{variant}")


def wait_for_answers(client: Client, endpoint: str, variant: str, count: int) -> dict[str, int]:
    """The label that a variant gave to each request, by InferenceId, once all are written."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        records = client.endpoint(endpoint).captured(variant=variant)
        found = {str(it.inference_id): json.loads(it.answered.text)["labels"][0] for it in records if it.answered}
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(1)


if __name__ == "__main__":
    main()
