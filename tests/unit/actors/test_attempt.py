"""An attempt's own decisions: what it says of an end, and in how many characters."""

from __future__ import annotations

from raymaker.actors.reports import FAILURE_REASON_CHARS, shorten


def test_a_short_reason_stays_as_it_is() -> None:
    assert shorten("AlgorithmError: no labels, exit code: 3") == "AlgorithmError: no labels, exit code: 3"


def test_a_long_reason_keeps_its_beginning_and_its_end_within_the_limit() -> None:
    reason = "AlgorithmError: begin " + "x" * 5000 + " end, exit code: 1"
    cut = shorten(reason)
    assert len(cut) <= FAILURE_REASON_CHARS
    assert cut.startswith("AlgorithmError: begin")
    assert cut.endswith("end, exit code: 1")
