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
    HOST = "host"
    """The machine's own: the only way to reach containers of other machines, where the platform's settings allow it."""


class Placement(enum.Enum):
    """Where a job's instances go."""

    PACK = "Pack"
    """As few nodes as hold them."""
    SPREAD = "Spread"
    """As many nodes as there are."""


@dataclass(frozen=True)
class Resources:
    """What an instance type gives to its containers. `memory_bytes` 0 means no limit."""

    cpus: float = 1.0
    memory_bytes: int = 0
    gpus: float = 0.0

    def share(self, count: int) -> Resources:
        """What one of `count` containers gets that share this evenly."""
        return Resources(self.cpus / count, self.memory_bytes // count, self.gpus / count)


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
    group: str | None = None
    """Containers of one group on this machine share a network, where `network` is OPEN, and find each other's
    hostnames in it. None: the container has no such neighbours."""
    peers: tuple[str, ...] = ()
    """The hostnames of all containers of the group on this machine, its own included, by rank."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Names of hosts that are not on this machine, each with its address. Known where `network` is OPEN."""
    gpu_ids: tuple[str, ...] = ()
    """The devices that it gets, as CUDA_VISIBLE_DEVICES names them. Empty: as many as `resources` say, of those that
    were set aside for this process."""
    read_only_root: bool = False
    """Whether it can write only to its mounts, to shared memory and to /tmp."""
    yields_cpu: bool = False
    """Whether others on the machine come first where CPU time is short."""


@dataclass(frozen=True)
class Place:
    """Where one machine stands in its job. Ranks count through the machines: machine 0 holds the first ones."""

    machine_index: int = 0
    machine_count: int = 1
    containers_per_machine: int = 1

    @property
    def world_size(self) -> int:
        """How many containers the job has."""
        return self.machine_count * self.containers_per_machine

    @property
    def ranks(self) -> range:
        """The ranks of this machine's containers."""
        first = self.machine_index * self.containers_per_machine
        return range(first, first + self.containers_per_machine)

    @property
    def hosts(self) -> list[str]:
        """The names of all the job's containers, by rank."""
        return [host_name(rank) for rank in range(self.world_size)]


def host_name(rank: int) -> str:
    """Name a container of a job as SageMaker names hosts: `algo-1` has rank 0."""
    return f"algo-{rank + 1}"


@dataclass(frozen=True)
class SourceSpec:
    """Source code to run instead of an image: a folder or archive by URI, and the file in it that starts training.

    `base_image` None means the platform's default base image (docker driver) or this machine (process driver).
    """

    uri: str
    entry_point: str
    base_image: str | None = None


@dataclass(frozen=True)
class ArrowSpec:
    """What of a table a channel in Arrow mode brings. No `columns`: all of them.

    `filters` are conditions that all must hold: a column, an operator and its values as text. Records are mixed within
    each `shuffle_rows_count` of them, where the channel is shuffled.
    """

    columns: tuple[str, ...] = ()
    filters: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    batch_rows_count: int = 8192
    shuffle_rows_count: int = 65_536


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
    shard_by: str = "Object"
    """With ShardedByS3Key: whole objects, or `Record` where two containers may share one file."""
    attribute_names: tuple[str, ...] = ()
    """Of an augmented manifest: what of each line is wanted, in this order."""
    arrow: ArrowSpec = ArrowSpec()
    shuffle_seed: int | None = None
    """Decides the order of each pass over a streamed channel; None: as the objects' names or the manifest have it."""

    @property
    def is_streamed(self) -> bool:
        """Whether it comes through pipes, instead of as files."""
        return self.input_mode in {"Pipe", "Arrow"}

    @property
    def is_fast(self) -> bool:
        """Whether it is files that are fetched as they are read."""
        return self.input_mode == "FastFile"


@dataclass(frozen=True)
class MetricDefinition:
    """A named regular expression whose first group is a number in a log line."""

    name: str
    regex: str


@dataclass(frozen=True)
class Revisions:
    """How often a job was changed: the number of the last change, and of those that concern one thing only.

    Containers that were started before `restart` are to be replaced.
    """

    number: int = 0
    hyperparameters: int = 0
    code: int = 0
    restart: int = 0


@dataclass(frozen=True)
class TrainingSpec:
    """One attempt at one training job, complete: a supervisor needs nothing else to run it, or to take it up again.

    With `min_instance_count` the job is elastic: it runs on that many to `instance_count` instances. `start` counts how
    often the instances of one attempt were started together; 0 where there is only one, which starts once.
    """

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
    instance_count: int = 1
    min_instance_count: int | None = None
    containers_per_instance: int = 1
    placement: Placement = Placement.PACK
    max_failures: int = 2
    retries_errors: bool = False
    """Whether the user's own errors are tried again too (the request has a RetryStrategy)."""
    start: int = 0
    revisions: Revisions = Revisions()
    warm_pool: str | None = None
    """Which warm pool its machines belong to: what they keep from job to job is found by this name."""

    @property
    def container_resources(self) -> Resources:
        """What one container gets: an equal share of its instance."""
        return self.instance_type.resources.share(self.containers_per_instance)

    @property
    def label(self) -> str:
        """The attempt, and which start of it where there are several: `2`, `2-1`."""
        return f"{self.attempt}-{self.start}" if self.start else str(self.attempt)


class Manner(enum.Enum):
    """How a change reaches a job that trains."""

    TELL = "tell"
    """Its containers go on, and are told."""
    REPLACE = "replace"
    """Other containers take their places, on the same machines."""
    MOVE = "move"
    """It starts again on other machines."""


@dataclass(frozen=True)
class UpdateSpec:
    """One change of a job that trains. `spec` is what the job is to run once it is in force."""

    spec: TrainingSpec
    manner: Manner
    changes_code: bool = False
    may_restart: bool = False
    """Whether containers that do not hear of it may be replaced."""
    hear_timeout_s: float = 60.0
    deletes_model: bool = False
    """Whether what replaced containers left in their model folder goes with them."""

    @property
    def number(self) -> int:
        """The revision that it makes."""
        return self.spec.revisions.number


@dataclass(frozen=True)
class Standing:
    """What the platform has down for an attempt: what it runs, what is to be changed about it, what is not wanted."""

    spec: TrainingSpec
    update: UpdateSpec | None = None
    deletes_model: bool = False
    """Whether no model is to be stored."""
    training_started_at: float | None = None
    """When training first began on these machines, in epoch seconds."""

    @property
    def deletes_old_model(self) -> bool:
        """Whether containers that are being replaced are to leave no model behind."""
        update = self.update
        return update is not None and update.deletes_model and update.number == self.spec.revisions.number


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
    multi_model: bool = False
    """Whether `model_uri` is a prefix of many models, which are fetched when they are asked for."""
    keeps_models: bool = True
    """Whether a multi-model container keeps a model that nobody asks for at this moment."""
    additional_models: Mapping[str, str] = field(default_factory=dict)
    """Where more models lie that the container finds beside its own, by their channels' names."""
    checkpoint: str | None = None
    """Which checkpoint at `model_uri`, a checkpoint location, is the model; None: what lies there is the model."""
    yields_cpu: bool = False
    """Whether others on the machine come first where CPU time is short."""
