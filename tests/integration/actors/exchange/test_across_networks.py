"""The exchange between machines with networks of their own: it crosses the wire, and says so when that is cut."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from raymaker.platform.cluster.head import process_started, session_members
from support.across_driver import ELEMENTS
from support.faults import eventually
from support.namespaces import WiredMachine, two_wired_machines

TESTS = Path(__file__).parents[3]
RAY_PORT = 6379
HEARING_S = 60.0
"""More than enough to hear of a wire that was cut: it is a limit for the test, not for the exchange."""


def test_machines_sum_over_a_wire_and_each_hears_when_it_is_cut(tmp_path: Path) -> None:
    with two_wired_machines() as (one, two), _ray_nodes(one, two), _driver(one, tmp_path) as said:
        for engine in ("Objects", "Gloo"):
            told = json.loads(said.readline())
            assert told == {"addresses": [one.address, two.address], "engines": [engine] * 2, "is_right": True}
        assert json.loads(said.readline()) == {"sums": "endless"}
        sent = one.sent_bytes()
        eventually(lambda: one.sent_bytes() > sent + 10 * ELEMENTS, "sums go over the wire")
        one.cut()
        heard = [eventually(lambda it=it: _read(tmp_path / it), f"machine {it} hears", HEARING_S) for it in "01"]
    meets_here, elsewhere = sorted(heard)  # one of the machines has the actor that they meet at
    assert re.match(r"machine [01] \(rank [01]\) is gone: nothing was heard from there for \d+ s", meets_here), heard
    assert elsewhere.startswith("the actor that the job's machines meet at did not answer within"), heard


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def _ray_nodes(one: WiredMachine, two: WiredMachine) -> Iterator[None]:
    """A Ray cluster whose head is on the one machine, and a node on the other."""
    folder = tempfile.mkdtemp(prefix="rm-")  # short, since Ray makes socket paths of it
    head = ["--head", f"--port={RAY_PORT}", f"--temp-dir={folder}", "--include-dashboard=false"]
    with contextlib.ExitStack() as started:
        started.callback(shutil.rmtree, folder, ignore_errors=True)
        log = started.enter_context((Path(folder) / "log").open("wb"))
        for number, (machine, where) in enumerate(((one, head), (two, [f"--address={one.address}:{RAY_PORT}"]))):
            ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *where]
            ray += [f"--node-ip-address={machine.address}", "--num-cpus=4", f'--resources={{"node{number}": 1}}']
            process = subprocess.Popen(
                [*machine.inside, *ray], env=_environment(), stdout=log, stderr=log, start_new_session=True
            )
            started.callback(_end, process)
        yield


@contextlib.contextmanager
def _driver(machine: WiredMachine, folder: Path) -> Iterator[IO[str]]:
    """What across_driver.py says, which runs on this machine until the end of the block."""
    command = [sys.executable, "-m", "support.across_driver", f"{machine.address}:{RAY_PORT}", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*machine.inside, *command],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        try:
            yield process.stdout
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "RAY_AUTH_MODE": "disabled"}


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill a process with all that it started."""
    for pid, began in session_members(process.pid):
        if process_started(pid) == began:
            os.kill(pid, signal.SIGKILL)
    process.wait()
