"""Small bodies by the shortest way: HTTP/1.1 over connections of our own, for all that comes as it should.

A body of some kilobytes costs the bulk engine more in handing over than in bytes. Here a request is one write, an
answer a read or two, and the next request leaves before the answer is looked at. Whatever is not the plain case
(another status, a body of another length, a connection that breaks) is told as such, and left to others.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.errors import UsageError
from tilesync.wire.trust import roots, user_agent

_RECORD: Final = 1 << 14
"""Bytes that one read of a secure connection gives at most. Source: RFC 8446, section 5.1."""

_READ: Final = 1 << 17
_LONGEST_HEAD: Final = 1 << 15

_NOT_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)


class Wish(NamedTuple):
    """A body of `size` bytes that is wanted."""

    url: str
    headers: Mapping[str, str]
    size: int


class Reply(NamedTuple):
    """An answer of status 200 with a body of the wished size, and the seconds that it took."""

    etag: str | None
    body: bytes
    seconds: float


class _Ask:
    """A wish under way; settled once, with None for whatever is not a Reply."""

    __slots__ = ("line", "request", "settled", "size", "tell")

    def __init__(self, request: bytes, size: int, tell: Callable[[Reply | None], None]) -> None:
        self.request = request
        self.size = size
        self.tell = tell
        self.line: _Line | None = None
        self.settled = False

    def settle(self, reply: Reply | None) -> None:
        if not self.settled:
            self.settled = True
            self.tell(reply)


class _Line:
    """A connection, one request at a time. What it is done with, and how, the origin hears."""

    def __init__(self, sock: socket.socket, origin: _Origin) -> None:
        self._socket = sock
        self._secure = sock if isinstance(sock, ssl.SSLSocket) else None
        self._most = _READ if self._secure is None else _RECORD
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._ask: _Ask | None = None
        self._used = False
        self._head = b""
        self._parts: list[bytes] = []
        self._left = 0
        self._etag: str | None = None
        self._keeps = True
        self._began = 0.0
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, ask: _Ask) -> None:
        """Ask; the answer is read as it comes."""
        self._ask, ask.line = ask, self
        self._head, self._left = b"", -1
        self._began = self._loop.time()
        try:
            whole = self._socket.send(ask.request) == len(ask.request)
        except OSError:
            whole = False
        if not whole:
            self._break()

    def _readable(self) -> None:
        try:
            while True:
                data = self._socket.recv(self._most)
                if not data or self._ask is None:
                    return self._break()
                if self._take(self._ask, data):
                    return None
        except _NOT_YET:
            return None
        except OSError:
            return self._break()

    def _take(self, ask: _Ask, data: bytes) -> bool:
        """Take in the next bytes; whether that is all."""
        if self._left < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end and len(head) <= _LONGEST_HEAD:
                return False
            if not end or not self._expects(head, ask.size):
                self._done(ask, None)
                return True
            self._parts, self._left = [], ask.size
        self._parts.append(data)
        self._left -= len(data)
        if self._left > 0:
            return False
        if self._left < 0 or (self._secure is not None and self._secure.pending()):
            self._keeps = False  # what comes behind the body belongs to nothing
        body = b"".join(self._parts)[: ask.size]
        self._done(ask, Reply(self._etag, body, self._loop.time() - self._began))
        return True

    def _expects(self, head: bytes, size: int) -> bool:
        """Whether what follows is a body of that size. Source: RFC 9112, sections 4 to 6 and 9.3."""
        lower = head.lower()
        etag = _field(head, lower, b"etag")
        self._etag = None if etag is None else etag.decode("latin-1")
        self._keeps = b"close" not in (_field(lower, lower, b"connection") or b"")
        plain = head.startswith(b"HTTP/1.1 200") and b"\r\ntransfer-encoding:" not in lower
        return plain and _field(head, lower, b"content-length") == b"%d" % size

    def _done(self, ask: _Ask, reply: Reply | None) -> None:
        """The line is free again, if it can be, before the answer is told."""
        self._ask, self._parts, self._used = None, [], True
        if reply is None or not self._keeps:
            self.close()
        else:
            self._origin.free(self)
        ask.settle(reply)

    def _break(self) -> None:
        ask, self._ask = self._ask, None
        silent = self._used and not self._head
        self.close()
        if ask is not None and silent:
            self._origin.put(ask)  # it had ended before it was asked
        elif ask is not None:
            ask.settle(None)

    def close(self) -> None:
        """End it. May be called twice."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._origin.lost(self)


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


class _Origin:
    """The connections to one host, and what waits for one of them."""

    def __init__(self, scheme: str, authority: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(f"{scheme}://{authority}")
        if scheme not in {"http", "https"} or not parts.hostname or "@" in authority or not _sendable(authority):
            raise UsageError("not a URL that can be asked")
        self._host = parts.hostname
        self._port = parts.port or (443 if scheme == "https" else 80)
        self._context = context if scheme == "https" else None
        self._addresses: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
        self._idle: list[_Line] = []
        self._lines = set[_Line]()
        self._opening = set[asyncio.Task[None]]()
        self._waiting = deque[_Ask]()
        agent = f"Host: {authority}\r\nUser-Agent: {user_agent()}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        self.head = f" HTTP/1.1\r\n{agent}"
        self.most = 1
        """Connections at once."""

    def put(self, ask: _Ask) -> None:
        """Send it now, or as soon as a connection is free."""
        if self._idle:
            self._idle.pop().send(ask)
            return
        self._waiting.append(ask)
        if len(self._lines) + len(self._opening) < self.most:
            opening = asyncio.create_task(self._open())
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    def free(self, line: _Line) -> None:
        """A connection has nothing to do."""
        ask = self._next()
        if ask is not None:
            line.send(ask)
        elif len(self._lines) > self.most:
            line.close()
        else:
            self._idle.append(line)

    def lost(self, line: _Line) -> None:
        """A connection is no more."""
        self._lines.discard(line)
        with suppress(ValueError):
            self._idle.remove(line)
        if self._waiting and not self._lines and not self._opening and (ask := self._next()):
            self.put(ask)

    def _next(self) -> _Ask | None:
        while self._waiting:
            ask = self._waiting.popleft()
            if not ask.settled:
                return ask
        return None

    async def _open(self) -> None:
        """One more connection; where there is none, and none can be had, nothing waits for one."""
        try:
            line = _Line(await self._dial(), self)
        except OSError:
            self._addresses = []
            while not self._lines and (ask := self._next()) is not None:
                ask.settle(None)
        else:
            self._lines.add(line)
            self.free(line)

    async def _dial(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        if not self._addresses:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
        last: OSError | None = None
        for family, address in self._addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, address)
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_hostname=self._host, do_handshake_on_connect=False)
                    await _shake_hands(sock)
            except OSError as error:
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last or OSError("no address")

    def close(self) -> None:
        """End every connection."""
        self._waiting.clear()
        for opening in self._opening:
            opening.cancel()
        for line in tuple(self._lines):
            line.close()


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with suppress(ssl.SSLWantReadError):
            sock.do_handshake()
            return
        more = loop.create_future()
        loop.add_reader(sock.fileno(), more.set_result, None)
        try:
            await more
        finally:
            loop.remove_reader(sock.fileno())


class Direct:
    """GETs of small bodies: no redirects, no decoding, no retries, no proxies."""

    def __init__(self) -> None:
        self._context = roots()
        self._context.set_alpn_protocols(["http/1.1"])
        self._origins: dict[tuple[str, str], _Origin] = {}

    async def get(
        self, wishes: Sequence[Wish], hear: Callable[[int, Reply], None], *, at_once: int, within: float
    ) -> None:
        """Tell `hear` each answer by its number as it comes, all within so many seconds; of others nothing is told.

        Over `at_once` connections to one host, shared by all who ask. Raises UsageError for what is no URL, and what
        `hear` raises.
        """
        everything: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(wishes)

        def tell(number: int, reply: Reply | None) -> None:
            nonlocal left
            left -= 1
            try:
                if reply is not None:
                    hear(number, reply)
            except Exception as error:  # noqa: BLE001 - of the one who waits, not of the loop that reads
                if not everything.done():
                    everything.set_exception(error)
            if not left and not everything.done():
                everything.set_result(None)

        requests = [self._request(wish) for wish in wishes]
        asks = []
        for number, (origin, request) in enumerate(requests):
            origin.most = at_once
            asks.append(_Ask(request, wishes[number].size, partial(tell, number)))
            origin.put(asks[-1])
        try:
            if wishes:
                with suppress(TimeoutError):
                    await asyncio.wait_for(everything, within)
        finally:
            for ask in asks:
                if not ask.settled:
                    ask.settled = True
                    if ask.line is not None:
                        ask.line.close()

    def _request(self, wish: Wish) -> tuple[_Origin, bytes]:
        scheme, _, rest = wish.url.partition("://")
        authority, _, path = rest.partition("/")
        origin = self._origins.get((scheme, authority))
        if origin is None:
            origin = self._origins[scheme, authority] = _Origin(scheme, authority, self._context)
        lines = [f"{name}: {value}\r\n" for name, value in wish.headers.items()]
        if " " in path or not _sendable(path) or not all(map(_sendable, wish.headers.values())):
            raise UsageError("not a URL, or not a header, that can be sent")
        return origin, f"GET /{path}{origin.head}{''.join(lines)}\r\n".encode()

    def close(self) -> None:
        """End every connection."""
        for origin in self._origins.values():
            origin.close()


def _sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


@asynccontextmanager
async def direct() -> AsyncIterator[Direct]:
    """A pool for as long as the context is open, with the authorities of SSL_CERT_FILE or of the system."""
    pool = Direct()
    try:
        yield pool
    finally:
        pool.close()
