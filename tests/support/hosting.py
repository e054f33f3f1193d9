"""What tests do with endpoints of one or more small echoing containers, over HTTP, and traffic that they lie under."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.request import urlopen

import docker

from support.faults import eventually
from support.jobs import ROLE, fresh_name
from support.platform import Platform


@dataclass
class Hosting:
    """What a test does with endpoints."""

    sagemaker: Any
    runtime: Any
    engine: docker.DockerClient
    image: str
    made: list[str] = field(default_factory=list)

    def config(
        self, environment: dict[str, str], *, model_uri: str | None = None, image: str | None = None, **variant: Any
    ) -> str:
        """Make a model and a configuration of one variant, both of the returned name."""
        name = fresh_name("config")
        container: dict[str, Any] = {"Image": image or self.image, "Environment": environment}
        if model_uri is not None:
            container["ModelDataUrl"] = model_uri
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        chosen = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "local",
            **variant,
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[chosen])
        return name

    def split(self, shadows: dict[str, float], **weights: float) -> str:
        """Make a configuration of variants, each of which says its own name, and shadows; and a model for each."""
        made = {variant: self.config({"SAY": variant}) for variant in (*weights, *shadows)}

        def variants(of: dict[str, float]) -> list[dict[str, Any]]:
            return [
                {
                    "VariantName": variant,
                    "ModelName": made[variant],
                    "InitialInstanceCount": 1,
                    "InstanceType": "local",
                    "InitialVariantWeight": weight,
                }
                for variant, weight in of.items()
            ]

        name = fresh_name("split")
        fleets = {"ProductionVariants": variants(weights), "ShadowProductionVariants": variants(shadows)}
        given = {key: fleet for key, fleet in fleets.items() if fleet}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, **given)
        return name

    def create(self, config: str) -> str:
        name = fresh_name("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.made.append(name)
        return name

    def settle(self, name: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait until nothing is under way for the endpoint, and describe it."""
        busy = {"Creating", "Updating", "RollingBack"}
        return eventually(
            lambda: found if (found := self.describe(name))["EndpointStatus"] not in busy else None,
            f"{name} settles",
            timeout_s,
        )

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return found

    def invoke(self, name: str, body: bytes, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.runtime.invoke_endpoint(EndpointName=name, Body=body, **options)
        return {**answer, "Body": answer["Body"].read()}

    def containers(self, name: str) -> list[Any]:
        return [c for c in self.engine.containers.list(all=True, ignore_removed=True) if f"-scoring-{name}-" in c.name]


def ask(container: Any) -> bytes:
    """Have one container answer. What it was given when it became an endpoint's, the engine does not always know."""
    with urlopen(f"http://{address_of(container)}/invocations", b"x", timeout=10) as answer:
        said: bytes = answer.read()
    return said


def address_of(container: Any) -> str:
    """Where a scoring container answers."""
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return f"{network['IPAddress']}:8080"


@contextmanager
def hosting_on(platform: Platform, engine: docker.DockerClient, image: str) -> Iterator[Hosting]:
    """What a test does with a platform's endpoints. What it made is gone after the block, containers and all."""
    sagemaker, runtime = platform.client("sagemaker"), platform.client("sagemaker-runtime")
    made = Hosting(sagemaker, runtime, engine, image)
    yield made
    for name in made.made:
        sagemaker.delete_endpoint(EndpointName=name)
    for name in made.made:
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        eventually(lambda name=name: not made.containers(name), f"no container of {name} is left", 40)  # type: ignore[misc]
    sagemaker.close()
    runtime.close()


class Traffic:
    """Requests to an endpoint, one after another from each client, for as long as the block lasts."""

    def __init__(self, hosting: Hosting, name: str, client_count: int = 1, body: bytes = b"x") -> None:
        self._hosting = hosting
        self._name = name
        self._body = body
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(client_count)]
        self.failures: list[str] = []
        self.answers: list[str] = []
        self.last = b""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        """How many requests have ended, well or not."""
        return len(self.answers) + len(self.failures)

    def count_answers(self, least: int) -> Counter[str]:
        """Wait for this many more answers, and count who gave them."""
        began = len(self.answers) + 1
        eventually(lambda: len(self.answers) >= began + least, f"{least} more answers")
        return Counter(self.answers[began:])

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                self.last = self._hosting.invoke(self._name, self._body)["Body"]
                self.answers.append(self.last.decode().partition("=")[0])
            except Exception as error:
                self.failures.append(repr(error))
