"""One HTTP/1.1 connection: responses in any pieces, and what is never sent."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler

import pytest

from tests.support.http1_pools import SOON, Got, Run, counting, fetch_all, head
from tests.support.http_server import Handle, answer, in_turn, raw, serving
from tilesync.errors import UsageError
from tilesync.transport.http1_pool import HttpPool, PoolRequest

OTHERS = {
    "not found": head("Content-Length: 5", status="HTTP/1.1 404 Not Found") + b"hello",
    "a part": head("Content-Length: 5", "Content-Range: bytes 0-4/9", status="HTTP/1.1 206 Partial") + b"hello",
    "a redirect": head("Content-Length: 5", "Location: /x", status="HTTP/1.1 302 Found") + b"hello",
    "throttled": head("Content-Length: 5", status="HTTP/1.1 503 Busy") + b"hello",
    "an interim answer": head(status="HTTP/1.1 100 Continue") + head("Content-Length: 5") + b"hello",
    "another protocol": head("Content-Length: 5", status="HTTP/1.0 200 OK") + b"hello",
    "shorter": head("Content-Length: 4") + b"hell",
    "longer": head("Content-Length: 6") + b"hello!",
    "two lengths": head("Content-Length: 5", "Content-Length: 5") + b"hello",
    "a signed length": head("Content-Length: +5") + b"hello",
    "no length": head("X: y") + b"hello",
    "chunked": head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "both": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"hello",
    "a coding before a blank": head("Content-Length: 5", "Transfer-Encoding : chunked") + b"hello",
    "a large head": head("Content-Length: 5", *(f"X-{number}: {'y' * 1000}" for number in range(40))) + b"hello",
    "a bare line feed": head("X: y\nContent-Length: 5") + b"hello",
    "no answer": b"what?\r\n\r\n",
    "nothing": b"",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    "cut in the head": head("Content-Length: 5")[:-3],
    "cut in the body": head("Content-Length: 5") + b"hell",
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in OTHERS.items()])
def test_unexpected_responses_are_not_reported(got: Got, data: bytes) -> None:
    """An unexpected response is dropped at once, and the next request is served."""
    with serving(in_turn(raw(data), answer(b"hello"))) as server:
        wanted = [PoolRequest(server.url("/1"), {}, 5), PoolRequest(server.url("/2"), {}, 5)]
        started_at = time.monotonic()
        assert got(*wanted, at_once=1) == [None, b"hello"]
        assert time.monotonic() - started_at < SOON
        assert server.paths == ["/1", "/2"]


@pytest.mark.parametrize("lines", [["Content-Length: 5"], ["content-length:5", 'ETAG:\t"a"'], ["Content-Length:  5 "]])
def test_response_byte_by_byte(got: Got, lines: list[str]) -> None:
    """The result does not depend on how bytes are split; headers are parsed as in RFC 9110."""
    with serving(raw(head("Date: x", *lines, "X-Content-Length: 9") + b"hello", piece=1)) as server:
        assert got(PoolRequest(server.url(), {}, 5)) == [b"hello"]


def test_headers_of_the_response(with_pool: Run) -> None:
    """The last MD5 that a storage service states counts: of the blob, else of the body. Repeated values do not."""
    heads = [
        (["Content-MD5: b", "etag: e"], ("e", "b")),
        (["content-md5: b", "x-ms-blob-content-md5: a"], ("", "a")),
        (["X-Etag: no", "Content-MD5: b", "Content-MD5: b", "ETag: e", "ETAG: e"], ("", "")),
        (["X: etag: no"], ("", "")),
    ]
    answers = [raw(head("Content-Length: 5", *lines) + b"hello") for lines, _ in heads]
    with serving(in_turn(*answers)) as server:
        wanted = [PoolRequest(server.url(f"/{number}"), {}, 5) for number in range(len(heads))]
        responses = with_pool(lambda pool: fetch_all(pool, wanted, at_once=1))
    assert [(each.etag or "", each.md5 or "") for each in responses] == [expected for _, expected in heads]


def test_closing_connection_is_not_reused(with_pool: Run) -> None:
    """After `Connection: close`, and after surplus bytes, a new connection is used."""
    plain, more = head("Content-Length: 5") + b"hello", head("Content-Length: 5", "Connection: Close") + b"hello"

    def handle(data: bytes) -> Handle:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(data)

        return answer

    with counting(in_turn(handle(plain), handle(more), handle(plain + plain), handle(plain))) as (server, peers, _):

        async def work(pool: HttpPool) -> None:
            for number in range(6):
                (response,) = await fetch_all(pool, [PoolRequest(server.url(f"/{number}"), {}, 5)])
                assert response is not None
                assert response.body == b"hello"

        with_pool(work)
        assert server.paths == [f"/{number}" for number in range(6)]
    assert len(peers) == 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/ü", {}),
        ("/x", {"If-Match": '"a"\r\nX: y'}),
        ("/x", {"If-Match": '"ü"'}),
    ],
)
def test_header_injection_is_refused(got: Got, path: str, headers: dict[str, str]) -> None:
    """No value can add headers or requests; nothing is sent."""
    with serving(answer(b"hello")) as server:
        with pytest.raises(UsageError):
            got(PoolRequest(server.url("/first"), {}, 5), PoolRequest(server.url(path), headers, 5))
        assert server.paths == []


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/x", "https:///x", "http://user:word@127.0.0.1/x", "x", "https://h:99999/x", "https://h:x/x",
     "https://[bad/x", "https://[::g]/x"],
)  # fmt: skip
def test_other_urls_are_refused(got: Got, url: str) -> None:
    """Only http and https URLs are accepted."""
    with pytest.raises(UsageError):
        got(PoolRequest(url, {}, 5))
