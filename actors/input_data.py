"""The channels of one machine's containers: those that are fetched before they start, and those that are streamed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raymaker.actors import contract
from raymaker.actors.channels.fast import CannotShow, FastFiles
from raymaker.actors.channels.laying import ALL, Laying
from raymaker.actors.channels.once import SharedChannels
from raymaker.actors.channels.sharding import Shard
from raymaker.actors.channels.stream import Streams
from raymaker.actors.contract import JobFolder
from raymaker.actors.mounting import empty_tree
from raymaker.actors.site import Site
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore

MIB = 1024 * 1024

Tell = Callable[[str], None]
"""Hears of progress, for people."""
Note = Callable[[str, str], None]
"""Hears the kind and the message of events of the job."""


class InputData:
    """The input of one attempt on one machine. Hold it while it is used.

    `shared` is the folder of the channels that all containers of the machine see, whoever of the job's instances there
    has fetched them. `streams` brings those that come through pipes while the containers run, `fast` shows those whose
    files are fetched as they are read.
    """

    def __init__(
        self, laying: Laying, shared: Path, streams: Streams, fast: FastFiles, note: Callable[[str, str], None]
    ) -> None:
        self._laying = laying
        self._shared = SharedChannels(shared)
        self._fetched_bytes: int | None = None
        self.streams = streams
        self._fast = fast
        self._note = note

    @classmethod
    def of(cls, store: ObjectStore, site: Site, driver: str, note: Note, *, own: Path, shared: Path) -> InputData:
        """As a machine's surroundings let it be; `own` is the folder of the attempt's instance."""
        return cls(
            Laying.of(store, site, driver, note),
            shared,
            Streams(store, own, site.stream_buffer_bytes, note),
            FastFiles(store, site.store, own / "fast", site.stream_buffer_bytes, driver),
            note,
        )

    @property
    def shared_folder(self) -> Path:
        """Where the channels lie that every container gets whole."""
        return self._shared.folder

    def hold(self) -> None:
        """Keep the shared channels from being removed, until `release`."""
        self._shared.hold()

    def release(self) -> None:
        """Let go of everything."""
        self.streams.close()
        self._fast.close()
        self._shared.release()

    @property
    def problem(self) -> str | None:
        """Why a container cannot have its data, None where all can."""
        return self.streams.problem or self._fast.problem

    def fetch(
        self,
        channels: Sequence[ChannelSpec],
        folders: Mapping[int, JobFolder],
        world_size: int,
        tell: Tell,
        *,
        is_new: bool,
    ) -> None:
        """Bring every channel's data here, or find what is to be streamed. `folders` are the containers', by rank.

        Where it is not new, what the containers have of their own is here already. Raises StorageError.
        """
        for channel in channels:
            if channel.is_streamed or channel.is_fast:
                tell(f"Looking up channel {channel.name}")
            if channel.is_streamed:
                self.streams.find(channel, {rank: folder.data for rank, folder in folders.items()}, world_size)
            elif channel.is_fast:
                self._fast.find(channel, folders, world_size)
            elif not contract.is_sharded(channel):
                self._shared.fetch(channel.name, lambda folder, it=channel: self._fetch(it, folder, tell))  # type: ignore[misc]
            else:
                for rank, folder in folders.items() if is_new else ():
                    empty_tree(folder.place(channel))
                    self._fetch(channel, folder.place(channel), tell, Shard(rank, world_size))
        self._show_fast([channel for channel in channels if channel.is_fast], folders, world_size, tell)

    def count_bytes(self, channels: Sequence[ChannelSpec], folders: Mapping[int, JobFolder]) -> int:
        """How much input there is: what was fetched, which is counted once, and what was streamed so far."""
        if self._fetched_bytes is None:
            fetched = [each for each in channels if not (each.is_streamed or each.is_fast)]
            places = {folder.channel(each) for folder in folders.values() for each in fetched}
            self._fetched_bytes = sum(map(_size, places))
        return self._fetched_bytes + sum(self.streams.delivered_bytes().values())

    def _show_fast(
        self, channels: Sequence[ChannelSpec], folders: Mapping[int, JobFolder], world_size: int, tell: Tell
    ) -> None:
        """Show FastFile channels; where that cannot be, fetch them before the containers start."""
        if not channels:
            return
        try:
            self._fast.show()
        except CannotShow as error:
            for channel in channels:
                self._note("FastFileFallback", f"Channel {channel.name} is fetched as in File mode: {error}")
                self._fetch_instead(channel, folders, world_size, tell)

    def _fetch_instead(
        self, channel: ChannelSpec, folders: Mapping[int, JobFolder], world_size: int, tell: Tell
    ) -> None:
        for rank, folder in folders.items():
            place = folder.place(channel)
            empty_tree(place)
            if contract.is_sharded(channel):
                self._fetch(channel, place, tell, Shard(rank, world_size))
            else:
                self._shared.fetch(channel.name, lambda at: self._fetch(channel, at, tell))
                (place / contract.MOUNT_POINT).symlink_to(self.shared_folder / channel.name / contract.MOUNT_POINT)

    def _fetch(self, channel: ChannelSpec, folder: Path, tell: Tell, shard: Shard = ALL) -> None:
        part = f", part {shard.index + 1} of {shard.count}" if shard.count > 1 else ""

        def progress(done_bytes: int, total_bytes: int) -> None:
            tell(f"Downloading channel {channel.name}{part}: {done_bytes // MIB} of {total_bytes // MIB} MiB")

        self._laying.lay(dataclasses.replace(channel, input_mode="File"), folder, progress, shard)


def _size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum((Path(root) / name).stat().st_size for root, _, names in os.walk(folder) for name in names)
