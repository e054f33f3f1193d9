"""What one machine of a transform job is asked to do, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

from raymaker.actors.spec import InstanceType, ScoringSpec

MIB = 1024 * 1024
DEFAULT_PAYLOAD_MIB = 6
HELD_MIB = 100
"""SageMaker's limit on MaxPayloadInMB, and on it times MaxConcurrentTransforms: what may lie in memory."""
DEFAULT_TIMEOUT_S = 600
DEFAULT_RETRIES = 3
DEFAULT_MAX_RUNTIME_S = 432_000


@dataclass(frozen=True)
class TransformInput:
    """The objects to transform: below a prefix (`S3Prefix`) or named by a manifest (`ManifestFile`)."""

    uri: str
    data_type: str = "S3Prefix"
    content_type: str | None = None
    compression: str = "None"
    split_type: str = "None"


@dataclass(frozen=True)
class TransformOutput:
    """Where the answers go, one object for each of the input."""

    uri: str
    accept: str | None = None
    assemble_with: str = "None"


@dataclass(frozen=True)
class DataProcessing:
    """What of a record is sent, whether its answer is put beside it, and what of that is kept. `$` means all."""

    input_filter: str = "$"
    output_filter: str = "$"
    join_source: str = "None"

    @property
    def joins(self) -> bool:
        """Whether answers are put beside their records."""
        return self.join_source == "Input"


@dataclass(frozen=True)
class TransformSpec:
    """One attempt at a transform job on one of its machines, complete.

    `strategy`, `max_payload_mib` (0: no limit) and `max_concurrency` are None where the request is silent, so that the
    container is asked.
    """

    job_name: str
    job_arn: str
    attempt: int
    instance_type: InstanceType
    scoring: ScoringSpec
    input: TransformInput
    output: TransformOutput
    processing: DataProcessing = field(default_factory=DataProcessing)
    strategy: str | None = None
    max_payload_mib: int | None = None
    max_concurrency: int | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_retries: int = DEFAULT_RETRIES
    max_runtime_s: float = DEFAULT_MAX_RUNTIME_S
    machine_index: int = 0
    machine_count: int = 1

    @property
    def label(self) -> str:
        """The attempt and the machine: `1-0`."""
        return f"{self.attempt}-{self.machine_index}"
