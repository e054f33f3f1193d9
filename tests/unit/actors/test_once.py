"""Channels that the instances of one machine share: fetched once, kept while anybody holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymaker.actors.channels.once import SharedChannels


class Source:
    """Brings a file; counts how often; breaks where it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.breaks = False

    def __call__(self, folder: Path) -> None:
        self.count += 1
        folder.mkdir(exist_ok=True)
        (folder / f"part-{self.count}").touch()
        if self.breaks:
            raise OSError("cut")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_channel_is_fetched_once_whoever_comes_first(tmp_path: Path) -> None:
    one, other, source = SharedChannels(tmp_path / "c"), SharedChannels(tmp_path / "c"), Source()
    for channels in (one, other):
        channels.hold()
        channels.fetch("train", source)
    assert source.count == 1
    one.release()
    other.release()


def test_a_fetch_that_was_cut_short_begins_anew_in_the_same_folder(tmp_path: Path) -> None:
    channels, source = SharedChannels(tmp_path / "c"), Source()
    channels.hold()
    source.breaks = True
    with pytest.raises(OSError, match="cut"):
        channels.fetch("train", source)
    mounted = (channels.folder / "train").stat().st_ino
    source.breaks = False
    channels.fetch("train", source)
    assert names(channels.folder / "train") == ["part-2"]
    assert (channels.folder / "train").stat().st_ino == mounted
    channels.release()


def test_they_stay_while_anybody_holds_them_and_go_with_the_last(tmp_path: Path) -> None:
    one, other = SharedChannels(tmp_path / "c"), SharedChannels(tmp_path / "c")
    one.hold()
    other.hold()
    one.fetch("train", Source())
    one.release()
    assert names(other.folder / "train") == ["part-1"]
    other.release()
    assert not other.folder.exists()


def test_letting_go_twice_does_nothing(tmp_path: Path) -> None:
    channels = SharedChannels(tmp_path / "c")
    channels.hold()
    channels.release()
    channels.hold()
    channels.release()
    channels.release()
    assert not channels.folder.exists()
