"""How a channel in File mode is laid before containers: the machine's cache with a layer of the job's own over it.

What a container writes goes to that layer, which is the job's, so that nothing reaches the next job. Where this process
may not mount such a layer, or the engine would not see it, the job gets copies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raymaker.actors.channels.cache import ObjectCache
from raymaker.actors.channels.file import fetch_channel
from raymaker.actors.channels.progress import Listener
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.contract import MOUNT_POINT, SEEN
from raymaker.actors.mounting import lay_over, may_mount, unmount_below
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore

MIB = 1024 * 1024
ALL = Shard(0, 1)


class Laying:
    """Brings channels to their folders. `note` hears the kind and the message of events of the job."""

    def __init__(
        self, store: ObjectStore, cache: ObjectCache, note: Callable[[str, str], None], *, may_mount: bool
    ) -> None:
        self._store = store
        self._cache = cache
        self._note = note
        self._may_mount = may_mount

    @classmethod
    def of(cls, store: ObjectStore, site: Site, driver: str, note: Callable[[str, str], None]) -> Laying:
        """As a machine's surroundings, and the driver of its containers, let it be."""
        return cls(store, ObjectCache(site.data_cache, site.data_cache_bytes), note, may_mount=may_mount(driver))

    def lay(self, channel: ChannelSpec, folder: Path, on_progress: Listener | None = None, shard: Shard = ALL) -> None:
        """Bring a channel, or one container's share of it, to a folder that is empty. Raises as `fetch_channel`."""
        layered = self._may_mount and self._cache.is_on and _is_kept(channel) and _can_lay_over(folder)
        below = folder / "below" if layered else folder / MOUNT_POINT
        data = below / SEEN
        data.mkdir(parents=True)
        data.chmod(0o755)
        cached_bytes = fetch_channel(
            self._store,
            channel,
            data,
            on_progress,
            shard_index=shard.index,
            shard_count=shard.count,
            cache=self._cache,
            links=layered,
        )
        if layered and not lay_over(below, folder / "written", folder / "work", folder / MOUNT_POINT):
            raise OSError(f"the kernel has mounted a layer in {folder} and does not do so again")
        if cached_bytes:
            self._note("ChannelCached", f"Channel {channel.name}: {_mib(cached_bytes)} from this machine's cache")


def _is_kept(channel: ChannelSpec) -> bool:
    """Tell whether a channel's files are those of the cache, and not the job's own already."""
    return channel.uri.startswith("s3://") and channel.shard_by == "Object" and channel.compression == "None"


def _can_lay_over(folder: Path) -> bool:
    """Tell whether the kernel mounts such a layer here, which a folder that is itself a layer may forbid."""
    trial = folder / "trial"
    try:
        return lay_over(*(trial / name for name in ("below", "written", "work", "mounted")))
    finally:
        unmount_below(trial)


def _mib(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count} bytes"
