"""A connection that is asked for one body after the other, or given them, by HTTP/1.1, on the loop as they come."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

_RECORD: Final = 1 << 14
"""Bytes that one read of a secure connection gives at most. Source: RFC 8446, section 5.1."""

_READ: Final = 1 << 17
_LONGEST_HEAD: Final = 1 << 15

_NOT_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_END: Final = b"0\r\n\r\n"
"""A chunked body without any bytes. Source: RFC 9112, section 7.1."""


class Reply(NamedTuple):
    """An answer with the wished status, and a body of the wished size; the seconds it took, and its beginning took.
    `md5` is that of the whole body in base64, where the answer states it.
    """

    etag: str | None
    body: bytes
    seconds: float
    first: float = 0.0
    md5: str | None = None


class Ask:
    """A wish under way."""

    __slots__ = ("line", "request", "settled", "size", "status", "tell")

    def __init__(
        self, request: bytes, size: int, tell: Callable[[Reply | None], None], *, status: bytes = b"200"
    ) -> None:
        self.request = request
        self.size = size
        self.status = status
        self.tell = tell
        self.line: Line | None = None
        self.settled = False

    def settle(self, reply: Reply | None) -> None:
        """Tell it, once; None for whatever is not a Reply."""
        if not self.settled:
            self.settled = True
            self.tell(reply)


class Owner(Protocol):
    """Who has lines, and asks that wait for one."""

    def free(self, line: Line) -> None:
        """A line has nothing to do."""

    def forget(self, line: Line) -> None:
        """A line is no more."""

    def put_back(self, ask: Ask) -> None:
        """It has had its turn, in vain: the next one is its."""

    def serve(self) -> None:
        """Lines may be free, or too few."""


class Line:
    """A connection, one request at a time."""

    def __init__(self, sock: socket.socket, owner: Owner) -> None:
        self._socket = sock
        self._secure = sock if isinstance(sock, ssl.SSLSocket) else None
        self._piece = _READ if self._secure is None else _RECORD
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._ask: Ask | None = None
        self._late = False
        self.rested = False
        """Whether it may have ended unseen, when it is asked the next time."""
        self._head = b""
        self._parts: list[bytes] = []
        self._expected = 0
        self._left = 0
        self._unsent = memoryview(b"")
        self._etag: str | None = None
        self._md5: str | None = None
        self._keeps = True
        self._began = self._first = 0.0
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def session(self) -> ssl.SSLSession | None:
        """What another connection to the same host can go on with; None before an answer came, and without TLS."""
        return self._secure.session if self._secure is not None and self.rested else None

    def send(self, ask: Ask) -> bool:
        """Ask; False when the connection had ended before, and it is to be asked over another one."""
        self._ask, ask.line = ask, self
        self._left = -1
        self._late, self.rested = self.rested, True
        self._began = self._loop.time()
        self._unsent = memoryview(ask.request)
        return self._write() or self._broken() is None

    def _write(self) -> bool:
        """Send on, as far as goes without waiting; whether the connection bears it."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except _NOT_YET:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        except OSError:
            return False
        return True

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        if not self._write():
            self._give_up()

    def _readable(self) -> None:
        try:
            while (data := self._socket.recv(self._piece)) and self._ask is not None:
                if self._take_in(self._ask, data):
                    return
        except OSError as error:
            if isinstance(error, _NOT_YET):
                return
        self._give_up()

    def _give_up(self) -> None:
        if (again := self._broken()) is not None:
            self._owner.put_back(again)
        self._owner.serve()

    def _take_in(self, ask: Ask, data: bytes) -> bool:
        """Read on; whether that is all of the answer."""
        if self._left < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end and len(head) <= _LONGEST_HEAD:
                return False
            expected = self._expects(head, ask) if end and not self._unsent else None
            if expected is None:
                self._answered(ask, None)
                return True
            self._first = self._loop.time() - self._began
            self._parts, self._left = [], expected
            self._expected = expected
        self._parts.append(data)
        self._left -= len(data)
        if self._left > 0:
            return False
        if self._left < 0 or (self._secure is not None and self._secure.pending()):
            self._keeps = False  # what comes behind the body belongs to nothing
        body = b"".join(self._parts)[: self._expected]
        if self._expected != ask.size and body != _END:
            self._answered(ask, None)
            return True
        seconds = self._loop.time() - self._began
        self._answered(ask, Reply(self._etag, body[: ask.size], seconds, self._first, self._md5))
        return True

    def _expects(self, head: bytes, ask: Ask) -> int | None:
        """How many bytes follow, where that is a body of the wished size; None for any other answer.

        Source: RFC 9112, sections 4 to 7 and 9.3.
        """
        lower = head.lower()
        self._etag = _text(_field(head, lower, b"etag"))
        self._md5 = None
        if b"content-md5:" in lower:
            md5 = _field(head, lower, b"x-ms-blob-content-md5")
            self._md5 = _text(_field(head, lower, b"content-md5") if md5 is None else md5)
        self._keeps = _field(lower, lower, b"connection") in {None, b"keep-alive"}
        if not head.startswith(b"HTTP/1.1 " + ask.status) or lower.count(b"\n") != lower.count(b"\r\n"):
            return None
        if b"transfer-encoding" in lower:
            empty = not ask.size and _field(lower, lower, b"transfer-encoding") == b"chunked"
            return len(_END) if empty and b"content-length" not in lower else None
        return ask.size if _field(head, lower, b"content-length") == b"%d" % ask.size else None

    def _answered(self, ask: Ask, reply: Reply | None) -> None:
        """The line is free again, if it can be, and asks for the next, before this answer is told."""
        self._ask, self._head, self._parts = None, b"", []
        if reply is None or not self._keeps:
            self.close()
        else:
            self._owner.free(self)
        self._owner.serve()
        ask.settle(reply)

    def _broken(self) -> Ask | None:
        """There is no more to be had of it; what it was asked too late, which others can be asked."""
        ask, self._ask = self._ask, None
        self.close()
        if ask is not None and self._late and not self._head:
            return ask
        if ask is not None:
            ask.settle(None)
        return None

    def close(self) -> None:
        """End it, and leave what it was asked. May be called twice."""
        ask, self._ask = self._ask, None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._owner.forget(self)
        if ask is not None:
            ask.settle(None)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _field(head: bytes, lower: bytes, name: bytes) -> bytes | None:
    """The value of a header, None where it is absent; what stands there twice has no value that anything equals."""
    at = lower.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    begin = at + len(name) + 3
    if lower.find(b"\r\n" + name + b":", begin) >= 0:
        return b""
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else None].strip(b" \t")
