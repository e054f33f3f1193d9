"""The layout of /opt/ml, its environment, and what a hostile container leaves there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from raymaker.actors import contract
from raymaker.actors.contract import JobFolder
from raymaker.actors.spec import ChannelSpec, InstanceType, Place, Resources, SourceSpec, TrainingSpec

SPEC = TrainingSpec(
    job_name="job-1",
    job_arn="arn:aws:sagemaker:us-east-1:000000000000:training-job/job-1",
    region="us-east-1",
    attempt=1,
    instance_type=InstanceType("ml.m5.large", Resources(cpus=2)),
    output_uri="file:///out",
    source=SourceSpec("file:///code", "train.py"),
    hyperparameters={"epochs": "3", "optimizer": '"adam"', "name": "plain text", "sagemaker_program": "x.py"},
    channels=(
        ChannelSpec("train", "s3://b/train", content_type="text/csv"),
        ChannelSpec("validation", "s3://b/validation"),
    ),
    environment={"LEVEL": "debug"},
)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder.of_one(tmp_path / "attempt")


def read(folder: JobFolder, name: str) -> object:
    return json.loads((folder.config / name).read_text())


def test_the_configuration_files_say_what_the_contract_says(folder: JobFolder) -> None:
    contract.lay_out(folder, SPEC)
    assert read(folder, "hyperparameters.json") == dict(SPEC.hyperparameters)
    assert read(folder, "inputdataconfig.json") == {
        "train": {
            "ContentType": "text/csv",
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        },
        "validation": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        },
    }
    assert read(folder, "resourceconfig.json") == {
        "current_host": "algo-1",
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1"],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": ["algo-1"]}
        ],
        "network_interface_name": "eth0",
        "container_index": 0,
        "container_count": 1,
        "machine_index": 0,
        "machine_count": 1,
        "rank": 0,
        "world_size": 1,
    }
    assert not (folder.config / "checkpointconfig.json").exists()


def test_no_hyperparameters_are_an_empty_object(folder: JobFolder) -> None:
    contract.lay_out(folder, dataclasses.replace(SPEC, hyperparameters={}))
    assert (folder.config / "hyperparameters.json").read_text() == "{}"


def test_any_user_may_read_the_input_and_write_the_output_whatever_the_umask(folder: JobFolder) -> None:
    old = os.umask(0o077)
    try:
        contract.lay_out(folder, SPEC)
    finally:
        os.umask(old)
    for path in (folder.model, folder.output, folder.output_data):
        assert path.stat().st_mode & 0o777 == 0o777
    for path in (folder.root, folder.config, folder.data / "train"):
        assert path.stat().st_mode & 0o777 == 0o755
    assert (folder.config / "resourceconfig.json").stat().st_mode & 0o777 == 0o644


def test_laying_out_twice_keeps_what_is_there(folder: JobFolder) -> None:
    contract.lay_out(folder, SPEC)
    (folder.model / "kept").touch()
    contract.lay_out(folder, SPEC)
    assert (folder.model / "kept").exists()


def test_the_subfolders_are_mounted_and_never_opt_ml_itself(folder: JobFolder) -> None:
    targets = [mount.target for mount in contract.mounts(folder, SPEC)]
    channels = [f"/opt/ml/input/data/{channel.name}" for channel in SPEC.channels]
    assert targets == ["/opt/ml/input", "/opt/ml/model", "/opt/ml/output", *channels]


def test_checkpoints_are_told_and_mounted_where_the_request_says(folder: JobFolder) -> None:
    spec = dataclasses.replace(SPEC, checkpoint_uri="s3://b/c", checkpoint_local_path="/checkpoints")
    contract.lay_out(folder, spec)
    assert read(folder, "checkpointconfig.json") == {"S3Uri": "s3://b/c", "LocalPath": "/checkpoints"}
    assert contract.mounts(folder, spec)[-1].target == "/checkpoints"


def test_the_environment_names_the_job_and_the_requests_own_wins() -> None:
    assert contract.environment(SPEC) == {
        "TRAINING_JOB_NAME": "job-1",
        "TRAINING_JOB_ARN": SPEC.job_arn,
        "AWS_REGION": "us-east-1",
        "RAYMAKER_EXCHANGE": "/opt/ml/exchange",
        "LEVEL": "debug",
    }
    told = contract.environment(
        dataclasses.replace(SPEC, environment={"S3_ENDPOINT_URL": "http://mine"}), s3_endpoint_url="http://s3"
    )
    assert told["AWS_ENDPOINT_URL_S3"] == "http://s3"
    assert told["S3_ENDPOINT_URL"] == "http://mine"


@pytest.mark.parametrize(
    ("gpus", "containers", "seen"), [(1, 2, "1"), (0.5, 1, "1"), (4, 2, "2"), (3, 2, "3"), (0, 2, "0")]
)
def test_a_container_is_told_of_the_gpus_that_it_sees(gpus: float, containers: int, seen: str) -> None:
    spec = dataclasses.replace(SPEC, instance_type=InstanceType("gpu", Resources(cpus=2, gpus=gpus)))
    seat = contract.Seat(Place(machine_count=1, containers_per_machine=containers), index=containers - 1)
    assert contract.toolkit_environment(spec, seat)["SM_NUM_GPUS"] == seen


def test_the_toolkits_variables_are_as_the_toolkit_writes_them() -> None:
    told = contract.toolkit_environment(SPEC)
    expected = {
        "SM_HPS": '{"epochs":3,"name":"plain text","optimizer":"adam"}',
        "SM_HP_EPOCHS": "3",
        "SM_HP_OPTIMIZER": "adam",
        "SM_CHANNELS": '["train","validation"]',
        "SM_CHANNEL_TRAIN": "/opt/ml/input/data/train",
        "SM_CHANNEL_VALIDATION": "/opt/ml/input/data/validation",
        "SM_MODEL_DIR": "/opt/ml/model",
        "SM_OUTPUT_DIR": "/opt/ml/output",
        "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
        "SM_INPUT_DIR": "/opt/ml/input",
        "SM_INPUT_CONFIG_DIR": "/opt/ml/input/config",
        "SM_MODULE_DIR": "/opt/ml/code",
        "SM_MODULE_NAME": "train",
        "SM_USER_ENTRY_POINT": "train.py",
        "SM_CURRENT_HOST": "algo-1",
        "SM_HOSTS": '["algo-1"]',
        "SM_NUM_CPUS": "2",
        "SM_NUM_GPUS": "0",
        "SM_USER_ARGS": '["--epochs","3","--name","plain text","--optimizer","adam"]',
    }
    assert {name: told[name] for name in expected} == expected
    assert all(isinstance(value, str) for value in told.values())


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, ()),
        ({"b": "2", "alpha": "0.10"}, ("--alpha", "0.1", "-b", "2")),
        ({"flag": "true", "none": "null"}, ("--flag", "True", "--none", "")),
        ({"map": '{"b": 1, "a": 2}', "list": "[1, 2]"}, ("--list", "[1, 2]", "--map", "a=2,b=1")),
        ({"odd": "[" * 10**5}, ("--odd", "[" * 10**5)),
    ],
)
def test_hyperparameters_become_arguments_as_the_toolkit_makes_them(
    given: dict[str, str], arguments: tuple[str, ...]
) -> None:
    assert contract.user_arguments(given) == arguments


def test_the_failure_file_is_cut_to_its_first_1024_characters(folder: JobFolder) -> None:
    contract.lay_out(folder, SPEC)
    (folder.output / "failure").write_text("ü" * 2000)
    assert contract.read_failure(folder) == "ü" * 1024


def test_a_failure_file_of_odd_bytes_is_still_text(folder: JobFolder) -> None:
    contract.lay_out(folder, SPEC)
    (folder.output / "failure").write_bytes(b"out of \xff\xfe memory\0\n")
    assert contract.read_failure(folder) == "out of �� memory"


def test_no_failure_file_or_an_empty_one_is_none(folder: JobFolder) -> None:
    assert contract.read_failure(folder) is None
    contract.lay_out(folder, SPEC)
    (folder.output / "failure").write_text("\n")
    assert contract.read_failure(folder) is None


def test_a_failure_file_that_is_a_link_a_folder_or_a_pipe_is_none(folder: JobFolder, tmp_path: Path) -> None:
    contract.lay_out(folder, SPEC)
    failure = folder.output / "failure"
    (tmp_path / "shadow").write_text("the host's secret")
    failure.symlink_to(tmp_path / "shadow")
    assert contract.read_failure(folder) is None
    failure.unlink()
    failure.mkdir()
    assert contract.read_failure(folder) is None
    failure.rmdir()
    os.mkfifo(failure)
    assert contract.read_failure(folder) is None


SECOND_OF_TWO = contract.Seat(Place(machine_index=1, machine_count=2, containers_per_machine=2), index=1)


def test_a_container_learns_that_it_is_container_x_of_n_on_machine_y_of_m(folder: JobFolder) -> None:
    contract.lay_out(folder, SPEC, SECOND_OF_TWO)
    told = read(folder, "resourceconfig.json")
    assert told["current_host"] == "algo-4"
    assert told["hosts"] == ["algo-1", "algo-2", "algo-3", "algo-4"]
    assert told["instance_groups"][0]["hosts"] == told["hosts"]
    seat = ("container_index", "container_count", "machine_index", "machine_count", "rank", "world_size")
    assert [told[name] for name in seat] == [1, 2, 1, 2, 3, 4]


def test_hosts_are_sorted_by_name_as_sagemaker_sorts_them() -> None:
    many = contract.Seat(Place(machine_count=1, containers_per_machine=11), index=10)
    assert contract.resource_config(SPEC, many)["hosts"][:3] == ["algo-1", "algo-10", "algo-11"]


def test_the_environment_says_what_distributed_frameworks_look_for() -> None:
    told = contract.environment(SPEC, SECOND_OF_TWO)
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
    assert [told[name] for name in names] == ["algo-1", "29500", "3", "4", "1", "2", "1"]


def test_a_lone_container_is_not_told_to_wait_for_others() -> None:
    assert "WORLD_SIZE" not in contract.environment(SPEC)


def test_whole_channels_are_shared_by_a_machines_containers_and_shards_are_not(tmp_path: Path) -> None:
    shard = dataclasses.replace(SPEC.channels[1], distribution="ShardedByS3Key")
    spec = dataclasses.replace(SPEC, channels=(SPEC.channels[0], shard))
    folder = JobFolder(tmp_path / "0", tmp_path / "channels", tmp_path / "checkpoints")
    contract.lay_out(folder, spec)
    assert folder.place(spec.channels[0]) == tmp_path / "channels" / "train"
    assert folder.place(shard) == tmp_path / "0" / "channels" / "validation"
    seen = {mount.target: mount.source for mount in contract.mounts(folder, spec)}
    assert seen["/opt/ml/input/data/train"] == str(folder.channel(spec.channels[0]))
    assert seen["/opt/ml/input/data/validation"] == str(folder.channel(shard))
    assert (tmp_path / "0" / "input" / "data" / "train").is_dir(), "the place to mount it"


def test_hyperparameters_are_replaced_at_once_and_no_link_of_the_containers_is_followed(tmp_path: Path) -> None:
    folder = JobFolder.of_one(tmp_path / "job")
    contract.lay_out(folder, SPEC)
    victim = tmp_path / "victim"
    victim.write_text("not the container's")
    target = folder.config / "hyperparameters.json"
    target.unlink()
    target.symlink_to(victim)
    changed = dataclasses.replace(SPEC, hyperparameters={"rate": "2"})
    contract.write_hyperparameters(folder, changed)
    assert json.loads(target.read_text()) == {"rate": "2"}
    assert not target.is_symlink()
    assert victim.read_text() == "not the container's"
    assert sorted(path.name for path in folder.config.iterdir()) == [
        "hyperparameters.json",
        "inputdataconfig.json",
        "resourceconfig.json",
    ]
    shutil.rmtree(folder.config)
    folder.config.symlink_to(tmp_path)
    with pytest.raises(OSError, match="config"):
        contract.write_hyperparameters(folder, changed)
    assert not (tmp_path / "hyperparameters.json").exists()


@pytest.mark.parametrize("model", [True, False])
def test_what_replaced_containers_left_goes_as_asked(tmp_path: Path, *, model: bool) -> None:
    folder = JobFolder.of_one(tmp_path / "job")
    contract.lay_out(folder, SPEC)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (folder.output / "failure").write_text("old words")
    (folder.model / "part").mkdir()
    (folder.model / "part" / "weights").touch()
    (folder.model / "link").symlink_to(kept)
    contract.clear_old(folder, model=model)
    assert contract.read_failure(folder) is None
    assert sorted(path.name for path in folder.model.iterdir()) == ([] if model else ["link", "part"])
    assert (kept / "file").exists()


def test_the_cache_of_a_warm_pool_is_there_for_its_jobs_and_no_others(folder: JobFolder, tmp_path: Path) -> None:
    name = "SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY"
    pooled = dataclasses.replace(SPEC, warm_pool="pool")
    kept = dataclasses.replace(folder, pool_cache=tmp_path / "pools" / "pool" / "0")
    for _ in range(2):  # the second job finds it
        contract.lay_out(kept, pooled)
    assert (tmp_path / "pools" / "pool" / "0").stat().st_mode & 0o777 == 0o777
    target = contract.environment(pooled)[name]
    assert target == "/opt/ml/sagemaker/warmpoolcache"
    assert [mount.source for mount in contract.mounts(kept, pooled) if mount.target == target] == [str(kept.pool_cache)]
    assert name not in contract.environment(SPEC)
    assert target not in [mount.target for mount in contract.mounts(folder, SPEC)]
