"""What a job's containers leave, stored: models and output of all of them merged, and a note of who left what.

`artifacts.py` packs one folder, `merging.py` makes one folder of many; here is which folders, and where they go.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raymaker.actors.artifacts import pack, unpack
from raymaker.actors.contract import Seat, describe_seat
from raymaker.actors.extraction import UnpackLimits
from raymaker.actors.instance import Instance
from raymaker.actors.merging import merge_folders
from raymaker.actors.spec import TrainingSpec, host_name

MODEL, OUTPUT = "model", "output"
SEEN_AS = {MODEL: "/opt/ml/model", OUTPUT: "/opt/ml/output/data"}
OWN_PARTS = UnpackLimits(max_ratio=math.inf)
"""What machines pack for each other is as large as their users made it."""
NOTE = "containers.json"
NOTE_LIMIT_BYTES = 64 * 1024 * 1024
NAMED_FILES_COUNT = 1000
"""How many files of a container the note names."""


class ModelData:
    """Stores the end of one attempt. What could not be kept is told as an event of the job."""

    def __init__(self, instance: Instance, spec: TrainingSpec) -> None:
        self._instance = instance
        self._spec = spec
        self._place = instance.place
        self._home = f"{spec.output_uri.rstrip('/')}/{spec.job_name}/output"
        self._merged = instance.scratch / "merged"

    def store_part(self, *, wants_model: bool) -> None:
        """Store what this machine's containers left where machine 0 takes it up. Raises StorageError."""
        if self._place.machine_index == 0:
            return
        for kind in self._kinds(wants_model=wants_model):
            uri = f"{self._part(self._place.machine_index)}/{kind}"
            left = self._merge_containers(kind)
            pack(left, self._instance.store, uri, seen_as=SEEN_AS[kind], on_left_out=self._tell)
        note = self._instance.scratch / NOTE
        note.write_text(json.dumps(self._describe_containers()))
        self._instance.store.upload(note, f"{self._part(self._place.machine_index)}/{NOTE}")

    def store(self, *, wants_model: bool) -> str | None:
        """Store the whole of what the job left, as machine 0. Returns the model's URI, None where none is wanted."""
        if self._place.world_size > 1:
            self._store_note()
        output = self._merge_machines(OUTPUT)
        if any(output.iterdir()):
            self._pack(OUTPUT, output)
        uri = self._pack(MODEL, self._merge_machines(MODEL)) if wants_model else None
        if self._place.machine_count > 1:
            self._instance.store.delete_prefix(self._parts)
        return uri

    def delete_model(self) -> None:
        """Delete the model that an earlier owner of the attempt has stored, where it did. Raises StorageError."""
        self._instance.store.delete_prefix(self._uri(MODEL))

    @property
    def _parts(self) -> str:
        return f"{self._home}/.parts-{self._spec.label}"

    def _part(self, machine_index: int) -> str:
        return f"{self._parts}/machine-{machine_index}"

    def _kinds(self, *, wants_model: bool) -> Sequence[str]:
        return (MODEL, OUTPUT) if wants_model else (OUTPUT,)

    def _pack(self, kind: str, folder: Path) -> str:
        """Store a folder at SageMaker's place: `<kind>.tar.gz`, uncompressed the folder `<kind>/`."""
        uri, compression = self._uri(kind), self._spec.output_compression
        return pack(folder, self._instance.store, uri, compression, seen_as=SEEN_AS[kind], on_left_out=self._tell)

    def _uri(self, kind: str) -> str:
        return f"{self._home}/{kind}.tar.gz" if self._spec.output_compression == "GZIP" else f"{self._home}/{kind}"

    def _left(self, seat: Seat, kind: str) -> Path:
        folder = self._instance.folder(seat)
        return folder.model if kind == MODEL else folder.output_data

    def _merge_containers(self, kind: str) -> Path:
        """Make one folder of what this machine's containers left."""
        seats = self._instance.seats
        if len(seats) == 1:
            return self._left(seats[0], kind)
        return self._merge(kind, "here", [(seat.rank, self._left(seat, kind)) for seat in seats], host_name)

    def _merge_machines(self, kind: str) -> Path:
        """Make one folder of what all machines' containers left."""
        parts = [(0, self._merge_containers(kind))]
        for index in range(1, self._place.machine_count):
            folder = self._fresh(f"{kind}-{index}")
            unpack(self._instance.store, f"{self._part(index)}/{kind}", folder, OWN_PARTS)
            parts.append((index * self._place.containers_per_machine, folder))
        if len(parts) == 1:
            return parts[0][1]
        return self._merge(kind, "all", parts, lambda rank: f"machine {rank // self._place.containers_per_machine + 1}")

    def _merge(self, kind: str, name: str, parts: Sequence[tuple[int, Path]], called: Callable[[int], str]) -> Path:
        into = self._fresh(f"{kind}-{name}")
        for conflict in merge_folders(parts, into, seen_as=SEEN_AS[kind], called=called):
            self._tell(conflict)
        return into

    def _fresh(self, name: str) -> Path:
        folder = self._merged / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def _store_note(self) -> None:
        """Keep with the model which container of which machine left which files."""
        containers = self._describe_containers()
        for index in range(1, self._place.machine_count):
            part = self._instance.store.read_bytes(f"{self._part(index)}/{NOTE}", NOTE_LIMIT_BYTES)
            containers += json.loads(part)
        note = self._instance.scratch / NOTE
        note.write_text(json.dumps({"attempt": self._spec.label, "containers": containers}, indent=1))
        self._instance.store.upload(note, f"{self._home}/{NOTE}")

    def _describe_containers(self) -> list[dict[str, Any]]:
        return [
            {"host": seat.host, **describe_seat(seat), "files": _names(self._left(seat, MODEL))}
            for seat in self._instance.seats
        ]

    def _tell(self, message: str) -> None:
        self._instance.note("ModelDataConflict", message)


def _names(folder: Path) -> list[str]:
    """Name the files that lie in a folder, without following links."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return [path.relative_to(folder).as_posix() for path, _ in zip(found, range(NAMED_FILES_COUNT), strict=False)]
