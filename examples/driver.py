"""Train plain source code, deploy the model, score held-out rows, delete the endpoint: all with raymaker's own client.

python examples/prepare_data.py breast-cancer /tmp/breast-cancer
python examples/driver.py /tmp/breast-cancer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from raymaker.platform.client import Client

SOURCE = Path(__file__).resolve().parent / "breast_cancer_source"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote")
    parser.add_argument(
        "--url", help="where the platform answers; default: RAYMAKER_ENDPOINT_URL, or as the settings say"
    )
    parser.add_argument("--base-image", help="image with python3 to run the source in; default: the platform's")
    arguments = parser.parse_args()

    with Client(arguments.url) as client:
        run(client, arguments.data.resolve(), arguments.base_image)


def run(client: Client, data: Path, base_image: str | None) -> None:
    """One job, one endpoint, one request with all held-out rows."""
    job = client.train(
        source=SOURCE,
        entry_point="train.py",
        base_image=base_image,
        inputs={"train": data / "train"},
        output=data / "models",
        hyperparameters={"epochs": 40},
        metrics={"loss": r"loss=([0-9.]+)", "accuracy": r"accuracy=([0-9.]+)"},
    )
    job.wait()
    print(f"{job.name} ended; its last accuracy on the training rows was {job.metrics()['accuracy'][-1]}")
    print(f"its model is unpacked in {job.download_model(data / f'model-of-{job.name}')}")

    endpoint = job.deploy()
    try:
        labels, rows = read_rows(data / "test" / "test.csv")
        answers = endpoint.invoke("\n".join(rows), content_type="text/csv").text.split()
        right = sum((float(answer) > 0.5) == (label == 1.0) for answer, label in zip(answers, labels, strict=True))
        print(f"{endpoint.name}: {right} of {len(labels)} held-out rows right, accuracy {right / len(labels):.4f}")
    finally:
        endpoint.delete(wait=True)


def read_rows(path: Path) -> tuple[list[float], list[str]]:
    """The labels, which stand first in each line, and what is left of the lines."""
    pairs = [line.split(",", 1) for line in path.read_text().splitlines()]
    return [float(label) for label, _ in pairs], [row for _, row in pairs]


if __name__ == "__main__":
    main()
