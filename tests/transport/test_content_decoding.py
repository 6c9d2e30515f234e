"""Compressed responses: limits of size, damage, and codings that are not supported."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from typing import Any

import pytest

from tests.support.api_requests import request_failing
from tests.support.http_server import sending
from tilesync.errors import Transient
from tilesync.transport.api_client import MAX_RESPONSE_BYTES
from tilesync.transport.content_decoding import ContentDecoder


def bomb(size: int) -> bytes:
    """Compress so many bytes to some kilobytes."""
    return gzip.compress(bytes(size), mtime=0)


@pytest.mark.scale
def test_gzip_bomb() -> None:
    """A gzip bomb uses no more memory than the largest response."""
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


def test_unsupported_content_coding() -> None:
    """The API client requests no content coding; an unsupported one is a failure."""
    seen = []

    def handle(request: Any) -> None:
        seen.append(request.headers["accept-encoding"])
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx")

    error, _, _ = request_failing(handle, budget=0.0)
    assert seen == ["identity"]
    assert "'br'" in str(error)


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_truncated_content_coding(cut: int) -> None:
    """A truncated compressed response is an error, an empty one is empty."""
    decoder, data = ContentDecoder("gzip"), gzip.compress(b"hello" * 100, mtime=0)[:cut]
    assert b"".join(decoder.feed(data)) == (
        b"hello" * 100 if cut == -1 else b"".join(ContentDecoder("gzip").feed(data))
    )
    if data:
        with pytest.raises(Transient, match="cut off"):
            decoder.finish()
    else:
        decoder.finish()
