"""The exchange hub of one machine: the folder that each of its containers sees, its sockets, and the shared arena.

It lives in the instance's process, beside the containers. What ranks ask of each other is session.py's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymaker.actors.errors import WorkError
from raymaker.actors.exchange.changes import Changes
from raymaker.actors.exchange.leader import Leader
from raymaker.actors.exchange.listener import Listener
from raymaker.actors.exchange.raymaker_exchange.arena import Arena
from raymaker.actors.exchange.rendezvous import Mode
from raymaker.actors.exchange.routes import Caller, OnMetrics
from raymaker.actors.exchange.seam import Across, Failure
from raymaker.actors.exchange.session import Session
from raymaker.actors.exchange.wire import Connection, Limits
from raymaker.actors.spec import Mount, Place

TARGET = "/opt/ml/exchange"
"""Where a container sees its folder."""
SOCKET = "exchange.sock"
ARENA = "arena"
CODE = "code"
"""The folder of code that came while the containers ran, by its revision."""
CLIENT = Path(__file__).with_name("raymaker_exchange")
"""The Python client, a package that stands alone."""
MOST_ARENA_BYTES = 2 * 1024**3
"""Room for arrays that ranks allocate in the arena, where the memory file system has four times as much free."""


class ExchangeHub:
    """One machine's part in the exchange of one start of a job. It owns `folder`, the file `arena`, and `across`.

    `arena_bytes` is the room for arrays that ranks allocate in the arena, all together; None takes a quarter of what is
    free, up to 2 GiB. Pages are taken only when they are used. `on_metrics` hears numbers that ranks tell; it must not
    block. `changes` is how ranks hear that their job is to go on otherwise.
    """

    def __init__(
        self,
        folder: Path,
        arena: Path,
        place: Place,
        *,
        across: Across | None = None,
        arena_bytes: int | None = None,
        timeout_s: float = 300.0,
        join_timeout_s: float = 600.0,
        limits: Limits | None = None,
        on_metrics: OnMetrics = lambda _rank, _values, _step: None,
        changes: Changes | None = None,
    ) -> None:
        if place.machine_count > 1 and across is None:
            raise ValueError(f"a job of {place.machine_count} machines needs a way across them")
        self._folder = folder
        self._arena_path = arena
        self._arena_bytes = arena_bytes
        self._place = place
        self._across = across if place.machine_count > 1 else None
        self._limits = limits or Limits()
        self._on_metrics = on_metrics
        self._changes = changes or Changes()
        self._arena: Arena | None = None
        self._leader: Leader | None = None
        self._listener: Listener | None = None
        self._session = Session(
            place,
            self._across,
            timeout_s=timeout_s,
            join_timeout_s=join_timeout_s,
            prepare=self._prepare,
            on_failure=self._on_failure,
        )

    @property
    def failure(self) -> Failure | None:
        """Why the ranks cannot go on: the first reason of all. None while they can."""
        return self._session.failure

    def start(self, *, again: bool = False) -> None:
        """Make all that the containers are to see, in place of what an earlier hub may have left. Raises WorkError.

        With `again` they are there and see their folders already: those stay, and get new sockets.
        """
        if again:
            self._arena_path.unlink(missing_ok=True)
        else:
            remove(self._folder, self._arena_path)
        try:
            self._arena = make_arena(self._arena_path, self._arena_bytes, self._place)
            sockets = {rank: self._make_folder(index) / SOCKET for index, rank in enumerate(self._place.ranks)}
            self._listener = Listener(sockets, self._serve, self._limits)
            self._listener.start()
        except BaseException:
            self.close()
            raise

    def mounts(self, container_index: int) -> tuple[Mount, ...]:
        """What this machine's container of that index is to see, as its spec has it."""
        folder = self._folder / str(container_index)
        return (Mount(str(folder), TARGET, read_only=True), Mount(str(self._arena_path), f"{TARGET}/{ARENA}"))

    def add_code(self, code: Path, number: int) -> None:
        """Put newer code where each container sees it, whole or not at all. Repeatable. Raises OSError."""
        for index in range(self._place.containers_per_machine):
            target = self._code(index, number)
            if target.exists():
                continue
            made = target.with_name(f".{number}.part")
            shutil.rmtree(made, ignore_errors=True)
            made.parent.mkdir(exist_ok=True)
            made.parent.chmod(0o755)
            shutil.copytree(code, made, symlinks=True)
            made.rename(target)

    def code(self, number: int) -> str | None:
        """Where containers see the code of a revision, None where they were started with it."""
        return f"{TARGET}/{CODE}/{number}" if self._code(0, number).exists() else None

    def rank_ended(self, rank: int, how: str) -> None:
        """Hear that a rank's container has ended, e.g. with `exit code 0`: whoever waits for it, also later, fails."""
        self._session.end_rank(rank, how)

    def put_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Tell the ranks something, as a document that they may look for."""
        self._session.publish(name, document)

    def close(self) -> None:
        """Answer whoever waits that it is over, and remove all that was made. Closing twice does nothing."""
        self._session.close()
        if self._listener:
            self._listener.close()
        if self._leader:
            self._leader.close()
        if self._arena:
            self._arena.close()
        self._listener = self._leader = self._arena = None
        remove(self._folder, self._arena_path)

    def _code(self, container_index: int, number: int) -> Path:
        return self._folder / str(container_index) / CODE / str(number)

    def _make_folder(self, container_index: int) -> Path:
        folder = self._folder / str(container_index)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # whatever the umask: the container may run as anyone
        if not (folder / CLIENT.name).exists():
            _copy_client(folder / CLIENT.name)
        (folder / ARENA).touch()
        (folder / SOCKET).unlink(missing_ok=True)
        return folder

    def _serve(self, rank: int, connection: Connection) -> None:
        Caller(
            self._session, rank, connection, self._limits, on_metrics=self._on_metrics, changes=self._changes
        ).serve()

    def _prepare(self, mode: Mode) -> None:
        if mode.mode == "arena" and (self._across or mode.reduce == "hub"):
            assert self._arena is not None
            self._leader = Leader(self._arena, self._place, self._across, self._on_leader_failure)
            self._leader.start()

    def _on_leader_failure(self, failure: Failure) -> None:
        self._session.fail(failure)

    def _on_failure(self, _: Failure) -> None:
        if self._arena:
            self._arena.fail()


def make_arena(path: Path, arena_bytes: int | None, place: Place) -> Arena:
    """Make the machine's arena. Raises WorkError with the remedy where the memory file system has no room for it."""
    try:
        free = os.statvfs(path.parent)
        free_bytes = free.f_bavail * free.f_frsize
        room_bytes = min(free_bytes // 4, MOST_ARENA_BYTES) if arena_bytes is None else arena_bytes
        if room_bytes > free_bytes:
            raise _too_little(path, room_bytes, free_bytes)
        arena = Arena.create(path, room_bytes, len(place.ranks), place.machine_count)
    except OSError as error:
        raise WorkError(f"the exchange cannot have shared memory at {path}: {error}. {_remedy(path)}") from error
    needed_bytes = path.stat().st_size
    if needed_bytes > free_bytes:
        arena.close()
        path.unlink()
        raise _too_little(path, needed_bytes, free_bytes)
    return arena


def remove(folder: Path, arena: Path) -> None:
    """Remove what a hub has made, also one that was killed. What is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        arena.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _copy_client(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    for name, source in _client_sources().items():
        with (folder / name).open("wb", buffering=0) as file:
            file.write(source)
            os.fchmod(file.fileno(), 0o644)


@functools.cache
def _client_sources() -> Mapping[str, bytes]:
    """The files of the Python client, by name: read once, since each job is to start soon."""
    return {file.name: file.read_bytes() for file in CLIENT.glob("*.py")}


def _too_little(path: Path, needed_bytes: int, free_bytes: int) -> WorkError:
    needed, free = (f"{size / 1024**2:.0f} MiB" for size in (needed_bytes, free_bytes))
    what = f"the exchange needs {needed} of shared memory, but {path.parent} has {free} free"
    return WorkError(f"{what}. {_remedy(path)}")


def _remedy(path: Path) -> str:
    return (
        f"Enlarge {path.parent} (mount -o remount,size=4g {path.parent}; docker run --shm-size=4g where the platform "
        "itself runs in a container), remove what fills it, or ask for fewer containers or a smaller arena"
    )
