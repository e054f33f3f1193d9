"""Objects cut into pieces: whole records, no byte lost, none too large."""

from __future__ import annotations

import io
import random
import struct

import pytest

from raymaker.serving.transform.errors import RecordError
from raymaker.serving.transform.splitting import FRAME, RECORD_IO_MAGIC, count_lines, split


def pieces(data, split_type="Line", strategy="MultiRecord", limit_bytes=10):
    return list(split(io.BytesIO(data), split_type, strategy, limit_bytes))


def datas(*args, **options):
    return [piece.data for piece in pieces(*args, **options)]


def frame(data, part=0):
    return FRAME.pack(RECORD_IO_MAGIC, part << 29 | len(data)) + data + bytes(-len(data) % 4)


def test_lines_are_put_together_as_far_as_they_fit():
    assert datas(b"aaa\nbbb\nccc\nddd\n") == [b"aaa\nbbb\n", b"ccc\nddd\n"]


def test_one_line_at_a_time_where_that_is_asked():
    found = pieces(b"a\nbb\n\n\nccc", strategy="SingleRecord")
    assert [(piece.data, piece.first, piece.count) for piece in found] == [
        (b"a\n", 1, 1),
        (b"bb\n", 2, 1),
        (b"ccc", 3, 1),
    ]


@pytest.mark.parametrize("data", [b"a\nb", b"a\nb\n", b"aaaa\nbbbbb", b"aaaa\nbbbb\n", b"aaaaaaaaaa", b"aaaaaaaaa\n"])
def test_what_fits_is_one_piece_whether_or_not_it_ends_with_a_newline(data):
    assert datas(data) == [data]


@pytest.mark.parametrize("data", [b"a" * 11, b"x\n" + b"a" * 11, b"a" * 10 + b"\n", b"x\n" + b"a" * 11 + b"\ny\n"])
@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
def test_a_line_that_is_too_large_is_an_error(data, strategy):
    with pytest.raises(RecordError, match="a line is larger than a payload may be .*MaxPayloadInMB"):
        pieces(data, strategy=strategy)


def test_empty_lines_are_no_records_but_travel_along():
    assert [(piece.data, piece.count) for piece in pieces(b"a\n\nb\r\n\r\n")] == [(b"a\n\nb\r\n\r\n", 2)]
    assert pieces(b"\n\n\r\n") == []


def test_an_empty_object_has_no_pieces():
    for split_type in ("None", "Line", "RecordIO"):
        assert pieces(b"", split_type) == []


def test_pieces_put_together_are_the_object_and_their_counts_are_those_of_its_lines():
    chance = random.Random(3)
    for _ in range(200):
        data = b"".join(b"x" * chance.randint(1, 9) + b"\n" for _ in range(chance.randint(0, 30)))
        data = data.removesuffix(b"\n") if chance.random() < 0.5 else data
        limit_bytes = chance.randint(10, 40)
        found = pieces(data, limit_bytes=limit_bytes)
        assert b"".join(piece.data for piece in found) == data
        assert sum(piece.count for piece in found) == count_lines(data) == len(data.split())
        assert all(len(piece.data) <= limit_bytes for piece in found)
        first = 1
        for piece in found:
            assert piece.first == first
            first += piece.count


def test_an_object_that_is_not_split_is_one_record():
    assert [(piece.data, piece.count) for piece in pieces(b"a\nb\nc", "None")] == [(b"a\nb\nc", 1)]
    with pytest.raises(RecordError, match="the object is larger .*SplitType"):
        pieces(b"a" * 11, "None")


def test_frames_of_record_io_stay_as_they_are():
    first, second, third = frame(b"one"), frame(b"four"), frame(b"")
    assert datas(first + second + third, "RecordIO", "SingleRecord", 100) == [first, second, third]
    assert datas(first + second + third, "RecordIO", "MultiRecord", 24) == [first + second, third]


def test_a_record_of_several_frames_is_not_torn():
    record = frame(b"aaaa", 1) + frame(b"bb", 2) + frame(b"c", 3)
    assert datas(record + frame(b"z"), "RecordIO", "MultiRecord", 40) == [record, frame(b"z")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no records at all", "no RecordIO"),
        (frame(b"abcd")[:-1], "within a frame"),
        (frame(b"abcd") + b"\x0a", "no RecordIO"),
        (frame(b"abcd", 1), "within a record"),
        (struct.pack("<II", RECORD_IO_MAGIC, 1 << 28), "larger than a payload"),
    ],
)
def test_what_is_no_record_io_is_told(data, said):
    with pytest.raises(RecordError, match=said):
        pieces(data, "RecordIO", limit_bytes=100)


def test_a_piece_says_which_records_it_has():
    assert [piece.name for piece in pieces(b"aaa\nbbb\nccc\n")] == ["records 1 to 2", "record 3"]
