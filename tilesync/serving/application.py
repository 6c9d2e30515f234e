"""The ASGI application: admit a request, answer it with a file of a tileset, or pass it to the site."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from math import ceil
from time import monotonic
from typing import Any, Final

from tilesync.errors import ExportReplaced, TilesyncError, Transient, Unavailable, UsageError
from tilesync.events import RequestServed, Warned
from tilesync.model.storage import ObjectHeaders
from tilesync.protocols import Observer
from tilesync.serving.access import CorsPolicy, HeaderList, TokenGuard
from tilesync.serving.conditions import Selection, format_date, select_bytes
from tilesync.serving.request_path import decode_path
from tilesync.serving.tilesets import FileFacts, ServedFile, ServedTileset

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

SITE_PREFIX: Final = b"/_tilesync/"
RETRY_AFTER_S: Final = 2
"""Seconds after which a client should try again, if the place that does not answer names none."""

_STATUS_BY_ERROR: Final[Mapping[type, HTTPStatus]] = {
    Transient: HTTPStatus.SERVICE_UNAVAILABLE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ExportReplaced: HTTPStatus.GONE,
    UsageError: HTTPStatus.NOT_FOUND,
    TilesyncError: HTTPStatus.BAD_GATEWAY,
}
"""Statuses of errors, which hold for their subclasses too."""

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PAGE_FILE: Final = re.compile(rb"/(?:_tilesync/[A-Za-z_]+\.(?:css|js|txt|wasm))?")


def is_page(raw_path: bytes) -> bool:
    """Return whether a path is the viewer page or a file of it. They have no secrets, and ask for the token."""
    return _PAGE_FILE.fullmatch(raw_path) is not None


class ServedSite:
    """The tilesets of a server by their names. One alone is at the root, several are each below its name."""

    def __init__(self, tilesets: Mapping[str, ServedTileset]) -> None:
        self.tilesets = tilesets
        self._only = next(iter(tilesets.values())) if len(tilesets) == 1 else None

    def base(self, name: str) -> str:
        """Return the path that a tileset is below: empty, or its name and a slash."""
        return "" if self._only is not None else f"{name}/"

    def find(self, path: str) -> tuple[ServedTileset, str] | None:
        """Return the tileset of a path, and the rest of the path; None if there is none."""
        if self._only is not None:
            return self._only, path
        name, _, rest = path.partition("/")
        tileset = self.tilesets.get(name)
        return (tileset, rest) if tileset is not None and rest else None


class _Exchange:
    """A request and its answer: sends the parts of the answer, and counts them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, cors: CorsPolicy, *, is_private: bool) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.is_private = is_private
        self._extra = cors.response_headers(self.headers.get(b"origin"))
        self.status = 0
        self.sent_bytes = 0
        self.cache: str | None = None
        self.failure = ""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a part of an answer that another application makes, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._extra, _NO_SNIFF]}
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)

    async def start(self, status: int, headers: HeaderList) -> None:
        """Send status and headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers + self._extra})

    async def write(self, data: bytes, *, more: bool = False) -> None:
        """Send bytes of the body; the last ones if not `more`."""
        if self.method != "HEAD":
            self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def refuse(self, status: int, sentence: str, more: HeaderList | None = None) -> None:
        """Answer with an error: a sentence for people, and below `/_tilesync/` a JSON document."""
        is_document = self.scope["raw_path"].startswith(SITE_PREFIX)
        body = (json.dumps({"error": sentence, "hint": ""}) if is_document else f"{sentence}\n").encode()
        await self.start(
            status,
            [
                (b"content-type", b"application/json" if is_document else b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                _NO_SNIFF,
                *(more or ()),
            ],
        )
        await self.write(body)

    async def wait_until_disconnected(self) -> None:
        """Wait until the client disconnects."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_SCRIPTS: Final = (b"content-security-policy", b"sandbox; default-src 'none'")
"""A page among the files of a foreign package gets no rights on the origin of the viewer. Tiles need none."""


class TilesetApplication:
    """ASGI application for the files of tilesets.

    `site`: the application for `/` and what is below `/_tilesync/`. `observe` gets warnings, and with `every_request`
    an event for each request.
    """

    def __init__(
        self,
        served: ServedSite,
        site: AsgiApplication,
        *,
        guard: TokenGuard,
        cors: CorsPolicy,
        observe: Observer,
        every_request: bool = False,
    ) -> None:
        self._served = served
        self._site = site
        self._guard = guard
        self._cors = cors
        self._observe = observe
        self._every_request = every_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = monotonic()
        exchange = _Exchange(scope, receive, send, self._cors, is_private=bool(self._guard.token))
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            await _report_stop(exchange)
            raise
        except Exception as error:  # noqa: BLE001 - last handler: a bug ends one answer, not the server
            await self._report_bug(exchange, error)
        finally:
            if self._every_request:
                self._observe(_describe(exchange, monotonic() - began))

    async def _report_bug(self, exchange: _Exchange, error: Exception) -> None:
        """Warn of an error that nobody expected; answer with 500 unless the answer has begun."""
        exchange.failure = f"{type(error).__name__}: {error}"
        path = exchange.scope["raw_path"].decode("latin-1")
        self._observe(Warned(f"the answer to {path} failed: {exchange.failure}; please report this bug in tilesync"))
        if not exchange.status:
            await exchange.refuse(500, "this is a bug in tilesync; its terminal says more")

    async def _answer(self, exchange: _Exchange) -> None:
        if exchange.method not in _METHODS:
            await exchange.refuse(405, "only GET and HEAD are possible here", [(b"allow", b"GET, HEAD, OPTIONS")])
        elif exchange.method == "OPTIONS":
            await exchange.start(204, self._cors.preflight_headers(exchange.headers))
            await exchange.write(b"")
        elif not is_page(exchange.scope["raw_path"]) and not self._guard.admits(
            exchange.headers, exchange.scope["query_string"]
        ):
            await exchange.refuse(
                401, "this server needs its token: add ?token=… to the address", [(b"www-authenticate", b"Bearer")]
            )
        elif (raw_path := exchange.scope["raw_path"]) == b"/" or raw_path.startswith(SITE_PREFIX):
            await self._site(exchange.scope, exchange.receive, exchange.send)
        else:
            await self._answer_with_file(exchange, raw_path)

    async def _answer_with_file(self, exchange: _Exchange, raw_path: bytes) -> None:
        path = decode_path(raw_path)
        found = self._served.find(path) if path is not None else None
        try:
            file = await found[0].open(found[1]) if found is not None else None
        except TilesyncError as error:
            await refuse_failed(exchange, error)
            return
        if file is None:
            await exchange.refuse(404, "there is no such file here")
            return
        try:
            await _send_file(exchange, file)
        finally:
            await file.aclose()


async def _report_stop(exchange: _Exchange) -> None:
    """Answer with 503 unless the answer has begun: only the end of the server cancels answers."""
    exchange.failure = "the server is stopping"
    if not exchange.status:
        await exchange.refuse(
            HTTPStatus.SERVICE_UNAVAILABLE, exchange.failure, [(b"retry-after", str(RETRY_AFTER_S).encode())]
        )


async def refuse_failed(exchange: _Exchange, error: TilesyncError) -> None:
    """Answer for a place that failed: its sentence and hint."""
    exchange.failure = str(error)
    hint = find_own_hint(error)
    sentence = f"{error}\n{hint}" if hint else str(error)
    status, headers = classify_failure(error)
    await exchange.refuse(status, sentence, headers)


def find_own_hint(error: TilesyncError) -> str:
    """Return the hint, unless it is the default of its class, which is for the person who runs a command."""
    return "" if error.hint == error.default_hint else error.hint


def classify_failure(error: TilesyncError) -> tuple[int, HeaderList]:
    """Return the status for an error, and further headers."""
    status = next(_STATUS_BY_ERROR[each] for each in type(error).__mro__ if each in _STATUS_BY_ERROR)
    if status != HTTPStatus.SERVICE_UNAVAILABLE:
        return status, []
    seconds = ceil(getattr(error, "retry_after", None) or RETRY_AFTER_S)
    return status, [(b"retry-after", str(seconds).encode())]


async def _send_file(exchange: _Exchange, file: ServedFile) -> None:
    facts, exchange.cache = file.facts, file.cache
    selection = select_bytes(facts, exchange.headers, method=exchange.method)
    headers = _make_headers(facts, selection, is_private=exchange.is_private)
    await exchange.start(selection.status, headers)
    if exchange.method == "HEAD" or selection.start == selection.stop:
        await exchange.write(b"")
    elif (body := file.body) is not None:
        is_whole = selection.stop - selection.start == len(body)
        await exchange.write(body if is_whole else body[selection.start : selection.stop])
    else:
        await _send_chunks(exchange, file, selection)


async def _send_chunks(exchange: _Exchange, file: ServedFile, selection: Selection) -> None:
    """Send a body piece by piece; stop when the client has gone.

    A piece is read only when the client has taken most of those before, so a slow client holds little memory.
    """
    gone = asyncio.ensure_future(exchange.wait_until_disconnected())
    try:
        left = selection.stop - selection.start
        async for chunk in file.chunks(selection.start, selection.stop):
            left -= len(chunk)
            await exchange.write(chunk, more=left > 0)
            if gone.done() or left <= 0:
                return
    except TilesyncError as error:
        exchange.failure = str(error)
        # The answer ends without its last bytes, as for a file that became shorter: the server closes the connection,
        # and the client sees that it is broken.
    finally:
        gone.cancel()


def _make_headers(facts: FileFacts, selection: Selection, *, is_private: bool) -> HeaderList:
    headers = [*_static_headers(facts.headers, is_private=is_private), (b"etag", facts.etag.encode("latin-1"))]
    if facts.last_modified is not None:
        headers.append((b"last-modified", format_date(facts.last_modified)))
    if selection.status == 304:
        return headers
    headers.append((b"content-length", b"%d" % (selection.stop - selection.start)))
    if selection.status == 206:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (selection.start, selection.stop - 1, facts.size)))
    elif selection.status == 416:
        headers.append((b"content-range", b"bytes */%d" % facts.size))
    return headers


def make_private(cache_control: str) -> str:
    """Return a Cache-Control that lets no shared cache store the answer. Source: RFC 9111, section 5.2.2.7."""
    directives = [
        each for each in map(str.strip, cache_control.split(",")) if each.lower() not in {"public", "private"}
    ]
    return ", ".join(["private", *directives])


@lru_cache(512)
def _static_headers(headers: ObjectHeaders, *, is_private: bool) -> HeaderList:
    """Return the headers that all files of a type share. Private: only the browser of the client may store them."""
    found = [(b"content-type", headers.content_type.encode("latin-1", errors="replace"))]
    if headers.content_encoding:
        found.append((b"content-encoding", headers.content_encoding.encode("latin-1", errors="replace")))
    if headers.cache_control:
        text = make_private(headers.cache_control) if is_private else headers.cache_control
        found.append((b"cache-control", text.encode("latin-1", errors="replace")))
    return [*found, (b"accept-ranges", b"bytes"), _NO_SNIFF, _NO_SCRIPTS]


def _describe(exchange: _Exchange, seconds: float) -> RequestServed:
    client = exchange.scope.get("client")
    return RequestServed(
        client[0] if client else "",
        exchange.method,
        exchange.scope["raw_path"].decode("latin-1"),
        exchange.status,
        exchange.sent_bytes,
        round(seconds * 1000, 1),
        exchange.cache or "",
        exchange.failure,
    )
