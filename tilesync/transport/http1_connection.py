"""HTTP/1.1 connection that sends one request after the other, driven by the event loop."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

_MAX_TLS_RECORD_BYTES: Final = 1 << 14
"""Maximum bytes that one read of a TLS connection returns. Source: RFC 8446, section 5.1."""

_PLAIN_READ_BYTES: Final = 1 << 17
_MAX_HEAD_BYTES: Final = 1 << 15

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_EMPTY_CHUNKED_BODY: Final = b"0\r\n\r\n"
"""Empty body in chunked transfer coding. Source: RFC 9112, section 7.1."""

MAX_ANSWER_BYTES: Final = 1 << 14
"""Maximum bytes of a body whose size is not known before, chunks included: a small document."""

_HEADER_PATTERN: Final = re.compile(
    rb"\r\n(etag|content-length|content-md5|x-ms-blob-content-md5|connection|transfer-encoding)[ \t]*:([^\r\n]*)",
    re.IGNORECASE,
)
"""A header that matters here. Measured: one search for all of them takes 1.7 microseconds, one search for each 7."""

_CHUNK_SIZE_PATTERN: Final = re.compile(rb"[0-9A-Fa-f]{1,4}")


class PoolResponse(NamedTuple):
    """Response with the expected status and body size, and the seconds until its end and until its first byte.

    `md5` is that of the whole body in base64, if the response states it.
    """

    etag: str | None
    body: bytes
    seconds: float
    first_byte_seconds: float = 0.0
    md5: str | None = None


class PendingRequest:
    """Request that waits for a connection or for its response. `expected_size` is None for a small body of any size."""

    __slots__ = ("connection", "expected_size", "expected_status", "index", "is_done", "on_response", "request_bytes")

    def __init__(
        self,
        request_bytes: bytes,
        expected_size: int | None,
        on_response: Callable[[int, PoolResponse | None], None],
        *,
        index: int = 0,
        expected_status: bytes = b"200",
    ) -> None:
        self.request_bytes = request_bytes
        self.index = index
        self.expected_size = expected_size
        self.expected_status = expected_status
        self.on_response = on_response
        self.connection: Http1Connection | None = None
        self.is_done = False

    def finish(self, response: PoolResponse | None) -> None:
        """Report the response, once; None stands for a failure and for any unexpected response."""
        if not self.is_done:
            self.is_done = True
            self.on_response(self.index, response)


class PoolCallbacks(Protocol):
    """Pool that owns the connections and the requests that wait for one.

    A Protocol, because the pool imports its connections.
    """

    def release(self, connection: Http1Connection) -> None:
        """Return an idle connection to the pool."""

    def remove(self, connection: Http1Connection) -> None:
        """Forget a closed connection."""

    def requeue(self, request: PendingRequest) -> None:
        """Put a request that was not answered back at the front of the queue."""

    def dispatch(self) -> None:
        """Send waiting requests over idle connections, and open more connections if needed."""


class Http1Connection:
    """HTTP/1.1 connection that handles one request at a time."""

    def __init__(self, sock: socket.socket, pool: PoolCallbacks) -> None:
        self._socket = sock
        self._tls_socket = sock if isinstance(sock, ssl.SSLSocket) else None
        self._read_bytes = _PLAIN_READ_BYTES if self._tls_socket is None else _MAX_TLS_RECORD_BYTES
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._request: PendingRequest | None = None
        self._can_resend = False
        self.may_be_stale = False
        """True if the server may have closed it unnoticed before the next request."""
        self._head = b""
        self._parts: list[bytes] = []
        self._expected_bytes = 0
        self._remaining_bytes = 0
        self._unsent = memoryview(b"")
        self._etag: str | None = None
        self._md5: str | None = None
        self._keep_alive = True
        self._is_chunked = False
        self._started_at = self._first_byte_seconds = 0.0
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """Return the TLS session for other connections to the host; None before the first response, and without TLS."""
        return self._tls_socket.session if self._tls_socket is not None and self.may_be_stale else None

    def send(self, request: PendingRequest) -> bool:
        """Send a request. Return False if the connection was already closed: then use another one."""
        self._request, request.connection = request, self
        self._remaining_bytes = -1
        self._can_resend, self.may_be_stale = self.may_be_stale, True
        self._started_at = self._loop.time()
        self._unsent = memoryview(request.request_bytes)
        return self._flush() or self._close_broken() is None

    def _flush(self) -> bool:
        """Send as much as possible without waiting. Return False if the connection failed."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except _WOULD_BLOCK:
            self._loop.add_writer(self._socket.fileno(), self._on_writable)
        except OSError:
            return False
        return True

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        if not self._flush():
            self._handle_disconnect()

    def _on_readable(self) -> None:
        try:
            while (data := self._socket.recv(self._read_bytes)) and self._request is not None:
                if self._parse_response(self._request, data):
                    return
        except OSError as error:
            if isinstance(error, _WOULD_BLOCK):
                return
        self._handle_disconnect()

    def _handle_disconnect(self) -> None:
        if (unanswered := self._close_broken()) is not None:
            self._pool.requeue(unanswered)
        self._pool.dispatch()

    def _parse_response(self, request: PendingRequest, data: bytes) -> bool:
        """Parse more bytes of the response. Return whether it is complete."""
        if self._remaining_bytes < 0:
            self._head = data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if end < 0 and len(data) <= _MAX_HEAD_BYTES:
                return False
            has_head = 0 <= end <= _MAX_HEAD_BYTES and not self._unsent
            expected = self._parse_head(data[:end], request) if has_head else None
            if expected is None:
                self._complete_request(request, None)
                return True
            self._first_byte_seconds = self._loop.time() - self._started_at
            self._parts, self._remaining_bytes = [], expected
            self._expected_bytes = expected
            data = data[end + 4 :]
        self._parts.append(data)
        self._remaining_bytes -= len(data)
        if self._is_chunked:
            return self._parse_chunks(request, b"".join(self._parts))
        if self._remaining_bytes > 0:
            return False
        if self._remaining_bytes < 0 or (self._tls_socket is not None and self._tls_socket.pending()):
            self._keep_alive = False  # bytes after the body belong to no request
        body = data if len(self._parts) == 1 else b"".join(self._parts)
        if len(body) > self._expected_bytes:
            body = body[: self._expected_bytes]
        if request.expected_size not in {None, self._expected_bytes} and body != _EMPTY_CHUNKED_BODY:
            self._complete_request(request, None)
            return True
        self._complete_with_body(request, b"" if request.expected_size == 0 else body)
        return True

    def _parse_chunks(self, request: PendingRequest, data: bytes) -> bool:
        """Parse the chunks that have come. Return whether they are complete, or not as expected."""
        try:
            body = _decode_chunks(data)
        except ValueError:
            self._complete_request(request, None)
            return True
        if body is None:
            return False
        self._complete_with_body(request, body)
        return True

    def _complete_with_body(self, request: PendingRequest, body: bytes) -> None:
        seconds = self._loop.time() - self._started_at
        response = PoolResponse(self._etag, body, seconds, self._first_byte_seconds, self._md5)
        self._complete_request(request, response)

    def _parse_head(self, head: bytes, request: PendingRequest) -> int | None:
        """Return the bytes that follow the head, if the body has the expected size; None for any other response.

        Source: RFC 9112, sections 4 to 7 and 9.3.
        """
        headers = _find_headers(head)
        self._etag = _decode_header(headers.get(b"etag"))
        self._md5 = _decode_header(headers.get(b"x-ms-blob-content-md5", headers.get(b"content-md5")))
        self._keep_alive = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        line_ends = head.count(b"\r\n")
        if not head.startswith(b"HTTP/1.1 " + request.expected_status) or head.count(b"\n") != line_ends:
            return None
        self._is_chunked = False
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if request.expected_size is None:
            return self._parse_answer_head(length, coding)
        if coding is not None:
            is_empty = not request.expected_size and coding.lower() == b"chunked"
            return len(_EMPTY_CHUNKED_BODY) if is_empty and length is None else None
        return request.expected_size if length == b"%d" % request.expected_size else None

    def _parse_answer_head(self, length: bytes | None, coding: bytes | None) -> int | None:
        """Return the size of a body whose size was not known before, or the largest for one in chunks."""
        if coding is not None and coding.lower() == b"chunked" and length is None:
            self._is_chunked = True
            return MAX_ANSWER_BYTES
        if coding is not None or length is None or not length.isdigit() or len(length) > 5:
            return None
        return int(length) if int(length) <= MAX_ANSWER_BYTES else None

    def _complete_request(self, request: PendingRequest, response: PoolResponse | None) -> None:
        """Reuse or close the connection, and report the response after the next request is sent."""
        self._request, self._head, self._parts = None, b"", []
        if response is None or not self._keep_alive:
            self.close()
        else:
            self._pool.release(self)
        self._pool.dispatch()
        request.finish(response)

    def _close_broken(self) -> PendingRequest | None:
        """Close a failed connection. Return its request if it can be sent again over another one.

        That is so if the connection was reused and no byte of a response came: the server had closed it before.
        """
        request, self._request = self._request, None
        self.close()
        if request is not None and self._can_resend and not self._head:
            return request
        if request is not None:
            request.finish(None)
        return None

    def close(self) -> None:
        """Close the connection, and report its request as failed. May be called twice."""
        request, self._request = self._request, None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._pool.remove(self)
        if request is not None:
            request.finish(None)


def _decode_chunks(data: bytes) -> bytes | None:
    """Return the body of complete chunks; None if more of them must come.

    Raises ValueError for anything else, also for trailers and for bytes after the body. Source: RFC 9112, section 7.1.
    """
    if len(data) > MAX_ANSWER_BYTES:
        raise ValueError("a large body")
    parts, start = list[bytes](), 0
    while (end := data.find(b"\r\n", start)) >= 0:
        if not _CHUNK_SIZE_PATTERN.fullmatch(data, start, end):
            raise ValueError("not the size of a small chunk")
        size, start = int(data[start:end], 16), end + 2
        after = data[start + size : start + size + 2]
        if not b"\r\n".startswith(after):
            raise ValueError("no end of the chunk where its size says")
        if len(after) < 2:
            break
        parts.append(data[start : start + size])
        start += size + 2
        if not size:
            if start < len(data):
                raise ValueError("bytes after the body")
            return b"".join(parts)
    return None


def _decode_header(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _find_headers(head: bytes) -> dict[bytes, bytes]:
    """Return the values of the headers that matter, by name in lower case.

    A value is b"" if the header occurs twice: then none can be trusted.
    """
    headers = dict[bytes, bytes]()
    for name, value in _HEADER_PATTERN.findall(head):
        name = name.lower()
        headers[name] = b"" if name in headers else value.strip(b" \t")
    return headers
