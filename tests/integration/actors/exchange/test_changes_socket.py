"""Changes of a job over the hub's socket: the documented wire, the Python client, and a hub that comes back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymaker.actors.exchange.changes import Changes, Revision
from raymaker.actors.exchange.hub import ExchangeHub
from raymaker.actors.spec import Place
from support.exchange_ranks import start_rank
from support.faults import eventually

PATIENCE_S = 60
LISTENS = """
say("joined")
while True:
    change = exchange.wait_for_change(60)
    say(*change)
    if "end" in change.hyperparameters:
        break
say(exchange.changes(), exchange.push("value", b"1"))
"""


class Hub:
    """A hub of one rank, which may die and come back as those of a supervisor do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arena = Path(f"/dev/shm/raymaker-test-{os.getpid()}-changes")
        self.changes = Changes(Revision(3, {"rate": "1"}), started_number=3)
        self.begin()

    def begin(self, *, again: bool = False) -> None:
        self.hub = ExchangeHub(self.folder, self.arena, Place(), changes=self.changes, arena_bytes=1024**2)
        self.hub.start(again=again)

    def curl(self, path: str) -> tuple[int, dict]:
        command = ["curl", "-sS", "-w", "\n%{http_code}", "--unix-socket", str(self.folder / "0" / "exchange.sock")]
        done = subprocess.run([*command, f"http://x{path}"], capture_output=True, text=True, check=True, timeout=60)
        body, status = done.stdout.rsplit("\n", 1)
        return int(status), json.loads(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "exchange")
    yield made
    made.hub.close()


@contextlib.contextmanager
def listener(hub: Hub) -> Iterator[subprocess.Popen[str]]:
    process = start_rank(hub.folder / "0", LISTENS)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> list:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_the_wire_tells_what_has_changed_and_what_is_wrong(hub: Hub) -> None:
    assert hub.curl("/")[1]["revision"] == 3
    status, told = hub.curl("/changes?since=3")
    assert (status, told["error"]) == (404, "nothing has changed since revision 3")
    hub.changes.publish(Revision(5, {"rate": "2"}, 5, "/opt/ml/exchange/code/4", 4))
    assert hub.curl("/changes?since=3&wait_s=5") == (
        200,
        {
            "revision": 5,
            "hyperparameters": {"rate": "2"},
            "hyperparameters_revision": 5,
            "code": "/opt/ml/exchange/code/4",
            "code_revision": 4,
        },
    )
    assert hub.changes.heard(5) == (0,)
    assert hub.curl("/changes")[1]["revision"] == 5
    assert hub.curl("/changes?since=no")[0] == 400
    assert hub.curl("/changes?after=1")[0] == 400
    assert hub.curl("/changes?wait_s=-1")[0] == 400


def test_a_listener_hears_each_change_once_also_from_a_hub_that_came_back(hub: Hub) -> None:
    with listener(hub) as process:
        assert line(process) == ["joined"]
        hub.changes.publish(Revision(4, {"rate": "2"}, 4))
        assert line(process) == [4, {"rate": "2"}, None, ["hyperparameters"]]
        assert hub.changes.heard(4) == (0,)
        inode = (hub.folder / "0").stat().st_ino
        hub.hub.close = lambda: None  # type: ignore[method-assign]  # it dies, and tidies nothing up
        hub.hub._listener.close()  # type: ignore[union-attr]
        hub.changes = Changes(Revision(4, {"rate": "2"}, 4), started_number=3)
        hub.begin(again=True)
        assert (hub.folder / "0").stat().st_ino == inode, "a container has it mounted"
        eventually(lambda: hub.changes.heard(4) == (0,), "the listener says what it knows")
        code = hub.folder.parent / "code"
        code.mkdir()
        (code / "train.py").write_text("new")
        hub.hub.add_code(code, 5)
        hub.changes.publish(Revision(5, {"rate": "2", "end": "1"}, 4, hub.hub.code(5), 5))
        assert line(process) == [5, {"rate": "2", "end": "1"}, "/opt/ml/exchange/code/5", ["code"]]
        assert (hub.folder / "0" / "code" / "5" / "train.py").read_text() == "new"
        assert line(process) == [None, 1]


def test_one_who_waits_and_dies_has_not_heard(hub: Hub) -> None:
    with listener(hub) as process:
        assert line(process) == ["joined"]
        hub.curl("/changes?since=3")
        process.kill()
        process.wait()
        eventually(lambda: not hub.hub._listener._open, "the hub sees it go")  # type: ignore[union-attr]
        hub.changes.publish(Revision(4, {"rate": "2"}, 4))
        assert hub.changes.heard(4) == ()
