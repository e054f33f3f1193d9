"""The layout of /opt/ml: what a training container finds there, and what it leaves. Starts and fetches nothing.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html. The SM_* variables are those
that the sagemaker-training toolkit sets; images bring it along, source-code algorithms get them from here.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymaker.actors.spec import Mount, TrainingSpec

ML = "/opt/ml"
HOST = "algo-1"
NETWORK_INTERFACE = "eth0"
FAILURE_LIMIT = 1024
"""Characters of the failure file that become part of FailureReason."""
LONGEST_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class JobFolder:
    """The folder of one attempt on this machine; its subfolders are what a container sees below /opt/ml."""

    root: Path

    @property
    def config(self) -> Path:
        """`input/config`."""
        return self.root / "input" / "config"

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

    @property
    def checkpoints(self) -> Path:
        """`checkpoints`: mounted where the request has a CheckpointConfig."""
        return self.root / "checkpoints"

    def channel(self, name: str) -> Path:
        """`input/data/<channel>`."""
        return self.root / "input" / "data" / name


def lay_out(folder: JobFolder, spec: TrainingSpec) -> None:
    """Make the folders, which a container of any user may write to, and the configuration files. Repeatable."""
    for path in (folder.root, folder.root / "input", folder.root / "input" / "data", folder.config):
        _make_folder(path, 0o755)
    for channel in spec.channels:
        _make_folder(folder.channel(channel.name), 0o755)
    for path in (folder.model, folder.output, folder.output_data, folder.checkpoints):
        _make_folder(path, 0o777)
    _write_json(folder.config / "hyperparameters.json", dict(spec.hyperparameters))
    _write_json(folder.config / "inputdataconfig.json", input_data_config(spec))
    _write_json(folder.config / "resourceconfig.json", resource_config(spec))
    if spec.checkpoint_uri is not None:
        checkpoints = {"S3Uri": spec.checkpoint_uri, "LocalPath": spec.checkpoint_local_path}
        _write_json(folder.config / "checkpointconfig.json", checkpoints)


def mounts(folder: JobFolder, spec: TrainingSpec) -> tuple[Mount, ...]:
    """What the container sees. Never /opt/ml itself: images bake their code into /opt/ml/code."""
    seen = [
        Mount(str(folder.root / "input"), f"{ML}/input"),
        Mount(str(folder.model), f"{ML}/model"),
        Mount(str(folder.output), f"{ML}/output"),
    ]
    if spec.checkpoint_uri is not None:
        seen.append(Mount(str(folder.checkpoints), spec.checkpoint_local_path))
    return tuple(seen)


def environment(spec: TrainingSpec, s3_endpoint_url: str | None = None) -> dict[str, str]:
    """The variables that every training container gets; the request's own win."""
    endpoint = {"AWS_ENDPOINT_URL_S3": s3_endpoint_url, "S3_ENDPOINT_URL": s3_endpoint_url} if s3_endpoint_url else {}
    return {
        "TRAINING_JOB_NAME": spec.job_name,
        "TRAINING_JOB_ARN": spec.job_arn,
        "AWS_REGION": spec.region,
        **endpoint,
        **spec.environment,
    }


def toolkit_environment(spec: TrainingSpec) -> dict[str, str]:
    """The SM_* variables, named and written as sagemaker-training's `Environment.to_env_vars` does."""
    hyperparameters = _user_hyperparameters(spec.hyperparameters)
    entry_point = spec.source.entry_point if spec.source else ""
    values: dict[str, Any] = {
        "hosts": [HOST],
        "current_host": HOST,
        "network_interface_name": NETWORK_INTERFACE,
        "current_instance_type": spec.instance_type.name,
        "current_instance_group": "homogeneousCluster",
        "resource_config": resource_config(spec),
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
        "num_cpus": max(1, math.floor(spec.instance_type.resources.cpus)),
        "num_gpus": math.floor(spec.instance_type.resources.gpus),
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


def resource_config(spec: TrainingSpec) -> dict[str, Any]:
    """The content of resourceconfig.json. The last four are raymaker's own: container X of N on machine Y of M."""
    group = {"instance_group_name": "homogeneousCluster", "instance_type": spec.instance_type.name, "hosts": [HOST]}
    return {
        "current_host": HOST,
        "current_instance_type": spec.instance_type.name,
        "current_group_name": "homogeneousCluster",
        "hosts": [HOST],
        "instance_groups": [group],
        "network_interface_name": NETWORK_INTERFACE,
        "container_index": 0,
        "container_count": 1,
        "machine_index": 0,
        "machine_count": 1,
    }


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


def _make_folder(path: Path, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)  # not through mkdir, which obeys the umask


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file at once: a container that is already running never reads half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.chmod(0o644)
    part.replace(path)


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
