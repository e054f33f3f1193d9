"""What every container driver does, whatever it is made of."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from contract.runtime_harness import SHARED, SOON_S, Harness, eventually, processes_with

from raymaker.actors.errors import ContainerMissing, StartError
from raymaker.actors.runtime.base import LABEL_HOME, LABEL_OWNER, ContainerHandle, Phase
from raymaker.actors.spec import Mount, Network

WAIT_FOR_GO = f"while [ ! -e {SHARED}/go ]; do sleep 0.05; done"
LISTEN = 'trap "echo goodbye; exit 3" TERM; echo ready; while :; do sleep 0.05; done'


def go(harness: Harness) -> None:
    (harness.shared / "go").touch()


def test_the_exit_code_is_the_programs_own(harness: Harness) -> None:
    status = harness.runtime().wait(harness.start("exit 7"), SOON_S)
    assert status is not None
    assert (status.code, status.signal, status.oom_killed, status.lost) == (7, None, False, False)


def test_a_program_that_a_signal_ended_is_told_as_such(harness: Harness) -> None:
    status = harness.runtime().wait(harness.start("kill -SEGV $$"), SOON_S)
    assert status is not None
    assert (status.code, status.signal) == (139, signal.SIGSEGV)


def test_waiting_gives_up_when_the_time_is_over(harness: Harness) -> None:
    handle = harness.start("sleep 600")
    assert harness.runtime().wait(handle, 0) is None
    assert harness.runtime().wait(handle, 0.2) is None


def test_inspect_tells_the_whole_life(harness: Harness) -> None:
    before = time.time()
    handle = harness.start(WAIT_FOR_GO)
    running = harness.runtime().inspect(handle)
    assert running.phase is Phase.RUNNING
    assert running.exit_status is None
    assert running.pid is not None
    assert before - 1 < (running.started_at or 0) < time.time() + 1
    go(harness)
    status = harness.runtime().wait(handle, SOON_S)
    ended = harness.runtime().inspect(handle)
    assert ended.phase is Phase.EXITED
    assert ended.exit_status == status
    assert (running.started_at or 0) <= (ended.finished_at or 0) < time.time() + 1
    harness.runtime().remove(handle)
    assert harness.runtime().inspect(handle).phase is Phase.MISSING


def test_starting_a_name_again_reattaches_and_runs_nothing_twice(harness: Harness) -> None:
    spec = harness.spec(f"echo run >>{SHARED}/runs; {WAIT_FOR_GO}")
    first = harness.runtime().start(spec)
    assert harness.runtime().start(spec) == first
    go(harness)
    harness.runtime().wait(first, SOON_S)
    assert harness.runtime().start(spec) == first, "an ended container is taken up too"
    assert (harness.shared / "runs").read_text() == "run\n"


def test_of_several_that_start_a_name_at_once_all_get_the_same_container(harness: Harness) -> None:
    spec = harness.spec(f"echo run >>{SHARED}/runs; sleep 600")
    with ThreadPoolExecutor(4) as pool:
        handles = list(pool.map(lambda _: harness.runtime().start(spec), range(4)))
    assert len(set(handles)) == 1
    eventually((harness.shared / "runs").exists)
    assert (harness.shared / "runs").read_text() == "run\n"


def test_the_environment_holds_what_was_asked_for_and_nothing_of_the_platforms(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the platform's")
    monkeypatch.setenv("RAY_ADDRESS", "the platform's")
    said = harness.run("env", environment={"GREETING": "good morning", "EMPTY": "", "ODD": "ü = $x"})
    seen = dict(line.split("=", 1) for line in said)
    assert {name: seen[name] for name in ("GREETING", "EMPTY", "ODD")} == {
        "GREETING": "good morning",
        "EMPTY": "",
        "ODD": "ü = $x",
    }
    own = {"PATH", "HOME", "LANG", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "CUDA_VISIBLE_DEVICES"}
    assert set(seen) - own == {"GREETING", "EMPTY", "ODD"}


def test_mounts_are_seen_where_they_belong(harness: Harness) -> None:
    (harness.home / "data").mkdir()
    (harness.home / "data" / "rows.csv").write_text("1,2")
    (harness.home / "one.json").write_text("{}")
    mounts = (
        Mount(str(harness.home / "data"), "/opt/ml/input/data/train"),
        Mount(str(harness.home / "one.json"), "/opt/ml/input/config/one.json"),
        Mount(str(harness.home / "data"), "/somewhere/else/altogether"),
    )
    said = harness.run(
        "cat /opt/ml/input/data/train/rows.csv /opt/ml/input/config/one.json /somewhere/else/altogether/rows.csv;"
        "echo written >/opt/ml/input/data/train/back",
        mounts=mounts,
    )
    assert said == ["1,2{}1,2"]
    assert (harness.home / "data" / "back").read_text() == "written\n"


def test_a_mount_may_lie_in_another(harness: Harness) -> None:
    for name in ("outer", "inner"):
        (harness.home / name).mkdir()
        (harness.home / name / "name").write_text(name)
    mounts = (
        Mount(str(harness.home / "inner"), "/opt/ml/input/data"),
        Mount(str(harness.home / "outer"), "/opt/ml/input"),
    )
    assert harness.run("cat /opt/ml/input/name /opt/ml/input/data/name", mounts=mounts) == ["outerinner"]


def test_a_read_only_mount_cannot_be_written(harness: Harness) -> None:
    (harness.home / "model").mkdir()
    mounts = (Mount(str(harness.home / "model"), "/opt/ml/model", read_only=True),)
    said = harness.run("touch /opt/ml/model/x 2>/dev/null && echo written || echo refused", mounts=mounts)
    assert said == ["refused"]
    assert not list((harness.home / "model").iterdir())


def test_a_mount_of_what_is_not_there_is_refused_by_name(harness: Harness) -> None:
    missing = str(harness.home / "not-there")
    with pytest.raises(StartError, match=missing):
        harness.start("true", mounts=(Mount(missing, "/opt/ml/input"),))
    assert not harness.runtime().owned({LABEL_HOME: str(harness.home)})


def test_log_lines_come_in_order_with_increasing_times(harness: Harness) -> None:
    began = time.time_ns()
    handle = harness.start("for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; echo trouble >&2; printf 'no newline'")
    harness.runtime().wait(handle, SOON_S)
    lines = list(harness.runtime().logs(handle))
    said = [line.text for line in lines]
    assert [text for text in said if text.startswith("line")] == [f"line {i}" for i in range(1, 10)]
    assert sorted(text for text in said if not text.startswith("line")) == ["no newline", "trouble"]
    times = [line.time_ns for line in lines]
    assert times == sorted(set(times))
    assert began - 10**9 < times[0] <= times[-1] < time.time_ns() + 10**9


def test_reading_a_log_goes_on_after_any_line(harness: Harness) -> None:
    handle = harness.start("seq 1 300")
    harness.runtime().wait(handle, SOON_S)
    lines = list(harness.runtime().logs(handle))
    assert [line.text for line in lines] == [str(i) for i in range(1, 301)]
    for position in (0, 1, 137, 298, 299):
        assert list(harness.runtime().logs(handle, lines[position].time_ns)) == lines[position + 1 :]


def test_a_followed_log_tells_lines_as_they_come_and_ends_with_the_container(harness: Harness) -> None:
    handle = harness.start(f"echo first; {WAIT_FOR_GO}; echo second; echo last >&2")
    following = harness.runtime().logs(handle, follow=True)
    assert next(following).text == "first"
    assert harness.runtime().inspect(handle).phase is Phase.RUNNING
    go(harness)
    assert sorted(line.text for line in following) == ["last", "second"]


def test_odd_and_endless_lines_do_not_break_the_log(harness: Harness) -> None:
    handle = harness.start(r"printf 'caf\303\251 \377\n\n'; head -c 1000000 /dev/zero | tr '\0' x; echo; echo end")
    harness.runtime().wait(handle, SOON_S)
    said = harness.said(handle)
    assert said[:2] == ["café �", ""]
    assert said[-1] == "end"
    assert "".join(said[2:-1]) == "x" * 1_000_000
    assert max(map(len, said)) <= 512 * 1024


def test_stop_reaches_the_script_which_ends_as_it_likes(harness: Harness) -> None:
    handle = harness.start(LISTEN)
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, SOON_S)
    status = harness.runtime().wait(handle, 0)
    assert status is not None
    assert status.code == 3
    assert "goodbye" in harness.said(handle)


def test_stop_reaches_a_script_that_a_shell_waits_for(harness: Harness) -> None:
    """The shell in front does not listen and would die of the signal, and its script unwarned with it."""
    handle = harness.start(f"sh -c '{LISTEN}'; exit $?")
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, SOON_S)
    status = harness.runtime().wait(handle, 0)
    assert status is not None
    assert status.code == 3
    assert "goodbye" in harness.said(handle)


WORKERS = f"""
import signal, subprocess, sys
worker = subprocess.Popen(["sh", "-c", "while [ ! -e {SHARED}/go ]; do sleep 0.05; done; echo the worker goes on"])
def end(*_):
    open("{SHARED}/go", "w").close()
    sys.exit(worker.wait())
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_stop_leaves_the_workers_of_a_listening_program_to_it(harness: Harness) -> None:
    """It may need them to store what it has."""
    (harness.shared / "main.py").write_text(WORKERS)
    handle = harness.start(f"python3 {SHARED}/main.py; exit $?")
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, SOON_S)
    status = harness.runtime().wait(handle, 0)
    assert status is not None
    assert status.code == 0
    assert harness.said(handle) == ["ready", "the worker goes on"]


def test_stop_interrupts_what_a_listening_shell_waits_for(harness: Harness) -> None:
    handle = harness.start('trap "echo goodbye; exit 3" TERM; echo ready; sleep 600')
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, SOON_S)
    assert "goodbye" in harness.said(handle)


def test_a_program_that_does_not_listen_ends_at_once_by_sigterm(harness: Harness) -> None:
    handle = harness.start("echo ready; sleep 600")
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, SOON_S)
    status = harness.runtime().wait(handle, 0)
    assert status is not None
    assert status.signal == signal.SIGTERM


def test_a_program_that_will_not_end_is_killed_after_its_grace(harness: Harness) -> None:
    handle = harness.start('trap "" TERM; echo ready; while :; do sleep 0.05; done')
    harness.wait_for(handle, "ready")
    harness.runtime().stop(handle, 0.3)
    status = harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert (status.code, status.signal) == (137, signal.SIGKILL)


def test_stopping_what_has_ended_or_is_gone_is_no_error(harness: Harness) -> None:
    handle = harness.start("exit 4")
    harness.runtime().wait(handle, SOON_S)
    harness.runtime().stop(handle, 1)
    status = harness.runtime().wait(handle, 0)
    assert status is not None
    assert status.code == 4
    harness.runtime().remove(handle)
    harness.runtime().stop(handle, 1)
    harness.runtime().remove(handle)


def test_a_container_that_somebody_kills_is_seen_to_end(harness: Harness) -> None:
    handle = harness.start("echo ready; sleep 600")
    harness.wait_for(handle, "ready")
    pid = harness.runtime().inspect(handle).pid
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(harness.runtime().wait, handle, SOON_S)
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        status = waiting.result()
    assert status is not None
    assert (status.code, status.signal) == (137, signal.SIGKILL)


def test_another_process_takes_a_container_up_by_its_handle(harness: Harness) -> None:
    handle = pickle.loads(pickle.dumps(harness.start(f"echo hello; {WAIT_FOR_GO}; exit 5")))
    harness.wait_for(handle, "hello")
    go(harness)
    status = harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert status.code == 5


STARTER = """
import json, pickle, sys, time
from dataclasses import asdict
runtime, spec = pickle.loads(bytes.fromhex(sys.argv[1]))
print(json.dumps(asdict(runtime.start(spec))), flush=True)
time.sleep(600)
"""


def test_a_container_outlives_the_process_that_started_it(harness: Harness) -> None:
    told = pickle.dumps((harness.runtime(), harness.spec(f"echo hello; {WAIT_FOR_GO}; echo still here; exit 5")))
    starter = subprocess.Popen([sys.executable, "-c", STARTER, told.hex()], stdout=subprocess.PIPE, text=True)
    with starter:
        assert starter.stdout is not None
        handle = ContainerHandle(**json.loads(starter.stdout.readline()))
        starter.kill()
    assert harness.runtime().inspect(handle).phase is Phase.RUNNING
    go(harness)
    status = harness.runtime().wait(handle, SOON_S)
    assert status is not None
    assert (status.code, harness.said(handle)) == (5, ["hello", "still here"])


def test_nothing_of_a_removed_container_is_left_running(harness: Harness) -> None:
    mark = f"600.{uuid.uuid4().int % 10**9}"
    handle = harness.start(f"setsid sleep {mark} & (sleep {mark} &) ; echo ready; sleep {mark}")
    harness.wait_for(handle, "ready")
    eventually(lambda: len(processes_with(mark)) == 3)
    harness.runtime().remove(handle)
    assert not processes_with(mark)
    assert not harness.runtime().owned({LABEL_HOME: str(harness.home)})


def test_what_a_program_leaves_running_ends_with_it(harness: Harness) -> None:
    mark = f"600.{uuid.uuid4().int % 10**9}"
    handle = harness.start(f"setsid sleep {mark} & echo done")
    assert harness.runtime().wait(handle, SOON_S) is not None
    eventually(lambda: not processes_with(mark))


def test_a_missing_program_is_told_by_name_and_leaves_nothing(harness: Harness) -> None:
    with pytest.raises(StartError, match="no program 'trian'.*PATH"):
        harness.start("", command=("trian", "--epochs", "3"))
    assert not harness.runtime().owned({LABEL_HOME: str(harness.home)})


def test_a_program_that_is_not_executable_is_told_by_name(harness: Harness) -> None:
    (harness.shared / "train").write_text("#!/bin/sh\n")
    with pytest.raises(StartError, match="not executable: chmod"):
        harness.start("", command=(f"{SHARED}/train",))


def test_an_entrypoint_goes_before_the_command(harness: Harness) -> None:
    said = harness.run("", entrypoint=("sh", "-c", 'echo "$0 and $1"'), command=("one", "two words"))
    assert said == ["one and two words"]


def test_what_is_gone_is_told_as_missing(harness: Harness) -> None:
    handle = harness.start("true")
    harness.runtime().remove(handle)
    assert harness.runtime().inspect(handle).phase is Phase.MISSING
    with pytest.raises(ContainerMissing, match=handle.name):
        harness.runtime().wait(handle, SOON_S)
    with pytest.raises(ContainerMissing, match=handle.name):
        list(harness.runtime().logs(handle))


def test_a_new_container_of_an_old_name_is_another_one(harness: Harness) -> None:
    spec = harness.spec("true")
    old = harness.runtime().start(spec)
    harness.runtime().remove(old)
    new = harness.runtime().start(spec)
    assert new.id != old.id
    harness.runtime().remove(old)
    assert harness.runtime().inspect(new).phase is not Phase.MISSING
    assert harness.runtime().inspect(old).phase is Phase.MISSING


def test_waiting_ends_when_the_container_is_removed(harness: Harness) -> None:
    handle = harness.start("sleep 600")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(harness.runtime().wait, handle, SOON_S)
        time.sleep(0.1)
        harness.runtime().remove(handle)
        try:
            status = waiting.result()
        except ContainerMissing:
            return
    assert status is not None
    assert status.signal == signal.SIGKILL


def test_containers_are_found_by_their_labels(harness: Harness) -> None:
    mine = harness.start("true", labels={LABEL_OWNER: "mine", "raymaker.attempt": "1"})
    harness.start("true", labels={LABEL_OWNER: "another"})
    home = {LABEL_HOME: str(harness.home)}
    assert len(harness.runtime().owned(home)) == 2
    ((found, labels),) = harness.runtime().owned({**home, LABEL_OWNER: "mine"})
    assert found == mine
    assert asdict(found)["driver"] == harness.driver
    assert dict(labels) == {**home, LABEL_OWNER: "mine", "raymaker.attempt": "1"}


def test_without_a_network_there_is_only_loopback(harness: Harness) -> None:
    said = harness.run("tail -n +3 /proc/net/dev | cut -d: -f1; cat /sys/class/net/lo/operstate 2>/dev/null; true")
    assert said[0].strip() == "lo"
    assert not any(line.strip().startswith(("eth", "en", "wl", "docker")) for line in said)


SERVE = "python3 -m http.server --directory {shared} {port}"


def test_a_scoring_container_answers_at_its_address(harness: Harness) -> None:
    (harness.shared / "ping").write_text("pong")
    port = 8080 if harness.driver == "docker" else 18_431
    handle = harness.start(f"exec {SERVE.format(shared=SHARED, port=port)}", network=Network.INTERNAL)
    address = harness.runtime().inspect(handle).address
    assert address is not None

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/ping", timeout=2) as answer:
                return bool(answer.read() == b"pong")
        except OSError:
            return False

    eventually(answers)


def test_the_host_name_is_the_one_asked_for(harness: Harness) -> None:
    said = harness.run("hostname", hostname="algo-1")
    assert said == ["algo-1"]


def test_shared_memory_is_private_and_as_large_as_asked_for(harness: Harness) -> None:
    said = harness.run("df -k /dev/shm | tail -n 1; touch /dev/shm/of-mine; ls /dev/shm", shm_bytes=128 * 1024 * 1024)
    assert said[0].split()[1] == str(128 * 1024)
    assert said[1:] == ["of-mine"]


def test_programs_cannot_gain_privileges(harness: Harness) -> None:
    assert harness.run("grep NoNewPrivs /proc/self/status") == ["NoNewPrivs:\t1"]


def test_where_containers_share_the_machines_network_names_lead_to_the_machines(harness: Harness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
            getent hosts algo-1 algo-2
            perl -MIO::Socket::INET -e 'IO::Socket::INET->new("127.0.0.1:{port}") or die "not reached"'
        """
        fields = {"hostname": "algo-1", "peers": ("algo-1",), "hosts": {"algo-2": "192.0.2.77"}, "group": "far"}
        said = harness.run(script, network=Network.HOST, **fields)
    assert said[-1].split() == ["192.0.2.77", "algo-2"]
    assert said[0].split()[-1] == "algo-1"
