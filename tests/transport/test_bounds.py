"""Limits of every client for responses that are endless, stalled, or larger than they look."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from tests.support.api_requests import request_failing, request_once
from tests.support.clock import FakeClock
from tests.support.http_server import sending, serving
from tilesync.core import backoff
from tilesync.errors import Transient
from tilesync.transport import api_client, blob_client
from tilesync.transport.api_client import MAX_ERROR_RESPONSE_BYTES, MAX_RESPONSE_BYTES, open_api_client
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.blob_client_sync import SyncBlobRequest, open_sync_client

pytestmark = pytest.mark.scale
"""Each test waits for a response that takes too long."""


@pytest.fixture
def over() -> Any:
    """Event that ends the responses of a test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the low-speed window, so that a test can wait for it."""
    monkeypatch.setattr(backoff, "PROGRESS_WINDOW", timedelta(seconds=0.5))


ENDLESS = "200 OK\r\nConnection: close"
LONG = "200 OK\r\nContent-Length: 1000000000"


def test_endless_response(over: threading.Event) -> None:
    """A response without an end fails at the maximum size."""
    error, _, _ = request_failing(sending(ENDLESS, b"x" * 65536, over=over), budget=0.0)
    assert f"more than {MAX_RESPONSE_BYTES:,} bytes" in str(error)


def test_endless_error(over: threading.Event) -> None:
    """The body of an endless error is read only as far as its message needs."""

    async def read_response(response: Any) -> int:
        return len(await response.read())

    async def main(url: str) -> int:
        async with open_api_client(FakeClock(), lambda _: None, budget=timedelta()) as client:

            async def build_request() -> api_client.ApiRequest:
                return api_client.ApiRequest(url)

            size: int = await client.request("it", build_request, read_response)
            return size

    with serving(sending("404 Not Found\r\nConnection: close", b"x" * 1000, over=over)) as server:
        assert MAX_ERROR_RESPONSE_BYTES <= asyncio.run(main(server.url())) < MAX_ERROR_RESPONSE_BYTES + 200_000


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("head", [ENDLESS, LONG])
def test_stalled_response(over: threading.Event, head: str) -> None:
    """A response that sends single bytes is given up, although it is never silent."""
    error, _, _ = request_failing(sending(head, b"x", every=0.05, over=over), budget=0.0)
    assert "bytes arrived within" in str(error)


def test_stalled_headers(monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    """Headers without an end are given up."""
    monkeypatch.setattr(api_client, "API_RESPONSE_TIMEOUT", timedelta(seconds=0.5))

    def handle(request: Any) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.05):
                request.wfile.write(b"x")
        except OSError:
            pass

    error, _, _ = request_failing(handle, budget=0.0)
    assert "no response within" in str(error)


def test_time_limit_of_a_response(monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    """A response that is read whole has a time limit for all of it."""
    monkeypatch.setattr(api_client.ApiResponse.read, "__kwdefaults__", {"time_limit": timedelta(seconds=0.5)})
    error, _, _ = request_failing(sending(ENDLESS, b"x" * 200, every=0.02, over=over), budget=0.0)
    assert "no complete response within" in str(error)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("head", [ENDLESS, LONG])
def test_stalled_body(over: threading.Event, head: str) -> None:
    """A stalled body yields the bytes that came, then fails."""
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

    with (
        serving(sending(head, b"x", every=0.05, over=over)) as server,
        pytest.raises(Transient, match="arrived within"),
    ):
        asyncio.run(work(server.url()))
    assert 0 < len(got) < 100


def test_stalled_prefetch(monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    """A body that is read in one call has a time limit for all of it."""
    monkeypatch.setattr(blob_client, "BLOB_READ_TIMEOUT", timedelta(seconds=0.4))
    monkeypatch.setattr(blob_client, "MIN_READ_BYTES_PER_S", 1 << 20)

    async def work(url: str) -> None:
        async with open_blob_client() as pool:
            answer = await pool.get(url, {}, prefetch_bytes=5001)
            await answer.aclose()

    started_at = time.monotonic()
    handle = sending("200 OK\r\nContent-Length: 5000", b"x", every=0.05, over=over)
    with serving(handle) as server, pytest.raises(Transient, match="fewer than"):
        asyncio.run(work(server.url()))
    assert time.monotonic() - started_at < 10


@pytest.mark.usefixtures("hasty")
def test_stalled_store_response(over: threading.Event) -> None:
    """The blocking client has the same minimum rate, and yields the bytes that came."""
    got = list[bytes]()
    with (
        serving(sending(LONG, b"x", every=0.05, over=over)) as server,
        open_sync_client(lambda _: None, budget=timedelta()) as client,
        client.send_once(SyncBlobRequest("GET", server.url(), {})) as response,
        pytest.raises(Transient, match="arrived within"),
    ):
        got.extend(response.chunks())
    assert 0 < len(b"".join(got)) < 100


def test_endless_store_response(over: threading.Event) -> None:
    """The blocking client limits a body that is read whole."""
    with (
        serving(sending(ENDLESS, b"x" * 65536, over=over)) as server,
        open_sync_client(lambda _: None, budget=timedelta()) as client,
        client.send_once(SyncBlobRequest("GET", server.url(), {})) as response,
        pytest.raises(Transient, match="more than 1,000,000 bytes"),
    ):
        response.read(1_000_000)


@pytest.mark.parametrize("status", ["201 Created", "403 No"])
def test_endless_put_response(over: threading.Event, status: str) -> None:
    """Of the response to an upload only the first bytes are kept."""

    async def work(url: str) -> blob_client.PutResponse:
        async with open_blob_client(for_uploads=True) as pool:
            return await pool.put(url, {}, b"body")

    with serving(sending(f"{status}\r\nConnection: close", b"x" * 65536, over=over)) as server:
        put_response = asyncio.run(asyncio.wait_for(work(server.url()), 20))
    assert str(put_response.status) in status
    assert len(put_response.body) <= 4096


ODD = "Retry-After: \xb2\r\nServer: caf\xe9\r\nETag: a\r\nContent-Length: 0"


def odd(request: Any) -> None:
    """Send a response with headers that are not ASCII."""
    request.wfile.write(f"HTTP/1.1 503 Busy\r\n{ODD}\r\n\r\n".encode("latin-1"))


def test_headers_that_are_not_ascii() -> None:
    """A header that is not ASCII counts as absent in every client, and is no crash."""

    async def work(url: str) -> tuple[list[str | None], dict[str, str]]:
        async with open_blob_client(for_uploads=True) as pool:
            answer = await pool.get(url, {})
            got = [answer.header(name) for name in ("retry-after", "server", "etag")]
            await answer.aclose()
            return got, dict((await pool.put(url, {}, b"")).headers)

    with serving(odd) as server:
        got, put_response = asyncio.run(work(server.url()))
        with (
            open_sync_client(lambda _: None, budget=timedelta()) as client,
            client.send_once(SyncBlobRequest("GET", server.url(), {})) as response,
        ):
            assert [response.header(name) for name in ("retry-after", "etag")] == [None, "a"]
            assert [response.header_values(name) for name in ("server", "etag")] == [[], ["a"]]
    assert got == [None, None, "a"]
    assert put_response == {"etag": "a", "content-length": "0"}


def test_slow_response_above_the_minimum_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow connection above the minimum rate succeeds."""
    monkeypatch.setattr(backoff, "PROGRESS_WINDOW", timedelta(seconds=0.2))
    monkeypatch.setattr(backoff, "MIN_PROGRESS_BYTES", 100)

    def handle(request: Any) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
        for _ in range(20):
            request.wfile.write(b"x" * 100)
            time.sleep(0.05)

    (status, body), _, _ = request_once(handle)
    assert (status, len(body)) == (200, 2000)
