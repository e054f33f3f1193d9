"""What the database keeps, as frozen values, and the states a record can be in.

Times are epoch seconds. `request` is the validated request as it came, so that Describe gives back what Create was
given. How a record moves from one state to the next is `transitions.py`'s matter.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raymaker.actors.reports import Source
from raymaker.actors.spec import SourceSpec
from raymaker.platform.changing.update_record import JobUpdate
from raymaker.platform.pools.warm_pool import WarmPool
from raymaker.serving.graph.document import Placement, parse_graph

OWNER_TAG = "raymaker:endpoint"
"""Tag of a model or endpoint configuration that was made for one endpoint alone, and goes with it."""


class TrainingJobStatus(enum.StrEnum):
    """Where a training job is, in SageMaker's words."""

    IN_PROGRESS = "InProgress"
    """Accepted and not ended; the secondary status says what it is doing."""
    STOPPING = "Stopping"
    """Asked to stop; its container is being ended and what it left is being stored."""
    COMPLETED = "Completed"
    """Ended well; the model is stored."""
    FAILED = "Failed"
    """Ended badly; FailureReason says why."""
    STOPPED = "Stopped"
    """Ended because it was asked to, or because its time was up; there may be a model."""

    @property
    def ended(self) -> bool:
        """Whether this is a terminal state: nothing moves a job out of it."""
        return self in {TrainingJobStatus.COMPLETED, TrainingJobStatus.FAILED, TrainingJobStatus.STOPPED}


class SecondaryStatus(enum.StrEnum):
    """What a training job is doing, in SageMaker's words. The supervisor reports these as phases."""

    PENDING = "Pending"
    """Waits for a machine; the message says for what."""
    RESTARTING = "Restarting"
    """The last attempt was lost with its machine, or its instances are started together once more."""
    STARTING = "Starting"
    """A machine is being prepared."""
    DOWNLOADING_IMAGE = "DownloadingTrainingImage"
    """The image is being pulled."""
    DOWNLOADING = "Downloading"
    """Input data is being fetched."""
    TRAINING = "Training"
    """The container runs."""
    STOPPING = "Stopping"
    """The container was asked to end."""
    UPLOADING = "Uploading"
    """The container has ended; the model is being stored."""
    INTERRUPTED = "Interrupted"
    """Reported only: the attempt is lost. The record goes on to Restarting or Failed at once."""
    COMPLETED = "Completed"
    """The end of a Completed job."""
    FAILED = "Failed"
    """The end of a Failed job."""
    STOPPED = "Stopped"
    """The end of a job that was asked to stop."""
    MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"
    """The end of a job that ran into its time limit; its status is Stopped."""


class EndpointStatus(enum.StrEnum):
    """Where an endpoint is, in SageMaker's words."""

    CREATING = "Creating"
    """The first fleet is coming up; nothing answers yet."""
    IN_SERVICE = "InService"
    """Answers; the desired deployment is the deployed one."""
    UPDATING = "Updating"
    """The desired deployment is coming up; the deployed one, where there is one, goes on answering."""
    ROLLING_BACK = "RollingBack"
    """The update failed; the deployed one is desired again."""
    FAILED = "Failed"
    """Never came up, or has nothing to roll back to. It can be updated or deleted."""
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"
    """The update failed and so did the way back. It can be updated or deleted."""
    DELETING = "Deleting"
    """Being taken away; the record goes when the fleet is gone."""


class RolloutStage(enum.StrEnum):
    """How far an endpoint is on the way from its deployed deployment to the desired one."""

    PREPARING = "Preparing"
    """The desired fleets come up beside those that answer."""
    SHIFTING = "Shifting"
    """The desired fleets are up and take the traffic, all of it or step by step; the deployed ones are still there."""
    RETURNING = "Returning"
    """The deployed fleets take all traffic again; the desired ones, which failed, are still there until they have."""


class SleepStage(enum.StrEnum):
    """How an endpoint in service that may be without instances comes to have none, and some again."""

    FALLING_ASLEEP = "FallingAsleep"
    """Nobody has asked for long: what it has is being taken away."""
    ASLEEP = "Asleep"
    """Nothing of it runs. It is in service all the same: whoever asks is kept waiting, and wakes it."""
    WAKING = "Waking"
    """Somebody has asked: it is being deployed anew."""


@dataclass(frozen=True)
class StatusTransition:
    """One stay in a secondary status. `ended_at` is None while it lasts."""

    status: SecondaryStatus
    started_at: float
    ended_at: float | None
    message: str


@dataclass(frozen=True)
class TrainingJobRecord:
    """One training job. `version` guards updates: a write goes through only where it is still the one that was read.

    `attempt` is the only attempt whose reports count; 0 while none was started. `start` counts how often its instances
    were started together, and stays 0 where there is one. `started_at` and `ended_at` are when training started and
    ended on the machine; `ended_at` of a job that never ran is when it reached its end.

    `request` changes with the job: it is what is in force. `revision` is the number of the last change that is, and
    containers from before `restart_revision` are to be replaced. `move_count` of the attempts were begun for a change.
    """

    name: str
    arn: str
    account: str
    request: Mapping[str, Any]
    status: TrainingJobStatus
    secondary: SecondaryStatus
    transitions: tuple[StatusTransition, ...]
    created_at: float
    modified_at: float
    attempt: int = 0
    version: int = 1
    started_at: float | None = None
    ended_at: float | None = None
    failure_reason: str | None = None
    exit_code: int | None = None
    model_uri: str | None = None
    image_digest: str | None = None
    stop_requested_at: float | None = None
    node_id: str | None = None
    start: int = 0
    revision: int = 0
    restart_revision: int = 0
    move_count: int = 0
    deletes_model: bool = False
    updates: tuple[JobUpdate, ...] = ()
    """The last changes, oldest first; those before them are events only."""
    warm_pool: WarmPool | None = None
    """What becomes of its machines after its end; None where they are not kept, and before it has any."""

    @property
    def is_waiting(self) -> bool:
        """Whether the job, or its next attempt, waits for machines: nothing of it runs."""
        return self.attempt == 0 or self.secondary is SecondaryStatus.PENDING

    @property
    def open_update(self) -> JobUpdate | None:
        """The change that is under way; there is one at a time."""
        last = self.updates[-1] if self.updates else None
        return last if last is not None and not last.status.settled else None

    @property
    def message(self) -> str:
        """The status message shown now."""
        return self.transitions[-1].message if self.transitions else ""

    @property
    def training_time_s(self) -> int | None:
        """Whole seconds that user code ran; None where it never did or still does."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0, round(self.ended_at - self.started_at))

    @property
    def has_model(self) -> bool:
        """Whether the job ended with a model that can be served."""
        return self.status.ended and self.status is not TrainingJobStatus.FAILED and self.model_uri is not None


@dataclass(frozen=True)
class ModelRecord:
    """One model: where its archive lies and what image serves it, as CreateModel was told."""

    name: str
    arn: str
    account: str
    request: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True)
class EndpointConfigRecord:
    """One endpoint configuration, as CreateEndpointConfig was told."""

    name: str
    arn: str
    account: str
    request: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True)
class ResolvedContainer:
    """One container of a model: what serves, and which archive. `hostname` is its name within the model."""

    image: str | None = None
    source: SourceSpec | None = None
    model_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    multi_model: bool = False
    keeps_models: bool = True
    additional_models: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    """As `ScoringSpec` has them."""


@dataclass(frozen=True)
class ResolvedVariant:
    """One variant with everything that it runs. `request` is the variant as CreateEndpointConfig was told.

    `weight` and `instance_count` begin as the request has them and change live.
    """

    request: Mapping[str, Any]
    model_name: str
    containers: tuple[ResolvedContainer, ...]
    weight: float = 1.0
    instance_count: int = 1
    execution_mode: str | None = None
    """How several containers work together in SageMaker's own way; None where there is one, or a graph."""
    inference_graph: Mapping[str, Any] | None = None
    """How they do as CreateModel was told, None where they do not."""

    @property
    def name(self) -> str:
        """The variant's name, which is its own within an endpoint."""
        return str(self.request["VariantName"])

    @property
    def is_distributed(self) -> bool:
        """Whether any of its containers has a fleet of its own."""
        graph = parse_graph(self.inference_graph) if self.inference_graph is not None else None
        return graph is not None and Placement.DISTRIBUTED in graph.targets().values()


@dataclass(frozen=True)
class Deployment:
    """Everything one generation of an endpoint runs, resolved once and kept with the endpoint.

    So an endpoint outlives the deletion of its configuration, its models and the training jobs they came from.
    `revision` is the generation that this was first asked for in: going back to it, or changing its weights, makes
    nothing anew. The last fields are those of the configuration.
    """

    config_name: str
    variants: tuple[ResolvedVariant, ...]
    shadows: tuple[ResolvedVariant, ...] = ()
    revision: int = 1
    data_capture: Mapping[str, Any] | None = None
    async_inference: Mapping[str, Any] | None = None
    is_routed: bool = False
    """Whether there is a router in any case, since a rollout took its time and needed one."""

    @property
    def is_simple(self) -> bool:
        """Whether there is but one variant, no shadow, and no container with a fleet of its own: nothing to route."""
        is_alone = len(self.variants) == 1 and not self.shadows and not self.variants[0].is_distributed
        return is_alone and not self.is_routed


@dataclass(frozen=True)
class Rollout:
    """How far an update has followed its plan. Times are epoch seconds.

    `step` counts from 0; `step_began_at` is when its traffic was first seen to flow, None before.
    """

    began_at: float
    step: int = 0
    step_began_at: float | None = None


@dataclass(frozen=True)
class EndpointRecord:
    """One endpoint. `generation` grows whenever the desired deployment changes, so that late news is told apart.

    `deployed` is the last deployment that was healthy, to which a failed update goes back. `running_counts` says how
    many instances each variant has, by its name, `wanted_counts` how many its load asks for. `stage` is None where one
    deployment alone is there, or is on its way, `sleep` where the endpoint is awake.
    """

    name: str
    arn: str
    account: str
    status: EndpointStatus
    generation: int
    desired: Deployment
    created_at: float
    modified_at: float
    deployed: Deployment | None = None
    running_counts: Mapping[str, int] = field(default_factory=dict)
    failure_reason: str | None = None
    version: int = 1
    stage: RolloutStage | None = None
    sleep: SleepStage | None = None
    wanted_counts: Mapping[str, int] = field(default_factory=dict)
    deployment_config: Mapping[str, Any] | None = None
    """How the last update was, or is, to take the traffic over, as UpdateEndpoint was told; None: at once."""
    rollout: Rollout | None = None
    """How far the update is that is under way, or was when it failed; None where there was none yet."""


@dataclass(frozen=True)
class EventRecord:
    """Something that happened to a job or an endpoint. `subject` is its ARN; `kind` a short CamelCase word.

    `generation` is the attempt of a job or the generation of an endpoint that it happened to.
    """

    subject: str
    time: float
    kind: str
    message: str
    generation: int = 0


@dataclass(frozen=True)
class MetricPeriod:
    """What a job said of one metric within one period, which begins at `time`. Numbers that are NaN only count.

    The numbers are NaN where no other was said.
    """

    name: str
    time: float
    mean: float
    least: float
    most: float
    count: int


@dataclass(frozen=True)
class MetricRecord:
    """One number that an attempt said. `value` may be NaN or infinite: a loss that explodes is news.

    `step` is the job's own count, `rank` the container that said it; None where they are not known.
    """

    job_name: str
    attempt: int
    name: str
    value: float
    time: float
    step: int | None = None
    rank: int | None = None
    source: Source = Source.LOG
