"""What the benchmarks share: medians and tails, memory of process families, and a table that prints ratios."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

MIB = 1024 * 1024
NAMES = {"gcs_server": "gcs_server", "raylet": "raylet", "dashboard.py": "dashboard", "haproxy": "haproxy"}
"""What a word of a process's command line says about it; Ray's workers name themselves."""


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def memory_of_home(home: Path) -> dict[int, int]:
    """Bytes of each process of the platform at `home`, by process id; shared pages count in parts (PSS)."""
    marker = f"RAYMAKER_HOME={home}".encode()
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = _pss_bytes(entry)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def cpu_of_home(home: Path) -> dict[int, float]:
    """Seconds of CPU time that each process of the platform at `home` has had, by process id."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    for pid in memory_of_home(home):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[pid] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def name_of(pid: int) -> str:
    """Say what a process is: a part of Ray, or the actor that it is; an actor's last call does not count."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for word, name in NAMES.items():
        if word in words:
            return name
    return words.split(".")[0].strip()[:40] if words.startswith("ray::") else Path(words.split(" ")[0]).name


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(f"\n{title}")
    head = [header, ["-" * width for width in widths]] if any(header) else []
    for row in [*head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def print_times(title: str, taken: Mapping[str, Sequence[float]], mine: str, most: float) -> None:
    """Print how long each way took (s), the first of them the floor, and whether `mine` takes `most` of it at most."""
    least, *_ = (median(times) for times in taken.values())
    rows = [
        [way, f"{median(times) * 1e3:.0f} ms", f"{max(times) * 1e3:.0f} ms", f"{median(times) / least:.2f}"]
        for way, times in taken.items()
    ]
    floor = next(iter(taken))
    print_table(title, ["", "median", "longest", f"of {floor}"], rows)
    ratio = median(taken[mine]) / least
    print(f"{mine}: {ratio:.2f} of {floor}; at most {most:g}: {'reached' if ratio <= most else 'MISSED'}")


def _pss_bytes(process: Path) -> int:
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
