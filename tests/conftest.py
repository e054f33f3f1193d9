"""The test bed: real parts, started once per session and ended by their own process id, and a fresh home per test.

A part that is missing is a failure that names the remedy, never a skip.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = [
    "support.engine",
    "support.registry",
    "support.s3",
    "support.faulty_network",
    "support.database",
    "support.platform",
    "support.steps",
    "support.jobs",
    "support.transform_image",
    "support.webhook",
]

STAGES = ("unit", "contract", "integration", "acceptance", "gpu")
HAS_GPU = Path("/dev/nvidiactl").exists()
collect_ignore = [] if HAS_GPU else ["gpu"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh folder that a platform may call its home."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def pytest_report_header() -> str:
    """Say which tests cannot be run on this machine."""
    return "NVIDIA GPU: found" if HAS_GPU else "NVIDIA GPU: none on this machine, so tests/gpu is left out"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick stages first, so that a plain mistake is told within seconds; say which tests stay together."""
    items.sort(key=_stage_of)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_company_of(item)))


def _stage_of(item: pytest.Item) -> int:
    parts = item.path.relative_to(Path(__file__).parent).parts
    return STAGES.index(parts[0]) if parts[0] in STAGES else len(STAGES)


def _company_of(item: pytest.Item) -> str:
    """Name the tests that one process takes, where several share the work: a file's, and all on the one platform."""
    return "platform" if "platform" in getattr(item, "fixturenames", ()) else str(item.path)
