"""Who ended a container: the program itself, raymaker, or something outside."""

from __future__ import annotations

import pytest

from raymaker.actors.exit_policy import is_outside_kill
from raymaker.actors.runtime.base import ExitStatus


@pytest.mark.parametrize("code", [137, 143])
def test_a_kill_that_nobody_here_asked_for_came_from_outside(code: int) -> None:
    assert is_outside_kill(ExitStatus.of_code(code))
    assert not is_outside_kill(ExitStatus.of_code(code), was_asked=True)


def test_running_out_of_memory_is_the_programs_own_doing() -> None:
    assert not is_outside_kill(ExitStatus.of_code(137, oom_killed=True))


@pytest.mark.parametrize("code", [0, 1, 127, 134, 139, 255])
def test_what_a_program_does_to_itself_came_not_from_outside(code: int) -> None:
    assert not is_outside_kill(ExitStatus.of_code(code))


def test_a_container_that_was_lost_ended_from_outside_whatever_its_code() -> None:
    assert is_outside_kill(ExitStatus.of_code(1, lost=True))
