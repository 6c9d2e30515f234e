"""Small bodies by the shortest way: HTTP/1.1 over connections of our own, for all that comes as it should.

A body of some kilobytes costs the bulk engine more in handing over than in bytes. Here a request is one write, an
answer a read or two, and the next request leaves before the answer is looked at. Whatever is not the plain case
(another status, a body of another length, a connection that breaks) is told as such, and left to others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tilesync.errors import UsageError
from tilesync.transport.http1_connect import Dialler
from tilesync.transport.http1_connection import Ask, Line, Reply
from tilesync.transport.tls import roots, user_agent


class Wish(NamedTuple):
    """A body of `size` bytes that is wanted; or, where there is a `body`, one that is to be put there."""

    url: str
    headers: Mapping[str, str]
    size: int = 0
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"Wish({self.size} bytes)"  # the URL is a secret


class _Origin:
    """The connections to one host, and what waits for one of them."""

    def __init__(self, scheme: str, authority: str, context: ssl.SSLContext) -> None:
        try:
            parts = urlsplit(f"{scheme}://{authority}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if scheme not in {"http", "https"} or not host or "@" in authority or not _sendable(authority):
            raise UsageError("not a URL that can be asked")
        secure = scheme == "https"
        self._dialler = Dialler(host, port or (443 if secure else 80), context if secure else None)
        self._idle: list[Line] = []
        self._lines = set[Line]()
        self._opening = 0
        self._tasks = set[asyncio.Task[None]]()
        self._waiting = deque[Ask]()
        self._most = 1
        agent = f"Host: {authority}\r\nUser-Agent: {user_agent()}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        self.head = f" HTTP/1.1\r\n{agent}"

    def allow(self, most: int) -> None:
        """So many connections from now on; those beyond that end when they are free."""
        self._most = most
        while len(self._lines) > most and self._idle:
            self._idle[-1].close()

    def put(self, ask: Ask) -> None:
        """It waits for its turn, which `serve` gives."""
        self._waiting.append(ask)

    def put_back(self, ask: Ask) -> None:
        """It has had its turn, in vain: the next one is its."""
        self._waiting.appendleft(ask)

    def free(self, line: Line) -> None:
        """A connection has nothing to do."""
        if len(self._lines) > self._most:
            line.close()
        else:
            self._idle.append(line)

    def forget(self, line: Line) -> None:
        """A connection is no more."""
        self._lines.discard(line)
        if line in self._idle:
            self._idle.remove(line)

    def serve(self) -> None:
        """Give what waits to the connections that are free, and open more where these are too few."""
        while self._idle and (ask := self._next()) is not None:
            if not self._idle.pop().send(ask):
                self.put_back(ask)
        for _ in range(min(len(self._waiting), self._most - len(self._lines)) - self._opening):
            self._opening += 1
            task = asyncio.create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> Ask | None:
        while self._waiting:
            ask = self._waiting.popleft()
            if not ask.settled:
                return ask
        return None

    async def _open(self) -> None:
        """One more connection; where there is none, and none can be had, nothing waits for one."""
        self._dialler.session = next(filter(None, (line.session for line in self._lines)), self._dialler.session)
        try:
            sock = await self._dialler.dial()
        except OSError:
            self._opening -= 1
            if not self._lines and not self._opening:
                self.give_up()
            return
        self._opening -= 1
        line = Line(sock, self)
        self._lines.add(line)
        self.free(line)
        self.serve()
        line.rested = True

    def give_up(self) -> None:
        """Nothing waits any more."""
        while (ask := self._next()) is not None:
            ask.settle(None)

    def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        for line in tuple(self._lines):
            line.close()
        self.give_up()


class Direct:
    """GETs of small bodies: no redirects, no decoding, no retries, no proxies."""

    def __init__(self) -> None:
        self._context = roots()
        self._context.set_alpn_protocols(["http/1.1"])
        self._origins: dict[tuple[str, str], _Origin] = {}

    async def get(
        self, wishes: Sequence[Wish], hear: Callable[[int, Reply], None], *, at_once: int, within: timedelta
    ) -> None:
        """Tell `hear` each answer by its number as it comes, all within that time; of others nothing is told.

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

        asks = dict[Ask, _Origin]()
        for number, wish in enumerate(wishes):
            origin, request = self._request(wish)
            status = b"200" if wish.body is None else b"201"
            asks[Ask(request, wish.size, partial(tell, number), status=status)] = origin
        try:
            for ask, origin in asks.items():
                origin.put(ask)
            for origin in set(asks.values()):
                origin.allow(at_once)
                origin.serve()
            if wishes:
                await _in_time(everything, within)
        finally:
            late = [ask for ask in asks if not ask.settled]
            for ask in late:
                ask.settled = True
                if ask.line is not None:
                    ask.line.close()
            for origin in {asks[ask] for ask in late}:
                origin.serve()

    def _request(self, wish: Wish) -> tuple[_Origin, bytes]:
        scheme, _, rest = wish.url.partition("://")
        authority, _, path = rest.partition("/")
        origin = self._origins.get((scheme, authority))
        if origin is None:
            origin = self._origins[scheme, authority] = _Origin(scheme, authority, self._context)
        lines = [f"{name}: {value}\r\n" for name, value in wish.headers.items()]
        if " " in path or not _sendable(path) or not all(map(_sendable, wish.headers.values())):
            raise UsageError("not a URL, or not a header, that can be sent")
        if wish.body is None:
            return origin, f"GET /{path}{origin.head}{''.join(lines)}\r\n".encode()
        lines.append(f"Content-Length: {len(wish.body)}\r\n")
        return origin, f"PUT /{path}{origin.head}{''.join(lines)}\r\n".encode() + wish.body

    def close(self) -> None:
        """End every connection."""
        for origin in self._origins.values():
            origin.close()


async def _in_time(everything: asyncio.Future[None], within: timedelta) -> None:
    limit = asyncio.timeout(within.total_seconds())
    try:
        async with limit:
            await everything
    except TimeoutError:
        if not limit.expired():
            raise


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
