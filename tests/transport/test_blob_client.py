"""Bodies, against real servers on loopback."""

import asyncio
import gzip
import random
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tests.transport.test_api_client import Handle, answer, cut, full_backlog, hang, in_turn, serving
from tilesync.errors import Transient, UsageError
from tilesync.transport import blob_client as bulk
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
        reply = await pool.get(url, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            return reply, b"".join([chunk async for chunk in reply.chunks()])
        finally:
            await reply.aclose()

    return with_engine(work)


def silent(error: Exception) -> bool:
    """Whether neither an error nor what it was raised from shows the signature."""
    return "SECRET" not in f"{error!s}{error!r}{error.__cause__!r}{getattr(error, 'hint', '')}"


def test_a_body() -> None:
    """Status, headers and bytes come as the server sent them, and the request's headers go to it."""
    with serving(answer(DATA, ETag='"0x8D"')) as server:
        reply, body = got(server.url("/a%20b?sig=S%2F"), If_Match='"0x8D"', Range="bytes=0-")
    assert (reply.status, reply.header("etag"), reply.header("ETAG"), reply.header("x-none")) == (
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
def test_stored_codings_are_not_undone(coding: str) -> None:
    """A body that is stored compressed comes as it is stored, with its coding and length told."""
    packed = gzip.compress(b"tile" * 1000, mtime=0)
    with serving(answer(packed, Content_Encoding=coding)) as server:
        reply, body = got(server.url())
    assert body == packed
    assert (reply.header("content-encoding"), reply.header("content-length")) == (coding, str(len(packed)))


def test_an_empty_body() -> None:
    """A body without bytes is one without chunks."""
    with serving(answer(b"")) as server:
        assert got(server.url())[1] == b""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an answer like others: the signature goes nowhere else."""
    with serving(answer()) as other, serving(answer(status=status, Location=other.url("/stolen"))) as server:
        assert got(server.url("/x?sig=SECRET"))[0].status == status
        assert other.paths == []


@pytest.mark.parametrize("at", [0, 1, 70_000, len(DATA) - 1])
def test_a_cut_body_gives_what_came(at: int) -> None:
    """Of a body that breaks off every byte that came is given out, then the break is told as one to be tried again."""
    came = bytearray()

    async def work(pool: BlobClient) -> None:
        reply = await pool.get(server.url("/x?sig=SECRET"), {})
        try:
            async for chunk in reply.chunks():
                came.extend(chunk)
        finally:
            await reply.aclose()

    with serving(cut(DATA, at)) as server, pytest.raises(Transient) as error:
        with_engine(work)
    assert bytes(came) == DATA[:at]
    assert silent(error.value)


def test_errors_are_read_in_part() -> None:
    """Of the body of an error only a beginning is read, enough for its code."""
    with serving(answer(b"<Code>BlobNotFound</Code>" + DATA, status=404)) as server:

        async def work(pool: BlobClient) -> tuple[int, bytes]:
            reply = await pool.get(server.url(), {})
            try:
                return reply.status, await reply.read_error_body()
            finally:
                await reply.aclose()

        status, text = with_engine(work)
    assert status == 404
    assert text.startswith(b"<Code>BlobNotFound</Code>")
    assert len(text) < len(DATA)


def test_connections_are_used_again() -> None:
    """Bodies that were read to their end leave a connection for the next; closing twice does no harm."""
    peers = set()

    def handle(request: Any) -> None:
        peers.add(request.client_address)
        answer(DATA)(request)

    async def work(pool: BlobClient) -> None:
        for _ in range(20):
            reply = await pool.get(server.url(), {})
            async for _chunk in reply.chunks():
                pass
            await reply.aclose()
            await reply.aclose()

    with serving(handle) as server:
        with_engine(work)
        assert len(server.paths) == 20
    assert len(peers) <= 3  # on a busy machine the next request may come before the engine has taken one back


def test_a_body_may_be_left() -> None:
    """A body that is closed before its end harms neither the server nor the next body."""
    with serving(answer(DATA)) as server:

        async def work(pool: BlobClient) -> bytes:
            reply = await pool.get(server.url(), {})
            await anext(reply.chunks())
            await reply.aclose()
            reply = await pool.get(server.url(), {})
            whole = b"".join([chunk async for chunk in reply.chunks()])
            await reply.aclose()
            return whole

        assert with_engine(work) == DATA


def test_many_at_once() -> None:
    """Bodies that come at the same time do not mix."""

    def handle(request: Any) -> None:
        number = int(request.path.strip("/"))
        answer(DATA[number * 1000 : number * 3000])(request)

    with serving(handle) as server:

        async def one(pool: BlobClient, number: int) -> bytes:
            reply = await pool.get(server.url(f"/{number}"), {})
            try:
                return b"".join([chunk async for chunk in reply.chunks()])
            finally:
                await reply.aclose()

        async def work(pool: BlobClient) -> list[bytes]:
            return await asyncio.gather(*(one(pool, number) for number in range(60)))

        assert with_engine(work) == [DATA[number * 1000 : number * 3000] for number in range(60)]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["at once", "within the headers"])
def test_a_server_that_hangs(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence instead of an answer ends after the time for it, as a failure to be tried again."""
    fails(hang, said, monkeypatch)


def test_a_body_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that stops flowing without a break ends after the time for silence."""
    fails(hang, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", monkeypatch)


def fails(make: Callable[[bytes, threading.Event], Handle], said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BLOB_READ_TIMEOUT", timedelta(seconds=0.2))
    over = threading.Event()
    try:
        with serving(make(said, over)) as server, pytest.raises(Transient, match="no bytes within") as error:
            got(server.url("/x?sig=SECRET"))
    finally:
        over.set()
    assert silent(error.value)
    assert error.value.is_throttled  # it may have too much to do


def test_a_connection_that_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not answer at all is told with the limit that connections have, not that of silence."""
    monkeypatch.setattr(bulk, "CONNECT_TIMEOUT", timedelta(seconds=1))
    with full_backlog() as url, pytest.raises(Transient, match="no connection within 1 s") as error:
        got(url)
    assert silent(error.value)


def test_nobody_listens() -> None:
    """A refused connection is a failure to be tried again, told with its cause and without the URL."""
    with serving(answer()) as server:
        url = server.url("/x?sig=SECRET")
    with pytest.raises(Transient, match="refused") as error:
        got(url)
    assert silent(error.value)


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 2"])
def test_a_server_that_breaks(said: bytes) -> None:
    """A server that hangs up without an answer, or talks nonsense, is a failure to be tried again."""

    def handle(request: Any) -> None:
        request.wfile.write(said)
        request.close_connection = True

    with serving(handle) as server, pytest.raises(Transient) as error:
        got(server.url("/x?sig=SECRET"))
    assert silent(error.value)


def test_a_name_that_nobody_knows() -> None:
    """A host that cannot be found is told without the URL."""
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
def test_what_is_no_url(url: str) -> None:
    """What is no URL is a usage error that does not repeat it."""
    with pytest.raises(UsageError) as error:
        got(url)
    assert silent(error.value)


@pytest.mark.parametrize("value", ['"SECRET\n"', '"SECRET\r\nX: y"', '"SECRET\0"'])
def test_what_is_no_header(value: str) -> None:
    """A tag that no header can carry, as a listing may hold one, is a clear error that does not repeat it."""
    with serving(answer()) as server, pytest.raises(UsageError) as error:
        got(server.url(), If_Match=value)
    assert silent(error.value)
    assert server.paths == []


def test_a_cancelled_body_is_over() -> None:
    """A task that waits for bytes is cancelled at once, and the engine goes on."""
    over = threading.Event()
    stuck = hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", over)
    with serving(in_turn(stuck, answer())) as server:

        async def work(pool: BlobClient) -> bytes:
            reply = await pool.get(server.url(), {})
            came = asyncio.Event()

            async def read() -> None:
                async for _ in reply.chunks():
                    came.set()

            task = asyncio.create_task(read())
            await came.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            await reply.aclose()
            reply = await pool.get(server.url(), {})
            text = await reply.read_error_body()
            await reply.aclose()
            return text

        try:
            assert with_engine(work) == b"hello"
        finally:
            over.set()


LARGE = random.Random(2).randbytes(LARGE_READS_AFTER_BYTES + 3 * LARGE_READ_BYTES + 5)


def test_a_long_body_is_taken_in_larger_pieces() -> None:
    """Behind its first megabytes a body that comes fast is taken a piece at a time, and is whole."""
    sizes: list[int] = []

    async def work(pool: BlobClient) -> bytes:
        reply = await pool.get(server.url(), {})
        body = bytearray()
        async for chunk in reply.chunks():
            sizes.append(len(chunk))
            body += chunk
        await reply.aclose()
        return bytes(body)

    with serving(answer(LARGE)) as server:
        assert with_engine(work) == LARGE
    assert max(sizes) <= LARGE_READ_BYTES
    assert len(sizes) < len(LARGE) / 16_000


@pytest.mark.parametrize(
    "at", [LARGE_READS_AFTER_BYTES + 1, LARGE_READS_AFTER_BYTES + LARGE_READ_BYTES + 70_000, len(LARGE) - 1]
)
def test_a_long_body_that_breaks_costs_a_piece_at_most(at: int) -> None:
    """What came before the break is given out, but for the piece that was under way."""
    came = bytearray()

    async def work(pool: BlobClient) -> None:
        reply = await pool.get(server.url(), {})
        try:
            async for chunk in reply.chunks():
                came.extend(chunk)
        finally:
            await reply.aclose()

    with serving(cut(LARGE, at)) as server, pytest.raises(Transient):
        with_engine(work)
    assert at - LARGE_READ_BYTES <= len(came) <= at
    assert LARGE.startswith(bytes(came))


# --- whole bodies ---


def read(url: str, most: int, *, ahead: int = 1) -> bytes:
    async def work(pool: BlobClient) -> bytes:
        reply = await pool.get(url, {}, prefetch_bytes=ahead)
        try:
            return await reply.read(most)
        finally:
            await reply.aclose()

    return with_engine(work)


@pytest.mark.parametrize("ahead", [1, 1000, len(DATA) + 1])
@pytest.mark.parametrize("most", [len(DATA), len(DATA) + 1])
def test_a_body_is_read_at_once(most: int, ahead: int) -> None:
    """However much of it is read ahead, a body that is not longer than it may be is whole."""
    with serving(answer(DATA)) as server:
        assert read(server.url(), most, ahead=ahead) == DATA


def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    """Of a longer one comes as much as shows that it is, and little more."""
    with serving(answer(LARGE)) as server:
        body = read(server.url(), 1000, ahead=1001)
    assert 1000 < len(body) < 1_000_000
    assert LARGE.startswith(body)


@pytest.mark.parametrize("ahead", [1, len(DATA) + 1])
@pytest.mark.parametrize("at", [0, 1, 400_000])
def test_a_body_that_breaks_is_no_body(at: int, ahead: int) -> None:
    """A body that breaks off is an error, before or while it is read, and shows no signature."""
    with serving(cut(DATA, at)) as server, pytest.raises(Transient) as error:
        read(server.url("/x?sig=SECRET"), len(DATA), ahead=ahead)
    assert silent(error.value)
