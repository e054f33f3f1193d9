"""What is sent to a scoring container, and what is read from its answer."""

from __future__ import annotations

import numpy as np
import pytest

from raymaker.platform.client.errors import WrongArgument
from raymaker.platform.client.payload import Answer, encode


@pytest.mark.parametrize(
    ("data", "content_type", "body", "sent_as"),
    [
        (b"\x00\x01", None, b"\x00\x01", "application/octet-stream"),
        (b"\x00", "image/png", b"\x00", "image/png"),
        ("1,2", None, b"1,2", "text/csv"),
        ("é", "text/plain; charset=utf-8", b"\xc3\xa9", "text/plain; charset=utf-8"),
        ([1, 2.5], None, b"[1, 2.5]", "application/json"),
        ({"rows": [[1]]}, "application/vnd.x+json", b'{"rows": [[1]]}', "application/vnd.x+json"),
        (np.array([[1.5, 2], [3, 4]]), None, b"[[1.5, 2.0], [3.0, 4.0]]", "application/json"),
        (np.array([[1.5, 2], [3, 4]]), "text/csv", b"1.5,2.0\n3.0,4.0\n", "text/csv"),
        ([1, "a,b"], "text/csv; charset=utf-8", b'1,"a,b"\n', "text/csv; charset=utf-8"),
        (7, "text/csv", b"7\n", "text/csv"),
        (np.float64(7), "application/json", b"7.0", "application/json"),
    ],
)
def test_data_becomes_a_body_and_a_type(data: object, content_type: str | None, body: bytes, sent_as: str) -> None:
    assert encode(data, content_type) == (body, sent_as)


def test_what_cannot_be_sent_is_told() -> None:
    with pytest.raises(WrongArgument, match="data is a list, which cannot be sent as image/png"):
        encode([1], "image/png")
    with pytest.raises(WrongArgument, match="data cannot be written as JSON"):
        encode([object()], None)


def test_an_answer_s_text_is_in_the_character_set_of_its_type() -> None:
    assert Answer("é".encode("latin-1"), 'text/plain; charset="latin-1"; x=y').text == "é"
    assert Answer("é".encode(), "text/csv").text == "é"
    assert Answer(b"[1]", "application/json").json() == [1]
