"""Answers without an end, without progress, or much larger than they look: each is bounded, on every way."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.transport.test_api_client import request_failing, request_once, serving
from tilesync.errors import Transient
from tilesync.transport import api_client as http
from tilesync.transport import blob_client as bulk
from tilesync.transport import low_speed as progress
from tilesync.transport.api_client import MAX_ERROR_RESPONSE_BYTES, MAX_RESPONSE_BYTES, open_api_client
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.blob_client_sync import SyncBlobRequest, open_sync_client
from tilesync.transport.content_decoding import ContentDecoder

Handle = Callable[[Any], None]


def sending(head: str, piece: bytes, *, every: float = 0.0, over: threading.Event) -> Handle:
    """An answer with this head, whose body is one piece after the other until the client has enough."""

    def handle(request: Any) -> None:
        try:
            request.wfile.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
            while not over.wait(every):
                request.wfile.write(piece)
        except OSError:
            pass
        request.close_connection = True

    return handle


@pytest.fixture
def over() -> Any:
    """Ends the answers of a test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of progress that a test can wait for."""
    monkeypatch.setattr(progress, "PROGRESS_WINDOW", timedelta(seconds=0.5))


ENDLESS = "200 OK\r\nConnection: close"
LONG = "200 OK\r\nContent-Length: 1000000000"


def test_an_endless_answer_is_cut(over: threading.Event) -> None:
    """An answer that does not end is given up at the size that none has."""
    error, _, _ = request_failing(sending(ENDLESS, b"x" * 65536, over=over), budget=0.0)
    assert f"more than {MAX_RESPONSE_BYTES:,} bytes" in str(error)


def bomb(size: int) -> bytes:
    """Some kilobytes that gzip makes of this many."""
    return gzip.compress(bytes(size), mtime=0)


def test_a_small_answer_that_stands_for_much_is_cut() -> None:
    """A gzip bomb costs no more memory than the largest answer."""
    data = bomb(1 << 28)
    tracemalloc.start()
    try:
        error, _, _ = request_failing(
            sending(f"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}", data, over=threading.Event()),
            budget=0.0,
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"more than {MAX_RESPONSE_BYTES:,} bytes" in str(error)
    assert peak < 4 * MAX_RESPONSE_BYTES


def test_no_coding_is_asked_for() -> None:
    """Conversations ask for answers as they are; a coding that nobody can undo is a failure."""
    seen = []

    def handle(request: Any) -> None:
        seen.append(request.headers["accept-encoding"])
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx")

    error, _, _ = request_failing(handle, budget=0.0)
    assert seen == ["identity"]
    assert "'br'" in str(error)


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_a_coding_that_is_cut_off_is_no_whole_answer(cut: int) -> None:
    """A coded answer without its end is an error, one without any bytes is empty."""
    decoder, data = ContentDecoder("gzip"), gzip.compress(b"hello" * 100, mtime=0)[:cut]
    assert b"".join(decoder.feed(data)) == (
        b"hello" * 100 if cut == -1 else b"".join(ContentDecoder("gzip").feed(data))
    )
    if data:
        with pytest.raises(Transient, match="cut off"):
            decoder.finish()
    else:
        decoder.finish()


def test_of_an_error_the_beginning_is_read(over: threading.Event) -> None:
    """The body of an error that does not end is read as far as its message can be."""

    async def accept(reply: Any) -> int:
        return len(await reply.read())

    async def main(url: str) -> int:
        async with open_api_client(FakeClock(), lambda _: None, budget=timedelta()) as talk:

            async def make() -> http.ApiRequest:
                return http.ApiRequest(url)

            size: int = await talk.request("it", make, accept)
            return size

    with serving(sending("404 Not Found\r\nConnection: close", b"x" * 1000, over=over)) as server:
        assert MAX_ERROR_RESPONSE_BYTES <= asyncio.run(main(server.url())) < MAX_ERROR_RESPONSE_BYTES + 200_000


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("head", [ENDLESS, LONG])
def test_a_trickle_is_no_answer(over: threading.Event, head: str) -> None:
    """An answer of which a byte comes now and then is given up, though it never falls silent."""
    error, _, _ = request_failing(sending(head, b"x", every=0.05, over=over), budget=0.0)
    assert "bytes came within" in str(error)


def test_headers_that_trickle_are_no_answer(monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    """Headers that never end are given up."""
    monkeypatch.setattr(http, "API_RESPONSE_TIMEOUT", timedelta(seconds=0.5))

    def handle(request: Any) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.05):
                request.wfile.write(b"x")
        except OSError:
            pass

    error, _, _ = request_failing(handle, budget=0.0)
    assert "no answer within" in str(error)


def test_an_answer_that_takes_too_long_in_all_is_given_up(
    monkeypatch: pytest.MonkeyPatch, over: threading.Event
) -> None:
    """An answer that is read whole is small: it has a time for all of it."""
    monkeypatch.setattr(http.ApiResponse.read, "__kwdefaults__", {"timeout": timedelta(seconds=0.5)})
    error, _, _ = request_failing(sending(ENDLESS, b"x" * 200, every=0.02, over=over), budget=0.0)
    assert "no whole answer within" in str(error)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("head", [ENDLESS, LONG])
def test_a_body_that_trickles_is_broken(over: threading.Event, head: str) -> None:
    """A body of which a byte comes now and then gives what came, then breaks."""
    got = b""

    async def work(url: str) -> None:
        nonlocal got
        async with open_blob_client() as pool:
            answer = await pool.get(url, {})
            try:
                async for chunk in answer.chunks():
                    got += chunk
            finally:
                await answer.aclose()

    with serving(sending(head, b"x", every=0.05, over=over)) as server, pytest.raises(Transient, match="came within"):
        asyncio.run(work(server.url()))
    assert 0 < len(got) < 100


def test_a_small_body_that_trickles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    """A body that is awaited at once has a time for all of it."""
    monkeypatch.setattr(bulk, "BLOB_READ_TIMEOUT", timedelta(seconds=0.4))
    monkeypatch.setattr(bulk, "MIN_READ_BYTES_PER_S", 1 << 20)

    async def work(url: str) -> None:
        async with open_blob_client() as pool:
            answer = await pool.get(url, {}, prefetch_bytes=5001)
            await answer.aclose()

    began = time.monotonic()
    handle = sending("200 OK\r\nContent-Length: 5000", b"x", every=0.05, over=over)
    with serving(handle) as server, pytest.raises(Transient, match="fewer than"):
        asyncio.run(work(server.url()))
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("hasty")
def test_a_store_that_trickles_is_broken(over: threading.Event) -> None:
    """What a store sends has the same floor, and is given out as far as it came."""
    got = list[bytes]()
    with (
        serving(sending(LONG, b"x", every=0.05, over=over)) as server,
        open_sync_client(lambda _: None, budget=timedelta()) as talk,
        talk.send_once(SyncBlobRequest("GET", server.url(), {})) as reply,
        pytest.raises(Transient, match="came within"),
    ):
        got.extend(reply.chunks())
    assert 0 < len(b"".join(got)) < 100


def test_a_store_whose_answer_does_not_end_is_cut(over: threading.Event) -> None:
    """What is read whole of a store is bounded too."""
    with (
        serving(sending(ENDLESS, b"x" * 65536, over=over)) as server,
        open_sync_client(lambda _: None, budget=timedelta()) as talk,
        talk.send_once(SyncBlobRequest("GET", server.url(), {})) as reply,
        pytest.raises(Transient, match="more than 1,000,000 bytes"),
    ):
        reply.read(1_000_000)


@pytest.mark.parametrize("status", ["201 Created", "403 No"])
def test_of_an_answer_to_what_was_put_the_beginning_is_read(over: threading.Event, status: str) -> None:
    """Whatever a store answers to a body that it was sent, no more of it is kept than a message takes."""

    async def work(url: str) -> bulk.PutResponse:
        async with open_blob_client(for_uploads=True) as pool:
            return await pool.put(url, {}, b"body")

    with serving(sending(f"{status}\r\nConnection: close", b"x" * 65536, over=over)) as server:
        told = asyncio.run(asyncio.wait_for(work(server.url()), 20))
    assert str(told.status) in status
    assert len(told.body) <= 4096


ODD = "Retry-After: \xb2\r\nServer: caf\xe9\r\nETag: a\r\nContent-Length: 0"


def odd(request: Any) -> None:
    """An answer with headers that are no ASCII."""
    request.wfile.write(f"HTTP/1.1 503 Busy\r\n{ODD}\r\n\r\n".encode("latin-1"))


def test_headers_that_are_no_text_are_as_good_as_absent() -> None:
    """Bytes in a header that no service sends are no crash, on no way."""

    async def work(url: str) -> tuple[list[str | None], dict[str, str]]:
        async with open_blob_client(for_uploads=True) as pool:
            answer = await pool.get(url, {})
            got = [answer.header(name) for name in ("retry-after", "server", "etag")]
            await answer.aclose()
            return got, dict((await pool.put(url, {}, b"")).headers)

    with serving(odd) as server:
        got, told = asyncio.run(work(server.url()))
        with (
            open_sync_client(lambda _: None, budget=timedelta()) as talk,
            talk.send_once(SyncBlobRequest("GET", server.url(), {})) as reply,
        ):
            assert [reply.header(name) for name in ("retry-after", "etag")] == [None, "a"]
            assert [reply.header_values(name) for name in ("server", "etag")] == [[], ["a"]]
    assert got == [None, None, "a"]
    assert told == {"etag": "a", "content-length": "0"}


def test_slow_and_steady_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest line that is slow, and keeps above the floor, is borne with."""
    monkeypatch.setattr(progress, "PROGRESS_WINDOW", timedelta(seconds=0.2))
    monkeypatch.setattr(progress, "MIN_PROGRESS_BYTES", 100)

    def handle(request: Any) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
        for _ in range(20):
            request.wfile.write(b"x" * 100)
            time.sleep(0.05)

    (status, body), _, _ = request_once(handle)
    assert (status, len(body)) == (200, 2000)
