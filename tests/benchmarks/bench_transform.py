"""Batch transform beside a client that sends the same payloads straight to the same container.

The client has as many connections as the job may have calls under way, its payloads lie ready in memory, and it throws
the answers away; batch transform reads objects, splits them, keeps the answers' order and stores them. The two take
turns, and the ratio is of the medians. The container is examples/digits_image; beside it noop_server.c, which answers
faster than any model, so that there the cost of reading and storing is seen bare.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import numpy as np
from sklearn.datasets import load_digits

from raymaker.actors.scoring import Address, ping
from raymaker.actors.storage import ObjectStore
from raymaker.serving.forward import Forwarder
from raymaker.serving.transform.calls import Caller
from raymaker.serving.transform.engine import Engine
from raymaker.serving.transform.limits import Limits
from raymaker.serving.transform.paths import parse_path
from raymaker.serving.transform.plan import Task
from raymaker.serving.transform.processing import Processor
from raymaker.serving.transform.spec import MIB, TransformInput
from raymaker.serving.transform.splitting import split
from raymaker.serving.transform.tally import Tally
from support.engine import BASE_IMAGE
from support.measure import median, print_table
from support.noop_hosting import noop_image
from support.platform import ROOT

ROUNDS = 5
TARGET = 0.8
HEADERS = [(b"content-type", b"text/csv")]
DIGITS_IMAGE = "raymaker-bench-digits:latest"
HIDDEN = 64


@dataclass(frozen=True)
class Load:
    """What is transformed: so many objects of so many lines, split and sent so."""

    name: str
    object_count: int
    line_count: int
    strategy: str
    payload_bytes: int
    concurrency: int
    split_type: str = "Line"


LOADS = (
    Load("4 objects of 6 MiB, payloads of 1 MB, 4 at once", 4, 18_000, "MultiRecord", MIB, 4),
    Load("1 object, line by line, 4 at once", 1, 3_000, "SingleRecord", MIB, 4),
    Load("200 objects of 100 KiB, each whole, 4 at once", 200, 280, "MultiRecord", MIB, 4, "None"),
)


def main() -> None:
    """Measure each load on each container, and print a table for each."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.closing(docker.from_env()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = ROOT / "examples" / "digits_image"
        engine.images.build(path=str(context), tag=DIGITS_IMAGE, buildargs={"BASE_IMAGE": BASE_IMAGE}, rm=True)
        stack.callback(engine.images.remove, DIGITS_IMAGE, force=True)
        noop = stack.enter_context(noop_image(engine, folder))
        model = save_model(folder / "model")
        for image, name in ((DIGITS_IMAGE, "a model of digits"), (noop, "a container that does nothing")):
            with running_container(engine, image, model) as address:
                rows = [measure(load, address, folder) for load in LOADS]
            title = f"Batch transform by {name}, median of {ROUNDS} rounds"
            print_table(title, ["", "client", "batch transform", "ratio"], rows)
    print(f"the target, by the model, is at least {TARGET:g} of the client's rate")


def save_model(folder: Path) -> Path:
    """Write weights as examples/digits_image stores them: which ones makes no difference to the time."""
    chance = np.random.default_rng(0)
    shapes = {"hidden": (64, HIDDEN), "hidden_bias": (HIDDEN,), "output": (HIDDEN, 10), "output_bias": (10,)}
    folder.mkdir()
    np.savez(folder / "model.npz", **{name: chance.normal(size=shape) for name, shape in shapes.items()})
    return folder


def measure(load: Load, address: Address, folder: Path) -> list[str]:
    """Let both take turns on one load. The first round warms up and is not kept."""
    tasks = make_tasks(load, folder)
    payloads = list(payloads_of(load, folder / "in"))
    direct_s, transform_s = [], []
    for number in range(ROUNDS + 1):
        taken_s = timed(send_all(load, address, payloads)), timed(transform_all(load, address, tasks, folder))
        if number:
            direct_s.append(taken_s[0])
            transform_s.append(taken_s[1])
    shutil.rmtree(folder / "in")
    shutil.rmtree(folder / "out")
    direct, transform = median(direct_s), median(transform_s)
    size_mib = sum(map(len, payloads)) / MIB
    rates = [f"{len(payloads) / took:.0f}/s, {size_mib / took:.1f} MiB/s" for took in (direct, transform)]
    return [load.name, *rates, f"{direct / transform:.2f}"]


def make_tasks(load: Load, folder: Path) -> list[Task]:
    """Write the input, rows of real digits again and again, and say what is to be done with it."""
    rows = [",".join(f"{value / 16:.3f}" for value in row) for row in load_digits().data]
    lines = itertools.cycle(rows)
    tasks = []
    for number in range(load.object_count):
        path, output = folder / "in" / f"{number}.csv", folder / "out" / f"{number}.csv.out"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{next(lines)}\n" for _ in range(load.line_count)))
        tasks.append(Task(path.name, path.as_uri(), path.stat().st_size, output.as_uri()))
    return tasks


def timed(work: Coroutine[object, object, None]) -> float:
    """Run it, and return how long that took in seconds."""
    began = time.perf_counter()
    asyncio.run(work)
    return time.perf_counter() - began


async def send_all(load: Load, address: Address, payloads: Sequence[bytes]) -> None:
    """Be the client: one task for each connection."""
    forwarder = Forwarder(*address)
    left = iter(payloads)

    async def send() -> None:
        for payload in left:
            answer = await forwarder.request("POST", "/invocations", HEADERS, payload)
            if answer.status != 200:
                raise RuntimeError(f"the container answered with status {answer.status}")

    await asyncio.gather(*(send() for _ in range(load.concurrency)))
    forwarder.close()


async def transform_all(load: Load, address: Address, tasks: Sequence[Task], folder: Path) -> None:
    """Be batch transform, from objects to stored outputs."""
    caller = Caller(HEADERS, concurrency=load.concurrency, timeout_s=60, max_retries=0, on_hung=lambda: None)
    caller.set_container(address)
    everything = parse_path("$")
    tally = Tally(len(tasks))
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    engine = Engine(
        ObjectStore(),
        caller,
        source=TransformInput("", content_type="text/csv", split_type=load.split_type),
        limits=Limits(load.strategy, load.payload_bytes, load.concurrency),
        processor=Processor(None, None, everything, everything, joins=False, ends_lines=True),
        folder=spool,
        tally=tally,
    )
    await engine.run(tasks)
    caller.set_container(None)
    if tally.progress.done_count != len(tasks):
        raise RuntimeError(f"objects failed: {tally.take_unreported()}")


def payloads_of(load: Load, folder: Path) -> Iterator[bytes]:
    """Cut the objects as the job does."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as source:
            for piece in split(source, load.split_type, load.strategy, load.payload_bytes):
                yield piece.data


@contextlib.contextmanager
def running_container(engine: docker.DockerClient, image: str, model: Path) -> Iterator[Address]:
    """Run a scoring container, and yield its address once it answers."""
    volumes = {str(model): {"bind": "/opt/ml/model", "mode": "ro"}}
    container = engine.containers.run(image, "serve", detach=True, volumes=volumes)
    try:
        container.reload()
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        address = (str(network["IPAddress"]), 8080)
        while ping(address) is not None:
            time.sleep(0.05)
        yield address
    finally:
        container.remove(force=True)


if __name__ == "__main__":
    main()
