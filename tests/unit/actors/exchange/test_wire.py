"""Heads of requests, good and bad."""

from __future__ import annotations

import pytest

from raymaker.actors.exchange.wire import Refusal, parse_head


def test_a_head_is_read_with_its_path_decoded_and_its_names_in_lower_case() -> None:
    request = parse_head(
        b"POST /values/a%2Fb?add&dtype=float32 HTTP/1.1\r\nHost: x\r\nCONTENT-length:  12 \r\nExpect: 100-continue"
    )
    assert (request.method, request.path, request.length, request.stays) == ("POST", "/values/a/b", 12, True)
    assert request.query == {"add": "", "dtype": "float32"}
    assert request.headers == {"host": "x", "content-length": "12", "expect": "100-continue"}


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", True),
    ],
)
def test_the_connection_stays_as_http_has_it(head: bytes, *, stays: bool) -> None:
    assert parse_head(head).stays is stays


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not a request line"),
        (b"hello", "not a request line"),
        (b"GET / HTTP/2.0", "not a request line"),
        (b"GET http://x/ HTTP/1.1", "not a request line"),
        (b"get / HTTP/1.1", "not a request line"),
        (b"GET /\xff HTTP/1.1", "not a request line"),
        (b"GET / HTTP/1.1\r\nno header", "not a header"),
        (b"GET / HTTP/1.1\r\nName : x", "not a header"),
        (b"GET / HTTP/1.1\r\n: x", "not a header"),
        (b"GET / HTTP/1.1\r\nA: b\nC: d", "not a header"),
        (b"GET / HTTP/1.1\r\nA: \x00", "not a header"),
        (b"PUT /values/a HTTP/1.1\r\nContent-Length: -1", "Content-Length is not a number"),
        (b"PUT /values/a HTTP/1.1\r\nContent-Length: 1e3", "Content-Length is not a number"),
        (b"PUT /values/a HTTP/1.1\r\nContent-Length: \xb2", "not a header"),
        (b"PUT /values/a HTTP/1.1\r\nContent-Length: " + b"9" * 4400, "Content-Length is not a number"),
        (b"PUT /values/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", "two different headers Content-Length"),
        (b"GET /?a=1&a=2 HTTP/1.1", "names a field twice"),
        (b"GET /?" + b"&".join(b"f%d=1" % i for i in range(40)) + b" HTTP/1.1", "the query is no query"),
    ],
)
def test_what_is_no_head_is_refused_and_nothing_after_it_is_read(head: bytes, message: str) -> None:
    with pytest.raises(Refusal, match=message) as raised:
        parse_head(head)
    assert raised.value.status == 400
    assert raised.value.ends


def test_a_body_in_chunks_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refusal, match="send the body's size as Content-Length") as raised:
        parse_head(b"POST /barrier HTTP/1.1\r\nTransfer-Encoding: chunked")
    assert raised.value.status == 411
