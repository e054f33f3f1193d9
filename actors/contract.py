"""The layout of /opt/ml: what a training container finds there, and what it leaves. Starts and fetches nothing.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html. The SM_* variables are those
that the sagemaker-training toolkit sets; images bring it along, source-code algorithms get them from here.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymaker.actors.gpus import share
from raymaker.actors.spec import ChannelSpec, Mount, Place, TrainingSpec, host_name

ML = "/opt/ml"
EXCHANGE = f"{ML}/exchange"
POOL_CACHE = f"{ML}/sagemaker/warmpoolcache"
NETWORK_INTERFACE = "eth0"
MASTER_PORT = 29_500
"""Where torch.distributed's first process listens by custom; the first container is told to use it."""
FAILURE_LIMIT = 1024
"""Characters of the failure file that become part of FailureReason."""
LONGEST_CHARACTER_BYTES = 4
MOUNT_POINT, SEEN = "mounted", "data"
"""Where in the place of a channel something may be mounted, and what of that a container sees.

An engine to which the mount does not show finds nothing there and says so, instead of showing an empty folder.
"""


@dataclass(frozen=True)
class Seat:
    """Which container of its job one is: container `index` (from 0) of its machine, and where that machine stands."""

    place: Place = field(default_factory=Place)
    index: int = 0

    @property
    def rank(self) -> int:
        """Its number among all containers of the job, from 0."""
        return self.place.ranks[self.index]

    @property
    def host(self) -> str:
        """Its name: `algo-1` for rank 0."""
        return host_name(self.rank)


ALONE = Seat()


@dataclass(frozen=True)
class JobFolder:
    """Where one container's part of /opt/ml lies: its own folder, and what it sees alike with others of its machine.

    `channels` holds the channels that every container gets whole, `checkpoints` what is kept from start to start, and
    `pool_cache` what is kept from job to job, where the machine belongs to a warm pool.
    """

    root: Path
    channels: Path
    checkpoints: Path
    pool_cache: Path | None = None

    @classmethod
    def of_one(cls, root: Path) -> JobFolder:
        """A folder that shares nothing."""
        return cls(root, root / "input" / "data", root / "checkpoints")

    @property
    def config(self) -> Path:
        """`input/config`."""
        return self.root / "input" / "config"

    @property
    def data(self) -> Path:
        """`input/data`: where its channels are mounted, and the pipes of those that are streamed to it."""
        return self.root / "input" / "data"

    @property
    def model(self) -> Path:
        """`model`: what the container leaves here is the model."""
        return self.root / "model"

    @property
    def output(self) -> Path:
        """`output`: the failure file, and `data`."""
        return self.root / "output"

    @property
    def output_data(self) -> Path:
        """`output/data`: what the container leaves here is stored beside the model."""
        return self.output / "data"

    def place(self, channel: ChannelSpec) -> Path:
        """Where a channel is laid: the machine's own place where all containers get all of it before they start."""
        is_own = is_sharded(channel) or channel.is_fast
        return (self.root / "channels" if is_own else self.channels) / channel.name

    def channel(self, channel: ChannelSpec) -> Path:
        """What the container sees as `input/data/<channel>`."""
        return self.place(channel) / MOUNT_POINT / SEEN


def is_sharded(channel: ChannelSpec) -> bool:
    """Tell whether every container gets a part of the channel, instead of all of it."""
    return channel.distribution == "ShardedByS3Key"


def lay_out(folder: JobFolder, spec: TrainingSpec, seat: Seat = ALONE) -> None:
    """Make the folders, which a container of any user may write to, and the configuration files. Repeatable."""
    for path in (folder.root, folder.root / "input", folder.data, folder.config):
        _make_folder(path, 0o755)
    for channel in _fetched(spec):
        _make_folder(folder.data / channel.name, 0o755)  # the place to mount it
    for path in (folder.model, folder.output, folder.output_data, folder.checkpoints, *_pool_caches(folder)):
        _make_folder(path, 0o777)
    write_hyperparameters(folder, spec)
    _write_json(folder.config / "inputdataconfig.json", input_data_config(spec))
    _write_json(folder.config / "resourceconfig.json", resource_config(spec, seat))
    if spec.checkpoint_uri is not None:
        checkpoints = {"S3Uri": spec.checkpoint_uri, "LocalPath": spec.checkpoint_local_path}
        _write_json(folder.config / "checkpointconfig.json", checkpoints)


def write_hyperparameters(folder: JobFolder, spec: TrainingSpec) -> None:
    """Replace hyperparameters.json, also under the eyes of a container that runs, which may have put anything there.

    Raises OSError where the folder is none any more.
    """
    _write_json(folder.config / "hyperparameters.json", dict(spec.hyperparameters))


def mounts(folder: JobFolder, spec: TrainingSpec) -> tuple[Mount, ...]:
    """What the container sees. Never /opt/ml itself: images bake their code into /opt/ml/code."""
    seen = [
        Mount(str(folder.root / "input"), f"{ML}/input"),
        Mount(str(folder.model), f"{ML}/model"),
        Mount(str(folder.output), f"{ML}/output"),
    ]
    seen += [
        Mount(str(folder.channel(channel).resolve()), f"{ML}/input/data/{channel.name}") for channel in _fetched(spec)
    ]
    if spec.checkpoint_uri is not None:
        seen.append(Mount(str(folder.checkpoints), spec.checkpoint_local_path))
    seen += [Mount(str(cache), POOL_CACHE) for cache in _pool_caches(folder)]
    return tuple(seen)


def environment(spec: TrainingSpec, seat: Seat = ALONE, s3_endpoint_url: str | None = None) -> dict[str, str]:
    """The variables that every training container gets; the request's own win."""
    endpoint = {"AWS_ENDPOINT_URL_S3": s3_endpoint_url, "S3_ENDPOINT_URL": s3_endpoint_url} if s3_endpoint_url else {}
    return {
        "TRAINING_JOB_NAME": spec.job_name,
        "TRAINING_JOB_ARN": spec.job_arn,
        "AWS_REGION": spec.region,
        "RAYMAKER_EXCHANGE": EXCHANGE,
        **({"SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY": POOL_CACHE} if spec.warm_pool is not None else {}),
        **endpoint,
        **(_distributed_environment(seat) if seat.place.world_size > 1 else {}),
        **spec.environment,
    }


def toolkit_environment(spec: TrainingSpec, seat: Seat = ALONE) -> dict[str, str]:
    """The SM_* variables, named and written as sagemaker-training's `Environment.to_env_vars` does."""
    hyperparameters = _user_hyperparameters(spec.hyperparameters)
    entry_point = spec.source.entry_point if spec.source else ""
    whole_gpus = range(math.ceil(spec.instance_type.resources.gpus))
    values: dict[str, Any] = {
        "hosts": sorted(seat.place.hosts),
        "current_host": seat.host,
        "network_interface_name": NETWORK_INTERFACE,
        "current_instance_type": spec.instance_type.name,
        "current_instance_group": "homogeneousCluster",
        "resource_config": resource_config(spec, seat),
        "input_data_config": input_data_config(spec),
        "channels": sorted(channel.name for channel in spec.channels),
        "hps": hyperparameters,
        "user_args": list(user_arguments(spec.hyperparameters)),
        "user_entry_point": entry_point,
        "module_name": entry_point.removesuffix(".py"),
        "module_dir": f"{ML}/code",
        "input_dir": f"{ML}/input",
        "input_config_dir": f"{ML}/input/config",
        "model_dir": f"{ML}/model",
        "output_dir": f"{ML}/output",
        "output_data_dir": f"{ML}/output/data",
        "output_intermediate_dir": f"{ML}/output/intermediate",
        "num_cpus": max(1, math.floor(spec.container_resources.cpus)),
        "num_gpus": len(share(whole_gpus, seat.index, seat.place.containers_per_machine)),
        "log_level": 20,
        "framework_params": {},
        **{f"channel_{channel.name}": f"{ML}/input/data/{channel.name}" for channel in spec.channels},
        **{f"hp_{name}": value for name, value in hyperparameters.items()},
    }
    return {f"SM_{name.upper()}": _toolkit_text(value) for name, value in values.items()}


def user_arguments(hyperparameters: Mapping[str, str]) -> tuple[str, ...]:
    """Hyperparameters as that toolkit passes them to a script: `--name value`, `-n value`, sorted by name."""
    arguments: list[str] = []
    for name, value in sorted(_user_hyperparameters(hyperparameters).items()):
        arguments += [f"--{name}" if len(name) > 1 else f"-{name}", _argument_text(value)]
    return tuple(arguments)


def input_data_config(spec: TrainingSpec) -> dict[str, dict[str, str]]:
    """The content of inputdataconfig.json."""
    return {
        channel.name: {
            **({"ContentType": channel.content_type} if channel.content_type else {}),
            "TrainingInputMode": channel.input_mode,
            "S3DistributionType": channel.distribution,
            "RecordWrapperType": channel.record_wrapper,
        }
        for channel in spec.channels
    }


def resource_config(spec: TrainingSpec, seat: Seat = ALONE) -> dict[str, Any]:
    """The content of resourceconfig.json. From `container_index` on it is raymaker's own."""
    hosts = sorted(seat.place.hosts)
    group = {"instance_group_name": "homogeneousCluster", "instance_type": spec.instance_type.name, "hosts": hosts}
    return {
        "current_host": seat.host,
        "current_instance_type": spec.instance_type.name,
        "current_group_name": "homogeneousCluster",
        "hosts": hosts,
        "instance_groups": [group],
        "network_interface_name": NETWORK_INTERFACE,
        **describe_seat(seat),
    }


def describe_seat(seat: Seat) -> dict[str, int]:
    """Say which container this is: container X of N on machine Y of M (all from 0), and its rank among all."""
    return {
        "container_index": seat.index,
        "container_count": seat.place.containers_per_machine,
        "machine_index": seat.place.machine_index,
        "machine_count": seat.place.machine_count,
        "rank": seat.rank,
        "world_size": seat.place.world_size,
    }


def clear_old(folder: JobFolder, *, model: bool) -> None:
    """Remove what containers that are to be replaced have left: their failure file, and with `model` their model.

    Nothing of theirs runs any more.
    """
    _remove(folder.output / "failure")
    if model:
        empty(folder.model)


def empty(folder: Path) -> None:
    """Remove all that lies in a folder of containers that have ended, without following a link."""
    for path in folder.iterdir():
        _remove(path)


def read_failure(folder: JobFolder) -> str | None:
    """The beginning of /opt/ml/output/failure, None where nothing was written there.

    The container owns that name: a link is not followed, and neither a pipe nor a folder is waited for or read.
    """
    path = folder.output / "failure"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as failure:
            text = failure.read(FAILURE_LIMIT * LONGEST_CHARACTER_BYTES).decode(errors="replace")
    except OSError:
        return None
    return text[:FAILURE_LIMIT].replace("\0", "").strip() or None


def _pool_caches(folder: JobFolder) -> list[Path]:
    return [] if folder.pool_cache is None else [folder.pool_cache]


def _fetched(spec: TrainingSpec) -> list[ChannelSpec]:
    """The channels that are there as files."""
    return [channel for channel in spec.channels if not channel.is_streamed]


def _distributed_environment(seat: Seat) -> dict[str, str]:
    """What torch.distributed and its like look for; a lone container does not get it, since it makes them wait."""
    place = seat.place
    return {
        "MASTER_ADDR": host_name(0),
        "MASTER_PORT": str(MASTER_PORT),
        "RANK": str(seat.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(seat.index),
        "LOCAL_WORLD_SIZE": str(place.containers_per_machine),
        "NODE_RANK": str(place.machine_index),
        "GROUP_RANK": str(place.machine_index),
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_folder(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)  # not through mkdir, which obeys the umask


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file at once: a container that is already running never reads half of it. Follows no link."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        part = f".{path.name}.{secrets.token_hex(8)}"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), "w") as file:
            json.dump(content, file)
            os.fchmod(file.fileno(), 0o644)
        os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _user_hyperparameters(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """What the toolkit hands to the script: values read as JSON where they are, without its own `sagemaker_*`."""
    own = ("sagemaker_", "_tuning_objective_metric")
    return {name: _read_value(text) for name, text in hyperparameters.items() if not name.startswith(own)}


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _argument_text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in sorted(value.items()))
    return "" if value is None else str(value)


def _toolkit_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))
