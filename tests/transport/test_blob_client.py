"""Blob client against real servers on loopback."""

import asyncio
import gzip
import random
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tests.support.http_server import Handle, answer, cut, full_backlog, hang, in_turn, serving
from tilesync.errors import Transient, UsageError
from tilesync.transport import blob_client
from tilesync.transport.blob_client import (
    LARGE_READ_BYTES,
    LARGE_READS_AFTER_BYTES,
    BlobClient,
    BlobResponse,
    open_blob_client,
)

T = TypeVar("T")

DATA = random.Random(1).randbytes(500_000)


def with_engine(work: Callable[[BlobClient], Awaitable[T]]) -> T:
    async def main() -> T:
        async with open_blob_client() as pool:
            return await work(pool)

    return asyncio.run(main())


def got(url: str, **headers: str) -> tuple[BlobResponse, bytes]:
    async def work(pool: BlobClient) -> tuple[BlobResponse, bytes]:
        response = await pool.get(url, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            return response, b"".join([chunk async for chunk in response.chunks()])
        finally:
            await response.aclose()

    return with_engine(work)


def silent(error: Exception) -> bool:
    """Return whether neither an error nor its causes show the signature."""
    return "SECRET" not in f"{error!s}{error!r}{error.__cause__!r}{getattr(error, 'hint', '')}"


def test_body() -> None:
    """Status, headers and bytes arrive as the server sent them, and the request headers reach it."""
    with serving(answer(DATA, ETag='"0x8D"')) as server:
        response, body = got(server.url("/a%20b?sig=S%2F"), If_Match='"0x8D"', Range="bytes=0-")
    assert (response.status, response.header("etag"), response.header("ETAG"), response.header("x-none")) == (
        200,
        '"0x8D"',
        '"0x8D"',
        None,
    )
    assert body == DATA
    assert server.paths == ["/a%20b?sig=S%2F"]
    asked = server.headers[0]
    assert (asked["if-match"], asked["range"], asked["accept-encoding"]) == ('"0x8D"', "bytes=0-", "identity")
    assert asked["user-agent"].startswith("tilesync/")
    assert "referer" not in asked


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_content_codings_are_not_decoded(coding: str) -> None:
    """A compressed body arrives as it is stored, with its coding and length."""
    packed = gzip.compress(b"tile" * 1000, mtime=0)
    with serving(answer(packed, Content_Encoding=coding)) as server:
        response, body = got(server.url())
    assert body == packed
    assert (response.header("content-encoding"), response.header("content-length")) == (coding, str(len(packed)))


def test_empty_body() -> None:
    """An empty body has no chunks."""
    with serving(answer(b"")) as server:
        assert got(server.url())[1] == b""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is returned like any other response: the signature reaches no other host."""
    with serving(answer()) as other, serving(answer(status=status, Location=other.url("/stolen"))) as server:
        assert got(server.url("/x?sig=SECRET"))[0].status == status
        assert other.paths == []


@pytest.mark.parametrize("at", [0, 1, 70_000, len(DATA) - 1])
def test_truncated_body_yields_its_bytes(at: int) -> None:
    """A truncated body yields every byte that arrived, then raises Transient."""
    came = bytearray()

    async def work(pool: BlobClient) -> None:
        response = await pool.get(server.url("/x?sig=SECRET"), {})
        try:
            async for chunk in response.chunks():
                came.extend(chunk)
        finally:
            await response.aclose()

    with serving(cut(DATA, at)) as server, pytest.raises(Transient) as error:
        with_engine(work)
    assert bytes(came) == DATA[:at]
    assert silent(error.value)


def test_errors_are_read_in_part() -> None:
    """Only the first bytes of an error's body are read, enough for its code."""
    with serving(answer(b"<Code>BlobNotFound</Code>" + DATA, status=404)) as server:

        async def work(pool: BlobClient) -> tuple[int, bytes]:
            response = await pool.get(server.url(), {})
            try:
                return response.status, await response.read_error_body()
            finally:
                await response.aclose()

        status, text = with_engine(work)
    assert status == 404
    assert text.startswith(b"<Code>BlobNotFound</Code>")
    assert len(text) < len(DATA)


def test_connections_are_reused() -> None:
    """Bodies that were read to their end leave a connection for the next; closing twice is harmless."""
    peers = set()

    def handle(request: Any) -> None:
        peers.add(request.client_address)
        answer(DATA)(request)

    async def work(pool: BlobClient) -> None:
        for _ in range(20):
            response = await pool.get(server.url(), {})
            async for _chunk in response.chunks():
                pass
            await response.aclose()
            await response.aclose()

    with serving(handle) as server:
        with_engine(work)
        assert len(server.paths) == 20
    assert len(peers) <= 3  # on a busy machine the next request may come before the engine has taken one back


def test_body_may_be_closed_early() -> None:
    """A body that is closed before its end harms neither the server nor the next body."""
    with serving(answer(DATA)) as server:

        async def work(pool: BlobClient) -> bytes:
            response = await pool.get(server.url(), {})
            await anext(response.chunks())
            await response.aclose()
            response = await pool.get(server.url(), {})
            whole = b"".join([chunk async for chunk in response.chunks()])
            await response.aclose()
            return whole

        assert with_engine(work) == DATA


def test_concurrent_bodies() -> None:
    """Concurrent bodies do not mix."""

    def handle(request: Any) -> None:
        number = int(request.path.strip("/"))
        answer(DATA[number * 1000 : number * 3000])(request)

    with serving(handle) as server:

        async def one(pool: BlobClient, number: int) -> bytes:
            response = await pool.get(server.url(f"/{number}"), {})
            try:
                return b"".join([chunk async for chunk in response.chunks()])
            finally:
                await response.aclose()

        async def work(pool: BlobClient) -> list[bytes]:
            return await asyncio.gather(*(one(pool, number) for number in range(60)))

        assert with_engine(work) == [DATA[number * 1000 : number * 3000] for number in range(60)]


@pytest.mark.parametrize("first_bytes", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["at once", "within the headers"])
def test_silent_server(first_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence before the response ends after the read timeout with Transient."""
    fails(hang, first_bytes, monkeypatch)


def test_silent_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops without a disconnect ends after the read timeout."""
    fails(hang, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", monkeypatch)


def fails(
    make: Callable[[bytes, threading.Event], Handle], first_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_client, "BLOB_READ_TIMEOUT", timedelta(seconds=0.2))
    over = threading.Event()
    try:
        with serving(make(first_bytes, over)) as server, pytest.raises(Transient, match="no bytes within") as error:
            got(server.url("/x?sig=SECRET"))
    finally:
        over.set()
    assert silent(error.value)
    assert error.value.is_throttled  # it may have too much to do


def test_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that accepts no connection is reported with the connect timeout, not the read timeout."""
    monkeypatch.setattr(blob_client, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url, pytest.raises(Transient, match="no connection within 1 s") as error:
        got(url)
    assert silent(error.value)


def test_refused_connection() -> None:
    """A refused connection is Transient, with its cause and without the URL."""
    with serving(answer()) as server:
        url = server.url("/x?sig=SECRET")
    with pytest.raises(Transient, match="refused") as error:
        got(url)
    assert silent(error.value)


@pytest.mark.parametrize("first_bytes", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 2"])
def test_broken_server(first_bytes: bytes) -> None:
    """A server that disconnects without a response, or sends no HTTP, is Transient."""

    def handle(request: Any) -> None:
        request.wfile.write(first_bytes)
        request.close_connection = True

    with serving(handle) as server, pytest.raises(Transient) as error:
        got(server.url("/x?sig=SECRET"))
    assert silent(error.value)


def test_unknown_host() -> None:
    """A host name that does not resolve is reported without the URL."""
    with pytest.raises(Transient) as error:
        got("https://no-such-host.invalid/x?sig=SECRET")
    assert silent(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense SECRET",
        "ftp://127.0.0.1/?sig=SECRET",
        "https://[x/?sig=SECRET",
        "http://127.0.0.1:99999/?sig=SECRET",
        "",
    ],
)
def test_invalid_url(url: str) -> None:
    """An invalid URL is a usage error that does not repeat it."""
    with pytest.raises(UsageError) as error:
        got(url)
    assert silent(error.value)


@pytest.mark.parametrize("value", ['"SECRET\n"', '"SECRET\r\nX: y"', '"SECRET\0"'])
def test_invalid_header(value: str) -> None:
    """An ETag of a listing that is no valid header is a clear error that does not repeat it."""
    with serving(answer()) as server, pytest.raises(UsageError) as error:
        got(server.url(), If_Match=value)
    assert silent(error.value)
    assert server.paths == []


def test_cancelled_read() -> None:
    """A task that waits for bytes is cancelled at once, and the client remains usable."""
    over = threading.Event()
    stuck = hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", over)
    with serving(in_turn(stuck, answer())) as server:

        async def work(pool: BlobClient) -> bytes:
            response = await pool.get(server.url(), {})
            came = asyncio.Event()

            async def read() -> None:
                async for _ in response.chunks():
                    came.set()

            task = asyncio.create_task(read())
            await came.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            await response.aclose()
            response = await pool.get(server.url(), {})
            text = await response.read_error_body()
            await response.aclose()
            return text

        try:
            assert with_engine(work) == b"hello"
        finally:
            over.set()


LARGE = random.Random(2).randbytes(LARGE_READS_AFTER_BYTES + 3 * LARGE_READ_BYTES + 5)


def test_a_task_that_went_on_after_a_cancel() -> None:
    """A cancel of before, which the task survived, ends no later request. Python 3.11 leaves such counts in tasks."""

    async def work(pool: BlobClient) -> tuple[bytes, bytes, int]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert task.cancelling() == 1
        whole, streamed = await pool.get(url, {}), await pool.get(url, {})
        body = await whole.read(len(DATA)), b"".join([chunk async for chunk in streamed.chunks()])
        for response in (whole, streamed):
            await response.aclose()
        return *body, (await pool.put(url, {}, b"")).status

    with serving(answer(DATA)) as server:
        url = server.url()
        assert with_engine(work) == (DATA, DATA, 200)


def test_long_body_is_read_in_large_pieces() -> None:
    """After its first megabytes a fast body is read in large pieces, which are not copied, and is complete."""
    sizes: list[int] = []
    views: list[bool] = []

    async def work(pool: BlobClient) -> bytes:
        response = await pool.get(server.url(), {})
        body = bytearray()
        async for chunk in response.chunks():
            sizes.append(len(chunk))
            views.append(isinstance(chunk, memoryview))
            body += chunk
        await response.aclose()
        return bytes(body)

    with serving(answer(LARGE)) as server:
        assert with_engine(work) == LARGE
    assert max(sizes) <= LARGE_READ_BYTES
    assert len(sizes) < len(LARGE) / 16_000
    assert views[-1]


@pytest.mark.parametrize(
    "at", [LARGE_READS_AFTER_BYTES + 1, LARGE_READS_AFTER_BYTES + LARGE_READ_BYTES + 70_000, len(LARGE) - 1]
)
def test_broken_long_body_loses_one_piece_at_most(at: int) -> None:
    """The bytes before the failure are yielded, except for the piece in progress."""
    came = bytearray()

    async def work(pool: BlobClient) -> None:
        response = await pool.get(server.url(), {})
        try:
            async for chunk in response.chunks():
                came.extend(chunk)
        finally:
            await response.aclose()

    with serving(cut(LARGE, at)) as server, pytest.raises(Transient):
        with_engine(work)
    assert at - LARGE_READ_BYTES <= len(came) <= at
    assert LARGE.startswith(bytes(came))


def read(url: str, most: int, *, ahead: int = 1) -> bytes:
    async def work(pool: BlobClient) -> bytes:
        response = await pool.get(url, {}, prefetch_bytes=ahead)
        try:
            return await response.read(most)
        finally:
            await response.aclose()

    return with_engine(work)


@pytest.mark.parametrize("ahead", [1, 1000, len(DATA) + 1])
@pytest.mark.parametrize("most", [len(DATA), len(DATA) + 1])
def test_body_is_read_whole(most: int, ahead: int) -> None:
    """A body within the limit is read whole, however much of it was prefetched."""
    with serving(answer(DATA)) as server:
        assert read(server.url(), most, ahead=ahead) == DATA


def test_too_long_body_is_not_read_to_its_end() -> None:
    """A longer body is read only until that is known."""
    with serving(answer(LARGE)) as server:
        body = read(server.url(), 1000, ahead=1001)
    assert 1000 < len(body) < 1_000_000
    assert LARGE.startswith(body)


@pytest.mark.parametrize("ahead", [1, len(DATA) + 1])
@pytest.mark.parametrize("at", [0, 1, 400_000])
def test_broken_body_is_an_error(at: int, ahead: int) -> None:
    """A truncated body is an error, before or while it is read, and shows no signature."""
    with serving(cut(DATA, at)) as server, pytest.raises(Transient) as error:
        read(server.url("/x?sig=SECRET"), len(DATA), ahead=ahead)
    assert silent(error.value)
