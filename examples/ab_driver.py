"""Move an endpoint's traffic from one model to another while it is asked all the time, and lose no request.

    python examples/prepare_data.py digits /tmp/digits-raw --raw
    python examples/ab_driver.py /tmp/digits-raw

A small and a big classifier are two variants of one endpoint. Their weights go from 90/10 over 50/50 to 0/100.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from raymaker.platform.client import Client

SOURCE = Path(__file__).resolve().parent / "digits_graph"
ROLE = "arn:aws:iam::000000000000:role/any"
PARTS = {"small": "linear", "big": "big"}
PHASES = ({"small": 90, "big": 10}, {"small": 50, "big": 50}, {"small": 0, "big": 100})
PHASE_S = 5.0
CLIENT_COUNT = 4

Row = tuple[int, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare_data.py wrote, with --raw")
    parser.add_argument("--url", help="where the platform answers; default: as `raymaker` finds it")
    arguments = parser.parse_args()
    with Client(arguments.url) as client:
        run(client, arguments.data.resolve())


def run(client: Client, data: Path) -> None:
    """Train both models in one job, and walk through the phases."""
    job = client.train(source=SOURCE, entry_point="train.py", inputs={"train": data / "train"}, output=data / "models")
    job.wait()
    with serving(client, job.name), Load(client.connection.url, job.name, data / "test" / "test.csv") as load:
        for phase in PHASES:
            weights = [{"VariantName": name, "DesiredWeight": weight} for name, weight in phase.items()]
            client.connection.call(
                "update_endpoint_weights_and_capacities", EndpointName=job.name, DesiredWeightsAndCapacities=weights
            )
            client.endpoint(job.name).wait(progress=False)
            print(f"weights {'/'.join(map(str, phase.values()))}: {load.watch()}")
        print(f"{load.asked} requests in all, {load.failed} failed")


@contextlib.contextmanager
def serving(client: Client, name: str) -> Iterator[None]:
    """An endpoint of two variants, deleted after the block."""
    call, variants = client.connection.call, []
    for variant, part in PARTS.items():
        model = f"{name}-{variant}"
        container = {"ModelDataUrl": f"training-job://{name}", "Environment": {"PART": part}}
        call("create_model", ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variants.append({"VariantName": variant, "ModelName": model, "InitialVariantWeight": PHASES[0][variant]})
    shared = {"InitialInstanceCount": 1, "InstanceType": "local"}
    call("create_endpoint_config", EndpointConfigName=name, ProductionVariants=[it | shared for it in variants])
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


class Load:
    """Asks for one digit after the other, from several threads, for as long as the block lasts."""

    def __init__(self, url: str, endpoint: str, test_data: Path) -> None:
        self.asked = self.failed = 0
        self._address, self._path = urlsplit(url).netloc, f"/endpoints/{endpoint}/invocations"
        tables = [[float(field) for field in line.split(",")] for line in test_data.read_text().splitlines()]
        self._rows = [(int(label), pixels) for label, *pixels in tables]
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(CLIENT_COUNT)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def watch(self) -> str:
        """Say who answers during the next seconds, and how well."""
        with self._lock:
            self._counts.clear()
        time.sleep(PHASE_S)
        with self._lock:
            counts = Counter(self._counts)
        said = []
        for variant in PARTS:
            right, wrong = counts[variant, True], counts[variant, False]
            if right + wrong:
                said.append(f"{variant} answered {right + wrong}, {right / (right + wrong):.3f} right")
        return "; ".join(said)

    def _ask_on(self, number: int) -> None:
        rows = itertools.cycle(self._rows[number::CLIENT_COUNT])
        with contextlib.closing(http.client.HTTPConnection(self._address)) as connection:
            while not self._ended.is_set():
                self._ask(connection, next(rows))

    def _ask(self, connection: http.client.HTTPConnection, row: Row) -> None:
        label, pixels = row
        body = json.dumps({"instances": [pixels]})
        connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said, variant = response.read(), response.headers.get("x-Amzn-Invoked-Production-Variant", "")
        is_answer = response.status == http.HTTPStatus.OK
        with self._lock:
            self.asked += 1
            self.failed += not is_answer
            if is_answer:
                self._counts[variant, json.loads(said)["labels"] == [label]] += 1


if __name__ == "__main__":
    main()
