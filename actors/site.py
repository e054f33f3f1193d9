"""What every machine of one platform knows about its surroundings. Frozen and picklable, so it travels with actors."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from raymaker.actors.runtime.base import WaitingContainers, home_tag
from raymaker.actors.storage import StoreConfig


def machine_id() -> str:
    """Name this machine, the same after a restart of everything on it."""
    try:
        installed = Path("/etc/machine-id").read_text().strip()
    except OSError:
        installed = ""
    return f"{socket.gethostname()}/{installed[:12]}"


@dataclass(frozen=True)
class Site:
    """The surroundings of one machine.

    `home` is the same path on every machine. `container_s3_url` is told to containers where an object-store endpoint is
    configured. `stop_grace_s` lies between SIGTERM and SIGKILL. `exchange_arena_bytes` None: the exchange decides.
    """

    home: Path
    driver: str
    store: StoreConfig
    base_image: str
    registry_insecure: tuple[str, ...] = ()
    stop_grace_s: float = 120.0
    reap_after_s: float = 20.0
    exchange_timeout_s: float = 300.0
    exchange_arena_bytes: int | None = None
    stream_buffer_bytes: int = 64 * 1024 * 1024
    """The memory of each streamed channel of an instance, shared by the containers that read it."""
    data_cache_bytes: int = 0
    """How much training data a machine keeps for its next jobs; 0: none."""
    standby_count: int = 0
    """How many containers of the images used last wait inside their start on each machine that waits for jobs."""
    standbys: WaitingContainers | None = None
    """Those that wait on each node for processes which start one container, and keep none for others."""
    lets_rest: bool = False
    """Whether a replica that nobody asks may stay without its containers."""
    host_network: bool = False
    """Whether containers may share their machine's network where that is the only way to those on other machines."""

    @property
    def tag(self) -> str:
        """A few characters that tell this platform's containers from those of another home on the same engine."""
        return home_tag(self.home)

    @property
    def jobs(self) -> Path:
        """Where training attempts have their folders: `<jobs>/<job>/<attempt>`."""
        return self.home / "jobs"

    @property
    def data_cache(self) -> Path:
        """Where training data is kept for the next job, by content."""
        return self.home / "cache" / "objects"

    @property
    def warm_pools(self) -> Path:
        """Where machines of warm pools keep what jobs leave for each other: `<warm_pools>/<pool>/<machine>`."""
        return self.home / "warm-pools"

    @property
    def transforms(self) -> Path:
        """Where machines of transform jobs have their folders: `<transforms>/<job>/<attempt>-<machine>`."""
        return self.home / "transforms"

    @property
    def evaluations(self) -> Path:
        """Where evaluations have their folders: `<evaluations>/<job>-<number>`."""
        return self.home / "evaluations"

    @property
    def sources(self) -> Path:
        """Where staged source code is kept, by content."""
        return self.home / "sources"
