"""A training job as its user holds it: wait for it, read its log and numbers, fetch its model, deploy it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymaker.platform.client.connection import Answer, Connection
from raymaker.platform.client.endpoint import Endpoint
from raymaker.platform.client.errors import EvaluationFailed, JobFailed, RaymakerError, RequestRefused, UpdateFailed
from raymaker.platform.client.events import follow
from raymaker.platform.client.logs import TRAINING_GROUP, LogEvent, LogReader
from raymaker.platform.client.names import given, to_texts
from raymaker.platform.client.polling import Clock, look_until
from raymaker.platform.client.progress import progress_display
from raymaker.platform.client.settings import read_settings
from raymaker.platform.client.training_request import make_algorithm

if TYPE_CHECKING:
    from raymaker.actors.storage import ObjectStore

ENDED = {"Completed", "Failed", "Stopped"}
LAST_LINES_COUNT = 20


@dataclass(frozen=True)
class Metric:
    """One number that a job said. `step` is its own count, `rank` the container's; None where they are not known."""

    name: str
    value: float
    time: dt.datetime
    step: int | None = None
    rank: int | None = None
    source: str = "Log"
    """Log, Exchange, Resources (what its containers use) or Evaluation."""


@dataclass(frozen=True)
class MetricPeriod:
    """What was said of one metric within one period, which begins at `time`: `count` numbers, NaN included."""

    name: str
    time: dt.datetime
    mean: float
    least: float
    most: float
    count: int


@dataclass(frozen=True)
class TrainingJob:
    """A job on the platform, known by its name. Making a handle asks nothing and changes nothing."""

    name: str
    connection: Connection = field(repr=False)
    clock: Clock = field(default_factory=Clock, repr=False)

    def describe(self) -> Answer:
        """Return DescribeTrainingJob's answer. Raises RequestRefused where there is no such job."""
        return self.connection.call("describe_training_job", TrainingJobName=self.name)

    @property
    def status(self) -> str:
        """InProgress, Completed, Failed, Stopping or Stopped."""
        return str(self.describe()["TrainingJobStatus"])

    def wait(self, timeout_s: float | None = None, *, progress: bool = True) -> TrainingJob:
        """Wait until the job has ended, completed or stopped. Raises JobFailed with its last lines, WaitTimeout."""
        with progress_display(self.name, shown=progress) as show:

            def look() -> Answer:
                seen = self.describe()
                show(seen["SecondaryStatus"], _message(seen))
                return seen

            last = look_until(
                look,
                lambda seen: seen["TrainingJobStatus"] in ENDED,
                what=f"training job {self.name} has not ended",
                timeout_s=timeout_s,
                clock=self.clock,
            )
        if last["TrainingJobStatus"] == "Failed":
            reason = last.get("FailureReason", "no reason given")
            raise JobFailed(self.name, reason, self._last_lines(reason))
        return self

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the job's log; with `follow`, go on until the job has ended.

        Where the job has several containers each line begins with the one that said it: `algo-2 | epoch 1`.
        """
        several = self._has_several_containers()
        for event in self.log_events(follow=follow):
            yield f"{event.host} | {event.text}" if several else event.text

    def log_events(self, *, follow: bool = False) -> Iterator[LogEvent]:
        """Yield the lines with their times and streams."""
        reader = self._log_reader()
        return reader.follow(lambda: self.status in ENDED, self.clock) if follow else reader.read_new()

    def metrics(self) -> dict[str, list[float]]:
        """Return every metric's values by its name, oldest first."""
        columns: dict[str, list[float]] = {}
        for metric in self.metric_points():
            columns.setdefault(metric.name, []).append(metric.value)
        return columns

    def metric_points(self, name: str | None = None, source: str | None = None) -> Iterator[Metric]:
        """Yield what was said of one metric, or of all, from one source or all, oldest first, with the times."""
        asked = given(MetricName=name, Source=source)
        for item in self.connection.items("get_training_metrics", "Metrics", TrainingJobName=self.name, **asked):
            yield Metric(
                name=item["MetricName"],
                value=float(item["Value"]),  # a loss that explodes arrives as text, since JSON has no NaN
                time=item["Timestamp"],
                step=item.get("Step"),
                rank=item.get("Rank"),
                source=item["Source"],
            )

    def metric_periods(
        self,
        name: str | None = None,
        *,
        source: str | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        period_s: float | None = None,
        max_points: int = 200,
    ) -> list[MetricPeriod]:
        """Return what was said of one metric, or of all, summed up on the server, oldest first.

        Periods are `period_s` seconds long, else so long that no metric has more than `max_points`.
        """
        length = {"MaxPoints": max_points} if period_s is None else {"PeriodInSeconds": period_s}
        asked = given(MetricName=name, Source=source, StartTime=since, EndTime=until, **length)
        answer = self.connection.call("get_training_metrics", TrainingJobName=self.name, **asked)
        return [
            MetricPeriod(
                name=item["MetricName"],
                time=item["Timestamp"],
                mean=float(item["Value"]),
                least=float(item["Minimum"]),
                most=float(item["Maximum"]),
                count=item["SampleCount"],
            )
            for item in answer["Metrics"]
        ]

    def events(self) -> list[Answer]:
        """Return what happened to the job, oldest first."""
        return list(self.connection.items("list_events", "Events", TrainingJobName=self.name))

    def follow_events(self) -> Iterator[Answer]:
        """Yield what happened to the job, and what happens until it has ended."""
        return follow(self.events, lambda: self.status in ENDED, self.clock)

    @property
    def model_uri(self) -> str:
        """Where the job's model lies. Raises RaymakerError where there is none (yet)."""
        seen = self.describe()
        status, uri = seen["TrainingJobStatus"], seen.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        if status in ENDED and uri:
            return str(uri)
        raise RaymakerError(
            f"training job {self.name} is {status} and has no model. "
            "A model is stored when a job completes or is stopped; call wait() first."
        )

    def download_model(self, folder: str | Path) -> Path:
        """Unpack the job's model into a folder that is missing or empty, and return the folder."""
        from raymaker.actors import artifacts, errors

        target = Path(folder).expanduser().absolute()
        try:
            artifacts.unpack(open_store(), self.model_uri, target)
        except errors.WorkError as error:
            raise RaymakerError(f"the model of training job {self.name} could not be fetched: {error}") from error
        return target

    def update(
        self,
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        source: str | Path | None = None,
        entry_point: str | None = None,
        image: str | None = None,
        base_image: str | None = None,
        instance_type: str | None = None,
        instance_count: int | None = None,
        keep_alive_s: int | None = None,
        restart: bool = False,
        hear_timeout_s: int | None = None,
        delete_model_data: bool = False,
        wait: bool = True,
    ) -> Answer:
        """Change the job while it trains, and return the change as DescribeTrainingJob tells of it.

        Hyperparameters that are not named stay. Containers that do not listen for changes have the change fail, or with
        `restart` are replaced, as they are for another image; another instance type or count starts the job again from
        its last checkpoint. They have `hear_timeout_s` (60) to hear of it. `entry_point` None is the job's. After its
        end `keep_alive_s` alone may change. Raises WrongArgument, RequestRefused, and when waiting UpdateFailed.
        """
        if entry_point is None and source is not None:
            entry_point = self.describe()["AlgorithmSpecification"].get("AlgorithmSource", {}).get("EntryPoint")
        algorithm = make_algorithm(source, entry_point, image, base_image) if source or image else {}
        algorithm.pop("TrainingInputMode", None)
        kept = given(KeepAlivePeriodInSeconds=keep_alive_s)
        resources = given(InstanceType=instance_type, InstanceCount=instance_count) | kept
        answer = self.connection.call(
            "update_training_job",
            TrainingJobName=self.name,
            **algorithm,
            **given(
                HyperParameters=to_texts(hyperparameters or {}) or None,
                ResourceConfig=resources or None,
                IfNotHeard="Restart" if restart else None,
                HearTimeoutInSeconds=hear_timeout_s,
                DeleteModelData=delete_model_data or None,
            ),
        )
        return self.wait_for_update(answer["Revision"]) if wait else self._update(answer["Revision"])

    def updates(self) -> list[Answer]:
        """Return the job's last changes, oldest first."""
        found: list[Answer] = self.describe().get("Updates", [])
        return found

    def wait_for_update(self, revision: int, timeout_s: float | None = None) -> Answer:
        """Wait until a change is in force. Raises UpdateFailed, WaitTimeout."""
        update = look_until(
            lambda: self._update(revision),
            lambda seen: seen["Status"] in {"Applied", "Failed"},
            what=f"revision {revision} of training job {self.name} is not in force",
            timeout_s=timeout_s,
            clock=self.clock,
        )
        if update["Status"] == "Failed":
            raise UpdateFailed(self.name, revision, update.get("FailureReason", "no reason given"))
        return update

    def stop(self, *, wait: bool = False, delete_model_data: bool = False) -> None:
        """Stop the job; what it has made so far is kept as its model, unless that is to be deleted.

        Stopping an ended job is refused.
        """
        unwanted = given(DeleteModelData=delete_model_data or None)
        self.connection.call("stop_training_job", TrainingJobName=self.name, **unwanted)
        if wait:
            self.wait(progress=False)

    def delete(self) -> None:
        """Delete the record of an ended job. Its model stays where it was stored."""
        self.connection.call("delete_training_job", TrainingJobName=self.name)

    def checkpoints(self) -> list[Answer]:
        """Return the checkpoints that are whole, newest first, as ListCheckpoints tells of them."""
        found: list[Answer] = self.connection.call("list_checkpoints", TrainingJobName=self.name)["Checkpoints"]
        return found

    def evaluate(self, checkpoint: str | None = None, config: Mapping[str, Any] | None = None) -> int:
        """Have a checkpoint (a name, or `latest`) or the model evaluated; returns the evaluation's number.

        `config` is an EvaluationConfig; the job's own where it is None.
        """
        asked = given(CheckpointName=checkpoint, EvaluationConfig=dict(config) if config is not None else None)
        return int(self.connection.call("start_evaluation", TrainingJobName=self.name, **asked)["EvaluationNumber"])

    def evaluations(self, *, status: str | None = None) -> list[Answer]:
        """Return the evaluations of the job's checkpoints and model, in the order in which they were made."""
        asked = given(StatusEquals=status)
        return list(self.connection.items("list_evaluations", "Evaluations", TrainingJobName=self.name, **asked))

    def wait_for_evaluation(self, number: int, timeout_s: float | None = None) -> Answer:
        """Wait until an evaluation has ended, and return it. Raises EvaluationFailed, WaitTimeout."""
        found = look_until(
            lambda: next(each for each in self.evaluations() if each["EvaluationNumber"] == number),
            lambda seen: seen["EvaluationStatus"] in ENDED,
            what=f"evaluation {number} of {self.name} has not ended",
            timeout_s=timeout_s,
            clock=self.clock,
        )
        if found["EvaluationStatus"] != "Completed":
            raise EvaluationFailed(f"{number} of {self.name}", found.get("FailureReason", "it was stopped"))
        return found

    def evaluation_records(
        self,
        number: int | None = None,
        *,
        order: str = "Worst",
        count: int = 10,
        label: str | None = None,
        output: str | None = None,
        only_wrong: bool = False,
        least_difference: float | None = None,
        most_difference: float | None = None,
    ) -> list[Answer]:
        """Return results of single records, of the latest evaluation where no number is given.

        `order` is Worst, Best or Record.
        """
        asked = given(
            EvaluationNumber=number,
            Order=order,
            MaxResults=count,
            LabelEquals=label,
            OutputEquals=output,
            OnlyWrong=only_wrong or None,
            MinimumDifference=least_difference,
            MaximumDifference=most_difference,
        )
        found: list[Answer] = self.connection.call("get_evaluation_records", TrainingJobName=self.name, **asked)[
            "Records"
        ]
        return found

    def deploy(
        self,
        name: str | None = None,
        *,
        checkpoint: str | None = None,
        instance_type: str | None = None,
        instance_count: int = 1,
        environment: Mapping[str, str] | None = None,
        startup_timeout_s: int | None = None,
        wait: bool = True,
    ) -> Endpoint:
        """Serve the job's model behind an endpoint. The name is made up where none is given.

        With `checkpoint`, a name, `latest` or `best:<metric>`, that is served, also while the job trains.

        An endpoint of that name is updated to it, and serves what it served before until then. `instance_type` None
        is the job's own. Raises EndpointFailed when waiting for it and it does not come up.
        """
        before = Endpoint(name, self.connection).config_name if name else None
        answer = self.connection.call(
            "deploy",
            TrainingJobName=self.name,
            **given(
                EndpointName=name,
                Checkpoint=checkpoint,
                InstanceType=instance_type,
                InitialInstanceCount=instance_count,
                Environment=dict(environment or {}) or None,
                ContainerStartupHealthCheckTimeoutInSeconds=startup_timeout_s,
            ),
        )
        endpoint = Endpoint(answer["EndpointName"], self.connection, self.clock)
        return endpoint.wait_for(answer["EndpointConfigName"], before) if wait else endpoint

    def _update(self, revision: int) -> Answer:
        return next(update for update in self.updates() if update["Revision"] == revision)

    def _log_reader(self) -> LogReader:
        return LogReader(self.connection, TRAINING_GROUP, f"{self.name}/")

    def _has_several_containers(self) -> bool:
        try:
            resources = self.describe()["ResourceConfig"]
        except RequestRefused:  # the record is gone, its log may still be there
            return False
        counts = ("InstanceCount", "MaxInstanceCount", "ContainersPerInstance")
        return any(resources.get(name, 1) > 1 for name in counts)

    def _last_lines(self, reason: str) -> list[str]:
        """The end of the log, that of the container which the reason blames where it does."""
        blamed = re.search(r"\balgo-\d+", reason)
        try:
            return self._log_reader().last_lines(LAST_LINES_COUNT, blamed.group() if blamed else None)
        except RequestRefused:  # the reason is what matters; the lines only help
            return []


def open_store() -> ObjectStore:
    """Open the object stores as the settings of this machine say."""
    from raymaker.actors.storage import ObjectStore, StoreConfig

    settings = read_settings()
    return ObjectStore(
        StoreConfig(
            s3_endpoint_url=settings.s3_endpoint_url,
            s3_access_key_id=settings.s3_access_key_id,
            s3_secret_access_key=settings.s3_secret_access_key,
            region=settings.region,
        )
    )


def _message(seen: Answer) -> str:
    """The job's latest status message, for instance what it waits for."""
    transitions = seen.get("SecondaryStatusTransitions") or [{}]
    return str(transitions[-1].get("StatusMessage", ""))
