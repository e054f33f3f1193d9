"""How a container ended, in words."""

from __future__ import annotations

import pytest

from raymaker.actors.runtime.base import ExitStatus


@pytest.mark.parametrize(
    ("code", "number"), [(0, None), (1, None), (128, None), (129, 1), (137, 9), (139, 11), (143, 15), (255, None)]
)
def test_codes_above_128_are_signals_where_there_is_such_a_signal(code: int, number: int | None) -> None:
    assert ExitStatus.of_code(code).signal == number


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ExitStatus.of_code(1), "exit code 1"),
        (ExitStatus.of_code(143), "exit code 143 (killed by SIGTERM)"),
        (ExitStatus.of_code(137, oom_killed=True), "exit code 137 (killed by SIGKILL, out of memory)"),
        (ExitStatus.of_code(139), "exit code 139 (killed by SIGSEGV, a crash in native code)"),
        (ExitStatus.of_code(1, oom_killed=True), "exit code 1 (out of memory)"),
        (
            ExitStatus.of_code(137, reason="the engine restarted"),
            "exit code 137 (killed by SIGKILL, the engine restarted)",
        ),
        (ExitStatus.of_code(168), "exit code 168 (killed by signal 40)"),
    ],
)
def test_an_end_is_told_in_words(status: ExitStatus, words: str) -> None:
    assert status.describe() == words


def test_a_program_that_was_not_found_is_told_as_that() -> None:
    assert "was not found" in ExitStatus.of_code(127).describe()
