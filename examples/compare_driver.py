"""Two algorithms on the same data and machine: train both, compare them metric by metric, serve the better.

python examples/prepare_data.py --raw digits /tmp/digits
docker build -t digits examples/digits_image; docker build -t nearest examples/nearest_image
python examples/compare_driver.py /tmp/digits digits nearest
"""

from __future__ import annotations

import argparse
from pathlib import Path

from raymaker.platform.client import Client

COMPARED = ("accuracy", "log_loss", "f1", "latency_p50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote")
    parser.add_argument("images", nargs=2, help="two images that train on the same rows")
    parser.add_argument("--by", default="accuracy", choices=COMPARED[:3], help="the metric that decides")
    parser.add_argument("--url", help="where the platform answers; default: as the settings say")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        run(client, arguments.data.resolve(), arguments.images, arguments.by)


def run(client: Client, data: Path, images: list[str], by: str) -> None:
    """One job, in which both images train side by side, and one endpoint."""
    held_out = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": (data / "test").as_uri()}}
    job = client.train(
        algorithms=[{"Name": name, "TrainingImage": image} for name, image in zip("ab", images, strict=True)],
        select_by=by,
        inputs={"train": data / "train"},
        output=data / "models",
        # Both models are judged on rows that training does not see.
        evaluation={
            "DataSource": held_out,
            "ContentType": "text/csv",
            "LabelAttribute": "0",
            "ProblemType": "MulticlassClassification",
            "Environment": {"ANSWER_WITH": "probabilities"},
        },
    )
    ended = job.wait().describe()
    candidates = ended["AlgorithmTrainingJobs"]
    print(f"{'metric':<14}" + "".join(f"{image.partition(':')[0]:>24}" for image in images))
    for metric in COMPARED:
        print(f"{metric:<14}" + "".join(f"{each['Metrics'][metric]:>24.4f}" for each in candidates))
    print(f"{job.name}: {ended['SecondaryStatusTransitions'][-1]['StatusMessage']}")
    better = next(
        each["TrainingJobName"]
        for each in candidates
        if each["AlgorithmName"] == ended["AlgorithmSpecification"]["SelectedAlgorithm"]
    )
    print(f"of the records that {better} got wrong, it is surest of these:")
    for record in client.job(better).evaluation_records(only_wrong=True, count=3):
        print(f"  record {record['RecordNumber']}: known {record['Label']}, said {record['Output']}")

    endpoint = job.deploy()
    try:
        lines = (data / "test" / "test.csv").read_text().splitlines()
        labels, rows = zip(*(line.split(",", 1) for line in lines), strict=True)
        answers = endpoint.invoke("\n".join(rows), content_type="text/csv").text.split()
        right = sum(float(answer) == float(label) for answer, label in zip(answers, labels, strict=True))
        print(f"{endpoint.name}: {right} of {len(labels)} held-out rows right, accuracy {right / len(labels):.4f}")
    finally:
        endpoint.delete(wait=True)


if __name__ == "__main__":
    main()
