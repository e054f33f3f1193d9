"""What is written down about stored checkpoints, and what follows from it: which of them can be restored. Pure.

A checkpoint is one entry of the checkpoint folder: a file, or a folder with all in it. Every start of every machine
has a manifest of its own, so that no writer can spoil what another one has written down.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

RESERVED = ".raymaker"
"""The folder at a checkpoint location that holds no checkpoints."""
MANIFESTS = f"{RESERVED}/manifests"
STAGED = f"{RESERVED}/staged"

FORMAT = 1
CLAIM_NAME = re.compile(r"(\d{6,})-(\d{5,})-(\d{5,})-(\d{3,})-(.*)")


class ManifestError(ValueError):
    """What should be a manifest is none."""


@dataclass(frozen=True)
class Writer:
    """Who syncs: one machine of one start of one attempt at a job. `job` is a name that no other live job has."""

    attempt: int
    start: int = 0
    machine_index: int = 0
    machine_count: int = 1
    job: str = ""

    @property
    def turn(self) -> tuple[int, int]:
        """The attempt and its start: of two turns of a job, the greater one is the later."""
        return self.attempt, self.start


@dataclass(frozen=True)
class Claim:
    """A writer's hold on a location. `generation` is greater than that of every claim that was there before it."""

    generation: int
    job: str
    attempt: int
    start: int
    machine_index: int

    @classmethod
    def parse(cls, name: str) -> Claim | None:
        """Read the name of a manifest; None where it is no such name."""
        found = CLAIM_NAME.fullmatch(name.removesuffix(".json"))
        if found is None:
            return None
        generation, attempt, start, machine_index = map(int, found.groups()[:4])
        return cls(generation, found.group(5), attempt, start, machine_index)

    @property
    def tag(self) -> str:
        """Names the claim in the names of objects; tags sort as claims were made."""
        return f"{self.generation:06d}-{self.attempt:05d}-{self.start:05d}-{self.machine_index:03d}-{self.job}"

    @property
    def manifest_name(self) -> str:
        """Where the claim's manifest lies below the location."""
        return f"{MANIFESTS}/{self.tag}.json"

    @property
    def turn(self) -> tuple[int, int]:
        """As for `Writer`."""
        return self.attempt, self.start

    def fences(self, other: Claim) -> bool:
        """Tell whether `other` must not write any more: its job went on elsewhere, or a newer process has its place."""
        if self.job != other.job:
            return False
        same_place = self.turn == other.turn and self.machine_index == other.machine_index
        return self.turn > other.turn or (same_place and self.generation > other.generation)


def next_claim(claims: Iterable[Claim], writer: Writer) -> Claim:
    """The claim with which `writer` begins: it joins the other machines of its start, or begins a generation."""
    known = list(claims)
    mates = [claim for claim in known if (claim.job, claim.turn) == (writer.job, writer.turn)]
    generation = max((claim.generation for claim in known), default=0) + 1
    if mates and all(claim.machine_index != writer.machine_index for claim in mates):
        generation = max(claim.generation for claim in mates)
    return Claim(generation, writer.job, writer.attempt, writer.start, writer.machine_index)


@dataclass(frozen=True)
class StoredFile:
    """One file of a checkpoint, as the object `at` (below the location) holds it.

    `crc32` None: not known, any content will do. An inherited file is another start's work that this one left as it
    was: what a machine wrote itself counts for more.
    """

    size_bytes: int
    crc32: int | None
    at: str
    inherited: bool = False

    def same_content(self, other: StoredFile) -> bool:
        """Tell whether both hold the same bytes, wherever they lie."""
        return (self.size_bytes, self.crc32) == (other.size_bytes, other.crc32)


Files = Mapping[str, StoredFile]
"""The files of an entry, by their names below the checkpoint folder (the entry's own name comes first in them)."""


@dataclass(frozen=True)
class Manifest:
    """What one claim has stored, whole: its entries. `begun` are those it set out to store, whether it did or not."""

    claim: Claim
    entries: Mapping[str, Files] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()

    def encode(self) -> bytes:
        """As JSON."""
        entries = {
            name: {file: _encode_file(file, stored) for file, stored in files.items()}
            for name, files in self.entries.items()
        }
        content = {"format": FORMAT, "entries": entries, "begun": sorted(self.begun)}
        return json.dumps(content, indent=1, sort_keys=True).encode()

    @classmethod
    def decode(cls, claim: Claim, content: bytes) -> Manifest:
        """Read what `encode` wrote. Raises ManifestError."""
        try:
            document = json.loads(content)
            if document["format"] != FORMAT:
                raise ManifestError(f"it is of format {document['format']!r}, and this raymaker reads {FORMAT}")
            entries = {
                name: {file: _decode_file(name, file, stored) for file, stored in files.items()}
                for name, files in document["entries"].items()
            }
            return cls(claim, entries, frozenset(map(str, document["begun"])))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ManifestError(f"it is damaged, or no manifest ({error!r})") from error


@dataclass(frozen=True)
class Version:
    """One state of an entry: its files, each with the objects that may hold it, the likeliest first."""

    files: Mapping[str, tuple[StoredFile, ...]]

    @property
    def size_bytes(self) -> int:
        """What is to be fetched."""
        return sum(found[0].size_bytes for found in self.files.values())


@dataclass(frozen=True)
class Plan:
    """What can be restored: the versions of every entry that may be whole, newest first. `torn`: why others are not."""

    versions: Mapping[str, tuple[Version, ...]]
    torn: Mapping[str, str]


def entry_of(name: str) -> str:
    """The entry that a file belongs to."""
    return name.partition("/")[0]


def is_below(name: str, folder: str) -> bool:
    """Tell whether an object lies in a folder of the location."""
    return name.startswith(f"{folder}/")


def plan_restore(manifests: Iterable[Manifest], present: Mapping[str, int]) -> Plan:
    """Say what can be restored from what was written down and what lies there (names of objects, and their sizes).

    What lies there and was never begun by anybody was put there by other means, and is taken as it lies.
    """
    turns = _unite(manifests)
    versions: dict[str, tuple[Version, ...]] = {}
    torn: dict[str, str] = {}
    lying = _entries_present(present)
    for name in sorted({name for machines in turns for manifest in machines for name in manifest.entries}):
        possible = [found for machines in turns if (found := _version(name, machines, present)) is not None]
        if possible:
            versions[name] = tuple(possible)
        else:
            torn[name] = "what lies there does not fit what was written down about it"
    begun = {name for machines in turns for manifest in machines for name in manifest.begun}
    for name, files in lying.items():
        if name in begun and name not in versions:
            torn.setdefault(name, "its writer ended before it was stored")
        elif name not in versions and name not in torn:
            _take_as_it_lies(name, files, versions, torn)
    return Plan(versions, torn)


def files_of_others(manifests: Iterable[Manifest], claim: Claim, entry: str) -> dict[str, StoredFile]:
    """Files of an entry that machines of lower index have stored in the same start: theirs count, not ours."""
    found: dict[str, StoredFile] = {}
    for manifest in manifests:
        other = manifest.claim
        if (other.job, other.turn) == (claim.job, claim.turn) and other.machine_index < claim.machine_index:
            found |= {name: file for name, file in manifest.entries.get(entry, {}).items() if not file.inherited}
    return found


def _unite(manifests: Iterable[Manifest]) -> list[list[Manifest]]:
    """The manifests of each start, the latest start first; of each machine's claims in a start, one manifest."""
    turns: dict[tuple[str, tuple[int, int]], dict[int, Manifest]] = defaultdict(dict)
    for manifest in sorted(manifests, key=lambda it: it.claim.generation):
        claim = manifest.claim
        machines = turns[claim.job, claim.turn]
        before = machines.get(claim.machine_index, manifest)
        machines[claim.machine_index] = Manifest(
            claim, {**before.entries, **manifest.entries}, before.begun | manifest.begun
        )

    def age(machines: Mapping[int, Manifest]) -> tuple[int, int, int]:
        claims = [manifest.claim for manifest in machines.values()]
        return (max(claim.generation for claim in claims), *claims[0].turn)

    return [
        [machines[index] for index in sorted(machines)] for machines in sorted(turns.values(), key=age, reverse=True)
    ]


def _version(name: str, machines: list[Manifest], present: Mapping[str, int]) -> Version | None:
    """An entry as the machines of one start have it together; None where it cannot be whole."""
    if any(name in manifest.begun and name not in manifest.entries for manifest in machines):
        return None
    found: dict[str, list[StoredFile]] = defaultdict(list)
    for inherited in (False, True):
        for manifest in machines:
            for file, stored in manifest.entries.get(name, {}).items():
                if stored.inherited is inherited:
                    found[file].append(stored)
    files = {file: tuple(it for it in stored if present.get(it.at) == it.size_bytes) for file, stored in found.items()}
    return Version(files) if files and all(files.values()) else None


def _entries_present(present: Mapping[str, int]) -> dict[str, dict[str, int]]:
    entries: dict[str, dict[str, int]] = defaultdict(dict)
    for name, size_bytes in present.items():
        if entry_of(name) != RESERVED and not name.rpartition("/")[2].startswith(f"{RESERVED}-"):  # see whole_file
            entries[entry_of(name)][name] = size_bytes
    return entries


def _take_as_it_lies(
    name: str, files: Mapping[str, int], versions: dict[str, tuple[Version, ...]], torn: dict[str, str]
) -> None:
    odd = next((file for file in files if not _is_plain(file)), None)
    if odd is not None:
        torn[name] = f"the name {odd!r} leads out of the folder, or is no file's name: rename it"
    elif any(parent.as_posix() in files for file in files for parent in PurePosixPath(file).parents):
        torn[name] = "a name in it is both a file's and a folder's: rename one of them"
    else:
        versions[name] = (Version({file: (StoredFile(size, None, file),) for file, size in files.items()}),)


def _is_plain(name: str) -> bool:
    """Tell whether a name is that of a file that stays in its folder, written in the one way there is."""
    return PurePosixPath(name).as_posix() == name and not {"", "..", "."} & set(name.split("/")) and "\0" not in name


def _encode_file(name: str, stored: StoredFile) -> dict[str, Any]:
    content: dict[str, Any] = {"bytes": stored.size_bytes}
    if stored.crc32 is not None:
        content["crc32"] = f"{stored.crc32:08x}"
    if stored.at != name:
        content["at"] = stored.at
    if stored.inherited:
        content["inherited"] = True
    return content


def _decode_file(entry: str, name: str, content: Mapping[str, Any]) -> StoredFile:
    at = str(content.get("at", name))
    if not _is_plain(name) or entry_of(name) != entry or not _is_plain(at) or not (at == name or is_below(at, STAGED)):
        raise ManifestError(f"{name!r} at {at!r} is no file of {entry!r}")
    crc32 = int(content["crc32"], 16) if "crc32" in content else None
    return StoredFile(int(content["bytes"]), crc32, at, content.get("inherited") is True)
