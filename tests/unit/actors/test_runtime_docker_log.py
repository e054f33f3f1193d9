"""The engine's log, read as lines."""

from __future__ import annotations

import pytest

from raymaker.actors.runtime.base import LogLine
from raymaker.actors.runtime.docker_log import LINE_LIMIT_BYTES, parse_log, parse_time_ns

AT = b"2026-11-24T00:00:00.000000001Z"
LATER = b"2026-11-24T00:00:00.000000005Z"
AT_NS = 1795478400_000_000_001


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:01.000000007+01:00", 1_000_000_007),
        ("2026-11-24T00:00:00.000000001Z", AT_NS),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, time_ns: int) -> None:
    assert parse_time_ns(text) == time_ns


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="'yesterday'"):
        parse_time_ns("yesterday")


def test_each_entry_is_a_line() -> None:
    assert list(parse_log([AT + b" one\n", LATER + b" two words \n", LATER + b" \n"])) == [
        LogLine(AT_NS, "one"),
        LogLine(AT_NS + 4, "two words "),
        LogLine(AT_NS + 5, ""),
    ]


def test_equal_and_earlier_times_are_told_apart_the_same_way_at_each_reading() -> None:
    entries = [LATER + b" a\n", LATER + b" b\n", AT + b" c\n", AT + b" d\n"]
    assert [line.time_ns - AT_NS for line in parse_log(entries)] == [4, 5, 6, 7]


def test_a_long_line_that_the_engine_split_is_one_line_of_its_first_time() -> None:
    parts = [AT + b" " + b"x" * 16384, LATER + b" " + b"y" * 16384, LATER + b" end\n", LATER + b" next\n"]
    assert list(parse_log(parts)) == [
        LogLine(AT_NS, "x" * 16384 + "y" * 16384 + "end"),
        LogLine(AT_NS + 4, "next"),
    ]


def test_an_endless_line_is_cut_and_nothing_of_it_lost() -> None:
    parts = [AT + b" " + b"x" * 16384] * 40 + [AT + b" end\n"]
    lines = list(parse_log(parts))
    assert "".join(line.text for line in lines) == "x" * 16384 * 40 + "end"
    assert max(len(line.text) for line in lines) == LINE_LIMIT_BYTES
    assert len({line.time_ns for line in lines}) == len(lines)


def test_what_was_said_last_needs_no_newline() -> None:
    assert list(parse_log([AT + b" bye"])) == [LogLine(AT_NS, "bye")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert [line.text for line in parse_log([AT + b" caf\xc3\xa9 \xff\n"])] == ["café �"]
