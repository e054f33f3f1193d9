"""What the database keeps, as frozen values, and the states a record can be in.

Times are epoch seconds. `request` is the validated request as it came, so that Describe gives back what Create was
given. How a record moves from one state to the next is `transitions.py`'s matter.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raymaker.actors.spec import SourceSpec

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
    """The last attempt was lost with its machine; the next one is being started."""
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

    `attempt` is the only attempt whose reports count; 0 while none was started. `started_at` and `ended_at` are when
    training started and ended on the machine; `ended_at` of a job that never ran is when it reached its end.
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
class Deployment:
    """Everything one generation of an endpoint runs, resolved once and kept with the endpoint.

    So an endpoint outlives the deletion of its configuration, its model and the training job they came from.
    `variant` is the production variant as CreateEndpointConfig was told.
    """

    config_name: str
    model_name: str
    variant: Mapping[str, Any]
    image: str | None = None
    source: SourceSpec | None = None
    model_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EndpointRecord:
    """One endpoint. `generation` grows whenever the desired deployment changes, so that late news is told apart.

    `deployed` is the last deployment that was healthy, to which a failed update goes back.
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
    running_count: int = 0
    failure_reason: str | None = None
    version: int = 1


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
class MetricRecord:
    """One number that an attempt's log said. `value` may be NaN or infinite: a loss that explodes is news."""

    job_name: str
    attempt: int
    name: str
    value: float
    time: float
