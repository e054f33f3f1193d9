"""The hub over its sockets: ranks that are processes of their own, curl, a C program, and all that they do wrong."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest

from raymaker.actors.errors import WorkError
from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.exchange.seam import Call, ExchangeError, Failure, Values
from raymaker.actors.exchange.values import LocalValues
from raymaker.actors.exchange.wire import Limits
from raymaker.actors.spec import Place

EXAMPLE = Path(__file__).parents[4] / "examples" / "c_exchange"
PATIENCE_S = 60

RANK_PROGRAM = """
import http.client, json, socket, sys
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
connection = Connection("localhost")
for line in sys.stdin:
    method, path, body, headers = json.loads(line)
    connection.request(method, path, bytes.fromhex(body), headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().hex()]), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What the hub said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]

    def floats(self) -> list[float]:
        assert self.status == 200, self.body
        return np.frombuffer(self.body, np.float32).tolist()


class RankProcess:
    """A process that says over one connection what it is told to."""

    def __init__(self, socket_path: Path) -> None:
        command = [sys.executable, "-S", "-c", RANK_PROGRAM, str(socket_path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([method, path, body.hex(), headers]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Answer:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "no answer came"
        status, headers, body = json.loads(self.process.stdout.readline())
        return Answer(status, headers, bytes.fromhex(body))

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        self.send(method, path, body, **headers)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class Machine:
    """A hub, and the processes that are its ranks."""

    def __init__(self, folder: Path, place: Place, **options: Any) -> None:
        self.folder = folder
        self.arena = Path(f"/dev/shm/raymaker-test-{os.getpid()}-{place.machine_index}")
        self.place = place
        self.hub = ExchangeHub(folder, self.arena, place, **options)
        self.hub.start()
        self.ranks: list[RankProcess] = []

    def socket(self, index: int = 0) -> Path:
        return self.folder / str(index) / "exchange.sock"

    def start_ranks(self) -> list[RankProcess]:
        self.ranks = [RankProcess(self.socket(index)) for index in range(len(self.place.ranks))]
        return self.ranks

    def start_one(self, index: int) -> RankProcess:
        self.ranks.append(RankProcess(self.socket(index)))
        return self.ranks[-1]

    def close(self) -> None:
        for rank in self.ranks:
            rank.close()
        self.hub.close()


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Machine]]:
    with contextlib.ExitStack() as stack:

        def start_machine(rank_count: int = 2, **options: Any) -> Machine:
            options.setdefault("place", Place(0, 1, rank_count))
            place = options.pop("place")
            machine = Machine(home / f"exchange-{place.machine_index}", place, **options)
            stack.callback(machine.close)
            return machine

        yield start_machine


def floats(*numbers: float) -> bytes:
    return np.array(numbers, np.float32).tobytes()


def call_all(ranks: list[RankProcess], path: str, bodies: list[bytes]) -> list[Answer]:
    for rank, body in zip(ranks, bodies, strict=True):
        rank.send("POST", path, body)
    return [rank.answer() for rank in ranks]


def join_all(ranks: list[RankProcess], **asked: object) -> list[Answer]:
    return call_all(ranks, "/join", [json.dumps({"pid": rank.process.pid, **asked}).encode() for rank in ranks])


def wait_until_waiting(machine: Machine, ranks: set[int]) -> None:
    """From outside nobody can see who has come to a call: so this looks inside."""
    deadline = time.monotonic() + PATIENCE_S
    while (meeting := machine.hub._session._rendezvous._open) is None or meeting.calls.keys() != ranks:
        assert time.monotonic() < deadline, "the ranks did not come"
        time.sleep(0.01)


# -- what works


def test_collective_calls_of_three_processes(start: Callable[..., Machine]) -> None:
    ranks = start(3).start_ranks()
    numbers = [floats(1, 10), floats(2, 30), floats(3, 20)]
    for op, expected in {"sum": [6, 60], "mean": [2, 20], "min": [1, 10], "max": [3, 30]}.items():
        answers = call_all(ranks, f"/all-reduce?op={op}&dtype=float32", numbers)
        assert [answer.floats() for answer in answers] == [expected] * 3
    gathered = call_all(ranks, "/all-gather?dtype=float32", numbers)
    assert [answer.floats() for answer in gathered] == [[1, 10, 2, 30, 3, 20]] * 3
    sent = call_all(ranks, "/broadcast?root=1&dtype=float32&count=2", [b"", numbers[1], b""])
    assert [answer.floats() for answer in sent] == [[2, 30]] * 3
    assert [answer.status for answer in call_all(ranks, "/barrier", [b""] * 3)] == [200] * 3


def test_a_lone_rank_has_its_own_way(start: Callable[..., Machine]) -> None:
    [rank] = start(1).start_ranks()
    assert join_all([rank])[0].json["mode"] == "socket"
    assert rank.ask("POST", "/all-reduce?op=mean&dtype=float32", floats(1, 2)).floats() == [1, 2]


def test_joining_tells_each_rank_where_it_stands_and_how_it_exchanges(start: Callable[..., Machine]) -> None:
    machine = start(2, timeout_s=7.0)
    answers = join_all(machine.start_ranks(), arena=True, numpy=True)
    assert [answer.json for answer in answers] == [
        {
            "mode": "arena",
            "reduce": "ranks",
            "rank": rank,
            "world_size": 2,
            "local_rank": rank,
            "local_world_size": 2,
            "machine_index": 0,
            "machine_count": 1,
            "hosts": ["algo-1", "algo-2"],
            "timeout_s": 7.0,
            "revision": 0,
            "failure": None,
        }
        for rank in (0, 1)
    ]
    refused = machine.ranks[0].ask("POST", "/barrier")
    assert refused.status == 409
    assert "through the arena" in refused.error


def test_one_rank_that_does_not_join_has_all_of_them_use_their_sockets(start: Callable[..., Machine]) -> None:
    first, second = start(2).start_ranks()
    first.send("POST", "/join", b'{"arena": true, "numpy": true}')
    second.send("POST", "/all-reduce?dtype=float32", floats(1))
    assert first.answer().json["mode"] == "socket"
    assert first.ask("POST", "/all-reduce?dtype=float32", floats(2)).floats() == [3]
    assert second.answer().floats() == [3]


def test_sixty_four_ranks_get_the_same_bits(start: Callable[..., Machine]) -> None:
    machine = start(64, arena_bytes=0)
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=1000).astype(np.float32) for _ in range(64)]

    def be_a_rank(index: int) -> list[bytes]:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(machine.socket(index)))
            return [post(connection, "/all-reduce?dtype=float32", parts[index].tobytes()) for _ in range(3)]

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(be_a_rank, range(64)))
    assert len({result for per_rank in results for result in per_rank}) == 1
    total = np.frombuffer(results[0][0], np.float32)
    np.testing.assert_allclose(total, np.sum(parts, axis=0), rtol=1e-4, atol=1e-4)


def post(connection: socket.socket, path: str, body: bytes) -> bytes:
    connection.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    with connection.makefile("rb") as stream:
        assert b" 200 " in stream.readline()
        headers = dict(line.decode().lower().rstrip().split(": ") for line in iter(stream.readline, b"\r\n"))
        return stream.read(int(headers["content-length"]))


def test_values_and_documents_are_pushed_and_pulled(start: Callable[..., Machine]) -> None:
    first, second = start(2).start_ranks()
    put = first.ask("PUT", "/values/layer%2F1", b"abc", **{"Content-Type": "text/plain; charset=utf-8"})
    assert (put.json, put.headers["X-Value-Version"]) == ({"version": 1}, "1")
    got = second.ask("GET", "/values/layer/1")
    assert (got.status, got.body, got.headers["X-Value-Version"]) == (200, b"abc", "1")
    assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
    missing = second.ask("GET", "/values/layer/1?after=1")
    assert missing.status == 404
    assert missing.error == "there is no value layer/1 newer than version 1"
    first.ask("POST", "/values/sum?add&dtype=float32", floats(1, 2))
    second.ask("POST", "/values/sum?add&dtype=float32", floats(3, 4))
    assert first.ask("GET", "/values/sum").floats() == [4, 6]
    assert first.ask("PUT", "/documents/strategy", b'{"rate": 0.1}').json == {"version": 1}
    document = second.ask("GET", "/documents/strategy")
    assert (document.json, document.headers["Content-Type"]) == ({"rate": 0.1}, "application/json")
    assert second.ask("GET", "/documents/sum").error == "sum is a value of application/octet-stream, not a document"


def test_a_reader_waits_for_a_newer_value(start: Callable[..., Machine]) -> None:
    first, second = start(2).start_ranks()
    first.ask("PUT", "/values/step", b"1")
    second.send("GET", f"/values/step?after=1&wait_s={PATIENCE_S}")
    first.ask("PUT", "/values/step", b"2")
    assert second.answer().body == b"2"


def test_curl_is_a_client(start: Callable[..., Machine]) -> None:
    machine = start(2)
    bodies = [floats(*range(1_000_000)), floats(*([1] * 1_000_000))]  # so long that curl asks before it sends
    path = "/all-reduce?op=sum&dtype=float32"

    def curl(index: int) -> subprocess.CompletedProcess[bytes]:
        command = ["curl", "-sS", "--fail-with-body", "--unix-socket", str(machine.socket(index))]
        command += ["--data-binary", "@-", f"http://localhost{path}"]
        return subprocess.run(command, input=bodies[index], capture_output=True, timeout=PATIENCE_S, check=False)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(curl, range(2))
    assert (first.returncode, first.stderr) == (0, b"")
    assert first.stdout == second.stdout
    assert np.frombuffer(first.stdout, np.float32)[-1] == 1_000_000
    told = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(machine.socket(1)), "http://localhost/"],
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert json.loads(told.stdout)["rank"] == 1


def build_c_client(folder: Path) -> Path:
    shutil.copytree(EXAMPLE, folder)
    subprocess.run([folder / "build.sh"], check=True, timeout=PATIENCE_S)
    return folder / "train"


def write_rows(channel: Path) -> None:
    """Rows of y = 3 + 2a - b."""
    channel.mkdir(parents=True)
    features = np.random.default_rng(1).normal(size=(301, 2))
    targets = 3 + 2 * features[:, 0] - features[:, 1]
    np.savetxt(channel / "rows.csv", np.column_stack([targets, features]), delimiter=",")


def start_c_rank(program: Path, machine: Machine, rank: int, home: Path) -> subprocess.Popen[str]:
    (home / f"model-{rank}").mkdir()
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(machine.place.world_size),
        "RAYMAKER_EXCHANGE": str(machine.socket(rank).parent),
        "SM_CHANNEL_TRAIN": str(home / "train"),
        "SM_MODEL_DIR": str(home / f"model-{rank}"),
        "SM_OUTPUT_DIR": str(home / f"model-{rank}"),
    }
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([program], env=environment, **pipes)


def test_the_c_client_trains_the_same_model_with_one_rank_and_with_three(
    start: Callable[..., Machine], home: Path
) -> None:
    program = build_c_client(home / "c_exchange")
    write_rows(home / "train")
    models = []
    for rank_count in (1, 3):
        run = home / f"run-{rank_count}"
        run.mkdir()
        (run / "train").symlink_to(home / "train")
        machine = start(rank_count)
        processes = [start_c_rank(program, machine, rank, run) for rank in range(rank_count)]
        outputs = [process.communicate(timeout=PATIENCE_S) for process in processes]
        assert [error for _, error in outputs] == [""] * rank_count
        assert "step=500 loss=" in outputs[0][0]
        assert machine.hub.failure is None
        models.append(np.loadtxt(run / "model-0" / "model.txt"))
        machine.close()
    np.testing.assert_allclose(models[0], [3, 2, -1], atol=1e-4)
    np.testing.assert_allclose(models[0], models[1], atol=1e-5)


def test_the_c_client_says_what_happened_to_another_rank(start: Callable[..., Machine], home: Path) -> None:
    program = build_c_client(home / "c_exchange")
    write_rows(home / "train")
    machine = start(2)
    process = start_c_rank(program, machine, 0, home)
    machine.hub.rank_ended(1, "exit code 139")
    _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "rank 1 ended (exit code 139)" in error
    assert (home / "model-0" / "failure").read_text() == error


# -- ranks that disagree, stay away or die


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/all-reduce?op=sum&dtype=float32", floats(1, 2, 3), "all-reduce sum of 3 float32"),
        ("/all-reduce?op=max&dtype=float32", floats(1, 2), "all-reduce max of 2 float32"),
        ("/all-reduce?op=sum&dtype=int64", bytes(16), "all-reduce sum of 2 int64"),
        ("/all-gather?dtype=float32", floats(1, 2), "all-gather of 2 float32"),
        ("/broadcast?root=0&dtype=float32&count=2", b"", "broadcast from rank 0 of 2 float32"),
        ("/barrier", b"", "barrier"),
    ],
)
def test_another_call_fails_every_rank_and_names_the_odd_one_and_both_calls(
    start: Callable[..., Machine], path: str, body: bytes, said: str
) -> None:
    machine = start(3)
    ranks = machine.start_ranks()
    usual = "/all-reduce?op=sum&dtype=float32"
    for rank, (called, sent) in zip(ranks, [(usual, floats(1, 2)), (path, body), (usual, floats(1, 2))], strict=True):
        rank.send("POST", called, sent)
    answers = [rank.answer() for rank in ranks]
    assert [answer.status for answer in answers] == [409] * 3
    both = f"rank 1 calls {said}, while ranks 0 and 2 call all-reduce sum of 2 float32"
    error = f"{both}: all ranks must make the same calls in the same order"
    assert {(answer.error, answer.json["rank"]) for answer in answers} == {(error, 1)}
    later = ranks[0].ask("POST", usual, floats(1))
    assert (later.status, later.error) == (410, answers[0].error)
    assert machine.hub.failure == Failure(answers[0].error, 1)
    assert ranks[2].ask("GET", "/").json["failure"] == {"error": answers[0].error, "rank": 1}


def test_a_call_that_nobody_else_joins_ends_at_the_deadline_and_names_who_is_missing(
    start: Callable[..., Machine],
) -> None:
    machine = start(3, timeout_s=0.5)
    rank = machine.start_one(1)
    answer = rank.ask("POST", "/barrier")
    assert (answer.status, answer.json["rank"]) == (504, 0)
    assert answer.error == "barrier: ranks 0 and 2 did not come within 0.5 s, while rank 1 waited"


def test_joining_ends_at_the_deadline_and_names_who_is_missing(start: Callable[..., Machine]) -> None:
    machine = start(2, join_timeout_s=0.5)
    answer = machine.start_one(1).ask("POST", "/join")
    assert (answer.status, answer.json["rank"]) == (504, 0)
    assert answer.error == "rank 0 did not join the exchange within 0.5 s, as rank 1 did"


def test_a_joined_rank_that_is_killed_fails_the_others_whatever_they_wait_for(start: Callable[..., Machine]) -> None:
    machine = start(3)
    first, second, third = machine.start_ranks()
    join_all([first, second, third])
    first.send("POST", "/barrier")
    second.send("GET", f"/values/never?wait_s={PATIENCE_S}")
    third.kill()
    answers = [first.answer(), second.answer()]
    assert [answer.status for answer in answers] == [410, 410]
    assert {answer.error for answer in answers} == {
        "rank 2 died: its connection to the exchange closed before it had left"
    }
    assert answers[0].json["rank"] == 2


@pytest.mark.parametrize("has_joined", [True, False])
def test_a_rank_that_is_killed_in_a_call_fails_the_others(start: Callable[..., Machine], *, has_joined: bool) -> None:
    machine = start(3)
    first, second, _ = machine.start_ranks()
    if has_joined:
        join_all(machine.ranks)
    first.send("POST", "/all-reduce?dtype=float32", floats(1))
    second.send("POST", "/all-reduce?dtype=float32", floats(1))
    wait_until_waiting(machine, {0, 1})
    second.kill()
    answer = first.answer()
    assert (answer.status, answer.json["rank"]) == (410, 1)
    assert answer.error == "rank 1 hung up in the middle of all-reduce sum of 1 float32"


def test_a_rank_that_is_killed_while_it_sends_fails_the_others(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first = machine.start_one(0)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'POST /join HTTP/1.1\\r\\n\\r\\n'); s.recv(4096)\n"
        "s.sendall(b'POST /all-reduce?dtype=float32 HTTP/1.1\\r\\nContent-Length: 9000000\\r\\n\\r\\n' + bytes(5000))\n"
        "print('sending', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-S", "-c", program, str(machine.socket(1))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout
        first.send("POST", "/all-reduce?dtype=float32", bytes(9_000_000))
        assert second.stdout.readline() == "sending\n"
        second.kill()
    answer = first.answer()
    assert (answer.status, answer.json["rank"]) == (410, 1)
    assert answer.error == "rank 1 died: its connection to the exchange closed before it had left"


def test_a_container_that_ends_fails_those_who_wait_for_it_and_nobody_else(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first = machine.start_one(0)
    machine.hub.rank_ended(1, "exit code 0")
    assert machine.hub.failure is None
    assert first.ask("PUT", "/values/a", b"x").status == 200
    answer = first.ask("POST", "/barrier")
    assert (answer.status, answer.error) == (410, "rank 1 ended (exit code 0); rank 0 waited for it in barrier")


def test_a_rank_that_has_left_may_end_and_fails_only_those_who_wait_for_it(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, second = machine.start_ranks()
    join_all(machine.ranks)
    assert second.ask("POST", "/leave").status == 200
    second.kill()
    machine.hub.rank_ended(1, "exit code 0")
    assert first.ask("PUT", "/values/a", b"x").status == 200
    assert machine.hub.failure is None
    answer = first.ask("POST", "/barrier")
    assert answer.error == "rank 1 has left the exchange; rank 0 waited for it in barrier"


def test_a_rank_can_say_that_nobody_can_go_on_and_learns_the_first_reason(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, second = machine.start_ranks()
    first.send("POST", "/barrier")
    assert second.ask("POST", "/fail", b'{"message": "the sky fell", "rank": 1}').json["error"] == "the sky fell"
    assert first.answer().error == "the sky fell"
    later = second.ask("POST", "/fail", b'{"message": "too late", "rank": null}').json
    assert later == {"error": "the sky fell", "rank": 1}


# -- what ranks get wrong


def test_bad_requests_are_told_what_is_wrong_and_cost_nobody_anything(start: Callable[..., Machine]) -> None:
    machine = start(2)
    ranks = machine.start_ranks()
    bad = {
        ("POST", "/all-reduce?dtype=float31", bytes(4)): (400, "dtype 'float31' is none of float16, float32,"),
        ("POST", "/all-reduce", bytes(4)): (400, "dtype is missing: one of float16,"),
        ("POST", "/all-reduce?dtype=float32", bytes(7)): (400, "a body of 7 bytes is no whole number of float32"),
        ("POST", "/all-reduce?dtype=float32&op=product", bytes(4)): (400, "op 'product' is none of sum, mean,"),
        ("POST", "/all-reduce?dtype=int32&op=mean", bytes(4)): (400, "op 'mean' is not defined for int32: use sum"),
        ("POST", "/all-reduce?tpye=int32", bytes(4)): (400, "'tpye' is no field of /all-reduce: op, dtype"),
        ("POST", "/broadcast?dtype=int32&count=1", b""): (400, "root is missing"),
        ("POST", "/broadcast?dtype=int32&root=2&count=1", b""): (400, "root 2 is no rank of this job: it has 2"),
        ("POST", "/broadcast?dtype=int32&root=-1", b""): (400, "root is '-1': a whole number, 0 or more, is wanted"),
        ("POST", "/broadcast?dtype=int32&root=1", b""): (400, "count is missing: say how many int32 rank 1 sends"),
        ("POST", "/broadcast?dtype=int32&root=0&count=9", bytes(4)): (400, "count is 9, but the body has 1 int32"),
        ("POST", "/barrier", b"x"): (400, "a barrier has no body"),
        ("POST", "/nothing", b""): (404, "there is nothing at '/nothing'; there is /, /join,"),
        ("POST", "/join/x", b""): (404, "there is nothing at '/join/x'"),
        ("GET", "/values", b""): (404, "there is nothing at '/values'"),
        ("GET", "/barrier", b""): (405, "GET is not for '/barrier': POST is"),
        ("DELETE", "/values/a", b""): (405, "DELETE is not for '/values/a': GET, PUT, POST is"),
        ("POST", "/values/a?dtype=float32", bytes(4)): (400, "add is missing: POST /values/<name>?add&dtype="),
        ("PUT", "/values/", b""): (400, "name '' is no name of a value"),
        ("GET", "/values/%2e%2e/a", b""): (400, "name '../a' is no name of a value"),
        ("GET", "/values/a?wait_s=nan", b""): (400, "wait_s is 'nan': a number of seconds from 0 to 3600 is wanted"),
        ("GET", "/values/a?wait_s=1e9", b""): (400, "wait_s is '1e9'"),
        ("GET", "/values/a?after=one", b""): (400, "after is 'one': a whole number"),
        ("PUT", "/documents/a", b"[1]"): (400, "the body is JSON, but no object"),
        ("PUT", "/documents/a", b'{"a": NaN}'): (400, "the body is no JSON: NaN is no JSON"),
        ("PUT", "/documents/a", b"\xff"): (400, "the body is no JSON"),
        ("PUT", "/documents/a", b'{"a":' * 30_000): (413, "a document of 150000 bytes is too large: at most 65536"),
        ("PUT", "/documents/a", b"[" * 60_000): (400, "the body is no JSON"),
        ("POST", "/join", b'{"pid": true}'): (400, "pid is true: a whole number is wanted"),
        ("POST", "/join", b'{"arena": "yes"}'): (400, 'arena is "yes": true or false is wanted'),
        ("POST", "/fail", b"{}"): (400, "message is missing"),
        ("POST", "/fail", b'{"message": "x", "rank": 2}'): (400, "rank is none of 0 to 1"),
    }
    for (method, path, body), (status, message) in bad.items():
        answer = ranks[0].ask(method, path, body)
        assert (answer.status, answer.error[: len(message)]) == (status, message), path
    assert [answer.floats() for answer in call_all(ranks, "/all-reduce?dtype=float32", [floats(1)] * 2)] == [[2], [2]]


def test_joining_twice_is_refused_with_the_process_that_joined_first(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, _ = machine.start_ranks()
    join_all(machine.ranks)
    for intruder in (first, machine.start_one(0)):
        answer = intruder.ask("POST", "/join")
        assert answer.status == 409
        said = f"rank 0 has joined already, from process {first.process.pid}: one process per container"
        assert answer.error == said


def test_a_process_that_is_not_the_rank_cannot_make_its_calls(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, second = machine.start_ranks()
    join_all(machine.ranks)
    intruder = machine.start_one(0)
    answer = intruder.ask("POST", "/all-reduce?dtype=float32", floats(1))
    assert answer.status == 409
    assert f"rank 0 is process {first.process.pid}, which has joined" in answer.error
    assert intruder.ask("GET", "/").json["rank"] == 0
    assert intruder.ask("PUT", "/values/from-a-helper", b"x").status == 200
    answers = call_all([first, second], "/all-reduce?dtype=float32", [floats(1), floats(2)])
    assert [answer.floats() for answer in answers] == [[3], [3]]


def test_a_rank_makes_one_call_at_a_time(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, again, second = machine.start_one(0), machine.start_one(0), machine.start_one(1)
    first.send("POST", "/barrier")
    wait_until_waiting(machine, {0})
    refused = again.ask("POST", "/barrier")
    assert refused.status == 409
    assert refused.error == "rank 0 calls barrier while it still waits in barrier: one call at a time"
    assert second.ask("POST", "/barrier").status == 200
    assert first.answer().status == 200


def raw(path: Path, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are, and read until the hub hangs up."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # an answer may come first
            connection.sendall(sent)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # the hub need not read all of what it refuses
            while piece := connection.recv(65536):
                answer += piece
        return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello hub\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
        (b"POST /barrier HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /barrier HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\nx", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"POST /barrier HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
    ],
)
def test_what_is_no_http_gets_an_answer_and_the_end_of_its_connection(
    start: Callable[..., Machine], sent: bytes, status: int
) -> None:
    machine = start(1)
    head, _, body = raw(machine.socket(), sent).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    assert json.loads(body)["error"]
    assert machine.start_one(0).ask("POST", "/barrier").status == 200


def test_several_requests_may_come_at_once_and_half_a_connection_is_enough_for_the_answers(
    start: Callable[..., Machine],
) -> None:
    answered = raw(start(1).socket(), b"POST /barrier HTTP/1.1\r\n\r\n" * 3, half_close=True)
    assert answered.count(b"HTTP/1.1 200 OK") == 3


def test_a_body_over_the_limit_is_refused_before_it_is_held_and_the_connection_goes_on(
    start: Callable[..., Machine],
) -> None:
    machine = start(1, limits=Limits(body_bytes=1_000_000))
    rank = machine.start_one(0)
    answer = rank.ask("POST", "/all-reduce?dtype=float32", bytes(1_000_004))
    assert answer.status == 413
    assert answer.error == "a body of 1000004 bytes is too large: at most 1000000 bytes are taken"
    assert rank.ask("POST", "/all-reduce?dtype=float32", floats(1)).floats() == [1]
    huge = b"POST /all-reduce?dtype=float32 HTTP/1.1\r\nContent-Length: 999999999999999999\r\n\r\n" + bytes(100_000)
    assert raw(machine.socket(), huge, half_close=True).startswith(b"HTTP/1.1 413 ")


def test_a_result_over_the_limit_is_refused(start: Callable[..., Machine]) -> None:
    rank = start(4, limits=Limits(body_bytes=1_000_000)).start_one(0)
    answer = rank.ask("POST", "/all-gather?dtype=float32", bytes(300_000))
    assert (answer.status, answer.error) == (413, "the result would have 1200000 bytes: at most 1000000 are sent")


def test_a_body_that_comes_too_slowly_is_not_waited_for(start: Callable[..., Machine]) -> None:
    machine = start(1, limits=Limits(receive_s=0.5))
    slow = b"POST /all-reduce?dtype=float32 HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + bytes(60)
    head, _, body = raw(machine.socket(), slow).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"] == "40 bytes of the body did not come within 0.5 s"
    assert raw(machine.socket(), b"GET / HT").startswith(b"HTTP/1.1 408 ")


def test_a_sender_that_drips_does_not_get_more_time(start: Callable[..., Machine]) -> None:
    machine = start(1, limits=Limits(receive_s=0.5))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(machine.socket()))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.05)
            pytest.fail("ten seconds of dripping were waited for")


def test_a_connection_may_be_idle_for_longer_than_a_request_may_take(start: Callable[..., Machine]) -> None:
    [rank] = start(1, limits=Limits(receive_s=0.5)).start_ranks()
    assert rank.ask("POST", "/join").status == 200
    time.sleep(0.8)
    assert rank.ask("POST", "/barrier").status == 200


def test_numbers_are_taken_from_any_rank_without_a_meeting(start: Callable[..., Machine]) -> None:
    heard: list[tuple[int, dict[str, float], int | None]] = []
    machine = start(2, on_metrics=lambda rank, values, step: heard.append((rank, values, step)))
    rank = machine.start_one(1)
    for told in (b'{"metrics": {"loss": 0.5, "n": 3}, "step": 7}', b'{"metrics": {"bad": "-Infinity"}}'):
        assert rank.ask("POST", "/metrics", told).status == 200
    assert heard == [(1, {"loss": 0.5, "n": 3.0}, 7), (1, {"bad": -math.inf}, None)]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (b"[]", "no object"),
        (b"{}", "metrics has 0 numbers"),
        (b'{"metrics": [1]}', "an object is wanted"),
        (b'{"metrics": {"a": true}}', "a is true: a number is wanted"),
        (b'{"metrics": {"a": "much"}}', "a number is wanted"),
        (b'{"metrics": {"a": [1]}}', "a is [1]: a number is wanted"),
        (b'{"metrics": {"a": {}}}', "a number is wanted"),
        (b'{"metrics": {"a": null}}', "a number is wanted"),
        (b'{"metrics": {"a": NaN}}', "NaN is no JSON"),
        (b'{"metrics": {"a": 1' + b"0" * 400 + b"}}", "a number is wanted"),
        (b'{"metrics": {" a": 1}}', "is no name of a metric"),
        (b'{"metrics": {"a": 1}, "step": 1.5}', "step is 1.5"),
        (b'{"metrics": {"a": 1}, "step": 9223372036854775808}', "a whole number of 64 bits"),
        (b'{"metrics": {"a": 1}, "epoch": 1}', "'epoch' is no field of /metrics"),
        (json.dumps({"metrics": {f"m{number}": 1 for number in range(257)}}).encode(), "metrics has 257 numbers"),
    ],
)
def test_what_is_no_number_is_refused_by_name(start: Callable[..., Machine], told: bytes, why: str) -> None:
    heard: list[object] = []
    answer = start(1, on_metrics=lambda *said: heard.append(said)).start_one(0).ask("POST", "/metrics", told)
    assert answer.status == 400
    assert why in answer.json["error"]
    assert heard == []


def test_a_rank_has_a_bounded_number_of_connections(start: Callable[..., Machine]) -> None:
    machine = start(1, limits=Limits(connection_count=3))
    for _ in range(3):
        assert machine.start_one(0).ask("GET", "/").status == 200
    answer = raw(machine.socket(), b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"rank 0 has 3 connections open" in answer
    machine.ranks[0].kill()
    deadline = time.monotonic() + PATIENCE_S
    while not raw(machine.socket(), b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < deadline


# -- files, limits and ends


def test_the_folder_has_what_a_container_needs_and_nothing_stays_behind(home: Path) -> None:
    machine = Machine(home / "exchange", Place(1, 2, 2), across=Wire(2).ends[1])
    try:
        folder = home / "exchange" / "1"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE((folder / "exchange.sock").stat().st_mode) == 0o666
        assert stat.S_IMODE(machine.arena.stat().st_mode) == 0o666
        assert {"raymaker_exchange", "arena"} <= {path.name for path in folder.iterdir()}
        seen, arena = machine.hub.mounts(1)
        assert (seen.source, seen.target, seen.read_only) == (str(folder), "/opt/ml/exchange", True)
        assert (arena.source, arena.target, arena.read_only) == (str(machine.arena), "/opt/ml/exchange/arena", False)
        assert machine.start_one(1).ask("GET", "/").json["rank"] == 3
    finally:
        machine.close()
        machine.close()
    assert not (home / "exchange").exists()
    assert not machine.arena.exists()


def test_a_hub_takes_the_place_of_one_that_was_killed(home: Path) -> None:
    arena = Path(f"/dev/shm/raymaker-test-{os.getpid()}-killed")
    program = (
        "import sys; from pathlib import Path\n"
        "from raymaker.actors.exchange.hub import ExchangeHub; from raymaker.actors.spec import Place\n"
        "ExchangeHub(Path(sys.argv[1]), Path(sys.argv[2]), Place(0, 1, 3)).start(); print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(home / "exchange"), str(arena)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert arena.exists()
    hub = ExchangeHub(home / "exchange", arena, Place(0, 1, 1))
    hub.start()
    try:
        assert sorted(path.name for path in (home / "exchange").iterdir()) == ["0"]
        rank = RankProcess(home / "exchange" / "0" / "exchange.sock")
        assert rank.ask("POST", "/barrier").status == 200
        rank.close()
    finally:
        hub.close()
    assert not arena.exists()


def test_a_folder_with_a_long_name_is_as_good_as_another(home: Path) -> None:
    folder = home / ("long-" * 30)
    hub = ExchangeHub(folder, Path(f"/dev/shm/raymaker-test-{os.getpid()}-long"), Place())
    hub.start()
    try:
        short = home / "short"
        short.symlink_to(folder / "0")
        assert b" 200 OK" in raw(short / "exchange.sock", b"GET / HTTP/1.0\r\n\r\n")
    finally:
        hub.close()


def test_too_little_shared_memory_is_said_with_the_remedy_and_leaves_nothing(home: Path) -> None:
    arena = Path(f"/dev/shm/raymaker-test-{os.getpid()}-large")
    hub = ExchangeHub(home / "exchange", arena, Place(0, 1, 2), arena_bytes=1 << 50)
    with pytest.raises(WorkError, match=r"of shared memory, but /dev/shm has \d+ MiB free. Enlarge"):
        hub.start()
    assert not arena.exists()
    assert not (home / "exchange").exists()
    nowhere = ExchangeHub(home / "exchange", home / "missing" / "arena", Place(0, 1, 2))
    with pytest.raises(WorkError, match="the exchange cannot have shared memory at"):
        nowhere.start()


def test_closing_answers_whoever_waits_and_is_no_failure(start: Callable[..., Machine]) -> None:
    machine = start(2)
    first, second = machine.start_ranks()
    second.send("POST", "/join")
    first.send("POST", "/barrier")
    assert second.answer().status == 200
    machine.hub.close()
    answer = first.answer()
    assert (answer.status, answer.error) == (410, "the exchange has ended: its job's start is over on this machine")
    assert machine.hub.failure is None


def test_the_hub_holds_no_more_than_one_array_per_rank_and_one_more(home: Path) -> None:
    rank_count, array_bytes = 3, 64 * 1024**2
    program = (
        "import sys; from pathlib import Path\n"
        "from raymaker.actors.exchange.hub import ExchangeHub; from raymaker.actors.spec import Place\n"
        f"hub = ExchangeHub(Path(sys.argv[1]), Path(sys.argv[2]), Place(0, 1, {rank_count})); hub.start()\n"
        "def peak(): return next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]\n"
        "print(peak(), flush=True); sys.stdin.readline(); print(peak(), flush=True); hub.close()\n"
    )
    command = [sys.executable, "-c", program, str(home / "x"), f"/dev/shm/raymaker-test-{os.getpid()}-memory"]
    data = bytes(array_bytes)

    def be_a_rank(index: int) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(home / "x" / str(index) / "exchange.sock"))
            for path in (
                "/all-reduce?dtype=float32",
                "/all-reduce?op=max&dtype=int64",
                "/broadcast?root=1&dtype=int32",
            ):
                assert len(post(connection, path, data)) == array_bytes
            assert len(post(connection, "/all-gather?dtype=int32", data[: array_bytes // rank_count // 4 * 4]))

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        before_kib = int(process.stdout.readline())
        with ThreadPoolExecutor(rank_count) as pool:
            list(pool.map(be_a_rank, range(rank_count)))
        process.stdin.write("\n")
        process.stdin.flush()
        held_bytes = (int(process.stdout.readline()) - before_kib) * 1024
    slack_bytes = 16 * 1024**2  # threads, page tables, what malloc keeps
    assert array_bytes < held_bytes < (rank_count + 1) * array_bytes + slack_bytes


# -- other machines


class Wire:
    """Across, for machines that are hubs in one process: they meet at a barrier and compare what they bring."""

    def __init__(self, machine_count: int) -> None:
        self._barrier = threading.Barrier(machine_count)
        self.values: Values = LocalValues()
        self.brought: list[Any] = [None] * machine_count
        self.listeners: list[Callable[[Failure], None]] = []
        self.failure: Failure | None = None
        self.ends = [WireEnd(self, index) for index in range(machine_count)]

    def swap(self, machine: int, what: Any) -> list[Any]:
        try:
            self._barrier.wait(PATIENCE_S)
            self.brought[machine] = what
            self._barrier.wait(PATIENCE_S)
            everything = list(self.brought)
            self._barrier.wait(PATIENCE_S)
        except threading.BrokenBarrierError:
            raise ExchangeError(self.failure.message if self.failure else "closed") from None
        return everything

    def fail(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = failure
            self.cut()
            for listener in self.listeners:
                listener(failure)

    def cut(self) -> None:
        self._barrier.abort()


class WireEnd:
    """One machine's end of it."""

    def __init__(self, wire: Wire, machine: int) -> None:
        self._wire, self._machine = wire, machine
        self.values = wire.values
        self.threads: set[int] = set()

    def agree(self, call: Call) -> None:
        self.threads.add(threading.get_ident())
        calls = self._wire.swap(self._machine, call)
        if len(set(calls)) > 1:
            raise ExchangeError("the machines make different calls: " + "; ".join(call.describe() for call in calls))

    def all_reduce(self, data: memoryview, dtype: str, operation: str) -> None:
        assert operation == "sum"
        parts = [np.frombuffer(part, dtype) for part in self._wire.swap(self._machine, bytes(data))]
        data[:] = np.sum(parts, axis=0, dtype=dtype).tobytes()

    def broadcast(self, data: memoryview, root_machine: int) -> None:
        data[:] = self._wire.swap(self._machine, bytes(data))[root_machine]

    def all_gather(self, data: memoryview, into: memoryview) -> None:
        into[:] = b"".join(self._wire.swap(self._machine, bytes(data)))

    def barrier(self) -> None:
        self._wire.swap(self._machine, None)

    def fail(self, failure: Failure) -> None:
        self._wire.fail(failure)

    def watch(self, on_failure: Callable[[Failure], None]) -> None:
        self._wire.listeners.append(on_failure)

    def close(self) -> None:
        self._wire.cut()


@pytest.fixture
def two_machines(start: Callable[..., Machine]) -> tuple[list[Machine], Wire]:
    wire = Wire(2)
    return [start(place=Place(index, 2, 2), across=wire.ends[index]) for index in (0, 1)], wire


def test_two_machines_exchange_as_one(two_machines: tuple[list[Machine], Wire]) -> None:
    machines, wire = two_machines
    ranks = [rank for machine in machines for rank in machine.start_ranks()]
    assert [answer.json["mode"] for answer in join_all(ranks, arena=False)] == ["socket"] * 4
    numbers = [floats(1, 2), floats(3, 4), floats(5, 6), floats(7, 8)]
    mean = call_all(ranks, "/all-reduce?op=mean&dtype=float32", numbers)
    assert [answer.floats() for answer in mean] == [[4, 5]] * 4
    gathered = call_all(ranks, "/all-gather?dtype=float32", numbers)
    assert [answer.floats() for answer in gathered] == [[1, 2, 3, 4, 5, 6, 7, 8]] * 4
    sent = call_all(ranks, "/broadcast?root=2&dtype=float32&count=2", [b"", b"", numbers[2], b""])
    assert [answer.floats() for answer in sent] == [[5, 6]] * 4
    assert [answer.status for answer in call_all(ranks, "/barrier", [b""] * 4)] == [200] * 4
    ranks[0].ask("PUT", "/values/shared", b"x")
    assert ranks[3].ask("GET", "/values/shared").body == b"x"
    assert [len(end.threads) for end in wire.ends] == [1, 1]


def test_machines_exchange_alike_also_where_only_one_has_no_arena(
    two_machines: tuple[list[Machine], Wire],
) -> None:
    machines, _ = two_machines
    ranks = [rank for machine in machines for rank in machine.start_ranks()]
    for rank, has_arena in zip(ranks, [True, True, True, False], strict=True):
        rank.send("POST", "/join", json.dumps({"arena": has_arena, "numpy": True}).encode())
    assert [rank.answer().json["mode"] for rank in ranks] == ["socket"] * 4
    answers = call_all(ranks, "/all-reduce?dtype=float32", [floats(1)] * 4)
    assert [answer.floats() for answer in answers] == [[4]] * 4


def test_a_rank_that_dies_fails_the_ranks_of_every_machine(two_machines: tuple[list[Machine], Wire]) -> None:
    machines, _ = two_machines
    ranks = [rank for machine in machines for rank in machine.start_ranks()]
    join_all(ranks)
    for rank in ranks[:3]:
        rank.send("POST", "/all-reduce?dtype=float32", floats(1))
    ranks[3].kill()
    answers = [rank.answer() for rank in ranks[:3]]
    assert [answer.status for answer in answers] == [410] * 3
    said = "rank 3 died: its connection to the exchange closed before it had left"
    assert {answer.error for answer in answers} == {said}
    assert [machine.hub.failure for machine in machines] == [Failure(said, 3)] * 2


def test_machines_that_disagree_fail_everywhere(two_machines: tuple[list[Machine], Wire]) -> None:
    machines, _ = two_machines
    ranks = [rank for machine in machines for rank in machine.start_ranks()]
    for rank in ranks[:2]:
        rank.send("POST", "/all-reduce?dtype=float32", floats(1))
    for rank in ranks[2:]:
        rank.send("POST", "/barrier")
    answers = [rank.answer() for rank in ranks]
    assert [answer.status for answer in answers] == [410] * 4
    assert {answer.error for answer in answers} == {
        "the machines make different calls: all-reduce sum of 1 float32; barrier"
    }


# -- containers


def test_containers_reach_the_hub_without_network_capabilities_or_a_place_to_write(
    start: Callable[..., Machine], engine: docker.DockerClient, base_image: str
) -> None:
    machine = start(2)
    program = (
        "import socket, os, sys; sys.path.append('/opt/ml/exchange')\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/opt/ml/exchange/exchange.sock')\n"
        "s.sendall(b'POST /all-reduce?dtype=float32 HTTP/1.0\\r\\nContent-Length: 4\\r\\n\\r\\n\\0\\0\\x80?')\n"
        "answer = b''.join(iter(lambda: s.recv(4096), b''))\n"
        "arena = os.open('/opt/ml/exchange/arena', os.O_RDWR)\n"
        "print(answer[-4:].hex(), os.fstat(arena).st_size)\n"
    )
    containers = []
    try:
        for index in range(2):
            mounts = [
                docker.types.Mount(m.target, m.source, type="bind", read_only=m.read_only)
                for m in machine.hub.mounts(index)
            ]
            options: dict[str, Any] = {"network_mode": "none", "cap_drop": ["ALL"], "read_only": True, "user": "12345"}
            containers.append(
                engine.containers.run(base_image, ["python3", "-c", program], mounts=mounts, detach=True, **options)
            )
        statuses = [container.wait(timeout=PATIENCE_S)["StatusCode"] for container in containers]
        printed = [container.logs().decode() for container in containers]
        assert statuses == [0, 0], printed
        assert printed == [f"00000040 {machine.arena.stat().st_size}\n"] * 2
    finally:
        for container in containers:
            container.remove(force=True)
