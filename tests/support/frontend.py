"""The control plane's frontend without a cluster: a context to run operations in, and a server on a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from raymaker.actors.spec import InstanceType, Resources
from raymaker.platform.database.engine import Database
from raymaker.platform.operations.registry import Context
from raymaker.platform.pools.seen import MachineStatus, SeenContainer, SeenMachine, SeenPool
from raymaker.platform.settings import Settings


class QuietCluster:
    """A cluster of one large machine that never does anything."""

    def __init__(self) -> None:
        self.wake_count = 0

    def instance_types(self) -> dict[str, InstanceType]:
        return {"local": InstanceType("local", Resources(1.0))}

    def nodes(self) -> list[Resources]:
        return [Resources(cpus=64, memory_bytes=256 * 1024**3)]

    def is_open_ended(self) -> bool:
        return False

    def pool(self) -> SeenPool:
        waiting = SeenMachine("machine/a", "node-1", MachineStatus.WAITING, 3, 1_700_000_000.0)
        running = SeenMachine("machine/b", "node-1", MachineStatus.RUNNING, 0, 0.0, "digits", 1)
        kept = SeenMachine("machine/c", "node-1", MachineStatus.KEPT, 1, 0.0, "letters", kept_until=1_700_000_900.0)
        container = SeenContainer("node-1", "digits:1", 1_700_000_000.0)
        return SeenPool(
            (waiting, running, kept),
            least=1,
            most=4,
            wanted=2,
            recent_starts=5,
            containers=(container,),
        )

    def wake(self) -> None:
        self.wake_count += 1


def make_context(home: Path) -> Context:
    """A context whose state lies under `home`. Its database is not opened before it is used."""
    settings = Settings(home=home, account_id="123456789012")
    return Context(
        account=settings.account_id,
        region=settings.region,
        settings=settings,
        database=Database(settings.resolved_database_url),
        cluster=QuietCluster(),
        now=time.time,
    )


@contextlib.contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """Run an ASGI application on a free loopback port; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, name="frontend", daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "uvicorn did not start; its message stands above"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
