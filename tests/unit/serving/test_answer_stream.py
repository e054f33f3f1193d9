"""A container's answer taken piece by piece: how it begins, ends and breaks off. Its bytes come from our reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raymaker.serving.answer_stream import AnswerStream
from raymaker.serving.errors import NoAnswer


class FakeWriter:
    """Takes what is written, and knows whether the connection was dropped."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False
        self.transport = self

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


def answered(*data: bytes, ends: bool = True) -> tuple[AnswerStream, FakeWriter]:
    """A stream whose container has said this already, and closed the connection or not."""
    reader, writer = asyncio.StreamReader(), FakeWriter()
    for piece in data:
        reader.feed_data(piece)
    if ends:
        reader.feed_eof()
    untyped: Any = writer
    return AnswerStream(reader, untyped), writer


async def pieces_of(stream: AnswerStream) -> bytes:
    await stream.begin(b"HEAD", b"body")
    said = b""
    while (piece := await stream.next_piece()) is not None:
        said += piece
    return said


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
    ],
    ids=["length", "chunks", "continue", "connection"],
)
def test_an_answer_is_whole_however_its_end_is_told(answer: bytes) -> None:
    async def story() -> None:
        stream, writer = answered(answer)
        assert await pieces_of(stream) == b"hello"
        assert stream.status == 200
        assert writer.written == b"HEADbody"

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["nothing", "header", "length", "chunks", "no HTTP"],
)
def test_an_answer_that_breaks_off_is_no_answer(answer: bytes) -> None:
    async def story() -> None:
        with pytest.raises(NoAnswer):
            await pieces_of(answered(answer)[0])

    asyncio.run(story())


def test_what_has_come_is_handed_out_before_the_answer_is_whole() -> None:
    async def story() -> None:
        stream, writer = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", ends=False)
        await stream.begin(b"", b"")
        assert await stream.next_piece() == b"he"
        stream.close()
        assert writer.is_aborted

    asyncio.run(story())
