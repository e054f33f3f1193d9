"""Shows a folder in FastFile mode, says so, and waits to be killed: `python fast_job.py SOURCE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from raymaker.actors.channels.fast import FastFiles
from raymaker.actors.contract import JobFolder
from raymaker.actors.spec import ChannelSpec
from raymaker.actors.storage import ObjectStore, StoreConfig


def main(source: str, root: Path) -> None:
    fast = FastFiles(ObjectStore(), StoreConfig(), root / "fast", 8 * 1024 * 1024, "process")
    channel = ChannelSpec("train", source, input_mode="FastFile")
    fast.find(channel, {0: JobFolder.of_one(root / "0")}, 1)
    fast.show()
    sys.stdout.write("shown\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
