"""Serve a graph of five containers on real data, on one machine and apart, and show its drawing, answers and a trace.

    python examples/prepare_data.py digits /tmp/digits-raw --raw
    python examples/graph_driver.py /tmp/digits-raw

A digit is scaled, and two small classifiers vote on it. Where they agree and one is sure, that is the answer; else a
bigger model, which costs more, is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raymaker.platform.client import Client

SOURCE = Path(__file__).resolve().parent / "digits_graph"
ROLE = "arn:aws:iam::000000000000:role/any"
PARTS = ("scaler", "linear", "centroid", "agreed", "big")
TRACE = "x-raymaker-graph-trace"
SURE = (
    "request.votes.linear.labels[0] == request.votes.centroid.labels[0] && request.votes.linear.confidences[0] > `0.8`"
)
NODES = {
    "root": {
        "RouterType": "Sequence",
        "Steps": [
            {"StepName": "scale", "ContainerHostname": "scaler"},
            {"StepName": "vote", "NodeName": "both", "Data": "$response"},
            {"StepName": "decide", "NodeName": "decide", "Data": "{votes: response, instances: request.instances}"},
        ],
    },
    "both": {
        "RouterType": "Ensemble",
        "Steps": [{"StepName": name, "ContainerHostname": name} for name in ("linear", "centroid")],
    },
    "decide": {
        "RouterType": "Switch",
        "Steps": [
            {"StepName": "sure", "ContainerHostname": "agreed", "Condition": SURE, "Data": "request.votes"},
            {"StepName": "unsure", "ContainerHostname": "big", "Data": "{instances: request.instances}"},
        ],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote, with --raw")
    parser.add_argument("--url", help="where the platform answers; default: as `raymaker` finds it")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        run(client, arguments.data.resolve())


def run(client: Client, data: Path) -> None:
    """Train all parts in one job, and serve them in both placements: the answers are the same."""
    job = client.train(source=SOURCE, entry_point="train.py", inputs={"train": data / "train"}, output=data / "models")
    job.wait()
    rows = read_rows(data / "test" / "test.csv")
    answers = {}
    for placement in ("Colocated", "Distributed"):
        with serving(client, job.name, placement) as (name, drawing):
            if placement == "Colocated":
                print(drawing)
            answers[placement] = ask_all(client.connection.url, name, rows)
            report(placement, rows, answers[placement])
    print(f"the same answers in both placements: {answers['Colocated'] == answers['Distributed']}")


@contextlib.contextmanager
def serving(client: Client, job: str, placement: str) -> Iterator[tuple[str, str]]:
    """An endpoint of the graph, deleted after the block. Gives its name and the graph's drawing in Mermaid."""
    name, call = f"{job}-{placement.lower()}", client.connection.call
    containers = [
        {"ContainerHostname": part, "ModelDataUrl": f"training-job://{job}", "Environment": {"PART": part}}
        for part in PARTS
    ]
    graph = {"Nodes": NODES, "Placement": placement}
    call("create_model", ModelName=name, ExecutionRoleArn=ROLE, Containers=containers, InferenceGraph=graph)
    variant = {"VariantName": "all", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "local"}
    call("create_endpoint_config", EndpointConfigName=name, ProductionVariants=[variant])
    call("create_endpoint", EndpointName=name, EndpointConfigName=name)
    endpoint = client.endpoint(name)
    try:
        endpoint.wait()
        yield name, call("describe_model", ModelName=name)["InferenceGraphDrawing"]["Mermaid"]
    finally:
        endpoint.delete(wait=True)
        call("delete_endpoint_config", EndpointConfigName=name)
        call("delete_model", ModelName=name)


def ask_all(url: str, endpoint: str, rows: list[tuple[int, list[float]]]) -> list[dict[str, Any]]:
    """Ask for one digit at a time, each with its trace."""
    answers = []
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:
        for _, pixels in rows:
            body = json.dumps({"instances": [pixels]})
            headers = {"Content-Type": "application/json", TRACE: "1"}
            connection.request("POST", f"/endpoints/{endpoint}/invocations", body, headers)
            response = connection.getresponse()
            said = response.read()
            if response.status != http.HTTPStatus.OK:
                raise SystemExit(f"{endpoint} answered {response.status}: {said.decode()}")
            answers.append(json.loads(said))
            last_trace = json.loads(response.headers[TRACE])
    print(f"\n{endpoint}: the last answer took {last_trace['total_ms']:.1f} ms in the graph")
    for step in last_trace["steps"]:
        took = f"{step['duration_ms']:6.2f} ms" if "duration_ms" in step else "        -"
        print(f"  {took}  {step['step']:<20} {step['state']}")
    return answers


def report(placement: str, rows: list[tuple[int, list[float]]], answers: list[dict[str, Any]]) -> None:
    """Say how often the graph was right, and who answered."""
    right = sum(answer["labels"] == [label] for answer, (label, _) in zip(answers, rows, strict=True))
    by = Counter(answer["by"] for answer in answers)
    print(f"{placement}: {right} of {len(rows)} held-out rows right, accuracy {right / len(rows):.4f}")
    print(f"{placement}: {by['agreed']} answered by the two small models, {by['big']} by the big one")


def read_rows(path: Path) -> list[tuple[int, list[float]]]:
    """Labels and pixels of held-out digits."""
    tables = [[float(field) for field in line.split(",")] for line in path.read_text().splitlines()]
    return [(int(label), pixels) for label, *pixels in tables]


if __name__ == "__main__":
    main()
