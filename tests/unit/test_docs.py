"""The documentation names what the code has: every setting, every operation, every page it links to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raymaker.platform import dispatch
from raymaker.platform.operations.registry import HANDLERS
from raymaker.platform.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_listed_with_its_description(name: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert rows[name].startswith(str(Settings.model_fields[name].description))


def test_every_operation_is_listed() -> None:
    dispatch.load_operations()
    page = (ROOT / "docs/compatibility.md").read_text()
    assert {name for name in HANDLERS if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
