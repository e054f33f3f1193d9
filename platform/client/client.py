"""The Python client: train, deploy and score in a few lines, with handles for jobs and endpoints.

    client = Client()
    job = client.train(source="code", entry_point="train.py", inputs={"train": "data.csv"}).wait()
    print(job.deploy().invoke("5.1,3.5,1.4,0.2").text)

A layer of convenience over the SageMaker operations that boto3 speaks too; it knows nothing that they do not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.endpoint import Endpoint
from raymaker.platform.client.errors import RaymakerError, WrongArgument
from raymaker.platform.client.hosting_parts import ROLE, HostingParts
from raymaker.platform.client.job import TrainingJob
from raymaker.platform.client.names import given, made_up_name, name_of_image, to_texts, to_uri
from raymaker.platform.client.polling import Clock
from raymaker.platform.client.settings import read_settings
from raymaker.platform.client.training_request import (
    make_algorithm,
    make_channels,
    make_checkpoints,
    make_resources,
)

DEFAULT_MAX_RUNTIME_S = 86_400


class Client:
    """Speaks to one platform. Needs no credentials for a platform on this machine. Threads may share it.

    `endpoint_url` None is `RAYMAKER_ENDPOINT_URL`, else where `raymaker up` of this machine answers.
    """

    def __init__(self, endpoint_url: str | None = None, region: str | None = None, clock: Clock | None = None) -> None:
        self.connection = Connection(endpoint_url, region)
        self.clock = clock or Clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the platform."""
        self.connection.close()

    def train(
        self,
        *,
        source: str | Path | None = None,
        entry_point: str | None = None,
        image: str | None = None,
        base_image: str | None = None,
        inputs: Mapping[str, str | Path] | None = None,
        output: str | Path | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        instance_type: str = "local",
        instance_count: int | None = None,
        min_instance_count: int | None = None,
        max_instance_count: int | None = None,
        containers_per_instance: int = 1,
        placement: str | None = None,
        keep_alive_s: int | None = None,
        shard: Mapping[str, str] | None = None,
        stream: Mapping[str, str] | None = None,
        checkpoints: str | Path | None = None,
        checkpoint_path: str | None = None,
        name: str | None = None,
        max_runtime_s: int = DEFAULT_MAX_RUNTIME_S,
        metrics: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        algorithms: Sequence[Mapping[str, Any]] = (),
        select_by: str | None = None,
        network: bool = False,
        wait: bool = False,
    ) -> TrainingJob:
        """Train source code (a folder or archive with an entry point) or an image, on named inputs.

        Places are URIs or local paths; `output` None is a folder of the platform's home. `metrics` maps names to
        regular expressions whose first group is a number in a log line. `network` lets the containers out.

        Containers train together on `instance_count` instances (1), or with a min or max on as many as there are, which
        `placement` packs or spreads. `shard` maps inputs of which each container gets a part to "object" or "record",
        `stream` those that come while it trains to "pipe", "arrow" or "fastfile" (docs/streaming.md). `checkpoints` is
        where `checkpoint_path` (/opt/ml/checkpoints) is kept. `evaluation` is an EvaluationConfig: how each of them,
        and the model, is judged while the job trains. After it its machine is kept for a job that matches, for
        `keep_alive_s` (docs/warm-pools.md).

        `algorithms` (as AlgorithmSpecification.Algorithms) train side by side, each in a job of its own; the job has
        the model that is best by the metric `select_by` of its evaluation.

        Raises WrongArgument before anything is sent, RequestRefused, and with `wait` JobFailed.
        """
        algorithm = make_algorithm(source, entry_point, image, base_image, algorithms=algorithms, select_by=select_by)
        definitions = [{"Name": metric, "Regex": regex} for metric, regex in (metrics or {}).items()]
        made_up = made_up_name(Path(entry_point).stem if entry_point else name_of_image(image or "compared"))
        job = TrainingJob(name or made_up, self.connection, self.clock)
        self.connection.call(
            "create_training_job",
            TrainingJobName=job.name,
            RoleArn=ROLE,
            AlgorithmSpecification={**algorithm, **given(MetricDefinitions=definitions or None)},
            **given(
                InputDataConfig=make_channels(inputs or {}, shard or {}, stream or {}) or None,
                CheckpointConfig=make_checkpoints(checkpoints, checkpoint_path),
                EvaluationConfig=dict(evaluation) if evaluation is not None else None,
            ),
            OutputDataConfig={"S3OutputPath": self._output_uri(output)},
            HyperParameters=to_texts(hyperparameters or {}),
            Environment=dict(environment or {}),
            ResourceConfig=make_resources(
                instance_type,
                count=instance_count,
                least_count=min_instance_count,
                most_count=max_instance_count,
                containers=containers_per_instance,
                placement=placement,
                keep_alive_s=keep_alive_s,
            ),
            StoppingCondition={"MaxRuntimeInSeconds": max_runtime_s},
            EnableNetworkIsolation=not network,
        )
        return job.wait() if wait else job

    def job(self, name: str) -> TrainingJob:
        """Return a handle to a training job. Asks the platform nothing."""
        return TrainingJob(name, self.connection, self.clock)

    def jobs(
        self, *, status: str | None = None, name_contains: str | None = None, waiting: bool = False
    ) -> Iterator[Answer]:
        """Yield the summaries of training jobs, newest first; with `waiting` only of those in line, as they are in it.

        There is one line for each account.
        """
        asked = given(StatusEquals="InProgress" if waiting else status, NameContains=name_contains)
        order = "Ascending" if waiting else "Descending"
        found = self.connection.items(
            "list_training_jobs", "TrainingJobSummaries", SortBy="CreationTime", SortOrder=order, **asked
        )
        return (job for job in found if not waiting or job.get("SecondaryStatus") == "Pending")

    def deploy(
        self,
        model: TrainingJob | str | Path | None = None,
        *,
        image: str | None = None,
        name: str | None = None,
        checkpoint: str | None = None,
        instance_type: str | None = None,
        instance_count: int = 1,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Endpoint:
        """Serve a training job (by handle or name), or with `image` a model archive by URI or path, behind an endpoint.

        With an image and no model, the model lies in the image; `checkpoint` is one of the job's, by name, or `latest`.
        Raises EndpointFailed when waiting for it.
        """
        if image is None:
            job = model if isinstance(model, TrainingJob) else self.job(_job_name(model))
            return job.deploy(
                name,
                checkpoint=checkpoint,
                instance_type=instance_type,
                instance_count=instance_count,
                environment=environment,
                wait=wait,
            )
        if checkpoint is not None:
            raise WrongArgument("checkpoint goes with a training job, whose image serves it: leave image out")
        if isinstance(model, TrainingJob):
            model = model.model_uri
        container = given(
            Image=image,
            ModelDataUrl=None if model is None else to_uri("model", model),
            Environment=dict(environment or {}),
        )
        variant = {"InstanceType": instance_type or "local", "InitialInstanceCount": instance_count}
        endpoint = self.endpoint(name or made_up_name(name_of_image(image)))
        parts = HostingParts(self.connection, endpoint.name)
        config = parts.make(container, variant)
        try:
            self.connection.call("create_endpoint", EndpointName=endpoint.name, EndpointConfigName=config)
        except RaymakerError:
            parts.remove(config)
            raise
        return endpoint.wait() if wait else endpoint

    def endpoint(self, name: str) -> Endpoint:
        """Return a handle to an endpoint. Asks the platform nothing."""
        return Endpoint(name, self.connection, self.clock)

    def machines(self) -> Answer:
        """Return the machines that run jobs of one instance and those that wait, as ListMachines tells of them."""
        return self.connection.call("list_machines")

    def endpoints(self, *, status: str | None = None, name_contains: str | None = None) -> Iterator[Answer]:
        """Yield the summaries of endpoints, newest first."""
        asked = given(StatusEquals=status, NameContains=name_contains)
        return self.connection.items(
            "list_endpoints", "Endpoints", SortBy="CreationTime", SortOrder="Descending", **asked
        )

    def _output_uri(self, output: str | Path | None) -> str:
        """Where models go; the home folder is this machine's, so a platform elsewhere must be told."""
        if output is not None:
            return to_uri("output", output, must_exist=False)
        if not self.connection.is_local:
            raise WrongArgument(f"output is not given, and {self.connection.url} is another machine: give a URI")
        return (read_settings().home_path / "models").as_uri()


def _job_name(model: str | Path | None) -> str:
    if model is None or "://" in str(model) or isinstance(model, Path):
        raise WrongArgument(f"model is {model}: give a training job, or the image that serves the model too")
    return model
