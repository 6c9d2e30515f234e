"""Batches of requests: one attempt each, at a pace that the server keeps up with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from tests.support.http_server import Handle, answer, in_turn, serving
from tilesync.transport.http1_pool import PoolRequest
from tilesync.transport.request_batches import MAX_FAILED_CHUNKS, RequestBatches


@pytest.fixture
def batches() -> Iterator[RequestBatches]:
    with closing(RequestBatches()) as opened:
        yield opened


def puts(url: str, count: int) -> list[PoolRequest]:
    return [PoolRequest(f"{url}/{number}", {}, body=b"") for number in range(count)]


def etags(batches: RequestBatches, requests: Sequence[PoolRequest]) -> list[str | None]:
    return [response and response.etag for response in batches.send(requests)]


def by_path(request: BaseHTTPRequestHandler) -> None:
    """Answer with the path as the ETag."""
    answer(b"", 201, ETag=request.path)(request)


def test_each_request_is_sent_once_and_has_its_own_response(batches: RequestBatches) -> None:
    """The first request is sent alone; the responses are in the order of the requests, also from other threads."""
    together = threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        if len(server.paths) > 2:
            together.set()
        by_path(request)

    with serving(handle) as server:
        assert etags(batches, puts(server.url(""), 100)) == [f"/{number}" for number in range(100)]
        assert server.paths[0] == "/0"
        assert sorted(server.paths) == sorted(f"/{number}" for number in range(100))
        results = list[list[str | None]]()
        thread = threading.Thread(target=lambda: results.append(etags(batches, puts(server.url(""), 3))))
        thread.start()
        thread.join()
        assert results == [["/0", "/1", "/2"]]
        assert together.is_set()
        assert all(each["content-length"] == "0" for each in server.headers)


def test_a_server_that_is_busy_is_asked_over_fewer_connections(batches: RequestBatches) -> None:
    """Refused requests are not repeated, and the chunks after them are smaller."""
    is_busy = threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        refused = is_busy.is_set() and int(request.path[1:]) % 4 == 0
        (answer(b"", 503) if refused else by_path)(request)

    with serving(handle) as server:
        assert None not in etags(batches, puts(server.url(""), 200))
        calm = batches.connections
        is_busy.set()
        found = etags(batches, puts(server.url(""), 400))
        assert [number for number, etag in enumerate(found) if etag is None] == list(range(0, 400, 4))
        assert len(server.paths) == 600
        assert batches.connections < calm


@pytest.mark.parametrize("status", [400, 501])
def test_a_server_that_refuses_is_asked_with_single_requests(batches: RequestBatches, status: int) -> None:
    """A refused batch costs one request; after a few of them no more are sent."""
    with serving(answer(b"", status)) as server:
        for _ in range(MAX_FAILED_CHUNKS + 2):
            assert batches.send(puts(server.url(""), 50)) == [None] * 50
        assert len(server.paths) == MAX_FAILED_CHUNKS


def test_a_failure_at_the_start_is_not_the_end(batches: RequestBatches) -> None:
    """After a batch that failed, the next one is sent."""
    with serving(in_turn(answer(b"", 500), by_path)) as server:
        assert batches.send(puts(server.url(""), 20)) == [None] * 20
        assert None not in batches.send(puts(server.url(""), 20))


def test_what_cannot_be_sent_is_not_done(batches: RequestBatches) -> None:
    """A header that cannot be sent, and a server that is not there, raise nothing."""
    with serving(by_path) as server:
        assert batches.send([PoolRequest(server.url("/a"), {"x": "a\nb"}, body=b"")]) == [None]
        assert server.paths == []
    with closing(RequestBatches()) as others:
        assert others.send(puts("http://127.0.0.1:9", 3)) == [None] * 3


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


def sized(body: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body) if length is None else length, body)


def in_pieces(data: bytes, piece: int) -> Handle:
    def handle(request: BaseHTTPRequestHandler) -> None:
        for start in range(0, len(data), piece):
            request.wfile.write(data[start : start + piece])

    return handle


@pytest.mark.parametrize("piece", [1, 7, 100_000])
@pytest.mark.parametrize(
    "data", [sized(b"<a/>"), chunked(b"<a/>"), chunked(b"<", b"a/>"), chunked(b"<a/>").replace(b"4\r\n", b"004\r\n")]
)
def test_a_document_has_any_size(batches: RequestBatches, data: bytes, piece: int) -> None:
    """A document is read whole, with a length or in chunks, in any pieces; the connection is used again."""
    with serving(in_pieces(data, piece)) as server:
        wanted = [PoolRequest(server.url("/a"), {}, body=b"", expects_document=True)]
        for _ in range(2):
            (response,) = batches.send(wanted)
            assert response is not None
            assert response.body == b"<a/>"
        assert server.accepted == 1


@pytest.mark.parametrize(
    "data",
    [
        sized(b"x" * 20_000),
        chunked(*[b"x" * 4000] * 5),
        chunked(b"<a/>", end=b"0\r\nX: y\r\n\r\n"),
        chunked(b"<a/>").replace(b"4\r\n", b"5\r\n"),
        chunked(b"<a/>").replace(b"4\r\n", b"-4\r\n"),
        chunked(b"<a/>", end=b"0\r\n\r\nmore"),
        sized(b"<a/>").replace(b"200", b"201"),
        sized(b"<a/>").replace(b"Content-Length", b"X"),
        sized(b"<a/>", 4).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_another_response_is_no_document(batches: RequestBatches, data: bytes) -> None:
    """A large body, chunks that are not as their sizes say, and other statuses are no response."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        request.close_connection = True

    with serving(handle) as server:
        assert batches.send([PoolRequest(server.url("/a"), {}, body=b"", expects_document=True)]) == [None]
