"""Serve a thousand models behind one container, which holds a hundred of them at a time.

    python examples/prepare_data.py digits /tmp/digits
    docker build -t many-models examples/many_models_image
    python examples/many_models_driver.py --image many-models /tmp/digits

Each model tells one digit from the others, and has seen a sample of its own of the training rows; ten of them tell
which digit it is. A model is fetched when it is first asked for, and makes room for others when nobody asks any more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raymaker.platform.client import Client
from raymaker.platform.client.endpoint import Endpoint

ROLE = "arn:aws:iam::000000000000:role/any"
DIGITS = 10
SAMPLES = 100
"""How many models there are for each digit."""
ASKED_COUNT = 30

Array = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote")
    parser.add_argument("--image", required=True, help="made of many_models_image")
    parser.add_argument("--url", help="where the platform answers; default: as `raymaker` finds it")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    count = write_models(data)
    with Client(arguments.url) as client, serving(client, arguments.image, data / "many-models") as endpoint:
        print(f"{count} models behind one container")
        ask(endpoint, data)


def write_models(data: Path) -> int:
    """Fit all models by least squares, and write an archive for each. Returns how many there are."""
    table = np.loadtxt(data / "train" / "train.csv", delimiter=",")
    labels, rows = table[:, 0], np.column_stack([table[:, 1:], np.ones(len(table))])
    for sample in range(SAMPLES):
        chosen = np.random.default_rng(sample).integers(len(rows), size=len(rows))
        wanted = (labels[chosen, None] == np.arange(DIGITS)).astype(float)
        weights = np.linalg.lstsq(rows[chosen], wanted, rcond=None)[0]
        for digit in range(DIGITS):
            write_archive(data / "many-models" / archive_name(digit, sample), weights[:, digit])
    return DIGITS * SAMPLES


def write_archive(path: Path, weights: Array) -> None:
    """Write one model as the platform takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, weights)
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("weights.npy")
        member.size = content.tell()
        content.seek(0)
        archive.addfile(member, content)


def archive_name(digit: int, sample: int) -> str:
    """What an invocation calls a model."""
    return f"digit-{digit}/sample-{sample:02d}.tar.gz"


@contextlib.contextmanager
def serving(client: Client, image: str, models: Path) -> Iterator[Endpoint]:
    """An endpoint of all models in a folder, deleted after the block."""
    name, call = f"many-models-{int(time.time())}", client.connection.call
    container = {"Image": image, "Mode": "MultiModel", "ModelDataUrl": models.as_uri() + "/"}
    call("create_model", ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "all", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "local"}
    call("create_endpoint_config", EndpointConfigName=name, ProductionVariants=[variant])
    call("create_endpoint", EndpointName=name, EndpointConfigName=name)
    endpoint = client.endpoint(name)
    try:
        yield endpoint.wait()
    finally:
        endpoint.delete(wait=True)
        call("delete_endpoint_config", EndpointConfigName=name)
        call("delete_model", ModelName=name)


def ask(endpoint: Endpoint, data: Path) -> None:
    """Have samples vote on the held-out rows, each twice: once its models are fetched, and once they are there."""
    table = np.loadtxt(data / "test" / "test.csv", delimiter=",")
    labels, body = table[:, 0], "\n".join(",".join(f"{field:g}" for field in row) for row in table[:, 1:])
    first_s, again_s, right = [], [], 0
    for sample in np.random.default_rng(0).choice(SAMPLES, ASKED_COUNT, replace=False).tolist():
        for taken_s in (first_s, again_s):
            began = time.perf_counter()
            scores = [score(endpoint, body, archive_name(digit, sample)) for digit in range(DIGITS)]
            taken_s.append((time.perf_counter() - began) / DIGITS)
        right += int((np.argmax(scores, axis=0) == labels).sum())
    accuracy = right / ASKED_COUNT / len(labels)
    print(f"{ASKED_COUNT * DIGITS} of them were asked, twice each: accuracy {accuracy:.4f}")
    print(f"the first answer took {median_ms(first_s):.1f} ms, the next one {median_ms(again_s):.1f} ms")


def score(endpoint: Endpoint, body: str, model: str) -> Array:
    """One model's score for every row."""
    return np.array(endpoint.invoke(body, content_type="text/csv", target_model=model).text.split(), float)


def median_ms(taken_s: list[float]) -> float:
    """The median, in milliseconds."""
    return 1000 * sorted(taken_s)[len(taken_s) // 2]


if __name__ == "__main__":
    main()
