"""How the placement groups of gangs are told from all others."""

from __future__ import annotations

from raymaker.actors.gang_room import HALF_A_BYTE, MIB, mark_of, marked_bytes


def test_a_gang_asks_for_at_least_what_it_needs_and_hardly_more() -> None:
    for memory_bytes in (0, 1, MIB, 3 * MIB + 7, 64 * 1024 * MIB):
        asked = marked_bytes(memory_bytes, ("job", 1))
        assert memory_bytes <= asked < memory_bytes + 2 * MIB


def test_the_mark_can_be_read_from_what_was_asked_for() -> None:
    asked = marked_bytes(2 * 1024 * MIB, ("job", 3))
    assert asked % 1 == HALF_A_BYTE
    assert int(asked) % MIB == mark_of(("job", 3))


def test_each_attempt_has_a_mark_of_its_own() -> None:
    assert len({mark_of((f"job-{number}", attempt)) for number in range(50) for attempt in (1, 2)}) == 100
