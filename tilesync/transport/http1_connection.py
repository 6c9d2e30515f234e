"""A connection that is asked for one body after the other, or given them, by HTTP/1.1, on the loop as they come."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

_MAX_TLS_RECORD_BYTES: Final = 1 << 14
"""Bytes that one read of a secure connection gives at most. Source: RFC 8446, section 5.1."""

_PLAIN_READ_BYTES: Final = 1 << 17
_MAX_HEAD_BYTES: Final = 1 << 15

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_EMPTY_CHUNKED_BODY: Final = b"0\r\n\r\n"
"""A chunked body without any bytes. Source: RFC 9112, section 7.1."""


class PoolResponse(NamedTuple):
    """An answer with the wished status, and a body of the wished size; the seconds it took, and its beginning took.
    `md5` is that of the whole body in base64, where the answer states it.
    """

    etag: str | None
    body: bytes
    seconds: float
    first_byte_seconds: float = 0.0
    md5: str | None = None


class PendingRequest:
    """A wish under way."""

    __slots__ = ("expected_size", "expected_status", "is_done", "connection", "on_response", "request_bytes")

    def __init__(
        self,
        request_bytes: bytes,
        expected_size: int,
        on_response: Callable[[PoolResponse | None], None],
        *,
        expected_status: bytes = b"200",
    ) -> None:
        self.request_bytes = request_bytes
        self.expected_size = expected_size
        self.expected_status = expected_status
        self.on_response = on_response
        self.connection: Http1Connection | None = None
        self.is_done = False

    def finish(self, response: PoolResponse | None) -> None:
        """Tell it, once; None for whatever is not a Reply."""
        if not self.is_done:
            self.is_done = True
            self.on_response(response)


class PoolCallbacks(Protocol):
    """Who has lines, and asks that wait for one."""

    def release(self, connection: Http1Connection) -> None:
        """A line has nothing to do."""

    def remove(self, connection: Http1Connection) -> None:
        """A line is no more."""

    def requeue(self, request: PendingRequest) -> None:
        """It has had its turn, in vain: the next one is its."""

    def dispatch(self) -> None:
        """Lines may be free, or too few."""


class Http1Connection:
    """A connection, one request at a time."""

    def __init__(self, sock: socket.socket, pool: PoolCallbacks) -> None:
        self._socket = sock
        self._tls_socket = sock if isinstance(sock, ssl.SSLSocket) else None
        self._read_bytes = _PLAIN_READ_BYTES if self._tls_socket is None else _MAX_TLS_RECORD_BYTES
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._request: PendingRequest | None = None
        self._can_resend = False
        self.may_be_stale = False
        """Whether it may have ended unseen, when it is asked the next time."""
        self._head = b""
        self._parts: list[bytes] = []
        self._expected_bytes = 0
        self._remaining_bytes = 0
        self._unsent = memoryview(b"")
        self._etag: str | None = None
        self._md5: str | None = None
        self._keep_alive = True
        self._started_at = self._first_byte_seconds = 0.0
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """What another connection to the same host can go on with; None before an answer came, and without TLS."""
        return self._tls_socket.session if self._tls_socket is not None and self.may_be_stale else None

    def send(self, request: PendingRequest) -> bool:
        """Ask; False when the connection had ended before, and it is to be asked over another one."""
        self._request, request.connection = request, self
        self._remaining_bytes = -1
        self._can_resend, self.may_be_stale = self.may_be_stale, True
        self._started_at = self._loop.time()
        self._unsent = memoryview(request.request_bytes)
        return self._flush() or self._close_broken() is None

    def _flush(self) -> bool:
        """Send on, as far as goes without waiting; whether the connection bears it."""
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
        if (again := self._close_broken()) is not None:
            self._pool.requeue(again)
        self._pool.dispatch()

    def _parse_response(self, request: PendingRequest, data: bytes) -> bool:
        """Read on; whether that is all of the answer."""
        if self._remaining_bytes < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end and len(head) <= _MAX_HEAD_BYTES:
                return False
            expected = self._parse_head(head, request) if end and not self._unsent else None
            if expected is None:
                self._complete_request(request, None)
                return True
            self._first_byte_seconds = self._loop.time() - self._started_at
            self._parts, self._remaining_bytes = [], expected
            self._expected_bytes = expected
        self._parts.append(data)
        self._remaining_bytes -= len(data)
        if self._remaining_bytes > 0:
            return False
        if self._remaining_bytes < 0 or (self._tls_socket is not None and self._tls_socket.pending()):
            self._keep_alive = False  # what comes behind the body belongs to nothing
        body = b"".join(self._parts)[: self._expected_bytes]
        if self._expected_bytes != request.expected_size and body != _EMPTY_CHUNKED_BODY:
            self._complete_request(request, None)
            return True
        seconds = self._loop.time() - self._started_at
        self._complete_request(
            request,
            PoolResponse(self._etag, body[: request.expected_size], seconds, self._first_byte_seconds, self._md5),
        )
        return True

    def _parse_head(self, head: bytes, request: PendingRequest) -> int | None:
        """How many bytes follow, where that is a body of the wished size; None for any other answer.

        Source: RFC 9112, sections 4 to 7 and 9.3.
        """
        lower = head.lower()
        self._etag = _decode_header(_find_header(head, lower, b"etag"))
        self._md5 = None
        if b"content-md5:" in lower:
            md5 = _find_header(head, lower, b"x-ms-blob-content-md5")
            self._md5 = _decode_header(_find_header(head, lower, b"content-md5") if md5 is None else md5)
        self._keep_alive = _find_header(lower, lower, b"connection") in {None, b"keep-alive"}
        if not head.startswith(b"HTTP/1.1 " + request.expected_status) or lower.count(b"\n") != lower.count(b"\r\n"):
            return None
        if b"transfer-encoding" in lower:
            empty = not request.expected_size and _find_header(lower, lower, b"transfer-encoding") == b"chunked"
            return len(_EMPTY_CHUNKED_BODY) if empty and b"content-length" not in lower else None
        return (
            request.expected_size
            if _find_header(head, lower, b"content-length") == b"%d" % request.expected_size
            else None
        )

    def _complete_request(self, request: PendingRequest, response: PoolResponse | None) -> None:
        """The line is free again, if it can be, and asks for the next, before this answer is told."""
        self._request, self._head, self._parts = None, b"", []
        if response is None or not self._keep_alive:
            self.close()
        else:
            self._pool.release(self)
        self._pool.dispatch()
        request.finish(response)

    def _close_broken(self) -> PendingRequest | None:
        """There is no more to be had of it; what it was asked too late, which others can be asked."""
        ask, self._request = self._request, None
        self.close()
        if ask is not None and self._can_resend and not self._head:
            return ask
        if ask is not None:
            ask.finish(None)
        return None

    def close(self) -> None:
        """End it, and leave what it was asked. May be called twice."""
        ask, self._request = self._request, None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._pool.remove(self)
        if ask is not None:
            ask.finish(None)


def _decode_header(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _find_header(head: bytes, lower: bytes, name: bytes) -> bytes | None:
    """The value of a header, None where it is absent; what stands there twice has no value that anything equals."""
    at = lower.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    begin = at + len(name) + 3
    if lower.find(b"\r\n" + name + b":", begin) >= 0:
        return b""
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else None].strip(b" \t")
