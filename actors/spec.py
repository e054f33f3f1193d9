"""What a machine is asked to run, as frozen values.

The platform fills these from a request; actors carry them out. Nothing here does I/O, and everything pickles, so
that a spec can travel to any node and be used again after a restart.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Network(enum.Enum):
    """What a container can reach."""

    NONE = "none"
    """Nothing: no interface but loopback."""
    INTERNAL = "internal"
    """The machine reaches the container, the container reaches nothing outside (scoring containers)."""
    OPEN = "open"
    """An ordinary bridge with a way out, where the request allows it."""


@dataclass(frozen=True)
class Resources:
    """What an instance type gives to its containers. `memory_bytes` 0 means no limit."""

    cpus: float = 1.0
    memory_bytes: int = 0
    gpus: float = 0.0


@dataclass(frozen=True)
class InstanceType:
    """A row of the catalogue (`catalogue.toml`)."""

    name: str
    resources: Resources
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mount:
    """A host folder or file at `source`, seen by the container at `target`."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    """One container to run. `name` is unique on the machine: starting the same name again re-attaches.

    `image` is a reference the engine holds (a digest, never a moving tag). The process driver runs `source_dir`
    instead, and refuses an image. `command` replaces CMD; `entrypoint` replaces ENTRYPOINT where it is not None.
    """

    name: str
    command: tuple[str, ...]
    image: str | None = None
    source_dir: str | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    network: Network = Network.NONE
    shm_bytes: int = 64 * 1024 * 1024
    hostname: str | None = None


@dataclass(frozen=True)
class SourceSpec:
    """Source code to run instead of an image: a folder or archive by URI, and the file in it that starts training.

    `base_image` None means the platform's default base image (docker driver) or this machine (process driver).
    """

    uri: str
    entry_point: str
    base_image: str | None = None


@dataclass(frozen=True)
class ChannelSpec:
    """One training channel. `uri` is a prefix (`S3Prefix`) or a manifest; a prefix may be a single object."""

    name: str
    uri: str
    data_type: str = "S3Prefix"
    distribution: str = "FullyReplicated"
    content_type: str | None = None
    compression: str = "None"
    record_wrapper: str = "None"
    input_mode: str = "File"


@dataclass(frozen=True)
class MetricDefinition:
    """A named regular expression whose first group is a number in a log line."""

    name: str
    regex: str


@dataclass(frozen=True)
class TrainingSpec:
    """One attempt at one training job, complete: a supervisor needs nothing else to run it, or to take it up again."""

    job_name: str
    job_arn: str
    region: str
    attempt: int
    instance_type: InstanceType
    output_uri: str
    image: str | None = None
    source: SourceSpec | None = None
    entrypoint: tuple[str, ...] | None = None
    arguments: tuple[str, ...] | None = None
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[ChannelSpec, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    output_compression: str = "GZIP"
    checkpoint_uri: str | None = None
    checkpoint_local_path: str = "/opt/ml/checkpoints"
    max_runtime_s: int = 86_400
    network: Network = Network.NONE
    metric_definitions: tuple[MetricDefinition, ...] = ()


@dataclass(frozen=True)
class ScoringSpec:
    """One scoring container: what it runs and how long it may take. `model_uri` None: the model lies in the image."""

    image: str | None = None
    source: SourceSpec | None = None
    model_uri: str | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    startup_timeout_s: float = 480.0
    download_timeout_s: float = 3600.0
    invocation_timeout_s: float = 60.0
    max_body_bytes: int = 6 * 1024 * 1024
    network: Network = Network.INTERNAL
