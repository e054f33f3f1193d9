"""Two algorithms on the same data and machine: watch both get better, compare them metric by metric, serve the better.

python examples/prepare_data.py --raw digits /tmp/digits
docker build -t digits examples/digits_image; docker build -t nearest examples/nearest_image
python examples/compare_driver.py /tmp/digits digits nearest
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from raymaker.platform.client import Client, TrainingJob

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
    """One job for each image, an evaluation of each model, one endpoint."""
    jobs = [start(client, data, image) for image in images]
    found = [evaluation_of(job.wait()) for job in jobs]
    print(f"{'metric':<14}" + "".join(f"{image.partition(':')[0]:>24}" for image in images))
    for metric in COMPARED:
        print(f"{metric:<14}" + "".join(f"{each['Metrics'][metric]:>24.4f}" for each in found))
    sign = -1 if by == "log_loss" else 1
    better = max(range(len(jobs)), key=lambda at: sign * found[at]["Metrics"][by])
    print(f"{images[better]} is better by {by}; of the records that it got wrong, it is surest of these:")
    for record in jobs[better].evaluation_records(only_wrong=True, count=3):
        print(f"  record {record['RecordNumber']}: known {record['Label']}, said {record['Output']}")

    endpoint = jobs[better].deploy()
    try:
        lines = (data / "test" / "test.csv").read_text().splitlines()
        labels, rows = zip(*(line.split(",", 1) for line in lines), strict=True)
        answers = endpoint.invoke("\n".join(rows), content_type="text/csv").text.split()
        right = sum(float(answer) == float(label) for answer, label in zip(answers, labels, strict=True))
        print(f"{endpoint.name}: {right} of {len(labels)} held-out rows right, accuracy {right / len(labels):.4f}")
    finally:
        endpoint.delete(wait=True)


def start(client: Client, data: Path, image: str) -> TrainingJob:
    """Train an image, and have its checkpoints and its model judged on rows that training does not see."""
    held_out = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": (data / "test").as_uri()}}
    return client.train(
        image=image,
        inputs={"train": data / "train"},
        output=data / "models",
        evaluation={
            "DataSource": held_out,
            "ContentType": "text/csv",
            "LabelAttribute": "0",
            "ProblemType": "MulticlassClassification",
            "Environment": {"ANSWER_WITH": "probabilities"},
        },
    )


def evaluation_of(job: TrainingJob) -> Any:
    """The evaluation of the job's model: the last, which the platform begins when the job ends."""
    return job.wait_for_evaluation(job.evaluations()[-1]["EvaluationNumber"])


if __name__ == "__main__":
    main()
