"""A job of several containers on one machine, through the supervisor alone: real containers, no platform around it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from raymaker.actors.reports import Outcome
from raymaker.actors.runtime.select import select_runtime
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec, Network
from raymaker.actors.storage import StoreConfig
from support.faults import eventually
from support.supervised import Trial

PREAMBLE = """
import json, os, sys, time
seat = json.load(open("/opt/ml/input/config/resourceconfig.json"))
rank = seat["rank"]
def save(name, text):
    with open("/opt/ml/model/" + name, "w") as file:
        file.write(text)
"""
EXCHANGE = (
    PREAMBLE
    + """
import array, raymaker_exchange
"""
)


@pytest.fixture(params=["docker", "process"])
def trial(
    request: pytest.FixtureRequest, engine: docker.DockerClient, base_image: str, tmp_path: Path
) -> Iterator[Trial]:
    home = tmp_path / "home"
    home.mkdir()
    site = Site(home, request.param, StoreConfig(), base_image, stop_grace_s=2.0)
    runtime = select_runtime(request.param, home)
    yield Trial(site, runtime, tmp_path)
    assert runtime.owned({"raymaker.home": str(home)}) == [], "a container was left behind"
    assert list(Path("/dev/shm").glob(f"raymaker-{site.tag}-*")) == [], "shared memory was left behind"
    assert list((home / "jobs").glob("*/*")) == [], "a job's folder was left behind"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def members(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as opened:
        return {it.name: opened.extractfile(it).read().decode() for it in opened if it.isfile()}


def test_every_container_knows_its_place_and_what_all_leave_becomes_one_model(trial: Trial) -> None:
    script = PREAMBLE + "save(f'part-{rank}', json.dumps([seat, os.environ['RANK'], os.environ['WORLD_SIZE']]))"
    end = trial.run(script, containers_per_instance=3)
    assert end.outcome is Outcome.COMPLETED
    found = members(trial.output / "model.tar.gz")
    assert sorted(found) == ["part-0", "part-1", "part-2"]
    for rank in range(3):
        seat, told_rank, told_size = json.loads(found[f"part-{rank}"])
        assert (seat["current_host"], seat["container_index"], seat["container_count"]) == (f"algo-{rank + 1}", rank, 3)
        assert (told_rank, told_size) == (str(rank), "3")
    note = json.loads((trial.output / "containers.json").read_text())
    assert [(it["host"], it["rank"], it["files"]) for it in note["containers"]] == [
        (f"algo-{rank + 1}", rank, [f"part-{rank}"]) for rank in range(3)
    ]


def test_files_of_one_name_that_differ_are_told_and_the_lowest_rank_wins(trial: Trial) -> None:
    end = trial.run(PREAMBLE + "save('same', 'alike'); save('mine', str(rank))", containers_per_instance=2)
    assert end.outcome is Outcome.COMPLETED
    assert members(trial.output / "model.tar.gz") == {"same": "alike", "mine": "0"}
    (kind, message) = trial.kept.notes[-1]
    assert kind == "ModelDataConflict"
    assert "mine" in message


def test_each_containers_log_is_a_stream_of_its_own(trial: Trial) -> None:
    trial.run("import os; print('I am', os.environ['RANK'])", containers_per_instance=2)
    job = trial.spec.job_name
    assert dict(trial.kept.lines.items()) == {
        f"{job}/algo-1-1": ["I am 0"],
        f"{job}/algo-2-1": ["I am 1"],
    }


def test_the_containers_add_up_what_each_has(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
with raymaker_exchange.join() as exchange:
    values = array.array("d", [rank + 1.0] * 1000)
    exchange.all_reduce(values)
    assert list(values) == [6.0] * 1000, values[:3]
    exchange.barrier()
save(f"sum-{rank}", str(values[0]))
"""
    )
    end = trial.run(script, containers_per_instance=3)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    assert set(members(trial.output / "model.tar.gz").values()) == {"6.0"}


def test_the_numbers_that_containers_tell_reach_the_platform_to_the_last(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
with raymaker_exchange.join() as exchange:
    for step in range(50):
        exchange.log_metrics({"loss": 1 / (step + 1), "bad": float("nan")}, step)
    exchange.log_metrics({"last": rank})
"""
    )
    end = trial.run(script, containers_per_instance=2)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    losses = [(it.rank, it.step, it.value) for it in trial.kept.numbers if it.name == "loss"]
    assert sorted(losses) == [(rank, step, 1 / (step + 1)) for rank in range(2) for step in range(50)]
    assert sum(math.isnan(it.value) for it in trial.kept.numbers if it.name == "bad") == 100
    assert sorted((it.rank, it.step, it.value) for it in trial.kept.numbers if it.name == "last") == [
        (0, None, 0.0),
        (1, None, 1.0),
    ]


def test_a_lone_container_can_use_the_exchange_too(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
with raymaker_exchange.join() as exchange:
    values = array.array("f", [1.0, 2.0])
    exchange.all_reduce(values, "mean")
    exchange.push("step", b"7")
save("sum", str([exchange.rank, exchange.world_size, list(values)]))
"""
    )
    end = trial.run(script)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    assert members(trial.output / "model.tar.gz") == {"sum": "[0, 1, [1.0, 2.0]]"}


def test_the_error_of_one_container_fails_the_job_in_its_own_words_and_ends_the_others(trial: Trial) -> None:
    script = (
        PREAMBLE
        + """
if rank == 1:
    open("/opt/ml/output/failure", "w").write("the labels are missing")
    sys.exit(3)
time.sleep(600)
"""
    )
    end = trial.run(script, containers_per_instance=2)
    assert end.outcome is Outcome.FAILED
    assert end.failure_reason == "AlgorithmError: algo-2 (rank 1 of 2): the labels are missing, exit code: 3"


def test_those_who_wait_for_a_rank_that_fails_hear_at_once_which_one_it_was(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
exchange = raymaker_exchange.join()
if rank == 0:
    time.sleep(1)
    sys.exit("no data here")
exchange.all_reduce(array.array("f", [0.0] * 4))
"""
    )
    end = trial.run(script, containers_per_instance=3)
    assert end.outcome is Outcome.FAILED
    assert "algo-1 (rank 0 of 3)" in end.failure_reason
    assert "no data here" in end.failure_reason
    for host in ("algo-2", "algo-3"):
        said = "\n".join(trial.kept.lines[f"{trial.spec.job_name}/{host}-1"])
        assert "rank 0" in said


def test_a_container_that_is_killed_from_outside_costs_the_attempt_and_not_the_job(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
exchange = raymaker_exchange.join()
print("training", flush=True)
while True:
    exchange.barrier()
"""
    )
    supervisor = trial.begin(script, containers_per_instance=2)
    trial.kept.until_said("training", 2)
    handles = trial.runtime.owned({"raymaker.job": trial.spec.job_name, "raymaker.rank": "1"})
    os.kill(trial.runtime.inspect(handles[0][0]).pid, signal.SIGKILL)
    assert supervisor.wait(60)
    assert (trial.kept.end.phase, trial.kept.outcome) == ("Interrupted", None)
    assert "algo-2 (rank 1 of 2)" in trial.kept.end.message


def test_a_stop_reaches_every_container_and_what_they_leave_is_stored(trial: Trial) -> None:
    script = (
        PREAMBLE
        + """
import signal
def stop(*_):
    save(f"left-{rank}", "on stop")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("training", flush=True)
time.sleep(600)
"""
    )
    supervisor = trial.begin(script, containers_per_instance=2)
    trial.kept.until_said("training", 2)
    supervisor.stop()
    assert supervisor.wait(60)
    assert trial.kept.outcome is Outcome.STOPPED
    assert sorted(members(trial.output / "model.tar.gz")) == ["left-0", "left-1"]


def test_a_sharded_channel_is_dealt_out_and_a_whole_one_is_shared(trial: Trial) -> None:
    data = trial.folder / "data"
    data.mkdir()
    for number in range(4):
        (data / f"part-{number}").write_text(str(number) * 10)
    channels = (
        ChannelSpec("shard", data.as_uri(), distribution="ShardedByS3Key"),
        ChannelSpec("whole", data.as_uri()),
    )
    script = (
        PREAMBLE
        + """
seen = {name: sorted(os.listdir("/opt/ml/input/data/" + name)) for name in ("shard", "whole")}
save(f"seen-{rank}", json.dumps(seen))
"""
    )
    end = trial.run(script, containers_per_instance=2, channels=channels)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    seen = [json.loads(text) for _, text in sorted(members(trial.output / "model.tar.gz").items())]
    names = [f"part-{number}" for number in range(4)]
    assert [it["whole"] for it in seen] == [names, names]
    assert [len(it["shard"]) for it in seen] == [2, 2]
    assert sorted(seen[0]["shard"] + seen[1]["shard"]) == names


def test_more_containers_than_objects_is_said_before_anything_starts(trial: Trial) -> None:
    data = trial.folder / "data"
    data.mkdir()
    (data / "only").write_text("1")
    channel = ChannelSpec("train", data.as_uri(), distribution="ShardedByS3Key")
    end = trial.run("", containers_per_instance=2, channels=(channel,))
    assert end.outcome is Outcome.FAILED
    assert "channel train" in end.failure_reason
    assert "Record" in end.failure_reason, "the remedy"


def test_each_container_reads_its_own_pipes_pass_after_pass(trial: Trial) -> None:
    data = trial.folder / "data"
    data.mkdir()
    parts = [os.urandom(size) for size in (3_000_000, 5, 70_000, 2_000_000)]
    for number, part in enumerate(parts):
        (data / str(number)).write_bytes(part)
    script = (
        PREAMBLE
        + """
import hashlib
config = json.load(open("/opt/ml/input/config/inputdataconfig.json"))
assert config["whole"]["TrainingInputMode"] == "Pipe", config
folder = "/opt/ml/input/data/"
for channel in ("whole", "part"):
    for number in range(3):
        pipe = open(folder + f"{channel}_{number}", "rb")
        save(f"{channel}-{number}-{rank}", hashlib.sha256(pipe.read()).hexdigest())
        pipe.close()
print(sorted(os.listdir(folder)), flush=True)
"""
    )
    whole = ChannelSpec("whole", data.as_uri(), input_mode="Pipe")
    part = ChannelSpec("part", data.as_uri(), input_mode="Pipe", distribution="ShardedByS3Key")
    end = trial.run(script, containers_per_instance=2, channels=(whole, part))
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    found = members(trial.output / "model.tar.gz")
    shares = [digest(parts[0] + parts[1]), digest(parts[2] + parts[3])]
    for number in range(3):
        assert [found[f"whole-{number}-{rank}"] for rank in range(2)] == [digest(b"".join(parts))] * 2
        assert [found[f"part-{number}-{rank}"] for rank in range(2)] == shares
    total = 3 * sum(map(len, parts))
    assert (
        "ChannelStreamed",
        f"Channel whole: algo-1 {total} bytes in 3 passes, algo-2 {total} bytes in 3 passes",
    ) in (trial.kept.notes)


def test_a_stream_that_breaks_fails_the_job_by_the_objects_name_and_never_looks_like_its_end(trial: Trial) -> None:
    data = trial.folder / "data"
    data.mkdir()
    (data / "a").write_bytes(bytes(5_000_000))
    script = (
        PREAMBLE
        + """
with open("/opt/ml/input/data/train_0", "rb") as pipe:
    pipe.read(10)
    print("reading", flush=True)
    while not os.path.exists("/opt/ml/input/config/changed"):
        time.sleep(0.05)
    while pipe.read(4096):
        pass
print("the pass has ended", flush=True)
"""
    )
    supervisor = trial.begin(script, channels=(ChannelSpec("train", data.as_uri(), input_mode="Pipe"),))
    trial.kept.until_said("reading")
    (data / "a").write_bytes(b"1" * 5_000_000)
    (trial.site.home / "jobs" / trial.spec.job_name / "1" / "0" / "input" / "config" / "changed").touch()
    assert supervisor.wait(60)
    assert trial.kept.outcome is Outcome.FAILED
    assert trial.kept.end.failure_reason == (
        f"ClientError: channel train: {(data / 'a').as_uri()} changed while it was read: "
        "write new data under new names while jobs read the old"
    )
    assert not any("the pass has ended" in line for lines in trial.kept.lines.values() for line in lines)


def test_a_new_attempt_goes_on_from_the_last_whole_checkpoint(trial: Trial) -> None:
    script = (
        EXCHANGE
        + """
folder = "/opt/ml/checkpoints/"
done = max([int(name.split("-")[1]) for name in os.listdir(folder) if name.startswith("step-")], default=0)
print("from", done, flush=True)
exchange = raymaker_exchange.join()
for step in range(done + 1, 4):
    exchange.barrier()
    if rank == 0:
        with open(folder + f".tmp-{step}", "w") as file:
            file.write("weights")
        os.rename(folder + f".tmp-{step}", folder + f"step-{step}")
    if step == 2 and done == 0:
        print("waiting", flush=True)
        time.sleep(600)
"""
    )
    checkpoints = trial.folder / "checkpoints"
    changes = {"containers_per_instance": 2, "checkpoint_uri": checkpoints.as_uri()}
    supervisor = trial.begin(script, **changes)
    trial.kept.until_said("waiting", 2)
    eventually((checkpoints / "step-2").exists, "step 2 is stored")
    eventually(lambda: any("step-2" in text for kind, text in trial.kept.notes), "its storing is told")
    handles = trial.runtime.owned({"raymaker.job": trial.spec.job_name, "raymaker.rank": "0"})
    os.kill(trial.runtime.inspect(handles[0][0]).pid, signal.SIGKILL)
    assert supervisor.wait(60)
    assert trial.kept.end.phase == "Interrupted"
    end = trial.run(script, attempt=2, job_name=trial.spec.job_name, **changes)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    for host in ("algo-1", "algo-2"):
        assert trial.kept.lines[f"{trial.spec.job_name}/{host}-2"][0] == "from 2"


def test_containers_reach_each_other_by_name_where_the_network_is_open(trial: Trial) -> None:
    script = (
        PREAMBLE
        + """
import socket
if rank == 0:
    with socket.create_server(("algo-1", 29500)) as server:
        print("listening", flush=True)
        peer = server.accept()[0]
        save("heard", peer.recv(100).decode())
else:
    for _ in range(200):
        try:
            with socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))) as peer:
                peer.sendall(b"hello from algo-2")
                break
        except OSError:
            time.sleep(0.1)
"""
    )
    end = trial.run(script, containers_per_instance=2, network=Network.OPEN)
    assert end.outcome is Outcome.COMPLETED, end.failure_reason
    assert members(trial.output / "model.tar.gz") == {"heard": "hello from algo-2"}
